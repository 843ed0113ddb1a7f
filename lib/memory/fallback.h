/* SPDX-License-Identifier: MIT */
/*
 * Fallbacks: what a pool did in another way than the best, how often, and why the
 * latest time.  The reason is a sentence that somebody can act on.
 */
#ifndef MEMORY_FALLBACK_H
#define MEMORY_FALLBACK_H

#include <patchpoint/pool.h>

#include <pthread.h>
#include <stdatomic.h>

struct fallbacks {
    pthread_mutex_t lock;                 /* innermost: guards reasons */
    atomic_size_t counts[PP_FALLBACKS];
    char reasons[PP_FALLBACKS][240];      /* "": none */
};

void fallbacks_init(struct fallbacks *fallbacks);
void fallbacks_fini(struct fallbacks *fallbacks);

/* Around fork. */
void fallbacks_lock(struct fallbacks *fallbacks);
void fallbacks_unlock(struct fallbacks *fallbacks);

/* It happened once more.  May be called with any lock held. */
void pool_note_fallback(pp_pool *pool, enum pp_fallback fallback, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void fallbacks_add_stats(const struct fallbacks *fallbacks, pp_pool_stats *stats);

#endif
