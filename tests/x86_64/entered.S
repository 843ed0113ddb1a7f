/* SPDX-License-Identifier: MIT */
/* Registers at the entry of a function; entered.h has the contract. */
#include "asm.h"

    .macro  keep number, register
    mov     %\register, PP_REGS_GPR + 8 * \number(%r11)
    .endm

FUNC(entered)
    lea     entered_regs(%rip), %r11
    keep    0, rax
    keep    1, rcx
    keep    2, rdx
    keep    3, rbx
    keep    4, rsp
    keep    5, rbp
    keep    6, rsi
    keep    7, rdi
    keep    8, r8
    keep    9, r9
    keep    10, r10
    keep    12, r12
    keep    13, r13
    keep    14, r14
    keep    15, r15
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups  %xmm\n, PP_REGS_VECTOR + 16 * \n(%r11)
    .endr
    mov     (%rsp), %rax
    mov     %rax, PP_REGS_PC(%r11)
    pushfq
    .cfi_adjust_cfa_offset 8
    pop     %rax
    .cfi_adjust_cfa_offset -8
    mov     %rax, PP_REGS_FLAGS(%r11)
    stmxcsr PP_REGS_FP_CONTROL(%r11)
    jmp     entered_check
.Lentered_end:
END(entered)
