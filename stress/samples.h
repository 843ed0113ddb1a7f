/* SPDX-License-Identifier: MIT */
/*
 * Times of many equal operations.  Medians are shown, since on a shared
 * machine a few operations are interrupted for longer than all others take.
 */
#ifndef STRESS_SAMPLES_H
#define STRESS_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

enum { SAMPLES_MAX = 1 << 16 }; /* then the oldest are replaced */

struct samples {
    uint32_t *ns;
    size_t kept, capacity;
    uint64_t count;      /* also those that were replaced, or had no memory */
};

void samples_add(struct samples *samples, uint64_t ns);
void samples_merge(struct samples *samples, const struct samples *other);

/* NAN when there are none.  Sorts what is kept. */
double samples_median(struct samples *samples);

void samples_free(struct samples *samples);

#endif
