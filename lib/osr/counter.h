/* SPDX-License-Identifier: MIT */
/* What counted sites count with. */
#ifndef OSR_COUNTER_H
#define OSR_COUNTER_H

#include "osr/site.h"

/* The word that a counted site counts down, in the frame with this FP. */
_Atomic int32_t *counter_of(struct site *site, uintptr_t fp);

/*
 * Counts of what happened: one of two threads that meet here may be lost.  An atomic
 * addition would wait for all that the stub has stored, which takes longer than the rest.
 */
static inline uint64_t count(_Atomic uint64_t *counter)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed) + 1;
    atomic_store_explicit(counter, value, memory_order_relaxed);
    return value;
}

#endif
