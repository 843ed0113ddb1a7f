/* SPDX-License-Identifier: MIT */
/*
 * Run a function one instruction at a time, with a visit before each of them.
 *
 * x86-64: the trap flag; every instruction of the thread is visited, also those
 * of C.  AArch64, where a program has no trap flag and an emulator no ptrace:
 * every instruction of the given ranges is replaced by BRK, and put back for the
 * visit and while it runs; only the ranges are visited, and the visit sees the
 * code as it is.  The pages of the ranges stay writable afterwards.
 */
#ifndef TESTS_STEP_H
#define TESTS_STEP_H

#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

struct step_range {
    uintptr_t start;
    size_t size;
};

enum { STEP_RANGES_MAX = 48, STEP_BYTES_MAX = 8192 };

/* `context` is that of a SIGTRAP handler, in which the visit runs. */
typedef void step_visit(ucontext_t *context, void *argument);

/* Not reentrant. */
void step_run(const struct step_range *ranges, unsigned count, step_visit *visit,
              void (*body)(void *), void *argument);

/* In C that compiled code has called: let the code be seen as it is, and go on. */
void step_pause(void);
void step_continue(void);

/* Registers of a context, by their common names. */
uintptr_t step_pc(const ucontext_t *context);
uintptr_t step_sp(const ucontext_t *context);
/* Return address of a function of which not one instruction has run. */
uintptr_t step_entry_return(const ucontext_t *context);

#endif
