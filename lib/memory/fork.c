/* SPDX-License-Identifier: MIT */
/*
 * Fork handlers.  They are installed once per process and after the allocator of
 * the first pool has installed its own, because prepare handlers run in reverse
 * order: our locks have to be taken before the allocator's.
 */
#include <config.h>

#include "memory/fork.h"

#include "memory/claim.h"
#include "memory/number.h"
#include "memory/slot.h"
#include "os/fault.h"
#include "os/witness.h"

#include <errno.h>

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static pp_pool *pools;   /* guarded by list_mutex */
static bool installed;   /* guarded by list_mutex */

/* ---- children ---------------------------------------------------------- */

static pthread_mutex_t witness_mutex = PTHREAD_MUTEX_INITIALIZER; /* the innermost lock */
static struct witness witness = WITNESS_NONE; /* guarded by witness_mutex */
static bool sharing; /* a fork is going on, and its child shares code.  Like a lock's field */

bool fork_has_children(void)
{
    pthread_mutex_lock(&witness_mutex);
    bool some = witness_sees(&witness);
    pthread_mutex_unlock(&witness_mutex);
    return some;
}

/* ---- pools -------------------------------------------------------------- */

static void lock_pool(pp_pool *pool)
{
    pthread_mutex_lock(&pool->opening);
    pthread_mutex_lock(&pool->lock);
    for (unsigned i = 0; i < ROOM_COUNT; i++) {
        if (pool_rooms[i] != NULL && pool_rooms[i]->lock_first != NULL)
            pool_rooms[i]->lock_first(pool);
    }
    for (struct region *region = atomic_load(&pool->regions); region != NULL; region = region->next)
        pthread_mutex_lock(&region->back_lock);
    for (struct region *region = atomic_load(&pool->regions); region != NULL; region = region->next)
        pthread_mutex_lock(&region->lock);
    for (unsigned i = 0; i < ROOM_COUNT; i++) {
        if (pool_rooms[i] != NULL && pool_rooms[i]->lock != NULL)
            pool_rooms[i]->lock(pool);
    }
    fallbacks_lock(&pool->fallbacks);
    limit_lock(&pool->limit);
}

static void unlock_pool(pp_pool *pool)
{
    limit_unlock(&pool->limit);
    fallbacks_unlock(&pool->fallbacks);
    for (unsigned i = ROOM_COUNT; i-- > 0;) {
        if (pool_rooms[i] != NULL && pool_rooms[i]->unlock != NULL)
            pool_rooms[i]->unlock(pool);
    }
    for (struct region *region = atomic_load(&pool->regions); region != NULL;
         region = region->next) {
        pthread_mutex_unlock(&region->lock);
        pthread_mutex_unlock(&region->back_lock);
    }
    for (unsigned i = ROOM_COUNT; i-- > 0;) {
        if (pool_rooms[i] != NULL && pool_rooms[i]->unlock_last != NULL)
            pool_rooms[i]->unlock_last(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->opening);
}

static bool has_shared_code(void)
{
    for (pp_pool *pool = pools; pool != NULL; pool = pool->next) {
        if (pool->wx == PP_WX_DUAL || pool->wx == PP_WX_REMAP)
            return true;
    }
    return false;
}

static void prepare(void)
{
    int saved = errno;
    pthread_mutex_lock(&list_mutex);
    for (pp_pool *pool = pools; pool != NULL; pool = pool->next)
        lock_pool(pool);
    claim_lock();
    numbers_lock();
    slots_lock();
    pthread_mutex_lock(&witness_mutex);
    sharing = has_shared_code();
    if (sharing)
        witness_prepare(&witness);
    errno = saved;
}

static void release(void)
{
    pthread_mutex_unlock(&witness_mutex);
    slots_unlock();
    numbers_unlock();
    claim_unlock();
    for (pp_pool *pool = pools; pool != NULL; pool = pool->next)
        unlock_pool(pool);
    pthread_mutex_unlock(&list_mutex);
}

static void parent(void)
{
    int saved = errno;
    for (pp_pool *pool = pools; pool != NULL; pool = pool->next) {
        for (struct region *region = atomic_load(&pool->regions); region != NULL;
             region = region->next)
            children_arrive_locked(region);
    }
    if (sharing)
        witness_parent(&witness);
    release();
    errno = saved;
}

static void inherit(struct region *region)
{
    region->inherited = true;
    region->idle = 0;
    region->children.some = false;
    descriptor_close(&region->memfd);
}

/* Threads that are not there any more have counted what they never took. */
static void recount(pp_pool *pool)
{
    size_t used = 0;
    for (struct region *region = atomic_load(&pool->regions); region != NULL; region = region->next)
        used += region->spans.used;
    atomic_store(&pool->used, used);
    atomic_store(&pool->counting, 0);
}

static void child(void)
{
    int saved = errno;
    for (pp_pool *pool = pools; pool != NULL; pool = pool->next) {
        for (struct region *region = atomic_load(&pool->regions); region != NULL;
             region = region->next)
            inherit(region);
        if (pool->spare != NULL)
            inherit(pool->spare);
        recount(pool);
        idle_inherit(&pool->idle);
        limit_child(&pool->limit);
    }
    witness_child(&witness);
    release();
    errno = saved;
}

bool fork_watch(pp_pool *pool)
{
    pthread_mutex_lock(&list_mutex);
    int number;
    if (!installed && !fault_fires(PP_FAULT_METADATA, &number))
        installed = pthread_atfork(prepare, parent, child) == 0;
    bool watched = installed;
    if (watched) {
        pool->next = pools;
        pools = pool;
    }
    pthread_mutex_unlock(&list_mutex);
    return watched;
}

void fork_forget(pp_pool *pool)
{
    pthread_mutex_lock(&list_mutex);
    for (pp_pool **at = &pools; *at != NULL; at = &(*at)->next) {
        if (*at == pool) {
            *at = pool->next;
            break;
        }
    }
    pthread_mutex_unlock(&list_mutex);
}
