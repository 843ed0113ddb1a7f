/* SPDX-License-Identifier: MIT */
/*
 * Functions that count: one for each symbol of a recording, in memory of our
 * own, so that there can be as many as there are symbols.
 *
 * They are called, or jumped to, from synthesized traces, and follow the
 * traces' own convention (synth.h), which has these registers:
 *
 *      x86-64   AArch64
 *      rdi      x0       first byte of the trace's code
 *      rsi      x1       offset of the return address that must not be used
 *      rdx      x2       list of the addresses to go on at, in order
 *      rcx      x3       the thread's counters, 8 bytes for each symbol
 *      rax      x4       sum of the addresses loaded
 *      r8       x9       scratch of traces
 *      r9       x9, x10  scratch of counting functions
 *
 * A counting function adds 1 to its counter.  Called from within the trace it
 * returns.  Jumped to, it goes on at the next address of the list: it knows
 * by the return address that it finds, which then is not within the trace.
 * A call whose return address is the one that must not be used (there is no
 * room for code behind it) is treated as a jump.
 */
#ifndef STRESS_TARGETS_H
#define STRESS_TARGETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TARGET_BYTES = 16 };

struct targets {
    size_t count;
    const uint8_t *base;   /* readable and executable */
    size_t mapped;         /* bytes */
    const uint8_t *first;  /* function of symbol 0 */
    const void *enter;     /* makes the frame record and goes to the trace: for traces without room */
    const void *leave;     /* last address of every list: drops the frame record and returns the sum */
};

/* False: `errno` says why. */
bool targets_create(struct targets *targets, size_t count);

void targets_destroy(struct targets *targets);

static inline const void *targets_address(const struct targets *targets, size_t symbol)
{
    return (const void *) ((uintptr_t) targets->first + symbol * TARGET_BYTES);
}

#endif
