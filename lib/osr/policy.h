/* SPDX-License-Identifier: MIT */
/*
 * Policies as slow paths read them: each field for itself, without a lock, while
 * they may be changed.  No two fields have to agree.
 */
#ifndef OSR_POLICY_H
#define OSR_POLICY_H

#include <patchpoint/policy.h>

#include <stdatomic.h>

struct policy {
    _Atomic int32_t threshold, threshold_max;
    _Atomic uint32_t hits, backoff, attempts, random, flags;
    _Atomic uint64_t seed;     /* state of the generator; updates may be lost */
    pp_load *_Atomic load;
};

struct site;

/* Passes until the next slow path of a site that is not disabled; may disable it. */
int32_t policy_passes(struct site *site);

/* Hits until a site triggers. */
uint64_t policy_hits(const struct site *site);

#endif
