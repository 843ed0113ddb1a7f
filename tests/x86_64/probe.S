/* SPDX-License-Identifier: MIT */
/* Probes for check_save and check_stubs; probe.h has the contracts. */
#include "asm.h"
#include "probe.h"

#define IN(at) (PROBE_IN + (at))
#define OUT(at) (PROBE_OUT + (at))
#define GPR(n) (PP_REGS_GPR + 8 * (n))
#define XMM(n) (PP_REGS_VECTOR + 16 * (n))
#define MXCSR PP_REGS_FP_CONTROL
#define X87CW (PP_REGS_FP_CONTROL + 4)
#define WIDE_IN(n) (PROBE_WIDE_IN + 64 * (n))(%r11)
#define WIDE_OUT(n) (PROBE_WIDE_OUT + 64 * (n))(%r11)
#define K_IN(n) (PROBE_WIDE_IN + PROBE_OPMASK + 8 * (n))(%r11)
#define K_OUT(n) (PROBE_WIDE_OUT + PROBE_OPMASK + 8 * (n))(%r11)

    .local probe_current, probe_sp, probe_stub, probe_r11
    .comm probe_current, 8, 8
    .comm probe_sp, 8, 8
    .comm probe_stub, 8, 8
    .comm probe_r11, 8, 8
    .globl probe_canary
    .comm probe_canary, PROBE_CANARY_BYTES, 16

    .section .rodata
    .globl probe_resume
    .p2align 2
probe_resume:
    .4byte .Lprobe_resume - .Lprobe_return

FUNC(probe_site)
    push    %rbp
    push    %rbx
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    sub     $8, %rsp
    stmxcsr (%rsp)
    fnstcw  4(%rsp)
    mov     %rdi, probe_current(%rip)
    mov     %rsp, probe_sp(%rip)
    mov     %rdi, %r11
    mov     PROBE_STUB(%r11), %rax
    mov     %rax, probe_stub(%rip)

    sub     $PROBE_CANARY_BYTES, %rsp
    and     $-16, %rsp
    sub     PROBE_SKEW(%r11), %rsp
    mov     PROBE_BELOW(%r11), %rsi
    mov     %rsp, %rdi
    mov     $PROBE_CANARY_BYTES, %ecx
    rep movsb
    mov     %rsp, PROBE_SP(%r11)
    lea     .Lprobe_return(%rip), %rax
    mov     %rax, PROBE_PC(%r11)

    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups  IN(XMM(\n))(%r11), %xmm\n
    .endr
    cmpq    $32, PROBE_WIDTH(%r11)
    jb      4f
    je      3f
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups WIDE_IN(\n), %zmm\n
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovups WIDE_IN(\n), %zmm\n
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq   K_IN(\n), %k\n
    .endr
    jmp     4f
3:  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups WIDE_IN(\n), %ymm\n
    .endr
4:  ldmxcsr IN(MXCSR)(%r11)
    fldcw   IN(X87CW)(%r11)
    mov     IN(GPR(0))(%r11), %rax
    mov     IN(GPR(1))(%r11), %rcx
    mov     IN(GPR(2))(%r11), %rdx
    mov     IN(GPR(3))(%r11), %rbx
    mov     IN(GPR(5))(%r11), %rbp
    mov     IN(GPR(6))(%r11), %rsi
    mov     IN(GPR(7))(%r11), %rdi
    mov     IN(GPR(8))(%r11), %r8
    mov     IN(GPR(9))(%r11), %r9
    mov     IN(GPR(10))(%r11), %r10
    mov     IN(GPR(12))(%r11), %r12
    mov     IN(GPR(13))(%r11), %r13
    mov     IN(GPR(14))(%r11), %r14
    mov     IN(GPR(15))(%r11), %r15
    cmpq    $0, PROBE_FRAME(%r11)
    je      1f
    lea     64(%rsp), %rbp
1:  testl   $0x400, IN(PP_REGS_FLAGS)(%r11)
    jz      2f
    std
2:
    /* The site. */
    mov     PROBE_RECORD(%r11), %r11
    call    *probe_stub(%rip)
.Lprobe_return:
    jmp     *%r11
.Lprobe_resume:
    endbr64
    mov     %r11, probe_r11(%rip)
    mov     probe_current(%rip), %r11
    movq    $0, PROBE_WENT(%r11)
    jmp     .Lprobe_store
    .globl  probe_target
probe_target:
    endbr64
    mov     %r11, probe_r11(%rip)
    mov     probe_current(%rip), %r11
    movq    $1, PROBE_WENT(%r11)
.Lprobe_store:
    mov     %rax, OUT(GPR(0))(%r11)
    mov     %rcx, OUT(GPR(1))(%r11)
    mov     %rdx, OUT(GPR(2))(%r11)
    mov     %rbx, OUT(GPR(3))(%r11)
    mov     %rsp, OUT(GPR(4))(%r11)
    mov     %rbp, OUT(GPR(5))(%r11)
    mov     %rsi, OUT(GPR(6))(%r11)
    mov     %rdi, OUT(GPR(7))(%r11)
    mov     %r8, OUT(GPR(8))(%r11)
    mov     %r9, OUT(GPR(9))(%r11)
    mov     %r10, OUT(GPR(10))(%r11)
    mov     %r12, OUT(GPR(12))(%r11)
    mov     %r13, OUT(GPR(13))(%r11)
    mov     %r14, OUT(GPR(14))(%r11)
    mov     %r15, OUT(GPR(15))(%r11)
    mov     probe_r11(%rip), %rax
    mov     %rax, OUT(GPR(11))(%r11)
    pushfq
    pop     OUT(PP_REGS_FLAGS)(%r11)
    cld
    stmxcsr OUT(MXCSR)(%r11)
    fnstcw  OUT(X87CW)(%r11)
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups  %xmm\n, OUT(XMM(\n))(%r11)
    .endr
    cmpq    $32, PROBE_WIDTH(%r11)
    jb      4f
    je      3f
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups %zmm\n, WIDE_OUT(\n)
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovups %zmm\n, WIDE_OUT(\n)
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq   %k\n, K_OUT(\n)
    .endr
3:  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups %ymm\n, WIDE_OUT(\n)
    .endr
    vzeroupper
4:
    mov     %rsp, %rsi
    lea     probe_canary(%rip), %rdi
    mov     $PROBE_CANARY_BYTES, %ecx
    rep movsb

    mov     probe_sp(%rip), %rsp
    ldmxcsr (%rsp)
    fldcw   4(%rsp)
    add     $8, %rsp
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %rbx
    pop     %rbp
    ret
END(probe_site)

FUNC(probe_enter)
    push    %rbp
    push    %rbx
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    sub     $8, %rsp
    stmxcsr (%rsp)
    fnstcw  4(%rsp)
    mov     %rdi, probe_current(%rip)
    mov     %rsp, probe_sp(%rip)
    mov     %rdi, %r11
    ldmxcsr IN(MXCSR)(%r11)
    fldcw   IN(X87CW)(%r11)
    mov     IN(GPR(3))(%r11), %rbx
    mov     IN(GPR(5))(%r11), %rbp
    mov     IN(GPR(12))(%r11), %r12
    mov     IN(GPR(13))(%r11), %r13
    mov     IN(GPR(14))(%r11), %r14
    mov     IN(GPR(15))(%r11), %r15
    mov     %rsi, %rdi
    mov     %rdx, %rsi
    mov     $1, %edx
    mov     $2, %ecx
    mov     $3, %r8d
    mov     $4, %r9d
    mov     %rsp, PROBE_SP(%r11)
    call    pp_enter
    mov     probe_current(%rip), %r11
    mov     %rbx, OUT(GPR(3))(%r11)
    mov     %rsp, OUT(GPR(4))(%r11)
    mov     %rbp, OUT(GPR(5))(%r11)
    mov     %r12, OUT(GPR(12))(%r11)
    mov     %r13, OUT(GPR(13))(%r11)
    mov     %r14, OUT(GPR(14))(%r11)
    mov     %r15, OUT(GPR(15))(%r11)
    pushfq
    pop     OUT(PP_REGS_FLAGS)(%r11)
    cld
    stmxcsr OUT(MXCSR)(%r11)
    fnstcw  OUT(X87CW)(%r11)
    mov     probe_sp(%rip), %rsp
    ldmxcsr (%rsp)
    fldcw   4(%rsp)
    add     $8, %rsp
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %rbx
    pop     %rbp
    ret
END(probe_enter)

CODE(probe_spoil)
    mov     $1, %eax
    cmp     $1, %rdi
    jne     1f
    cmp     $2, %rsi
    jne     1f
    cmp     $3, %rdx
    jne     1f
    cmp     $4, %rcx
    jne     1f
    test    $15, %spl                       /* the call left SP at 8 mod 16 */
    jz      1f
    test    $7, %spl
    jnz     1f
    mov     $0x5015, %eax
1:  mov     $0x0bad0bad, %ecx
    mov     %rcx, %rbx
    mov     %rcx, %rbp
    mov     %rcx, %r12
    mov     %rcx, %r13
    mov     %rcx, %r14
    mov     %rcx, %r15
    movl    $0x7f80, -8(%rsp)               /* round to zero */
    ldmxcsr -8(%rsp)
    movw    $0x0f7f, -8(%rsp)
    fldcw   -8(%rsp)
    std
    ret
END(probe_spoil)

CODE(probe_leave)
    push    %rbp
    mov     %rsp, %rbp
    push    %rbx
    push    %r12
    mov     %rsp, %r12
    mov     %rdi, %rbx
    mov     %rdi, %r10
    mov     %rsi, %r11
    mov     $11, %edi
    mov     $12, %esi
    mov     $13, %edx
    mov     $14, %ecx
    mov     $15, %r8d
    mov     $16, %r9d
    call    pp_leave
    .globl  probe_leave_return
probe_leave_return:
    inc     %rax
    cmp     %rsp, %r12
    jne     1f
    cmpq    $0, PP_THREAD_EXIT_FP(%rbx)     /* compiled code runs again */
    je      2f
1:  xor     %eax, %eax
2:  mov     -8(%rbp), %rbx
    mov     -16(%rbp), %r12
    leave
    ret
END(probe_leave)

/* frame: FP - 32 .. FP: pp_resume_point; FP - 48: SP, FP as they were; FP - 56: thread */
CODE(probe_resumable)
    push    %rbp
    mov     %rsp, %rbp
    sub     $64, %rsp
    mov     %rsp, -48(%rbp)
    mov     %rbp, -40(%rbp)
    mov     %rdi, -56(%rbp)
    lea     .Lprobe_point(%rip), %rax
    mov     %rax, -32 + PP_RESUME_PC(%rbp)
    mov     %rsp, -32 + PP_RESUME_SP(%rbp)
    mov     %rbp, -32 + PP_RESUME_FP(%rbp)
    mov     %rdx, -32 + PP_RESUME_VALUE(%rbp)
    mov     %rdi, %r10
    mov     %rsi, %r11
    lea     -32(%rbp), %rsi
    call    pp_leave
    mov     $1, %eax                        /* came back: refused */
    leave
    ret
.Lprobe_point:
    endbr64
    cmp     %rsp, 16(%rsp)
    jne     1f
    cmp     %rbp, 24(%rsp)
    jne     1f
    mov     -56(%rbp), %rcx
    cmpq    $0, PP_THREAD_EXIT_FP(%rcx)
    jne     1f
    leave
    ret
1:  xor     %eax, %eax
    leave
    ret
END(probe_resumable)
