/* SPDX-License-Identifier: MIT */
/*
 * What a pool consists of.
 *
 * Locks, in the order in which they are taken: fork's list of pools, `opening`,
 * `lock`, a region's back_lock, its lock, those of the rooms, the claims of
 * addresses, the pool's fallbacks, its limit.
 */
#ifndef MEMORY_STATE_H
#define MEMORY_STATE_H

#include "memory/fallback.h"
#include "memory/idle.h"
#include "memory/limit.h"
#include "memory/meta.h"
#include "memory/pool.h"
#include "memory/retired.h"
#include "memory/rule_table.h"
#include "memory/spread.h"

struct pp_pool {
    struct meta meta;
    struct anchors anchors;
    size_t region_bytes;
    size_t limit_bytes;               /* of `used`; 0: none */
    struct limit limit;               /* what is done when it is reached */
    uint64_t branch_range;
    bool landing_pads;
    uint32_t unwinders;               /* enum pp_unwinders: those that are told */
    pp_wx wx;
    char wx_reason[96];
    char name[48];                    /* in the names of mappings */
    pthread_mutex_t opening;          /* one region is opened at a time */
    pthread_mutex_t lock;             /* for the rooms: pool_lock */
    _Atomic(struct region *) regions; /* newest first; changed under `opening` */
    struct region *spare;             /* without a rule yet; guarded by `opening` */
    atomic_size_t used;               /* bytes of live spans; only counted if
                                         there is a limit */
    atomic_uint counting;             /* threads between a change of `used` and that of the spans;
                                         only counted if there is a limit */
    struct rule_table rules;
    struct retirement retirement;
    atomic_size_t barriers;           /* number of barriers on all cores */
    struct idle idle;
    struct spread spread;
    _Atomic(void *) rooms[ROOM_COUNT];
    struct fallbacks fallbacks;
    struct pp_pool *next;             /* in fork's list */
};

/* Options validated and normalized into a pool that has no regions. */
pp_status pool_create(const pp_pool_options *options, pp_pool **pool);
void pool_destroy(pp_pool *pool);

#endif
