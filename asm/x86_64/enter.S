/* SPDX-License-Identifier: MIT */
/*
 * From C into compiled code.
 *
 *      uintptr_t pp_enter(pp_thread *thread, const void *code,
 *                         uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d);
 *
 *      in          rdi thread, rsi code, rdx rcx r8 r9 the arguments
 *      for code    rdi rsi rdx rcx the arguments
 *      out         rax rdx xmm0 xmm1 as the code returns them
 *      kept        rbx rbp r12-r15, the control bits of MXCSR, the x87 control
 *                  word; DF is clear
 *
 *      FP + 8      return address
 *      FP          caller's rbp
 *      FP - 40     r15 r14 r13 r12 rbx
 *      FP - 48     thread
 *      FP - 80     activation record: previous, exit_fp, fp, cookie
 *      FP - 88     MXCSR, x87 control word
 *      FP - 96     scratch                                     <- rsp
 *
 *      if (not on the thread's own stack)
 *          enter_elsewhere(thread);
 *      anchor = { thread->anchor, thread->exit_fp, FP, thread->cookie ^ &anchor };
 *      thread->anchor = &anchor;
 *      thread->exit_fp = 0;
 *      result = code(a, b, c, d);
 *      thread->exit_fp = anchor.exit_fp;
 *      thread->anchor = anchor.previous;
 *      return result;
 *
 * A signal may come between any two instructions.  The record is complete
 * before the thread points to it, and exit_fp is cleared only then; on the way
 * back exit_fp is right again before the record goes.
 *
 * If an exception passes through, enter_personality (lib/osr/activation.c) does
 * what the code behind the call would have done to the thread.
 *
 * Behind the call everything is found from rsp, because the code need not have
 * kept rbp; and the CFA is counted from rsp, too.
 */
#include "asm.h"
#include "stub.h"

#define FRAME 96
#define R(fp_offset) (FRAME + (fp_offset))(%rsp)
#define SAVE_RBX R(-8)
#define SAVE_R12 R(-16)
#define SAVE_R13 R(-24)
#define SAVE_R14 R(-32)
#define SAVE_R15 R(-40)
#define THREAD R(-48)
#define ANCHOR(field) R(PP_ENTER_ANCHOR_OFFSET + (field))
#define SAVE_MXCSR R(-88)
#define SAVE_X87CW R(-84)
#define SCRATCH R(-96)

/* MXCSR without its six sticky exception flags, which belong to the program. */
#define MXCSR_CONTROL 0xffc0

    .section .rodata
    .balign 4
    HIDDEN(enter_return_distance)
    .globl enter_return_distance
    .type enter_return_distance, @object
    .size enter_return_distance, 4
enter_return_distance:
    .long   .Lenter_return - enter_return_distance
    .text
    HIDDEN(enter_personality)
    HIDDEN(enter_elsewhere)

FUNC(pp_enter)
    .cfi_personality 0x1b, enter_personality /* DW_EH_PE_pcrel | DW_EH_PE_sdata4 */
    push    %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
.Lpp_enter_pushed:
    mov     %rsp, %rbp
.Lpp_enter_set:
    sub     $FRAME, %rsp
    .cfi_def_cfa_offset 16 + FRAME
    mov     %rbx, SAVE_RBX
    .cfi_offset rbx, -24
    mov     %r12, SAVE_R12
    .cfi_offset r12, -32
    mov     %r13, SAVE_R13
    .cfi_offset r13, -40
    mov     %r14, SAVE_R14
    .cfi_offset r14, -48
    mov     %r15, SAVE_R15
    .cfi_offset r15, -56
    mov     %rdi, THREAD
    stmxcsr SAVE_MXCSR
    fnstcw  SAVE_X87CW

    cmp     PP_THREAD_STACK_LO(%rdi), %rsp
    jb      .Lenter_elsewhere
    cmp     PP_THREAD_STACK_HI(%rdi), %rsp
    jb      .Lenter_here
.Lenter_elsewhere:
    mov     %rsi, %rbx
    mov     %rdx, %r12
    mov     %rcx, %r13
    mov     %r8, %r14
    mov     %r9, %r15
    call    enter_elsewhere
    mov     THREAD, %rdi
    mov     %rbx, %rsi
    mov     %r12, %rdx
    mov     %r13, %rcx
    mov     %r14, %r8
    mov     %r15, %r9
.Lenter_here:

    mov     PP_THREAD_ANCHOR(%rdi), %rax
    mov     %rax, ANCHOR(PP_ANCHOR_PREVIOUS)
    mov     PP_THREAD_EXIT_FP(%rdi), %rax
    mov     %rax, ANCHOR(PP_ANCHOR_EXIT_FP)
    mov     %rbp, ANCHOR(PP_ANCHOR_FP)
    lea     ANCHOR(0), %rax
    mov     PP_THREAD_COOKIE(%rdi), %r10
    xor     %rax, %r10
    mov     %r10, ANCHOR(PP_ANCHOR_COOKIE)
    mov     %rax, PP_THREAD_ANCHOR(%rdi)
    movq    $0, PP_THREAD_EXIT_FP(%rdi)

    mov     %rsi, %r11
    mov     %rdx, %rdi
    mov     %rcx, %rsi
    mov     %r8, %rdx
    mov     %r9, %rcx
    call    *%r11
.Lenter_return:
    lea     FRAME(%rsp), %rbp

    mov     THREAD, %rcx
    mov     ANCHOR(PP_ANCHOR_EXIT_FP), %rsi
    mov     %rsi, PP_THREAD_EXIT_FP(%rcx)
    mov     ANCHOR(PP_ANCHOR_PREVIOUS), %rsi
    mov     %rsi, PP_THREAD_ANCHOR(%rcx)

    cld
    stmxcsr SCRATCH
    mov     SAVE_MXCSR, %ecx
    mov     SCRATCH, %esi
    xor     %esi, %ecx
    and     $MXCSR_CONTROL, %ecx
    jz      .Lenter_mxcsr_kept
    xor     %ecx, %esi
    mov     %esi, SCRATCH
    ldmxcsr SCRATCH
.Lenter_mxcsr_kept:
    fnstcw  SCRATCH
    mov     SCRATCH, %cx
    cmp     SAVE_X87CW, %cx
    je      .Lenter_x87cw_kept
    fldcw   SAVE_X87CW
.Lenter_x87cw_kept:

    mov     SAVE_RBX, %rbx
    .cfi_same_value rbx
    mov     SAVE_R12, %r12
    .cfi_same_value r12
    mov     SAVE_R13, %r13
    .cfi_same_value r13
    mov     SAVE_R14, %r14
    .cfi_same_value r14
    mov     SAVE_R15, %r15
    .cfi_same_value r15
    leave
    .cfi_def_cfa_offset 8
    .cfi_same_value rbp
.Lpp_enter_popped:
    ret
.Lpp_enter_end:
END(pp_enter)

    STUB_ROW(pp_enter, STUB_ENTER)
