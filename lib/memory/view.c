/* SPDX-License-Identifier: MIT */
/*
 * Mappings of a region.
 *
 * DUAL and REMAP: one sealed memfd, mapped read-execute in the reservation and
 * read-write somewhere else.  Both views have their final permissions from the
 * beginning, so it works where adding PROT_EXEC is forbidden.  FLIP: private pages,
 * read-execute but while they are written.  RWX: private pages with everything.
 */
#include <config.h>

#include "memory/view.h"

#include "error.h"
#include "memory/pool.h"
#include "os/map.h"

#include <errno.h>
#include <stdio.h>

#define GUARD ((size_t) 65536)
#define REGION_MIN ((size_t) 2 << 20)

pp_status view_refused(pp_error *error, const char *call, int number)
{
    bool memory = number == ENOMEM || number == EFBIG || number == ENOSPC || number == EMFILE ||
                  number == ENFILE || number == EAGAIN;
    return error_system(error, memory ? PP_E_NOMEM : PP_E_SYSTEM, call, number);
}

/* Bounds of the parts; see the picture in region.h. */
static void lay_out(struct region *region, uintptr_t base, size_t size)
{
    size_t islands = (size / 256 + GUARD - 1) & -GUARD;
    size_t literals = (islands / 2 + GUARD - 1) & -GUARD;
    region->base = base;
    region->limit = base + size;
    region->literal_hi = region->limit - GUARD;
    region->literal_lo = region->literal_hi - literals;
    region->code_lo = base + GUARD;
    region->code_hi = region->literal_lo - GUARD;
#if defined __aarch64__
    region->island_lo = (region->code_lo + (region_code_size(region) - islands) / 2) & -GUARD;
#else
    region->island_lo = region->code_lo;
#endif
    region->island_hi = region->island_lo + islands;
}

static pp_status map_memfd(struct region *region, pp_error *error)
{
    const char *call;
    size_t size = region_code_size(region);
    uintptr_t exec = region->code_lo, write = 0;
    int number = memfd_open(&region->memfd, pool_name(region->pool), size, &call);
    if (number != 0)
        return view_refused(error, call, number);
    number = map_shared(region->memfd.fd, 0, &exec, size, MAP_READ_EXEC);
    if (number == 0)
        number = map_shared(region->memfd.fd, 0, &write, size, MAP_READ_WRITE);
    if (number != 0)
        return view_refused(error, "mmap", number);
    region->write_delta = (ptrdiff_t) (write - exec);
    number = map_not_in_child(write, size);
    return number == 0 ? PP_OK : view_refused(error, "madvise(MADV_DONTFORK)", number);
}

/*
 * One page is touched while the mapping is still whole, so that all parts of it
 * later belong to the same anon_vma and can merge again.
 */
static pp_status map_flip(struct region *region, pp_error *error)
{
    size_t size = region_code_size(region);
    int number = map_private(region->code_lo, size, MAP_READ_WRITE);
    if (number != 0)
        return view_refused(error, "mmap", number);
    *(volatile uint8_t *) region->code_lo = 0;
    map_discard(region->code_lo, map_page_size());
    number = map_protect(region->code_lo, size, MAP_READ_EXEC);
    return number == 0 ? PP_OK : view_refused(error, "mprotect", number);
}

static pp_status map_parts(struct region *region, pp_error *error)
{
    pp_status status;
    int number;
    if (region_has_memfd(region)) {
        status = map_memfd(region, error);
    } else if (region->wx == PP_WX_FLIP) {
        status = map_flip(region, error);
    } else {
        number = map_private(region->code_lo, region_code_size(region), MAP_ALL);
        status = number == 0 ? PP_OK : view_refused(error, "mmap", number);
    }
    if (status != PP_OK)
        return status;
    number = map_private(region->literal_lo, region->literal_hi - region->literal_lo,
                         MAP_READ_WRITE);
    return number == 0 ? PP_OK : view_refused(error, "mmap", number);
}

void view_unmap(struct region *region)
{
    /* In a child the write view is not there, and the addresses may be somebody else's. */
    if (region->write_delta != 0 && !region->inherited)
        map_unmap(region->code_lo + (uintptr_t) region->write_delta, region_code_size(region));
    descriptor_close(&region->memfd);
    map_unmap(region->base, region->limit - region->base);
}

static void name_part(const struct region *region, uintptr_t lo, uintptr_t hi, const char *part)
{
    char name[64];
    snprintf(name, sizeof name, "%s %s", pool_name(region->pool), part);
    map_name(lo, hi - lo, name);
}

static pp_status map_at(struct region *region, uintptr_t base, size_t size, pp_error *error)
{
    region->write_delta = 0;
    lay_out(region, base, size);
    name_part(region, region->base, region->limit, "guard");
    pp_status status = map_parts(region, error);
    if (status != PP_OK) {
        view_unmap(region);
        return status;
    }
    if (!region_has_memfd(region))
        name_part(region, region->code_lo, region->code_hi, "code");
    name_part(region, region->literal_lo, region->literal_hi, "literals");
    return status;
}

#define TRIES 64 /* places that turn out to be taken, before a size is given up */

/* Best place first; a place that was taken meanwhile is no failure. */
static pp_status map_in_gap(struct region *region, struct placement *placement, size_t size,
                            enum placement_need need, pp_error *error)
{
    uintptr_t base;
    for (unsigned i = 0; i < TRIES && placement_find(placement, size, need, &base); i++) {
        int number = map_reserve(base, size);
        if (number == 0)
            return map_at(region, base, size, error);
        if (number != EEXIST)
            return view_refused(error, "mmap", number);
        placement_exclude(placement, base, size);
    }
    return error_set(error, PP_E_NOMEM, "no gap of %zu MiB%s", size >> 20,
                     need == PLACEMENT_ANY ? "" : need == PLACEMENT_NEAR ? " is near"
                                                                        : " is near the first anchor");
}

/* Where the mappings cannot be read, the kernel chooses. */
static pp_status map_anywhere(struct region *region, size_t size, pp_error *error)
{
    uintptr_t base;
    int number = map_reserve_anywhere(size, PLACEMENT_ALIGN, &base);
    return number == 0 ? map_at(region, base, size, error) : view_refused(error, "mmap", number);
}

/* A scripted base that is taken is passed over. */
static bool map_scripted(struct region *region, struct anchors *anchors,
                         const struct frame_rule *claim, size_t size, pp_status *status,
                         pp_error *error)
{
    uintptr_t base;
    while (placement_next_scripted(anchors, size, claim, &base)) {
        if (map_reserve(base, size) == 0) {
            *status = map_at(region, base, size, error);
            return true;
        }
    }
    return false;
}

/* The first reason why a better place or a larger size was not to be had. */
static void note_refused(struct anchors *anchors, const char *reason)
{
    if (anchors->refused[0] == '\0')
        snprintf(anchors->refused, sizeof anchors->refused, "%s", reason);
}

/*
 * Near and large, near and smaller; if not to all anchors, then to the first, large and
 * smaller; then far.
 */
static pp_status map_somewhere(struct region *region, struct anchors *anchors,
                               const struct frame_rule *claim, size_t want, pp_error *error)
{
    struct placement placement;
    pp_error reason = { .size = sizeof reason };
    pp_status status = PP_E_NOMEM;
    int number = placement_open(&placement, anchors, claim);
    if (number != 0) {
        view_refused(&reason, "reading /proc/self/maps", number);
        note_refused(anchors, reason.text);
    }
    static const enum placement_need needs[] = { PLACEMENT_NEAR, PLACEMENT_FIRST, PLACEMENT_ANY };
    enum { LAST = sizeof needs / sizeof *needs - 1 };
    for (unsigned i = number != 0 || anchors->random != 0 ? LAST : 0;
         i <= LAST && status == PP_E_NOMEM; i++) {
        bool far = needs[i] == PLACEMENT_ANY;
        for (size_t size = want; size >= REGION_MIN && status == PP_E_NOMEM;
             size = size / 2 & -PLACEMENT_ALIGN) {
            status = map_in_gap(region, &placement, size, needs[i], &reason);
            if (status != PP_OK)
                note_refused(anchors, reason.text);
            /* No gap is known, or all are taken by mappings that the list does not show. */
            if (far && status == PP_E_NOMEM)
                status = map_anywhere(region, size, &reason);
        }
    }
    return status == PP_OK ? status : error_copy(error, &reason);
}

pp_status view_map(struct region *region, const struct frame_rule *claim, struct anchors *anchors,
                   size_t want, pp_error *error)
{
    pp_status status;
    anchors->refused[0] = '\0';
    if (!map_scripted(region, anchors, claim, want, &status, error))
        status = map_somewhere(region, anchors, claim, want, error);
    region->near = placement_is_near(anchors, region->base, region->limit);
    return status;
}
