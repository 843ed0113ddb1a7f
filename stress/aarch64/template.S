/* SPDX-License-Identifier: MIT */
/* Pieces of compiled code for AArch64; template.h says what they do. */
#include "asm.h"
#include "stress/template.h"

#define GPR(n) (PP_REGS_GPR + 8 * (n))
#define VEC(n) (PP_REGS_VECTOR + 16 * (n))

/* Tier-0 saves three registers, and spoils them. */
TEMPLATE(head)
    hint    #34                             /* bti c */
    stp     x29, x30, [sp, #-16]!
    mov     x29, sp
    sub     sp, sp, #0, lsl #12
    sub     sp, sp, #0
    TEMPLATE_LABEL(head_frame)
    stp     x19, x20, [x29, #AT_SAVES]
    stur    d8, [x29, #AT_SAVES + 80]
    stur    x0, [x29, #AT_THREAD]
    stur    x1, [x29, #AT_N]
    stur    x2, [x29, #AT_BUFFER]
    stur    x3, [x29, #AT_START]
    stur    x3, [x29, #AT_INNER]
    stur    xzr, [x29, #AT_SUM]
    movz    w9, #0
    movk    w9, #0, lsl #16
    TEMPLATE_LABEL(head_threshold)
    stur    w9, [x29, #AT_COUNTER]
    mov     x19, #0xdead
    mov     x20, #0xbeef
    fmov    d8, x19
TEMPLATE_END(head)

TEMPLATE(tail)
    ldur    x0, [x29, #AT_SUM]
    ldp     x19, x20, [x29, #AT_SAVES]
    ldur    d8, [x29, #AT_SAVES + 80]
    mov     sp, x29
    ldp     x29, x30, [sp], #16
    ret
TEMPLATE_END(tail)

TEMPLATE(save_rest)
    stp     x21, x22, [x29, #AT_SAVES + 16]
    stp     x23, x24, [x29, #AT_SAVES + 32]
    stp     x25, x26, [x29, #AT_SAVES + 48]
    stp     x27, x28, [x29, #AT_SAVES + 64]
    stp     d9, d10, [x29, #AT_SAVES + 88]
    stp     d11, d12, [x29, #AT_SAVES + 104]
    stp     d13, d14, [x29, #AT_SAVES + 120]
    stur    d15, [x29, #AT_SAVES + 136]
TEMPLATE_END(save_rest)

TEMPLATE(restore_rest)
    ldp     x21, x22, [x29, #AT_SAVES + 16]
    ldp     x23, x24, [x29, #AT_SAVES + 32]
    ldp     x25, x26, [x29, #AT_SAVES + 48]
    ldp     x27, x28, [x29, #AT_SAVES + 64]
    ldp     d9, d10, [x29, #AT_SAVES + 88]
    ldp     d11, d12, [x29, #AT_SAVES + 104]
    ldp     d13, d14, [x29, #AT_SAVES + 120]
    ldur    d15, [x29, #AT_SAVES + 136]
TEMPLATE_END(restore_rest)

TEMPLATE(sum)
    ldur    x9, [x29, #AT_N]
    ldur    x10, [x29, #AT_SUM]
    add     x10, x10, x9
    stur    x10, [x29, #AT_SUM]
    subs    x9, x9, #1
    stur    x9, [x29, #AT_N]
    TEMPLATE_LABEL(sum_jump)
    .inst   0x54000001                      /* b.ne */
TEMPLATE_END(sum)

TEMPLATE(sum_body)
    ldur    x9, [x29, #AT_N]
    ldur    x19, [x29, #AT_SUM]
    .irp n, 20, 21, 22, 23, 24, 25, 26, 27, 28
    mov     x\n, #0
    .endr
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    movi    d\n, #0
    .endr
1:
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28
    add     x\n, x\n, x9
    subs    x9, x9, #1
    b.eq    2f
    .endr
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    fmov    d0, x9
    add     d\n, d\n, d0
    subs    x9, x9, #1
    b.eq    2f
    .endr
    b       1b
2:  mov     x0, x19
    .irp n, 20, 21, 22, 23, 24, 25, 26, 27, 28
    add     x0, x0, x\n
    .endr
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    fmov    x9, d\n
    add     x0, x0, x9
    .endr
TEMPLATE_END(sum_body)

TEMPLATE(outer)
    ldur    x9, [x29, #AT_START]
    stur    x9, [x29, #AT_INNER]
TEMPLATE_END(outer)

TEMPLATE(inner)
    ldur    x9, [x29, #AT_N]
    ldur    x10, [x29, #AT_INNER]
    ldur    x11, [x29, #AT_SUM]
    madd    x11, x9, x10, x11
    stur    x11, [x29, #AT_SUM]
    subs    x10, x10, #1
    stur    x10, [x29, #AT_INNER]
    TEMPLATE_LABEL(inner_inner)
    .inst   0x54000001
    subs    x9, x9, #1
    stur    x9, [x29, #AT_N]
    TEMPLATE_LABEL(inner_outer)
    .inst   0x54000001
TEMPLATE_END(inner)

TEMPLATE(inner_body)
    ldur    x20, [x29, #AT_N]
    ldur    x21, [x29, #AT_INNER]
    ldur    x0, [x29, #AT_SUM]
1:  madd    x0, x20, x21, x0
    subs    x21, x21, #1
    b.ne    1b
    ldur    x21, [x29, #AT_START]
    subs    x20, x20, #1
    b.ne    1b
TEMPLATE_END(inner_body)

    .macro  low_gpr instruction, at
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    \instruction x\n, [x16, #\at + GPR(\n)]
    .endr
    .irp n, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28
    \instruction x\n, [x16, #\at + GPR(\n)]
    .endr
    .endm
    .macro  vectors instruction, at
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    \instruction q\n, [x16, #\at + VEC(\n)]
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    \instruction q\n, [x16, #\at + VEC(\n)]
    .endr
    .endm
    .macro  store_all
    ldur    x16, [x29, #AT_BUFFER]
    low_gpr str, BUFFER_OUT
    vectors str, BUFFER_OUT
    mrs     x9, fpcr
    str     w9, [x16, #BUFFER_OUT + PP_REGS_FP_CONTROL]
    .endm

TEMPLATE(load)
    ldur    x16, [x29, #AT_BUFFER]
    ldr     w17, [x16, #BUFFER_IN + PP_REGS_FP_CONTROL]
    msr     fpcr, x17
    vectors ldr, BUFFER_IN
    low_gpr ldr, BUFFER_IN
TEMPLATE_END(load)

TEMPLATE(store)
    store_all
    ldur    x17, [x29, #AT_THREAD]
    mov     x0, x16
    mov     x1, #0
    ldr     x15, [x16, #BUFFER_CHECK]
    TEMPLATE_LABEL(store_call)
    .inst   0x94000000                      /* bl */
    ldur    x9, [x29, #AT_SUM]
    add     x9, x9, #1
    stur    x9, [x29, #AT_SUM]
    ldur    x9, [x29, #AT_N]
    subs    x9, x9, #1
    stur    x9, [x29, #AT_N]
    TEMPLATE_LABEL(store_jump)
    .inst   0x54000001
TEMPLATE_END(store)

TEMPLATE(store_body)
    store_all
    ldur    x17, [x29, #AT_THREAD]
    mov     x0, x16
    mov     x1, #1
    ldr     x15, [x16, #BUFFER_CHECK]
    TEMPLATE_LABEL(store_body_call)
    .inst   0x94000000
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28
    mov     x\n, #-1
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movi    v\n\().16b, #255
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    movi    v\n\().16b, #255
    .endr
    ldur    x0, [x29, #AT_SUM]
TEMPLATE_END(store_body)

TEMPLATE(suspend)
    ldur    x0, [x29, #AT_BUFFER]
    mov     x9, sp
    str     x9, [x0, #PP_RESUME_SP]
    str     x29, [x0, #PP_RESUME_FP]
    ldur    x17, [x29, #AT_THREAD]
    ldr     x15, [x0, #SUSPEND_CHECK]
    mov     x1, #0
    TEMPLATE_LABEL(suspend_call)
    .inst   0x94000000
    mov     x0, #1
    TEMPLATE_LABEL(suspend_here)
    hint    #36                             /* bti j */
    stur    x0, [x29, #AT_SUM]
TEMPLATE_END(suspend)

TEMPLATE(leaf)
    hint    #34
    cbnz    x1, 1f
    mov     x0, #1
    ret
1:
TEMPLATE_END(leaf)

TEMPLATE(again)
    ldur    x0, [x29, #AT_THREAD]
    ldur    x1, [x29, #AT_N]
    sub     x1, x1, #1
    ldur    x2, [x29, #AT_BUFFER]
    ldur    x3, [x29, #AT_START]
    TEMPLATE_LABEL(again_call)
    .inst   0x94000000
    ldur    x9, [x29, #AT_SUM]
    add     x9, x9, x0
    stur    x9, [x29, #AT_SUM]
    ldur    x9, [x29, #AT_INNER]
    subs    x9, x9, #1
    stur    x9, [x29, #AT_INNER]
    TEMPLATE_LABEL(again_jump)
    .inst   0x54000001
    ldur    x9, [x29, #AT_SUM]
    add     x9, x9, #1
    stur    x9, [x29, #AT_SUM]
TEMPLATE_END(again)

TEMPLATE(again_body)
    ldur    x22, [x29, #AT_INNER]
    ldur    x23, [x29, #AT_SUM]
1:  ldur    x0, [x29, #AT_THREAD]
    ldur    x1, [x29, #AT_N]
    sub     x1, x1, #1
    ldur    x2, [x29, #AT_BUFFER]
    ldur    x3, [x29, #AT_START]
    TEMPLATE_LABEL(again_body_call)
    .inst   0x94000000
    add     x23, x23, x0
    subs    x22, x22, #1
    b.ne    1b
    add     x0, x23, #1
TEMPLATE_END(again_body)

TEMPLATE(async_head)
    hint    #34
    stp     x29, x30, [sp, #-16]!
    mov     x29, sp
    sub     sp, sp, #ASYNC_FRAME_BYTES
    stur    x0, [x29, #AT_CONTINUATION]
TEMPLATE_END(async_head)

TEMPLATE(async_bare)
    br      x1
TEMPLATE_END(async_bare)

TEMPLATE(async_counter)
    mov     w9, #1
    stur    w9, [x29, #AT_COUNTER]
TEMPLATE_END(async_counter)

TEMPLATE(async_old)
    TEMPLATE_LABEL(async_old_call)
    .inst   0x94000000
    udf     #0
TEMPLATE_END(async_old)

TEMPLATE(async_body)
    ldur    x9, [x29, #AT_CONTINUATION]
    ldr     x19, [x9, #ASYNC_COUNT]
    add     x19, x19, #1
    str     x19, [x9, #ASYNC_COUNT]
    TEMPLATE_LABEL(async_body_self)
    adr     x10, .
    str     x10, [x9, #ASYNC_CODE]
    mov     x0, x19
TEMPLATE_END(async_body)

    HIDDEN(method_call)
FUNC(method_call)
    stp     x29, x30, [sp, #-176]!
    .cfi_def_cfa_offset 176
    .cfi_offset x29, -176
    .cfi_offset x30, -168
    mov     x29, sp
    .cfi_def_cfa_register x29
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    stp     d8, d9, [sp, #96]
    stp     d10, d11, [sp, #112]
    stp     d12, d13, [sp, #128]
    stp     d14, d15, [sp, #144]
    str     x0, [sp, #160]
    mov     x16, x0
    ldp     x19, x20, [x16, #CALL_IN]
    ldp     x21, x22, [x16, #CALL_IN + 16]
    ldp     x23, x24, [x16, #CALL_IN + 32]
    ldp     x25, x26, [x16, #CALL_IN + 48]
    ldp     x27, x28, [x16, #CALL_IN + 64]
    ldp     d8, d9, [x16, #CALL_IN + 80]
    ldp     d10, d11, [x16, #CALL_IN + 96]
    ldp     d12, d13, [x16, #CALL_IN + 112]
    ldp     d14, d15, [x16, #CALL_IN + 128]
    ldp     x0, x1, [x16, #CALL_ARGUMENTS]
    ldp     x2, x3, [x16, #CALL_ARGUMENTS + 16]
    mov     x9, sp
    str     x9, [x16, #CALL_SP]
    ldr     x16, [x16, #CALL_CODE]
    blr     x16
    mov     x9, sp
    ldr     x16, [sp, #160]
    str     x9, [x16, #CALL_SP + 8]
    str     x0, [x16, #CALL_RESULT]
    stp     x19, x20, [x16, #CALL_OUT]
    stp     x21, x22, [x16, #CALL_OUT + 16]
    stp     x23, x24, [x16, #CALL_OUT + 32]
    stp     x25, x26, [x16, #CALL_OUT + 48]
    stp     x27, x28, [x16, #CALL_OUT + 64]
    stp     d8, d9, [x16, #CALL_OUT + 80]
    stp     d10, d11, [x16, #CALL_OUT + 96]
    stp     d12, d13, [x16, #CALL_OUT + 112]
    stp     d14, d15, [x16, #CALL_OUT + 128]
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     d8, d9, [sp, #96]
    ldp     d10, d11, [sp, #112]
    ldp     d12, d13, [sp, #128]
    ldp     d14, d15, [sp, #144]
    ldp     x29, x30, [sp], #176
    .cfi_def_cfa sp, 0
    ret
.Lmethod_call_end:
END(method_call)
