/* SPDX-License-Identifier: MIT */
/*
 * What children of this process may be running of a region.  They share its memfd:
 * spans that were there at the latest fork are neither overwritten nor used again
 * until no child is left.  Spans that are younger are no child's business: those
 * are marked, once there is a child, by a bit for each granule where one starts.
 *
 * Everything is under the region's lock.
 */
#ifndef MEMORY_CHILDREN_H
#define MEMORY_CHILDREN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct region;

struct children {
    bool some;          /* there may be children; else nothing else here has a meaning */
    uint32_t *waiting;  /* starts of spans that were freed, in granules */
    size_t waiting_count, waiting_capacity;
    uint64_t **young;   /* a bitmap for each so many bytes of code; NULL: none is young there */
};

/* In the parent, after a fork: all spans are as old as the child. */
void children_arrive_locked(struct region *region);

/* A span was taken, or made of the tail of one that no child can run. */
void children_note_locked(struct region *region, size_t offset);

/* Whether a child may be running the span that starts at `offset`. */
bool children_may_run_locked(struct region *region, size_t offset);

/* The span goes, but stays as a held extent until children_settle_locked. */
void children_wait_locked(struct region *region, size_t offset);

/* If no child is left: what waited becomes holes.  True: something changed. */
bool children_settle_locked(struct region *region);

void children_close(struct region *region);

#endif
