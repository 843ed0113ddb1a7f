/* SPDX-License-Identifier: MIT */
/*
 * Spans of the host.  The state of one is its owner, which changes in one step (owner.h).  The
 * owner of each state is its frame rule's.  All checks come before the first change.
 */
#include <config.h>

#include "memory/code.h"

#include "error.h"
#include "memory/handle.h"
#include "os/cache.h"
#include "sized.h"

#include <stddef.h>

#define SIZE_LIMIT ((size_t) 1 << 30) /* no region is larger */
#define PLACE_LEAST sizeof(pp_span_place)

const struct owner_tag span_any = { { .kind = OWNER_SPAN } };

/* ---- finding ---------------------------------------------------------- */

pp_status span_find(const pp_pool *pool, const pp_span *handle, struct code_place *place)
{
    pp_status status = code_handle_find((uintptr_t) handle, place);
    if (status != PP_OK)
        return status;
    if (place->region->pool != pool)
        return PP_E_FAULT;
    return owner_is_host(place->owner) ? PP_OK : PP_E_STALE;
}

/* One that may be changed: not from before a fork. */
static pp_status find_ours(const pp_pool *pool, const pp_span *handle, struct code_place *place,
                           pp_error *error)
{
    if (pool == NULL)
        return error_set(error, PP_E_ARG, "no pool");
    pp_status status = span_find(pool, handle, place);
    if (status != PP_OK)
        return error_set(error, status, "not a span of this pool");
    if (place->region->inherited)
        return error_set(error, PP_E_UNSUPPORTED, "a span from before a fork is never changed");
    return PP_OK;
}

static void fill_place(pp_span_place *to, const struct region *region, uintptr_t exec,
                       size_t bytes, bool open)
{
    pp_span_place place = {
        .write = open ? (void *) (exec + (uintptr_t) region->write_delta) : NULL,
        .execute = (const void *) exec,
        .bytes = bytes,
        .unit = (size_t) 1 << region->spans.shift,
    };
    sized_write(to, &place, sizeof place);
}

pp_status pp_span_get_place(const pp_span *span, pp_span_place *place)
{
    struct code_place at;
    if (place == NULL || place->size < PLACE_LEAST)
        return PP_E_ARG;
    pp_status status = code_handle_find((uintptr_t) span, &at);
    if (status != PP_OK)
        return status;
    if (!owner_is_host(at.owner))
        return PP_E_STALE;
    fill_place(place, at.region, at.start, at.size,
               owner_is_open(at.owner) && !at.region->inherited);
    return PP_OK;
}

pp_span *pp_span_at(const void *address)
{
    struct code_place place;
    if (!code_at((uintptr_t) address, &place) ||
        !(owner_is_host(place.owner) || owner_is(place.owner, OWNER_SPAN_RETIRED)))
        return NULL;
    return (pp_span *) code_place_handle(&place);
}

/* ---- taking ----------------------------------------------------------- */

static pp_status measure(struct region *region, void *context, size_t *size)
{
    (void) region;
    *size = *(const size_t *) context;
    return PP_OK;
}

pp_status pp_span_alloc(pp_pool *pool, const pp_span_desc *from, pp_span **result,
                        pp_span_place *place)
{
    pp_span_desc desc;
    struct frame_rule asked;
    const struct pool_rule *rule = NULL;
    struct span span;
    if (pool == NULL || from == NULL || result == NULL || place == NULL ||
        !sized_read(&desc, sizeof desc, sizeof desc, from))
        return PP_E_ARG;
    if (place->size < PLACE_LEAST)
        return error_set(desc.error, PP_E_ARG, "place: its size is not set");
    if (desc.bytes == 0)
        return error_set(desc.error, PP_E_ARG, "a span has at least one byte");
    if (desc.bytes > SIZE_LIMIT)
        return error_set(desc.error, PP_E_NOMEM, "%zu bytes fit no region", desc.bytes);
    pp_status status = frame_rule_from(desc.frame, &asked, desc.error);
    if (status == PP_OK)
        status = pool_find_rule(pool, &asked, &rule, desc.error);
    if (status == PP_OK)
        status = pool_alloc_for(pool, rule_owner(rule, OWNER_SPAN_OPEN), &rule->rule,
                                desc.align != 0 ? desc.align : 16, measure, &desc.bytes, &span,
                                desc.error);
    if (status != PP_OK)
        return status;
    if (!region_has_permissions(span.region)) {
        uint8_t *write;
        status = region_write_begin(span.region, span.exec, span.size, &write, desc.error);
    }
    if (status != PP_OK) {
        pool_unalloc(&span);
        return status;
    }
    fill_place(place, span.region, span.exec, span.size, true);
    *result = (pp_span *) code_handle(span.region, span.exec, span.generation);
    return PP_OK;
}

/* ---- writing ---------------------------------------------------------- */

enum { BATCH_INLINE = 64 };

/*
 * Those that were claimed for a batch are open again.  One that the kernel made
 * executable, and then refused to make writable, must not be taken for open: whoever
 * wrote would get a signal.
 */
static void unclaim(const struct span *batch, size_t count)
{
    for (size_t i = 0; i < count; i++)
        (void) span_turn(&batch[i], OWNER_SPAN_CLAIMED,
                         region_is_writable(&batch[i]) ? OWNER_SPAN_OPEN : OWNER_SPAN);
}

/* Check all of them, and claim them for this batch. */
static pp_status claim(const pp_pool *pool, pp_span *const *spans, size_t count,
                       struct span *batch, pp_error *error)
{
    struct code_place place;
    for (size_t i = 0; i < count; i++) {
        pp_status status = find_ours(pool, spans[i], &place, error);
        if (status == PP_OK && place.owner->kind == OWNER_SPAN)
            status = error_set(error, PP_E_ARG, "span %zu of the batch is published", i);
        if (status == PP_OK) {
            batch[i] = (struct span){ place.region, place.start, place.size, place.generation };
            if (!span_turn(&batch[i], OWNER_SPAN_OPEN, OWNER_SPAN_CLAIMED))
                status = error_set(error, PP_E_ARG, "span %zu of the batch is in it twice", i);
        }
        if (status != PP_OK) {
            unclaim(batch, i);
            return status;
        }
    }
    return PP_OK;
}

/* What was written can run as it is, on any core: only the owner changes. */
static bool publish_at_once(const pp_pool *pool, const pp_span *handle)
{
    uintptr_t exec;
    struct region *region = code_handle_region((uintptr_t) handle, &exec);
    size_t size;
    if (!CACHE_COHERENT || region == NULL || region->pool != pool || region->inherited ||
        !region_has_permissions(region) ||
        !region_turn(region, exec, code_handle_generation((uintptr_t) handle), OWNER_SPAN_OPEN,
                     OWNER_SPAN, &size))
        return false;
    cache_invalidate(exec, size);
    return true;
}

/* One alone: nobody else has it, and it need not be claimed. */
static pp_status publish_one(const pp_pool *pool, const pp_span *handle, pp_error *error)
{
    struct code_place place;
    if (publish_at_once(pool, handle))
        return PP_OK;
    pp_status status = find_ours(pool, handle, &place, error);
    if (status != PP_OK)
        return status;
    if (place.owner->kind != OWNER_SPAN_OPEN)
        return error_set(error, PP_E_ARG, "the span is published");
    const struct span span = { place.region, place.start, place.size, place.generation };
    status = region_publish(&span, 1, error);
    if (status == PP_OK || !region_is_writable(&span))
        (void) span_turn(&span, OWNER_SPAN_OPEN, OWNER_SPAN);
    return status;
}

static pp_status publish(const pp_pool *pool, pp_span *const *spans, size_t count,
                         struct span *batch, pp_error *error)
{
    pp_status status = claim(pool, spans, count, batch, error);
    if (status != PP_OK)
        return status;
    status = region_publish(batch, count, error);
    if (status != PP_OK) {
        unclaim(batch, count);
        return status;
    }
    for (size_t i = 0; i < count; i++)
        (void) span_turn(&batch[i], OWNER_SPAN_CLAIMED, OWNER_SPAN);
    return PP_OK;
}

pp_status pp_span_publish(pp_pool *pool, pp_span *const *spans, size_t count, pp_error *error)
{
    struct span few[BATCH_INLINE], *batch = few;
    if (pool == NULL || (spans == NULL && count != 0))
        return error_set(error, PP_E_ARG, "no pool or no spans");
    if (count > SIZE_LIMIT / SPAN_GRANULE)
        return error_set(error, PP_E_ARG, "a batch of %zu spans", count);
    if (count == 0)
        return PP_OK;
    if (count == 1)
        return publish_one(pool, spans[0], error);
    if (count > BATCH_INLINE)
        batch = pool_meta_alloc(pool, count * sizeof *batch);
    if (batch == NULL)
        return error_set(error, PP_E_NOMEM, "no memory for a batch of %zu spans", count);
    pp_status status = publish(pool, spans, count, batch, error);
    if (batch != few)
        pool_meta_free(pool, batch, count * sizeof *batch);
    return status;
}

pp_status pp_span_write(pp_pool *pool, pp_span *span, pp_span_place *place, pp_error *error)
{
    struct code_place at;
    uint8_t *write;
    if (place == NULL || place->size < PLACE_LEAST)
        return error_set(error, PP_E_ARG, "place: missing, or its size is not set");
    pp_status status = find_ours(pool, span, &at, error);
    if (status != PP_OK)
        return status;
    if (at.owner->kind != OWNER_SPAN)
        return error_set(error, PP_E_BUSY, "the span is being written");
    if (region_may_run_in_child(at.region, at.start))
        return error_set(error, PP_E_BUSY, "a child may be running the span");
    const struct span it = { at.region, at.start, at.size, at.generation };
    if (!span_turn(&it, OWNER_SPAN, OWNER_SPAN_OPEN))
        return error_set(error, PP_E_BUSY, "the span is being written");
    status = region_write_begin(at.region, at.start, at.size, &write, error);
    if (status != PP_OK) {
        (void) span_turn(&it, OWNER_SPAN_OPEN, OWNER_SPAN);
        return status;
    }
    fill_place(place, at.region, at.start, at.size, true);
    return PP_OK;
}

/* ---- giving back ------------------------------------------------------ */

pp_status pp_span_shrink(pp_pool *pool, pp_span *span, size_t bytes)
{
    struct code_place place;
    pp_status status = find_ours(pool, span, &place, NULL);
    return status == PP_OK ? pool_shrink_at(&place, bytes) : status;
}

pp_status pp_span_split(pp_pool *pool, pp_span *span, size_t at, pp_span **tail)
{
    struct code_place place;
    uint32_t generation;
    if (tail == NULL)
        return PP_E_ARG;
    pp_status status = find_ours(pool, span, &place, NULL);
    if (status == PP_OK)
        status = region_split(place.region, place.start, place.generation, &span_any.owner, at,
                              &generation);
    if (status == PP_OK)
        *tail = (pp_span *) code_handle(place.region, place.start + at, generation);
    return status;
}

/* A handle that leads to no region. */
static pp_status refuse(const pp_span *handle)
{
    struct code_place place;
    pp_status status = code_handle_find((uintptr_t) handle, &place);
    return status == PP_OK ? PP_E_STALE : status;
}

pp_status pp_span_free(pp_pool *pool, pp_span *span)
{
    if (pool == NULL || span == NULL)
        return PP_E_ARG;
    uintptr_t exec;
    struct region *region = code_handle_region((uintptr_t) span, &exec);
    if (region == NULL)
        return refuse(span);
    if (region->pool != pool)
        return PP_E_FAULT;
    return pool_free_span(region, exec, code_handle_generation((uintptr_t) span),
                          &span_any.owner);
}
