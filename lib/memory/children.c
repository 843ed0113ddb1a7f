/* SPDX-License-Identifier: MIT */
/* What children may be running: spans that wait, and spans that need not. */
#include <config.h>

#include "memory/children.h"

#include "memory/backing.h"
#include "memory/fork.h"
#include "memory/pool.h"

#include <string.h>

#define CHUNK_BYTES ((size_t) 256 << 10) /* of code, for each bitmap */
#define CHUNK_WORDS (CHUNK_BYTES / SPAN_GRANULE / 64)

static size_t chunk_count(const struct region *region)
{
    return (region_code_size(region) + CHUNK_BYTES - 1) / CHUNK_BYTES;
}

void children_arrive_locked(struct region *region)
{
    struct children *children = &region->children;
    if (!region_has_memfd(region) || region->inherited)
        return;
    children->some = true;
    for (size_t i = 0; children->young != NULL && i < chunk_count(region); i++) {
        if (children->young[i] != NULL)
            memset(children->young[i], 0, CHUNK_WORDS * sizeof(uint64_t));
    }
}

/* The word of a start's bit, or NULL; made if there has to be one and there is memory. */
static uint64_t *young_word(struct region *region, size_t offset, bool make)
{
    struct children *children = &region->children;
    pp_pool *pool = region->pool;
    size_t chunk = offset / CHUNK_BYTES;
    if (children->young == NULL && make)
        children->young = pool_meta_alloc(pool, chunk_count(region) * sizeof *children->young);
    if (children->young == NULL)
        return NULL;
    if (children->young[chunk] == NULL && make)
        children->young[chunk] = pool_meta_alloc(pool, CHUNK_WORDS * sizeof(uint64_t));
    if (children->young[chunk] == NULL)
        return NULL;
    return &children->young[chunk][offset % CHUNK_BYTES / SPAN_GRANULE / 64];
}

static uint64_t young_bit(size_t offset)
{
    return 1ull << (offset >> SPAN_GRANULE_SHIFT) % 64;
}

/* Without memory for it the span counts as old, and waits when it goes. */
void children_note_locked(struct region *region, size_t offset)
{
    if (!region->children.some)
        return;
    uint64_t *word = young_word(region, offset, true);
    if (word != NULL)
        *word |= young_bit(offset);
}

static bool is_young(struct region *region, size_t offset)
{
    const uint64_t *word = young_word(region, offset, false);
    return word != NULL && (*word & young_bit(offset)) != 0;
}

bool children_may_run_locked(struct region *region, size_t offset)
{
    struct children *children = &region->children;
    if (!children->some || is_young(region, offset))
        return false;
    children->some = fork_has_children();
    return children->some;
}

void children_wait_locked(struct region *region, size_t offset)
{
    struct children *children = &region->children;
    span_space_retire(&region->spans, offset);
    if (children->waiting_count == children->waiting_capacity) {
        size_t capacity = children->waiting_capacity * 2 + 64;
        uint32_t *waiting = pool_meta_alloc(region->pool, capacity * sizeof *waiting);
        if (waiting == NULL)
            return; /* for good */
        if (children->waiting_count > 0)
            memcpy(waiting, children->waiting, children->waiting_count * sizeof *waiting);
        pool_meta_free(region->pool, children->waiting,
                       children->waiting_capacity * sizeof *waiting);
        children->waiting = waiting;
        children->waiting_capacity = capacity;
    }
    children->waiting[children->waiting_count++] = (uint32_t) (offset >> SPAN_GRANULE_SHIFT);
}

bool children_settle_locked(struct region *region)
{
    struct children *children = &region->children;
    if (children->waiting_count == 0 || region->inherited || fork_has_children())
        return false;
    children->some = false;
    size_t kept = 0; /* what cannot be cleared this time waits for the next */
    for (size_t i = 0; i < children->waiting_count; i++) {
        size_t offset = (size_t) children->waiting[i] << SPAN_GRANULE_SHIFT;
        size_t size = span_space_extent(&region->spans, offset);
        if (region_zap(region, region->code_lo + offset, size, NULL) != PP_OK) {
            children->waiting[kept++] = children->waiting[i];
            continue;
        }
        span_space_reclaim(&region->spans, offset);
        backing_give_locked(region, offset, size);
    }
    children->waiting_count = kept;
    return true;
}

void children_close(struct region *region)
{
    struct children *children = &region->children;
    pp_pool *pool = region->pool;
    pool_meta_free(pool, children->waiting,
                   children->waiting_capacity * sizeof *children->waiting);
    for (size_t i = 0; children->young != NULL && i < chunk_count(region); i++)
        pool_meta_free(pool, children->young[i], CHUNK_WORDS * sizeof(uint64_t));
    if (children->young != NULL)
        pool_meta_free(pool, children->young, chunk_count(region) * sizeof *children->young);
    *children = (struct children){ 0 };
}
