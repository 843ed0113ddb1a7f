/* SPDX-License-Identifier: MIT */
/* Traces: measured, linked, published and released; their records. */
#include <config.h>

#include "link/trace.h"

#include "error.h"
#include "link/plan.h"
#include "memory/fallback.h"
#include "memory/handle.h"

#include <stdlib.h>
#include <string.h>

enum {
    RECORDS = 64,          /* in a block */
    NEEDS_INLINE = 32
};

#define SIZE_LIMIT ((size_t) 1 << 30) /* of code, of data: no region is larger */

struct trace_block {
    struct trace_block *next;
    struct trace traces[RECORDS];
};

pp_trace *trace_handle(const struct code_place *place)
{
    return (pp_trace *) code_handle(place->start, place->generation);
}

/* ---- records ---------------------------------------------------------- */

static void free_name(pp_pool *pool, struct trace *trace)
{
    char *name = atomic_exchange_explicit(&trace->name, NULL, memory_order_relaxed);

    if (name != NULL)
        pool_meta_free(pool, name, strlen(name) + 1);
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
    char *copy = NULL;

    if (name != NULL) {
        size_t bytes = strlen(name) + 1;
        copy = pool_meta_alloc(pool, bytes);
        if (copy == NULL)
            return NULL;
        memcpy(copy, name, bytes);
    }
    pool_lock(pool);
    struct trace *trace = take_record_locked(link, pool);
    pool_unlock(pool);
    if (trace != NULL)
        atomic_store_explicit(&trace->name, copy, memory_order_relaxed);
    else if (copy != NULL)
        pool_meta_free(pool, copy, strlen(copy) + 1);
    return trace;
}

void trace_discard(struct link *link, pp_pool *pool, struct trace *trace)
{
    free_name(pool, trace);
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
static void count(struct link *link, const struct trace *trace, bool add)
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

pp_trace *trace_publish(struct link *link, struct trace *trace, const struct span *span,
                        const struct plan *plan, struct island_user *user,
                        const pp_trace_desc *desc)
{
    pp_pool *pool = span->region->pool;
    struct code_place place = { .start = span->exec, .generation = span_generation(span) };

    trace->span = *span;
    trace->generation = place.generation;
    trace->user = user;
    trace->bytes = plan->bytes;
    trace->far_trampolines = plan->far_trampolines;
    atomic_store_explicit(&trace->entry, span->exec + desc->entry, memory_order_relaxed);
    atomic_store_explicit(&trace->host, desc->host, memory_order_relaxed);
    atomic_store_explicit(&trace->code_size, plan->code_size, memory_order_relaxed);
    pool_lock(pool);
    trace->live = true;
    trace->holds = 0;
    atomic_fetch_add_explicit(&link->traces, 1, memory_order_relaxed);
    count(link, trace, true);
    /* Under the lock, so that nobody who holds it finds an owner that is not live. */
    span_set_owner(span, &trace->owner);
    pool_unlock(pool);
    return trace_handle(&place);
}

/* ---- measuring and linking ------------------------------------------------- */

static bool is_power_of_two(size_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

static pp_status validate(const pp_trace_desc *desc)
{
    pp_error *error = desc->error;

    if (desc->code == NULL || desc->code_size == 0)
        return error_set(error, PP_E_ARG, "a trace has at least one byte of code");
    if (desc->data_size != 0 && desc->data == NULL)
        return error_set(error, PP_E_ARG, "data is null, but data_size is not 0");
    if (desc->code_size > SIZE_LIMIT || desc->data_size > SIZE_LIMIT)
        return error_set(error, PP_E_NOMEM, "a trace of %zu + %zu bytes fits no region",
                         desc->code_size, desc->data_size);
    if (desc->align != 0 && (!is_power_of_two(desc->align) || desc->align < 16 ||
                             desc->align > 65536))
        return error_set(error, PP_E_ARG, "align is not a power of two from 16 to 65536");
    if (desc->data_align != 0 && (!is_power_of_two(desc->data_align) || desc->data_align > 4096))
        return error_set(error, PP_E_ARG, "data_align is not a power of two up to 4096");
    if (desc->reloc_count != 0 && desc->relocs == NULL)
        return error_set(error, PP_E_ARG, "relocs is null, but reloc_count is not 0");
    if (desc->entry >= desc->code_size || !isa_is_aligned(&isa_host, desc->entry))
        return error_set(error, PP_E_ARG, "the entry is not an instruction of the code");
    if ((desc->flags & ~(uint32_t) PP_TRACE_OWN_TRAMPOLINES) != 0)
        return error_set(error, PP_E_ARG, "unknown flags");
    return PP_OK;
}

/* All that linking and measuring have in common before a place is looked for. */
static pp_status prepare(pp_pool *pool, const pp_trace_desc *desc, struct plan *plan,
                         struct frame_rule *rule, struct link **link)
{
    pp_status status = validate(desc);

    if (status == PP_OK)
        status = frame_rule_from(desc->frame, rule, desc->error);
    if (status != PP_OK)
        return status;
    *link = link_of(pool);
    if (*link == NULL)
        return error_set(desc->error, PP_E_NOMEM, "no memory for the pool's symbols");
    return plan_open(plan, pool, *link, desc, desc->code, desc->code_size, false);
}

static size_t span_align(const pp_trace_desc *desc)
{
    size_t align = desc->align != 0 ? desc->align : 16;

    return desc->data_size != 0 && desc->data_align > align ? desc->data_align : align;
}

static struct island_need *needs_alloc(const struct plan *plan, struct island_need *few)
{
    if (plan->shared_count <= NEEDS_INLINE)
        return few;
    return pool_meta_alloc(plan->pool, plan->shared_count * sizeof *few);
}

static void needs_free(const struct plan *plan, struct island_need *needs, struct island_need *few)
{
    if (needs != few)
        pool_meta_free(plan->pool, needs, plan->shared_count * sizeof *needs);
}

/* What the island would have to make, and whether it can. */
static pp_status count_shared(struct plan *plan, struct region *region, bool *fits)
{
    struct island_need few[NEEDS_INLINE], *needs = needs_alloc(plan, few);

    if (needs == NULL)
        return error_set(plan->error, PP_E_NOMEM, "no memory for the symbols of a trace");
    plan_needs(plan, needs);
    plan->bytes.shared_new = island_count_new(region, needs, plan->shared_count, fits);
    needs_free(plan, needs, few);
    return PP_OK;
}

/*
 * What the trace takes in this region.  If it is known that an island is full: with
 * trampolines of its own the trace does not depend on it, unless it has symbols
 * that move; then it belongs in another region.
 */
static pp_status plan_in(struct plan *plan, struct region *region)
{
    bool fits = true;

    plan->own = plan->wants_own;
    pp_status status = plan_place(plan, region);
    if (status != PP_OK || plan->shared_count == 0 || !(plan->careful || plan->own))
        return status;
    status = count_shared(plan, region, &fits);
    if (status == PP_OK && !fits && !plan->own) {
        plan->own = true;
        status = plan_place(plan, region);
        if (status == PP_OK)
            status = count_shared(plan, region, &fits);
    }
    return status == PP_OK && !fits ? REGION_FULL : status;
}

static pp_status measure_span(struct region *region, void *context, size_t *size)
{
    struct plan *plan = context;
    pp_status status = plan_in(plan, region);

    *size = plan->bytes.total;
    return status;
}

pp_status trace_take_shared(struct link *link, struct plan *plan, struct region *region,
                            uintptr_t exec, struct island_user **user)
{
    struct island_need few[NEEDS_INLINE], *needs = needs_alloc(plan, few);
    pp_status status = PP_OK;

    *user = NULL;
    if (needs == NULL)
        return error_set(plan->error, PP_E_NOMEM, "no memory for the symbols of a trace");
    plan_needs(plan, needs);
    if (plan->shared_count != 0)
        status = island_take(region, link, needs, plan->shared_count, user,
                             &plan->bytes.shared_new, plan->error);
    if (status == PP_OK)
        plan_locate(plan, exec, needs);
    needs_free(plan, needs, few);
    return status;
}

/* Write and relocate a span that nobody else knows of; `written`: not as it was allocated. */
static pp_status fill(const struct plan *plan, const struct span *span, bool *written)
{
    const pp_trace_desc *desc = plan->desc;
    uint8_t *write;
    pp_status status =
        region_write_begin(span->region, span->exec, span->size, &write, plan->error);

    *written = status == PP_OK;
    if (status != PP_OK)
        return status;
    memset(write, 0, plan->bytes.total);
    memcpy(write, desc->code, desc->code_size);
    if (desc->data_size != 0)
        memcpy(write + plan->data_at, desc->data, desc->data_size);
    status = plan_write_own(plan, write, span->exec);
    if (status == PP_OK)
        status = plan_relocate(plan, write, span->exec);
    pp_status ended = region_write_end(span->region, span->exec, span->size,
                                       status == PP_OK ? plan->error : NULL);
    return status != PP_OK ? status : ended;
}

/* A span with all that the plan needs, filled; on failure nothing is left of it. */
static pp_status place_and_fill(struct link *link, struct plan *plan,
                                const struct frame_rule *rule, struct span *span,
                                struct island_user **user)
{
    pp_pool *pool = plan->pool;
    pp_status status;
    bool written = false;

    for (;;) {
        status = pool_alloc(pool, rule, span_align(plan->desc), measure_span, plan, span,
                            plan->error);
        if (status != PP_OK)
            return status;
        status = trace_take_shared(link, plan, span->region, span->exec, user);
        if (status != PP_E_RANGE)
            break;
        /* The island is full, or became so: look closer. */
        pool_unalloc(span);
        plan->careful = true;
    }
    if (status == PP_OK && plan->own && !plan->wants_own)
        pool_note_fallback(pool, PP_FALLBACK_ISLAND, "the island of the region at %#zx is full",
                           (size_t) span->region->base);
    if (status == PP_OK)
        status = fill(plan, span, &written);
    if (status == PP_OK)
        return PP_OK;
    if (*user != NULL)
        island_drop(span->region, link, *user);
    if (written)
        pool_discard(span);
    else
        pool_unalloc(span);
    return status;
}

/*
 * Looking for a place finds the region in which a link would end; instead of the
 * trace a single byte is placed there, and given back.
 */
static pp_status measure_byte(struct region *region, void *context, size_t *size)
{
    struct plan *plan = context;
    pp_status status = plan_in(plan, region);

    /* What does not fit is asked for in full, so that the search goes on to the next region. */
    bool fits = plan->bytes.total <= atomic_load_explicit(&region->room, memory_order_relaxed);
    *size = fits ? 1 : plan->bytes.total;
    return status;
}

pp_status pp_trace_measure(pp_pool *pool, const pp_trace_desc *desc, pp_trace_size *size)
{
    struct frame_rule rule;
    struct link *link;
    struct plan plan;
    struct span span;

    if (pool == NULL || desc == NULL || desc->size < sizeof *desc || size == NULL ||
        size->size < sizeof *size)
        return PP_E_ARG;
    pp_status status = prepare(pool, desc, &plan, &rule, &link);
    if (status != PP_OK)
        return status;
    plan.careful = true;
    status = pool_alloc(pool, &rule, 16, measure_byte, &plan, &span, desc->error);
    if (status == PP_OK)
        pool_unalloc(&span);
    if (status == PP_OK) {
        size_t known = size->size;
        *size = plan.bytes;
        size->size = known;
    }
    plan_close(&plan);
    return status;
}

pp_status pp_trace_link(pp_pool *pool, const pp_trace_desc *desc, pp_trace **result)
{
    struct frame_rule rule;
    struct link *link;
    struct plan plan;
    struct span span;
    struct island_user *user;

    if (pool == NULL || desc == NULL || desc->size < sizeof *desc || result == NULL)
        return PP_E_ARG;
    pp_status status = prepare(pool, desc, &plan, &rule, &link);
    if (status != PP_OK)
        return status;
    struct trace *trace = trace_new(link, pool, desc->name);
    if (trace == NULL) {
        status = error_set(desc->error, PP_E_NOMEM, "no memory for the record of a trace");
    } else {
        status = place_and_fill(link, &plan, &rule, &span, &user);
        if (status == PP_OK)
            *result = trace_publish(link, trace, &span, &plan, user, desc);
        else
            trace_discard(link, pool, trace);
    }
    plan_close(&plan);
    return status;
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
    struct island_user *user = trace->user;
    trace->user = NULL;
    if (user != NULL)
        island_drop(trace->span.region, link, user);
    count(link, trace, false);
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
            if (trace->user != NULL)
                island_drop(trace->span.region, link, trace->user);
            free_name(pool, trace);
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
