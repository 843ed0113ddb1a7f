/* SPDX-License-Identifier: MIT */
/* Traces: their records, published and released. */
#include <config.h>

#include "link/trace.h"

#include "error.h"
#include "link/plan.h"
#include "memory/handle.h"

#include <stdlib.h>
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

pp_trace *trace_handle(const struct code_place *place)
{
    return (pp_trace *) code_handle(place->start, place->generation);
}

/* ---- records ---------------------------------------------------------- */

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

static struct trace *take_record_locked(struct link *link, pp_pool *pool)
{
    if (link->free_traces == NULL) {
        struct trace_block *block = pool_meta_alloc(pool, sizeof *block);
        if (block == NULL)
            return NULL;
        block->next = link->blocks;
        link->blocks = block;
        for (size_t i = RECORDS; i-- > 0;) {
            block->traces[i].owner.kind = OWNER_TRACE;
            block->traces[i].retired.is_trace = true;
            block->traces[i].next_free = link->free_traces;
            link->free_traces = &block->traces[i];
        }
    }
    struct trace *trace = link->free_traces;
    link->free_traces = trace->next_free;
    return trace;
}

struct trace *trace_new(struct link *link, pp_pool *pool, const char *name)
{
    pool_lock(pool);
    struct trace *trace = take_record_locked(link, pool);
    pool_unlock(pool);
    if (trace != NULL && !set_name(pool, trace, name)) {
        trace_discard(link, pool, trace);
        trace = NULL;
    }
    return trace;
}

void trace_discard(struct link *link, pp_pool *pool, struct trace *trace)
{
    drop_rooms(pool, trace, NAME_KEPT, REFS_KEPT);
    pool_lock(pool);
    trace->next_free = link->free_traces;
    link->free_traces = trace;
    pool_unlock(pool);
}

const char *trace_name(const struct trace *trace)
{
    return atomic_load_explicit(&trace->name, memory_order_relaxed);
}

void *trace_host(const struct trace *trace)
{
    return atomic_load_explicit(&trace->host, memory_order_relaxed);
}

size_t trace_code_size(const struct trace *trace)
{
    return atomic_load_explicit(&trace->code_size, memory_order_relaxed);
}

size_t code_bytes_at(const struct code_place *place)
{
    if (place->owner == NULL)
        return 0;
    switch (place->owner->kind) {
    case OWNER_TRACE: return trace_code_size(trace_of(place));
    case OWNER_SPAN:
    case OWNER_SPAN_RETIRED: return place->size;
    default: return 0;
    }
}

/* ---- counts ----------------------------------------------------------- */

/* What lies inside the trace; shared things are counted by the island. */
static void add_up(struct link *link, const struct trace *trace, bool add)
{
    const pp_trace_size *bytes = &trace->bytes;
    size_t sign = add ? 1 : (size_t) -1, pairs = bytes->trampolines - trace->far_trampolines;
    size_t of_trampolines = pairs * sizeof(uint64_t);

    atomic_fetch_add_explicit(&link->trampolines, sign * bytes->trampolines,
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&link->trampoline_bytes,
                              sign * (bytes->trampoline_bytes + of_trampolines),
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&link->literals, sign * (bytes->literals - pairs),
                              memory_order_relaxed);
    atomic_fetch_add_explicit(&link->literal_bytes, sign * (bytes->literal_bytes - of_trampolines),
                              memory_order_relaxed);
}

void trace_describe(struct trace *trace, const struct span *span, const struct plan *plan)
{
    const pp_trace_desc *desc = plan->desc;

    trace->span = *span;
    trace->generation = span_generation(span);
    trace->bytes = plan->bytes;
    trace->far_trampolines = plan->far_trampolines;
    atomic_store_explicit(&trace->entry, span->exec + desc->entry, memory_order_relaxed);
    atomic_store_explicit(&trace->host, desc->host, memory_order_relaxed);
    atomic_store_explicit(&trace->code_size, plan->code_size, memory_order_relaxed);
}

void trace_publish(struct link *link, pp_pool *pool, struct trace *const *traces, size_t count,
                   pp_trace **handles)
{
    pool_lock(pool);
    for (size_t i = 0; i < count; i++) {
        struct trace *trace = traces[i];
        trace->live = true;
        trace->holds = 0;
        atomic_fetch_add_explicit(&link->traces, 1, memory_order_relaxed);
        add_up(link, trace, true);
        /* Under the lock, so that nobody who holds it finds an owner that is not live. */
        span_set_owner(&trace->span, &trace->owner);
        handles[i] = (pp_trace *) code_handle(trace->span.exec, trace->generation);
    }
    pool_unlock(pool);
}

/* ---- releasing -------------------------------------------------------- */

/*
 * The published trace of a handle, with pool_lock held in case of success only.
 * A record is published and withdrawn under this lock, so it stays what it is.
 */
static pp_status lock_trace(pp_pool *pool, const pp_trace *handle, struct trace **trace)
{
    struct code_place place;

    pool_lock(pool);
    pp_status status = code_handle_find((uintptr_t) handle, &place);
    if (status == PP_OK && place.region->pool != pool)
        status = PP_E_FAULT;
    if (status == PP_OK && (trace_of(&place) == NULL || !trace_of(&place)->live))
        status = PP_E_STALE;
    if (status != PP_OK) {
        pool_unlock(pool);
        return status;
    }
    *trace = trace_of(&place);
    return PP_OK;
}

pp_status trace_withdraw(pp_pool *pool, const pp_trace *handle, struct trace **result)
{
    struct trace *trace;

    pp_status status = lock_trace(pool, handle, &trace);
    if (status != PP_OK)
        return status;
    if (trace->holds != 0) {
        pool_unlock(pool);
        return PP_E_BUSY;
    }
    trace->live = false;
    atomic_fetch_sub_explicit(&link_of(pool)->traces, 1, memory_order_relaxed);
    *result = trace;
    return PP_OK;
}

pp_status trace_end(pp_pool *pool, struct trace *trace)
{
    struct link *link = link_of(pool);
    pp_status status;

    /* Whoever looks finds no record from here on: the next trace may have it. */
    span_set_owner(&trace->span, NULL);
    status = pool_free(pool, trace->span.exec);
    if (status != PP_OK) {
        span_set_owner(&trace->span, &trace->owner);
        return status;
    }
    island_drop(trace->span.region, link, trace->user);
    add_up(link, trace, false);
    trace_discard(link, pool, trace);
    return PP_OK;
}

pp_status pp_trace_free(pp_pool *pool, pp_trace *handle)
{
    struct trace *trace;

    if (pool == NULL)
        return PP_E_ARG;
    pp_status status = trace_withdraw(pool, handle, &trace);
    if (status != PP_OK)
        return status;
    pool_unlock(pool);
    status = trace_end(pool, trace);
    if (status != PP_OK) {
        pool_lock(pool);
        trace->live = true;
        atomic_fetch_add_explicit(&link_of(pool)->traces, 1, memory_order_relaxed);
        pool_unlock(pool);
    }
    return status;
}

pp_status trace_hold(pp_pool *pool, uintptr_t code, pp_trace **handle)
{
    struct code_place place;
    struct trace *trace;

    if (!code_at(code, &place) || trace_of(&place) == NULL)
        return PP_E_FAULT;
    *handle = trace_handle(&place);
    if (lock_trace(pool, *handle, &trace) != PP_OK)
        return PP_E_FAULT;
    bool in_code = code - place.start < trace_code_size(trace);
    trace->holds += in_code;
    pool_unlock(pool);
    return in_code ? PP_OK : PP_E_FAULT;
}

void trace_release(pp_pool *pool, pp_trace *handle)
{
    struct trace *trace;

    if (lock_trace(pool, handle, &trace) != PP_OK)
        return;
    trace->holds--;
    pool_unlock(pool);
}

/* ---- looking ---------------------------------------------------------- */

static bool find_published(const pp_trace *handle, struct code_place *place)
{
    return code_handle_find((uintptr_t) handle, place) == PP_OK && trace_of(place) != NULL;
}

const void *pp_trace_entry(const pp_trace *handle)
{
    struct code_place place;

    if (!find_published(handle, &place))
        return NULL;
    const struct trace *trace = trace_of(&place);
    if (trace_is_retired(trace))
        return NULL;
    uintptr_t entry = atomic_load_explicit(&trace->entry, memory_order_relaxed);
    return code_place_holds(&place) ? (const void *) entry : NULL;
}

void *pp_trace_host(const pp_trace *handle)
{
    struct code_place place;

    if (!find_published(handle, &place))
        return NULL;
    void *host = trace_host(trace_of(&place));
    return code_place_holds(&place) ? host : NULL;
}

pp_trace *pp_trace_at(const void *address)
{
    struct code_place place;

    if (!code_at((uintptr_t) address, &place) || trace_of(&place) == NULL)
        return NULL;
    return trace_handle(&place);
}

pp_status pp_trace_get_size(const pp_trace *handle, pp_trace_size *size)
{
    struct code_place place;
    struct trace *trace;

    if (handle == NULL || size == NULL || size->size < sizeof *size)
        return PP_E_ARG;
    pp_status status = code_handle_find((uintptr_t) handle, &place);
    if (status != PP_OK)
        return status;
    pp_pool *pool = place.region->pool;
    status = lock_trace(pool, handle, &trace);
    if (status != PP_OK)
        return status;
    size_t known = size->size;
    *size = trace->bytes;
    size->size = known;
    pool_unlock(pool);
    return PP_OK;
}

/* ---- the room --------------------------------------------------------- */

void trace_close_all(struct link *link, pp_pool *pool)
{
    while (link->blocks != NULL) {
        struct trace_block *block = link->blocks;
        for (size_t i = 0; i < RECORDS; i++) {
            struct trace *trace = &block->traces[i];
            island_drop(trace->span.region, link, trace->user);
            drop_rooms(pool, trace, 0, 0);
        }
        link->blocks = block->next;
        pool_meta_free(pool, block, sizeof *block);
    }
    link->free_traces = NULL;
}

static pp_status verify_trace(const struct trace *trace, pp_error *error)
{
    const pp_trace_size *bytes = &trace->bytes;
    struct code_place place;

    if (!code_at(trace->span.exec, &place) || trace_of(&place) != trace ||
        place.start != trace->span.exec || place.generation != trace->generation)
        return error_set(error, PP_E_FAULT, "a trace at %#zx is not the owner of its span",
                         (size_t) trace->span.exec);
    if (bytes->code + bytes->data + bytes->trampoline_bytes + bytes->literal_bytes +
            bytes->padding != bytes->total || bytes->total != trace->span.size)
        return error_set(error, PP_E_FAULT, "the sizes of a trace at %#zx do not add up",
                         (size_t) trace->span.exec);
    return PP_OK;
}

pp_status trace_verify_all(struct link *link, pp_pool *pool, pp_error *error)
{
    pp_status status = PP_OK;
    struct region *last = NULL;

    pool_lock(pool);
    for (struct trace_block *block = link->blocks; block != NULL; block = block->next) {
        for (size_t i = 0; i < RECORDS && status == PP_OK; i++) {
            const struct trace *trace = &block->traces[i];
            if (!trace->live && !trace_is_retired(trace))
                continue;
            status = verify_trace(trace, error);
            /* Neighbours mostly share a region; checking one twice does no harm. */
            if (status == PP_OK && trace->span.region != last) {
                last = trace->span.region;
                status = island_verify(last, link, error);
            }
        }
    }
    pool_unlock(pool);
    return status;
}
