/* SPDX-License-Identifier: MIT */
/*
 * The targets of a site's call, one for each save class.  Not C functions.
 *
 *      in          r11 site record; SP of any alignment
 *      out         r11 where the site goes on
 *      changed     r11, the arithmetic flags, what the class does not keep
 *      kept        by all: rbx, rbp, r12-r15, DF, MXCSR, the x87 control word, errno
 *
 *      stub              keeps besides                  shows of general registers, and of others
 *      patchpoint_abi    rax rcx rdx rsi rdi r8-r10     those
 *      patchpoint_gpr    the same                       all
 *      patchpoint_v128   the same, xmm0-xmm15           all; 128 bits of each
 *      patchpoint_v256   the same, ymm0-ymm15           all; 256 bits of each
 *      patchpoint_v512   the same, zmm0-zmm31, k0-k7    all; 512 bits of each, 64 of each k
 *      patchpoint_mask   of V128's those that record->live_gpr and record->live_vector
 *                        name                           those that are named
 *      patchpoint_m256  the same of V256's
 *      patchpoint_m512  the same of V512's; and k0-k7
 *
 *      if (target = record->target)
 *          return target;
 *      thread = record->thread_offset ? *(pp_thread **) (site's FP + thread_offset) : NULL;
 *      if (thread) thread->exit_fp = FP;
 *      target = patchpoint_count(record, site's FP, return address);
 *      if (!target) {
 *          regs = registers as they were at the site;
 *          target = patchpoint_slow(record, &regs);
 *      }
 *      if (thread) thread->exit_fp = 0;
 *      load what a C function may change, from regs; if (record->edited) all of the class;
 *      return target;
 *
 * The target is one word that is 0 or right, at every moment: nothing else is asked.  The
 * record waits in the red zone until it is known.  x86-64 keeps loads in order, so code at
 * the target sees what was stored before it was published.
 *
 *      FP + 8      return address into the site
 *      FP          site's FP              <- thread->exit_fp
 *                  to align
 *      SP + 2496   k0-k7                  V512, M512
 *      SP + 448    zmm0-zmm31, 64-aligned: V512, M512; or ymm0-ymm15, 32-aligned: V256, M256
 *      SP + 440    live_vector            MASK, M256, M512
 *      SP + 432    thread or 0
 *      SP + 416    record until C has returned; scratch
 *      SP          struct pp_regs, 16-aligned
 *
 * V256, V512, M256 and M512 give C clean upper halves (vzeroupper), so that code with SSE
 * instructions runs at full speed there.  Afterwards the upper halves are what
 * they were, and in use for the processor, even where they hold zeros.
 */
#include "asm.h"
#include "stub.h"

#define RECORD PP_REGS_SIZE(%rsp)
#define SCRATCH PP_REGS_SIZE(%rsp)
#define THREAD (PP_REGS_SIZE + 16)(%rsp)
#define LIVE_VECTOR (PP_REGS_SIZE + 24)(%rsp)
#define FRAME PP_REGS_WIDE
#define GPR(number) (PP_REGS_GPR + 8 * (number))(%rsp)
#define XMM(number) (PP_REGS_VECTOR + 16 * (number))(%rsp)
#define YMM(number) (PP_REGS_WIDE + 32 * (number))(%rsp)
#define ZMM(number) (PP_REGS_WIDE + 64 * (number))(%rsp)
#define OPMASK(number) (PP_REGS_OPMASK + 8 * (number))(%rsp)
#define X87CW (PP_REGS_FP_CONTROL + 4)(%rsp)
#define FLAGS_DF 0x400
#define PRESERVED 0xf008                /* rbx, r12-r15 */

    HIDDEN(patchpoint_abi)
    HIDDEN(patchpoint_gpr)
    HIDDEN(patchpoint_v128)
    HIDDEN(patchpoint_v256)
    HIDDEN(patchpoint_v512)
    HIDDEN(patchpoint_mask)
    HIDDEN(patchpoint_m256)
    HIDDEN(patchpoint_m512)
    HIDDEN(patchpoint_count)
    HIDDEN(patchpoint_slow)

/* ---- parts of a stub ---------------------------------------------------- */

/* The way without C, and the frame of the other one. */
    .macro  open_stub name, bytes, align
    mov     %r11, -8(%rsp)          /* the stub's own red zone */
    mov     PP_SITE_TARGET(%r11), %r11
    test    %r11, %r11
    jz      .L\name\()_slow
    ret
.L\name\()_slow:
    mov     -8(%rsp), %r11
    push    %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
.L\name\()_pushed:
    mov     %rsp, %rbp
    .cfi_def_cfa_register rbp
.L\name\()_set:
    sub     $\bytes, %rsp
    and     $-\align, %rsp
    .endm

/*
 * The general registers that C may change, and the pass that only counts: from here
 * to close_stub, if it is one.  Else r11 is the record, through all that follows.
 */
    .macro  call_count name, class
    mov     %rax, GPR(0)
    mov     %rcx, GPR(1)
    mov     %rdx, GPR(2)
    mov     %rsi, GPR(6)
    mov     %rdi, GPR(7)
    mov     %r8, GPR(8)
    mov     %r9, GPR(9)
    mov     %r10, GPR(10)
    mov     0(%rbp), %rsi           /* site's FP */
    movslq  PP_SITE_THREAD_OFFSET(%r11), %rax
    test    %rax, %rax
    jz      .L\name\()_no_thread
    mov     (%rsi,%rax), %rax
    mov     %rbp, PP_THREAD_EXIT_FP(%rax)
.L\name\()_no_thread:
    mov     %rax, THREAD
    mov     %r11, RECORD
    mov     %r11, %rdi
    mov     8(%rbp), %rdx
    call    patchpoint_count
    mov     RECORD, %rcx
    mov     %rax, %r11
    test    %rax, %rax
    jnz     .L\name\()_passed
    mov     %rcx, %r11
    movq    $\class, PP_REGS_CLASS(%rsp)
    .endm

/* Only to be shown: C keeps them. */
    .macro  store_preserved
    mov     %rbx, GPR(3)
    mov     %r12, GPR(12)
    mov     %r13, GPR(13)
    mov     %r14, GPR(14)
    mov     %r15, GPR(15)
    .endm

/*
 * The rest of pp_regs, to C and back: rax, rcx, rdx, rsi, rdi and r8-r11 are
 * free, and the target is in r11 at the end.
 */
    .macro  call_slow name, edited=1
    lea     16(%rbp), %rax          /* SP at the site */
    mov     %rax, PP_REGS_SP(%rsp)
    mov     0(%rbp), %rcx           /* site's FP */
    mov     %rcx, PP_REGS_FP(%rsp)
    mov     8(%rbp), %rax
    mov     %rax, PP_REGS_PC(%rsp)
    movq    $0, PP_REGS_FP_CONTROL(%rsp)
    stmxcsr PP_REGS_FP_CONTROL(%rsp)
    fnstcw  X87CW
    pushfq
    pop     %rax
    mov     %rax, PP_REGS_FLAGS(%rsp)
    test    $FLAGS_DF, %eax
    jz      .L\name\()_df_off     /* cld takes longer than a branch */
    cld
.L\name\()_df_off:

    mov     %r11, %rdi
    mov     %rsp, %rsi
    call    patchpoint_slow
    mov     %rax, %r11
    .if     \edited
    mov     RECORD, %rcx
    cmpl    $0, PP_SITE_EDITED(%rcx)
    je      .L\name\()_unedited
    mov     GPR(3), %rbx
    mov     GPR(12), %r12
    mov     GPR(13), %r13
    mov     GPR(14), %r14
    mov     GPR(15), %r15
.L\name\()_unedited:
    .endif

    stmxcsr SCRATCH
    mov     SCRATCH, %eax
    cmp     PP_REGS_FP_CONTROL(%rsp), %eax
    je      .L\name\()_mxcsr_kept
    ldmxcsr PP_REGS_FP_CONTROL(%rsp)
.L\name\()_mxcsr_kept:
    fnstcw  SCRATCH
    mov     SCRATCH, %ax
    cmp     X87CW, %ax
    je      .L\name\()_x87cw_kept
    fldcw   X87CW
.L\name\()_x87cw_kept:
    testl   $FLAGS_DF, PP_REGS_FLAGS(%rsp)
    jz      .L\name\()_df_clear
    std
.L\name\()_df_clear:
    .endm

    .macro  close_stub name
.L\name\()_passed:
    mov     THREAD, %rax
    test    %rax, %rax
    jz      .L\name\()_no_thread_back
    movq    $0, PP_THREAD_EXIT_FP(%rax)
.L\name\()_no_thread_back:
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
.L\name\()_popped:
    ret
.L\name\()_end:
    .endm

/* ---- patchpoint_abi ----------------------------------------------------- */

CODE(patchpoint_abi)
    open_stub patchpoint_abi, FRAME, 16
    call_count patchpoint_abi, PP_SAVE_ABI_VALUE
    call_slow patchpoint_abi, edited=0
    close_stub patchpoint_abi
END(patchpoint_abi)

/* ---- patchpoint_gpr ----------------------------------------------------- */

CODE(patchpoint_gpr)
    open_stub patchpoint_gpr, FRAME, 16
    call_count patchpoint_gpr, PP_SAVE_GPR_VALUE
    store_preserved
    call_slow patchpoint_gpr
    close_stub patchpoint_gpr
END(patchpoint_gpr)

/* ---- patchpoint_v128 ---------------------------------------------------- */

CODE(patchpoint_v128)
    open_stub patchpoint_v128, FRAME, 16
    call_count patchpoint_v128, PP_SAVE_V128_VALUE
    store_preserved
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps  %xmm\n, XMM(\n)
    .endr
    call_slow patchpoint_v128
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movaps  XMM(\n), %xmm\n
    .endr
    close_stub patchpoint_v128
END(patchpoint_v128)

/* ---- patchpoint_v256: only where AVX is there --------------------------- */

CODE(patchpoint_v256)
    open_stub patchpoint_v256, PP_REGS_V256_SIZE, 32
    call_count patchpoint_v256, PP_SAVE_V256_VALUE
    store_preserved
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups %ymm\n, YMM(\n)
    .endr
    vzeroupper
    call_slow patchpoint_v256
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups YMM(\n), %ymm\n
    .endr
    close_stub patchpoint_v256
END(patchpoint_v256)

/* ---- patchpoint_v512: only where AVX-512 F and BW are there ------------- */

CODE(patchpoint_v512)
    open_stub patchpoint_v512, PP_REGS_V512_SIZE, 64
    call_count patchpoint_v512, PP_SAVE_V512_VALUE
    store_preserved
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups %zmm\n, ZMM(\n)
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovups %zmm\n, ZMM(\n)
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq   %k\n, OPMASK(\n)
    .endr
    vzeroupper
    call_slow patchpoint_v512
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq   OPMASK(\n), %k\n
    .endr
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovups ZMM(\n), %zmm\n
    .endr
    .irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    vmovups ZMM(\n), %zmm\n
    .endr
    close_stub patchpoint_v512
END(patchpoint_v512)

/* ---- patchpoint_mask ---------------------------------------------------- */

/*
 * Vector registers in fours, up to the four with the highest that ecx names: a
 * test and a jump for each register take longer than to store all.
 */
    .macro  store_four a, b, c, d
    test    $(0xffff << \a & 0xffff), %ecx
    jz      .Lpatchpoint_mask_stored
    movaps  %xmm\a, XMM(\a)
    movaps  %xmm\b, XMM(\b)
    movaps  %xmm\c, XMM(\c)
    movaps  %xmm\d, XMM(\d)
    .endm

    .macro  load_four a, b, c, d
    test    $(0xffff << \a & 0xffff), %ecx
    jz      .Lpatchpoint_mask_loaded
    movaps  XMM(\a), %xmm\a
    movaps  XMM(\b), %xmm\b
    movaps  XMM(\c), %xmm\c
    movaps  XMM(\d), %xmm\d
    .endm

CODE(patchpoint_mask)
    open_stub patchpoint_mask, FRAME, 16
    call_count patchpoint_mask, PP_SAVE_MASK_VALUE
    mov     PP_SITE_LIVE_GPR(%r11), %eax
    mov     PP_SITE_LIVE_VECTOR(%r11), %ecx
    mov     %ecx, LIVE_VECTOR
    test    $PRESERVED, %eax
    jz      .Lpatchpoint_mask_unseen
    store_preserved
.Lpatchpoint_mask_unseen:
    store_four 0, 1, 2, 3
    store_four 4, 5, 6, 7
    store_four 8, 9, 10, 11
    store_four 12, 13, 14, 15
.Lpatchpoint_mask_stored:
    call_slow patchpoint_mask
    mov     LIVE_VECTOR, %ecx
    load_four 0, 1, 2, 3
    load_four 4, 5, 6, 7
    load_four 8, 9, 10, 11
    load_four 12, 13, 14, 15
.Lpatchpoint_mask_loaded:
    close_stub patchpoint_mask
END(patchpoint_mask)

/* ---- patchpoint_m256 and patchpoint_m512: where V256 and V512 are --------- */

    .macro  store_ymm a, b, c, d
    test    $(0xffff << \a & 0xffff), %ecx
    jz      .Lpatchpoint_m256_stored
    .irp n, \a, \b, \c, \d
    vmovups %ymm\n, YMM(\n)
    .endr
    .endm

    .macro  load_ymm a, b, c, d
    test    $(0xffff << \a & 0xffff), %ecx
    jz      .Lpatchpoint_m256_loaded
    .irp n, \a, \b, \c, \d
    vmovups YMM(\n), %ymm\n
    .endr
    .endm

    .macro  store_zmm a, b, c, d
    test    $(0xffffffff << \a & 0xffffffff), %ecx
    jz      .Lpatchpoint_m512_stored
    .irp n, \a, \b, \c, \d
    vmovups %zmm\n, ZMM(\n)
    .endr
    .endm

    .macro  load_zmm a, b, c, d
    test    $(0xffffffff << \a & 0xffffffff), %ecx
    jz      .Lpatchpoint_m512_loaded
    .irp n, \a, \b, \c, \d
    vmovups ZMM(\n), %zmm\n
    .endr
    .endm

CODE(patchpoint_m256)
    open_stub patchpoint_m256, PP_REGS_V256_SIZE, 32
    call_count patchpoint_m256, PP_SAVE_MASK256_VALUE
    mov     PP_SITE_LIVE_GPR(%r11), %eax
    mov     PP_SITE_LIVE_VECTOR(%r11), %ecx
    mov     %ecx, LIVE_VECTOR
    test    $PRESERVED, %eax
    jz      .Lpatchpoint_m256_unseen
    store_preserved
.Lpatchpoint_m256_unseen:
    store_ymm 0, 1, 2, 3
    store_ymm 4, 5, 6, 7
    store_ymm 8, 9, 10, 11
    store_ymm 12, 13, 14, 15
.Lpatchpoint_m256_stored:
    vzeroupper
    call_slow patchpoint_m256
    mov     LIVE_VECTOR, %ecx
    load_ymm 0, 1, 2, 3
    load_ymm 4, 5, 6, 7
    load_ymm 8, 9, 10, 11
    load_ymm 12, 13, 14, 15
.Lpatchpoint_m256_loaded:
    close_stub patchpoint_m256
END(patchpoint_m256)

CODE(patchpoint_m512)
    open_stub patchpoint_m512, PP_REGS_V512_SIZE, 64
    call_count patchpoint_m512, PP_SAVE_MASK512_VALUE
    mov     PP_SITE_LIVE_GPR(%r11), %eax
    mov     PP_SITE_LIVE_VECTOR(%r11), %ecx
    mov     %ecx, LIVE_VECTOR
    test    $PRESERVED, %eax
    jz      .Lpatchpoint_m512_unseen
    store_preserved
.Lpatchpoint_m512_unseen:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq   %k\n, OPMASK(\n)
    .endr
    store_zmm 0, 1, 2, 3
    store_zmm 4, 5, 6, 7
    store_zmm 8, 9, 10, 11
    store_zmm 12, 13, 14, 15
    store_zmm 16, 17, 18, 19
    store_zmm 20, 21, 22, 23
    store_zmm 24, 25, 26, 27
    store_zmm 28, 29, 30, 31
.Lpatchpoint_m512_stored:
    vzeroupper
    call_slow patchpoint_m512
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7
    kmovq   OPMASK(\n), %k\n
    .endr
    mov     LIVE_VECTOR, %ecx
    load_zmm 0, 1, 2, 3
    load_zmm 4, 5, 6, 7
    load_zmm 8, 9, 10, 11
    load_zmm 12, 13, 14, 15
    load_zmm 16, 17, 18, 19
    load_zmm 20, 21, 22, 23
    load_zmm 24, 25, 26, 27
    load_zmm 28, 29, 30, 31
.Lpatchpoint_m512_loaded:
    close_stub patchpoint_m512
END(patchpoint_m512)

    STUB_ROW(patchpoint_abi, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_gpr, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_v128, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_v256, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_v512, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_mask, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_m256, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_m512, STUB_PATCHPOINT)
