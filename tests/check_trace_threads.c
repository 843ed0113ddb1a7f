/* SPDX-License-Identifier: MIT */
/* Traces in children and in threads. */
#include <config.h>

#include "linked.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- processes and threads ------------------------------------------------- */

/* A child runs and releases what it inherited, and links anew; the parent does not notice. */
START_TEST(a_child_leaves_the_parent_alone)
{
    start(true, false);
    snippet_begin(&code);
    snippet_call(&code, symbols[0]);
    snippet_end(&code);
    pp_trace *trace = link_code(0);
    pid_t child = fork();
    if (child == 0) {
        void (*entry)(void) = (void (*)(void)) (uintptr_t) pp_trace_entry(trace);
        pp_trace_desc desc = snippet_desc(&code);
        pp_trace *mine;
        entry();
        if (pp_trace_link(pool, &desc, &mine) != PP_OK || pp_trace_free(pool, trace) != PP_OK)
            _exit(1);
        ((void (*)(void)) (uintptr_t) pp_trace_entry(mine))();
        _exit(atomic_load(&hits[0]) == 2 && pp_pool_verify(pool, NULL) == PP_OK ? 0 : 2);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        ck_assert_int_eq(errno, EINTR);
    ck_assert_int_eq(status, 0);
    run(trace);
    ck_assert_uint_eq(atomic_load(&hits[0]), 1);
    free_trace(trace);
    stop();
}
END_TEST

enum { THREADS = 4, ROUNDS = 300, KEPT = 8 };

static atomic_bool failed;

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Link and run traces with some calls of some targets; the calls are counted in `calls`. */
static void *link_and_run(void *argument)
{
    unsigned *calls = argument;
    uint32_t random = (uint32_t) (uintptr_t) argument;
    pp_trace *kept[KEPT] = { NULL };
    struct snippet mine = { 0 };

    for (int round = 0; round < ROUNDS && !atomic_load(&failed); round++) {
        mine.size = mine.reloc_count = 0;
        snippet_begin(&mine);
        for (uint32_t n = 1 + next_random(&random) % 12; n > 0; n--) {
            uint32_t target = next_random(&random) % TARGETS;
            calls[target]++;
            if (next_random(&random) % 3 == 0)
                snippet_got_call(&mine, symbols[target]);
            else
                snippet_call(&mine, symbols[target]);
        }
        snippet_end(&mine);
        pp_trace_desc desc = snippet_desc(&mine);
        desc.flags = next_random(&random) % 4 == 0 ? PP_TRACE_OWN_TRAMPOLINES : 0;
        pp_trace **slot = &kept[next_random(&random) % KEPT];
        if (*slot != NULL && pp_trace_free(pool, *slot) != PP_OK)
            atomic_store(&failed, true);
        if (pp_trace_link(pool, &desc, slot) != PP_OK) {
            atomic_store(&failed, true);
            break;
        }
        ((void (*)(void)) (uintptr_t) pp_trace_entry(*slot))();
        if (pp_trace_at(pp_trace_entry(*slot)) != *slot)
            atomic_store(&failed, true);
    }
    for (int i = 0; i < KEPT; i++) {
        if (kept[i] != NULL && pp_trace_free(pool, kept[i]) != PP_OK)
            atomic_store(&failed, true);
    }
    snippet_free(&mine);
    return NULL;
}

START_TEST(threads_link_and_run_at_once)
{
    static unsigned calls[THREADS][TARGETS];
    pthread_t threads[THREADS];

    static const struct setting modes[] = {
        { false, false, false, PP_WX_AUTO }, { true, false, false, PP_WX_AUTO },
        { true, false, true, PP_WX_AUTO },   { true, false, false, PP_WX_FLIP },
    };

    start_with(&modes[_i]);
    memset(calls, 0, sizeof calls);
    atomic_store(&failed, false);
    for (int t = 0; t < THREADS; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, link_and_run, calls[t]), 0);
    /* The invariants hold at every moment, not only when everything is quiet. */
    for (int i = 0; i < 20; i++) {
        pp_status status = pp_pool_verify(pool, &reason);
        ck_assert_msg(status == PP_OK, "%s", reason.text);
    }
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    ck_assert(!atomic_load(&failed));
    for (int i = 0; i < TARGETS; i++) {
        unsigned expected = 0;
        for (int t = 0; t < THREADS; t++)
            expected += calls[t][i];
        ck_assert_uint_eq(atomic_load(&hits[i]), expected);
    }
    pp_pool_stats now = stats();
    ck_assert_uint_eq(now.traces, 0);
    ck_assert_uint_eq(now.spans, 0);
    ck_assert_uint_eq(now.trampolines, 0);
    ck_assert_uint_eq(now.trampoline_bytes, 0);
    ck_assert_uint_eq(now.literals, 0);
    ck_assert_uint_eq(now.literal_bytes, 0);
    stop();
}
END_TEST

/* Readers of handles while the traces behind them come and go. */
static atomic_bool done;
static _Atomic(pp_trace *) current;

static void *look(void *argument)
{
    (void) argument;
    while (!atomic_load(&done)) {
        pp_trace *trace = atomic_load(&current);
        void *host = pp_trace_host(trace);
        const void *entry = pp_trace_entry(trace);
        pp_trace_size size = { .size = sizeof size };
        pp_status status = pp_trace_get_size(trace, &size);
        /* A trace's host is what it was linked with, or nothing. */
        if ((host != NULL && host != &hits[0] && host != &hits[1]) ||
            (status == PP_OK && size.code != code.size))
            atomic_store(&failed, true);
        pp_trace *at = entry != NULL ? pp_trace_at(entry) : NULL;
        if (at != NULL && at != trace && at == atomic_load(&current) &&
            pp_trace_entry(trace) != NULL)
            atomic_store(&failed, true);
    }
    return NULL;
}

START_TEST(handles_may_be_asked_while_traces_go)
{
    pthread_t thread;

    start(false, false);
    snippet_begin(&code);
    snippet_end(&code);
    pp_trace_desc desc = snippet_desc(&code);
    pp_trace *trace;
    desc.host = &hits[0];
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    atomic_store(&current, trace);
    atomic_store(&done, false);
    atomic_store(&failed, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, look, NULL), 0);
    for (int i = 0; i < 3000; i++) {
        pp_trace *next;
        desc.host = &hits[i & 1];
        desc.name = i & 2 ? "name" : NULL;
        if (pp_trace_free(pool, trace) != PP_OK || pp_trace_link(pool, &desc, &next) != PP_OK) {
            atomic_store(&failed, true);
            break;
        }
        trace = next;
        atomic_store(&current, trace);
    }
    atomic_store(&done, true);
    pthread_join(thread, NULL);
    ck_assert(!atomic_load(&failed));
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace_threads");
    TCase *tests = tcase_create("trace_threads");
    tcase_set_timeout(tests, 20);
    tcase_add_test(tests, a_child_leaves_the_parent_alone);
    tcase_add_loop_test(tests, threads_link_and_run_at_once, 0, 4);
    tcase_add_test(tests, handles_may_be_asked_while_traces_go);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
