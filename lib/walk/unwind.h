/* SPDX-License-Identifier: MIT */
/*
 * Regions made known to those of the process's other unwinders that a pool names:
 * libgcc's, which throws C++ exceptions, and libunwind.  They know nothing of each other,
 * and which of them serves exceptions depends on how the host was linked.
 */
#ifndef WALK_UNWIND_H
#define WALK_UNWIND_H

#include "memory/pool.h"

/*
 * begin: what is asked for is there.  region_open and region_close: one registration for a
 * region's life.
 */
extern const struct pool_room walk_room;

#endif
