/* SPDX-License-Identifier: MIT */
/*
 * What is in a pool.  Everything is counted where it happens, so that telling it
 * takes no walk over spans, however many there are.
 */
#include <config.h>

#include "memory/state.h"

#include "sized.h"

#include <stdio.h>
#include <string.h>

static void add_classes(const struct size_classes *from, pp_size_class *to)
{
    for (unsigned i = 0; i < PP_SIZE_CLASSES; i++) {
        to[i].spans += from->of[i].spans;
        to[i].requested += from->of[i].requested;
        to[i].used += from->of[i].used;
        to[i].holes += from->of[i].holes;
        to[i].hole_bytes += from->of[i].hole_bytes;
    }
}

/* What changes, for a region; its classes too unless `classes` is NULL. */
static void tell_region(struct region *region, pp_region_info *info, struct size_classes *classes)
{
    info->resident = region_resident(region);
    pthread_mutex_lock(&region->lock);
    info->spans = region->spans.spans;
    info->requested = region->spans.requested;
    info->used = region->spans.used;
    info->committed = atomic_load(&region->committed);
    info->idle = region->idle;
    /* No span of an inherited region will ever be taken. */
    info->largest_hole = region->inherited ? 0 : span_space_largest(&region->spans);
    if (classes != NULL)
        *classes = region->spans.classes;
    pthread_mutex_unlock(&region->lock);
}

static void add_region(struct region *region, pp_pool_stats *stats)
{
    pp_region_info info = { .size = sizeof info };
    struct size_classes classes;
    tell_region(region, &info, &classes);
    stats->regions++;
    stats->near_regions += region->near;
    stats->reserved += region->limit - region->base;
    stats->resident += info.resident;
    stats->requested += info.requested;
    stats->used += info.used;
    stats->spans += info.spans;
    stats->committed += info.committed;
    stats->idle += info.idle;
    stats->inherited_spans += region->inherited ? info.spans : 0;
    if (info.largest_hole > stats->largest_hole)
        stats->largest_hole = info.largest_hole;
    add_classes(&classes, stats->classes);
}

static void add_regions(pp_pool *pool, pp_pool_stats *stats)
{
    pthread_mutex_lock(&pool->opening);
    for (struct region *region = atomic_load(&pool->regions); region != NULL; region = region->next)
        add_region(region, stats);
    if (pool->spare != NULL)
        add_region(pool->spare, stats);
    pthread_mutex_unlock(&pool->opening);
}

pp_status pp_pool_get_stats(pp_pool *pool, pp_pool_stats *stats)
{
    if (pool == NULL || stats == NULL || stats->size < offsetof(pp_pool_stats, committed))
        return PP_E_ARG;
    pp_pool_stats sum = { .wx = pool->wx, .allocator = pool->meta.name };
    snprintf(sum.wx_reason, sizeof sum.wx_reason, "%s", pool->wx_reason);
    for (unsigned i = 0; i < PP_SIZE_CLASSES; i++)
        sum.classes[i].up_to = size_class_up_to(i);
    add_regions(pool, &sum);
    for (unsigned i = 0; i < ROOM_COUNT; i++) {
        if (pool_rooms[i] != NULL && pool_rooms[i]->add_stats != NULL)
            pool_rooms[i]->add_stats(pool, &sum);
    }
    sum.metadata = atomic_load_explicit(&pool->meta.bytes, memory_order_relaxed);
    sum.barriers = atomic_load_explicit(&pool->barriers, memory_order_relaxed);
    sum.decommits = atomic_load_explicit(&pool->idle.decommits, memory_order_relaxed);
    fallbacks_add_stats(&pool->fallbacks, &sum);
    sized_write(stats, &sum, sizeof sum);
    return PP_OK;
}

/* ---- one region ------------------------------------------------------- */

/* Regions are in the list newest first; an index counts from the oldest. */
static struct region *find_locked(pp_pool *pool, unsigned index)
{
    unsigned count = 0;
    struct region *first = atomic_load(&pool->regions);
    for (struct region *region = first; region != NULL; region = region->next)
        count++;
    if (index >= count)
        return index == count ? pool->spare : NULL;
    struct region *region = first;
    for (unsigned i = count - 1; i > index; i--)
        region = region->next;
    return region;
}

pp_status pp_pool_get_region(pp_pool *pool, unsigned index, pp_region_info *result)
{
    pp_region_info info = { .size = sizeof info };
    if (pool == NULL || result == NULL || result->size < sizeof info)
        return PP_E_ARG;
    pthread_mutex_lock(&pool->opening);
    struct region *region = find_locked(pool, index);
    if (region != NULL) {
        info.base = region->base;
        info.limit = region->limit;
        info.code_lo = region->code_lo;
        info.code_hi = region->code_hi;
        info.island_lo = region->island_lo;
        info.island_hi = region->island_hi;
        info.literal_lo = region->literal_lo;
        info.literal_hi = region->literal_hi;
        info.wx = region->wx;
        info.near = region->near;
        info.reach = placement_reach(&pool->anchors, region->base, region->limit);
        info.inherited = region->inherited;
        if (region->told != NULL)
            frame_rule_tell(region->told, info.rule, sizeof info.rule);
        tell_region(region, &info, NULL);
    }
    pthread_mutex_unlock(&pool->opening);
    if (region == NULL)
        return PP_E_RANGE;
    sized_write(result, &info, sizeof info);
    return PP_OK;
}
