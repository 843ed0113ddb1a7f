/* SPDX-License-Identifier: MIT */
/* Instruction caches. */
#ifndef OS_CACHE_H
#define OS_CACHE_H

#include <stddef.h>
#include <stdint.h>

/* Stores are seen by all instruction fetches, at any address of the same memory. */
#if defined __x86_64__
#define CACHE_COHERENT 1
#else
#define CACHE_COHERENT 0
#endif

/*
 * Make bytes that were stored through one address fetchable through another, which
 * may be the same.  For any number of ranges, in this order: cache_clean each where it
 * was written, cache_clean_wait, cache_invalidate each where it will run,
 * cache_invalidate_wait.  Then every core of the machine fetches the new bytes,
 * except for instructions that it has in its pipeline already: those need
 * barrier_sync_core.
 */
void cache_clean(uintptr_t write, size_t size);
void cache_clean_wait(void);
void cache_invalidate(uintptr_t exec, size_t size);
void cache_invalidate_wait(void);

#endif
