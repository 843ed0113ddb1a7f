/* SPDX-License-Identifier: MIT */
/*
 * Placement: where a region goes.
 *
 * One pass over the process's mappings finds the gaps.  The place wins from which the
 * first anchor is in branch range, of these the one from which most others are, the
 * earlier ones before the later ones, and then the one with the shortest distance to the
 * farthest of these.  Addresses that
 * are claimed for another frame rule are no gaps.
 */
#ifndef MEMORY_PLACEMENT_H
#define MEMORY_PLACEMENT_H

#include "memory/rule.h"
#include "os/gap.h"

#include <stddef.h>
#include <stdint.h>

#define PLACEMENT_ALIGN ((uintptr_t) 2 << 20)
#define PLACEMENT_LEVELS 10 /* gaps from 2 MiB, 4 MiB, ... 1 GiB */
#define PLACEMENT_KEPT 8    /* of each level, the nearest to an anchor */
#define ANCHORS 4

/* What a pool's regions want to be near to.  Changed under the pool's `opening`. */
struct anchors {
    uintptr_t at[ANCHORS];  /* the most important first */
    unsigned count;         /* at least 1 */
    uint64_t reach;         /* of a direct branch */
    uint64_t random;        /* state of the generator that chooses places; 0: the best is taken */
    uintptr_t *bases;       /* scripted places; NULL: none */
    size_t base_count, base_next;
    char refused[160];      /* why the latest region is not in the best place; "": it is */
};

struct placement {
    struct anchors *anchors;
    const struct frame_rule *claim; /* NULL: any */
    struct gap gaps[ANCHORS][PLACEMENT_LEVELS][PLACEMENT_KEPT]; /* hi 0: none */
};

/* Find the gaps.  0, or the errno of reading the maps; then there are none. */
int placement_open(struct placement *placement, struct anchors *anchors,
                   const struct frame_rule *claim);

/* What has to be in branch range of all of a region. */
enum placement_need {
    PLACEMENT_ANY,   /* nothing */
    PLACEMENT_NEAR,  /* every anchor */
    PLACEMENT_FIRST, /* the first anchor */
};

/* The best place for `size` bytes.  False: there is none where what is needed is in range. */
bool placement_find(struct placement *placement, size_t size, enum placement_need need,
                    uintptr_t *base);

/* Something is there that the list did not show: it is not found again. */
void placement_exclude(struct placement *placement, uintptr_t base, size_t size);

/* The next scripted base that a region of this size and claim can have; false: no more. */
bool placement_next_scripted(struct anchors *anchors, size_t size, const struct frame_rule *claim,
                             uintptr_t *base);

/* From the farthest byte of [lo, hi) to the farthest anchor. */
uint64_t placement_reach(const struct anchors *anchors, uintptr_t lo, uintptr_t hi);

/* Every byte of [lo, hi) is in branch range of every anchor. */
bool placement_is_near(const struct anchors *anchors, uintptr_t lo, uintptr_t hi);

/* The anchors that are not, a bit for each. */
unsigned placement_missed(const struct anchors *anchors, uintptr_t lo, uintptr_t hi);

#endif
