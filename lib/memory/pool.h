/* SPDX-License-Identifier: MIT */
/*
 * The pool from inside: spans on request, in a region of which unwinders are told
 * the right frame rule, and the lists of what lives as long as the pool.
 */
#ifndef MEMORY_POOL_H
#define MEMORY_POOL_H

#include "memory/owner.h"
#include "memory/region.h"
#include "memory/rule_table.h"

struct code_place;
/*
 * Bytes that a caller needs if it is placed in `region`.  Called without the
 * region's lock, maybe several times with different regions, before anything
 * is taken, and last with the region in which the span is taken.  A failure ends
 * the placement and is returned; REGION_FULL leads on to the next region.
 */
typedef pp_status span_measure(struct region *region, void *context, size_t *size);

/*
 * Take a span in a region for code with this rule, opening a region when none has
 * room, and asking the host (on_limit) before there is no memory: so no lock of the
 * library may be held.  `align` is a power of two, at least 16.  PP_E_NOMEM, PP_E_SYSTEM.
 */
pp_status pool_alloc(pp_pool *pool, const struct frame_rule *rule, size_t align,
                     span_measure *measure, void *context, struct span *span, pp_error *error);

/* The pool's rule that equals this one.  PP_E_NOMEM with a reason. */
pp_status pool_find_rule(pp_pool *pool, const struct frame_rule *rule,
                         const struct pool_rule **found, pp_error *error);

/* The same as pool_alloc with an owner from the first moment on. */
pp_status pool_alloc_for(pp_pool *pool, const struct owner *owner, const struct frame_rule *rule,
                         size_t align, span_measure *measure, void *context, struct span *span,
                         pp_error *error);

/*
 * Who owns a span: set by its owner before it publishes the entry, read by
 * code_at.  The generation tells handles of reused addresses apart: it is another one
 * whenever an address is given out (span.h), and never 0.
 */
void span_set_owner(const struct span *span, const void *owner);
uint32_t span_generation(const struct span *span);

/* From one owner to another, in one step; false: the span of this generation has another. */
bool span_pass(const struct span *span, const struct owner *from, const struct owner *to);

/* As region_turn. */
bool span_turn(const struct span *span, enum owner_kind from, enum owner_kind to);

/* Give back the tail of a span; `size` is what remains. */
void pool_shrink(struct span *span, size_t size);

/*
 * Release.  The span's bytes are filled with traps.  PP_E_STALE (not live, or
 * not the start of a span), PP_E_FAULT (not an address of this pool).
 */
pp_status pool_free(pp_pool *pool, uintptr_t exec);

/* The same for the span that was found at `place`, and no other that is there by now. */
pp_status pool_free_at(const struct code_place *place, pp_error *error);

/* The same for a handle's parts; `owner` as region_free has it. */
pp_status pool_free_span(struct region *region, uintptr_t exec, uint32_t generation,
                         const struct owner *owner);

/* Of a span of the host that is not retired. */
pp_status pool_shrink_at(const struct code_place *place, size_t size);

/*
 * Give back a span into which nothing was written since it was allocated: cannot
 * fail, because its bytes need not be cleared.
 */
void pool_unalloc(const struct span *span);

/*
 * Give back a span whose writing was begun, and did not end with success: nobody has
 * run it.  Cannot fail.
 */
void pool_discard(const struct span *span);

/*
 * What is at a code address.  Lock-free and async-signal-safe; false if no
 * live span holds it.  `owner` may be NULL while a span is being filled.
 */
struct code_place {
    struct region *region;
    uintptr_t start;
    size_t size;
    const struct owner *owner;
    uint32_t generation;
};
bool code_at(uintptr_t pc, struct code_place *place);

/* ---- what other rooms hang on a pool ------------------------------------ */

/*
 * A room keeps its own state for a pool (symbols, sites, entries).  `begin` is called by
 * pp_pool_create and may refuse the pool, leaving nothing behind; `close` is
 * called by pp_pool_destroy before regions go; `lock` and `unlock` around a fork, in
 * parent and child, for locks that are taken after a region's, `lock_first` and `unlock_last`
 * for those between pool_lock and a region's; `region_open` for every region
 * after it is mapped and before it is published (a failure abandons the
 * region); `region_close` before it is unmapped; `add_stats` by pp_pool_get_stats;
 * `verify` by pp_pool_verify.  Any of them may be NULL.
 */
struct pool_room {
    pp_status (*begin)(pp_pool *pool, pp_error *error);
    void (*close)(pp_pool *pool);
    void (*lock_first)(pp_pool *pool);
    void (*unlock_last)(pp_pool *pool);
    void (*lock)(pp_pool *pool);
    void (*unlock)(pp_pool *pool);
    pp_status (*region_open)(struct region *region, pp_error *error);
    void (*region_close)(struct region *region);
    void (*add_stats)(pp_pool *pool, pp_pool_stats *stats);
    pp_status (*verify)(pp_pool *pool, pp_error *error);
};

enum pool_room_id { ROOM_LINK, ROOM_PATCH, ROOM_OSR, ROOM_WALK, ROOM_COUNT };

/*
 * The table of rooms, in lib/pool.c, the one place that knows them all:
 * memory/ calls up only through it.
 */
extern const struct pool_room *const pool_rooms[ROOM_COUNT];

/* A room's state; NULL until the room sets it.  Set once, under pool_lock. */
void *pool_room_state(pp_pool *pool, enum pool_room_id id);
void pool_set_room_state(pp_pool *pool, enum pool_room_id id, void *state);
void pool_lock(pp_pool *pool);
void pool_unlock(pp_pool *pool);

/* What the pool was created with, normalized. */
uint64_t pool_branch_range(const pp_pool *pool);
const char *pool_name(const pp_pool *pool);
bool pool_landing_pads(const pp_pool *pool);
uint32_t pool_unwinders(const pp_pool *pool); /* enum pp_unwinders */

/*
 * Every thread of the process passes a barrier for memory and for instructions before this
 * returns.  Counted; where the kernel has none, a fallback is noted.
 */
void pool_sync_cores(pp_pool *pool);

/* ---- metadata: the pool's own arena -------------------------------------- */

/* Zeroed memory; NULL when there is none.  Accounted to the pool. */
void *pool_meta_alloc(pp_pool *pool, size_t size);
void pool_meta_free(pp_pool *pool, void *memory, size_t size);

#endif
