/* SPDX-License-Identifier: MIT */
/* The way bytes get into a region. */
#include <config.h>

#include "memory/region.h"

#include "error.h"
#include "memory/backing.h"
#include "memory/pool.h"
#include "memory/view.h"
#include "os/cache.h"
#include "os/map.h"

/* Whole pages around [exec, exec + size). */
static uintptr_t page_range(uintptr_t exec, size_t size, size_t *bytes)
{
    size_t page = map_page_size();
    uintptr_t lo = exec & -page;
    *bytes = ((exec + size + page - 1) & -page) - lo;
    return lo;
}

static bool in_code(const struct region *region, uintptr_t exec, size_t size)
{
    return size > 0 && exec >= region->code_lo && exec < region->code_hi &&
           size <= region->code_hi - exec;
}

/* ---- permissions ------------------------------------------------------ */

/* FLIP: whether [lo, lo + bytes) is writable as it is. */
static bool is_writable(const struct region *region, uintptr_t lo, size_t bytes)
{
    size_t page = map_page_size(), first = (lo - region->code_lo) / page;
    for (size_t i = first; i < first + bytes / page; i++) {
        uint64_t word = atomic_load_explicit(&region->writable[i / 64], memory_order_relaxed);
        if ((word >> i % 64 & 1) == 0)
            return false;
    }
    return true;
}

static int flip(struct region *region, uintptr_t lo, size_t bytes, bool writable)
{
    size_t page = map_page_size(), first = (lo - region->code_lo) / page;
    int number = map_protect(lo, bytes, writable ? MAP_READ_WRITE : MAP_READ_EXEC);
    for (size_t i = first; number == 0 && i < first + bytes / page; i++) {
        uint64_t bit = 1ull << i % 64;
        if (writable)
            atomic_fetch_or_explicit(&region->writable[i / 64], bit, memory_order_relaxed);
        else
            atomic_fetch_and_explicit(&region->writable[i / 64], ~bit, memory_order_relaxed);
    }
    return number;
}

static int open_pages(struct region *region, uintptr_t exec, size_t size)
{
    size_t bytes;
    uintptr_t lo = page_range(exec, size, &bytes);
    return is_writable(region, lo, bytes) ? 0 : flip(region, lo, bytes, true);
}

/* Pages of a region that end their write together. */
struct run {
    struct region *region;
    uintptr_t lo;
    size_t bytes;
};

/* The run that begins with spans[*index], which moves behind its last span. */
static struct run next_run(const struct span *spans, size_t count, size_t *index)
{
    const struct span *span = &spans[(*index)++];
    struct run run = { span->region, 0, 0 };
    run.lo = page_range(span->exec, span->size, &run.bytes);
    for (; *index < count && spans[*index].region == run.region; ++*index) {
        size_t bytes;
        uintptr_t lo = page_range(spans[*index].exec, spans[*index].size, &bytes);
        if (lo < run.lo || lo > run.lo + run.bytes)
            break;
        if (lo + bytes > run.lo + run.bytes)
            run.bytes = lo + bytes - run.lo;
    }
    return run;
}

static pp_status make_executable(const struct run *run, pp_error *error)
{
    struct region *region = run->region;
    uintptr_t lo = run->lo;
    if (region->wx == PP_WX_REMAP) {
        int number = descriptor_check(&region->memfd);
        if (number != 0)
            atomic_store_explicit(&region->lost, true, memory_order_relaxed);
        else
            number = map_shared(region->memfd.fd, lo - region->code_lo, &lo, run->bytes,
                                MAP_READ_EXEC);
        return number == 0 ? PP_OK : view_refused(error, "mmap", number);
    }
    if (region->wx == PP_WX_FLIP) {
        int number = flip(region, lo, run->bytes, false);
        return number == 0 ? PP_OK : view_refused(error, "mprotect", number);
    }
    return PP_OK;
}

/* The spans before `end` stay as they were: writable. */
static void take_back(const struct span *spans, size_t end)
{
    for (size_t i = 0; i < end;) {
        struct run run = next_run(spans, end, &i);
        if (run.region->wx == PP_WX_FLIP)
            (void) flip(run.region, run.lo, run.bytes, true);
    }
}

bool region_is_writable(const struct span *span)
{
    size_t bytes;
    uintptr_t lo = page_range(span->exec, span->size, &bytes);
    return span->region->wx != PP_WX_FLIP || is_writable(span->region, lo, bytes);
}

/* ---- writing ---------------------------------------------------------- */

pp_status region_write_begin(struct region *region, uintptr_t exec, size_t size, uint8_t **write,
                             pp_error *error)
{
    if (!in_code(region, exec, size))
        return error_set(error, PP_E_ARG, "write outside the region's code");
    if (region->inherited)
        return error_set(error, PP_E_UNSUPPORTED, "code from before a fork is never written");
    int number = region->wx == PP_WX_FLIP ? open_pages(region, exec, size) : 0;
    if (number != 0)
        return view_refused(error, "mprotect", number);
    number = backing_ensure(region, exec, size);
    if (number != 0)
        return view_refused(error, region_has_memfd(region) ? "fallocate" : "madvise", number);
    *write = region_write_view(region, exec);
    return PP_OK;
}

static void sync_caches(const struct span *spans, size_t count)
{
    for (size_t i = 0; i < count; i++)
        cache_clean(spans[i].exec + (uintptr_t) spans[i].region->write_delta, spans[i].size);
    cache_clean_wait();
    for (size_t i = 0; i < count; i++)
        cache_invalidate(spans[i].exec, spans[i].size);
    cache_invalidate_wait();
}

static pp_status end_write(const struct span *spans, size_t count, pp_error *error)
{
    bool flips = count > 0 && !region_has_permissions(spans[0].region);
    for (size_t i = 0; flips && i < count;) {
        size_t first = i;
        struct run run = next_run(spans, count, &i);
        pp_status status = make_executable(&run, error);
        if (status != PP_OK) {
            take_back(spans, first);
            return status;
        }
    }
    sync_caches(spans, count);
    return PP_OK;
}

pp_status region_write_end(struct region *region, uintptr_t exec, size_t size, pp_error *error)
{
    return end_write(&(struct span){ region, exec, size }, 1, error);
}

/*
 * A core may have fetched what the addresses held before: freed code, the code of a region
 * that is gone, traps.  No load orders a fetch behind it, an acquire load neither; each core
 * needs a context synchronization event (Arm ARM, B2.2.5 and B2.4.4), also where nothing was
 * ever published.  x86-64 cores snoop their pipelines and need nothing.
 */
pp_status region_publish(const struct span *spans, size_t count, pp_error *error)
{
    pp_status status = end_write(spans, count, error);
    if (!CACHE_COHERENT && status == PP_OK && count > 0)
        pool_sync_cores(spans[0].region->pool);
    return status;
}

/* ---- unwriting -------------------------------------------------------- */

pp_status region_zap(struct region *region, uintptr_t exec, size_t size, pp_error *error)
{
    struct span span = { region, exec, size };
    if (region->inherited || size == 0)
        return PP_OK;
    if (region->wx == PP_WX_FLIP) {
        int number = open_pages(region, exec, size);
        /* Pages that cannot be made writable lose their contents as a whole. */
        if (number != 0)
            return backing_discard_locked(region, exec, size)
                       ? PP_OK
                       : view_refused(error, "mprotect", number);
    }
    backing_zap(region, exec, size);
    bool executable = region_has_permissions(region);
    if (!executable) {
        size_t index = 0;
        struct run run = next_run(&span, 1, &index);
        executable = make_executable(&run, NULL) == PP_OK;
    }
    if (executable)
        sync_caches(&span, 1);
    return PP_OK;
}
