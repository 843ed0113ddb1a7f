/* SPDX-License-Identifier: MIT */
/* Triggers by force: which passes trigger, whatever counters and policies say. */
#include <config.h>

#include "loop.h"

#include <pthread.h>
#include <stdatomic.h>

enum { N = 100, CALLS = 256, THRESHOLD = 50 };
#define SUM ((uint64_t) N * (N + 1) / 2)

static pp_pool *pool;
static pp_thread thread;
static pp_trace *body;
static pp_entry *entry;

/* The producer fails or succeeds, and notes at which pass of the loop it was called. */
static struct {
    pp_status answer;
    bool defers;
    unsigned calls;
    uint64_t at[CALLS];
    pp_site *site[CALLS];
} job;

static pp_status produce(void *host, pp_site *of, const pp_regs *regs, pp_entry **result)
{
    (void) host;
    if (job.calls < CALLS) {
        job.at[job.calls] = N - loop_slot(regs, AT_LOOP_N) + 1;
        job.site[job.calls] = of;
    }
    job.calls++;
    if (job.defers)
        return pp_site_defer(of);
    *result = entry;
    return job.answer;
}

static const pp_site_desc counted = {
    .size = sizeof counted, .kind = PP_SITE_COUNTED, .counter = PP_COUNTER_SITE,
    .threshold = THRESHOLD, .hits = 2, .tier0 = &loop_frame, .produce = produce,
};

static void setup(void)
{
    memset(&job, 0, sizeof job);
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    ck_assert_int_eq(loop_body(pool, &body, &entry), PP_OK);
    /* A failure does not end it: the site is back where it was. */
    pp_policy policy = { .size = sizeof policy, .attempts = 1000, .backoff = 4 };
    ck_assert_int_eq(pp_pool_set_policy(pool, &policy), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static pp_site *site_of(const pp_site_desc *desc, struct loop *loop)
{
    pp_site *site;
    ck_assert_int_eq(pp_site_create(pool, desc, &site), PP_OK);
    loop_link(loop, pool, site, pp_site_threshold(site), true);
    return site;
}

static uint64_t run(const struct loop *loop)
{
    return pp_enter(&thread, pp_trace_entry(loop->trace), N, (uintptr_t) &thread, 0, 0);
}

static void force(const char *text)
{
    pp_force force = { .size = sizeof force };
    ck_assert_int_eq(pp_force_parse(text, &force), PP_OK);
    ck_assert_int_eq(pp_pool_set_force(pool, &force), PP_OK);
}

static pp_force_stats stats(void)
{
    pp_force_stats result = { .size = sizeof result };
    ck_assert_int_eq(pp_pool_get_force_stats(pool, &result), PP_OK);
    return result;
}

/* ---- as text --------------------------------------------------------------- */

static const struct {
    const char *text;
    pp_force_mode mode;
    uint64_t number;
} texts[] = {
    { NULL, PP_FORCE_OFF, 0 },
    { "", PP_FORCE_OFF, 0 },
    { "off", PP_FORCE_OFF, 0 },
    { "count", PP_FORCE_COUNT, 0 },
    { "every=3", PP_FORCE_EVERY, 3 },
    { "at=18446744073709551615", PP_FORCE_AT, UINT64_MAX },
    { "from=0017", PP_FORCE_FROM, 17 },
    { "site=1", PP_FORCE_SITE, 1 },
    { "sites-from=22", PP_FORCE_SITES_FROM, 22 },
};

START_TEST(text_is_read)
{
    pp_force result = { .size = sizeof result, .mode = PP_FORCE_SITE, .number = 9 };
    ck_assert_int_eq(pp_force_parse(texts[_i].text, &result), PP_OK);
    ck_assert_int_eq(result.mode, texts[_i].mode);
    ck_assert_uint_eq(result.number, texts[_i].number);
    ck_assert_int_eq(pp_pool_set_force(pool, &result), PP_OK);
}
END_TEST

static const char *const wrong[] = {
    "on", "every", "every=", "every=0", "every=-1", "every=3x", "every= 3", "every=0x3", "count=1",
    "at=18446744073709551616", "at=99999999999999999999999", "every=3,at=4", "off,off", ",", ",off",
    "counts", "coun", "EVERY=3", "every=3 ", "site=1,,",
};

START_TEST(text_that_is_wrong_is_refused)
{
    pp_error error = { .size = sizeof error };
    pp_force result = { .size = sizeof result, .mode = PP_FORCE_SITE, .number = 9, .error = &error };
    const pp_force before = result;
    ck_assert_msg(pp_force_parse(wrong[_i], &result) == PP_E_ARG, "%s", wrong[_i]);
    ck_assert_mem_eq(&result, &before, sizeof result);
    ck_assert_msg(strncmp(error.text, "force: what is \"", 16) == 0, "%s", error.text);
}
END_TEST

#define REFUSED(change, reason) { pp_force given = { .size = sizeof given, .mode = PP_FORCE_AT, \
    .number = 3, .error = &error }; change; strcpy(error.text, ""); \
    ck_assert_msg(pp_pool_set_force(pool, &given) == PP_E_ARG, "%s", #change); \
    ck_assert_str_eq(error.text, reason); }

START_TEST(refused_force_changes_nothing)
{
    pp_error error = { .size = sizeof error };
    pp_force none = { .size = 8 };
    pp_force_stats short_stats = { .size = sizeof short_stats - 8 };
    struct loop loop;
    force("at=3");
    site_of(&counted, &loop);
    REFUSED(given.size -= 8, "")
    REFUSED(given.mode = 7, "mode: 7")
    REFUSED(given.mode = -1, "mode: -1")
    REFUSED(given.flags = 1u << 31, "flags: 0x80000000")
    REFUSED(given.number = 0, "number: counts from 1")
    REFUSED(given.mode = PP_FORCE_COUNT, "number: this mode has none")
    REFUSED(given.mode = PP_FORCE_OFF, "number: this mode has none")
    ck_assert_int_eq(pp_pool_set_force(NULL, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_force_parse("off", NULL), PP_E_ARG);
    ck_assert_int_eq(pp_force_parse("off", &none), PP_E_ARG);
    ck_assert_int_eq(pp_pool_get_force_stats(pool, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_pool_get_force_stats(pool, &short_stats), PP_E_ARG);
    ck_assert_uint_eq(pp_site_number(NULL), 0);
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(job.at[0], 3);
}
END_TEST

/* ---- which passes trigger ------------------------------------------------------ */

/* The counter of each kind that the test has begins as the site says. */
static const pp_counter counters[] = { PP_COUNTER_SITE, PP_COUNTER_FRAME };

static pp_site_desc with_counter(int i)
{
    pp_site_desc desc = counted;
    desc.counter = counters[i];
    desc.counter_offset = counters[i] == PP_COUNTER_FRAME ? AT_LOOP_COUNTER : 0;
    return desc;
}

START_TEST(chosen_passes_trigger)
{
    static const struct {
        const char *text;
        unsigned calls;
        uint64_t first, last;
    } rows[] = {
        { "count", 0, 0, 0 }, { "every=1", N, 1, N }, { "every=7", 14, 7, 98 }, { "at=1", 1, 1, 1 },
        { "at=64", 1, 64, 64 }, { "at=101", 0, 0, 0 }, { "from=41", 60, 41, N },
        { "site=1", N, 1, N }, { "site=2", 0, 0, 0 }, { "sites-from=1", N, 1, N },
        { "sites-from=2", 0, 0, 0 },
    };
    job.answer = PP_E_FAULT;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        pp_site_desc desc = with_counter(_i);
        struct loop loop;
        teardown();
        setup();
        job.answer = PP_E_FAULT;
        force(rows[i].text);
        pp_site *site = site_of(&desc, &loop);
        ck_assert_uint_eq(pp_site_number(site), 1);
        ck_assert_int_eq(pp_site_threshold(site), 1);
        ck_assert_uint_eq(run(&loop), SUM);
        ck_assert_msg(job.calls == rows[i].calls, "%s: %u", rows[i].text, job.calls);
        ck_assert_uint_eq(job.at[0], rows[i].first);
        if (job.calls > 0)
            ck_assert_uint_eq(job.at[job.calls - 1], rows[i].last);
        ck_assert_uint_eq(stats().passes, N);
        ck_assert_uint_eq(stats().triggers, rows[i].calls);
        ck_assert_uint_eq(stats().sites, 1);
        force(rows[i].text); /* the numbers begin anew */
        ck_assert_uint_eq(stats().passes, 0);
    }
}
END_TEST

START_TEST(forced_transition_is_a_transition)
{
    pp_site_desc desc = with_counter(_i);
    struct loop loop;
    force("at=30");
    pp_site *site = site_of(&desc, &loop);
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(job.at[0], 30);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_READY);
    ck_assert_uint_eq(stats().passes, 30); /* a ready site has none */
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(stats().passes, 30);
}
END_TEST

/* Flags alone leave the policy in force; a site that becomes ready under them asks C each time. */
START_TEST(ready_sites_are_verified)
{
    struct loop loop;
    force("verify,clobber");
    pp_site *site = site_of(&counted, &loop);
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(job.at[0], 2 * THRESHOLD);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_READY);
    ck_assert_uint_eq(stats().checks, 2);
    ck_assert_uint_eq(stats().passes, 0);
    force("every=1,verify,clobber");
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(stats().checks, 2);
    ck_assert_uint_eq(stats().mismatches, 0);
    ck_assert_int_eq(pp_pool_set_force(pool, NULL), PP_OK);
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(job.calls, 1);
}
END_TEST

/* The pool's word goes for sites with a policy of their own, and for those made before. */
START_TEST(policies_are_overridden)
{
    pp_policy own = { .size = sizeof own, .threshold = 1000, .hits = 1000, .attempts = 1000 };
    struct loop loop;
    pp_site *site = site_of(&counted, &loop);
    if (_i & 1)
        ck_assert_int_eq(pp_site_set_policy(site, &own), PP_OK);
    ck_assert_int_eq(pp_site_threshold(site), THRESHOLD);
    force("at=5");
    if (_i & 2)
        ck_assert_int_eq(pp_site_set_policy(site, &own), PP_OK);
    if (_i & 4)
        ck_assert_int_eq(pp_pool_set_policy(pool, &own), PP_OK);
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(job.calls, 1);
    ck_assert_uint_eq(job.at[0], 5);
}
END_TEST

START_TEST(without_force_counters_count_again)
{
    struct loop loop;
    force("count");
    site_of(&counted, &loop);
    ck_assert_uint_eq(run(&loop), SUM);
    ck_assert_uint_eq(stats().passes, N);
    ck_assert_int_eq(pp_pool_set_force(pool, NULL), PP_OK);
    /* One pass that force had ordered, then THRESHOLD more: two hits. */
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(job.at[0], 1 + THRESHOLD);
    ck_assert_uint_eq(stats().passes, 0);
}
END_TEST

START_TEST(states_are_not_overridden)
{
    struct loop loop;
    force("every=1");
    pp_site *site = site_of(&counted, &loop);
    job.defers = true;
    ck_assert_uint_eq(run(&loop), SUM);
    ck_assert_uint_eq(job.calls, 1); /* pending: it waits for another thread */
    ck_assert_uint_eq(stats().passes, 1);
    ck_assert_int_eq(pp_site_fail(site, PP_E_FAULT), PP_OK);
    ck_assert_uint_eq(run(&loop), SUM);
    ck_assert_uint_eq(job.calls, 2);
    if (_i == 0) {
        ck_assert_int_eq(pp_site_publish(site, entry), PP_OK);
        ck_assert_uint_eq(run(&loop), SUM + 2000000);
    } else {
        ck_assert_int_eq(pp_site_disable(site), PP_OK);
        ck_assert_uint_eq(run(&loop), SUM);
    }
    ck_assert_uint_eq(job.calls, 2);
}
END_TEST

/* ---- frames that are not as described ---------------------------------------- */

/* What may lie in the slot that a layout says has the pp_thread. */
static pp_thread strange;
static const char constant[128] = "not to be written";

static uint64_t word_in_slot(int i)
{
    static _Alignas(64) char zeros[128];
    const uint64_t words[] = {
        0, 1, 8, 0x7ffffffff000, 0xffff800000000000, (uintptr_t) &thread + 4, UINT64_MAX,
        (uintptr_t) produce, (uintptr_t) constant, (uintptr_t) zeros, (uintptr_t) &strange,
    };
    return words[i];
}
enum { WORDS = 11 };

START_TEST(thread_offset_is_verified)
{
    struct loop loop;
    pp_site_desc desc = counted;
    /* Of another thread's stack, with an anchor that is not there. */
    ck_assert_int_eq(pp_thread_init(&strange, constant, constant + 64), PP_OK);
    strange.anchor = 8;
    desc.kind = PP_SITE_FORCED;
    desc.counter = 0;
    desc.threshold = 0;
    desc.hits = 0;
    desc.thread_offset = AT_LOOP_N;
    desc.otherwise = pp_trace_entry(body);
    force("verify");
    pp_site *site;
    for (int made = 0; made < 2; made++) { /* the first one tells where `out` is */
        ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
        loop_link(&loop, pool, site, 1, false);
        desc.otherwise = loop.out;
    }
    const uint64_t word = _i < WORDS ? word_in_slot(_i) : (uintptr_t) &thread;
    if (_i == WORDS) { /* the right one goes to the body, which would run for long */
        job.answer = PP_E_RANGE;
        ck_assert_uint_eq(stats().mismatches, 0);
    }
    pp_enter(&thread, pp_trace_entry(loop.trace), word, (uintptr_t) &thread, 0, 0);
    pp_site_stats of = { .size = sizeof of };
    ck_assert_int_eq(pp_site_get_stats(site, &of), PP_OK);
    ck_assert_uint_eq(of.slow_paths, 1);
    ck_assert_uint_eq(of.refusals, 1);
    ck_assert_uint_eq(thread.exit_fp, 0);
    if (_i == WORDS) {
        ck_assert_uint_eq(job.calls, 1);
        ck_assert_int_eq(of.refusal, PP_E_RANGE);
        ck_assert_ptr_null(of.field);
        ck_assert_uint_eq(stats().mismatches, 0);
        return;
    }
    ck_assert_uint_eq(job.calls, 0);
    ck_assert_int_eq(of.refusal, PP_E_ABI);
    ck_assert_str_eq(of.field, "thread_offset");
    ck_assert_uint_eq(stats().mismatches, 1);
    ck_assert_uint_eq(stats().site, pp_site_number(site));
    ck_assert_uint_eq(stats().offset, PP_FORCE_AT_THREAD);
    ck_assert_int_eq((int64_t) stats().want, AT_LOOP_N);
    ck_assert_uint_eq(stats().got, word);
}
END_TEST

/* A site that was made before, and is verified for some time only; it sees its thread. */
static bool sees;

static pp_status look(void *host, pp_site *of, const pp_regs *regs, pp_entry **result)
{
    (void) host, (void) of, (void) regs, (void) result;
    sees = thread.exit_fp == regs->gpr[PP_REGS_SP / 8] - 16;
    return PP_E_RANGE;
}

START_TEST(right_threads_are_noted_while_c_runs)
{
    struct loop loop;
    pp_site_desc desc = counted;
    desc.thread_offset = AT_LOOP_THREAD;
    desc.produce = look;
    desc.hits = 1;
    desc.threshold = 4;
    site_of(&desc, &loop);
    for (int round = 0; round < 3; round++) {
        force(round == 1 ? "every=1,verify" : "every=1");
        sees = false;
        ck_assert_uint_eq(run(&loop), SUM);
        ck_assert(sees);
        ck_assert_uint_eq(thread.exit_fp, 0);
        ck_assert_uint_eq(stats().mismatches, 0);
    }
}
END_TEST

/* What a producer may do inside of a forced pass: pass other sites. */
START_TEST(armed_sites_are_forced)
{
    pp_site_desc desc = counted;
    struct loop loop;
    pp_error error = { .size = sizeof error };
    pp_site *site;
    desc.kind = PP_SITE_ARMED;
    desc.counter = 0;
    desc.threshold = 0;
    desc.hits = 1000;
    force("at=10");
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    loop_link_armed(&loop, pool, site);
    ck_assert_uint_eq(run(&loop), SUM);
    ck_assert_uint_eq(stats().passes, 0);
    pp_status status = pp_site_arm(site, loop.site, loop.cold, &error);
    if (status == PP_E_UNSUPPORTED)
        return; /* a pool that flips */
    ck_assert_msg(status == PP_OK, "%s", error.text);
    ck_assert_uint_eq(run(&loop), SUM + 2000000);
    ck_assert_uint_eq(job.at[0], 10);
}
END_TEST

START_TEST(sites_have_numbers)
{
    struct loop loops[3];
    pp_site *sites[3];
    force("site=2");
    job.answer = PP_E_FAULT;
    for (unsigned i = 0; i < 3; i++) {
        sites[i] = site_of(&counted, &loops[i]);
        ck_assert_uint_eq(pp_site_number(sites[i]), i + 1);
    }
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(run(&loops[i]), SUM);
    ck_assert_uint_eq(job.calls, N);
    ck_assert_ptr_eq(job.site[0], sites[1]);
    ck_assert_ptr_eq(job.site[N - 1], sites[1]);
    ck_assert_int_eq(pp_site_destroy(pool, sites[1]), PP_OK);
    ck_assert_uint_eq(pp_site_number(sites[1]), 0);
    ck_assert_uint_eq(pp_site_number(site_of(&counted, &loops[1])), 4); /* not used again */
}
END_TEST

/* ---- threads --------------------------------------------------------------------- */

enum { RUNNERS = 4, RUNS = 20 };
static atomic_uint produced;

static pp_status produce_none(void *host, pp_site *of, const pp_regs *regs, pp_entry **result)
{
    (void) host, (void) of, (void) regs, (void) result;
    atomic_fetch_add(&produced, 1);
    return PP_E_FAULT;
}

static void *runner(void *argument)
{
    struct loop *loop = argument;
    pp_thread own;
    if (pp_thread_init(&own, NULL, NULL) != PP_OK)
        return argument;
    for (unsigned i = 0; i < RUNS; i++)
        if (pp_enter(&own, pp_trace_entry(loop->trace), N, (uintptr_t) &own, 0, 0) != SUM)
            return argument;
    return NULL;
}

/* Each with a site of its own: passes have numbers across sites, none twice, none left out. */
START_TEST(passes_of_threads_have_numbers)
{
    pthread_t threads[RUNNERS];
    struct loop loops[RUNNERS];
    pp_site_desc desc = with_counter(1);
    desc.produce = produce_none;
    force("every=4");
    atomic_store(&produced, 0);
    for (unsigned i = 0; i < RUNNERS; i++)
        site_of(&desc, &loops[i]);
    for (unsigned i = 0; i < RUNNERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, runner, &loops[i]), 0);
    for (unsigned i = 0; i < RUNNERS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        ck_assert_ptr_null(result);
    }
    ck_assert_uint_eq(stats().passes, RUNNERS * RUNS * N);
    ck_assert_uint_eq(stats().triggers, RUNNERS * RUNS * N / 4);
    ck_assert_uint_eq(atomic_load(&produced), RUNNERS * RUNS * N / 4);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("force");
    TCase *tests = tcase_create("force");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, text_is_read, 0, sizeof texts / sizeof texts[0]);
    tcase_add_loop_test(tests, text_that_is_wrong_is_refused, 0, sizeof wrong / sizeof wrong[0]);
    tcase_add_test(tests, refused_force_changes_nothing);
    tcase_add_loop_test(tests, chosen_passes_trigger, 0, 2);
    tcase_add_loop_test(tests, forced_transition_is_a_transition, 0, 2);
    tcase_add_test(tests, ready_sites_are_verified);
    tcase_add_loop_test(tests, policies_are_overridden, 0, 8);
    tcase_add_test(tests, without_force_counters_count_again);
    tcase_add_loop_test(tests, states_are_not_overridden, 0, 2);
    tcase_add_loop_test(tests, thread_offset_is_verified, 0, WORDS + 1);
    tcase_add_test(tests, right_threads_are_noted_while_c_runs);
    tcase_add_test(tests, armed_sites_are_forced);
    tcase_add_test(tests, sites_have_numbers);
    tcase_add_test(tests, passes_of_threads_have_numbers);
    suite_add_tcase(suite, tests);
    SRunner *runner_of = srunner_create(suite);
    srunner_run_all(runner_of, CK_ENV);
    int failed = srunner_ntests_failed(runner_of);
    srunner_free(runner_of);
    return failed != 0;
}
