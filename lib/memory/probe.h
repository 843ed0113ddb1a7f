/* SPDX-License-Identifier: MIT */
/* The start-up self-test of a way to write code. */
#ifndef MEMORY_PROBE_H
#define MEMORY_PROBE_H

#include "memory/region.h"

/*
 * Write a function into a region that nobody uses yet, run it, write it again,
 * run it again.  The region is left as it was.  PP_E_UNSUPPORTED: the second
 * function was not the one that ran; or what writing failed with.
 */
pp_status probe_region(struct region *region, pp_error *error);

#endif
