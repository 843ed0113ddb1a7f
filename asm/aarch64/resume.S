/* SPDX-License-Identifier: MIT */
/*
 * The jump at the end of pp_resume.
 *
 *      void frame_resume(pp_thread *thread, const pp_resume_point *point);
 *
 *      in          x0 thread, x1 point
 *      at the point x0 = point->value, sp = point->sp, x29 = point->fp;
 *                  x16 is the point's address, everything else undefined
 *
 *      if (guarded control stack active)
 *          return;
 *      FP = point->fp;
 *      SP = point->sp;
 *      thread->exit_fp = 0;
 *      goto *point->pc;
 *
 * Until SP moves, the frames that are abandoned are still there and unwind as
 * those of the caller.  From then on the memory below is anybody's, and the
 * stub unwinds as if compiled code had called it from the point: return address
 * in x16, CFA = SP.  exit_fp goes last, because a walker prefers this stub's
 * own address to it once FP has moved.
 */
#include "asm.h"
#include "stub.h"

    HIDDEN(frame_resume)

FUNC(frame_resume)
    mov     x16, #1
    hint    #40                         /* chkfeat x16: clears bit 0 when GCS is enabled */
    cbnz    x16, .Lresume_allowed
    ret

.Lresume_allowed:
    ldp     x16, x2, [x1, #PP_RESUME_PC]        /* pc, sp */
    ldp     x3, x4, [x1, #PP_RESUME_FP]         /* fp, value */
    mov     x5, x29
    .cfi_register x29, x5
.Lframe_resume_pushed:
    mov     x29, x3
.Lframe_resume_set:
    mov     sp, x2
    .cfi_def_cfa sp, 0
    .cfi_register x30, x16
    .cfi_same_value x29
.Lframe_resume_popped:
    str     xzr, [x0, #PP_THREAD_EXIT_FP]
    mov     x0, x4
    br      x16
.Lframe_resume_end:
END(frame_resume)

    STUB_ROW(frame_resume, STUB_RESUME)
