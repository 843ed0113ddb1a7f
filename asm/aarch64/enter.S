/* SPDX-License-Identifier: MIT */
/*
 * From C into compiled code.
 *
 *      uintptr_t pp_enter(pp_thread *thread, const void *code,
 *                         uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d);
 *
 *      in          x0 thread, x1 code, x2-x5 the arguments
 *      for code    x0-x3 the arguments
 *      out         x0-x7 v0-v7 as the code returns them
 *      kept        x19-x29, d8-d15, FPCR
 *
 *      FP + 8      return address
 *      FP          caller's x29
 *      FP - 80     x19 .. x28
 *      FP - 144    d8 .. d15
 *      FP - 152    FPCR
 *      FP - 160    thread
 *      FP - 192    activation record: previous, exit_fp, fp, cookie    <- sp
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
 * Behind the call everything is found from SP, because the code need not have
 * kept x29; and the CFA is counted from SP, too.
 */
#include "asm.h"
#include "stub.h"

#define FRAME 192
#define AT(fp_offset) sp, #(FRAME + (fp_offset))
#define SAVE_X19 AT(-80)
#define SAVE_X21 AT(-64)
#define SAVE_X23 AT(-48)
#define SAVE_X25 AT(-32)
#define SAVE_X27 AT(-16)
#define SAVE_D8 AT(-144)
#define SAVE_D10 AT(-128)
#define SAVE_D12 AT(-112)
#define SAVE_D14 AT(-96)
#define SAVE_FPCR AT(-152)
#define THREAD AT(-160)
#define ANCHOR(field) AT(PP_ENTER_ANCHOR_OFFSET + (field))

    .section .rodata
    .balign 4
    HIDDEN(enter_return_distance)
    .globl enter_return_distance
    .type enter_return_distance, %object
    .size enter_return_distance, 4
enter_return_distance:
    .long   .Lenter_return - enter_return_distance
    .text
    HIDDEN(enter_personality)
    HIDDEN(enter_elsewhere)

FUNC(pp_enter)
    .cfi_personality 0x1b, enter_personality /* DW_EH_PE_pcrel | DW_EH_PE_sdata4 */
    stp     x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset x29, -16
    .cfi_offset x30, -8
.Lpp_enter_pushed:
    mov     x29, sp
.Lpp_enter_set:
    sub     sp, sp, #FRAME
    .cfi_def_cfa_offset 16 + FRAME
    stp     x19, x20, [SAVE_X19]
    .cfi_offset x19, -96
    .cfi_offset x20, -88
    stp     x21, x22, [SAVE_X21]
    .cfi_offset x21, -80
    .cfi_offset x22, -72
    stp     x23, x24, [SAVE_X23]
    .cfi_offset x23, -64
    .cfi_offset x24, -56
    stp     x25, x26, [SAVE_X25]
    .cfi_offset x25, -48
    .cfi_offset x26, -40
    stp     x27, x28, [SAVE_X27]
    .cfi_offset x27, -32
    .cfi_offset x28, -24
    stp     d8, d9, [SAVE_D8]
    .cfi_offset d8, -160
    .cfi_offset d9, -152
    stp     d10, d11, [SAVE_D10]
    .cfi_offset d10, -144
    .cfi_offset d11, -136
    stp     d12, d13, [SAVE_D12]
    .cfi_offset d12, -128
    .cfi_offset d13, -120
    stp     d14, d15, [SAVE_D14]
    .cfi_offset d14, -112
    .cfi_offset d15, -104
    mrs     x9, fpcr
    str     x9, [SAVE_FPCR]
    str     x0, [THREAD]

    ldp     x9, x10, [x0, #PP_THREAD_STACK_LO]
    mov     x11, sp
    cmp     x11, x9
    ccmp    x11, x10, #2, hs        /* else as if not below */
    b.lo    .Lenter_here
    mov     x19, x1
    mov     x20, x2
    mov     x21, x3
    mov     x22, x4
    mov     x23, x5
    bl      enter_elsewhere
    ldr     x0, [THREAD]
    mov     x1, x19
    mov     x2, x20
    mov     x3, x21
    mov     x4, x22
    mov     x5, x23
.Lenter_here:

    ldr     x9, [x0, #PP_THREAD_ANCHOR]
    ldr     x10, [x0, #PP_THREAD_EXIT_FP]
    ldr     x11, [x0, #PP_THREAD_COOKIE]
    add     x12, ANCHOR(0)
    eor     x11, x11, x12
    stp     x9, x10, [ANCHOR(PP_ANCHOR_PREVIOUS)]
    stp     x29, x11, [ANCHOR(PP_ANCHOR_FP)]
    str     x12, [x0, #PP_THREAD_ANCHOR]
    str     xzr, [x0, #PP_THREAD_EXIT_FP]

    mov     x16, x1
    mov     x0, x2
    mov     x1, x3
    mov     x2, x4
    mov     x3, x5
    blr     x16
.Lenter_return:
    add     x29, sp, #FRAME

    ldr     x9, [THREAD]
    ldp     x10, x11, [ANCHOR(PP_ANCHOR_PREVIOUS)]
    str     x11, [x9, #PP_THREAD_EXIT_FP]
    str     x10, [x9, #PP_THREAD_ANCHOR]

    ldr     x10, [SAVE_FPCR]
    mrs     x11, fpcr
    cmp     x10, x11
    b.eq    .Lenter_fpcr_kept
    msr     fpcr, x10
.Lenter_fpcr_kept:

    ldp     d14, d15, [SAVE_D14]
    .cfi_same_value d14
    .cfi_same_value d15
    ldp     d12, d13, [SAVE_D12]
    .cfi_same_value d12
    .cfi_same_value d13
    ldp     d10, d11, [SAVE_D10]
    .cfi_same_value d10
    .cfi_same_value d11
    ldp     d8, d9, [SAVE_D8]
    .cfi_same_value d8
    .cfi_same_value d9
    ldp     x27, x28, [SAVE_X27]
    .cfi_same_value x27
    .cfi_same_value x28
    ldp     x25, x26, [SAVE_X25]
    .cfi_same_value x25
    .cfi_same_value x26
    ldp     x23, x24, [SAVE_X23]
    .cfi_same_value x23
    .cfi_same_value x24
    ldp     x21, x22, [SAVE_X21]
    .cfi_same_value x21
    .cfi_same_value x22
    ldp     x19, x20, [SAVE_X19]
    .cfi_same_value x19
    .cfi_same_value x20
    mov     sp, x29
    .cfi_def_cfa_offset 16
    ldp     x29, x30, [sp], #16
    .cfi_def_cfa_offset 0
    .cfi_same_value x29
    .cfi_same_value x30
.Lpp_enter_popped:
    ret
.Lpp_enter_end:
END(pp_enter)

    STUB_ROW(pp_enter, STUB_ENTER)
