/* SPDX-License-Identifier: MIT */
/*
 * What a pool must hold, told from the recording alone: which trampolines and
 * literals follow from the traces that are alive.  The pool's own numbers are
 * compared with it.
 */
#ifndef STRESS_TALLY_H
#define STRESS_TALLY_H

#include "stress/synth.h"

/* Where symbols are, and who has the trampolines. */
struct setting {
    const char *name;
    bool is_far;          /* no symbol is in reach */
    bool is_own;          /* trampolines and literals belong to the trace */
};

/* What one trace needs; shared or not is not looked at. */
struct need {
    unsigned trampolines; /* distinct symbols branched to, out of reach */
    unsigned literals;    /* of trampolines, and distinct symbols loaded by another way */
    unsigned symbols;     /* distinct symbols branched to */
};

struct tally {
    const struct setting *setting;
    size_t symbol_count;
    uint32_t *branching;  /* for each symbol: live traces that hold its trampoline */
    uint32_t *loading;    /* and those that hold its literal for a load */
    size_t traces;
    uint64_t bytes;       /* code and data */
    uint64_t pages;       /* bytes of whole pages for each trace with the trampolines recorded */
    uint64_t symbols;     /* sum of need.symbols */
    uint64_t trampolines; /* that the pool must have, each with a literal */
    uint64_t literals;    /* and literals without a trampoline */
};

bool tally_init(struct tally *tally, const struct setting *setting, size_t symbol_count);
void tally_free(struct tally *tally);

struct need need_of(const struct setting *setting, const struct synth *synth);

/*
 * Symbols of this trace that get a shared trampoline, or a literal alone, which
 * no live trace holds.
 */
unsigned tally_new(const struct tally *tally, const struct synth *synth);

/* A trace was linked, or is freed.  `synth` is the trace's. */
void tally_add(struct tally *tally, const struct synth *synth,
               const struct recorded_trace *trace);
void tally_remove(struct tally *tally, const struct synth *synth,
                  const struct recorded_trace *trace);

/* The traces of another tally of the same setting live in the same pool. */
void tally_merge(struct tally *tally, const struct tally *other);

#endif
