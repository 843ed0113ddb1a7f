/* SPDX-License-Identifier: MIT */
/*
 * Trampolines and literals that the traces of a region share, one slot for a
 * symbol, with reference counts.
 *
 * Slot i is a trampoline in the region's island, which jumps through literal i
 * in the region's literal area.  The code of a slot depends on i alone: a page
 * of the island is written as a whole when the first of its slots is needed,
 * and never again.  What changes is the literal: an aligned 8-byte store into
 * data, in another page than any code.  A symbol that is only loaded, or called
 * through a trampoline of the trace's own, uses the literal of its slot and leaves
 * the trampoline alone.
 */
#ifndef LINK_ISLAND_H
#define LINK_ISLAND_H

#include "link/link.h"
#include "memory/region.h"

/* Addresses that every byte of a region's code reaches: lo .. hi, none if lo > hi. */
struct reach {
    uintptr_t lo, hi;
};

struct island_slot {
    pp_symbol symbol;          /* PP_SYMBOL_NONE: free */
    uint32_t trampoline_refs;  /* traces that branch through it */
    uint32_t literal_refs;     /* traces that load its literal */
    uint32_t next;             /* in the chain of a bucket, or of free slots; 0: end, else slot + 1 */
};

/* For pp_pool_stats.  Read without a lock. */
struct island_counts {
    _Atomic size_t trampolines;
    _Atomic size_t uses;           /* references that traces have to them */
    _Atomic size_t literals;       /* without a trampoline */
};

struct island {
    struct reach branch, got;  /* constant */
    size_t slot_bytes;         /* constant: code of a slot */
    uint32_t capacity;         /* constant: slots that have room */
    bool reachable;            /* constant: every byte of code reaches every slot by a branch */

    /* The rest under the region's lock. */
    struct island_slot *slots; /* `room` of them are there, `used` were ever in use */
    uint32_t room, used;
    uint32_t live;             /* slots that have a symbol */
    uint32_t free_slots;       /* chain */
    uint32_t *buckets;         /* by symbol; as many as `room`, a power of two */
    struct island_user *users;
    uint32_t verified;         /* when pp_pool_verify was last here */
    struct island_counts counts;

    pthread_mutex_t page_lock; /* held while a page is written, taken before the region's
                                  lock */
    size_t page_bytes;         /* constant: the system's */
    unsigned page_shift;       /* constant: log2 of it */
    size_t page_count;         /* constant */
    atomic_bool *pages;        /* written */
};

/* What one trace holds of an island. */
struct island_user {
    struct island_user *next, **previous; /* of the island; under the region's lock */
    uint32_t room;             /* constant */
    uint32_t count;            /* 0: it is in no island's list */
    uint32_t refs[];           /* slot << 2 | ISLAND_TRAMPOLINE | ISLAND_LITERAL */
};

enum { ISLAND_TRAMPOLINE = 1, ISLAND_LITERAL = 2 };

/* What a trace wants for a symbol, and the slot it got. */
struct island_need {
    pp_symbol symbol;
    uintptr_t address;
    uint32_t uses;             /* ISLAND_TRAMPOLINE, ISLAND_LITERAL or both */
    uint32_t slot;
};

static inline bool reach_holds(struct reach reach, uintptr_t address)
{
    return reach.lo <= address && address <= reach.hi;
}

/* Set and clear region->link.  PP_E_NOMEM. */
pp_status island_open(struct region *region, pp_error *error);
void island_close(struct region *region);

static inline struct island *island_of(const struct region *region)
{
    return region->link;
}

/* Room for references, none taken.  NULL: no memory. */
struct island_user *island_user_new(pp_pool *pool, uint32_t room);
void island_user_free(pp_pool *pool, struct island_user *user);

/*
 * Take a reference to a slot for each need, at least one and all or none, and have
 * the slots' code in place.  PP_E_RANGE without a text in `error`: the island is full.
 * PP_E_NOMEM, PP_E_SYSTEM.  `added`: trampolines and literals that are new.
 */
pp_status island_take(struct region *region, struct link *link, struct island_need *needs,
                      uint32_t count, struct island_user *user, unsigned *added,
                      pp_error *error);

/* Give all of them back. */
void island_drop(struct region *region, struct link *link, struct island_user *user);

/*
 * How many of the needs would make a trampoline or a literal that is not there
 * yet; `fits`: whether there are slots for them.
 */
unsigned island_count_new(struct region *region, const struct island_need *needs, uint32_t count,
                          bool *fits);

uintptr_t island_trampoline(const struct region *region, uint32_t slot);
uintptr_t island_literal(const struct region *region, uint32_t slot);

/* Check every invariant.  PP_E_FAULT.  Takes the region's lock. */
pp_status island_verify(struct region *region, struct link *link, pp_error *error);

#endif
