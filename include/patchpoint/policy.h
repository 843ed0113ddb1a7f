/* SPDX-License-Identifier: MIT */
/*
 * Policies: when a counted site asks for optimized code, and what failures cost.
 *
 *      pp_policy patient = { .size = sizeof patient, .threshold = 1000, .hits = 10,
 *                            .backoff = 1, .attempts = 3 };
 *      status = pp_pool_set_policy(pool, &patient);        // for all sites of the pool
 *      status = pp_site_set_policy(site, &patient);        // for one; NULL: as the pool again
 *
 * A site's counter runs out after `threshold` passes, which is a hit.  The hit number
 * `hits` triggers: one thread produces, at once or later (pp_site_defer), and the
 * others go on.  A hit that finds the site compiling, pending or failed makes the next
 * one come 2^backoff times later.  A failure does so, too, and hits count anew.
 *
 * Policies can be changed while threads run the sites: each field counts from the next
 * slow path on.
 */
#ifndef PATCHPOINT_POLICY_H
#define PATCHPOINT_POLICY_H

#include <patchpoint/site.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Scale by what the host knows: load, memory, depth of loops.  Called on slow paths,
 * with the host of the site and the passes that the rest of the policy came to.
 * Returns how many it shall be: less than 1 is 1, INT32_MAX is never.  Must not allocate,
 * lock or call the kernel.
 */
typedef int32_t pp_load(void *host, pp_site *site, int32_t passes);

enum pp_policy_flags {
    PP_POLICY_NEVER = 1u << 0 /* where back-off would exceed threshold_max the site is disabled */
};

typedef struct pp_policy {
    size_t size;           /* sizeof(pp_policy) */
    int32_t threshold;     /* passes; 0: as the site was made */
    int32_t threshold_max; /* passes: where back-off ends, at least `threshold`; 0: 2^30 */
    uint32_t hits;         /* 0: as the site was made */
    uint32_t backoff;      /* 0 .. 16; 0: none */
    uint32_t attempts;     /* so many failures disable the site; 0: the first leaves it failed, for
                              a publication by hand */
    uint32_t random;       /* so many passes more at most, at random; 0 .. 2^30 */
    uint64_t seed;         /* of these; 0: 1 */
    uint32_t flags;        /* enum pp_policy_flags */
    uint32_t reserved;     /* 0 */
    pp_load *load;         /* or NULL */
    pp_error *error;
} pp_policy;

/* NULL: as it was in the beginning, all zero.  PP_E_ARG, PP_E_NOMEM, PP_E_STALE. */
PP_API pp_status pp_pool_set_policy(pp_pool *pool, const pp_policy *policy) PP_MUST_CHECK;
PP_API pp_status pp_site_set_policy(pp_site *site, const pp_policy *policy) PP_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
