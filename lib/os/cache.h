/* SPDX-License-Identifier: MIT */
/* Instruction caches. */
#ifndef OS_CACHE_H
#define OS_CACHE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Make `size` bytes that were stored through `write` fetchable through `exec`;
 * the two may be the same.  When it returns, every core of the machine fetches
 * the new bytes, except for instructions that it has in its pipeline already:
 * those need barrier_sync_core.
 */
void cache_sync(uintptr_t write, uintptr_t exec, size_t size);

#endif
