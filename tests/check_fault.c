/* SPDX-License-Identifier: MIT */
/* Scripts of faults: their text, their counts, and that they count right under threads. */
#include <config.h>

#include "os/fault.h"

#include <patchpoint.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pp_error error;

static void reset(void)
{
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    error = (pp_error){ .size = sizeof error };
}

static void set(const char *text)
{
    pp_fault script[PP_FAULT_ROWS];
    size_t count;
    ck_assert_int_eq(pp_fault_parse(text, script, PP_FAULT_ROWS, &count, &error), PP_OK);
    ck_assert_int_eq(pp_fault_set(script, count), PP_OK);
}

/* Ask `calls` times; a digit is written for each: 1 where it failed. */
static const char *ask(pp_fault_call call, unsigned calls)
{
    static char answers[65];
    for (unsigned i = 0; i < calls; i++) {
        int number = -1;
        bool fired = fault_fires(call, &number);
        answers[i] = fired ? '1' : '0';
        ck_assert_int_eq(number != -1, fired);
    }
    answers[calls] = '\0';
    return answers;
}

/* ---- text ------------------------------------------------------------- */

static const struct { const char *text; size_t count; pp_fault faults[3]; } good[] = {
    { "mmap:3", 1, { { PP_FAULT_MMAP, 0, 3, 1 } } },
    { "mmap:3,metadata:5+2=ENOMEM,mprotect:1+*", 3,
      { { PP_FAULT_MMAP, 0, 3, 1 }, { PP_FAULT_METADATA, ENOMEM, 5, 2 },
        { PP_FAULT_MPROTECT, 0, 1, 0 } } },
    { "any:1+*=EIO", 1, { { PP_FAULT_ANY, EIO, 1, 0 } } },
    { "memfd_create:281474976710655=38", 1,
      { { PP_FAULT_MEMFD_CREATE, ENOSYS, 281474976710655, 1 } } },
    { "fcntl:1,fcntl:1", 2, { { PP_FAULT_FCNTL, 0, 1, 1 }, { PP_FAULT_FCNTL, 0, 1, 1 } } },
};

START_TEST(text_is_understood)
{
    pp_fault script[4] = { { 0 } };
    size_t count = 0;
    ck_assert_int_eq(pp_fault_parse(good[_i].text, script, 4, &count, NULL), PP_OK);
    ck_assert_uint_eq(count, good[_i].count);
    for (size_t i = 0; i < count; i++) {
        ck_assert_int_eq(script[i].call, good[_i].faults[i].call);
        ck_assert_int_eq(script[i].error, good[_i].faults[i].error);
        ck_assert_uint_eq(script[i].first, good[_i].faults[i].first);
        ck_assert_uint_eq(script[i].count, good[_i].faults[i].count);
    }
    ck_assert_int_eq(pp_fault_set(script, count), PP_OK);
}
END_TEST

static const struct { const char *text, *reason; } bad[] = {
    { "", "'': expected a call" },
    { "mmap", "'mmap': expected CALL:FIRST" },
    { "nmap:1", "'nmap:1': expected a call" },
    { "mma:1", "expected a call" },
    { "mmapp:1", "expected a call" },
    { "MMAP:1", "expected a call" },
    { "mmap:", "'mmap:': expected a number from 1 on behind the colon" },
    { "mmap:0", "expected a number from 1 on behind the colon" },
    { "mmap:-1", "expected a number from 1 on behind the colon" },
    { "mmap: 1", "expected a number from 1 on behind the colon" },
    { "mmap:x", "expected a number from 1 on behind the colon" },
    { "mmap:281474976710656", "expected a number from 1 on behind the colon" },
    { "mmap:99999999999999999999", "expected a number from 1 on behind the colon" },
    { "mmap:1+", "'mmap:1+': expected a number from 1 on, or *" },
    { "mmap:1+0", "expected a number from 1 on, or *" },
    { "mmap:1+**", "expected a number from 1 on, or *" },
    { "mmap:1=", "expected the name or the number of an errno" },
    { "mmap:1=0", "expected the name or the number of an errno" },
    { "mmap:1=4096", "expected the name or the number of an errno" },
    { "mmap:1=NOPE", "expected the name or the number of an errno" },
    { "mmap:1=ENOMEM+2", "expected the name or the number of an errno" },
    { "mmap:1,", "'': expected a call" },
    { "mmap:1,,mmap:2", "'': expected a call" },
    { "mmap:1,open:oops,mmap:2", "'open:oops': expected a number" },
};

START_TEST(text_is_refused_with_the_item)
{
    pp_fault script[4] = { { .first = 77 } };
    size_t count = 99;
    ck_assert_int_eq(pp_fault_parse(bad[_i].text, script, 4, &count, &error), PP_E_ARG);
    ck_assert_msg(strstr(error.text, bad[_i].reason) != NULL, "'%s': %s", bad[_i].text,
                  error.text);
    ck_assert_uint_eq(count, 99);
    ck_assert_uint_eq(script[0].first, 77);
}
END_TEST

START_TEST(a_script_has_an_end)
{
    char text[PP_FAULT_ROWS * 8 + 16] = "mmap:1";
    pp_fault script[PP_FAULT_ROWS + 1];
    size_t count;
    ck_assert_int_eq(pp_fault_parse("mmap:1,mmap:2", script, 1, &count, &error), PP_E_RANGE);
    ck_assert_int_eq(pp_fault_parse("mmap:1", NULL, 0, &count, &error), PP_E_RANGE);
    for (int i = 1; i < PP_FAULT_ROWS; i++)
        strcat(text, ",mmap:1");
    ck_assert_int_eq(pp_fault_parse(text, script, PP_FAULT_ROWS + 1, &count, &error), PP_OK);
    ck_assert_uint_eq(count, PP_FAULT_ROWS);
    ck_assert_int_eq(pp_fault_set(script, count), PP_OK);
    strcat(text, ",mmap:1");
    ck_assert_int_eq(pp_fault_parse(text, script, PP_FAULT_ROWS + 1, &count, &error),
                     PP_E_RANGE);
    ck_assert_int_eq(pp_fault_set(script, PP_FAULT_ROWS + 1), PP_E_RANGE);
    ck_assert_int_eq(pp_fault_parse(NULL, script, 1, &count, &error), PP_E_ARG);
    ck_assert_int_eq(pp_fault_parse("mmap:1", script, 1, NULL, &error), PP_E_ARG);
    ck_assert_int_eq(pp_fault_parse("mmap:1", NULL, 1, &count, NULL), PP_E_ARG);
}
END_TEST

START_TEST(calls_have_names)
{
    for (int i = 0; i <= PP_FAULT_CALLS; i++) {
        pp_fault fault;
        size_t count;
        char text[64];
        ck_assert_ptr_nonnull(pp_fault_name((pp_fault_call) i));
        strcpy(text, pp_fault_name((pp_fault_call) i));
        strcat(text, ":1");
        ck_assert_int_eq(pp_fault_parse(text, &fault, 1, &count, NULL), PP_OK);
        ck_assert_int_eq(fault.call, i);
    }
    ck_assert_ptr_null(pp_fault_name((pp_fault_call) (PP_FAULT_CALLS + 1)));
    ck_assert_ptr_null(pp_fault_name((pp_fault_call) -1));
}
END_TEST

/* ---- counting --------------------------------------------------------- */

START_TEST(the_calls_named_fail)
{
    set("mmap:3,mmap:5+2,open:2+*");
    ck_assert_str_eq(ask(PP_FAULT_MMAP, 9), "001011000");
    ck_assert_str_eq(ask(PP_FAULT_OPEN, 5), "01111");
    ck_assert_str_eq(ask(PP_FAULT_FCNTL, 3), "000");
    ck_assert_uint_eq(pp_fault_seen(PP_FAULT_MMAP), 9);
    ck_assert_uint_eq(pp_fault_hit(PP_FAULT_MMAP), 3);
    ck_assert_uint_eq(pp_fault_seen(PP_FAULT_OPEN), 5);
    ck_assert_uint_eq(pp_fault_hit(PP_FAULT_OPEN), 4);
    ck_assert_uint_eq(pp_fault_seen(PP_FAULT_FCNTL), 3);
    ck_assert_uint_eq(pp_fault_hit(PP_FAULT_FCNTL), 0);
    ck_assert_uint_eq(pp_fault_seen(PP_FAULT_ANY), 17);
    ck_assert_uint_eq(pp_fault_hit(PP_FAULT_ANY), 7);
    ck_assert_uint_eq(pp_fault_seen((pp_fault_call) -1), 0);
    ck_assert_uint_eq(pp_fault_hit((pp_fault_call) (PP_FAULT_CALLS + 1)), 0);

    set("mmap:2"); /* counts begin again, and the rows before are gone */
    ck_assert_uint_eq(pp_fault_seen(PP_FAULT_ANY), 0);
    ck_assert_str_eq(ask(PP_FAULT_MMAP, 6), "010000");
    reset();
    ck_assert_str_eq(ask(PP_FAULT_MMAP, 3), "000");
    ck_assert_uint_eq(pp_fault_seen(PP_FAULT_MMAP), 0);
}
END_TEST

START_TEST(any_counts_all_calls_together)
{
    set("any:2+2");
    ck_assert_str_eq(ask(PP_FAULT_MMAP, 2), "01");
    ck_assert_str_eq(ask(PP_FAULT_METADATA, 2), "10");
}
END_TEST

START_TEST(each_call_has_its_usual_errno)
{
    static const int usual[PP_FAULT_CALLS] = {
        [PP_FAULT_MMAP] = ENOMEM, [PP_FAULT_MPROTECT] = ENOMEM, [PP_FAULT_MADVISE] = ENOMEM,
        [PP_FAULT_MEMFD_CREATE] = EMFILE, [PP_FAULT_FTRUNCATE] = EFBIG,
        [PP_FAULT_FALLOCATE] = ENOSPC, [PP_FAULT_FCNTL] = EPERM, [PP_FAULT_MEMBARRIER] = EPERM,
        [PP_FAULT_METADATA] = ENOMEM, [PP_FAULT_OPEN] = EMFILE,
    };
    for (int i = 0; i < PP_FAULT_CALLS; i++) {
        int number = 0;
        set("any:1+*");
        errno = 77;
        ck_assert(fault_fires((pp_fault_call) i, &number));
        ck_assert_int_eq(number, usual[i]);
        ck_assert_int_eq(errno, 77);
        ck_assert(fault_fires_errno((pp_fault_call) i));
        ck_assert_int_eq(errno, usual[i]);
        set("any:1+*=EINTR");
        ck_assert(fault_fires((pp_fault_call) i, &number));
        ck_assert_int_eq(number, EINTR);
    }
}
END_TEST

START_TEST(a_wrong_script_changes_nothing)
{
    static const pp_fault wrong[] = {
        { PP_FAULT_MMAP, 0, 0, 1 },
        { (pp_fault_call) (PP_FAULT_CALLS + 1), 0, 1, 1 },
        { (pp_fault_call) -1, 0, 1, 1 },
        { PP_FAULT_MMAP, -1, 1, 1 },
        { PP_FAULT_MMAP, 4096, 1, 1 },
    };
    set("mmap:2");
    ck_assert_str_eq(ask(PP_FAULT_MMAP, 1), "0");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        pp_fault script[2] = { { PP_FAULT_OPEN, 0, 1, 1 }, wrong[i] };
        ck_assert_int_eq(pp_fault_set(script, 2), PP_E_ARG);
    }
    ck_assert_int_eq(pp_fault_set(NULL, 1), PP_E_ARG);
    ck_assert_str_eq(ask(PP_FAULT_MMAP, 1), "1");
    ck_assert_uint_eq(pp_fault_seen(PP_FAULT_MMAP), 2);
    /* A range that goes beyond the last number. */
    pp_fault far = { PP_FAULT_MMAP, 0, UINT64_MAX - 1, 10 };
    ck_assert_int_eq(pp_fault_set(&far, 1), PP_OK);
    ck_assert_str_eq(ask(PP_FAULT_MMAP, 2), "00");
}
END_TEST

/* ---- threads ---------------------------------------------------------- */

enum { THREADS = 4, ASKED = 20000 };

static void *ask_often(void *fired)
{
    int number;
    for (int i = 0; i < ASKED; i++)
        *(unsigned *) fired += fault_fires(PP_FAULT_MMAP, &number);
    return NULL;
}

static unsigned ask_from_threads(void (*meanwhile)(void))
{
    pthread_t threads[THREADS];
    unsigned fired[THREADS] = { 0 }, sum = 0;
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_often, &fired[i]), 0);
    if (meanwhile != NULL)
        meanwhile();
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        sum += fired[i];
    }
    return sum;
}

START_TEST(threads_count_together)
{
    set("mmap:500+777,mmap:79000+*");
    ck_assert_uint_eq(ask_from_threads(NULL), 777 + THREADS * ASKED - 78999);
    ck_assert_uint_eq(pp_fault_seen(PP_FAULT_MMAP), THREADS * ASKED);
    ck_assert_uint_eq(pp_fault_hit(PP_FAULT_MMAP), 777 + THREADS * ASKED - 78999);
}
END_TEST

static void change_often(void)
{
    for (int i = 0; i < 3000; i++) {
        pp_fault script[2] = { { PP_FAULT_MMAP, 0, 5, 3 }, { PP_FAULT_ANY, EIO, 20, 2 } };
        ck_assert_int_eq(pp_fault_set(script, 2), PP_OK);
        ck_assert_uint_le(pp_fault_hit(PP_FAULT_MMAP), 5);
        uint64_t hit = pp_fault_hit(PP_FAULT_MMAP); /* each call is seen first */
        ck_assert_uint_le(hit, pp_fault_seen(PP_FAULT_MMAP));
    }
}

START_TEST(scripts_change_under_threads)
{
    ask_from_threads(change_often);
    /* Of the last script no more than it says, and the calls of those before do not count. */
    ck_assert_uint_le(pp_fault_hit(PP_FAULT_MMAP), 5);
    uint64_t seen = pp_fault_seen(PP_FAULT_MMAP);
    ask(PP_FAULT_MMAP, 7);
    ck_assert_uint_eq(pp_fault_seen(PP_FAULT_MMAP), seen + 7);
}
END_TEST

/* ---- what the library does under a script ------------------------------- */

START_TEST(the_library_asks)
{
    pp_pool *pool = NULL;
    pp_pool_options options = { .size = sizeof options, .error = &error };
    set("metadata:1+*");
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_NOMEM);
    ck_assert_uint_gt(pp_fault_hit(PP_FAULT_METADATA), 0);
    set("mmap:1+*=EACCES");
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_SYSTEM);
    ck_assert_int_eq(error.system_errno, EACCES);
    ck_assert_str_eq(error.system_call, "mmap");
    reset();
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fault");
    TCase *tests = tcase_create("script");
    tcase_add_checked_fixture(tests, reset, reset);
    tcase_add_loop_test(tests, text_is_understood, 0, sizeof good / sizeof *good);
    tcase_add_loop_test(tests, text_is_refused_with_the_item, 0, sizeof bad / sizeof *bad);
    tcase_add_test(tests, a_script_has_an_end);
    tcase_add_test(tests, calls_have_names);
    tcase_add_test(tests, the_calls_named_fail);
    tcase_add_test(tests, any_counts_all_calls_together);
    tcase_add_test(tests, each_call_has_its_usual_errno);
    tcase_add_test(tests, a_wrong_script_changes_nothing);
    tcase_add_test(tests, threads_count_together);
    tcase_add_test(tests, scripts_change_under_threads);
    tcase_add_test(tests, the_library_asks);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
