/* SPDX-License-Identifier: MIT */
/* Threads that link, keep, free and retire each other's traces: each ends once. */
#include <config.h>

#include "isa/isa.h"
#include "link/shelf.h"
#include "link/trace.h"

#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

enum { THREADS = 4, PLACES = 32, STEPS = 20000 };

static pp_pool *pool;
static pp_symbol symbol;
static _Atomic(pp_trace *) places[PLACES];
static atomic_size_t linked, freed, retired;

static void target(void)
{
}

static pp_trace *make_trace(void)
{
    struct snippet code = { 0 };
    pp_trace *trace = NULL;
    snippet_begin(&code);
    snippet_call(&code, symbol);
    snippet_end(&code);
    pp_trace_desc desc = snippet_desc(&code);
    desc.name = "a name";
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    snippet_free(&code);
    return trace;
}

static void start(void)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) target },
                                .branch_range = 1 };
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    symbol = pp_symbol_define(pool, "target", (void *) target);
}

static void stop(void)
{
    pp_error reason = { .size = sizeof reason };
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    pp_pool_destroy(pool);
}

static pp_pool_stats stats(void)
{
    pp_pool_stats now = { .size = sizeof now };
    ck_assert_int_eq(pp_pool_get_stats(pool, &now), PP_OK);
    return now;
}

static bool is_gone(pp_status status)
{
    return status == PP_E_STALE || status == PP_E_BUSY;
}

/* Any thread may have got at the trace first, or keep it for a moment. */
static void end_trace(pp_trace *trace, unsigned how)
{
    pp_status status = how == 0 ? pp_trace_retire(pool, trace) : pp_trace_free(pool, trace);
    ck_assert_msg(status == PP_OK || is_gone(status), "%d", status);
    if (status == PP_OK)
        atomic_fetch_add(how == 0 ? &retired : &freed, 1);
}

static void keep_trace(pp_trace *trace)
{
    pp_token token;
    pp_pin *pin;
    const void *code = pp_trace_entry(trace);
    if (code == NULL || pp_token_make(code, &token) != PP_OK
        || pp_token_pin(pool, &token, &pin) != PP_OK)
        return;
    ck_assert_int_eq(pp_token_check(&token), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, (pp_trace *) token.trace), PP_E_BUSY);
    ck_assert_int_eq(pp_trace_retire(pool, (pp_trace *) token.trace), PP_E_BUSY);
    ck_assert_int_eq(pp_token_unpin(pool, pin), PP_OK);
}

static void *race(void *seed)
{
    uint64_t random = (uintptr_t) seed;
    for (unsigned step = STEPS; step > 0; step--) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned action = random >> 60 & 7;
        _Atomic(pp_trace *) *place = &places[random >> 40 & (PLACES - 1)];
        pp_trace *there = atomic_load(place);
        if (there == NULL) {
            pp_trace *trace = make_trace();
            atomic_fetch_add(&linked, 1);
            if (!atomic_compare_exchange_strong(place, &there, trace))
                end_trace(trace, action == 0 ? 0 : 1);
        } else if (action < 4) {
            end_trace(there, action);
            atomic_compare_exchange_strong(place, &there, NULL);
        } else if (action < 6) {
            keep_trace(there);
        } else if (action == 6) {
            pp_trace_size size = { .size = sizeof size };
            pp_status status = pp_trace_get_size(there, &size);
            ck_assert(status == PP_OK ? size.total >= size.code : is_gone(status));
        } else if (step % 16 == 0) {
            ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
        } else {
            pp_reclaim_result result = { .size = sizeof result };
            ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, &result), PP_OK);
        }
    }
    return NULL;
}

/* Those that are left, and some that are in no place: a pin kept them when they should end. */
static void end_rest(void)
{
    size_t rest = 0;
    for (unsigned i = 0; i < PLACES; i++) {
        pp_trace *trace = atomic_exchange(&places[i], NULL);
        rest += trace != NULL && pp_trace_free(pool, trace) == PP_OK;
    }
    ck_assert_uint_eq(stats().traces, atomic_load(&linked) - atomic_load(&freed)
                                          - atomic_load(&retired) - rest);
}

/* All at the same moment. */
static _Atomic(pp_trace *) prey;
static atomic_uint round_now, done, caught;
enum { ROUNDS = 1500 };

static void *hunt(void *nothing)
{
    for (unsigned round = 1; round <= ROUNDS; round++) {
        while (atomic_load(&round_now) != round)
            sched_yield();
        pp_status status = pp_trace_free(pool, atomic_load(&prey));
        ck_assert(status == PP_OK || status == PP_E_STALE);
        atomic_fetch_add(&caught, status == PP_OK);
        atomic_fetch_add(&done, 1);
    }
    return nothing;
}

START_TEST(one_of_many_frees)
{
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hunt, NULL), 0);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        atomic_store(&prey, make_trace());
        atomic_store(&done, 0);
        atomic_store(&round_now, round);
        while (atomic_load(&done) != THREADS)
            sched_yield();
        ck_assert_uint_eq(atomic_load(&caught), round);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(stats().traces, 0);
}
END_TEST

static void *free_one(void *trace)
{
    return (void *) (intptr_t) pp_trace_free(pool, trace);
}

/* A record that is another trace's by the time that the lock is there. */
START_TEST(record_of_another)
{
    pp_trace *handle = make_trace();
    struct code_place place;
    pthread_t thread;
    void *status;
    ck_assert(code_at((uintptr_t) pp_trace_entry(handle), &place));
    struct trace *trace = trace_of(&place);
    pthread_mutex_lock(&trace->shelf->lock);
    ck_assert_int_eq(pthread_create(&thread, NULL, free_one, handle), 0);
    usleep(20000); /* it waits for the lock; if it is not there yet, the test is easy */
    span_set_owner(&trace->span, NULL);
    pthread_mutex_unlock(&trace->shelf->lock);
    pthread_join(thread, &status);
    ck_assert_int_eq((int) (intptr_t) status, PP_E_STALE);
    span_set_owner(&trace->span, &trace->owner);
    ck_assert_int_eq(pp_trace_free(pool, handle), PP_OK);
}
END_TEST

START_TEST(each_trace_ends_once)
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, race, (void *) (i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    end_rest();
    ck_assert_uint_gt(atomic_load(&freed), 0);
    ck_assert_uint_gt(atomic_load(&retired), 0);
    pp_reclaim_result result = { .size = sizeof result };
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, &result), PP_OK);
    ck_assert_uint_eq(stats().retired_spans, 0);
}
END_TEST

static void *free_all(void *traces)
{
    for (unsigned i = 0; i < PLACES; i++)
        ck_assert_int_eq(pp_trace_free(pool, ((pp_trace **) traces)[i]), PP_OK);
    return NULL;
}

/* A record goes back to its shelf, whoever frees the trace: else one thread would make ever more. */
START_TEST(records_are_used_again)
{
    pp_trace *traces[PLACES];
    size_t metadata = 0;
    for (unsigned round = 0; round < 40; round++) {
        pthread_t thread;
        for (unsigned i = 0; i < PLACES; i++)
            traces[i] = make_trace();
        ck_assert_uint_eq(stats().traces, PLACES);
        ck_assert_int_eq(pthread_create(&thread, NULL, free_all, traces), 0);
        pthread_join(thread, NULL);
        pp_pool_stats now = stats();
        ck_assert_uint_eq(now.traces, 0);
        ck_assert_uint_eq(now.trampolines, 0);
        ck_assert_uint_eq(now.trampoline_bytes, 0);
        if (round == 0)
            metadata = now.metadata;
        ck_assert_uint_eq(now.metadata, metadata);
    }
}
END_TEST

/* ---- checking --------------------------------------------------------- */

static struct trace *record_of(const pp_trace *handle)
{
    struct code_place place;
    ck_assert(code_at((uintptr_t) pp_trace_entry(handle), &place));
    ck_assert_ptr_nonnull(trace_of(&place));
    return trace_of(&place);
}

static void expect(pp_status status, const char *text)
{
    pp_error reason = { .size = sizeof reason };
    ck_assert_int_eq(pp_pool_verify(pool, &reason), status);
    ck_assert_msg(strstr(reason.text, text) != NULL, "not \"%s\" but \"%s\"", text, reason.text);
}

/* More traces than a block has records. */
START_TEST(every_trace_is_checked)
{
    enum { TRACES = 70 };
    struct trace *records[TRACES];
    for (unsigned i = 0; i < TRACES; i++)
        records[i] = record_of(make_trace());
    expect(PP_OK, "");
    for (unsigned i = 0; i < TRACES; i++) {
        records[i]->bytes.padding++;
        expect(PP_E_FAULT, "do not add up");
        records[i]->bytes.total++;
        expect(PP_E_FAULT, "do not add up");
        records[i]->bytes.padding--;
        expect(PP_E_FAULT, "do not add up");
        records[i]->bytes.total--;
    }
    expect(PP_OK, "");
}
END_TEST

START_TEST(traces_own_their_spans)
{
    struct trace *trace = record_of(make_trace()), *neighbour = record_of(make_trace());
    const uintptr_t exec = trace->span.exec, wrong[] = {
        (uintptr_t) &pool, exec + isa_host.trap_size, neighbour->span.exec
    };
    const uint32_t generation = trace->generation;
    for (unsigned i = 0; i < 3; i++) {
        trace->span.exec = wrong[i];
        trace->generation = i == 2 ? neighbour->generation : generation;
        expect(PP_E_FAULT, "is not the owner of its span");
    }
    trace->span.exec = exec;
    trace->generation = generation + 1;
    expect(PP_E_FAULT, "is not the owner of its span");
    trace->generation = generation;
    expect(PP_OK, "");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shelf");
    TCase *tests = tcase_create("shelf");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, start, stop);
    tcase_add_test(tests, one_of_many_frees);
    tcase_add_test(tests, record_of_another);
    tcase_add_test(tests, each_trace_ends_once);
    tcase_add_test(tests, records_are_used_again);
    tcase_add_test(tests, every_trace_is_checked);
    tcase_add_test(tests, traces_own_their_spans);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
