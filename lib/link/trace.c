/* SPDX-License-Identifier: MIT */
/* Traces: their records, published and released. */
#include <config.h>

#include "link/trace.h"

#include "error.h"
#include "link/plan.h"
#include "memory/handle.h"

pp_trace *trace_handle(const struct code_place *place)
{
    return (pp_trace *) code_place_handle(place);
}

/* ---- what a record says ------------------------------------------------ */

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

static void set_live_locked(struct trace *trace, bool live)
{
    atomic_store_explicit(&trace->live, live, memory_order_relaxed);
    count_add(&trace->shelf->counts.traces, live ? 1 : (size_t) -1);
}

void trace_describe(struct trace *trace, const struct span *span, const struct plan *plan,
                    const struct frame_rule *rule)
{
    const pp_trace_desc *desc = plan->desc;

    owner_set_rule(&trace->owner, rule);
    trace->span = *span;
    trace->generation = span_generation(span);
    trace->bytes = plan->bytes;
    trace->far_trampolines = plan->far_trampolines;
    atomic_store_explicit(&trace->entry, span->exec + desc->entry, memory_order_relaxed);
    atomic_store_explicit(&trace->host, desc->host, memory_order_relaxed);
    atomic_store_explicit(&trace->code_size, plan->code_size, memory_order_relaxed);
}

void trace_publish(struct trace *const *traces, size_t count, pp_trace **handles)
{
    for (size_t i = 0; i < count; i++) {
        struct trace *trace = traces[i];
        handles[i] = (pp_trace *) code_handle(trace->span.region, trace->span.exec,
                                              trace->generation);
        /* Under the lock, so that nobody who holds it finds an owner that is not live. */
        pthread_mutex_lock(&trace->shelf->lock);
        trace->holds = 0;
        shelf_count_locked(trace, true);
        set_live_locked(trace, true);
        span_set_owner(&trace->span, &trace->owner);
        pthread_mutex_unlock(&trace->shelf->lock);
    }
}

/* ---- releasing -------------------------------------------------------- */

/*
 * The published trace of a handle, with its shelf's lock held in case of success only.
 * A record is published and withdrawn under this lock, so it stays what it is.
 */
static pp_status lock_trace(pp_pool *pool, const pp_trace *handle, struct trace **result)
{
    struct code_place place;

    pp_status status = code_handle_find((uintptr_t) handle, &place);
    if (status != PP_OK)
        return status;
    if (place.region->pool != pool)
        return PP_E_FAULT;
    struct trace *trace = trace_of(&place);
    if (trace == NULL)
        return PP_E_STALE;
    pthread_mutex_lock(&trace->shelf->lock);
    /* Until then it may have become another's record. */
    if (!trace_is_live(trace) || !code_place_holds(&place)) {
        pthread_mutex_unlock(&trace->shelf->lock);
        return PP_E_STALE;
    }
    *result = trace;
    return PP_OK;
}

static void unlock_trace(struct trace *trace)
{
    pthread_mutex_unlock(&trace->shelf->lock);
}

pp_status trace_withdraw(pp_pool *pool, const pp_trace *handle, struct trace **result)
{
    struct trace *trace;

    pp_status status = lock_trace(pool, handle, &trace);
    if (status != PP_OK)
        return status;
    if (trace->holds != 0)
        status = PP_E_BUSY;
    else
        set_live_locked(trace, false);
    unlock_trace(trace);
    if (status == PP_OK)
        *result = trace;
    return status;
}

pp_status trace_end(pp_pool *pool, struct trace *trace)
{
    pp_status status;

    /* Whoever looks finds no record from here on: the next trace may have it. */
    span_set_owner(&trace->span, NULL);
    status = pool_free(pool, trace->span.exec);
    if (status != PP_OK) {
        span_set_owner(&trace->span, &trace->owner);
        return status;
    }
    island_drop(trace->span.region, link_of(pool), trace->user);
    shelves_give(pool, trace, true);
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
    status = trace_end(pool, trace);
    if (status != PP_OK) {
        pthread_mutex_lock(&trace->shelf->lock);
        set_live_locked(trace, true);
        unlock_trace(trace);
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
    unlock_trace(trace);
    return in_code ? PP_OK : PP_E_FAULT;
}

void trace_release(pp_pool *pool, pp_trace *handle)
{
    struct trace *trace;

    if (lock_trace(pool, handle, &trace) != PP_OK)
        return;
    trace->holds--;
    unlock_trace(trace);
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
    status = lock_trace(place.region->pool, handle, &trace);
    if (status != PP_OK)
        return status;
    size_t known = size->size;
    *size = trace->bytes;
    size->size = known;
    unlock_trace(trace);
    return PP_OK;
}

/* ---- checking --------------------------------------------------------- */

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

struct verification {
    struct link *link;
    struct region *last; /* whose island was looked at */
    pp_error *error;
    pp_status status;
};

static bool look(struct trace *trace, void *context)
{
    struct verification *all = context;

    if (!trace_is_live(trace) && !trace_is_retired(trace))
        return true;
    all->status = verify_trace(trace, all->error);
    /* Neighbours mostly share a region; checking one twice does no harm. */
    if (all->status == PP_OK && trace->span.region != all->last) {
        all->last = trace->span.region;
        all->status = island_verify(all->last, all->link, all->error);
    }
    return all->status == PP_OK;
}

/* Retirement is under pool_lock. */
pp_status trace_verify_all(struct link *link, pp_pool *pool, pp_error *error)
{
    struct verification all = { .link = link, .error = error };

    pool_lock(pool);
    shelves_lock(&link->shelves);
    for (unsigned i = 0; i < SHELVES && all.status == PP_OK; i++)
        shelf_each_locked(&link->shelves.each[i], look, &all);
    shelves_unlock(&link->shelves);
    pool_unlock(pool);
    return all.status;
}
