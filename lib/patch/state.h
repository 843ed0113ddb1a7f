/* SPDX-License-Identifier: MIT */
/* What this room keeps for a pool, besides what is retired. */
#ifndef PATCH_STATE_H
#define PATCH_STATE_H

#include "patch/trap.h"
#include "patch/watch.h"

struct patch_state {
    _Atomic(struct trap_table *) traps; /* newest; NULL: none.  Changed under pool_lock */
    atomic_uint handlers;               /* number of them that look at the table */
    struct watch_table watches;
};

/* The state of a pool, made when first asked for; NULL: no memory.  pool_lock held. */
struct patch_state *patch_state_locked(pp_pool *pool);
void patch_state_close(pp_pool *pool);

#endif
