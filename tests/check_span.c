/* SPDX-License-Identifier: MIT */
/*
 * Span spaces against a model that is too simple to be wrong: a byte for each
 * unit, that says which live span holds it.
 *
 *      SEED=n          of the random tests (printed)
 *      TEST_SECONDS=n  how long the random tests may run together (8)
 */
#include <config.h>

#include "memory/span.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Check's own assertions tell a pipe that they passed: too slow for millions. */
#define require(condition) \
    do { \
        if (!(condition)) \
            ck_abort_msg("%s", #condition); \
    } while (0)

/* ---- memory that counts, and fails on request ------------------------- */

static size_t allocated, refuse_after = SIZE_MAX;

static void *count_alloc(void *context, size_t size)
{
    (void) context;
    if (refuse_after == 0)
        return NULL;
    if (refuse_after != SIZE_MAX)
        refuse_after--;
    allocated += size;
    return calloc(1, size);
}

static void count_free(void *context, void *memory, size_t size)
{
    (void) context;
    allocated -= size;
    free(memory);
}

static const struct span_memory counted = { count_alloc, count_free, NULL };

static struct span_space space;

static void open_space(size_t size, unsigned shift)
{
    ck_assert(span_space_init(&space, size, shift, 0, &counted));
}

static void close_space(void)
{
    span_space_fini(&space);
    ck_assert_uint_eq(allocated, 0);
}

static void verify(void)
{
    const char *broken = span_space_verify(&space);
    ck_assert_msg(broken == NULL, "%s", broken);
}

#define FULL SIZE_MAX

static size_t take(size_t size, size_t align)
{
    struct span_slot slot;
    if (span_space_find(&space, size, align, &slot) != SPAN_FOUND)
        return FULL;
    return span_space_take(&space, &slot);
}

static unsigned number_from(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? (unsigned) strtoul(text, NULL, 0) : otherwise;
}

static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static unsigned random_below(unsigned limit)
{
    return (unsigned) (random_next() % limit);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + 1e-9 * (double) time.tv_nsec;
}

/* ---- the model -------------------------------------------------------- */

#define MODEL_SPANS 4096

struct live {
    size_t offset, size;
    uint32_t generation;
    uint64_t owner;
};

struct model {
    size_t size;
    unsigned shift;
    uint16_t *holder;         /* of each unit: index into live + 1, or 0 */
    struct live live[MODEL_SPANS];
    unsigned count;
    size_t requested, used, failures, longest;
    unsigned largest;         /* bytes of a span; 0: all sizes */
};

static struct model model;

static size_t units_of(size_t bytes)
{
    return (bytes + ((size_t) 1 << model.shift) - 1) >> model.shift;
}

static void model_mark(const struct live *live, unsigned holder)
{
    size_t first = live->offset >> model.shift;
    for (size_t i = first; i < first + units_of(live->size); i++) {
        require(holder == 0 || model.holder[i] == 0);
        model.holder[i] = (uint16_t) holder;
    }
}

static void model_move(unsigned from, unsigned to)
{
    if (from == to)
        return;
    model_mark(&model.live[from], 0);
    model.live[to] = model.live[from];
    model_mark(&model.live[to], to + 1);
}

static void check_lookup(const struct live *live)
{
    struct span_info info;
    size_t extent = units_of(live->size) << model.shift;
    size_t probes[] = { 0, extent - 1, random_next() % extent };
    for (unsigned i = 0; i < 3; i++) {
        require(span_space_at(&space, live->offset + probes[i], &info));
        require(info.start == live->offset);
        require(info.size == live->size);
        require(info.extent == extent);
        require(info.generation == live->generation);
        require((uintptr_t) info.owner == live->owner);
    }
}

/* Sizes from 1 byte to 256 KiB, all magnitudes alike; round ones more often. */
static size_t random_size(void)
{
    if (model.largest != 0)
        return 1 + random_below(model.largest);
    size_t size = 1 + random_next() % ((size_t) 1 << (1 + random_below(18)));
    return random_below(4) == 0 ? (size + 15) & -(size_t) 16 : size;
}

static void do_take(void)
{
    static const size_t aligns[] = { 16, 16, 16, 16, 16, 16, 32, 64, 256, 4096, 65536 };
    size_t size = random_size(), align = aligns[random_below(11)];
    if (model.count == MODEL_SPANS)
        return;
    size_t offset = take(size, align);
    if (offset == FULL) {
        /* It may only be refused if no hole holds it. */
        if (align == 16)
            require(span_space_largest(&space) < size);
        model.failures++;
        return;
    }
    require(offset % align == 0);
    require(offset + size <= model.size);
    struct live *live = &model.live[model.count++];
    struct span_info info;
    require(span_space_at(&space, offset, &info));
    *live = (struct live){ offset, size, info.generation,
                           random_next() & WORD_OWNER };
    require(info.owner == NULL);
    require(info.generation != 0);
    require(span_space_set_owner(&space, offset, (void *) (uintptr_t) live->owner));
    model_mark(live, model.count);
    model.requested += size;
    model.used += units_of(size) << model.shift;
    check_lookup(live);
}

static void do_free(void)
{
    if (model.count == 0)
        return;
    unsigned victim = random_below(model.count);
    struct live live = model.live[victim];
    struct span_info info;
    check_lookup(&live);
    if (units_of(live.size) > 1)
        require(!span_space_free(&space, live.offset + ((size_t) 1 << model.shift)));
    require(!span_space_free(&space, live.offset + 1));
    require(span_space_free(&space, live.offset));
    require(!span_space_free(&space, live.offset));
    require(!span_space_at(&space, live.offset, &info));
    model_mark(&live, 0);
    model_move(--model.count, victim);
    model.requested -= live.size;
    model.used -= units_of(live.size) << model.shift;
}

static void do_shrink(void)
{
    if (model.count == 0)
        return;
    unsigned victim = random_below(model.count);
    struct live *live = &model.live[victim];
    size_t size = 1 + random_next() % live->size;
    require(!span_space_shrink(&space, live->offset, 0));
    require(!span_space_shrink(&space, live->offset, live->size + 1));
    model_mark(live, 0);
    model.requested -= live->size - size;
    model.used -= (units_of(live->size) - units_of(size)) << model.shift;
    size_t kept = units_of(size) << model.shift, extent = units_of(live->size) << model.shift;
    if (random_below(2) == 0) {
        require(span_space_shrink(&space, live->offset, size));
    } else {
        require(span_space_shrink_hold(&space, live->offset, size));
        struct span_info info;
        size_t start, bytes;
        if (kept < extent) {
            require(!span_space_at(&space, live->offset + kept, &info));
            require(!span_space_hole_at(&space, live->offset + kept, &start, &bytes));
            require(span_space_extent(&space, live->offset + kept) == extent - kept);
            span_space_reclaim(&space, live->offset + kept);
        }
    }
    live->size = size;
    model_mark(live, victim + 1);
    check_lookup(live);
}

/* Two live spans of one, each with its own generation. */
static void do_split(void)
{
    if (model.count == 0 || model.count == MODEL_SPANS)
        return;
    unsigned victim = random_below(model.count);
    struct live *live = &model.live[victim], *tail = &model.live[model.count];
    size_t unit = (size_t) 1 << model.shift, units = units_of(live->size);
    struct span_info info;
    require(!span_space_split(&space, live->offset, 0));
    require(!span_space_split(&space, live->offset, units << model.shift));
    require(!span_space_split(&space, live->offset, unit / 2));
    if (units < 2)
        return;
    size_t at = (1 + random_next() % (units - 1)) << model.shift;
    require(!span_space_split(&space, live->offset + unit, unit));
    require(span_space_split(&space, live->offset, at));
    model_mark(live, 0);
    require(span_space_at(&space, live->offset + at, &info));
    require(info.generation == space.generation && info.generation != 0);
    *tail = (struct live){ live->offset + at, live->size - at, info.generation, live->owner };
    live->size = at;
    model.count++;
    model_mark(live, victim + 1);
    model_mark(tail, model.count);
    model.used += (units_of(tail->size) + units_of(at) - units) << model.shift;
    check_lookup(live);
    check_lookup(tail);
}

/* Kept in its place, and then given back. */
static void do_retire(void)
{
    if (model.count == 0)
        return;
    unsigned victim = random_below(model.count);
    struct live live = model.live[victim];
    struct span_info info;
    size_t start, size;
    require(span_space_retire(&space, live.offset));
    require(!span_space_retire(&space, live.offset));
    require(!span_space_at(&space, live.offset, &info));
    require(!span_space_hole_at(&space, live.offset, &start, &size));
    require(span_space_extent(&space, live.offset) == units_of(live.size) << model.shift);
    span_space_reclaim(&space, live.offset);
    require(span_space_hole_at(&space, live.offset, &start, &size));
    require(start <= live.offset && live.offset + live.size <= start + size);
    model_mark(&live, 0);
    model_move(--model.count, victim);
    model.requested -= live.size;
    model.used -= units_of(live.size) << model.shift;
}

static void do_owner(void)
{
    if (model.count == 0)
        return;
    struct live *live = &model.live[random_below(model.count)];
    uint64_t owner = random_next() & WORD_OWNER;
    const void *from = (const void *) (uintptr_t) live->owner, *to = (const void *) (uintptr_t) owner;
    require(!span_space_pass(&space, live->offset, live->generation ^ 1, from, to, NULL));
    require(!span_space_pass(&space, live->offset, live->generation, &model, to, NULL));
    require(span_space_pass(&space, live->offset, live->generation, from, to, NULL));
    live->owner = owner;
    check_lookup(live);
}

/* Holes as the model has them. */
static void check_holes(void)
{
    size_t units = model.size >> model.shift, offset = 0, size, longest = 0;
    for (size_t i = 0; i < units;) {
        size_t end = i;
        while (end < units && model.holder[end] == 0)
            end++;
        if (end > i) {
            require(span_space_next_hole(&space, &offset, &size));
            require(offset == i << model.shift);
            require(size == (end - i) << model.shift);
            size_t start, bytes, within = random_next() % size;
            require(span_space_hole_at(&space, offset + within, &start, &bytes));
            require(start == offset && bytes == size);
            offset += size;
            longest = end - i > longest ? end - i : longest;
        }
        i = end > i ? end : i + 1;
    }
    require(!span_space_next_hole(&space, &offset, &size));
    require(span_space_largest(&space) == longest << model.shift);
}

static void run_model(size_t size, unsigned shift, unsigned largest, double seconds)
{
    memset(&model, 0, sizeof model);
    model.size = size;
    model.shift = shift;
    model.largest = largest;
    model.holder = calloc(size >> shift, sizeof *model.holder);
    open_space(size, shift);
    double end = now() + seconds;
    size_t operations = 0, full = (size >> shift) << shift;
    /* How likely it is that a span is taken; changes, so that the space fills and drains. */
    unsigned take_share = 60;
    for (; operations % 1024 != 0 || now() < end; operations++) {
        if (operations % 32768 == 0) {
            verify();
            check_holes();
            take_share = 30 + random_below(50);
        }
        unsigned dice = random_below(100);
        if (dice < take_share)
            do_take();
        else if (dice < 90)
            do_free();
        else if (dice < 94)
            do_shrink();
        else if (dice < 96)
            do_split();
        else if (dice < 98)
            do_retire();
        else
            do_owner();
        require(space.spans == model.count);
        require(space.requested == model.requested);
        require(space.used == model.used);
    }
    while (model.count > 0)
        do_free();
    verify();
    require(span_space_largest(&space) == full);
    printf("model: %zu bytes in units of %u: %zu operations, %zu refused\n", size, 1u << shift,
           operations, model.failures);
    close_space();
    free(model.holder);
}

START_TEST(random_operations_agree_with_the_model)
{
    unsigned seed = number_from("SEED", (unsigned) time(NULL));
    double seconds = number_from("TEST_SECONDS", 8);
    printf("model: SEED=%u\n", seed);
    random_state = seed * 0x9e3779b97f4a7c15u + 1;
    run_model((size_t) 16 << 20, SPAN_GRANULE_SHIFT, 0, seconds * 0.3);
    run_model(65536, SPAN_GRANULE_SHIFT, 16, seconds * 0.15);
    run_model((size_t) 96 << 10, SPAN_GRANULE_SHIFT, 64, seconds * 0.15);
    run_model((size_t) 1 << 20, SPAN_GRANULE_SHIFT, 600, seconds * 0.1);
    run_model(((size_t) 64 << 20) - 65536 * 5, SPAN_GRANULE_SHIFT, 0, seconds * 0.1);
    run_model((size_t) 64 << 20, 12, 0, seconds * 0.1);
    run_model(SPAN_SPACE_MAX & -(size_t) 65536, 16, 0, seconds * 0.1);
}
END_TEST

/* ---- particular sequences --------------------------------------------- */

/* An allocator that remembers where a search may begin gets this one wrong. */
START_TEST(full_block_with_its_tail_and_middle_freed)
{
    enum { BLOCK = 64 * 16 }; /* one word of a bitmap */
    open_space(BLOCK, SPAN_GRANULE_SHIFT);
    for (size_t i = 0; i < 64; i++)
        ck_assert_uint_eq(take(16, 16), i * 16);
    ck_assert_uint_eq(take(1, 16), FULL);
    for (size_t i = 60; i < 64; i++)
        ck_assert(span_space_free(&space, i * 16));
    for (size_t i = 30; i < 33; i++)
        ck_assert(span_space_free(&space, i * 16));
    verify();
    ck_assert_uint_eq(span_space_largest(&space), 4 * 16);
    ck_assert_uint_eq(take(5 * 16, 16), FULL);
    ck_assert_uint_eq(take(3 * 16, 16), 30 * 16);
    ck_assert_uint_eq(take(4 * 16, 16), 60 * 16);
    ck_assert_uint_eq(take(1, 16), FULL);
    verify();
    close_space();
}
END_TEST

START_TEST(the_best_hole_is_taken)
{
    static const size_t sizes[] = { 64, 16, 160, 16, 96, 16, 64, 16 };
    size_t at[8];
    open_space((size_t) 1 << 20, SPAN_GRANULE_SHIFT);
    for (unsigned i = 0; i < 8; i++)
        at[i] = take(sizes[i], 16);
    for (unsigned i = 0; i < 8; i += 2)
        ck_assert(span_space_free(&space, at[i]));
    ck_assert_uint_eq(take(90, 16), at[4]);
    ck_assert_uint_eq(take(150, 16), at[2]);
    size_t one = take(50, 16), other = take(50, 16);
    ck_assert_uint_eq(one + other, at[0] + at[6]);
    ck_assert_uint_eq(take(16, 16), at[7] + 16);
    verify();
    close_space();
}
END_TEST

START_TEST(held_ranges_are_neither_given_out_nor_found)
{
    enum { SIZE = 1 << 20, LO = 300 * 1024, HI = 364 * 1024 };
    struct span_info info;
    open_space(SIZE, SPAN_GRANULE_SHIFT);
    ck_assert(span_space_hold(&space, LO, HI - LO));
    verify();
    ck_assert_uint_eq(span_space_largest(&space), SIZE - HI);
    size_t sum = 0, at;
    while ((at = take(4096, 16)) != FULL) {
        ck_assert(at + 4096 <= LO || at >= HI);
        sum += 4096;
    }
    ck_assert_uint_eq(sum, SIZE - (HI - LO));
    ck_assert(!span_space_at(&space, LO, &info));
    ck_assert(!span_space_at(&space, HI - 1, &info));
    ck_assert(!span_space_free(&space, LO));
    ck_assert(!span_space_shrink(&space, LO, 16));
    for (size_t offset = 0; offset < SIZE; offset += 4096)
        ck_assert(span_space_free(&space, offset) == (offset < LO || offset >= HI));
    verify();
    ck_assert_uint_eq(span_space_largest(&space), SIZE - HI);
    close_space();
    open_space(SIZE, SPAN_GRANULE_SHIFT);
    ck_assert(span_space_hold(&space, 0, 65536));
    verify();
    ck_assert_uint_eq(take(1, 16), 65536);
    close_space();
}
END_TEST

START_TEST(misuse_is_refused)
{
    struct span_info info;
    open_space((size_t) 1 << 20, SPAN_GRANULE_SHIFT);
    ck_assert_uint_eq(take(0, 16), FULL);
    ck_assert_uint_eq(take(((size_t) 1 << 20) + 1, 16), FULL);
    ck_assert_uint_eq(take(SIZE_MAX, 16), FULL);
    ck_assert_uint_eq(take(SIZE_MAX - 15, 65536), FULL);
    ck_assert_uint_eq(take((size_t) 1 << 20, 16), 0);
    ck_assert(span_space_free(&space, 0));
    static const size_t wrong[] = { 0, 1, 16, 8, (1 << 20) - 16, 1 << 20, (size_t) 1 << 34,
                                    ((size_t) 1 << 36) + 16, SIZE_MAX, SIZE_MAX - 15 };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert(!span_space_free(&space, wrong[i]));
        ck_assert(!span_space_at(&space, wrong[i], &info));
        ck_assert(!span_space_shrink(&space, wrong[i], 1));
        ck_assert(!span_space_set_owner(&space, wrong[i], NULL));
    }
    verify();
    close_space();
}
END_TEST

/* ---- generations ------------------------------------------------------ */

#define BUCKET 4096u /* bytes, of 256 units of 16 */

/* As if so many spans had begun in a bucket, which had at least one. */
static void set_births(size_t offset, uint32_t births)
{
    *extents_births(&space.extents, unit_bucket((uint32_t) (offset >> space.shift))) = births;
}

static uint32_t generation_at(size_t offset)
{
    struct span_info info;
    require(span_space_at(&space, offset, &info));
    return info.generation;
}

START_TEST(generations_rise_with_every_span_of_a_bucket)
{
    uint32_t before = 0, other = 0;
    open_space((size_t) 1 << 20, SPAN_GRANULE_SHIFT);
    require(take(4096, 16) == 0);
    other = generation_at(0);
    for (unsigned i = 0; i < (1u << 20) + 10; i++) {
        require(take(100, 16) == 4096);
        if (generation_at(4096) <= before)
            ck_abort_msg("generation %u after %u", generation_at(4096), before);
        before = generation_at(4096);
        require(span_space_free(&space, 4096));
    }
    ck_assert_uint_eq(before, (1u << 20) + 10);
    ck_assert_uint_eq(generation_at(0), other);
    ck_assert_uint_eq(space.generation, before);
    ck_assert_uint_eq(span_space_latest(&space, 4096, 4096), before);
    ck_assert_uint_eq(span_space_latest(&space, 0, 1), other);
    ck_assert_uint_eq(span_space_latest(&space, 0, SIZE_MAX / 2), before);
    ck_assert_uint_eq(span_space_latest(&space, 8192, 1 << 20), 0);
    ck_assert_uint_eq(span_space_latest(&space, 1 << 20, 4096), 0);
    verify();
    close_space();
}
END_TEST

START_TEST(generations_begin_above_the_floor)
{
    ck_assert(span_space_init(&space, 1 << 20, SPAN_GRANULE_SHIFT, 1000, &counted));
    ck_assert_uint_eq(span_space_latest(&space, 0, 1 << 20), 0);
    ck_assert(span_space_hold(&space, 0, 4096));
    ck_assert_uint_eq(span_space_latest(&space, 0, 1 << 20), 0);
    ck_assert_uint_eq(take(100, 16), 4096);
    ck_assert_uint_eq(generation_at(4096), 1001);
    ck_assert_uint_eq(span_space_latest(&space, 0, 1 << 20), 1001);
    verify();
    close_space();
}
END_TEST

/* The last generation of a bucket is given out, and nothing begins there again. */
START_TEST(a_bucket_without_generations_is_closed)
{
    open_space((size_t) 1 << 20, SPAN_GRANULE_SHIFT);
    require(take(100, 16) == 0);
    require(take(200, 16) == 112);
    set_births(0, SPAN_GENERATION_MAX - 2);
    require(span_space_free(&space, 0));
    require(take(100, 16) == 0);
    ck_assert_uint_eq(generation_at(0), SPAN_GENERATION_MAX - 1);
    ck_assert_uint_eq(space.closed, 0);
    require(span_space_free(&space, 0));
    require(take(100, 16) == 0);
    ck_assert_uint_eq(generation_at(0), SPAN_GENERATION_MAX);
    ck_assert_uint_eq(space.closed, 1);
    verify();
    /* What is there lives on, is cut and goes. */
    ck_assert(!span_space_split(&space, 112, 96));
    ck_assert(span_space_shrink(&space, 112, 150));
    verify();
    require(span_space_free(&space, 0));
    verify();
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(take(50, 16), BUCKET + i * 64);
        verify();
    }
    require(span_space_free(&space, 112));
    verify();
    ck_assert_uint_eq(take(50, 16), BUCKET + 192);
    ck_assert_uint_eq(space.spans, 4);
    /* Its bytes are a hole, so that memory behind them is given back, but none to be had. */
    size_t start, size, offset = 0;
    ck_assert(span_space_hole_at(&space, 64, &start, &size));
    ck_assert_uint_eq(start, 0);
    ck_assert_uint_eq(size, BUCKET);
    ck_assert(span_space_next_hole(&space, &offset, &size));
    ck_assert_uint_eq(offset, 0);
    for (unsigned i = 0, holes = 0; i < PP_SIZE_CLASSES; i++) {
        holes += (unsigned) space.classes.of[i].holes;
        ck_assert_uint_le(holes, 1);
    }
    close_space();
}
END_TEST

/* Spans that begin before it reach into a closed bucket, and aligned ones go around. */
START_TEST(closed_buckets_are_passed_over)
{
    open_space((size_t) 1 << 20, SPAN_GRANULE_SHIFT);
    for (unsigned bucket = 0; bucket < 4; bucket++)
        require(take(BUCKET, 16) == bucket * BUCKET);
    for (unsigned bucket = 1; bucket < 4; bucket++) {
        require(span_space_free(&space, bucket * BUCKET));
        set_births(bucket * BUCKET, SPAN_GENERATION_MAX - 1);
        require(take(BUCKET, BUCKET) == bucket * BUCKET);
        verify();
    }
    ck_assert_uint_eq(space.closed, 3);
    for (unsigned bucket = 1; bucket < 4; bucket++)
        require(span_space_free(&space, bucket * BUCKET));
    verify();
    ck_assert_uint_eq(take(16, 16), 4 * BUCKET);
    require(span_space_free(&space, 4 * BUCKET));
    require(span_space_free(&space, 0));
    verify();
    ck_assert_uint_eq(take(2 * BUCKET + 16, 16), 0);
    ck_assert_uint_eq(take(16, 16), 4 * BUCKET);
    ck_assert_uint_eq(take(16, 8192), 6 * BUCKET);
    verify();
    require(take(2 * BUCKET - 16, 16) == 4 * BUCKET + 16);
    require(span_space_free(&space, 0));
    ck_assert_uint_eq(take(16, 16), 0);
    ck_assert_uint_eq(take(BUCKET - 16, 16), 16);
    verify();
    ck_assert_uint_ge(take(16, 16), 6 * BUCKET);
    verify();
    close_space();
}
END_TEST

START_TEST(a_space_whose_buckets_are_all_closed_is_full)
{
    struct span_info info;
    open_space(4 * BUCKET, SPAN_GRANULE_SHIFT);
    size_t at;
    for (unsigned i = 0; (at = take(48, 16)) != FULL; i++) {
        require(i < 4 * BUCKET / 16);
        if (generation_at(at) < SPAN_GENERATION_MAX - 3)
            set_births(at, SPAN_GENERATION_MAX - 3);
        verify();
    }
    ck_assert_uint_eq(space.closed, 4);
    ck_assert_uint_eq(space.spans, 4 * 4);
    ck_assert_uint_eq(span_space_largest(&space), 0);
    for (at = 0; at < 4 * BUCKET; at += 16) {
        if (span_space_starting(&space, at, &info))
            require(span_space_free(&space, at));
    }
    verify();
    ck_assert_uint_eq(space.spans, 0);
    ck_assert_uint_eq(span_space_largest(&space), 0);
    ck_assert_uint_eq(take(1, 16), FULL);
    ck_assert_uint_eq(take(1, 65536), FULL);
    close_space();
}
END_TEST

#define FEW 40u /* generations of each bucket in the next test */

/*
 * Everything that gives out spans, until nothing is left: no start has a generation twice,
 * and those of a start rise.
 */
static void churn_to_the_end(uint64_t seed)
{
    enum { SIZE = 64 * BUCKET, LIVE = 64 };
    static uint32_t last[SIZE / 16];
    size_t live[LIVE] = { 0 };
    unsigned count = 0, given = 0;
    random_state = seed;
    memset(last, 0, sizeof last);
    ck_assert(span_space_init(&space, SIZE, SPAN_GRANULE_SHIFT, SPAN_GENERATION_MAX - FEW,
                              &counted));
    for (unsigned refused = 0; refused < 64;) {
        size_t fresh = FULL;
        unsigned what = random_below(8), victim = count > 0 ? random_below(count) : 0;
        struct span_info info;
        if (count > 0 && what < 4 && (count == LIVE || what < 3)) {
            require(span_space_free(&space, live[victim]));
            live[victim] = live[--count];
            continue;
        }
        if (count == LIVE)
            continue;
        if (count > 0 && what == 4) {
            require(span_space_starting(&space, live[victim], &info));
            size_t cut = (1 + random_below((unsigned) (info.extent / 16))) * 16;
            if (cut < info.size && span_space_split(&space, live[victim], cut))
                fresh = live[victim] + cut;
            else if (cut <= info.size)
                require(span_space_shrink(&space, live[victim], cut));
        } else {
            fresh = take(16 + random_below(random_below(8) == 0 ? 3 * BUCKET : 300),
                         random_below(8) == 0 ? 1024 : 16);
            refused += fresh == FULL;
        }
        if (fresh == FULL)
            continue;
        uint32_t generation = generation_at(fresh);
        require(generation == space.generation);
        require(generation > SPAN_GENERATION_MAX - FEW && generation <= SPAN_GENERATION_MAX);
        require(generation > last[fresh / 16]);
        last[fresh / 16] = generation;
        live[count++] = fresh;
        if (++given % 64 == 0)
            verify();
    }
    verify();
    ck_assert_uint_gt(space.closed, 32);
    ck_assert_uint_le(given, 64 * FEW);
    while (count > 0)
        require(span_space_free(&space, live[--count]));
    verify();
    close_space();
}

START_TEST(no_start_has_a_generation_twice)
{
    for (unsigned i = 1; i <= 20; i++)
        churn_to_the_end(i * 77777);
}
END_TEST

/* Refuse the n-th piece of metadata: the operation fails and changes nothing. */
START_TEST(running_out_of_metadata_changes_nothing)
{
    for (size_t n = 0; n < 12; n++) {
        refuse_after = n;
        bool opened = span_space_init(&space, (size_t) 64 << 20, SPAN_GRANULE_SHIFT, 0,
                                      &counted);
        size_t refused = 0;
        for (unsigned i = 0; opened && i < 3000; i++) {
            size_t spans = space.spans, used = space.used;
            if (take(16 + 16 * (i % 700), 16) == FULL) {
                refused++;
                ck_assert_uint_eq(space.spans, spans);
                ck_assert_uint_eq(space.used, used);
                if (refused == 1)
                    verify();
            }
        }
        ck_assert(!opened || refused > 0);
        if (opened)
            verify();
        refuse_after = SIZE_MAX;
        span_space_fini(&space);
        ck_assert_uint_eq(allocated, 0);
    }
}
END_TEST

/* 10,000 spans of 256 to 2048 bytes, replaced at random. */
START_TEST(bookkeeping_is_small)
{
    enum { SPANS = 10000 };
    static size_t at[SPANS], size[SPANS];
    size_t highest = 0;
    open_space((size_t) 64 << 20, SPAN_GRANULE_SHIFT);
    random_state = 42;
    for (unsigned i = 0; i < 20 * SPANS; i++) {
        unsigned slot = i < SPANS ? i : random_below(SPANS);
        if (i >= SPANS)
            require(span_space_free(&space, at[slot]));
        size[slot] = 256 + random_below(1793);
        at[slot] = take(size[slot], 16);
        highest = at[slot] + size[slot] > highest ? at[slot] + size[slot] : highest;
    }
    printf("bookkeeping: %.2f %% of the bytes asked for, reaching up to %.3f times them\n",
           100.0 * (double) (allocated + sizeof space) / (double) space.requested,
           (double) highest / (double) space.requested);
    ck_assert_uint_le(100 * (allocated + sizeof space), 3 * space.requested);
    ck_assert_uint_le(100 * highest, 107 * space.requested);
    for (unsigned i = 0; i < SPANS; i++)
        ck_assert(span_space_free(&space, at[i]));
    verify();
    close_space();
}
END_TEST

/* ---- bounds of time, counted in holes that are looked at ---------------- */

/* Many long holes of nearly the same length, none of them aligned: no search is long. */
START_TEST(long_holes_are_found_in_order)
{
    enum { SPANS = 3000 };
    static size_t at[2 * SPANS];
    open_space((size_t) 512 << 20, SPAN_GRANULE_SHIFT);
    require(take(16, 16) == 0);
    for (unsigned i = 0; i < SPANS; i++) {
        at[2 * i] = take(20000 + 16 * (size_t) (i * 7919 % 1000), 16);
        at[2 * i + 1] = take(16, 16);
    }
    for (unsigned i = 0; i < SPANS; i++)
        require(span_space_free(&space, at[2 * i]));
    verify();
    /* The shortest that fits, and the lowest of those. */
    for (unsigned want = 0; want < 1000; want++) {
        size_t lowest = FULL;
        for (unsigned i = 0; i < SPANS; i++) {
            if (i * 7919 % 1000 == want && at[2 * i] < lowest)
                lowest = at[2 * i];
        }
        require(take(20000 + 16 * (size_t) want, 16) == lowest);
    }
    verify();
    size_t aligned = take(30000, 65536);
    require(aligned != FULL && aligned % 65536 == 0);
    verify();
    require(span_space_free(&space, aligned));
    verify();
    span_space_fini(&space);
    ck_assert_uint_eq(allocated, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("span");
    TCase *tests = tcase_create("span");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, full_block_with_its_tail_and_middle_freed);
    tcase_add_test(tests, the_best_hole_is_taken);
    tcase_add_test(tests, held_ranges_are_neither_given_out_nor_found);
    tcase_add_test(tests, misuse_is_refused);
    tcase_add_test(tests, generations_rise_with_every_span_of_a_bucket);
    tcase_add_test(tests, generations_begin_above_the_floor);
    tcase_add_test(tests, a_bucket_without_generations_is_closed);
    tcase_add_test(tests, closed_buckets_are_passed_over);
    tcase_add_test(tests, a_space_whose_buckets_are_all_closed_is_full);
    tcase_add_test(tests, no_start_has_a_generation_twice);
    tcase_add_test(tests, running_out_of_metadata_changes_nothing);
    tcase_add_test(tests, bookkeeping_is_small);
    tcase_add_test(tests, long_holes_are_found_in_order);
    tcase_add_test(tests, random_operations_agree_with_the_model);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
