/* SPDX-License-Identifier: MIT */
/*
 * From compiled code out to C.  Not a C function: called by compiled code that
 * has a frame record.
 *
 *      in          x17 thread, x15 the C function, its arguments in registers;
 *                  a trampoline on the way here may have changed x16
 *      out         everything as the C function leaves it; x16, x17 undefined
 *
 *      FP + 8      return address into compiled code
 *      FP          compiled code's FP     <- thread->exit_fp
 *      FP - 16     thread                 <- sp
 *
 *      thread->exit_fp = FP;
 *      result = function(...);
 *      thread->exit_fp = 0;
 *      return result;
 */
#include "asm.h"
#include "stub.h"

CODE(pp_leave)
    stp     x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
.Lpp_leave_pushed:
    mov     x29, sp
    .cfi_def_cfa_register x29
.Lpp_leave_set:
    str     x17, [sp, #-16]!
    str     x29, [x17, #PP_THREAD_EXIT_FP]
    blr     x15
    ldr     x17, [sp], #16
    str     xzr, [x17, #PP_THREAD_EXIT_FP]
    ldp     x29, x30, [sp], #16
    .cfi_def_cfa sp, 0
    .cfi_same_value x29
    .cfi_same_value x30
.Lpp_leave_popped:
    ret
.Lpp_leave_end:
END(pp_leave)

    STUB_ROW(pp_leave, STUB_LEAVE)
