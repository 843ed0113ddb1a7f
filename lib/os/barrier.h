/* SPDX-License-Identifier: MIT */
/* Barriers on all cores that run this process. */
#ifndef OS_BARRIER_H
#define OS_BARRIER_H

#include <stdbool.h>

/*
 * Every thread of the process executes a core-serializing instruction before it
 * runs its next instruction in user space.  False if the kernel cannot do it.
 * Registers the process at the first call and after a fork, if need be.
 */
bool barrier_sync_core(void);

#endif
