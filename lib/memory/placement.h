/* SPDX-License-Identifier: MIT */
/*
 * Placement: where a region goes.
 *
 * One pass over the process's mappings finds the gaps; the place with the
 * shortest distance to the farthest anchor wins.  Addresses that once ran code
 * under another frame rule are not used again, because unwinders remember what
 * they learned about an address.
 */
#ifndef MEMORY_PLACEMENT_H
#define MEMORY_PLACEMENT_H

#include "memory/rule.h"
#include "os/gap.h"

#include <stddef.h>
#include <stdint.h>

#define PLACEMENT_GAPS 256
#define PLACEMENT_ALIGN ((uintptr_t) 2 << 20)
#define ANCHORS 4

struct anchors {
    uintptr_t lo, hi;     /* the lowest and the highest anchor */
    uint64_t reach;       /* of a direct branch */
};

struct placement {
    struct anchors anchors;
    const struct frame_rule *rule;
    size_t count;
    struct gap gaps[PLACEMENT_GAPS];
};

/* Find the gaps of at least `size` bytes.  0, or the errno of reading the maps. */
int placement_open(struct placement *placement, const struct anchors *anchors,
                   const struct frame_rule *rule, size_t size);

/*
 * The best place for `size` bytes, and the gap is gone.  False: there is none, or
 * none that is near if `near` is asked for.
 */
bool placement_take(struct placement *placement, size_t size, bool near, uintptr_t *base);

/* Every byte of [lo, hi) is in branch range of every anchor. */
bool placement_is_near(const struct anchors *anchors, uintptr_t lo, uintptr_t hi);

/*
 * Before a rule's code runs at [lo, hi): note it, for the life of the process.
 * False: the range overlaps another rule's (two threads chose at once), or there
 * is no memory for the note.
 */
bool placement_claim(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule);

/* Around fork. */
void placement_lock(void);
void placement_unlock(void);

#endif
