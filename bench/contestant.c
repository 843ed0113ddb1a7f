/* SPDX-License-Identifier: MIT */
/* The list of contestants, and the two that need no other library. */
#include <config.h>

#include "bench/contestant.h"

#include "bench/harness.h"

#include <patchpoint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

const struct contestant *const contestants[] = {
    &pool_spans,
#if HAVE_ASMJIT
    &asmjit_dual,
    &asmjit_pools,
    &asmjit_single,
#endif
    &page_each,
#if HAVE_LLVM
    &llvm_process,
    &llvm_mapper,
#endif
    NULL
};

/* ---- this library ------------------------------------------------------ */

static void *pool_open(void)
{
    pp_pool *pool;
    return pp_pool_create(NULL, &pool) == PP_OK ? pool : NULL;
}

static void pool_close(void *pool)
{
    pp_pool_destroy(pool);
}

static bool pool_take(void *pool, size_t bytes, struct piece *piece)
{
    pp_span_desc desc = { .size = sizeof desc, .bytes = bytes };
    pp_span_place place = { .size = sizeof place };
    pp_span *span;
    if (pp_span_alloc(pool, &desc, &span, &place) != PP_OK)
        return false;
    *piece = (struct piece){ place.write, (void *) place.execute, bytes, span };
    return true;
}

static bool pool_publish(void *pool, struct piece *piece)
{
    pp_span *span = piece->handle;
    return pp_span_publish(pool, &span, 1, NULL) == PP_OK;
}

static bool pool_give(void *pool, struct piece *piece)
{
    return pp_span_free(pool, piece->handle) == PP_OK;
}

static void pool_measure(void *pool, struct footprint *footprint)
{
    pp_pool_stats stats = { .size = sizeof stats };
    if (pp_pool_get_stats(pool, &stats) == PP_OK)
        *footprint = (struct footprint){ stats.committed, stats.metadata };
}

const struct contestant pool_spans = {
    "libpatchpoint", pool_open, pool_close, pool_take, pool_publish, pool_give, pool_measure
};

/* ---- pages of its own for each piece ------------------------------------ */

static size_t in_pages(size_t bytes)
{
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) & -page;
}

static void *page_open(void)
{
    return bench_memory(sizeof(size_t));
}

static bool page_take(void *state, size_t bytes, struct piece *piece)
{
    void *memory = mmap(NULL, in_pages(bytes), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    *(size_t *) state += in_pages(bytes);
    *piece = (struct piece){ memory, memory, bytes, NULL };
    return true;
}

static bool page_publish(void *state, struct piece *piece)
{
    (void) state;
    if (mprotect(piece->execute, in_pages(piece->bytes), PROT_READ | PROT_EXEC) != 0)
        return false;
    __builtin___clear_cache((char *) piece->execute, (char *) piece->execute + piece->bytes);
    return true;
}

static bool page_give(void *state, struct piece *piece)
{
    *(size_t *) state -= in_pages(piece->bytes);
    return munmap(piece->execute, in_pages(piece->bytes)) == 0;
}

static void page_measure(void *state, struct footprint *footprint)
{
    footprint->reserved = *(size_t *) state;
}

const struct contestant page_each = {
    "mmap for each", page_open, free, page_take, page_publish, page_give, page_measure
};
