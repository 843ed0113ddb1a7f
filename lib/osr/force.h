/* SPDX-License-Identifier: MIT */
/* What a pool forces, as slow paths read it: each field for itself, while it may be changed. */
#ifndef OSR_FORCE_H
#define OSR_FORCE_H

#include <patchpoint/force.h>

#include <stdatomic.h>
#include <stdbool.h>

struct force {
    _Atomic uint32_t mode;             /* pp_force_mode */
    _Atomic uint64_t number;
    _Atomic uint64_t passes, triggers; /* exact: passes are told apart by their number */
};

/* Whether each pass of a site shall be a slow path. */
static inline bool force_passes(const struct force *force)
{
    return force != NULL
        && atomic_load_explicit(&force->mode, memory_order_relaxed) != PP_FORCE_OFF;
}

/* Number this pass of a site that could trigger, and say whether it does. */
bool force_triggers(struct force *force, uint64_t site);

#endif
