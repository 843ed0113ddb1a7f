/* SPDX-License-Identifier: MIT */
/*
 * A method that suspends itself, and ways to get back into its OSR body: what the
 * resume scenario and the benchmark of resumes measure.
 *
 * One iteration calls the method's tier-0 with a continuation; tier-0 builds its
 * frame and gets into the body, which lowers SP, counts, stores its own address
 * in the continuation and returns.  Only the way from tier-0 into the body differs.
 */
#ifndef STRESS_SUSPEND_H
#define STRESS_SUSPEND_H

#include <patchpoint.h>

#include <stdbool.h>
#include <stdint.h>

struct continuation {
    uintptr_t code;   /* ASYNC_CODE */
    uint64_t count;   /* ASYNC_COUNT */
    /* SUSPEND_CALL */
    unsigned frames;  /* of C, when it captures; 1 or more */
    uintptr_t tier0;  /* where the way to unwind ends: tier-0's code */
    size_t tier0_bytes;
};

enum suspend_way {
    SUSPEND_BARE,       /* jmp *%register: what any two pieces of code need */
    SUSPEND_DIRECT,     /* the bytes of pp_emit_resume: a jump through the continuation */
    SUSPEND_PATCHPOINT, /* a ready patchpoint */
    SUSPEND_CALL        /* a C function, which finds its way through the frames */
};

/* Called by tier-0; continues in the body in tier-0's frame.  Never returns. */
typedef void suspend_resume(struct continuation *continuation);

/*
 * Capture all registers with libunwind, step through the C frames to tier-0 and once
 * more to its caller, whose callee-saved registers are taken over, and restore it all.
 */
suspend_resume suspend_libunwind;

/* For others of that kind: go deeper by continuation->frames, then call; is tier-0 at pc? */
void suspend_deeper(struct continuation *continuation, suspend_resume *capture);
bool suspend_in_tier0(const struct continuation *continuation, uintptr_t pc);

struct suspend {
    pp_pool *pool;
    pp_tier0_layout tier0;
    pp_trace *body;
    pp_entry *entry;
    pp_site *site;     /* of SUSPEND_PATCHPOINT */
};

/* Link the body.  Everything goes with the pool. */
pp_status suspend_open(struct suspend *suspend, pp_pool *pool);

/* Link a tier-0 with one of the ways; `call` for SUSPEND_CALL. */
pp_status suspend_link(struct suspend *suspend, enum suspend_way way, suspend_resume *call,
                       pp_trace **tier0);

/* So many iterations.  False: they were not counted as they should. */
bool suspend_run(const struct suspend *suspend, const pp_trace *tier0, unsigned frames,
                 uint64_t iterations);

#endif
