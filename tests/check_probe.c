/* SPDX-License-Identifier: MIT */
/*
 * Probes: at polled and armed sites, in compiled code that has three values in registers:
 * one that C functions keep, one that they change, and a vector register.
 *
 *      head    kept = 1, changed = 2, vector = 4
 *      site
 *      rest    return kept + changed << 8 + vector << 16
 *      out     return 77: where probes may go
 */
#include <config.h>

#include "loop.h"

#include "os/cpu.h"

#include <patchpoint/patch.h>

static pp_pool *pool;
static pp_thread thread;
static const uint8_t *code, *hot, *cold, *out;
static pp_site *site;

#if defined __x86_64__
enum { KEPT = 3, CHANGED = 1, VECTOR = 3, FRAME = 32, CFA = 16 };
#else
enum { KEPT = 19, CHANGED = 9, VECTOR = 3, FRAME = 0, CFA = 32 };
#endif

static const pp_tier0_layout frame = {
    .size = sizeof frame, .frame_bytes = FRAME, .cfa_offset = CFA
};

static void head(struct snippet *s)
{
#if defined __x86_64__
    SNIPPET_CODE(s, 0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x83, 0xec, 24); /* saves rbx */
    SNIPPET_CODE(s, 0xbb, 1, 0, 0, 0, 0xb9, 2, 0, 0, 0, 0xb8, 4, 0, 0, 0);
    SNIPPET_CODE(s, 0x66, 0x48, 0x0f, 0x6e, 0xd8);                       /* movq %rax, %xmm3 */
#else
    SNIPPET_WORDS(s, 0xa9be7bfd, 0x910003fd, 0xf9000bf3);                /* saves x19 */
    SNIPPET_WORDS(s, 0x52800033, 0x52800049, 0x5280008a, 0x9e670143);    /* fmov d3, x10 */
#endif
}

static void rest(struct snippet *s)
{
#if defined __x86_64__
    SNIPPET_CODE(s, 0x48, 0x89, 0xd8, 0x48, 0xc1, 0xe1, 8, 0x48, 0x01, 0xc8);
    SNIPPET_CODE(s, 0x66, 0x48, 0x0f, 0x7e, 0xd9, 0x48, 0xc1, 0xe1, 16, 0x48, 0x01, 0xc8);
    SNIPPET_CODE(s, 0x48, 0x8b, 0x5d, 0xf8, 0xc9, 0xc3);
#else
    SNIPPET_WORDS(s, 0x8b092260, 0x9e66006a, 0x8b0a4000);
    SNIPPET_WORDS(s, 0xf9400bb3, 0xa8c27bfd, 0xd65f03c0);
#endif
}

static void other_end(struct snippet *s)
{
#if defined __x86_64__
    SNIPPET_CODE(s, 0xb8, 77, 0, 0, 0, 0x48, 0x8b, 0x5d, 0xf8, 0xc9, 0xc3);
#else
    SNIPPET_WORDS(s, 0x528009a0, 0xf9400bb3, 0xa8c27bfd, 0xd65f03c0);
#endif
}

static void link_function(bool armed)
{
    struct snippet s = { 0 };
    uint8_t bytes[160];
    pp_site_layout layout = { .size = sizeof layout }, apart = { .size = sizeof apart };
    pp_trace *trace;
    ck_assert_int_eq(pp_emit_site(site, bytes, sizeof bytes, &layout), PP_OK);
    head(&s);
    while (s.size % layout.align != 0)
        snippet_bytes(&s, "\x90", 1);
    size_t at = s.size;
    loop_site(&s, bytes, &layout);
    rest(&s);
    size_t end = s.size;
    other_end(&s);
    size_t below = s.size;
    if (armed) {
        ck_assert_int_eq(pp_emit_site_cold(site, (int64_t) at - (int64_t) below, bytes,
                                           sizeof bytes, &apart), PP_OK);
        loop_site(&s, bytes, &apart);
    }
    pp_trace_desc desc = snippet_desc(&s);
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD, .cfa_offset = CFA };
    desc.frame = &rule;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    code = pp_trace_entry(trace);
    hot = code + at;
    cold = code + below;
    out = code + end;
    snippet_free(&s);
}

static uint64_t run(void)
{
    return pp_enter(&thread, code, 0, 0, 0, 0);
}

/* ---- the probe --------------------------------------------------------------- */

static struct {
    unsigned calls;
    uint64_t kept, changed, vector; /* as it saw them */
    bool edits;
    const void *answer;
} probed;

static uint8_t *vector_of(pp_regs *regs)
{
    return (uint8_t *) (uintptr_t) pp_regs_vector(regs, VECTOR, NULL);
}

/* SP, FP and what a stub works with may be written, and nothing comes of it. */
static const void *probe(void *host, pp_site *of, pp_regs *regs)
{
    ck_assert_ptr_eq(host, &probed);
    ck_assert_ptr_eq(of, site);
    uint64_t value = 0;
    uint8_t *vector = vector_of(regs);
    if (vector != NULL)
        memcpy(&value, vector, sizeof value);
    probed.calls++;
    probed.kept = regs->gpr[KEPT];
    probed.changed = regs->gpr[CHANGED];
    probed.vector = value;
    if (!probed.edits)
        return probed.answer;
    for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++)
        if (n != 18 || PP_REGS_GPR_COUNT == 16) /* the platform's own */
            regs->gpr[n] = 0x5555555500000000 + n;
    regs->pc = regs->save = 99;
    regs->gpr[KEPT] = 10;
    regs->gpr[CHANGED] = 20;
    value = 40;
    if (vector != NULL)
        memcpy(vector, &value, sizeof value);
    return probed.answer;
}

static const pp_site_desc polled = {
    .size = sizeof polled, .kind = PP_SITE_POLLED, .counter = PP_COUNTER_SITE, .tier0 = &frame,
    .probe = probe, .host = &probed, .save = PP_SAVE_V128,
};

/* Callee-saved registers of whoever called compiled code are its own again. */
static void setup(void)
{
    memset(&probed, 0, sizeof probed);
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static const struct {
    pp_save save;
    enum cpu_vectors needs;
    uint32_t live_gpr, live_vector;
    uint64_t result; /* of what a probe changes */
} classes[] = {
    { PP_SAVE_GPR, CPU_VECTORS, 0, 0, 10 + (20 << 8) },
    { PP_SAVE_V128, CPU_VECTORS, 0, 0, 10 + (20 << 8) + (40 << 16) },
    { PP_SAVE_MASK, CPU_VECTORS, 1u << KEPT | 1u << CHANGED, 1u << VECTOR,
      10 + (20 << 8) + (40 << 16) },
    { PP_SAVE_MASK, CPU_VECTORS, 1u << CHANGED, 1u << VECTOR, 1 + (20 << 8) + (40 << 16) },
    { PP_SAVE_MASK256, CPU_V256, 1u << KEPT | 1u << CHANGED, 1u << VECTOR,
      10 + (20 << 8) + (40 << 16) },
    { PP_SAVE_MASK256, CPU_V256, 1u << CHANGED, 1u << VECTOR, 1 + (20 << 8) + (40 << 16) },
    { PP_SAVE_MASK512, CPU_V512, 1u << KEPT | 1u << CHANGED, 1u << VECTOR,
      10 + (20 << 8) + (40 << 16) },
    { PP_SAVE_MASK512, CPU_V512, 1u << CHANGED, 1u << VECTOR, 1 + (20 << 8) + (40 << 16) },
    { PP_SAVE_V256, CPU_V256, 0, 0, 10 + (20 << 8) + (40 << 16) },
    { PP_SAVE_V512, CPU_V512, 0, 0, 10 + (20 << 8) + (40 << 16) },
};
enum { CLASSES = sizeof classes / sizeof classes[0] };

static bool make_site(const pp_site_desc *like, int class)
{
    pp_site_desc desc = *like;
    desc.save = classes[class].save;
    desc.live_gpr = classes[class].live_gpr;
    desc.live_vector = classes[class].live_vector;
    if (classes[class].needs != CPU_VECTORS && cpu_lacks(classes[class].needs) != NULL) {
        ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_E_UNSUPPORTED);
        return false;
    }
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    return true;
}

/* A vector register that the class does not keep is what C left there. */
static void check_result(int class, uint64_t want)
{
    const uint64_t result = run(), seen = classes[class].save == PP_SAVE_GPR ? 0xffff : UINT64_MAX;
    ck_assert_uint_eq(result & seen, want & seen);
}

START_TEST(polled_probe_changes_registers)
{
    if (!make_site(&polled, _i))
        return;
    link_function(false);
    ck_assert_uint_eq(run(), 0x40201);
    ck_assert_uint_eq(probed.calls, 0);
    ck_assert_int_eq(pp_site_request(site), PP_OK);
    check_result(_i, 0x40201);
    ck_assert_uint_eq(probed.calls, 1);
    if (classes[_i].live_gpr == 0 || classes[_i].live_gpr >> KEPT & 1)
        ck_assert_uint_eq(probed.kept, 1);
    ck_assert_uint_eq(probed.changed, 2);
    ck_assert_uint_eq(probed.vector, classes[_i].save == PP_SAVE_GPR ? 0 : 4);
    probed.edits = true;
    ck_assert_int_eq(pp_site_request(site), PP_OK);
    check_result(_i, classes[_i].result);
    ck_assert_uint_eq(run(), 0x40201);
    ck_assert_uint_eq(probed.calls, 2);
    probed.answer = out;
    ck_assert_int_eq(pp_site_request(site), PP_OK);
    ck_assert_uint_eq(run(), 77);
    ck_assert_int_eq(pp_site_disable(site), PP_OK);
    ck_assert_int_eq(pp_site_request(site), PP_E_STALE);
    ck_assert_uint_eq(run(), 0x40201);
    ck_assert_uint_eq(probed.calls, 3);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
}
END_TEST

START_TEST(armed_probe_changes_registers)
{
    pp_site_desc armed = polled;
    armed.kind = PP_SITE_ARMED;
    armed.counter = PP_COUNTER_FRAME;
    if (!make_site(&armed, _i))
        return;
    link_function(true);
    probed.edits = true;
    ck_assert_uint_eq(run(), 0x40201);
    ck_assert_int_eq(pp_site_arm(site, hot, cold, NULL), PP_OK);
    for (unsigned pass = 1; pass <= 3; pass++) {
        check_result(_i, classes[_i].result);
        ck_assert_uint_eq(probed.calls, pass);
    }
    probed.answer = out;
    ck_assert_uint_eq(run(), 77);
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
    ck_assert_uint_eq(stats.slow_paths, 4);
    ck_assert_uint_eq(stats.triggers, 0);
    ck_assert_int_eq(pp_site_disarm(site, hot, cold, NULL), PP_OK);
    ck_assert_uint_eq(run(), 0x40201);
    ck_assert_int_eq(pp_site_arm(site, hot, cold, NULL), PP_OK);
    ck_assert_int_eq(pp_site_disable(site), PP_OK);
    probed.edits = false;
    check_result(_i, 0x40201);
    ck_assert_uint_eq(probed.calls, 4);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
}
END_TEST

/* ---- what is refused ----------------------------------------------------------- */

static pp_status produce(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) of, (void) regs, (void) entry;
    return PP_E_FAULT;
}

static const void *poll(void *host, pp_site *of, const pp_regs *regs)
{
    (void) host, (void) of, (void) regs;
    return NULL;
}

static void refuse(pp_site_desc desc, const char *text)
{
    pp_error error = { .size = sizeof error };
    desc.error = &error;
    site = NULL;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_E_ARG);
    ck_assert_str_eq(error.text, text);
    ck_assert_ptr_null(site);
}

START_TEST(probes_are_of_two_kinds)
{
    pp_site_desc desc = polled;
    desc.save = PP_SAVE_ABI;
    refuse(desc, "save: ABI does not show what a probe may change");
    desc = polled;
    desc.poll = poll;
    refuse(desc, "poll: a probe");
    desc = polled;
    desc.produce = produce;
    refuse(desc, "produce: not polled");
    desc = polled;
    desc.probe = NULL;
    refuse(desc, "poll: missing");
    desc = polled;
    desc.kind = PP_SITE_ARMED;
    desc.counter = PP_COUNTER_FRAME;
    desc.produce = produce;
    refuse(desc, "produce: a probe");
    desc.produce = NULL;
    desc.poll = poll;
    refuse(desc, "poll: not polled");
    desc.kind = PP_SITE_COUNTED;
    desc.poll = NULL;
    desc.threshold = 1;
    desc.counter = PP_COUNTER_SITE;
    refuse(desc, "probe: neither polled nor armed");
    desc.kind = PP_SITE_FORCED;
    refuse(desc, "probe: neither polled nor armed");
}
END_TEST

START_TEST(armed_probe_leads_nowhere)
{
    pp_trace *trace;
    pp_entry *entry;
    pp_site_desc desc = polled;
    desc.kind = PP_SITE_ARMED;
    desc.counter = PP_COUNTER_FRAME;
    desc.tier0 = &loop_frame;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    ck_assert_int_eq(loop_body(pool, &trace, &entry), PP_OK);
    ck_assert_int_eq(pp_site_publish(site, entry), PP_E_ARG);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_IDLE);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("probe");
    TCase *tests = tcase_create("probe");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, polled_probe_changes_registers, 0, CLASSES);
    tcase_add_loop_test(tests, armed_probe_changes_registers, 0, CLASSES);
    tcase_add_test(tests, probes_are_of_two_kinds);
    tcase_add_test(tests, armed_probe_leads_nowhere);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
