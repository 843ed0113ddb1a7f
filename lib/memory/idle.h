/* SPDX-License-Identifier: MIT */
/*
 * Idle memory of a pool: behind pages without a live span.  When there is more than
 * the host wants to keep, half of what it wants is kept, and the rest goes back to
 * the system in one go: a program that frees and allocates as much again asks the
 * kernel for nothing.  Regions stay mapped until the pool is destroyed, because
 * readers of the code map do not say when they are done.
 */
#ifndef MEMORY_IDLE_H
#define MEMORY_IDLE_H

#include <patchpoint/pool.h>

#include <stdatomic.h>
#include <stdbool.h>

struct idle {
    size_t keep;             /* constant: bytes that may be idle; SIZE_MAX: all */
    bool relative;           /* constant: an eighth of what is committed may be, too */
    atomic_size_t limit;     /* of `bytes`, where trimming begins */
    char apart[64];          /* what changes often is in no line with what everybody reads */
    atomic_size_t bytes;     /* that are idle */
    char apart_behind[64];
    atomic_bool trimming;    /* some thread is at it */
    atomic_size_t decommits; /* number of times that pages went back */
};

/*
 * `keep` as in the options: 0 is a sixteenth of a region, or an eighth of what is
 * committed if that is more.
 */
void idle_init(struct idle *idle, size_t keep, size_t region_bytes);

/* So many bytes more are idle, or fewer.  May be called with any lock held. */
void pool_add_idle(pp_pool *pool, size_t bytes);

/* After something was freed.  No region's lock is held. */
void pool_trim(pp_pool *pool);

/* In a child, where all regions are inherited. */
void idle_inherit(struct idle *idle);

#endif
