/* SPDX-License-Identifier: MIT */
/*
 * The extents of a range: where each begins and ends, and its record.  A bucket is
 * 256 units; it has a slot, which leads to the block with the records of the
 * extents that start in it, and tells how many buckets before it the extent
 * began that reaches into it:
 *
 *      slot    cover:18 | block:27 | version:19
 *
 * A record is two words, of which the second says what the extent is:
 *
 *      info    a live span: generation:30 | 0:2; else 0 in the upper 30 bits
 *      word    a live span: its owner, and its slack in bits that an owner's address
 *              does not have: 4 at the bottom, 48 to 55 and 60 to 63 (those between
 *              are for allocators that tag addresses);
 *              a hole: what hole.c makes of it
 *
 * `slack` is the unused bytes of a live span's last unit.  `cover` is right in all
 * buckets into which a live span reaches, and in the last one of any extent.
 * Elsewhere it may be outdated, and leads to an extent that ends before.
 *
 * Each bucket counts the spans that ever began in it.
 *
 * One thread at a time changes extents; any thread may call extents_look.
 */
#ifndef MEMORY_EXTENT_H
#define MEMORY_EXTENT_H

#include "memory/block.h"

#define EXTENT_BUCKET_SHIFT 8
#define EXTENT_CHUNK_SHIFT 7
#define EXTENT_CHUNK (1u << EXTENT_CHUNK_SHIFT)

#define INFO_HOLE 0u
#define INFO_HELD 1u /* neither live nor a hole */

struct extent_chunk {
    _Atomic uint64_t slots[EXTENT_CHUNK];
    uint64_t filled[EXTENT_CHUNK / 64]; /* a bit: the slot has a block; the writer's alone */
    uint32_t births[EXTENT_CHUNK];      /* spans that ever began in the bucket; the writer's alone */
};

struct extents {
    uint32_t units;                          /* length of the range */
    uint32_t chunk_count;
    _Atomic(struct extent_chunk *) *chunks;  /* appear when they are needed */
    struct blocks blocks;
};

/* One extent, and where its record is until the next change. */
struct extent {
    uint32_t start, end;                     /* units */
    unsigned rank, count;
    block_word *block;
};

static inline uint32_t unit_bucket(uint32_t unit) { return unit >> EXTENT_BUCKET_SHIFT; }

static inline uint32_t info_pack(uint32_t generation) { return generation << 2; }
static inline bool info_is_live(uint32_t info) { return info >> 2 != 0; }
static inline uint32_t info_generation(uint32_t info) { return info >> 2; }

#define WORD_OWNER UINT64_C(0x0f00fffffffffff0)

static inline uint64_t word_pack(const void *owner, uint32_t slack)
{
    uint64_t low = slack & 0xf, middle = slack & 0xff0, high = slack & 0xf000;
    return (uint64_t) (uintptr_t) owner | low | middle << 44 | high << 48;
}

static inline void *word_owner(uint64_t word) { return (void *) (uintptr_t) (word & WORD_OWNER); }

static inline uint32_t word_slack(uint64_t word)
{
    return (uint32_t) ((word & 0xf) | (word >> 44 & 0xff0) | (word >> 48 & 0xf000));
}

static inline uint32_t extent_info(const struct extent *at)
{
    return atomic_load_explicit(block_info(at->block, at->count, at->rank), memory_order_relaxed);
}

static inline uint64_t extent_word(const struct extent *at)
{
    return atomic_load_explicit(block_record(at->block, at->rank), memory_order_relaxed);
}

static inline void extent_set_info(const struct extent *at, uint32_t info)
{
    atomic_store_explicit(block_info(at->block, at->count, at->rank), info, memory_order_release);
}

static inline void extent_set_word(const struct extent *at, uint64_t word)
{
    atomic_store_explicit(block_record(at->block, at->rank), word, memory_order_release);
}

static inline bool extent_is_last(const struct extent *at) { return at->rank + 1 == at->count; }
static inline uint32_t extent_bucket(const struct extent *at) { return unit_bucket(at->start); }

/* A live extent, as a reader found it. */
struct extent_view {
    uint32_t start, end, info;
    uint64_t word;
};

/* The live extent that holds the unit.  Lock-free, async-signal-safe. */
bool extents_look(const struct extents *extents, uint32_t unit, struct extent_view *view);

/* For the writer.  An extent that starts at this unit; false: none does. */
bool extents_find(const struct extents *extents, uint32_t unit, struct extent *at);

/* The neighbours of an extent; false: there is none. */
bool extents_next(const struct extents *extents, const struct extent *at, struct extent *next);
bool extents_previous(const struct extents *extents, const struct extent *at,
                      struct extent *previous);

/* The word of the record of the extent that starts at this unit; one does. */
block_word *extents_word(const struct extents *extents, uint32_t unit);

/* The extent that holds the unit, which is in the range. */
void extents_holding(const struct extents *extents, uint32_t unit, struct extent *at);

/* The first extent that starts at or behind the unit; false: none does. */
bool extents_from(const struct extents *extents, uint32_t unit, struct extent *at);

/* How many spans ever began in this bucket; NULL: none did. */
static inline uint32_t *extents_births(const struct extents *extents, uint32_t bucket)
{
    struct extent_chunk *chunk = atomic_load_explicit(
        &extents->chunks[bucket >> EXTENT_CHUNK_SHIFT], memory_order_relaxed);
    return chunk == NULL ? NULL : &chunk->births[bucket & (EXTENT_CHUNK - 1)];
}

/* ---- changes; what they need was prepared ------------------------------- */

/*
 * Slots for the buckets that begin with those of these units, and blocks so that
 * `one_more` and `other_more` records can be added in the buckets of `one` and
 * `other`, different ones.  False: no memory.
 */
bool extents_prepare_slots(struct extents *extents, uint32_t first, uint32_t last,
                           const struct span_memory *memory);
bool extents_prepare(struct extents *extents, uint32_t one, unsigned one_more, uint32_t other,
                     unsigned other_more, const struct span_memory *memory);

struct extent_record {
    uint32_t start, info;
    uint64_t word;
};

/*
 * In a bucket, these `added` records instead of the `dropped` ones from `rank` on, in
 * one step for readers.  `end` is where the last extent ends, if it is another
 * than before.  Dropping needs no preparation.
 */
void extents_replace(struct extents *extents, uint32_t bucket, unsigned rank, unsigned dropped,
                     const struct extent_record *records, unsigned added, uint32_t end);

/* An extent that is not live, and the last of its bucket: it ends there. */
void extent_set_end(const struct extent *at, uint32_t end);

/* The extent that starts at `start` reaches into these buckets; none if last < first. */
void extents_cover(struct extents *extents, uint32_t start, uint32_t first, uint32_t last);

bool extents_init(struct extents *extents, uint32_t units, const struct span_memory *memory);
void extents_fini(struct extents *extents, const struct span_memory *memory);

/* NULL, or a sentence about blocks, slots or covers that are wrong. */
const char *extents_verify(const struct extents *extents);

#endif
