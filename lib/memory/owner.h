/* SPDX-License-Identifier: MIT */
/*
 * Owners of spans.  The owner of a span is the state of its life, and the only place where
 * that is kept.  It is in the span's record, and changes in one step, under the region's
 * lock, for the span of one generation:
 *
 *      no owner -> trace -> retired trace -> gone          a trace, linked
 *      reserved -> committing -> trace -> ...              a trace, emitted in place
 *      reserved -> abandoned -> gone
 *      open <-> published -> retired span -> gone          a span of the host
 *
 * No step leads back to a state that made a handle stale.  What is gone has no record: the
 * next span at the address has another generation.  What a reclaim is about to free stays
 * retired until it is gone, since the kernel may refuse to clear it.
 *
 * An owner begins with its kind, is 16-byte aligned, lives as long as the pool and never
 * changes its kind: a reader that found it may look, however late.  A span without an owner
 * belongs to no code: it is being filled, or about to be freed.
 *
 * A span of the host has no record of its own.  Each frame rule of a pool has an owner
 * for each state that such a span can be in (rule_table.h), so the owner tells both.
 */
#ifndef MEMORY_OWNER_H
#define MEMORY_OWNER_H

#include "memory/rule.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum owner_kind {
    OWNER_TRACE = 1,     /* the first member of a struct trace */
    OWNER_TRACE_RETIRED, /* the second member: given up, maybe running */
    OWNER_SPAN_RETIRED,  /* a span of the host, given up, maybe running: a record of lib/patch */
    /* The states of a span of the host that has no record. */
    OWNER_SPAN_OPEN,   /* being written */
    OWNER_SPAN_CLAIMED, /* being written, and in a batch that is being published */
    OWNER_SPAN,        /* published, to be run */
    OWNER_RESERVED,    /* a reservation of lib/link: it will be a trace */
    OWNER_COMMITTING,  /* a reservation that a call is making a trace of */
    OWNER_ABANDONED,   /* a reservation that is about to be given back */
    OWNER_KINDS
};

struct owner {
    uint32_t kind; /* enum owner_kind */
    /* Of a pool's rule table.  That of a record is set before the record owns a span. */
    _Atomic(const struct frame_rule *) rule;
};

struct owner_tag {
    _Alignas(16) struct owner owner;
};

/* Stands for each owner of a span of the host where one is asked for; no span has it. */
extern const struct owner_tag span_any;

/* How the frames of the owner's code unwind. */
static inline const struct frame_rule *owner_rule(const struct owner *owner)
{
    return atomic_load_explicit(&owner->rule, memory_order_relaxed);
}

static inline void owner_set_rule(struct owner *owner, const struct frame_rule *rule)
{
    atomic_store_explicit(&owner->rule, rule, memory_order_relaxed);
}

static inline bool owner_is(const struct owner *owner, enum owner_kind kind)
{
    return owner != NULL && owner->kind == kind;
}

static inline bool owner_is_open(const struct owner *owner)
{
    return owner_is(owner, OWNER_SPAN_OPEN) || owner_is(owner, OWNER_SPAN_CLAIMED);
}

/* Published, and not given up: handles and tokens are good. */
static inline bool owner_is_live(const struct owner *owner)
{
    return owner_is(owner, OWNER_TRACE) || owner_is(owner, OWNER_SPAN);
}

static inline bool owner_is_retired(const struct owner *owner)
{
    return owner_is(owner, OWNER_TRACE_RETIRED) || owner_is(owner, OWNER_SPAN_RETIRED);
}

/* Threads may be running it: live, or retired and not yet gone.  What changes code asks this. */
static inline bool owner_may_run(const struct owner *owner)
{
    return owner_is_live(owner) || owner_is_retired(owner);
}

/* A span of the host, in any state but retired. */
static inline bool owner_is_host(const struct owner *owner)
{
    return owner_is(owner, OWNER_SPAN) || owner_is_open(owner);
}

#endif
