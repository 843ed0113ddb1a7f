/* SPDX-License-Identifier: MIT */
/* Every invariant that pp_pool_verify checks is broken on purpose, and found. */
#include <config.h>

#include "memory/code_map.h"
#include "memory/state.h"
#include "os/map.h"
#include "os/maps.h"
#include "sanitized.h"
#include "spans.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct frame_rule record = { .kind = PP_FRAME_RECORD, .cfa_offset = 16 };

static void expect_broken(pp_pool *pool, const char *what)
{
    error.text[0] = '\0';
    ck_assert_msg(pp_pool_verify(pool, &error) == PP_E_FAULT, "not found: %s", what);
    ck_assert_msg(strstr(error.text, what) != NULL, "not \"%s\" but \"%s\"", what, error.text);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_E_FAULT);
}

/* Two regions and some spans; the regions by what is told of them. */
static pp_pool *open_two(pp_wx wx, struct region **none, struct region **other)
{
    pp_pool *pool = open_telling(wx, PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND);
    struct span span;
    if (pool == NULL)
        return NULL;
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_int_eq(take(pool, 100 + 300 * i, &span), PP_OK);
        ck_assert_int_eq(write_return(&span, i), PP_OK);
        if (i % 3 == 0)
            ck_assert_int_eq(pool_free(pool, span.exec), PP_OK);
    }
    *none = span.region;
    ck_assert_int_eq(take_with(pool, &record, 100, 16, &span), PP_OK);
    ck_assert_int_eq(write_return(&span, 1), PP_OK);
    *other = span.region;
    verify(pool);
    return pool;
}

START_TEST(bookkeeping_of_spans)
{
    struct region *region, *other;
    pp_pool *pool = open_two((pp_wx) _i, &region, &other);
    if (pool == NULL)
        return;
    size_t *counts[] = { &region->spans.used, &region->spans.requested, &region->spans.spans };
    for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
        ++*counts[i];
        expect_broken(pool, "totals of live spans");
        --*counts[i];
    }
    for (unsigned i = 0; i < PP_SIZE_CLASSES; i++) {
        struct size_class *class = &region->spans.classes.of[i];
        size_t *members[] = { &class->spans, &class->requested, &class->used, &class->holes,
                              &class->hole_bytes };
        for (unsigned j = 0; j < sizeof members / sizeof *members; j++) {
            ++*members[j];
            expect_broken(pool, "size class");
            --*members[j];
        }
    }
    struct span span;
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    ck_assert_ptr_eq(span.region, region);
    size_t unit = (span.exec - region->code_lo) >> region->spans.shift;
    uint32_t *births = extents_births(&region->spans.extents, unit_bucket((uint32_t) unit));
    uint32_t were = *births;
    *births = 0;
    expect_broken(pool, "a generation that its bucket never gave");
    *births = SPAN_GENERATION_MAX - region->spans.floor + 1;
    expect_broken(pool, "more spans than there are generations");
    *births = SPAN_GENERATION_MAX - region->spans.floor;
    expect_broken(pool, "closed buckets");
    *births = were;
    region->spans.closed = 1;
    expect_broken(pool, "closed buckets");
    region->spans.closed = 0;
    size_t room = atomic_load(&region->room);
    atomic_store(&region->room, 16);
    expect_broken(pool, "longer hole");
    atomic_store(&region->room, room);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(bounds_of_regions)
{
    struct region *region, *other;
    pp_pool *pool = open_two((pp_wx) _i, &region, &other);
    if (pool == NULL)
        return;
    struct { uintptr_t *bound; uintptr_t value; const char *what; } wrong[] = {
        { &region->island_lo, region->island_lo + 4096, "64 KiB" },
        { &region->base, region->base + 65536, "2 MiB" },
        { &region->limit, region->limit + 65536, "2 MiB" },
        { &region->limit, region->base, "order" },
        { &region->island_hi, region->code_hi + 65536, "order" },
        { &region->code_lo, region->base, "guard" },
        { &region->literal_lo, region->code_hi, "guard" },
        { &region->literal_hi, region->limit, "guard" },
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uintptr_t was = *wrong[i].bound;
        *wrong[i].bound = wrong[i].value;
        expect_broken(pool, wrong[i].what);
        *wrong[i].bound = was;
    }
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(places_of_regions)
{
    struct region *region, *other;
    pp_pool *pool = open_two((pp_wx) _i, &region, &other), *second = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    region->near = !region->near;
    expect_broken(pool, "near");
    region->near = !region->near;

    region->pool = second;
    expect_broken(pool, "another pool");
    region->pool = pool;

    code_map_retract(region);
    expect_broken(pool, "not in the code map");
    code_map_publish(region);
    verify(pool);
    code_map_publish(other); /* which it is; and one slot of its neighbour is lost */
    struct region part = *region;
    part.base = region->limit - CODE_MAP_SLOT;
    code_map_retract(&part);
    expect_broken(pool, "not in the code map");
    code_map_publish(region);
    verify(pool);

    ck_assert_ptr_nonnull(second->spare);
    ck_assert(code_map_prepare(second->spare));
    code_map_publish(second->spare);
    expect_broken(second, "spare");
    code_map_retract(second->spare);
    verify(second);

    ck_assert_int_eq(region->claim.kind, PP_FRAME_NONE);
    region->claim = other->claim;
    expect_broken(pool, "claimed");
    region->claim.kind = PP_FRAME_NONE;
    other->claim.kind = PP_FRAME_LEAF;
    expect_broken(pool, "claimed");
    other->claim.kind = PP_FRAME_RECORD;

    struct { uintptr_t base, limit; } was = { other->base, other->limit };
    other->base = region->base;
    other->limit = region->limit;
    expect_broken(pool, "overlaps");
    other->base = was.base;
    other->limit = was.limit;
    verify(pool);
    pp_pool_destroy(pool);
    pp_pool_destroy(second);
}
END_TEST

START_TEST(the_account_of_the_limit)
{
    pp_pool_options options = { .size = sizeof options, .limit_bytes = 1 << 20 };
    struct span span;
    pp_pool *pool;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    verify(pool);
    atomic_fetch_sub(&pool->used, 1);
    expect_broken(pool, "counted against the limit");
    atomic_fetch_add(&pool->used, 2);
    expect_broken(pool, "counted against the limit");
    /* Unless a thread is about to take the byte, however long that takes. */
    atomic_fetch_add(&pool->counting, 1);
    verify(pool);
    atomic_fetch_sub(&pool->counting, 1);
    atomic_fetch_sub(&pool->used, 1);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

static void protect(uintptr_t at, int rights)
{
    ck_assert_int_eq(mprotect((void *) at, map_page_size(), rights), 0);
}

/* One page has other rights for a while. */
static void expect_rights(pp_pool *pool, uintptr_t at, int right, int wrong, const char *what)
{
    protect(at, wrong);
    expect_broken(pool, what);
    protect(at, right);
    verify(pool);
}

START_TEST(mappings_of_regions)
{
    struct region *region, *other;
    pp_pool *pool = open_two((pp_wx) _i, &region, &other);
    size_t page = map_page_size();
    int code = _i == PP_WX_RWX ? PROT_READ | PROT_WRITE | PROT_EXEC : PROT_READ | PROT_EXEC;
    if (pool == NULL)
        return;
    for (unsigned i = 0; i < 2; i++, region = other) {
        expect_rights(pool, region->base, PROT_NONE, PROT_READ, "guard below");
        expect_rights(pool, region->code_lo - page, PROT_NONE, PROT_READ | PROT_WRITE, "guard below");
        expect_rights(pool, region->code_hi, PROT_NONE, PROT_READ, "guard behind the code");
        expect_rights(pool, region->literal_hi, PROT_NONE, PROT_READ, "guard behind the literals");
        expect_rights(pool, region->limit - page, PROT_NONE, PROT_READ, "guard behind the literals");
        expect_rights(pool, region->literal_lo + page, PROT_READ | PROT_WRITE, PROT_READ, "literals");
        /* Emulators do not tell what cannot be executed from what can. */
        expect_rights(pool, region->code_hi - page, code, is_emulated() ? PROT_NONE : PROT_READ,
                      "the code");
    }
    region = other;
    ck_assert_int_eq(map_unmap(region->literal_hi, page), 0);
    expect_broken(pool, "guard behind the literals");
    ck_assert_int_eq(map_reserve(region->literal_hi, page), 0);
    verify(pool);
    if (_i == PP_WX_DUAL || _i == PP_WX_REMAP) {
        uintptr_t write = region->code_lo + (uintptr_t) region->write_delta;
        expect_rights(pool, write, PROT_READ | PROT_WRITE, PROT_READ, "write view");
        /* The right file at the wrong place, and another file. */
        uintptr_t at = region->code_hi - page;
        for (unsigned i = 0; i < 2; i++) {
            int fd = i == 0 ? region->memfd.fd : memfd_create("other", MFD_CLOEXEC);
            ck_assert(i == 0 || ftruncate(fd, (off_t) (region->code_hi - region->code_lo)) == 0);
            ck_assert_int_eq(map_shared(fd, i == 0 ? 0 : at - region->code_lo, &at, page,
                                        MAP_READ_EXEC), 0);
            expect_broken(pool, "the code");
            ck_assert_int_eq(map_shared(region->memfd.fd, at - region->code_lo, &at, page,
                                        MAP_READ_EXEC), 0);
            verify(pool);
        }
    }
    pp_pool_destroy(pool);
}
END_TEST

/* ---- the number of mappings -------------------------------------------- */

struct tally {
    const struct region *region;
    unsigned inside, views;
};

static void see_tally(const struct maps_line *line, void *context)
{
    struct tally *tally = context;
    const struct region *region = tally->region;
    uintptr_t view = region->code_lo + (uintptr_t) region->write_delta;
    tally->inside += line->lo < region->limit && line->hi > region->base;
    tally->views += region->write_delta != 0 && line->lo < view + (region->code_hi - region->code_lo) &&
                    line->hi > view;
}

START_TEST(the_number_of_mappings_is_constant)
{
    enum { SPANS = 4000 };
    static struct span spans[SPANS];
    uint64_t state = seed() * 0x9e3779b97f4a7c15u + 1;
    unsigned rounds = is_emulated() || _i == PP_WX_FLIP ? 2000 : 20000;
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    struct region *region = NULL;
    for (unsigned round = 0; round < rounds; round++) {
        struct span *span = &spans[next_random(&state) % SPANS];
        if (span->exec != 0) {
            require(pool_free(pool, span->exec) == PP_OK);
            span->exec = 0;
        } else {
            require(take(pool, 16 + next_random(&state) % 3000, span) == PP_OK);
            require(write_return(span, round) == PP_OK);
            region = span->region;
        }
    }
    verify(pool);
    struct tally tally = { .region = region };
    ck_assert_int_eq(maps_read(see_tally, &tally), 0);
    if (!is_emulated()) {
        ck_assert_uint_eq(tally.inside, 5);
        ck_assert_uint_eq(tally.views, _i == PP_WX_DUAL || _i == PP_WX_REMAP);
    }
    pp_pool_destroy(pool);
}
END_TEST

/* ---- no false alarms --------------------------------------------------- */

struct churner {
    pthread_t thread;
    pp_pool *pool;
    unsigned rounds;
};

static void *churn(void *argument)
{
    struct churner *churner = argument;
    struct span span[8];
    for (unsigned round = 0; round < churner->rounds; round++) {
        for (unsigned i = 0; i < 8; i++) {
            require(take(churner->pool, 100 + 1000 * i, &span[i]) == PP_OK);
            require(write_return(&span[i], i) == PP_OK);
        }
        for (unsigned i = 0; i < 8; i++)
            require(pool_free(churner->pool, span[i].exec) == PP_OK);
    }
    return NULL;
}

START_TEST(a_pool_at_work_is_whole)
{
    struct churner churners[3];
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    for (unsigned i = 0; i < 3; i++) {
        churners[i] = (struct churner){ .pool = pool, .rounds = is_emulated() ? 30 : 500 };
        ck_assert_int_eq(pthread_create(&churners[i].thread, NULL, churn, &churners[i]), 0);
    }
    for (unsigned i = 0; i < (is_emulated() ? 5 : 40); i++) {
        verify(pool);
        /* A child has none of the others' threads; what they were at is not there either. */
        if (i % 8 == 0) {
            int status;
            pid_t child = fork();
            if (child == 0) {
                struct span span;
                _exit(pp_pool_verify(pool, &error) == PP_OK && take(pool, 100, &span) == PP_OK &&
                              pp_pool_verify(pool, &error) == PP_OK ? 0 : 1);
            }
            ck_assert_int_eq(waitpid(child, &status, 0), child);
            ck_assert_int_eq(status, 0);
        }
    }
    for (unsigned i = 0; i < 3; i++)
        pthread_join(churners[i].thread, NULL);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- everything is given back ------------------------------------------ */

struct listing {
    char text[131072];
    size_t size;
};

static void see_listing(const struct maps_line *line, void *context)
{
    struct listing *listing = context;
    int size = snprintf(listing->text + listing->size, sizeof listing->text - listing->size,
                        "%zx-%zx %d%d%d%d %s\n", (size_t) line->lo, (size_t) line->hi, line->read,
                        line->write, line->execute, line->shared, line->name);
    require(size > 0 && listing->size + (size_t) size < sizeof listing->text);
    listing->size += (size_t) size;
}

static void use_and_destroy(pp_wx wx, unsigned rules)
{
    pp_pool *pool = open_telling(wx, rules % 2 == 0 ? PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND : 0);
    struct span span[40];
    for (unsigned i = 0; i < 40; i++) {
        struct frame_rule rule = record;
        rule.saves = (pp_save_area){ .slots = 1, .offset = -8 * (1 + (int) (i % rules)) };
        ck_assert_int_eq(take_with(pool, &rule, 1 + 977 * i, 16, &span[i]), PP_OK);
        ck_assert_int_eq(write_return(&span[i], i), PP_OK);
    }
    for (unsigned i = 0; i < 40; i += 2)
        ck_assert_int_eq(pool_free(pool, span[i].exec), PP_OK);
    verify(pool);
    pp_pool_destroy(pool);
    /* Of the pool's own memory, which is gone last. */
    ck_assert_uint_eq(meta_unreturned(), 0);
}

START_TEST(a_hundred_pools_leave_nothing)
{
    static struct listing before, after;
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    pp_pool_destroy(pool);
    unsigned rounds = is_emulated() ? 10 : 100;
    for (unsigned round = 0; round < rounds; round++) {
        use_and_destroy((pp_wx) _i, 1 + round % 3);
        /* What stays for the process (leaves of the code map, claims) is there by then. */
        if (round == rounds / 4)
            ck_assert_int_eq(maps_read(see_listing, &before), 0);
    }
    ck_assert_int_eq(maps_read(see_listing, &after), 0);
    if (strcmp(before.text, after.text) != 0 && !SANITIZED) {
        size_t i = 0;
        while (before.text[i] == after.text[i])
            i++;
        ck_abort_msg("the mappings are not what they were:\n%.200s\nand then\n%.200s",
                     before.text + (i < 40 ? 0 : i - 40), after.text + (i < 40 ? 0 : i - 40));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("verify");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 30);
    tcase_add_loop_test(all, bookkeeping_of_spans, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_loop_test(all, bounds_of_regions, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_loop_test(all, places_of_regions, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_test(all, the_account_of_the_limit);
    tcase_add_loop_test(all, mappings_of_regions, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_loop_test(all, the_number_of_mappings_is_constant, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_loop_test(all, a_pool_at_work_is_whole, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_loop_test(all, a_hundred_pools_leave_nothing, PP_WX_DUAL, PP_WX_RWX + 1);
    suite_add_tcase(suite, all);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
