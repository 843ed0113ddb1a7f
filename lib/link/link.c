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
    trace_close_all(link, pool);
    symbol_table_close(&link->symbols, pool);
    pool_meta_free(pool, link, sizeof *link);
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

static void room_add_stats(pp_pool *pool, pp_pool_stats *stats)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    if (link == NULL)
        return;
    spin_lock(&link->moving);
    stats->retargets += link->retargets;
    spin_unlock(&link->moving);
    stats->traces += atomic_load_explicit(&link->traces, memory_order_relaxed);
    size_t shared = atomic_load_explicit(&link->shared, memory_order_relaxed);
    size_t uses = atomic_load_explicit(&link->shared_uses, memory_order_relaxed);
    stats->shared_trampolines += shared;
    stats->trampoline_saved += bytes_saved(pool, shared, uses);
    stats->trampoline_uses +=
        atomic_load_explicit(&link->trampolines, memory_order_relaxed) - shared + uses;
    stats->trampolines += atomic_load_explicit(&link->trampolines, memory_order_relaxed);
    stats->trampoline_bytes += atomic_load_explicit(&link->trampoline_bytes, memory_order_relaxed);
    stats->literals += atomic_load_explicit(&link->literals, memory_order_relaxed);
    stats->literal_bytes += atomic_load_explicit(&link->literal_bytes, memory_order_relaxed);
}

static pp_status room_verify(pp_pool *pool, pp_error *error)
{
    struct link *link = pool_room_state(pool, ROOM_LINK);

    return link != NULL ? trace_verify_all(link, pool, error) : PP_OK;
}

const struct pool_room link_room = {
    .close = room_close,
    .lock = room_lock,
    .unlock = room_unlock,
    .region_open = island_open,
    .region_close = island_close,
    .add_stats = room_add_stats,
    .verify = room_verify,
};
