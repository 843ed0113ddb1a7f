/* SPDX-License-Identifier: MIT */
/* Methods: how many bodies, how many producers at a time. */
#include <config.h>

#include "osr/method.h"

#include "error.h"
#include "osr/room.h"
#include "osr/site.h"
#include "sized.h"

#include <stddef.h>

static struct method *method_from(const pp_method *handle)
{
    struct record *record = record_from(handle, RECORD_METHOD);
    return record == NULL ? NULL
                          : (struct method *) ((char *) record - offsetof(struct method, record));
}

/* ---- shares of sites ------------------------------------------------------- */

static void refuse(_Atomic uint64_t *count)
{
    atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
}

/* One body more, if there may be. */
static bool take_body(struct method *method)
{
    uint32_t bodies = atomic_load_explicit(&method->bodies, memory_order_relaxed);
    do {
        if (method->most != 0 && bodies >= method->most)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&method->bodies, &bodies, bodies + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void give_body(struct method *method)
{
    atomic_fetch_sub_explicit(&method->bodies, 1, memory_order_relaxed);
}

static bool one_at_a_time(const struct method *method)
{
    return method->flags & PP_METHOD_ONE_AT_A_TIME;
}

static void end_attempt(struct method *method)
{
    if (one_at_a_time(method))
        atomic_store_explicit(&method->busy, false, memory_order_release);
}

pp_status method_begin(struct site *site)
{
    struct method *method = site->method;
    if (method == NULL)
        return PP_OK;
    if (one_at_a_time(method)
        && atomic_exchange_explicit(&method->busy, true, memory_order_acquire)) {
        refuse(&method->refused_busy);
        return PP_E_BUSY;
    }
    if (!take_body(method)) {
        end_attempt(method);
        refuse(&method->full);
        return PP_E_NOMEM;
    }
    return PP_OK;
}

void method_undo(struct method *method)
{
    if (method == NULL)
        return;
    give_body(method);
    end_attempt(method);
}

void method_account(struct method *method, uint64_t before, uint64_t after)
{
    const struct entry *was = word_entry(before), *is = word_entry(after);
    if (method == NULL)
        return;
    if (is != NULL && is != was)
        atomic_fetch_add_explicit(&method->successes, 1, memory_order_relaxed);
    if ((is != NULL) != (was != NULL))
        atomic_fetch_add_explicit(&method->entries, is != NULL ? 1 : -1, memory_order_relaxed);
    if (before & ~after & SITE_SHARE)
        give_body(method);
    if (word_attempts(before) && !word_attempts(after))
        end_attempt(method);
}

/* ---- sites of a method ------------------------------------------------------- */

pp_status method_join_locked(pp_pool *pool, const pp_method *handle, struct method **result)
{
    struct method *method = method_from(handle);
    if (method == NULL)
        return PP_E_STALE;
    if (method->record.pool != pool)
        return PP_E_FAULT;
    method->sites++;
    *result = method;
    return PP_OK;
}

void method_leave_locked(struct method *method)
{
    if (method != NULL)
        method->sites--;
}

/* ---- public ------------------------------------------------------------------ */

pp_status pp_method_create(pp_pool *pool, const pp_method_desc *given, pp_method **result)
{
    pp_method_desc desc;
    if (pool == NULL || given == NULL || result == NULL
        || !sized_read(&desc, sizeof desc, sizeof desc, given))
        return PP_E_ARG;
    if (desc.flags & ~PP_METHOD_ONE_AT_A_TIME)
        return error_set(desc.error, PP_E_ARG, "flags: %#x", (unsigned) desc.flags);
    pool_lock(pool);
    struct osr_state *state = osr_state_locked(pool);
    struct record *record = state != NULL ? record_take_locked(pool, &state->methods) : NULL;
    pool_unlock(pool);
    if (record == NULL)
        return error_set(desc.error, PP_E_NOMEM, "no memory for a method");
    struct method *method = (struct method *) ((char *) record - state->methods.offset);
    method->most = desc.bodies;
    method->flags = desc.flags;
    method->host = desc.host;
    record_birth(&method->record);
    *result = record_handle(&method->record);
    return PP_OK;
}

pp_status pp_method_destroy(pp_pool *pool, pp_method *handle)
{
    if (pool == NULL || handle == NULL)
        return PP_E_ARG;
    pool_lock(pool);
    pp_status status = PP_OK;
    struct method *method = method_from(handle);
    if (method == NULL)
        status = PP_E_STALE;
    else if (method->record.pool != pool)
        status = PP_E_FAULT;
    else if (method->sites != 0)
        status = PP_E_BUSY;
    else if (!record_death(&method->record, handle))
        status = PP_E_STALE;
    if (status == PP_OK)
        record_give_locked(&osr_state_locked(pool)->methods, &method->record);
    pool_unlock(pool);
    return status;
}

void *pp_method_host(const pp_method *handle)
{
    struct method *method = method_from(handle);
    return method == NULL ? NULL : method->host;
}

pp_status pp_method_get_stats(const pp_method *handle, pp_method_stats *stats)
{
    struct method *method = method_from(handle);
    if (handle == NULL || stats == NULL || stats->size < sizeof *stats || stats->size > SIZED_MAX)
        return PP_E_ARG;
    if (method == NULL)
        return PP_E_STALE;
    pool_lock(method->record.pool);
    pp_method_stats result = {
        .sites = method->sites,
        .bodies = atomic_load_explicit(&method->bodies, memory_order_relaxed),
        .successes = atomic_load_explicit(&method->successes, memory_order_relaxed),
        .full = atomic_load_explicit(&method->full, memory_order_relaxed),
        .busy = atomic_load_explicit(&method->refused_busy, memory_order_relaxed),
    };
    pool_unlock(method->record.pool);
    sized_write(stats, &result, sizeof result);
    return PP_OK;
}
