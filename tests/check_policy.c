/* SPDX-License-Identifier: MIT */
/* Policies: when sites trigger, what failures cost, and producers that answer later. */
#include <config.h>

#include "loop.h"
#include "step.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

enum { PASSES = 100000, CALLS = 64 };
#define SUM ((uint64_t) PASSES * (PASSES + 1) / 2)

static pp_pool *pool;
static pp_thread thread;
static pp_site *site;
static struct loop loop;

/* What the producer is to do, and when it was called. */
static struct {
    pp_status answer;
    bool defers;
    unsigned calls;
    uint64_t at[CALLS]; /* passes before, in the run */
    uint64_t n;
    pp_trace *body;
    pp_entry *entry;
} job;

static pp_status produce(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host;
    if (job.calls < CALLS)
        job.at[job.calls] = job.n - loop_slot(regs, AT_LOOP_N) + 1;
    job.calls++;
    if (job.defers) {
        ck_assert_int_eq(pp_site_defer(of), PP_OK);
        ck_assert_int_eq(pp_site_defer(of), PP_E_BUSY);
        return PP_E_FAULT; /* means nothing */
    }
    *entry = job.entry;
    return job.answer;
}

static const pp_site_desc counted = {
    .size = sizeof counted, .kind = PP_SITE_COUNTED, .counter = PP_COUNTER_SITE, .threshold = 4,
    .tier0 = &loop_frame, .produce = produce,
};

static void setup(void)
{
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    memset(&job, 0, sizeof job);
    ck_assert_int_eq(loop_body(pool, &job.body, &job.entry), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &counted, &site), PP_OK);
    loop_link(&loop, pool, site, 0, true);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static uint64_t run(uint64_t n)
{
    job.n = n;
    return pp_enter(&thread, pp_trace_entry(loop.trace), n, (uintptr_t) &thread, 0, 0);
}

static pp_site_stats stats(void)
{
    pp_site_stats result = { .size = sizeof result };
    ck_assert_int_eq(pp_site_get_stats(site, &result), PP_OK);
    return result;
}

static pp_policy policy_with(int32_t threshold, uint32_t hits, uint32_t backoff, uint32_t attempts)
{
    return (pp_policy) { .size = sizeof(pp_policy), .threshold = threshold, .hits = hits,
                         .backoff = backoff, .attempts = attempts };
}

#define REFUSED(change, reason) { pp_policy policy = policy_with(10, 2, 1, 3); change; \
    policy.error = &error; strcpy(error.text, ""); \
    ck_assert_msg(pp_pool_set_policy(pool, &policy) == PP_E_ARG, "%s", #change); \
    ck_assert_str_eq(error.text, reason); \
    ck_assert_msg(pp_site_set_policy(site, &policy) == PP_E_ARG, "%s", #change); }

START_TEST(policy_refuses_what_cannot_be)
{
    pp_error error = { .size = sizeof error };
    REFUSED(policy.size -= 8, "")
    REFUSED(policy.threshold = -1, "threshold: -1")
    REFUSED(policy.threshold = (1 << 30) + 1, "threshold: 1073741825")
    REFUSED(policy.threshold_max = 9, "threshold_max: 9")
    REFUSED(policy.threshold_max = -1, "threshold_max: -1")
    REFUSED(policy.backoff = 17, "backoff: 17")
    REFUSED(policy.random = 1u << 31, "random: 2147483648")
    REFUSED(policy.flags = 2, "flags: 0x2")
    REFUSED(policy.reserved = 1, "reserved: not 0")
    ck_assert_int_eq(pp_pool_set_policy(NULL, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_site_set_policy(NULL, NULL), PP_E_ARG);
    /* Nothing of them is in force: four passes, one hit. */
    ck_assert_uint_eq(run(10), 2000055);
    ck_assert_uint_eq(job.at[0], 4);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_site_set_policy(site, NULL), PP_E_STALE);
}
END_TEST

START_TEST(policy_is_the_pools_or_the_sites)
{
    pp_policy slow = policy_with(100, 5, 0, 0), quick = policy_with(7, 2, 0, 0);
    ck_assert_int_eq(pp_pool_set_policy(pool, &slow), PP_OK);
    if (_i == 0) {
        run(PASSES);
        ck_assert_uint_eq(job.at[0], 4 + 4 * 100); /* the first count was there before */
        return;
    }
    ck_assert_int_eq(pp_site_set_policy(site, &quick), PP_OK);
    if (_i == 2)
        ck_assert_int_eq(pp_site_set_policy(site, NULL), PP_OK);
    if (_i == 3)
        ck_assert_int_eq(pp_pool_set_policy(pool, NULL), PP_OK);
    run(PASSES);
    ck_assert_uint_eq(job.at[0], _i == 2 ? 4 + 4 * 100 : 4 + 7);
}
END_TEST

START_TEST(failures_back_off_and_end)
{
    pp_policy policy = policy_with(0, 1, 1, 5);
    job.answer = PP_E_NOMEM;
    ck_assert_int_eq(pp_pool_set_policy(pool, &policy), PP_OK);
    ck_assert_uint_eq(run(PASSES), SUM);
    static const uint64_t at[] = { 4, 12, 28, 60, 124 };
    ck_assert_uint_eq(job.calls, 5);
    ck_assert_mem_eq(job.at, at, sizeof at);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_DISABLED);
    ck_assert_uint_eq(stats().refusals, 5);
    ck_assert_uint_eq(stats().failures, 5);
    ck_assert_int_eq(stats().refusal, PP_E_NOMEM);
    ck_assert_uint_eq(stats().slow_paths, 5);
    ck_assert_uint_eq(run(PASSES), SUM);
    ck_assert_uint_eq(job.calls, 5);
}
END_TEST

START_TEST(back_off_ends_where_it_is_told)
{
    pp_policy policy = policy_with(0, 1, 2, 1000);
    policy.threshold_max = 100;
    policy.flags = _i ? PP_POLICY_NEVER : 0;
    job.answer = PP_E_FAULT;
    ck_assert_int_eq(pp_site_set_policy(site, &policy), PP_OK);
    ck_assert_uint_eq(run(PASSES), SUM);
    static const uint64_t at[] = { 4, 20, 84, 184, 284 }; /* 4, 16, 64, 100, 100 */
    ck_assert_mem_eq(job.at, at, (_i ? 3 : 5) * sizeof at[0]);
    if (_i) {
        ck_assert_uint_eq(job.calls, 3);
        ck_assert_int_eq(pp_site_state(site), PP_SITE_DISABLED);
    } else {
        ck_assert_uint_eq(job.calls, 1000);
        ck_assert_int_eq(pp_site_state(site), PP_SITE_DISABLED);
    }
}
END_TEST

/* A limit of the back-off that is below a site's own threshold does not shorten it. */
START_TEST(a_site_keeps_its_own_threshold)
{
    static const uint64_t at[] = { 4, 8, 12 };
    pp_policy policy = policy_with(0, 1, 1, 3);
    policy.threshold_max = 2;
    job.answer = PP_E_FAULT;
    ck_assert_int_eq(pp_pool_set_policy(pool, &policy), PP_OK);
    ck_assert_uint_eq(run(PASSES), SUM);
    ck_assert_uint_eq(job.calls, 3);
    ck_assert_mem_eq(job.at, at, sizeof at);
}
END_TEST

START_TEST(success_after_failures)
{
    pp_policy policy = policy_with(0, 1, 1, 5);
    job.answer = PP_E_NOMEM;
    ck_assert_int_eq(pp_site_set_policy(site, &policy), PP_OK);
    ck_assert_uint_eq(run(20), 210);
    ck_assert_uint_eq(job.calls, 2);
    ck_assert_uint_eq(stats().backoff, 2);
    job.answer = PP_OK;
    ck_assert_uint_eq(run(20), 2000210);
    ck_assert_uint_eq(job.calls, 3);
    ck_assert_uint_eq(stats().failures, 0);
    ck_assert_uint_eq(stats().backoff, 0);
    ck_assert_int_eq(stats().refusal, PP_E_NOMEM);
}
END_TEST

START_TEST(passes_are_added_at_random)
{
    pp_policy policy = policy_with(10, 1, 0, CALLS);
    policy.random = 5;
    job.answer = PP_E_FAULT;
    bool seen[16] = { 0 };
    unsigned kinds = 0;
    uint64_t at[2][CALLS];
    for (unsigned round = 0; round < 2; round++) {
        ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
        ck_assert_int_eq(pp_site_create(pool, &counted, &site), PP_OK);
        loop_link(&loop, pool, site, 0, true);
        policy.seed = 42 + (_i ? round : 0);
        ck_assert_int_eq(pp_site_set_policy(site, &policy), PP_OK);
        job.calls = 0;
        run(PASSES);
        ck_assert_uint_eq(job.calls, CALLS);
        memcpy(at[round], job.at, sizeof job.at);
    }
    for (unsigned i = 1; i < CALLS; i++) {
        uint64_t passes = at[0][i] - at[0][i - 1];
        ck_assert_uint_ge(passes, 10);
        ck_assert_uint_le(passes, 15);
        kinds += !seen[passes];
        seen[passes] = true;
    }
    ck_assert_uint_eq(kinds, 6);
    ck_assert_int_eq(memcmp(at[0], at[1], sizeof at[0]) == 0, _i == 0); /* by the seed */
}
END_TEST

static int32_t load_answer;

static int32_t load(void *host, pp_site *of, int32_t passes)
{
    (void) host;
    ck_assert_ptr_eq(of, site);
    ck_assert_int_eq(passes, 10);
    return load_answer;
}

START_TEST(host_scales)
{
    static const int32_t answers[] = { 30, 0, -5, INT32_MAX };
    static const uint64_t after[] = { 30, 1, 1, 0 };
    pp_policy policy = policy_with(10, 1, 0, CALLS);
    policy.load = load;
    load_answer = answers[_i];
    job.answer = PP_E_FAULT;
    ck_assert_int_eq(pp_site_set_policy(site, &policy), PP_OK);
    run(1000);
    ck_assert_uint_eq(job.at[0], 4);
    if (after[_i] == 0)
        ck_assert_uint_eq(job.calls, 1);
    else
        ck_assert_uint_eq(job.at[1] - job.at[0], after[_i]);
}
END_TEST

/* ---- producers that answer later ----------------------------------------------- */

START_TEST(pending_site_is_ended_by_others)
{
    pp_policy policy = policy_with(0, 1, 1, 3);
    job.defers = true;
    ck_assert_int_eq(pp_site_defer(site), PP_E_BUSY);
    ck_assert_int_eq(pp_site_defer(NULL), PP_E_ARG);
    ck_assert_int_eq(pp_site_fail(site, PP_E_NOMEM), PP_E_BUSY);
    ck_assert_int_eq(pp_site_set_policy(site, &policy), PP_OK);
    ck_assert_uint_eq(run(1000), 500500);
    ck_assert_uint_eq(job.calls, 1);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_PENDING);
    ck_assert_uint_eq(stats().slow_paths, 8); /* passes 4, 8, 16, 32 .. 512 */
    ck_assert_ptr_null(pp_site_entry(site));

    /* A failure: tried again, with what is left of the back-off. */
    ck_assert_int_eq(pp_site_fail(site, PP_OK), PP_E_ARG);
    ck_assert_int_eq(pp_site_fail(site, PP_E_RANGE), PP_OK);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_COUNTING);
    ck_assert_int_eq(stats().refusal, PP_E_RANGE);
    ck_assert_uint_eq(run(2000), 2001000);
    ck_assert_uint_eq(job.calls, 2);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_PENDING);
    ck_assert_int_eq(pp_site_publish(site, job.entry), PP_OK);
    ck_assert_int_eq(pp_site_fail(site, PP_E_RANGE), PP_E_BUSY);
    ck_assert_uint_eq(run(PASSES), SUM + 2000000);
    ck_assert_uint_eq(job.calls, 2);
}
END_TEST

START_TEST(pending_site_may_go)
{
    job.defers = true;
    ck_assert_uint_eq(run(10), 55);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_PENDING);
    if (_i == 0) {
        ck_assert_int_eq(pp_site_disable(site), PP_OK);
        ck_assert_int_eq(pp_site_fail(site, PP_E_FAULT), PP_E_STALE);
        ck_assert_int_eq(pp_site_publish(site, job.entry), PP_E_STALE);
        ck_assert_uint_eq(run(PASSES), SUM);
    } else {
        ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
        ck_assert_int_eq(pp_site_fail(site, PP_E_FAULT), PP_E_STALE);
        ck_assert_int_eq(pp_site_publish(site, job.entry), PP_E_STALE);
    }
    ck_assert_int_eq(pp_entry_destroy(pool, job.entry), PP_OK); /* no reference was left */
}
END_TEST

/* Threads run one site; compilers beside them fail it some times, and then publish. */
enum { RUNNERS = 4, FAILURES = 20 };
static atomic_uint asked;
static atomic_bool done;

static pp_status produce_later(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) regs, (void) entry;
    pp_status status = pp_site_defer(of);
    atomic_fetch_add(&asked, 1); /* the job is in the queue */
    return status;
}

static void *compiler(void *argument)
{
    (void) argument;
    for (unsigned taken = 0; taken <= FAILURES;) {
        if (atomic_load(&asked) == taken) {
            sched_yield();
            continue;
        }
        taken++;
        pp_status status = taken <= FAILURES ? pp_site_fail(site, PP_E_FAULT)
                                             : pp_site_publish(site, job.entry);
        if (status != PP_OK)
            return (void *) (intptr_t) status;
    }
    return NULL;
}

static void *runner(void *argument)
{
    pp_thread own;
    uint64_t *wrong = argument;
    if (pp_thread_init(&own, NULL, NULL) != PP_OK)
        ++*wrong;
    while (!atomic_load(&done)) {
        uint64_t sum = pp_enter(&own, pp_trace_entry(loop.trace), 1000, (uintptr_t) &own, 0, 0);
        if (sum != 500500 && sum != 2500500)
            ++*wrong;
        if (sum == 2500500)
            break;
    }
    return NULL;
}

START_TEST(compilers_work_beside_runners)
{
    pthread_t runners[RUNNERS], other;
    uint64_t wrong[RUNNERS] = { 0 };
    void *result;
    pp_policy policy = policy_with(0, 1, 0, 1000);
    pp_site_desc desc = counted;
    desc.produce = produce_later;
    ck_assert_int_eq(pp_pool_set_policy(pool, &policy), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    loop_link(&loop, pool, site, 0, true);
    ck_assert_int_eq(pthread_create(&other, NULL, compiler, NULL), 0);
    for (unsigned i = 0; i < RUNNERS; i++)
        ck_assert_int_eq(pthread_create(&runners[i], NULL, runner, &wrong[i]), 0);
    pthread_join(other, &result);
    if (result != NULL)
        atomic_store(&done, true);
    for (unsigned i = 0; i < RUNNERS; i++) {
        pthread_join(runners[i], NULL);
        ck_assert_uint_eq(wrong[i], 0);
    }
    ck_assert_ptr_null(result);
    ck_assert_uint_eq(atomic_load(&asked), FAILURES + 1); /* one winner each time */
    ck_assert_uint_eq(stats().triggers, FAILURES + 1);
    ck_assert_uint_eq(stats().refusals, FAILURES);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_READY);
}
END_TEST

#if defined __x86_64__
/* Of other architectures only code that is named can be stepped through. */

/*
 * What another thread does to the site before one of the instructions of a pass, of those
 * behind the question how the host scales, or behind its producer.
 */
static struct {
    unsigned at, seen;
    bool counts, replaces;
    pp_status status;
    uint64_t result;
} rival;

static void step_in(ucontext_t *context, void *nothing)
{
    (void) context, (void) nothing;
    if (rival.counts && rival.seen++ == rival.at)
        rival.status = rival.replaces ? pp_site_replace(site, NULL, NULL)
                                      : pp_site_publish(site, job.entry);
}

static int32_t begin_early(void *host, pp_site *of, int32_t passes)
{
    (void) host, (void) of;
    rival.counts = true;
    return passes;
}

static pp_status begin_late(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) of, (void) regs, (void) entry;
    rival.counts = true;
    return PP_E_FAULT;
}

static void pass_once(void *nothing)
{
    (void) nothing;
    rival.result = run(1);
}

static void open_rivals_site(void)
{
    pp_site_desc desc = counted;
    pp_policy policy = policy_with(1, 1, 0, 0);
    if (rival.replaces)
        desc.produce = begin_late;
    else
        policy.load = begin_early;
    ck_assert_int_eq(pp_pool_set_policy(pool, &policy), PP_OK);
    desc.threshold = 1;
    job.calls = 0;
    rival.seen = 0;
    rival.counts = false;
    rival.status = PP_E_STALE;
    ck_assert_int_eq(pp_trace_free(pool, loop.trace), PP_OK);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    loop_link(&loop, pool, site, 0, true);
}

START_TEST(a_pass_that_comes_second_produces_nothing)
{
    rival.replaces = false;
    rival.at = 0;
    do {
        open_rivals_site();
        step_run(NULL, 0, step_in, pass_once, NULL);
        ck_assert_uint_eq(rival.result, 2000001);
        ck_assert_uint_eq(job.calls, rival.status != PP_OK);
        ck_assert_uint_eq(stats().triggers, rival.status != PP_OK);
        ck_assert_uint_eq(stats().failures, 0);
        rival.at++;
    } while (rival.status == PP_OK); /* until the pass is the first */
    ck_assert_int_eq(rival.status, PP_E_BUSY);
    ck_assert_uint_ge(rival.at, 10);
}
END_TEST

/* The site began anew: a failure before that is forgotten, and one behind it counts nothing. */
START_TEST(a_failure_that_comes_second_counts_nothing)
{
    rival.replaces = true;
    rival.at = 0;
    do {
        open_rivals_site();
        step_run(NULL, 0, step_in, pass_once, NULL);
        ck_assert_uint_eq(rival.result, 1);
        if (rival.status == PP_OK) {
            ck_assert_uint_eq(stats().failures, 0);
            ck_assert_uint_eq(stats().backoff, 0);
        }
    } while (++rival.at < rival.seen && rival.at < 200);
    ck_assert_uint_ge(rival.at, 50);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("policy");
    TCase *tests = tcase_create("policy");
    tcase_set_timeout(tests, 60); /* stepping is slow where processors are shared */
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, policy_refuses_what_cannot_be);
    tcase_add_loop_test(tests, policy_is_the_pools_or_the_sites, 0, 4);
    tcase_add_test(tests, failures_back_off_and_end);
    tcase_add_loop_test(tests, back_off_ends_where_it_is_told, 0, 2);
    tcase_add_test(tests, a_site_keeps_its_own_threshold);
    tcase_add_test(tests, success_after_failures);
    tcase_add_loop_test(tests, passes_are_added_at_random, 0, 2);
    tcase_add_loop_test(tests, host_scales, 0, 4);
    tcase_add_test(tests, pending_site_is_ended_by_others);
    tcase_add_loop_test(tests, pending_site_may_go, 0, 2);
    tcase_add_test(tests, compilers_work_beside_runners);
#if defined __x86_64__
    tcase_add_test(tests, a_pass_that_comes_second_produces_nothing);
    tcase_add_test(tests, a_failure_that_comes_second_counts_nothing);
#endif
    suite_add_tcase(suite, tests);
    SRunner *runner_of = srunner_create(suite);
    srunner_run_all(runner_of, CK_ENV);
    int failed = srunner_ntests_failed(runner_of);
    srunner_free(runner_of);
    return failed != 0;
}
