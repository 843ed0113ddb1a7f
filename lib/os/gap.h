/* SPDX-License-Identifier: MIT */
/* Gaps between the mappings of this process. */
#ifndef OS_GAP_H
#define OS_GAP_H

#include <stddef.h>
#include <stdint.h>

/* No user address is as high. */
#if defined __aarch64__
#define GAP_ADDRESS_BITS 48
#else
#define GAP_ADDRESS_BITS 47
#endif

struct gap {
    uintptr_t lo, hi; /* free, and clear of what will want to grow into it */
};

typedef void gap_see(struct gap gap, void *context);

/*
 * One pass over the list of mappings: `see` is called for every gap of at least
 * `size` bytes.  0, or the errno of reading the list.
 */
int gap_scan(size_t size, gap_see *see, void *context);

#endif
