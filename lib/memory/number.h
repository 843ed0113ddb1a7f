/* SPDX-License-Identifier: MIT */
/*
 * Numbers of chunks: the part of a handle that stands for 2 MiB of addresses, for the
 * whole process.
 *
 * A region takes a number for each of its chunks and gives them back when it goes.  A
 * number remembers the highest generation that was ever used with it, and the next region
 * that takes it begins above: so a number, a place in the chunk and a generation never come
 * together twice.  A number with which half of the generations are gone is not used again,
 * so that no region is short of them.
 */
#ifndef MEMORY_NUMBER_H
#define MEMORY_NUMBER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NUMBER_BITS 17
#define NUMBER_COUNT ((uint32_t) 1 << NUMBER_BITS)
#define NUMBER_FIRST 2u /* an address of 48 bits begins with 0 or 1 */
#define NUMBER_CHUNK_SHIFT 21
#define NUMBER_CHUNK ((uintptr_t) 1 << NUMBER_CHUNK_SHIFT)

/*
 * Take up to `count` numbers; returns how many there were.  *floor receives the highest
 * generation that was used with any of them.
 */
size_t numbers_take(uint32_t *numbers, size_t count, uint32_t *floor);

/* The number stands for the chunk at this address, which the caller alone has. */
void number_bind(uint32_t number, uintptr_t chunk);

/* It stands for nothing, and is free.  `latest`: the highest generation since it was taken, or 0. */
void number_give(uint32_t number, uint32_t latest);

#define NUMBER_LEAF_BITS 10
#define NUMBER_LEAF ((uint32_t) 1 << NUMBER_LEAF_BITS)

struct number_leaf {
    _Atomic uint32_t chunks[NUMBER_LEAF]; /* address >> NUMBER_CHUNK_SHIFT, 0: none */
    _Atomic uint32_t floors[NUMBER_LEAF]; /* the highest generation that was used before */
    uint32_t next[NUMBER_LEAF];           /* of a free one: the next + 1, or 0; under a lock */
};

extern _Atomic(struct number_leaf *) number_leaves[NUMBER_COUNT >> NUMBER_LEAF_BITS];

/* Where the chunk of a number is, less than NUMBER_COUNT; 0: nowhere.  Lock-free, async-signal-safe. */
static inline uintptr_t number_chunk(uint32_t number)
{
    const struct number_leaf *leaf = atomic_load_explicit(
        &number_leaves[number >> NUMBER_LEAF_BITS], memory_order_acquire);
    return leaf == NULL ? 0
        : (uintptr_t) atomic_load_explicit(&leaf->chunks[number & (NUMBER_LEAF - 1)],
                                           memory_order_acquire) << NUMBER_CHUNK_SHIFT;
}

/*
 * Whether the number once stood for a chunk, with a generation that high, and does not any
 * more.  Lock-free, async-signal-safe.
 */
bool number_was_used(uint32_t number, uint32_t generation);

/* Around a fork. */
void numbers_lock(void);
void numbers_unlock(void);

#endif
