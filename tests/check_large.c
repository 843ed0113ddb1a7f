/* SPDX-License-Identifier: MIT */
/*
 * Frames of tier-0 and of bodies beyond every immediate: 16 MiB of the one, 48 of the
 * other, in all styles and schemes, on a thread that has the stack for it.
 */
#include <config.h>

#include "stress/method.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>

#if defined __x86_64__
#define SAVES (1ull << 3 | 0xfull << 12)
#else
#define SAVES (0x3ffull << 19 | 0xffull << 40)
#endif

#define MIB (1u << 20)
#define STACK_BYTES (160u * MIB)

/* Around what 12 and 24 bits hold; tier-0's own prologue ends at 16 MiB. */
static const uint32_t tier0_sizes[] = { 0, MIB - FRAME_BYTES, MIB, 16 * MIB - FRAME_BYTES - 16 };
static const uint32_t body_sizes[] = { 0, MIB - 16, MIB, MIB + 16, 16 * MIB - 16, 16 * MIB,
                                       16 * MIB + 4112, 48 * MIB };
enum {
    TIER0_SIZES = sizeof tier0_sizes / sizeof tier0_sizes[0],
    BODY_SIZES = sizeof body_sizes / sizeof body_sizes[0],
};

static pp_pool *pool;

/* Of one test, which runs on a thread of its own. */
static struct {
    struct method_shape shape;
    char wrong[128]; /* asserted in the test's thread */
} now;

static void note(const char *what)
{
    if (now.wrong[0] == '\0')
        snprintf(now.wrong, sizeof now.wrong, "%s: tier-0 %u, body %u", what,
                 (unsigned) now.shape.more_bytes, (unsigned) now.shape.local_bytes);
}

static void run_shape(pp_thread *thread)
{
    struct method method;
    pp_site_stats stats = { .size = sizeof stats };
    if (method_open(&method, pool, &now.shape) != PP_OK) {
        note("not made");
        return;
    }
    for (uint64_t n = 1; n < 12; n += 2) {
        uint64_t saved[SAVE_SLOTS] = { 1, 2, 3, 4, 5 }, result;
        if (!method_run(&method, thread, n, NULL, 1, saved, &result))
            note("the caller's registers");
        if (result != n * (n + 1) / 2)
            note("the sum");
    }
    if (method.failed != PP_OK || pp_site_state(method.sites[0]) != PP_SITE_READY)
        note("no body");
    if (pp_site_get_stats(method.sites[0], &stats) != PP_OK || stats.refusals != 0)
        note("refused");
    if (method_close(&method) != PP_OK)
        note("not closed");
}

static const pp_value values[] = {
    { PP_AT_SLOT(AT_N), PP_AT_SLOT(AT_N), .bytes = 8 },
    { PP_AT_SLOT(AT_SUM), PP_AT_SLOT(AT_SUM), .bytes = 8 },
};

static void *run_all(void *style)
{
    const bool replaces = *(const int *) style & 1, reloads = *(const int *) style & 2;
    struct method_replace replace = { .values = values, .value_count = 2 };
    pp_thread thread;
    if (pp_thread_init(&thread, NULL, NULL) != PP_OK)
        note("no thread");
    for (unsigned i = 0; i < TIER0_SIZES * BODY_SIZES; i++) {
        now.shape = (struct method_shape) {
            .kind = METHOD_SUM, .save = PP_SAVE_GPR, .threshold = 3, .hits = 1,
            .with_thread = true, .scheme = reloads ? PP_CSR_RELOAD : PP_CSR_RESERVE,
            .more_bytes = tier0_sizes[i % TIER0_SIZES],
            .local_bytes = body_sizes[i / TIER0_SIZES],
            .entry_flags = i & 1 ? PP_ENTRY_CHECK_STACK : 0,
            .replace = replaces ? &replace : NULL,
        };
        replace.body = (pp_tier0_layout) { .size = sizeof replace.body,
                                           .frame_bytes = FRAME_BYTES + now.shape.local_bytes };
        if (!reloads)
            replace.body.saves = (pp_save_area) { .slots = SAVES, .saved = SAVES,
                                                  .offset = AT_SAVES };
        run_shape(&thread);
    }
    return NULL;
}

START_TEST(frames_beyond_every_immediate)
{
    pthread_attr_t attributes;
    pthread_t thread;
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pthread_attr_init(&attributes), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&attributes, STACK_BYTES), 0);
    ck_assert_int_eq(pthread_create(&thread, &attributes, run_all, &_i), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_int_eq(pthread_attr_destroy(&attributes), 0);
    ck_assert_str_eq(now.wrong, "");
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("large");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, frames_beyond_every_immediate, 0, 4);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
