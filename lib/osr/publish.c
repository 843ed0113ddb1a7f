/* SPDX-License-Identifier: MIT */
/* The states of a site: who may move it, and how an entry is published. */
#include <config.h>

#include "osr/site.h"

#include "sized.h"

#define STATS_BYTES offsetof(pp_site_stats, hits) /* of the first layout */

struct site *site_from(const pp_site *handle)
{
    struct site *site = handle_address(handle);
    return site != NULL && record_is(&site->record, handle) ? site : NULL;
}

pp_site *site_handle(const struct site *site)
{
    return record_handle(site, &site->record);
}

bool site_move(struct site *site, uint32_t from, uint32_t to)
{
    uint32_t state = atomic_load_explicit(&site->head.state, memory_order_relaxed);
    do {
        if (!(from & 1u << state))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&site->head.state, &state, to,
                                                    memory_order_acq_rel, memory_order_relaxed));
    return true;
}

pp_status site_refuse(struct site *site, pp_status why)
{
    atomic_store_explicit(&site->last, why, memory_order_relaxed);
    atomic_fetch_add_explicit(&site->refusals, 1, memory_order_relaxed);
    return why;
}

pp_status site_fail(struct site *site, uint32_t from, pp_status why)
{
    /* Before the state: a thread that sees COUNTING again begins from here. */
    site_refuse(site, why);
    atomic_store_explicit(&site->hits, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&site->level, 1, memory_order_relaxed);
    uint64_t failures = atomic_fetch_add_explicit(&site->failures, 1, memory_order_relaxed) + 1;
    method_fail(site);
    site_move(site, from, site_after_failure(site, failures));
    return why;
}

pp_status site_publish(struct site *site, const pp_entry *handle)
{
    struct entry *entry;
    pp_status status = entry_acquire(handle, site->record.pool, &site->desc, &entry);
    if (status != PP_OK)
        return site_fail(site, 1u << PP_SITE_COMPILING, status);
    atomic_store_explicit(&site->entry, entry, memory_order_relaxed);
    atomic_store_explicit(&site->head.target, entry->target, memory_order_relaxed);
    atomic_store_explicit(&site->level, 0, memory_order_relaxed);
    atomic_store_explicit(&site->failures, 0, memory_order_relaxed);
    method_succeed(site);
    const bool asks = entry_is_guarded(entry) || force_marks(policy_force(site_policy(site)));
    /* Pairs with the acquire load of the stub: READY seen, target seen. */
    atomic_store_explicit(&site->head.state, asks ? PP_SITE_GUARDED : PP_SITE_READY,
                          memory_order_release);
    return PP_OK;
}

pp_status pp_site_publish(pp_site *handle, pp_entry *entry)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL || entry == NULL ? PP_E_ARG : PP_E_STALE;
    if (entry == NULL || site->desc.kind == PP_SITE_POLLED || site->desc.probe != NULL)
        return PP_E_ARG;
    /* Refused before anything moves; site_publish asks again, with a reference. */
    pp_status status = entry_check(entry, site->record.pool, &site->desc);
    if (status != PP_OK)
        return site_refuse(site, status);
    if (!site_move(site, 1u << PP_SITE_IDLE | 1u << PP_SITE_COUNTING | 1u << PP_SITE_FAILED
                             | 1u << PP_SITE_PENDING, PP_SITE_COMPILING))
        return pp_site_state(handle) == PP_SITE_DISABLED ? PP_E_STALE : PP_E_BUSY;
    return site_publish(site, entry);
}

pp_status pp_site_defer(pp_site *handle)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    if (atomic_load_explicit(&site->head.state, memory_order_acquire) != PP_SITE_COMPILING)
        return PP_E_BUSY;
    /* Before the state: from there on it may end, and begin again, in another thread. */
    atomic_fetch_add_explicit(&site->defers, 1, memory_order_relaxed);
    atomic_store_explicit(&site->head.state, PP_SITE_PENDING, memory_order_release);
    return PP_OK;
}

pp_status pp_site_fail(pp_site *handle, pp_status why)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    if (why >= PP_OK)
        return PP_E_ARG;
    if (!site_move(site, 1u << PP_SITE_PENDING, PP_SITE_COMPILING))
        return pp_site_state(handle) == PP_SITE_DISABLED ? PP_E_STALE : PP_E_BUSY;
    site_fail(site, 1u << PP_SITE_COMPILING, why);
    return PP_OK;
}

bool site_disable(struct site *site)
{
    if (!site_move(site, ~(1u << PP_SITE_TRIGGERED | 1u << PP_SITE_COMPILING), PP_SITE_DISABLED))
        return false;
    method_fail(site); /* it was pending, or has nothing to end */
    if (site->desc.counter == PP_COUNTER_SITE)
        atomic_store_explicit(&site->head.counter,
                              site->desc.kind == PP_SITE_POLLED ? 0 : INT32_MAX,
                              memory_order_relaxed);
    return true;
}

pp_status pp_site_disable(pp_site *handle)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    return site_disable(site) ? PP_OK : PP_E_BUSY;
}

pp_status pp_site_request(pp_site *handle)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    if (site->desc.kind != PP_SITE_POLLED || site->desc.counter != PP_COUNTER_SITE)
        return PP_E_ARG;
    if (atomic_load_explicit(&site->head.state, memory_order_acquire) == PP_SITE_DISABLED)
        return PP_E_STALE;
    atomic_store_explicit(&site->head.counter, 1, memory_order_release);
    return PP_OK;
}

int pp_site_state(const pp_site *handle)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return PP_SITE_DISABLED;
    uint32_t state = atomic_load_explicit(&site->head.state, memory_order_acquire);
    return state == PP_SITE_GUARDED ? PP_SITE_READY : (int) state;
}

void *pp_site_record(pp_site *handle)
{
    return site_from(handle);
}

int32_t site_first_passes(const struct site *site)
{
    return force_passes(policy_force(site_policy(site))) ? 1 : site->desc.threshold;
}

int32_t pp_site_threshold(const pp_site *handle)
{
    struct site *site = site_from(handle);
    return site == NULL ? INT32_MAX : site_first_passes(site);
}

pp_entry *pp_site_entry(const pp_site *handle)
{
    struct site *site = site_from(handle);
    if (site == NULL || pp_site_state(handle) != PP_SITE_READY)
        return NULL;
    struct entry *entry = atomic_load_explicit(&site->entry, memory_order_relaxed);
    return record_handle(entry, &entry->record);
}

void *pp_site_host(const pp_site *handle)
{
    struct site *site = site_from(handle);
    return site == NULL ? NULL : site->desc.host;
}

#define READ(field) atomic_load_explicit(&site->field, memory_order_relaxed)

pp_status pp_site_get_stats(const pp_site *handle, pp_site_stats *stats)
{
    struct site *site = site_from(handle);
    if (handle == NULL || stats == NULL || stats->size < STATS_BYTES || stats->size > SIZED_MAX)
        return PP_E_ARG;
    if (site == NULL)
        return PP_E_STALE;
    const pp_site_stats result = {
        .slow_paths = READ(slow_paths), .triggers = READ(triggers),
        .transitions = READ(transitions), .refusals = READ(refusals), .hits = READ(hits),
        .failures = READ(failures), .refusal = (pp_status) READ(last), .backoff = READ(level),
    };
    sized_write(stats, &result, sizeof result);
    return PP_OK;
}
