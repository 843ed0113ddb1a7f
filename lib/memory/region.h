/* SPDX-License-Identifier: MIT */
/*
 * A region: a reserved range of addresses with code, islands and literals.
 *
 *      guard | islands | code ........................ | guard | literals | guard      x86-64
 *      guard | code ......... | islands | code ....... | guard | literals | guard      AArch64
 *
 * Bounds are multiples of 64 KiB, so that 4, 16 and 64 KiB pages behave alike;
 * the base is a multiple of 2 MiB, so that the code map needs one slot for
 * each 2 MiB.  The number of mappings is constant, however many spans.
 *
 * What unwinders are told holds for all of a region's code, and for all of its life.  In a
 * region of which nothing is told there may be code with any frame rule.
 */
#ifndef MEMORY_REGION_H
#define MEMORY_REGION_H

#include "memory/children.h"
#include "memory/owner.h"
#include "memory/placement.h"
#include "memory/rule.h"
#include "memory/span.h"
#include "os/memfd.h"

#include <patchpoint/pool.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct region {
    pp_pool *pool;
    struct region *next;          /* in the pool; written once before it is published */
    uintptr_t base, limit;        /* the whole reservation */
    uintptr_t code_lo, code_hi;   /* executable view, islands included */
    uintptr_t island_lo, island_hi;
    uintptr_t literal_lo, literal_hi; /* private data, never executable */
    ptrdiff_t write_delta;        /* write view - executable view; 0 when there is one view */
    pp_wx wx;
    unsigned page_shift;          /* log2 of the bytes in a page */
    bool near;                    /* every anchor is in branch range of all of it */
    bool inherited;               /* from before a fork: runs, is never written again */
    uint32_t *numbers;            /* of chunks, from base on (number.h): constant */
    size_t number_count, number_room;
    uint32_t generation_floor;    /* no generation was used with any of these above it */
    const struct frame_rule *told; /* of the pool's table; NULL: nothing is told.  This and the
                                      next are written once, before it is published */
    struct frame_rule claim;      /* for what its addresses are claimed; PP_FRAME_NONE: they are not */
    pthread_mutex_t lock;         /* guards changes of spans, islands */
    struct span_space spans;      /* offsets from code_lo */
    atomic_size_t taken;          /* number of spans that were ever taken; changed under lock */
    atomic_size_t room;           /* no hole is longer; a hint, for looking without the lock */
    struct descriptor memfd;      /* PP_WX_DUAL, PP_WX_REMAP */
    pthread_mutex_t back_lock;    /* guards changes of `backed`; taken before `lock` */
    _Atomic uint64_t *backed;     /* a bit for each page of the executable view: memory is behind
                                     it, and traps are wherever no span was written; changed with
                                     both locks held */
    atomic_size_t committed;      /* bytes of backed pages; changed with both locks held */
    size_t idle;                  /* bytes of backed pages that lie wholly in holes; lock */
    size_t trim_from;             /* offset at which trimming goes on; back_lock */
    bool populates;               /* MADV_POPULATE_WRITE has been seen to work; back_lock */
    bool populates_not;           /* the kernel does not have it; back_lock */
    atomic_bool unback_refused;   /* pages cannot be given back */
    atomic_bool lost;             /* the host closed a descriptor that is needed: no more spans */
    _Atomic uint64_t *writable;   /* PP_WX_FLIP: a bit for each page that has its write
                                     permission; changed by whoever owns the page */
    struct children children;     /* what they may be running; lock */
    void *link;                   /* the island table of lib/link, guarded by lock */
    void *unwind;                 /* registrations with other unwinders */
};

/* A span, or another part of a region that somebody owns. */
struct span {
    struct region *region;
    uintptr_t exec;      /* first byte */
    size_t size;         /* as asked for */
    uint32_t generation; /* of pool_alloc */
};

/*
 * Map a region in the pool's mode, near the anchors if there is room, of at most
 * `size` bytes: halved until it fits, down to 2 MiB.  It steers clear of addresses
 * that are claimed for something else than `claim`; NULL: it is not known yet, and any
 * address will do.  The region is not published.
 */
pp_status region_create(pp_pool *pool, pp_wx wx, const struct frame_rule *claim,
                        struct anchors *anchors, size_t size, struct region **region,
                        pp_error *error);
void region_destroy(struct region *region);

/* Its code is in a memfd, and a child shares it. */
static inline bool region_has_memfd(const struct region *region)
{
    return region->wx == PP_WX_DUAL || region->wx == PP_WX_REMAP;
}

static inline size_t region_code_size(const struct region *region)
{
    return region->code_hi - region->code_lo;
}

/* No permission of its pages ever changes: bytes that are written can run. */
static inline bool region_has_permissions(const struct region *region)
{
    return region->wx == PP_WX_DUAL || region->wx == PP_WX_RWX;
}

static inline uint8_t *region_write_view(const struct region *region, uintptr_t exec)
{
    return (uint8_t *) (exec + (uintptr_t) region->write_delta);
}

/* Not for callers of the library: no hole is long enough, another region may have one. */
#define REGION_FULL ((pp_status) 1)

/* Nor this: another thread has the region's lock. */
#define REGION_BUSY ((pp_status) 2)

/*
 * One span.  REGION_FULL, REGION_BUSY if not to `wait` for the lock, or why there is
 * none: PP_E_NOMEM, PP_E_SYSTEM.
 */
pp_status region_alloc(struct region *region, bool wait, size_t size, size_t align,
                       const void *owner, uintptr_t *exec, uint32_t *generation, pp_error *error);

/*
 * PP_E_STALE: no live span starts there, or one of another generation or owner; 0 and
 * NULL stand for any, span_any for any of the host's.  *bytes receives what was given back.
 */
pp_status region_free(struct region *region, uintptr_t exec, uint32_t generation,
                      const struct owner *owner, size_t *bytes, pp_error *error);
pp_status region_shrink(struct region *region, uintptr_t exec, uint32_t generation,
                        const struct owner *owner, size_t size, size_t *bytes);

/*
 * Make two spans of one, of the same owner, the second one `at` bytes from the start,
 * of a generation of its own.  PP_E_STALE, PP_E_ARG (not a unit inside), PP_E_NOMEM.
 */
pp_status region_split(struct region *region, uintptr_t exec, uint32_t generation,
                       const struct owner *owner, size_t at, uint32_t *tail_generation);

/*
 * From one owner to another: false, and nothing changed, if the live span there is
 * not of this generation and owner.  *size, unless NULL, receives its bytes.
 */
bool region_pass(struct region *region, uintptr_t exec, uint32_t generation,
                 const struct owner *from, const struct owner *to, size_t *size);

/*
 * A span of the host from one state to another (enum owner_kind), with the frame rule that
 * it has.  False, and nothing changed: it is not of this generation, or in another state.
 */
bool region_turn(struct region *region, uintptr_t exec, uint32_t generation,
                 enum owner_kind from, enum owner_kind to, size_t *size);

/* Whether a child may be running the span at this address. */
bool region_may_run_in_child(struct region *region, uintptr_t exec);

/* Give back a span that was never written; returns its bytes. */
size_t region_unalloc(struct region *region, uintptr_t exec);

/*
 * Give back a span that was written, between region_write_begin and a region_write_end
 * that succeeded: nobody has run it.  Cannot fail; returns its bytes.
 */
size_t region_discard(struct region *region, uintptr_t exec);

/*
 * Spans that were freed while a child might run them become holes, if no such
 * child is left.
 */
void region_settle(struct region *region);

/* Give back idle pages, up to `want` bytes.  Bytes that were given back. */
size_t region_trim(struct region *region, size_t want);

/* Bytes of code, islands and literals that have pages behind them. */
size_t region_resident(struct region *region);

/* NULL, or a sentence about the first invariant that is broken.  Takes the locks. */
const char *region_verify(struct region *region);

/*
 * Make [exec, exec + size) writable and return where to write; the span is the
 * caller's alone.  In FLIP mode the pages lose their execute permission until
 * the write ends; if it cannot end, they stay writable, and another begin of theirs
 * needs nothing of the kernel.
 */
pp_status region_write_begin(struct region *region, uintptr_t exec, size_t size, uint8_t **write,
                             pp_error *error);

/* The span can be written as it is: it was begun, and has not ended. */
bool region_is_writable(const struct span *span);

/*
 * End a write: permissions restored, both caches right, but no barrier on other cores.
 * Enough for what this thread runs itself, and for what other threads reach only by
 * branches in code that is published later.
 * PP_E_NOMEM, PP_E_SYSTEM: the span is writable as before.
 */
pp_status region_write_end(struct region *region, uintptr_t exec, size_t size, pp_error *error);

/*
 * The same for many spans, of any regions of one pool, and a barrier: after it a thread
 * that learns an address in whatever way runs the new code.  One operation on the caches
 * and, on AArch64, one barrier for all.  All of them, or none: neighbours in ascending
 * order cost least.
 */
pp_status region_publish(const struct span *spans, size_t count, pp_error *error);

/*
 * Traps over bytes that nobody runs any more; no barrier: the next publication has
 * it.  The traps are there when they are written: where the kernel refuses the end
 * of it, FLIP's pages stay writable and cannot run, and an emulator may not have
 * seen REMAP's; the next owner of the bytes makes up for both, or is refused.
 */
pp_status region_zap(struct region *region, uintptr_t exec, size_t size, pp_error *error);

/* ---- the code map: address -> region, for the whole process ------------ */

/*
 * The region whose executable view holds pc, or NULL.  Lock-free, allocates
 * nothing, async-signal-safe: two loads with acquire order, paired with the
 * release stores that publish a region.
 */
struct region *region_at(uintptr_t pc);

#endif
