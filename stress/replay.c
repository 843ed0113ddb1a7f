/* SPDX-License-Identifier: MIT */
/*
 * replay: what a real JIT linked, linked and run again, in four settings.  The
 * tables put the pool beside what JITs do without one: a page per trace.
 */
#include <config.h>

#include "stress/catalog.h"
#include "stress/play.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SETTINGS = 4, FAR_SHARED = 3 };

static const struct setting settings[SETTINGS] = {
    { .name = "near own", .is_own = true },
    { .name = "near shared" },
    { .name = "far own", .is_far = true, .is_own = true },
    { .name = "far shared", .is_far = true },
};

/* One file, over all passes. */
struct result {
    const char *path;
    bool is_bad;          /* could not be read, or not be synthesized */
    bool is_played;       /* in all settings, at least once */
    unsigned moved;       /* sites that are not where they were recorded */
    struct outcome outcomes[SETTINGS];
};

/* ---- tables ---------------------------------------------------------------------------- */

static double ratio(double a, double b)
{
    return b > 0 ? a / b : NAN;
}

/* Time to link and to free a trace in pages of its own, and in the pool. */
static double speed(struct outcome *outcome, unsigned act)
{
    struct samples *times = outcome->times[act];
    return ratio(samples_median(&times[PAGE_LINK]) + samples_median(&times[PAGE_FREE]),
                 samples_median(&times[POOL_LINK]) + samples_median(&times[POOL_FREE]));
}

static double value_of(struct outcome *o, unsigned row)
{
    switch (row) {
    case 0: return (double) (o->times[0][POOL_LINK].count + o->times[1][POOL_LINK].count);
    case 1: return (double) o->sites;
    case 2: return (double) o->live;
    case 3: return (double) o->resident;
    case 4: return ratio((double) o->resident, (double) o->live);
    case 5: return o->page_bytes > 0 ? ratio((double) o->page_bytes, (double) o->live) : NAN;
    case 6: return (double) o->trampolines;
    case 7: return (double) o->literals;
    case 8: return (double) o->trampoline_bytes;
    case 9: return (double) o->symbol_bytes;
    case 10: return 100 * ratio((double) o->trampoline_bytes, (double) o->symbol_bytes);
    case 11: return (double) o->reserved;
    case 12: return (double) o->metadata;
    case 13: return samples_median(&o->times[0][POOL_LINK]);
    case 14: return samples_median(&o->times[0][POOL_FREE]);
    case 15: return samples_median(&o->times[0][PAGE_LINK]);
    case 16: return samples_median(&o->times[0][PAGE_FREE]);
    case 17: return speed(o, 0);
    case 18: return samples_median(&o->times[1][POOL_LINK]);
    case 19: return samples_median(&o->times[1][POOL_FREE]);
    case 20: return speed(o, 1);
    default: return NAN;
    }
}

static void show_result(struct stress *stress, struct result *result)
{
    static const struct { const char *label, *unit; } rows[] = {
        { "traces linked and run", "" },
        { "sites performed", "" },
        { "code and data alive at the peak", "B" },
        { "resident at the peak", "B" },
        { "  / code and data", "x" },
        { "  a page per trace / code and data", "x" },
        { "trampolines at the peak", "" },
        { "other literals", "" },
        { "  bytes of both", "B" },
        { "  16 bytes a symbol of each trace", "B" },
        { "  bytes of both / that", "%" },
        { "address space reserved", "B" },
        { "bookkeeping", "B" },
        { "link and publish, new memory, median", "ns" },
        { "free", "ns" },
        { "mmap, link, mprotect", "ns" },
        { "munmap", "ns" },
        { "  a page per trace / pool", "x" },
        { "link and publish, used memory, median", "ns" },
        { "free", "ns" },
        { "  a page per trace / pool", "x" },
    };
    const char *names[SETTINGS];
    char title[512];
    const struct outcome *first = &result->outcomes[0];
    for (unsigned i = 0; i < SETTINGS; i++)
        names[i] = settings[i].name;
    snprintf(title, sizeof title, "%s (%s%s)", result->path, first->wx != NULL ? first->wx : "?",
             first->near_regions < first->regions ? ", not near" : "");
    struct stress_table *table = stress_table(stress, title, SETTINGS, names);
    double values[SETTINGS];
    for (unsigned row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        for (unsigned i = 0; i < SETTINGS; i++)
            values[i] = value_of(&result->outcomes[i], row);
        stress_row(table, rows[row].label, rows[row].unit, values);
    }
    for (unsigned i = 0; i < SETTINGS; i++)
        values[i] = result->moved;
    stress_row(table, "sites not where they were recorded", "", values);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* All files at one glance; one unit a row is all that a table has, so ratios only. */
static void show_summary(struct stress *stress, struct result *results, size_t count)
{
    static const char *const names[] = { "resident", "page per trace", "trampolines", "speed" };
    struct stress_table *table =
        stress_table(stress,
                     "far, shared: resident and a page per trace / code and data; trampolines / "
                     "16 B a symbol of each trace; time of a page per trace / pool",
                     4, names);
    for (size_t i = 0; i < count; i++) {
        struct result *result = &results[i];
        struct outcome *o = &result->outcomes[FAR_SHARED];
        if (!result->is_played)
            continue;
        stress_row(table, base_name(result->path), "x",
                   (const double[]) { value_of(o, 4), value_of(o, 5), value_of(o, 10) / 100,
                                      value_of(o, 20) });
    }
}

/* ---- playing ------------------------------------------------------------------------------ */

/* Synthesize every trace once, so that a file that does not fit this machine is not begun. */
static bool try_synthesis(struct stress *stress, const struct recording *recording,
                          struct result *result)
{
    struct synth synth;
    struct targets targets = { 0 };
    char error[512] = "";
    pp_symbol *symbols = calloc(recording->symbol_count + 1, sizeof *symbols);
    bool good = symbols != NULL && synth_init(&synth, recording->symbol_count);
    if (!good) {
        stress_fail(stress, "%s: no memory", recording->path);
        free(symbols);
        return false;
    }
    result->moved = 0;
    for (size_t i = 0; i < recording->trace_count && good; i++) {
        good = synth_trace(&synth, recording, &recording->traces[i],
                           stress_options(stress)->form, symbols, &targets, error, sizeof error);
        result->moved += synth.moved;
    }
    if (!good)
        stress_fail(stress, "%s", error);
    synth_free(&synth);
    free(symbols);
    return good;
}

static void replay_file(struct stress *stress, struct result *result, uint64_t pass)
{
    struct recording recording;
    char error[512];
    if (!recording_read(result->path, &recording, error, sizeof error)) {
        stress_fail(stress, "%s", error);
        result->is_bad = true;
        return;
    }
    result->is_bad = !try_synthesis(stress, &recording, result);
    for (unsigned i = 0; i < SETTINGS && !result->is_bad; i++) {
        if (stress_expired(stress))
            break;
        play(stress, &recording, &settings[i], pass, &result->outcomes[i]);
        result->is_played |= i + 1 == SETTINGS;
    }
    recording_free(&recording);
}

static void replay_all(struct stress *stress, struct result *results, size_t count)
{
    uint64_t passes = stress_options(stress)->iterations;
    if (passes == 0)
        passes = stress_fills_time(stress) ? UINT64_MAX : 1;
    for (uint64_t pass = 0; pass < passes && !stress_expired(stress); pass++) {
        bool any = false;
        for (size_t i = 0; i < count && !stress_expired(stress); i++) {
            if (!results[i].is_bad)
                replay_file(stress, &results[i], pass);
            any |= !results[i].is_bad;
        }
        if (!any)
            break;
    }
}

static void run(struct stress *stress)
{
    const struct stress_options *options = stress_options(stress);
    struct catalog catalog;
    if (!catalog_open(&catalog, options->files, options->file_count)) {
        stress_fail(stress, "no recording (*.rec) in: %s", catalog.tried);
        catalog_close(&catalog);
        return;
    }
    struct result *results = calloc(catalog.count, sizeof *results);
    if (results == NULL) {
        stress_fail(stress, "no memory for the results");
        catalog_close(&catalog);
        return;
    }
    size_t cut = 0;
    for (size_t i = 0; i < catalog.count; i++)
        results[i].path = catalog.paths[i];
    replay_all(stress, results, catalog.count);
    for (size_t i = 0; i < catalog.count; i++) {
        if (results[i].is_played)
            show_result(stress, &results[i]);
        cut += !results[i].is_played && !results[i].is_bad;
    }
    if (cut > 0)
        stress_note(stress, "%zu of %zu recordings were not played in all settings: no time left",
                    cut, catalog.count);
    if (catalog.count > 1)
        show_summary(stress, results, catalog.count);
    for (size_t i = 0; i < catalog.count * SETTINGS * 2 * OPERATIONS; i++)
        samples_free(&results[i / (SETTINGS * 2 * OPERATIONS)]
                          .outcomes[i / (2 * OPERATIONS) % SETTINGS]
                          .times[i / OPERATIONS % 2][i % OPERATIONS]);
    free(results);
    catalog_close(&catalog);
}

const struct scenario scenario_replay = {
    .name = "replay",
    .summary = "link and run what a real JIT linked, in four settings",
    .run = run,
    .seconds = 20,
    .takes_files = true,
};
