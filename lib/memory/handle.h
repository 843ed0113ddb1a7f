/* SPDX-License-Identifier: MIT */
/*
 * Handles of spans that hosts hold.
 *
 *      number of the chunk:17 | granule in the chunk:17 | generation:30
 *
 * A handle is not a pointer, and it is not an address: the number (number.h) leads
 * to 2 MiB of addresses, and the granule in them is where the span begins.  The
 * generation is the span's.  Any bit pattern can be looked up safely, and no value is
 * given out twice as long as the process lives: what a span space promises of
 * generations holds within a region, and numbers carry it on to the next.
 */
#ifndef MEMORY_HANDLE_H
#define MEMORY_HANDLE_H

#include "memory/pool.h"

/* The handle of a span that begins there, and of the one at a place. */
uintptr_t code_handle(const struct region *region, uintptr_t start, uint32_t generation);
uintptr_t code_place_handle(const struct code_place *place);

/* Where the handle's span begins or began; 0: its number stands for nothing. */
uintptr_t code_handle_address(uintptr_t handle);
uint32_t code_handle_generation(uintptr_t handle);

/* The region in whose code that is, *start, or NULL.  Says nothing of the span. */
struct region *code_handle_region(uintptr_t handle, uintptr_t *start);

/*
 * Find the live span of a handle.  PP_E_ARG for 0, PP_E_STALE: no such span is there any
 * more; PP_E_FAULT: none ever was.  Lock-free; the owner may be NULL.
 */
pp_status code_handle_find(uintptr_t handle, struct code_place *place);

/*
 * Whether the same span, of the same owner, is still there: only then does what
 * was read of its owner's record since the place was found belong to it.
 */
bool code_place_holds(const struct code_place *place);

#endif
