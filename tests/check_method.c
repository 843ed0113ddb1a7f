/* SPDX-License-Identifier: MIT */
/* Methods: siblings that trigger at once, limits, one producer at a time. */
#include <config.h>

#include "loop.h"

#include <patchpoint/method.h>

#include <pthread.h>
#include <stdatomic.h>

enum { SITES = 4 };

static pp_pool *pool, *other;
static pp_thread thread;
static pp_method *method;
static pp_site *sites[SITES];
static struct loop loops[SITES];

/* What the producer is to do, for which site. */
static struct {
    atomic_uint calls;
    pp_status answer;
    bool defers;
    pp_trace *body;
    pp_entry *entry;
    pp_site *latest;
} job;

static pp_status produce(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) regs;
    atomic_fetch_add(&job.calls, 1);
    job.latest = of;
    if (job.defers)
        ck_assert_int_eq(pp_site_defer(of), PP_OK);
    *entry = job.entry;
    return job.answer;
}

/* 12 passes trigger it by itself. */
static const pp_site_desc counted = {
    .size = sizeof counted, .kind = PP_SITE_COUNTED, .counter = PP_COUNTER_SITE, .threshold = 4,
    .hits = 3, .tier0 = &loop_frame, .produce = produce,
};

static void open_method(uint32_t bodies, uint32_t flags)
{
    pp_method_desc desc = { .size = sizeof desc, .bodies = bodies, .flags = flags, .host = &job };
    ck_assert_int_eq(pp_method_create(pool, &desc, &method), PP_OK);
    for (unsigned i = 0; i < SITES; i++) {
        pp_site_desc site = counted;
        site.method = method;
        ck_assert_int_eq(pp_site_create(pool, &site, &sites[i]), PP_OK);
        loop_link(&loops[i], pool, sites[i], 0, true);
    }
}

static void setup(void)
{
    memset(&job, 0, sizeof job);
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_pool_create(NULL, &other), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    ck_assert_int_eq(loop_body(pool, &job.body, &job.entry), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
    pp_pool_destroy(other);
}

static uint64_t run_as(pp_thread *own, unsigned i, uint64_t n)
{
    return pp_enter(own, pp_trace_entry(loops[i].trace), n, (uintptr_t) own, 0, 0);
}

/* Whether n passes of a site end in the body. */
static bool moves(unsigned i, uint64_t n)
{
    uint64_t result = run_as(&thread, i, n), sum = n * (n + 1) / 2;
    ck_assert(result == sum || result == sum + 2000000);
    return result != sum;
}

static pp_method_stats stats(void)
{
    pp_method_stats result = { .size = sizeof result };
    ck_assert_int_eq(pp_method_get_stats(method, &result), PP_OK);
    return result;
}

static pp_status refusal_of(unsigned i)
{
    pp_site_stats result = { .size = sizeof result };
    ck_assert_int_eq(pp_site_get_stats(sites[i], &result), PP_OK);
    return result.refusal;
}

START_TEST(siblings_trigger_at_once)
{
    open_method(0, 0);
    ck_assert(!moves(0, 11));
    ck_assert(!moves(1, 11));
    ck_assert_uint_eq(stats().successes, 0);
    ck_assert(moves(0, 1)); /* its third hit */
    ck_assert_uint_eq(stats().successes, 1);
    ck_assert_uint_eq(stats().bodies, 1);
    ck_assert(!moves(2, 3));
    ck_assert(moves(2, 1)); /* its first */
    ck_assert(moves(1, 1));
    ck_assert_uint_eq(atomic_load(&job.calls), 3);
    ck_assert_uint_eq(stats().bodies, 3);
    ck_assert_uint_eq(stats().sites, SITES);
}
END_TEST

START_TEST(a_failure_is_no_reason)
{
    open_method(1, PP_METHOD_ONE_AT_A_TIME);
    job.answer = PP_E_UNSUPPORTED;
    ck_assert(!moves(0, 12));
    ck_assert_uint_eq(stats().bodies, 0);
    ck_assert(!moves(1, 11));
    ck_assert_uint_eq(atomic_load(&job.calls), 1);
    job.answer = PP_OK;
    ck_assert(moves(1, 1));
    ck_assert_uint_eq(stats().bodies, 1);
}
END_TEST

START_TEST(bodies_are_limited)
{
    open_method(2, 0);
    ck_assert(moves(0, 12));
    ck_assert(moves(1, 4));
    ck_assert(!moves(2, 100));
    ck_assert_uint_eq(atomic_load(&job.calls), 2);
    ck_assert_int_eq(refusal_of(2), PP_E_NOMEM);
    ck_assert_int_eq(pp_site_state(sites[2]), PP_SITE_COUNTING);
    ck_assert_uint_eq(stats().full, 25);
    ck_assert_uint_eq(stats().busy, 0);
    /* By hand one more, which counts for nothing. */
    ck_assert_int_eq(pp_site_publish(sites[3], job.entry), PP_OK);
    ck_assert_uint_eq(stats().bodies, 2);
    ck_assert_uint_eq(stats().successes, 3);
    ck_assert(moves(3, 4));
    ck_assert_int_eq(pp_site_destroy(pool, sites[3]), PP_OK);
    ck_assert_uint_eq(stats().bodies, 2);
    ck_assert(!moves(2, 4));
    /* Disabled, a site has no entry, so no body; destroyed after that, it has none to give. */
    ck_assert_int_eq(pp_site_disable(sites[0]), PP_OK);
    ck_assert_uint_eq(stats().bodies, 1);
    ck_assert(moves(2, 4));
    ck_assert_uint_eq(stats().bodies, 2);
    ck_assert_int_eq(pp_site_destroy(pool, sites[0]), PP_OK);
    ck_assert_uint_eq(stats().bodies, 2);
    ck_assert_uint_eq(stats().sites, 2);
}
END_TEST

START_TEST(replaced_entries_give_their_bodies_back)
{
    pp_entry *old;
    open_method(2, 0);
    ck_assert(moves(0, 12));
    ck_assert(moves(1, 4));
    ck_assert(!moves(2, 4)); /* full */
    ck_assert_int_eq(pp_site_replace(sites[0], NULL, &old), PP_OK);
    ck_assert_ptr_eq(old, job.entry);
    ck_assert_uint_eq(stats().bodies, 1);
    ck_assert(moves(2, 4)); /* its sibling 1 has an entry, so its first hit triggers */
    ck_assert_uint_eq(stats().bodies, 2);
    /* By hand, for what a producer made: it costs nothing any more. */
    ck_assert_int_eq(pp_site_replace(sites[1], job.entry, &old), PP_OK);
    ck_assert_ptr_null(old); /* it is the same */
    ck_assert_uint_eq(stats().bodies, 1);
    ck_assert_int_eq(pp_site_replace(sites[1], NULL, NULL), PP_OK);
    ck_assert_int_eq(pp_site_withdraw(sites[2], &old), PP_OK);
    ck_assert_ptr_eq(old, job.entry);
    ck_assert_uint_eq(stats().bodies, 0);
    /* No site has an entry, so each needs all of its hits. */
    ck_assert(!moves(0, 11));
    ck_assert(moves(0, 1));
    ck_assert_uint_eq(stats().bodies, 1);
    ck_assert_int_eq(pp_entry_destroy(pool, job.entry), PP_E_BUSY);
}
END_TEST

/* The producer of site 0 disables the site, or has it count again; and looks at site 1. */
static bool counts;

static pp_status produce_and_lose(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) regs;
    ck_assert_uint_eq(stats().bodies, 1);
    ck_assert_int_eq(counts ? pp_site_replace(of, NULL, NULL) : pp_site_disable(of), PP_OK);
    ck_assert_int_eq(pp_site_defer(of), PP_E_STALE);
    ck_assert_uint_eq(stats().bodies, 1); /* it runs, after all */
    ck_assert(!moves(1, 12));
    ck_assert_int_eq(refusal_of(1), PP_E_BUSY);
    *entry = job.entry;
    return PP_OK;
}

START_TEST(producer_that_lost_its_site_counts_until_it_returns)
{
    open_method(1, PP_METHOD_ONE_AT_A_TIME);
    pp_site_desc desc = counted;
    counts = _i != 0;
    desc.method = method;
    desc.produce = produce_and_lose;
    ck_assert_int_eq(pp_site_destroy(pool, sites[0]), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &desc, &sites[0]), PP_OK);
    loop_link(&loops[0], pool, sites[0], 0, true);
    ck_assert(!moves(0, 12));
    ck_assert_int_eq(refusal_of(0), PP_E_STALE);
    ck_assert_int_eq(pp_site_state(sites[0]), counts ? PP_SITE_COUNTING : PP_SITE_DISABLED);
    ck_assert_uint_eq(stats().bodies, 0);
    ck_assert_uint_eq(stats().successes, 0);
    ck_assert(moves(1, 12));
    ck_assert_uint_eq(stats().bodies, 1);
}
END_TEST

START_TEST(beyond_the_limit_slow_paths_back_off)
{
    pp_policy policy = { .size = sizeof policy, .backoff = 1 };
    open_method(1, 0);
    ck_assert(moves(0, 12));
    ck_assert_int_eq(pp_site_set_policy(sites[1], &policy), PP_OK);
    ck_assert(!moves(1, 4 + 4 + 8 + 16 + 32));
    ck_assert_uint_eq(stats().full, 5);
}
END_TEST

START_TEST(one_producer_at_a_time)
{
    open_method(0, PP_METHOD_ONE_AT_A_TIME);
    job.defers = true;
    ck_assert(!moves(0, 12));
    ck_assert_int_eq(pp_site_state(sites[0]), PP_SITE_PENDING);
    ck_assert(!moves(1, 12));
    ck_assert_int_eq(pp_site_state(sites[1]), PP_SITE_COUNTING);
    ck_assert_int_eq(refusal_of(1), PP_E_BUSY);
    ck_assert_uint_eq(stats().busy, 1);
    ck_assert_uint_eq(stats().bodies, 1);
    switch (_i) {
    case 0:
        ck_assert_int_eq(pp_site_publish(sites[0], job.entry), PP_OK);
        ck_assert_uint_eq(stats().bodies, 1);
        break;
    case 1:
        ck_assert_int_eq(pp_site_fail(sites[0], PP_E_FAULT), PP_OK);
        ck_assert_uint_eq(stats().bodies, 0);
        break;
    case 2:
        ck_assert_int_eq(pp_site_disable(sites[0]), PP_OK);
        ck_assert_uint_eq(stats().bodies, 0);
        ck_assert_int_eq(pp_site_publish(sites[0], job.entry), PP_E_STALE);
        ck_assert_int_eq(pp_site_fail(sites[0], PP_E_FAULT), PP_E_STALE);
        break;
    default:
        ck_assert_int_eq(pp_site_destroy(pool, sites[0]), PP_OK);
        ck_assert_uint_eq(stats().bodies, 0);
    }
    job.defers = false;
    ck_assert(moves(1, 4)); /* its hits are enough */
    ck_assert(moves(2, 12));
}
END_TEST

static pp_status why;

static const void *on_refused(void *host, pp_site *of, const pp_regs *regs, pp_status reason)
{
    (void) host, (void) of, (void) regs;
    why = reason;
    return NULL;
}

START_TEST(forced_site_goes_elsewhere)
{
    struct loop forced;
    pp_site *site;
    open_method(1, 0);
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_FORCED, .tier0 = &loop_frame,
                          .produce = produce, .otherwise = loops[1].out, .refused = on_refused,
                          .method = method };
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    loop_link(&forced, pool, site, 7, false);
    ck_assert(moves(0, 12));
    ck_assert_uint_eq(pp_enter(&thread, pp_trace_entry(forced.trace), 10, (uintptr_t) &thread, 0, 0),
                      1000000);
    ck_assert_int_eq(why, PP_E_NOMEM);
    ck_assert_uint_eq(atomic_load(&job.calls), 1);
    ck_assert_int_eq(pp_site_destroy(pool, sites[0]), PP_OK);
    ck_assert_uint_eq(pp_enter(&thread, pp_trace_entry(forced.trace), 10, (uintptr_t) &thread, 0, 0),
                      2000055);
}
END_TEST

/* ---- handles ------------------------------------------------------------------- */

static void refuse(const pp_site_desc *desc, pp_status status, const char *text)
{
    pp_error error = { .size = sizeof error };
    pp_site_desc copy = *desc;
    pp_site *site = NULL;
    copy.error = &error;
    ck_assert_int_eq(pp_site_create(pool, &copy, &site), status);
    ck_assert_str_eq(error.text, text);
    ck_assert_ptr_null(site);
}

static const void *poll(void *host, pp_site *of, const pp_regs *regs)
{
    (void) host, (void) of, (void) regs;
    return NULL;
}

START_TEST(methods_live_and_die)
{
    pp_error error = { .size = sizeof error };
    pp_method_desc desc = { .size = sizeof desc, .error = &error, .host = &job };
    pp_method_stats result = { .size = sizeof result };
    pp_method *foreign, *untouched = NULL;
    open_method(0, 0);
    ck_assert_ptr_eq(pp_method_host(method), &job);
    ck_assert_int_eq(pp_method_create(other, &desc, &foreign), PP_OK);
    desc.flags = 2;
    ck_assert_int_eq(pp_method_create(pool, &desc, &untouched), PP_E_ARG);
    ck_assert_str_eq(error.text, "flags: 0x2");
    desc.flags = 0;
    desc.size--;
    ck_assert_int_eq(pp_method_create(pool, &desc, &untouched), PP_E_ARG);
    ck_assert_int_eq(pp_method_create(NULL, &desc, &untouched), PP_E_ARG);
    ck_assert_int_eq(pp_method_create(pool, NULL, &untouched), PP_E_ARG);
    ck_assert_ptr_null(untouched);

    pp_site_desc site = counted;
    site.method = foreign;
    refuse(&site, PP_E_FAULT, "method: not one of this pool");
    /* However often: nothing more is kept of a site that was refused. */
    pp_pool_stats before = { .size = sizeof before }, after = { .size = sizeof after };
    ck_assert_int_eq(pp_pool_get_stats(pool, &before), PP_OK);
    for (unsigned i = 0; i < 1000; i++)
        refuse(&site, PP_E_FAULT, "method: not one of this pool");
    ck_assert_int_eq(pp_pool_get_stats(pool, &after), PP_OK);
    ck_assert_uint_eq(after.metadata, before.metadata);
    site.method = method;
    site.kind = PP_SITE_POLLED;
    site.produce = NULL;
    site.poll = poll;
    refuse(&site, PP_E_ARG, "method: of sites that lead to entries");

    ck_assert_int_eq(pp_method_destroy(other, method), PP_E_FAULT);
    ck_assert_int_eq(pp_method_destroy(NULL, method), PP_E_ARG);
    ck_assert_int_eq(pp_method_destroy(pool, NULL), PP_E_ARG);
    for (unsigned i = 0; i < SITES; i++) {
        ck_assert_int_eq(pp_method_destroy(pool, method), PP_E_BUSY);
        ck_assert_uint_eq(stats().sites, SITES - i);
        ck_assert_int_eq(pp_site_destroy(pool, sites[i]), PP_OK);
    }
    ck_assert_int_eq(pp_method_destroy(pool, method), PP_OK);
    ck_assert_int_eq(pp_method_destroy(pool, method), PP_E_STALE);
    ck_assert_int_eq(pp_method_get_stats(method, &result), PP_E_STALE);
    ck_assert_int_eq(pp_method_get_stats(NULL, &result), PP_E_ARG);
    result.size--;
    ck_assert_int_eq(pp_method_get_stats(foreign, &result), PP_E_ARG);
    ck_assert_ptr_null(pp_method_host(method));
    site = counted;
    site.method = method;
    refuse(&site, PP_E_STALE, "method: not one of this pool");
    pp_method *next;
    desc.size = sizeof desc;
    ck_assert_int_eq(pp_method_create(pool, &desc, &next), PP_OK); /* in the same memory */
    refuse(&site, PP_E_STALE, "method: not one of this pool");
}
END_TEST

/* ---- threads --------------------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 200, BODIES = 2 };
static atomic_uint at_work, most_at_work;

static pp_status produce_sometimes(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) of, (void) regs;
    unsigned now = atomic_fetch_add(&at_work, 1) + 1, most = atomic_load(&most_at_work);
    while (now > most && !atomic_compare_exchange_weak(&most_at_work, &most, now))
        continue;
    unsigned call = atomic_fetch_add(&job.calls, 1);
    *entry = job.entry;
    atomic_fetch_sub(&at_work, 1);
    return call % 3 == 2 ? PP_OK : PP_E_UNSUPPORTED;
}

static void *run_all(void *nothing)
{
    pp_thread own;
    ck_assert_int_eq(pp_thread_init(&own, NULL, NULL), PP_OK);
    for (unsigned round = 0; round < 50; round++)
        (void) run_as(&own, round % SITES, 100);
    return nothing;
}

START_TEST(threads_keep_the_limits)
{
    pp_policy policy = { .size = sizeof policy, .attempts = 1000 };
    ck_assert_int_eq(pp_pool_set_policy(pool, &policy), PP_OK);
    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        pp_method_desc desc = { .size = sizeof desc, .bodies = BODIES,
                                .flags = round % 2 ? PP_METHOD_ONE_AT_A_TIME : 0 };
        ck_assert_int_eq(pp_method_create(pool, &desc, &method), PP_OK);
        atomic_store(&most_at_work, 0);
        for (unsigned i = 0; i < SITES; i++) {
            pp_site_desc site = counted;
            site.method = method;
            site.produce = produce_sometimes;
            ck_assert_int_eq(pp_site_create(pool, &site, &sites[i]), PP_OK);
            loop_link(&loops[i], pool, sites[i], 0, true);
        }
        for (unsigned i = 0; i < THREADS; i++)
            ck_assert_int_eq(pthread_create(&threads[i], NULL, run_all, NULL), 0);
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        unsigned ready = 0;
        for (unsigned i = 0; i < SITES; i++)
            ready += pp_site_entry(sites[i]) != NULL;
        ck_assert_uint_eq(ready, BODIES);
        ck_assert_uint_eq(stats().bodies, BODIES);
        ck_assert_uint_eq(stats().successes, BODIES);
        ck_assert_uint_le(atomic_load(&most_at_work), round % 2 ? 1 : BODIES);
        for (unsigned i = 0; i < SITES; i++) {
            ck_assert_int_eq(pp_site_destroy(pool, sites[i]), PP_OK);
            ck_assert_int_eq(pp_trace_free(pool, loops[i].trace), PP_OK);
        }
        ck_assert_uint_eq(stats().bodies, 0);
        ck_assert_int_eq(pp_method_destroy(pool, method), PP_OK);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("method");
    TCase *tests = tcase_create("method");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, siblings_trigger_at_once);
    tcase_add_test(tests, a_failure_is_no_reason);
    tcase_add_test(tests, bodies_are_limited);
    tcase_add_test(tests, replaced_entries_give_their_bodies_back);
    tcase_add_loop_test(tests, producer_that_lost_its_site_counts_until_it_returns, 0, 2);
    tcase_add_test(tests, beyond_the_limit_slow_paths_back_off);
    tcase_add_loop_test(tests, one_producer_at_a_time, 0, 4);
    tcase_add_test(tests, forced_site_goes_elsewhere);
    tcase_add_test(tests, methods_live_and_die);
    tcase_add_test(tests, threads_keep_the_limits);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
