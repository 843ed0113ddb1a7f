/* SPDX-License-Identifier: MIT */
/* Armed sites: nothing until they are armed, and never a byte that is neither. */
#include <config.h>

#include "isa/isa.h"
#include "loop.h"

#include <patchpoint/patch.h>

#include <pthread.h>
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
    tcase_add_loop_test(tests, cold_bytes, 0, sizeof colds / sizeof colds[0]);
    suite_add_tcase(suite, tests);
    SRunner *all = srunner_create(suite);
    srunner_run_all(all, CK_ENV);
    int failed = srunner_ntests_failed(all);
    srunner_free(all);
    return failed != 0;
}
