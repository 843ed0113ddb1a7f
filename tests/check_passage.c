/* SPDX-License-Identifier: MIT */
/* Random passages: frames, sites and value maps, against an interpreter in C. */
#include <config.h>

#include "stress/passage.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ALL_SAVES (1u << PP_SAVE_GPR | 1u << PP_SAVE_V128 | 1u << PP_SAVE_ABI | 1u << PP_SAVE_MASK)

static uint64_t seed;
static pp_pool *pool;
static struct passage_thread thread;
static struct passage passage;
static struct passage_run run;

static void open_pool(uint32_t flags, uint64_t branch_range)
{
    pp_pool_options options = { .size = sizeof options, .flags = flags, .region_bytes = 2 << 20,
                                .branch_range = branch_range };
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert(passage_thread_begin(&thread));
}

static void setup(void)
{
    open_pool(0, 0);
}

static void teardown(void)
{
    passage_thread_end(&thread);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

/* Some runs; returns how many of them moved. */
static unsigned run_passage(uint64_t number, uint32_t flags, struct random random)
{
    pp_error error = { .size = sizeof error };
    unsigned bodies = 0;
    pp_status status = passage_open(&passage, pool, flags, &error);
    ck_assert_msg(status == PP_OK, "seed %lu, passage %lu: %s, %s", (unsigned long) seed,
                  (unsigned long) number, pp_strerror(status), error.text);
    for (unsigned i = 0; i < 3; i++) {
        struct random own = { random_next(&random) };
        ck_assert_msg(passage_run(&run, &passage, &thread, own, 20), "seed %lu, passage %lu: %s",
                      (unsigned long) seed, (unsigned long) number, run.wrong);
        bodies += run.bodies;
    }
    ck_assert_int_eq(passage.failed, PP_OK);
    ck_assert_int_eq(passage_close(&passage), PP_OK);
    return bodies;
}

START_TEST(what_arrives_is_what_the_map_says)
{
    uint32_t flags = _i ? PP_POOL_LANDING_PADS : 0;
    unsigned bodies = 0;
    teardown();
    open_pool(flags, _i);
    for (uint64_t i = 0; i < 150; i++) {
        struct random random = random_stream(seed, 2 * i + (uint64_t) _i);
        passage = (struct passage) { .failed = PP_OK };
        passage_draw(&passage.shape, &random, ALL_SAVES);
        bodies += run_passage(i, flags, random);
    }
    ck_assert_uint_ge(bodies, 300); /* of 450; some polls come later than the last pass */
}
END_TEST

/* SP of tier-0 in the middle of a transition, which has lowered it. */
START_TEST(stack_and_frame_pointer_are_values)
{
    unsigned bodies = 0;
    for (uint64_t i = 0; i < 60; i++) {
        struct random random = random_stream(seed, 1000 + i);
        passage = (struct passage) { .failed = PP_OK };
        do {
            passage_draw(&passage.shape, &random, ALL_SAVES);
        } while (passage.shape.style == PP_ON_TOP);
        passage.shape.values[1] = (pp_value) { PP_AT_GPR(MOVE_SP), PP_AT_GPR(1), .bytes = 8 };
        passage.shape.values[2] = (pp_value) { PP_AT_GPR(MOVE_FP), PP_AT_GPR(2), .bytes = 8 };
        passage.shape.value_count = 3;
        bodies += run_passage(i, 0, random);
    }
    ck_assert_uint_gt(bodies, 60);
}
END_TEST

int main(void)
{
    const char *given = getenv("PP_SEED");
    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
    printf("check_passage: seed %lu (PP_SEED)\n", (unsigned long) seed);

    Suite *suite = suite_create("passage");
    TCase *tcase = tcase_create("passages");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, what_arrives_is_what_the_map_says, 0, 2);
    tcase_add_test(tcase, stack_and_frame_pointer_are_values);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
