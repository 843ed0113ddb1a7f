/* SPDX-License-Identifier: MIT */
/*
 * Verification of a pool.  `opening` is held while the regions are looked at, so none
 * comes meanwhile; everything else may go on.
 */
#include <config.h>

#include "memory/verify.h"

#include "error.h"
#include "memory/claim.h"
#include "memory/code_map.h"

#include <time.h>

#define BOUND ((uintptr_t) 65536)

/* ---- one region by itself --------------------------------------------- */

static const char *verify_layout(const struct region *region)
{
    const uintptr_t bounds[] = { region->base, region->code_lo, region->island_lo,
                                 region->island_hi, region->code_hi, region->literal_lo,
                                 region->literal_hi, region->limit };
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        if (bounds[i] % BOUND != 0)
            return "a bound is not a multiple of 64 KiB";
        if (i > 0 && bounds[i] < bounds[i - 1])
            return "its parts are out of order";
    }
    if (region->base % PLACEMENT_ALIGN != 0 || region->limit % PLACEMENT_ALIGN != 0)
        return "it does not begin and end at a multiple of 2 MiB";
    if (region->code_lo == region->base || region->literal_lo == region->code_hi ||
        region->limit == region->literal_hi)
        return "a guard is missing";
    return NULL;
}

static const char *verify_place(pp_pool *pool, const struct region *region)
{
    if (region->pool != pool)
        return "it is another pool's";
    if (region->near != placement_is_near(&pool->anchors, region->base, region->limit))
        return "near is wrong";
    if (region == pool->spare)
        return code_map_count(region, region) == 0 ? NULL : "a spare region is in the code map";
    if (code_map_count(region, region) != (region->limit - region->base) / CODE_MAP_SLOT)
        return "a region is not in the code map";
    if (region->claim.kind != PP_FRAME_NONE &&
        !claim_holds(region->base, region->limit, &region->claim))
        return "its addresses are not claimed for its frame rule";
    return NULL;
}

static const char *verify_room(struct region *region)
{
    pthread_mutex_lock(&region->lock);
    size_t largest = span_space_largest(&region->spans);
    bool wrong = atomic_load_explicit(&region->room, memory_order_relaxed) < largest;
    pthread_mutex_unlock(&region->lock);
    return wrong ? "it has a longer hole than it says" : NULL;
}

static pp_status verify_region(pp_pool *pool, struct region *region, pp_error *error)
{
    const char *broken = verify_layout(region);
    if (broken == NULL)
        broken = verify_place(pool, region);
    if (broken == NULL)
        broken = region_verify(region);
    if (broken == NULL)
        broken = verify_room(region);
    if (broken == NULL)
        return PP_OK;
    return error_set(error, PP_E_FAULT, "region 0x%zx: %s", (size_t) region->base, broken);
}

/* ---- regions among each other ----------------------------------------- */

static struct region *first_of(pp_pool *pool)
{
    return atomic_load_explicit(&pool->regions, memory_order_acquire);
}

static bool overlap(const struct region *a, const struct region *b)
{
    return a != b && a->base < b->limit && b->base < a->limit;
}

static pp_status verify_regions_locked(pp_pool *pool, pp_error *error)
{
    pp_status status = PP_OK;
    if (pool->spare != NULL)
        status = verify_region(pool, pool->spare, error);
    for (struct region *a = first_of(pool); a != NULL && status == PP_OK; a = a->next) {
        bool clash = pool->spare != NULL && overlap(a, pool->spare);
        for (struct region *b = a->next; b != NULL; b = b->next)
            clash |= overlap(a, b);
        status = clash ? error_set(error, PP_E_FAULT, "region 0x%zx overlaps another",
                                   (size_t) a->base)
                       : verify_region(pool, a, error);
    }
    const char *broken = claim_verify();
    if (status == PP_OK && broken != NULL)
        status = error_set(error, PP_E_FAULT, "%s", broken);
    return status;
}

/* ---- the account of limit_bytes --------------------------------------- */

struct account {
    size_t counted, live; /* bytes, by the pool and by its regions */
    unsigned counting;    /* threads that may have counted bytes which do not live */
};

/* At one moment: with the locks of all regions. */
static struct account account_of(pp_pool *pool)
{
    struct account account = { 0, 0, 0 };
    pthread_mutex_lock(&pool->opening);
    for (struct region *region = first_of(pool); region != NULL; region = region->next) {
        pthread_mutex_lock(&region->lock);
        account.live += region->spans.used;
    }
    account.counted = atomic_load(&pool->used);
    account.counting = atomic_load(&pool->counting);
    for (struct region *region = first_of(pool); region != NULL; region = region->next)
        pthread_mutex_unlock(&region->lock);
    pthread_mutex_unlock(&pool->opening);
    return account;
}

#define ACCOUNT_TRIES 100
#define ACCOUNT_PAUSE 10000000 /* ns */

/*
 * Bytes are counted before they are taken and until they are given back, so a thread
 * at work may make the count larger than what lives.  That may take as long as it likes
 * where the host stops threads.  The count is wrong if it stays so for a second while
 * nothing at all changes and no thread is at it.
 */
static pp_status verify_account(pp_pool *pool, pp_error *error)
{
    if (pool->limit_bytes == 0)
        return PP_OK;
    struct account first = account_of(pool), account = first;
    for (unsigned i = 0; i < ACCOUNT_TRIES && account.counted > account.live; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = ACCOUNT_PAUSE }, NULL);
        account = account_of(pool);
        if (account.counted != first.counted || account.live != first.live)
            return PP_OK;
    }
    if (account.counted == account.live || (account.counted > account.live && account.counting > 0))
        return PP_OK;
    return error_set(error, PP_E_FAULT, "%zu bytes are counted against the limit, %zu live",
                     account.counted, account.live);
}

/* ---- frame rules ------------------------------------------------------ */

static pp_status verify_rules(pp_pool *pool, pp_error *error)
{
    pool_lock(pool);
    const char *broken = rule_table_verify_locked(&pool->rules);
    pool_unlock(pool);
    return broken == NULL ? PP_OK : error_set(error, PP_E_FAULT, "%s", broken);
}

/* ---- all -------------------------------------------------------------- */

pp_status pp_pool_verify(pp_pool *pool, pp_error *error)
{
    if (pool == NULL)
        return PP_E_ARG;
    pthread_mutex_lock(&pool->opening);
    pp_status status = verify_regions_locked(pool, error);
    if (status == PP_OK)
        status = verify_mappings_locked(pool, error);
    pthread_mutex_unlock(&pool->opening);
    if (status == PP_OK)
        status = verify_rules(pool, error);
    if (status == PP_OK)
        status = verify_account(pool, error);
    for (unsigned i = 0; i < ROOM_COUNT && status == PP_OK; i++) {
        if (pool_rooms[i] != NULL && pool_rooms[i]->verify != NULL)
            status = pool_rooms[i]->verify(pool, error);
    }
    return status;
}
