/* SPDX-License-Identifier: MIT */
/*
 * Methods from inside.  A site that triggers takes one of its method's bodies first, and
 * says so in its state word (SITE_SHARE); the step that loses the flag gives the body
 * back.  So it is given back once, whatever ends the attempt or takes the entry away.
 */
#ifndef OSR_METHOD_H
#define OSR_METHOD_H

#include "osr/record.h"

#include <patchpoint/method.h>

struct site;

struct method {
    _Alignas(16) _Atomic uint32_t bodies; /* first; the address of what handles stand for */
    atomic_bool busy;          /* an attempt is going on; only with PP_METHOD_ONE_AT_A_TIME */
    _Atomic int32_t entries;   /* sites that lead to one; for a moment perhaps one less */
    uint32_t most, flags;      /* constant */
    uint32_t sites;            /* under pool_lock */
    _Atomic uint64_t successes, full, refused_busy;
    struct record record;
    void *host;                /* constant */
};

/* Whether sites trigger at their next slow path. */
static inline bool method_is_eager(const struct method *method)
{
    return method != NULL && atomic_load_explicit(&method->entries, memory_order_relaxed) > 0;
}

/* The method behind a handle of this pool, which has a site more.  pool_lock held. */
pp_status method_join_locked(pp_pool *pool, const pp_method *handle, struct method **method);
void method_leave_locked(struct method *method);

/* A site is about to trigger.  PP_E_NOMEM, PP_E_BUSY: it must not. */
pp_status method_begin(struct site *site);

/* What was begun and then not tried: the site did not win. */
void method_undo(struct method *method);

/* A site went from one state word to another. */
void method_account(struct method *method, uint64_t before, uint64_t after);

#endif
