/* SPDX-License-Identifier: MIT */
/* What the link room keeps for a pool: symbols, records of traces, counts. */
#ifndef LINK_LINK_H
#define LINK_LINK_H

#include "link/symbol.h"
#include "memory/pool.h"
#include "os/spin.h"

#include <stdatomic.h>

struct trace;
struct trace_block;

struct link {
    struct symbol_table symbols;
    struct trace *free_traces;     /* records to use again; under pool_lock */
    struct trace_block *blocks;    /* all records; under pool_lock */
    struct spin moving;            /* guards addresses of symbols that move, and their literals;
                                      taken after a region's lock */
    size_t retargets;              /* calls that moved a symbol; under `moving` */

    /* Counts for pp_pool_stats: relaxed, changed only when the operation cannot fail any more. */
    _Atomic size_t traces;
    _Atomic size_t trampolines;
    _Atomic size_t trampoline_bytes; /* code and literals */
    _Atomic size_t shared;           /* of these trampolines, shared ones */
    _Atomic size_t shared_uses;      /* references that traces have to them */
    _Atomic size_t literals;         /* without a trampoline */
    _Atomic size_t literal_bytes;
};

/* The pool's link state, made when first asked for; NULL: no memory.  Takes pool_lock. */
struct link *link_of(pp_pool *pool);

/* For the table of rooms. */
extern const struct pool_room link_room;

#endif
