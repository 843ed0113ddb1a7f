/* SPDX-License-Identifier: MIT */
/*
 * The jump at the end of pp_resume.
 *
 *      void frame_resume(pp_thread *thread, const pp_resume_point *point);
 *
 *      in          rdi thread, rsi point
 *      at the point rax = point->value, rsp = point->sp, rbp = point->fp;
 *                  r11 is the point's address, everything else undefined
 *
 *      if (shadow stack active)
 *          return;
 *      FP = point->fp;
 *      SP = point->sp;
 *      thread->exit_fp = 0;
 *      goto *point->pc;
 *
 * Until SP moves, the frames that are abandoned are still there and unwind as
 * those of the caller.  From then on the memory below is anybody's, and the
 * stub unwinds as if compiled code had called it from the point: return address
 * in r11, CFA = SP.  exit_fp goes last, because a walker prefers this stub's
 * own address to it once FP has moved.
 */
#include "asm.h"
#include "stub.h"

    HIDDEN(frame_resume)

FUNC(frame_resume)
    xor     %eax, %eax
    .byte   0xf3, 0x48, 0x0f, 0x1e, 0xc8 /* rdsspq %rax: leaves 0 without a shadow stack */
    test    %rax, %rax
    jz      .Lresume_allowed
    ret

.Lresume_allowed:
    mov     PP_RESUME_PC(%rsi), %r11
    mov     PP_RESUME_SP(%rsi), %rcx
    mov     PP_RESUME_FP(%rsi), %rdx
    mov     PP_RESUME_VALUE(%rsi), %rax
    mov     %rbp, %r8
    .cfi_register rbp, r8
.Lframe_resume_pushed:
    mov     %rdx, %rbp
.Lframe_resume_set:
    mov     %rcx, %rsp
    .cfi_def_cfa rsp, 0
    .cfi_register rip, r11
    .cfi_same_value rbp
.Lframe_resume_popped:
    movq    $0, PP_THREAD_EXIT_FP(%rdi)
    jmp     *%r11
.Lframe_resume_end:
END(frame_resume)

    STUB_ROW(frame_resume, STUB_RESUME)
