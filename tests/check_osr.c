/* SPDX-License-Identifier: MIT */
/*
 * Transitions in real code: tier-0 methods with patchpoints and OSR bodies, in
 * all shapes, checked against a model in C and for what their caller keeps.
 */
#include <config.h>

#include "stress/method.h"
#include "stress/random.h"
#include "stress/registers.h"

#include <check.h>
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed;
static struct random stream;
static pp_thread thread;
static pp_pool *pool;

/* branch_range 1: every symbol is far, and calls of stubs go through trampolines. */
static void open_pool(uint32_t flags, uint64_t branch_range)
{
    pp_pool_options options = { .size = sizeof options, .flags = flags,
                                .branch_range = branch_range };
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
}

static void setup(void)
{
    open_pool(0, 0);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static uint64_t run(const struct method *method, uint64_t n, void *buffer, uint64_t start)
{
    uint64_t saved[SAVE_SLOTS], result;
    for (unsigned i = 0; i < SAVE_SLOTS; i++)
        saved[i] = random_next(&stream);
    errno = 77;
    ck_assert_msg(method_run(method, &thread, n, buffer, start, saved, &result),
                  "the caller's registers or SP changed, seed %lu", (unsigned long) seed);
    ck_assert_int_eq(errno, 77);
    ck_assert_uint_eq(thread.anchor, 0);
    ck_assert_uint_eq(thread.exit_fp, 0);
    return result;
}

static pp_site_stats stats_of(const struct method *method, unsigned site)
{
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(method->sites[site], &stats), PP_OK);
    return stats;
}

/* ---- every shape ----------------------------------------------------------- */

#if defined __x86_64__
#define FLAG_CHOICES 2
#else
#define FLAG_CHOICES 1
#endif
#define SHAPES (2 * 2 * 2 * 2 * FLAG_CHOICES)

static struct method_shape shape_of(enum method_kind kind, unsigned n)
{
    return (struct method_shape) {
        .kind = kind,
        .scheme = n & 1 ? PP_CSR_RELOAD : PP_CSR_RESERVE,
        .counter = n & 2 ? PP_COUNTER_SITE : PP_COUNTER_FRAME,
        .save = n & 4 ? PP_SAVE_V128 : PP_SAVE_GPR,
        .with_thread = (n & 8) != 0,
        .flags = n & 16 ? PP_SITE_RED_ZONE : 0,
        .threshold = 10,
        .local_bytes = 40,
    };
}

/* Below the threshold, at it, above it; then with a site that is ready. */
static void check_shape(const struct method_shape *shape)
{
    struct method method;
    ck_assert_int_eq(method_open(&method, pool, shape), PP_OK);
    ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_COUNTING);
    ck_assert_uint_eq(run(&method, 9, NULL, 1), method_model(&method, 9, 1));
    ck_assert_uint_eq(stats_of(&method, 0).slow_paths, 0);
    unsigned first = shape->counter == PP_COUNTER_SITE ? 1 : 10; /* 9 passes are behind us */
    ck_assert_uint_eq(run(&method, first, NULL, 1), method_model(&method, first, 1));
    ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_READY);
    ck_assert_int_eq(method.failed, PP_OK);
    ck_assert_ptr_eq(pp_site_entry(method.sites[0]), method.entries[0]);
    ck_assert_uint_eq(stats_of(&method, 0).slow_paths, 1);
    ck_assert_uint_eq(stats_of(&method, 0).triggers, 1);
    ck_assert_uint_eq(stats_of(&method, 0).transitions, 1);
    for (uint64_t n = 1; n < 60; n++)
        ck_assert_uint_eq(run(&method, n, NULL, 1), method_model(&method, n, 1));
    ck_assert_uint_eq(run(&method, 100000, NULL, 1), method_model(&method, 100000, 1));
    ck_assert_uint_eq(stats_of(&method, 0).slow_paths, 1);
    ck_assert_uint_eq(method.produced, 1);

    /* A trace is kept by its entry, and an entry by its site. */
    ck_assert_int_eq(pp_trace_free(pool, method.bodies[0]), PP_E_BUSY);
    ck_assert_int_eq(pp_entry_destroy(pool, method.entries[0]), PP_E_BUSY);
    ck_assert_int_eq(method_close(&method), PP_OK);
}

START_TEST(sum_in_every_shape)
{
    struct method_shape shape = shape_of(METHOD_SUM, (unsigned) _i);
    check_shape(&shape);
}
END_TEST

START_TEST(sum_with_landing_pads)
{
    pp_pool_destroy(pool);
    open_pool(PP_POOL_LANDING_PADS, 0);
    for (unsigned n = 0; n < SHAPES; n++) {
        struct method_shape shape = shape_of(METHOD_SUM, n);
        check_shape(&shape);
    }
}
END_TEST

START_TEST(nested_loops_have_two_patchpoints)
{
    for (uint64_t start = 1; start < 40; start += 3) {
        struct method_shape shape = shape_of(METHOD_NESTED, (unsigned) _i);
        shape.threshold = 1 + (int32_t) random_below(&stream, 30);
        struct method method;
        ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
        for (uint64_t n = 1; n < 40; n += 2)
            ck_assert_uint_eq(run(&method, n, NULL, start), method_model(&method, n, start));
        ck_assert_int_eq(method.failed, PP_OK);
        ck_assert_uint_ge(method.produced, 1);
        ck_assert_uint_le(method.produced, 2);
        ck_assert_int_eq(method_close(&method), PP_OK);
    }
}
END_TEST

/* Tier-0 with 64 KiB and more, bodies with as much again, and with a page more or less. */
START_TEST(large_frames)
{
    static const uint32_t sizes[] = { 0, 1 << 16, 3840, 4080, 4096, 4112, 1 << 18 };
    for (size_t a = 0; a < sizeof sizes / sizeof sizes[0]; a++) {
        for (size_t b = 0; b < sizeof sizes / sizeof sizes[0]; b++) {
            struct method_shape shape = shape_of(METHOD_SUM, (unsigned) _i);
            shape.more_bytes = sizes[a];
            shape.local_bytes = sizes[b];
            check_shape(&shape);
        }
    }
}
END_TEST

START_TEST(recursion_moves_each_activation_when_its_turn_comes)
{
    struct method_shape shape = shape_of(METHOD_RECURSION, (unsigned) _i);
    shape.threshold = 2;
    for (shape.hits = 1; shape.hits < 200; shape.hits += 37) {
        struct method method;
        ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
        for (uint64_t n = 0; n <= 7; n++)
            ck_assert_uint_eq(run(&method, n, NULL, 3), method_model(&method, n, 3));
        ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_READY);
        ck_assert_int_eq(method_close(&method), PP_OK);
    }
}
END_TEST

/* ---- registers --------------------------------------------------------------- */

START_TEST(registers_survive_every_pass_and_the_transition)
{
    for (unsigned hits = 1; hits < 30; hits += 7) {
        struct method_shape shape = shape_of(METHOD_REGISTERS, (unsigned) _i);
        shape.threshold = 3;
        shape.hits = hits;
        struct registers registers;
        struct method method;
        registers_begin(&registers, random_stream(seed, hits), shape.scheme,
                        shape.save == PP_SAVE_V128);
        ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
        uint64_t passes = run(&method, 1000, &registers, 0);
        ck_assert_msg(registers.wrong == 0, "%u registers wrong, seed %lu", registers.wrong,
                      (unsigned long) seed);
        ck_assert_uint_eq(passes, 3 * hits - 1);
        ck_assert_uint_eq(registers.checked, passes + 1);
        ck_assert_uint_eq(registers.in_body, 1);
        /* A ready site: the fast path, with vectors whatever the class. */
        registers.vectors = true;
        passes = run(&method, 1000, &registers, 0);
        ck_assert_uint_eq(registers.wrong, 0);
        ck_assert_uint_le(passes, 2);
        ck_assert_uint_eq(registers.in_body, 2);
        ck_assert_int_eq(method_close(&method), PP_OK);
    }
}
END_TEST

START_TEST(stubs_are_reached_through_trampolines)
{
    pp_pool_destroy(pool);
    open_pool(_i & 1 ? PP_POOL_LANDING_PADS : 0, 1);
    for (unsigned n = 0; n < SHAPES; n++) {
        struct method_shape shape = shape_of(METHOD_SUM, n);
        check_shape(&shape);
        struct method method;
        struct registers registers;
        shape.kind = METHOD_REGISTERS;
        registers_begin(&registers, random_stream(seed, n), shape.scheme,
                        shape.save == PP_SAVE_V128);
        ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
        ck_assert_uint_eq(run(&method, 1000, &registers, 0), 9);
        ck_assert_uint_eq(registers.wrong, 0);
        ck_assert_uint_eq(registers.checked, 10);
        ck_assert_int_eq(method_close(&method), PP_OK);
    }
}
END_TEST

/* ---- states -------------------------------------------------------------------- */

START_TEST(failed_site_goes_on_in_tier0)
{
    struct method_shape shape = shape_of(METHOD_SUM, (unsigned) _i);
    shape.refuse = true;
    struct method method;
    ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
    ck_assert_uint_eq(run(&method, 1000, NULL, 1), method_model(&method, 1000, 1));
    ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_FAILED);
    ck_assert_uint_eq(method.produced, 1);
    ck_assert_uint_eq(stats_of(&method, 0).slow_paths, 100);
    ck_assert_uint_eq(stats_of(&method, 0).transitions, 0);
    ck_assert_ptr_null(pp_site_entry(method.sites[0]));
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

START_TEST(disabled_site_goes_on_in_tier0)
{
    struct method_shape shape = shape_of(METHOD_SUM, (unsigned) _i);
    struct method method;
    ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
    ck_assert_int_eq(pp_site_disable(method.sites[0]), PP_OK);
    ck_assert_int_eq(pp_site_disable(method.sites[0]), PP_OK);
    ck_assert_uint_eq(run(&method, 1000, NULL, 1), method_model(&method, 1000, 1));
    ck_assert_uint_eq(method.produced, 0);
    ck_assert_uint_le(stats_of(&method, 0).slow_paths, 1);
    ck_assert_int_eq(method_close(&method), PP_OK);

    /* After it was ready: nobody enters any more. */
    ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
    ck_assert_uint_eq(run(&method, 100, NULL, 1), method_model(&method, 100, 1));
    ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_READY);
    ck_assert_int_eq(pp_site_disable(method.sites[0]), PP_OK);
    ck_assert_ptr_null(pp_site_entry(method.sites[0]));
    uint64_t transitions = stats_of(&method, 0).transitions;
    ck_assert_uint_eq(run(&method, 1000, NULL, 1), method_model(&method, 1000, 1));
    ck_assert_uint_eq(stats_of(&method, 0).transitions, transitions);
    ck_assert_int_eq(pp_site_publish(method.sites[0], method.entries[0]), PP_E_STALE);
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

/* ---- many threads on one site ------------------------------------------------- */

#define THREADS 8

struct worker {
    pthread_t thread;
    const struct method *method;
    pthread_barrier_t *barrier;
    uint64_t result, n;
    bool good;
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    uint64_t saved[SAVE_SLOTS] = { 1, 2, 3, 4, 5 };
    pp_thread own;
    worker->good = pp_thread_init(&own, NULL, NULL) == PP_OK;
    pthread_barrier_wait(worker->barrier);
    if (worker->good)
        worker->good = method_run(worker->method, &own, worker->n, NULL, 1, saved, &worker->result);
    return NULL;
}

START_TEST(one_of_many_threads_produces)
{
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (unsigned round = 0; round < 50; round++) {
        struct method_shape shape = shape_of(METHOD_SUM, round % SHAPES);
        struct method method;
        struct worker workers[THREADS];
        shape.threshold = 1 + (int32_t) random_below(&stream, 50);
        shape.hits = 1 + (uint32_t) random_below(&stream, 2 * THREADS);
        ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
        for (unsigned i = 0; i < THREADS; i++) {
            workers[i] = (struct worker) { .method = &method, .barrier = &barrier,
                                           .n = 20000 + random_below(&stream, 1000) };
            ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(workers[i].thread, NULL);
        for (unsigned i = 0; i < THREADS; i++) {
            ck_assert(workers[i].good);
            ck_assert_uint_eq(workers[i].result, method_model(&method, workers[i].n, 1));
        }
        ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_READY);
        ck_assert_uint_eq(method.produced, 1);
        ck_assert_uint_eq(stats_of(&method, 0).triggers, 1);
        ck_assert_int_eq(method_close(&method), PP_OK);
    }
    pthread_barrier_destroy(&barrier);
}
END_TEST

int main(void)
{
    const char *given = getenv("PP_SEED");
    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
    stream = random_stream(seed, 1);
    printf("check_osr: seed %lu (PP_SEED)\n", (unsigned long) seed);

    Suite *suite = suite_create("osr");
    TCase *tests = tcase_create("osr");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, sum_in_every_shape, 0, SHAPES);
    tcase_add_test(tests, sum_with_landing_pads);
    tcase_add_loop_test(tests, nested_loops_have_two_patchpoints, 0, SHAPES);
    tcase_add_loop_test(tests, large_frames, 0, 4);
    tcase_add_loop_test(tests, recursion_moves_each_activation_when_its_turn_comes, 0, SHAPES);
    tcase_add_loop_test(tests, registers_survive_every_pass_and_the_transition, 0, SHAPES);
    tcase_add_loop_test(tests, stubs_are_reached_through_trampolines, 0, 2);
    tcase_add_loop_test(tests, failed_site_goes_on_in_tier0, 0, SHAPES);
    tcase_add_loop_test(tests, disabled_site_goes_on_in_tier0, 0, SHAPES);
    tcase_add_test(tests, one_of_many_threads_produces);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
