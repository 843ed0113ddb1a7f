/* SPDX-License-Identifier: MIT */
/*
 * A thread that uses a pool while requests of the library fail, and a model of what it
 * must have then: every operation has taken effect as a whole, or has a status and
 * has changed nothing.
 */
#ifndef STRESS_FAULTY_H
#define STRESS_FAULTY_H

#include "stress/stress.h"

#include <stdatomic.h>

enum { FAULTY_SLOTS = 64, FAULTY_SYMBOLS = 48 };

enum faulty_kind { FAULTY_EMPTY, FAULTY_OPEN, FAULTY_SPAN, FAULTY_TRACE, FAULTY_RESERVED };

struct faulty_slot {
    enum faulty_kind kind;
    pp_span *span;
    pp_span_place place;
    pp_trace *trace;
    pp_reservation reservation;
    size_t bytes;           /* what the pool counts as requested */
    unsigned value;         /* a span's result; a trace's first symbol */
    unsigned jumps;         /* of a trace: one for each of its symbols */
    bool unsure;            /* published half: it can be freed or written, not run */
};

/* What all workers of a round share. */
struct faulty_round {
    struct stress *stress;
    pp_pool *pool;
    const char *what;       /* mode and distance, for reports */
    pp_wx wx;               /* what pools are asked for */
    pp_wx mode;             /* what this one has: with PP_WX_AUTO any, after the faults of its creation */
    bool far;
    pp_symbol symbols[FAULTY_SYMBOLS];
    _Atomic(const char *) script; /* the text of the one in force, or "" */
};

struct faulty_worker {
    struct faulty_round *round;
    struct random random;
    struct faulty_slot slots[FAULTY_SLOTS];
    unsigned index;         /* of the thread */
    uint64_t operations, refused;
};

/* Symbols and everything that has to be there; without faults. */
bool faulty_prepare(struct faulty_round *round);

/* One random operation. */
void faulty_step(struct faulty_worker *worker);

/* Free all; without faults, so that nothing may be refused. */
void faulty_finish(struct faulty_worker *worker);

/* What the pool must count for this worker. */
struct faulty_sum {
    size_t spans, traces, requested;
};
void faulty_add(const struct faulty_worker *worker, struct faulty_sum *sum);

#endif
