/* SPDX-License-Identifier: MIT */
/*
 * What all benchmarks share: a pinned thread, contestants that take turns in
 * short rounds so that the noise of a machine meets all of them, medians over
 * the rounds, ratios first, and rows for the table that `make bench` ends with.
 */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Options of every program: --quick (fewer rounds, smaller loads), --rows FILE. */
struct bench {
    bool quick;
    unsigned rounds;
    const char *rows; /* file that rows are added to, or NULL */
};

/* Reads the arguments and pins the thread; ends the program if they are wrong. */
void bench_begin(struct bench *bench, int argc, char **argv);

/* Pin the calling thread to one of the processors that the program may use. */
void bench_pin(unsigned processor);
unsigned bench_processors(void);

/* Nanoseconds of a clock that only goes forward. */
double bench_clock(void);

/*
 * Cycles of the processor's own counter, with all instructions before it done;
 * what reading it costs; and how many there are in a nanosecond.
 */
uint64_t bench_ticks(void);
double bench_tick_cost(void);
double bench_ticks_per_ns(void);

/* xorshift64: the same sequence for every contestant. */
static inline uint64_t bench_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return *state = x;
}

/* Sorts the values. */
double bench_median(double *values, size_t count);
double bench_percentile(double *values, size_t count, double percent);

/*
 * A row of the table: what was measured against whom, the goal, the result.
 * `least`: the goal is a lower bound, else an upper one.
 */
void bench_row(const struct bench *bench, const char *what, const char *peer, bool least,
               double goal, double measured);

/* Memory that a benchmark cannot do without. */
void *bench_memory(size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
