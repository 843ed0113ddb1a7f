/* SPDX-License-Identifier: MIT */
/*
 * The code map: two levels of slots over the 48 bits of a user address, the upper
 * one static, the lower ones mapped when a region first needs them and never
 * given back, so that a reader always finds memory behind what it loaded.
 *
 * A slot is stored with release order after the region is complete, and loaded
 * with acquire order.
 */
#include <config.h>

#include "memory/code_map.h"

#include "os/map.h"

#define ADDRESS_BITS 48
#define LEAF_BITS 13
#define TOP_BITS (ADDRESS_BITS - CODE_MAP_SHIFT - LEAF_BITS)
#define LEAF_SLOTS ((size_t) 1 << LEAF_BITS)

struct leaf {
    _Atomic(struct region *) slots[LEAF_SLOTS];
};

static _Atomic(struct leaf *) top[(size_t) 1 << TOP_BITS];

static _Atomic(struct leaf *) *leaf_of(uintptr_t address)
{
    return &top[address >> (CODE_MAP_SHIFT + LEAF_BITS)];
}

static bool leaf_prepare(_Atomic(struct leaf *) *slot)
{
    if (atomic_load_explicit(slot, memory_order_acquire) != NULL)
        return true;
    struct leaf *leaf = map_memory(sizeof *leaf);
    if (leaf == NULL)
        return false;
    struct leaf *expected = NULL;
    if (!atomic_compare_exchange_strong_explicit(slot, &expected, leaf, memory_order_acq_rel,
                                                 memory_order_acquire))
        map_unmap((uintptr_t) leaf, sizeof *leaf);
    return true;
}

bool code_map_prepare(const struct region *region)
{
    if (region->limit - 1 >= (uintptr_t) 1 << ADDRESS_BITS)
        return false;
    for (uintptr_t at = region->base; at < region->limit; at += CODE_MAP_SLOT) {
        if (!leaf_prepare(leaf_of(at)))
            return false;
    }
    return true;
}

static void fill(const struct region *region, struct region *value)
{
    for (uintptr_t at = region->base; at < region->limit; at += CODE_MAP_SLOT) {
        struct leaf *leaf = atomic_load_explicit(leaf_of(at), memory_order_acquire);
        atomic_store_explicit(&leaf->slots[at >> CODE_MAP_SHIFT & (LEAF_SLOTS - 1)], value,
                              memory_order_release);
    }
}

size_t code_map_count(const struct region *region, const struct region *value)
{
    size_t count = 0;
    for (uintptr_t at = region->base; at < region->limit; at += CODE_MAP_SLOT) {
        struct leaf *leaf = atomic_load_explicit(leaf_of(at), memory_order_acquire);
        if (leaf != NULL)
            count += atomic_load_explicit(&leaf->slots[at >> CODE_MAP_SHIFT & (LEAF_SLOTS - 1)],
                                          memory_order_acquire) == value;
    }
    return count;
}

void code_map_publish(struct region *region)
{
    fill(region, region);
}

void code_map_retract(const struct region *region)
{
    fill(region, NULL);
}

struct region *region_at(uintptr_t pc)
{
    if (pc >> ADDRESS_BITS != 0)
        return NULL;
    struct leaf *leaf = atomic_load_explicit(leaf_of(pc), memory_order_acquire);
    if (leaf == NULL)
        return NULL;
    struct region *region = atomic_load_explicit(
        &leaf->slots[pc >> CODE_MAP_SHIFT & (LEAF_SLOTS - 1)], memory_order_acquire);
    if (region == NULL || pc - region->code_lo >= region->code_hi - region->code_lo)
        return NULL;
    return region;
}
