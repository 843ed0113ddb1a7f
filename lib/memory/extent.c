/* SPDX-License-Identifier: MIT */
/*
 * Extents.  See extent.h for the structure; this is how it can be read while it
 * changes.
 *
 * What a block says of where extents start does not change while a slot leads to
 * it: another block is filled and the slot stored with release order, paired with the
 * acquire load of a reader; each such store has another version.  The old block is
 * unused then, and may be filled for another bucket.  That begins with a release
 * fence, so a reader that saw anything of it sees, behind its acquire fence, that its
 * slot has changed, and begins again.  Where no unused block fits, the old
 * contents go to a scratch block, the slot follows, the block is changed, the slot goes
 * back: the same two steps.
 *
 * Two things change in place.  A record becomes live or ceases to be:
 *      to live         end, word, then info with a generation, release
 *      from live       info without one, then word, each with release order
 *      reader          info, end, word, each acquire; info again: equal, or again
 * A reader that saw the new info sees the end and word that belong to it; one that saw
 * anything later sees other info the second time.  And the word of a live
 * record, its owner and slack, may change at any time.
 *
 * A reader begins again only because the writer got on: a handler that interrupted the
 * writer itself finds the slot as it is, and what it leads to complete.  To take one
 * state for another a reader must sleep between two loads while its bucket changes a
 * multiple of 2^19 times and ends in the same block.
 */
#include <config.h>

#include "memory/extent.h"

#include <string.h>

#define COVER_SHIFT 46
#define BLOCK_SHIFT 19
#define VERSION_MASK ((1u << BLOCK_SHIFT) - 1)
#define BLOCK_LIMIT (1u << (COVER_SHIFT - BLOCK_SHIFT))

static inline uint32_t slot_cover(uint64_t slot) { return (uint32_t) (slot >> COVER_SHIFT); }
static inline uint32_t slot_block(uint64_t slot)
{
    return slot >> BLOCK_SHIFT & (BLOCK_LIMIT - 1);
}

static inline uint64_t slot_pack(uint32_t cover, uint32_t block, uint64_t before)
{
    return (uint64_t) cover << COVER_SHIFT | (uint64_t) block << BLOCK_SHIFT |
           ((before + 1) & VERSION_MASK);
}

static inline _Atomic uint64_t *slot_at(const struct extents *extents, uint32_t bucket)
{
    struct extent_chunk *chunk = atomic_load_explicit(
        &extents->chunks[bucket >> EXTENT_CHUNK_SHIFT], memory_order_acquire);
    return chunk == NULL ? NULL : &chunk->slots[bucket & (EXTENT_CHUNK - 1)];
}

static inline uint64_t slot_of(const struct extents *extents, uint32_t bucket)
{
    const _Atomic uint64_t *slot = slot_at(extents, bucket);
    return slot == NULL ? 0 : atomic_load_explicit(slot, memory_order_relaxed);
}

static inline block_word *block_of(const struct extents *extents, uint64_t slot)
{
    return slot_block(slot) == 0 ? NULL : block_at(&extents->blocks, slot_block(slot));
}

static inline unsigned count_of(const block_word *block)
{
    return block == NULL ? 0 : head_count(block_head(block));
}

/* ---- reading ---------------------------------------------------------- */

enum look { LOOK_FOUND, LOOK_NOTHING, LOOK_AGAIN };

/* What a reader loaded, in this order, is still so. */
static inline bool slot_holds(const _Atomic uint64_t *slot, uint64_t value)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(slot, memory_order_relaxed) == value;
}

/* Where in a block a key lies. */
struct hit {
    const block_word *block;
    unsigned count, rank; /* rank: 1 is the first record, 0 none */
    unsigned start, next; /* keys of this record and the next, or BLOCK_KEYS */
};

static __attribute__((noinline)) void look_long(struct hit *hit, unsigned key)
{
    hit->rank = block_rank(hit->block, hit->count, key);
    if (hit->rank == 0)
        return;
    hit->start = block_key_upto(hit->block, hit->count, hit->rank, key);
    hit->next = block_key_from(hit->block, hit->count, hit->rank, key + 1, BLOCK_KEYS);
}

static inline void look_in(const struct extents *extents, uint64_t slot, unsigned key,
                           struct hit *hit)
{
    hit->block = block_at(&extents->blocks, slot_block(slot));
    hit->count = head_count(block_head(hit->block));
    if (__builtin_expect(hit->count > BLOCK_SHORT, 0)) {
        look_long(hit, key);
        return;
    }
    uint64_t keys = block_load(hit->block + 1);
    hit->rank = block_short_rank(keys, hit->count, key);
    hit->start = keys >> 8 * ((hit->rank - 1) & 7) & 0xff;
    hit->next = hit->rank < hit->count ? (unsigned) (keys >> 8 * (hit->rank & 7) & 0xff)
                                       : BLOCK_KEYS;
}

/* The record, if the slot still leads to its block. */
static inline bool look_record(const _Atomic uint64_t *slot, uint64_t value, uint32_t bucket,
                               const struct hit *hit, struct extent_view *view)
{
    if (!slot_holds(slot, value))
        return false;
    const _Atomic uint32_t *info = block_info(hit->block, hit->count, hit->rank - 1);
    uint32_t first = atomic_load_explicit(info, memory_order_acquire);
    uint32_t end = head_end(block_head(hit->block));
    view->word = atomic_load_explicit(block_record(hit->block, hit->rank - 1),
                                      memory_order_acquire);
    uint32_t origin = bucket << EXTENT_BUCKET_SHIFT;
    view->start = origin + hit->start;
    view->end = hit->next < BLOCK_KEYS ? origin + hit->next : end;
    view->info = first;
    return atomic_load_explicit(info, memory_order_relaxed) == first && slot_holds(slot, value);
}

static inline enum look verdict(const struct extent_view *view, uint32_t unit)
{
    return info_is_live(view->info) && unit < view->end ? LOOK_FOUND : LOOK_NOTHING;
}

/* In an earlier bucket, to which `slot` of this one leads. */
static inline enum look look_cover(const struct extents *extents, uint32_t unit, uint64_t slot,
                                   struct extent_view *view)
{
    uint32_t cover = slot_cover(slot), bucket = unit_bucket(unit);
    if (cover == 0 || cover > bucket)
        return LOOK_NOTHING;
    const _Atomic uint64_t *from = slot_at(extents, bucket - cover);
    if (from == NULL)
        return LOOK_NOTHING;
    uint64_t value = atomic_load_explicit(from, memory_order_acquire);
    struct hit hit;
    if (slot_block(value) == 0)
        return LOOK_NOTHING;
    look_in(extents, value, BLOCK_KEYS - 1, &hit);
    /* No block in use is empty. */
    if (hit.rank == 0 || !look_record(from, value, bucket - cover, &hit, view))
        return LOOK_AGAIN;
    return verdict(view, unit);
}

static inline enum look look(const struct extents *extents, uint32_t unit,
                             struct extent_view *view)
{
    uint32_t bucket = unit_bucket(unit);
    const _Atomic uint64_t *slot = slot_at(extents, bucket);
    if (slot == NULL)
        return LOOK_NOTHING;
    uint64_t value = atomic_load_explicit(slot, memory_order_acquire);
    struct hit hit = { .rank = 0 };
    if (slot_block(value) != 0)
        look_in(extents, value, unit & (BLOCK_KEYS - 1), &hit);
    if (hit.rank != 0)
        return look_record(slot, value, bucket, &hit, view) ? verdict(view, unit) : LOOK_AGAIN;
    enum look found = look_cover(extents, unit, value, view);
    return slot_holds(slot, value) ? found : LOOK_AGAIN;
}

static __attribute__((noinline)) bool look_again(const struct extents *extents, uint32_t unit,
                                                 struct extent_view *view)
{
    enum look found;
    do {
        found = look(extents, unit, view);
    } while (found == LOOK_AGAIN);
    return found == LOOK_FOUND;
}

bool extents_look(const struct extents *extents, uint32_t unit, struct extent_view *view)
{
    enum look found = look(extents, unit, view);
    return __builtin_expect(found == LOOK_AGAIN, 0) ? look_again(extents, unit, view)
                                                    : found == LOOK_FOUND;
}

/* ---- for the writer --------------------------------------------------- */

static inline void fill_extent(struct extent *at, uint32_t bucket, block_word *block, unsigned count,
                        unsigned rank, unsigned key)
{
    unsigned after = block_key_from(block, count, rank + 1, key + 1, 0);
    uint32_t origin = bucket << EXTENT_BUCKET_SHIFT;
    at->start = origin + key;
    at->end = rank + 1 < count ? origin + after : head_end(block_head(block));
    at->rank = rank;
    at->count = count;
    at->block = block;
}

bool extents_find(const struct extents *extents, uint32_t unit, struct extent *at)
{
    block_word *block = block_of(extents, slot_of(extents, unit_bucket(unit)));
    if (block == NULL)
        return false;
    unsigned key = unit & (BLOCK_KEYS - 1), count = head_count(block_head(block));
    unsigned rank = block_find(block, count, key);
    if (rank >= count)
        return false;
    fill_extent(at, unit_bucket(unit), block, count, rank, key);
    return true;
}

block_word *extents_word(const struct extents *extents, uint32_t unit)
{
    const struct extent_chunk *chunk = atomic_load_explicit(
        &extents->chunks[unit_bucket(unit) >> EXTENT_CHUNK_SHIFT], memory_order_relaxed);
    uint64_t slot = atomic_load_explicit(&chunk->slots[unit_bucket(unit) & (EXTENT_CHUNK - 1)],
                                         memory_order_relaxed);
    block_word *block = block_at(&extents->blocks, slot_block(slot));
    unsigned count = head_count(block_head(block));
    return block_record(block, block_find(block, count, unit & (BLOCK_KEYS - 1)));
}

bool extents_next(const struct extents *extents, const struct extent *at, struct extent *next)
{
    if (at->end >= extents->units)
        return false;
    uint32_t bucket = unit_bucket(at->end);
    unsigned key = at->end & (BLOCK_KEYS - 1);
    if (!extent_is_last(at)) {
        fill_extent(next, bucket, at->block, at->count, at->rank + 1, key);
    } else {
        block_word *block = block_of(extents, slot_of(extents, bucket));
        fill_extent(next, bucket, block, count_of(block), 0, key);
    }
    return true;
}

bool extents_previous(const struct extents *extents, const struct extent *at,
                      struct extent *previous)
{
    uint32_t bucket = extent_bucket(at);
    unsigned key = at->start & (BLOCK_KEYS - 1), rank = at->rank, count = at->count;
    block_word *block = at->block;
    if (at->start == 0)
        return false;
    if (rank == 0) {
        bucket = unit_bucket(at->start - 1);
        uint64_t slot = slot_of(extents, bucket);
        if (key > 0 || slot_block(slot) == 0) {
            bucket -= slot_cover(slot);
            slot = slot_of(extents, bucket);
        }
        block = block_of(extents, slot);
        rank = count = count_of(block);
        key = BLOCK_KEYS;
    }
    unsigned start = block_key_upto(block, count, rank, key - 1);
    previous->start = (bucket << EXTENT_BUCKET_SHIFT) + start;
    previous->end = at->start;
    previous->rank = rank - 1;
    previous->count = count;
    previous->block = block;
    return true;
}

/* The last bucket before this one in which an extent starts; bucket 0 is always one. */
static uint32_t filled_before(const struct extents *extents, uint32_t bucket)
{
    uint32_t index = bucket >> EXTENT_CHUNK_SHIFT, word = bucket % EXTENT_CHUNK / 64;
    uint64_t mask = (1ull << bucket % 64) - 1;
    for (;; index--, word = EXTENT_CHUNK / 64 - 1, mask = UINT64_MAX) {
        const struct extent_chunk *chunk =
            atomic_load_explicit(&extents->chunks[index], memory_order_relaxed);
        for (unsigned i = word + 1; chunk != NULL && i-- > 0; mask = UINT64_MAX) {
            uint64_t filled = chunk->filled[i] & mask;
            if (filled != 0)
                return (index << EXTENT_CHUNK_SHIFT) + i * 64 + 63 -
                       (uint32_t) __builtin_clzll(filled);
        }
    }
}

void extents_holding(const struct extents *extents, uint32_t unit, struct extent *at)
{
    uint32_t bucket = unit_bucket(unit);
    unsigned key = unit & (BLOCK_KEYS - 1);
    block_word *block = block_of(extents, slot_of(extents, bucket));
    unsigned count = count_of(block), rank = block == NULL ? 0 : block_rank(block, count, key);
    if (block == NULL || rank == 0) {
        bucket = filled_before(extents, bucket);
        key = BLOCK_KEYS - 1;
        block = block_at(&extents->blocks, slot_block(slot_of(extents, bucket)));
        rank = count = head_count(block_head(block));
    }
    fill_extent(at, bucket, block, count, rank - 1, block_key_upto(block, count, rank, key));
}

bool extents_from(const struct extents *extents, uint32_t unit, struct extent *at)
{
    if (unit >= extents->units)
        return false;
    uint32_t bucket = unit_bucket(unit), last = unit_bucket(extents->units - 1);
    unsigned from = unit & (BLOCK_KEYS - 1);
    for (; bucket <= last; bucket++, from = 0) {
        if (slot_at(extents, bucket) == NULL) {
            bucket |= EXTENT_CHUNK - 1;
            continue;
        }
        block_word *block = block_of(extents, slot_of(extents, bucket));
        unsigned count = count_of(block);
        unsigned rank = count == 0 || from == 0 ? 0 : block_rank(block, count, from - 1);
        if (rank == count)
            continue;
        unsigned key = block_key_from(block, count, rank, from, 0);
        fill_extent(at, bucket, block, count, rank, key);
        return true;
    }
    return false;
}

/* ---- changes ---------------------------------------------------------- */

bool extents_prepare_slots(struct extents *extents, uint32_t first, uint32_t last,
                           const struct span_memory *memory)
{
    uint32_t end = unit_bucket(last) >> EXTENT_CHUNK_SHIFT;
    for (uint32_t i = unit_bucket(first) >> EXTENT_CHUNK_SHIFT; i <= end; i++) {
        if (atomic_load_explicit(&extents->chunks[i], memory_order_relaxed) != NULL)
            continue;
        struct extent_chunk *chunk = memory->alloc(memory->context, sizeof *chunk);
        if (chunk == NULL)
            return false;
        atomic_store_explicit(&extents->chunks[i], chunk, memory_order_release);
    }
    return true;
}

static unsigned bucket_count(const struct extents *extents, uint32_t bucket)
{
    return count_of(block_of(extents, slot_of(extents, bucket)));
}

bool extents_prepare(struct extents *extents, uint32_t one, unsigned one_more, uint32_t other,
                     unsigned other_more, const struct span_memory *memory)
{
    unsigned ones = one_more == 0 ? 0 : bucket_count(extents, unit_bucket(one)) + one_more;
    unsigned others = other_more == 0 ? 0 : bucket_count(extents, unit_bucket(other)) + other_more;
    ones = ones > BLOCK_KEYS ? BLOCK_KEYS : ones;
    others = others > BLOCK_KEYS ? BLOCK_KEYS : others;
    return blocks_reserve(&extents->blocks, ones, others, memory);
}

static inline void word_store(block_word *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* Records [from, from + count) of a block become those from `to` on of another. */
static void copy_records(block_word *into, unsigned into_count, unsigned to,
                         const block_word *block, unsigned block_count, unsigned from,
                         unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        word_store(block_record(into, to + i), block_load(block_record(block, from + i)));
    _Atomic uint32_t *info = block_info(into, into_count, to);
    const _Atomic uint32_t *old = block_info(block, block_count, from);
    for (unsigned i = 0; i < count; i++)
        atomic_store_explicit(&info[i], atomic_load_explicit(&old[i], memory_order_relaxed),
                              memory_order_relaxed);
}

struct edit {
    unsigned rank, dropped, added;
    const struct extent_record *records;
    unsigned count;                   /* records afterwards */
    uint32_t end;
};

/* The keys of a block, as bits; unused words are 0. */
static void keys_load(const block_word *block, unsigned count, uint64_t bits[4])
{
    memset(bits, 0, 4 * sizeof *bits);
    if (block == NULL)
        return;
    if (count > BLOCK_SHORT) {
        for (unsigned i = 0; i < 4; i++)
            bits[i] = block_load(block + 1 + i);
        return;
    }
    uint64_t keys = block_load(block + 1);
    for (unsigned i = 0; i < count; i++, keys >>= 8)
        bits[(keys & 0xff) / 64] |= 1ull << (keys & 0xff) % 64;
}

static void keys_store(block_word *block, unsigned count, const uint64_t bits[4])
{
    if (count > BLOCK_SHORT) {
        for (unsigned i = 0; i < 4; i++)
            word_store(block + 1 + i, bits[i]);
        return;
    }
    uint64_t keys = 0;
    unsigned shift = 0;
    for (unsigned i = 0; i < 4; i++) {
        for (uint64_t word = bits[i]; word != 0; word &= word - 1, shift += 8)
            keys |= (uint64_t) (i * 64 + (unsigned) __builtin_ctzll(word)) << shift;
    }
    word_store(block + 1, shift == 64 ? keys : keys | UINT64_MAX << shift);
}

/* Short blocks before and after. */
static uint64_t short_keys(uint64_t keys, const struct edit *edit)
{
    unsigned behind = edit->rank + edit->dropped;
    uint64_t low = edit->rank == 8 ? UINT64_MAX : (1ull << 8 * edit->rank) - 1;
    uint64_t result = keys & low;
    for (unsigned i = 0; i < edit->added; i++)
        result |= (uint64_t) (edit->records[i].start & 0xff) << 8 * (edit->rank + i);
    if (behind < 8 && edit->rank + edit->added < 8)
        result |= keys >> 8 * behind << 8 * (edit->rank + edit->added);
    return edit->count < 8 ? result | UINT64_MAX << 8 * edit->count : result;
}

static void write_keys(block_word *into, const block_word *block, unsigned count,
                       const struct edit *edit)
{
    if (count <= BLOCK_SHORT && edit->count <= BLOCK_SHORT) {
        word_store(into + 1, short_keys(block == NULL ? UINT64_MAX : block_load(block + 1), edit));
        return;
    }
    uint64_t bits[4];
    keys_load(block, count, bits);
    unsigned skip = edit->rank, drop = edit->dropped;
    for (unsigned i = 0; i < 4 && drop > 0; i++) {
        for (uint64_t word = bits[i]; word != 0 && drop > 0; word &= word - 1) {
            if (skip > 0) {
                skip--;
            } else {
                bits[i] &= ~(word & -word);
                drop--;
            }
        }
    }
    for (unsigned i = 0; i < edit->added; i++)
        bits[(edit->records[i].start & 0xff) / 64] |= 1ull << edit->records[i].start % 64;
    keys_store(into, edit->count, bits);
}

/* Fill `into` with the block after the edit; `block` is NULL if there was none. */
static void write_block(block_word *into, const block_word *block, const struct edit *edit)
{
    unsigned count = count_of(block), behind = edit->rank + edit->dropped;
    unsigned capacity = head_capacity(block_head(into));
    atomic_thread_fence(memory_order_release);
    write_keys(into, block, count, edit);
    if (block != NULL) {
        copy_records(into, edit->count, 0, block, count, 0, edit->rank);
        copy_records(into, edit->count, edit->rank + edit->added, block, count, behind,
                     count - behind);
    }
    for (unsigned i = 0; i < edit->added; i++) {
        unsigned rank = edit->rank + i;
        word_store(block_record(into, rank), edit->records[i].word);
        atomic_store_explicit(block_info(into, edit->count, rank), edit->records[i].info,
                              memory_order_relaxed);
    }
    uint32_t end = behind == count ? edit->end : head_end(block_head(block));
    word_store(into, head_pack(end, edit->count, capacity));
}

static void slot_store(_Atomic uint64_t *slot, uint32_t cover, uint32_t block)
{
    uint64_t before = atomic_load_explicit(slot, memory_order_relaxed);
    atomic_store_explicit(slot, slot_pack(cover, block, before), memory_order_release);
}

/* Change a block where it is; readers find its old contents elsewhere meanwhile. */
static void edit_in_place(struct extents *extents, _Atomic uint64_t *slot, const struct edit *edit)
{
    static const struct edit none = { 0 };
    struct blocks *blocks = &extents->blocks;
    uint64_t value = atomic_load_explicit(slot, memory_order_relaxed);
    block_word *block = block_of(extents, value), *scratch = block_at(blocks, blocks->scratch);
    struct edit copy = none;
    copy.rank = copy.count = count_of(block);
    copy.end = head_end(block_head(block));
    write_block(scratch, block, &copy);
    slot_store(slot, slot_cover(value), blocks->scratch);
    write_block(block, scratch, edit);
    slot_store(slot, slot_cover(value), slot_block(value));
}

void extents_replace(struct extents *extents, uint32_t bucket, unsigned rank, unsigned dropped,
                     const struct extent_record *records, unsigned added, uint32_t end)
{
    _Atomic uint64_t *slot = slot_at(extents, bucket);
    uint64_t value = atomic_load_explicit(slot, memory_order_relaxed);
    uint32_t old = slot_block(value), fresh = 0;
    block_word *block = block_of(extents, value);
    struct edit edit = { rank, dropped, added, records, count_of(block) + added - dropped, end };
    if (edit.count > 0) {
        bool fits = block != NULL && head_capacity(block_head(block)) >= edit.count;
        fresh = blocks_take(&extents->blocks, edit.count, fits);
        if (fresh == 0) {
            edit_in_place(extents, slot, &edit);
            return;
        }
        write_block(block_at(&extents->blocks, fresh), block, &edit);
    }
    slot_store(slot, slot_cover(value), fresh);
    if ((old == 0) != (fresh == 0)) {
        struct extent_chunk *chunk = atomic_load_explicit(
            &extents->chunks[bucket >> EXTENT_CHUNK_SHIFT], memory_order_relaxed);
        chunk->filled[bucket % EXTENT_CHUNK / 64] ^= 1ull << bucket % 64;
    }
    if (old != 0)
        blocks_give(&extents->blocks, old);
}

void extent_set_end(const struct extent *at, uint32_t end)
{
    uint64_t head = block_head(at->block);
    atomic_store_explicit(at->block, head_pack(end, at->count, head_capacity(head)),
                          memory_order_release);
}

void extents_cover(struct extents *extents, uint32_t start, uint32_t first, uint32_t last)
{
    for (uint32_t bucket = first; bucket <= last; bucket++) {
        _Atomic uint64_t *slot = slot_at(extents, bucket);
        uint64_t value = atomic_load_explicit(slot, memory_order_relaxed);
        uint32_t cover = bucket - unit_bucket(start);
        if (slot_cover(value) != cover)
            slot_store(slot, cover, slot_block(value));
    }
}

/* ---- life ------------------------------------------------------------- */

bool extents_init(struct extents *extents, uint32_t units, const struct span_memory *memory)
{
    const struct extent_record whole = { 0, INFO_HOLE, 0 };
    extents->units = units;
    extents->chunk_count = (unit_bucket(units - 1) >> EXTENT_CHUNK_SHIFT) + 1;
    extents->chunks =
        memory->alloc(memory->context, extents->chunk_count * sizeof *extents->chunks);
    if (extents->chunks == NULL || !extents_prepare_slots(extents, 0, 0, memory) ||
        !extents_prepare(extents, 0, 1, 0, 0, memory))
        return false;
    extents_replace(extents, 0, 0, 0, &whole, 1, units);
    return true;
}

void extents_fini(struct extents *extents, const struct span_memory *memory)
{
    blocks_fini(&extents->blocks, memory);
    for (uint32_t i = 0; extents->chunks != NULL && i < extents->chunk_count; i++) {
        struct extent_chunk *chunk = atomic_load(&extents->chunks[i]);
        if (chunk != NULL)
            memory->free(memory->context, chunk, sizeof *chunk);
    }
    if (extents->chunks != NULL)
        memory->free(memory->context, extents->chunks,
                     extents->chunk_count * sizeof *extents->chunks);
    memset(extents, 0, sizeof *extents);
}

/* ---- invariants ------------------------------------------------------- */

static const char *verify_block(const block_word *block, unsigned capacity)
{
    unsigned count = count_of(block), bits = 0;
    if (count == 0 || count > capacity)
        return "a block holds none, or more than it can";
    uint64_t keys[4], again = 0;
    keys_load(block, count, keys);
    for (unsigned i = 0; i < 4; i++)
        bits += (unsigned) __builtin_popcountll(keys[i]);
    if (bits != count)
        return "the keys of a block are not as many as its records";
    for (unsigned i = 1; i < count && count <= BLOCK_SHORT; i++) {
        again = block_load(block + 1) >> 8 * i & 0xff;
        if (again <= (block_load(block + 1) >> 8 * (i - 1) & 0xff))
            return "the keys of a block are not in order";
    }
    if (count < BLOCK_SHORT && block_load(block + 1) >> 8 * count != UINT64_MAX >> 8 * count)
        return "unused keys of a block look like used ones";
    return NULL;
}

/* Each bucket's block, and that all words of the store belong to something. */
const char *extents_verify(const struct extents *extents)
{
    const struct blocks *blocks = &extents->blocks;
    size_t words;
    const char *broken = blocks_verify(blocks, &words);
    if (blocks->scratch != 0)
        words += block_words(blocks->scratch_capacity);
    for (uint32_t bucket = 0; broken == NULL && bucket <= unit_bucket(extents->units - 1); bucket++) {
        const struct extent_chunk *chunk = atomic_load(&extents->chunks[bucket / EXTENT_CHUNK]);
        const block_word *block = block_of(extents, slot_of(extents, bucket));
        if (chunk != NULL &&
            (chunk->filled[bucket % EXTENT_CHUNK / 64] >> bucket % 64 & 1) != (block != NULL))
            return "a slot's bit does not tell whether it has a block";
        if (block == NULL)
            continue;
        unsigned capacity = head_capacity(block_head(block));
        words += block_words(capacity);
        if (capacity > blocks->scratch_capacity)
            broken = "a block is larger than the scratch block";
        else
            broken = verify_block(block, capacity);
    }
    if (broken == NULL && words != blocks->words)
        broken = "a block is neither in use nor unused";
    return broken;
}
