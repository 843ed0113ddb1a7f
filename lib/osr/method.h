/* SPDX-License-Identifier: MIT */
/*
 * Methods from inside.  A site's share in its method's bodies goes
 *
 *      NONE -> MAKING (before it triggers) -> HAS (it got an entry) -> NONE (it goes)
 *      MAKING -> NONE (the attempt failed, or the site did not win, or was disabled)
 *
 * by exchanges, so that whatever ends an attempt ends it once.
 */
#ifndef OSR_METHOD_H
#define OSR_METHOD_H

#include "osr/record.h"

#include <patchpoint/method.h>

struct site;

struct method {
    _Alignas(16) _Atomic uint32_t bodies; /* first; the address of what handles stand for */
    atomic_bool busy;          /* an attempt is going on; only with PP_METHOD_ONE_AT_A_TIME */
    atomic_bool eager;         /* a site got an entry */
    uint32_t most, flags;      /* constant */
    uint32_t sites;            /* under pool_lock */
    _Atomic uint64_t successes, full, refused_busy;
    struct record record;
    void *host;                /* constant */
};

enum share { SHARE_NONE, SHARE_MAKING, SHARE_HAS };

/* Whether sites trigger at their next slow path. */
static inline bool method_is_eager(const struct method *method)
{
    return method != NULL && atomic_load_explicit(&method->eager, memory_order_relaxed);
}

/* The method behind a handle of this pool, which has a site more.  pool_lock held. */
pp_status method_join_locked(pp_pool *pool, const pp_method *handle, struct method **method);
void method_leave_locked(struct method *method);

/* A site is about to trigger.  PP_E_NOMEM, PP_E_BUSY: it must not. */
pp_status method_begin(struct site *site);

/* What was begun and then not tried: the site did not win. */
void method_undo(struct method *method);

/* The attempt of the site, if it has one, came to nothing. */
void method_fail(struct site *site);

/* The site has an entry. */
void method_succeed(struct site *site);

/* The site goes. */
void method_forget(struct site *site);

#endif
