/* SPDX-License-Identifier: MIT */
/*
 * Passes that only count: one hit of many at a counted site.
 *
 * The stub asks here first, having stored of the registers only general ones.  So
 * this file is compiled without any others, calls nothing, moves no blocks of memory
 * (DF is tier-0's), and leaves errno alone.  No walker needs more than exit_fp, and
 * nobody is shown registers.
 */
#include <config.h>

#include "osr/counter.h"

#include "stub.h"

_Atomic int32_t *counter_of(struct site *site, uintptr_t fp)
{
    const pp_site_desc *desc = &site->desc;
    switch (desc->counter) {
    case PP_COUNTER_SITE:
        return &site->head.counter;
    case PP_COUNTER_DATA:
        return desc->word;
    case PP_COUNTER_THREAD:
        fp = *(uintptr_t *) (fp + (uintptr_t) (intptr_t) desc->thread_offset);
        break;
    default:
        break;
    }
    return (_Atomic int32_t *) (fp + (uintptr_t) (intptr_t) desc->counter_offset);
}

uintptr_t patchpoint_count(struct site_record *record, uintptr_t fp, uintptr_t pc)
{
    struct site *site = site_of(record);
    if (site_word(site) != PP_SITE_COUNTING
        || site->desc.kind != PP_SITE_COUNTED)
        return 0;
    const struct policy *policy = site_policy(site);
    const uint64_t hits = atomic_load_explicit(&site->hits, memory_order_relaxed) + 1;
    const int32_t passes = policy_steady_passes(policy, site->desc.threshold);
    if (hits >= policy_hits(policy, site->desc.hits) || passes == 0
        || atomic_load_explicit(&site->level, memory_order_relaxed) != 0
        || method_is_eager(site->method))
        return 0;
    count(&site->slow_paths);
    atomic_store_explicit(&site->hits, hits, memory_order_relaxed);
    atomic_store_explicit(counter_of(site, fp), passes, memory_order_relaxed);
    return pc + record->resume;
}
