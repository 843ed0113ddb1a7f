/* SPDX-License-Identifier: MIT */
/* Armed sites: their part out of line, and the patch that leads there. */
#include <config.h>

#include "osr/site.h"

#include "error.h"
#include "isa/isa.h"
#include "memory/pool.h"

#include <patchpoint/emit.h>
#include <patchpoint/patch.h>

#include <string.h>

#if defined __x86_64__
enum { SITE_BYTES = 5, SITE_PROTOCOL = PP_PATCH_WORD };
#else
enum { SITE_BYTES = 4, SITE_PROTOCOL = PP_PATCH_BRANCH };
#endif
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
    struct site *site = armed_from(handle, &status);
    if (site == NULL)
        return status;
    if (layout == NULL || layout->size < sizeof *layout || (buffer == NULL && capacity != 0))
        return PP_E_ARG;
    pp_site_layout result = { .size = layout->size };
    status = emit_cold(site, hot, NULL, 0, &result);
    if (status == PP_OK && buffer != NULL)
        status = result.bytes <= capacity ? emit_cold(site, hot, buffer, capacity, &result)
                                          : PP_E_RANGE;
    if (status == PP_OK)
        *layout = result;
    return status;
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

pp_status pp_site_patch(pp_site *handle, const void *hot, const void *cold, int armed,
                        pp_patch *patch)
{
    pp_status status;
    size_t bytes;
    struct site *site = armed_from(handle, &status);
    if (site == NULL)
        return status;
    if (hot == NULL || cold == NULL || patch == NULL || !is_cold(site, hot, cold))
        return PP_E_ARG;
    pp_patch result = { .address = hot, .protocol = SITE_PROTOCOL, .bytes = SITE_BYTES,
                        .flags = PP_PATCH_EXPECT_OLD };
    status = pp_emit_nop(isa_host.arch, SITE_BYTES, armed ? result.old : result.value,
                         PP_PATCH_BYTES);
    if (status == PP_OK)
        status = pp_emit_jump(isa_host.arch, hot, cold, armed ? result.value : result.old,
                              PP_PATCH_BYTES, &bytes);
    if (status == PP_OK)
        *patch = result;
    return status;
}

static pp_status change(pp_site *handle, const void *hot, const void *cold, int armed,
                        pp_error *error)
{
    pp_patch patch;
    pp_patch_options options = { .size = sizeof options, .error = error };
    pp_status status = pp_site_patch(handle, hot, cold, armed, &patch);
    if (status != PP_OK)
        return error_set(error, status, "not an armed site and its part out of line");
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
