/* SPDX-License-Identifier: MIT */
/*
 * resume: what it costs to get back into an OSR body that suspended itself, by each
 * way that suspend.h has.
 */
#include <config.h>

#include "stress/stress.h"
#include "stress/suspend.h"

#include <stdlib.h>

enum way { BARE, DIRECT, PATCHPOINT, UNWIND, WAYS };

static const char *const way_names[WAYS] = {
    "bare jump", "direct jump", "patchpoint", "capture, unwind, restore",
};

/* The old way takes so much longer that it does a part of the iterations only. */
#define UNWIND_SHARE 100
#define ROUNDS 9

struct bench {
    struct stress *stress;
    struct suspend suspend;
    pp_trace *traces[WAYS];
};

/* Nanoseconds for one iteration; a wrong count is a failure. */
static double run_way(struct bench *bench, enum way way, uint64_t iterations)
{
    uint64_t start = stress_clock();
    bool good = suspend_run(&bench->suspend, bench->traces[way], 1, iterations);
    uint64_t end = stress_clock();
    if (!good)
        stress_fail(bench->stress, "%s: %llu iterations were not counted", way_names[way],
                    (unsigned long long) iterations);
    return (double) (end - start) / (double) iterations;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static void report(struct stress *stress, const double each[WAYS], uint64_t iterations)
{
    static const char *const column[] = { "" };
    struct stress_table *table = stress_table(stress, "one iteration", 1, column);
    for (unsigned way = 0; way < WAYS; way++)
        stress_value(table, way_names[way], "ns", each[way]);
    table = stress_table(stress, "all iterations; unwinding did a part of them", 1, column);
    stress_value(table, "iterations", "", (double) iterations);
    for (unsigned way = 0; way < WAYS; way++)
        stress_value(table, way_names[way], "ms", each[way] * (double) iterations / 1e6);
    table = stress_table(stress, "ratios", 1, column);
    stress_value(table, "direct jump / bare jump", "x", each[DIRECT] / each[BARE]);
    stress_value(table, "patchpoint / bare jump", "x", each[PATCHPOINT] / each[BARE]);
    stress_value(table, "unwinding / direct jump", "x", each[UNWIND] / each[DIRECT]);
    stress_value(table, "unwinding / patchpoint", "x", each[UNWIND] / each[PATCHPOINT]);
    if (each[UNWIND] < 20 * each[DIRECT] || each[DIRECT] > 1.5 * each[BARE])
        stress_note(stress, "the direct jump is slower here than it should be");
}

static void measure(struct bench *bench)
{
    struct stress *stress = bench->stress;
    uint64_t iterations = stress_iterations(stress, 10000000);
    double each[WAYS][ROUNDS], middle[WAYS];
    unsigned rounds = 0;
    for (; rounds < ROUNDS && (rounds == 0 || !stress_expired(stress)); rounds++) {
        for (unsigned way = 0; way < WAYS; way++) {
            uint64_t part = iterations / ROUNDS / (way == UNWIND ? UNWIND_SHARE : 1);
            each[way][rounds] = run_way(bench, way, part > 0 ? part : 1);
        }
        stress_progress(stress, "round", rounds + 1, ROUNDS);
    }
    for (unsigned way = 0; way < WAYS; way++)
        middle[way] = median(each[way], rounds);
    report(stress, middle, iterations);
}

static pp_status build(struct bench *bench, pp_pool *pool)
{
    static const enum suspend_way ways[WAYS] = { SUSPEND_BARE, SUSPEND_DIRECT, SUSPEND_PATCHPOINT,
                                                 SUSPEND_CALL };
    pp_status status = suspend_open(&bench->suspend, pool);
    for (unsigned way = 0; way < WAYS && status == PP_OK; way++)
        status = suspend_link(&bench->suspend, ways[way], suspend_libunwind, &bench->traces[way]);
    return status;
}

static void run(struct stress *stress)
{
    struct bench bench = { .stress = stress };
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    options.unwinders = PP_UNWIND_LIBUNWIND; /* one of the ways back */
    pp_pool *pool;
    if (pp_pool_create(&options, &pool) != PP_OK) {
        stress_fail(stress, "pool: %s", error.text);
        return;
    }
    pp_status status = build(&bench, pool);
    if (status != PP_OK)
        stress_fail(stress, "the method cannot be linked: %s", pp_strerror(status));
    else
        measure(&bench);
    pp_pool_destroy(pool);
}

/* AddressSanitizer and ThreadSanitizer follow each call and return of C. */
#ifdef SHADOWS_STACKS
#define UNFIT "frames of C are left without a return, which this build's sanitizer takes for an error"
#else
#define UNFIT NULL
#endif

const struct scenario scenario_resume = {
    .name = "resume",
    .summary = "back into a suspended OSR body: a jump, a patchpoint, or an unwinder",
    .run = run,
    .seconds = 8,
    .unfit = UNFIT,
};
