/* SPDX-License-Identifier: MIT */
/*
 * Barriers on all cores: one for each publication on AArch64, also of addresses that
 * are new; none on x86-64, but for patches.
 */
#include <config.h>

#include "isa/isa.h"

#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined __aarch64__
enum { PUBLISHES = 1, CODE_PROTOCOL = PP_PATCH_BRANCH, CODE_BYTES = 4 };
#else
enum { PUBLISHES = 0, CODE_PROTOCOL = PP_PATCH_WORD, CODE_BYTES = 5 };
#endif
enum { MANY = 70 }; /* more than a batch has without memory of its own */

static const pp_wx modes[] = { PP_WX_AUTO, PP_WX_REMAP, PP_WX_FLIP, PP_WX_RWX };
enum { MODES = sizeof modes / sizeof modes[0] };

static pp_pool *pool;
static pp_error reason = { .size = sizeof reason };
static pp_symbol symbol;
static struct snippet code;
static pp_trace_desc desc;

static long target(void) { return 7; }
static long other_target(void) { return 8; }

/* False: this machine cannot do the mode. */
static bool start(pp_wx wx, const uintptr_t *base)
{
    pp_pool_options options = { .size = sizeof options, .wx = wx, .near = { (void *) target },
                                .branch_range = 1, .placement = base,
                                .placement_count = base != NULL, .error = &reason };
    pp_status status = pp_pool_create(&options, &pool);
    if (status == PP_E_UNSUPPORTED && wx != PP_WX_AUTO)
        return false;
    ck_assert_msg(status == PP_OK, "%s", reason.text);
    symbol = pp_symbol_declare(pool, "target", (const void *) target, PP_SYMBOL_RETARGETABLE);
    snippet_begin(&code);
    snippet_call(&code, symbol);
    snippet_end(&code);
    desc = snippet_desc(&code);
    return true;
}

static void stop(void)
{
    pp_pool_destroy(pool);
    snippet_free(&code);
}

static pp_pool_stats stats(void)
{
    pp_pool_stats now = { .size = sizeof now };
    ck_assert_int_eq(pp_pool_get_stats(pool, &now), PP_OK);
    return now;
}

static long run(const void *entry)
{
    return ((long (*)(void)) entry)();
}

/* What was done since took so many barriers. */
#define TAKES(count, ...) \
    do { \
        size_t before = stats().barriers; \
        __VA_ARGS__; \
        ck_assert_uint_eq(stats().barriers - before, count); \
    } while (0)

/* ---- publications -------------------------------------------------------- */

static pp_trace *link_one(void)
{
    pp_trace *trace;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    return trace;
}

static void commit_one(void)
{
    pp_reservation reservation = { .size = sizeof reservation };
    pp_trace *trace;
    ck_assert_int_eq(pp_trace_reserve(pool, code.size, NULL, &reservation, &reason), PP_OK);
    memcpy(reservation.write, code.code, code.size);
    ck_assert_int_eq(pp_trace_commit(pool, &reservation, code.size, &desc, &trace), PP_OK);
    ck_assert_int_eq(run(pp_trace_entry(trace)), 7);
}

START_TEST(each_trace_and_each_batch_has_one)
{
    const pp_trace_desc *descs[MANY];
    pp_trace *traces[MANY];
    if (!start(modes[_i], NULL))
        return;
    ck_assert_uint_eq(stats().barriers, 0); /* the self-test runs its own code alone */
    TAKES(PUBLISHES, ck_assert_int_eq(run(pp_trace_entry(link_one())), 7)); /* and an island */
    TAKES(PUBLISHES, ck_assert_int_eq(run(pp_trace_entry(link_one())), 7));
    TAKES(PUBLISHES, commit_one());
    for (unsigned i = 0; i < MANY; i++)
        descs[i] = &desc;
    for (unsigned round = 0; round < 2; round++) {
        TAKES(PUBLISHES,
              ck_assert_int_eq(pp_trace_link_batch(pool, descs, MANY, traces), PP_OK));
        for (unsigned i = 0; i < MANY; i++) {
            ck_assert_int_eq(run(pp_trace_entry(traces[i])), 7);
            TAKES(0, ck_assert_int_eq(pp_trace_free(pool, traces[i]), PP_OK));
        }
    }
    TAKES(0, ck_assert_int_eq(pp_trace_link_batch(pool, descs, 0, traces), PP_OK));
    stop();
}
END_TEST

static void take_spans(pp_span **spans)
{
    pp_span_desc want = { .size = sizeof want, .bytes = 64 };
    for (unsigned i = 0; i < MANY; i++) {
        pp_span_place place = { .size = sizeof place };
        ck_assert_int_eq(pp_span_alloc(pool, &want, &spans[i], &place), PP_OK);
        memset(place.write, 0, place.bytes);
    }
}

START_TEST(each_span_and_each_batch_has_one)
{
    pp_span *spans[MANY];
    pp_span_place place = { .size = sizeof place };
    if (!start(modes[_i], NULL))
        return;
    for (unsigned round = 0; round < 2; round++) {
        TAKES(0, take_spans(spans));
        TAKES(PUBLISHES, ck_assert_int_eq(pp_span_publish(pool, spans, 1, NULL), PP_OK));
        TAKES(PUBLISHES,
              ck_assert_int_eq(pp_span_publish(pool, spans + 1, MANY - 1, NULL), PP_OK));
        TAKES(PUBLISHES,
              ck_assert_int_eq(pp_span_write(pool, spans[3], &place, NULL), PP_OK);
              ck_assert_int_eq(pp_span_publish(pool, &spans[3], 1, NULL), PP_OK));
        for (unsigned i = 0; i < MANY; i++)
            TAKES(0, ck_assert_int_eq(pp_span_free(pool, spans[i]), PP_OK));
    }
    TAKES(0, ck_assert_int_eq(pp_span_publish(pool, spans, 0, NULL), PP_OK));
    stop();
}
END_TEST

START_TEST(a_refused_publication_has_none)
{
    pp_span *spans[MANY];
    pp_fault script = { .call = PP_FAULT_MPROTECT, .first = 1 };
    if (!start(PP_WX_FLIP, NULL))
        return;
    take_spans(spans);
    ck_assert_int_eq(pp_fault_set(&script, 1), PP_OK);
    TAKES(0, ck_assert_int_ne(pp_span_publish(pool, spans, MANY, NULL), PP_OK));
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    TAKES(PUBLISHES, ck_assert_int_eq(pp_span_publish(pool, spans, MANY, NULL), PP_OK));
    stop();
}
END_TEST

/* Cores may hold code of a region that was unmapped: nobody interrupts them for that. */
START_TEST(a_region_where_another_was_has_them)
{
    if (!start(modes[_i], NULL))
        return;
    link_one();
    pp_region_info info = { .size = sizeof info };
    ck_assert_int_eq(pp_pool_get_region(pool, 0, &info), PP_OK);
    uintptr_t base = info.base;
    stop();
    start(modes[_i], &base);
    TAKES(PUBLISHES, ck_assert_int_eq(run(pp_trace_entry(link_one())), 7));
    ck_assert_int_eq(pp_pool_get_region(pool, 0, &info), PP_OK);
    ck_assert_uint_eq(info.base, base);
    stop();
}
END_TEST

static void publish_in_child(void)
{
    size_t before = stats().barriers;
    pp_trace *trace = link_one();
    pp_pool_stats after = stats();
    if (run(pp_trace_entry(trace)) != 7 || after.barriers - before != PUBLISHES ||
        after.fallbacks[PP_FALLBACK_BARRIER] != 0)
        _exit(1);
    _exit(0);
}

START_TEST(a_child_has_its_own)
{
    int status;
    start(PP_WX_AUTO, NULL);
    link_one();
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        publish_in_child();
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    stop();
}
END_TEST

/* ---- what changes --------------------------------------------------------- */

START_TEST(a_retarget_has_one)
{
    if (!start(modes[_i], NULL))
        return;
    const void *entry = pp_trace_entry(link_one());
    TAKES(PUBLISHES, ck_assert_int_eq(pp_symbol_retarget(pool, symbol,
                                                         (const void *) other_target, NULL), PP_OK));
    ck_assert_int_eq(run(entry), 8);
    TAKES(0, ck_assert_int_ne(pp_symbol_retarget(pool, symbol, NULL, NULL), PP_OK));
    TAKES(0, ck_assert_int_ne(pp_symbol_retarget(pool, symbol + 1, entry, NULL), PP_OK));
    stop();
}
END_TEST

START_TEST(a_patch_of_code_has_one_and_a_literal_none)
{
    pp_span_desc want = { .size = sizeof want, .bytes = 64 };
    pp_span_place place = { .size = sizeof place };
    pp_span *span;
    start(PP_WX_AUTO, NULL);
    if (stats().wx == PP_WX_FLIP) {
        stop();
        return;
    }
    ck_assert_int_eq(pp_span_alloc(pool, &want, &span, &place), PP_OK);
    memset(place.write, 0, 64);
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, CODE_BYTES, place.write, 64), PP_OK);
    ck_assert_int_eq(pp_span_publish(pool, &span, 1, NULL), PP_OK);
    const uint8_t *at = place.execute;
    pp_patch patches[2] = {
        { .address = at + 32, .protocol = PP_PATCH_LITERAL, .bytes = 8, .value = { 1 } },
        { .address = at, .protocol = CODE_PROTOCOL, .bytes = CODE_BYTES },
    };
    size_t bytes;
    ck_assert_int_eq(pp_emit_jump(PP_ARCH_HOST, at, at + 16, patches[1].value,
                                  sizeof patches[1].value, &bytes), PP_OK);
    TAKES(0, ck_assert_int_eq(pp_patch_apply(pool, patches, 1, NULL), PP_OK));
    TAKES(1, ck_assert_int_eq(pp_patch_apply(pool, patches, 2, NULL), PP_OK));
    stop();
}
END_TEST

/* ---- kernels without ------------------------------------------------------- */

START_TEST(a_kernel_without_is_a_fallback)
{
    char why[240];
    pp_fault script = { .call = PP_FAULT_MEMBARRIER, .first = 1 };
    start(PP_WX_AUTO, NULL);
    ck_assert_int_eq(pp_fault_set(&script, 1), PP_OK);
    ck_assert_int_eq(run(pp_trace_entry(link_one())), 7);
    ck_assert_uint_eq(stats().fallbacks[PP_FALLBACK_BARRIER], PUBLISHES);
    ck_assert_int_eq(pp_symbol_retarget(pool, symbol, (const void *) other_target, NULL), PP_OK);
    ck_assert_uint_eq(stats().fallbacks[PP_FALLBACK_BARRIER], 2 * PUBLISHES);
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_BARRIER, why, sizeof why), PP_OK);
    ck_assert_int_eq(strstr(why, "new code") != NULL, PUBLISHES);
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("barrier");
    TCase *tests = tcase_create("barrier");
    tcase_add_loop_test(tests, each_trace_and_each_batch_has_one, 0, MODES);
    tcase_add_loop_test(tests, each_span_and_each_batch_has_one, 0, MODES);
    tcase_add_test(tests, a_refused_publication_has_none);
    tcase_add_loop_test(tests, a_region_where_another_was_has_them, 0, MODES);
    tcase_add_test(tests, a_child_has_its_own);
    tcase_add_loop_test(tests, a_retarget_has_one, 0, MODES);
    tcase_add_test(tests, a_patch_of_code_has_one_and_a_literal_none);
    tcase_add_test(tests, a_kernel_without_is_a_fallback);
    suite_add_tcase(suite, tests);
    SRunner *all = srunner_create(suite);
    srunner_run_all(all, CK_ENV);
    int failed = srunner_ntests_failed(all);
    srunner_free(all);
    return failed != 0;
}
