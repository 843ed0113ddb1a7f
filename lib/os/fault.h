/* SPDX-License-Identifier: MIT */
/*
 * Faults by script.  Whoever asks the kernel or an allocator for something asks
 * fault_fires first, once for each call.
 */
#ifndef OS_FAULT_H
#define OS_FAULT_H

#include <patchpoint/fault.h>

#include <stdatomic.h>
#include <stdbool.h>

/* There is a script.  Owner: fault.c. */
extern atomic_bool fault_scripted;

/* Count the call, and ask the script. */
bool fault_decide(pp_fault_call call, int *number);

/*
 * The call must not be made, but fail with *number, which is untouched else.
 * Lock-free and async-signal-safe; errno stays as it was.
 */
static inline bool fault_fires(pp_fault_call call, int *number)
{
    return __builtin_expect(atomic_load_explicit(&fault_scripted, memory_order_relaxed), 0) &&
           fault_decide(call, number);
}

/* The same for calls that tell their failure by errno. */
bool fault_fires_errno(pp_fault_call call);

#endif
