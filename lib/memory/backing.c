/* SPDX-License-Identifier: MIT */
/*
 * Memory behind pages.  A page gets memory only when a span or an island needs it,
 * and is filled with traps before anything else is in it; then its bit is set.
 */
#include <config.h>

#include "memory/backing.h"

#include "isa/isa.h"
#include "memory/idle.h"
#include "memory/pool.h"
#include "os/map.h"

#include <errno.h>
#include <string.h>

#define CHUNK_MAX ((size_t) 65536)

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
    return (address - region->code_lo) >> region->page_shift;
}

static bool page_is_backed(const struct region *region, size_t page)
{
    return atomic_load_explicit(&region->backed[page / 64], memory_order_acquire) >> page % 64 & 1;
}

/*
 * By ordinary stores: memset uses string instructions for long ranges, which are several
 * times slower over lines that the instruction cache holds.
 */
void backing_fill_traps(uint8_t *bytes, size_t size)
{
    typedef uint32_t block __attribute__((vector_size(16)));
    const uint32_t trap = isa_host.trap;
    const block traps = { trap, trap, trap, trap };
    size_t i = 0;
    for (; i + 4 * sizeof traps <= size; i += 4 * sizeof traps) {
        for (unsigned j = 0; j < 4; j++)
            memcpy(bytes + i + j * sizeof traps, &traps, sizeof traps);
    }
    for (; i + sizeof traps <= size; i += sizeof traps)
        memcpy(bytes + i, &traps, sizeof traps);
    memcpy(bytes + i, &traps, size - i);
}

static uint8_t *write_at(const struct region *region, size_t offset)
{
    return (uint8_t *) (region->code_lo + (uintptr_t) region->write_delta) + offset;
}

void backing_zap(struct region *region, uintptr_t exec, size_t size)
{
    unsigned shift = region->page_shift;
    size_t offset = exec - region->code_lo, end = offset + size, next;
    for (; offset < end; offset = next) {
        next = ((offset >> shift) + 1) << shift;
        next = next < end ? next : end;
        if (page_is_backed(region, offset >> shift))
            backing_fill_traps(write_at(region, offset), next - offset);
    }
}

/* ---- idle pages ------------------------------------------------------- */

static size_t count_backed(const struct region *region, size_t first, size_t last)
{
    size_t count = 0;
    for (size_t i = first; i < last;) {
        uint64_t word = atomic_load_explicit(&region->backed[i / 64], memory_order_relaxed);
        word >>= i % 64;
        size_t bits = 64 - i % 64;
        if (last - i < bits) {
            bits = last - i;
            word &= (1ull << bits) - 1;
        }
        count += (size_t) __builtin_popcountll(word);
        i += bits;
    }
    return count;
}

/* Bytes of backed pages that touch [offset, offset + size) and lie in a hole. */
static size_t idle_in_locked(const struct region *region, size_t offset, size_t size, size_t hole,
                             size_t hole_size)
{
    unsigned shift = region->page_shift;
    size_t page = (size_t) 1 << shift, first = (hole + page - 1) >> shift, last = (hole + hole_size) >> shift;
    size_t from = offset >> shift, to = (offset + size + page - 1) >> shift;
    first = first > from ? first : from;
    last = last < to ? last : to;
    return first < last ? count_backed(region, first, last) << shift : 0;
}

static void add_idle_locked(struct region *region, size_t bytes)
{
    region->idle += bytes;
    pool_add_idle(region->pool, bytes);
}

void backing_take_locked(struct region *region, size_t offset, size_t size, size_t hole,
                         size_t hole_size)
{
    if (region->idle == 0)
        return;
    size_t bytes = idle_in_locked(region, offset, size, hole, hole_size);
    if (bytes != 0)
        add_idle_locked(region, -bytes);
}

void backing_give_locked(struct region *region, size_t offset, size_t size)
{
    size_t hole, hole_size, bytes = 0;
    if (!region->inherited && span_space_hole_at(&region->spans, offset, &hole, &hole_size))
        bytes = idle_in_locked(region, offset, size, hole, hole_size);
    if (bytes != 0)
        add_idle_locked(region, bytes);
}

static void set_backed_locked(struct region *region, size_t first, size_t last)
{
    size_t page = map_page_size();
    for (size_t i = first; i < last; i++)
        atomic_fetch_or_explicit(&region->backed[i / 64], 1ull << i % 64, memory_order_release);
    atomic_fetch_add_explicit(&region->committed, (last - first) * page, memory_order_relaxed);
    for (size_t i = first; i < last; i++)
        backing_give_locked(region, i * page, page);
}

static void clear_backed_locked(struct region *region, size_t first, size_t last)
{
    size_t bytes = (last - first) * map_page_size();
    for (size_t i = first; i < last; i++)
        atomic_fetch_and_explicit(&region->backed[i / 64], ~(1ull << i % 64),
                                  memory_order_release);
    atomic_fetch_sub_explicit(&region->committed, bytes, memory_order_relaxed);
    add_idle_locked(region, -bytes);
}

/* ---- getting memory --------------------------------------------------- */

/* Emulators say yes to advice that they ignore. */
static bool is_resident(const struct region *region, size_t bytes)
{
    return !region_has_memfd(region) ||
           memfd_resident(&region->memfd) >= atomic_load(&region->committed) + bytes;
}

/*
 * Memory behind pages, for which the descriptor is not needed, and the page table of
 * the write view is filled as well; or, in older kernels, through the descriptor.
 */
static int commit(struct region *region, size_t offset, size_t bytes)
{
    if (!region->populates_not) {
        int number = map_populate((uintptr_t) write_at(region, offset), bytes);
        if (number == 0)
            region->populates = region->populates || is_resident(region, bytes);
        if (number == 0 && region->populates)
            return 0;
        if (number == EFAULT) /* where a store would raise SIGBUS */
            number = ENOMEM;
        if (number != ENOMEM && number != EAGAIN)
            region->populates_not = true;
        else if (!region_has_memfd(region))
            return number;
    }
    return region_has_memfd(region) ? memfd_back(&region->memfd, offset, bytes) : 0;
}

/*
 * How much is asked for at once: the more there is, the more, so that what is not
 * used of it stays below half a percent.  FLIP cannot fill pages that are not its
 * caller's, and the islands' are rarely used up.
 */
static size_t chunk_end(const struct region *region, size_t first, size_t last)
{
    size_t page = map_page_size(), limit = region_code_size(region) / page;
    size_t island_lo = (region->island_lo - region->code_lo) / page;
    size_t island_hi = (region->island_hi - region->code_lo) / page;
    size_t chunk = atomic_load_explicit(&region->committed, memory_order_relaxed) / 256;
    chunk = (chunk < CHUNK_MAX ? chunk : CHUNK_MAX) / page;
    if (region->wx == PP_WX_FLIP || (first >= island_lo && first < island_hi))
        return last;
    if (first < island_lo)
        limit = island_lo;
    while (last < limit && last - first < chunk && !page_is_backed(region, last))
        last++;
    return last;
}

/* Pages [first, last), none backed: through the write view, which must be writable. */
static int back_run(struct region *region, size_t first, size_t last)
{
    size_t page = map_page_size(), end = chunk_end(region, first, last);
    int number = commit(region, first * page, (end - first) * page);
    if (number != 0 && end > last) {
        end = last;
        number = commit(region, first * page, (end - first) * page);
    }
    if (number != 0)
        return number;
    backing_fill_traps(write_at(region, first * page), (end - first) * page);
    pthread_mutex_lock(&region->lock);
    set_backed_locked(region, first, end);
    pthread_mutex_unlock(&region->lock);
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
            number = back_run(region, first, end);
        first = end + 1;
    }
    pthread_mutex_unlock(&region->back_lock);
    return number;
}

/*
 * FLIP, where the pages of a span are its own: their contents are gone, or count as
 * gone.  Under the region's lock alone, because nobody else looks at these bits.
 */
void backing_forget_locked(struct region *region, uintptr_t exec, size_t size)
{
    size_t page = map_page_size(), first = page_index(region, exec), last = first + size / page;
    size_t bytes = count_backed(region, first, last) * page;
    for (size_t i = first; i < last; i++)
        atomic_fetch_and_explicit(&region->backed[i / 64], ~(1ull << i % 64),
                                  memory_order_release);
    atomic_fetch_sub_explicit(&region->committed, bytes, memory_order_relaxed);
}

bool backing_discard_locked(struct region *region, uintptr_t exec, size_t size)
{
    bool discarded = map_discard(exec, size) == 0;
    if (discarded)
        backing_forget_locked(region, exec, size);
    return discarded;
}

/* ---- giving memory back ----------------------------------------------- */

struct run {
    size_t first, last; /* pages */
};

/* The first page of [page, last) that is backed, or is not; or last. */
static size_t next_page(const struct region *region, size_t page, size_t last, bool backed)
{
    while (page < last) {
        uint64_t word = atomic_load_explicit(&region->backed[page / 64], memory_order_relaxed);
        word = (backed ? word : ~word) >> page % 64;
        if (word != 0) {
            page += (size_t) __builtin_ctzll(word);
            return page < last ? page : last;
        }
        page += 64 - page % 64;
    }
    return last;
}

/* Up to `pages` idle ones of a hole, which count as not backed from here on. */
static size_t collect_hole_locked(struct region *region, size_t first, size_t last, size_t *pages,
                                  struct run *runs, size_t capacity)
{
    size_t count = 0;
    while (count < capacity && *pages > 0) {
        struct run run = { next_page(region, first, last, true), last };
        if (run.first >= last)
            break;
        run.last = next_page(region, run.first, last, false);
        if (run.last - run.first > *pages)
            run.last = run.first + *pages;
        clear_backed_locked(region, run.first, run.last);
        *pages -= run.last - run.first;
        first = run.last;
        runs[count++] = run;
    }
    region->trim_from = first * map_page_size();
    return count;
}

/*
 * Idle pages, up to `want` bytes, from where the last search ended: what is freed in
 * order is found in order.  Whoever takes a span of them waits for back_lock.
 */
static size_t collect_locked(struct region *region, size_t want, struct run *runs, size_t capacity)
{
    size_t page = map_page_size(), pages = want / page, count = 0, offset, size;
    size_t from = region->trim_from, bytes;
    if (!span_space_hole_at(&region->spans, from, &offset, &size))
        offset = from;
    for (bool again = from == 0; region->idle > 0 && pages > 0 && count < capacity;) {
        if (!span_space_next_hole(&region->spans, &offset, &size)) {
            if (again)
                break;
            again = true;
            offset = from = 0;
            continue;
        }
        bytes = offset < from ? from : offset;
        count += collect_hole_locked(region, (bytes + page - 1) / page, (offset + size) / page,
                                     &pages, runs + count, capacity - count);
        offset += size;
    }
    return count;
}

static int unback(struct region *region, const struct run *run)
{
    size_t page = map_page_size(), offset = run->first * page;
    size_t bytes = (run->last - run->first) * page;
    if (!region_has_memfd(region))
        return map_discard(region->code_lo + offset, bytes);
    if (memfd_unback(&region->memfd, offset, bytes) == 0)
        return 0;
    size_t before = memfd_resident(&region->memfd);
    int number = map_remove((uintptr_t) write_at(region, offset), bytes);
    /* Again an emulator may have said yes and done nothing. */
    bool done = before == SIZE_MAX || memfd_resident(&region->memfd) < before;
    return number == 0 && !done ? EOPNOTSUPP : number;
}

/*
 * What cannot be given back keeps its memory, and is asked for again like any other
 * page.
 */
size_t region_trim(struct region *region, size_t want)
{
    struct run runs[64];
    size_t page = map_page_size(), trimmed = 0, count = 1;
    if (region->inherited || atomic_load_explicit(&region->unback_refused, memory_order_relaxed))
        return 0;
    pthread_mutex_lock(&region->back_lock);
    while (count > 0 && !atomic_load_explicit(&region->unback_refused, memory_order_relaxed)) {
        pthread_mutex_lock(&region->lock);
        count = collect_locked(region, want, runs, sizeof runs / sizeof *runs);
        pthread_mutex_unlock(&region->lock);
        for (size_t i = 0; i < count; i++) {
            size_t bytes = (runs[i].last - runs[i].first) * page;
            want -= bytes;
            if (unback(region, &runs[i]) == 0)
                trimmed += bytes;
            else
                atomic_store_explicit(&region->unback_refused, true, memory_order_relaxed);
        }
    }
    pthread_mutex_unlock(&region->back_lock);
    return trimmed;
}

/* ---- looking ---------------------------------------------------------- */

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
    size_t page = map_page_size(), pages = region_code_size(region) / page;
    size_t backed = count_backed(region, 0, pages) * page, resident = backed;
    if (region_has_memfd(region))
        resident = memfd_resident(&region->memfd);
    if (backed != atomic_load(&region->committed))
        return "the pages with memory behind them are counted wrongly";
    if (resident < backed || (resident != SIZE_MAX && resident > backed &&
                              !atomic_load(&region->unback_refused)))
        return "the pages behind the memfd are not those that were asked for";
    return NULL;
}

static const char *verify_idle(const struct region *region)
{
    size_t page = map_page_size(), offset = 0, size, idle = 0;
    for (; span_space_next_hole(&region->spans, &offset, &size); offset += size) {
        size_t first = (offset + page - 1) / page, last = (offset + size) / page;
        idle += first < last ? count_backed(region, first, last) * page : 0;
    }
    return idle == region->idle ? NULL : "idle pages are counted wrongly";
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
    const char *broken = verify_pages(region);
    if (broken == NULL)
        broken = verify_idle(region);
    if (broken == NULL)
        broken = verify_traps(region);
    return broken;
}
