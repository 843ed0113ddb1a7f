/* SPDX-License-Identifier: MIT */
/*
 * Pieces of compiled code, written in assembler and put together at run time.
 *
 * A piece is bytes in read-only data, from template_NAME to template_NAME_end.
 * It refers to nothing outside itself: jumps from piece to piece and calls are
 * relocations, at template_NAME_jump or template_NAME_call.
 *
 * All methods have the same frame on both architectures:
 *
 *      FP + 8      return address
 *      FP          caller's FP
 *      FP - 8      n                       (first argument but one)
 *      FP - 16     sum
 *      FP - 24     counter of patchpoints  (32 bits)
 *      FP - 32     thread                  (first argument)
 *      FP - 40     buffer                  (third argument)
 *      FP - 48     inner counter
 *      FP - 56     its start               (fourth argument)
 *      FP - 64     save slots end here
 */
#ifndef STRESS_TEMPLATE_H
#define STRESS_TEMPLATE_H

#define AT_N (-8)
#define AT_SUM (-16)
#define AT_COUNTER (-24)
#define AT_THREAD (-32)
#define AT_BUFFER (-40)
#define AT_INNER (-48)
#define AT_START (-56)

#if defined __x86_64__
#define SAVE_SLOTS 5
#else
#define SAVE_SLOTS 18
#endif
#define AT_SAVES (-64 - 8 * SAVE_SLOTS)

/* Smallest frame: what is above, and some space. */
#define FRAME_BYTES 256

/* The buffer of the registers method. */
#define BUFFER_IN 0
#define BUFFER_OUT PP_REGS_SIZE
#define BUFFER_CHECK (2 * PP_REGS_SIZE)      /* C function: buffer, whether in the body */

/* A continuation of the async method, and its frame. */
#define ASYNC_CODE 0
#define ASYNC_COUNT 8
#define ASYNC_FRAME_BYTES 64
#define AT_CONTINUATION (-8)

/* The buffer of the suspend method begins with a resume point; then the C function. */
#define SUSPEND_CHECK PP_RESUME_SIZE

#ifdef __ASSEMBLER__

#define TEMPLATE(name)                                                                             \
    .section .rodata;                                                                              \
    .p2align 3;                                                                                    \
    .globl template_##name;                                                                        \
    .hidden template_##name;                                                                       \
template_##name:

#define TEMPLATE_END(name)                                                                         \
    .globl template_##name##_end;                                                                  \
    .hidden template_##name##_end;                                                                 \
template_##name##_end:

#define TEMPLATE_LABEL(name)                                                                       \
    .globl template_##name;                                                                        \
    .hidden template_##name;                                                                       \
template_##name:

#else

#include <patchpoint/osr.h>

#include <stddef.h>
#include <stdint.h>

#define TEMPLATE(name)                                                                             \
    extern const uint8_t template_##name[] __attribute__((visibility("hidden")));                  \
    extern const uint8_t template_##name##_end[] __attribute__((visibility("hidden")))
#define TEMPLATE_LABEL(name)                                                                       \
    extern const uint8_t template_##name[] __attribute__((visibility("hidden")))

/* Tier-0: prologue; _frame and _threshold are where the two numbers go. */
TEMPLATE(head);
TEMPLATE_LABEL(head_frame);
TEMPLATE_LABEL(head_threshold);
/* Tier-0: returns the sum. */
TEMPLATE(tail);

/* Tier-0, behind head and before tail: the callee-saved registers that head does not save. */
TEMPLATE(save_rest);
TEMPLATE(restore_rest);

/* sum += n; if (--n) go to _jump */
TEMPLATE(sum);
TEMPLATE_LABEL(sum_jump);
/* The same in registers, over all callee-saved ones; returns the sum. */
TEMPLATE(sum_body);

/* inner = start */
TEMPLATE(outer);
/* sum += n * inner; if (--inner) go to _inner; if (--n) go to _outer */
TEMPLATE(inner);
TEMPLATE_LABEL(inner_inner);
TEMPLATE_LABEL(inner_outer);
/* The same in registers, from the middle of the inner loop. */
TEMPLATE(inner_body);

/* Every register = buffer's in. */
TEMPLATE(load);
/* Buffer's out = every register; check(buffer, 0); if (--n) go to _jump. */
TEMPLATE(store);
TEMPLATE_LABEL(store_call);
TEMPLATE_LABEL(store_jump);
/* Buffer's out = every register; check(buffer, 1); spoil all callee-saved ones; returns n. */
TEMPLATE(store_body);
TEMPLATE_LABEL(store_body_call);

/*
 * Buffer's point = SP, FP; sum = 1 if check(buffer, 0) returns, or the value
 * that arrives at _here when the point is resumed.
 */
TEMPLATE(suspend);
TEMPLATE_LABEL(suspend_call);
TEMPLATE_LABEL(suspend_here);

/*
 * A method that suspends itself, for the resume scenario: its argument is a
 * continuation {code, count}, kept at FP - 8.  The head is followed by
 * one of the ways into the body, which counts, stores its own first instruction
 * as `code` again, and returns the count.
 */
TEMPLATE(async_head);
/* jump to where the second argument says */
TEMPLATE(async_bare);
/* the counter of a patchpoint that runs out at once */
TEMPLATE(async_counter);
/* call a C function with the continuation, which does not return */
TEMPLATE(async_old);
TEMPLATE_LABEL(async_old_call);
TEMPLATE(async_body);
TEMPLATE_LABEL(async_body_self);

/* if (n == 0) return 1: before anything else; not a method of its own */
TEMPLATE(leaf);
/* sum += method(thread, n - 1, buffer, start); if (--inner) go to _jump; returns sum + 1 with tail */
TEMPLATE(again);
TEMPLATE_LABEL(again_call);
TEMPLATE_LABEL(again_jump);
/* The same in callee-saved registers. */
TEMPLATE(again_body);
TEMPLATE_LABEL(again_body_call);

#undef TEMPLATE
#undef TEMPLATE_LABEL

/*
 * Call compiled code directly, with these callee-saved registers, and store
 * those that are there afterwards: rbx, r12 to r15; x19 to x28, d8 to d15.
 * Itself compiled code as far as pp_enter is concerned.
 */
struct method_call {
    const void *code;
    uintptr_t arguments[4];
    uintptr_t result;
    uintptr_t sp[2]; /* before and after */
    uint64_t in[SAVE_SLOTS], out[SAVE_SLOTS];
};
uintptr_t method_call(struct method_call *call) __attribute__((visibility("hidden")));

#endif

#define CALL_CODE 0
#define CALL_ARGUMENTS 8
#define CALL_RESULT 40
#define CALL_SP 48
#define CALL_IN 64
#define CALL_OUT (CALL_IN + 8 * SAVE_SLOTS)

#endif
