/* SPDX-License-Identifier: MIT */
/* The public face of the pool, and the table of the rooms that keep state in it. */
#include <config.h>

#include "error.h"
#include "link/link.h"
#include "memory/state.h"
#include "osr/room.h"
#include "patch/retire.h"
#include "sized.h"
#include "walk/unwind.h"

#include <stdio.h>
#include <string.h>

const struct pool_room *const pool_rooms[ROOM_COUNT] = {
    [ROOM_LINK] = &link_room,
    [ROOM_PATCH] = &patch_room,
    [ROOM_OSR] = &osr_room,
    [ROOM_WALK] = &walk_room,
};

pp_status pp_pool_create(const pp_pool_options *options, pp_pool **pool)
{
    pp_pool_options copy = { .size = sizeof copy };
    if (pool == NULL)
        return PP_E_ARG;
    if (options != NULL) {
        if (!sized_read(&copy, sizeof copy, offsetof(pp_pool_options, on_limit), options))
            return PP_E_ARG;
    }
    return pool_create(&copy, pool);
}

void pp_pool_destroy(pp_pool *pool)
{
    if (pool != NULL)
        pool_destroy(pool);
}

static void add_region(struct region *region, pp_pool_stats *stats)
{
    stats->regions++;
    stats->near_regions += region->near;
    stats->reserved += region->limit - region->base;
    stats->resident += region_resident(region);
    pthread_mutex_lock(&region->lock);
    stats->requested += region->spans.requested;
    stats->used += region->spans.used;
    stats->spans += region->spans.spans;
    size_t largest = region->inherited ? 0 : span_space_largest(&region->spans);
    pthread_mutex_unlock(&region->lock);
    if (largest > stats->largest_hole)
        stats->largest_hole = largest;
}

pp_status pp_pool_get_stats(pp_pool *pool, pp_pool_stats *stats)
{
    if (pool == NULL || stats == NULL || stats->size < offsetof(pp_pool_stats, committed))
        return PP_E_ARG;
    pp_pool_stats sum = { .wx = pool->wx, .allocator = pool->meta.name };
    snprintf(sum.wx_reason, sizeof sum.wx_reason, "%s", pool->wx_reason);
    pthread_mutex_lock(&pool->opening);
    for (struct region *region = atomic_load(&pool->regions); region != NULL; region = region->next)
        add_region(region, &sum);
    if (pool->spare != NULL)
        add_region(pool->spare, &sum);
    pthread_mutex_unlock(&pool->opening);
    for (unsigned i = 0; i < ROOM_COUNT; i++) {
        if (pool_rooms[i] != NULL && pool_rooms[i]->add_stats != NULL)
            pool_rooms[i]->add_stats(pool, &sum);
    }
    sum.metadata = atomic_load_explicit(&pool->meta.bytes, memory_order_relaxed);
    fallbacks_add_stats(&pool->fallbacks, &sum);
    sized_write(stats, &sum, sizeof sum);
    return PP_OK;
}

pp_status pp_pool_verify(pp_pool *pool, pp_error *error)
{
    if (pool == NULL)
        return PP_E_ARG;
    const char *broken = NULL;
    pthread_mutex_lock(&pool->opening);
    for (struct region *region = atomic_load(&pool->regions); region != NULL && broken == NULL;
         region = region->next)
        broken = region_at(region->code_lo) == region ? region_verify(region)
                                                      : "a region is not in the code map";
    if (broken == NULL && pool->spare != NULL)
        broken = region_verify(pool->spare);
    pthread_mutex_unlock(&pool->opening);
    if (broken != NULL)
        return error_set(error, PP_E_FAULT, "%s", broken);
    for (unsigned i = 0; i < ROOM_COUNT; i++) {
        pp_status status = PP_OK;
        if (pool_rooms[i] != NULL && pool_rooms[i]->verify != NULL)
            status = pool_rooms[i]->verify(pool, error);
        if (status != PP_OK)
            return status;
    }
    return PP_OK;
}
