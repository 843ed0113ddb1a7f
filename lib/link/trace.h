/* SPDX-License-Identifier: MIT */
/*
 * Traces as the other rooms see them.
 *
 * The owner of a published span is a `struct trace`.  Records never go back to
 * the allocator while the pool lives: a reader that raced with a release reads
 * an old record or that of a newer trace, never freed memory, and finds out by
 * looking the address up again.
 */
#ifndef LINK_TRACE_H
#define LINK_TRACE_H

#include "memory/pool.h"
#include "memory/retired.h"

#include <patchpoint/trace.h>

#include <stdatomic.h>

struct island_user;
struct link;
struct plan;
struct shelf;

struct trace {
    /* Of the thread that links the trace until it is published; then constant. */
    _Alignas(16) struct owner owner; /* first; owners of spans are 16-byte aligned.  Its rule is that of
                                        the description */
    uint32_t generation;
    struct span span;
    struct island_user *user;  /* what it holds of the region's island; NULL: nothing.  Its memory
                                  stays for the next trace. */
    pp_trace_size bytes;
    char *name_room;           /* memory for names, which stays for the next trace, or NULL */
    uint32_t name_bytes;       /* of it */
    uint32_t far_trampolines;  /* of its own, that jump through literals of the island */

    struct shelf *shelf;       /* constant: where the record belongs */

    /* Under the shelf's lock. */
    struct trace *next_free;
    uint32_t holds;            /* entries that point into it */
    atomic_bool live;          /* published, and nobody has begun to release or retire it; who begins
                                  has it alone, and may make it live again */

    struct retired retired;    /* under pool_lock.  Its ticket, which is not 0: no longer live, still
                                  there */

    /* Read without a lock. */
    _Atomic uintptr_t entry;
    _Atomic(void *) host;
    _Atomic(char *) name;      /* `name_room`, or NULL */
    _Atomic size_t code_size;
};

/* The record of the trace at a place, or NULL: unpublished, or a span of the host. */
static inline struct trace *trace_of(const struct code_place *place)
{
    return place->owner != NULL && place->owner->kind == OWNER_TRACE
               ? (struct trace *) (uintptr_t) place->owner : NULL;
}

static inline bool trace_is_retired(const struct trace *trace)
{
    return atomic_load_explicit(&trace->retired.ticket, memory_order_relaxed) != 0;
}

/* Without the lock it may have been so a moment ago. */
static inline bool trace_is_live(const struct trace *trace)
{
    return atomic_load_explicit(&trace->live, memory_order_relaxed);
}

/* The handle of the trace at a place. */
pp_trace *trace_handle(const struct code_place *place);

/* What the record says.  Lock-free, async-signal-safe. */
const char *trace_name(const struct trace *trace);
void *trace_host(const struct trace *trace);
size_t trace_code_size(const struct trace *trace); /* trampolines, literals and data not counted */

/*
 * Bytes of code at a place, from its start: of a trace without trampolines, literals
 * and data; of a span of the host all; 0 as long as nothing is published there.
 */
size_t code_bytes_at(const struct code_place *place);

/*
 * Keep the trace whose code holds this address: pp_trace_free answers PP_E_BUSY
 * until it is released as often.  PP_E_FAULT if no published trace of this
 * pool has the address in its code.
 */
pp_status trace_hold(pp_pool *pool, uintptr_t code, pp_trace **trace) PP_MUST_CHECK;
void trace_release(pp_pool *pool, pp_trace *trace);

/* The trace of a handle is live no more, and the caller's: pp_trace_free's errors. */
pp_status trace_withdraw(pp_pool *pool, const pp_trace *handle, struct trace **trace) PP_MUST_CHECK;

/*
 * Free the code, record and references of a trace that was withdrawn, and is in no
 * list.  PP_E_SYSTEM, PP_E_NOMEM: the code could not be cleared, all is as before.
 */
pp_status trace_end(pp_pool *pool, struct trace *trace) PP_MUST_CHECK;

/* ---- for this room -------------------------------------------------------- */

/* Fill in the record of a trace that is not published yet; the rule is of the pool's table. */
void trace_describe(struct trace *trace, const struct span *span, const struct plan *plan,
                    const struct frame_rule *rule);

/* Let everybody find traces whose code is in place and executable. */
void trace_publish(struct trace *const *traces, size_t count, pp_trace **handles);

/* Check every published trace and every island that one lies beside. */
pp_status trace_verify_all(struct link *link, pp_pool *pool, pp_error *error);

#endif
