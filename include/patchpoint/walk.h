/* SPDX-License-Identifier: MIT */
/*
 * A cursor over the frames of compiled code on a thread's stack.
 *
 *      pp_walk walk;
 *      pp_frame frame = { .size = sizeof frame };
 *      for (pp_walk_begin(&walk, thread, ucontext); pp_walk_next(&walk, &frame); )
 *          report(frame.kind, frame.pc, frame.name, frame.verdict);
 *      why = walk.end;
 *
 * It allocates nothing, takes no lock, makes no system call, is safe in a
 * signal handler, and follows no pointer that it has not checked to lie in the
 * thread's stack.  Frames of C are never guessed: the walk goes from anchor to
 * anchor.  Every frame has a verdict and every walk an end reason.
 *
 * Code that was interrupted has a frame that may be half built, half gone, or not there.  The
 * walker proves where it is from the instructions that the code is about to run, and from
 * the stack; what it cannot prove is unsure.  Where a frame called another one it is as its
 * rule says, unless the instructions behind the call find the caller elsewhere.
 *
 * The thread walked must be the caller, or stopped.
 */
#ifndef PATCHPOINT_WALK_H
#define PATCHPOINT_WALK_H

#include <patchpoint/activation.h>
#include <patchpoint/osr.h>
#include <patchpoint/trace.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pp_walk_kind {
    PP_WALK_TRACE = 1,  /* PP_FRAME_RECORD or PP_FRAME_LEAF: tier-0 or a trace */
    PP_WALK_OSR,        /* tier-0 and its OSR body, one frame */
    PP_WALK_TRAMPOLINE, /* in a trampoline, on the way to its target */
    PP_WALK_STUB,       /* pp_leave or the slow path of a patchpoint */
    PP_WALK_ENTRY       /* pp_enter: the end of one activation */
} pp_walk_kind;

/*
 * What the walker says of a frame.
 *
 * Unsure are frames of rule PP_FRAME_NONE, code that was interrupted where nothing proves
 * the state of its frame, and code that does not keep its rule.  But for the first the walk goes
 * on by a guess; the frames that follow are unsure, too, up to the end of the activation.  A guess
 * that turns out wrong ends the walk as PP_END_UNKNOWN: it says nothing of the stack.
 */
typedef enum pp_verdict {
    PP_VERDICT_VALID = 1, /* every check passed */
    PP_VERDICT_UNSURE,    /* the frame is real, but its caller is not known, or only guessed */
    PP_VERDICT_GAP,       /* an activation whose compiled frames are hidden: C was called directly */
    PP_VERDICT_BROKEN     /* a check failed of a frame whose state is known; `check` says which; the
                             walk ends */
} pp_verdict;

/* The check that failed, cheapest first. */
typedef enum pp_check {
    PP_CHECK_NONE = 0,
    PP_CHECK_ALIGN,     /* frame pointer or stack pointer misaligned */
    PP_CHECK_BOUNDS,    /* frame record outside the thread's stack */
    PP_CHECK_GROWTH,    /* not strictly above the frame before it */
    PP_CHECK_CANONICAL, /* return address null or not canonical */
    PP_CHECK_CLASS,     /* return address in no live trace, stub or activation */
    PP_CHECK_CALL,      /* no call instruction before the return address; on x86-64 bytes that look
                           like one pass, too */
    PP_CHECK_COOKIE,    /* activation record overwritten */
    PP_CHECK_ANCHOR     /* activation record missing or out of order */
} pp_check;

/* Why a walk ended. */
typedef enum pp_walk_end {
    PP_END_RUNNING = 0, /* it has not */
    PP_END_ROOT,        /* all activations seen */
    PP_END_UNKNOWN,     /* an unsure frame that cannot be left */
    PP_END_BROKEN,      /* a check failed */
    PP_END_LIMIT        /* max_frames of the cursor */
} pp_walk_end;

typedef struct pp_frame {
    size_t size;          /* set by the caller */
    pp_walk_kind kind;
    pp_verdict verdict;
    pp_check check;       /* PP_CHECK_NONE unless broken */
    uint32_t is_top;      /* pc is where the thread was interrupted, not a return address */
    uintptr_t pc;         /* 0: a stub that called C, whose return address is not known */
    uintptr_t fp;         /* frame record; 0: not built yet, or gone */
    uintptr_t cfa;        /* caller's SP: what identifies the frame; 0 if unknown */
    pp_trace *trace;      /* NULL for stubs and entries */
    const char *name;     /* of the trace or stub; valid while the trace lives; may be NULL */
    void *host;           /* of the trace */
} pp_frame;

/* A cursor.  The caller owns it; the fields are the library's but for `end` and `max_frames`. */
typedef struct pp_walk {
    pp_walk_end end;
    unsigned max_frames; /* 0: no limit; may be set after pp_walk_begin */
    const pp_thread *thread;
    uintptr_t pc, fp, sp, lr, anchor;
    unsigned state, frames;
    uintptr_t reserved[4];
} pp_walk;

/*
 * Start at a signal's context (the third argument of the handler, a
 * ucontext_t), or, with NULL, at the way out from compiled code that the
 * caller was called through.
 */
PP_API void pp_walk_begin(pp_walk *walk, const pp_thread *thread, const void *ucontext);

/* Start at the registers of a patchpoint, in a producer. */
PP_API void pp_walk_begin_regs(pp_walk *walk, const pp_thread *thread, const pp_regs *regs);

/*
 * The next frame, 1; or 0 and walk->end says why.  Then *frame is as it was: behind the walk it
 * is the last frame, with the check that failed.
 */
PP_API int pp_walk_next(pp_walk *walk, pp_frame *frame);

/* Names for reports.  Static storage; async-signal-safe. */
PP_API const char *pp_walk_kind_name(pp_walk_kind kind);
PP_API const char *pp_verdict_name(pp_verdict verdict);
PP_API const char *pp_check_name(pp_check check);
PP_API const char *pp_walk_end_name(pp_walk_end end);

#ifdef __cplusplus
}
#endif
#endif
