/* SPDX-License-Identifier: MIT */
/* What linking and committing a reservation have in common. */
#ifndef LINK_LINKER_H
#define LINK_LINKER_H

#include "link/plan.h"

/* References to the island for all that the plan shares; none: *user is NULL. */
pp_status linker_take_shared(struct link *link, struct plan *plan, struct region *region,
                             uintptr_t exec, struct island_user **user);

#endif
