/* SPDX-License-Identifier: MIT */
/* What this room keeps for a pool: its sites, entries, pins and methods. */
#ifndef OSR_ROOM_H
#define OSR_ROOM_H

#include "memory/pool.h"
#include "osr/entry.h"
#include "osr/force.h"
#include "osr/method.h"
#include "osr/policy.h"
#include "osr/site.h"
#include "osr/token.h"

struct osr_state {
    struct record_list sites, entries, pins, methods;
    struct entry *leaving, **leaving_end; /* destroyed entries whose code is retired; pool_lock */
    struct policy policy;      /* of sites without one of their own; written under pool_lock */
    struct force force;        /* written under pool_lock */
    uint64_t site_number;      /* of the latest site; under pool_lock */
};

/* The state of a pool, made when first asked for; NULL: no memory.  pool_lock held. */
struct osr_state *osr_state_locked(pp_pool *pool);

extern const struct pool_room osr_room;

#endif
