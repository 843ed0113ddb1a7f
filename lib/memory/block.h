/* SPDX-License-Identifier: MIT */
/*
 * Blocks: the records of the extents that start in one bucket, in ascending order,
 * with what finds them.  A block is named by a reference, the number of its word 0
 * in a store that grows in segments and keeps them, so that a reader may follow an
 * outdated reference: it reads nonsense, never unmapped memory.
 *
 *      word -1-r       word of record r
 *      word 0          end of the last record's extent | records << 32 | capacity << 48
 *      up to 8 records:    word 1 their keys, a byte each, ascending, 0xff behind
 *      more:               words 1 to 4 a bit for each key
 *      then            info of record r, 32 bits each
 *
 * A key is the unit at which an extent starts, counted from the bucket's first.
 */
#ifndef MEMORY_BLOCK_H
#define MEMORY_BLOCK_H

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

#define BLOCK_SHORT 8u    /* records of a block with bytes for keys */
#define BLOCK_KEYS 256u   /* units of a bucket */
#define BLOCK_CLASSES 26u
#define BLOCK_SEGMENTS 128u
#define BLOCK_SEGMENT_SHIFT 9 /* log2 of the words of the first segments */

typedef _Atomic uint64_t block_word;

struct blocks {
    _Atomic(block_word *) segments[BLOCK_SEGMENTS];
    unsigned segment_count;
    uint32_t fresh, fresh_end;     /* words that no block ever had */
    size_t words;                  /* in blocks, used or not */
    uint32_t free[BLOCK_CLASSES];  /* lists of unused blocks, through word 0; 0: none */
    uint32_t scratch;              /* a block for a moment, as large as any in use */
    unsigned scratch_capacity;
};

/* Segments: 16 of 512 words, then 8 for each doubling, so that little is ahead of need. */
static inline block_word *block_at(const struct blocks *blocks, uint32_t reference)
{
    unsigned first = 1u << (BLOCK_SEGMENT_SHIFT + 3);
    unsigned doubling =
        (31u ^ (unsigned) __builtin_clz(reference | first)) - (BLOCK_SEGMENT_SHIFT + 3);
    unsigned shift = BLOCK_SEGMENT_SHIFT + doubling;
    block_word *segment = atomic_load_explicit(
        &blocks->segments[8 * doubling + (reference >> shift)], memory_order_acquire);
    return segment + (reference & ((1u << shift) - 1));
}

static inline uint64_t block_head(const block_word *block)
{
    return atomic_load_explicit(block, memory_order_acquire);
}

static inline unsigned head_count(uint64_t head) { return head >> 32 & 0xffff; }
static inline unsigned head_capacity(uint64_t head) { return (unsigned) (head >> 48); }
static inline uint32_t head_end(uint64_t head) { return (uint32_t) head; }

static inline uint64_t head_pack(uint32_t end, unsigned count, unsigned capacity)
{
    return end | (uint64_t) count << 32 | (uint64_t) capacity << 48;
}

static inline block_word *block_record(const block_word *block, unsigned rank)
{
    return (block_word *) block - 1 - rank;
}

static inline _Atomic uint32_t *block_info(const block_word *block, unsigned count, unsigned rank)
{
    return (_Atomic uint32_t *) (block + (count <= BLOCK_SHORT ? 2 : 5)) + rank;
}

/* ---- searching; a reader's `count` may be outdated, and the answer nonsense ------- */

#define BLOCK_LANES 0x0001000100010001u

static inline uint64_t block_load(const block_word *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline unsigned block_bits(uint64_t bits)
{
#if defined __POPCNT__ || !defined __x86_64__
    return (unsigned) __builtin_popcountll(bits);
#else
    bits -= bits >> 1 & 0x5555555555555555u;
    bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
    return (unsigned) (((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
#endif
}

/*
 * Of up to 8 keys, those that are at most `key`.  In lanes of 16 bits: 0x100 + key - byte
 * has bit 8 if the byte is not larger.
 */
static inline unsigned block_short_rank(uint64_t keys, unsigned count, unsigned key)
{
    uint64_t limit = BLOCK_LANES * (0x100 + key);
    uint64_t even = (limit - (keys & BLOCK_LANES * 0xff)) >> 8 & BLOCK_LANES;
    uint64_t odd = (limit - (keys >> 8 & BLOCK_LANES * 0xff)) >> 8 & BLOCK_LANES;
    unsigned rank = (unsigned) ((even + odd) * BLOCK_LANES >> 48);
    return rank < count ? rank : count;
}

/* The rank of the record with this key, counted from 0; `count` or more: there is none. */
static inline unsigned block_find(const block_word *block, unsigned count, unsigned key)
{
    if (count <= BLOCK_SHORT) {
        /* The lowest byte that is zero, of which borrows come from nowhere. */
        uint64_t same = block_load(block + 1) ^ key * 0x0101010101010101u;
        uint64_t zero = (same - 0x0101010101010101u) & ~same & 0x8080808080808080u;
        return zero == 0 ? count : (unsigned) __builtin_ctzll(zero) / 8;
    }
    uint64_t bits = block_load(block + 1 + key / 64) >> key % 64;
    unsigned rank = block_bits(block_load(block + 1 + key / 64) & ((1ull << key % 64) - 1));
    for (unsigned i = 0; i < key / 64; i++)
        rank += block_bits(block_load(block + 1 + i));
    return (bits & 1) != 0 ? rank : count;
}

/* The records whose keys are at most `key`, of `count`. */
static inline unsigned block_rank(const block_word *block, unsigned count, unsigned key)
{
    if (count <= BLOCK_SHORT)
        return block_short_rank(block_load(block + 1), count, key);
    unsigned rank = block_bits(block_load(block + 1 + key / 64) & UINT64_MAX >> (63 - key % 64));
    for (unsigned i = 0; i < key / 64; i++)
        rank += block_bits(block_load(block + 1 + i));
    return rank;
}

/* The highest key up to `key`; `rank` is not 0, and what block_rank says of it. */
static inline unsigned block_key_upto(const block_word *block, unsigned count, unsigned rank,
                                      unsigned key)
{
    if (count <= BLOCK_SHORT)
        return block_load(block + 1) >> 8 * ((rank - 1) & 7) & 0xff;
    unsigned index = key / 64;
    uint64_t bits = block_load(block + 1 + index) & UINT64_MAX >> (63 - key % 64);
    while (bits == 0 && index > 0)
        bits = block_load(block + 1 + --index);
    return index * 64 + 63 - (unsigned) __builtin_clzll(bits | 1);
}

/* The lowest key from `key` on, which is the one of this rank; or `otherwise`. */
static inline unsigned block_key_from(const block_word *block, unsigned count, unsigned rank,
                                      unsigned key, unsigned otherwise)
{
    if (rank >= count || key >= BLOCK_KEYS)
        return otherwise;
    if (count <= BLOCK_SHORT)
        return block_load(block + 1) >> 8 * rank & 0xff;
    unsigned index = key / 64;
    uint64_t bits = block_load(block + 1 + index) & UINT64_MAX << key % 64;
    while (bits == 0 && index < 3)
        bits = block_load(block + 1 + ++index);
    return bits == 0 ? otherwise : index * 64 + (unsigned) __builtin_ctzll(bits);
}

/* ---- the store -------------------------------------------------------- */

/* Words that a block of so many records takes. */
unsigned block_words(unsigned records);

/*
 * Make sure that a block of each of these numbers of records can be had without
 * memory; 0 stands for none.  False: no memory.
 */
bool blocks_reserve(struct blocks *blocks, unsigned one, unsigned other,
                    const struct span_memory *memory);

/*
 * A block of at least so many records, with its capacity in its word 0; `spare`:
 * only if there is an unused one, else 0.
 */
uint32_t blocks_take(struct blocks *blocks, unsigned records, bool spare);
void blocks_give(struct blocks *blocks, uint32_t reference);

/* NULL, or a sentence; *words receives those that are in unused blocks. */
const char *blocks_verify(const struct blocks *blocks, size_t *words);
void blocks_fini(struct blocks *blocks, const struct span_memory *memory);

#endif
