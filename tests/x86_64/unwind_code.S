/* SPDX-License-Identifier: MIT */
/*
 * Code for tests of unwinders.
 *
 *      uintptr_t marked_call(const void *code, void *argument);
 *
 * A C function that puts MARK + n into every callee-saved register, the frame
 * pointer included, and calls code(argument).  Nothing but its CFI leads from
 * its frame to its caller's, and the registers of its frame are known.
 *
 *      record_code .. record_code_end      PP_FRAME_RECORD, position-independent:
 *
 * saves two callee-saved registers (on AArch64 a vector register, too), changes
 * them, and calls the function that is its argument.
 */
#include "asm.h"
#include "unwind_code.h"

FUNC(marked_call)
    push    %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    push    %rbx
    .cfi_def_cfa_offset 24
    .cfi_offset rbx, -24
    push    %r12
    .cfi_def_cfa_offset 32
    .cfi_offset r12, -32
    push    %r13
    .cfi_def_cfa_offset 40
    .cfi_offset r13, -40
    push    %r14
    .cfi_def_cfa_offset 48
    .cfi_offset r14, -48
    push    %r15
    .cfi_def_cfa_offset 56
    .cfi_offset r15, -56
    sub     $8, %rsp
    .cfi_def_cfa_offset 64
    mov     %rdi, %rax
    mov     %rsi, %rdi
    mov     $0x7100 + 3, %rbx
    mov     $0x7100 + 5, %rbp
    mov     $0x7100 + 12, %r12
    mov     $0x7100 + 13, %r13
    mov     $0x7100 + 14, %r14
    mov     $0x7100 + 15, %r15
    call    *%rax
    add     $8, %rsp
    .cfi_def_cfa_offset 56
    pop     %r15
    .cfi_def_cfa_offset 48
    .cfi_same_value r15
    pop     %r14
    .cfi_def_cfa_offset 40
    .cfi_same_value r14
    pop     %r13
    .cfi_def_cfa_offset 32
    .cfi_same_value r13
    pop     %r12
    .cfi_def_cfa_offset 24
    .cfi_same_value r12
    pop     %rbx
    .cfi_def_cfa_offset 16
    .cfi_same_value rbx
    pop     %rbp
    .cfi_def_cfa_offset 8
    .cfi_same_value rbp
    ret
END(marked_call)

    .section .rodata
    .globl record_code, record_code_end
record_code:
    push    %rbp
    mov     %rsp, %rbp
    sub     $32, %rsp
    mov     %rbx, -32(%rbp)
    mov     %r13, -16(%rbp)
    mov     $-1, %rbx
    mov     $-1, %r13
    call    *%rdi
    mov     -16(%rbp), %r13
    mov     -32(%rbp), %rbx
    leave
    ret
record_code_end:
