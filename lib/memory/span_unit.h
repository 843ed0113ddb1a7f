/* SPDX-License-Identifier: MIT */
/*
 * What the files of a span space share: units and bytes, kinds of extents, and
 * buckets that are closed because they have given out their last generation.
 */
#ifndef MEMORY_SPAN_UNIT_H
#define MEMORY_SPAN_UNIT_H

#include "memory/span.h"

static inline size_t bytes_of(const struct span_space *space, uint32_t units)
{
    return (size_t) units << space->shift;
}

static inline uint32_t units_of(const struct span_space *space, size_t bytes)
{
    return (uint32_t) ((bytes + bytes_of(space, 1) - 1) >> space->shift);
}

/* The highest generation in a bucket so far, or the floor. */
static inline uint32_t latest_in(const struct span_space *space, uint32_t bucket)
{
    const uint32_t *births = extents_births(&space->extents, bucket);
    return space->floor + (births == NULL ? 0 : *births);
}

static inline bool is_closed(const struct span_space *space, uint32_t bucket)
{
    return space->closed != 0 && latest_in(space, bucket) == SPAN_GENERATION_MAX;
}

static inline uint32_t round_up(uint32_t value, uint32_t align)
{
    return (value + align - 1) & ~(align - 1);
}

/* The first unit from `start` on, aligned, where a span may begin; maybe behind the range. */
static inline uint32_t open_from(const struct span_space *space, uint32_t start, uint32_t align)
{
    start = round_up(start, align);
    while (start < space->extents.units && is_closed(space, unit_bucket(start)))
        start = round_up((unit_bucket(start) + 1) << EXTENT_BUCKET_SHIFT, align);
    return start;
}

/* No span can begin in the hole any more. */
static inline bool is_used_up(const struct span_space *space, uint32_t start, uint32_t end)
{
    return space->closed != 0 && open_from(space, start, 1) >= end;
}

static inline bool is_hole(const struct extent *at) { return extent_info(at) == INFO_HOLE; }

static inline uint32_t slack_of(const struct extent *at)
{
    return word_slack(extent_word(at));
}

#endif
