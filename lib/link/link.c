/* SPDX-License-Identifier: MIT */
/* The link room: its state for a pool, and what it adds to the pool's own operations. */
#include <config.h>

#include "link/link.h"

#include "isa/isa.h"
#include "link/island.h"
#include "link/trace.h"
#include "memory/state.h"

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

static size_t load(const _Atomic size_t *count)
{
    return atomic_load_explicit(count, memory_order_relaxed);
}

static void add_shelf(const struct trace_counts *counts, pp_pool_stats *stats)
{
    size_t trampolines = load(&counts->trampolines);
    stats->traces += load(&counts->traces);
    stats->trampolines += trampolines;
    stats->trampoline_uses += trampolines;
    stats->trampoline_bytes += load(&counts->trampoline_bytes);
    stats->literals += load(&counts->literals);
    stats->literal_bytes += load(&counts->literal_bytes);
}

/* Shared trampolines have their literals. */
static void add_islands(pp_pool *pool, pp_pool_stats *stats)
{
    size_t shared = 0, uses = 0, literals = 0, slot_bytes = 0;

    for (const struct region *region = atomic_load_explicit(&pool->regions, memory_order_acquire);
         region != NULL; region = region->next) {
        const struct island *island = island_of(region);
        shared += load(&island->counts.trampolines);
        uses += load(&island->counts.uses);
        literals += load(&island->counts.literals);
        slot_bytes = island->slot_bytes;
    }
    stats->shared_trampolines += shared;
    stats->trampolines += shared;
    stats->trampoline_uses += uses;
    stats->trampoline_bytes += shared * (slot_bytes + sizeof(uint64_t));
    stats->trampoline_saved += bytes_saved(pool, shared, uses);
    stats->literals += literals;
    stats->literal_bytes += literals * sizeof(uint64_t);
}

static void room_add_stats(pp_pool *pool, pp_pool_stats *stats)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    if (link == NULL)
        return;
    spin_lock(&link->moving);
    stats->retargets += link->retargets;
    spin_unlock(&link->moving);
    for (unsigned i = 0; i < SHELVES; i++)
        add_shelf(&link->shelves.each[i].counts, stats);
    add_islands(pool, stats);
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
