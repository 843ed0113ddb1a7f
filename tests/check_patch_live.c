/* SPDX-License-Identifier: MIT */
/* Patches while threads run the code, and the traps that they meet. */
#include <config.h>

#include "patching.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <ucontext.h>

enum { RUNNERS = 2 };

struct runner {
    pthread_t thread;
    const uint8_t *code;
    uint64_t seen[CHOICES];
    bool bad;
};

static atomic_bool over;

static void *run_forever(void *argument)
{
    struct runner *runner = argument;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        long value = run(runner->code);
        if (value < 0 || value >= CHOICES)
            runner->bad = true;
        else
            runner->seen[value]++;
    }
    return NULL;
}

/* Patches while threads run the site: they come out at one of its endings. */
static void patch_under_threads(uint8_t *code, size_t site, pp_patch_protocol protocol,
                                unsigned rounds)
{
    struct runner runners[RUNNERS] = { { .code = code }, { .code = code } };
    atomic_store(&over, false);
    for (unsigned i = 0; i < RUNNERS; i++)
        ck_assert_int_eq(pthread_create(&runners[i].thread, NULL, run_forever, &runners[i]), 0);
    for (unsigned i = 0; i < rounds; i++) {
        int from = (int) (i % (CHOICES + 1)) - 1, to = (int) ((i + 1) % (CHOICES + 1)) - 1;
        pp_patch patch = make_patch(code, site, from, to, protocol);
        assert_applies(&patch, 1, NULL);
        ck_assert_int_eq(run(code), to < 0 ? 0 : to);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < RUNNERS; i++) {
        pthread_join(runners[i].thread, NULL);
        ck_assert(!runners[i].bad);
    }
}

START_TEST(threads_run_what_was_or_what_is)
{
    uint8_t *code;
    if (!start_in(modes[_i].wx))
        return;
    make_span(SITE, LENGTH, &code);
    patch_under_threads(code, SITE, CODE_PROTOCOL, 1000);
    stop();
}
END_TEST

#if defined __x86_64__
static atomic_uint ours, foreign;

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void) number;
    (void) info;
    if (pp_patch_trap(context))
        atomic_fetch_add(&ours, 1);
    else
        atomic_fetch_add(&foreign, 1);
}

static void catch_traps(void)
{
    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
    atomic_store(&ours, 0);
    atomic_store(&foreign, 0);
    ck_assert_int_eq(sigaction(SIGTRAP, &action, NULL), 0);
}

/* Through the trap: threads wait in front of the site, and go on when it is whole. */
START_TEST(threads_wait_at_a_trap)
{
    uint8_t *code;
    if (!start_in(modes[_i].wx))
        return;
    catch_traps();
    make_span(6, LENGTH, &code);
    for (unsigned i = 0; i < 50 && (i < 4 || atomic_load(&ours) == 0); i++)
        patch_under_threads(code, 6, PP_PATCH_INT3, 1000);
    ck_assert_uint_gt(atomic_load(&ours), 0);
    ck_assert_uint_eq(atomic_load(&foreign), 0);
    stop();
}
END_TEST

/* The host's own traps are the host's, also where there was one of ours. */
START_TEST(foreign_traps_are_left_alone)
{
    uint8_t *code;
    start();
    catch_traps();
    raise(SIGTRAP);
    ck_assert_uint_eq(atomic_load(&foreign), 1);
    __asm__ volatile("int3");
    ck_assert_uint_eq(atomic_load(&foreign), 2);
    make_span(SITE, 1, &code);
    pp_patch patch = { .address = code, .protocol = PP_PATCH_INT3, .bytes = 1, .value = { 0xcc } };
    pp_patch back;
    assert_applies(&patch, 1, &back);
    ck_assert_int_eq(run(code), 0);
    ck_assert_uint_eq(atomic_load(&foreign), 3);
    assert_applies(&back, 1, NULL);
    ck_assert_int_eq(run(code), 0);
    ck_assert_uint_eq(atomic_load(&foreign), 3);
    ck_assert_uint_eq(atomic_load(&ours), 0);

    /* A trap that is delivered when it is gone; one byte beside; a single step; reused code. */
    ucontext_t context;
    memset(&context, 0, sizeof context);
    greg_t *registers = context.uc_mcontext.gregs;
    registers[REG_TRAPNO] = 3;
    registers[REG_RIP] = (greg_t) (code + 1);
    ck_assert_int_eq(pp_patch_trap(&context), 1);
    ck_assert_int_eq(registers[REG_RIP], (greg_t) code);
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    registers[REG_RIP] = (greg_t) (code + 2);
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    registers[REG_RIP] = (greg_t) (code + 1);
    registers[REG_TRAPNO] = 1;
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    registers[REG_TRAPNO] = 3;
    uint8_t *again;
    ck_assert_int_eq(pp_span_free(pool, pp_span_at(code)), PP_OK);
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    make_span(SITE, 1, &again);
    ck_assert_ptr_eq(again, code);
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    ck_assert_int_eq(registers[REG_RIP], (greg_t) (code + 1));
    stop();
}
END_TEST

/* The table of traps grows, and forgets those of code that is gone. */
START_TEST(traps_of_gone_code_are_forgotten)
{
    enum { MANY = 4000 };
    static uint8_t *code[MANY];
    static pp_span *spans[MANY];
    pp_pool_stats old = { .size = sizeof old }, new = { .size = sizeof new };
    start();
    for (unsigned i = 0; i < MANY; i++)
        spans[i] = make_span(6, LENGTH, &code[i]);
    for (unsigned i = 0; i < MANY; i++) {
        pp_patch patch = make_patch(code[i], 6, -1, 1, PP_PATCH_INT3);
        assert_applies(&patch, 1, NULL);
        if (i >= 10)
            ck_assert_int_eq(pp_span_free(pool, spans[i - 10]), PP_OK);
        if (i == 100)
            ck_assert_int_eq(pp_pool_get_stats(pool, &old), PP_OK);
    }
    ck_assert_int_eq(pp_pool_get_stats(pool, &new), PP_OK);
    ck_assert_uint_le(new.metadata, old.metadata + 16384);
    for (unsigned i = 0; i < MANY - 10; i++)
        make_span(6, LENGTH, &code[i]);
    for (unsigned i = 0; i < MANY; i++) {
        pp_patch patch = make_patch(code[i], 6, i < MANY - 10 ? -1 : 1, 2, PP_PATCH_INT3);
        assert_applies(&patch, 1, NULL);
    }
    ucontext_t context;
    memset(&context, 0, sizeof context);
    context.uc_mcontext.gregs[REG_TRAPNO] = 3;
    for (unsigned i = 0; i < MANY; i++) {
        context.uc_mcontext.gregs[REG_RIP] = (greg_t) (code[i] + 7);
        ck_assert_int_eq(pp_patch_trap(&context), 1);
    }
    stop();
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("patch_live");
    TCase *tests = tcase_create("patch_live");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, threads_run_what_was_or_what_is, 0, LIVE_MODES);
#if defined __x86_64__
    tcase_add_loop_test(tests, threads_wait_at_a_trap, 0, LIVE_MODES);
    tcase_add_test(tests, foreign_traps_are_left_alone);
    tcase_add_test(tests, traps_of_gone_code_are_forgotten);
#endif
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
