/* SPDX-License-Identifier: MIT */
/* Many traces alive at a time: what they cost, and that no mapping is made for them. */
#include <config.h>

#include "stress/live.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REGION_MAPPINGS = 7, /* three guards, code in two views, literals; one to spare for a neighbour */
    QUERIES = 100000
};

struct crowd {
    struct stress *stress;
    pp_pool *pool;
    pp_trace **traces;
    uint64_t count, linked;
    struct random random;
    size_t most;         /* mappings of a region */
    uint64_t link_time, look_time, free_time;
    pp_pool_stats stats; /* when all are alive */
};

/* Mappings that overlap [lo, hi). */
static size_t mappings_in(uintptr_t lo, uintptr_t hi)
{
    char line[512];
    size_t count = 0;
    FILE *file = fopen("/proc/self/maps", "r");
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long long from, to;
        if (sscanf(line, "%llx-%llx", &from, &to) == 2 && from < hi && lo < to)
            count++;
    }
    fclose(file);
    return count;
}

static void count_mappings(struct crowd *crowd)
{
    pp_region_info info = { .size = sizeof info };
    for (unsigned i = 0; pp_pool_get_region(crowd->pool, i, &info) == PP_OK; i++) {
        size_t count = mappings_in(info.base, info.limit);
        crowd->most = count > crowd->most ? count : crowd->most;
        if (count > REGION_MAPPINGS)
            stress_fail(crowd->stress, "with %llu traces a region has %zu mappings",
                        (unsigned long long) crowd->linked, count);
    }
}

/* Code that does nothing, of 16 to 255 bytes; none of it is run. */
static bool link_one(struct crowd *crowd)
{
    static const uint8_t code[256];
    uint64_t number = crowd->linked;
    pp_error error = { .size = sizeof error };
    pp_trace_desc desc = { .size = sizeof desc, .code = code,
                           .code_size = 16 + random_below(&crowd->random, 240),
                           .host = (void *) (uintptr_t) (number + 1), .error = &error };
    pp_status status = pp_trace_link(crowd->pool, &desc, &crowd->traces[number]);
    if (status != PP_OK)
        stress_fail(crowd->stress, "trace %llu: %s: %s", (unsigned long long) number,
                    pp_strerror(status), error.text);
    return status == PP_OK;
}

static void link_all(struct crowd *crowd)
{
    uint64_t begin = stress_clock();
    while (crowd->linked < crowd->count && link_one(crowd)) {
        uint64_t number = ++crowd->linked;
        if ((number & (number - 1)) == 0 && number >= 1024) {
            uint64_t paused = stress_clock();
            count_mappings(crowd);
            stress_progress(crowd->stress, "traces", crowd->linked, crowd->count);
            begin += stress_clock() - paused;
        }
    }
    crowd->link_time = stress_clock() - begin;
    count_mappings(crowd);
}

static void look_up(struct crowd *crowd)
{
    uint64_t missed = 0, begin = stress_clock();
    for (unsigned i = 0; i < QUERIES && crowd->linked != 0; i++) {
        uint64_t number = random_below(&crowd->random, crowd->linked);
        pp_trace *trace = crowd->traces[number];
        const uint8_t *entry = pp_trace_entry(trace);
        missed += entry == NULL || pp_trace_at(entry + 15) != trace ||
                  pp_trace_host(trace) != (void *) (uintptr_t) (number + 1);
    }
    crowd->look_time = stress_clock() - begin;
    if (missed != 0)
        stress_fail(crowd->stress, "%llu lookups missed", (unsigned long long) missed);
}

static void free_all(struct crowd *crowd)
{
    uint64_t begin = stress_clock();
    for (uint64_t i = 0; i < crowd->linked; i++) {
        uint64_t other = i + random_below(&crowd->random, crowd->linked - i);
        pp_trace *trace = crowd->traces[other];
        crowd->traces[other] = crowd->traces[i];
        if (pp_trace_free(crowd->pool, trace) != PP_OK) {
            stress_fail(crowd->stress, "a trace was not freed");
            break;
        }
    }
    crowd->free_time = stress_clock() - begin;
}

static void verify(struct crowd *crowd, uint64_t traces)
{
    pp_error error = { .size = sizeof error };
    crowd->stats = (pp_pool_stats){ .size = sizeof crowd->stats };
    if (pp_pool_verify(crowd->pool, &error) != PP_OK)
        stress_fail(crowd->stress, "pp_pool_verify: %s", error.text);
    if (pp_pool_get_stats(crowd->pool, &crowd->stats) != PP_OK || crowd->stats.traces != traces)
        stress_fail(crowd->stress, "%zu traces are counted, not %llu", crowd->stats.traces,
                    (unsigned long long) traces);
}

static void put(struct stress_table *table, const char *label, const char *unit, double value)
{
    stress_row(table, label, unit, &value);
}

static void report(const struct crowd *crowd)
{
    static const char *const names[] = { "" };
    struct stress_table *table = stress_table(crowd->stress, "traces alive at a time", 1, names);
    const pp_pool_stats *stats = &crowd->stats;
    double count = (double) (crowd->linked != 0 ? crowd->linked : 1);
    put(table, "traces", "", (double) crowd->linked);
    put(table, "regions", "", stats->regions);
    put(table, "mappings of a region, at most", "", (double) crowd->most);
    put(table, "committed / requested", "x", (double) stats->committed / (double) stats->requested);
    put(table, "metadata of a trace", "B", (double) stats->metadata / count);
    put(table, "link, each", "ns", (double) crowd->link_time / count);
    put(table, "three lookups", "ns", (double) crowd->look_time / QUERIES);
    put(table, "free, each", "ns", (double) crowd->free_time / count);
}

void live_run(struct stress *stress, uint64_t count)
{
    struct crowd crowd = { .stress = stress, .count = count, .random = stress_random(stress, 1) };
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    crowd.traces = calloc(count, sizeof *crowd.traces);
    if (crowd.traces == NULL || pp_pool_create(&options, &crowd.pool) != PP_OK) {
        stress_fail(stress, "no memory, or no pool: %s", error.text);
        free(crowd.traces);
        return;
    }
    link_all(&crowd);
    look_up(&crowd);
    verify(&crowd, crowd.linked);
    pp_pool_stats full = crowd.stats;
    free_all(&crowd);
    verify(&crowd, 0);
    crowd.stats = full;
    report(&crowd);
    pp_pool_destroy(crowd.pool);
    free(crowd.traces);
}
