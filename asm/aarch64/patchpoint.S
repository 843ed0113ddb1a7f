/* SPDX-License-Identifier: MIT */
/*
 * The target of a site's call.  Not a C function.
 *
 *      in          x17 site record, x30 return address into the site
 *      out         x16 where the site goes on
 *      changed     x16, x17, x30, and on the slow path the flags
 *      kept        every other general register, FPCR, FPSR, errno, d8-d15;
 *                  patchpoint_v128: v0-v31 as well
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
 * The state is loaded with acquire, which pairs with the release store that
 * publishes a target.
 *
 *      FP + 8      return address into the site
 *      FP          site's FP              <- thread->exit_fp
 *      SP + 800    thread or 0
 *      SP          struct pp_regs
 */
#include "asm.h"
#include "stub.h"

#define THREAD sp, #PP_REGS_SIZE
#define FRAME (PP_REGS_SIZE + 16)
#define GPR(number) sp, #(PP_REGS_GPR + 8 * (number))
#define VECTOR(number) sp, #(PP_REGS_VECTOR + 16 * (number))

    HIDDEN(patchpoint_gpr)
    HIDDEN(patchpoint_v128)
    HIDDEN(patchpoint_slow)

CODE(patchpoint_v128)
    ldar    w16, [x17]                  /* PP_SITE_STATE is 0 */
    sub     w16, w16, #PP_SITE_READY
    cbnz    w16, .Lv128_slow
    ldr     x16, [x17, #PP_SITE_TARGET]
    ret
.Lv128_slow:
    stp     x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
.Lpatchpoint_v128_pushed:
    mov     x29, sp
    .cfi_def_cfa_register x29
.Lpatchpoint_v128_set:
    sub     sp, sp, #FRAME
    stp     q0, q1, [VECTOR(0)]
    stp     q2, q3, [VECTOR(2)]
    stp     q4, q5, [VECTOR(4)]
    stp     q6, q7, [VECTOR(6)]
    stp     q8, q9, [VECTOR(8)]
    stp     q10, q11, [VECTOR(10)]
    stp     q12, q13, [VECTOR(12)]
    stp     q14, q15, [VECTOR(14)]
    stp     q16, q17, [VECTOR(16)]
    stp     q18, q19, [VECTOR(18)]
    stp     q20, q21, [VECTOR(20)]
    stp     q22, q23, [VECTOR(22)]
    stp     q24, q25, [VECTOR(24)]
    stp     q26, q27, [VECTOR(26)]
    stp     q28, q29, [VECTOR(28)]
    stp     q30, q31, [VECTOR(30)]
    mov     x16, #PP_SAVE_V128_VALUE
    b       .Lslow_common
.Lpatchpoint_v128_popped:
.Lpatchpoint_v128_end:
END(patchpoint_v128)

CODE(patchpoint_gpr)
    ldar    w16, [x17]
    sub     w16, w16, #PP_SITE_READY
    cbnz    w16, .Lgpr_slow
    ldr     x16, [x17, #PP_SITE_TARGET]
    ret
.Lgpr_slow:
    stp     x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
.Lpatchpoint_gpr_pushed:
    mov     x29, sp
    .cfi_def_cfa_register x29
.Lpatchpoint_gpr_set:
    sub     sp, sp, #FRAME
    mov     x16, #PP_SAVE_GPR_VALUE

    /* Both stubs come here, with the same frame and the class in x16. */
.Lslow_common:
    str     x16, [sp, #PP_REGS_CLASS]
    stp     x0, x1, [GPR(0)]
    stp     x2, x3, [GPR(2)]
    stp     x4, x5, [GPR(4)]
    stp     x6, x7, [GPR(6)]
    stp     x8, x9, [GPR(8)]
    stp     x10, x11, [GPR(10)]
    stp     x12, x13, [GPR(12)]
    stp     x14, x15, [GPR(14)]
    stp     x16, x17, [GPR(16)]
    stp     x18, x19, [GPR(18)]
    stp     x20, x21, [GPR(20)]
    stp     x22, x23, [GPR(22)]
    stp     x24, x25, [GPR(24)]
    stp     x26, x27, [GPR(26)]
    ldr     x9, [x29]                   /* site's FP */
    stp     x28, x9, [GPR(28)]
    add     x10, x29, #16               /* SP at the site */
    stp     x30, x10, [GPR(30)]
    mrs     x11, nzcv
    stp     x30, x11, [sp, #PP_REGS_PC] /* and PP_REGS_FLAGS */
    mrs     x12, fpcr
    mrs     x13, fpsr
    str     w12, [sp, #PP_REGS_FP_CONTROL]
    str     w13, [sp, #PP_REGS_FP_CONTROL + 4]

    ldrsw   x10, [x17, #PP_SITE_THREAD_OFFSET]
    cbz     x10, .Lno_thread
    ldr     x10, [x9, x10]
    str     x29, [x10, #PP_THREAD_EXIT_FP]
.Lno_thread:
    str     x10, [THREAD]

    mov     x0, x17
    mov     x1, sp
    bl      patchpoint_slow
    mov     x16, x0

    ldr     x10, [THREAD]
    cbz     x10, .Lno_thread_back
    str     xzr, [x10, #PP_THREAD_EXIT_FP]
.Lno_thread_back:

    ldr     w12, [sp, #PP_REGS_FP_CONTROL]
    ldr     w13, [sp, #PP_REGS_FP_CONTROL + 4]
    mrs     x10, fpcr
    cmp     w10, w12
    b.eq    .Lfpcr_kept
    msr     fpcr, x12
.Lfpcr_kept:
    mrs     x10, fpsr
    cmp     w10, w13
    b.eq    .Lfpsr_kept
    msr     fpsr, x13
.Lfpsr_kept:

    ldr     x10, [sp, #PP_REGS_CLASS]
    cmp     x10, #PP_SAVE_V128_VALUE
    b.ne    .Lno_vectors
    ldp     q0, q1, [VECTOR(0)]
    ldp     q2, q3, [VECTOR(2)]
    ldp     q4, q5, [VECTOR(4)]
    ldp     q6, q7, [VECTOR(6)]
    ldp     q8, q9, [VECTOR(8)]
    ldp     q10, q11, [VECTOR(10)]
    ldp     q12, q13, [VECTOR(12)]
    ldp     q14, q15, [VECTOR(14)]
    ldp     q16, q17, [VECTOR(16)]
    ldp     q18, q19, [VECTOR(18)]
    ldp     q20, q21, [VECTOR(20)]
    ldp     q22, q23, [VECTOR(22)]
    ldp     q24, q25, [VECTOR(24)]
    ldp     q26, q27, [VECTOR(26)]
    ldp     q28, q29, [VECTOR(28)]
    ldp     q30, q31, [VECTOR(30)]
.Lno_vectors:
    ldp     x0, x1, [GPR(0)]
    ldp     x2, x3, [GPR(2)]
    ldp     x4, x5, [GPR(4)]
    ldp     x6, x7, [GPR(6)]
    ldp     x8, x9, [GPR(8)]
    ldp     x10, x11, [GPR(10)]
    ldp     x12, x13, [GPR(12)]
    ldp     x14, x15, [GPR(14)]
    ldr     x18, [GPR(18)]
    mov     sp, x29
    .cfi_def_cfa_register sp
    ldp     x29, x30, [sp], #16
    .cfi_def_cfa_offset 0
    .cfi_same_value x29
    .cfi_same_value x30
.Lpatchpoint_gpr_popped:
    ret
.Lpatchpoint_gpr_end:
END(patchpoint_gpr)

    STUB_ROW(patchpoint_v128, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_gpr, STUB_PATCHPOINT)
