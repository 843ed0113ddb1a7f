/* SPDX-License-Identifier: MIT */
/*
 * Traces as the other rooms see them.
 *
 * The owner of a published span is a `struct trace`: its first owner while the trace is
 * live, its second one from the retirement on (owner.h).  Records never go back to
 * the allocator while the pool lives: a reader that raced with a release reads
 * an old record or that of a newer trace, never freed memory, and finds out by
 * looking the address up again.  That look also tells whether the trace is still live.
 */
#ifndef LINK_TRACE_H
#define LINK_TRACE_H

#include "memory/pool.h"
#include "memory/retired.h"

#include <patchpoint/trace.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct island_user;
struct link;
struct plan;
struct shelf;

struct trace {
    /* Of the thread that links the trace until it is published; then constant. */
    _Alignas(16) struct owner owner; /* OWNER_TRACE.  Owners of spans are 16-byte aligned; the rule of
                                        both is that of the description */
    _Alignas(16) struct owner retired_owner; /* OWNER_TRACE_RETIRED */
    uint32_t generation;
    struct span span;
    struct island_user *user;  /* what it holds of the region's island; NULL: nothing.  Its memory
                                  stays for the next trace. */
    pp_trace_size bytes;
    char *name_room;           /* memory for names, which stays for the next trace, or NULL */
    uint32_t name_bytes;       /* of it */
    uint32_t far_trampolines;  /* of its own, that jump through literals of the island */

    struct shelf *shelf;       /* constant: where the record belongs */

    /* Under the shelf's lock, as are all changes of the span's owner from or to this record. */
    struct trace *next_free;
    uint32_t holds;            /* entries and pins that point into it */
    bool published;            /* the span is this record's: live or retired, and not about to go */

    struct retired retired;    /* under pool_lock */

    /* Read without a lock. */
    _Atomic uintptr_t entry;
    _Atomic(void *) host;
    _Atomic(char *) name;      /* `name_room`, or NULL */
    _Atomic size_t code_size;
};

/* The record of the live trace at a place, or NULL. */
static inline struct trace *trace_live(const struct code_place *place)
{
    return owner_is(place->owner, OWNER_TRACE) ? (struct trace *) (uintptr_t) place->owner : NULL;
}

/* The record of the retired trace at a place, or NULL. */
static inline struct trace *trace_retired(const struct owner *owner)
{
    return owner_is(owner, OWNER_TRACE_RETIRED)
               ? (struct trace *) ((uintptr_t) owner - offsetof(struct trace, retired_owner))
               : NULL;
}

/* The record of the trace at a place, live or retired, or NULL: unpublished, or a host's span. */
static inline struct trace *trace_of(const struct code_place *place)
{
    struct trace *live = trace_live(place);
    return live != NULL ? live : trace_retired(place->owner);
}

/* The handle of the trace at a place. */
pp_trace *trace_handle(const struct code_place *place);

/* What the record says.  Lock-free, async-signal-safe. */
const char *trace_name(const struct trace *trace);
void *trace_host(const struct trace *trace);
size_t trace_code_size(const struct trace *trace); /* trampolines, literals and data not counted */

/*
 * Bytes of code at a place, from its start: of a trace without trampolines, literals
 * and data; of a span of the host all; 0 unless something that may run is there, live
 * or retired.
 */
size_t code_bytes_at(const struct code_place *place);

/*
 * Keep the live trace whose code holds this address: pp_trace_free and pp_trace_retire answer
 * PP_E_BUSY until it is released as often.  PP_E_FAULT if no live trace of this
 * pool has the address in its code.
 */
pp_status trace_hold(pp_pool *pool, uintptr_t code, pp_trace **trace) PP_MUST_CHECK;
void trace_release(pp_pool *pool, pp_trace *trace);

/*
 * A live trace becomes a retired one, without a ticket yet, and with this `leads`
 * (memory/retired.h): pp_trace_retire's errors.  With pool_lock held.
 */
pp_status trace_retire_locked(pp_pool *pool, const pp_trace *handle, uintptr_t leads,
                              struct trace **trace) PP_MUST_CHECK;

/*
 * Free the code, record and references of a retired trace that is in no list.
 * PP_E_SYSTEM, PP_E_NOMEM: the code could not be cleared, and the trace is still retired.
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
