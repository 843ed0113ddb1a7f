/* SPDX-License-Identifier: MIT */
/* Shelves.  Records are made in blocks and stay until the pool goes. */
#include <config.h>

#include "link/shelf.h"

#include "link/island.h"
#include "link/trace.h"
#include "os/processors.h"

#include <string.h>

enum {
    RECORDS = 64,   /* in a block */
    NAME_KEPT = 64, /* bytes of a name's memory that stays with a free record */
    REFS_KEPT = 32  /* references, the same */
};

struct trace_block {
    struct trace_block *next;
    struct trace traces[RECORDS];
};

/*
 * What hangs on a record stays there when the record is free, because most traces
 * are alike; what is unusually large goes back.
 */
static void drop_rooms(pp_pool *pool, struct trace *trace, uint32_t name_most, uint32_t refs_most)
{
    atomic_store_explicit(&trace->name, NULL, memory_order_relaxed);
    if (trace->name_bytes > name_most) {
        pool_meta_free(pool, trace->name_room, trace->name_bytes);
        trace->name_room = NULL;
        trace->name_bytes = 0;
    }
    if (trace->user != NULL && trace->user->room > refs_most) {
        island_user_free(pool, trace->user);
        trace->user = NULL;
    }
}

static bool set_name(pp_pool *pool, struct trace *trace, const char *name)
{
    size_t bytes = name != NULL ? strlen(name) + 1 : 0;

    if (bytes > UINT32_MAX)
        return false;
    if (bytes > trace->name_bytes) {
        size_t room = (bytes + 15) & ~(size_t) 15;
        char *memory = room <= UINT32_MAX ? pool_meta_alloc(pool, room) : NULL;
        if (memory == NULL)
            return false;
        pool_meta_free(pool, trace->name_room, trace->name_bytes);
        trace->name_room = memory;
        trace->name_bytes = (uint32_t) room;
    }
    if (bytes != 0) {
        memcpy(trace->name_room, name, bytes);
        atomic_store_explicit(&trace->name, trace->name_room, memory_order_relaxed);
    }
    return true;
}

bool trace_reserve_refs(pp_pool *pool, struct trace *trace, uint32_t count)
{
    if (count == 0 || (trace->user != NULL && trace->user->room >= count))
        return true;
    struct island_user *user = island_user_new(pool, (count + 7) & ~UINT32_C(7));
    if (user == NULL)
        return false;
    island_user_free(pool, trace->user);
    trace->user = user;
    return true;
}

static struct shelf *shelf_of_thread(struct shelves *shelves)
{
    return &shelves->each[thread_number(SHELVES_BITS)];
}

static bool grow_locked(struct shelf *shelf, pp_pool *pool)
{
    struct trace_block *block = pool_meta_alloc(pool, sizeof *block);
    if (block == NULL)
        return false;
    block->next = shelf->blocks;
    shelf->blocks = block;
    for (size_t i = RECORDS; i-- > 0;) {
        struct trace *trace = &block->traces[i];
        trace->owner.kind = OWNER_TRACE;
        trace->retired_owner.kind = OWNER_TRACE_RETIRED;
        trace->retired.is_trace = true;
        trace->shelf = shelf;
        trace->next_free = shelf->free;
        shelf->free = trace;
    }
    return true;
}

struct trace *shelves_take(struct shelves *shelves, pp_pool *pool, const char *name)
{
    struct shelf *shelf = shelf_of_thread(shelves);
    struct trace *trace = NULL;
    pthread_mutex_lock(&shelf->lock);
    if (shelf->free != NULL || grow_locked(shelf, pool)) {
        trace = shelf->free;
        shelf->free = trace->next_free;
    }
    pthread_mutex_unlock(&shelf->lock);
    if (trace != NULL && !set_name(pool, trace, name)) {
        shelves_give(pool, trace, false);
        trace = NULL;
    }
    return trace;
}

void shelf_count_locked(const struct trace *trace, bool add)
{
    struct trace_counts *counts = &trace->shelf->counts;
    const pp_trace_size *bytes = &trace->bytes;
    size_t sign = add ? 1 : (size_t) -1, pairs = bytes->trampolines - trace->far_trampolines;
    size_t of_trampolines = pairs * sizeof(uint64_t);

    count_add(&counts->trampolines, sign * bytes->trampolines);
    count_add(&counts->trampoline_bytes, sign * (bytes->trampoline_bytes + of_trampolines));
    count_add(&counts->literals, sign * (bytes->literals - pairs));
    count_add(&counts->literal_bytes, sign * (bytes->literal_bytes - of_trampolines));
}

void shelves_give(pp_pool *pool, struct trace *trace, bool counted)
{
    struct shelf *shelf = trace->shelf;
    drop_rooms(pool, trace, NAME_KEPT, REFS_KEPT);
    pthread_mutex_lock(&shelf->lock);
    if (counted)
        shelf_count_locked(trace, false);
    trace->next_free = shelf->free;
    shelf->free = trace;
    pthread_mutex_unlock(&shelf->lock);
}

/* ---- all of them ------------------------------------------------------ */

bool shelf_each_locked(struct shelf *shelf, bool (*look)(struct trace *trace, void *context),
                       void *context)
{
    for (struct trace_block *block = shelf->blocks; block != NULL; block = block->next) {
        for (size_t i = 0; i < RECORDS; i++) {
            if (!look(&block->traces[i], context))
                return false;
        }
    }
    return true;
}

void shelves_lock(struct shelves *shelves)
{
    for (unsigned i = 0; i < SHELVES; i++)
        pthread_mutex_lock(&shelves->each[i].lock);
}

void shelves_unlock(struct shelves *shelves)
{
    for (unsigned i = SHELVES; i-- > 0;)
        pthread_mutex_unlock(&shelves->each[i].lock);
}

void shelves_open(struct shelves *shelves)
{
    for (unsigned i = 0; i < SHELVES; i++)
        pthread_mutex_init(&shelves->each[i].lock, NULL);
}

static void close_shelf(struct shelf *shelf, struct link *link, pp_pool *pool)
{
    while (shelf->blocks != NULL) {
        struct trace_block *block = shelf->blocks;
        for (size_t i = 0; i < RECORDS; i++) {
            struct trace *trace = &block->traces[i];
            island_drop(trace->span.region, link, trace->user);
            drop_rooms(pool, trace, 0, 0);
        }
        shelf->blocks = block->next;
        pool_meta_free(pool, block, sizeof *block);
    }
    shelf->free = NULL;
    pthread_mutex_destroy(&shelf->lock);
}

void shelves_close(struct shelves *shelves, struct link *link, pp_pool *pool)
{
    for (unsigned i = 0; i < SHELVES; i++)
        close_shelf(&shelves->each[i], link, pool);
}
