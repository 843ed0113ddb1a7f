/* SPDX-License-Identifier: MIT */
/*
 * What a scenario of pp-stress sees.
 *
 * A scenario is one function that gets a `struct stress`: the options, the
 * seed, a time limit, and a place to report to.  It reports what went wrong
 * with stress_fail, and what it measured with tables; both may be called from
 * any thread.  It never exits the program.
 *
 * To add one: define a `const struct scenario` in its own file and name it in
 * the table in stress.c.
 */
#ifndef STRESS_STRESS_H
#define STRESS_STRESS_H

#include "stress/random.h"

#include <patchpoint.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stress_form { FORM_PLT, FORM_GOT };

/* As given on the command line. */
struct stress_options {
    uint64_t seed;
    unsigned threads;        /* 0: the scenario's choice */
    double seconds;          /* 0: the scenario's choice */
    uint64_t iterations;     /* 0: the scenario's choice */
    const char *json;        /* file for the results, or NULL */
    bool quiet;              /* no progress, no tables; failures and the seed only */
    bool churn;              /* replay: free and link again at random */
    enum stress_form form;   /* replay: how code refers to symbols */
    uint64_t live;           /* memory: traces alive at a time; 0: spans that come and go */
    const char *fault;       /* text of the script of faults, or NULL */
    pp_wx wx;                /* for every pool that a scenario creates */
    char *const *files;      /* operands behind the scenario */
    size_t file_count;
};

struct stress;
struct stress_table;

struct scenario {
    const char *name;
    const char *summary;     /* one line for --help */
    void (*run)(struct stress *stress);
    double seconds;          /* its share of `all`, natively */
    bool takes_files;
    bool takes_faults;       /* --fault is for it: it knows what may be refused then */
    const char *unfit;       /* why this build cannot run it, or NULL */
};

extern const struct scenario scenario_faults, scenario_fork, scenario_memory, scenario_osr,
                             scenario_patch, scenario_replay, scenario_resume, scenario_retarget,
                             scenario_walk;

/* ---- what to do --------------------------------------------------------- */

const struct stress_options *stress_options(const struct stress *stress);

/* An independent stream of random numbers; the same number gives the same stream in every run. */
struct random stress_random(const struct stress *stress, uint64_t stream);

/*
 * --threads and --iterations, or the scenario's own number.  Iterations of its
 * own are for a native run: they become fewer on a machine (or under an
 * emulator) that calibration found to be slower, but never 0.
 */
unsigned stress_threads(const struct stress *stress, unsigned otherwise);
uint64_t stress_iterations(const struct stress *stress, uint64_t otherwise);

/* How many times slower than a present-day machine indirect calls are here; at least 1. */
double stress_slowness(const struct stress *stress);

/*
 * The scenario's time is over: finish what was begun and return.  There is a
 * limit with --seconds, and in `all`, where every scenario has a share.
 */
bool stress_expired(struct stress *stress);

/* --seconds is given: repeat until stress_expired.  In `all` a share is a limit, nothing to fill. */
bool stress_fills_time(const struct stress *stress);

/* Monotonic time in nanoseconds. */
uint64_t stress_clock(void);

/* Pool options with what the command line says of pools; `error` may be NULL. */
pp_pool_options stress_pool_options(const struct stress *stress, pp_error *error);

/* ---- what came out ------------------------------------------------------- */

/*
 * Something went wrong: printed with the scenario and the seed (the first
 * twenty), counted, and the exit status becomes 1.  Thread-safe.
 */
void stress_fail(struct stress *stress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Failures of this scenario so far. */
unsigned stress_failures(const struct stress *stress);

/* Something the reader should know, which is not a failure.  Thread-safe. */
void stress_note(struct stress *stress, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * The progress line, on a terminal only; cheap enough for inner loops of some
 * microseconds.  total 0: unknown.  Thread-safe.
 */
void stress_progress(struct stress *stress, const char *what, uint64_t done, uint64_t total);

/*
 * A table of results, printed at the end of the scenario and written to the
 * JSON file.  Title, columns and labels are copied.  A value that is NAN is
 * shown as a dash.  `unit` chooses the format: "B" bytes, "" a count, "ns",
 * "us", "ms", "s", "x" a ratio, "%".  Never NULL.
 */
struct stress_table *stress_table(struct stress *stress, const char *title, unsigned columns,
                                  const char *const names[]);
void stress_row(struct stress_table *table, const char *label, const char *unit,
                const double values[]);

/* A row of a table with one column. */
void stress_value(struct stress_table *table, const char *label, const char *unit, double value);

#endif
