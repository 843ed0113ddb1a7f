/* SPDX-License-Identifier: MIT */
/*
 * Policies as slow paths read them: each field for itself, without a lock, while
 * they may be changed.  No two fields have to agree.
 */
#ifndef OSR_POLICY_H
#define OSR_POLICY_H

#include "osr/force.h"

#include <patchpoint/policy.h>

#include <stdatomic.h>
#include <stdbool.h>

struct policy {
    _Atomic int32_t threshold, threshold_max;
    _Atomic uint32_t hits, backoff, attempts, random, flags;
    _Atomic bool varies;       /* random, load or force says how many passes */
    pp_load *_Atomic load;
    _Atomic uint64_t seed;     /* state of the generator; updates may be lost */
    struct force *_Atomic force; /* what the pool forces, or NULL; written under pool_lock */
};

struct site;

/* Have the sites of this policy go by what the pool forces; NULL: nothing.  pool_lock held. */
void policy_set_force(struct policy *policy, struct force *force);

static inline struct force *policy_force(const struct policy *policy)
{
    return atomic_load_explicit(&policy->force, memory_order_acquire);
}

/* Passes until the next slow path of a site that is not disabled; may disable it. */
int32_t policy_passes(struct site *site);

/* The same while nothing backs off, from the site's own threshold; 0 if it takes more to say. */
static inline int32_t policy_steady_passes(const struct policy *policy, int32_t own)
{
    const int32_t passes = atomic_load_explicit(&policy->threshold, memory_order_relaxed);
    if (atomic_load_explicit(&policy->varies, memory_order_relaxed))
        return 0;
    return passes != 0 ? passes : own;
}

/* Hits until a site triggers, from its own number. */
static inline uint32_t policy_hits(const struct policy *policy, uint32_t own)
{
    const uint32_t hits = atomic_load_explicit(&policy->hits, memory_order_relaxed);
    return hits != 0 ? hits : own;
}

#endif
