/* SPDX-License-Identifier: MIT */
/* Status codes have names, and the library is the one that the header describes. */
#include <config.h>

#include "error.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(every_status_has_its_own_name)
{
    for (int a = PP_OK; a >= PP_E_SYSTEM; a--) {
        ck_assert_str_ne(pp_strerror(a), "unknown status");
        for (int b = a - 1; b >= PP_E_SYSTEM; b--)
            ck_assert_str_ne(pp_strerror(a), pp_strerror(b));
    }
    ck_assert_str_eq(pp_strerror(PP_E_SYSTEM - 1), "unknown status");
    ck_assert_str_eq(pp_strerror(1), "unknown status");
}
END_TEST

START_TEST(version_matches_header_and_package)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", PP_VERSION_MAJOR, PP_VERSION_MINOR, PP_VERSION_PATCH);
    ck_assert_uint_eq(pp_version(), PP_VERSION_NUMBER);
    ck_assert_str_eq(text, PACKAGE_VERSION);
}
END_TEST

START_TEST(reasons_are_filled_and_terminated)
{
    pp_error error = { .size = sizeof error };
    ck_assert_int_eq(error_system(&error, PP_E_SYSTEM, "mmap", ENOMEM), PP_E_SYSTEM);
    ck_assert_str_eq(error.text, "mmap: Cannot allocate memory");
    ck_assert_int_eq(error.system_errno, ENOMEM);
    ck_assert_uint_eq(error.reloc_index, PP_NO_RELOC);

    char long_name[400];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    error_reloc(&error, PP_E_RANGE, 7, "%s", long_name);
    ck_assert_uint_eq(strlen(error.text), sizeof error.text - 1);
    ck_assert_uint_eq(error.reloc_index, 7);

    pp_error too_short = { .size = 8, .system_errno = 42 };
    error_set(&too_short, PP_E_ARG, "text");
    ck_assert_int_eq(too_short.system_errno, 42);
    error_set(NULL, PP_E_ARG, "text");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("status");
    TCase *tests = tcase_create("status");
    tcase_add_test(tests, every_status_has_its_own_name);
    tcase_add_test(tests, version_matches_header_and_package);
    tcase_add_test(tests, reasons_are_filled_and_terminated);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
