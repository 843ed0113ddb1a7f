/* SPDX-License-Identifier: MIT */
/* Placement. */
#include <config.h>

#include "memory/placement.h"

#include "memory/claim.h"

#include <string.h>

#define HIGHEST ((uintptr_t) 1 << GAP_ADDRESS_BITS)

static uintptr_t up(uintptr_t address) { return (address + PLACEMENT_ALIGN - 1) & -PLACEMENT_ALIGN; }
static uintptr_t down(uintptr_t address) { return address & -PLACEMENT_ALIGN; }

/* ---- ranking ---------------------------------------------------------- */

/* From the farthest byte of [lo, hi) to an anchor. */
static uint64_t distance_to(uintptr_t anchor, uintptr_t lo, uintptr_t hi)
{
    uint64_t above = hi > anchor ? hi - anchor : 0;
    uint64_t below = anchor > lo ? anchor - lo : 0;
    return above > below ? above : below;
}

uint64_t placement_reach(const struct anchors *anchors, uintptr_t lo, uintptr_t hi)
{
    uint64_t farthest = 0;
    for (unsigned i = 0; i < anchors->count; i++) {
        uint64_t distance = distance_to(anchors->at[i], lo, hi);
        farthest = distance > farthest ? distance : farthest;
    }
    return farthest;
}

bool placement_is_near(const struct anchors *anchors, uintptr_t lo, uintptr_t hi)
{
    return placement_reach(anchors, lo, hi) < anchors->reach;
}

unsigned placement_missed(const struct anchors *anchors, uintptr_t lo, uintptr_t hi)
{
    unsigned missed = 0;
    for (unsigned i = 0; i < anchors->count; i++)
        missed |= (unsigned) (distance_to(anchors->at[i], lo, hi) >= anchors->reach) << i;
    return missed;
}

/*
 * Less is better: whether the first anchor is out of reach, the number of those that are,
 * then which (an earlier one counts more), then the distance to the farthest that is in
 * reach; or to the first, if none is.
 */
static uint64_t rank_of(const struct anchors *anchors, uintptr_t lo, uintptr_t hi)
{
    uint64_t missed = 0, which = 0, farthest = 0;
    for (unsigned i = 0; i < anchors->count; i++) {
        uint64_t distance = distance_to(anchors->at[i], lo, hi);
        if (distance >= anchors->reach) {
            missed++;
            which |= 1u << (ANCHORS - 1 - i);
        } else if (distance > farthest) {
            farthest = distance;
        }
    }
    if (missed == anchors->count)
        farthest = distance_to(anchors->at[0], lo, hi);
    return which >> (ANCHORS - 1) << 63 | missed << 60 | which << 56 | farthest;
}

/* ---- the best place in a gap ------------------------------------------ */

struct best {
    uint64_t rank;     /* UINT64_MAX: nothing was found */
    uintptr_t base;
};

/* The distance is least where the region's middle is that of the anchors in question. */
static void consider(const struct anchors *anchors, struct gap gap, size_t size, uintptr_t middle,
                     struct best *best)
{
    uintptr_t want = middle > size / 2 ? down(middle - size / 2) : 0;
    uintptr_t base = want < gap.lo ? gap.lo : want > gap.hi - size ? gap.hi - size : want;
    uint64_t rank = rank_of(anchors, base, base + size);
    if (rank < best->rank)
        *best = (struct best){ rank, base };
}

/* Between any two anchors; that is also at each, and at all of them. */
static void consider_gap(const struct anchors *anchors, struct gap gap, size_t size,
                         struct best *best)
{
    if (gap.hi <= gap.lo || gap.hi - gap.lo < size)
        return;
    for (unsigned i = 0; i < anchors->count; i++) {
        for (unsigned j = i; j < anchors->count; j++) {
            uintptr_t a = anchors->at[i], b = anchors->at[j];
            consider(anchors, gap, size, a < b ? a + (b - a) / 2 : b + (a - b) / 2, best);
        }
    }
}

/* ---- gaps that are kept ----------------------------------------------- */

static unsigned level_of(size_t bytes)
{
    unsigned level = 63 - (unsigned) __builtin_clzll(bytes / PLACEMENT_ALIGN);
    return level < PLACEMENT_LEVELS ? level : PLACEMENT_LEVELS - 1;
}

static uintptr_t away(const struct gap *gap, uintptr_t anchor)
{
    if (anchor < gap->lo)
        return gap->lo - anchor;
    return anchor > gap->hi ? anchor - gap->hi : 0;
}

/* An empty place, or the farthest of those that are farther than this gap; NULL: none. */
static struct gap *place_for(struct gap *kept, const struct gap *gap, uintptr_t anchor)
{
    struct gap *place = NULL;
    uintptr_t farthest = away(gap, anchor);
    for (unsigned i = 0; i < PLACEMENT_KEPT; i++) {
        if (kept[i].hi == 0)
            return &kept[i];
        uintptr_t distance = away(&kept[i], anchor);
        if (distance > farthest) {
            farthest = distance;
            place = &kept[i];
        }
    }
    return place;
}

static void keep(struct placement *placement, struct gap gap)
{
    gap.lo = up(gap.lo);
    gap.hi = down(gap.hi);
    if (gap.hi <= gap.lo)
        return;
    unsigned level = level_of(gap.hi - gap.lo);
    for (unsigned i = 0; i < placement->anchors->count; i++) {
        uintptr_t anchor = placement->anchors->at[i];
        struct gap *place = place_for(placement->gaps[i][level], &gap, anchor);
        if (place != NULL)
            *place = gap;
    }
}

void placement_exclude(struct placement *placement, uintptr_t base, size_t size)
{
    struct gap *gaps = &placement->gaps[0][0][0];
    for (size_t i = 0; i < sizeof placement->gaps / sizeof *gaps; i++) {
        struct gap *gap = &gaps[i];
        if (gap->hi <= base || gap->lo >= base + size)
            continue;
        /* The longer of the two parts that remain. */
        uintptr_t before = base > gap->lo ? base - gap->lo : 0;
        uintptr_t behind = gap->hi > base + size ? gap->hi - (base + size) : 0;
        if (before == 0 && behind == 0)
            *gap = (struct gap){ 0, 0 };
        else if (before > behind)
            gap->hi = base;
        else
            gap->lo = base + size;
    }
}

/* What other rules have claimed is cut out. */
static void see_gap(struct gap gap, void *context)
{
    struct placement *placement = context;
    uintptr_t from, to;
    while (gap.lo < gap.hi && claim_conflict(gap.lo, gap.hi, placement->claim, &from, &to)) {
        if (from > gap.lo)
            keep(placement, (struct gap){ gap.lo, from });
        gap.lo = to;
    }
    keep(placement, gap);
}

int placement_open(struct placement *placement, struct anchors *anchors,
                   const struct frame_rule *claim)
{
    memset(placement, 0, sizeof *placement);
    placement->anchors = anchors;
    placement->claim = claim;
    int number = gap_scan(PLACEMENT_ALIGN, see_gap, placement);
    if (number != 0)
        memset(placement->gaps, 0, sizeof placement->gaps);
    return number;
}

/* ---- choosing --------------------------------------------------------- */

/* xorshift64*: any state but 0. */
static uint64_t draw(uint64_t *random)
{
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    return *random * 0x2545f4914f6cdd1d;
}

/* Any place in any gap. */
static bool find_random(const struct placement *placement, size_t size, uintptr_t *base)
{
    const struct gap *gaps = &placement->gaps[0][0][0], *chosen = NULL;
    size_t seen = 0;
    for (size_t i = 0; i < sizeof placement->gaps / sizeof *gaps; i++) {
        if (gaps[i].hi - gaps[i].lo >= size && gaps[i].hi != 0 &&
            draw(&placement->anchors->random) % ++seen == 0)
            chosen = &gaps[i];
    }
    if (chosen == NULL)
        return false;
    uintptr_t places = (chosen->hi - chosen->lo - size) / PLACEMENT_ALIGN + 1;
    *base = chosen->lo + draw(&placement->anchors->random) % places * PLACEMENT_ALIGN;
    return true;
}

static bool is_enough(const struct anchors *anchors, enum placement_need need, uintptr_t lo,
                      uintptr_t hi)
{
    unsigned missed = need == PLACEMENT_ANY ? 0 : placement_missed(anchors, lo, hi);
    return need == PLACEMENT_FIRST ? (missed & 1) == 0 : missed == 0;
}

bool placement_find(struct placement *placement, size_t size, enum placement_need need,
                    uintptr_t *base)
{
    const struct anchors *anchors = placement->anchors;
    const struct gap *gaps = &placement->gaps[0][0][0];
    struct best best = { .rank = UINT64_MAX };
    if (anchors->random != 0)
        return need == PLACEMENT_ANY && find_random(placement, size, base);
    for (size_t i = 0; i < sizeof placement->gaps / sizeof *gaps; i++)
        consider_gap(anchors, gaps[i], size, &best);
    *base = best.base;
    return best.rank != UINT64_MAX && is_enough(anchors, need, best.base, best.base + size);
}

bool placement_next_scripted(struct anchors *anchors, size_t size, const struct frame_rule *claim,
                             uintptr_t *base)
{
    while (anchors->base_next < anchors->base_count) {
        uintptr_t at = anchors->bases[anchors->base_next++], from, to;
        if (at == 0 || at % PLACEMENT_ALIGN != 0 || at >= HIGHEST || size > HIGHEST - at ||
            claim_conflict(at, at + size, claim, &from, &to))
            continue;
        *base = at;
        return true;
    }
    return false;
}
