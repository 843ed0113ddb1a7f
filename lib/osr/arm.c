/* SPDX-License-Identifier: MIT */
/* Armed sites: their part out of line, and the patch that leads there. */
#include <config.h>

#include "osr/site.h"

#include "error.h"
#include "isa/isa.h"
#include "isa/patch.h"
#include "memory/pool.h"
#include "osr/nop.h"
#include "sized.h"

#include <patchpoint/emit.h>
#include <patchpoint/patch.h>

#include <string.h>

#define COLD_MAX 96

static pp_status emit_cold(struct site *site, int64_t hot, void *buffer, size_t capacity,
                           pp_site_layout *layout)
{
    return isa_host.emit_site_cold(&site->desc, (uintptr_t) &site->head,
                                   pool_landing_pads(site->record.pool), hot, buffer, capacity,
                                   layout);
}

/* An armed site, or NULL and why not. */
static struct site *armed_from(const pp_site *handle, pp_status *status)
{
    struct site *site = site_from(handle);
    *status = handle == NULL ? PP_E_ARG : site == NULL ? PP_E_STALE : PP_OK;
    if (site != NULL && site->desc.kind != PP_SITE_ARMED)
        *status = PP_E_ARG;
    return *status == PP_OK ? site : NULL;
}

pp_status pp_emit_site_cold(pp_site *handle, int64_t hot, void *buffer, size_t capacity,
                            pp_site_layout *layout)
{
    pp_status status;
    if (!site_layout_takes(layout))
        return PP_E_ARG;
    struct site *site = armed_from(handle, &status);
    if (site == NULL)
        return site_layout_refuse(layout, status, "site: missing, stale, or not armed");
    if (buffer == NULL && capacity != 0)
        return site_layout_refuse(layout, PP_E_ARG, "buffer: missing");
    pp_site_layout result = { .size = layout->size };
    status = emit_cold(site, hot, NULL, 0, &result);
    if (status != PP_OK)
        return site_layout_refuse(layout, status, "hot: no jump reaches that far");
    if (buffer != NULL && result.bytes > capacity)
        return site_layout_refuse(layout, PP_E_RANGE, "capacity: the buffer is too small");
    if (buffer != NULL)
        status = emit_cold(site, hot, buffer, capacity, &result);
    if (status != PP_OK)
        return site_layout_refuse(layout, status, "hot: no jump reaches that far");
    sized_write(layout, &result, sizeof result);
    return PP_OK;
}

/* The host has put code there: in a trace or span, retired and open ones too. */
static bool is_code(const struct owner *owner)
{
    return owner_may_run(owner) || owner_is_host(owner);
}

/* Whether what is at `cold` is this site's; only the call's distance is the linker's. */
static bool is_cold(struct site *site, const uint8_t *hot, const uint8_t *cold)
{
    struct code_place place;
    uint8_t bytes[COLD_MAX];
    pp_site_layout layout;
    const int64_t distance = (int64_t) ((uintptr_t) hot - (uintptr_t) cold);
    if (emit_cold(site, distance, bytes, sizeof bytes, &layout) != PP_OK
        || !code_at((uintptr_t) cold, &place) || !is_code(place.owner)
        || place.start + place.size - (uintptr_t) cold < layout.bytes)
        return false;
    const size_t call = layout.relocs[0].offset;
    return memcmp(cold, bytes, call) == 0
        && memcmp(cold + call + 4, bytes + call + 4, layout.bytes - call - 4) == 0;
}

/* Where the NOP or jump of a site may be read; whether it may be patched is for patch/ to say. */
static bool is_hot(const struct site *site, const uint8_t *hot, struct code_place *place)
{
    return code_at((uintptr_t) hot, place) && place->region->pool == site->record.pool
        && (uintptr_t) hot - place->start + NOP_BYTES <= place->size;
}

/* One store where the bytes lie in one word; elsewhere threads wait at a trap. */
static uint8_t protocol_at(const uint8_t *hot)
{
#if defined __x86_64__
    return (uintptr_t) hot % 8 + NOP_BYTES <= 8 ? PP_PATCH_WORD : PP_PATCH_INT3;
#else
    (void) hot;
    return PP_PATCH_BRANCH;
#endif
}

/* The head of a longer NOP is no instruction by itself, so it has to be declared. */
static bool is_head(const uint8_t *nop)
{
#if defined __x86_64__
    return x86_64_nop_length(nop, NOP_BYTES) != NOP_BYTES;
#else
    (void) nop;
    return false;
#endif
}

static pp_status fill_patch(struct site *site, const uint8_t *hot, const uint8_t *cold, bool armed,
                            const struct code_place *place, pp_patch *patch)
{
    size_t bytes;
    pp_patch result = { .address = hot, .protocol = protocol_at(hot), .bytes = NOP_BYTES,
                        .flags = PP_PATCH_EXPECT_OLD };
    uint8_t *nop = armed ? result.old : result.value;
    pp_status status = pp_emit_jump(isa_host.arch, hot, cold, armed ? result.value : result.old,
                                    PP_PATCH_BYTES, &bytes);
    if (status != PP_OK)
        return status;
    pool_lock(site->record.pool);
    nop_find_locked(site, hot, place, nop);
    if (armed && !nop_keep_locked(site, hot, place, nop))
        status = PP_E_NOMEM;
    pool_unlock(site->record.pool);
    if (is_head(nop))
        result.flags |= PP_PATCH_DECLARED;
    if (status == PP_OK)
        *patch = result;
    return status;
}

pp_status pp_site_patch(pp_site *handle, const void *hot, const void *cold, int armed,
                        pp_patch *patch)
{
    pp_status status;
    struct code_place place;
    struct site *site = armed_from(handle, &status);
    if (site == NULL)
        return status;
    if (hot == NULL || cold == NULL || patch == NULL || !is_cold(site, hot, cold)
        || !is_hot(site, hot, &place))
        return PP_E_ARG;
    return fill_patch(site, hot, cold, armed != 0, &place, patch);
}

static pp_status change(pp_site *handle, const void *hot, const void *cold, int armed,
                        pp_error *error)
{
    pp_patch patch;
    pp_patch_options options = { .size = sizeof options, .error = error };
    pp_status status = pp_site_patch(handle, hot, cold, armed, &patch);
    if (status != PP_OK)
        return error_set(error, status, status == PP_E_NOMEM
                         ? "no memory for the NOP that a jump replaces"
                         : "not an armed site and its part out of line");
    return pp_patch_apply(site_from(handle)->record.pool, &patch, 1, &options);
}

pp_status pp_site_arm(pp_site *handle, const void *hot, const void *cold, pp_error *error)
{
    return change(handle, hot, cold, 1, error);
}

pp_status pp_site_disarm(pp_site *handle, const void *hot, const void *cold, pp_error *error)
{
    return change(handle, hot, cold, 0, error);
}
