/* SPDX-License-Identifier: MIT */
/*
 * Records that handles stand for: sites and entries.
 *
 * A handle is the record's address with 20 bits of its generation: 16 in the
 * top bits, 4 in the low ones, which an aligned user address leaves free.  The
 * memory of a record is used for records of its kind only until the pool goes,
 * so a stale handle is told apart without touching freed memory.
 */
#ifndef OSR_RECORD_H
#define OSR_RECORD_H

#include <patchpoint/pool.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct record {
    pp_pool *pool;             /* written once, before the first handle */
    struct record *next;       /* in the list of live or of free records; under pool_lock */
    struct record **link;      /* what points to a live record; under pool_lock */
    _Atomic uint32_t life;     /* generation * 2, + 1 while alive */
};

/* All records of a kind in a pool. */
struct record_list {
    struct record *live, *free; /* under pool_lock */
    size_t record_size;         /* of the struct that begins at `offset` before its record */
    size_t offset;              /* of the struct record in it */
};

/*
 * Take a record, zeroed but for its head, with pool_lock held; NULL when there
 * is no memory.  It is not alive: no handle leads to it before record_birth.
 */
struct record *record_take_locked(pp_pool *pool, struct record_list *list);
void record_birth(struct record *record);

/* End the life that this handle stands for: it is stale from here on.  False if it was. */
bool record_death(struct record *record, const void *handle);

/* Put a dead or unborn record among the free ones, with pool_lock held. */
void record_give_locked(struct record_list *list, struct record *record);

/* Give the memory of all records back, when the pool goes. */
void record_list_close(pp_pool *pool, struct record_list *list);

/*
 * The tagged address of the struct that holds a record, and the way back: NULL
 * when the handle is NULL or stale.
 */
static inline void *record_handle(const void *holder, const struct record *record)
{
    uint32_t tag = atomic_load_explicit(&record->life, memory_order_relaxed) >> 1 & 0xfffff;
    return (void *) ((uintptr_t) holder | (uintptr_t) (tag >> 4) << 48 | (tag & 15));
}

static inline void *handle_address(const void *handle)
{
    return (void *) ((uintptr_t) handle & 0x0000fffffffffff0u);
}

static inline uint32_t handle_tag(const void *handle)
{
    return (uint32_t) ((uintptr_t) handle >> 48) << 4 | (uint32_t) ((uintptr_t) handle & 15);
}

/* Whether a record is alive in the generation of this handle. */
static inline bool life_is(uint32_t life, const void *handle)
{
    return (life & 1) && (life >> 1 & 0xfffff) == handle_tag(handle);
}

static inline bool record_is(const struct record *record, const void *handle)
{
    return life_is(atomic_load_explicit(&record->life, memory_order_acquire), handle);
}

#endif
