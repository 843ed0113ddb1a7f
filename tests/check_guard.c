/* SPDX-License-Identifier: MIT */
/*
 * Guarded entries at every kind of site: an activation that is refused, for its stack or
 * for want of a buffer, goes on as the kind has it, and one that is not is moved.
 */
#include <config.h>

#include "entered.h"
#include "loop.h"

#if defined __x86_64__
#define BRANCH_TYPE R_X86_64_PLT32
#else
#define BRANCH_TYPE R_AARCH64_JUMP26
#endif

static pp_pool *pool;
static pp_thread thread, small; /* small has next to no stack, and no buffers */
static _Alignas(16) char memory[256];

pp_regs entered_regs;

/* A body of PP_BUFFER: adds 2000000, as that of loop.h. */
uintptr_t entered_check(uintptr_t first, uintptr_t second)
{
    const uint64_t *buffer = (const uint64_t *) first;
    uint64_t n = buffer[0], sum = buffer[1];
    (void) second;
    pp_buffer_release(&thread, buffer);
    return 2000000 + sum + n * (n + 1) / 2;
}

static const struct guard {
    pp_site_kind kind;
    bool buffer;
    pp_status why;      /* it refuses the small thread */
    uint32_t flags;     /* of the entry */
} guards[] = {
    { PP_SITE_COUNTED, false, PP_E_STACK, PP_ENTRY_CHECK_STACK },
    { PP_SITE_COUNTED, true, PP_E_ABI, 0 },
    { PP_SITE_COUNTED, true, PP_E_STACK, PP_ENTRY_CHECK_STACK }, /* no buffer is asked for */
    { PP_SITE_FORCED, false, PP_E_STACK, PP_ENTRY_CHECK_STACK },
    { PP_SITE_FORCED, true, PP_E_ABI, 0 },
    { PP_SITE_ARMED, false, PP_E_STACK, PP_ENTRY_CHECK_STACK },
    { PP_SITE_ARMED, true, PP_E_ABI, 0 },
};

static struct {
    unsigned calls;
    pp_status why;
    const void *answer;
} refused;

static const void *on_refused(void *host, pp_site *site, const pp_regs *regs, pp_status why)
{
    (void) host, (void) site, (void) regs;
    refused.calls++;
    refused.why = why;
    return refused.answer;
}

/* The producer, whose entry is made beforehand. */
static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) site, (void) regs;
    *entry = host;
    return PP_OK;
}

static pp_entry *make_entry(const struct guard *guard, pp_trace **body)
{
    const bool buffer = guard->buffer;
    static const pp_value values[] = { { PP_AT_SLOT(AT_LOOP_N), PP_AT_BUFFER(0), .bytes = 8 },
                                       { PP_AT_SLOT(AT_LOOP_SUM), PP_AT_BUFFER(8), .bytes = 8 } };
    pp_entry *entry;
    if (!buffer) {
        ck_assert_int_eq(loop_body(pool, body, &entry), PP_OK);
        ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK); /* it has no guard */
    } else {
        struct snippet s = { 0 };
#if defined __x86_64__
        SNIPPET_CODE(&s, 0xe9, 0, 0, 0, 0);
        snippet_reloc(&s, 4, BRANCH_TYPE, pp_symbol_define(pool, NULL, entered), -4);
#else
        SNIPPET_WORDS(&s, 0x14000000);
        snippet_reloc(&s, 4, BRANCH_TYPE, pp_symbol_define(pool, NULL, entered), 0);
#endif
        pp_trace_desc desc = snippet_desc(&s);
        ck_assert_int_eq(pp_trace_link(pool, &desc, body), PP_OK);
        snippet_free(&s);
    }
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(*body), .tier0 = &loop_frame,
                           .stack_bytes = 4096, .flags = guard->flags };
    if (buffer) {
        desc.style = PP_BUFFER;
        desc.values = values;
        desc.value_count = 2;
        desc.thread_offset = AT_LOOP_THREAD;
    }
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    return entry;
}

/* Some compiled code for `otherwise`, which has to be known before its site. */
static const void *make_otherwise(struct loop *loop)
{
    pp_site *site;
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_COUNTED, .threshold = 1000,
                          .counter = PP_COUNTER_FRAME, .counter_offset = AT_LOOP_COUNTER,
                          .tier0 = &loop_frame, .produce = produce };
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    loop_link(loop, pool, site, 1000, true);
    return loop->out;
}

static pp_site *make_site(struct loop *loop, pp_site_kind kind, pp_entry *entry)
{
    struct loop other;
    pp_site *site;
    pp_site_desc desc = { .size = sizeof desc, .kind = kind, .tier0 = &loop_frame, .hits = 1,
                          .thread_offset = AT_LOOP_THREAD, .produce = produce, .host = entry };
    if (kind == PP_SITE_COUNTED) {
        desc.threshold = 5;
        desc.counter = PP_COUNTER_FRAME;
        desc.counter_offset = AT_LOOP_COUNTER;
    } else if (kind == PP_SITE_FORCED) {
        desc.otherwise = make_otherwise(&other);
        desc.refused = on_refused;
    }
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    if (kind == PP_SITE_ARMED) {
        loop_link_armed(loop, pool, site);
        ck_assert_int_eq(pp_site_arm(site, loop->site, loop->cold, NULL), PP_OK);
    } else {
        loop_link(loop, pool, site, 5, kind == PP_SITE_COUNTED);
    }
    return site;
}

static uint64_t run(const struct loop *loop, pp_thread *on, uint64_t n)
{
    return pp_enter(on, pp_trace_entry(loop->trace), n, (uintptr_t) on, 0, 0);
}

static pp_site_stats stats_of(const pp_site *site)
{
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
    return stats;
}

static void check_refusals(const pp_site *site, const struct guard *guard, uint64_t refusals)
{
    pp_site_stats stats = stats_of(site);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_READY);
    ck_assert_uint_eq(stats.refusals, refusals);
    ck_assert_uint_eq(stats.transitions, 0);
    ck_assert_uint_eq(stats.triggers, 1);
    ck_assert_int_eq(stats.refusal, guard->why);
    ck_assert_ptr_null(pp_buffer_next(&thread, NULL));
}

/* The thread that is refused, first: it produces, too. */
static void run_refused(const struct loop *loop, const pp_site *site, const struct guard *guard)
{
    memset(&refused, 0, sizeof refused);
    switch (guard->kind) {
    case PP_SITE_COUNTED:
        ck_assert_uint_eq(run(loop, &small, 100), 5050);
        check_refusals(site, guard, 20);
        break;
    case PP_SITE_ARMED:
        ck_assert_uint_eq(run(loop, &small, 100), 5050);
        check_refusals(site, guard, 100);
        break;
    default:
        ck_assert_uint_eq(run(loop, &small, 100), 1000000); /* otherwise, at the first pass */
        check_refusals(site, guard, 1);
        ck_assert_uint_eq(refused.calls, 1);
        ck_assert_int_eq(refused.why, guard->why);
        refused.answer = loop->loop;
        ck_assert_uint_eq(run(loop, &small, 100), 5050); /* as the host has it, at every pass */
        check_refusals(site, guard, 101);
        ck_assert_uint_eq(refused.calls, 101);
    }
}

static void setup(void)
{
    const char *here = __builtin_frame_address(0);
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    ck_assert_int_eq(pp_thread_init(&small, here - 64, here), PP_OK);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, memory, 16, 1), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

START_TEST(guards_hold_at_every_kind_of_site)
{
    const struct guard *guard = &guards[_i];
    struct loop loop;
    pp_trace *body;
    pp_entry *entry = make_entry(guard, &body);
    pp_site *site = make_site(&loop, guard->kind, entry);
    run_refused(&loop, site, guard);
    uint64_t refusals = stats_of(site).refusals, slow_paths = stats_of(site).slow_paths;
    for (unsigned i = 1; i < 4; i++) {
        ck_assert_uint_eq(run(&loop, &thread, 100), 2005050);
        ck_assert_uint_eq(stats_of(site).transitions, i);
        ck_assert_uint_eq(stats_of(site).slow_paths, slow_paths + i);
        ck_assert_uint_eq(stats_of(site).refusals, refusals);
    }
    ck_assert_int_eq(pp_site_disable(site), PP_OK);
    refused.answer = loop.loop;
    ck_assert_uint_eq(run(&loop, &thread, 100), 5050);
    ck_assert_uint_eq(stats_of(site).transitions, 3);
    if (guard->kind == PP_SITE_FORCED)
        ck_assert_int_eq(refused.why, PP_E_STALE);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, body), PP_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guard");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, guards_hold_at_every_kind_of_site, 0,
                        sizeof guards / sizeof guards[0]);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
