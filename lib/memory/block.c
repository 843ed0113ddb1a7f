/* SPDX-License-Identifier: MIT */
/* The store of blocks. */
#include <config.h>

#include "memory/block.h"

#include <string.h>

#define SEGMENT_PAD 4u /* words: an outdated count may lead that far behind a block */

/* ---- classes ---------------------------------------------------------- */

/* Exact up to 8 records, then four steps for each doubling. */
static unsigned class_of(unsigned records)
{
    if (records <= 8)
        return records - 1;
    unsigned shift = records <= 32 ? 2 : 29 - (unsigned) __builtin_clz(records - 1);
    unsigned first = records <= 32 ? 8 : 14 + (shift - 3) * 4;
    unsigned floor = records <= 32 ? 8 : 4u << shift;
    return first + ((records - 1 - floor) >> shift);
}

static unsigned class_capacity(unsigned class)
{
    if (class < 8)
        return class + 1;
    if (class < 14)
        return 12 + (class - 8) * 4;
    unsigned shift = 3 + (class - 14) / 4;
    return (4u << shift) + (((class - 14) % 4 + 1) << shift);
}

unsigned block_words(unsigned records)
{
    return records + (records <= BLOCK_SHORT ? 2 : 5) + (records + 1) / 2;
}

static unsigned words_for(unsigned records)
{
    return records == 0 ? 0 : block_words(class_capacity(class_of(records)));
}

/* ---- the store -------------------------------------------------------- */

static unsigned segment_shift(unsigned segment)
{
    return BLOCK_SEGMENT_SHIFT + (segment < 16 ? 0 : (segment - 8) / 8);
}

static uint32_t segment_first(unsigned segment)
{
    unsigned shift = segment_shift(segment);
    return (uint32_t) (segment - 8 * (shift - BLOCK_SEGMENT_SHIFT)) << shift;
}

void blocks_give(struct blocks *blocks, uint32_t reference)
{
    block_word *block = block_at(blocks, reference);
    unsigned capacity = head_capacity(block_head(block)), class = class_of(capacity);
    /* Readers that come late must see that the slot has changed, not only this. */
    atomic_store_explicit(block, head_pack(blocks->free[class], 0, capacity),
                          memory_order_release);
    blocks->free[class] = reference;
}

/* The next `words` of the segment become a block. */
static uint32_t carve(struct blocks *blocks, unsigned capacity)
{
    uint32_t reference = blocks->fresh + capacity;
    blocks->fresh += block_words(capacity);
    blocks->words += block_words(capacity);
    atomic_store_explicit(block_at(blocks, reference), head_pack(0, 0, capacity),
                          memory_order_relaxed);
    return reference;
}

/* What is left of a segment becomes unused blocks. */
static void use_up(struct blocks *blocks)
{
    for (unsigned class = BLOCK_CLASSES; class-- > 0;) {
        unsigned capacity = class_capacity(class);
        while (blocks->fresh_end - blocks->fresh >= block_words(capacity))
            blocks_give(blocks, carve(blocks, capacity));
    }
}

static bool open_segment(struct blocks *blocks, const struct span_memory *memory)
{
    unsigned segment = blocks->segment_count;
    if (segment == BLOCK_SEGMENTS)
        return false;
    size_t words = (size_t) 1 << segment_shift(segment);
    block_word *fresh = memory->alloc(memory->context, words * sizeof *fresh);
    if (fresh == NULL)
        return false;
    use_up(blocks);
    atomic_store_explicit(&blocks->segments[segment], fresh, memory_order_release);
    blocks->segment_count++;
    blocks->fresh = segment_first(segment);
    blocks->fresh_end = blocks->fresh + (uint32_t) words - SEGMENT_PAD;
    return true;
}

bool blocks_reserve(struct blocks *blocks, unsigned one, unsigned other,
                    const struct span_memory *memory)
{
    unsigned most = one > other ? one : other;
    unsigned words = words_for(one) + words_for(other);
    bool grow = most > blocks->scratch_capacity;
    if (grow)
        words += words_for(most);
    while (blocks->fresh_end - blocks->fresh < words) {
        if (!open_segment(blocks, memory))
            return false;
    }
    if (grow) {
        if (blocks->scratch != 0)
            blocks_give(blocks, blocks->scratch);
        blocks->scratch_capacity = class_capacity(class_of(most));
        blocks->scratch = carve(blocks, blocks->scratch_capacity);
    }
    return true;
}

uint32_t blocks_take(struct blocks *blocks, unsigned records, bool spare)
{
    unsigned class = class_of(records);
    uint32_t reference = blocks->free[class];
    if (reference != 0)
        blocks->free[class] = head_end(block_head(block_at(blocks, reference)));
    else if (!spare)
        reference = carve(blocks, class_capacity(class));
    return reference;
}

const char *blocks_verify(const struct blocks *blocks, size_t *words)
{
    *words = 0;
    for (unsigned class = 0; class < BLOCK_CLASSES; class++) {
        for (uint32_t at = blocks->free[class]; at != 0;) {
            uint64_t head = block_head(block_at(blocks, at));
            if (head_capacity(head) != class_capacity(class))
                return "an unused block is in the wrong list";
            *words += block_words(class_capacity(class));
            if (*words > blocks->words)
                return "a list of unused blocks has a loop";
            at = head_end(head);
        }
    }
    return NULL;
}

void blocks_fini(struct blocks *blocks, const struct span_memory *memory)
{
    for (unsigned i = 0; i < blocks->segment_count; i++)
        memory->free(memory->context, atomic_load(&blocks->segments[i]),
                     ((size_t) 1 << segment_shift(i)) * sizeof(block_word));
    memset(blocks, 0, sizeof *blocks);
}
