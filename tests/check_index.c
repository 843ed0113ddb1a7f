/* SPDX-License-Identifier: MIT */
/*
 * Several entries of one body: a nest of two loops that is entered at either header,
 * in each style, and goes where its index says.
 */
#include <config.h>

#include "entered.h"
#include "snippet.h"
#include "stress/method.h"

#include <check.h>

#if defined __x86_64__
enum { SECOND = 6 };
#define SAVES (1ull << 3 | 0xfull << 12)
#else
enum { SECOND = 1 };
#define SAVES (0x3ffull << 19 | 0xffull << 40)
#endif

static pp_pool *pool;
static pp_thread thread;

static void setup(void)
{
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

/* ---- a body with two headers --------------------------------------------------- */

struct style {
    const char *name;
    pp_osr_style style;
    pp_csr_scheme scheme;
    uint32_t flags;     /* of the pool */
    uint32_t first;     /* index of the outer header; the inner one has the next */
};

static const struct style styles[] = {
    { "on top, reserve", PP_ON_TOP, PP_CSR_RESERVE, 0, 0 },
    { "on top, reload", PP_ON_TOP, PP_CSR_RELOAD, 0, UINT32_MAX - 1 },
    { "on top, landing pads", PP_ON_TOP, PP_CSR_RESERVE, PP_POOL_LANDING_PADS, 0x12345678 },
    { "replace, reserve", PP_REPLACE, PP_CSR_RESERVE, 0, 0xffff },
    { "replace, reload", PP_REPLACE, PP_CSR_RELOAD, 0, 0x10000 },
    { "replace, landing pads", PP_REPLACE, PP_CSR_RELOAD, PP_POOL_LANDING_PADS, 0 },
};

/* Skip what comes next, if the index is not `first`: all 64 bits of the register are compared. */
static void dispatch(struct snippet *s, uint32_t first, size_t skip)
{
#if defined __x86_64__
    SNIPPET_CODE(s, 0xb8); /* mov $first, %eax; cmp %rax, %r11; jne */
    snippet_bytes(s, &first, sizeof first);
    SNIPPET_CODE(s, 0x49, 0x39, 0xc3, 0x75, (uint8_t) skip);
#else
    SNIPPET_WORDS(s, 0x52800009 | (first & 0xffff) << 5, 0x72a00009 | first >> 16 << 5);
    SNIPPET_WORDS(s, 0xeb09023f); /* cmp x17, x9; b.ne */
    SNIPPET_WORDS(s, 0x54000001 | (uint32_t) (skip + 4) / 4 << 5);
#endif
}

static pp_trace *link_body(const struct style *style, const pp_tier0_layout *frame_layout)
{
    pp_osr_frame frame = { .size = sizeof frame, .scheme = style->scheme, .tier0 = frame_layout,
                           .used = SAVES, .flags = style->flags };
    pp_osr_layout prologue = { .size = sizeof prologue }, epilogue = { .size = sizeof epilogue };
    struct snippet s = { 0 };
    uint8_t bytes[512];
    pp_trace *trace;
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &prologue), PP_OK);
    snippet_bytes(&s, bytes, prologue.bytes);
    dispatch(&s, style->first, (size_t) (template_outer_end - template_outer));
    snippet_bytes(&s, template_outer, (size_t) (template_outer_end - template_outer));
    snippet_bytes(&s, template_inner_body,
                  (size_t) (template_inner_body_end - template_inner_body));
    ck_assert_int_eq(pp_emit_osr_epilogue(&frame, bytes, sizeof bytes, &epilogue), PP_OK);
    snippet_bytes(&s, bytes, epilogue.bytes);
    pp_trace_desc desc = snippet_desc(&s);
    desc.frame = &prologue.rule;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    snippet_free(&s);
    return trace;
}

static uint64_t run(const struct method *method, uint64_t n, uint64_t start)
{
    uint64_t saved[SAVE_SLOTS] = { 11, 12, 13, 14, 15 }, result;
    ck_assert(method_run(method, &thread, n, NULL, start, saved, &result));
    return result;
}

static pp_site_stats stats_of(const struct method *method, unsigned site)
{
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(method->sites[site], &stats), PP_OK);
    return stats;
}

START_TEST(a_nest_is_entered_at_either_header)
{
    const struct style *style = &styles[_i / 2];
    const bool counts = _i & 1; /* by the slow path; else by the fast one, which does not count */
    static const pp_value values[] = {
        { PP_AT_SLOT(AT_N), PP_AT_SLOT(AT_N), .bytes = 8 },
        { PP_AT_SLOT(AT_SUM), PP_AT_SLOT(AT_SUM), .bytes = 8 },
        { PP_AT_SLOT(AT_INNER), PP_AT_SLOT(AT_INNER), .bytes = 8 },
        { PP_AT_SLOT(AT_START), PP_AT_SLOT(AT_START), .bytes = 8 },
    };
    pp_pool_options options = { .size = sizeof options, .flags = style->flags };
    pp_pool_destroy(pool);
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    struct method_shape shape = { .kind = METHOD_NESTED, .scheme = style->scheme, .hits = 1,
                                  .threshold = 5, .save = PP_SAVE_GPR, .with_thread = true };
    struct method method;
    ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
    pp_tier0_layout layout = method.tier0;
    if (style->style == PP_REPLACE && style->scheme == PP_CSR_RESERVE)
        layout.saves.saved = SAVES;
    else if (style->style == PP_REPLACE)
        layout.saves = (pp_save_area) { .slots = 0 };
    pp_trace *body = link_body(style, style->style == PP_REPLACE ? &layout : &method.tier0);
    pp_entry_desc desc = { .size = sizeof desc, .style = style->style, .scheme = style->scheme,
                           .code = pp_trace_entry(body), .tier0 = &method.tier0, .used = SAVES,
                           .stack_bytes = 1024,
                           .flags = PP_ENTRY_INDEX | (counts ? PP_ENTRY_CHECK_STACK : 0) };
    if (style->style == PP_REPLACE) {
        desc.body = &layout;
        desc.values = values;
        desc.value_count = sizeof values / sizeof values[0];
    }
    pp_entry *entries[2];
    for (unsigned i = 0; i < 2; i++) {
        desc.index = style->first + i;
        ck_assert_int_eq(pp_entry_create(pool, &desc, &entries[i]), PP_OK);
        ck_assert_uint_eq(pp_entry_index(entries[i]), desc.index);
        ck_assert_ptr_eq(pp_entry_code(entries[i]), pp_trace_entry(body));
        ck_assert_int_eq(pp_site_publish(method.sites[i], entries[i]), PP_OK);
    }
    /* Inner loops shorter than the threshold lead to the outer header, others to the inner. */
    for (uint64_t n = 1; n < 20; n++)
        for (uint64_t start = 1; start < 20; start++)
            ck_assert_msg(run(&method, n, start) == method_model(&method, n, start),
                          "%s: n %lu, start %lu", style->name, (long) n, (long) start);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(stats_of(&method, i).transitions > 0, counts);
    ck_assert_int_eq(method_close(&method), PP_OK);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(pp_trace_free(pool, body), PP_E_BUSY); /* as long as one is left */
        ck_assert_int_eq(pp_entry_destroy(pool, entries[i]), PP_OK);
        ck_assert_uint_eq(pp_entry_index(entries[i]), 0);
    }
    ck_assert_int_eq(pp_trace_free(pool, body), PP_OK);
}
END_TEST

/* ---- functions ------------------------------------------------------------------- */

pp_regs entered_regs;

/* The rest of the sum, and the index. */
uintptr_t entered_check(uintptr_t first, uintptr_t second)
{
    const uint64_t *buffer = (const uint64_t *) first;
    uint64_t n = buffer[0], sum = buffer[1];
    pp_buffer_release(&thread, buffer);
    return sum + n * (n + 1) / 2 + (entered_regs.gpr[SECOND] == second ? second << 20 : 1);
}

START_TEST(functions_have_the_index_as_an_argument)
{
    static _Alignas(16) char memory[256];
    static const pp_value values[] = {
        { PP_AT_SLOT(AT_N), PP_AT_BUFFER(0), .bytes = 8 },
        { PP_AT_SLOT(AT_SUM), PP_AT_BUFFER(8), .bytes = 8 },
        { PP_AT_SLOT(AT_SUM), PP_AT_GPR(SECOND), .bytes = 8 },
    };
    static const uint32_t indices[] = { 0, 1, 77777, UINT32_MAX };
    ck_assert_int_eq(pp_thread_set_buffers(&thread, memory, 16, 1), PP_OK);
    struct snippet s = { 0 };
    pp_trace *body;
#if defined __x86_64__
    SNIPPET_CODE(&s, 0xe9, 0, 0, 0, 0); /* jmp entered */
    snippet_reloc(&s, 4, R_X86_64_PLT32, pp_symbol_define(pool, NULL, entered), -4);
#else
    SNIPPET_WORDS(&s, 0x14000000);      /* b entered */
    snippet_reloc(&s, 4, R_AARCH64_JUMP26, pp_symbol_define(pool, NULL, entered), 0);
#endif
    pp_trace_desc trace = snippet_desc(&s);
    ck_assert_int_eq(pp_trace_link(pool, &trace, &body), PP_OK);
    snippet_free(&s);
    for (unsigned i = 0; i < sizeof indices / sizeof indices[0]; i++) {
        struct method_shape shape = { .kind = METHOD_SUM, .save = PP_SAVE_GPR, .hits = 1,
                                      .threshold = 5, .with_thread = true };
        struct method method;
        pp_entry *entry;
        pp_error error = { .size = sizeof error };
        ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
        pp_entry_desc desc = { .size = sizeof desc, .style = PP_BUFFER, .tier0 = &method.tier0,
                               .code = pp_trace_entry(body), .thread_offset = AT_THREAD,
                               .values = values, .value_count = 3, .flags = PP_ENTRY_INDEX,
                               .index = indices[i], .error = &error };
        ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_E_ARG);
        ck_assert_ptr_nonnull(strstr(error.text, "values[2].to: the index arrives there"));
        desc.value_count = 2;
        ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
        ck_assert_int_eq(pp_site_publish(method.sites[0], entry), PP_OK);
        for (unsigned round = 0; round < 3; round++)
            ck_assert_uint_eq(run(&method, 50, 1), 1275 + ((uint64_t) indices[i] << 20));
        ck_assert_int_eq(method_close(&method), PP_OK);
        ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    }
    ck_assert_int_eq(pp_trace_free(pool, body), PP_OK);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, NULL, 0, 0), PP_OK);
}
END_TEST

START_TEST(an_index_needs_its_flag)
{
    static const uint8_t nops[16];
    pp_trace_desc trace = { .size = sizeof trace, .code = nops, .code_size = sizeof nops };
    pp_trace *body;
    pp_tier0_layout tier0 = { .size = sizeof tier0, .frame_bytes = 64 };
    pp_entry *entry = NULL;
    pp_error error = { .size = sizeof error };
    ck_assert_int_eq(pp_trace_link(pool, &trace, &body), PP_OK);
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .code = pp_trace_entry(body),
                           .tier0 = &tier0, .index = 1, .error = &error };
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_E_ARG);
    ck_assert_str_eq(error.text, "index, reserved: not 0");
    desc.index = 0;
    desc.reserved = 1;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_E_ARG);
    ck_assert_ptr_null(entry);
    desc.reserved = 0;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    ck_assert_uint_eq(pp_entry_index(entry), 0);
    ck_assert_uint_eq(pp_entry_index(NULL), 0);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    /* A description of an older header ends before it. */
    desc.size = offsetof(pp_entry_desc, index);
    desc.index = 5;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    ck_assert_uint_eq(pp_entry_index(entry), 0);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, body), PP_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("index");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, a_nest_is_entered_at_either_header, 0,
                        2 * sizeof styles / sizeof styles[0]);
    tcase_add_test(tests, functions_have_the_index_as_an_argument);
    tcase_add_test(tests, an_index_needs_its_flag);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
