/* SPDX-License-Identifier: MIT */
/* Fallbacks, counted and explained. */
#include <config.h>

#include "memory/fallback.h"

#include "memory/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Static_assert(PP_FALLBACKS <= sizeof((pp_pool_stats *) 0)->fallbacks /
                                   sizeof((pp_pool_stats *) 0)->fallbacks[0],
               "the public struct has room for every kind");

const char *pp_fallback_name(int fallback)
{
    static const char *const names[PP_FALLBACKS] = {
        [PP_FALLBACK_MODE] = "mode",         [PP_FALLBACK_FAR] = "far",
        [PP_FALLBACK_SMALL] = "small",       [PP_FALLBACK_ISLAND] = "island",
        [PP_FALLBACK_METADATA] = "metadata", [PP_FALLBACK_BARRIER] = "barrier",
    };
    return fallback >= 0 && fallback < PP_FALLBACKS ? names[fallback] : "unknown";
}

void fallbacks_init(struct fallbacks *fallbacks)
{
    pthread_mutex_init(&fallbacks->lock, NULL);
}

void fallbacks_fini(struct fallbacks *fallbacks)
{
    pthread_mutex_destroy(&fallbacks->lock);
}

void fallbacks_lock(struct fallbacks *fallbacks)
{
    pthread_mutex_lock(&fallbacks->lock);
}

void fallbacks_unlock(struct fallbacks *fallbacks)
{
    pthread_mutex_unlock(&fallbacks->lock);
}

void pool_note_fallback(pp_pool *pool, enum pp_fallback fallback, const char *format, ...)
{
    struct fallbacks *fallbacks = &pool->fallbacks;
    va_list arguments;
    va_start(arguments, format);
    fallbacks_lock(fallbacks);
    vsnprintf(fallbacks->reasons[fallback], sizeof fallbacks->reasons[fallback], format,
              arguments);
    fallbacks_unlock(fallbacks);
    va_end(arguments);
    atomic_fetch_add_explicit(&fallbacks->counts[fallback], 1, memory_order_relaxed);
}

void fallbacks_add_stats(const struct fallbacks *fallbacks, pp_pool_stats *stats)
{
    for (unsigned i = 0; i < PP_FALLBACKS; i++)
        stats->fallbacks[i] += atomic_load_explicit(&fallbacks->counts[i], memory_order_relaxed);
}

pp_status pp_pool_get_fallback(pp_pool *pool, int fallback, char *reason, size_t capacity)
{
    if (pool == NULL || reason == NULL || capacity == 0 || fallback < 0 ||
        fallback >= PP_FALLBACKS)
        return PP_E_ARG;
    fallbacks_lock(&pool->fallbacks);
    snprintf(reason, capacity, "%s", pool->fallbacks.reasons[fallback]);
    fallbacks_unlock(&pool->fallbacks);
    return PP_OK;
}
