/* SPDX-License-Identifier: MIT */
/*
 * Memory for bookkeeping: an arena of its own in jemalloc, if the process has
 * jemalloc or can load it without anything being interposed; else the C heap.
 */
#ifndef MEMORY_META_H
#define MEMORY_META_H

#include <stdatomic.h>
#include <stddef.h>

struct meta {
    const char *name;       /* "jemalloc" or "libc" */
    const char *refused;    /* why it is not jemalloc, or NULL */
    unsigned arena;         /* of jemalloc */
    atomic_size_t bytes;    /* in use, as asked for */
};

void meta_open(struct meta *meta);

/* Everything that was allocated must have been freed. */
void meta_close(struct meta *meta);

/* Bytes that had not been freed when their meta was closed, over the process's life: 0. */
size_t meta_lost(void);

/* Bytes that were not freed when their meta was closed, in all of the process: a leak. */
size_t meta_unreturned(void);

/* Zeroed and 16-byte aligned, or NULL. */
void *meta_alloc(struct meta *meta, size_t size);
void meta_free(struct meta *meta, void *memory, size_t size);

#endif
