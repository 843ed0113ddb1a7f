/* SPDX-License-Identifier: MIT */
/* Symbols: what is the same one, what is refused, and many of them from many threads. */
#include <config.h>

#include "link/symbol.h"

#include <patchpoint/trace.h>

#include <check.h>
#include <pthread.h>
#include <stdio.h>

enum { MANY = 100000, THREADS = 4, NAMES = 2000 };

static pp_pool *pool;

static void setup(void)
{
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static const void *address(size_t i)
{
    return (const void *) (0x10000 + 16 * i);
}

START_TEST(a_name_has_one_address)
{
    char name[] = "add";
    pp_symbol add = pp_symbol_define(pool, name, address(1));

    ck_assert_uint_ge(add, SYMBOL_FIRST);
    ck_assert_ptr_eq(pp_symbol_address(pool, add), address(1));
    ck_assert_uint_eq(pp_symbol_define(pool, "add", address(1)), add);
    ck_assert_uint_eq(pp_symbol_define(pool, "add", address(2)), PP_SYMBOL_NONE);
    ck_assert_ptr_eq(pp_symbol_address(pool, add), address(1));
    name[0] = 'x'; /* the name was copied */
    ck_assert_uint_eq(pp_symbol_define(pool, "add", address(1)), add);
    pp_symbol alias = pp_symbol_define(pool, name, address(1));
    ck_assert_uint_ne(alias, PP_SYMBOL_NONE);
    ck_assert_uint_ne(alias, add);
    ck_assert_uint_ne(pp_symbol_define(pool, "", address(3)), PP_SYMBOL_NONE);
    ck_assert_uint_eq(pp_symbol_define(pool, "", address(4)), PP_SYMBOL_NONE);
}
END_TEST

START_TEST(an_address_has_one_symbol_without_a_name)
{
    pp_symbol one = pp_symbol_define(pool, NULL, address(1));
    pp_symbol two = pp_symbol_define(pool, NULL, address(2));

    ck_assert_uint_ne(one, PP_SYMBOL_NONE);
    ck_assert_uint_ne(two, PP_SYMBOL_NONE);
    ck_assert_uint_ne(one, two);
    ck_assert_uint_eq(pp_symbol_define(pool, NULL, address(1)), one);
    ck_assert_uint_eq(pp_symbol_define(pool, NULL, address(2)), two);
    /* A name for the same address is another symbol, and both stay what they were. */
    pp_symbol named = pp_symbol_define(pool, "one", address(1));
    ck_assert_uint_ne(named, one);
    ck_assert_uint_eq(pp_symbol_define(pool, NULL, address(1)), one);
    ck_assert_uint_eq(pp_symbol_define(pool, "one", address(1)), named);
}
END_TEST

START_TEST(what_cannot_be_a_symbol_is_none)
{
    ck_assert_uint_eq(pp_symbol_define(pool, "null", NULL), PP_SYMBOL_NONE);
    ck_assert_uint_eq(pp_symbol_define(pool, NULL, NULL), PP_SYMBOL_NONE);
    ck_assert_uint_eq(pp_symbol_define(NULL, "name", address(1)), PP_SYMBOL_NONE);
    ck_assert_ptr_null(pp_symbol_address(NULL, PP_SYMBOL_LEAVE));
    ck_assert_ptr_null(pp_symbol_address(pool, PP_SYMBOL_NONE));
    ck_assert_ptr_null(pp_symbol_address(pool, PP_SYMBOL_CODE));
    ck_assert_ptr_null(pp_symbol_address(pool, PP_SYMBOL_DATA));
    ck_assert_ptr_null(pp_symbol_address(pool, SYMBOL_FIRST));
    ck_assert_ptr_null(pp_symbol_address(pool, UINT32_MAX));
    /* A refused definition took no number. */
    ck_assert_uint_eq(pp_symbol_define(pool, "first", address(1)), SYMBOL_FIRST);
}
END_TEST

START_TEST(pools_have_symbols_of_their_own)
{
    pp_pool *other;
    pp_symbol here = pp_symbol_define(pool, "name", address(1));

    ck_assert_int_eq(pp_pool_create(NULL, &other), PP_OK);
    pp_symbol there = pp_symbol_define(other, "name", address(2));
    ck_assert_ptr_eq(pp_symbol_address(pool, here), address(1));
    ck_assert_ptr_eq(pp_symbol_address(other, there), address(2));
    pp_pool_destroy(other);
}
END_TEST

START_TEST(many_are_all_found_again)
{
    static pp_symbol named[MANY], values[MANY];
    size_t wrong = 0;
    char name[32];

    for (size_t i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "symbol %zu", i);
        named[i] = pp_symbol_define(pool, name, address(i));
        values[i] = pp_symbol_define(pool, NULL, address(MANY + i));
        wrong += named[i] == PP_SYMBOL_NONE || values[i] == PP_SYMBOL_NONE;
    }
    for (size_t i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "symbol %zu", i);
        wrong += pp_symbol_define(pool, name, address(i)) != named[i];
        wrong += pp_symbol_define(pool, NULL, address(MANY + i)) != values[i];
        wrong += pp_symbol_address(pool, named[i]) != address(i);
        wrong += pp_symbol_address(pool, values[i]) != address(MANY + i);
    }
    ck_assert_uint_eq(wrong, 0);
    ck_assert_uint_eq(pp_symbol_define(pool, NULL, address(2 * MANY)), SYMBOL_FIRST + 2 * MANY);
}
END_TEST

static pp_symbol seen[THREADS][NAMES];
static pthread_barrier_t start;

static void *define_all(void *argument)
{
    pp_symbol *mine = argument;
    size_t offset = (size_t) (mine - &seen[0][0]) / NAMES * (NAMES / THREADS);
    char name[32];

    pthread_barrier_wait(&start);
    for (size_t n = 0; n < NAMES; n++) {
        size_t i = (n + offset) % NAMES;
        snprintf(name, sizeof name, "shared %zu", i);
        mine[i] = pp_symbol_define(pool, name, address(i));
        if (pp_symbol_address(pool, mine[i]) != address(i))
            mine[i] = PP_SYMBOL_NONE;
    }
    return NULL;
}

START_TEST(threads_agree_on_symbols)
{
    pthread_t threads[THREADS];

    pthread_barrier_init(&start, NULL, THREADS);
    for (int t = 0; t < THREADS; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, define_all, seen[t]), 0);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    pthread_barrier_destroy(&start);
    for (size_t i = 0; i < NAMES; i++) {
        ck_assert_uint_ne(seen[0][i], PP_SYMBOL_NONE);
        for (int t = 1; t < THREADS; t++)
            ck_assert_uint_eq(seen[t][i], seen[0][i]);
    }
    ck_assert_uint_eq(pp_symbol_define(pool, "last", address(0)), SYMBOL_FIRST + NAMES);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("symbol");
    TCase *tests = tcase_create("symbol");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_name_has_one_address);
    tcase_add_test(tests, an_address_has_one_symbol_without_a_name);
    tcase_add_test(tests, what_cannot_be_a_symbol_is_none);
    tcase_add_test(tests, pools_have_symbols_of_their_own);
    tcase_add_test(tests, many_are_all_found_again);
    tcase_add_test(tests, threads_agree_on_symbols);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
