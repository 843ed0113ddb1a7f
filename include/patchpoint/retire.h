/* SPDX-License-Identifier: MIT */
/*
 * Retiring: code that nobody finds any more, but that threads may still be running.
 *
 * A host that replaces code first stops leading threads to it (retargets, switches a
 * table), then retires it, and frees it for good when no thread can be in it:
 *
 *      pp_trace_retire(pool, old);
 *      ticket = pp_retire_ticket(pool);
 *      ... every thread passes a point where it is in no code of that age ...
 *      pp_reclaim(pool, ticket, NULL, 0, NULL);
 *
 * That is the host's promise when it gives no stacks: since the ticket was drawn, each
 * thread was once outside of what the ticket covers, return addresses included.  A
 * host with a safepoint can have the library look instead.  Each thread that the
 * safepoint stops leaves its context where the collector finds it:
 *
 *      void safepoint(struct worker *self)          // called by compiled code
 *      {
 *          self->lo = __builtin_frame_address(0);   // this frame's callers are above it
 *          __builtin_unwind_init();                 // and so are the saved registers
 *          wait_until_resumed(self);
 *      }
 *      ...
 *      for (i = 0; i < workers; i++)                // all of them are stopped
 *          stacks[i] = (pp_stack) { worker[i].lo, worker[i].hi, NULL, 0 };
 *      pp_reclaim(pool, pp_retire_ticket(pool), stacks, workers, &result);
 *
 * Threads that a signal stopped give the SP and the general registers, pc and lr
 * among them, of their ucontext_t; x86-64 code with a red zone has no return
 * addresses below SP.  Code that a stack holds stays retired and is looked at again by
 * the next pp_reclaim; the rest is freed.
 *
 * Threads: any number may retire, draw tickets and reclaim at a time.  Fork: a child
 * inherits what was retired, and its own copies of tickets.  Nothing here is
 * async-signal-safe.
 */
#ifndef PATCHPOINT_RETIRE_H
#define PATCHPOINT_RETIRE_H

#include <patchpoint/span.h>
#include <patchpoint/trace.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Numbers that grow, from 1 on; 0 is none. */
typedef uint64_t pp_ticket;

/*
 * Retire a trace: its code stays where it is and runs, with the trampolines that it
 * uses.  pp_trace_at, pp_trace_host and the walker name it; pp_patch_apply and
 * pp_watch_fire change it, because threads may still be in it.  For everything else the
 * handle is stale, from now on and for ever.  Takes no memory.  PP_E_STALE, PP_E_FAULT, as
 * pp_trace_free; PP_E_BUSY while an entry or a pin points into it.
 */
PP_API pp_status pp_trace_retire(pp_pool *pool, pp_trace *trace) PP_MUST_CHECK;

/*
 * Retire a published span, which pp_span_at goes on to find, and patches and watches to
 * change.  PP_E_BUSY if it is being written; PP_E_NOMEM: it is as it was.
 */
PP_API pp_status pp_span_retire(pp_pool *pool, pp_span *span) PP_MUST_CHECK;

/* A ticket that covers everything whose retirement returned before the call.  0: no pool. */
PP_API pp_ticket pp_retire_ticket(pp_pool *pool);

/* What a stopped thread may return to or go on with. */
typedef struct pp_stack {
    const void *lo, *hi;       /* readable memory from the stack pointer to the stack's base; the
                                  aligned words in it are looked at; lo == hi: none */
    const uint64_t *registers; /* more words to look at; NULL if there are none */
    size_t register_count;
} pp_stack;

typedef struct pp_reclaim_result {
    size_t size;        /* set by the caller */
    size_t freed;       /* number of traces and spans, and of entries with code of their own */
    size_t freed_bytes; /* in them, as asked for */
    size_t held;        /* covered by the ticket, but some word lies in it, or right behind it */
    size_t waiting;     /* retired later than the ticket was drawn */
} pp_reclaim_result;

/*
 * Free what the ticket covers and no stack holds.  Code that another call has begun to
 * free is left to that call, and may be there for a moment after this one returns.  With
 * `stack_count` 0 the host's promise is trusted, else every word of the stacks that is an
 * address in retired code keeps it, whatever it means: a call's return address, a local
 * variable, chance.  PP_E_ARG, with nothing changed, for a ticket that was not drawn, lo
 * above hi, or counts that cannot be.  PP_E_SYSTEM or PP_E_NOMEM if the kernel refuses to
 * clear some code, which then stays retired; all else is freed.  `result` may be NULL.
 */
PP_API pp_status pp_reclaim(pp_pool *pool, pp_ticket ticket, const pp_stack *stacks,
                            size_t stack_count, pp_reclaim_result *result) PP_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
