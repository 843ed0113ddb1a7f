/* SPDX-License-Identifier: MIT */
/* The views of a region: where it is mapped, and how. */
#ifndef MEMORY_VIEW_H
#define MEMORY_VIEW_H

#include "memory/region.h"

/*
 * Reserve addresses and map the region's parts in its mode: near and large, near and
 * smaller, far and large, far and smaller.  On failure nothing is left.
 */
pp_status view_map(struct region *region, const struct frame_rule *claim,
                   struct anchors *anchors, size_t want, pp_error *error);
void view_unmap(struct region *region);

/* The status for an errno of the kernel's, PP_E_NOMEM or PP_E_SYSTEM, with the reason. */
pp_status view_refused(pp_error *error, const char *call, int number);

#endif
