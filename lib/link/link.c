/* SPDX-License-Identifier: MIT */
/* The link room: its state for a pool, and what it adds to the pool's own operations. */
#include <config.h>

#include "link/link.h"

#include "isa/isa.h"
#include "link/island.h"
#include "link/trace.h"

static struct link *link_open(pp_pool *pool)
{
    struct link *link = pool_meta_alloc(pool, sizeof *link);

    if (link == NULL)
        return NULL;
    if (symbol_table_open(&link->symbols, pool) != PP_OK) {
        pool_meta_free(pool, link, sizeof *link);
        return NULL;
    }
    shelves_open(&link->shelves);
    return link;
}

struct link *link_of(pp_pool *pool)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    if (link != NULL)
        return link;
    pool_lock(pool);
    link = pool_room_state(pool, ROOM_LINK);
    if (link == NULL) {
        link = link_open(pool);
        if (link != NULL)
            pool_set_room_state(pool, ROOM_LINK, link);
    }
    pool_unlock(pool);
    return link;
}

static void room_close(pp_pool *pool)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    if (link == NULL)
        return;
    shelves_close(&link->shelves, link, pool);
    symbol_table_close(&link->symbols, pool);
    pool_meta_free(pool, link, sizeof *link);
}

static void room_lock_first(pp_pool *pool)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    if (link != NULL)
        shelves_lock(&link->shelves);
}

static void room_unlock_last(pp_pool *pool)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    if (link != NULL)
        shelves_unlock(&link->shelves);
}

static void room_lock(pp_pool *pool)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    if (link != NULL)
        spin_lock(&link->moving);
}

static void room_unlock(pp_pool *pool)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    if (link != NULL)
        spin_unlock(&link->moving);
}

/* What as many trampolines in the traces would take, less what the shared ones take. */
static size_t bytes_saved(pp_pool *pool, size_t shared, size_t uses)
{
    bool pads = pool_landing_pads(pool);
    size_t own = isa_host.trampoline_size(TRAMPOLINE_NEAR, pads) + sizeof(uint64_t);
    size_t slot = isa_host.trampoline_size(TRAMPOLINE_ISLAND, pads) + sizeof(uint64_t);

    return uses * own > shared * slot ? uses * own - shared * slot : 0;
}

#define SUM(link, what) \
    sum(&(link)->shelves.each[0].counts.what, sizeof(struct shelf) / sizeof(size_t))

/* Of one count of all shelves, which are so far apart. */
static size_t sum(const _Atomic size_t *counts, size_t step)
{
    size_t all = 0;

    for (unsigned i = 0; i < SHELVES; i++)
        all += atomic_load_explicit(&counts[i * step], memory_order_relaxed);
    return all;
}

static void room_add_stats(pp_pool *pool, pp_pool_stats *stats)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    if (link == NULL)
        return;
    spin_lock(&link->moving);
    stats->retargets += link->retargets;
    spin_unlock(&link->moving);
    size_t shared = SUM(link, shared), uses = SUM(link, shared_uses);
    stats->traces += SUM(link, traces);
    stats->shared_trampolines += shared;
    stats->trampoline_saved += bytes_saved(pool, shared, uses);
    stats->trampoline_uses += SUM(link, trampolines) - shared + uses;
    stats->trampolines += SUM(link, trampolines);
    stats->trampoline_bytes += SUM(link, trampoline_bytes);
    stats->literals += SUM(link, literals);
    stats->literal_bytes += SUM(link, literal_bytes);
}

static pp_status room_verify(pp_pool *pool, pp_error *error)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    return link != NULL ? trace_verify_all(link, pool, error) : PP_OK;
}

const struct pool_room link_room = {
    .close = room_close,
    .lock_first = room_lock_first,
    .unlock_last = room_unlock_last,
    .lock = room_lock,
    .unlock = room_unlock,
    .region_open = island_open,
    .region_close = island_close,
    .add_stats = room_add_stats,
    .verify = room_verify,
};
