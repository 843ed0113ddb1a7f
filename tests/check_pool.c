/* SPDX-License-Identifier: MIT */
/* Pools: code written and run in every mode, and what a pool promises around it. */
#include <config.h>

#include "memory/pool.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct frame_rule no_rule;

static pp_status fixed_size(struct region *region, void *context, size_t *size)
{
    (void) region;
    *size = *(size_t *) context;
    return PP_OK;
}

static pp_status take(pp_pool *pool, size_t size, size_t align, struct span *span)
{
    return pool_alloc(pool, &no_rule, align, fixed_size, &size, span, NULL);
}

/* int f(void) { return value; } */
static void write_return(const struct span *span, uint16_t value)
{
    uint8_t *write;
#if defined __x86_64__
    const uint8_t code[] = { 0xb8, value & 0xff, value >> 8, 0, 0, 0xc3 };
#else
    const uint32_t code[] = { 0x52800000 | (uint32_t) value << 5, 0xd65f03c0 };
#endif
    ck_assert_int_eq(region_write_begin(span->region, span->exec, span->size, &write, NULL), PP_OK);
    memcpy(write, code, sizeof code);
    ck_assert_int_eq(region_write_end(span->region, span->exec, span->size, NULL), PP_OK);
}

static int run(const struct span *span)
{
    return ((int (*)(void)) span->exec)();
}

START_TEST(code_runs_and_is_found)
{
    pp_error error = { .size = sizeof error };
    pp_pool_options options = { .size = sizeof options, .wx = (pp_wx) _i, .error = &error };
    pp_pool *pool;
    struct span span[100];
    struct code_place place;
    pp_status status = pp_pool_create(&options, &pool);
    if (status == PP_E_UNSUPPORTED) {
        printf("wx %d: %s\n", _i, error.text);
        return;
    }
    ck_assert_msg(status == PP_OK, "%s", error.text);
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(take(pool, 40 + i, 16, &span[i]), PP_OK);
        write_return(&span[i], (uint16_t) (1000 + i));
    }
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(run(&span[i]), 1000 + (int) i);
        ck_assert(code_at(span[i].exec + 20, &place));
        ck_assert_uint_eq(place.start, span[i].exec);
        ck_assert_uint_eq(place.size, 40 + i);
    }
    ck_assert_int_eq(pp_pool_verify(pool, &error), PP_OK);
    pp_pool_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_pool_get_stats(pool, &stats), PP_OK);
    printf("wx %d: mode %d, allocator %s, resident %zu, metadata %zu, reason \"%s\"\n", _i, stats.wx,
           stats.allocator, stats.resident, stats.metadata, stats.wx_reason);
    ck_assert_uint_eq(stats.spans, 100);
    for (unsigned i = 0; i < 100; i++)
        ck_assert_int_eq(pool_free(pool, span[i].exec), PP_OK);
    ck_assert(!code_at(span[3].exec, &place));
    ck_assert_int_eq(pool_free(pool, span[3].exec), PP_E_STALE);
    ck_assert_int_eq(pp_pool_verify(pool, &error), PP_OK);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *tests = tcase_create("pool");
    tcase_add_loop_test(tests, code_runs_and_is_found, PP_WX_AUTO, PP_WX_RWX + 1);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
