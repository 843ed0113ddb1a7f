/* SPDX-License-Identifier: MIT */
/* Gaps between the mappings of this process. */
#ifndef OS_GAP_H
#define OS_GAP_H

#include <stddef.h>
#include <stdint.h>

struct gap {
    uintptr_t lo, hi; /* free, and clear of what will want to grow into it */
};

/*
 * One pass over /proc/self/maps: up to `capacity` gaps of at least `size` bytes,
 * those nearest to `center` if there are more.  The number of gaps; 0 with the
 * errno in *number if the file cannot be read.
 */
size_t gap_scan(struct gap *gaps, size_t capacity, size_t size, uintptr_t center, int *number);

#endif
