/* SPDX-License-Identifier: MIT */
/* Keys and the patches that wait for them: a hash of lists. */
#ifndef PATCH_WATCH_H
#define PATCH_WATCH_H

#include "memory/pool.h"

#include <patchpoint/watch.h>

struct watch {
    struct watch *next;      /* in a bucket, or among the free */
    uint64_t key;
    pp_patch patch;          /* with the handle of its span */
};

struct watch_block;

/* Of a pool, under pool_lock. */
struct watch_table {
    struct watch **buckets;  /* NULL, or a power of two of them */
    size_t capacity;         /* number of buckets */
    size_t count;            /* of watches; some of code that is gone, which makes room before
                                the table grows */
    struct watch *free;
    struct watch_block *blocks;
};

void watch_table_close(struct watch_table *table, pp_pool *pool);

/* NULL, or a sentence about what is broken. */
const char *watch_verify_locked(const struct watch_table *table);

#endif
