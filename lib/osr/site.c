/* SPDX-License-Identifier: MIT */
/* Making and forgetting sites, and their bytes. */
#include <config.h>

#include "osr/site.h"

#include "error.h"
#include "isa/isa.h"
#include "os/cpu.h"
#include "osr/room.h"
#include "osr/tier0.h"
#include "sized.h"

#include <stddef.h>

#define THRESHOLD_MAX (1 << 30)
#define RECORD_BYTES 16
#define DESC_BYTES offsetof(pp_site_desc, live_gpr) /* of the first layout */

#if defined __x86_64__
#define RED_ZONE_BYTES 128
#define SITE_FLAGS PP_SITE_RED_ZONE
#define LIVE_GPRS 0xf7ffu               /* not r11 */
#define LIVE_VECTORS 0xffffu
#else
#define RED_ZONE_BYTES 0
#define SITE_FLAGS 0u
#define LIVE_GPRS 0xbffcffffu           /* not x16, x17, x30 */
#define LIVE_VECTORS 0xffffffffu
#endif

static bool overlaps(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/* A slot of tier-0's frame, in its own memory and in nobody else's. */
static pp_status check_slot(const pp_site_desc *desc, const pp_tier0_layout *tier0, int32_t offset,
                            int32_t bytes, const char *name)
{
    const pp_save_area *saves = &tier0->saves;
    int64_t low = -(int64_t) tier0->frame_bytes;
    if (desc->flags & PP_SITE_RED_ZONE)
        low -= RED_ZONE_BYTES;
    if (offset % bytes != 0)
        return error_set(desc->error, PP_E_ARG, "%s: not a multiple of %d", name, (int) bytes);
    if (offset < low || (int64_t) offset + bytes > (int64_t) tier0->cfa_offset)
        return error_set(desc->error, PP_E_ARG, "%s: outside the frame", name);
    if (overlaps(offset, bytes, 0, RECORD_BYTES))
        return error_set(desc->error, PP_E_ARG, "%s: in the frame record", name);
    if (saves->slots != 0
        && overlaps(offset, bytes, saves->offset, 8 * __builtin_popcountll(saves->slots)))
        return error_set(desc->error, PP_E_ARG, "%s: in the save area", name);
    return PP_OK;
}

static pp_status check_wide(const pp_site_desc *desc, const char *name, enum cpu_vectors vectors)
{
    const char *lacks = cpu_lacks(vectors);
    return lacks == NULL ? PP_OK
                         : error_set(desc->error, PP_E_UNSUPPORTED, "save: %s: %s", name, lacks);
}

/* The class, and the set that is only PP_SAVE_MASK's. */
static pp_status check_save(const pp_site_desc *desc)
{
    const uint32_t gpr = desc->live_gpr & ~(desc->save == PP_SAVE_MASK ? LIVE_GPRS : 0);
    const uint32_t vector = desc->live_vector & ~(desc->save == PP_SAVE_MASK ? LIVE_VECTORS : 0);
    if (gpr != 0)
        return error_set(desc->error, PP_E_ARG, "live_gpr: %#x not kept", (unsigned) gpr);
    if (vector != 0)
        return error_set(desc->error, PP_E_ARG, "live_vector: %#x not kept", (unsigned) vector);
    switch (desc->save) {
    case PP_SAVE_GPR:
    case PP_SAVE_V128:
    case PP_SAVE_ABI:
    case PP_SAVE_MASK:
        return PP_OK;
    case PP_SAVE_V256:
        return check_wide(desc, "V256", CPU_V256);
    case PP_SAVE_V512:
        return check_wide(desc, "V512", CPU_V512);
    }
    return error_set(desc->error, PP_E_ARG, "save: %d", (int) desc->save);
}

static pp_status check_values(const pp_site_desc *desc)
{
    pp_error *error = desc->error;
    if (desc->kind != PP_SITE_COUNTED)
        return error_set(error, PP_E_ARG, "kind: %d", (int) desc->kind);
    if (desc->counter != PP_COUNTER_FRAME && desc->counter != PP_COUNTER_SITE)
        return error_set(error, PP_E_ARG, "counter: %d", (int) desc->counter);
    if (desc->threshold < 1 || desc->threshold > THRESHOLD_MAX)
        return error_set(error, PP_E_ARG, "threshold: %d", (int) desc->threshold);
    if (desc->flags & ~SITE_FLAGS)
        return error_set(error, PP_E_ARG, "flags: %#x", (unsigned) desc->flags);
    if (desc->produce == NULL)
        return error_set(error, PP_E_ARG, "produce: missing");
    return check_save(desc);
}

static pp_status check_desc(const pp_site_desc *desc, pp_tier0_layout *tier0)
{
    pp_status status = check_values(desc);
    if (status == PP_OK)
        status = tier0_from(isa_host.arch, desc->tier0, tier0, desc->error);
    if (status == PP_OK && desc->counter == PP_COUNTER_FRAME)
        status = check_slot(desc, tier0, desc->counter_offset, 4, "counter_offset");
    if (status == PP_OK && desc->thread_offset != 0)
        status = check_slot(desc, tier0, desc->thread_offset, 8, "thread_offset");
    if (status == PP_OK && desc->thread_offset != 0 && desc->counter == PP_COUNTER_FRAME
        && overlaps(desc->thread_offset, 8, desc->counter_offset, 4))
        status = error_set(desc->error, PP_E_ARG, "thread_offset: the counter is there");
    return status;
}

static struct site *take(pp_pool *pool)
{
    pool_lock(pool);
    struct osr_state *state = osr_state_locked(pool);
    struct record *record = state != NULL ? record_take_locked(pool, &state->sites) : NULL;
    pool_unlock(pool);
    return record != NULL ? (struct site *) ((char *) record - state->sites.offset) : NULL;
}

pp_status pp_site_create(pp_pool *pool, const pp_site_desc *given, pp_site **result)
{
    pp_site_desc desc;
    pp_tier0_layout tier0;
    if (pool == NULL || given == NULL || result == NULL
        || !sized_read(&desc, sizeof desc, DESC_BYTES, given))
        return PP_E_ARG;
    pp_status status = check_desc(&desc, &tier0);
    if (status != PP_OK)
        return status;
    struct site *site = take(pool);
    if (site == NULL)
        return error_set(desc.error, PP_E_NOMEM, "no memory for a site");

    site->desc = desc;
    site->desc.error = NULL;
    site->desc.hits = desc.hits == 0 ? 1 : desc.hits;
    site->tier0 = tier0;
    site->desc.tier0 = &site->tier0;
    atomic_store_explicit(&site->head.counter, desc.threshold, memory_order_relaxed);
    site->head.thread_offset = desc.thread_offset;
    site->head.live_gpr = desc.live_gpr;
    site->head.live_vector = desc.live_vector;
    pp_site_layout layout;
    (void) isa_host.emit_site(&site->desc, (uintptr_t) &site->head, pool_landing_pads(pool), NULL,
                              0, &layout);
    site->head.resume = (uint32_t) (layout.resume_offset - layout.return_offset);
    record_birth(&site->record);
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
    /* DISABLED keeps a producer from starting, and tells whether one is at work. */
    if (!site_move(site, ~(1u << PP_SITE_TRIGGERED | 1u << PP_SITE_COMPILING), PP_SITE_DISABLED))
        return PP_E_BUSY;
    if (!record_death(&site->record, handle))
        return PP_E_STALE;
    struct entry *entry = atomic_load_explicit(&site->entry, memory_order_relaxed);
    pool_lock(pool);
    if (entry != NULL)
        entry_release(entry);
    atomic_store_explicit(&site->entry, NULL, memory_order_relaxed);
    record_give_locked(&((struct osr_state *) pool_room_state(pool, ROOM_OSR))->sites,
                       &site->record);
    pool_unlock(pool);
    return PP_OK;
}

pp_status pp_emit_site(pp_site *handle, void *buffer, size_t capacity, pp_site_layout *layout)
{
    if (handle == NULL || layout == NULL || layout->size < sizeof *layout
        || (buffer == NULL && capacity != 0))
        return PP_E_ARG;
    struct site *site = site_from(handle);
    if (site == NULL)
        return PP_E_STALE;
    bool landing_pads = pool_landing_pads(site->record.pool);
    uintptr_t record = (uintptr_t) &site->head;
    pp_site_layout result = { .size = layout->size };
    pp_status status = isa_host.emit_site(&site->desc, record, landing_pads, NULL, 0, &result);
    if (status == PP_OK && buffer != NULL)
        status = result.bytes <= capacity
            ? isa_host.emit_site(&site->desc, record, landing_pads, buffer, capacity, &result)
            : PP_E_RANGE;
    if (status != PP_OK)
        return status;
    *layout = result;
    if (buffer != NULL)
        site_move(site, 1u << PP_SITE_IDLE, PP_SITE_COUNTING);
    return PP_OK;
}
