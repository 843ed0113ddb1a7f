/* SPDX-License-Identifier: MIT */
/* The pool: regions opened when they are needed, spans taken from them. */
#include <config.h>

#include "memory/state.h"

#include "error.h"
#include "memory/claim.h"
#include "memory/code_map.h"
#include "memory/fork.h"
#include "memory/options.h"
#include "memory/probe.h"
#include "os/barrier.h"

#include <stdio.h>
#include <string.h>

#define ALIGN_MAX ((size_t) 65536)

/* ---- small things ----------------------------------------------------- */

void *pool_room_state(pp_pool *pool, enum pool_room_id id)
{
    return atomic_load_explicit(&pool->rooms[id], memory_order_acquire);
}

void pool_set_room_state(pp_pool *pool, enum pool_room_id id, void *state)
{
    atomic_store_explicit(&pool->rooms[id], state, memory_order_release);
}

void pool_lock(pp_pool *pool) { pthread_mutex_lock(&pool->lock); }
void pool_unlock(pp_pool *pool) { pthread_mutex_unlock(&pool->lock); }

uint64_t pool_branch_range(const pp_pool *pool) { return pool->branch_range; }
const char *pool_name(const pp_pool *pool) { return pool->name; }
bool pool_landing_pads(const pp_pool *pool) { return pool->landing_pads; }
uint32_t pool_unwinders(const pp_pool *pool) { return pool->unwinders; }

void pool_sync_cores(pp_pool *pool)
{
    atomic_fetch_add_explicit(&pool->barriers, 1, memory_order_relaxed);
    if (!barrier_sync_core())
        pool_note_fallback(pool, PP_FALLBACK_BARRIER,
                           "membarrier(SYNC_CORE) is refused: for a while another core may run what "
                           "was there before new code, or not see what was stored before a "
                           "retarget");
}

void *pool_meta_alloc(pp_pool *pool, size_t size) { return meta_alloc(&pool->meta, size); }
void pool_meta_free(pp_pool *pool, void *memory, size_t size)
{
    meta_free(&pool->meta, memory, size);
}

/* ---- regions ---------------------------------------------------------- */

static void close_rooms(struct region *region, unsigned count)
{
    while (count-- > 0) {
        if (pool_rooms[count] != NULL && pool_rooms[count]->region_close != NULL)
            pool_rooms[count]->region_close(region);
    }
}

static pp_status open_rooms(struct region *region, pp_error *error)
{
    for (unsigned i = 0; i < ROOM_COUNT; i++) {
        if (pool_rooms[i] == NULL || pool_rooms[i]->region_open == NULL)
            continue;
        pp_status status = pool_rooms[i]->region_open(region, error);
        if (status != PP_OK) {
            close_rooms(region, i);
            return status;
        }
    }
    return PP_OK;
}

/* A region that is not as wanted. */
static void note_region(pp_pool *pool, const struct region *region)
{
    const struct anchors *anchors = &pool->anchors;
    unsigned long long reach = placement_reach(anchors, region->base, region->limit) >> 20;
    size_t size = region->limit - region->base;
    const char *why = anchors->refused[0] == '\0' ? "placed by script" : anchors->refused;
    bool first = (placement_missed(anchors, region->base, region->limit) & 1) == 0;
    if (!region->near)
        pool_note_fallback(pool, PP_FALLBACK_FAR, "0x%zx is %llu MiB from the farthest anchor, "
                           "branches reach %llu, near[0] is %s: %s", (size_t) region->base, reach,
                           (unsigned long long) anchors->reach >> 20,
                           first ? "in reach" : "out of reach", why);
    if (size < pool->region_bytes)
        pool_note_fallback(pool, PP_FALLBACK_SMALL, "0x%zx has %zu MiB instead of %zu: %s",
                           (size_t) region->base, size >> 20, pool->region_bytes >> 20, why);
}

/* Only libunwind keeps what it was told of addresses when they are gone. */
static struct frame_rule claim_for(const pp_pool *pool, const struct frame_rule *told)
{
    static const struct frame_rule none;
    return told != NULL && (pool->unwinders & PP_UNWIND_LIBUNWIND) ? frame_rule_shape(told) : none;
}

static bool is_claimed_otherwise(const struct region *region, const struct frame_rule *claim)
{
    uintptr_t from, to;
    return claim_conflict(region->base, region->limit, claim, &from, &to);
}

/* It was not published after all: one that was there before is there again. */
static void put_back(pp_pool *pool, struct region *region, bool was_spare)
{
    if (was_spare)
        pool->spare = region;
    else
        region_destroy(region);
}

/*
 * A region of which this is told, mapped and known to the rooms, but not to lookups.
 * Its addresses are claimed when something is placed in it.  If the kernel alone chooses
 * places, one of which nothing is told may lie where it likes.
 */
static pp_status open_region(pp_pool *pool, const struct frame_rule *told,
                             struct region **result, bool *was_spare, pp_error *error)
{
    const struct frame_rule claim = claim_for(pool, told);
    pp_status status = PP_OK;
    struct region *region = pool->spare;
    pool->spare = NULL;
    if (region != NULL && (region->inherited || is_claimed_otherwise(region, &claim))) {
        region_destroy(region);
        region = NULL;
    }
    *was_spare = region != NULL;
    for (unsigned tries = 0; region == NULL && tries < 4; tries++) {
        status = region_create(pool, pool->wx, &claim, &pool->anchors, pool->region_bytes,
                               &region, error);
        if (status != PP_OK)
            return status;
        if (claim.kind == PP_FRAME_NONE || !is_claimed_otherwise(region, &claim)) {
            note_region(pool, region);
        } else {
            region_destroy(region);
            region = NULL;
        }
    }
    if (region == NULL)
        return error_set(error, PP_E_NOMEM, "no addresses without another frame rule");
    region->told = told;
    region->claim = claim;
    status = open_rooms(region, error);
    if (status == PP_OK && !code_map_prepare(region)) {
        close_rooms(region, ROOM_COUNT);
        status = error_set(error, PP_E_NOMEM, "no memory for the code map");
    }
    if (status != PP_OK) {
        put_back(pool, region, *was_spare);
        return status;
    }
    *result = region;
    return PP_OK;
}

/*
 * Lookups first: whoever finds the region in the list takes a span of it and may
 * look its address up at once.
 */
static void publish_region(pp_pool *pool, struct region *region)
{
    region->next = atomic_load_explicit(&pool->regions, memory_order_relaxed);
    code_map_publish(region);
    atomic_store_explicit(&pool->regions, region, memory_order_release);
}

/* ---- spans ------------------------------------------------------------ */

/* From here to count_end the thread's bytes may be counted and not taken: verification waits. */
static void count_begin(pp_pool *pool)
{
    if (pool->limit_bytes != 0)
        atomic_fetch_add_explicit(&pool->counting, 1, memory_order_acq_rel);
}

/* Bytes are counted before they are taken, so that the limit holds between threads. */
static bool count_up(pp_pool *pool, size_t bytes)
{
    if (pool->limit_bytes == 0)
        return true;
    size_t used = atomic_fetch_add_explicit(&pool->used, bytes, memory_order_relaxed) + bytes;
    if (used <= pool->limit_bytes)
        return true;
    atomic_fetch_sub_explicit(&pool->used, bytes, memory_order_relaxed);
    return false;
}

/* `bytes` are not taken, or not any more. */
static void count_end(pp_pool *pool, size_t bytes)
{
    if (pool->limit_bytes != 0) {
        atomic_fetch_sub_explicit(&pool->used, bytes, memory_order_relaxed);
        atomic_fetch_sub_explicit(&pool->counting, 1, memory_order_acq_rel);
    }
    if (bytes != 0)
        pool_trim(pool);
}

struct request {
    const struct owner *owner;
    const struct frame_rule *told; /* what unwinders have to be told where it lies; NULL: nothing */
    size_t align;
    span_measure *measure;
    void *context;
    struct span *span;
    pp_error *error;
    size_t size;      /* as measured for the latest region */
    bool hopeless;    /* no memory that comes free can help */
    bool wait;        /* for locks that other threads have */
    unsigned busy;    /* number of regions that were passed over because of that */
    size_t taken;     /* spans that were ever taken in these */
};

static pp_status alloc_in(const struct request *request, struct region *region, size_t size)
{
    struct span *span = request->span;
    size_t unit = (size_t) 1 << region->spans.shift;
    if (size > atomic_load_explicit(&region->room, memory_order_relaxed) ||
        atomic_load_explicit(&region->lost, memory_order_relaxed))
        return REGION_FULL;
    size_t bytes = (size + unit - 1) & -unit;
    count_begin(region->pool);
    if (!count_up(region->pool, bytes)) {
        count_end(region->pool, 0);
        return error_set(request->error, PP_E_NOMEM, "limit_bytes (%zu) is reached",
                         region->pool->limit_bytes);
    }
    pp_status status = region_alloc(region, request->wait, size, request->align, request->owner,
                                    &span->exec, &span->generation, request->error);
    count_end(region->pool, status == PP_OK ? 0 : bytes);
    if (status != PP_OK)
        return status;
    span->region = region;
    span->size = size;
    return PP_OK;
}

static pp_status request_in(struct request *request, struct region *region)
{
    size_t size = 0, limit = region->pool->limit_bytes;
    pp_status status = request->measure(region, request->context, &size);
    if (status != PP_OK)
        return status;
    if (size == 0)
        return error_set(request->error, PP_E_ARG, "a span of 0 bytes");
    request->size = size;
    request->hopeless = limit != 0 && size > limit;
    status = alloc_in(request, region, size);
    if (status == REGION_BUSY) {
        request->busy++;
        request->taken += atomic_load_explicit(&region->taken, memory_order_relaxed);
    }
    return status;
}

/*
 * Regions from `first` up to, not including, `last`.  REGION_FULL: no room in any of
 * them; REGION_BUSY: nor in those that were passed over, as far as one can tell.
 */
static pp_status request_among(struct request *request, struct region *first,
                               const struct region *last)
{
    for (struct region *region = first; region != last; region = region->next) {
        if (region->inherited || region->told != request->told)
            continue;
        pp_status status = request_in(request, region);
        if (status != REGION_FULL && status != REGION_BUSY)
            return status;
    }
    return request->busy > 0 ? REGION_BUSY : REGION_FULL;
}

/* In a region where the thread meets no other, and there again the next time. */
static pp_status request_apart(pp_pool *pool, struct request *request)
{
    struct region *home = spread_home(&pool->spread, request->told);
    pp_status status = REGION_FULL;
    request->busy = 0;
    request->taken = 0;
    request->wait = home != NULL && spread_is_alone(&pool->spread, home);
    if (home != NULL)
        status = request_in(request, home);
    request->wait = false;
    if (status != REGION_FULL && status != REGION_BUSY)
        return status;
    status = request_among(request, atomic_load_explicit(&pool->regions, memory_order_acquire),
                           NULL);
    if (status == PP_OK && request->busy > 0)
        spread_move(&pool->spread, request->span->region);
    return status;
}

static pp_status request_in_new_region(pp_pool *pool, struct request *request, bool only_near)
{
    struct region *region = NULL;
    bool was_spare;
    pp_status status = open_region(pool, request->told, &region, &was_spare, request->error);
    if (status != PP_OK)
        return status;
    status = only_near && !region->near ? REGION_FULL : request_in(request, region);
    if (status == PP_OK &&
        (region->claim.kind == PP_FRAME_NONE ||
         claim_add(region->base, region->limit, &region->claim))) {
        publish_region(pool, region);
        return PP_OK;
    }
    if (status == PP_OK) {
        pool_unalloc(request->span);
        status = error_set(request->error, PP_E_NOMEM, "no memory to note a region's addresses");
    }
    if (status == REGION_FULL) {
        request->hopeless = true;
        status = error_set(request->error, PP_E_NOMEM, "larger than a region can be");
    }
    close_rooms(region, ROOM_COUNT);
    put_back(pool, region, was_spare);
    return status;
}

/*
 * All regions with room are others' at the moment.  If that is so all the time, one
 * more is opened, unless it would be far; else the thread waits.
 */
static pp_status request_crowded(pp_pool *pool, struct request *request)
{
    request->wait = true;
    if (spread_wanted(&pool->spread, request->busy, request->taken) &&
        pthread_mutex_trylock(&pool->opening) == 0) {
        pp_status status = request_in_new_region(pool, request, true);
        pthread_mutex_unlock(&pool->opening);
        if (status == PP_OK) {
            spread_move(&pool->spread, request->span->region);
            return PP_OK;
        }
        spread_end(&pool->spread);
        request->error->status = PP_OK;
        request->hopeless = false;
    }
    request->busy = 0;
    return request_among(request, atomic_load_explicit(&pool->regions, memory_order_acquire),
                         NULL);
}

static pp_status request_somewhere(pp_pool *pool, struct request *request)
{
    struct region *seen = atomic_load_explicit(&pool->regions, memory_order_acquire);
    pp_status status = request_apart(pool, request);
    if (status == REGION_BUSY)
        status = request_crowded(pool, request);
    if (status != REGION_FULL)
        return status;
    request->wait = true;
    pthread_mutex_lock(&pool->opening);
    status = request_among(request, atomic_load(&pool->regions), seen);
    if (status == REGION_FULL)
        status = request_in_new_region(pool, request, false);
    pthread_mutex_unlock(&pool->opening);
    return status;
}

pp_status pool_find_rule(pp_pool *pool, const struct frame_rule *rule,
                         const struct pool_rule **found, pp_error *error)
{
    *found = rule_table_find(pool, rule);
    return *found != NULL ? PP_OK : error_set(error, PP_E_NOMEM, "no memory for a frame rule");
}

/* What unwinders have to be told of code with this rule; NULL: nothing. */
static pp_status told_by(pp_pool *pool, const struct frame_rule *rule,
                         const struct frame_rule **told, pp_error *error)
{
    const struct pool_rule *found;
    *told = NULL;
    if (pool->unwinders == 0 || rule->kind == PP_FRAME_NONE || rule->untold)
        return PP_OK;
    const struct frame_rule plain = frame_rule_told(rule);
    pp_status status = pool_find_rule(pool, &plain, &found, error);
    if (status == PP_OK)
        *told = &found->rule;
    return status;
}

pp_status pool_alloc(pp_pool *pool, const struct frame_rule *rule, size_t align,
                     span_measure *measure, void *context, struct span *span, pp_error *error)
{
    return pool_alloc_for(pool, NULL, rule, align, measure, context, span, error);
}

pp_status pool_alloc_for(pp_pool *pool, const struct owner *owner, const struct frame_rule *rule,
                         size_t align, span_measure *measure, void *context, struct span *span,
                         pp_error *error)
{
    pp_error reason;
    struct request request = { .owner = owner, .align = align, .measure = measure,
                               .context = context, .span = span, .error = &reason };
    reason.size = sizeof reason;
    reason.status = PP_OK;
    if (align < SPAN_GRANULE || align > ALIGN_MAX || (align & (align - 1)) != 0)
        return error_set(error, PP_E_ARG, "alignment %zu is not a power of two from 16 to 65536",
                         align);
    pp_status status = told_by(pool, rule, &request.told, error);
    if (status != PP_OK)
        return status;
    do {
        status = request_somewhere(pool, &request);
    } while (status == PP_E_NOMEM && !request.hopeless && limit_ask(pool, request.size));
    if (status != PP_OK && reason.status == status)
        error_copy(error, &reason);
    return status;
}

static pp_status free_in(struct region *region, uintptr_t exec, uint32_t generation,
                         const struct owner *owner, pp_error *error)
{
    size_t bytes = 0;
    count_begin(region->pool);
    pp_status status = region_free(region, exec, generation, owner, &bytes, error);
    count_end(region->pool, bytes);
    return status;
}

pp_status pool_free(pp_pool *pool, uintptr_t exec)
{
    struct region *region = region_at(exec);
    if (region == NULL || region->pool != pool)
        return PP_E_FAULT;
    return free_in(region, exec, 0, NULL, NULL);
}

pp_status pool_free_span(struct region *region, uintptr_t exec, uint32_t generation,
                         const struct owner *owner)
{
    return generation == 0 ? PP_E_STALE : free_in(region, exec, generation, owner, NULL);
}

pp_status pool_free_at(const struct code_place *place, pp_error *error)
{
    return free_in(place->region, place->start, place->generation, place->owner, error);
}

void pool_unalloc(const struct span *span)
{
    count_begin(span->region->pool);
    count_end(span->region->pool, region_unalloc(span->region, span->exec));
}

void pool_discard(const struct span *span)
{
    count_begin(span->region->pool);
    count_end(span->region->pool, region_discard(span->region, span->exec));
}

void pool_shrink(struct span *span, size_t size)
{
    size_t bytes = 0;
    count_begin(span->region->pool);
    if (region_shrink(span->region, span->exec, 0, NULL, size, &bytes) == PP_OK)
        span->size = size;
    count_end(span->region->pool, bytes);
}

pp_status pool_shrink_at(const struct code_place *place, size_t size)
{
    size_t bytes = 0;
    count_begin(place->region->pool);
    pp_status status = region_shrink(place->region, place->start, place->generation,
                                     &span_any.owner, size, &bytes);
    count_end(place->region->pool, bytes);
    return status;
}

void span_set_owner(const struct span *span, const void *owner)
{
    struct region *region = span->region;
    pthread_mutex_lock(&region->lock);
    span_space_set_owner(&region->spans, span->exec - region->code_lo, owner);
    pthread_mutex_unlock(&region->lock);
}

uint32_t span_generation(const struct span *span)
{
    struct span_info info;
    size_t offset = span->exec - span->region->code_lo;
    return span_space_at(&span->region->spans, offset, &info) ? info.generation : 0;
}

bool span_pass(const struct span *span, const struct owner *from, const struct owner *to)
{
    return region_pass(span->region, span->exec, span->generation, from, to, NULL);
}

bool span_turn(const struct span *span, enum owner_kind from, enum owner_kind to)
{
    return region_turn(span->region, span->exec, span->generation, from, to, NULL);
}

bool code_at(uintptr_t pc, struct code_place *place)
{
    struct span_info info;
    struct region *region = region_at(pc);
    if (region == NULL || !span_space_at(&region->spans, pc - region->code_lo, &info))
        return false;
    place->region = region;
    place->start = region->code_lo + info.start;
    place->size = info.size;
    place->owner = info.owner;
    place->generation = info.generation;
    return true;
}

/* ---- life ------------------------------------------------------------- */

/*
 * The first region, in this mode, tested.  What will be told of it is not known yet.  Where
 * it goes, an earlier pool may have been, and in all likelihood told the same.
 */
static pp_status try_mode(pp_pool *pool, pp_wx wx, pp_error *error)
{
    const struct frame_rule untold = claim_for(pool, NULL);
    const struct frame_rule *claim = pool->unwinders & PP_UNWIND_LIBUNWIND ? NULL : &untold;
    struct region *region;
    size_t base_next = pool->anchors.base_next;
    pp_status status = region_create(pool, wx, claim, &pool->anchors, pool->region_bytes, &region,
                                     error);
    if (status != PP_OK)
        return status;
    status = probe_region(region, error);
    if (status != PP_OK) {
        region_destroy(region);
        pool->anchors.base_next = base_next;
        return status;
    }
    note_region(pool, region);
    pool->wx = wx;
    pool->spare = region;
    return PP_OK;
}

static pp_status choose_mode(pp_pool *pool, pp_wx wanted, pp_error *error)
{
    static const struct { pp_wx wx; const char *name; } modes[] = {
        { PP_WX_DUAL, "dual" }, { PP_WX_REMAP, "remap" }, { PP_WX_FLIP, "flip" },
    };
    if (wanted != PP_WX_AUTO)
        return try_mode(pool, wanted, error);
    pp_error reason = { .size = sizeof reason };
    size_t length = 0;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        pp_status status = try_mode(pool, modes[i].wx, &reason);
        if (status == PP_OK)
            return PP_OK;
        pool_note_fallback(pool, PP_FALLBACK_MODE, "%s: %s", modes[i].name, reason.text);
        if (length < sizeof pool->wx_reason)
            length += (size_t) snprintf(pool->wx_reason + length, sizeof pool->wx_reason - length,
                                        "%s%s: %s", length > 0 ? "; " : "", modes[i].name,
                                        reason.text);
    }
    return error_copy(error, &reason);
}

static pp_status begin_rooms(pp_pool *pool, pp_error *error)
{
    pp_status status = PP_OK;
    for (unsigned i = 0; i < ROOM_COUNT && status == PP_OK; i++) {
        if (pool_rooms[i] != NULL && pool_rooms[i]->begin != NULL)
            status = pool_rooms[i]->begin(pool, error);
    }
    return status;
}

static pp_status new_pool(pp_pool **result, pp_error *error)
{
    struct meta meta;
    meta_open(&meta);
    pp_pool *pool = meta_alloc(&meta, sizeof *pool);
    if (pool == NULL) {
        meta_close(&meta);
        return error_set(error, PP_E_NOMEM, "no memory for bookkeeping");
    }
    pool->meta.name = meta.name;
    pool->meta.arena = meta.arena;
    pool->meta.refused = meta.refused;
    atomic_store(&pool->meta.bytes, sizeof *pool);
    pthread_mutex_init(&pool->opening, NULL);
    pthread_mutex_init(&pool->lock, NULL);
    fallbacks_init(&pool->fallbacks);
    limit_init(&pool->limit);
    if (meta.refused != NULL)
        pool_note_fallback(pool, PP_FALLBACK_METADATA, "%s", meta.refused);
    *result = pool;
    return PP_OK;
}

static void delete_pool(pp_pool *pool)
{
    options_forget(pool);
    struct meta meta;
    meta.name = pool->meta.name;
    meta.arena = pool->meta.arena;
    atomic_init(&meta.bytes, atomic_load(&pool->meta.bytes));
    pthread_mutex_destroy(&pool->opening);
    pthread_mutex_destroy(&pool->lock);
    fallbacks_fini(&pool->fallbacks);
    limit_fini(&pool->limit);
    meta_free(&meta, pool, sizeof *pool);
    meta_close(&meta);
}

pp_status pool_create(const pp_pool_options *options, pp_pool **result)
{
    pp_pool *pool = NULL;
    pp_status status = new_pool(&pool, options->error);
    if (status != PP_OK)
        return status;
    status = options_set(pool, options);
    if (status == PP_OK)
        status = choose_mode(pool, options->wx, options->error);
    if (status == PP_OK)
        status = begin_rooms(pool, options->error);
    if (status == PP_OK && !fork_watch(pool))
        status = error_set(options->error, PP_E_NOMEM, "pthread_atfork: no memory");
    if (status != PP_OK) {
        if (pool->spare != NULL)
            region_destroy(pool->spare);
        delete_pool(pool);
        return status;
    }
    *result = pool;
    return PP_OK;
}

void pool_destroy(pp_pool *pool)
{
    fork_forget(pool);
    for (unsigned i = ROOM_COUNT; i-- > 0;) {
        if (pool_rooms[i] != NULL && pool_rooms[i]->close != NULL)
            pool_rooms[i]->close(pool);
    }
    struct region *region = atomic_load(&pool->regions), *next;
    for (; region != NULL; region = next) {
        next = region->next;
        close_rooms(region, ROOM_COUNT);
        code_map_retract(region);
        region_destroy(region);
    }
    if (pool->spare != NULL)
        region_destroy(pool->spare);
    rule_table_close(pool);
    delete_pool(pool);
}
