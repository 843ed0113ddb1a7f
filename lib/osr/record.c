/* SPDX-License-Identifier: MIT */
/* Records that handles stand for. */
#include <config.h>

#include "osr/record.h"

#include "memory/pool.h"

#include <string.h>

static char *holder_of(const struct record_list *list, struct record *record)
{
    return (char *) record - list->offset;
}

/* A used record of the same kind, with everything but its head zeroed. */
static struct record *recycle_locked(struct record_list *list)
{
    struct record *record = list->free;
    if (record == NULL)
        return NULL;
    list->free = record->next;
    char *holder = holder_of(list, record);
    memset(holder, 0, list->offset);
    memset(record + 1, 0, list->record_size - list->offset - sizeof *record);
    return record;
}

/* One in which another life can begin. */
static bool have_slot(struct record *record)
{
    if (record->slot != NULL && slot_is_good(record->slot))
        return true;
    if (record->slot != NULL)
        slot_give(record->slot);
    record->slot = slot_take(record);
    return record->slot != NULL;
}

struct record *record_take_locked(pp_pool *pool, struct record_list *list)
{
    struct record *record = recycle_locked(list);
    if (record == NULL) {
        char *holder = pool_meta_alloc(pool, list->record_size);
        if (holder == NULL)
            return NULL;
        record = (struct record *) (holder + list->offset);
        record->pool = pool;
        record->kind = list->kind;
    }
    if (!have_slot(record)) {
        record->next = list->free;
        list->free = record;
        return NULL;
    }
    record->next = list->live;
    record->link = &list->live;
    if (list->live != NULL)
        list->live->link = &record->next;
    list->live = record;
    return record;
}

void record_birth(struct record *record)
{
    slot_birth(record->slot);
}

bool record_death(struct record *record, const void *handle)
{
    return slot_death(record->slot, (uintptr_t) handle);
}

void record_give_locked(struct record_list *list, struct record *record)
{
    *record->link = record->next;
    if (record->next != NULL)
        record->next->link = record->link;

    record->link = NULL;
    record->next = list->free;
    list->free = record;
}

void record_list_close(pp_pool *pool, struct record_list *list)
{
    struct record *lists[] = { list->live, list->free };
    for (size_t i = 0; i < 2; i++) {
        for (struct record *record = lists[i], *next; record != NULL; record = next) {
            next = record->next;
            if (record->slot != NULL)
                slot_give(record->slot);
            pool_meta_free(pool, holder_of(list, record), list->record_size);
        }
    }
    list->live = list->free = NULL;
}
