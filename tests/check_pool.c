/* SPDX-License-Identifier: MIT */
/* Pools: code written and run in every mode, and what a pool promises around it. */
#include <config.h>

#include "isa/isa.h"
#include "memory/fork.h"
#include "memory/pool.h"
#include "memory/state.h"
#include "sanitized.h"
#include "spans.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- the process's mappings ------------------------------------------- */

struct maps {
    unsigned count, in_range, writable_code;
    char text[65536];
};

static void read_maps(struct maps *maps, uintptr_t lo, uintptr_t hi)
{
    FILE *file = fopen("/proc/self/maps", "r");
    char line[512], before[8] = "";
    unsigned long long end = 0;
    size_t length = 0;
    require(file != NULL);
    memset(maps, 0, sizeof *maps);
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long long first, last;
        char protection[8] = "";
        require(sscanf(line, "%llx-%llx %7s", &first, &last, protection) == 3);
        maps->count++;
        /* qemu 10 lists what was ever protected on its own, however the kernel has merged it. */
        bool merged = is_emulated() && first == end && strcmp(protection, before) == 0;
        maps->in_range += first >= lo && last <= hi && !merged;
        end = last;
        strcpy(before, protection);
        maps->writable_code += protection[1] == 'w' && protection[2] == 'x';
        if (length + strlen(line) < sizeof maps->text) {
            strcpy(maps->text + length, line);
            length += strlen(line);
        }
    }
    fclose(file);
}

/* ---- every mode ------------------------------------------------------- */

START_TEST(code_runs_is_found_and_goes)
{
    static const struct owner_tag owners[2];
    static struct span span[500];
    static struct maps before, after;
    struct code_place place;
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    for (unsigned i = 0; i < 500; i++) {
        ck_assert_int_eq(take(pool, 40 + i, &span[i]), PP_OK);
        ck_assert_int_eq(write_return(&span[i], 1000 + i), PP_OK);
        if (i == 0)
            read_maps(&before, span[0].region->base, span[0].region->limit);
    }
    read_maps(&after, span[0].region->base, span[0].region->limit);
    ck_assert_uint_eq(after.in_range, before.in_range);
    ck_assert_uint_le(after.in_range, 6);
    for (unsigned i = 0; i < 500; i++) {
        require(run(&span[i]) == 1000 + i);
        require(code_at(span[i].exec + 20, &place));
        require(place.start == span[i].exec && place.size == 40 + i && place.owner == NULL);
        require(place.region == span[i].region && place.generation == span_generation(&span[i]));
        span_set_owner(&span[i], &owners[i % 2].owner);
        require(code_at(span[i].exec + 39, &place));
        require(place.owner == &owners[i % 2].owner);
    }
    verify(pool);
    pp_pool_stats stats = stats_of(pool);
    printf("mode %d: %d (%s), metadata %zu in %s\n", _i, stats.wx, stats.wx_reason, stats.metadata,
           stats.allocator);
    ck_assert_int_eq(stats.wx, _i == PP_WX_AUTO ? stats.wx : (pp_wx) _i);
    ck_assert_uint_eq(stats.spans, 500);
    ck_assert_uint_eq(stats.requested, 500 * 40 + 499 * 250);
    ck_assert_uint_ge(stats.used, stats.requested);
    ck_assert_uint_eq(stats.regions, 1);
    ck_assert_uint_eq(after.writable_code != 0, stats.wx == PP_WX_RWX);
    for (unsigned i = 0; i < 500; i += 2)
        ck_assert_int_eq(pool_free(pool, span[i].exec), PP_OK);
    for (unsigned i = 0; i < 500; i++)
        require(code_at(span[i].exec, &place) == (i % 2 == 1));
    for (unsigned i = 1; i < 500; i += 2)
        require(run(&span[i]) == 1000 + i);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(wrong_frees_are_refused)
{
    struct span a, b;
    pp_pool *pool = open_pool((pp_wx) _i), *other = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    ck_assert_int_eq(take(pool, 100, &a), PP_OK);
    ck_assert_int_eq(take(other, 100, &b), PP_OK);
    ck_assert_int_eq(write_return(&a, 7), PP_OK);
    ck_assert_int_eq(pool_free(pool, a.exec + 16), PP_E_STALE);
    ck_assert_int_eq(pool_free(pool, a.exec + 1), PP_E_STALE);
    ck_assert_int_eq(pool_free(pool, a.region->island_lo), PP_E_STALE);
    ck_assert_int_eq(pool_free(pool, a.region->code_hi - 16), PP_E_STALE);
    ck_assert_int_eq(pool_free(pool, a.region->literal_lo), PP_E_FAULT);
    ck_assert_int_eq(pool_free(pool, b.exec), PP_E_FAULT);
    ck_assert_int_eq(pool_free(pool, 0), PP_E_FAULT);
    ck_assert_int_eq(pool_free(pool, (uintptr_t) &pool), PP_E_FAULT);
    ck_assert_int_eq(pool_free(pool, UINTPTR_MAX), PP_E_FAULT);
    ck_assert_uint_eq(run(&a), 7);
    ck_assert_int_eq(pool_free(pool, a.exec), PP_OK);
    ck_assert_int_eq(pool_free(pool, a.exec), PP_E_STALE);
    verify(pool);
    verify(other);
    pp_pool_destroy(pool);
    pp_pool_destroy(other);
}
END_TEST

START_TEST(hostile_sizes_are_refused)
{
    static const size_t sizes[] = { 0, (size_t) 64 << 20, (size_t) 1 << 30, (size_t) 1 << 32,
                                    PTRDIFF_MAX, SIZE_MAX, SIZE_MAX - 15, SIZE_MAX - 65535 };
    static const size_t aligns[] = { 0, 1, 8, 17, 48, 131072, SIZE_MAX };
    struct span span;
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        ck_assert_int_eq(take(pool, sizes[i], &span), sizes[i] == 0 ? PP_E_ARG : PP_E_NOMEM);
    for (unsigned i = 0; i < sizeof aligns / sizeof *aligns; i++)
        ck_assert_int_eq(take_with(pool, &no_rule, 16, aligns[i], &span), PP_E_ARG);
    ck_assert_uint_eq(stats_of(pool).used, 0);
    ck_assert_int_eq(take(pool, 16, &span), PP_OK);
    uint8_t *write;
    struct region *region = span.region;
    ck_assert_int_eq(region_write_begin(region, span.exec, 0, &write, NULL), PP_E_ARG);
    ck_assert_int_eq(region_write_begin(region, region->code_hi - 16, 17, &write, NULL), PP_E_ARG);
    ck_assert_int_eq(region_write_begin(region, region->code_lo - 1, 1, &write, NULL), PP_E_ARG);
    ck_assert_int_eq(region_write_begin(region, span.exec, SIZE_MAX, &write, NULL), PP_E_ARG);
    for (size_t align = 16; align <= 65536; align *= 2) {
        ck_assert_int_eq(take_with(pool, &no_rule, 3, align, &span), PP_OK);
        ck_assert_uint_eq(span.exec % align, 0);
    }
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(shrunk_spans_give_back_their_tail)
{
    struct span span;
    struct code_place place;
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    ck_assert_int_eq(take(pool, 100000, &span), PP_OK);
    ck_assert_int_eq(write_return(&span, 5), PP_OK);
    pool_shrink(&span, 100);
    ck_assert_uint_eq(span.size, 100);
    pool_shrink(&span, 0);
    pool_shrink(&span, 101);
    ck_assert_uint_eq(span.size, 100);
    ck_assert_uint_eq(run(&span), 5);
    ck_assert(code_at(span.exec + 99, &place));
    ck_assert_uint_eq(place.size, 100);
    ck_assert(!code_at(span.exec + 99999, &place));
    ck_assert_uint_eq(stats_of(pool).requested, 100);
    verify(pool);
    ck_assert_int_eq(pool_free(pool, span.exec), PP_OK);
    ck_assert_uint_eq(stats_of(pool).used, 0);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(destroying_gives_everything_back)
{
    static struct maps before, after;
    for (unsigned round = 0; round < 3; round++) {
        /* The first round leaves what stays for the process: leaves of the code map, claims. */
        pp_pool *pool = open_pool((pp_wx) _i);
        struct span span;
        if (pool == NULL)
            return;
        for (unsigned i = 0; i < 100; i++) {
            ck_assert_int_eq(take(pool, 5000, &span), PP_OK);
            ck_assert_int_eq(write_return(&span, i), PP_OK);
        }
        pp_pool_destroy(pool);
        before = after;
        read_maps(&after, 0, 0);
    }
    if (strcmp(before.text, after.text) != 0 && !SANITIZED) {
        fprintf(stderr, "before:\n%safter:\n%s", before.text, after.text);
        ck_abort_msg("the mappings are not what they were");
    }
    pp_pool_destroy(NULL);
}
END_TEST

/* ---- density ---------------------------------------------------------- */

START_TEST(resident_is_exact_and_close_to_what_lives)
{
    struct span span;
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL || _i == PP_WX_FLIP)
        return;
    size_t page = (size_t) sysconf(_SC_PAGESIZE), sum = 0;
    ck_assert_uint_eq(stats_of(pool).resident, 0);
    uint64_t state = 99;
    for (unsigned i = 0; i < 2000; i++) {
        size_t size = 100 + next_random(&state) % 8000;
        require(take(pool, size, &span) == PP_OK);
        require(write_return(&span, i) == PP_OK);
        sum += (size + 15) & -(size_t) 16;
        if (i % 100 == 0) { /* what is asked for at once grows with what there is */
            ck_assert_uint_ge(stats_of(pool).resident, sum);
            ck_assert_uint_le(stats_of(pool).resident, sum + sum / 200 + page);
        }
    }
    pp_pool_stats stats = stats_of(pool);
    printf("resident %zu of %zu requested\n", stats.resident, stats.requested);
    ck_assert_uint_le(100 * stats.resident, 101 * stats.requested);
    verify(pool);
    region_trim(span.region, SIZE_MAX);
    ck_assert_uint_eq(stats_of(pool).resident, (sum + page - 1) & -page);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(trimming_gives_back_whole_pages_of_holes)
{
    static struct span span[64];
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    for (unsigned i = 0; i < 64; i++) {
        ck_assert_int_eq(take(pool, page, &span[i]), PP_OK);
        ck_assert_int_eq(write_return(&span[i], i), PP_OK);
    }
    size_t full = stats_of(pool).resident;
    for (unsigned i = 0; i < 64; i += 2)
        ck_assert_int_eq(pool_free(pool, span[i].exec), PP_OK);
    ck_assert_uint_eq(stats_of(pool).resident, full);
    ck_assert_uint_eq(region_trim(span[0].region, SIZE_MAX), 32 * page);
    ck_assert_uint_eq(stats_of(pool).resident, full - 32 * page);
    verify(pool);
    for (unsigned i = 0; i < 64; i += 2) {
        ck_assert_int_eq(take(pool, page, &span[i]), PP_OK);
        ck_assert_int_eq(write_return(&span[i], 100 + i), PP_OK);
    }
    for (unsigned i = 0; i < 64; i++)
        ck_assert_uint_eq(run(&span[i]), i % 2 == 0 ? 100 + i : i);
    ck_assert_uint_eq(stats_of(pool).resident, full);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- placement, rules ------------------------------------------------- */

static uint64_t farthest(const struct region *region, const void *anchor)
{
    uintptr_t at = (uintptr_t) anchor;
    uint64_t up = region->limit > at ? region->limit - at : 0;
    uint64_t down = at > region->base ? at - region->base : 0;
    return up > down ? up : down;
}

START_TEST(regions_go_near_the_anchors)
{
    const void *anchors[] = { (void *) farthest, (void *) strlen, (void *) pp_pool_create };
    for (unsigned i = 0; i < 3; i++) {
        pp_pool_options options = { .size = sizeof options, .near = { NULL, anchors[i] },
                                    .error = &error };
        pp_pool *pool;
        struct span span;
        ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
        ck_assert_int_eq(take(pool, 100, &span), PP_OK);
        uint64_t distance = farthest(span.region, anchors[i]);
        printf("anchor %p: region %p, %llu MiB\n", anchors[i], (void *) span.region->base,
               (unsigned long long) distance >> 20);
        ck_assert(span.region->near == (distance < isa_host.branch_range));
        ck_assert(span.region->near);
        ck_assert_uint_eq(stats_of(pool).near_regions, 1);
        ck_assert_uint_eq(span.region->base % (2 << 20), 0);
        pp_pool_destroy(pool);
    }
}
END_TEST

START_TEST(anchors_that_cannot_be_reached_together_give_a_far_region)
{
    pp_pool_options options = { .size = sizeof options, .error = &error,
                                .near = { (void *) 0x10000000, (void *) 0x700000000000 } };
    pp_pool *pool;
    struct span span;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_uint_eq(stats_of(pool).near_regions, 0);
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    ck_assert(!span.region->near);
    ck_assert_int_eq(write_return(&span, 3), PP_OK);
    ck_assert_uint_eq(run(&span), 3);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(what_libunwind_was_told_of_a_region_its_addresses_keep)
{
    struct frame_rule record = { .kind = PP_FRAME_RECORD, .cfa_offset = 16 };
    struct frame_rule leaf = { .kind = PP_FRAME_LEAF };
    struct span a, b, c;
    pp_pool *pool = open_telling(PP_WX_AUTO, PP_UNWIND_LIBUNWIND);
    ck_assert_int_eq(take_with(pool, &leaf, 100, 16, &a), PP_OK);
    ck_assert_int_eq(take_with(pool, &record, 100, 16, &b), PP_OK);
    ck_assert_int_eq(take_with(pool, &record, 100, 16, &c), PP_OK);
    ck_assert_ptr_ne(a.region, b.region);
    ck_assert_ptr_eq(b.region, c.region);
    ck_assert_uint_eq(stats_of(pool).regions, 2);
    ck_assert(b.region->near);
    uintptr_t was = a.region->base;
    pp_pool_destroy(pool);

    pool = open_telling(PP_WX_AUTO, PP_UNWIND_LIBUNWIND);
    ck_assert_int_eq(take_with(pool, &record, 100, 16, &b), PP_OK);
    ck_assert(b.region->limit <= was || b.region->base >= was + ((size_t) 64 << 20));
    /* Nor is it for code that nobody is told of, in whatever pool. */
    ck_assert_int_eq(take(pool, 100, &a), PP_OK);
    ck_assert(a.region->limit <= was || a.region->base >= was + ((size_t) 64 << 20));
    pp_pool *other = open_pool(PP_WX_AUTO);
    ck_assert_int_eq(take_with(other, &record, 100, 16, &c), PP_OK);
    ck_assert(c.region->limit <= was || c.region->base >= was + ((size_t) 64 << 20));
    pp_pool_destroy(other);
    ck_assert_int_eq(take_with(pool, &leaf, 100, 16, &a), PP_OK);
    ck_assert_uint_eq(a.region->base, was);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(rules_are_validated)
{
    struct frame_rule rule;
    pp_frame_rule from = { .size = sizeof from, .kind = PP_FRAME_RECORD };
    ck_assert_int_eq(frame_rule_from(NULL, &rule, NULL), PP_OK);
    ck_assert(frame_rule_equal(&rule, &no_rule));
    ck_assert_int_eq(frame_rule_from(&from, &rule, NULL), PP_OK);
    ck_assert_uint_eq(rule.cfa_offset, 16);
    pp_frame_rule wrong[] = {
        { .size = 0 },
        { .size = sizeof from, .kind = (pp_frame_kind) 9 },
        { .size = sizeof from, .kind = (pp_frame_kind) -1 },
        { .size = sizeof from, .kind = PP_FRAME_RECORD, .cfa_offset = 8 },
        { .size = sizeof from, .kind = PP_FRAME_RECORD, .cfa_offset = 20 },
        { .size = sizeof from, .kind = PP_FRAME_RECORD, .saves = { .reserved = 1 } },
        { .size = sizeof from, .kind = PP_FRAME_RECORD, .saves = { .saved = 1 } },
        { .size = sizeof from, .kind = PP_FRAME_RECORD, .saves = { .slots = 1, .offset = 4 } },
        { .size = sizeof from, .kind = PP_FRAME_RECORD, .saves = { .slots = 1, .offset = 8 } },
        { .size = sizeof from, .kind = PP_FRAME_RECORD, .saves = { .slots = 3, .offset = -8 } },
        { .size = sizeof from, .kind = PP_FRAME_OSR, .own = { .slots = 1, .offset = 0 } },
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_msg(frame_rule_from(&wrong[i], &rule, &error) == PP_E_ARG, "rule %u", i);
    from.saves = (pp_save_area){ .slots = 3, .saved = 1, .offset = -16 };
    ck_assert_int_eq(frame_rule_from(&from, &rule, NULL), PP_OK);
    ck_assert(!frame_rule_equal(&rule, &no_rule));
}
END_TEST

START_TEST(options_are_validated)
{
    pp_pool *pool;
    pp_pool_options wrong[] = {
        { .size = 8 },
        { .size = sizeof *wrong, .region_bytes = 1 << 20 },
        { .size = sizeof *wrong, .region_bytes = (2 << 20) + 65536 },
        { .size = sizeof *wrong, .region_bytes = (size_t) 2 << 30 },
        { .size = sizeof *wrong, .wx = (pp_wx) 5 },
        { .size = sizeof *wrong, .wx = (pp_wx) -1 },
        { .size = sizeof *wrong, .flags = 2 },
        { .size = sizeof *wrong, .near = { (void *) UINTPTR_MAX } },
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_msg(pp_pool_create(&wrong[i], &pool) == PP_E_ARG, "options %u", i);
    ck_assert_int_eq(pp_pool_create(NULL, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_pool_get_stats(NULL, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_pool_verify(NULL, NULL), PP_E_ARG);
    for (size_t bytes = (size_t) 2 << 20; bytes <= (size_t) 1 << 30; bytes *= 4) {
        pp_pool_options options = { .size = sizeof options, .region_bytes = bytes };
        ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
        verify(pool);
        pp_pool_destroy(pool);
    }
}
END_TEST

/* ---- limits ----------------------------------------------------------- */

START_TEST(the_limit_of_a_pool_holds)
{
    pp_pool_options options = { .size = sizeof options, .limit_bytes = 10000, .error = &error };
    pp_pool *pool;
    struct span span;
    unsigned count = 0;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    while (take(pool, 1000, &span) == PP_OK)
        count++;
    ck_assert_uint_eq(count, 9);
    ck_assert_uint_eq(stats_of(pool).regions, 1);
    ck_assert_int_eq(pool_free(pool, span.exec), PP_OK);
    ck_assert_int_eq(take(pool, 1001, &span), PP_OK);
    ck_assert_int_eq(take(pool, 1001, &span), PP_E_NOMEM);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(full_regions_are_followed_by_others)
{
    pp_pool_options options = { .size = sizeof options, .region_bytes = 2 << 20, .error = &error };
    pp_pool *pool;
    struct span span;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    for (unsigned i = 0; i < 40; i++) {
        ck_assert_int_eq(take(pool, 300000, &span), PP_OK);
        ck_assert_int_eq(write_return(&span, i), PP_OK);
        ck_assert_uint_eq(run(&span), i);
    }
    ck_assert_uint_ge(stats_of(pool).regions, 8);
    ck_assert_int_eq(take(pool, (2 << 20) - 65536, &span), PP_E_NOMEM);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

static void set_limit(int resource, rlim_t value)
{
    struct rlimit limit;
    ck_assert_int_eq(getrlimit((__rlimit_resource_t) resource, &limit), 0);
    limit.rlim_cur = value;
    ck_assert_int_eq(setrlimit((__rlimit_resource_t) resource, &limit), 0);
}

static void check_that_it_works(pp_pool *pool)
{
    struct span span;
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    ck_assert_int_eq(write_return(&span, 77), PP_OK);
    ck_assert_uint_eq(run(&span), 77);
    verify(pool);
    pp_pool_destroy(pool);
}

START_TEST(a_file_size_limit_does_not_kill)
{
    set_limit(RLIMIT_FSIZE, (rlim_t) 20 << 20);
    pp_pool *pool = open_pool(PP_WX_AUTO);
    ck_assert_uint_eq(stats_of(pool).reserved, 16 << 20);
    ck_assert_int_ne(stats_of(pool).wx, PP_WX_FLIP);
    check_that_it_works(pool);
    set_limit(RLIMIT_FSIZE, 100000);
    pool = open_pool(PP_WX_AUTO);
    printf("%s\n", stats_of(pool).wx_reason);
    ck_assert_int_eq(stats_of(pool).wx, PP_WX_FLIP);
    ck_assert_ptr_nonnull(strstr(stats_of(pool).wx_reason, "RLIMIT_FSIZE"));
    check_that_it_works(pool);
    pp_pool_options options = { .size = sizeof options, .wx = PP_WX_DUAL, .error = &error };
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_NOMEM);
    ck_assert_int_eq(error.system_errno, EFBIG);
}
END_TEST

START_TEST(little_address_space_gives_a_smaller_region)
{
    static struct maps maps;
    size_t used = 0;
    if (is_emulated() || SANITIZED)
        return;
    FILE *file = fopen("/proc/self/statm", "r");
    ck_assert_int_eq(fscanf(file, "%zu", &used), 1);
    fclose(file);
    used *= (size_t) sysconf(_SC_PAGESIZE);
    set_limit(RLIMIT_AS, used + ((size_t) 45 << 20));
    pp_pool *pool = open_pool(PP_WX_AUTO);
    ck_assert_uint_lt(stats_of(pool).reserved, 64 << 20);
    ck_assert_uint_ge(stats_of(pool).reserved, 8 << 20);
    check_that_it_works(pool);
    set_limit(RLIMIT_AS, used + ((size_t) 1 << 20));
    read_maps(&maps, 0, 0);
    unsigned before = maps.count;
    pp_pool_options options = { .size = sizeof options, .error = &error };
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_NOMEM);
    ck_assert_str_eq(error.system_call, "mmap");
    read_maps(&maps, 0, 0);
    ck_assert_uint_eq(maps.count, before);
}
END_TEST

START_TEST(no_descriptors_is_a_reason_to_flip)
{
    int next = dup(0);
    close(next);
    for (rlim_t spare = 0; spare < 2; spare++) { /* the maps can be read, or they cannot */
        set_limit(RLIMIT_NOFILE, (rlim_t) next + spare);
        pp_pool *pool = open_pool(PP_WX_AUTO);
        if (spare == 0)
            ck_assert_int_eq(stats_of(pool).wx, PP_WX_FLIP);
        check_that_it_works(pool);
    }
}
END_TEST

/*
 * DUAL asks for memory through its write view and goes on, where the kernel can do
 * that; what needs the descriptor is refused, and nobody else's is touched.
 */
START_TEST(a_host_that_closes_all_descriptors_loses_nothing)
{
    struct span span, more;
    pp_pool *pool = open_pool(PP_WX_AUTO);
    if (stats_of(pool).wx == PP_WX_FLIP)
        return;
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    ck_assert_int_eq(write_return(&span, 5), PP_OK);
    int fd = span.region->memfd.fd;
    close(fd);
    int reused = memfd_create("somebody else's", 0);
    ck_assert_int_eq(reused, fd);
    ck_assert_int_eq(ftruncate(reused, 4096), 0);
    ck_assert_uint_eq(run(&span), 5);
    ck_assert_int_eq(take(pool, 100000, &more), PP_OK);
    ck_assert_int_eq(write_return(&more, 6), PP_OK);
    ck_assert_uint_eq(run(&more), 6);
    verify(pool);
    ck_assert_int_eq(pool_free(pool, more.exec), PP_OK);
    region_trim(more.region, SIZE_MAX);
    verify(pool);
    ck_assert_uint_eq(run(&span), 5);
    ck_assert_uint_eq(stats_of(pool).spans, 1);
    pp_pool_destroy(pool);
    struct stat status;
    ck_assert_int_eq(fstat(reused, &status), 0);
    ck_assert_int_eq(status.st_size, 4096);
    ck_assert_int_eq(status.st_blocks, 0);
    ck_assert_int_eq(close(reused), 0);
}
END_TEST

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif

START_TEST(dual_works_where_executable_memory_may_not_be_made)
{
    if (prctl(PR_SET_MDWE, 1, 0, 0, 0) != 0) {
        printf("PR_SET_MDWE is skipped: %s\n", strerror(errno));
        return;
    }
    pp_pool *pool = open_pool(PP_WX_DUAL);
    if (pool != NULL)
        check_that_it_works(pool);
    pp_pool_options options = { .size = sizeof options, .wx = PP_WX_FLIP, .error = &error };
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_SYSTEM);
    ck_assert_str_eq(error.system_call, "mprotect");
}
END_TEST

/* ---- verification ----------------------------------------------------- */

START_TEST(damage_is_found)
{
    struct span a, b;
    pp_pool *pool = open_pool(PP_WX_AUTO);
    ck_assert_int_eq(take(pool, 64, &a), PP_OK);
    ck_assert_int_eq(take(pool, 64, &b), PP_OK);
    ck_assert_int_eq(write_return(&a, 1), PP_OK);
    ck_assert_int_eq(write_return(&b, 1), PP_OK);
    ck_assert_int_eq(pool_free(pool, a.exec), PP_OK);
    verify(pool);
    struct region *region = b.region;
    region->spans.used += 16;
    ck_assert_int_eq(pp_pool_verify(pool, &error), PP_E_FAULT);
    region->spans.used -= 16;
    region->spans.holes.filled[0] ^= 2;
    ck_assert_int_eq(pp_pool_verify(pool, &error), PP_E_FAULT);
    region->spans.holes.filled[0] ^= 2;
    verify(pool);
    if (region->wx != PP_WX_FLIP) {
        uint8_t *hole = (uint8_t *) (a.exec + (uintptr_t) region->write_delta);
        uint8_t was = hole[32];
        hole[32] = 0x90;
        ck_assert_int_eq(pp_pool_verify(pool, &error), PP_E_FAULT);
        printf("%s\n", error.text);
        hole[32] = was;
        atomic_fetch_xor(&region->backed[0], 1ull << 20);
        ck_assert_int_eq(pp_pool_verify(pool, &error), PP_E_FAULT);
        atomic_fetch_xor(&region->backed[0], 1ull << 20);
    }
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- threads ---------------------------------------------------------- */

#define SLOTS 64

struct worker {
    pp_pool *pool;
    uint64_t state;
    unsigned rounds;
};

/* Spans come and go, and run in between; those of other threads share their pages. */
static void *work(void *argument)
{
    struct worker *worker = argument;
    struct span span[SLOTS] = { { 0 } };
    unsigned value[SLOTS] = { 0 };
    for (unsigned i = 0; i < worker->rounds; i++) {
        unsigned slot = next_random(&worker->state) % SLOTS;
        if (span[slot].exec == 0) {
            size_t size = 32 + next_random(&worker->state) % 3000;
            require(take_with(worker->pool, &no_rule, size, 16, &span[slot]) == PP_OK);
            value[slot] = (unsigned) next_random(&worker->state) & 0xffff;
            require(write_return(&span[slot], value[slot]) == PP_OK);
        }
        require(run(&span[slot]) == value[slot]);
        struct code_place place;
        require(code_at(span[slot].exec + 8, &place) && place.start == span[slot].exec);
        if (next_random(&worker->state) % 2 == 0) {
            require(pool_free(worker->pool, span[slot].exec) == PP_OK);
            span[slot].exec = 0;
        }
    }
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        if (span[slot].exec != 0)
            require(pool_free(worker->pool, span[slot].exec) == PP_OK);
    }
    return NULL;
}

START_TEST(threads_share_a_pool)
{
    pthread_t threads[4];
    struct worker workers[4];
    unsigned first = seed();
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    for (unsigned i = 0; i < 4; i++) {
        workers[i] = (struct worker){ pool, (first + i) * 0x9e3779b97f4a7c15u + 1,
                                      is_emulated() || _i == PP_WX_FLIP ? 1000 : 20000 };
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(stats_of(pool).spans, 0);
    ck_assert_uint_eq(stats_of(pool).used, 0);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- fork ------------------------------------------------------------- */

static int wait_for(pid_t child)
{
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return status;
}

static void child_of_parent_with(pp_pool *pool, const struct span *inherited)
{
    struct span own;
    pp_error reason = { .size = sizeof reason };
    uint8_t *write;
    require(run(inherited) == 1);
    require(inherited->region->inherited);
    require(region_write_begin(inherited->region, inherited->exec, 8, &write, &reason) ==
            PP_E_UNSUPPORTED);
    require(take(pool, 64, &own) == PP_OK);
    require(own.region != inherited->region && !own.region->inherited);
    require(write_return(&own, 2) == PP_OK && run(&own) == 2);
    require(pool_free(pool, inherited->exec) == PP_OK);
    require(pool_free(pool, inherited->exec) == PP_E_STALE);
    require(run(inherited) == 1);
    require(pp_pool_verify(pool, NULL) == PP_OK);
    pp_pool_destroy(pool);
}

START_TEST(a_child_runs_what_it_inherited_and_writes_its_own)
{
    struct span span;
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    ck_assert_int_eq(take(pool, 64, &span), PP_OK);
    ck_assert_int_eq(write_return(&span, 1), PP_OK);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        child_of_parent_with(pool, &span);
        _exit(0);
    }
    ck_assert_int_eq(wait_for(child), 0);
    ck_assert_uint_eq(run(&span), 1);
    ck_assert_int_eq(pool_free(pool, span.exec), PP_OK);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* The parent frees and allocates while the child runs what was freed. */
START_TEST(a_parent_leaves_alone_what_a_child_may_run)
{
    struct span span, other;
    int to_child[2], to_parent[2];
    char byte = 'x';
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    ck_assert_int_eq(take(pool, 64, &span), PP_OK);
    ck_assert_int_eq(write_return(&span, 1), PP_OK);
    ck_assert_int_eq(pipe(to_child), 0);
    ck_assert_int_eq(pipe(to_parent), 0);
    ck_assert(!fork_has_children());
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        require(read(to_child[0], &byte, 1) == 1);
        require(run(&span) == 1);
        require(write(to_parent[1], &byte, 1) == 1);
        require(read(to_child[0], &byte, 1) == 1);
        _exit(0);
    }
    pp_wx wx = stats_of(pool).wx; /* where pages are private there is nobody to look for */
    ck_assert_int_eq(fork_has_children(), wx == PP_WX_DUAL || wx == PP_WX_REMAP);
    ck_assert_int_eq(pool_free(pool, span.exec), PP_OK);
    ck_assert_int_eq(pool_free(pool, span.exec), PP_E_STALE);
    ck_assert_int_eq(take(pool, 64, &other), PP_OK);
    ck_assert_int_eq(write_return(&other, 9), PP_OK);
    verify(pool);
    ck_assert_int_eq(write(to_child[1], &byte, 1), 1);
    ck_assert_int_eq(read(to_parent[0], &byte, 1), 1);
    ck_assert_int_eq(write(to_child[1], &byte, 1), 1);
    ck_assert_int_eq(wait_for(child), 0);
    ck_assert(!fork_has_children());
    size_t longest = stats_of(pool).largest_hole;
    ck_assert_int_eq(pool_free(pool, other.exec), PP_OK);
    ck_assert_uint_ge(stats_of(pool).largest_hole, longest);
    ck_assert_int_eq(take(pool, 64, &other), PP_OK);
    ck_assert_uint_eq(other.exec, span.exec);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(forks_in_a_storm_of_allocations)
{
    pthread_t threads[3];
    struct worker workers[3];
    struct span span;
    unsigned first = seed(), forks = is_emulated() ? 5 : 40;
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    ck_assert_int_eq(take(pool, 64, &span), PP_OK);
    ck_assert_int_eq(write_return(&span, 1), PP_OK);
    for (unsigned i = 0; i < 3; i++) {
        workers[i] = (struct worker){ pool, (first + i) * 0x9e3779b97f4a7c15u + 1,
                                      is_emulated() || _i == PP_WX_FLIP ? 1000 : 20000 };
        ck_assert_int_eq(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    fflush(NULL);
    for (unsigned i = 0; i < forks; i++) {
        pid_t child = fork();
        if (child == 0) {
            child_of_parent_with(pool, &span);
            _exit(0);
        }
        ck_assert_int_eq(wait_for(child), 0);
    }
    for (unsigned i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(run(&span), 1);
    ck_assert_int_eq(pool_free(pool, span.exec), PP_OK);
    ck_assert_uint_eq(stats_of(pool).spans, 0);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *modes = tcase_create("modes");
    tcase_set_timeout(modes, 30);
    tcase_add_loop_test(modes, code_runs_is_found_and_goes, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(modes, wrong_frees_are_refused, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(modes, hostile_sizes_are_refused, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(modes, shrunk_spans_give_back_their_tail, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(modes, destroying_gives_everything_back, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(modes, resident_is_exact_and_close_to_what_lives, PP_WX_AUTO,
                        PP_WX_RWX + 1);
    tcase_add_loop_test(modes, trimming_gives_back_whole_pages_of_holes, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(modes, threads_share_a_pool, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(modes, a_child_runs_what_it_inherited_and_writes_its_own, PP_WX_AUTO,
                        PP_WX_RWX + 1);
    tcase_add_loop_test(modes, a_parent_leaves_alone_what_a_child_may_run, PP_WX_AUTO,
                        PP_WX_RWX + 1);
    tcase_add_loop_test(modes, forks_in_a_storm_of_allocations, PP_WX_AUTO, PP_WX_RWX + 1);
    suite_add_tcase(suite, modes);

    TCase *rest = tcase_create("rest");
    tcase_set_timeout(rest, 30);
    tcase_add_test(rest, regions_go_near_the_anchors);
    tcase_add_test(rest, anchors_that_cannot_be_reached_together_give_a_far_region);
    tcase_add_test(rest, what_libunwind_was_told_of_a_region_its_addresses_keep);
    tcase_add_test(rest, rules_are_validated);
    tcase_add_test(rest, options_are_validated);
    tcase_add_test(rest, the_limit_of_a_pool_holds);
    tcase_add_test(rest, full_regions_are_followed_by_others);
    tcase_add_test(rest, a_file_size_limit_does_not_kill);
    tcase_add_test(rest, little_address_space_gives_a_smaller_region);
    tcase_add_test(rest, no_descriptors_is_a_reason_to_flip);
    tcase_add_test(rest, a_host_that_closes_all_descriptors_loses_nothing);
    tcase_add_test(rest, dual_works_where_executable_memory_may_not_be_made);
    tcase_add_test(rest, damage_is_found);
    suite_add_tcase(suite, rest);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
