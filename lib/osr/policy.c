/* SPDX-License-Identifier: MIT */
/* Policies: how many passes, how many hits, how many failures. */
#include <config.h>

#include "osr/policy.h"

#include "error.h"
#include "osr/room.h"
#include "osr/site_desc.h"
#include "sized.h"

#define BACKOFF_MAX 16u
#define READ(policy, field) atomic_load_explicit(&(policy)->field, memory_order_relaxed)
#define WRITE(policy, field, value) \
    atomic_store_explicit(&(policy)->field, value, memory_order_relaxed)

/* xorshift64; two threads may draw the same number. */
static uint32_t draw(const struct policy *policy, uint32_t most)
{
    uint64_t x = READ(policy, seed);
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    WRITE((struct policy *) policy, seed, x);
    return (uint32_t) ((x >> 32) % ((uint64_t) most + 1));
}

int32_t policy_passes(struct site *site)
{
    const struct policy *policy = site_policy(site);
    if (force_passes(policy_force(policy)))
        return 1;
    const uint32_t level = atomic_load_explicit(&site->level, memory_order_relaxed);
    const uint64_t shift = (uint64_t) READ(policy, backoff) * level;
    int64_t passes = READ(policy, threshold), most = READ(policy, threshold_max);
    if (passes == 0)
        passes = site->desc.threshold;
    if (most == 0)
        most = SITE_THRESHOLD_MAX;
    if (most < passes)
        most = passes; /* of a site with a threshold of its own */
    if (shift > 30 || passes << shift > most) {
        if (READ(policy, flags) & PP_POLICY_NEVER && site_give_up(site))
            return INT32_MAX;
        passes = most;
    } else {
        passes <<= shift;
    }
    const uint32_t random = READ(policy, random);
    if (random != 0)
        passes += draw(policy, random);
    if (passes > INT32_MAX)
        passes = INT32_MAX;
    pp_load *load = READ(policy, load);
    if (load != NULL)
        passes = load(site->desc.host, site_handle(site), (int32_t) passes);
    return passes < 1 ? 1 : (int32_t) passes;
}

uint32_t site_after_failure(const struct site *site, uint64_t failures)
{
    const uint32_t attempts = READ(site_policy(site), attempts);
    if (attempts == 0)
        return PP_SITE_FAILED;
    return failures < attempts ? PP_SITE_COUNTING : PP_SITE_DISABLED;
}

/* ---- setting --------------------------------------------------------------- */

static pp_status policy_read(const pp_policy *given, pp_policy *policy)
{
    const pp_policy none = { .size = sizeof none };
    if (!sized_read(policy, sizeof *policy, sizeof *policy, given != NULL ? given : &none))
        return PP_E_ARG;
    pp_error *error = policy->error;
    if (policy->threshold < 0 || policy->threshold > SITE_THRESHOLD_MAX)
        return error_set(error, PP_E_ARG, "threshold: %d", (int) policy->threshold);
    if (policy->threshold_max < 0 || policy->threshold_max > SITE_THRESHOLD_MAX
        || (policy->threshold_max != 0 && policy->threshold_max < policy->threshold))
        return error_set(error, PP_E_ARG, "threshold_max: %d", (int) policy->threshold_max);
    if (policy->backoff > BACKOFF_MAX)
        return error_set(error, PP_E_ARG, "backoff: %u", (unsigned) policy->backoff);
    if (policy->random > SITE_THRESHOLD_MAX)
        return error_set(error, PP_E_ARG, "random: %u", (unsigned) policy->random);
    if (policy->flags & ~PP_POLICY_NEVER)
        return error_set(error, PP_E_ARG, "flags: %#x", (unsigned) policy->flags);
    if (policy->reserved != 0)
        return error_set(error, PP_E_ARG, "reserved: not 0");
    return PP_OK;
}

static void policy_write(struct policy *policy, const pp_policy *from)
{
    WRITE(policy, threshold, from->threshold);
    WRITE(policy, threshold_max, from->threshold_max);
    WRITE(policy, hits, from->hits);
    WRITE(policy, backoff, from->backoff);
    WRITE(policy, attempts, from->attempts);
    WRITE(policy, random, from->random);
    WRITE(policy, seed, from->seed != 0 ? from->seed : 1);
    WRITE(policy, flags, from->flags);
    WRITE(policy, load, from->load);
    policy_set_force(policy, policy_force(policy));
}

void policy_set_force(struct policy *policy, struct force *force)
{
    /* Whoever sees the pointer sees what was written there before. */
    atomic_store_explicit(&policy->force, force, memory_order_release);
    WRITE(policy, varies, READ(policy, random) != 0 || READ(policy, load) != NULL || force != NULL);
}

pp_status pp_pool_set_policy(pp_pool *pool, const pp_policy *given)
{
    pp_policy policy;
    if (pool == NULL)
        return PP_E_ARG;
    pp_status status = policy_read(given, &policy);
    if (status != PP_OK)
        return status;
    pool_lock(pool);
    struct osr_state *state = osr_state_locked(pool);
    if (state != NULL)
        policy_write(&state->policy, &policy);
    pool_unlock(pool);
    return state != NULL ? PP_OK : error_set(policy.error, PP_E_NOMEM, "no memory for a policy");
}

pp_status pp_site_set_policy(pp_site *handle, const pp_policy *given)
{
    pp_policy policy;
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    pp_status status = policy_read(given, &policy);
    if (status != PP_OK)
        return status;
    pp_pool *pool = site->record.pool;
    pool_lock(pool);
    const struct policy *use = &osr_state_locked(pool)->policy;
    if (given != NULL) {
        policy_write(&site->own_policy, &policy);
        use = &site->own_policy;
    }
    atomic_store_explicit(&site->policy, use, memory_order_release);
    pool_unlock(pool);
    return PP_OK;
}
