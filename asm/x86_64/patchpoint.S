/* SPDX-License-Identifier: MIT */
/*
 * The target of a site's call.  Not a C function.
 *
 *      in          r11 site record; SP of any alignment
 *      out         r11 where the site goes on
 *      changed     r11, the arithmetic flags
 *      kept        every other general register, DF, MXCSR, the x87 control
 *                  word, errno; patchpoint_v128: xmm0-xmm15 as well
 *
 *      if (record->state == PP_SITE_READY)
 *          return record->target;
 *      regs = all registers as they were at the site;
 *      thread = record->thread_offset ? *(pp_thread **) (site's FP + thread_offset) : NULL;
 *      if (thread) thread->exit_fp = FP;
 *      target = patchpoint_slow(record, &regs);
 *      if (thread) thread->exit_fp = 0;
 *      restore what a C function may change;
 *      return target;
 *
 * A target, once set, is always a published one, and x86-64 keeps loads in
 * order: state READY seen means the target is there.
 *
 *      FP + 8      return address into the site
 *      FP          site's FP              <- thread->exit_fp
 *                  0 to 15 bytes, to align
 *      SP + 432    thread or 0
 *      SP + 416    scratch
 *      SP          struct pp_regs, 16-aligned
 */
#include "asm.h"
#include "stub.h"

#define SCRATCH PP_REGS_SIZE(%rsp)
#define THREAD (PP_REGS_SIZE + 16)(%rsp)
#define FRAME (PP_REGS_SIZE + 32)
#define GPR(number) (PP_REGS_GPR + 8 * (number))(%rsp)
#define VECTOR(number) (PP_REGS_VECTOR + 16 * (number))(%rsp)
#define X87CW (PP_REGS_FP_CONTROL + 4)(%rsp)
#define FLAGS_DF 0x400

    HIDDEN(patchpoint_gpr)
    HIDDEN(patchpoint_v128)
    HIDDEN(patchpoint_slow)

CODE(patchpoint_v128)
    cmpl    $PP_SITE_READY, PP_SITE_STATE(%r11)
    jne     .Lv128_slow
    mov     PP_SITE_TARGET(%r11), %r11
    ret
.Lv128_slow:
    push    %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
.Lpatchpoint_v128_pushed:
    mov     %rsp, %rbp
    .cfi_def_cfa_register rbp
.Lpatchpoint_v128_set:
    sub     $FRAME, %rsp
    and     $-16, %rsp
    movq    $PP_SAVE_V128_VALUE, PP_REGS_CLASS(%rsp)
    movaps  %xmm0, VECTOR(0)
    movaps  %xmm1, VECTOR(1)
    movaps  %xmm2, VECTOR(2)
    movaps  %xmm3, VECTOR(3)
    movaps  %xmm4, VECTOR(4)
    movaps  %xmm5, VECTOR(5)
    movaps  %xmm6, VECTOR(6)
    movaps  %xmm7, VECTOR(7)
    movaps  %xmm8, VECTOR(8)
    movaps  %xmm9, VECTOR(9)
    movaps  %xmm10, VECTOR(10)
    movaps  %xmm11, VECTOR(11)
    movaps  %xmm12, VECTOR(12)
    movaps  %xmm13, VECTOR(13)
    movaps  %xmm14, VECTOR(14)
    movaps  %xmm15, VECTOR(15)
    jmp     .Lslow_common
.Lpatchpoint_v128_popped:
.Lpatchpoint_v128_end:
END(patchpoint_v128)

CODE(patchpoint_gpr)
    cmpl    $PP_SITE_READY, PP_SITE_STATE(%r11)
    jne     .Lgpr_slow
    mov     PP_SITE_TARGET(%r11), %r11
    ret
.Lgpr_slow:
    push    %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
.Lpatchpoint_gpr_pushed:
    mov     %rsp, %rbp
    .cfi_def_cfa_register rbp
.Lpatchpoint_gpr_set:
    sub     $FRAME, %rsp
    and     $-16, %rsp
    movq    $PP_SAVE_GPR_VALUE, PP_REGS_CLASS(%rsp)

    /* Both stubs come here, with the same frame. */
.Lslow_common:
    mov     %rax, GPR(0)
    mov     %rcx, GPR(1)
    mov     %rdx, GPR(2)
    mov     %rbx, GPR(3)
    mov     %rsi, GPR(6)
    mov     %rdi, GPR(7)
    mov     %r8, GPR(8)
    mov     %r9, GPR(9)
    mov     %r10, GPR(10)
    mov     %r11, GPR(11)
    mov     %r12, GPR(12)
    mov     %r13, GPR(13)
    mov     %r14, GPR(14)
    mov     %r15, GPR(15)
    lea     16(%rbp), %rax          /* SP at the site */
    mov     %rax, PP_REGS_SP(%rsp)
    mov     0(%rbp), %rcx           /* site's FP */
    mov     %rcx, PP_REGS_FP(%rsp)
    mov     8(%rbp), %rax
    mov     %rax, PP_REGS_PC(%rsp)
    pushfq
    pop     PP_REGS_FLAGS(%rsp)
    movq    $0, PP_REGS_FP_CONTROL(%rsp)
    stmxcsr PP_REGS_FP_CONTROL(%rsp)
    fnstcw  X87CW
    cld

    movslq  PP_SITE_THREAD_OFFSET(%r11), %rax
    test    %rax, %rax
    jz      .Lno_thread
    mov     (%rcx,%rax), %rax
    mov     %rbp, PP_THREAD_EXIT_FP(%rax)
.Lno_thread:
    mov     %rax, THREAD

    mov     %r11, %rdi
    mov     %rsp, %rsi
    call    patchpoint_slow
    mov     %rax, %r11

    mov     THREAD, %rax
    test    %rax, %rax
    jz      .Lno_thread_back
    movq    $0, PP_THREAD_EXIT_FP(%rax)
.Lno_thread_back:

    stmxcsr SCRATCH
    mov     SCRATCH, %eax
    cmp     PP_REGS_FP_CONTROL(%rsp), %eax
    je      .Lmxcsr_kept
    ldmxcsr PP_REGS_FP_CONTROL(%rsp)
.Lmxcsr_kept:
    fnstcw  SCRATCH
    mov     SCRATCH, %ax
    cmp     X87CW, %ax
    je      .Lx87cw_kept
    fldcw   X87CW
.Lx87cw_kept:
    testl   $FLAGS_DF, PP_REGS_FLAGS(%rsp)
    jz      .Ldf_clear
    std
.Ldf_clear:

    cmpl    $PP_SAVE_V128_VALUE, PP_REGS_CLASS(%rsp)
    jne     .Lno_vectors
    movaps  VECTOR(0), %xmm0
    movaps  VECTOR(1), %xmm1
    movaps  VECTOR(2), %xmm2
    movaps  VECTOR(3), %xmm3
    movaps  VECTOR(4), %xmm4
    movaps  VECTOR(5), %xmm5
    movaps  VECTOR(6), %xmm6
    movaps  VECTOR(7), %xmm7
    movaps  VECTOR(8), %xmm8
    movaps  VECTOR(9), %xmm9
    movaps  VECTOR(10), %xmm10
    movaps  VECTOR(11), %xmm11
    movaps  VECTOR(12), %xmm12
    movaps  VECTOR(13), %xmm13
    movaps  VECTOR(14), %xmm14
    movaps  VECTOR(15), %xmm15
.Lno_vectors:
    mov     GPR(0), %rax
    mov     GPR(1), %rcx
    mov     GPR(2), %rdx
    mov     GPR(6), %rsi
    mov     GPR(7), %rdi
    mov     GPR(8), %r8
    mov     GPR(9), %r9
    mov     GPR(10), %r10
    leave
    .cfi_def_cfa rsp, 8
    .cfi_same_value rbp
.Lpatchpoint_gpr_popped:
    ret
.Lpatchpoint_gpr_end:
END(patchpoint_gpr)

    STUB_ROW(patchpoint_v128, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_gpr, STUB_PATCHPOINT)
