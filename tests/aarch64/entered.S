/* SPDX-License-Identifier: MIT */
/* Registers at the entry of a function; entered.h has the contract. */
#include "asm.h"

FUNC(entered)
    adrp    x16, entered_regs
    add     x16, x16, :lo12:entered_regs
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    str     x\n, [x16, #PP_REGS_GPR + 8 * \n]
    .endr
    .irp n, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
    str     x\n, [x16, #PP_REGS_GPR + 8 * \n]
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    str     q\n, [x16, #PP_REGS_VECTOR + 16 * \n]
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    str     q\n, [x16, #PP_REGS_VECTOR + 16 * \n]
    .endr
    mov     x17, sp
    str     x17, [x16, #PP_REGS_SP]
    str     x30, [x16, #PP_REGS_PC]
    mrs     x17, fpcr
    str     x17, [x16, #PP_REGS_FP_CONTROL]
    b       entered_check
.Lentered_end:
END(entered)
