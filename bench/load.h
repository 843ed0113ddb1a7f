/* SPDX-License-Identifier: MIT */
/*
 * A load: pieces of random sizes that live at a time, of which a random one is
 * replaced in each cycle.  Every contestant gets the same sizes and victims.
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include "bench/contestant.h"

#include <stdint.h>

struct load {
    const struct contestant *contestant;
    void *state;
    struct piece *pieces;
    size_t count, wanted; /* pieces alive, and how many there should be */
    size_t low, high;     /* bytes of a piece */
    size_t requested;     /* bytes of the pieces alive */
    uint64_t random;
    const char *failure;  /* what it could not do, or NULL */
};

/* Open a contestant and fill it.  It is given up, with a failure, after `seconds`. */
void load_open(struct load *load, const struct contestant *contestant, size_t count, size_t low,
               size_t high, double seconds);
void load_close(struct load *load);

/* A second load in the state of the first, for another thread, with pieces of its own. */
void load_join(struct load *load, const struct load *first, uint64_t seed);
void load_leave(struct load *load);

/* Replace so many pieces; nanoseconds for each.  Negative: it failed. */
double load_run(struct load *load, size_t cycles);

/* The same for that many cycles or seconds, whichever is over first: a load gets old. */
void load_age(struct load *load, size_t cycles, double seconds);

/* Replace pieces and note the nanoseconds that each `take` needed. */
void load_sample(struct load *load, double *samples, size_t count);

#endif
