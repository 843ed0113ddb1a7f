/* SPDX-License-Identifier: MIT */
/* Traces that are linked together: all or none; and what sharing saves. */
#include <config.h>

#include "isa/isa.h"
#include "memory/pool.h"

#include "snippet.h"

#include <check.h>
#include <stdatomic.h>

enum { TRACES = 60, SYMBOLS = 4, RULES = 3 };

static _Atomic int reached;

static long target_0(void) { atomic_store(&reached, 0); return 0; }
static long target_1(void) { atomic_store(&reached, 1); return 1; }
static long target_2(void) { atomic_store(&reached, 2); return 2; }
static long target_3(void) { atomic_store(&reached, 3); return 3; }

static long (*const targets[SYMBOLS])(void) = { target_0, target_1, target_2, target_3 };

static const pp_frame_rule rules[RULES] = {
    { .size = sizeof(pp_frame_rule), .kind = PP_FRAME_NONE },
    { .size = sizeof(pp_frame_rule), .kind = PP_FRAME_LEAF },
    { .size = sizeof(pp_frame_rule), .kind = PP_FRAME_RECORD },
};

static pp_pool *pool;
static pp_symbol symbols[SYMBOLS];
static struct snippet snippets[TRACES];
static pp_trace_desc descs[TRACES];
static const pp_trace_desc *pointers[TRACES];
static pp_trace *traces[TRACES];
static pp_error reason;

static const pp_wx modes[] = { PP_WX_AUTO, PP_WX_REMAP, PP_WX_FLIP };

enum { MODES = sizeof modes / sizeof *modes };

static void start(pp_wx wx, bool far)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) target_0 },
                                .branch_range = far, .wx = wx, .error = &reason,
                                .unwinders = PP_UNWIND_LIBGCC }; /* a region for each rule */
    char name[] = "a";

    reason = (pp_error) { .size = sizeof reason };
    ck_assert_msg(pp_pool_create(&options, &pool) == PP_OK, "%s", reason.text);
    for (unsigned i = 0; i < SYMBOLS; i++, name[0]++)
        symbols[i] = pp_symbol_define(pool, name, (const void *) targets[i]);
    for (unsigned i = 0; i < TRACES; i++) {
        snippet_begin(&snippets[i]);
        snippet_call(&snippets[i], symbols[i % SYMBOLS]);
        snippet_end(&snippets[i]);
        descs[i] = snippet_desc(&snippets[i]);
        descs[i].frame = &rules[i % RULES];
        descs[i].error = &reason;
        descs[i].name = "of a batch";
        pointers[i] = &descs[i];
        traces[i] = NULL;
    }
}

static void verify(void)
{
    reason.text[0] = '\0';
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
}

static void stop(void)
{
    verify();
    pp_pool_destroy(pool);
    for (unsigned i = 0; i < TRACES; i++)
        snippet_free(&snippets[i]);
}

static pp_pool_stats stats(void)
{
    pp_pool_stats now = { .size = sizeof now };

    ck_assert_int_eq(pp_pool_get_stats(pool, &now), PP_OK);
    return now;
}

static void run_all(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        atomic_store(&reached, -1);
        ck_assert_int_eq(((long (*)(void)) pp_trace_entry(traces[i]))(), i % SYMBOLS);
        ck_assert_int_eq(atomic_load(&reached), i % SYMBOLS);
    }
}

static void free_all(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ck_assert_int_eq(pp_trace_free(pool, traces[i]), PP_OK);
}

START_TEST(a_batch_is_linked)
{
    start(modes[_i], true);
    for (unsigned round = 0; round < 3; round++) {
        size_t barriers = stats().barriers;
        ck_assert_msg(pp_trace_link_batch(pool, pointers, TRACES, traces) == PP_OK, "%s",
                      reason.text);
        ck_assert_uint_le(stats().barriers - barriers, 1);
        ck_assert_uint_eq(stats().traces, TRACES);
        for (unsigned i = 0; i < TRACES; i++)
            for (unsigned j = 0; j < i; j++)
                ck_assert_ptr_ne(traces[i], traces[j]);
        run_all(TRACES);
        verify();
        free_all(TRACES);
    }
    stop();
}
END_TEST

START_TEST(a_batch_is_refused_as_a_whole)
{
    start(modes[_i], true);
    ck_assert_int_eq(pp_trace_link_batch(pool, pointers, TRACES, traces), PP_OK);
    free_all(TRACES);
    pp_pool_stats before = stats();
    for (unsigned i = 0; i < TRACES; i++)
        traces[i] = NULL;
    for (unsigned bad = 0; bad < TRACES; bad += TRACES - 1) {
        for (unsigned kind = 0; kind < 3; kind++) {
            pp_error own = { .size = sizeof own };
            pp_trace_desc good = descs[bad];
            pp_reloc relocs[2] = { descs[bad].relocs[0] };
            descs[bad].error = &own;
            pp_status expected = PP_E_ARG;
            if (kind == 0) {
                descs[bad].entry = descs[bad].code_size;
            } else if (kind == 1) {
                descs[bad].size = 1;
            } else { /* found out when all that come before are placed */
                relocs[0].addend += 1 << 4;
                descs[bad].relocs = relocs;
                expected = PP_E_RANGE;
            }
            ck_assert_int_eq(pp_trace_link_batch(pool, pointers, TRACES, traces), expected);
            ck_assert_int_eq(own.status, kind == 1 ? PP_OK : expected);
            descs[bad] = good;
            pp_pool_stats after = stats();
            ck_assert_uint_eq(after.traces, 0);
            ck_assert_uint_eq(after.spans, before.spans);
            ck_assert_uint_eq(after.used, before.used);
            ck_assert_uint_eq(after.trampolines + after.literals, 0);
            ck_assert_uint_eq(after.trampoline_uses, 0);
            for (unsigned i = 0; i < TRACES; i++)
                ck_assert_ptr_null(traces[i]);
            verify();
        }
    }
    stop();
}
END_TEST

START_TEST(an_empty_batch_is_one)
{
    start(PP_WX_AUTO, false);
    ck_assert_int_eq(pp_trace_link_batch(pool, NULL, 0, NULL), PP_OK);
    ck_assert_int_eq(pp_trace_link_batch(NULL, pointers, 1, traces), PP_E_ARG);
    ck_assert_int_eq(pp_trace_link_batch(pool, NULL, 1, traces), PP_E_ARG);
    ck_assert_int_eq(pp_trace_link_batch(pool, pointers, 1, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_trace_link_batch(pool, pointers, SIZE_MAX, traces), PP_E_ARG);
    const pp_trace_desc *missing[] = { pointers[0], NULL };
    ck_assert_int_eq(pp_trace_link_batch(pool, missing, 2, traces), PP_E_ARG);
    ck_assert_ptr_null(traces[0]);
    ck_assert_uint_eq(stats().traces, 0);
    stop();
}
END_TEST

/* Of `n` traces that share, all but the first save one of their own. */
START_TEST(sharing_is_accounted_for)
{
    size_t own = isa_host.trampoline_size(TRAMPOLINE_NEAR, false) + 8;
    size_t slot = isa_host.trampoline_size(TRAMPOLINE_ISLAND, false) + 8;

    start(PP_WX_AUTO, true);
    for (unsigned i = 0; i < TRACES; i++) {
        descs[i].frame = NULL;
        descs[i].flags = i >= 40 ? PP_TRACE_OWN_TRAMPOLINES : 0;
    }
    ck_assert_int_eq(pp_trace_link_batch(pool, pointers, TRACES, traces), PP_OK);
    pp_pool_stats now = stats();
    ck_assert_uint_eq(now.shared_trampolines, SYMBOLS);
    ck_assert_uint_eq(now.trampolines, SYMBOLS + TRACES - 40);
    ck_assert_uint_eq(now.trampoline_uses, TRACES);
    ck_assert_uint_eq(now.trampoline_saved, 40 * own - SYMBOLS * slot);
    free_all(TRACES);
    now = stats();
    ck_assert_uint_eq(now.shared_trampolines + now.trampoline_uses + now.trampoline_saved, 0);
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("batch");
    TCase *tests = tcase_create("batch");

    tcase_add_loop_test(tests, a_batch_is_linked, 0, MODES);
    tcase_add_loop_test(tests, a_batch_is_refused_as_a_whole, 0, MODES);
    tcase_add_test(tests, an_empty_batch_is_one);
    tcase_add_test(tests, sharing_is_accounted_for);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
