/* SPDX-License-Identifier: MIT */
/*
 * Methods in two tiers, put together from the pieces of template.h: tier-0 with
 * patchpoints, and an OSR body for each that is linked when it is asked for.
 */
#ifndef STRESS_METHOD_H
#define STRESS_METHOD_H

#include "stress/template.h"

#include <patchpoint.h>

#include <stdatomic.h>
#include <stdbool.h>

/* What a method computes; n, buffer and start are its arguments behind the thread. */
enum method_kind {
    METHOD_SUM,       /* n + (n - 1) + .. + 1 */
    METHOD_NESTED,    /* the sum of i * j for i <= n, j <= start; two patchpoints */
    METHOD_REGISTERS, /* passes in tier-0, n if no body ends them; every register is shown at each */
    METHOD_SUSPEND,   /* 1, or the value that its buffer's point is resumed with; no patchpoint */
    METHOD_RECURSION, /* f(0) = 1; f(n) = start * f(n - 1) + 1 */
    METHOD_KINDS
};

/* A body of PP_REPLACE. */
struct method_replace {
    pp_tier0_layout body;
    const pp_value *values;
    size_t value_count;
};

struct method_shape {
    enum method_kind kind;
    pp_csr_scheme scheme;
    pp_counter counter;
    pp_save save;
    uint32_t flags;        /* enum pp_site_flags */
    uint32_t more_bytes;   /* tier-0's frame is larger by this; a multiple of 16 */
    uint32_t local_bytes;  /* of the body */
    int32_t threshold;
    uint32_t hits;
    bool with_thread;      /* the site knows the slot with the thread */
    bool refuse;           /* producers fail */
    uint32_t entry_flags;  /* enum pp_entry_flags */
    uint32_t live_gpr, live_vector;       /* PP_SAVE_MASK */
    const struct method_replace *replace; /* NULL: on top */
};

#define METHOD_SITES 2

struct method {
    struct method_shape shape;
    pp_pool *pool;
    pp_tier0_layout tier0;
    unsigned site_count;
    pp_site *sites[METHOD_SITES];
    pp_trace *trace;
    size_t resume_offset;      /* METHOD_SUSPEND: of the place to resume at, in the code */
    pp_trace *bodies[METHOD_SITES];
    pp_entry *entries[METHOD_SITES];
    _Atomic unsigned produced; /* calls of a producer */
    pp_status failed;          /* of a producer: why */
};

/* Make the sites and link tier-0.  On failure nothing is left. */
pp_status method_open(struct method *method, pp_pool *pool, const struct method_shape *shape);

/* Link tier-0 once more, with the sites that are there; the trace before is the caller's. */
pp_status method_relink(struct method *method);

/* Destroy sites, entries and traces; the first failure, which none should be. */
pp_status method_close(struct method *method);

/* What it returns, computed in C. */
uint64_t method_model(const struct method *method, uint64_t n, uint64_t start);

/*
 * Run it once, with these callee-saved registers; false if one of them or SP is
 * not what it was afterwards.
 */
bool method_run(const struct method *method, pp_thread *thread, uint64_t n, void *buffer,
                uint64_t start, const uint64_t saved[SAVE_SLOTS], uint64_t *result);

#endif
