/* SPDX-License-Identifier: MIT */
/*
 * Every operation of the library that asks the kernel or an allocator for something,
 * with every one of its requests refused: see sweep.h.
 */
#include <config.h>

#include "sweep.h"

#include <check.h>
#include <dlfcn.h>
#include <stdio.h>
#include <sys/mman.h>

static const pp_wx modes[] = { PP_WX_DUAL, PP_WX_REMAP, PP_WX_FLIP, PP_WX_RWX };
enum { MODES = sizeof modes / sizeof *modes, CASES_MAX = 1024 };

static const struct operation *const rooms[] = {
    sweep_pool_operations, sweep_link_operations, sweep_move_operations, sweep_patch_operations,
    sweep_span_operations, sweep_entry_operations,
};
enum { ROOMS = sizeof rooms / sizeof *rooms };

static char *where; /* shared with the tests' processes */

/* The test of this number: an operation in a mode.  NULL: there are no more. */
static const struct operation *find(int number, pp_wx *wx)
{
    *wx = modes[number % MODES];
    int index = number / MODES;
    for (int i = 0; i < ROOMS; i++)
        for (const struct operation *at = rooms[i]; at->name != NULL; at++)
            if (index-- == 0)
                return at;
    return NULL;
}

/* An emulator may not have the mode. */
static bool is_possible(pp_wx wx)
{
    pp_pool_options options = { .size = sizeof options, .wx = wx };
    pp_pool *pool;
    if (pp_pool_create(&options, &pool) != PP_OK)
        return false;
    pp_pool_destroy(pool);
    return true;
}

START_TEST(faults_are_survived)
{
    pp_wx wx;
    const struct operation *operation = find(_i, &wx);
    if (is_possible(wx) && (wx == PP_WX_FLIP || !operation->modeless))
        sweep(operation, wx, where);
    where[0] = '\0';
}
END_TEST

START_TEST(faults_are_survived_in_auto_mode)
{
    sweep(&sweep_pool_operations[0], PP_WX_AUTO, where);
    where[0] = '\0';
}
END_TEST

/* Runs in the parent, behind a test. */
static void tell_where(void)
{
    if (where[0] != '\0')
        printf("  failed at %s\n", where);
    where[0] = '\0';
}

static TCase *add_case(Suite *suite, const char *name, pp_wx wx)
{
    static const char *const names[] = { "auto", "dual", "remap", "flip", "rwx" };
    static char texts[CASES_MAX][48]; /* the suite keeps the addresses */
    static unsigned count;
    if (count == CASES_MAX)
        abort();
    snprintf(texts[count], sizeof texts[count], "%s, %s", name, names[wx]);
    TCase *test = tcase_create(texts[count++]);
    tcase_set_timeout(test, 60);
    tcase_add_unchecked_fixture(test, NULL, tell_where);
    suite_add_tcase(suite, test);
    return test;
}

int main(void)
{
    const struct operation *operation;
    pp_wx wx;
    if (dlopen("libunwind.so.8", RTLD_NOW) == NULL) /* pools tell it of their code */
        return 99;
    where = mmap(NULL, SWEEP_TEXT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    Suite *suite = suite_create("sweep");
    TCase *first = add_case(suite, sweep_pool_operations[0].name, PP_WX_AUTO);
    tcase_add_test(first, faults_are_survived_in_auto_mode);
    for (int i = 0; (operation = find(i, &wx)) != NULL; i++)
        tcase_add_loop_test(add_case(suite, operation->name, wx), faults_are_survived, i, i + 1);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
