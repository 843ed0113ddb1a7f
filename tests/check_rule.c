/* SPDX-License-Identifier: MIT */
/* Frame rules of a pool: one of each, whoever asks, and what has one leads to it. */
#include <config.h>

#include "memory/handle.h"
#include "memory/state.h"

#include "spans.h"

#include <patchpoint.h>

#include <pthread.h>

enum { RULES = 4000, THREADS = 4 };

static pp_frame_rule rule_of(unsigned number)
{
    return (pp_frame_rule){ .size = sizeof(pp_frame_rule), .kind = PP_FRAME_RECORD,
                            .cfa_offset = 16,
                            .saves = { .slots = 8, .saved = 8, .offset = -8 * (1 + (int) number) } };
}

static const struct frame_rule *find(pp_pool *pool, unsigned number)
{
    const pp_frame_rule from = rule_of(number);
    struct frame_rule rule;
    require(frame_rule_from(&from, &rule, &error) == PP_OK);
    const struct pool_rule *found = rule_table_find(pool, &rule);
    require(found != NULL && frame_rule_equal(&found->rule, &rule));
    return &found->rule;
}

static const struct frame_rule *rule_at(const void *address)
{
    struct code_place place;
    ck_assert(code_at((uintptr_t) address, &place));
    ck_assert_ptr_nonnull(place.owner);
    return owner_rule(place.owner);
}

START_TEST(there_is_one_of_each_and_thousands_are_cheap)
{
    pp_pool *pool = open_pool(PP_WX_AUTO);
    static const struct frame_rule *rules[RULES];
    size_t before = stats_of(pool).metadata;
    for (unsigned i = 0; i < RULES; i++)
        rules[i] = find(pool, i);
    for (unsigned i = 0; i < RULES; i++)
        ck_assert_ptr_eq(find(pool, i), rules[i]);
    ck_assert_uint_le((stats_of(pool).metadata - before) / RULES, 256);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

static const struct frame_rule *found_by[THREADS][RULES];
static pp_pool *common;

static void *find_all(void *argument)
{
    const struct frame_rule **found = argument;
    for (unsigned i = 0; i < RULES; i++)
        found[i] = find(common, i);
    return NULL;
}

START_TEST(threads_that_ask_at_once_find_the_same)
{
    pthread_t threads[THREADS];
    common = open_pool(PP_WX_AUTO);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, find_all, found_by[i]), 0);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    for (unsigned i = 1; i < THREADS; i++)
        ck_assert_mem_eq(found_by[i], found_by[0], sizeof found_by[0]);
    verify(common);
    pp_pool_destroy(common);
}
END_TEST

static pp_span *take_span(pp_pool *pool, const pp_frame_rule *rule, pp_span_place *place)
{
    const pp_span_desc want = { .size = sizeof want, .bytes = 16, .frame = rule, .error = &error };
    pp_span *span;
    *place = (pp_span_place){ .size = sizeof *place };
    ck_assert_int_eq(pp_span_alloc(pool, &want, &span, place), PP_OK);
    encode_return(place->write, 7);
    return span;
}

START_TEST(a_span_keeps_its_rule_in_every_state)
{
    pp_pool *pool = open_pool(_i);
    if (pool == NULL)
        return;
    const pp_frame_rule a = rule_of(1), b = rule_of(2);
    pp_span *spans[2], *tail;
    pp_span_place place[2];
    spans[0] = take_span(pool, &a, &place[0]);
    spans[1] = take_span(pool, &b, &place[1]);
    const struct frame_rule *rules[2] = { find(pool, 1), find(pool, 2) };
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 2; i++)
            ck_assert_ptr_eq(rule_at(place[i].execute), rules[i]);
        if (round == 0)
            ck_assert_int_eq(pp_span_publish(pool, spans, 2, &error), PP_OK);
        else
            for (unsigned i = 0; i < 2; i++)
                ck_assert_int_eq(pp_span_publish(pool, &spans[i], 1, &error), PP_OK);
        for (unsigned i = 0; i < 2; i++)
            ck_assert_ptr_eq(rule_at(place[i].execute), rules[i]);
        for (unsigned i = 0; i < 2 && round == 0; i++)
            ck_assert_int_eq(pp_span_write(pool, spans[i], &place[i], &error), PP_OK);
    }
    if (place[0].unit < 16 || pp_span_split(pool, spans[0], 8, &tail) != PP_OK)
        ck_assert_int_eq(pp_span_shrink(pool, spans[0], 8), PP_OK);
    ck_assert_int_eq(pp_span_retire(pool, spans[1]), PP_OK);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_ptr_eq(rule_at(place[i].execute), rules[i]);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(a_trace_has_the_rule_that_its_reservation_was_made_with)
{
    pp_pool *pool = open_pool(PP_WX_AUTO);
    const pp_frame_rule rule = rule_of(3), other = rule_of(4);
    pp_reservation reservation = { .size = sizeof reservation };
    pp_trace *trace;
    ck_assert_int_eq(pp_trace_reserve(pool, 64, &rule, &reservation, &error), PP_OK);
    const void *code = reservation.execute;
    ck_assert_ptr_eq(rule_at(code), find(pool, 3));
    ck_assert_ptr_null(pp_span_at(code));
    ck_assert_ptr_null(pp_trace_at(code));
    encode_return(reservation.write, 7);
    pp_trace_desc desc = { .size = sizeof desc, .frame = &other, .error = &error };
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, 16, &desc, &trace), PP_OK);
    ck_assert_ptr_eq(rule_at(code), find(pool, 3));
    /* Its record is used again for a trace with another rule. */
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    uint8_t bytes[16];
    encode_return(bytes, 8);
    desc.code = bytes;
    desc.code_size = RETURN_BYTES;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    ck_assert_ptr_eq(rule_at(pp_trace_entry(trace)), find(pool, 4));
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rule");
    TCase *tests = tcase_create("rule");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, there_is_one_of_each_and_thousands_are_cheap);
    tcase_add_test(tests, threads_that_ask_at_once_find_the_same);
    tcase_add_loop_test(tests, a_span_keeps_its_rule_in_every_state, PP_WX_DUAL, PP_WX_RWX + 1);
    tcase_add_test(tests, a_trace_has_the_rule_that_its_reservation_was_made_with);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
