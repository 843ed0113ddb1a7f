/* SPDX-License-Identifier: MIT */
/*
 * Retirement.  Whatever is retired gets the number of the next ticket, under
 * pool_lock, and goes to the end of the pool's list, which so is in the order of
 * tickets.  A reclaim takes what its ticket covers out of the list, looks at
 * the stacks without a lock, puts back what is held and frees the rest.
 */
#include <config.h>

#include "patch/retire.h"

#include "error.h"
#include "link/trace.h"
#include "memory/code.h"
#include "memory/handle.h"
#include "memory/state.h"
#include "patch/stack.h"
#include "patch/state.h"
#include "sized.h"

#include <stddef.h>

enum { RECORDS = 63 }; /* in a block: 4 KiB */

struct retired_block {
    struct retired_block *next;
    struct retired_span spans[RECORDS];
};

/* ---- records ---------------------------------------------------------- */

static struct trace *trace_from(const struct retired *retired)
{
    return (struct trace *) ((uintptr_t) retired - offsetof(struct trace, retired));
}

static struct retired_span *span_from(const struct retired *retired)
{
    return (struct retired_span *) ((uintptr_t) retired - offsetof(struct retired_span, retired));
}

struct retired *retired_of(const struct owner *owner)
{
    struct trace *trace = trace_retired(owner);
    if (trace != NULL)
        return &trace->retired;
    if (owner_is(owner, OWNER_SPAN_RETIRED))
        return &((struct retired_span *) (uintptr_t) owner)->retired;
    return NULL;
}

const struct span *retired_place(const struct retired *retired)
{
    return retired->is_trace ? &trace_from(retired)->span : &span_from(retired)->span;
}

static struct retired_span *take_record_locked(pp_pool *pool)
{
    struct retirement *retirement = &pool->retirement;
    if (retirement->spare == NULL) {
        struct retired_block *block = pool_meta_alloc(pool, sizeof *block);
        if (block == NULL)
            return NULL;
        block->next = retirement->blocks;
        retirement->blocks = block;
        for (size_t i = RECORDS; i-- > 0;) {
            block->spans[i].owner.kind = OWNER_SPAN_RETIRED;
            block->spans[i].retired.next = retirement->spare;
            retirement->spare = &block->spans[i].retired;
        }
    }
    struct retired *record = retirement->spare;
    retirement->spare = record->next;
    return span_from(record);
}

static void give_record_locked(pp_pool *pool, struct retired_span *record)
{
    record->retired.next = pool->retirement.spare;
    pool->retirement.spare = &record->retired;
}

/* ---- retiring --------------------------------------------------------- */

static void count(struct retirement *retirement, const struct retired *retired, bool add)
{
    size_t sign = add ? 1 : (size_t) -1;
    atomic_fetch_add_explicit(&retirement->count, sign, memory_order_relaxed);
    atomic_fetch_add_explicit(&retirement->bytes, sign * retired_place(retired)->size,
                              memory_order_relaxed);
}

static uint64_t next_ticket(const struct retirement *retirement)
{
    return atomic_load_explicit(&retirement->drawn, memory_order_acquire) + 1;
}

/*
 * To the end of the list, with the number of the next ticket.  That is read when the code
 * is live no more: a ticket that was drawn before does not cover it, because threads may
 * have been led to the code after that.  The fence pairs with that of pp_retire_ticket:
 * either this sees the ticket, or a thread that looks after the ticket was drawn sees
 * that the code is retired.
 */
static void append_locked(pp_pool *pool, struct retired *retired)
{
    struct retirement *retirement = &pool->retirement;
    atomic_thread_fence(memory_order_seq_cst);
    atomic_store_explicit(&retired->ticket, next_ticket(retirement), memory_order_relaxed);
    retired->next = NULL;
    if (retirement->first == NULL)
        retirement->first = retired;
    else
        retirement->last->next = retired;
    retirement->last = retired;
    retirement->waiting++;
    count(retirement, retired, true);
}

pp_status trace_retire(pp_pool *pool, pp_trace *handle, uintptr_t leads)
{
    struct trace *trace;
    pool_lock(pool);
    pp_status status = trace_retire_locked(pool, handle, leads, &trace);
    if (status == PP_OK)
        append_locked(pool, &trace->retired);
    pool_unlock(pool);
    return status;
}

pp_status pp_trace_retire(pp_pool *pool, pp_trace *handle)
{
    return pool == NULL ? PP_E_ARG : trace_retire(pool, handle, 0);
}

static pp_status retire_span_locked(pp_pool *pool, const struct code_place *place)
{
    struct retired_span *record = take_record_locked(pool);
    if (record == NULL)
        return PP_E_NOMEM;
    record->span = (struct span){ .region = place->region, .exec = place->start,
                                  .generation = place->generation };
    atomic_store_explicit(&record->retired.ticket, NO_TICKET, memory_order_relaxed);
    owner_set_rule(&record->owner, owner_rule(place->owner));
    /* A free beside this call looks at the owner under the region's lock, as this does. */
    if (!region_pass(place->region, place->start, place->generation, place->owner, &record->owner,
                     &record->span.size)) {
        give_record_locked(pool, record);
        return PP_E_STALE;
    }
    append_locked(pool, &record->retired);
    return PP_OK;
}

pp_status pp_span_retire(pp_pool *pool, pp_span *span)
{
    struct code_place place;
    if (pool == NULL)
        return PP_E_ARG;
    pool_lock(pool);
    pp_status status = span_find(pool, span, &place);
    if (status == PP_OK && place.owner->kind != OWNER_SPAN)
        status = PP_E_BUSY;
    if (status == PP_OK)
        status = retire_span_locked(pool, &place);
    pool_unlock(pool);
    return status;
}

pp_ticket pp_retire_ticket(pp_pool *pool)
{
    if (pool == NULL)
        return 0;
    pp_ticket ticket =
        atomic_fetch_add_explicit(&pool->retirement.drawn, 1, memory_order_acq_rel) + 1;
    atomic_thread_fence(memory_order_seq_cst); /* pairs with that of append_locked */
    return ticket;
}

/* ---- reclaiming ------------------------------------------------------- */

/* What a reclaim has taken out of the lists: a list of its own. */
struct harvest {
    struct retired *first;
    uintptr_t lo, hi; /* of the code */
    size_t waiting;   /* what the ticket does not cover */
};

static void harvest_add(struct harvest *harvest, struct retired *retired)
{
    const struct span *span = retired_place(retired);
    uintptr_t end = (span->exec + span->size + SPAN_GRANULE - 1) & -SPAN_GRANULE;
    retired->next = harvest->first;
    harvest->first = retired;
    harvest->lo = span->exec < harvest->lo ? span->exec : harvest->lo;
    harvest->hi = end > harvest->hi ? end : harvest->hi;
    atomic_store_explicit(&retired->held, false, memory_order_relaxed);
}

static bool is_covered(const struct retired *retired, uint64_t ticket)
{
    return atomic_load_explicit(&retired->ticket, memory_order_relaxed) <= ticket;
}

static struct harvest harvest_locked(pp_pool *pool, uint64_t ticket)
{
    struct retirement *retirement = &pool->retirement;
    struct harvest harvest = { .lo = UINTPTR_MAX };
    while (retirement->first != NULL && is_covered(retirement->first, ticket)) {
        struct retired *retired = retirement->first;
        retirement->first = retired->next;
        retirement->waiting--;
        harvest_add(&harvest, retired);
    }
    for (struct retired **at = &retirement->kept; *at != NULL;) {
        struct retired *retired = *at;
        if (is_covered(retired, ticket)) {
            *at = retired->next;
            harvest_add(&harvest, retired);
        } else {
            at = &retired->next;
            harvest.waiting++;
        }
    }
    harvest.waiting += retirement->waiting;
    return harvest;
}

static void keep_locked(struct retirement *retirement, struct retired *retired)
{
    retired->next = retirement->kept;
    retirement->kept = retired;
}

/*
 * Put back what a stack holds.  The rest stays retired until it is gone, since the kernel
 * may refuse to clear it.
 */
static void sort_locked(struct retirement *retirement, struct harvest *harvest,
                        pp_reclaim_result *result)
{
    struct retired *retired = harvest->first, *next;
    harvest->first = NULL;
    for (; retired != NULL; retired = next) {
        next = retired->next;
        if (atomic_load_explicit(&retired->held, memory_order_relaxed)) {
            keep_locked(retirement, retired);
            result->held++;
            continue;
        }
        retired->next = harvest->first;
        harvest->first = retired;
    }
}

static pp_status release(pp_pool *pool, struct retired *retired)
{
    if (retired->is_trace)
        return trace_end(pool, trace_from(retired));
    struct retired_span *record = span_from(retired);
    const struct code_place place = {
        .region = record->span.region,
        .start = record->span.exec,
        .generation = record->span.generation,
        .owner = &record->owner,
    };
    pp_status status = pool_free_at(&place, NULL);
    if (status == PP_OK) {
        pool_lock(pool);
        give_record_locked(pool, record);
        pool_unlock(pool);
    }
    return status;
}

static pp_status release_all(pp_pool *pool, struct retired *first, pp_reclaim_result *result)
{
    struct retirement *retirement = &pool->retirement;
    pp_status status = PP_OK;
    for (struct retired *retired = first, *next; retired != NULL; retired = next) {
        size_t bytes = retired_place(retired)->size;
        next = retired->next;
        count(retirement, retired, false);
        pp_status released = release(pool, retired);
        if (released == PP_OK) {
            result->freed++;
            result->freed_bytes += bytes;
            continue;
        }
        /* It could not be cleared, and stays as it was. */
        status = released;
        pool_lock(pool);
        count(retirement, retired, true);
        keep_locked(retirement, retired);
        pool_unlock(pool);
    }
    return status;
}

pp_status pp_reclaim(pp_pool *pool, pp_ticket ticket, const pp_stack *stacks, size_t stack_count,
                     pp_reclaim_result *result)
{
    pp_reclaim_result sum = { .size = sizeof sum };
    if (pool == NULL || (result != NULL && result->size < sizeof *result))
        return PP_E_ARG;
    if (ticket == 0 || ticket >= next_ticket(&pool->retirement) ||
        stack_check(stacks, stack_count) != PP_OK)
        return PP_E_ARG;
    struct retirement *retirement = &pool->retirement;
    pool_lock(pool);
    struct harvest harvest = harvest_locked(pool, ticket);
    pool_unlock(pool);
    if (harvest.first != NULL && stack_count != 0)
        stack_search(pool, ticket, harvest.lo, harvest.hi, stacks, stack_count);
    pool_lock(pool);
    sort_locked(retirement, &harvest, &sum);
    pool_unlock(pool);
    sum.waiting = harvest.waiting;
    pp_status status = release_all(pool, harvest.first, &sum);
    if (result != NULL)
        sized_write(result, &sum, sizeof sum);
    return status;
}

/* ---- the room --------------------------------------------------------- */

static void room_close(pp_pool *pool)
{
    struct retirement *retirement = &pool->retirement;
    while (retirement->blocks != NULL) {
        struct retired_block *block = retirement->blocks;
        retirement->blocks = block->next;
        pool_meta_free(pool, block, sizeof *block);
    }
    *retirement = (struct retirement){ 0 };
    patch_state_close(pool);
}

static void room_add_stats(pp_pool *pool, pp_pool_stats *stats)
{
    const struct retirement *retirement = &pool->retirement;
    stats->retired_spans += atomic_load_explicit(&retirement->count, memory_order_relaxed);
    stats->retired += atomic_load_explicit(&retirement->bytes, memory_order_relaxed);
}

static const char *verify_one(const struct retired *retired, uint64_t next)
{
    const struct span *span = retired_place(retired);
    struct code_place place;
    uint64_t ticket = atomic_load_explicit(&retired->ticket, memory_order_relaxed);
    if (ticket == 0 || ticket > next)
        return "something retired has a ticket that cannot be";
    if (!code_at(span->exec, &place) || retired_of(place.owner) != retired ||
        place.start != span->exec || place.generation != span->generation)
        return "something retired is not the owner of its span";
    return NULL;
}

static const char *verify_locked(const struct retirement *retirement)
{
    uint64_t next = next_ticket(retirement), before = 0;
    const char *broken = NULL;
    const struct retired *last = NULL;
    size_t waiting = 0;
    for (const struct retired *at = retirement->first; at != NULL && broken == NULL; at = at->next) {
        uint64_t ticket = atomic_load_explicit(&at->ticket, memory_order_relaxed);
        broken = ticket < before ? "the retired are not in order" : verify_one(at, next);
        before = ticket;
        last = at;
        waiting++;
    }
    if (broken == NULL && waiting != retirement->waiting)
        broken = "the retired are not counted right";
    if (broken == NULL && last != NULL && last != retirement->last)
        broken = "the list of the retired has another end";
    for (const struct retired *at = retirement->kept; at != NULL && broken == NULL; at = at->next)
        broken = verify_one(at, next);
    return broken;
}

static pp_status room_verify(pp_pool *pool, pp_error *error)
{
    pool_lock(pool);
    const char *broken = verify_locked(&pool->retirement);
    const struct patch_state *state = pool_room_state(pool, ROOM_PATCH);
    if (broken == NULL && state != NULL)
        broken = watch_verify_locked(&state->watches);
    pool_unlock(pool);
    return broken == NULL ? PP_OK : error_set(error, PP_E_FAULT, "%s", broken);
}

const struct pool_room patch_room = {
    .close = room_close,
    .add_stats = room_add_stats,
    .verify = room_verify,
};
