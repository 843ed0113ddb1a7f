/* SPDX-License-Identifier: MIT */
/* Options, validated and normalized. */
#include <config.h>

#include "memory/options.h"

#include "error.h"
#include "isa/isa.h"

#include <stdio.h>
#include <string.h>

#define REGION_DEFAULT ((size_t) 64 << 20)
#define REGION_LARGEST ((size_t) 1 << 30)
#if defined __aarch64__
#define REGION_MAX ((size_t) 128 << 20) /* islands in the middle reach all of it */
#else
#define REGION_MAX REGION_LARGEST
#endif
#define BASES_MAX 1024

static pp_status set_anchors(pp_pool *pool, const pp_pool_options *options)
{
    struct anchors *anchors = &pool->anchors;
    anchors->reach = isa_host.branch_range;
    for (unsigned i = 0; i < ANCHORS; i++) {
        uintptr_t at = (uintptr_t) options->near[i];
        if (at >> GAP_ADDRESS_BITS != 0)
            return error_set(options->error, PP_E_ARG, "near[%u] is not a user address", i);
        if (at != 0)
            anchors->at[anchors->count++] = at;
    }
    if (anchors->count == 0)
        anchors->at[anchors->count++] = (uintptr_t) pool_create;
    return PP_OK;
}

static pp_status set_script(pp_pool *pool, const pp_pool_options *options)
{
    struct anchors *anchors = &pool->anchors;
    size_t count = options->placement_count;
    anchors->random = options->placement_seed;
    if (count == 0)
        return PP_OK;
    if (options->placement == NULL || count > BASES_MAX)
        return error_set(options->error, PP_E_ARG, "placement is NULL, or more than %u bases",
                         BASES_MAX);
    anchors->bases = pool_meta_alloc(pool, count * sizeof *anchors->bases);
    if (anchors->bases == NULL)
        return error_set(options->error, PP_E_NOMEM, "no memory for bookkeeping");
    memcpy(anchors->bases, options->placement, count * sizeof *anchors->bases);
    anchors->base_count = count;
    return PP_OK;
}

/* What the kernel allows in the name of private memory; see PR_SET_VMA_ANON_NAME in prctl(2). */
static pp_status set_name(pp_pool *pool, const pp_pool_options *options)
{
    const char *name = options->name == NULL ? "patchpoint" : options->name;
    size_t length = strnlen(name, sizeof pool->name);
    if (length == 0 || length == sizeof pool->name)
        return error_set(options->error, PP_E_ARG, "name is empty or longer than %zu characters",
                         sizeof pool->name - 1);
    for (size_t i = 0; i < length; i++) {
        if (name[i] < ' ' || name[i] > '~' || strchr("[]\\$`", name[i]) != NULL)
            return error_set(options->error, PP_E_ARG,
                             "name has a character that the names of mappings cannot have");
    }
    memcpy(pool->name, name, length + 1);
    return PP_OK;
}

pp_status options_set(pp_pool *pool, const pp_pool_options *options)
{
    size_t bytes = options->region_bytes == 0 ? REGION_DEFAULT : options->region_bytes;
    if (bytes % PLACEMENT_ALIGN != 0 || bytes > REGION_LARGEST)
        return error_set(options->error, PP_E_ARG,
                         "region_bytes is not a multiple of 2 MiB up to 1 GiB");
    if ((unsigned) options->wx > PP_WX_RWX)
        return error_set(options->error, PP_E_ARG, "unknown wx %u", (unsigned) options->wx);
    if ((options->flags & ~(uint32_t) PP_POOL_LANDING_PADS) != 0)
        return error_set(options->error, PP_E_ARG, "unknown flags 0x%x", (unsigned) options->flags);
    if ((options->unwinders & ~(uint32_t) (PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND)) != 0 ||
        options->reserved != 0)
        return error_set(options->error, PP_E_ARG, "unknown unwinders 0x%x, or reserved is not 0",
                         (unsigned) options->unwinders);
    pool->unwinders = options->unwinders;
    pool->region_bytes = bytes < REGION_MAX ? bytes : REGION_MAX;
    pool->limit_bytes = options->limit_bytes;
    idle_init(&pool->idle, options->idle_bytes, pool->region_bytes);
    pool->limit.ask = options->on_limit;
    pool->limit.host = options->on_limit_host;
    pool->landing_pads = (options->flags & PP_POOL_LANDING_PADS) != 0;
    pool->branch_range = options->branch_range == 0 || options->branch_range > isa_host.branch_range
                             ? isa_host.branch_range
                             : options->branch_range;
    pp_status status = set_anchors(pool, options);
    if (status == PP_OK)
        status = set_name(pool, options);
    if (status == PP_OK)
        status = set_script(pool, options);
    return status;
}

void options_forget(pp_pool *pool)
{
    struct anchors *anchors = &pool->anchors;
    pool_meta_free(pool, anchors->bases, anchors->base_count * sizeof *anchors->bases);
    anchors->bases = NULL;
}
