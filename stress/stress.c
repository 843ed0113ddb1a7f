/* SPDX-License-Identifier: MIT */
/* pp-stress: the table of scenarios, calibration, and running one scenario or all. */
#include <config.h>

#include "stress/options.h"
#include "stress/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* In the order of --help and of `all`. */
static const struct scenario *const scenarios[] = {
    &scenario_replay,
    &scenario_osr,
    &scenario_resume,
    &scenario_memory,
    &scenario_retarget,
    &scenario_patch,
    &scenario_walk,
    &scenario_faults,
    &scenario_fork,
};

enum { EXIT_SKIPPED = 77 }; /* as test drivers have it */
enum { SCENARIO_COUNT = sizeof scenarios / sizeof scenarios[0] };

void scenarios_describe(void)
{
    for (unsigned i = 0; i < SCENARIO_COUNT; i++)
        printf("  %-8s %s%s\n", scenarios[i]->name, scenarios[i]->takes_files ? "[FILE]...  " : "",
               scenarios[i]->summary);
    puts("  all      [FILE]...  every scenario, within about a minute");
}

/* ---- what scenarios ask for --------------------------------------------------- */

uint64_t stress_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
}

const struct stress_options *stress_options(const struct stress *stress)
{
    return &stress->options;
}

/* The scenario is part of the stream's name, so that scenarios do not share streams. */
struct random stress_random(const struct stress *stress, uint64_t stream)
{
    uint64_t name = 0;
    for (const char *c = stress->scenario->name; *c != '\0'; c++)
        name = name * 31 + (unsigned char) *c;
    return random_stream(stress->options.seed, (name << 32) + stream);
}

unsigned stress_threads(const struct stress *stress, unsigned otherwise)
{
    return stress->options.threads != 0 ? stress->options.threads : otherwise;
}

uint64_t stress_iterations(const struct stress *stress, uint64_t otherwise)
{
    if (stress->options.iterations != 0)
        return stress->options.iterations;
    double scaled = (double) otherwise / stress->slowness;
    return scaled < 1 ? 1 : (uint64_t) scaled;
}

double stress_slowness(const struct stress *stress)
{
    return stress->slowness;
}

bool stress_expired(struct stress *stress)
{
    if (stress->deadline == 0 || stress_clock() < stress->deadline)
        return false;
    atomic_store_explicit(&stress->cut, true, memory_order_relaxed);
    return true;
}

bool stress_fills_time(const struct stress *stress)
{
    return stress->options.seconds != 0 && !stress->all;
}

pp_pool_options stress_pool_options(const struct stress *stress, pp_error *error)
{
    return (pp_pool_options) { .size = sizeof(pp_pool_options),
                               .wx = stress->options.wx,
                               .error = error };
}

/* ---- calibration ---------------------------------------------------------------- */

enum { CALIBRATION_CALLS = 200000, CALIBRATION_ROUNDS = 5 };

static uint64_t step_add(uint64_t x) { return x + 0x9e3779b97f4a7c15u; }
static uint64_t step_mix(uint64_t x) { return x ^ (x >> 29); }

/*
 * Emulators are slowest where scenarios spend their time: at branches through
 * registers and memory.  A machine of the day takes about 2 ns for a call
 * through a pointer and its return; what is within a factor of 2 counts as 1.
 */
static double calibrate(void)
{
    static uint64_t (*volatile const steps[2])(uint64_t) = { step_add, step_mix };
    static volatile uint64_t sink;
    uint64_t best = UINT64_MAX;
    for (int round = 0; round < CALIBRATION_ROUNDS; round++) {
        uint64_t x = sink, begin = stress_clock();
        for (unsigned i = 0; i < CALIBRATION_CALLS; i++)
            x = steps[i & 1](x);
        uint64_t took = stress_clock() - begin;
        sink = x;
        if (took < best)
            best = took;
    }
    double slowness = (double) best / CALIBRATION_CALLS / 2.0;
    return slowness < 2 ? 1 : slowness;
}

/* ---- running ---------------------------------------------------------------------- */

static double share_sum(void)
{
    double sum = 0;
    for (unsigned i = 0; i < SCENARIO_COUNT; i++)
        sum += scenarios[i]->seconds;
    return sum;
}

/* Returns the failures. */
static unsigned run_scenario(struct stress *stress, const struct scenario *scenario)
{
    const struct stress_options *options = &stress->options;
    if (scenario->unfit != NULL) {
        fprintf(stderr, "pp-stress: %s: skipped: %s\n", scenario->name, scenario->unfit);
        return 0;
    }
    double limit = options->seconds;
    if (stress->all)
        limit = scenario->seconds * (limit == 0 ? 1 : limit / share_sum());
    uint64_t begin = stress_clock();
    stress->scenario = scenario;
    stress->deadline = limit == 0 ? 0 : begin + (uint64_t) (limit * 1e9);
    atomic_store(&stress->cut, false);

    report_begin(&stress->report, scenario->name);
    scenario->run(stress);
    double seconds = (double) (stress_clock() - begin) / 1e9;
    bool cut = atomic_load(&stress->cut) && !stress_fills_time(stress);
    unsigned failures = report_end(&stress->report, seconds, cut);
    if (stress->report.tables_shown) {
        printf("\n%s: ", scenario->name);
        if (failures == 0)
            printf("passed");
        else
            printf("FAILED (%u failure%s)", failures, failures == 1 ? "" : "s");
        printf(" in %.1f s%s\n", seconds, cut ? ", cut short by its time limit" : "");
        fflush(stdout);
    }
    return failures;
}

/* Also at the start, so that a run that crashes can be repeated, too. */
static void print_seed(const struct stress *stress)
{
    FILE *file = stress->options.json != NULL && strcmp(stress->options.json, "-") == 0 ? stderr
                                                                                         : stdout;
    fprintf(file, "pp-stress %s, seed %" PRIu64, PACKAGE_VERSION, stress->options.seed);
    if (stress->slowness > 1)
        fprintf(file, ", %.0f times slower than a present-day machine: fewer iterations",
                stress->slowness);
    fputc('\n', file);
    fflush(file);
}

static const struct scenario *find_scenario(const char *name)
{
    for (unsigned i = 0; i < SCENARIO_COUNT; i++)
        if (strcmp(scenarios[i]->name, name) == 0)
            return scenarios[i];
    return NULL;
}

int main(int argc, char **argv)
{
    static struct stress stress;
    const char *name = NULL;
    switch (options_parse(argc, argv, &stress.options, &name)) {
    case OPTIONS_DONE:
        return fflush(stdout) == 0 ? 0 : 1;
    case OPTIONS_BAD:
        return 2;
    case OPTIONS_RUN:
        break;
    }
    stress.all = strcmp(name, "all") == 0;
    const struct scenario *scenario = find_scenario(name);
    if (scenario == NULL && !stress.all) {
        fprintf(stderr, "pp-stress: '%s' is not a scenario\n", name);
        options_hint();
        return 2;
    }
    if (scenario != NULL && !scenario->takes_files && stress.options.file_count > 0) {
        fprintf(stderr, "pp-stress: %s takes no FILE, but there is '%s'\n", name,
                stress.options.files[0]);
        options_hint();
        return 2;
    }

    if (stress.options.fault != NULL && (scenario == NULL || !scenario->takes_faults)) {
        fprintf(stderr, "pp-stress: --fault is for scenarios that know what may be refused then, "
                        "not for %s\n", name);
        options_hint();
        return 2;
    }

    stress.slowness = calibrate();
    if (!report_open(&stress.report, stress.options.json, stress.options.quiet,
                     stress.options.seed, stress.slowness))
        return 2;
    print_seed(&stress);
    unsigned failures = 0;
    if (stress.all)
        for (unsigned i = 0; i < SCENARIO_COUNT; i++)
            failures += run_scenario(&stress, scenarios[i]);
    else
        failures = run_scenario(&stress, scenario);
    if (!report_close(&stress.report, failures) || failures > 0)
        return 1;
    return scenario != NULL && scenario->unfit != NULL ? EXIT_SKIPPED : 0;
}
