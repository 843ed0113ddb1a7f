/* SPDX-License-Identifier: MIT */
/*
 * Frame rules of a pool: the pool keeps one of each, and traces and spans lead to theirs.
 * Also what other unwinders are told of them.
 */
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

/* ---- what is told ----------------------------------------------------- */

static unsigned mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned lines = 0;
    require(maps != NULL);
    for (int byte; (byte = getc(maps)) != EOF;)
        lines += byte == '\n';
    fclose(maps);
    return lines;
}

START_TEST(where_nothing_is_told_all_rules_share_a_region)
{
    pp_pool *pool = open_pool(_i);
    pp_span_place place;
    if (pool == NULL)
        return;
    take_span(pool, NULL, &place);
    unsigned before = mappings();
    for (unsigned i = 0; i < RULES; i++) {
        pp_frame_rule rule = rule_of(i);
        rule.kind = i % 3 == 0 ? PP_FRAME_LEAF : i % 3 == 1 ? PP_FRAME_RECORD : PP_FRAME_OSR;
        take_span(pool, &rule, &place);
        require(rule_at(place.execute)->kind == rule.kind);
    }
    pp_pool_stats stats = stats_of(pool);
    ck_assert_uint_eq(stats.regions, 1);
    ck_assert_uint_eq(stats.near_regions, 1);
    if (_i != PP_WX_FLIP && !is_emulated())
        ck_assert_uint_le(mappings(), before + 16); /* of the heap */
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

static struct region *region_with(pp_pool *pool, const pp_frame_rule *rule)
{
    pp_span_place place;
    take_span(pool, rule, &place);
    return region_at((uintptr_t) place.execute);
}

START_TEST(rules_that_tell_the_same_share_a_region)
{
    pp_pool *pool = open_telling(PP_WX_AUTO, (uint32_t) _i);
    pp_frame_rule rule = rule_of(1), other = rule_of(2), leaf = rule_of(1);
    leaf.kind = PP_FRAME_LEAF;
    struct region *told = region_with(pool, &rule);
    ck_assert_ptr_nonnull(told->told);
    ck_assert_ptr_ne(region_with(pool, &other), told);
    ck_assert_ptr_ne(region_with(pool, &leaf), told);
    rule.kind = PP_FRAME_OSR;
    ck_assert_ptr_eq(region_with(pool, &rule), told);
    rule.own = (pp_save_area){ .slots = 8, .saved = 8, .offset = -800 }; /* saved once already */
    ck_assert_ptr_eq(region_with(pool, &rule), told);
    rule.own = (pp_save_area){ .slots = 0x1000, .saved = 0x1000, .offset = -800 };
    ck_assert_ptr_ne(region_with(pool, &rule), told);
    ck_assert_uint_eq(stats_of(pool).regions, 4);
    /* Code of which nobody is told shares one. */
    struct region *untold = region_with(pool, NULL);
    ck_assert_ptr_null(untold->told);
    for (unsigned i = 0; i < 20; i++) {
        rule = rule_of(i);
        rule.flags = PP_FRAME_UNREGISTERED;
        ck_assert_ptr_eq(region_with(pool, &rule), untold);
    }
    ck_assert_uint_eq(stats_of(pool).regions, 5);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* From the header before the flags: a struct that ends where they begin. */
START_TEST(rules_of_an_older_header_are_rules)
{
    struct frame_rule rule, older;
    struct {
        pp_frame_rule rule;
        uint64_t behind;
    } from = { rule_of(5), 0 };
    ck_assert_int_eq(frame_rule_from(&from.rule, &rule, &error), PP_OK);
    from.rule.size = offsetof(pp_frame_rule, flags);
    from.rule.flags = from.rule.reserved = 0xffffffff;
    ck_assert_int_eq(frame_rule_from(&from.rule, &older, &error), PP_OK);
    ck_assert(frame_rule_equal(&rule, &older));
    from.rule.size = sizeof from.rule;
    ck_assert_int_eq(frame_rule_from(&from.rule, &rule, &error), PP_E_ARG);
    from.rule.reserved = 0;
    ck_assert_int_eq(frame_rule_from(&from.rule, &rule, &error), PP_E_ARG);
    from.rule.flags = PP_FRAME_UNREGISTERED;
    ck_assert_int_eq(frame_rule_from(&from.rule, &rule, &error), PP_OK);
    ck_assert(!frame_rule_equal(&rule, &older));
    from.rule.size = sizeof from;
    ck_assert_int_eq(frame_rule_from(&from.rule, &older, &error), PP_OK);
    ck_assert(frame_rule_equal(&rule, &older));
    from.behind = 1;
    ck_assert_int_eq(frame_rule_from(&from.rule, &older, &error), PP_E_ARG);
}
END_TEST

/* ---- pools that come and go ------------------------------------------- */

/* So large that a hundred of them are not in branch range, and a few are. */
#if defined __x86_64__
#define REGION ((size_t) 64 << 20)
#else
#define REGION ((size_t) 8 << 20)
#endif

static void use_pool(uint32_t unwinders, const pp_frame_rule *rules, unsigned count)
{
    pp_pool_options options = { .size = sizeof options, .region_bytes = REGION,
                                .unwinders = unwinders, .error = &error };
    pp_span_place place;
    pp_pool *pool;
    ck_assert_msg(pp_pool_create(&options, &pool) == PP_OK, "%s", error.text);
    for (unsigned i = 0; i < count; i++)
        take_span(pool, &rules[i], &place);
    pp_pool_stats stats = stats_of(pool);
    ck_assert_uint_eq(stats.near_regions, stats.regions);
    for (unsigned i = 0; i < stats.regions; i++) {
        pp_region_info info = { .size = sizeof info };
        ck_assert_int_eq(pp_pool_get_region(pool, i, &info), PP_OK);
        ck_assert_uint_eq(info.limit - info.base, REGION);
    }
    pp_pool_destroy(pool);
}

START_TEST(pools_with_other_rules_stay_near_for_ever)
{
    enum { DISTINCT = 200 };
    const uint32_t unwinders[] = { 0, PP_UNWIND_LIBGCC, PP_UNWIND_LIBUNWIND,
                                   PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND };
    unsigned pools = is_emulated() ? 250 : 2000;
    ck_assert_ptr_nonnull(dlopen("libunwind.so.8", RTLD_NOW));
    for (unsigned i = 0; i < pools; i++) {
        pp_frame_rule rule = rule_of(i * 7 % DISTINCT);
        use_pool(unwinders[i % 4], &rule, 1);
        if (i % 50 == 0)
            use_pool(0, (pp_frame_rule[]){ rule_of(i), rule_of(i + 1), rule_of(i + 2) }, 3);
    }
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
    tcase_add_loop_test(tests, where_nothing_is_told_all_rules_share_a_region, PP_WX_DUAL,
                        PP_WX_RWX + 1);
    tcase_add_loop_test(tests, rules_that_tell_the_same_share_a_region, 1, 4);
    tcase_add_test(tests, rules_of_an_older_header_are_rules);
    tcase_add_test(tests, pools_with_other_rules_stay_near_for_ever);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
