/* SPDX-License-Identifier: MIT */
/*
 * Numbers of chunks, in leaves of which all but one are mapped when they are first needed,
 * and never given back: a reader always finds memory behind what it loaded.
 *
 * A chunk's address is stored with release order before a handle with its number
 * exists.  A reader that finds an outdated address looks up what is there, and
 * compares the number of the region that it finds.
 */
#include <config.h>

#include "memory/number.h"

#include "memory/span.h"
#include "os/map.h"

#include <pthread.h>

static struct number_leaf first_leaf; /* enough for 2 GiB */
_Atomic(struct number_leaf *) number_leaves[NUMBER_COUNT >> NUMBER_LEAF_BITS] = { &first_leaf };

static pthread_mutex_t number_mutex = PTHREAD_MUTEX_INITIALIZER;
/* Those left out are what addresses begin with: one that is taken for a handle stands for nothing. */
static uint32_t fresh = NUMBER_FIRST; /* from here on none was ever taken; these by number_mutex */
static uint32_t first; /* free one + 1, or 0 */

void numbers_lock(void) { pthread_mutex_lock(&number_mutex); }
void numbers_unlock(void) { pthread_mutex_unlock(&number_mutex); }

static struct number_leaf *leaf_of(uint32_t number)
{
    return atomic_load_explicit(&number_leaves[number >> NUMBER_LEAF_BITS], memory_order_acquire);
}

static uint32_t index_of(uint32_t number) { return number & (NUMBER_LEAF - 1); }

static uint32_t floor_of(uint32_t number)
{
    return atomic_load_explicit(&leaf_of(number)->floors[index_of(number)], memory_order_relaxed);
}

bool number_was_used(uint32_t number, uint32_t generation)
{
    return leaf_of(number) != NULL && generation != 0 && generation <= floor_of(number);
}

/* ---- taking and giving back ------------------------------------------- */

static bool take_freed_locked(uint32_t *number)
{
    if (first == 0)
        return false;
    *number = first - 1;
    first = leaf_of(*number)->next[index_of(*number)];
    return true;
}

static bool take_fresh_locked(uint32_t *number)
{
    if (fresh == NUMBER_COUNT)
        return false;
    if (leaf_of(fresh) == NULL) {
        struct number_leaf *leaf = map_memory(sizeof *leaf);
        if (leaf == NULL)
            return false;
        atomic_store_explicit(&number_leaves[fresh >> NUMBER_LEAF_BITS], leaf, memory_order_release);
    }
    *number = fresh++;
    return true;
}

size_t numbers_take(uint32_t *numbers, size_t count, uint32_t *floor)
{
    size_t taken = 0;
    *floor = 0;
    numbers_lock();
    for (uint32_t number; taken < count; taken++) {
        if (!take_freed_locked(&number) && !take_fresh_locked(&number))
            break;
        uint32_t used = floor_of(number);
        *floor = used > *floor ? used : *floor;
        numbers[taken] = number;
    }
    numbers_unlock();
    return taken;
}

void number_bind(uint32_t number, uintptr_t chunk)
{
    atomic_store_explicit(&leaf_of(number)->chunks[index_of(number)],
                          (uint32_t) (chunk >> NUMBER_CHUNK_SHIFT), memory_order_release);
}

void number_give(uint32_t number, uint32_t latest)
{
    struct number_leaf *leaf = leaf_of(number);
    uint32_t index = index_of(number);
    number_bind(number, 0);
    numbers_lock();
    if (latest > floor_of(number))
        atomic_store_explicit(&leaf->floors[index], latest, memory_order_relaxed);
    if (floor_of(number) <= SPAN_GENERATION_MAX / 2) {
        leaf->next[index] = first;
        first = number + 1;
    }
    numbers_unlock();
}
