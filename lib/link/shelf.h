/* SPDX-License-Identifier: MIT */
/*
 * Shelves: the records of a pool's traces, and their counts, in as many parts, so that
 * threads that link and free at the same time meet neither at a lock nor in a cache
 * line.  A record belongs to one shelf for ever; a thread takes records from the
 * shelf that it is led to, and gives others back where they belong.
 */
#ifndef LINK_SHELF_H
#define LINK_SHELF_H

#include "memory/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct trace;
struct trace_block;

enum { SHELVES_BITS = 4, SHELVES = 1 << SHELVES_BITS };

/*
 * For pp_pool_stats, of what lies inside the traces; what they share is counted by the
 * islands (island.h).  Written under the lock, only when the operation cannot fail any more.
 */
struct trace_counts {
    _Atomic size_t traces;
    _Atomic size_t trampolines;
    _Atomic size_t trampoline_bytes; /* code and literals */
    _Atomic size_t literals;         /* without a trampoline */
    _Atomic size_t literal_bytes;
};

/* Who counts holds a lock that nobody adds without: no locked instruction is needed. */
static inline void count_add(_Atomic size_t *count, size_t change)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + change,
                          memory_order_relaxed);
}

struct shelf {
    pthread_mutex_t lock;            /* guards what traces have under their shelf's lock.  Taken
                                        after pool_lock and before a region's */
    struct trace *free;              /* records to use again; under the lock */
    struct trace_block *blocks;      /* all records; under the lock */
    struct trace_counts counts;      /* of the traces that have its records */
    char apart[64];                  /* no two shelves have a cache line in common */
};

struct shelves {
    struct shelf each[SHELVES];
};

void shelves_open(struct shelves *shelves);

/* Free all records, with what published ones hold. */
struct link;
void shelves_close(struct shelves *shelves, struct link *link, pp_pool *pool);

/* All locks, in their order. */
void shelves_lock(struct shelves *shelves);
void shelves_unlock(struct shelves *shelves);

/* A record, not live, with the name copied; NULL: no memory. */
struct trace *shelves_take(struct shelves *shelves, pp_pool *pool, const char *name);

/* `counted`: it was published, and is counted no more. */
void shelves_give(pp_pool *pool, struct trace *trace, bool counted);

/* Count what lies inside a trace, or what lay there.  The shelf is locked. */
void shelf_count_locked(const struct trace *trace, bool add);

/* Room for so many references to an island in an unpublished record.  False: no memory. */
bool trace_reserve_refs(pp_pool *pool, struct trace *trace, uint32_t count);

/* Every record of a shelf whose lock is held; false from `look` ends it, and is returned. */
bool shelf_each_locked(struct shelf *shelf, bool (*look)(struct trace *trace, void *context),
                       void *context);

#endif
