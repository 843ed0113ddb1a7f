/* SPDX-License-Identifier: MIT */
/*
 * Memory behind the pages of a region's executable view.  Locks: back_lock, taken
 * after the region's lock.
 */
#ifndef MEMORY_BACKING_H
#define MEMORY_BACKING_H

#include "memory/region.h"

/* The bookkeeping of a region that is mapped.  False: no memory; backing_close all the same. */
bool backing_open(struct region *region);
void backing_close(struct region *region);

/*
 * Memory behind [exec, exec + size), traps where there was none.  In FLIP mode the
 * pages must be writable.  0, or an errno.
 */
int backing_ensure(struct region *region, uintptr_t exec, size_t size);

/*
 * FLIP mode, whole pages: their contents are given back to the system, without write
 * permission being needed.  False: the kernel refused, and everything is as it was.
 */
bool backing_discard(struct region *region, uintptr_t exec, size_t size);

/* FLIP mode, whole pages: what is in them does not matter; who writes there next fills in traps. */
void backing_forget(struct region *region, uintptr_t exec, size_t size);

void backing_fill_traps(uint8_t *bytes, size_t size);

/* NULL, or a sentence about the first invariant that is broken. */
const char *backing_verify_locked(struct region *region);

#endif
