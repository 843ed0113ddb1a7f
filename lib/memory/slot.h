/* SPDX-License-Identifier: MIT */
/*
 * Slots: what handles of records stand for, for the whole process.
 *
 *      handle      number of the slot:24 | generation:40
 *
 * A slot has one record at a time, and that has one life after another, each with the
 * next generation.  A slot that has none left is not used again.  So no handle is given
 * out twice, whatever pools and records come and go.  Any value can be looked up: what
 * decides is in the slot, whose memory stays.  Numbers begin behind those that the
 * upper bits of an address can be.
 */
#ifndef MEMORY_SLOT_H
#define MEMORY_SLOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLOT_GENERATION_BITS 40
#define SLOT_GENERATION_MAX (((uint64_t) 1 << SLOT_GENERATION_BITS) - 1)
#define SLOT_COUNT ((uint32_t) 1 << 24)
#define SLOT_FIRST 256u /* an address has 48 bits */

struct slot {
    _Atomic uint64_t life;    /* generation * 2, + 1 while alive */
    _Atomic(void *) holder;   /* NULL: it is free.  Stored before a life begins */
    uint32_t number;          /* constant once the slot was taken */
    uint32_t next;            /* of a free one: the next one's number, or 0; under a lock */
};

/* A slot for a record, dead, with at least one generation left.  NULL: there is none, or no memory. */
struct slot *slot_take(void *holder);

/* The record goes, or needs another slot: a life that it has ends. */
void slot_give(struct slot *slot);

/* Whether another life can begin in it. */
static inline bool slot_is_good(const struct slot *slot)
{
    return atomic_load_explicit(&slot->life, memory_order_relaxed) >> 1 < SLOT_GENERATION_MAX;
}

/* A life begins: a thread that sees it also sees what was written before. */
static inline void slot_birth(struct slot *slot)
{
    uint64_t life = atomic_load_explicit(&slot->life, memory_order_relaxed);
    atomic_store_explicit(&slot->life, life + 3, memory_order_release);
}

static inline bool slot_is_alive(const struct slot *slot)
{
    return atomic_load_explicit(&slot->life, memory_order_acquire) & 1;
}

/* The life that this handle stands for ends.  False: it had. */
bool slot_death(struct slot *slot, uintptr_t handle);

/* The handle of the present life, or of the latest. */
static inline uintptr_t slot_handle(const struct slot *slot)
{
    uint64_t life = atomic_load_explicit(&slot->life, memory_order_relaxed);
    return (uintptr_t) slot->number << SLOT_GENERATION_BITS | life >> 1;
}

/* What has this handle, alive; or NULL.  Any value; lock-free, async-signal-safe. */
void *slot_find(uintptr_t handle);

/* Around a fork. */
void slots_lock(void);
void slots_unlock(void);

#endif
