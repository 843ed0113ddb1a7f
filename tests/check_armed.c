/* SPDX-License-Identifier: MIT */
/* Armed sites: nothing until they are armed, and never a byte that is neither. */
#include <config.h>

#include "isa/isa.h"
#include "loop.h"

#include <patchpoint/patch.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>

static pp_pool *pool;
static pp_thread thread;
static pp_site *site;
static struct loop loop;
static struct {
    unsigned calls;
    pp_status answer;
    pp_trace *body;
    pp_entry *entry;
} made;

static pp_status produce(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) of, (void) regs;
    made.calls++;
    *entry = made.entry;
    return made.answer;
}

static const pp_site_desc armed = {
    .size = sizeof armed, .kind = PP_SITE_ARMED, .hits = 3, .tier0 = &loop_frame,
    .produce = produce,
};

static void open_pool(pp_wx mode, uint32_t flags)
{
    pp_pool_options options = { .size = sizeof options, .wx = mode, .flags = flags };
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    memset(&made, 0, sizeof made);
    ck_assert_int_eq(loop_body(pool, &made.body, &made.entry), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &armed, &site), PP_OK);
    loop_link_armed(&loop, pool, site);
}

static void setup(void)
{
    open_pool(PP_WX_AUTO, 0);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static uint64_t run_as(pp_thread *own, uint64_t n)
{
    return pp_enter(own, pp_trace_entry(loop.trace), n, (uintptr_t) own, 0, 0);
}

static uint64_t run(uint64_t n)
{
    return run_as(&thread, n);
}

static uint64_t slow_paths(void)
{
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
    return stats.slow_paths;
}

START_TEST(works_when_armed_only)
{
    uint8_t nop[8];
    if (_i) {
        teardown();
        open_pool(PP_WX_AUTO, PP_POOL_LANDING_PADS);
    }
    ck_assert_uint_eq(loop.layout.bytes, isa_host.arch == PP_ARCH_X86_64 ? 5 : 4);
    ck_assert_int_eq(pp_emit_nop(isa_host.arch, loop.layout.bytes, nop, sizeof nop), PP_OK);
    ck_assert_mem_eq(loop.site, nop, loop.layout.bytes);
    ck_assert_uint_eq(run(100), 5050);
    ck_assert_uint_eq(slow_paths(), 0);

    ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_OK);
    ck_assert_uint_eq(run(2), 3);
    ck_assert_uint_eq(slow_paths(), 2);
    ck_assert_uint_eq(made.calls, 0);
    ck_assert_uint_eq(run(100), 2005050); /* the third hit */
    ck_assert_uint_eq(made.calls, 1);
    ck_assert_uint_eq(slow_paths(), 3);
    ck_assert_uint_eq(run(100), 2005050);
    ck_assert_uint_eq(slow_paths(), 3); /* C was not entered */

    ck_assert_int_eq(pp_site_disarm(site, loop.site, loop.cold, NULL), PP_OK);
    ck_assert_mem_eq(loop.site, nop, loop.layout.bytes);
    ck_assert_uint_eq(run(100), 5050);
    ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_OK);
    ck_assert_uint_eq(run(100), 2005050);
    ck_assert_int_eq(pp_site_disable(site), PP_OK);
    ck_assert_uint_eq(run(100), 5050);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
}
END_TEST

START_TEST(failed_site_goes_on)
{
    made.answer = PP_E_NOMEM;
    ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_OK);
    ck_assert_uint_eq(run(100), 5050);
    ck_assert_uint_eq(made.calls, 1);
    ck_assert_uint_eq(slow_paths(), 100);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_FAILED);
}
END_TEST

#define REFUSED(status, call) { \
    ck_assert_msg((call) == (status), "%s", #call); \
    ck_assert_mem_eq(code, pp_trace_entry(loop.trace), sizeof code); }

START_TEST(armed_refuses_what_it_cannot_check)
{
    uint8_t code[64], bytes[96];
    pp_error error = { .size = sizeof error };
    pp_patch patch;
    pp_site_layout layout = { .size = sizeof layout };
    pp_site *other, *counted;
    memcpy(code, pp_trace_entry(loop.trace), sizeof code);
    pp_site_desc desc = armed;
    ck_assert_int_eq(pp_site_create(pool, &desc, &other), PP_OK);
    desc.kind = PP_SITE_COUNTED;
    desc.counter = PP_COUNTER_SITE;
    desc.threshold = 1;
    ck_assert_int_eq(pp_site_create(pool, &desc, &counted), PP_OK);
    REFUSED(PP_E_ARG, pp_site_arm(NULL, loop.site, loop.cold, NULL))
    REFUSED(PP_E_ARG, pp_site_arm(site, NULL, loop.cold, NULL))
    REFUSED(PP_E_ARG, pp_site_arm(site, loop.site, NULL, NULL))
    REFUSED(PP_E_ARG, pp_site_arm(site, loop.site, loop.loop, &error))
    ck_assert_str_ne(error.text, "");
    REFUSED(PP_E_ARG, pp_site_arm(site, loop.site, &made, NULL))
    REFUSED(PP_E_ARG, pp_site_arm(site, loop.site + 8, loop.cold, NULL))
    REFUSED(PP_E_ARG, pp_site_arm(other, loop.site, loop.cold, NULL))
    REFUSED(PP_E_ARG, pp_site_arm(counted, loop.site, loop.cold, NULL))
    REFUSED(PP_E_ARG, pp_site_patch(site, loop.site, loop.cold, 1, NULL))
    REFUSED(PP_E_ARG, pp_emit_site_cold(counted, 0, bytes, sizeof bytes, &layout))
    REFUSED(PP_E_ARG, pp_emit_site_cold(site, 0, NULL, 1, &layout))
    REFUSED(PP_E_ARG, pp_emit_site_cold(site, 0, bytes, sizeof bytes, NULL))
    REFUSED(PP_E_RANGE, pp_emit_site_cold(site, 0, bytes, 8, &layout))
    REFUSED(PP_E_RANGE, pp_emit_site_cold(site, 1ll << 32, bytes, sizeof bytes, &layout))
    REFUSED(PP_E_RANGE, pp_emit_site_cold(site, -(1ll << 32), bytes, sizeof bytes, &layout))
    REFUSED(PP_E_BUSY, pp_site_disarm(site, loop.site, loop.cold, NULL))
    ck_assert_int_eq(pp_site_patch(site, loop.site, loop.cold, 1, &patch), PP_OK);
    ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_OK);
    memcpy(code, pp_trace_entry(loop.trace), sizeof code);
    ck_assert_mem_eq(loop.site, patch.value, patch.bytes);
    REFUSED(PP_E_BUSY, pp_site_arm(site, loop.site, loop.cold, &error))
    ck_assert_int_eq(pp_site_destroy(pool, other), PP_OK);
    REFUSED(PP_E_STALE, pp_site_arm(other, loop.site, loop.cold, NULL))
    desc = armed;
    desc.counter = PP_COUNTER_SITE;
    REFUSED(PP_E_ARG, pp_site_create(pool, &desc, &other))
}
END_TEST

START_TEST(pages_that_flip_cannot_be_armed)
{
    teardown();
    open_pool(PP_WX_FLIP, 0);
    ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_E_UNSUPPORTED);
    ck_assert_uint_eq(run(100), 5050);
}
END_TEST

/* ---- while threads run --------------------------------------------------------- */

enum { RUNNERS = 3, ROUNDS = 300 };
static atomic_bool stop;

static void *runner(void *argument)
{
    uint64_t *seen = argument;
    pp_thread own;
    if (pp_thread_init(&own, NULL, NULL) != PP_OK)
        return NULL;
    while (!atomic_load(&stop)) {
        uint64_t sum = run_as(&own, 50);
        seen[sum == 1275 ? 0 : sum == 2001275 ? 1 : 2]++;
    }
    return NULL;
}

START_TEST(threads_meet_one_or_the_other)
{
    pthread_t threads[RUNNERS];
    uint64_t seen[RUNNERS][3] = { 0 };
    for (unsigned i = 0; i < RUNNERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, runner, seen[i]), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_OK);
        if (round % 8 == 0) /* a barrier on all processors: it is armed for all now */
            ck_assert_uint_eq(run(50) % 2000000, 1275);
        ck_assert_int_eq(pp_site_disarm(site, loop.site, loop.cold, NULL), PP_OK);
        ck_assert_uint_eq(run(50), 1275);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < RUNNERS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_uint_eq(seen[i][2], 0);
    }
}
END_TEST

/* ---- NOPs of the host's own ------------------------------------------------------ */

#if defined __x86_64__
static const struct nop_form {
    const char *bytes;
    size_t size;
} nops[] = {
    { "\x0f\x1f\x44\x00\x00", 5 },
    { "\x0f\x1f\x44\x00\x08", 5 }, /* as compilers have it in sleds */
    { "\x0f\x1f\x44\x24\x7f", 5 },
    { "\x66\x0f\x1f\x40\x00", 5 },
    { "\x66\x66\x0f\x1f\x00", 5 },
    { "\x48\x0f\x1f\x40\x80", 5 },
    { "\x66\x66\x66\x66\x90", 5 },
    { "\x2e\x3e\x0f\x1f\xc1", 5 },
    { "\x66\x66\x66\x66\x66\x66\x2e\x0f\x1f\x84\x00\x00\x02\x00\x00", 15 }, /* and NOPs behind */
    { "\x66\x66\x66\x66\x66\x90", 6 },
}, no_nops[] = {
    { "\x66\x0f\x1f\x84\x00\x00\x00\x00\x00", 9 }, /* what is behind the fifth is nothing */
    { "\x90\x90\x90\x90\x90", 5 },                 /* a thread may be at any of them */
    { "\x0f\x1f\x40\x00\x90", 5 },
    { "\x0f\x1f\x80\x00\x00\x00\x00", 7 },
    { "\x0f\x18\x44\x00\x00", 5 },                 /* a prefetch */
    { "\xf3\x66\x66\x66\x90", 5 },                 /* pause */
    { "\xb8\x01\x00\x00\x00", 5 },
};
enum { STEP = 1, HOT_BYTES = 5 };
#else
static const struct nop_form {
    uint32_t word;
    size_t size;
} nops[] = { { 0xd503201f, 4 } }, no_nops[] = {
    { 0xd503203f, 4 }, /* yield */
    { 0xd503241f, 4 }, /* bti: a hint, and no landing pad for a jump that is none */
    { 0xd50320ff, 4 }, /* xpaclri */
    { 0xaa0003e0, 4 }, /* mov x0, x0 */
};
enum { STEP = 4, HOT_BYTES = 4 };
#endif
enum { NOPS = sizeof nops / sizeof nops[0], NO_NOPS = sizeof no_nops / sizeof no_nops[0] };

static const uint8_t *form_bytes(const struct nop_form *form)
{
#if defined __x86_64__
    return (const uint8_t *) form->bytes;
#else
    return (const uint8_t *) &form->word;
#endif
}

/* The loop with these bytes for its site, which begins at `place` of a cache line. */
static void link_form(const struct nop_form *form, size_t place)
{
    struct snippet s = { 0 };
    uint8_t bytes[96];
    size_t at, body, out, cold;
    pp_site_layout layout = { .size = sizeof layout };
    loop_head(&s, 0);
    while (s.size % 64 != place)
        snippet_bytes(&s, STEP == 1 ? (const void *) "\x90" : form_bytes(&nops[0]), STEP);
    at = s.size;
    snippet_bytes(&s, form_bytes(form), form->size);
    loop_over(&s);
    loop_rest(&s, at, &body, &out);
    cold = s.size;
    ck_assert_int_eq(pp_emit_site_cold(site, (int64_t) at - (int64_t) cold, bytes, sizeof bytes,
                                       &layout), PP_OK);
    loop_site(&s, bytes, &layout);
    pp_trace_desc desc = snippet_desc(&s);
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD, .cfa_offset = LOOP_CFA };
    desc.frame = &rule;
    desc.align = 64;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &loop.trace), PP_OK);
    loop.site = (const uint8_t *) pp_trace_entry(loop.trace) + at;
    loop.cold = (const uint8_t *) pp_trace_entry(loop.trace) + cold;
    ck_assert_uint_eq((uintptr_t) loop.site % 64, place);
    snippet_free(&s);
}

static void unlink_form(void)
{
    ck_assert_int_eq(pp_trace_free(pool, loop.trace), PP_OK);
}

START_TEST(any_nop_at_any_place_is_armed)
{
    const struct nop_form *form = &nops[_i];
    const uint8_t *bytes = form_bytes(form);
    for (size_t place = 0; place < 64; place += STEP) {
        pp_patch patch;
        link_form(form, place);
        ck_assert_uint_eq(run(100) % 2000000, 5050);
        uint64_t before = slow_paths();
        ck_assert_int_eq(pp_site_disarm(site, loop.site, loop.cold, NULL), PP_E_BUSY);
        ck_assert_int_eq(pp_site_patch(site, loop.site, loop.cold, 1, &patch), PP_OK);
        ck_assert_mem_eq(patch.old, bytes, HOT_BYTES);
        bool one_store = STEP != 1 || place % 8 <= 3;
        ck_assert_int_eq(patch.protocol == PP_PATCH_INT3, !one_store);
        for (unsigned round = 0; round < 3; round++) {
            pp_error error = { .size = sizeof error };
            ck_assert_msg(pp_site_arm(site, loop.site, loop.cold, &error) == PP_OK, "%s",
                          error.text);
            ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_E_BUSY);
            ck_assert_uint_eq(run(100) % 2000000, 5050);
            ck_assert_msg(pp_site_disarm(site, loop.site, loop.cold, &error) == PP_OK, "%s",
                          error.text);
            ck_assert_mem_eq(loop.site, bytes, form->size);
        }
        ck_assert_int_eq(pp_site_state(site), PP_SITE_READY);
        ck_assert_uint_ge(slow_paths() + made.calls, before);
        unlink_form();
    }
    ck_assert_uint_eq(made.calls, 1);
}
END_TEST

START_TEST(what_is_no_nop_is_not_armed)
{
    const struct nop_form *form = &no_nops[_i];
    for (size_t place = 0; place < 16; place += STEP) {
        link_form(form, place);
        ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_E_BUSY);
        ck_assert_int_eq(pp_site_disarm(site, loop.site, loop.cold, NULL), PP_E_BUSY);
        ck_assert_mem_eq(loop.site, form_bytes(form), form->size);
        unlink_form();
    }
}
END_TEST

/* Whenever the patches were made, and in whatever order, the old bytes come back. */
START_TEST(patches_know_the_bytes_that_were_there)
{
    const struct nop_form *form = &nops[_i];
    pp_patch arm, disarm, back, late;
    link_form(form, 4);
    ck_assert_int_eq(pp_site_patch(site, loop.site, loop.cold, 0, &disarm), PP_OK);
    ck_assert_int_eq(pp_site_patch(site, loop.site, loop.cold, 1, &arm), PP_OK);
    pp_patch_options options = { .size = sizeof options, .journal = &back };
    ck_assert_int_eq(pp_patch_apply(pool, &arm, 1, &options), PP_OK);
    ck_assert_int_eq(pp_site_patch(site, loop.site, loop.cold, 0, &late), PP_OK);
    ck_assert_mem_eq(late.value, disarm.value, HOT_BYTES);
    ck_assert_mem_eq(late.old, arm.value, HOT_BYTES);
    ck_assert_int_eq(pp_patch_apply(pool, &disarm, 1, NULL), PP_OK);
    ck_assert_mem_eq(loop.site, form_bytes(form), form->size);
    ck_assert_int_eq(pp_patch_apply(pool, &arm, 1, NULL), PP_OK);
    ck_assert_int_eq(pp_patch_apply(pool, &back, 1, NULL), PP_OK);
    ck_assert_mem_eq(loop.site, form_bytes(form), form->size);
}
END_TEST

/* Code that comes and goes takes no memory, and no want of it changes code. */
START_TEST(kept_nops_go_with_their_code)
{
    pp_pool_stats stats = { .size = sizeof stats };
    size_t metadata = 0;
    for (unsigned i = 0; i < 200; i++) {
        link_form(&nops[i % NOPS], 4 * (i % 16));
        ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_OK);
        if (i % 2 == 0)
            ck_assert_int_eq(pp_site_disarm(site, loop.site, loop.cold, NULL), PP_OK);
        unlink_form();
        ck_assert_int_eq(pp_pool_get_stats(pool, &stats), PP_OK);
        if (i == 20)
            metadata = stats.metadata;
    }
    ck_assert_uint_le(stats.metadata, metadata + 64);
#if defined __x86_64__
    pp_fault script = { .call = PP_FAULT_METADATA, .first = 1 };
    pp_site *other;
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &armed, &other), PP_OK);
    site = other;
    link_form(&nops[1], 0);
    ck_assert_int_eq(pp_fault_set(&script, 1), PP_OK);
    ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_E_NOMEM);
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    ck_assert_mem_eq(loop.site, form_bytes(&nops[1]), HOT_BYTES);
    ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_OK);
#endif
}
END_TEST

static atomic_uint ours, foreign;

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void) number, (void) info;
    atomic_fetch_add(pp_patch_trap(context) ? &ours : &foreign, 1);
}

/* At each place of a cache line, and across two: threads meet the one or the other. */
START_TEST(threads_pass_any_nop_at_any_place)
{
    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
    ck_assert_int_eq(sigaction(SIGTRAP, &action, NULL), 0);
    for (size_t place = 0; place < 64; place += STEP) {
        const struct nop_form *form = &nops[(place / STEP + (size_t) _i) % NOPS];
        pthread_t threads[RUNNERS];
        uint64_t seen[RUNNERS][3] = { 0 };
        link_form(form, place);
        atomic_store(&stop, false);
        for (unsigned i = 0; i < RUNNERS; i++)
            ck_assert_int_eq(pthread_create(&threads[i], NULL, runner, seen[i]), 0);
        for (unsigned round = 0; round < 20; round++) {
            ck_assert_int_eq(pp_site_arm(site, loop.site, loop.cold, NULL), PP_OK);
            ck_assert_uint_eq(run(50) % 2000000, 1275);
            ck_assert_int_eq(pp_site_disarm(site, loop.site, loop.cold, NULL), PP_OK);
            ck_assert_uint_eq(run(50), 1275);
        }
        atomic_store(&stop, true);
        for (unsigned i = 0; i < RUNNERS; i++) {
            pthread_join(threads[i], NULL);
            ck_assert_uint_eq(seen[i][2], 0);
        }
        ck_assert_mem_eq(loop.site, form_bytes(form), form->size);
        unlink_form();
    }
    ck_assert_uint_eq(atomic_load(&foreign), 0);
    printf("%u traps\n", atomic_load(&ours));
}
END_TEST

/* ---- bytes, of both architectures ------------------------------------------------- */

static const struct {
    const struct isa *isa;
    bool pads;
    int64_t hot;
    uint32_t flags;
    size_t return_offset, resume_offset;
    const char *hex;
} colds[] = {
    /* movabs $record, %r11; call; jmp *%r11; jmp hot + 5 */
    { &isa_x86_64, false, -1000, 0, 15, 18,
      "49bb8877665544332211e80000000041ffe3e906fcffff" },
    { &isa_x86_64, true, 4096, PP_SITE_RED_ZONE, 20, 31,
      "49bb8877665544332211488d642480e800000000488da4248000000041ffe3f30f1efae9dd0f0000" },
    /* ldr x17, literal; bl; br x16; b hot + 4; literal */
    { &isa_aarch64, false, -1000, 0, 8, 12,
      "91000058000000" "9400021fd604ffff178877665544332211" },
    { &isa_aarch64, true, 4096, 0, 8, 12,
      "b1000058000000" "9400021fd69f2403d5fd0300148877665544332211" },
};

START_TEST(cold_bytes)
{
    uint8_t bytes[96];
    char hex[200] = "";
    pp_site_desc desc = armed;
    pp_site_layout layout;
    desc.flags = colds[_i].flags;
    ck_assert_int_eq(colds[_i].isa->emit_site_cold(&desc, 0x1122334455667788u, colds[_i].pads,
                                                   colds[_i].hot, bytes, sizeof bytes, &layout),
                     PP_OK);
    for (size_t i = 0; i < layout.bytes; i++)
        sprintf(hex + 2 * i, "%02x", bytes[i]);
    ck_assert_str_eq(hex, colds[_i].hex);
    ck_assert_uint_eq(layout.return_offset, colds[_i].return_offset);
    ck_assert_uint_eq(layout.resume_offset, colds[_i].resume_offset);
    ck_assert_uint_eq(layout.reloc_count, 1);
    ck_assert_uint_eq(layout.relocs[0].offset, layout.return_offset - 4);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("armed");
    TCase *tests = tcase_create("armed");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, works_when_armed_only, 0, 2);
    tcase_add_test(tests, failed_site_goes_on);
    tcase_add_test(tests, armed_refuses_what_it_cannot_check);
    tcase_add_test(tests, pages_that_flip_cannot_be_armed);
    tcase_add_test(tests, threads_meet_one_or_the_other);
    tcase_add_loop_test(tests, any_nop_at_any_place_is_armed, 0, NOPS);
    tcase_add_loop_test(tests, what_is_no_nop_is_not_armed, 0, NO_NOPS);
    tcase_add_loop_test(tests, patches_know_the_bytes_that_were_there, 0, NOPS);
    tcase_add_test(tests, kept_nops_go_with_their_code);
    tcase_add_loop_test(tests, threads_pass_any_nop_at_any_place, 0, NOPS < 3 ? NOPS : 3);
    tcase_add_loop_test(tests, cold_bytes, 0, sizeof colds / sizeof colds[0]);
    suite_add_tcase(suite, tests);
    SRunner *all = srunner_create(suite);
    srunner_run_all(all, CK_ENV);
    int failed = srunner_ntests_failed(all);
    srunner_free(all);
    return failed != 0;
}
