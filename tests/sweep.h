/* SPDX-License-Identifier: MIT */
/*
 * Sweeping faults over an operation: its first request fails, then its second,
 * and so on, until the script is not met any more; for each kind of request and for
 * all of them together, once and from there on.
 *
 * What is checked each time: a refused operation has a status and a reason, has
 * changed no count of the pool, and repeated refusals do not grow anything; the pool
 * verifies; without the script the operation succeeds; the pool can be destroyed
 * then, and no mapping, no descriptor and no byte of bookkeeping is left.
 */
#ifndef TESTS_SWEEP_H
#define TESTS_SWEEP_H

#include "snippet.h"

#include <patchpoint.h>

#include <stdbool.h>

enum { WORLD_SYMBOLS = 48, WORLD_TRACES = 80, WORLD_SITES = 5 };

/* What operations work on; made anew for each fault. */
struct world {
    const struct operation *operation;
    pp_wx wx;
    pp_error error;                 /* of the operation */
    pp_pool *pool;
    struct snippet code;
    pp_symbol symbols[WORLD_SYMBOLS];
    pp_trace_desc desc;
    pp_trace *traces[WORLD_TRACES];
    unsigned count;                 /* of traces */
    pp_reservation reservation;
    unsigned char kept[64];         /* bytes of the reservation */
    size_t made;                    /* things that a step of the operation made */
    pp_site *sites[WORLD_SITES];
    pp_entry *entries[WORLD_SITES];
    int child, child_pipe;          /* a process that is alive; -1 */
    uint64_t *child_hits;           /* PP_FAULT_CALLS faults that a child met; shared with it */
};

#define CALL(name) (1u << PP_FAULT_##name)
#define MEMFD_CALLS (CALL(MEMFD_CREATE) | CALL(FTRUNCATE) | CALL(FCNTL) | CALL(MADVISE) | \
                     CALL(FALLOCATE) | CALL(MMAP))

struct operation {
    const char *name;
    /* What it must have been made to fail at, in every mode, with a memfd, and in FLIP mode. */
    unsigned always, memfd, flip;
    void (*prepare)(struct world *);    /* without faults; the pool is there unless no_pool */
    pp_status (*run)(struct world *);   /* under the script; may be run again if it failed */
    void (*check)(struct world *);      /* it succeeded: it took effect */
    void (*refused)(struct world *);    /* it failed: or NULL */
    void (*finish)(struct world *);     /* before the pool is destroyed: or NULL */
    bool no_pool;                       /* it creates the pool, or destroys it */
    bool silent;                        /* it has no pp_error */
    unsigned in_place;                  /* what must have failed in DUAL and RWX mode, too */
    bool fresh;                         /* in processes that have not done it before */
    bool gradual;                       /* what it did before it failed stays; counted in made */
    bool modeless;                      /* no code is written: one mode is enough */
    bool far;                           /* all symbols are far */
    bool changes_errno;                 /* what it does beside the library */
};

/* The operations of each room, ended by one without a name. */
extern const struct operation sweep_pool_operations[], sweep_link_operations[],
                              sweep_move_operations[], sweep_patch_operations[],
                              sweep_span_operations[], sweep_entry_operations[];

/*
 * All faults for one operation in one mode; ends the test if something is wrong.  `where`,
 * of SWEEP_TEXT bytes, always says which fault is being tried.
 */
enum { SWEEP_TEXT = 64 };
void sweep(const struct operation *operation, pp_wx wx, char *where);

/* Create a pool as all operations have it; PP_OK, or why not, with the reason in world->error. */
pp_status sweep_create_pool(struct world *world);

/* Symbols for far and near functions, in world->symbols. */
void sweep_define(struct world *world, unsigned count);

/* A function that calls the first `count` symbols: world->code and world->desc. */
void sweep_write_calls(struct world *world, unsigned count);

/* Calls of the symbols' functions since the last time. */
unsigned sweep_calls(void);

/* All of the world's traces run and call `calls` functions each. */
void sweep_run_traces(struct world *world, unsigned calls);

#endif
