/* SPDX-License-Identifier: MIT */
/*
 * Regions made known to the process's other unwinders: libgcc's, which throws
 * C++ exceptions, and libunwind.  They know nothing of each other, and which of
 * them serves exceptions depends on how the host was linked, so each region is
 * registered with both, as far as the process has them.
 */
#ifndef WALK_UNWIND_H
#define WALK_UNWIND_H

#include "memory/pool.h"

/* region_open and region_close: one registration for a region's whole life. */
extern const struct pool_room walk_room;

#endif
