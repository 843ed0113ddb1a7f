/* SPDX-License-Identifier: MIT */
/* The way bytes get into a region. */
#include <config.h>

#include "memory/region.h"

#include "error.h"
#include "memory/backing.h"
#include "memory/view.h"
#include "os/barrier.h"
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

pp_status region_write_begin(struct region *region, uintptr_t exec, size_t size, uint8_t **write,
                             pp_error *error)
{
    if (!in_code(region, exec, size))
        return error_set(error, PP_E_ARG, "write outside the region's code");
    if (region->inherited)
        return error_set(error, PP_E_UNSUPPORTED, "code from before a fork is never written");
    if (region->wx == PP_WX_FLIP) {
        size_t bytes;
        uintptr_t lo = page_range(exec, size, &bytes);
        int number = map_protect(lo, bytes, MAP_READ_WRITE);
        if (number != 0)
            return view_refused(error, "mprotect", number);
    }
    int number = backing_ensure(region, exec, size);
    if (number != 0)
        return view_refused(error, "fallocate", number);
    *write = (uint8_t *) (exec + (uintptr_t) region->write_delta);
    return PP_OK;
}

pp_status region_write_end(struct region *region, uintptr_t exec, size_t size, pp_error *error)
{
    size_t bytes;
    uintptr_t lo = page_range(exec, size, &bytes);
    int number = 0;

    if (region->wx == PP_WX_REMAP) {
        number = descriptor_check(&region->memfd);
        if (number == 0)
            number = map_shared(region->memfd.fd, lo - region->code_lo, &lo, bytes, MAP_READ_EXEC);
        if (number != 0)
            return view_refused(error, "mmap", number);
    } else if (region->wx == PP_WX_FLIP) {
        number = map_protect(lo, bytes, MAP_READ_EXEC);
        if (number != 0)
            return view_refused(error, "mprotect", number);
    }
    cache_sync(exec + (uintptr_t) region->write_delta, exec, size);
#if defined __aarch64__
    /*
     * A core may still hold instructions of an earlier life of this address in
     * its pipeline.  x86-64 cores snoop their pipelines and need nothing.
     */
    if (atomic_load_explicit(&region->recycled, memory_order_relaxed))
        barrier_sync_core();
#endif
    return PP_OK;
}
