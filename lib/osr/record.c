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

struct record *record_take_locked(pp_pool *pool, struct record_list *list)
{
    struct record *record = recycle_locked(list);
    if (record == NULL) {
        char *holder = pool_meta_alloc(pool, list->record_size);
        if (holder == NULL)
            return NULL;
        record = (struct record *) (holder + list->offset);
        record->pool = pool;
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
    /* Whoever sees the life sees the fields written before. */
    atomic_fetch_add_explicit(&record->life, 1, memory_order_release);
}

bool record_death(struct record *record, const void *handle)
{
    uint32_t life = atomic_load_explicit(&record->life, memory_order_relaxed);
    return life_is(life, handle)
        && atomic_compare_exchange_strong_explicit(&record->life, &life, life + 1,
                                                   memory_order_acq_rel, memory_order_relaxed);
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
            pool_meta_free(pool, holder_of(list, record), list->record_size);
        }
    }
    list->live = list->free = NULL;
}
