/* SPDX-License-Identifier: MIT */
/* Regions: their spans, and their life. */
#include <config.h>

#include "memory/region.h"

#include "error.h"
#include "memory/backing.h"
#include "memory/children.h"
#include "memory/number.h"
#include "memory/pool.h"
#include "memory/rule_table.h"
#include "memory/view.h"
#include "os/map.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LONG_SPAN ((size_t) 2048) /* longer ones are not filled with traps under the lock */

/* ---- spans ------------------------------------------------------------ */

static void update_room_locked(struct region *region)
{
    atomic_store_explicit(&region->room, span_space_largest(&region->spans), memory_order_relaxed);
}

static void settle_locked(struct region *region)
{
    if (children_settle_locked(region))
        update_room_locked(region);
}

bool region_may_run_in_child(struct region *region, uintptr_t exec)
{
    pthread_mutex_lock(&region->lock);
    bool may = children_may_run_locked(region, exec - region->code_lo);
    pthread_mutex_unlock(&region->lock);
    return may;
}

void region_settle(struct region *region)
{
    pthread_mutex_lock(&region->lock);
    settle_locked(region);
    pthread_mutex_unlock(&region->lock);
}

static pp_status take_locked(struct region *region, size_t size, size_t align, const void *owner,
                             uintptr_t *exec, uint32_t *generation, pp_error *error)
{
    struct span_slot slot;
    pp_status status = PP_OK;
    settle_locked(region);
    switch (span_space_find(&region->spans, size, align, &slot)) {
    case SPAN_FULL:
        status = REGION_FULL;
        break;
    case SPAN_NO_MEMORY:
        status = error_set(error, PP_E_NOMEM, "no memory for bookkeeping");
        break;
    case SPAN_FOUND:
        slot.owner = owner;
        backing_take_locked(region, (size_t) slot.start << region->spans.shift,
                            (size_t) slot.units << region->spans.shift,
                            (size_t) slot.hole.start << region->spans.shift,
                            (size_t) (slot.hole.end - slot.hole.start) << region->spans.shift);
        *exec = region->code_lo + span_space_take(&region->spans, &slot);
        *generation = region->spans.generation;
        atomic_store_explicit(&region->taken, region->taken + 1, memory_order_relaxed);
        children_note_locked(region, *exec - region->code_lo);
        update_room_locked(region);
    }
    return status;
}

/* Memory is asked for without the lock: the span is there, but nobody knows of it yet. */
pp_status region_alloc(struct region *region, bool wait, size_t size, size_t align,
                       const void *owner, uintptr_t *exec, uint32_t *generation, pp_error *error)
{
    if (wait)
        pthread_mutex_lock(&region->lock);
    else if (pthread_mutex_trylock(&region->lock) != 0)
        return REGION_BUSY;
    pp_status status = take_locked(region, size, align, owner, exec, generation, error);
    pthread_mutex_unlock(&region->lock);
    if (status != PP_OK || region->wx == PP_WX_FLIP)
        return status;
    int number = backing_ensure(region, *exec, size);
    if (number == 0)
        return PP_OK;
    region_unalloc(region, *exec);
    if (number == EBADF) {
        atomic_store_explicit(&region->lost, true, memory_order_relaxed);
        return REGION_FULL;
    }
    return view_refused(error, region_has_memfd(region) ? "fallocate" : "madvise", number);
}

/* [offset, offset + size) is part of a hole from here on. */
static void became_hole_locked(struct region *region, size_t offset, size_t size)
{
    backing_give_locked(region, offset, size);
    update_room_locked(region);
}

/*
 * A span goes.  Long ones are filled with traps while others work on: they keep
 * their place, without being spans.  FLIP has to ask the kernel, and may be refused:
 * then nothing has happened yet.
 */
static pp_status release_locked(struct region *region, const struct span_info *info,
                                pp_error *error)
{
    uintptr_t exec = region->code_lo + info->start;
    if (children_may_run_locked(region, info->start)) {
        children_wait_locked(region, info->start);
        return PP_OK;
    }
    if (region->wx == PP_WX_FLIP || info->extent <= LONG_SPAN) {
        pp_status status = region_zap(region, exec, info->extent, error);
        if (status != PP_OK)
            return status;
        span_space_free_found(&region->spans, info);
    } else {
        span_space_retire(&region->spans, info->start);
        pthread_mutex_unlock(&region->lock);
        region_zap(region, exec, info->extent, NULL);
        pthread_mutex_lock(&region->lock);
        span_space_reclaim(&region->spans, info->start);
    }
    became_hole_locked(region, info->start, info->extent);
    return PP_OK;
}

static bool is_generation(const struct span_info *info, uint32_t generation)
{
    return generation == 0 || info->generation == generation;
}

static bool is_owner(const struct span_info *info, const struct owner *owner)
{
    if (owner == &span_any.owner)
        return owner_is_host(info->owner);
    return owner == NULL || info->owner == owner;
}

pp_status region_free(struct region *region, uintptr_t exec, uint32_t generation,
                      const struct owner *owner, size_t *bytes, pp_error *error)
{
    struct span_info info;
    size_t offset = exec - region->code_lo;
    pthread_mutex_lock(&region->lock);
    settle_locked(region);
    pp_status status = PP_E_STALE;
    if (!span_space_starting(&region->spans, offset, &info))
        error_set(error, status, "no live span begins at this address");
    else if (!is_generation(&info, generation) || !is_owner(&info, owner))
        error_set(error, status, "another span is there by now");
    else
        status = release_locked(region, &info, error);
    if (status == PP_OK)
        *bytes = info.extent;
    pthread_mutex_unlock(&region->lock);
    return status;
}

bool region_pass(struct region *region, uintptr_t exec, uint32_t generation,
                 const struct owner *from, const struct owner *to, size_t *size)
{
    pthread_mutex_lock(&region->lock);
    bool passed = span_space_pass(&region->spans, exec - region->code_lo, generation, from, to,
                                  size);
    pthread_mutex_unlock(&region->lock);
    return passed;
}

struct turning {
    enum owner_kind from, to;
};

static const void *turn_owner(const void *owner, const void *context)
{
    const struct turning *turning = context;
    return owner_is(owner, turning->from) ? owner_in_state(owner, turning->to) : NULL;
}

bool region_turn(struct region *region, uintptr_t exec, uint32_t generation,
                 enum owner_kind from, enum owner_kind to, size_t *size)
{
    const struct turning turning = { from, to };
    pthread_mutex_lock(&region->lock);
    bool turned = span_space_turn(&region->spans, exec - region->code_lo, generation, turn_owner,
                                  &turning, size);
    pthread_mutex_unlock(&region->lock);
    return turned;
}

size_t region_unalloc(struct region *region, uintptr_t exec)
{
    size_t offset = exec - region->code_lo, bytes;
    pthread_mutex_lock(&region->lock);
    bytes = span_space_extent(&region->spans, offset);
    span_space_free(&region->spans, offset);
    became_hole_locked(region, offset, bytes);
    pthread_mutex_unlock(&region->lock);
    return bytes;
}

size_t region_discard(struct region *region, uintptr_t exec)
{
    size_t offset = exec - region->code_lo, bytes;
    pthread_mutex_lock(&region->lock);
    bytes = span_space_extent(&region->spans, offset);
    if (region_zap(region, exec, bytes, NULL) != PP_OK)
        backing_forget_locked(region, exec, bytes);
    span_space_free(&region->spans, offset);
    became_hole_locked(region, offset, bytes);
    pthread_mutex_unlock(&region->lock);
    return bytes;
}

/* The tail of a span, from `keep` on, becomes a hole, or waits for children. */
static pp_status cut_locked(struct region *region, const struct span_info *info, size_t keep,
                            size_t size)
{
    size_t tail = info->start + keep, bytes = info->extent - keep;
    if (bytes > 0 && children_may_run_locked(region, info->start)) {
        if (!span_space_shrink_hold(&region->spans, info->start, size))
            return PP_E_NOMEM;
        children_wait_locked(region, tail);
        return PP_OK;
    }
    /* The tail must not become traps and then stay the span's. */
    if (!span_space_shrink_prepare(&region->spans, info->start, size))
        return PP_E_NOMEM;
    if (region->wx != PP_WX_FLIP && bytes > LONG_SPAN) {
        /* Before others get the lock: they may free the span meanwhile. */
        if (!span_space_shrink_hold(&region->spans, info->start, size))
            return PP_E_NOMEM;
        pthread_mutex_unlock(&region->lock);
        region_zap(region, region->code_lo + tail, bytes, NULL);
        pthread_mutex_lock(&region->lock);
        span_space_reclaim(&region->spans, tail);
        became_hole_locked(region, tail, bytes);
        return PP_OK;
    }
    pp_status status = region_zap(region, region->code_lo + tail, bytes, NULL);
    if (status != PP_OK)
        return status;
    (void) span_space_shrink(&region->spans, info->start, size);
    if (bytes > 0)
        became_hole_locked(region, tail, bytes);
    return PP_OK;
}

/* The live span that starts there, of this generation and owner. */
static bool find_locked(const struct region *region, uintptr_t exec, uint32_t generation,
                        const struct owner *owner, struct span_info *info)
{
    return span_space_starting(&region->spans, exec - region->code_lo, info) &&
           is_generation(info, generation) && is_owner(info, owner);
}

pp_status region_shrink(struct region *region, uintptr_t exec, uint32_t generation,
                        const struct owner *owner, size_t size, size_t *bytes)
{
    struct span_info info;
    size_t unit = (size_t) 1 << region->spans.shift;
    pthread_mutex_lock(&region->lock);
    pp_status status = PP_E_STALE;
    if (find_locked(region, exec, generation, owner, &info)) {
        size_t keep = (size + unit - 1) & -unit;
        status = size == 0 || size > info.size ? PP_E_ARG : PP_OK;
        if (status == PP_OK)
            status = cut_locked(region, &info, keep, size);
        if (status == PP_OK)
            *bytes = info.extent - keep;
    }
    pthread_mutex_unlock(&region->lock);
    return status;
}

pp_status region_split(struct region *region, uintptr_t exec, uint32_t generation,
                       const struct owner *owner, size_t at, uint32_t *tail_generation)
{
    struct span_info info;
    size_t offset = exec - region->code_lo, unit = (size_t) 1 << region->spans.shift;
    pthread_mutex_lock(&region->lock);
    pp_status status = PP_E_STALE;
    if (find_locked(region, exec, generation, owner, &info)) {
        status = at == 0 || at % unit != 0 || at >= info.size ? PP_E_ARG : PP_OK;
        if (status == PP_OK && !span_space_split(&region->spans, offset, at))
            status = PP_E_NOMEM;
        if (status == PP_OK) {
            *tail_generation = region->spans.generation;
            if (!children_may_run_locked(region, offset))
                children_note_locked(region, offset + at);
        }
    }
    pthread_mutex_unlock(&region->lock);
    return status;
}

/* ---- numbers for handles ---------------------------------------------- */

/* Of the spans that began in a chunk. */
static uint32_t latest_generation(const struct region *region, size_t chunk)
{
    uintptr_t lo = region->base + chunk * NUMBER_CHUNK, hi = lo + NUMBER_CHUNK;
    lo = lo > region->code_lo ? lo : region->code_lo;
    hi = hi < region->code_hi ? hi : region->code_hi;
    return lo < hi ? span_space_latest(&region->spans, lo - region->code_lo, hi - lo) : 0;
}

/* All from `first` on, of which the region keeps none. */
static void give_numbers(struct region *region, size_t first)
{
    for (size_t i = first; i < region->number_count; i++)
        number_give(region->numbers[i], latest_generation(region, i));
    region->number_count = first;
}

static void drop_numbers(struct region *region)
{
    give_numbers(region, 0);
    pool_meta_free(region->pool, region->numbers, region->number_room * sizeof(uint32_t));
}

/* For up to `size` bytes. */
static pp_status take_numbers(struct region *region, size_t size, pp_error *error)
{
    region->number_room = size >> NUMBER_CHUNK_SHIFT;
    region->numbers = pool_meta_alloc(region->pool, region->number_room * sizeof(uint32_t));
    if (region->numbers == NULL)
        return error_set(error, PP_E_NOMEM, "no memory for bookkeeping");
    region->number_count =
        numbers_take(region->numbers, region->number_room, &region->generation_floor);
    if (region->number_count != 0)
        return PP_OK;
    drop_numbers(region);
    return error_set(error, PP_E_NOMEM, "no number for handles of more code is left");
}

/* The region is mapped: those that it does not need go back. */
static void bind_numbers(struct region *region)
{
    give_numbers(region, (region->limit - region->base) >> NUMBER_CHUNK_SHIFT);
    for (size_t i = 0; i < region->number_count; i++)
        number_bind(region->numbers[i], region->base + i * NUMBER_CHUNK);
}

/* ---- opening and closing ---------------------------------------------- */

static void *memory_alloc(void *context, size_t size) { return pool_meta_alloc(context, size); }
static void memory_free(void *context, void *memory, size_t size)
{
    pool_meta_free(context, memory, size);
}

static bool init_bookkeeping(struct region *region)
{
    struct span_memory memory = { memory_alloc, memory_free, region->pool };
    unsigned shift = region->wx == PP_WX_FLIP ? region->page_shift
                                              : SPAN_GRANULE_SHIFT;
    if (!backing_open(region) ||
        !span_space_init(&region->spans, region_code_size(region), shift,
                         region->generation_floor, &memory))
        return false;
    if (!span_space_hold(&region->spans, region->island_lo - region->code_lo,
                         region->island_hi - region->island_lo))
        return false;
    update_room_locked(region);
    return true;
}

static void fini_bookkeeping(struct region *region)
{
    span_space_fini(&region->spans);
    children_close(region);
    backing_close(region);
}

/* It is held for a fraction of what sleeping costs. */
static void init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t adaptive;
    pthread_mutexattr_init(&adaptive);
    pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(lock, &adaptive);
    pthread_mutexattr_destroy(&adaptive);
}

static pp_status map_numbered(struct region *region, const struct frame_rule *claim,
                              struct anchors *anchors, size_t size, pp_error *error)
{
    pp_status status = take_numbers(region, size, error);
    if (status != PP_OK)
        return status;
    size_t most = region->number_count << NUMBER_CHUNK_SHIFT;
    status = view_map(region, claim, anchors, most, error);
    if (status != PP_OK)
        drop_numbers(region);
    else
        bind_numbers(region);
    if (most < size && anchors->refused[0] == '\0')
        snprintf(anchors->refused, sizeof anchors->refused, "handles have numbers for no more");
    return status;
}

pp_status region_create(pp_pool *pool, pp_wx wx, const struct frame_rule *claim,
                        struct anchors *anchors, size_t size, struct region **result,
                        pp_error *error)
{
    struct region *region = pool_meta_alloc(pool, sizeof *region);
    if (region == NULL)
        return error_set(error, PP_E_NOMEM, "no memory for bookkeeping");
    region->pool = pool;
    region->wx = wx;
    region->page_shift = (unsigned) __builtin_ctzl(map_page_size());
    region->memfd.fd = -1;
    pp_status status = map_numbered(region, claim, anchors, size, error);
    if (status != PP_OK) {
        pool_meta_free(pool, region, sizeof *region);
        return status;
    }
    init_lock(&region->lock);
    if (!init_bookkeeping(region)) {
        region_destroy(region);
        return error_set(error, PP_E_NOMEM, "no memory for bookkeeping");
    }
    *result = region;
    return PP_OK;
}

void region_destroy(struct region *region)
{
    drop_numbers(region);
    fini_bookkeeping(region);
    view_unmap(region);
    pthread_mutex_destroy(&region->lock);
    pool_meta_free(region->pool, region, sizeof *region);
}

/* ---- invariants ------------------------------------------------------- */

const char *region_verify(struct region *region)
{
    pthread_mutex_lock(&region->back_lock);
    pthread_mutex_lock(&region->lock);
    const char *broken = span_space_verify(&region->spans);
    if (broken == NULL && !region->inherited)
        broken = backing_verify_locked(region);
    pthread_mutex_unlock(&region->lock);
    pthread_mutex_unlock(&region->back_lock);
    return broken;
}
