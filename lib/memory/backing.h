/* SPDX-License-Identifier: MIT */
/*
 * Memory behind the pages of a region's executable view.
 *
 * A page is idle if it is backed and lies wholly in a hole.  Locks: back_lock is held
 * while pages are asked for, filled and given back, which takes long; the region's
 * lock, inside it, only while that becomes known.
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
bool backing_discard_locked(struct region *region, uintptr_t exec, size_t size);

/* FLIP mode, whole pages: what is in them does not matter; who writes there next fills in traps. */
void backing_forget_locked(struct region *region, uintptr_t exec, size_t size);

void backing_fill_traps(uint8_t *bytes, size_t size);

/*
 * Idle pages are counted: when [offset, offset + size) is taken from a hole, which is
 * given, and after it has become part of one.
 */
void backing_take_locked(struct region *region, size_t offset, size_t size, size_t hole,
                         size_t hole_size);
void backing_give_locked(struct region *region, size_t offset, size_t size);

/* Traps over [exec, exec + size), which nobody runs, where there is memory behind it. */
void backing_zap(struct region *region, uintptr_t exec, size_t size);

/* NULL, or a sentence about the first invariant that is broken.  Both locks are held. */
const char *backing_verify_locked(struct region *region);

#endif
