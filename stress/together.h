/* SPDX-License-Identifier: MIT */
/* Threads that begin at the same moment. */
#ifndef STRESS_TOGETHER_H
#define STRESS_TOGETHER_H

#include <stdbool.h>
#include <stddef.h>

#define TOGETHER_MAX 64

/*
 * Call `work` with each of `count` items of this size, each in a thread of its own, and
 * wait for all.  False: they could not be started, and none has worked.
 */
bool together(void (*work)(void *item), void *items, size_t size, unsigned count);

#endif
