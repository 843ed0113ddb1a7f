/* SPDX-License-Identifier: MIT */
/* Where INT3 puts traps, so that those that threads meet are known for what they are. */
#ifndef PATCH_TRAP_H
#define PATCH_TRAP_H

#include "patch/batch.h"

#include <stdatomic.h>

/* An address where there was a trap of ours once.  Written under pool_lock. */
struct trap {
    _Atomic uintptr_t address;   /* 0: free */
    _Atomic uintptr_t handle;    /* of the span that it was in then */
    _Atomic uint64_t sequence;   /* odd: there may be a trap of ours now */
};

/* A hash of them: a handler may be looking at it, so nothing is moved or taken out. */
struct trap_table {
    struct trap_table *older;    /* replaced while a handler looked at them */
    size_t capacity;             /* a power of two */
    size_t count;                /* under pool_lock */
    struct trap traps[];
};

/* The addresses of a batch's INT3 patches, before the first trap is written.  PP_E_NOMEM. */
pp_status trap_enter_locked(struct patch_batch *batch);

/* The traps are gone. */
void trap_leave_locked(struct patch_batch *batch);

/* A barrier on all cores, counted.  False: the kernel has none. */
bool trap_sync_cores(pp_pool *pool);

#endif
