/* SPDX-License-Identifier: MIT */
/* Regions: publication in batches, memory behind pages, threads that meet. */
#include <config.h>

#include "memory/state.h"
#include "os/processors.h"
#include "spans.h"

#include <patchpoint/fault.h>

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

static void begin_return(const struct span *span, unsigned value)
{
    uint8_t *write;
    pp_status status = region_write_begin(span->region, span->exec, span->size, &write, &error);
    ck_assert_msg(status == PP_OK, "%s", error.text);
    encode_return(write, value);
}

static size_t barriers(pp_pool *pool)
{
    return atomic_load(&pool->barriers);
}

#define BATCH 40

#if defined __aarch64__
enum { BARRIERS = 1 }; /* of a publication */
#else
enum { BARRIERS = 0 };
#endif

START_TEST(a_batch_is_published_at_once)
{
    struct span span[BATCH];
    pp_pool *pool = open_telling((pp_wx) _i, PP_UNWIND_LIBGCC);
    if (pool == NULL)
        return;
    size_t before = barriers(pool);
    /* Out of order, and of two regions. */
    struct frame_rule other;
    pp_frame_rule other_rule = { .size = sizeof other_rule, .kind = PP_FRAME_LEAF };
    ck_assert_int_eq(frame_rule_from(&other_rule, &other, &error), PP_OK);
    for (unsigned i = 0; i < BATCH; i++) {
        struct span *at = &span[i * 7 % BATCH];
        const struct frame_rule *rule = i % 5 == 0 ? &other : &no_rule;
        ck_assert_int_eq(take_with(pool, rule, 40 + 90 * i, 16, at), PP_OK);
        begin_return(at, i * 7 % BATCH);
    }
    ck_assert_int_eq(region_publish(span, BATCH, &error), PP_OK);
    for (unsigned i = 0; i < BATCH; i++)
        ck_assert_uint_eq(run(&span[i]), i);
    ck_assert_uint_eq(barriers(pool), before + BARRIERS);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* The end of a write has none: for code that no other thread can reach yet. */
START_TEST(publications_have_a_barrier)
{
    struct span span[BATCH];
    pp_pool *pool = open_pool(PP_WX_AUTO);
    size_t before = barriers(pool);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < BATCH; i++) {
            ck_assert_int_eq(take(pool, 64, &span[i]), PP_OK);
            ck_assert_int_eq(write_return(&span[i], i), PP_OK);
            begin_return(&span[i], 1000 + i);
        }
        ck_assert_uint_eq(barriers(pool), before);
        ck_assert_int_eq(region_publish(span, BATCH, &error), PP_OK);
        before += BARRIERS;
        ck_assert_uint_eq(barriers(pool), before);
        for (unsigned i = 0; i < BATCH; i++)
            ck_assert_uint_eq(run(&span[i]), 1000 + i);
        for (unsigned i = 0; i < BATCH; i++)
            ck_assert_int_eq(pool_free(pool, span[i].exec), PP_OK);
        ck_assert_uint_eq(barriers(pool), before);
    }
    pp_pool_destroy(pool);
}
END_TEST

/* Whatever mprotect is refused, nothing of the batch runs, and nothing is lost. */
START_TEST(a_batch_that_is_refused_stays_writable)
{
    struct span span[8];
    unsigned hits = 0;
    pp_pool *pool = open_pool(PP_WX_FLIP);
    for (uint64_t n = 1;; n++) {
        for (unsigned i = 0; i < 8; i++) {
            ck_assert_int_eq(take(pool, 100, &span[(i * 3) % 8]), PP_OK);
            begin_return(&span[(i * 3) % 8], i);
        }
        pp_fault script = { .call = PP_FAULT_MPROTECT, .first = n, .count = 1 };
        ck_assert_int_eq(pp_fault_set(&script, 1), PP_OK);
        pp_status status = region_publish(span, 8, &error);
        bool hit = pp_fault_hit(PP_FAULT_MPROTECT) != 0;
        if (hit) {
            hits++;
            ck_assert_int_ne(status, PP_OK);
            script = (pp_fault){ .call = PP_FAULT_MPROTECT, .first = 1 };
            ck_assert_int_eq(pp_fault_set(&script, 1), PP_OK);
            /* Writable as before, for which mprotect is not asked. */
            for (unsigned i = 0; i < 8; i++)
                begin_return(&span[i], 50 + i);
            ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
            ck_assert_int_eq(region_publish(span, 8, &error), PP_OK);
        }
        ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
        for (unsigned i = 0; i < 8 && hit; i++)
            ck_assert_uint_eq(run(&span[i]), 50 + i);
        for (unsigned i = 0; i < 8; i++)
            ck_assert_int_eq(pool_free(pool, span[i].exec), PP_OK);
        verify(pool);
        if (!hit)
            break;
    }
    ck_assert_uint_gt(hits, 1);
    ck_assert_uint_eq(stats_of(pool).spans, 0);
    pp_pool_destroy(pool);
}
END_TEST

/* The link of a trace fails behind its write while mprotect is refused for good. */
START_TEST(a_span_whose_write_cannot_end_is_given_back)
{
    struct span span;
    pp_pool *pool = open_pool(PP_WX_FLIP);
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    begin_return(&span, 1);
    pp_fault script = { .call = PP_FAULT_MPROTECT, .first = 1 };
    ck_assert_int_eq(pp_fault_set(&script, 1), PP_OK);
    ck_assert_int_ne(region_publish(&span, 1, &error), PP_OK);
    ck_assert_int_eq(pool_free(pool, span.exec), PP_OK);
    /* One that is executable loses its pages, if it may not be written. */
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    verify(pool);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(take(pool, 100, &span), PP_OK);
        ck_assert_int_eq(write_return(&span, 7), PP_OK);
        ck_assert_uint_eq(run(&span), 7);
        ck_assert_int_eq(pp_fault_set(&script, 1), PP_OK);
        ck_assert_int_eq(i == 0 ? pool_free(pool, span.exec) : PP_OK, PP_OK);
        ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
        verify(pool);
    }
    /* And if that is refused as well, it stays. */
    script.call = PP_FAULT_ANY;
    ck_assert_int_eq(pp_fault_set(&script, 1), PP_OK);
    ck_assert_int_ne(pool_free(pool, span.exec), PP_OK);
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    ck_assert_uint_eq(run(&span), 7);
    ck_assert_int_eq(pool_free(pool, span.exec), PP_OK);
    verify(pool);
    ck_assert_uint_eq(stats_of(pool).spans, 0);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- memory behind pages ---------------------------------------------- */

static pp_pool *open_with(pp_wx wx, size_t idle_bytes)
{
    pp_pool_options options = { .size = sizeof options, .wx = wx, .idle_bytes = idle_bytes,
                                .error = &error };
    pp_pool *pool = NULL;
    pp_status status = pp_pool_create(&options, &pool);
    ck_assert_msg(status == PP_OK || status == PP_E_UNSUPPORTED, "%s", error.text);
    return status == PP_OK ? pool : NULL;
}

static size_t idle_of(pp_pool *pool)
{
    return atomic_load(&pool->idle.bytes);
}

static size_t decommits(pp_pool *pool)
{
    return atomic_load(&pool->idle.decommits);
}

#define MANY 4000
static struct span many[MANY];

static size_t fill_many(pp_pool *pool, uint64_t *state)
{
    size_t sum = 0;
    for (unsigned i = 0; i < MANY; i++) {
        size_t size = 16 + next_random(state) % 3000;
        require(take(pool, size, &many[i]) == PP_OK);
        require(write_return(&many[i], i & 0xffff) == PP_OK);
        sum += size;
    }
    return sum;
}

static void shuffle(uint64_t *state)
{
    for (unsigned i = MANY; i > 1; i--) {
        unsigned other = (unsigned) (next_random(state) % i);
        struct span span = many[i - 1];
        many[i - 1] = many[other];
        many[other] = span;
    }
}

START_TEST(idle_memory_goes_back_in_bulk)
{
    const size_t keep = 1 << 20;
    uint64_t state = seed();
    pp_pool *pool = open_with((pp_wx) _i, keep);
    if (pool == NULL)
        return;
    for (unsigned order = 0; order < 2; order++) {
        size_t sum = fill_many(pool, &state), before = decommits(pool);
        struct region *region = many[0].region;
        ck_assert_uint_ge(atomic_load(&region->committed), sum);
        sum = atomic_load(&region->committed);
        if (order == 1)
            shuffle(&state);
        for (unsigned i = 0; i < MANY; i++) {
            require(pool_free(pool, many[i].exec) == PP_OK);
            require(idle_of(pool) <= keep);
            if (i % 500 == 0)
                verify(pool);
        }
        verify(pool);
        ck_assert_uint_ge(idle_of(pool), keep / 4);
        ck_assert_uint_eq(idle_of(pool), atomic_load(&region->committed));
        size_t times = decommits(pool) - before, least = (sum - keep) / keep;
        printf("%zu bytes went back in %zu times\n", sum, times);
        ck_assert_uint_ge(times, least);
        ck_assert_uint_le(times, 4 * (least + 2));
        if (_i != PP_WX_FLIP)
            ck_assert_uint_le(stats_of(pool).resident, keep + 65536);
    }
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(small_churn_asks_the_kernel_for_nothing)
{
    uint64_t state = seed();
    pp_pool *pool = open_with(PP_WX_AUTO, 0);
    if (stats_of(pool).wx != PP_WX_DUAL)
        return;
    fill_many(pool, &state);
    pp_fault script[] = { { .call = PP_FAULT_MADVISE, .first = UINT64_MAX, .count = 1 } };
    for (unsigned round = 0; round < 2; round++) {
        ck_assert_int_eq(pp_fault_set(script, 1), PP_OK);
        for (unsigned i = 0; i < 20000; i++) {
            struct span *span = &many[next_random(&state) % MANY];
            require(pool_free(pool, span->exec) == PP_OK);
            require(take(pool, 16 + next_random(&state) % 3000, span) == PP_OK);
            require(write_return(span, 1) == PP_OK);
        }
        printf("round %u: %zu pieces of memory\n", round, (size_t) pp_fault_seen(PP_FAULT_MADVISE));
        /* Then all the memory is there that it takes. */
        if (round == 1)
            ck_assert_uint_le(pp_fault_seen(PP_FAULT_MADVISE), 40);
        ck_assert_uint_eq(pp_fault_seen(PP_FAULT_FALLOCATE), 0);
    }
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    ck_assert_uint_eq(decommits(pool), 0);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(memory_is_asked_for_in_pieces_that_grow)
{
    pp_pool *pool = open_with(PP_WX_AUTO, 0);
    if (stats_of(pool).wx != PP_WX_DUAL)
        return;
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    pp_fault script[] = { { .call = PP_FAULT_MADVISE, .first = UINT64_MAX, .count = 1 } };
    ck_assert_int_eq(pp_fault_set(script, 1), PP_OK);
    struct span span;
    for (unsigned i = 0; i < 16384; i++)
        require(take(pool, 1024, &span) == PP_OK);
    size_t calls = pp_fault_seen(PP_FAULT_MADVISE), pages = (16 << 20) / page;
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    printf("%zu calls for %zu pages\n", calls, pages);
    ck_assert_uint_lt(calls, pages / 3);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(all_memory_is_kept_if_asked_for)
{
    uint64_t state = seed();
    pp_pool *pool = open_with(PP_WX_AUTO, SIZE_MAX);
    size_t sum = fill_many(pool, &state);
    for (unsigned i = 0; i < MANY; i++)
        require(pool_free(pool, many[i].exec) == PP_OK);
    ck_assert_uint_ge(idle_of(pool), sum);
    ck_assert_uint_eq(decommits(pool), 0);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* Neither a hole punched by the descriptor nor one by the view: the memory stays, and is used. */
START_TEST(memory_that_cannot_go_back_is_used_again)
{
    uint64_t state = seed();
    pp_pool *pool = open_with((pp_wx) _i, 4096);
    if (pool == NULL)
        return;
    for (unsigned round = 0; round < 2; round++) {
        fill_many(pool, &state);
        pp_fault script[] = { { .call = PP_FAULT_MADVISE, .first = 1, .error = EPERM },
                              { .call = PP_FAULT_FALLOCATE, .first = 1, .error = EOPNOTSUPP } };
        ck_assert_int_eq(pp_fault_set(script, 2), PP_OK);
        for (unsigned i = 0; i < MANY; i++)
            require(pool_free(pool, many[i].exec) == PP_OK);
        ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
        verify(pool);
    }
    ck_assert_uint_eq(decommits(pool), 0);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- threads that meet ------------------------------------------------ */

START_TEST(only_frequent_meetings_are_a_reason_for_a_region)
{
    struct spread spread = { .over = false };
    if (processors_online() < 2)
        return;
    /* One in 16 spans, and fewer. */
    for (size_t taken = 0; taken < 100000; taken += 17)
        ck_assert(!spread_wanted(&spread, 1, taken));
    unsigned wanted = 0;
    for (size_t taken = 200000; taken < 200000 + 10 * 256; taken += 10)
        wanted += spread_wanted(&spread, 1, taken);
    ck_assert_uint_ge(wanted, 2);
    for (size_t taken = 300000; taken < 310000; taken++)
        ck_assert(!spread_wanted(&spread, processors_online(), taken));
    spread_end(&spread);
    for (size_t taken = 400000; taken < 410000; taken++)
        ck_assert(!spread_wanted(&spread, 1, taken));
}
END_TEST

START_TEST(who_finds_a_lock_taken_goes_elsewhere)
{
    struct span span, next;
    pp_pool *pool = open_pool(PP_WX_AUTO);
    if (processors_online() < 2)
        return;
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    struct region *region = span.region;
    ck_assert_int_eq(pthread_mutex_lock(&region->lock), 0);
    atomic_store(&pool->spread.meetings, 63);
    ck_assert_int_eq(take(pool, 100, &next), PP_OK);
    ck_assert_ptr_ne(next.region, region);
    ck_assert(next.region->near);
    /* Here it stays, and is not in anybody's way. */
    struct region *home = next.region;
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(take(pool, 100, &next), PP_OK);
        ck_assert_int_eq(write_return(&next, i), PP_OK);
        ck_assert_ptr_eq(next.region, home);
    }
    ck_assert_int_eq(pthread_mutex_unlock(&region->lock), 0);
    ck_assert_int_eq(take(pool, 100, &next), PP_OK);
    ck_assert_ptr_eq(next.region, home);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* It has the region's lock until it is told, and for a moment longer. */
struct holder {
    struct region *region;
    atomic_int state; /* 0, 1: it has the lock */
};

static void *hold_for_a_while(void *argument)
{
    struct holder *holder = argument;
    require(pthread_mutex_lock(&holder->region->lock) == 0);
    atomic_store(&holder->state, 1);
    usleep(50000);
    require(pthread_mutex_unlock(&holder->region->lock) == 0);
    return NULL;
}

START_TEST(who_is_alone_in_a_region_waits_there)
{
    struct span span, next;
    pthread_t thread;
    pp_pool *pool = open_pool(PP_WX_AUTO);
    struct spread *spread = &pool->spread;
    if (processors_online() < 2)
        return;
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    ck_assert_int_eq(pthread_mutex_lock(&span.region->lock), 0);
    atomic_store(&spread->meetings, 63);
    ck_assert_int_eq(take(pool, 100, &next), PP_OK);
    ck_assert_int_eq(pthread_mutex_unlock(&span.region->lock), 0);
    ck_assert_ptr_ne(next.region, span.region);
    for (int shared = 0; shared <= 1; shared++) {
        struct holder holder = { .region = next.region };
        unsigned other = spread->homes[0] == next.region; /* a slot that is not this thread's */
        atomic_store(&spread->homes[other], shared ? next.region : NULL);
        ck_assert_int_eq(spread_is_alone(spread, next.region), !shared);
        ck_assert_int_eq(pthread_create(&thread, NULL, hold_for_a_while, &holder), 0);
        while (atomic_load(&holder.state) == 0)
            sched_yield();
        ck_assert_int_eq(take(pool, 100, &span), PP_OK);
        ck_assert_int_eq(span.region == next.region, !shared);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
    }
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

struct churn {
    pp_pool *pool;
    uint64_t state;
};

static void *churn(void *argument)
{
    struct churn *own = argument;
    struct span span[64] = { { 0 } };
    unsigned value[64] = { 0 };
    for (unsigned i = 0; i < 30000; i++) {
        unsigned slot = (unsigned) (next_random(&own->state) % 64);
        if (span[slot].exec != 0) {
            require(run(&span[slot]) == value[slot]);
            require(pool_free(own->pool, span[slot].exec) == PP_OK);
        }
        require(take(own->pool, 16 + next_random(&own->state) % 5000, &span[slot]) == PP_OK);
        value[slot] = i & 0xffff;
        require(write_return(&span[slot], value[slot]) == PP_OK);
    }
    for (unsigned slot = 0; slot < 64; slot++) {
        if (span[slot].exec != 0)
            require(pool_free(own->pool, span[slot].exec) == PP_OK);
    }
    return NULL;
}

START_TEST(threads_have_no_more_regions_than_there_are_processors)
{
    enum { THREADS = 4 };
    struct churn churns[THREADS];
    pthread_t threads[THREADS];
    pp_pool *pool = open_with(PP_WX_AUTO, 65536);
    churns[0] = (struct churn) { pool, seed() };
    churn(&churns[0]);
    ck_assert_uint_eq(stats_of(pool).regions, 1);
    for (unsigned i = 0; i < THREADS; i++) {
        churns[i] = (struct churn) { pool, seed() + 7919 * (i + 1) };
        ck_assert_int_eq(pthread_create(&threads[i], NULL, churn, &churns[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    verify(pool);
    printf("%u regions\n", stats_of(pool).regions);
    ck_assert_uint_le(stats_of(pool).regions, processors_online());
    ck_assert_uint_eq(stats_of(pool).spans, 0);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("region");
    TCase *publish = tcase_create("publish");
    tcase_add_loop_test(publish, a_batch_is_published_at_once, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_test(publish, publications_have_a_barrier);
    tcase_add_test(publish, a_batch_that_is_refused_stays_writable);
    tcase_add_test(publish, a_span_whose_write_cannot_end_is_given_back);
    suite_add_tcase(suite, publish);
    TCase *memory = tcase_create("memory");
    tcase_set_timeout(memory, 30);
    tcase_add_loop_test(memory, idle_memory_goes_back_in_bulk, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_test(memory, small_churn_asks_the_kernel_for_nothing);
    tcase_add_test(memory, memory_is_asked_for_in_pieces_that_grow);
    tcase_add_test(memory, all_memory_is_kept_if_asked_for);
    tcase_add_loop_test(memory, memory_that_cannot_go_back_is_used_again, PP_WX_DUAL,
                        PP_WX_RWX + 1);
    suite_add_tcase(suite, memory);
    TCase *threads = tcase_create("threads");
    tcase_set_timeout(threads, 60);
    tcase_add_test(threads, only_frequent_meetings_are_a_reason_for_a_region);
    tcase_add_test(threads, who_finds_a_lock_taken_goes_elsewhere);
    tcase_add_test(threads, who_is_alone_in_a_region_waits_there);
    tcase_add_test(threads, threads_have_no_more_regions_than_there_are_processors);
    suite_add_tcase(suite, threads);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
