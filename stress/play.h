/* SPDX-License-Identifier: MIT */
/*
 * Playing a recording in one setting: a pool, and one or more players that
 * link, run and free the recorded traces in it.
 */
#ifndef STRESS_PLAY_H
#define STRESS_PLAY_H

#include "stress/pages.h"
#include "stress/perform.h"
#include "stress/samples.h"
#include "stress/tally.h"

#include <stdatomic.h>

/* What is timed: link and publish, and free, in the pool and in pages of its own. */
enum operation { POOL_LINK, POOL_FREE, PAGE_LINK, PAGE_FREE, OPERATIONS };

/* What came out of one recording in one setting, over all passes. */
struct outcome {
    /* In memory that is touched for the first time; [1]: once all of it has been used. */
    struct samples times[2][OPERATIONS];
    uint64_t sites;                   /* performed in the pool's traces */

    /* When the most bytes of code and data were alive. */
    uint64_t live;                    /* these bytes, exactly */
    uint64_t page_bytes;              /* a page per trace, with trampolines as recorded */
    uint64_t symbol_bytes;            /* 16 for each symbol of each trace */
    uint64_t trampolines, literals;   /* in the pool */
    uint64_t trampoline_bytes;        /* code and literals of both */

    uint64_t resident;                /* most at any time */
    uint64_t reserved, metadata;      /* at the end */
    unsigned regions, near_regions;
    const char *wx;                   /* mode */
};

/* Play a recording once.  Failures are reported; `passes` counts what was played before. */
void play(struct stress *stress, const struct recording *recording,
          const struct setting *setting, uint64_t pass, struct outcome *outcome);

#endif
