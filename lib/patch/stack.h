/* SPDX-License-Identifier: MIT */
/* Stacks that the host supplies, searched for addresses in retired code. */
#ifndef PATCH_STACK_H
#define PATCH_STACK_H

#include "patch/retire.h"

#include <patchpoint/retire.h>

/* PP_E_ARG: a range or a count that cannot be. */
pp_status stack_check(const pp_stack *stacks, size_t count);

/*
 * Set `held` of everything retired with a ticket up to this one that a word of the stacks
 * lies in; [lo, hi) holds all of that.
 */
void stack_search(const pp_pool *pool, uint64_t ticket, uintptr_t lo, uintptr_t hi,
                  const pp_stack *stacks, size_t count);

#endif
