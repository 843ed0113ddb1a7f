/* SPDX-License-Identifier: MIT */
/* Asking the host for memory. */
#include <config.h>

#include "memory/limit.h"

#include "memory/state.h"

#include <errno.h>

void limit_init(struct limit *limit) { pthread_mutex_init(&limit->lock, NULL); }
void limit_fini(struct limit *limit) { pthread_mutex_destroy(&limit->lock); }
void limit_lock(struct limit *limit) { pthread_mutex_lock(&limit->lock); }
void limit_unlock(struct limit *limit) { pthread_mutex_unlock(&limit->lock); }

static bool enter(struct limit *limit, struct asker *self)
{
    bool inside = false;
    limit_lock(limit);
    for (const struct asker *asker = limit->askers; asker != NULL; asker = asker->next)
        inside |= pthread_equal(asker->thread, self->thread) != 0;
    if (!inside) {
        self->next = limit->askers;
        limit->askers = self;
    }
    limit_unlock(limit);
    return !inside;
}

static void leave(struct limit *limit, const struct asker *self)
{
    limit_lock(limit);
    struct asker **at = &limit->askers;
    while (*at != self)
        at = &(*at)->next;
    *at = self->next;
    limit_unlock(limit);
}

bool limit_ask(pp_pool *pool, size_t bytes)
{
    struct limit *limit = &pool->limit;
    struct asker self = { .thread = pthread_self() };
    if (limit->ask == NULL || !enter(limit, &self))
        return false;
    int saved = errno;
    bool again = limit->ask(pool, bytes, limit->host) != 0;
    errno = saved;
    leave(limit, &self);
    return again;
}

/* The stacks of threads that are not there any more may become those of new ones. */
void limit_child(struct limit *limit)
{
    struct asker **at = &limit->askers;
    while (*at != NULL) {
        if (pthread_equal((*at)->thread, pthread_self()))
            at = &(*at)->next;
        else
            *at = (*at)->next;
    }
}
