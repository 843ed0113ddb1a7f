/* SPDX-License-Identifier: MIT */
/*
 * A pool in JSON.  Every part is read by the public functions, each under its
 * locks, and written when they are free again.
 */
#include <config.h>

#include "memory/json.h"
#include "memory/state.h"

static const char *wx_name(pp_wx wx)
{
    static const char *const names[] = { [PP_WX_AUTO] = "auto", [PP_WX_DUAL] = "dual",
                                         [PP_WX_REMAP] = "remap", [PP_WX_FLIP] = "flip",
                                         [PP_WX_RWX] = "rwx" };
    return names[wx];
}

/* A member of pp_pool_stats that is a size_t. */
struct field {
    const char *name;
    size_t offset;
};
#define FIELD(name) { #name, offsetof(pp_pool_stats, name) }

static const struct field fields[] = {
    FIELD(reserved), FIELD(committed), FIELD(resident), FIELD(idle), FIELD(requested), FIELD(used),
    FIELD(spans), FIELD(largest_hole), FIELD(metadata), FIELD(traces), FIELD(retired_spans),
    FIELD(retired), FIELD(inherited_spans), FIELD(trampolines), FIELD(trampoline_bytes),
    FIELD(literals), FIELD(literal_bytes), FIELD(shared_trampolines), FIELD(trampoline_uses),
    FIELD(trampoline_saved), FIELD(retargets), FIELD(barriers), FIELD(decommits),
};

static void dump_stats(struct json *json, const pp_pool *pool, const pp_pool_stats *stats)
{
    json_string(json, "name", pool->name);
    json_string(json, "wx", wx_name(stats->wx));
    json_string(json, "wx_reason", stats->wx_reason);
    json_string(json, "allocator", stats->allocator);
    json_number(json, "limit_bytes", pool->limit_bytes);
    json_number(json, "branch_range", pool->branch_range);
    json_boolean(json, "landing_pads", pool->landing_pads);
    json_number(json, "region_count", stats->regions);
    json_number(json, "near_regions", stats->near_regions);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const char *at = (const char *) stats + fields[i].offset;
        json_number(json, fields[i].name, *(const size_t *) (const void *) at);
    }
}

static void dump_classes(struct json *json, const pp_size_class *classes)
{
    json_open(json, "classes", '[');
    for (unsigned i = 0; i < PP_SIZE_CLASSES; i++) {
        json_open(json, NULL, '{');
        if (classes[i].up_to == SIZE_MAX)
            json_null(json, "up_to");
        else
            json_number(json, "up_to", classes[i].up_to);
        json_number(json, "spans", classes[i].spans);
        json_number(json, "requested", classes[i].requested);
        json_number(json, "used", classes[i].used);
        json_number(json, "holes", classes[i].holes);
        json_number(json, "hole_bytes", classes[i].hole_bytes);
        json_close(json, '}');
    }
    json_close(json, ']');
}

static void dump_fallbacks(struct json *json, pp_pool *pool, const pp_pool_stats *stats)
{
    char reason[256];
    json_open(json, "fallbacks", '{');
    for (int i = 0; i < PP_FALLBACKS; i++) {
        json_open(json, pp_fallback_name(i), '{');
        json_number(json, "count", stats->fallbacks[i]);
        if (pp_pool_get_fallback(pool, i, reason, sizeof reason) == PP_OK)
            json_string(json, "reason", reason);
        json_close(json, '}');
    }
    json_close(json, '}');
}

static void dump_region(struct json *json, const pp_region_info *info)
{
    json_open(json, NULL, '{');
    json_address(json, "base", info->base);
    json_address(json, "limit", info->limit);
    json_address(json, "code_lo", info->code_lo);
    json_address(json, "code_hi", info->code_hi);
    json_address(json, "island_lo", info->island_lo);
    json_address(json, "island_hi", info->island_hi);
    json_address(json, "literal_lo", info->literal_lo);
    json_address(json, "literal_hi", info->literal_hi);
    json_string(json, "wx", wx_name(info->wx));
    json_boolean(json, "near", info->near != 0);
    json_number(json, "reach", info->reach);
    json_boolean(json, "inherited", info->inherited != 0);
    json_string(json, "rule", info->rule);
    json_number(json, "spans", info->spans);
    json_number(json, "requested", info->requested);
    json_number(json, "used", info->used);
    json_number(json, "committed", info->committed);
    json_number(json, "idle", info->idle);
    json_number(json, "resident", info->resident);
    json_number(json, "largest_hole", info->largest_hole);
    json_close(json, '}');
}

pp_status pp_pool_dump(pp_pool *pool, pp_write_fn *write, void *host)
{
    pp_pool_stats stats = { .size = sizeof stats };
    pp_region_info info = { .size = sizeof info };
    struct json json = { .write = write, .host = host };
    if (pool == NULL || write == NULL || pp_pool_get_stats(pool, &stats) != PP_OK)
        return PP_E_ARG;
    json_open(&json, NULL, '{');
    dump_stats(&json, pool, &stats);
    dump_classes(&json, stats.classes);
    dump_fallbacks(&json, pool, &stats);
    json_open(&json, "regions", '[');
    for (unsigned i = 0; !json.failed && pp_pool_get_region(pool, i, &info) == PP_OK; i++)
        dump_region(&json, &info);
    json_close(&json, ']');
    json_close(&json, '}');
    return json_end(&json) ? PP_OK : PP_E_FAULT;
}
