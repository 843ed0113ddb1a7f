/* SPDX-License-Identifier: MIT */
/*
 * Where extents start: one bit for each unit of a range, in chunks that appear
 * with their first bit, and two levels of summary above, so that the nearest
 * start on either side of a unit is a few words away.
 *
 * One thread at a time sets and clears bits; any thread may search meanwhile.  A
 * bit that is not being changed is found; a summary bit may be seen a moment
 * longer than what it stands for, and then the search goes on.
 */
#ifndef MEMORY_STARTS_H
#define MEMORY_STARTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define STARTS_CHUNK_SHIFT 14
#define STARTS_CHUNK_UNITS (1u << STARTS_CHUNK_SHIFT)
#define STARTS_CHUNK_WORDS (STARTS_CHUNK_UNITS / 64)
#define STARTS_CHUNKS (1u << 12) /* at most */
#define STARTS_NONE UINT32_MAX

/* Chains of records hang on the same chunks; span.c keeps them. */
#define STARTS_BUCKET_SHIFT 7
#define STARTS_CHUNK_BUCKETS (STARTS_CHUNK_UNITS >> STARTS_BUCKET_SHIFT)

struct starts_chunk {
    _Atomic uint64_t starts[STARTS_CHUNK_WORDS];
    _Atomic uint64_t filled[STARTS_CHUNK_WORDS / 64]; /* a bit: the word of starts is not 0 */
    _Atomic uint32_t heads[STARTS_CHUNK_BUCKETS];
};

struct starts {
    uint32_t units;                            /* length of the range */
    uint32_t chunk_count;
    _Atomic(struct starts_chunk *) *chunks;    /* chunk_count of them; NULL: no bit there yet */
    _Atomic uint64_t filled[STARTS_CHUNKS / 64]; /* a bit: some bit of the chunk is set */
};

static inline struct starts_chunk *starts_chunk(const struct starts *starts, uint32_t unit)
{
    return atomic_load_explicit(&starts->chunks[unit >> STARTS_CHUNK_SHIFT], memory_order_acquire);
}

/* The chunks of these units are there. */
void starts_set(struct starts *starts, uint32_t unit);
void starts_clear(struct starts *starts, uint32_t unit);
bool starts_test(const struct starts *starts, uint32_t unit);

/* The nearest start at or below `unit`, which is in the range; or STARTS_NONE. */
uint32_t starts_before(const struct starts *starts, uint32_t unit);

/* The nearest start at or above `unit`; or the end of the range. */
uint32_t starts_after(const struct starts *starts, uint32_t unit);

/* NULL, or a sentence about what is wrong with the summaries. */
const char *starts_verify(const struct starts *starts);

#endif
