/* SPDX-License-Identifier: MIT */
/*
 * The targets of a site's call, one for each save class.  Not C functions.
 *
 *      in          x17 site record, x30 return address into the site
 *      out         x16 where the site goes on
 *      changed     x16, x17, x30, what the class does not keep, and on the slow
 *                  path the flags
 *      kept        by all: x19-x29, d8-d15, FPCR, FPSR, errno
 *
 *      stub              keeps besides     shows of general registers, and of others
 *      patchpoint_abi    x0-x15, x18       those
 *      patchpoint_gpr    the same          all
 *      patchpoint_v128   the same, v0-v31  all; 128 bits of each
 *      patchpoint_mask   of V128's those that record->live_gpr and record->live_vector
 *                        name              those that are named
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
 * The target is one word that is 0 or right, at every moment.  It is loaded with acquire,
 * which pairs with the exchange that publishes it.
 *
 *      FP + 8      return address into the site
 *      FP          site's FP              <- thread->exit_fp
 *      SP + 816    record
 *      SP + 808    live_vector            MASK
 *      SP + 800    thread or 0
 *      SP          struct pp_regs
 *
 * No class keeps what SVE adds: bits of z registers beyond 128, p registers and
 * FFR are the callee's in any call of the base procedure call standard.
 */
#include "asm.h"
#include "stub.h"

#define THREAD sp, #PP_REGS_SIZE
#define LIVE_VECTOR sp, #(PP_REGS_SIZE + 8)
#define RECORD sp, #(PP_REGS_SIZE + 16)
#define FRAME (PP_REGS_SIZE + 32)
#define GPR(number) sp, #(PP_REGS_GPR + 8 * (number))
#define VECTOR(number) sp, #(PP_REGS_VECTOR + 16 * (number))
#define PRESERVED 0x1ff80000            /* x19-x28 */

    HIDDEN(patchpoint_abi)
    HIDDEN(patchpoint_gpr)
    HIDDEN(patchpoint_v128)
    HIDDEN(patchpoint_mask)
    HIDDEN(patchpoint_count)
    HIDDEN(patchpoint_slow)

/* ---- parts of a stub ---------------------------------------------------- */

/* The way without C, and the frame of the other one. */
    .macro  open_stub name
    add     x16, x17, #PP_SITE_TARGET
    ldar    x16, [x16]
    cbz     x16, .L\name\()_slow
    ret
.L\name\()_slow:
    stp     x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
.L\name\()_pushed:
    mov     x29, sp
    .cfi_def_cfa_register x29
.L\name\()_set:
    sub     sp, sp, #FRAME
    .endm

/*
 * The general registers that C may change, and the pass that only counts: from here
 * to close_stub, if it is one.  Else x17 is the record, through all that follows.
 */
    .macro  call_count name, class
    stp     x0, x1, [GPR(0)]
    stp     x2, x3, [GPR(2)]
    stp     x4, x5, [GPR(4)]
    stp     x6, x7, [GPR(6)]
    stp     x8, x9, [GPR(8)]
    stp     x10, x11, [GPR(10)]
    stp     x12, x13, [GPR(12)]
    stp     x14, x15, [GPR(14)]
    str     x18, [GPR(18)]
    str     x17, [RECORD]
    mrs     x10, nzcv
    stp     x30, x10, [sp, #PP_REGS_PC] /* and PP_REGS_FLAGS */
    ldr     x1, [x29]                   /* site's FP */
    ldrsw   x10, [x17, #PP_SITE_THREAD_OFFSET]
    cbz     x10, .L\name\()_no_thread
    ldr     x10, [x1, x10]
    str     x29, [x10, #PP_THREAD_EXIT_FP]
.L\name\()_no_thread:
    str     x10, [THREAD]
    mov     x0, x17
    mov     x2, x30
    bl      patchpoint_count
    mov     x16, x0
    cbnz    x0, .L\name\()_passed
    mov     x10, #\class
    str     x10, [sp, #PP_REGS_CLASS]
    ldr     x17, [RECORD]
    .endm

/* Only to be shown: C keeps them. */
    .macro  store_preserved
    stp     x19, x20, [GPR(19)]
    stp     x21, x22, [GPR(21)]
    stp     x23, x24, [GPR(23)]
    stp     x25, x26, [GPR(25)]
    stp     x27, x28, [GPR(27)]
    .endm

    .macro  store_eight a, b, c, d, e, f, g, h
    stp     q\a, q\b, [VECTOR(\a)]
    stp     q\c, q\d, [VECTOR(\c)]
    stp     q\e, q\f, [VECTOR(\e)]
    stp     q\g, q\h, [VECTOR(\g)]
    .endm

    .macro  load_eight a, b, c, d, e, f, g, h
    ldp     q\a, q\b, [VECTOR(\a)]
    ldp     q\c, q\d, [VECTOR(\c)]
    ldp     q\e, q\f, [VECTOR(\e)]
    ldp     q\g, q\h, [VECTOR(\g)]
    .endm

/*
 * The rest of pp_regs, to C and back: x0-x15 are free, and the target is in x16
 * at the end.
 */
    .macro  call_slow name, edited=1
    ldp     x9, x11, [x29]              /* site's FP, return address */
    str     x9, [sp, #PP_REGS_FP]
    add     x10, x29, #16               /* SP at the site */
    stp     x11, x10, [GPR(30)]
    mrs     x12, fpcr
    mrs     x13, fpsr
    str     w12, [sp, #PP_REGS_FP_CONTROL]
    str     w13, [sp, #PP_REGS_FP_CONTROL + 4]

    mov     x0, x17
    mov     x1, sp
    bl      patchpoint_slow
    mov     x16, x0
    .if     \edited
    ldr     x17, [RECORD]
    ldr     w10, [x17, #PP_SITE_EDITED]
    cbz     w10, .L\name\()_unedited
    ldp     x19, x20, [GPR(19)]
    ldp     x21, x22, [GPR(21)]
    ldp     x23, x24, [GPR(23)]
    ldp     x25, x26, [GPR(25)]
    ldp     x27, x28, [GPR(27)]
.L\name\()_unedited:
    .endif

    ldr     w12, [sp, #PP_REGS_FP_CONTROL]
    ldr     w13, [sp, #PP_REGS_FP_CONTROL + 4]
    mrs     x10, fpcr
    cmp     w10, w12
    b.eq    .L\name\()_fpcr_kept
    msr     fpcr, x12
.L\name\()_fpcr_kept:
    mrs     x10, fpsr
    cmp     w10, w13
    b.eq    .L\name\()_fpsr_kept
    msr     fpsr, x13
.L\name\()_fpsr_kept:
    .endm

    .macro  close_stub name
.L\name\()_passed:
    ldr     x10, [THREAD]
    cbz     x10, .L\name\()_no_thread_back
    str     xzr, [x10, #PP_THREAD_EXIT_FP]
.L\name\()_no_thread_back:
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
.L\name\()_popped:
    ret
.L\name\()_end:
    .endm

/* ---- patchpoint_abi ----------------------------------------------------- */

CODE(patchpoint_abi)
    open_stub patchpoint_abi
    call_count patchpoint_abi, PP_SAVE_ABI_VALUE
    call_slow patchpoint_abi, edited=0
    close_stub patchpoint_abi
END(patchpoint_abi)

/* ---- patchpoint_gpr ----------------------------------------------------- */

CODE(patchpoint_gpr)
    open_stub patchpoint_gpr
    call_count patchpoint_gpr, PP_SAVE_GPR_VALUE
    store_preserved
    call_slow patchpoint_gpr
    close_stub patchpoint_gpr
END(patchpoint_gpr)

/* ---- patchpoint_v128 ---------------------------------------------------- */

CODE(patchpoint_v128)
    open_stub patchpoint_v128
    call_count patchpoint_v128, PP_SAVE_V128_VALUE
    store_preserved
    store_eight 0, 1, 2, 3, 4, 5, 6, 7
    store_eight 8, 9, 10, 11, 12, 13, 14, 15
    store_eight 16, 17, 18, 19, 20, 21, 22, 23
    store_eight 24, 25, 26, 27, 28, 29, 30, 31
    call_slow patchpoint_v128
    load_eight 0, 1, 2, 3, 4, 5, 6, 7
    load_eight 8, 9, 10, 11, 12, 13, 14, 15
    load_eight 16, 17, 18, 19, 20, 21, 22, 23
    load_eight 24, 25, 26, 27, 28, 29, 30, 31
    close_stub patchpoint_v128
END(patchpoint_v128)

/* ---- patchpoint_mask ---------------------------------------------------- */

/* Vector registers in eights: all of an eight in which w9 names one.  The flags stay. */
    .macro  store_named a, b, c, d, e, f, g, h
    and     w10, w9, #(0xff << \a)
    cbz     w10, .Lpatchpoint_mask_not_stored_\a
    store_eight \a, \b, \c, \d, \e, \f, \g, \h
.Lpatchpoint_mask_not_stored_\a:
    .endm

    .macro  load_named a, b, c, d, e, f, g, h
    and     w10, w9, #(0xff << \a)
    cbz     w10, .Lpatchpoint_mask_not_loaded_\a
    load_eight \a, \b, \c, \d, \e, \f, \g, \h
.Lpatchpoint_mask_not_loaded_\a:
    .endm

CODE(patchpoint_mask)
    open_stub patchpoint_mask
    call_count patchpoint_mask, PP_SAVE_MASK_VALUE
    ldp     w10, w9, [x17, #PP_SITE_LIVE_GPR] /* and PP_SITE_LIVE_VECTOR */
    str     w9, [LIVE_VECTOR]
    and     w10, w10, #PRESERVED
    cbz     w10, .Lpatchpoint_mask_unseen
    store_preserved
.Lpatchpoint_mask_unseen:
    store_named 0, 1, 2, 3, 4, 5, 6, 7
    store_named 8, 9, 10, 11, 12, 13, 14, 15
    store_named 16, 17, 18, 19, 20, 21, 22, 23
    store_named 24, 25, 26, 27, 28, 29, 30, 31
    call_slow patchpoint_mask
    ldr     w9, [LIVE_VECTOR]
    load_named 0, 1, 2, 3, 4, 5, 6, 7
    load_named 8, 9, 10, 11, 12, 13, 14, 15
    load_named 16, 17, 18, 19, 20, 21, 22, 23
    load_named 24, 25, 26, 27, 28, 29, 30, 31
    close_stub patchpoint_mask
END(patchpoint_mask)

    STUB_ROW(patchpoint_abi, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_gpr, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_v128, STUB_PATCHPOINT)
    STUB_ROW(patchpoint_mask, STUB_PATCHPOINT)
