/* SPDX-License-Identifier: MIT */
/*
 * The shadow stack: whatever way a site, a transition or a resume takes, each return
 * goes to where the call was.  Random passages in every style, kind of site and save
 * class, and suspended bodies, one instruction at a time; x86-64.
 */
#include <config.h>

#include "balance.h"
#include "step.h"
#include "stress/passage.h"
#include "stress/suspend.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined __x86_64__

enum { STYLES = PP_BUFFER + 1, KINDS = PP_SITE_ARMED + 1, SAVES = PP_SAVE_MASK + 1, ITERATIONS = 3 };

static uint64_t seed;
static pp_pool *pool;
static struct passage_thread thread;
static struct passage passage;
static struct passage_run run;
static struct balance balance;

static void setup(void)
{
    pp_pool_options options = { .size = sizeof options, .region_bytes = 2 << 20,
                                .unwinders = PP_UNWIND_LIBUNWIND };
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert(passage_thread_begin(&thread));
}

static void teardown(void)
{
    passage_thread_end(&thread);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static void visit(ucontext_t *context, void *argument)
{
    (void) argument;
    balance_follow(&balance, step_pc(context), step_sp(context));
}

/* Follow a function; all calls in it return to where they were made. */
static void follow(void (*function)(void *), void *argument, const char *what)
{
    memset(&balance, 0, sizeof balance);
    step_run(NULL, 0, visit, function, argument);
    ck_assert_msg(balance.wrong == 0, "seed %lu, %s: a return went to %#lx", (unsigned long) seed,
                  what, (unsigned long) balance.wrong);
    ck_assert_uint_gt(balance.matched, 5);
    /* step_run's own, at the end */
    ck_assert_msg(balance.calls - balance.matched <= 2, "seed %lu, %s: %lu calls did not return",
                  (unsigned long) seed, what, balance.calls - balance.matched);
}

/* ---- sites and entries ------------------------------------------------------------- */

static bool good;

static void run_passage(void *random)
{
    good = passage_run(&run, &passage, &thread, *(struct random *) random, 6);
}

/* Twice: with a site that counts, if it has a producer, and with one that is ready. */
static void follow_passage(struct random *random, const char *what)
{
    pp_error error = { .size = sizeof error };
    pp_status status = passage_open(&passage, pool, 0, &error);
    if (status == PP_E_UNSUPPORTED)
        return;
    ck_assert_msg(status == PP_OK, "%s: %s, %s", what, pp_strerror(status), error.text);
    for (unsigned i = 0; i < 2; i++) {
        struct random own = { random_next(random) };
        follow(run_passage, &own, what);
        ck_assert_msg(good, "seed %lu, %s: %s", (unsigned long) seed, what, run.wrong);
    }
    ck_assert_int_eq(passage_close(&passage), PP_OK);
}

START_TEST(sites_and_entries)
{
    const pp_osr_style style = (pp_osr_style) (1 + _i % 3);
    const pp_site_kind kind = (pp_site_kind) (1 + _i / 3);
    struct random random = random_stream(seed, (uint64_t) _i);
    if (kind == PP_SITE_POLLED && style != PP_ON_TOP)
        return; /* it leads nowhere else */
    for (unsigned save = 0; save < SAVES; save++) {
        char what[64];
        snprintf(what, sizeof what, "style %d, kind %d, class %u", (int) style, (int) kind, save);
        do { /* small ones: each instruction is a signal */
            passage = (struct passage) { .failed = PP_OK };
            passage_draw(&passage.shape, &random, 1u << save);
        } while (passage.shape.style != style || passage.shape.kind != kind
                 || passage.shape.tier0.frame_bytes > 512 || passage.shape.value_count > 40);
        /* Two classes with the producer, which is the most of it. */
        passage.shape.by_hand = save > PP_SAVE_V128 && kind != PP_SITE_POLLED;
        follow_passage(&random, what);
    }
}
END_TEST

/* ---- resumes ----------------------------------------------------------------------- */

static struct suspend suspend;
static pp_trace *tier0;

static void run_suspended(void *argument)
{
    (void) argument;
    good = suspend_run(&suspend, tier0, 1, ITERATIONS);
}

START_TEST(resumes)
{
    static const enum suspend_way ways[] = { SUSPEND_BARE, SUSPEND_DIRECT, SUSPEND_PATCHPOINT };
    ck_assert_int_eq(suspend_open(&suspend, pool), PP_OK);
    ck_assert_int_eq(suspend_link(&suspend, ways[_i], NULL, &tier0), PP_OK);
    follow(run_suspended, NULL, "resume");
    ck_assert(good);
    ck_assert_uint_ge(balance.matched, ITERATIONS);
}
END_TEST

/* ---- the checker itself ------------------------------------------------------------- */

/* A function that returns by pushing the address that its caller's caller would have. */
__attribute__((noinline, naked)) static void
return_elsewhere(void *argument __attribute__((unused)))
{
    __asm__ volatile("lea 1f(%rip), %rax\n\t"
                     "push %rax\n\t"
                     "ret\n"
                     "1:\tret");
}

START_TEST(a_return_elsewhere_is_noticed)
{
    memset(&balance, 0, sizeof balance);
    step_run(NULL, 0, visit, return_elsewhere, NULL);
    ck_assert_uint_ne(balance.wrong, 0);
}
END_TEST

int main(void)
{
    const char *given = getenv("PP_SEED");
    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
    printf("check_balance: seed %lu (PP_SEED)\n", (unsigned long) seed);

    Suite *suite = suite_create("balance");
    TCase *tests = tcase_create("balance");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, sites_and_entries, 0, (STYLES - 1) * (KINDS - 1));
    tcase_add_loop_test(tests, resumes, 0, 3);
    tcase_add_test(tests, a_return_elsewhere_is_noticed);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#else

int main(void)
{
    printf("calls and returns are followed on x86-64 only\n");
    return 77; /* skipped */
}

#endif
