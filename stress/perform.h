/* SPDX-License-Identifier: MIT */
/*
 * Performing a synthesized trace: enter it with what its convention asks for,
 * and check what its counting functions and loads say.  One for each thread.
 */
#ifndef STRESS_PERFORM_H
#define STRESS_PERFORM_H

#include "stress/synth.h"

struct performer {
    pp_thread thread;
    const struct targets *targets;
    uint64_t *counters;     /* one for each symbol; all 0 between runs */
    uintptr_t *list;        /* where jumps go on, and the way out */
    size_t list_capacity;
};

/* False: no memory, or the thread's stack is not known. */
bool performer_init(struct performer *performer, const struct targets *targets);

void performer_free(struct performer *performer);

/*
 * Run the trace that `synth` describes, linked at `entry`.  False: it did not
 * do exactly what was recorded, and `error` says what.  Every symbol of the
 * trace is checked; performer_idle sees the others.
 */
bool perform(struct performer *performer, const struct synth *synth, const void *entry,
             char *error, size_t error_size);

/* True if no symbol was reached that a trace did not ask for. */
bool performer_idle(const struct performer *performer);

/*
 * Check the trace's data, found by the address that its code holds; where the
 * code has no room for it, at `otherwise`.
 */
bool perform_data(const struct synth *synth, const void *entry, const uint8_t *otherwise);

#endif
