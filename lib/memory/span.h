/* SPDX-License-Identifier: MIT */
/*
 * A span space: which units of an abstract range are taken, with all
 * bookkeeping out of band.  It knows offsets only and touches no code memory.
 *
 * The range is cut into extents (extent.h): live spans, holes, and held extents that
 * are never given out.  No two holes are neighbours.  Holes are filed by length
 * (hole.h): the shortest that is long enough is found in a few steps if it is short,
 * and in a logarithm of their number if it is long.
 *
 * Generations: an offset and a generation never come together twice.  Each bucket
 * counts its spans, and when there is no number left for one more it is closed: spans
 * reach into it, but none begins there any more.  A hole in which none can begin is
 * used up: it stays a hole, but is not filed and not counted.
 *
 * One thread changes a space at a time (its owner's lock).  Any number of
 * threads and signal handlers may call span_space_at meanwhile; extent.c says why
 * that works.
 */
#ifndef MEMORY_SPAN_H
#define MEMORY_SPAN_H

#include "memory/extent.h"
#include "memory/hole.h"
#include "memory/size_class.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPAN_GRANULE_SHIFT 4
#define SPAN_GRANULE ((size_t) 1 << SPAN_GRANULE_SHIFT)
#define SPAN_GENERATION_BITS 30
#define SPAN_GENERATION_MAX (((uint32_t) 1 << SPAN_GENERATION_BITS) - 1)
#define SPAN_SPACE_MAX (((size_t) 1 << 30) - 65536) /* bytes; offsets are 30 bits */

struct span_space {
    struct span_memory memory;
    unsigned shift;              /* log2 of the bytes in a unit */
    struct extents extents;
    struct holes holes;
    uint32_t generation;         /* of the latest allocation */
    uint32_t floor;              /* generations are above it */
    uint32_t closed;             /* buckets in which no span begins any more */
    uint32_t latest, latest_end; /* the hole that was filed last, in units; empty: it is gone */
    size_t spans;                /* live ones */
    size_t used;                 /* bytes, whole units */
    size_t requested;            /* bytes as asked for */
    struct size_classes classes; /* the same by length, and holes */
};

/*
 * `size` is a multiple of the unit, at most SPAN_SPACE_MAX; generations are above
 * `floor`, which is less than SPAN_GENERATION_MAX.  False: no memory.
 */
bool span_space_init(struct span_space *space, size_t size, unsigned shift, uint32_t floor,
                     const struct span_memory *memory);
void span_space_fini(struct span_space *space);

/* Take [offset, offset + size) out of an untouched space for ever.  False: no memory. */
bool span_space_hold(struct span_space *space, size_t offset, size_t size);

/*
 * Choose a place without taking it.  `align` is a power of two.  SPAN_FOUND
 * means that the next span_space_take of this slot cannot fail, if no other
 * change comes in between.
 */
enum span_find { SPAN_FOUND, SPAN_FULL, SPAN_NO_MEMORY };
struct span_slot {
    struct extent hole;    /* that it is cut from */
    uint32_t start, units; /* the span */
    size_t size;           /* bytes asked for */
    const void *owner;     /* from the first moment on; NULL unless the caller sets it */
};
enum span_find span_space_find(struct span_space *space, size_t size, size_t align,
                               struct span_slot *slot);

/* Take the slot; the new span's offset.  Its generation is space->generation. */
size_t span_space_take(struct span_space *space, const struct span_slot *slot);

struct span_info {
    size_t start;          /* offset */
    size_t size;           /* bytes asked for */
    size_t extent;         /* bytes taken: whole units */
    void *owner;
    uint32_t generation;
    struct extent at;      /* of span_space_starting only */
};

/* The live span that holds this offset.  Lock-free, async-signal-safe. */
bool span_space_at(const struct span_space *space, size_t offset, struct span_info *info);

/* The live span that starts at this offset, for who changes the space. */
bool span_space_starting(const struct span_space *space, size_t offset, struct span_info *info);

/* The span that starts at `offset` goes.  False, and nothing changed: none does. */
bool span_space_free(struct span_space *space, size_t offset);

/* The same of one that span_space_starting has found, and nothing has changed since. */
void span_space_free_found(struct span_space *space, const struct span_info *info);

/*
 * The same in two steps: after the first it is no span any more but keeps its
 * place, the second makes a hole of it.
 */
bool span_space_retire(struct span_space *space, size_t offset);
void span_space_reclaim(struct span_space *space, size_t offset);

/* Bytes from `offset` to the next start. */
size_t span_space_extent(const struct span_space *space, size_t offset);

/*
 * Memory to cut the span at `offset`, which is live, to `size` bytes, at least 1 and at
 * most what it was.  False: there is none.
 */
bool span_space_shrink_prepare(struct span_space *space, size_t offset, size_t size);

/*
 * Cut it.  False, and nothing changed: no such span, a wrong size, or no memory, which
 * there is if it was prepared and nothing else has changed.
 */
bool span_space_shrink(struct span_space *space, size_t offset, size_t size);

/* The same, but what is cut off keeps its place until span_space_reclaim. */
bool span_space_shrink_hold(struct span_space *space, size_t offset, size_t size);

/*
 * Make two spans of the one at `offset`: the second, of the same owner, begins `at`
 * bytes behind it, which is a whole number of units inside it; its generation is
 * space->generation.  False, and nothing changed: no such span, a wrong place, a
 * closed bucket, or no memory.
 */
bool span_space_split(struct span_space *space, size_t offset, size_t at);

/* The owner of a live span, 16-byte aligned.  False: no such span. */
bool span_space_set_owner(struct span_space *space, size_t offset, const void *owner);

/*
 * From one owner to another: false, and nothing changed, if the live span at
 * `offset` is not of this generation and owner.  *size, unless NULL, receives its bytes.
 */
bool span_space_pass(struct span_space *space, size_t offset, uint32_t generation,
                     const void *from, const void *to, size_t *size);

/*
 * The same where the new owner depends on the old one: `turn` answers with it, or with
 * NULL, and then nothing is changed.
 */
typedef const void *span_turn_fn(const void *owner, const void *context);
bool span_space_turn(struct span_space *space, size_t offset, uint32_t generation,
                     span_turn_fn *turn, const void *context, size_t *size);

/*
 * The highest generation of the spans that ever began in the buckets that [offset,
 * offset + size) touches; 0: none did.  What reaches out of the space is nothing.
 */
uint32_t span_space_latest(const struct span_space *space, size_t offset, size_t size);

/* Bytes of the longest hole. */
size_t span_space_largest(const struct span_space *space);

/* NULL if every invariant holds, or a sentence about the first that does not. */
const char *span_space_verify(const struct span_space *space);

/* The hole that holds this offset, used up or not.  False: none does. */
bool span_space_hole_at(const struct span_space *space, size_t offset, size_t *start,
                        size_t *size);

/*
 * Holes in ascending order, used up or not, for tests and trimming: the first that begins
 * at or after *offset.
 */
bool span_space_next_hole(const struct span_space *space, size_t *offset, size_t *size);

#endif
