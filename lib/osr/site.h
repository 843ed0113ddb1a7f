/* SPDX-License-Identifier: MIT */
/*
 * Sites.  The head of a site is the record that its code loads and that the
 * patchpoint stub reads.
 *
 *      IDLE -> COUNTING -> TRIGGERED -> COMPILING -> READY
 *      COMPILING -> PENDING                                (pp_site_defer)
 *      COMPILING, PENDING -> COUNTING | FAILED | DISABLED  (a failure, by the policy)
 *      IDLE, COUNTING, FAILED, READY, PENDING -> DISABLED
 *      IDLE, COUNTING, FAILED, PENDING -> COMPILING -> READY (pp_site_publish)
 *      GUARDED instead of READY, for an entry that asks C each time
 *
 * Every step is a compare-and-swap of `state`, so one thread at a time is
 * between TRIGGERED and the end of COMPILING; `target` and `entry` are its
 * alone there.  READY is stored with release order after them.  Once set they
 * stay until the site goes, so a thread that saw READY just before DISABLED
 * still finds a target that is right.
 */
#ifndef OSR_SITE_H
#define OSR_SITE_H

#include "osr/entry.h"
#include "osr/method.h"
#include "osr/policy.h"
#include "osr/record.h"

#include <patchpoint/site.h>

#include <stdbool.h>

/* What layout.h says of PP_SITE_STATE and the others. */
struct site_record {
    _Atomic uint32_t state;
    _Atomic int32_t counter;   /* PP_COUNTER_SITE; compiled code counts it down without a lock */
    _Atomic uintptr_t target;
    int32_t thread_offset;     /* written once */
    uint32_t resume;           /* written once */
    uint32_t live_gpr, live_vector; /* written once; classes that are masks */
    uint32_t edited;           /* written once: the stub loads what C functions keep, too */
    uint32_t reserved;
};

struct site {
    struct site_record head;   /* first: the stub's address is the site's */
    struct record record;
    pp_site_desc desc;         /* written once; hits at least 1, tier0 the copy below, error NULL */
    pp_tier0_layout tier0;     /* normalized */
    struct entry *_Atomic entry; /* referenced; NULL until ready */
    _Atomic int last;          /* pp_status: the latest refusal, or PP_OK */
    struct policy own_policy;  /* written under pool_lock */
    const struct policy *_Atomic policy; /* own_policy or the pool's */
    struct method *method;     /* written once; NULL: none */
    _Atomic uint32_t share;    /* enum share, in the method's bodies */
    _Atomic uint32_t level;    /* of back-off */
    _Atomic uint32_t defers;   /* calls of pp_site_defer: the producer sees whether there was one */
    _Atomic uint64_t hits;     /* since the site last failed, or began */
    _Atomic uint64_t failures; /* since it was last ready, or began */
    _Atomic uint64_t slow_paths, triggers, transitions, refusals;
    uint64_t number;           /* written once: of the sites that the pool has made */
};

static inline const struct policy *site_policy(const struct site *site)
{
    return atomic_load_explicit(&site->policy, memory_order_acquire);
}

/* The site behind a handle, or NULL when it is stale. */
struct site *site_from(const pp_site *handle);
pp_site *site_handle(const struct site *site);

/*
 * Publish an entry in a site that the caller has brought to COMPILING: READY on
 * success, else a failure.
 */
pp_status site_publish(struct site *site, const pp_entry *entry);

/* Count a refusal and keep its reason; returns it. */
pp_status site_refuse(struct site *site, pp_status why);

/*
 * End an attempt that the caller has brought to COMPILING or PENDING: the refusal is
 * counted, and the policy says what the site is then.
 */
pp_status site_fail(struct site *site, uint32_t from, pp_status why);
uint32_t site_after_failure(const struct site *site, uint64_t failures);

/* What counters begin with: 1 where each pass is to be a slow path. */
int32_t site_first_passes(const struct site *site);

/* False while a thread produces. */
bool site_disable(struct site *site);

/* Move to another state if it is one of `from` (a mask of 1 << state). */
bool site_move(struct site *site, uint32_t from, uint32_t to);

#endif
