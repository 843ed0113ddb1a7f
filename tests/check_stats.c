/* SPDX-License-Identifier: MIT */
/* What a pool tells about itself, what it is told, and whom it asks when memory is short. */
#include <config.h>

#include "memory/json.h"
#include "memory/state.h"
#include "os/maps.h"
#include "sanitized.h"
#include "sized.h"
#include "spans.h"

#include <patchpoint/fault.h>

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- structs of other versions ---------------------------------------- */

#define FIRST_OPTIONS offsetof(pp_pool_options, on_limit)
#define FIRST_STATS offsetof(pp_pool_stats, committed)

START_TEST(options_may_be_shorter_or_longer)
{
    struct { pp_pool_options options; size_t newer[4]; } longer = { .options.size = sizeof longer };
    /* The shortest one ends where the memory does. */
    pp_pool_options *shorter = malloc(FIRST_OPTIONS);
    pp_pool *pool;
    *(size_t *) shorter = FIRST_OPTIONS;
    memset((char *) shorter + sizeof(size_t), 0, FIRST_OPTIONS - sizeof(size_t));
    ck_assert_int_eq(pp_pool_create(shorter, &pool), PP_OK);
    pp_pool_destroy(pool);
    for (size_t size = 0; size < sizeof longer.options + 8; size++) {
        bool right = size >= FIRST_OPTIONS && size % 8 == 0;
        longer.options.size = size;
        ck_assert_int_eq(pp_pool_create(&longer.options, &pool), right ? PP_OK : PP_E_ARG);
        if (right)
            pp_pool_destroy(pool);
    }
    longer.options.size = sizeof longer;
    ck_assert_int_eq(pp_pool_create(&longer.options, &pool), PP_OK);
    pp_pool_destroy(pool);
    longer.newer[3] = 1;
    ck_assert_int_eq(pp_pool_create(&longer.options, &pool), PP_E_ARG);
    longer.options.size = SIZE_MAX & -(size_t) 8;
    ck_assert_int_eq(pp_pool_create(&longer.options, &pool), PP_E_ARG);
    free(shorter);
}
END_TEST

START_TEST(stats_are_filled_in_as_far_as_they_go)
{
    pp_pool *pool = open_pool(PP_WX_AUTO);
    struct span span;
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    for (size_t size = 0; size <= sizeof(pp_pool_stats) + 16; size++) {
        union { pp_pool_stats stats; unsigned char bytes[sizeof(pp_pool_stats) + 16]; } both;
        memset(&both, 0xa5, sizeof both);
        both.stats.size = size;
        pp_status status = pp_pool_get_stats(pool, &both.stats);
        ck_assert_int_eq(status, size < FIRST_STATS ? PP_E_ARG : PP_OK);
        require(both.stats.size == size);
        size_t end = status != PP_OK ? sizeof size : size < sizeof both.stats ? size
                                                                              : sizeof both.stats;
        for (size_t i = end; i < sizeof both; i++)
            require(both.bytes[i] == 0xa5);
        if (status == PP_OK)
            require(both.stats.spans == 1);
    }
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(wrong_options_are_refused)
{
    static const char long_name[] = "123456789 123456789 123456789 123456789 12345678";
    static const char *const names[] = { "", long_name, "a[", "a]", "a\\", "a$", "a`", "a\n", "\x7f",
                                         "\xc3\xa4" };
    const uintptr_t bases[1] = { 0 };
    pp_pool_options options = { .size = sizeof options, .error = &error };
    pp_pool *pool = NULL;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        options.name = names[i];
        ck_assert_msg(pp_pool_create(&options, &pool) == PP_E_ARG, "name %u", i);
    }
    options.name = long_name + 1;
    options.placement_count = 1;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_ARG);
    options.placement = bases;
    options.placement_count = SIZE_MAX;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_ARG);
    options.placement_count = 1;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- names ------------------------------------------------------------ */

struct names {
    uintptr_t lo, hi;
    unsigned file, guard, literals, code;
};

static void see_name(const struct maps_line *line, void *context)
{
    struct names *names = context;
    names->file += strstr(line->name, "memfd:my runtime (deleted)") != NULL;
    names->guard += strcmp(line->name, "[anon:my runtime guard]") == 0;
    names->literals += strcmp(line->name, "[anon:my runtime literals]") == 0;
    names->code += strcmp(line->name, "[anon:my runtime code]") == 0;
}

START_TEST(mappings_have_the_name_of_the_pool)
{
    struct names names = { 0 };
    char name[] = "my runtime";
    pp_pool_options options = { .size = sizeof options, .wx = (pp_wx) _i, .name = name,
                                .error = &error };
    pp_pool *pool;
    struct span span;
    pp_status status = pp_pool_create(&options, &pool);
    memset(name, 'x', sizeof name - 1); /* it was copied */
    if (status == PP_E_UNSUPPORTED)
        return;
    ck_assert_int_eq(status, PP_OK);
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    ck_assert_int_eq(maps_read(see_name, &names), 0);
    if (_i == PP_WX_DUAL && !is_emulated())
        ck_assert_uint_eq(names.file, 2);
    if (names.guard == 0)
        printf("this kernel has no names for private memory; not tested\n");
    else
        ck_assert(names.guard == 3 && names.literals == 1 && names.code == (_i != PP_WX_DUAL));
    pp_pool_destroy(pool);
}
END_TEST

/* ---- size classes ----------------------------------------------------- */

START_TEST(size_classes_count_what_lives)
{
    enum { SPANS = 600 };
    static struct span spans[SPANS];
    pp_pool *pool = open_pool((pp_wx) _i);
    uint64_t state = seed() * 0x9e3779b97f4a7c15u + 1;
    if (pool == NULL)
        return;
    for (unsigned round = 0; round < 4000; round++) {
        unsigned i = (unsigned) (next_random(&state) % SPANS);
        if (spans[i].exec != 0 && round % 3 == 0) {
            pool_shrink(&spans[i], 1 + next_random(&state) % spans[i].size);
            continue;
        }
        if (spans[i].exec != 0) {
            require(pool_free(pool, spans[i].exec) == PP_OK);
            spans[i].exec = 0;
            continue;
        }
        size_t size = 1 + (next_random(&state) % 100000 >> next_random(&state) % 17);
        require(take(pool, size, &spans[i]) == PP_OK);
    }
    pp_pool_stats stats = stats_of(pool);
    size_t counts[PP_SIZE_CLASSES] = { 0 }, requested[PP_SIZE_CLASSES] = { 0 }, below = 0;
    size_t live = 0, used = 0, asked = 0, holes = 0, longest = 0;
    for (unsigned i = 0; i < SPANS; i++) {
        unsigned class = 0;
        while (spans[i].exec != 0 && spans[i].size > stats.classes[class].up_to)
            class++;
        counts[class] += spans[i].exec != 0;
        requested[class] += spans[i].exec != 0 ? spans[i].size : 0;
    }
    for (unsigned i = 0; i < PP_SIZE_CLASSES; i++) {
        const pp_size_class *class = &stats.classes[i];
        ck_assert_uint_eq(class->up_to, i + 1 == PP_SIZE_CLASSES ? SIZE_MAX : (size_t) 16 << i);
        ck_assert_uint_eq(class->spans, counts[i]);
        ck_assert_uint_eq(class->requested, requested[i]);
        ck_assert(class->hole_bytes <= class->up_to * (double) class->holes);
        ck_assert(class->hole_bytes > below * class->holes || class->holes == 0);
        below = class->up_to;
        live += class->spans;
        asked += class->requested;
        used += class->used;
        holes += class->hole_bytes;
        longest = class->holes > 0 ? class->up_to : longest;
    }
    ck_assert_uint_eq(live, stats.spans);
    ck_assert_uint_eq(asked, stats.requested);
    ck_assert_uint_eq(used, stats.used);
    ck_assert_uint_le(stats.largest_hole, longest);
    pp_region_info info = { .size = sizeof info };
    ck_assert_int_eq(pp_pool_get_region(pool, 0, &info), PP_OK);
    ck_assert_uint_eq(holes + used, info.code_hi - info.code_lo - (info.island_hi - info.island_lo));
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- regions ---------------------------------------------------------- */

START_TEST(regions_are_told_in_the_order_they_were_opened)
{
    struct frame_rule record = { .kind = PP_FRAME_RECORD, .cfa_offset = 16,
                                 .saves = { .slots = 8, .saved = 8, .offset = -8 } };
    pp_region_info first = { .size = sizeof first }, second = first, info = first;
    pp_pool *pool = open_telling(PP_WX_AUTO, PP_UNWIND_LIBGCC);
    struct span a, b;
    ck_assert_int_eq(pp_pool_get_region(pool, 0, &first), PP_OK);
    ck_assert_str_eq(first.rule, "");
    ck_assert_int_eq(pp_pool_get_region(pool, 1, &second), PP_E_RANGE);
    ck_assert_int_eq(take_with(pool, &record, 100, 16, &a), PP_OK);
    ck_assert_int_eq(take(pool, 5000, &b), PP_OK);
    ck_assert_int_eq(write_return(&b, 1), PP_OK);
    ck_assert_int_eq(pp_pool_get_region(pool, 0, &info), PP_OK);
    ck_assert_uint_eq(info.base, first.base);
    ck_assert_str_eq(info.rule, "record cfa 16 saves 0x8/0x8 at -8");
    ck_assert_int_eq(pp_pool_get_region(pool, 1, &second), PP_OK);
    ck_assert_str_eq(second.rule, ""); /* nobody is told anything */
    ck_assert_uint_eq(second.base, b.region->base);
    ck_assert_uint_eq(second.limit, b.region->limit);
    ck_assert(second.base < second.code_lo && second.code_hi < second.literal_lo);
    ck_assert(second.island_lo >= second.code_lo && second.island_hi <= second.code_hi);
    ck_assert(second.literal_lo < second.literal_hi && second.literal_hi < second.limit);
    ck_assert_uint_eq(second.spans, 1);
    ck_assert_uint_eq(second.requested, 5000);
    ck_assert_uint_ge(second.used, 5000);
    ck_assert_uint_ge(second.resident, 5000);
    ck_assert_int_eq(second.near, b.region->near);
    uintptr_t anchor = pool->anchors.at[0];
    ck_assert_uint_eq(second.reach, anchor > second.base && anchor - second.base >
                                            (anchor > second.limit ? 0 : second.limit - anchor)
                                        ? anchor - second.base : second.limit - anchor);
    ck_assert_int_eq(second.inherited, 0);
    for (unsigned i = 2; i < 10; i++)
        ck_assert_int_eq(pp_pool_get_region(pool, i, &info), PP_E_RANGE);
    ck_assert_int_eq(pp_pool_get_region(pool, UINT_MAX, &info), PP_E_RANGE);
    info.size--;
    ck_assert_int_eq(pp_pool_get_region(pool, 0, &info), PP_E_ARG);
    ck_assert_int_eq(pp_pool_get_region(pool, 0, NULL), PP_E_ARG);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- fallbacks -------------------------------------------------------- */

START_TEST(fallbacks_are_counted_and_explained)
{
    char reason[200], little[8];
    pp_pool_options options = { .size = sizeof options, .region_bytes = 64 << 20, .error = &error };
    pp_pool *pool;
    pp_fault faults[2] = { { .call = PP_FAULT_MEMFD_CREATE, .first = 1 },
                           { .call = PP_FAULT_MMAP, .first = 1, .count = 1 } };
    ck_assert_int_eq(pp_fault_set(faults, 2), PP_OK);
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    pp_pool_stats stats = stats_of(pool);
    ck_assert_int_eq(stats.wx, PP_WX_FLIP);
    ck_assert_uint_eq(stats.fallbacks[PP_FALLBACK_MODE], 2);
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_MODE, reason, sizeof reason), PP_OK);
    printf("mode: %s\n", reason);
    ck_assert_ptr_nonnull(strstr(reason, "remap: memfd_create: "));
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_MODE, little, sizeof little), PP_OK);
    ck_assert_str_eq(little, "remap: ");
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_ISLAND, reason, sizeof reason), PP_OK);
    ck_assert_str_eq(reason, "");
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACKS, reason, 9), PP_E_ARG);
    ck_assert_int_eq(pp_pool_get_fallback(pool, -1, reason, 9), PP_E_ARG);
    ck_assert_int_eq(pp_pool_get_fallback(pool, 0, reason, 0), PP_E_ARG);
    ck_assert_int_eq(pp_pool_get_fallback(pool, 0, NULL, 9), PP_E_ARG);
    ck_assert_str_eq(pp_fallback_name(PP_FALLBACK_BARRIER), "barrier");
    ck_assert_str_eq(pp_fallback_name(PP_FALLBACKS), "unknown");
    ck_assert_str_eq(pp_fallback_name(-1), "unknown");
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(bookkeeping_outside_of_jemalloc_says_why)
{
    char reason[200];
    pp_pool *pool = open_pool(PP_WX_AUTO);
    pp_pool_stats stats = stats_of(pool);
    bool outside = strcmp(stats.allocator, "jemalloc") != 0;
    ck_assert_uint_eq(stats.fallbacks[PP_FALLBACK_METADATA], outside);
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_METADATA, reason, sizeof reason), PP_OK);
    ck_assert_uint_eq(reason[0] != '\0', outside);
    printf("bookkeeping in %s: %s\n", stats.allocator, reason);
    pp_pool_destroy(pool);
    /* No arena is to be had; those of closed pools are used up first. */
    pp_fault fault = { .call = PP_FAULT_METADATA, .first = 1, .count = 1 };
    pp_pool *first = open_pool(PP_WX_AUTO);
    ck_assert_int_eq(pp_fault_set(&fault, 1), PP_OK);
    pp_status status = pp_pool_create(NULL, &pool);
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    if (!outside) {
        ck_assert_int_eq(status, PP_OK);
        stats = stats_of(pool);
        ck_assert_str_eq(stats.allocator, "libc");
        ck_assert_uint_eq(stats.fallbacks[PP_FALLBACK_METADATA], 1);
    }
    if (status == PP_OK)
        pp_pool_destroy(pool);
    pp_pool_destroy(first);
}
END_TEST

START_TEST(a_smaller_region_says_why)
{
    char reason[200];
    pp_pool_options options = { .size = sizeof options, .wx = PP_WX_FLIP, .error = &error };
    pp_fault fault = { .call = PP_FAULT_MMAP, .first = 1, .count = 1 };
    pp_pool *pool;
    ck_assert_int_eq(pp_fault_set(&fault, 1), PP_OK);
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    ck_assert_uint_eq(stats_of(pool).fallbacks[PP_FALLBACK_SMALL], 1);
    ck_assert_uint_eq(stats_of(pool).reserved, 32 << 20);
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_SMALL, reason, sizeof reason), PP_OK);
    printf("small: %s\n", reason);
    ck_assert_ptr_nonnull(strstr(reason, "32 MiB instead of 64: mmap: "));
    pp_pool_destroy(pool);
    fault = (pp_fault){ .call = PP_FAULT_OPEN, .first = 1 };
    ck_assert_int_eq(pp_fault_set(&fault, 1), PP_OK);
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    if (stats_of(pool).near_regions == 0) {
        ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_FAR, reason, sizeof reason), PP_OK);
        printf("far: %s\n", reason);
        ck_assert_ptr_nonnull(strstr(reason, "/proc/self/maps"));
    }
    pp_pool_destroy(pool);
}
END_TEST

/* ---- asking for memory ------------------------------------------------ */

struct cache {
    pp_pool *pool;
    struct span spans[8];
    unsigned count;     /* how many of them there are to free */
    unsigned asked;
    size_t bytes;       /* of the latest question */
    pp_status inner;    /* of an allocation made in the answer */
    unsigned depth;
};

static int free_one(pp_pool *pool, size_t bytes, void *host)
{
    struct cache *cache = host;
    pp_error reason = { .size = sizeof reason };
    struct span span;
    size_t size = 5000;
    require(pool == cache->pool && cache->depth == 0);
    cache->depth++;
    cache->asked++;
    cache->bytes = bytes;
    /* Every function may be called; no lock is held, and this does not ask again. */
    require(pp_pool_verify(pool, &reason) == PP_OK);
    stats_of(pool);
    cache->inner = pool_alloc(pool, &no_rule, 16, fixed_size, &size, &span, NULL);
    if (cache->inner == PP_OK)
        require(pool_free(pool, span.exec) == PP_OK);
    cache->depth--;
    errno = 4711;
    if (cache->count == 0)
        return 0;
    require(pool_free(pool, cache->spans[--cache->count].exec) == PP_OK);
    return 1;
}

START_TEST(a_limit_asks_the_host)
{
    struct cache cache = { .count = 0 };
    pp_pool_options options = { .size = sizeof options, .wx = (pp_wx) _i, .limit_bytes = 65536,
                                .on_limit = free_one, .on_limit_host = &cache, .error = &error };
    struct span span;
    pp_status status = pp_pool_create(&options, &cache.pool);
    if (status == PP_E_UNSUPPORTED)
        return;
    ck_assert_int_eq(status, PP_OK);
    for (; cache.count < 8; cache.count++)
        ck_assert_int_eq(take(cache.pool, 8192, &cache.spans[cache.count]), PP_OK);
    ck_assert_uint_eq(cache.asked, 0);
    errno = 0;
    ck_assert_int_eq(take(cache.pool, 20000, &span), PP_OK); /* three times */
    ck_assert_int_eq(errno, 0);
    ck_assert_uint_eq(cache.asked, 3);
    ck_assert_uint_eq(cache.bytes, 20000);
    ck_assert_int_eq(pool_free(cache.pool, span.exec), PP_OK);
    /* What can never succeed is not asked for. */
    ck_assert_int_eq(take(cache.pool, 65537, &span), PP_E_NOMEM);
    ck_assert_int_eq(take(cache.pool, SIZE_MAX / 2, &span), PP_E_NOMEM);
    ck_assert_uint_eq(cache.asked, 3);
    /* The host is at its end. */
    ck_assert_int_eq(take(cache.pool, 65536, &span), PP_OK);
    ck_assert_uint_eq(cache.asked, 8);
    error.text[0] = '\0';
    ck_assert_int_eq(take(cache.pool, 5000, &cache.spans[0]), PP_E_NOMEM);
    ck_assert_ptr_nonnull(strstr(error.text, "limit_bytes"));
    ck_assert_uint_eq(cache.asked, 9);
    ck_assert_int_eq(cache.inner, PP_E_NOMEM);
    ck_assert_int_eq(pool_free(cache.pool, span.exec), PP_OK);
    ck_assert_uint_eq(cache.asked, 9); /* freeing never asks */
    verify(cache.pool);
    pp_pool_destroy(cache.pool);
}
END_TEST

struct askers {
    pthread_barrier_t both;
    _Atomic unsigned asked;
};

static int ask_together(pp_pool *pool, size_t bytes, void *host)
{
    struct askers *askers = host;
    struct span span;
    (void) bytes;
    atomic_fetch_add(&askers->asked, 1);
    pthread_barrier_wait(&askers->both);
    size_t size = 20000;
    require(pool_alloc(pool, &no_rule, 16, fixed_size, &size, &span, NULL) == PP_E_NOMEM);
    pthread_barrier_wait(&askers->both);
    return 0;
}

static void *take_too_much(void *pool)
{
    struct span span;
    size_t size = 20000;
    require(pool_alloc(pool, &no_rule, 16, fixed_size, &size, &span, NULL) == PP_E_NOMEM);
    return NULL;
}

/* Each is asked once, and what the host allocates in its answer asks neither again. */
START_TEST(threads_ask_at_the_same_time)
{
    enum { ROUNDS = 100 };
    struct askers askers = { .asked = 0 };
    ck_assert_int_eq(pthread_barrier_init(&askers.both, NULL, 2), 0);
    pp_pool_options options = { .size = sizeof options, .limit_bytes = 65536,
                                .on_limit = ask_together, .on_limit_host = &askers,
                                .error = &error };
    pp_pool *pool;
    struct span span;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(take(pool, 60000, &span), PP_OK);
    for (unsigned i = 0; i < ROUNDS; i++) {
        pthread_t other;
        ck_assert_int_eq(pthread_create(&other, NULL, take_too_much, pool), 0);
        take_too_much(pool);
        ck_assert_int_eq(pthread_join(other, NULL), 0);
        ck_assert_uint_eq(askers.asked, 2 * (i + 1));
    }
    pp_pool_destroy(pool);
    pthread_barrier_destroy(&askers.both);
}
END_TEST

static int say_again(pp_pool *pool, size_t bytes, void *host)
{
    (void) pool;
    (void) bytes;
    return ++*(unsigned *) host < 5;
}

static int end_the_faults(pp_pool *pool, size_t bytes, void *host)
{
    require(say_again(pool, bytes, host) != 0 && bytes == 600000);
    if (*(unsigned *) host == 3)
        require(pp_fault_set(NULL, 0) == PP_OK);
    return 1;
}

START_TEST(a_system_that_refuses_asks_the_host)
{
    unsigned asked = 0;
    pp_pool_options options = { .size = sizeof options, .wx = PP_WX_RWX, .error = &error,
                                .region_bytes = 2 << 20, .on_limit = say_again,
                                .on_limit_host = &asked };
    pp_pool *pool;
    struct span span;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    for (unsigned i = 0; i < 2; i++) /* which fills it: on AArch64, the island parts it */
        ck_assert_int_eq(take(pool, 600000, &span), PP_OK);
    pp_fault fault = { .call = PP_FAULT_MMAP, .first = 1 };
    ck_assert_int_eq(pp_fault_set(&fault, 1), PP_OK);
    ck_assert_int_eq(take(pool, 600000, &span), PP_E_NOMEM);
    ck_assert_uint_eq(asked, 5);
    ck_assert_str_eq(error.system_call, "mmap");
    /* This time there is memory again after the third question. */
    pool->limit.ask = end_the_faults;
    asked = 0;
    ck_assert_int_eq(take(pool, 600000, &span), PP_OK);
    ck_assert_uint_eq(asked, 3);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

static int fork_and_ask(pp_pool *pool, size_t bytes, void *host)
{
    struct span span;
    (void) bytes;
    if (++*(unsigned *) host > 1)
        return 0;
    pid_t child = fork();
    if (child == 0) /* inside the answer still: not asked again, and no lock is in the way */
        _exit(take(pool, 70000, &span) == PP_E_NOMEM && *(unsigned *) host == 1 ? 0 : 1);
    int status;
    require(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}

START_TEST(a_host_may_fork_in_its_answer)
{
    unsigned asked = 0;
    pp_pool_options options = { .size = sizeof options, .limit_bytes = 65536, .error = &error,
                                .on_limit = fork_and_ask, .on_limit_host = &asked };
    pp_pool *pool;
    struct span span;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(take(pool, 60000, &span), PP_OK);
    ck_assert_int_eq(take(pool, 60000, &span), PP_E_NOMEM);
    ck_assert_uint_eq(asked, 1);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- JSON ------------------------------------------------------------- */

/* A parser that takes RFC 8259 and nothing else; NULL: it does not take this. */
static const char *parse_value(const char *at, unsigned depth);

static const char *parse_string(const char *at)
{
    if (*at++ != '"')
        return NULL;
    while (*at != '"') {
        if ((unsigned char) *at < 0x20)
            return NULL;
        if (*at++ != '\\')
            continue;
        if (*at == 'u') {
            for (unsigned i = 1; i <= 4; i++) {
                if (!isxdigit((unsigned char) at[i]))
                    return NULL;
            }
            at += 5;
        } else if (*at == '\0' || strchr("\"\\/bfnrt", *at++) == NULL) {
            return NULL;
        }
    }
    return at + 1;
}

static const char *parse_items(const char *at, char close, unsigned depth)
{
    if (*at == close)
        return at + 1;
    for (;; at++) {
        if (close == '}') {
            at = parse_string(at);
            if (at == NULL || *at++ != ':')
                return NULL;
        }
        at = parse_value(at, depth + 1);
        if (at == NULL || *at == close)
            return at == NULL ? NULL : at + 1;
        if (*at != ',')
            return NULL;
    }
}

static const char *parse_value(const char *at, unsigned depth)
{
    static const char *const words[] = { "true", "false", "null" };
    if (depth > 8)
        return NULL;
    if (*at == '{' || *at == '[')
        return parse_items(at + 1, *at == '{' ? '}' : ']', depth);
    if (*at == '"')
        return parse_string(at);
    for (unsigned i = 0; i < 3; i++) {
        if (strncmp(at, words[i], strlen(words[i])) == 0)
            return at + strlen(words[i]);
    }
    if (!isdigit((unsigned char) *at) || (*at == '0' && isdigit((unsigned char) at[1])))
        return NULL;
    while (isdigit((unsigned char) *at))
        at++;
    return at;
}

struct text {
    char bytes[65536];
    size_t size;
    size_t stop_at;     /* the call that fails; 0: none */
    size_t calls;
    pp_pool *pool;      /* NULL, or called in between */
};

static int collect(void *host, const char *bytes, size_t size)
{
    struct text *text = host;
    require(size > 0 && text->size + size < sizeof text->bytes);
    require(text->stop_at == 0 || text->calls < text->stop_at);
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
    text->bytes[text->size] = '\0';
    if (text->pool != NULL) {
        struct span span;
        require(take(text->pool, 100, &span) == PP_OK);
        require(pp_pool_verify(text->pool, NULL) == PP_OK);
        require(pool_free(text->pool, span.exec) == PP_OK);
    }
    return ++text->calls == text->stop_at;
}

static bool is_json(const char *text)
{
    const char *end = parse_value(text, 0);
    return end != NULL && strcmp(end, "\n") == 0;
}

START_TEST(a_dump_is_json)
{
    static struct text text, part;
    struct frame_rule record = { .kind = PP_FRAME_RECORD, .cfa_offset = 16 };
    char wanted[64];
    struct span span;
    pp_pool_options options = { .size = sizeof options, .name = "\"quoted\" name",
                                .unwinders = PP_UNWIND_LIBGCC, .error = &error };
    pp_pool *pool;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(take(pool, 777, &span), PP_OK);
    ck_assert_int_eq(take_with(pool, &record, 100, 16, &span), PP_OK);
    pool_note_fallback(pool, PP_FALLBACK_ISLAND, "a \"quote\", a \\, a \n, %s, %s, %s", "\xc3\xa4",
                       "\xff\xed\xa0\x80", "cut \xe2\x82");
    text.pool = pool;
    ck_assert_int_eq(pp_pool_dump(pool, collect, &text), PP_OK);
    ck_assert_msg(is_json(text.bytes), "%s", text.bytes);
    ck_assert_ptr_nonnull(strstr(text.bytes, "\"name\":\"\\u0022quoted\\u0022 name\""));
    ck_assert_ptr_nonnull(strstr(text.bytes, "\"requested\":877,"));
    ck_assert_ptr_nonnull(strstr(text.bytes, "a \\u0022quote\\u0022, a \\u005c, a \\u000a, \xc3\xa4, "
                                             "\\ufffd\\ufffd\\ufffd\\ufffd, cut \\ufffd\\ufffd"));
    snprintf(wanted, sizeof wanted, "\"base\":\"0x%zx\"", (size_t) span.region->base);
    ck_assert_ptr_nonnull(strstr(text.bytes, wanted));
    ck_assert_ptr_nonnull(strstr(text.bytes, "\"rule\":\"record cfa 16\""));
    if (getenv("DUMP") != NULL)
        printf("%s", text.bytes);
    /* The parser is not one that takes everything. */
    for (size_t i = 0; i < text.size - 1; i++) {
        char was = text.bytes[i];
        text.bytes[i] = '\0';
        require(!is_json(text.bytes));
        text.bytes[i] = was;
    }
    ck_assert_uint_gt(text.calls, 2);
    for (size_t stop = 1; stop <= text.calls; stop++) {
        part.size = part.calls = 0;
        part.stop_at = stop;
        ck_assert_int_eq(pp_pool_dump(pool, collect, &part), PP_E_FAULT);
        ck_assert_uint_eq(part.calls, stop);
    }
    ck_assert_int_eq(pp_pool_dump(pool, NULL, &text), PP_E_ARG);
    ck_assert_int_eq(pp_pool_dump(NULL, collect, &text), PP_E_ARG);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- threads ---------------------------------------------------------- */

static void *churn(void *argument)
{
    pp_pool *pool = argument;
    struct span span[16];
    for (unsigned round = 0; round < (is_emulated() ? 50 : 1000); round++) {
        for (unsigned i = 0; i < 16; i++)
            require(take(pool, 100 + 50 * i, &span[i]) == PP_OK);
        for (unsigned i = 0; i < 16; i++)
            require(pool_free(pool, span[i].exec) == PP_OK);
    }
    return NULL;
}

START_TEST(a_pool_may_be_looked_at_while_it_works)
{
    static struct text text;
    pthread_t threads[2];
    pp_region_info info = { .size = sizeof info };
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, churn, pool), 0);
    for (unsigned i = 0; i < (is_emulated() ? 5 : 50); i++) {
        text.size = 0;
        ck_assert_int_eq(pp_pool_dump(pool, collect, &text), PP_OK);
        ck_assert(is_json(text.bytes));
        ck_assert_int_eq(pp_pool_get_region(pool, 0, &info), PP_OK);
        verify(pool);
    }
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    pp_pool_stats stats = stats_of(pool);
    for (unsigned i = 0; i < PP_SIZE_CLASSES; i++)
        ck_assert_uint_eq(stats.classes[i].spans, 0);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stats");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 30);
    tcase_add_test(all, options_may_be_shorter_or_longer);
    tcase_add_test(all, stats_are_filled_in_as_far_as_they_go);
    tcase_add_test(all, wrong_options_are_refused);
    tcase_add_loop_test(all, mappings_have_the_name_of_the_pool, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_loop_test(all, size_classes_count_what_lives, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_test(all, regions_are_told_in_the_order_they_were_opened);
    tcase_add_test(all, fallbacks_are_counted_and_explained);
    tcase_add_test(all, bookkeeping_outside_of_jemalloc_says_why);
    tcase_add_test(all, a_smaller_region_says_why);
    tcase_add_loop_test(all, a_limit_asks_the_host, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_test(all, threads_ask_at_the_same_time);
    tcase_add_test(all, a_system_that_refuses_asks_the_host);
    tcase_add_test(all, a_host_may_fork_in_its_answer);
    tcase_add_test(all, a_dump_is_json);
    tcase_add_loop_test(all, a_pool_may_be_looked_at_while_it_works, PP_WX_DUAL, PP_WX_RWX + 1);
    suite_add_tcase(suite, all);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
