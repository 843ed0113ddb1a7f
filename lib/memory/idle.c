/* SPDX-License-Identifier: MIT */
/* Idle memory: when it goes back, and from which regions. */
#include <config.h>

#include "memory/idle.h"

#include "memory/state.h"

void idle_init(struct idle *idle, size_t keep, size_t region_bytes)
{
    idle->keep = keep == 0 ? region_bytes / 16 : keep;
    idle->relative = keep == 0;
    atomic_init(&idle->bytes, 0);
    atomic_init(&idle->limit, idle->keep);
    atomic_init(&idle->trimming, false);
    atomic_init(&idle->decommits, 0);
}

void pool_add_idle(pp_pool *pool, size_t bytes)
{
    atomic_fetch_add_explicit(&pool->idle.bytes, bytes, memory_order_relaxed);
}

static size_t bytes_of(const struct idle *idle)
{
    return atomic_load_explicit(&idle->bytes, memory_order_relaxed);
}

static bool is_empty(struct region *region)
{
    pthread_mutex_lock(&region->lock);
    bool empty = region->spans.spans == 0;
    pthread_mutex_unlock(&region->lock);
    return empty;
}

/* Regions without spans first: the others will sooner need theirs. */
static void trim(pp_pool *pool, size_t keep)
{
    for (int any = 0; any <= 1; any++) {
        struct region *region = atomic_load_explicit(&pool->regions, memory_order_acquire);
        for (; region != NULL && bytes_of(&pool->idle) > keep; region = region->next) {
            if (region->inherited || (!any && !is_empty(region)))
                continue;
            if (region_trim(region, bytes_of(&pool->idle) - keep) != 0)
                atomic_fetch_add_explicit(&pool->idle.decommits, 1, memory_order_relaxed);
        }
    }
}

static size_t keep_of(pp_pool *pool)
{
    size_t committed = 0;
    struct region *region = atomic_load_explicit(&pool->regions, memory_order_acquire);
    for (; region != NULL && pool->idle.relative; region = region->next)
        committed += atomic_load_explicit(&region->committed, memory_order_relaxed);
    return committed / 8 > pool->idle.keep ? committed / 8 : pool->idle.keep;
}

void pool_trim(pp_pool *pool)
{
    struct idle *idle = &pool->idle;
    if (idle->keep == SIZE_MAX ||
        bytes_of(idle) <= atomic_load_explicit(&idle->limit, memory_order_relaxed) ||
        atomic_exchange_explicit(&idle->trimming, true, memory_order_acquire))
        return;
    size_t keep = keep_of(pool);
    if (bytes_of(idle) > keep)
        trim(pool, keep / 2);
    /* What could not be given back is not tried again before there is more of it. */
    size_t left = bytes_of(idle), limit = left + keep / 2;
    atomic_store_explicit(&idle->limit, limit > keep ? limit : keep, memory_order_relaxed);
    atomic_store_explicit(&idle->trimming, false, memory_order_release);
}

void idle_inherit(struct idle *idle)
{
    atomic_store(&idle->bytes, 0);
    atomic_store(&idle->limit, idle->keep);
    atomic_store(&idle->trimming, false);
}
