/* SPDX-License-Identifier: MIT */
/* Where extents start. */
#include <config.h>

#include "memory/starts.h"

#include <stddef.h>

static uint64_t word_get(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* Only writers change words, one at a time: no read-modify-write is needed. */
static void bit_set(_Atomic uint64_t *words, uint32_t bit)
{
    _Atomic uint64_t *word = &words[bit / 64];
    atomic_store_explicit(word, word_get(word) | 1ull << bit % 64, memory_order_release);
}

/* True if the word is zero now. */
static bool bit_clear(_Atomic uint64_t *words, uint32_t bit)
{
    _Atomic uint64_t *word = &words[bit / 64];
    uint64_t value = word_get(word) & ~(1ull << bit % 64);
    atomic_store_explicit(word, value, memory_order_release);
    return value == 0;
}

void starts_set(struct starts *starts, uint32_t unit)
{
    struct starts_chunk *chunk = starts_chunk(starts, unit);
    uint32_t local = unit & (STARTS_CHUNK_UNITS - 1);
    bit_set(chunk->starts, local);
    bit_set(chunk->filled, local / 64);
    bit_set(starts->filled, unit >> STARTS_CHUNK_SHIFT);
}

void starts_clear(struct starts *starts, uint32_t unit)
{
    struct starts_chunk *chunk = starts_chunk(starts, unit);
    uint32_t local = unit & (STARTS_CHUNK_UNITS - 1);
    if (!bit_clear(chunk->starts, local) || !bit_clear(chunk->filled, local / 64))
        return;
    for (unsigned i = 0; i < STARTS_CHUNK_WORDS / 64; i++) {
        if (word_get(&chunk->filled[i]) != 0)
            return;
    }
    bit_clear(starts->filled, unit >> STARTS_CHUNK_SHIFT);
}

/* The highest set bit at or below `from`. */
static uint32_t bits_before(const _Atomic uint64_t *words, uint32_t from)
{
    uint32_t index = from / 64;
    uint64_t word = word_get(&words[index]) & (UINT64_MAX >> (63 - from % 64));
    while (word == 0) {
        if (index == 0)
            return STARTS_NONE;
        word = word_get(&words[--index]);
    }
    return index * 64 + 63 - (uint32_t) __builtin_clzll(word);
}

/* The lowest set bit from `from` on, below `end`. */
static uint32_t bits_after(const _Atomic uint64_t *words, uint32_t from, uint32_t end)
{
    if (from >= end)
        return STARTS_NONE;
    uint32_t index = from / 64;
    uint64_t word = word_get(&words[index]) & UINT64_MAX << from % 64;
    while (word == 0) {
        if (++index * 64 >= end)
            return STARTS_NONE;
        word = word_get(&words[index]);
    }
    return index * 64 + (uint32_t) __builtin_ctzll(word);
}

/* A summary bit may outlive its word for a moment: then the search goes on. */
static uint32_t chunk_before(const struct starts_chunk *chunk, uint32_t local)
{
    uint32_t index = local / 64;
    uint64_t word = word_get(&chunk->starts[index]) & (UINT64_MAX >> (63 - local % 64));
    while (word == 0) {
        if (index == 0)
            return STARTS_NONE;
        index = bits_before(chunk->filled, index - 1);
        if (index == STARTS_NONE)
            return STARTS_NONE;
        word = word_get(&chunk->starts[index]);
    }
    return index * 64 + 63 - (uint32_t) __builtin_clzll(word);
}

static uint32_t chunk_after(const struct starts_chunk *chunk, uint32_t local)
{
    uint32_t index = local / 64;
    uint64_t word = word_get(&chunk->starts[index]) & UINT64_MAX << local % 64;
    while (word == 0) {
        index = bits_after(chunk->filled, index + 1, STARTS_CHUNK_WORDS);
        if (index == STARTS_NONE)
            return STARTS_NONE;
        word = word_get(&chunk->starts[index]);
    }
    return index * 64 + (uint32_t) __builtin_ctzll(word);
}

uint32_t starts_before(const struct starts *starts, uint32_t unit)
{
    uint32_t index = unit >> STARTS_CHUNK_SHIFT;
    uint32_t local = unit & (STARTS_CHUNK_UNITS - 1);
    for (;;) {
        const struct starts_chunk *chunk = starts_chunk(starts, index << STARTS_CHUNK_SHIFT);
        uint32_t found = chunk == NULL ? STARTS_NONE : chunk_before(chunk, local);
        if (found != STARTS_NONE)
            return (index << STARTS_CHUNK_SHIFT) + found;
        if (index == 0)
            return STARTS_NONE;
        index = bits_before(starts->filled, index - 1);
        if (index == STARTS_NONE)
            return STARTS_NONE;
        local = STARTS_CHUNK_UNITS - 1;
    }
}

uint32_t starts_after(const struct starts *starts, uint32_t unit)
{
    if (unit >= starts->units)
        return starts->units;
    uint32_t index = unit >> STARTS_CHUNK_SHIFT;
    uint32_t local = unit & (STARTS_CHUNK_UNITS - 1);
    for (;;) {
        const struct starts_chunk *chunk = starts_chunk(starts, index << STARTS_CHUNK_SHIFT);
        uint32_t found = chunk == NULL ? STARTS_NONE : chunk_after(chunk, local);
        if (found != STARTS_NONE)
            return (index << STARTS_CHUNK_SHIFT) + found;
        index = bits_after(starts->filled, index + 1, starts->chunk_count);
        if (index == STARTS_NONE)
            return starts->units;
        local = 0;
    }
}

bool starts_test(const struct starts *starts, uint32_t unit)
{
    const struct starts_chunk *chunk = starts_chunk(starts, unit);
    uint32_t local = unit & (STARTS_CHUNK_UNITS - 1);
    return chunk != NULL && (word_get(&chunk->starts[local / 64]) >> local % 64 & 1);
}

const char *starts_verify(const struct starts *starts)
{
    for (uint32_t i = 0; i < starts->chunk_count; i++) {
        const struct starts_chunk *chunk = starts_chunk(starts, i << STARTS_CHUNK_SHIFT);
        bool any = false;
        for (uint32_t word = 0; chunk != NULL && word < STARTS_CHUNK_WORDS; word++) {
            bool filled = word_get(&chunk->starts[word]) != 0;
            if ((word_get(&chunk->filled[word / 64]) >> word % 64 & 1) != filled)
                return "the summary of a chunk is wrong";
            any |= filled;
        }
        if ((word_get(&starts->filled[i / 64]) >> i % 64 & 1) != any)
            return "the summary of the chunks is wrong";
    }
    return NULL;
}
