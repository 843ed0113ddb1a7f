/* SPDX-License-Identifier: MIT */
/*
 * Fork handlers.  They are installed once per process and after the allocator of
 * the first pool has installed its own, because prepare handlers run in reverse
 * order: our locks have to be taken before the allocator's.
 */
#include <config.h>

#include "memory/fork.h"

#include "memory/claim.h"
#include "os/descriptor.h"
#include "os/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static pp_pool *pools;   /* guarded by list_mutex */
static bool installed;   /* guarded by list_mutex */

/* ---- children ---------------------------------------------------------- */

/*
 * A pipe for each fork: the child keeps the writing end, which is closed when it
 * ends or executes something, and the parent sees the end of file.
 */
#define WITNESSES 32

static pthread_mutex_t witness_mutex = PTHREAD_MUTEX_INITIALIZER; /* the innermost lock */
static struct descriptor witnesses[WITNESSES]; /* reading ends; guarded by witness_mutex */
static unsigned witness_count;
static bool witness_lost; /* there is a child without a pipe: it counts as alive for good */
static int born[2];       /* the pipe of the fork that is going on, or -1 */

static bool is_over(const struct descriptor *witness)
{
    struct pollfd pipe = { .fd = witness->fd };
    return poll(&pipe, 1, 0) > 0 && (pipe.revents & POLLHUP) != 0;
}

static void drop_dead_locked(void)
{
    for (unsigned i = witness_count; i-- > 0;) {
        bool lost = descriptor_check(&witnesses[i]) != 0;
        if (!lost && !is_over(&witnesses[i]))
            continue;
        witness_lost |= lost;
        descriptor_close(&witnesses[i]);
        witnesses[i] = witnesses[--witness_count];
    }
}

bool fork_has_children(void)
{
    int saved = errno;
    pthread_mutex_lock(&witness_mutex);
    drop_dead_locked();
    bool some = witness_count > 0 || witness_lost;
    pthread_mutex_unlock(&witness_mutex);
    errno = saved;
    return some;
}

static void witness_prepare(void)
{
    pthread_mutex_lock(&witness_mutex);
    drop_dead_locked();
    if (witness_count == WITNESSES || fault_fires_errno(PP_FAULT_PIPE) ||
        pipe2(born, O_CLOEXEC) != 0)
        born[0] = born[1] = -1;
}

static void witness_parent(void)
{
    if (born[0] >= 0 && descriptor_own(&witnesses[witness_count], born[0]) == 0)
        witness_count++;
    else
        witness_lost = true;
    if (born[0] >= 0)
        close(born[1]);
    pthread_mutex_unlock(&witness_mutex);
}

/* The child's own children are another matter. */
static void witness_child(void)
{
    if (born[0] >= 0)
        close(born[0]);
    while (witness_count > 0)
        descriptor_close(&witnesses[--witness_count]);
    witness_lost = false;
    pthread_mutex_unlock(&witness_mutex);
}

/* ---- pools -------------------------------------------------------------- */

static void lock_pool(pp_pool *pool)
{
    pthread_mutex_lock(&pool->opening);
    pthread_mutex_lock(&pool->lock);
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
    pthread_mutex_unlock(&pool->lock);
    pthread_mutex_unlock(&pool->opening);
}

static void prepare(void)
{
    int saved = errno;
    pthread_mutex_lock(&list_mutex);
    for (pp_pool *pool = pools; pool != NULL; pool = pool->next)
        lock_pool(pool);
    claim_lock();
    if (pools != NULL)
        witness_prepare();
    errno = saved;
}

static void release(void)
{
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
            region->shared = region_has_memfd(region);
    }
    if (pools != NULL)
        witness_parent();
    release();
    errno = saved;
}

static void inherit(struct region *region)
{
    region->inherited = true;
    region->idle = 0;
    descriptor_close(&region->memfd);
}

/* Threads that are not there any more have counted what they never took. */
static void recount(pp_pool *pool)
{
    size_t used = 0;
    for (struct region *region = atomic_load(&pool->regions); region != NULL; region = region->next)
        used += region->spans.used;
    atomic_store(&pool->used, used);
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
    if (pools != NULL)
        witness_child();
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
