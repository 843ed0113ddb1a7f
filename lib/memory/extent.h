/* SPDX-License-Identifier: MIT */
/*
 * The records of extents: two atomic words each, kept in blocks that appear when
 * they are needed and stay, so that an index once seen can always be followed.
 *
 *      place   offset:30 | next:22 | generation:12
 *      body    a live span: its owner, and the other 8 bits of the generation in
 *              bits 0-3 and 52-55; a hole: its neighbours in its bin
 *
 * `offset` is the start of the extent in bytes; its low bits, which would be
 * zero, hold the unused bytes of a live span's last unit.  `next` continues the
 * chain of records.  The 12 bits of the generation are zero if and only if the
 * extent is not a live span.
 */
#ifndef MEMORY_EXTENT_H
#define MEMORY_EXTENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where the bookkeeping lives.  `alloc` returns zeroed memory, or NULL. */
struct span_memory {
    void *(*alloc)(void *context, size_t size);
    void (*free)(void *context, void *memory, size_t size);
    void *context;
};

struct extent {
    _Atomic uint64_t place, body;
};

/* An index: 6 bits of table, 7 bits of block, 9 bits in the block.  0 is no extent. */
#define EXTENT_INDEX_BITS 22
#define EXTENT_BLOCK_SHIFT 9
#define EXTENT_TABLE_SHIFT 16
#define EXTENT_BLOCK (1u << EXTENT_BLOCK_SHIFT)
#define EXTENT_TABLE (1u << (EXTENT_TABLE_SHIFT - EXTENT_BLOCK_SHIFT))
#define EXTENT_TABLES (1u << (EXTENT_INDEX_BITS - EXTENT_TABLE_SHIFT))
#define EXTENT_INDEX_MAX ((1u << EXTENT_INDEX_BITS) - 1)

struct extent_table {
    _Atomic(struct extent *) blocks[EXTENT_TABLE];
};

struct extents {
    _Atomic(struct extent_table *) tables[EXTENT_TABLES];
    uint32_t count;  /* indices that ever were in use, and 0 */
    uint32_t spare;  /* list of those that are not in use, through `body` */
    uint32_t spares; /* its length */
};

#define OFFSET_BITS 30
#define OFFSET_MASK ((1u << OFFSET_BITS) - 1)
#define NO_OFFSET OFFSET_MASK /* in a record that is not in use */
#define GENERATION_SHIFT (OFFSET_BITS + EXTENT_INDEX_BITS)
#define GENERATION_LOW 0xfffu
#define BODY_HELD UINT64_MAX /* of an extent that is neither live nor a hole */
#define BODY_GENERATION (0xfull << 52 | 0xf)

/* ---- packing ---------------------------------------------------------- */

static inline uint64_t place_pack(uint32_t offset, uint32_t next, uint32_t generation)
{
    return (uint64_t) offset | (uint64_t) next << OFFSET_BITS |
           (uint64_t) (generation & GENERATION_LOW) << GENERATION_SHIFT;
}

static inline uint32_t place_offset(uint64_t place) { return place & OFFSET_MASK; }
static inline uint32_t place_next(uint64_t place)
{
    return place >> OFFSET_BITS & EXTENT_INDEX_MAX;
}

static inline uint32_t place_generation(uint64_t place) { return place >> GENERATION_SHIFT; }
static inline bool place_is_live(uint64_t place) { return place_generation(place) != 0; }

static inline uint64_t body_pack(const void *owner, uint32_t generation)
{
    uint64_t high = generation >> 12;
    return ((uint64_t) (uintptr_t) owner & ~BODY_GENERATION) | (high & 0xf) | (high >> 4) << 52;
}

static inline void *body_owner(uint64_t body)
{
    return (void *) (uintptr_t) (body & ~BODY_GENERATION);
}

static inline uint32_t generation_from(uint64_t place, uint64_t body)
{
    return place_generation(place) | (uint32_t) ((body & 0xf) | (body >> 52 & 0xf) << 4) << 12;
}

static inline uint64_t links_pack(uint32_t previous, uint32_t next)
{
    return (uint64_t) previous << 32 | next;
}

static inline uint32_t links_previous(uint64_t body) { return body >> 32; }
static inline uint32_t links_next(uint64_t body) { return (uint32_t) body; }

/* ---- records ---------------------------------------------------------- */

static inline struct extent *extent_at(const struct extents *extents, uint32_t index)
{
    struct extent_table *table =
        atomic_load_explicit(&extents->tables[index >> EXTENT_TABLE_SHIFT], memory_order_acquire);
    struct extent *block = atomic_load_explicit(
        &table->blocks[index >> EXTENT_BLOCK_SHIFT & (EXTENT_TABLE - 1)], memory_order_acquire);
    return &block[index & (EXTENT_BLOCK - 1)];
}

static inline uint64_t place_get(const struct extents *extents, uint32_t index)
{
    return atomic_load_explicit(&extent_at(extents, index)->place, memory_order_relaxed);
}

static inline void place_set(struct extents *extents, uint32_t index, uint64_t place)
{
    atomic_store_explicit(&extent_at(extents, index)->place, place, memory_order_release);
}

static inline uint64_t body_get(const struct extents *extents, uint32_t index)
{
    return atomic_load_explicit(&extent_at(extents, index)->body, memory_order_relaxed);
}

static inline void body_set(struct extents *extents, uint32_t index, uint64_t body)
{
    atomic_store_explicit(&extent_at(extents, index)->body, body, memory_order_release);
}

/* Make sure that the next `count` extents_take succeed.  False: no memory, or too many. */
bool extents_prepare(struct extents *extents, unsigned count, const struct span_memory *memory);
uint32_t extents_take(struct extents *extents);
void extents_give(struct extents *extents, uint32_t index);

void extents_init(struct extents *extents);
void extents_fini(struct extents *extents, const struct span_memory *memory);

#endif
