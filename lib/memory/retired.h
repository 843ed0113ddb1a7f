/* SPDX-License-Identifier: MIT */
/*
 * Code that was given up and may still be running.  What can be retired has a
 * struct retired; those of a pool are in its lists, which lib/patch keeps.
 */
#ifndef MEMORY_RETIRED_H
#define MEMORY_RETIRED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of what has just been retired: no ticket covers it. */
#define NO_TICKET UINT64_MAX

struct retired {
    struct retired *next;      /* in a list of the pool; pool_lock */
    _Atomic uint64_t ticket;   /* the first one that covers it.  pool_lock to write; of no meaning
                                  unless the owner of the span is a retired one */
    uintptr_t leads;           /* code that a thread in it may be on its way to, which nothing else
                                  shows; 0: none.  Constant while retired */
    atomic_bool held;          /* found on a stack by a reclaim that is going on */
    bool is_trace;             /* constant */
};

struct retired_block;

/* Of a pool; all but the atomics under pool_lock. */
struct retirement {
    _Atomic uint64_t drawn;    /* the latest ticket */
    struct retired *first;     /* in the order in which they were retired, so of tickets, too */
    struct retired *last;
    size_t waiting;            /* length of the list that begins with `first` */
    struct retired *kept;      /* those that a reclaim could not free, in no order */
    struct retired *spare;     /* records for spans */
    struct retired_block *blocks;
    atomic_size_t count;       /* of traces and spans that are retired */
    atomic_size_t bytes;       /* in them, as asked for */
};

#endif
