/* SPDX-License-Identifier: MIT */
/*
 * Live patching: changing published code while other threads run it.
 *
 *      pp_patch patch = { .address = site, .protocol = PP_PATCH_WORD, .bytes = 5,
 *                         .flags = PP_PATCH_EXPECT_OLD };
 *      pp_emit_nop(PP_ARCH_HOST, 5, patch.old, sizeof patch.old);
 *      pp_emit_jump(PP_ARCH_HOST, site, target, patch.value, sizeof patch.value, &bytes);
 *      status = pp_patch_apply(pool, &patch, 1, &(pp_patch_options) {
 *                              .size = sizeof(pp_patch_options), .journal = &back });
 *      ...
 *      status = pp_patch_apply(pool, &back, 1, NULL);      // as it was
 *
 * A patch names the protocol by which it is done, because each is right for some
 * changes only; what a protocol cannot do is refused.  A batch is done as a whole:
 * everything is checked first, then changed, with one barrier for each step of all.
 * In between threads may see some of its patches and not others.
 *
 * A thread that executes a new instruction sees what was stored before pp_patch_apply.
 * For data that changes (LITERAL, GUARD) it depends on how code loads it: see there.
 *
 * A patch changes bytes, not threads: a thread that has executed the old instruction
 * goes on behind it.  What the old bytes led to has to stay until no thread can be on
 * its way there (retire.h).
 *
 * Retired code (retire.h) is patched like any other until it is reclaimed, because threads
 * may still be in it.  What is freed or reclaimed meanwhile is either patched before it goes,
 * or PP_E_STALE; nothing is written into memory that has another owner by then.
 *
 * Threads: any number may patch at a time, and free, retire and link beside it; each
 * batch is one step for all of these.  Not async-signal-safe, with the exception of
 * pp_patch_trap; emitters are pure.  Fork: it waits for batches that are being applied;
 * code from before a fork is PP_E_UNSUPPORTED in the child, and PP_E_BUSY in the parent
 * as long as a child may be running it.
 */
#ifndef PATCHPOINT_PATCH_H
#define PATCHPOINT_PATCH_H

#include <patchpoint/frame.h>
#include <patchpoint/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- patches ------------------------------------------------------------ */

typedef enum pp_patch_protocol {
    /*
     * Data in a trace or span that code loads: 8 bytes, aligned.  One store with release
     * order, no barrier: code that loads it meanwhile has the old value or the new one.
     * Code sees what was stored before if it loads the new value with acquire order, and
     * memory at the new value if that is an address.  On x86-64 every load is such a one.  On
     * AArch64 ldr x16; br x16 is none: pp_symbol_retarget (trace.h) is for that.  In a cache
     * line of its own it costs next to nothing; beside code that runs, half a microsecond.
     */
    PP_PATCH_LITERAL = 1,
    /*
     * x86-64: one instruction, or a part of one, all within an aligned 8-byte word.  One
     * store and a barrier.  The old and the new bytes are one instruction as long as the
     * patch, or PP_PATCH_DECLARED.
     */
    PP_PATCH_WORD,
    /*
     * AArch64: one instruction.  The old and the new one are of those that the
     * architecture allows to be changed while others execute them: B, BL, NOP, BRK, ISB,
     * SVC, HVC, SMC.  One store, cache maintenance, a barrier.
     */
    PP_PATCH_BRANCH,
    /*
     * x86-64: one instruction, before and after, of up to 15 bytes at any address.  A trap
     * in its first byte, a barrier, the rest, a barrier, the first byte, a barrier.  Threads
     * that come by meanwhile get SIGTRAP, which they must not block; the host's handler
     * calls pp_patch_trap.
     */
    PP_PATCH_INT3,
    /*
     * No code at all: a flag in the host's memory that code tests; 1, 2, 4 or 8 bytes,
     * aligned, outside of code memory.  One store with release order: code that loads it with
     * acquire order sees what was stored before.
     */
    PP_PATCH_GUARD,
    /*
     * Any bytes, while the host holds all threads that may run them, or return there:
     * see `stop` below.  Every mode of writing can do it.
     */
    PP_PATCH_STOPPED
} pp_patch_protocol;

enum pp_patch_flags {
    PP_PATCH_EXPECT_OLD = 1u << 0, /* refuse unless the bytes are `old` */
    /*
     * WORD, INT3: the host answers for it that the boundaries of instructions are the same
     * before and after, and no branch leads between (WORD), or that it is one instruction
     * before and after (INT3).  Without it the library has to see that for itself, and it
     * knows no more than one NOP of any length (90, or 0f 1f /0, with any prefixes of operand
     * size and segment), jmp, jcc and call to a distance, jmp and call through a word relative
     * to rip, mov of an immediate to a register, test and cmp of eax and an immediate, ret,
     * int3, ud2, endbr64.
     *
     * A declaration does not help against what the library sees to be wrong: PP_E_ARG if a
     * NOP of a known length is there, or comes there, and the patch does not fit it.  It fits
     * if it is as long; if the NOP is shorter, and what is behind the NOP stays or has the
     * same known instructions before and after; if the NOP is longer, and either the other
     * version ends with jmp, ret or ud2, or the rest of the NOP is a NOP by itself.
     */
    PP_PATCH_DECLARED = 1u << 1
};

#define PP_PATCH_BYTES 16

typedef struct pp_patch {
    const void *address;           /* of the first byte, where it is executed */
    const void *handle;            /* NULL, or the pp_trace or pp_span that it is in: PP_E_STALE if
                                      that is not there any more.  GUARD: NULL */
    uint8_t protocol;              /* pp_patch_protocol */
    uint8_t bytes;                 /* at most PP_PATCH_BYTES */
    uint16_t flags;                /* enum pp_patch_flags */
    uint32_t reserved;             /* 0 */
    uint8_t old[PP_PATCH_BYTES];   /* with PP_PATCH_EXPECT_OLD */
    uint8_t value[PP_PATCH_BYTES]; /* new bytes */
} pp_patch;

typedef struct pp_patch_options {
    size_t size;               /* sizeof(pp_patch_options) */
    /*
     * With a STOPPED patch in the batch: hold all other threads that may run the bytes, at
     * places where they hold no lock of the library; nonzero: that failed.  And let them go
     * again.  Called by the thread that patches, without a lock; not called for a batch
     * that is refused anyway.
     */
    int (*stop)(void *host);
    void (*start)(void *host);
    void *host;
    pp_patch *journal;         /* NULL, or room for as many patches: those that undo the batch if
                                  nothing has changed since, filled in if it succeeds */
    pp_error *error;           /* "patch 3: ..." */
} pp_patch_options;

/*
 * Apply patches, all or none; `options` may be NULL.  When it returns PP_OK, a thread
 * that comes to one of the addresses executes, or loads, what is new.  No two patches
 * share a byte.
 *
 * PP_E_ARG: an alignment, a length, or an instruction that the protocol does not allow;
 * PP_E_UNSUPPORTED: the protocol is the other architecture's, the code is in a pool with
 * PP_WX_FLIP, whose pages could not run meanwhile (STOPPED and GUARD work), it is from
 * before a fork; PP_E_FAULT: not code of this pool, or `stop` failed; PP_E_STALE: nothing
 * that is published is there, as after a free or a reclaim, or it is not what `handle` says; PP_E_BUSY:
 * the bytes are not `old`, the span is being written, a child may be running it; PP_E_NOMEM.
 *
 * PP_E_SYSTEM: INT3, and the kernel has no barrier on all cores.  PP_E_SYSTEM, PP_E_NOMEM:
 * with PP_WX_REMAP and PP_WX_FLIP also if it refuses a mapping or protection.  Threads may
 * have met the new bytes; the old ones are there again.  In FLIP mode a refusal can
 * leave a page that is writable and cannot be run, which the reason says; the next
 * STOPPED patch there tries again.
 */
PP_API pp_status pp_patch_apply(pp_pool *pool, const pp_patch *patches, size_t count,
                                const pp_patch_options *options) PP_MUST_CHECK;

/*
 * For the host's handler of SIGTRAP, with its third argument: 1 if the trap is one that
 * INT3 put there, also if that is over by now; the thread then executes the instruction
 * again when the handler returns.  0 for a trap that is none of the library's, and on
 * AArch64 always: it is the host's, and nothing was changed.  Lock-free, async-signal-safe.
 */
PP_API int pp_patch_trap(void *ucontext);

/* ---- bytes -------------------------------------------------------------- */

/*
 * One NOP of `bytes` bytes: x86-64 1 to 15, AArch64 4.  PP_E_ARG: no such NOP;
 * PP_E_RANGE: more than `capacity`.
 */
PP_API pp_status pp_emit_nop(pp_arch arch, size_t bytes, void *buffer,
                             size_t capacity) PP_MUST_CHECK;

/*
 * A jump at `from` that leads to `to`: jmp rel32 of 5 bytes, b of 4.  PP_E_RANGE: too far, or
 * the buffer is too small; PP_E_ARG: an address that is no instruction's.
 */
PP_API pp_status pp_emit_jump(pp_arch arch, const void *from, const void *to, void *buffer,
                              size_t capacity, size_t *bytes) PP_MUST_CHECK;

/*
 * How many bytes to leave out before an instruction of `bytes` bytes that would be at this
 * offset or address, so that WORD or BRANCH can patch it: to the next aligned 8-byte word
 * on x86-64 if it would straddle two, to a multiple of 4 on AArch64.  More than 8 bytes are
 * in no word: PP_PATCH_NO_PADDING.
 */
#define PP_PATCH_NO_PADDING ((size_t) -1)
PP_API size_t pp_patch_padding(pp_arch arch, uintptr_t at, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
