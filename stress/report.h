/* SPDX-License-Identifier: MIT */
/*
 * What a run says: failures, notes, the progress line, tables, and all of them
 * once more as JSON.  The part of it that scenarios use is in stress.h.
 */
#ifndef STRESS_REPORT_H
#define STRESS_REPORT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct stress_table;

struct report {
    pthread_mutex_t lock;        /* guards everything below */
    const char *scenario;        /* running, static storage */
    uint64_t seed;
    bool quiet, terminal;        /* constant */
    bool tables_shown;           /* constant: standard output is not the JSON's */
    unsigned failures;           /* of the scenario */
    char (*failure_texts)[512];  /* the first of them, for the JSON */
    bool progress_shown;
    uint64_t progress_next;      /* clock: not again before */
    struct stress_table *tables; /* of the scenario, in order */
    FILE *json;                  /* or NULL */
    bool json_first;             /* no scenario is in it yet */
};

/* False with an error printed: the JSON file cannot be written, or no memory. */
bool report_open(struct report *report, const char *json, bool quiet, uint64_t seed,
                 double slowness);

void report_begin(struct report *report, const char *scenario);

/* Print the scenario's tables, add it to the JSON, forget it.  Returns the failures. */
unsigned report_end(struct report *report, double seconds, bool cut);

/* False with an error printed: the JSON file could not be written completely. */
bool report_close(struct report *report, unsigned failures);

#endif
