/* SPDX-License-Identifier: MIT */
/*
 * A pool at work, so that everything the library looks for at run time has been
 * looked for.  For C and C++, for hosts that link the library and hosts that load it.
 */
#ifndef INTERPOSE_POOL_H
#define INTERPOSE_POOL_H

#include <patchpoint.h>

#include <string.h>

struct library {
    pp_status (*pool_create)(const pp_pool_options *, pp_pool **);
    void (*pool_destroy)(pp_pool *);
    pp_status (*pool_get_stats)(pp_pool *, pp_pool_stats *);
    pp_status (*trace_link)(pp_pool *, const pp_trace_desc *, pp_trace **);
    pp_status (*trace_free)(pp_pool *, pp_trace *);
    const void *(*trace_entry)(const pp_trace *);
};

#define LINKED_LIBRARY \
    { pp_pool_create, pp_pool_destroy, pp_pool_get_stats, pp_trace_link, pp_trace_free, pp_trace_entry }

/* Link, run and free a trace that returns its argument plus one. */
static inline int use_trace(const struct library *library, pp_pool *pool)
{
#if defined __x86_64__
    static const unsigned char code[] = { 0x48, 0x8d, 0x47, 0x01, 0xc3 }; /* lea 1(%rdi), %rax; ret */
#else
    static const unsigned char code[] = { 0x00, 0x04, 0x00, 0x91,         /* add x0, x0, #1 */
                                          0xc0, 0x03, 0x5f, 0xd6 };       /* ret */
#endif
    pp_frame_rule leaf;
    memset(&leaf, 0, sizeof leaf);
    leaf.size = sizeof leaf;
    leaf.kind = PP_FRAME_LEAF;
    pp_trace_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.size = sizeof desc;
    desc.code = code;
    desc.code_size = sizeof code;
    desc.frame = &leaf;

    pp_trace *trace;
    if (library->trace_link(pool, &desc, &trace) != PP_OK)
        return 0;
    long (*entry)(long);
    const void *address = library->trace_entry(trace);
    memcpy(&entry, &address, sizeof entry);
    int right = entry(41) == 42;
    return library->trace_free(pool, trace) == PP_OK && right;
}

/* Create a pool and use it.  Returns the name of the allocator of its metadata; NULL: a failure. */
static inline const char *use_pool(const struct library *library)
{
    pp_pool *pool;
    if (library->pool_create(NULL, &pool) != PP_OK)
        return NULL;
    pp_pool_stats stats;
    stats.size = sizeof stats;
    int works = use_trace(library, pool) && library->pool_get_stats(pool, &stats) == PP_OK;
    library->pool_destroy(pool);
    return works ? stats.allocator : NULL;
}

#endif
