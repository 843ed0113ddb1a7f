/* SPDX-License-Identifier: MIT */
/* What the link room keeps for a pool: symbols, and records of traces with their counts. */
#ifndef LINK_LINK_H
#define LINK_LINK_H

#include "link/shelf.h"
#include "link/symbol.h"
#include "memory/pool.h"
#include "os/spin.h"

struct link {
    struct symbol_table symbols;
    struct shelves shelves;        /* records of traces */
    struct spin moving;            /* guards addresses of symbols that move, and their literals;
                                      taken after a region's lock */
    size_t retargets;              /* calls that moved a symbol; under `moving` */
};

/* The pool's link state, made when first asked for; NULL: no memory.  Takes pool_lock. */
struct link *link_of(pp_pool *pool);

/* For the table of rooms. */
extern const struct pool_room link_room;

#endif
