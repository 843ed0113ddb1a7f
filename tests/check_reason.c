/* SPDX-License-Identifier: MIT */
/* Refusals of sites, entries and emitters name what is wrong. */
#include <config.h>

#include "loop.h"

#include <stddef.h>

static pp_pool *pool;
static pp_thread thread;
static pp_site *site;
static pp_trace *body;
static pp_entry *good;
static pp_error error;

static pp_entry *produced;

static pp_status produce(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) of, (void) regs;
    *entry = produced;
    return PP_OK;
}

static const pp_site_desc counted = {
    .size = sizeof counted, .kind = PP_SITE_COUNTED, .counter = PP_COUNTER_SITE, .threshold = 1,
    .tier0 = &loop_frame, .produce = produce,
};

static void setup(void)
{
    error = (pp_error) { .size = sizeof error };
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &counted, &site), PP_OK);
    ck_assert_int_eq(loop_body(pool, &body, &good), PP_OK);
}

static void teardown(void)
{
    pp_pool_destroy(pool);
}

/* ---- entries ------------------------------------------------------------------ */

#if defined __x86_64__
enum { SAVED = 1 << 3, AREA = -48 };
#else
enum { SAVED = 1 << 19, AREA = 48 };
#endif

/* An entry of a frame that differs in one field from the site's. */
static const struct {
    const char *field;
    uint32_t frame_bytes, cfa_offset, flags;
    pp_save_area saves;
} misfits[] = {
    { .field = "frame_bytes", .frame_bytes = 16 },
#if defined __aarch64__
    { .field = "cfa_offset", .cfa_offset = 16 },
#endif
    { .field = "saves.slots", .saves = { .slots = SAVED, .offset = AREA } },
    { .field = "flags", .flags = PP_TIER0_DYNAMIC },
};
enum { MISFITS = sizeof misfits / sizeof misfits[0] };

/* A body without a frame rule, which no layout contradicts. */
static pp_trace *bare_body(void)
{
    static const uint8_t code[4] = { 0 };
    const pp_trace_desc desc = { .size = sizeof desc, .code = code, .code_size = sizeof code };
    pp_trace *trace;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    return trace;
}

static pp_entry *entry_with(pp_entry_desc desc, const pp_tier0_layout *tier0)
{
    pp_entry *entry;
    desc.size = sizeof desc;
    desc.style = PP_ON_TOP;
    desc.scheme = PP_CSR_RELOAD;
    desc.code = pp_trace_entry(tier0->cfa_offset == loop_frame.cfa_offset ? body : bare_body());
    desc.tier0 = tier0;
    desc.error = &error;
    ck_assert_msg(pp_entry_create(pool, &desc, &entry) == PP_OK, "%s", error.text);
    return entry;
}

START_TEST(misfit_names_the_field)
{
    struct loop loop;
    pp_tier0_layout tier0 = loop_frame;
    tier0.frame_bytes += misfits[_i].frame_bytes;
    tier0.cfa_offset += misfits[_i].cfa_offset;
    tier0.flags |= misfits[_i].flags;
    tier0.saves = misfits[_i].saves;
    produced = entry_with((pp_entry_desc) { .size = 0 }, &tier0);
    ck_assert_int_eq(pp_site_check(site, good, &error), PP_OK);
    ck_assert_int_eq(pp_site_check(site, produced, &error), PP_E_ABI);
    ck_assert_int_eq(error.status, PP_E_ABI);
    ck_assert_msg(strstr(error.text, misfits[_i].field) != NULL, "%s", error.text);
    loop_link(&loop, pool, site, 1, true);
    pp_enter(&thread, pp_trace_entry(loop.trace), 3, (uintptr_t) &thread, 0, 0);
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
    ck_assert_int_eq(stats.refusal, PP_E_ABI);
    ck_assert_str_eq(stats.field, misfits[_i].field);
    /* A struct of the header before. */
    stats = (pp_site_stats) { .size = offsetof(pp_site_stats, field), .field = "untouched" };
    ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
    ck_assert_str_eq(stats.field, "untouched");
    ck_assert_uint_eq(stats.refusals, 1);
}
END_TEST

START_TEST(other_reasons_have_names)
{
    pp_entry *guarded = entry_with((pp_entry_desc) { .flags = PP_ENTRY_CHECK_STACK }, &loop_frame);
    ck_assert_int_eq(pp_site_check(site, guarded, &error), PP_E_ABI);
    ck_assert_ptr_nonnull(strstr(error.text, "thread_offset"));
    ck_assert_int_eq(pp_site_check(site, guarded, NULL), PP_E_ABI);
    ck_assert_int_eq(pp_entry_destroy(pool, guarded), PP_OK);
    ck_assert_int_eq(pp_site_check(site, guarded, &error), PP_E_STALE);
    ck_assert_int_eq(pp_site_check(site, NULL, &error), PP_E_ARG);
    ck_assert_int_eq(pp_site_check(NULL, good, &error), PP_E_ARG);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_site_check(site, good, &error), PP_E_STALE);
    ck_assert_int_eq(error.status, PP_E_STALE);
}
END_TEST

/* A value in a vector register, which a site that keeps general ones has lost. */
START_TEST(registers_that_are_not_kept_are_named)
{
    const pp_value values[] = { { PP_AT_VECTOR(1), PP_AT_SLOT(AT_LOOP_SUM), .bytes = 8 } };
    pp_entry *entry;
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_REPLACE, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(body), .tier0 = &loop_frame,
                           .body = &loop_frame, .values = values, .value_count = 1,
                           .error = &error };
    ck_assert_msg(pp_entry_create(pool, &desc, &entry) == PP_OK, "%s", error.text);
    ck_assert_int_eq(pp_site_check(site, entry, &error), PP_E_ABI);
    ck_assert_int_eq(strncmp(error.text, "save:", 5), 0);
}
END_TEST

/* ---- emitters ------------------------------------------------------------------- */

static pp_osr_frame frame_with(void)
{
    return (pp_osr_frame) { .size = sizeof(pp_osr_frame), .scheme = PP_CSR_RELOAD,
                            .tier0 = &loop_frame, .error = &error };
}

#define REFUSES(status, text_begins, call) do { \
        error.text[0] = '\0'; \
        ck_assert_int_eq(call, status); \
        ck_assert_msg(strncmp(error.text, text_begins, strlen(text_begins)) == 0, "%s", error.text); \
    } while (0)

START_TEST(prologues_say_why)
{
    uint8_t bytes[128];
    pp_osr_layout layout = { .size = sizeof layout };
    pp_tier0_layout tier0 = loop_frame;
    pp_osr_frame frame = frame_with();
    frame.arch = 9;
    REFUSES(PP_E_ARG, "arch:", pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout));
    frame = frame_with();
    frame.local_bytes = UINT32_MAX;
    REFUSES(PP_E_ARG, "local_bytes:", pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout));
    frame = frame_with();
    frame.flags = 0x80;
    REFUSES(PP_E_ARG, "flags:", pp_emit_osr_epilogue(&frame, bytes, sizeof bytes, &layout));
    frame = frame_with();
    frame.tier0 = &tier0;
    tier0.frame_bytes += 8;
    REFUSES(PP_E_ARG, "tier0.frame_bytes:",
            pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout));
    frame = frame_with();
    frame.used = 1;
    REFUSES(PP_E_ARG, "used:", pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout));
    frame = frame_with();
    frame.scheme = PP_CSR_RESERVE;
    frame.used = SAVED;
    REFUSES(PP_E_ABI, "used:", pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout));
    frame = frame_with();
    frame.base = (pp_place) { .kind = PP_PLACE_GPR, .number = 1 };
    REFUSES(PP_E_ARG, "base:", pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout));
    frame = frame_with();
    frame.local_bytes = 64;
    REFUSES(PP_E_RANGE, "capacity:", pp_emit_osr_prologue(&frame, bytes, 1, &layout));
    ck_assert_uint_eq(layout.bytes, 0);
    frame.size = offsetof(pp_osr_frame, error); /* of the header before */
    frame.error = (void *) 1;
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, 1, &layout), PP_E_RANGE);
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout), PP_OK);
}
END_TEST

START_TEST(sites_and_addresses_say_why)
{
    uint8_t bytes[128];
    pp_site_layout layout = { .size = sizeof layout, .why = (const char *) 1 };
    ck_assert_int_eq(pp_emit_site(site, bytes, sizeof bytes, &layout), PP_OK);
    ck_assert_ptr_null(layout.why);
    ck_assert_int_eq(pp_emit_site(site, bytes, 3, &layout), PP_E_RANGE);
    ck_assert_int_eq(strncmp(layout.why, "capacity:", 9), 0);
    ck_assert_int_eq(pp_emit_site_cold(site, 0, bytes, sizeof bytes, &layout), PP_E_ARG);
    ck_assert_ptr_nonnull(strstr(layout.why, "not armed"));
    ck_assert_int_eq(pp_emit_site(NULL, bytes, sizeof bytes, &layout), PP_E_ARG);
    layout = (pp_site_layout) { .size = offsetof(pp_site_layout, why), .why = "untouched" };
    ck_assert_int_eq(pp_emit_site(site, bytes, sizeof bytes, &layout), PP_OK);
    ck_assert_int_eq(pp_emit_site(site, bytes, 3, &layout), PP_E_RANGE);
    ck_assert_str_eq(layout.why, "untouched");
    ck_assert_uint_gt(layout.bytes, 3);

    pp_address_layout address = { .size = sizeof address };
    ck_assert_int_eq(pp_emit_address(PP_ARCH_X86_64, 4, PP_SYMBOL_CODE, 0, bytes, sizeof bytes,
                                     &address), PP_E_ARG);
    ck_assert_int_eq(strncmp(address.why, "reg:", 4), 0);
    ck_assert_int_eq(pp_emit_address(PP_ARCH_X86_64, 3, PP_SYMBOL_CODE, 0, bytes, 1, &address),
                     PP_E_RANGE);
    ck_assert_int_eq(strncmp(address.why, "capacity:", 9), 0);
    ck_assert_int_eq(pp_emit_address(PP_ARCH_X86_64, 3, PP_SYMBOL_CODE, 0, bytes, sizeof bytes,
                                     &address), PP_OK);
    ck_assert_ptr_null(address.why);
    address = (pp_address_layout) { .size = offsetof(pp_address_layout, why), .why = "untouched" };
    ck_assert_int_eq(pp_emit_address(PP_ARCH_X86_64, 3, PP_SYMBOL_CODE, 0, bytes, sizeof bytes,
                                     &address), PP_OK);
    ck_assert_str_eq(address.why, "untouched");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reason");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, misfit_names_the_field, 0, MISFITS);
    tcase_add_test(tests, other_reasons_have_names);
    tcase_add_test(tests, registers_that_are_not_kept_are_named);
    tcase_add_test(tests, prologues_say_why);
    tcase_add_test(tests, sites_and_addresses_say_why);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
