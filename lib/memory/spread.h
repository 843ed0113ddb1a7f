/* SPDX-License-Identifier: MIT */
/*
 * Threads that meet in a region are led apart.
 *
 * A thread that finds a region's lock taken goes on to another region of which
 * unwinders are told the same, and begins there the next time.  Where no other thread begins it stays,
 * and waits for the lock: who holds it only frees something there, and two that gave way
 * to each other would change places for ever.  If that happens often and all of them
 * are taken, a region is opened for it; there are never more such regions than
 * processors, and none if it cannot be near.  Programs whose threads do not meet
 * never notice.
 */
#ifndef MEMORY_SPREAD_H
#define MEMORY_SPREAD_H

#include "memory/region.h"

#define SPREAD_BITS 4
#define SPREAD_HOMES (1 << SPREAD_BITS)

struct spread {
    _Atomic(struct region *) homes[SPREAD_HOMES]; /* by thread: where it begins; NULL: anywhere */
    atomic_uint meetings;    /* since the last look */
    atomic_size_t taken;     /* spans that had been taken at that time */
    atomic_uint processors;  /* online; 0: not asked yet */
    atomic_bool over;        /* no more regions can be near */
};

/* Where the calling thread begins, if that is told this rule; or NULL. */
struct region *spread_home(struct spread *spread, const struct frame_rule *told);

/* Whether no other thread begins there. */
bool spread_is_alone(struct spread *spread, const struct region *home);
void spread_move(struct spread *spread, struct region *home);

/*
 * The calling thread met others in all of `count` regions that have room, in which
 * `taken` spans were ever taken.  True: it should have one more.
 */
bool spread_wanted(struct spread *spread, unsigned count, size_t taken);

/* It could not be had: no more are tried. */
void spread_end(struct spread *spread);

#endif
