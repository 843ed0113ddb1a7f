/* SPDX-License-Identifier: MIT */
/* Watches: what a fire applies, what it leaves, and what goes with its code. */
#include <config.h>

#include "memory/state.h"

#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static pp_pool *pool;
static pp_error reason;

#if defined __x86_64__
enum { LENGTH = 5 };
#define PROTOCOL PP_PATCH_WORD
#else
enum { LENGTH = 4 };
#define PROTOCOL PP_PATCH_BRANCH
#endif

/* int f(void): a site that leads to the first ending, or by a patch to the second. */
enum { ENDING = 16, SIZE = 48 };

static void write_function(uint8_t *to, uint8_t value)
{
    for (unsigned i = 0; i < SIZE; i += 4)
#if defined __x86_64__
        memset(to + i, 0x90, 4);
#else
        memcpy(to + i, &(uint32_t) { 0xd503201f }, 4);
#endif
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, LENGTH, to, LENGTH), PP_OK);
    for (unsigned i = 0; i < 2; i++) {
        unsigned n = value + i;
#if defined __x86_64__
        const uint8_t code[] = { 0xb8, (uint8_t) n, 0, 0, 0, 0xc3 };
#else
        const uint32_t code[] = { 0x52800000u | n << 5, 0xd65f03c0 };
#endif
        memcpy(to + ENDING + i * ENDING, code, sizeof code);
    }
}

static void start(void)
{
    pp_pool_options options = { .size = sizeof options, .error = &reason };
    reason = (pp_error) { .size = sizeof reason };
    ck_assert_msg(pp_pool_create(&options, &pool) == PP_OK, "%s", reason.text);
}

static void stop(void)
{
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    pp_pool_destroy(pool);
}

static pp_trace *make_trace(uint8_t value, const uint8_t **code)
{
    uint8_t bytes[SIZE];
    pp_trace *trace = NULL;
    write_function(bytes, value);
    pp_trace_desc desc = { .size = sizeof desc, .code = bytes, .code_size = SIZE };
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    *code = pp_trace_entry(trace);
    return trace;
}

static pp_span *make_span(uint8_t value, const uint8_t **code)
{
    pp_span *span = NULL;
    pp_span_desc desc = { .size = sizeof desc, .bytes = SIZE };
    pp_span_place place = { .size = sizeof place };
    ck_assert_int_eq(pp_span_alloc(pool, &desc, &span, &place), PP_OK);
    write_function(place.write, value);
    ck_assert_int_eq(pp_span_publish(pool, &span, 1, NULL), PP_OK);
    *code = place.execute;
    return span;
}

static int run(const uint8_t *code) { return ((int (*)(void)) (uintptr_t) code)(); }

static pp_patch exit_of(const uint8_t *code)
{
    size_t bytes;
    pp_patch patch = { .address = code, .protocol = PROTOCOL, .bytes = LENGTH,
                       .flags = PP_PATCH_EXPECT_OLD };
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, LENGTH, patch.old, 16), PP_OK);
    ck_assert_int_eq(pp_emit_jump(PP_ARCH_HOST, code, code + 2 * ENDING, patch.value, 16, &bytes),
                     PP_OK);
    return patch;
}

static pp_status watch(uint64_t key, const uint8_t *code)
{
    pp_patch patch = exit_of(code);
    reason.text[0] = '\0';
    return pp_watch_add(pool, key, &patch, &reason);
}

static pp_watch_result fire(uint64_t key, pp_status expected)
{
    pp_watch_result result = { .size = sizeof result };
    pp_patch_options options = { .size = sizeof options, .error = &reason };
    reason.text[0] = '\0';
    pp_status status = pp_watch_fire(pool, key, &options, &result);
    ck_assert_msg(status == expected, "%d: %s", status, reason.text);
    return result;
}

static pp_pool_stats stats(void)
{
    pp_pool_stats now = { .size = sizeof now };
    ck_assert_int_eq(pp_pool_get_stats(pool, &now), PP_OK);
    return now;
}

#define assert_result(result, a, b, c, d) \
    do { \
        pp_watch_result is = result; \
        ck_assert_uint_eq(is.applied, a); \
        ck_assert_uint_eq(is.already, b); \
        ck_assert_uint_eq(is.refused, c); \
        ck_assert_uint_eq(is.dropped, d); \
    } while (0)

/* All sites of a key, and those of no other, in one batch with one barrier; once. */
START_TEST(a_fire_reaches_its_key_once)
{
    enum { MANY = 300 };
    static const uint8_t *code[MANY];
    start();
    for (unsigned i = 0; i < MANY; i++) {
        if (i % 2 == 0)
            make_trace((uint8_t) i, &code[i]);
        else
            make_span((uint8_t) i, &code[i]);
        ck_assert_msg(watch(i % 3, code[i]) == PP_OK, "%s", reason.text);
    }
    ck_assert_uint_eq(pp_watch_count(pool, 1), MANY / 3);
    size_t barriers = stats().barriers;
    assert_result(fire(1, PP_OK), MANY / 3, 0, 0, 0);
    ck_assert_uint_eq(stats().barriers, barriers + 1);
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_int_eq(run(code[i]), (uint8_t) i + (i % 3 == 1));
    assert_result(fire(1, PP_OK), 0, 0, 0, 0);
    assert_result(fire(77, PP_OK), 0, 0, 0, 0);
    ck_assert_uint_eq(stats().barriers, barriers + 1);
    ck_assert_uint_eq(pp_watch_count(pool, 1), 0);
    ck_assert_uint_eq(pp_watch_count(pool, 2), MANY / 3);
    stop();
}
END_TEST

/* A site of two keys is done by the first; one that was patched by hand is done, too. */
START_TEST(what_is_done_already_is_done)
{
    const uint8_t *code;
    start();
    make_trace(5, &code);
    ck_assert_int_eq(watch(1, code), PP_OK);
    ck_assert_int_eq(watch(2, code), PP_OK);
    assert_result(fire(2, PP_OK), 1, 0, 0, 0);
    assert_result(fire(1, PP_OK), 0, 1, 0, 0);
    ck_assert_uint_eq(pp_watch_count(pool, 1), 0);
    ck_assert_int_eq(run(code), 6);
    stop();
}
END_TEST

START_TEST(what_is_refused_stays_watched)
{
    const uint8_t *code, *other;
    start();
    make_trace(5, &code);
    make_trace(50, &other);
    ck_assert_int_eq(watch(1, code), PP_OK);
    ck_assert_int_eq(watch(1, other), PP_OK);
    pp_patch between = exit_of(code), back;
    size_t bytes;
    ck_assert_int_eq(pp_emit_jump(PP_ARCH_HOST, code, code + ENDING, between.value, 16, &bytes),
                     PP_OK);
    ck_assert_int_eq(pp_patch_apply(pool, &between, 1, &(pp_patch_options) {
                                    .size = sizeof(pp_patch_options), .journal = &back }), PP_OK);
    assert_result(fire(1, PP_E_BUSY), 1, 0, 1, 0);
    ck_assert_ptr_nonnull(strstr(reason.text, "not the old ones"));
    ck_assert_int_eq(run(other), 51);
    ck_assert_int_eq(run(code), 5);
    ck_assert_uint_eq(pp_watch_count(pool, 1), 1);
    ck_assert_int_eq(pp_patch_apply(pool, &back, 1, NULL), PP_OK);
    assert_result(fire(1, PP_OK), 1, 0, 0, 0);
    ck_assert_int_eq(run(code), 6);
    stop();
}
END_TEST

START_TEST(wrong_watches_are_refused)
{
    const uint8_t *code;
    start();
    pp_trace *trace = make_trace(5, &code);
    pp_patch patch = exit_of(code), bad = patch;
    ck_assert_int_eq(pp_watch_add(NULL, 1, &patch, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_watch_add(pool, 1, NULL, NULL), PP_E_ARG);
    bad.bytes = 0;
    ck_assert_int_eq(pp_watch_add(pool, 1, &bad, NULL), PP_E_ARG);
    bad = patch;
    bad.address = &bad;
    ck_assert_int_eq(pp_watch_add(pool, 1, &bad, NULL), PP_E_FAULT);
    ck_assert_int_eq(pp_watch_remove(pool, 1, code), PP_E_STALE);
    ck_assert_int_eq(watch(1, code), PP_OK);
    ck_assert_int_eq(watch(1, code), PP_E_BUSY);
    ck_assert_int_eq(pp_watch_remove(pool, 2, code), PP_E_STALE);
    ck_assert_int_eq(pp_watch_remove(pool, 1, code), PP_OK);
    ck_assert_int_eq(pp_watch_remove(pool, 1, code), PP_E_STALE);
    assert_result(fire(1, PP_OK), 0, 0, 0, 0);
    ck_assert_int_eq(run(code), 5);
    ck_assert_int_eq(pp_watch_fire(NULL, 1, NULL, NULL), PP_E_ARG);
    pp_watch_result small = { .size = 8 };
    ck_assert_int_eq(pp_watch_fire(pool, 1, NULL, &small), PP_E_ARG);
    ck_assert_int_eq(pp_watch_fire(pool, 1, &(pp_patch_options) {
                                   .size = sizeof(pp_patch_options), .journal = &bad }, NULL),
                     PP_E_ARG);
    ck_assert_uint_eq(pp_watch_count(NULL, 1), 0);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    ck_assert_int_eq(watch(1, code), PP_E_STALE);
    stop();
}
END_TEST

/* ---- code that goes --------------------------------------------------- */

enum how { FREED, RECLAIMED, WAYS };

static void let_go(enum how how, pp_trace *trace, pp_span *span)
{
    if (how == FREED) {
        ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
        ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
        return;
    }
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    ck_assert_int_eq(pp_span_retire(pool, span), PP_OK);
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
}

/* The same bytes at the same addresses are not touched by a fire for what was there before. */
START_TEST(watches_go_with_their_code)
{
    const uint8_t *traced, *code, *again[2];
    start();
    pp_trace *trace = make_trace(5, &traced);
    pp_span *span = make_span(50, &code);
    ck_assert_int_eq(watch(1, traced), PP_OK);
    ck_assert_int_eq(watch(1, code), PP_OK);
    let_go((enum how) _i, trace, span);
    ck_assert_uint_eq(pp_watch_count(pool, 1), 0);
    ck_assert_int_eq(pp_watch_remove(pool, 1, code), PP_E_STALE);
    make_trace(5, &again[0]);
    make_span(50, &again[1]);
    ck_assert_ptr_eq(again[0], traced);
    ck_assert_ptr_eq(again[1], code);
    ck_assert_int_eq(watch(2, code), PP_OK);
    assert_result(fire(1, PP_OK), 0, 0, 0, 2);
    ck_assert_int_eq(run(traced), 5);
    ck_assert_int_eq(run(code), 50);
    assert_result(fire(1, PP_OK), 0, 0, 0, 0);
    stop();
}
END_TEST

/* Retired code may still run: fires reach it, and watches can be added and removed. */
START_TEST(retired_code_is_watched)
{
    const uint8_t *traced, *code;
    start();
    pp_trace *trace = make_trace(5, &traced);
    pp_span *span = make_span(50, &code);
    ck_assert_int_eq(watch(1, traced), PP_OK);
    ck_assert_int_eq(watch(1, code), PP_OK);
    ck_assert_int_eq(watch(2, traced), PP_OK);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    ck_assert_int_eq(pp_span_retire(pool, span), PP_OK);
    ck_assert_uint_eq(pp_watch_count(pool, 1), 2);
    ck_assert_int_eq(watch(3, code), PP_OK);
    ck_assert_int_eq(watch(3, code), PP_E_BUSY);
    ck_assert_int_eq(pp_watch_remove(pool, 2, traced), PP_OK);
    assert_result(fire(1, PP_OK), 2, 0, 0, 0);
    ck_assert_int_eq(run(traced), 6);
    ck_assert_int_eq(run(code), 51);
    assert_result(fire(3, PP_OK), 0, 1, 0, 0);
    assert_result(fire(1, PP_OK), 0, 0, 0, 0);
    ck_assert_int_eq(watch(4, traced), PP_OK);
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
    ck_assert_uint_eq(pp_watch_count(pool, 4), 0);
    assert_result(fire(4, PP_OK), 0, 0, 0, 1);
    ck_assert_int_eq(watch(5, code), PP_E_STALE);
    stop();
}
END_TEST

/* Code that a stack holds was not reclaimed. */
START_TEST(held_code_is_watched)
{
    const uint8_t *code;
    start();
    pp_trace *trace = make_trace(5, &code);
    ck_assert_int_eq(watch(1, code), PP_OK);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    const uint64_t word = (uintptr_t) code + 4;
    pp_stack stack = { .registers = &word, .register_count = 1 };
    pp_reclaim_result result = { .size = sizeof result };
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), &stack, 1, &result), PP_OK);
    ck_assert_uint_eq(result.held, 1);
    ck_assert_uint_eq(pp_watch_count(pool, 1), 1);
    assert_result(fire(1, PP_OK), 1, 0, 0, 0);
    ck_assert_int_eq(run(code), 6);
    stop();
}
END_TEST

/* The table makes room for new watches: not at the cost of those of retired code. */
START_TEST(growth_keeps_watches_of_retired_code)
{
    enum { OLD = 40, MANY = 1000 };
    static const uint8_t *code[OLD], *other;
    start();
    for (unsigned i = 0; i < OLD; i++) {
        pp_trace *trace = make_trace((uint8_t) i, &code[i]);
        ck_assert_int_eq(watch(1, code[i]), PP_OK);
        ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    }
    make_trace(5, &other);
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_int_eq(watch(100 + i, other), PP_OK);
    ck_assert_uint_eq(pp_watch_count(pool, 1), OLD);
    assert_result(fire(1, PP_OK), OLD, 0, 0, 0);
    for (unsigned i = 0; i < OLD; i++)
        ck_assert_int_eq(run(code[i]), (int) i + 1);
    stop();
}
END_TEST

/* A child has the retired code and its watches, and cannot write; its parent waits for it. */
START_TEST(children_keep_their_retired_code)
{
    const uint8_t *code;
    int go[2];
    start();
    pp_trace *trace = make_trace(5, &code);
    ck_assert_int_eq(watch(1, code), PP_OK);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    ck_assert_int_eq(pipe(go), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        char byte;
        close(go[1]);
        if (pp_watch_fire(pool, 1, NULL, NULL) != PP_E_UNSUPPORTED || pp_watch_count(pool, 1) != 1)
            _exit(1);
        _exit(read(go[0], &byte, 1) == 0 && run(code) == 5 ? 0 : 2);
    }
    close(go[0]);
    assert_result(fire(1, PP_E_BUSY), 0, 0, 1, 0);
    close(go[1]);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
    assert_result(fire(1, PP_OK), 1, 0, 0, 0);
    ck_assert_int_eq(run(code), 6);
    stop();
}
END_TEST

/* Watches that nobody fires do not add up when their code comes and goes. */
START_TEST(watches_of_gone_code_take_no_more_memory)
{
    const uint8_t *code;
    size_t metadata = 0;
    start();
    for (unsigned i = 0; i < 20000; i++) {
        pp_trace *trace = make_trace(5, &code);
        ck_assert_int_eq(watch(i, code), PP_OK);
        ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
        if (i == 1000)
            metadata = stats().metadata;
    }
    ck_assert_uint_eq(stats().metadata, metadata);
    stop();
}
END_TEST

/* ---- threads ---------------------------------------------------------- */

static void *run_until_told(void *code)
{
    run(code);
    return NULL;
}

/* A loop that its assumption keeps up is left when that breaks, however old the code is. */
START_TEST(a_thread_leaves_retired_code)
{
    static const uint8_t *code;
    uint8_t bytes[SIZE];
    pp_trace *trace = NULL;
    pthread_t thread;
    size_t size;
    start();
    write_function(bytes, 5);
    /*
     * Behind the site: back to it, instead of to the first ending.  By two jumps: an emulator that
     * has translated a loop of one block never leaves it, whatever is written there.
     */
    ck_assert_int_eq(pp_emit_jump(PP_ARCH_HOST, bytes + 8, bytes + ENDING + 8, bytes + 8, 8, &size),
                     PP_OK);
    ck_assert_int_eq(pp_emit_jump(PP_ARCH_HOST, bytes + ENDING + 8, bytes, bytes + ENDING + 8, 8,
                                  &size), PP_OK);
    pp_trace_desc desc = { .size = sizeof desc, .code = bytes, .code_size = SIZE };
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    code = pp_trace_entry(trace);
    ck_assert_int_eq(watch(1, code), PP_OK);
    ck_assert_int_eq(pthread_create(&thread, NULL, run_until_told, (void *) (uintptr_t) code), 0);
    usleep(20000);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    assert_result(fire(1, PP_OK), 1, 0, 0, 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0); /* the test's time limit */
    stop();
}
END_TEST

enum { KEYS = 8, ROUNDS = 3000 };
static atomic_bool over;

static void *fire_forever(void *complaint)
{
    for (unsigned n = 0; !atomic_load(&over); n++) {
        pp_error error = { .size = sizeof error };
        pp_watch_result result = { .size = sizeof result };
        pp_patch_options options = { .size = sizeof options, .error = &error };
        if (pp_watch_fire(pool, n % KEYS, &options, &result) != PP_OK) {
            snprintf(complaint, 160, "%s", error.text);
            break;
        }
    }
    return NULL;
}

/*
 * Code comes and goes while others fire: each site is fired for its own code or not at
 * all.  Fresh code with a key that nobody fires has the bytes of the old at the same
 * address, so a fire that came late would be seen.
 */
START_TEST(fires_race_with_releases)
{
    static char complaints[2][160];
    pthread_t threads[2];
    start();
    spread_end(&pool->spread); /* no other region, also when a fire holds the lock of this one */
    atomic_store(&over, false);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, fire_forever, complaints[i]), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        const uint8_t *code, *innocent;
        pp_trace *trace = make_trace(5, &code);
        ck_assert_int_eq(watch(i % KEYS, code), PP_OK);
        int value = run(code);
        ck_assert(value == 5 || value == 6);
        if (i % 3 == 0) {
            ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
            value = run(code);
            ck_assert(value == 5 || value == 6);
            ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
        } else {
            ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
        }
        pp_span *span = make_span(5, &innocent);
        ck_assert_ptr_eq(innocent, code);
        for (unsigned j = 0; j < 20; j++)
            ck_assert_int_eq(run(innocent), 5);
        ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ck_assert_str_eq(complaints[0], "");
    ck_assert_str_eq(complaints[1], "");
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("watch");
    TCase *tests = tcase_create("watch");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_fire_reaches_its_key_once);
    tcase_add_test(tests, what_is_done_already_is_done);
    tcase_add_test(tests, what_is_refused_stays_watched);
    tcase_add_test(tests, wrong_watches_are_refused);
    tcase_add_loop_test(tests, watches_go_with_their_code, 0, WAYS);
    tcase_add_test(tests, retired_code_is_watched);
    tcase_add_test(tests, held_code_is_watched);
    tcase_add_test(tests, growth_keeps_watches_of_retired_code);
    tcase_add_test(tests, children_keep_their_retired_code);
    tcase_add_test(tests, a_thread_leaves_retired_code);
    tcase_add_test(tests, watches_of_gone_code_take_no_more_memory);
    tcase_add_test(tests, fires_race_with_releases);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
