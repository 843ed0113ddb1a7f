/* SPDX-License-Identifier: MIT */
/* What linking and committing a reservation have in common. */
#ifndef LINK_LINKER_H
#define LINK_LINKER_H

#include "link/plan.h"

/*
 * References to the island for all that the plan shares, held by an unpublished
 * record, and the places of the plan's symbols.  PP_E_RANGE: the island is full.
 */
pp_status linker_take_shared(struct link *link, struct plan *plan, const struct span *span,
                             struct trace *trace);

#endif
