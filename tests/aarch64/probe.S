/* SPDX-License-Identifier: MIT */
/* Probes for check_save and check_stubs; probe.h has the contracts. */
#include "asm.h"
#include "probe.h"

#define IN(at) x16, #(PROBE_IN + (at))
#define OUT(at) x16, #(PROBE_OUT + (at))
#define GPR(n) (PP_REGS_GPR + 8 * (n))
#define VEC(n) (PP_REGS_VECTOR + 16 * (n))
#define FPCR PP_REGS_FP_CONTROL
#define FPSR (PP_REGS_FP_CONTROL + 4)

    .local probe_current, probe_sp, probe_x16
    .comm probe_current, 8, 8
    .comm probe_sp, 8, 8
    .comm probe_x16, 8, 8
    .globl probe_canary
    .comm probe_canary, PROBE_CANARY_BYTES, 16

    .section .rodata
    .globl probe_resume
    .p2align 2
probe_resume:
    .4byte .Lprobe_resume - .Lprobe_return

    .macro  load register, variable
    adrp    \register, \variable
    ldr     \register, [\register, :lo12:\variable]
    .endm
    .macro  store register, variable, scratch
    adrp    \scratch, \variable
    str     \register, [\scratch, :lo12:\variable]
    .endm

/* Keep what C wants back, and SP, in probe_sp. */
    .macro  save_c
    stp     x29, x30, [sp, #-176]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    stp     d8, d9, [sp, #96]
    stp     d10, d11, [sp, #112]
    stp     d12, d13, [sp, #128]
    stp     d14, d15, [sp, #144]
    mrs     x9, fpcr
    str     x9, [sp, #160]
    mov     x9, sp
    store   x9, probe_sp, x10
    store   x0, probe_current, x10
    .endm
    .macro  restore_c
    load    x9, probe_sp
    mov     sp, x9
    ldr     x9, [sp, #160]
    msr     fpcr, x9
    ldp     d14, d15, [sp, #144]
    ldp     d12, d13, [sp, #128]
    ldp     d10, d11, [sp, #112]
    ldp     d8, d9, [sp, #96]
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #176
    .endm

FUNC(probe_site)
    save_c
    mov     x16, x0
    sub     sp, sp, #PROBE_CANARY_BYTES
    mov     x9, #PROBE_BELOW
    ldr     x9, [x16, x9]
    mov     x10, sp
    mov     x11, #PROBE_CANARY_BYTES
1:  ldrb    w12, [x9], #1
    strb    w12, [x10], #1
    subs    x11, x11, #1
    b.ne    1b
    mov     x9, sp
    str     x9, [x16, #PROBE_SP]
    adr     x9, .Lprobe_return
    str     x9, [x16, #PROBE_PC]

    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    ldr     q\n, [IN(VEC(\n))]
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    ldr     q\n, [IN(VEC(\n))]
    .endr
    ldr     w9, [IN(FPCR)]
    msr     fpcr, x9
    ldr     w9, [IN(FPSR)]
    msr     fpsr, x9
    ldr     x9, [IN(PP_REGS_FLAGS)]
    msr     nzcv, x9
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    ldr     x\n, [IN(GPR(\n))]
    .endr
    .irp n, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29
    ldr     x\n, [IN(GPR(\n))]
    .endr
    ldr     x17, [x16, #PROBE_FRAME]
    cbz     x17, 2f
    add     x29, sp, #64
2:  ldr     x17, [x16, #PROBE_RECORD]
    ldr     x16, [x16, #PROBE_STUB]
    /* The site, with a call through x16 in place of a direct one. */
    blr     x16
.Lprobe_return:
    br      x16
.Lprobe_resume:
    hint    #38
    store   x16, probe_x16, x17
    load    x16, probe_current
    str     xzr, [x16, #PROBE_WENT]
    b       .Lprobe_store
    .globl  probe_target
probe_target:
    hint    #38
    store   x16, probe_x16, x17
    load    x16, probe_current
    mov     x17, #1
    str     x17, [x16, #PROBE_WENT]
.Lprobe_store:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    str     x\n, [OUT(GPR(\n))]
    .endr
    .irp n, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    str     x\n, [OUT(GPR(\n))]
    .endr
    mov     x9, sp
    str     x9, [OUT(PP_REGS_SP)]
    load    x9, probe_x16
    str     x9, [OUT(GPR(16))]
    mrs     x9, nzcv
    str     x9, [OUT(PP_REGS_FLAGS)]
    mrs     x9, fpcr
    str     w9, [OUT(FPCR)]
    mrs     x9, fpsr
    str     w9, [OUT(FPSR)]
    add     x9, x16, #PROBE_OUT + PP_REGS_VECTOR
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    str     q\n, [x9, #16 * \n]
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    str     q\n, [x9, #16 * \n]
    .endr
    mov     x9, sp
    adrp    x10, probe_canary
    add     x10, x10, :lo12:probe_canary
    mov     x11, #PROBE_CANARY_BYTES
1:  ldrb    w12, [x9], #1
    strb    w12, [x10], #1
    subs    x11, x11, #1
    b.ne    1b
    restore_c
    ret
END(probe_site)

FUNC(probe_enter)
    save_c
    mov     x16, x0
    ldr     w9, [IN(FPCR)]
    msr     fpcr, x9
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29
    ldr     x\n, [IN(GPR(\n))]
    .endr
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    ldr     d\n, [IN(VEC(\n))]
    .endr
    mov     x9, sp
    str     x9, [x16, #PROBE_SP]
    mov     x0, x1
    mov     x1, x2
    mov     x2, #1
    mov     x3, #2
    mov     x4, #3
    mov     x5, #4
    bl      pp_enter
    load    x16, probe_current
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29
    str     x\n, [OUT(GPR(\n))]
    .endr
    add     x9, x16, #PROBE_OUT + PP_REGS_VECTOR
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    str     d\n, [x9, #16 * \n]
    .endr
    mov     x9, sp
    str     x9, [OUT(PP_REGS_SP)]
    mrs     x9, fpcr
    str     w9, [OUT(FPCR)]
    restore_c
    ret
END(probe_enter)

    .globl  probe_spoil
    .globl  probe_leave
    .globl  probe_resumable

CODE(probe_spoil)
    mov     x9, #1
    cmp     x0, #1
    b.ne    1f
    cmp     x1, #2
    b.ne    1f
    cmp     x2, #3
    b.ne    1f
    cmp     x3, #4
    b.ne    1f
    mov     x9, #0x5015
1:  mov     x0, x9
    mov     x9, #0x0bad
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29
    mov     x\n, x9
    .endr
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    fmov    d\n, x9
    .endr
    mov     x9, #0xc00000                   /* round to zero */
    msr     fpcr, x9
    ret
END(probe_spoil)

CODE(probe_leave)
    stp     x29, x30, [sp, #-32]!
    mov     x29, sp
    stp     x19, x20, [sp, #16]
    mov     x19, sp
    mov     x20, x0
    mov     x17, x0
    mov     x15, x1
    mov     x0, #11
    mov     x1, #12
    mov     x2, #13
    mov     x3, #14
    mov     x4, #15
    mov     x5, #16
    bl      pp_leave
    .globl  probe_leave_return
probe_leave_return:
    add     x0, x0, #1
    mov     x9, sp
    cmp     x9, x19
    csel    x0, x0, xzr, eq
    ldr     x9, [x20, #PP_THREAD_EXIT_FP]   /* compiled code runs again */
    cmp     x9, #0
    csel    x0, x0, xzr, eq
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #32
    ret
END(probe_leave)

/* frame: SP + 16: pp_resume_point; SP + 48: SP, FP as they were; SP + 64: thread */
CODE(probe_resumable)
    stp     x29, x30, [sp, #-80]!
    mov     x29, sp
    str     x0, [sp, #64]
    mov     x9, sp
    stp     x9, x29, [sp, #48]
    adr     x10, .Lprobe_point
    stp     x10, x9, [sp, #16 + PP_RESUME_PC]
    stp     x29, x2, [sp, #16 + PP_RESUME_FP]
    mov     x17, x0
    mov     x15, x1
    add     x1, sp, #16
    bl      pp_leave
    mov     x0, #1                          /* came back: refused */
    ldp     x29, x30, [sp], #80
    ret
.Lprobe_point:
    hint    #38
    ldp     x9, x10, [sp, #48]
    mov     x11, sp
    cmp     x9, x11
    b.ne    1f
    cmp     x10, x29
    b.ne    1f
    ldr     x9, [sp, #64]
    ldr     x9, [x9, #PP_THREAD_EXIT_FP]
    cbnz    x9, 1f
    ldp     x29, x30, [sp], #80
    ret
1:  mov     x0, #0
    ldp     x29, x30, [sp], #80
    ret
END(probe_resumable)
