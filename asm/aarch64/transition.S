/* SPDX-License-Identifier: MIT */
/*
 * Between tier-0's frame and a body's.  Not a C function: the code of an entry,
 * which a site has jumped to, calls it with SP below both frames and jumps on.
 *
 *      in          x17 entry, x30 return address into the code of the entry
 *      out         x16 the body's code
 *      loaded      x0-x15, x19-x28, v0-v31 with what the body wants in them
 *      kept        x18, x29, the flags, FPCR, FPSR, errno
 *      changed     x16, x17, x30
 *
 *      regs = registers as tier-0 had them;
 *      thread = entry->thread_offset ? *(pp_thread **) (FP of tier-0 + thread_offset) : NULL;
 *      if (thread) thread->exit_fp = FP;
 *      target = transition_run(entry, &regs);
 *      if (thread) thread->exit_fp = 0;
 *      registers = regs;
 *      return target;
 *
 * The frame record of tier-0 stays where it is, so the chain of frames is whole
 * at every instruction.
 *
 *      FP + 16     what entry code has reserved: staging
 *      FP + 8      return address into the code of the entry
 *      FP          FP of tier-0           <- thread->exit_fp
 *      SP + 800    thread or 0
 *      SP          struct pp_regs
 */
#include "asm.h"
#include "stub.h"

#define THREAD sp, #PP_REGS_SIZE
#define FRAME (PP_REGS_SIZE + 16)
#define GPR(number) sp, #(PP_REGS_GPR + 8 * (number))
#define VECTOR(number) sp, #(PP_REGS_VECTOR + 16 * (number))

    HIDDEN(frame_move)
    HIDDEN(transition_run)

CODE(frame_move)
    stp     x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
.Lframe_move_pushed:
    mov     x29, sp
    .cfi_def_cfa_register x29
.Lframe_move_set:
    sub     sp, sp, #FRAME
    mov     x16, #PP_SAVE_V128_VALUE
    str     x16, [sp, #PP_REGS_CLASS]
    stp     x0, x1, [GPR(0)]
    stp     x2, x3, [GPR(2)]
    stp     x4, x5, [GPR(4)]
    stp     x6, x7, [GPR(6)]
    stp     x8, x9, [GPR(8)]
    stp     x10, x11, [GPR(10)]
    stp     x12, x13, [GPR(12)]
    stp     x14, x15, [GPR(14)]
    str     x18, [GPR(18)]
    stp     x19, x20, [GPR(19)]
    stp     x21, x22, [GPR(21)]
    stp     x23, x24, [GPR(23)]
    stp     x25, x26, [GPR(25)]
    stp     x27, x28, [GPR(27)]
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    str     q\n, [VECTOR(\n)]
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    str     q\n, [VECTOR(\n)]
    .endr
    ldr     x9, [x29]                   /* FP of tier-0 */
    str     x9, [sp, #PP_REGS_FP]
    add     x10, x29, #16               /* staging */
    stp     x30, x10, [GPR(30)]
    mrs     x11, nzcv
    stp     x30, x11, [sp, #PP_REGS_PC] /* and PP_REGS_FLAGS */

    ldrsw   x10, [x17, #ENTRY_THREAD_OFFSET]
    cbz     x10, .Lframe_move_no_thread
    ldr     x10, [x9, x10]
    str     x29, [x10, #PP_THREAD_EXIT_FP]
.Lframe_move_no_thread:
    str     x10, [THREAD]

    mov     x0, x17
    mov     x1, sp
    bl      transition_run
    mov     x16, x0

    ldr     x10, [THREAD]
    cbz     x10, .Lframe_move_no_thread_back
    str     xzr, [x10, #PP_THREAD_EXIT_FP]
.Lframe_move_no_thread_back:
    ldr     x11, [sp, #PP_REGS_FLAGS]
    msr     nzcv, x11
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    ldr     q\n, [VECTOR(\n)]
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    ldr     q\n, [VECTOR(\n)]
    .endr
    ldp     x0, x1, [GPR(0)]
    ldp     x2, x3, [GPR(2)]
    ldp     x4, x5, [GPR(4)]
    ldp     x6, x7, [GPR(6)]
    ldp     x8, x9, [GPR(8)]
    ldp     x10, x11, [GPR(10)]
    ldp     x12, x13, [GPR(12)]
    ldp     x14, x15, [GPR(14)]
    ldr     x18, [GPR(18)]
    ldp     x19, x20, [GPR(19)]
    ldp     x21, x22, [GPR(21)]
    ldp     x23, x24, [GPR(23)]
    ldp     x25, x26, [GPR(25)]
    ldp     x27, x28, [GPR(27)]
    mov     sp, x29
    .cfi_def_cfa_register sp
    ldp     x29, x30, [sp], #16
    .cfi_def_cfa_offset 0
    .cfi_same_value x29
    .cfi_same_value x30
.Lframe_move_popped:
    ret
.Lframe_move_end:
END(frame_move)

    STUB_ROW(frame_move, STUB_TRANSITION)
