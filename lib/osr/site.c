/* SPDX-License-Identifier: MIT */
/* Making and forgetting sites, and their bytes. */
#include <config.h>

#include "osr/site.h"

#include "error.h"
#include "isa/isa.h"
#include "osr/nop.h"
#include "osr/room.h"
#include "osr/site_desc.h"
#include "sized.h"

#include <stddef.h>

#define DESC_BYTES offsetof(pp_site_desc, live_gpr) /* of the first layout */

/* A site that goes by the pool's policy and by what the pool forces, from here on. */
static pp_status take_locked(pp_pool *pool, const pp_method *method, struct site **result)
{
    struct osr_state *state = osr_state_locked(pool);
    struct record *record = state != NULL ? record_take_locked(pool, &state->sites) : NULL;
    if (record == NULL)
        return PP_E_NOMEM;
    struct site *site = (struct site *) ((char *) record - state->sites.offset);
    if (method != NULL) {
        pp_status status = method_join_locked(pool, method, &site->method);
        if (status != PP_OK) {
            record_give_locked(&state->sites, record);
            return status;
        }
    }
    atomic_store_explicit(&site->policy, &state->policy, memory_order_relaxed);
    policy_set_force(&site->own_policy, policy_force(&state->policy));
    site->number = ++state->site_number;
    *result = site;
    return PP_OK;
}

void site_set_thread(struct site *site)
{
    const bool c_looks = force_verifies(policy_force(site_policy(site)));
    atomic_store_explicit(&site->head.thread_offset, c_looks ? 0 : site->desc.thread_offset,
                          memory_order_relaxed);
}

pp_status pp_site_create(pp_pool *pool, const pp_site_desc *given, pp_site **result)
{
    pp_site_desc desc;
    pp_tier0_layout tier0;
    if (pool == NULL || given == NULL || result == NULL
        || !sized_read(&desc, sizeof desc, DESC_BYTES, given))
        return PP_E_ARG;
    pp_status status = site_desc_check(&desc, &tier0);
    if (status != PP_OK)
        return status;
    struct site *site;
    pool_lock(pool);
    status = take_locked(pool, desc.method, &site);
    pool_unlock(pool);
    if (status != PP_OK)
        return error_set(desc.error, status, status == PP_E_NOMEM ? "no memory for a site"
                                                                  : "method: not one of this pool");

    site->desc = desc;
    site->desc.error = NULL;
    site->desc.hits = desc.hits == 0 ? 1 : desc.hits;
    site->tier0 = tier0;
    site->desc.tier0 = &site->tier0;
    atomic_store_explicit(&site->head.counter, desc.kind == PP_SITE_POLLED ? 0
                          : site_first_passes(site), memory_order_relaxed);
    site->head.live_gpr = desc.live_gpr;
    site->head.live_vector = desc.live_vector;
    site->head.edited = site_desc_is_edited(&desc);
    pp_site_layout layout;
    if (desc.kind == PP_SITE_ARMED)
        (void) isa_host.emit_site_cold(&site->desc, (uintptr_t) &site->head,
                                       pool_landing_pads(pool), 0, NULL, 0, &layout);
    else
        (void) isa_host.emit_site(&site->desc, (uintptr_t) &site->head, pool_landing_pads(pool),
                                  NULL, 0, &layout);
    site->head.resume = (uint32_t) (layout.resume_offset - layout.return_offset);
    record_birth(&site->record);
    site_set_thread(site); /* behind its birth, so that what is forced meanwhile is seen */
    *result = site_handle(site);
    return PP_OK;
}

pp_status pp_site_destroy(pp_pool *pool, pp_site *handle)
{
    if (pool == NULL || handle == NULL)
        return PP_E_ARG;
    struct site *site = site_from(handle);
    if (site == NULL)
        return PP_E_STALE;
    if (site->record.pool != pool)
        return PP_E_FAULT;
    uint64_t seen = site_word(site);
    do {
        if (seen & SITE_GONE)
            return PP_E_STALE;
        if (word_is(seen, STATES_PRODUCING) || (seen & SITE_RUNS))
            return PP_E_BUSY;
    } while (!site_step(site, &seen, PP_SITE_DISABLED | SITE_GONE));
    record_death(&site->record, handle);
    pool_lock(pool);
    method_leave_locked(site->method);
    nop_forget_locked(site);
    record_give_locked(&((struct osr_state *) pool_room_state(pool, ROOM_OSR))->sites,
                       &site->record);
    pool_unlock(pool);
    return PP_OK;
}

/* ---- bytes ------------------------------------------------------------------------ */

bool site_layout_takes(const pp_site_layout *layout)
{
    return layout != NULL && layout->size >= SITE_LAYOUT_BYTES && layout->size <= SIZED_MAX;
}

pp_status site_layout_refuse(pp_site_layout *layout, pp_status status, const char *why)
{
    if (layout->size >= sizeof *layout)
        layout->why = why;
    return status;
}

pp_status pp_emit_site(pp_site *handle, void *buffer, size_t capacity, pp_site_layout *layout)
{
    if (!site_layout_takes(layout))
        return PP_E_ARG;
    if (handle == NULL || (buffer == NULL && capacity != 0))
        return site_layout_refuse(layout, PP_E_ARG, "site or buffer: missing");
    struct site *site = site_from(handle);
    if (site == NULL)
        return site_layout_refuse(layout, PP_E_STALE, "site: destroyed");
    bool landing_pads = pool_landing_pads(site->record.pool);
    uintptr_t record = (uintptr_t) &site->head;
    pp_site_layout result = { .size = layout->size };
    pp_status status = isa_host.emit_site(&site->desc, record, landing_pads, NULL, 0, &result);
    if (status != PP_OK)
        return site_layout_refuse(layout, status, "counter_offset: fits no instruction");
    if (buffer != NULL && result.bytes > capacity)
        return site_layout_refuse(layout, PP_E_RANGE, "capacity: the buffer is too small");
    if (buffer != NULL)
        status = isa_host.emit_site(&site->desc, record, landing_pads, buffer, capacity, &result);
    if (status != PP_OK)
        return site_layout_refuse(layout, status, "counter_offset: fits no instruction");
    sized_write(layout, &result, sizeof result);
    if (buffer != NULL)
        site_move(site, 1u << PP_SITE_IDLE, PP_SITE_COUNTING);
    return PP_OK;
}
