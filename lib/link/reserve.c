/* SPDX-License-Identifier: MIT */
/*
 * Reservations: spans that a host fills in place before they become traces.
 *
 * A reservation is a span whose owner is that of reservations with its frame rule.  The
 * host's struct is not trusted: its handle leads to the span, as that of a trace does, and
 * all addresses are taken from there.  What is done with a reservation begins with a change of owner, for the
 * span of that generation alone: so of two calls one has it, and a handle that was committed
 * or abandoned is good for nothing, whatever became of the trace.
 */
#include <config.h>

#include "error.h"
#include "link/linker.h"
#include "link/trace.h"
#include "memory/handle.h"

#include <string.h>

enum { GRANULE = 16 };

static pp_status measure_capacity(struct region *region, void *context, size_t *size)
{
    (void) region;
    *size = *(const size_t *) context;
    return PP_OK;
}

pp_status pp_trace_reserve(pp_pool *pool, size_t capacity, const pp_frame_rule *frame,
                           pp_reservation *reservation, pp_error *error)
{
    struct frame_rule asked;
    const struct pool_rule *rule;
    struct span span;
    uint8_t *write;

    if (pool == NULL || reservation == NULL || reservation->size < sizeof *reservation)
        return error_set(error, PP_E_ARG, "a reservation needs a pool and a struct with its size");
    if (capacity == 0)
        return error_set(error, PP_E_ARG, "a reservation has at least one byte");
    if (capacity > (size_t) 1 << 30)
        return error_set(error, PP_E_NOMEM, "%zu bytes fit no region", capacity);
    pp_status status = frame_rule_from(frame, &asked, error);
    if (status == PP_OK)
        status = pool_find_rule(pool, &asked, &rule, error);
    if (status != PP_OK)
        return status;
    capacity = (capacity + GRANULE - 1) & ~(size_t) (GRANULE - 1);
    status = pool_alloc_for(pool, rule_owner(rule, OWNER_RESERVED), &rule->rule, GRANULE,
                            measure_capacity, &capacity, &span, error);
    if (status != PP_OK)
        return status;
    status = region_write_begin(span.region, span.exec, span.size, &write, error);
    if (status != PP_OK) {
        pool_unalloc(&span);
        return status;
    }
    reservation->write = write;
    reservation->execute = (const void *) span.exec;
    reservation->capacity = span.size;
    reservation->internal = (void *) code_handle(span.region, span.exec, span.generation);
    return PP_OK;
}

static pp_status find_reserved(pp_pool *pool, const pp_reservation *reservation,
                               struct span *span, const struct frame_rule **rule)
{
    struct code_place place;

    if (pool == NULL || reservation == NULL || reservation->size < sizeof *reservation)
        return PP_E_ARG;
    pp_status status = code_handle_find((uintptr_t) reservation->internal, &place);
    if (status != PP_OK)
        return status;
    if (place.region->pool != pool)
        return PP_E_FAULT;
    if (place.region->inherited)
        return PP_E_STALE;
    if (owner_is(place.owner, OWNER_COMMITTING))
        return PP_E_BUSY;
    if (!owner_is(place.owner, OWNER_RESERVED))
        return PP_E_STALE;
    *rule = owner_rule(place.owner);
    *span = (struct span) { .region = place.region, .exec = place.start, .size = place.size,
                            .generation = place.generation };
    return PP_OK;
}

/* The reservation is this call's alone, in another state; else nothing has changed. */
static pp_status claim(pp_pool *pool, const pp_reservation *reservation, enum owner_kind state,
                       struct span *span, const struct frame_rule **rule)
{
    pp_status status;

    do {
        status = find_reserved(pool, reservation, span, rule);
    } while (status == PP_OK && !span_turn(span, OWNER_RESERVED, state));
    return status;
}

static void forget(pp_reservation *reservation)
{
    /* The handle stays, so that a second call is found to be stale. */
    reservation->write = NULL;
    reservation->execute = NULL;
    reservation->capacity = 0;
}

/* ---- committing ------------------------------------------------------- */

static pp_status validate(const pp_trace_desc *desc, size_t used, size_t capacity)
{
    if (used == 0 || used > capacity)
        return error_set(desc->error, PP_E_ARG, "%zu bytes used of a capacity of %zu", used,
                         capacity);
    if (desc->entry >= used || !isa_is_aligned(&isa_host, desc->entry))
        return error_set(desc->error, PP_E_ARG, "the entry is not an instruction of the code");
    if (desc->reloc_count != 0 && desc->relocs == NULL)
        return error_set(desc->error, PP_E_ARG, "relocs is null, but reloc_count is not 0");
    if ((desc->flags & ~(uint32_t) PP_TRACE_OWN_TRAMPOLINES) != 0)
        return error_set(desc->error, PP_E_ARG, "unknown flags");
    return PP_OK;
}

static void swap_bytes(uint8_t *a, uint8_t *b, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = a[i];
        a[i] = b[i];
        b[i] = byte;
    }
}

/*
 * Relocate and make executable.  The relocations go into a copy, which then changes
 * places with the host's bytes: whatever is refused, those can be put back.
 */
static pp_status relocate_and_end(const struct plan *plan, const struct span *span,
                                  uint8_t *write)
{
    size_t size = plan->desc->reloc_count == 0 ? 0 : plan->code_size;
    uint8_t *copy = NULL;
    pp_status status = PP_OK;
    if (size != 0) {
        copy = pool_meta_alloc(plan->pool, size);
        if (copy == NULL)
            return error_set(plan->error, PP_E_NOMEM, "no memory to relocate %zu bytes", size);
        memcpy(copy, write, size);
        status = plan_relocate(plan, copy, span->exec);
    }
    if (status == PP_OK) {
        swap_bytes(write, copy, size);
        status = region_publish(span, 1, plan->error);
        /* A protection that could not be changed is still what it was: writable. */
        if (status != PP_OK)
            swap_bytes(write, copy, size);
    }
    pool_meta_free(plan->pool, copy, size);
    return status;
}

/* Everything that can fail; afterwards the span has `used` bytes and is executable. */
static pp_status finish(struct link *link, struct plan *plan, const struct span *span,
                        struct trace *trace)
{
    uint8_t *write = (uint8_t *) (span->exec + (uintptr_t) span->region->write_delta);
    pp_status status = plan_place(plan, span->region);

    if (status != PP_OK)
        return status;
    status = linker_take_shared(link, plan, span, trace);
    if (status == PP_E_RANGE)
        return error_set(plan->error, status, "the region's island is full, and a reservation "
                         "has no room for trampolines");
    if (status == PP_OK)
        status = relocate_and_end(plan, span, write);
    if (status != PP_OK)
        island_drop(span->region, link, trace->user);
    return status;
}

/* The span is claimed. */
static pp_status commit(pp_pool *pool, struct span *span, const struct frame_rule *rule, size_t used,
                        const pp_trace_desc *desc, pp_trace **result)
{
    struct plan plan;
    pp_status status = validate(desc, used, span->size);

    if (status != PP_OK)
        return status;
    struct link *link = link_of(pool);
    struct trace *trace = link != NULL ? shelves_take(&link->shelves, pool, desc->name) : NULL;
    if (trace == NULL)
        return error_set(desc->error, PP_E_NOMEM, "no memory for the record of a trace");
    const uint8_t *code = (const uint8_t *) (span->exec + (uintptr_t) span->region->write_delta);
    status = plan_open(&plan, pool, link, desc, code, used, true);
    if (status == PP_OK) {
        status = finish(link, &plan, span, trace);
        plan_close(&plan);
    }
    if (status != PP_OK) {
        shelves_give(pool, trace, false);
        return status;
    }
    pool_shrink(span, used);
    /* What could not be given back belongs to the trace. */
    plan.bytes.padding += span->size - plan.bytes.total;
    plan.bytes.total = span->size;
    trace_describe(trace, span, &plan, rule);
    trace_publish(&trace, 1, result);
    return PP_OK;
}

pp_status pp_trace_commit(pp_pool *pool, pp_reservation *reservation, size_t used,
                          const pp_trace_desc *desc, pp_trace **result)
{
    static const pp_trace_desc plain = { .size = sizeof plain };
    const struct frame_rule *rule;
    struct span span;

    if (desc == NULL)
        desc = &plain;
    if (desc->size < sizeof *desc || result == NULL)
        return PP_E_ARG;
    pp_status status = claim(pool, reservation, OWNER_COMMITTING, &span, &rule);
    if (status != PP_OK)
        return error_set(desc->error, status, "not an open reservation of this pool");
    status = commit(pool, &span, rule, used, desc, result);
    if (status == PP_OK)
        forget(reservation);
    else
        (void) span_turn(&span, OWNER_COMMITTING, OWNER_RESERVED);
    return status;
}

pp_status pp_trace_abandon(pp_pool *pool, pp_reservation *reservation)
{
    const struct frame_rule *rule;
    struct span span;
    pp_status status = claim(pool, reservation, OWNER_ABANDONED, &span, &rule);

    if (status != PP_OK)
        return status;
    pool_discard(&span);
    forget(reservation);
    return PP_OK;
}
