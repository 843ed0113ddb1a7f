/* SPDX-License-Identifier: MIT */
/*
 * Records that handles stand for: sites, entries, pins, methods.
 *
 * A handle is that of a slot (slot.h), which a record has as long as its pool lives.
 * The memory of a record is used for records of its kind only until the pool goes.
 */
#ifndef OSR_RECORD_H
#define OSR_RECORD_H

#include "memory/slot.h"

#include <patchpoint/pool.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct record {
    pp_pool *pool;             /* written once, before the first handle */
    struct record *next;       /* in the list of live or of free records; under pool_lock */
    struct record **link;      /* what points to a live record; under pool_lock */
    struct slot *slot;         /* says whether it is alive; another one only while it is dead */
    uint32_t kind;             /* enum record_kind; constant */
};

enum record_kind { RECORD_SITE = 1, RECORD_ENTRY, RECORD_PIN, RECORD_METHOD };

/* All records of a kind in a pool. */
struct record_list {
    struct record *live, *free; /* under pool_lock */
    size_t record_size;         /* of the struct that begins at `offset` before its record */
    size_t offset;              /* of the struct record in it */
    enum record_kind kind;
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

/* The handle of a record's present life, or of its latest. */
static inline void *record_handle(const struct record *record)
{
    return (void *) slot_handle(record->slot);
}

static inline bool record_is_alive(const struct record *record)
{
    return slot_is_alive(record->slot);
}

/* The record of this kind that has the handle, alive; or NULL.  Any value may be asked for. */
static inline struct record *record_from(const void *handle, enum record_kind kind)
{
    struct record *record = slot_find((uintptr_t) handle);
    return record != NULL && record->kind == kind ? record : NULL;
}

#endif
