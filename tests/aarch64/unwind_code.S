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
    stp     x29, x30, [sp, #-160]!
    .cfi_def_cfa_offset 160
    .cfi_offset x29, -160
    .cfi_offset x30, -152
    stp     x19, x20, [sp, #16]
    .cfi_offset x19, -144
    .cfi_offset x20, -136
    stp     x21, x22, [sp, #32]
    .cfi_offset x21, -128
    .cfi_offset x22, -120
    stp     x23, x24, [sp, #48]
    .cfi_offset x23, -112
    .cfi_offset x24, -104
    stp     x25, x26, [sp, #64]
    .cfi_offset x25, -96
    .cfi_offset x26, -88
    stp     x27, x28, [sp, #80]
    .cfi_offset x27, -80
    .cfi_offset x28, -72
    stp     d8, d9, [sp, #96]
    .cfi_offset d8, -64
    .cfi_offset d9, -56
    stp     d10, d11, [sp, #112]
    .cfi_offset d10, -48
    .cfi_offset d11, -40
    stp     d12, d13, [sp, #128]
    .cfi_offset d12, -32
    .cfi_offset d13, -24
    stp     d14, d15, [sp, #144]
    .cfi_offset d14, -16
    .cfi_offset d15, -8
    mov     x9, x0
    mov     x0, x1
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29
    mov     x\n, #0x7100
    add     x\n, x\n, #\n
    .endr
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    mov     x10, #0x7100
    add     x10, x10, #\n
    fmov    d\n, x10
    .endr
    blr     x9
    ldp     d14, d15, [sp, #144]
    ldp     d12, d13, [sp, #128]
    ldp     d10, d11, [sp, #112]
    ldp     d8, d9, [sp, #96]
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #160
    .cfi_def_cfa_offset 0
    ret
END(marked_call)

    .section .rodata
    .balign 4
    .globl record_code, record_code_end
record_code:
    stp     x29, x30, [sp, #-48]!
    mov     x29, sp
    str     x20, [x29, #16]
    str     x23, [x29, #32]
    str     d9, [x29, #40]
    mov     x20, #-1
    mov     x23, #-1
    fmov    d9, #1.0
    blr     x0
    ldr     d9, [x29, #40]
    ldr     x23, [x29, #32]
    ldr     x20, [x29, #16]
    ldp     x29, x30, [sp], #48
    ret
record_code_end:
