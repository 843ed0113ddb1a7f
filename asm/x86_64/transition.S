/* SPDX-License-Identifier: MIT */
/*
 * Between tier-0's frame and a body's.  Not a C function: the code of an entry,
 * which a site has jumped to, calls it with SP below both frames and jumps on.
 *
 *      in          r11 entry; SP of any alignment
 *      out         r11 the body's code
 *      loaded      all other general registers but rsp and rbp, and xmm0-xmm15, with
 *                  what the body wants in them; upper halves of ymm registers stay
 *      kept        rbp, DF, MXCSR, errno
 *      changed     r11, the arithmetic flags
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
 *                  to align
 *      SP + 416    thread or 0
 *      SP          struct pp_regs, 16-aligned
 */
#include "asm.h"
#include "stub.h"

#define THREAD PP_REGS_SIZE(%rsp)
#define FRAME (PP_REGS_SIZE + 16)
#define GPR(number) (PP_REGS_GPR + 8 * (number))(%rsp)
#define XMM(number) (PP_REGS_VECTOR + 16 * (number))(%rsp)
#define FLAGS_DF 0x400

    HIDDEN(frame_move)
    HIDDEN(transition_run)

    .macro  each_gpr instruction
    \instruction 0, rax
    \instruction 1, rcx
    \instruction 2, rdx
    \instruction 3, rbx
    \instruction 6, rsi
    \instruction 7, rdi
    \instruction 8, r8
    \instruction 9, r9
    \instruction 10, r10
    \instruction 12, r12
    \instruction 13, r13
    \instruction 14, r14
    \instruction 15, r15
    .endm
    .macro  store_gpr number, register
    mov     %\register, GPR(\number)
    .endm
    .macro  load_gpr number, register
    mov     GPR(\number), %\register
    .endm

CODE(frame_move)
    push    %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
.Lframe_move_pushed:
    mov     %rsp, %rbp
    .cfi_def_cfa_register rbp
.Lframe_move_set:
    sub     $FRAME, %rsp
    and     $-16, %rsp
    movq    $PP_SAVE_V128_VALUE, PP_REGS_CLASS(%rsp)
    each_gpr store_gpr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps  %xmm\n, XMM(\n)
    .endr
    lea     16(%rbp), %rax              /* staging */
    mov     %rax, PP_REGS_SP(%rsp)
    mov     0(%rbp), %rcx               /* FP of tier-0 */
    mov     %rcx, PP_REGS_FP(%rsp)
    mov     8(%rbp), %rax
    mov     %rax, PP_REGS_PC(%rsp)
    pushfq
    pop     %rax
    mov     %rax, PP_REGS_FLAGS(%rsp)
    test    $FLAGS_DF, %eax
    jz      .Lframe_move_df_off
    cld
.Lframe_move_df_off:

    movslq  ENTRY_THREAD_OFFSET(%r11), %rax
    test    %rax, %rax
    jz      .Lframe_move_no_thread
    mov     (%rcx,%rax), %rax
    mov     %rbp, PP_THREAD_EXIT_FP(%rax)
.Lframe_move_no_thread:
    mov     %rax, THREAD

    mov     %r11, %rdi
    mov     %rsp, %rsi
    call    transition_run
    mov     %rax, %r11

    mov     THREAD, %rax
    test    %rax, %rax
    jz      .Lframe_move_no_thread_back
    movq    $0, PP_THREAD_EXIT_FP(%rax)
.Lframe_move_no_thread_back:
    testl   $FLAGS_DF, PP_REGS_FLAGS(%rsp)
    jz      .Lframe_move_df_clear
    std
.Lframe_move_df_clear:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps  XMM(\n), %xmm\n
    .endr
    each_gpr load_gpr
    leave
    .cfi_def_cfa rsp, 8
    .cfi_same_value rbp
.Lframe_move_popped:
    ret
.Lframe_move_end:
END(frame_move)

    STUB_ROW(frame_move, STUB_TRANSITION)
