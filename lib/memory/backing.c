/* SPDX-License-Identifier: MIT */
/*
 * Memory behind pages.  A page gets memory only when a span or an island needs it,
 * and is filled with traps before anything else is in it; then its bit is set.
 */
#include <config.h>

#include "memory/backing.h"

#include "isa/isa.h"
#include "memory/pool.h"
#include "os/map.h"

#include <string.h>

/* Of a bitmap with a bit for each page. */
static size_t bitmap_bytes(const struct region *region)
{
    return (region_code_size(region) / map_page_size() + 63) / 64 * sizeof(uint64_t);
}

bool backing_open(struct region *region)
{
    bool flip = region->wx == PP_WX_FLIP;
    pthread_mutex_init(&region->back_lock, NULL);
    region->backed = pool_meta_alloc(region->pool, bitmap_bytes(region));
    if (flip)
        region->writable = pool_meta_alloc(region->pool, bitmap_bytes(region));
    return region->backed != NULL && (!flip || region->writable != NULL);
}

void backing_close(struct region *region)
{
    pool_meta_free(region->pool, region->backed, bitmap_bytes(region));
    pool_meta_free(region->pool, region->writable, bitmap_bytes(region));
    pthread_mutex_destroy(&region->back_lock);
}

/* ---- pages ------------------------------------------------------------ */

static size_t page_index(const struct region *region, uintptr_t address)
{
    return (address - region->code_lo) / map_page_size();
}

static bool page_is_backed(const struct region *region, size_t page)
{
    return atomic_load_explicit(&region->backed[page / 64], memory_order_acquire) >> page % 64 & 1;
}

void backing_fill_traps(uint8_t *bytes, size_t size)
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
    uint8_t *write = (uint8_t *) (region->code_lo + (uintptr_t) region->write_delta);
    backing_fill_traps(write + first * page, (last - first) * page);
    for (size_t i = first; i < last; i++)
        atomic_fetch_or_explicit(&region->backed[i / 64], 1ull << i % 64, memory_order_release);
    return 0;
}

int backing_ensure(struct region *region, uintptr_t exec, size_t size)
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

static void forget_locked(struct region *region, uintptr_t exec, size_t size)
{
    size_t page = map_page_size(), first = page_index(region, exec), last = first + size / page;
    for (size_t i = first; i < last; i++)
        atomic_fetch_and_explicit(&region->backed[i / 64], ~(1ull << i % 64),
                                  memory_order_release);
}

bool backing_discard(struct region *region, uintptr_t exec, size_t size)
{
    pthread_mutex_lock(&region->back_lock);
    bool discarded = map_discard(exec, size) == 0;
    if (discarded)
        forget_locked(region, exec, size);
    pthread_mutex_unlock(&region->back_lock);
    return discarded;
}

void backing_forget(struct region *region, uintptr_t exec, size_t size)
{
    pthread_mutex_lock(&region->back_lock);
    forget_locked(region, exec, size);
    pthread_mutex_unlock(&region->back_lock);
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
        code = map_resident(region->code_lo, region_code_size(region));
    return code + map_resident(region->literal_lo, region->literal_hi - region->literal_lo);
}

/* ---- invariants ------------------------------------------------------- */

static const char *verify_pages(const struct region *region)
{
    size_t page = map_page_size(), pages = region_code_size(region) / page, backed = 0;
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

const char *backing_verify_locked(struct region *region)
{
    pthread_mutex_lock(&region->back_lock);
    const char *broken = verify_pages(region);
    if (broken == NULL)
        broken = verify_traps(region);
    pthread_mutex_unlock(&region->back_lock);
    return broken;
}
