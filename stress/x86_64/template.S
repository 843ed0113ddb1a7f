/* SPDX-License-Identifier: MIT */
/* Pieces of compiled code for x86-64; template.h says what they do. */
#include "asm.h"
#include "stress/template.h"

#define GPR(n) (PP_REGS_GPR + 8 * (n))
#define XMM(n) (PP_REGS_VECTOR + 16 * (n))

/* Tier-0 saves two registers, and spoils them. */
TEMPLATE(head)
    endbr64
    push    %rbp
    mov     %rsp, %rbp
    sub     $0x11111111, %rsp
    TEMPLATE_LABEL(head_frame)
    mov     %rbx, AT_SAVES(%rbp)
    mov     %r12, AT_SAVES + 8(%rbp)
    mov     %rdi, AT_THREAD(%rbp)
    mov     %rsi, AT_N(%rbp)
    mov     %rdx, AT_BUFFER(%rbp)
    mov     %rcx, AT_START(%rbp)
    mov     %rcx, AT_INNER(%rbp)
    movq    $0, AT_SUM(%rbp)
    movl    $0x11111111, AT_COUNTER(%rbp)
    TEMPLATE_LABEL(head_threshold)
    mov     $0xdead, %ebx
    mov     $0xbeef, %r12d
TEMPLATE_END(head)

TEMPLATE(tail)
    mov     AT_SUM(%rbp), %rax
    mov     AT_SAVES(%rbp), %rbx
    mov     AT_SAVES + 8(%rbp), %r12
    leave
    ret
TEMPLATE_END(tail)

TEMPLATE(save_rest)
    mov     %r13, AT_SAVES + 16(%rbp)
    mov     %r14, AT_SAVES + 24(%rbp)
    mov     %r15, AT_SAVES + 32(%rbp)
TEMPLATE_END(save_rest)

TEMPLATE(restore_rest)
    mov     AT_SAVES + 16(%rbp), %r13
    mov     AT_SAVES + 24(%rbp), %r14
    mov     AT_SAVES + 32(%rbp), %r15
TEMPLATE_END(restore_rest)

TEMPLATE(sum)
    mov     AT_N(%rbp), %rax
    add     %rax, AT_SUM(%rbp)
    decq    AT_N(%rbp)
    .byte   0x0f, 0x85                      /* jnz */
    TEMPLATE_LABEL(sum_jump)
    .4byte  0
TEMPLATE_END(sum)

TEMPLATE(sum_body)
    mov     AT_N(%rbp), %rcx
    mov     AT_SUM(%rbp), %rbx
    xor     %r12d, %r12d
    xor     %r13d, %r13d
    xor     %r14d, %r14d
    xor     %r15d, %r15d
1:  add     %rcx, %rbx
    dec     %rcx
    jz      2f
    add     %rcx, %r12
    dec     %rcx
    jz      2f
    add     %rcx, %r13
    dec     %rcx
    jz      2f
    add     %rcx, %r14
    dec     %rcx
    jz      2f
    add     %rcx, %r15
    dec     %rcx
    jnz     1b
2:  lea     (%rbx,%r12), %rax
    add     %r13, %rax
    add     %r14, %rax
    add     %r15, %rax
TEMPLATE_END(sum_body)

TEMPLATE(outer)
    mov     AT_START(%rbp), %rax
    mov     %rax, AT_INNER(%rbp)
TEMPLATE_END(outer)

TEMPLATE(inner)
    mov     AT_N(%rbp), %rax
    imul    AT_INNER(%rbp), %rax
    add     %rax, AT_SUM(%rbp)
    decq    AT_INNER(%rbp)
    .byte   0x0f, 0x85
    TEMPLATE_LABEL(inner_inner)
    .4byte  0
    decq    AT_N(%rbp)
    .byte   0x0f, 0x85
    TEMPLATE_LABEL(inner_outer)
    .4byte  0
TEMPLATE_END(inner)

TEMPLATE(inner_body)
    mov     AT_N(%rbp), %r12
    mov     AT_INNER(%rbp), %r13
    mov     AT_SUM(%rbp), %rax
1:  mov     %r12, %rcx
    imul    %r13, %rcx
    add     %rcx, %rax
    dec     %r13
    jnz     1b
    mov     AT_START(%rbp), %r13
    dec     %r12
    jnz     1b
TEMPLATE_END(inner_body)

    .macro  gpr instruction
    \instruction 0, rax
    \instruction 1, rcx
    \instruction 2, rdx
    \instruction 3, rbx
    \instruction 6, rsi
    \instruction 7, rdi
    \instruction 8, r8
    \instruction 9, r9
    \instruction 10, r10
    \instruction 12, r12
    \instruction 13, r13
    \instruction 14, r14
    \instruction 15, r15
    .endm
    .macro  load_gpr n, register
    mov     BUFFER_IN + GPR(\n)(%r11), %\register
    .endm
    .macro  store_gpr n, register
    mov     %\register, BUFFER_OUT + GPR(\n)(%r11)
    .endm
    .macro  store_all
    mov     AT_BUFFER(%rbp), %r11
    gpr     store_gpr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups  %xmm\n, BUFFER_OUT + XMM(\n)(%r11)
    .endr
    stmxcsr BUFFER_OUT + PP_REGS_FP_CONTROL(%r11)
    pushfq
    pop     BUFFER_OUT + PP_REGS_FLAGS(%r11)
    cld
    .endm

TEMPLATE(load)
    mov     AT_BUFFER(%rbp), %r11
    ldmxcsr BUFFER_IN + PP_REGS_FP_CONTROL(%r11)
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups  BUFFER_IN + XMM(\n)(%r11), %xmm\n
    .endr
    gpr     load_gpr
    testl   $0x400, BUFFER_IN + PP_REGS_FLAGS(%r11)
    jz      1f
    std
1:
TEMPLATE_END(load)

TEMPLATE(store)
    store_all
    mov     AT_THREAD(%rbp), %r10
    mov     %r11, %rdi
    mov     BUFFER_CHECK(%r11), %r11
    xor     %esi, %esi
    .byte   0xe8                            /* call */
    TEMPLATE_LABEL(store_call)
    .4byte  0
    incq    AT_SUM(%rbp)
    decq    AT_N(%rbp)
    .byte   0x0f, 0x85
    TEMPLATE_LABEL(store_jump)
    .4byte  0
TEMPLATE_END(store)

TEMPLATE(store_body)
    store_all
    mov     AT_THREAD(%rbp), %r10
    mov     %r11, %rdi
    mov     BUFFER_CHECK(%r11), %r11
    mov     $1, %esi
    .byte   0xe8
    TEMPLATE_LABEL(store_body_call)
    .4byte  0
    mov     $-1, %rax
    .irp r, rbx, r12, r13, r14, r15
    mov     %rax, %\r
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    pcmpeqd %xmm\n, %xmm\n
    .endr
    mov     AT_SUM(%rbp), %rax
TEMPLATE_END(store_body)

TEMPLATE(suspend)
    mov     AT_BUFFER(%rbp), %rdi
    mov     %rsp, PP_RESUME_SP(%rdi)
    mov     %rbp, PP_RESUME_FP(%rdi)
    mov     AT_THREAD(%rbp), %r10
    mov     SUSPEND_CHECK(%rdi), %r11
    xor     %esi, %esi
    .byte   0xe8
    TEMPLATE_LABEL(suspend_call)
    .4byte  0
    mov     $1, %eax
    TEMPLATE_LABEL(suspend_here)
    endbr64
    mov     %rax, AT_SUM(%rbp)
TEMPLATE_END(suspend)

TEMPLATE(leaf)
    endbr64
    mov     $1, %eax
    test    %rsi, %rsi
    jnz     1f
    ret
1:
TEMPLATE_END(leaf)

TEMPLATE(again)
    mov     AT_THREAD(%rbp), %rdi
    mov     AT_N(%rbp), %rsi
    dec     %rsi
    mov     AT_BUFFER(%rbp), %rdx
    mov     AT_START(%rbp), %rcx
    .byte   0xe8
    TEMPLATE_LABEL(again_call)
    .4byte  0
    add     %rax, AT_SUM(%rbp)
    decq    AT_INNER(%rbp)
    .byte   0x0f, 0x85
    TEMPLATE_LABEL(again_jump)
    .4byte  0
    incq    AT_SUM(%rbp)
TEMPLATE_END(again)

TEMPLATE(again_body)
    mov     AT_INNER(%rbp), %r14
    mov     AT_SUM(%rbp), %r15
1:  mov     AT_THREAD(%rbp), %rdi
    mov     AT_N(%rbp), %rsi
    dec     %rsi
    mov     AT_BUFFER(%rbp), %rdx
    mov     AT_START(%rbp), %rcx
    .byte   0xe8
    TEMPLATE_LABEL(again_body_call)
    .4byte  0
    add     %rax, %r15
    dec     %r14
    jnz     1b
    lea     1(%r15), %rax
TEMPLATE_END(again_body)

TEMPLATE(async_head)
    endbr64
    push    %rbp
    mov     %rsp, %rbp
    sub     $ASYNC_FRAME_BYTES, %rsp
    mov     %rdi, AT_CONTINUATION(%rbp)
TEMPLATE_END(async_head)

TEMPLATE(async_bare)
    jmp     *%rsi
TEMPLATE_END(async_bare)

TEMPLATE(async_counter)
    movl    $1, AT_COUNTER(%rbp)
TEMPLATE_END(async_counter)

TEMPLATE(async_old)
    .byte   0xe8
    TEMPLATE_LABEL(async_old_call)
    .4byte  0
    ud2
TEMPLATE_END(async_old)

TEMPLATE(async_body)
    mov     AT_CONTINUATION(%rbp), %rdi
    mov     ASYNC_COUNT(%rdi), %rbx
    inc     %rbx
    mov     %rbx, ASYNC_COUNT(%rdi)
    .byte   0x48, 0x8d, 0x05                /* lea self(%rip), %rax */
    TEMPLATE_LABEL(async_body_self)
    .4byte  0
    mov     %rax, ASYNC_CODE(%rdi)
    mov     %rbx, %rax
TEMPLATE_END(async_body)

    HIDDEN(method_call)
FUNC(method_call)
    push    %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov     %rsp, %rbp
    .cfi_def_cfa_register rbp
    push    %rbx
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    push    %rdi
    .cfi_offset rbx, -24
    .cfi_offset r12, -32
    .cfi_offset r13, -40
    .cfi_offset r14, -48
    .cfi_offset r15, -56
    mov     %rdi, %r11
    mov     CALL_IN(%r11), %rbx
    mov     CALL_IN + 8(%r11), %r12
    mov     CALL_IN + 16(%r11), %r13
    mov     CALL_IN + 24(%r11), %r14
    mov     CALL_IN + 32(%r11), %r15
    mov     CALL_ARGUMENTS(%r11), %rdi
    mov     CALL_ARGUMENTS + 8(%r11), %rsi
    mov     CALL_ARGUMENTS + 16(%r11), %rdx
    mov     CALL_ARGUMENTS + 24(%r11), %rcx
    mov     %rsp, CALL_SP(%r11)
    call    *CALL_CODE(%r11)
    mov     -48(%rbp), %r11
    mov     %rsp, CALL_SP + 8(%r11)
    mov     %rax, CALL_RESULT(%r11)
    mov     %rbx, CALL_OUT(%r11)
    mov     %r12, CALL_OUT + 8(%r11)
    mov     %r13, CALL_OUT + 16(%r11)
    mov     %r14, CALL_OUT + 24(%r11)
    mov     %r15, CALL_OUT + 32(%r11)
    mov     -40(%rbp), %r15
    mov     -32(%rbp), %r14
    mov     -24(%rbp), %r13
    mov     -16(%rbp), %r12
    mov     -8(%rbp), %rbx
    leave
    .cfi_def_cfa rsp, 8
    ret
.Lmethod_call_end:
END(method_call)
