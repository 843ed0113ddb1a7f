/* SPDX-License-Identifier: MIT */
/*
 * The code map: which region an address belongs to, for the whole process.
 * region_at, declared in region.h, reads it.
 */
#ifndef MEMORY_CODE_MAP_H
#define MEMORY_CODE_MAP_H

#include "memory/region.h"

#define CODE_MAP_SHIFT 21 /* a slot stands for 2 MiB: regions begin and end at multiples */
#define CODE_MAP_SLOT ((uintptr_t) 1 << CODE_MAP_SHIFT)

/* Memory for the region's slots; false: there is none.  Nothing is visible yet. */
bool code_map_prepare(const struct region *region);

/* How many of the slots that stand for the region's addresses hold `value`. */
size_t code_map_count(const struct region *region, const struct region *value);

/* Make it visible, after code_map_prepare; or invisible again. */
void code_map_publish(struct region *region);
void code_map_retract(const struct region *region);

#endif
