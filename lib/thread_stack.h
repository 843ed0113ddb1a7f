/* SPDX-License-Identifier: MIT */
/*
 * The stacks that a thread's compiled code may be on: its own, and the signal stack that
 * pp_enter was called on.  No address is in both.
 */
#ifndef THREAD_STACK_H
#define THREAD_STACK_H

#include <patchpoint/activation.h>

#include <stdbool.h>
#include <stddef.h>

struct thread_stack {
    uintptr_t lo, hi; /* both 0: none */
};

/* The one that holds the address, or that ends there. */
static inline struct thread_stack thread_stack_of(const pp_thread *thread, uintptr_t address)
{
    if (address >= thread->stack_lo && address <= thread->stack_hi)
        return (struct thread_stack) { thread->stack_lo, thread->stack_hi };
    if (address >= thread->signal_lo && address <= thread->signal_hi)
        return (struct thread_stack) { thread->signal_lo, thread->signal_hi };
    return (struct thread_stack) { 0, 0 };
}

/* Written as subtractions: an address just below 2^64 would wrap. */
static inline bool thread_stack_holds(const pp_thread *thread, uintptr_t address, size_t bytes)
{
    struct thread_stack stack = thread_stack_of(thread, address);
    return stack.lo < stack.hi && bytes <= stack.hi - address;
}

#endif
