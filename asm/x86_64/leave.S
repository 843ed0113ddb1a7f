/* SPDX-License-Identifier: MIT */
/*
 * From compiled code out to C.  Not a C function: called by compiled code that
 * has a frame record, with SP 16-aligned before the call.
 *
 *      in          r10 thread, r11 the C function, its arguments in registers
 *      out         everything as the C function leaves it; r10, r11 undefined
 *
 *      FP + 8      return address into compiled code
 *      FP          compiled code's FP     <- thread->exit_fp
 *      FP - 16     thread                 <- rsp
 *
 *      thread->exit_fp = FP;
 *      result = function(...);
 *      thread->exit_fp = 0;
 *      return result;
 */
#include "asm.h"
#include "stub.h"

CODE(pp_leave)
    push    %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
.Lpp_leave_pushed:
    mov     %rsp, %rbp
    .cfi_def_cfa_register rbp
.Lpp_leave_set:
    sub     $16, %rsp
    mov     %r10, (%rsp)
    mov     %rbp, PP_THREAD_EXIT_FP(%r10)
    call    *%r11
    mov     (%rsp), %r10
    movq    $0, PP_THREAD_EXIT_FP(%r10)
    leave
    .cfi_def_cfa rsp, 8
    .cfi_same_value rbp
.Lpp_leave_popped:
    ret
.Lpp_leave_end:
END(pp_leave)

    STUB_ROW(pp_leave, STUB_LEAVE)
