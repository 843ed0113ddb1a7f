/* SPDX-License-Identifier: MIT */
/* Reservations: emitting in place, committing and abandoning, and every order that is wrong. */
#include <config.h>

#include "isa/isa.h"
#include "memory/pool.h"

#include "snippet.h"

#include <patchpoint/retire.h>

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static _Atomic unsigned hits;

static void target(void)
{
    atomic_fetch_add(&hits, 1);
}

static pp_pool *pool;
static pp_symbol symbol;
static struct snippet code;
static pp_error reason;
static pp_reservation reservation;

static void start(bool far)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) target },
                                .branch_range = far ? 1 : 0, .error = &reason };

    reason = (pp_error) { .size = sizeof reason };
    ck_assert_msg(pp_pool_create(&options, &pool) == PP_OK, "%s", reason.text);
    symbol = pp_symbol_define(pool, "target", (void *) target);
    reservation = (pp_reservation) { .size = sizeof reservation };
    atomic_store(&hits, 0);
}

static void stop(void)
{
    snippet_free(&code);
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    pp_pool_destroy(pool);
}

static pp_pool_stats stats(void)
{
    pp_pool_stats now = { .size = sizeof now };

    ck_assert_int_eq(pp_pool_get_stats(pool, &now), PP_OK);
    return now;
}

static void reserve(size_t capacity)
{
    pp_status status = pp_trace_reserve(pool, capacity, NULL, &reservation, &reason);

    ck_assert_msg(status == PP_OK, "%s", reason.text);
    ck_assert_uint_ge(reservation.capacity, capacity);
    ck_assert_ptr_nonnull(reservation.write);
    ck_assert_uint_eq((uintptr_t) reservation.execute % 16, 0);
}

static void run(const pp_trace *trace)
{
    ((void (*)(void)) (uintptr_t) pp_trace_entry(trace))();
}

START_TEST(code_is_emitted_in_place)
{
    pp_trace *trace = NULL;

    start(_i != 0);
    snippet_begin(&code);
    snippet_call(&code, symbol);
    snippet_got_call(&code, symbol);
    snippet_end(&code);
    pp_pool_stats before = stats();
    reserve(100000);
    memcpy(reservation.write, code.code, code.size);
    const uint8_t *execute = reservation.execute;
    ck_assert_ptr_null(pp_trace_at(execute)); /* no trace before the commit */
    pp_trace_desc desc = { .size = sizeof desc, .name = "in place", .host = &reservation,
                           .relocs = code.relocs, .reloc_count = code.reloc_count,
                           .error = &reason };
    pp_status status = pp_trace_commit(pool, &reservation, code.size, &desc, &trace);
    ck_assert_msg(status == PP_OK, "%s", reason.text);
    ck_assert_ptr_eq(pp_trace_entry(trace), execute);
    ck_assert_ptr_eq(pp_trace_host(trace), &reservation);
    ck_assert_ptr_eq(pp_trace_at(execute + code.size - 1), trace);
    run(trace);
    ck_assert_uint_eq(atomic_load(&hits), 2);

    pp_pool_stats now = stats();
    pp_trace_size size = { .size = sizeof size };
    ck_assert_uint_eq(now.requested - before.requested, code.size);
    ck_assert_uint_eq(now.trampolines, _i != 0);
    ck_assert_int_eq(pp_trace_get_size(trace, &size), PP_OK);
    ck_assert_uint_eq(size.total, code.size);
    ck_assert_uint_eq(size.code, code.size);
    ck_assert_uint_eq(size.shared_new, _i != 0);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    now = stats();
    ck_assert_uint_eq(now.requested, before.requested);
    ck_assert_uint_eq(now.used, before.used);
    ck_assert_uint_eq(now.trampolines, 0);
    stop();
}
END_TEST

/* The rest is free again: as many traces fit as there is room for what they used. */
START_TEST(the_rest_is_given_back)
{
    start(false);
    snippet_begin(&code);
    snippet_end(&code);
    pp_pool_stats before = stats();
    for (int i = 0; i < 200; i++) {
        pp_trace *trace;
        reserve(1 << 20);
        memcpy(reservation.write, code.code, code.size);
        ck_assert_int_eq(pp_trace_commit(pool, &reservation, code.size, NULL, &trace), PP_OK);
        run(trace);
    }
    pp_pool_stats now = stats();
    ck_assert_uint_eq(now.regions, before.regions > 1 ? before.regions : 1);
    ck_assert_uint_eq(now.requested - before.requested, 200 * code.size);
    ck_assert_uint_eq(now.traces, 200);
    stop();
}
END_TEST

START_TEST(the_whole_capacity_may_be_used)
{
    pp_trace *trace;

    start(false);
    reserve(1000);
    snippet_begin(&code);
    snippet_end(&code);
    for (size_t i = 0; i + code.size <= reservation.capacity; i += code.size)
        memcpy((uint8_t *) reservation.write + i, code.code, code.size);
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, reservation.capacity, NULL, &trace),
                     PP_OK);
    run(trace);
    stop();
}
END_TEST

START_TEST(an_abandoned_reservation_leaves_nothing)
{
    start(false);
    reserve(64);
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_OK);
    pp_pool_stats before = stats();
    reserve(5000);
    memset(reservation.write, 0xa5, reservation.capacity);
    const void *execute = reservation.execute;
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_OK);
    pp_pool_stats now = stats();
    ck_assert_uint_eq(now.requested, before.requested);
    ck_assert_uint_eq(now.used, before.used);
    ck_assert_uint_eq(now.spans, before.spans);
    ck_assert_ptr_null(pp_trace_at(execute));
    stop();
}
END_TEST

START_TEST(a_reservation_ends_once)
{
    pp_trace *trace, *other = NULL;

    start(false);
    snippet_begin(&code);
    snippet_end(&code);
    reserve(100);
    memcpy(reservation.write, code.code, code.size);
    pp_reservation copy = reservation; /* a copy is no second reservation */
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, code.size, NULL, &trace), PP_OK);
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, code.size, NULL, &other), PP_E_STALE);
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_E_STALE);
    ck_assert_int_eq(pp_trace_commit(pool, &copy, code.size, NULL, &other), PP_E_STALE);
    ck_assert_int_eq(pp_trace_abandon(pool, &copy), PP_E_STALE);
    ck_assert_ptr_null(other);
    run(trace);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    ck_assert_int_eq(pp_trace_abandon(pool, &copy), PP_E_STALE);

    reserve(100);
    copy = reservation;
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_OK);
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_E_STALE);
    ck_assert_int_eq(pp_trace_commit(pool, &copy, code.size, NULL, &other), PP_E_STALE);

    /* Not even when another reservation has the same address. */
    reserve(100);
    ck_assert_int_eq(pp_trace_abandon(pool, &copy), PP_E_STALE);
    /* A reservation is no trace. */
    ck_assert_int_eq(pp_trace_free(pool, reservation.internal), PP_E_STALE);
    ck_assert_ptr_null(pp_trace_entry(reservation.internal));
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_OK);
    stop();
}
END_TEST

/* ---- beside other threads -------------------------------------------------- */

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

static pp_reservation *_Atomic ended; /* of a reservation that was committed */
static _Atomic bool over, busy;
static _Atomic unsigned long tries, accepted;

static void *end_again(void *unused)
{
    (void) unused;
    while (!atomic_load(&over)) {
        pp_trace *trace;
        atomic_store(&busy, true);
        const pp_reservation *from = atomic_load(&ended);
        for (unsigned i = 0; i < 100 && from != NULL && atomic_load(&ended) == from; i++) {
            pp_reservation copy = *from;
            pp_status status = i % 4 == 0 ? pp_trace_commit(pool, &copy, 8, NULL, &trace)
                                          : pp_trace_abandon(pool, &copy);
            atomic_fetch_add(&tries, 1);
            atomic_fetch_add(&accepted, status != PP_E_STALE);
        }
        atomic_store(&busy, false);
    }
    return NULL;
}

/* Stale for good: while the trace lives, is being freed or reclaimed, and is gone. */
START_TEST(a_committed_reservation_ends_no_trace)
{
    static const pp_wx modes[] = { PP_WX_DUAL, PP_WX_FLIP };
    pp_pool_options options = { .size = sizeof options, .wx = modes[_i] };
    pthread_t thread;
    pp_trace *trace;

    if (pp_pool_create(&options, &pool) != PP_OK)
        return; /* an emulator does not have the mode */
    atomic_store(&over, false);
    atomic_store(&accepted, 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, end_again, NULL), 0);
    unsigned round = 0;
    for (double end = seconds() + 1.5; seconds() < end && atomic_load(&accepted) == 0; round++) {
        pp_reservation copies = { .size = sizeof copies };
        ck_assert_int_eq(pp_trace_reserve(pool, 64, NULL, &copies, NULL), PP_OK);
        memset(copies.write, 0, 64);
        ck_assert_int_eq(pp_trace_commit(pool, &copies, 64, NULL, &trace), PP_OK);
        atomic_store(&ended, &copies);
        if (round % 2 == 0) {
            ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
        } else {
            ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
            ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
        }
        atomic_store(&ended, NULL);
        while (atomic_load(&busy) && !atomic_load(&over))
            continue;
    }
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    ck_assert_uint_gt(atomic_load(&tries), 0);
    ck_assert_uint_eq(atomic_load(&accepted), 0);
    ck_assert_uint_eq(stats().spans, 0);
    stop();
}
END_TEST

enum { CALLERS = 3 };
static pp_reservation contested;
static _Atomic unsigned started, finished, won;

static void *end_once(void *number)
{
    for (unsigned round = 1;; round++) {
        while (atomic_load(&started) < round) {
            if (atomic_load(&over))
                return NULL;
        }
        pp_reservation copy = contested;
        pp_trace *trace;
        pp_status status;
        if (((uintptr_t) number + round) % 2 == 0) {
            status = pp_trace_commit(pool, &copy, 32, NULL, &trace);
            if (status == PP_OK && pp_trace_free(pool, trace) != PP_OK)
                status = PP_E_FAULT;
        } else {
            status = pp_trace_abandon(pool, &copy);
        }
        /* BUSY: another thread was committing it. */
        if (status == PP_OK)
            atomic_fetch_add(&won, 1);
        else if (status != PP_E_STALE && status != PP_E_BUSY)
            atomic_fetch_add(&won, 1000000);
        atomic_fetch_add(&finished, 1);
    }
}

START_TEST(of_many_calls_one_ends_the_reservation)
{
    pthread_t threads[CALLERS];
    unsigned round = 0;

    start(false);
    atomic_store(&over, false);
    for (uintptr_t i = 0; i < CALLERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, end_once, (void *) i), 0);
    for (double end = seconds() + 1; seconds() < end;) {
        reserve(64);
        memset(reservation.write, 0, 64);
        contested = reservation;
        atomic_store(&finished, 0);
        atomic_store(&started, ++round);
        while (atomic_load(&finished) != CALLERS)
            sched_yield();
        ck_assert_uint_eq(atomic_load(&won), round);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_eq(stats().spans, 0);
    stop();
}
END_TEST

/* A committed trace is like any other to those who verify, live or retired. */
START_TEST(committed_traces_verify)
{
    pp_trace *trace;

    start(false);
    reserve(16);
    memset(reservation.write, 0, 16);
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, 16, NULL, &trace), PP_OK);
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    stop();
}
END_TEST

START_TEST(what_is_not_a_reservation_is_refused)
{
    pp_trace *trace = NULL;
    pp_pool *other;

    start(false);
    pp_pool_stats before = stats();
    ck_assert_int_eq(pp_trace_reserve(NULL, 1, NULL, &reservation, &reason), PP_E_ARG);
    ck_assert_int_eq(pp_trace_reserve(pool, 0, NULL, &reservation, &reason), PP_E_ARG);
    ck_assert_int_eq(pp_trace_reserve(pool, 1, NULL, NULL, &reason), PP_E_ARG);
    ck_assert_int_eq(pp_trace_reserve(pool, SIZE_MAX, NULL, &reservation, NULL), PP_E_NOMEM);
    ck_assert_int_eq(pp_trace_reserve(pool, (size_t) 1 << 30, NULL, &reservation, NULL),
                     PP_E_NOMEM);
    ck_assert_int_eq(pp_trace_reserve(pool, 1, &(pp_frame_rule) { .size = 1 }, &reservation,
                                      &reason), PP_E_ARG);
    reservation.size = 8;
    ck_assert_int_eq(pp_trace_reserve(pool, 1, NULL, &reservation, &reason), PP_E_ARG);
    reservation.size = sizeof reservation;
    ck_assert_ptr_null(reservation.internal);
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_E_ARG);
    ck_assert_int_eq(pp_trace_abandon(pool, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_trace_commit(pool, NULL, 1, NULL, &trace), PP_E_ARG);
    reservation.internal = (void *) 0xdeadbeefdeadbeef;
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_E_FAULT);
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, 1, NULL, &trace), PP_E_FAULT);

    reserve(64);
    pp_reservation copy = reservation;
    ck_assert_int_eq(pp_pool_create(NULL, &other), PP_OK);
    ck_assert_int_eq(pp_trace_abandon(other, &copy), PP_E_FAULT);
    ck_assert_int_eq(pp_trace_abandon(NULL, &copy), PP_E_ARG);
    ck_assert_int_eq(pp_trace_commit(other, &copy, 16, NULL, &trace), PP_E_FAULT);
    pp_pool_destroy(other);
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, 16, NULL, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_OK);
    ck_assert_ptr_null(trace);
    ck_assert_uint_eq(stats().spans, before.spans);
    stop();
}
END_TEST

/* A refused commit leaves the reservation, and the bytes in it, as they were. */
START_TEST(a_refused_commit_may_be_repeated)
{
    pp_trace *trace = NULL;

    start(_i != 0);
    snippet_begin(&code);
    snippet_call(&code, symbol);
    snippet_end(&code);
    reserve(256);
    memcpy(reservation.write, code.code, code.size);
    pp_pool_stats before = stats();
    pp_reloc relocs[2] = { code.relocs[0], code.relocs[0] };
    const pp_trace_desc good = { .size = sizeof good, .relocs = relocs, .reloc_count = 1,
                                 .error = &reason };
    pp_trace_desc desc;

#define REFUSED(expected, used, ...) \
    do { \
        desc = good; \
        __VA_ARGS__; \
        ck_assert_int_eq(pp_trace_commit(pool, &reservation, used, &desc, &trace), expected); \
        ck_assert_ptr_null(trace); \
        ck_assert_mem_eq(reservation.write, code.code, code.size); \
        relocs[0] = relocs[1] = code.relocs[0]; \
    } while (0)

    REFUSED(PP_E_ARG, 0, (void) 0);
    REFUSED(PP_E_ARG, reservation.capacity + 1, (void) 0);
    REFUSED(PP_E_ARG, SIZE_MAX, (void) 0);
    REFUSED(PP_E_ARG, code.size, desc.size = 1);
    REFUSED(PP_E_ARG, code.size, desc.entry = code.size);
    REFUSED(PP_E_ARG, code.size, desc.relocs = NULL);
    REFUSED(PP_E_ARG, code.size, desc.flags = 1u << 31);
    REFUSED(PP_E_ARG, code.size, relocs[0].symbol = 12345);
    REFUSED(PP_E_ARG, code.size, relocs[0].symbol = PP_SYMBOL_DATA);
    REFUSED(PP_E_ARG, code.size, desc.data = code.code; desc.data_size = 64;
            relocs[0].section = PP_IN_DATA);
    REFUSED(PP_E_ARG, code.relocs[0].offset, (void) 0);
    /* The first relocation would do, the second does not. */
    REFUSED(PP_E_RANGE, code.size, desc.reloc_count = 2; relocs[1].symbol = PP_SYMBOL_CODE;
            relocs[1].addend = 1l << 40);
    ck_assert_uint_eq(reason.reloc_index, 1);
    if (_i != 0)
        REFUSED(PP_E_RANGE, code.size, desc.flags = PP_TRACE_OWN_TRAMPOLINES);

    pp_pool_stats now = stats();
    ck_assert_uint_eq(now.requested, before.requested);
    ck_assert_uint_eq(now.trampolines, before.trampolines);
    ck_assert_uint_eq(now.traces, before.traces);
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, code.size, &good, &trace), PP_OK);
    run(trace);
    ck_assert_uint_eq(atomic_load(&hits), 1);
    stop();
}
END_TEST

/* What a child inherits is the parent's: it cannot be written any more. */
START_TEST(a_child_cannot_commit)
{
    pp_trace *trace;

    start(false);
    snippet_begin(&code);
    snippet_end(&code);
    reserve(64);
    memcpy(reservation.write, code.code, code.size);
    pid_t child = fork();
    if (child == 0) {
        pp_reservation mine = reservation;
        if (pp_trace_commit(pool, &mine, code.size, NULL, &trace) != PP_E_STALE)
            _exit(1);
        _exit(pp_trace_abandon(pool, &mine) == PP_E_STALE ? 0 : 2);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, code.size, NULL, &trace), PP_OK);
    run(trace);
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reserve");
    TCase *tests = tcase_create("reserve");
    tcase_add_loop_test(tests, code_is_emitted_in_place, 0, 2);
    tcase_add_test(tests, the_rest_is_given_back);
    tcase_add_test(tests, the_whole_capacity_may_be_used);
    tcase_add_test(tests, an_abandoned_reservation_leaves_nothing);
    tcase_add_test(tests, a_reservation_ends_once);
    tcase_add_loop_test(tests, a_committed_reservation_ends_no_trace, 0, 2);
    tcase_add_test(tests, of_many_calls_one_ends_the_reservation);
    tcase_add_test(tests, committed_traces_verify);
    tcase_add_test(tests, what_is_not_a_reservation_is_refused);
    tcase_add_loop_test(tests, a_refused_commit_may_be_repeated, 0, 2);
    tcase_add_test(tests, a_child_cannot_commit);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
