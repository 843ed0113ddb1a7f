/* SPDX-License-Identifier: MIT */
/* Times of many equal operations. */
#include <config.h>

#include "stress/samples.h"

#include <math.h>
#include <stdlib.h>

void samples_add(struct samples *samples, uint64_t ns)
{
    size_t place = samples->kept < SAMPLES_MAX ? samples->kept : samples->count % SAMPLES_MAX;
    if (place == samples->capacity) {
        size_t wanted = samples->capacity == 0 ? 256 : samples->capacity * 2;
        uint32_t *memory = realloc(samples->ns, wanted * sizeof *memory);
        samples->count++;
        if (memory == NULL)
            return;
        samples->ns = memory;
        samples->capacity = wanted;
    } else {
        samples->count++;
    }
    samples->ns[place] = ns < UINT32_MAX ? (uint32_t) ns : UINT32_MAX;
    if (place == samples->kept)
        samples->kept++;
}

void samples_merge(struct samples *samples, const struct samples *other)
{
    for (size_t i = 0; i < other->kept; i++)
        samples_add(samples, other->ns[i]);
    samples->count += other->count - other->kept;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;
    return x < y ? -1 : x > y;
}

double samples_median(struct samples *samples)
{
    if (samples->kept == 0)
        return NAN;
    qsort(samples->ns, samples->kept, sizeof *samples->ns, compare);
    return samples->ns[samples->kept / 2];
}

void samples_free(struct samples *samples)
{
    free(samples->ns);
    *samples = (struct samples) { 0 };
}
