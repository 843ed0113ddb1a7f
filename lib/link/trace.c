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
    if (!owner_may_run(place->owner))
        return 0;
    const struct trace *trace = trace_of(place);
    return trace != NULL ? trace_code_size(trace) : place->size;
}

/* ---- counts ----------------------------------------------------------- */

static void count_locked(const struct trace *trace, bool add)
{
    count_add(&trace->shelf->counts.traces, add ? 1 : (size_t) -1);
}

void trace_describe(struct trace *trace, const struct span *span, const struct plan *plan,
                    const struct frame_rule *rule)
{
    const pp_trace_desc *desc = plan->desc;

    owner_set_rule(&trace->owner, rule);
    owner_set_rule(&trace->retired_owner, rule);
    trace->span = *span;
    trace->generation = span->generation;
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
        /* Under the lock, so that a thread that holds it finds the record and its span agree. */
        pthread_mutex_lock(&trace->shelf->lock);
        trace->holds = 0;
        shelf_count_locked(trace, true);
        count_locked(trace, true);
        trace->published = true;
        span_set_owner(&trace->span, &trace->owner);
        pthread_mutex_unlock(&trace->shelf->lock);
    }
}

/* ---- giving up -------------------------------------------------------- */

/*
 * The live trace of a handle, with its shelf's lock held in case of success only.
 * It stays live until a thread that holds this lock changes that.
 */
static pp_status lock_trace(pp_pool *pool, const pp_trace *handle, struct trace **result)
{
    struct code_place place;

    pp_status status = code_handle_find((uintptr_t) handle, &place);
    if (status != PP_OK)
        return status;
    if (place.region->pool != pool)
        return PP_E_FAULT;
    struct trace *trace = trace_live(&place);
    if (trace == NULL)
        return PP_E_STALE;
    pthread_mutex_lock(&trace->shelf->lock);
    /* Until then it may have been given up, and the record be another trace's. */
    if (!code_place_holds(&place)) {
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

/* The same for a trace that is to be given up: PP_E_BUSY if something holds it. */
static pp_status lock_unheld(pp_pool *pool, const pp_trace *handle, struct trace **result)
{
    pp_status status = lock_trace(pool, handle, result);
    if (status == PP_OK && (*result)->holds != 0) {
        unlock_trace(*result);
        return PP_E_BUSY;
    }
    return status;
}

pp_status trace_retire_locked(pp_pool *pool, const pp_trace *handle, uintptr_t leads,
                              struct trace **result)
{
    pp_status status = lock_unheld(pool, handle, result);
    if (status != PP_OK)
        return status;
    struct trace *trace = *result;
    /* Before the owner, by which a search of stacks finds them. */
    atomic_store_explicit(&trace->retired.ticket, NO_TICKET, memory_order_relaxed);
    trace->retired.leads = leads;
    span_set_owner(&trace->span, &trace->retired_owner);
    count_locked(trace, false);
    unlock_trace(trace);
    return PP_OK;
}

/* ---- releasing -------------------------------------------------------- */

static pp_status free_code(const struct trace *trace, const struct owner *owner)
{
    const struct code_place place = { .region = trace->span.region, .start = trace->span.exec,
                                      .owner = owner, .generation = trace->generation };
    return pool_free_at(&place, NULL);
}

/*
 * The code of a trace goes; the lock of its shelf, which is held, is given up.  Where the
 * kernel may refuse that, the lock is held meanwhile: then the trace is what it was all
 * along, and nobody saw it go and come back.  Elsewhere it has gone before its first
 * byte changes.
 */
static pp_status free_code_locked(struct trace *trace, bool live)
{
    const struct owner *owner = live ? &trace->owner : &trace->retired_owner;
    bool refusable = trace->span.region->wx == PP_WX_FLIP;

    if (refusable) {
        pp_status status = free_code(trace, owner);
        if (status != PP_OK) {
            unlock_trace(trace);
            return status;
        }
    }
    if (!refusable && live)
        span_set_owner(&trace->span, NULL);
    trace->published = false;
    if (live)
        count_locked(trace, false);
    unlock_trace(trace);
    return refusable ? PP_OK : free_code(trace, live ? NULL : owner);
}

/* With the lock of its shelf, which is given up. */
static pp_status end_locked(pp_pool *pool, struct trace *trace, bool live)
{
    pp_status status = free_code_locked(trace, live);
    if (status != PP_OK)
        return status;
    island_drop(trace->span.region, link_of(pool), trace->user);
    shelves_give(pool, trace, true);
    return PP_OK;
}

pp_status trace_end(pp_pool *pool, struct trace *trace)
{
    pthread_mutex_lock(&trace->shelf->lock);
    return end_locked(pool, trace, false);
}

pp_status pp_trace_free(pp_pool *pool, pp_trace *handle)
{
    struct trace *trace;

    if (pool == NULL)
        return PP_E_ARG;
    pp_status status = lock_unheld(pool, handle, &trace);
    return status == PP_OK ? end_locked(pool, trace, true) : status;
}

/* ---- holding ---------------------------------------------------------- */

pp_status trace_hold(pp_pool *pool, uintptr_t code, pp_trace **handle)
{
    struct code_place place;
    struct trace *trace;

    if (!code_at(code, &place) || trace_live(&place) == NULL)
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

const void *pp_trace_entry(const pp_trace *handle)
{
    struct code_place place;

    if (code_handle_find((uintptr_t) handle, &place) != PP_OK || trace_live(&place) == NULL)
        return NULL;
    uintptr_t entry = atomic_load_explicit(&trace_live(&place)->entry, memory_order_relaxed);
    return code_place_holds(&place) ? (const void *) entry : NULL;
}

/* Also of a retired trace, and of one that is retired between the two looks. */
void *pp_trace_host(const pp_trace *handle)
{
    struct code_place place;

    if (code_handle_find((uintptr_t) handle, &place) != PP_OK || trace_of(&place) == NULL)
        return NULL;
    void *host = trace_host(trace_of(&place));
    /* The record is no other trace's before its span is gone. */
    atomic_thread_fence(memory_order_acquire);
    bool same = code_handle_find((uintptr_t) handle, &place) == PP_OK && trace_of(&place) != NULL;
    return same ? host : NULL;
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

    if (!trace->published)
        return true;
    all->status = verify_trace(trace, all->error);
    /* Neighbours mostly share a region; checking one twice does no harm. */
    if (all->status == PP_OK && trace->span.region != all->last) {
        all->last = trace->span.region;
        all->status = island_verify(all->last, all->link, all->error);
    }
    return all->status == PP_OK;
}

/* Retirement is under pool_lock, all other changes of a trace's life under its shelf's. */
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
