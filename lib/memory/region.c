/* SPDX-License-Identifier: MIT */
/*
 * Regions: their mappings, and the way bytes get into them.
 *
 * DUAL and REMAP: one sealed memfd, mapped read-execute in the reservation and
 * read-write somewhere else.  Both views have their final permissions from the
 * beginning, so it works where adding PROT_EXEC is forbidden.  FLIP: private pages,
 * read-execute but while they are written.  RWX: private pages with everything.
 *
 * Pages get memory behind them only when a span or an island needs them, once,
 * and are filled with traps before anything else is in them.
 */
#include <config.h>

#include "memory/region.h"

#include "error.h"
#include "isa/isa.h"
#include "memory/fork.h"
#include "os/barrier.h"
#include "os/cache.h"
#include "os/map.h"

#include <errno.h>
#include <string.h>

#define GUARD ((size_t) 65536)
#define REGION_MIN ((size_t) 2 << 20)

bool region_has_memfd(const struct region *region)
{
    return region->wx == PP_WX_DUAL || region->wx == PP_WX_REMAP;
}

static size_t code_size(const struct region *region)
{
    return region->code_hi - region->code_lo;
}

static pp_status refused(pp_error *error, const char *call, int number)
{
    bool memory = number == ENOMEM || number == EFBIG || number == ENOSPC || number == EMFILE ||
                  number == ENFILE || number == EAGAIN;
    return error_system(error, memory ? PP_E_NOMEM : PP_E_SYSTEM, call, number);
}

/* ---- memory behind pages ---------------------------------------------- */

static size_t page_index(const struct region *region, uintptr_t address)
{
    return (address - region->code_lo) / map_page_size();
}

static bool page_is_backed(const struct region *region, size_t page)
{
    return atomic_load_explicit(&region->backed[page / 64], memory_order_acquire) >> page % 64 & 1;
}

static void fill_traps(uint8_t *bytes, size_t size)
{
    uint32_t trap = isa_host.trap;
    if ((trap & 0xff) * 0x01010101u == trap) {
        memset(bytes, (int) (trap & 0xff), size);
        return;
    }
    for (size_t i = 0; i + sizeof trap <= size; i += sizeof trap)
        memcpy(bytes + i, &trap, sizeof trap);
}

/* Pages [first, last), none backed: through the write view, which must be writable. */
static int back_run_locked(struct region *region, size_t first, size_t last)
{
    size_t page = map_page_size();
    if (region_has_memfd(region)) {
        int number = memfd_back(&region->memfd, first * page, (last - first) * page);
        if (number != 0)
            return number;
    }
    fill_traps((uint8_t *) (region->code_lo + (uintptr_t) region->write_delta) + first * page,
               (last - first) * page);
    for (size_t i = first; i < last; i++)
        atomic_fetch_or_explicit(&region->backed[i / 64], 1ull << i % 64, memory_order_release);
    return 0;
}

/* Memory behind [exec, exec + size).  0, or an errno. */
static int back(struct region *region, uintptr_t exec, size_t size)
{
    size_t first = page_index(region, exec), last = page_index(region, exec + size - 1) + 1;
    while (first < last && page_is_backed(region, first))
        first++;
    if (first == last)
        return 0;
    int number = 0;
    pthread_mutex_lock(&region->back_lock);
    while (first < last && number == 0) {
        size_t end = first;
        while (end < last && !page_is_backed(region, end))
            end++;
        if (end > first)
            number = back_run_locked(region, first, end);
        first = end + 1;
    }
    pthread_mutex_unlock(&region->back_lock);
    return number;
}

size_t region_trim(struct region *region)
{
    size_t page = map_page_size(), offset = 0, size, trimmed = 0;
    if (region->inherited)
        return 0;
    pthread_mutex_lock(&region->lock);
    pthread_mutex_lock(&region->back_lock);
    for (; span_space_next_hole(&region->spans, &offset, &size); offset += size) {
        size_t first = (offset + page - 1) / page, last = (offset + size) / page;
        for (size_t i = first; i < last; i++) {
            if (!page_is_backed(region, i))
                continue;
            int number = region_has_memfd(region)
                             ? memfd_unback(&region->memfd, i * page, page)
                             : map_discard(region->code_lo + i * page, page);
            if (number != 0)
                continue;
            atomic_fetch_and_explicit(&region->backed[i / 64], ~(1ull << i % 64),
                                      memory_order_release);
            trimmed += page;
        }
    }
    pthread_mutex_unlock(&region->back_lock);
    pthread_mutex_unlock(&region->lock);
    return trimmed;
}

size_t region_resident(struct region *region)
{
    size_t code = region_has_memfd(region) ? memfd_resident(&region->memfd) : SIZE_MAX;
    if (code == SIZE_MAX)
        code = map_resident(region->code_lo, code_size(region));
    return code + map_resident(region->literal_lo, region->literal_hi - region->literal_lo);
}

/* ---- writing ---------------------------------------------------------- */

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
            return refused(error, "mprotect", number);
    }
    int number = back(region, exec, size);
    if (number != 0)
        return refused(error, "fallocate", number);
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
            return refused(error, "mmap", number);
    } else if (region->wx == PP_WX_FLIP) {
        number = map_protect(lo, bytes, MAP_READ_EXEC);
        if (number != 0)
            return refused(error, "mprotect", number);
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

/* ---- spans ------------------------------------------------------------ */

static void update_room_locked(struct region *region)
{
    atomic_store_explicit(&region->room, span_space_bound(&region->spans), memory_order_relaxed);
}

/*
 * Traps over bytes that nobody runs any more.  The traps are there when they are
 * written: where the kernel refuses the end of it, FLIP's pages stay writable and
 * cannot run, and an emulator may not have seen REMAP's; the next owner of the
 * bytes makes up for both, or is refused.
 */
static pp_status zap_locked(struct region *region, uintptr_t exec, size_t size, pp_error *error)
{
    uint8_t *write;
    if (region->inherited || size == 0)
        return PP_OK;
    pp_status status = region_write_begin(region, exec, size, &write, error);
    if (status != PP_OK)
        return status;
    fill_traps(write, size);
    atomic_store_explicit(&region->recycled, true, memory_order_relaxed);
    (void) region_write_end(region, exec, size, NULL);
    return PP_OK;
}

/*
 * A child that was forked runs the same pages of the memfd: what it may be running
 * is neither overwritten nor used again.  Without memory for the list the span
 * stays where it is for good.
 */
static bool defer_locked(struct region *region, size_t offset)
{
    if (!region->shared || !fork_has_children()) {
        region->shared = false;
        return false;
    }
    if (region->limbo_count == region->limbo_capacity) {
        size_t capacity = region->limbo_capacity * 2 + 64;
        uint32_t *limbo = pool_meta_alloc(region->pool, capacity * sizeof *limbo);
        if (limbo == NULL)
            return true;
        if (region->limbo_count > 0)
            memcpy(limbo, region->limbo, region->limbo_count * sizeof *limbo);
        pool_meta_free(region->pool, region->limbo, region->limbo_capacity * sizeof *limbo);
        region->limbo = limbo;
        region->limbo_capacity = capacity;
    }
    region->limbo[region->limbo_count++] = (uint32_t) (offset >> SPAN_GRANULE_SHIFT);
    return true;
}

static void settle_locked(struct region *region)
{
    if (region->limbo_count == 0 || fork_has_children())
        return;
    region->shared = false;
    for (size_t i = 0; i < region->limbo_count; i++) {
        size_t offset = (size_t) region->limbo[i] << SPAN_GRANULE_SHIFT;
        size_t size = span_space_extent(&region->spans, offset);
        if (zap_locked(region, region->code_lo + offset, size, NULL) == PP_OK)
            span_space_reclaim(&region->spans, offset);
    }
    region->limbo_count = 0;
    update_room_locked(region);
}

void region_settle(struct region *region)
{
    pthread_mutex_lock(&region->lock);
    settle_locked(region);
    pthread_mutex_unlock(&region->lock);
}

pp_status region_alloc(struct region *region, size_t size, size_t align, uintptr_t *exec,
                       pp_error *error)
{
    struct span_slot slot;
    pp_status status = PP_OK;
    pthread_mutex_lock(&region->lock);
    settle_locked(region);
    switch (span_space_find(&region->spans, size, align, &slot)) {
    case SPAN_FULL:
        status = REGION_FULL;
        break;
    case SPAN_NO_MEMORY:
        status = error_set(error, PP_E_NOMEM, "no memory for bookkeeping");
        break;
    case SPAN_FOUND:
        *exec = region->code_lo + ((uintptr_t) slot.start << region->spans.shift);
        int number = region->wx == PP_WX_FLIP ? 0 : back(region, *exec, size);
        if (number != 0) {
            status = refused(error, "fallocate", number);
            break;
        }
        span_space_take(&region->spans, &slot);
        update_room_locked(region);
    }
    pthread_mutex_unlock(&region->lock);
    return status;
}

static pp_status release_locked(struct region *region, const struct span_info *info,
                                pp_error *error)
{
    settle_locked(region);
    if (defer_locked(region, info->start)) {
        span_space_retire(&region->spans, info->start);
        return PP_OK;
    }
    pp_status status = zap_locked(region, region->code_lo + info->start, info->extent, error);
    if (status == PP_OK)
        span_space_free(&region->spans, info->start);
    return status;
}

pp_status region_free(struct region *region, uintptr_t exec, size_t *bytes, pp_error *error)
{
    struct span_info info;
    size_t offset = exec - region->code_lo;
    pthread_mutex_lock(&region->lock);
    pp_status status = PP_E_STALE;
    if (!span_space_at(&region->spans, offset, &info))
        error_set(error, status, "no live span holds this address");
    else if (info.start != offset)
        error_set(error, status, "the address is %zu bytes into a span", offset - info.start);
    else
        status = release_locked(region, &info, error);
    if (status == PP_OK) {
        update_room_locked(region);
        *bytes = info.extent;
    }
    pthread_mutex_unlock(&region->lock);
    return status;
}

size_t region_unalloc(struct region *region, uintptr_t exec)
{
    size_t offset = exec - region->code_lo, bytes;
    pthread_mutex_lock(&region->lock);
    bytes = span_space_extent(&region->spans, offset);
    span_space_free(&region->spans, offset);
    update_room_locked(region);
    pthread_mutex_unlock(&region->lock);
    return bytes;
}

pp_status region_shrink(struct region *region, uintptr_t exec, size_t size, size_t *bytes)
{
    struct span_info info;
    size_t offset = exec - region->code_lo, unit = (size_t) 1 << region->spans.shift;
    pthread_mutex_lock(&region->lock);
    pp_status status = PP_E_STALE;
    if (span_space_at(&region->spans, offset, &info) && info.start == offset) {
        size_t keep = (size + unit - 1) & -unit;
        status = size == 0 || size > info.size ? PP_E_ARG : PP_OK;
        if (status == PP_OK)
            status = zap_locked(region, exec + keep, info.extent - keep, NULL);
        if (status == PP_OK && !span_space_shrink(&region->spans, offset, size))
            status = PP_E_NOMEM;
        if (status == PP_OK) {
            update_room_locked(region);
            *bytes = info.extent - keep;
        }
    }
    pthread_mutex_unlock(&region->lock);
    return status;
}

/* ---- opening and closing ---------------------------------------------- */

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
    region->island_lo = (region->code_lo + (code_size(region) - islands) / 2) & -GUARD;
#else
    region->island_lo = region->code_lo;
#endif
    region->island_hi = region->island_lo + islands;
}

static pp_status map_memfd(struct region *region, pp_error *error)
{
    const char *call;
    size_t size = code_size(region);
    uintptr_t exec = region->code_lo, write = 0;
    int number = memfd_open(&region->memfd, size, &call);
    if (number != 0)
        return refused(error, call, number);
    number = map_shared(region->memfd.fd, 0, &exec, size, MAP_READ_EXEC);
    if (number == 0)
        number = map_shared(region->memfd.fd, 0, &write, size, MAP_READ_WRITE);
    if (number != 0)
        return refused(error, "mmap", number);
    region->write_delta = (ptrdiff_t) (write - exec);
    number = map_not_in_child(write, size);
    return number == 0 ? PP_OK : refused(error, "madvise(MADV_DONTFORK)", number);
}

/*
 * One page is touched while the mapping is still whole, so that all parts of it
 * later belong to the same anon_vma and can merge again.
 */
static pp_status map_flip(struct region *region, pp_error *error)
{
    size_t size = code_size(region);
    int number = map_private(region->code_lo, size, MAP_READ_WRITE);
    if (number != 0)
        return refused(error, "mmap", number);
    *(volatile uint8_t *) region->code_lo = 0;
    map_discard(region->code_lo, map_page_size());
    number = map_protect(region->code_lo, size, MAP_READ_EXEC);
    return number == 0 ? PP_OK : refused(error, "mprotect", number);
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
        number = map_private(region->code_lo, code_size(region), MAP_ALL);
        status = number == 0 ? PP_OK : refused(error, "mmap", number);
    }
    if (status != PP_OK)
        return status;
    number = map_private(region->literal_lo, region->literal_hi - region->literal_lo,
                         MAP_READ_WRITE);
    return number == 0 ? PP_OK : refused(error, "mmap", number);
}

static void unmap_parts(struct region *region)
{
    /* In a child the write view is not there, and the addresses may be somebody else's. */
    if (region->write_delta != 0 && !region->inherited)
        map_unmap(region->code_lo + (uintptr_t) region->write_delta, code_size(region));
    descriptor_close(&region->memfd);
    map_unmap(region->base, region->limit - region->base);
}

static pp_status map_at(struct region *region, uintptr_t base, size_t size, pp_error *error)
{
    region->write_delta = 0;
    lay_out(region, base, size);
    pp_status status = map_parts(region, error);
    if (status != PP_OK)
        unmap_parts(region);
    return status;
}

/* Best place first; a place that was taken meanwhile is no failure. */
static pp_status map_in_gap(struct region *region, struct placement *placement, size_t size,
                            bool near, pp_error *error)
{
    uintptr_t base;
    while (placement_take(placement, size, near, &base)) {
        int number = map_reserve(base, size);
        if (number == EEXIST)
            continue;
        return number == 0 ? map_at(region, base, size, error) : refused(error, "mmap", number);
    }
    return error_set(error, PP_E_NOMEM, "no gap of %zu bytes%s", size, near ? " is near" : "");
}

/* Where the mappings cannot be read, the kernel chooses. */
static pp_status map_anywhere(struct region *region, size_t size, pp_error *error)
{
    uintptr_t base;
    int number = map_reserve_anywhere(size, PLACEMENT_ALIGN, &base);
    return number == 0 ? map_at(region, base, size, error) : refused(error, "mmap", number);
}

/* Near and large, near and smaller, far and large, far and smaller. */
static pp_status map_region(struct region *region, const struct frame_rule *rule,
                            const struct anchors *anchors, size_t want, pp_error *error)
{
    pp_status status = PP_E_NOMEM;
    for (int far = 0; far <= 1 && status == PP_E_NOMEM; far++) {
        for (size_t size = want; size >= REGION_MIN && status == PP_E_NOMEM; size /= 2) {
            struct placement placement;
            size &= -PLACEMENT_ALIGN;
            if (placement_open(&placement, anchors, rule, size) == 0)
                status = map_in_gap(region, &placement, size, !far, error);
            /* No gap is known, or all are taken by mappings that the file does not show. */
            if (far && status == PP_E_NOMEM)
                status = map_anywhere(region, size, error);
        }
    }
    region->near = placement_is_near(anchors, region->base, region->limit);
    return status;
}

static void *memory_alloc(void *context, size_t size) { return pool_meta_alloc(context, size); }
static void memory_free(void *context, void *memory, size_t size)
{
    pool_meta_free(context, memory, size);
}

static size_t backed_bytes(const struct region *region)
{
    return (code_size(region) / map_page_size() + 63) / 64 * sizeof(uint64_t);
}

static bool init_bookkeeping(struct region *region)
{
    struct span_memory memory = { memory_alloc, memory_free, region->pool };
    unsigned shift = region->wx == PP_WX_FLIP ? (unsigned) __builtin_ctzl(map_page_size())
                                              : SPAN_GRANULE_SHIFT;
    region->backed = pool_meta_alloc(region->pool, backed_bytes(region));
    if (region->backed == NULL ||
        !span_space_init(&region->spans, code_size(region), shift, &memory))
        return false;
    if (!span_space_hold(&region->spans, region->island_lo - region->code_lo,
                         region->island_hi - region->island_lo))
        return false;
    update_room_locked(region);
    return true;
}

static void fini_bookkeeping(struct region *region)
{
    if (region->spans.starts.chunks != NULL)
        span_space_fini(&region->spans);
    pool_meta_free(region->pool, region->limbo, region->limbo_capacity * sizeof *region->limbo);
    pool_meta_free(region->pool, region->backed, backed_bytes(region));
}

pp_status region_create(pp_pool *pool, pp_wx wx, const struct frame_rule *rule,
                        const struct anchors *anchors, size_t size, struct region **result,
                        pp_error *error)
{
    struct region *region = pool_meta_alloc(pool, sizeof *region);
    if (region == NULL)
        return error_set(error, PP_E_NOMEM, "no memory for bookkeeping");
    region->pool = pool;
    region->wx = wx;
    region->memfd.fd = -1;
    region->rule = *rule;
    pp_status status = map_region(region, rule, anchors, size, error);
    if (status != PP_OK) {
        pool_meta_free(pool, region, sizeof *region);
        return status;
    }
    pthread_mutex_init(&region->lock, NULL);
    pthread_mutex_init(&region->back_lock, NULL);
    if (!init_bookkeeping(region)) {
        region_destroy(region);
        return error_set(error, PP_E_NOMEM, "no memory for bookkeeping");
    }
    *result = region;
    return PP_OK;
}

void region_destroy(struct region *region)
{
    fini_bookkeeping(region);
    unmap_parts(region);
    pthread_mutex_destroy(&region->lock);
    pthread_mutex_destroy(&region->back_lock);
    pool_meta_free(region->pool, region, sizeof *region);
}

/* ---- invariants ------------------------------------------------------- */

static const char *verify_backing(const struct region *region)
{
    size_t page = map_page_size(), pages = code_size(region) / page, backed = 0;
    for (size_t i = 0; i < pages; i++)
        backed += page_is_backed(region, i);
    if (region_has_memfd(region) && memfd_resident(&region->memfd) != SIZE_MAX &&
        memfd_resident(&region->memfd) != backed * page)
        return "the pages behind the memfd are not those that were asked for";
    return NULL;
}

/* Holes in backed pages hold traps. */
static const char *verify_traps(const struct region *region)
{
    size_t page = map_page_size(), offset = 0, size;
    const uint8_t *code = (const uint8_t *) region->code_lo;
    uint32_t trap = isa_host.trap;
    for (; span_space_next_hole(&region->spans, &offset, &size); offset += size) {
        for (size_t i = offset, end; i < offset + size; i = end) {
            end = (i / page + 1) * page;
            if (end > offset + size)
                end = offset + size;
            /* The first trap, and every other like the one before it. */
            if (page_is_backed(region, i / page) &&
                (memcmp(code + i, &trap, isa_host.trap_size) != 0 ||
                 memcmp(code + i, code + i + isa_host.trap_size, end - i - isa_host.trap_size) != 0))
                return "a hole holds something else than traps";
        }
    }
    return NULL;
}

const char *region_verify(struct region *region)
{
    pthread_mutex_lock(&region->lock);
    pthread_mutex_lock(&region->back_lock);
    const char *broken = span_space_verify(&region->spans);
    if (broken == NULL && !region->inherited)
        broken = verify_backing(region);
    if (broken == NULL && !region->inherited)
        broken = verify_traps(region);
    pthread_mutex_unlock(&region->back_lock);
    pthread_mutex_unlock(&region->lock);
    return broken;
}
