/* SPDX-License-Identifier: MIT */
/*
 * Handles of spans that hosts hold.
 *
 * A handle is not a pointer.  It is the address of the span's first byte with
 * the span's generation in the bits that an address does not use: four at the
 * bottom, sixteen at the top.  Any bit pattern can be looked up safely.
 */
#ifndef MEMORY_HANDLE_H
#define MEMORY_HANDLE_H

#include "memory/pool.h"

uintptr_t code_handle(uintptr_t start, uint32_t generation);
uintptr_t code_handle_address(uintptr_t handle);
uint32_t code_handle_generation(uintptr_t handle);

/*
 * Find the live span of a handle.  PP_E_ARG for 0, PP_E_STALE, PP_E_FAULT (no
 * address of any region).  Lock-free; the owner may be NULL.
 */
pp_status code_handle_find(uintptr_t handle, struct code_place *place);

/*
 * Whether the same span, of the same owner, is still there: only then does what
 * was read of its owner's record since the place was found belong to it.
 */
bool code_place_holds(const struct code_place *place);

#endif
