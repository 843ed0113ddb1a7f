/* SPDX-License-Identifier: MIT */
/*
 * Seeded random numbers (splitmix64).  Every stream is a function of the
 * program's seed and of a name that is fixed in the source, so that a run can
 * be repeated from the seed that it printed.
 */
#ifndef STRESS_RANDOM_H
#define STRESS_RANDOM_H

#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    uint64_t z = (random->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 .. bound - 1; bound is not 0. */
static inline uint64_t random_below(struct random *random, uint64_t bound)
{
    return (uint64_t) (((unsigned __int128) random_next(random) * bound) >> 64);
}

/* Two streams of one seed are independent when their numbers differ. */
static inline struct random random_stream(uint64_t seed, uint64_t stream)
{
    struct random random = { seed ^ (stream * 0xd1342543de82ef95u) };
    random_next(&random);
    return random;
}

#endif
