/* SPDX-License-Identifier: MIT */
/*
 * Fork handlers.  They are installed once per process and after the allocator of
 * the first pool has installed its own, because prepare handlers run in reverse
 * order: our locks have to be taken before the allocator's.
 */
#include <config.h>

#include "memory/fork.h"

#include "os/memfd.h"

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static pp_pool *pools;   /* guarded by list_mutex */
static bool installed;   /* guarded by list_mutex */

static void lock_pool(pp_pool *pool)
{
    pthread_mutex_lock(&pool->opening);
    pthread_mutex_lock(&pool->lock);
    for (struct region *region = atomic_load(&pool->regions); region != NULL; region = region->next)
        pthread_mutex_lock(&region->lock);
    for (struct region *region = atomic_load(&pool->regions); region != NULL; region = region->next)
        pthread_mutex_lock(&region->back_lock);
}

static void unlock_pool(pp_pool *pool)
{
    for (struct region *region = atomic_load(&pool->regions); region != NULL;
         region = region->next) {
        pthread_mutex_unlock(&region->back_lock);
        pthread_mutex_unlock(&region->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->opening);
}

static void prepare(void)
{
    pthread_mutex_lock(&list_mutex);
    for (pp_pool *pool = pools; pool != NULL; pool = pool->next)
        lock_pool(pool);
    placement_lock();
}

static void release(void)
{
    placement_unlock();
    for (pp_pool *pool = pools; pool != NULL; pool = pool->next)
        unlock_pool(pool);
    pthread_mutex_unlock(&list_mutex);
}

static void inherit(struct region *region)
{
    region->inherited = true;
    memfd_close(&region->memfd);
}

static void child(void)
{
    for (pp_pool *pool = pools; pool != NULL; pool = pool->next) {
        for (struct region *region = atomic_load(&pool->regions); region != NULL;
             region = region->next)
            inherit(region);
        if (pool->spare != NULL)
            inherit(pool->spare);
    }
    release();
}

bool fork_watch(pp_pool *pool)
{
    pthread_mutex_lock(&list_mutex);
    if (!installed)
        installed = pthread_atfork(prepare, release, child) == 0;
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
