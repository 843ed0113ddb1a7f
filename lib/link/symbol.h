/* SPDX-License-Identifier: MIT */
/*
 * The symbols of a pool: a number, an address and perhaps a name.  Most have one
 * address for ever; those that are declared retargetable may move.
 *
 * Looked up by number without a lock: entries live in blocks that never move
 * and are never freed before the pool.  Defining one takes the pool's lock.
 */
#ifndef LINK_SYMBOL_H
#define LINK_SYMBOL_H

#include "memory/pool.h"

#include <patchpoint/trace.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    SYMBOL_FIRST = PP_SYMBOL_PATCHPOINT_M512 + 1, /* of those that the host defines */
    SYMBOL_BLOCK_BITS = 6,              /* the first block has 64 entries, each next one twice as many */
    SYMBOL_BLOCKS = 20,
};

struct retarget;

struct symbol {
    _Atomic uintptr_t address; /* 0: stands for a trace's own bytes, or is not there; changes only
                                  with `retarget`, under link->moving */
    const char *name;          /* constant; of the pool; NULL: only a value */
    struct retarget *retarget; /* constant; NULL: the address stays what it is */
    uint32_t next_name;  /* in the chain of a hash bucket; 0: end */
    uint32_t next_address;
};

struct symbol_table {
    _Atomic(struct symbol *) blocks[SYMBOL_BLOCKS]; /* written under pool_lock */
    _Atomic uint32_t count;   /* published with release order after the entry is filled */
    uint32_t *names;          /* buckets by name, by address: heads of chains; under pool_lock */
    uint32_t *addresses;
    uint32_t buckets;         /* a power of two; of each of the two */
};

/* With the predefined symbols in it.  PP_E_NOMEM. */
pp_status symbol_table_open(struct symbol_table *table, pp_pool *pool);
void symbol_table_close(struct symbol_table *table, pp_pool *pool);

/* How many numbers are taken, predefined ones included.  Lock-free. */
uint32_t symbol_count(const struct symbol_table *table);

/* The entry of a number, or NULL.  Lock-free. */
struct symbol *symbol_find(const struct symbol_table *table, pp_symbol symbol);

static inline uintptr_t symbol_address(const struct symbol *symbol)
{
    return atomic_load_explicit(&symbol->address, memory_order_acquire);
}

/* PP_SYMBOL_NONE: another address or other flags for the name, or no memory. */
pp_symbol symbol_declare_locked(struct symbol_table *table, pp_pool *pool, const char *name,
                                uintptr_t address, uint32_t flags);

#endif
