/* SPDX-License-Identifier: MIT */
/*
 * Slots, in leaves of which all but one are mapped when they are first needed, and never
 * given back: a reader always finds memory behind what it loaded.
 */
#include <config.h>

#include "memory/slot.h"

#include "os/map.h"

#include <pthread.h>

#define LEAF_BITS 10
#define LEAF_SLOTS ((uint32_t) 1 << LEAF_BITS)

struct leaf {
    struct slot slots[LEAF_SLOTS];
};

static struct leaf first_leaf;
static _Atomic(struct leaf *) leaves[SLOT_COUNT >> LEAF_BITS] = { &first_leaf };

static pthread_mutex_t slot_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards these */
static uint32_t fresh = SLOT_FIRST; /* from here on none was ever taken */
static uint32_t freed;              /* number of a free one, or 0 */

void slots_lock(void) { pthread_mutex_lock(&slot_mutex); }
void slots_unlock(void) { pthread_mutex_unlock(&slot_mutex); }

/* NULL: its leaf is not there. */
static struct slot *slot_at(uint32_t number)
{
    struct leaf *leaf = atomic_load_explicit(&leaves[number >> LEAF_BITS], memory_order_acquire);
    return leaf == NULL ? NULL : &leaf->slots[number & (LEAF_SLOTS - 1)];
}

static struct slot *take_fresh_locked(void)
{
    if (fresh == SLOT_COUNT)
        return NULL;
    if (slot_at(fresh) == NULL) {
        struct leaf *leaf = map_memory(sizeof *leaf);
        if (leaf == NULL)
            return NULL;
        atomic_store_explicit(&leaves[fresh >> LEAF_BITS], leaf, memory_order_release);
    }
    struct slot *slot = slot_at(fresh);
    slot->number = fresh++;
    return slot;
}

struct slot *slot_take(void *holder)
{
    slots_lock();
    struct slot *slot = freed != 0 ? slot_at(freed) : take_fresh_locked();
    if (slot != NULL && slot->number == freed)
        freed = slot->next;
    slots_unlock();
    if (slot != NULL)
        atomic_store_explicit(&slot->holder, holder, memory_order_release);
    return slot;
}

void slot_give(struct slot *slot)
{
    atomic_fetch_and_explicit(&slot->life, ~(uint64_t) 1, memory_order_relaxed);
    atomic_store_explicit(&slot->holder, NULL, memory_order_release);
    if (!slot_is_good(slot))
        return;
    slots_lock();
    slot->next = freed;
    freed = slot->number;
    slots_unlock();
}

/* Whether a life is that of a handle, which is of the same slot. */
static bool life_is(uint64_t life, uintptr_t handle)
{
    return (life & 1) && life >> 1 == (handle & SLOT_GENERATION_MAX);
}

bool slot_death(struct slot *slot, uintptr_t handle)
{
    uint64_t life = atomic_load_explicit(&slot->life, memory_order_relaxed);
    return handle >> SLOT_GENERATION_BITS == slot->number && life_is(life, handle)
        && atomic_compare_exchange_strong_explicit(&slot->life, &life, life - 1,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

void *slot_find(uintptr_t handle)
{
    const struct slot *slot = slot_at((uint32_t) (handle >> SLOT_GENERATION_BITS));
    if (slot == NULL || !life_is(atomic_load_explicit(&slot->life, memory_order_acquire), handle))
        return NULL;
    return atomic_load_explicit(&slot->holder, memory_order_acquire);
}
