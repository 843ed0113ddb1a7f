/* SPDX-License-Identifier: MIT */
/*
 * What C cannot see or do about registers, for slow paths under force (lib/osr/force.c).
 */
#include "asm.h"

    HIDDEN(force_call)
    HIDDEN(force_fill)

/*
 * uintptr_t force_call(force_pass *pass, struct site *site, uint32_t state, pp_regs *regs,
 *                      uint64_t kept[2][FORCE_KEPT]);
 *
 *      in          rdi pass, rsi site, edx state, rcx regs, r8 kept
 *      out         rax what the pass returned
 *      changed     what a C function may change; the others are as at the call, whatever
 *                  the pass did to them
 *
 *      kept[0] = { rbx, r12, r13, r14, r15 };
 *      result = pass(site, state, regs);
 *      kept[1] = { rbx, r12, r13, r14, r15 };
 *      { rbx, r12, r13, r14, r15 } = kept[0];
 *      return result;
 *
 *      CFA - 8     return address
 *      CFA - 16    rbp
 *      SP + 40     kept
 *      SP          rbx, r12, r13, r14, r15, as they were
 */
FUNC(force_call)
    push    %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov     %rsp, %rbp
    .cfi_def_cfa_register rbp
    sub     $48, %rsp
    mov     %rbx, 0(%rsp)
    .cfi_offset rbx, -64
    mov     %r12, 8(%rsp)
    .cfi_offset r12, -56
    mov     %r13, 16(%rsp)
    .cfi_offset r13, -48
    mov     %r14, 24(%rsp)
    .cfi_offset r14, -40
    mov     %r15, 32(%rsp)
    .cfi_offset r15, -32
    mov     %r8, 40(%rsp)
    mov     %rbx, 0(%r8)
    mov     %r12, 8(%r8)
    mov     %r13, 16(%r8)
    mov     %r14, 24(%r8)
    mov     %r15, 32(%r8)
    mov     %rdi, %rax
    mov     %rsi, %rdi
    mov     %edx, %esi
    mov     %rcx, %rdx
    call    *%rax
    mov     40(%rsp), %r8
    mov     %rbx, 40(%r8)
    mov     %r12, 48(%r8)
    mov     %r13, 56(%r8)
    mov     %r14, 64(%r8)
    mov     %r15, 72(%r8)
    mov     0(%rsp), %rbx
    .cfi_restore rbx
    mov     8(%rsp), %r12
    .cfi_restore r12
    mov     16(%rsp), %r13
    .cfi_restore r13
    mov     24(%rsp), %r14
    .cfi_restore r14
    mov     32(%rsp), %r15
    .cfi_restore r15
    leave
    .cfi_def_cfa rsp, 8
    .cfi_restore rbp
    ret
END(force_call)

/*
 * void force_fill(uint64_t pattern, unsigned bytes);
 *
 *      in          rdi pattern; esi bytes of each vector register that there is: 16, 32 or 64
 *      changed     all vector registers, and k0-k7 with 64: the pattern in all their words
 */
FUNC(force_fill)
    cmp     $32, %esi
    je      .Lforce_fill_ymm
    ja      .Lforce_fill_zmm
    movq    %rdi, %xmm0
    punpcklqdq %xmm0, %xmm0
    .irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps  %xmm0, %xmm\n
    .endr
    ret
.Lforce_fill_ymm:
    vmovq   %rdi, %xmm0
    vpunpcklqdq %xmm0, %xmm0, %xmm0
    vinsertf128 $1, %xmm0, %ymm0, %ymm0
    .irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovaps %ymm0, %ymm\n
    .endr
    ret
.Lforce_fill_zmm:
    vpbroadcastq %rdi, %zmm0
    .irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovaps %zmm0, %zmm\n
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovaps %zmm0, %zmm\n
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq   %rdi, %k\n
    .endr
    ret
END(force_fill)
