/* SPDX-License-Identifier: MIT */
/* Placement. */
#include <config.h>

#include "memory/placement.h"

#include "os/map.h"

#include <pthread.h>

/* ---- addresses that have a rule --------------------------------------- */

struct claim {
    uintptr_t lo, hi;
    struct frame_rule rule;
};

#define BLOCK_BYTES 65536
#define BLOCK_CLAIMS ((BLOCK_BYTES - 2 * sizeof(void *)) / sizeof(struct claim))

/* Claims outlive pools, so their blocks are mapped and never given back. */
struct claim_block {
    struct claim_block *next;
    size_t count;
    struct claim claims[BLOCK_CLAIMS];
};

static pthread_mutex_t claim_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct claim_block *claim_blocks; /* guarded by claim_mutex */

void placement_lock(void)
{
    pthread_mutex_lock(&claim_mutex);
}

void placement_unlock(void)
{
    pthread_mutex_unlock(&claim_mutex);
}

/* The lowest claim of another rule that overlaps [lo, hi); NULL: none. */
static const struct claim *conflict_locked(uintptr_t lo, uintptr_t hi,
                                           const struct frame_rule *rule)
{
    const struct claim *lowest = NULL;
    for (const struct claim_block *block = claim_blocks; block != NULL; block = block->next) {
        for (size_t i = 0; i < block->count; i++) {
            const struct claim *claim = &block->claims[i];
            if (claim->lo < hi && lo < claim->hi && !frame_rule_equal(&claim->rule, rule) &&
                (lowest == NULL || claim->lo < lowest->lo))
                lowest = claim;
        }
    }
    return lowest;
}

/* Extend a claim of the same rule that touches the range. */
static bool extend_locked(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule)
{
    for (struct claim_block *block = claim_blocks; block != NULL; block = block->next) {
        for (size_t i = 0; i < block->count; i++) {
            struct claim *claim = &block->claims[i];
            if (lo <= claim->hi && claim->lo <= hi && frame_rule_equal(&claim->rule, rule)) {
                claim->lo = lo < claim->lo ? lo : claim->lo;
                claim->hi = hi > claim->hi ? hi : claim->hi;
                return true;
            }
        }
    }
    return false;
}

static bool append_locked(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule)
{
    if (claim_blocks == NULL || claim_blocks->count == BLOCK_CLAIMS) {
        struct claim_block *block = map_memory(sizeof *block);
        if (block == NULL)
            return false;
        block->next = claim_blocks;
        claim_blocks = block;
    }
    claim_blocks->claims[claim_blocks->count++] = (struct claim){ lo, hi, *rule };
    return true;
}

bool placement_claim(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule)
{
    placement_lock();
    bool claimed = conflict_locked(lo, hi, rule) == NULL &&
                   (extend_locked(lo, hi, rule) || append_locked(lo, hi, rule));
    placement_unlock();
    return claimed;
}

/* ---- ranking ---------------------------------------------------------- */

/* From the farthest byte of [lo, hi) to the farthest anchor. */
static uint64_t cost_of(const struct anchors *anchors, uintptr_t lo, uintptr_t hi)
{
    uint64_t up = hi > anchors->lo ? hi - anchors->lo : 0;
    uint64_t down = anchors->hi > lo ? anchors->hi - lo : 0;
    return up > down ? up : down;
}

bool placement_is_near(const struct anchors *anchors, uintptr_t lo, uintptr_t hi)
{
    return cost_of(anchors, lo, hi) < anchors->reach;
}

/* The best base in [lo, hi): the cost is least where the region's middle is that of the anchors. */
static bool best_in(const struct anchors *anchors, uintptr_t lo, uintptr_t hi, size_t size,
                    uintptr_t *base)
{
    lo = (lo + PLACEMENT_ALIGN - 1) & -PLACEMENT_ALIGN;
    hi &= -PLACEMENT_ALIGN;
    if (hi <= lo || hi - lo < size)
        return false;
    uintptr_t middle = anchors->lo + (anchors->hi - anchors->lo) / 2;
    uintptr_t want = middle > size / 2 ? (middle - size / 2) & -PLACEMENT_ALIGN : 0;
    *base = want < lo ? lo : want > hi - size ? hi - size : want;
    return true;
}

/* The best base in a gap, between the claims of other rules. */
static bool best_in_gap(const struct placement *placement, struct gap gap, size_t size,
                        uintptr_t *base)
{
    bool found = false;
    uint64_t least = UINT64_MAX;
    while (gap.lo < gap.hi) {
        const struct claim *claim = conflict_locked(gap.lo, gap.hi, placement->rule);
        uintptr_t hi = claim == NULL ? gap.hi : claim->lo, at;
        if (hi > gap.lo && best_in(&placement->anchors, gap.lo, hi, size, &at)) {
            uint64_t cost = cost_of(&placement->anchors, at, at + size);
            if (cost < least) {
                least = cost;
                *base = at;
                found = true;
            }
        }
        if (claim == NULL)
            break;
        gap.lo = claim->hi;
    }
    return found;
}

int placement_open(struct placement *placement, const struct anchors *anchors,
                   const struct frame_rule *rule, size_t size)
{
    int number;
    placement->anchors = *anchors;
    placement->rule = rule;
    placement->count = gap_scan(placement->gaps, PLACEMENT_GAPS, size,
                                anchors->lo + (anchors->hi - anchors->lo) / 2, &number);
    return number;
}

bool placement_take(struct placement *placement, size_t size, bool near, uintptr_t *base)
{
    size_t best = placement->count;
    uint64_t least = UINT64_MAX;
    placement_lock();
    for (size_t i = 0; i < placement->count; i++) {
        uintptr_t at;
        if (!best_in_gap(placement, placement->gaps[i], size, &at))
            continue;
        uint64_t cost = cost_of(&placement->anchors, at, at + size);
        if (cost < least && (!near || cost < placement->anchors.reach)) {
            least = cost;
            best = i;
            *base = at;
        }
    }
    placement_unlock();
    if (best == placement->count)
        return false;
    placement->gaps[best] = placement->gaps[--placement->count];
    return true;
}
