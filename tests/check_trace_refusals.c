/* SPDX-License-Identifier: MIT */
/* What linking refuses: it is named, and leaves nothing. */
#include <config.h>

#include "isa/isa.h"
#include "link/island.h"
#include "memory/region.h"

#include "linked.h"
#include "sanitized.h"

#include <patchpoint/fault.h>

#include <check.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- refusals ------------------------------------------------------------ */

#if defined __x86_64__
enum { FIELD = 5, ABS64 = R_X86_64_64, PC32 = R_X86_64_PC32, GOT = R_X86_64_GOTPCRELX,
       CALL_ADDEND = -4 };
#else
enum { FIELD = 8, ABS64 = R_AARCH64_ABS64, PC32 = R_AARCH64_PREL32, GOT = R_AARCH64_ADR_GOT_PAGE,
       CALL_ADDEND = 0 };
#endif

/* The one relocation of `begin; call; end` with something changed. */
static const struct refusal {
    const char *what;
    pp_reloc reloc; /* symbol 99: target_0 */
    pp_status status;
    const char *text; /* that the reason holds */
} refusals[] = {
    { "type", { FIELD, 0xffff, 0, 99, 0, 0 }, PP_E_ARG, "(type 65535, target_0)" },
    { "type none", { FIELD, 0, 0, 99, 0, 0 }, PP_E_ARG, "type 0" },
    { "section", { FIELD, SNIPPET_CALL_TYPE, 2, 99, 0, CALL_ADDEND }, PP_E_ARG, "section" },
    { "reserved", { FIELD, SNIPPET_CALL_TYPE, 0, 99, 1, CALL_ADDEND }, PP_E_ARG, "reserved" },
    { "no symbol", { FIELD, SNIPPET_CALL_TYPE, 0, 0, 0, CALL_ADDEND }, PP_E_ARG, "needs a symbol" },
    { "no GOT symbol", { FIELD + 3, GOT, 0, 0, 0, CALL_ADDEND }, PP_E_ARG, "symbol" },
    { "bad symbol", { FIELD, SNIPPET_CALL_TYPE, 0, 1000000, 0, CALL_ADDEND }, PP_E_ARG,
      "symbol 1000000" },
    { "no data", { FIELD, ABS64, 0, PP_SYMBOL_DATA, 0, 0 }, PP_E_ARG, "own data" },
    { "data section", { 0, ABS64, 1, 99, 0, 0 }, PP_E_ARG, "beyond its section" },
    { "call in data", { 0, SNIPPET_CALL_TYPE, 1, 99, 0, CALL_ADDEND }, PP_E_ARG, "is in data" },
    { "beyond", { 1000, ABS64, 0, 99, 0, 0 }, PP_E_ARG, "beyond its section" },
    { "last byte", { UINT32_MAX, ABS64, 0, 99, 0, 0 }, PP_E_ARG, "beyond its section" },
    { "far PC32", { FIELD, PC32, 0, 99, 0, 0 }, PP_E_RANGE, "target_0" },
    { "addend", { FIELD, SNIPPET_CALL_TYPE, 0, 99, 0, 4 }, PP_E_RANGE, "no other byte" },
    { "own code too far", { FIELD, SNIPPET_CALL_TYPE, 0, PP_SYMBOL_CODE, 0, 1l << 40 },
      PP_E_RANGE, "own code" },
#if defined __x86_64__
    { "before", { 1, GOT, 0, 99, 0, -4 }, PP_E_ARG, "begins before" },
    { "32", { FIELD, R_X86_64_32, 0, 0, 0, 1l << 32 }, PP_E_RANGE, "R_X86_64_32," },
    { "32S", { FIELD, R_X86_64_32S, 0, 0, 0, 1l << 31 }, PP_E_RANGE, "R_X86_64_32S," },
#else
    { "offset", { FIELD + 2, R_AARCH64_CALL26, 0, 99, 0, 0 }, PP_E_ARG, "misaligned offset" },
    { "instruction", { 0, R_AARCH64_CALL26, 0, 99, 0, 0 }, PP_E_ARG, "not an instruction" },
    { "value", { FIELD, R_AARCH64_CALL26, 0, PP_SYMBOL_CODE, 0, 2 }, PP_E_ARG, "misaligned value" },
    { "32", { FIELD, R_AARCH64_ABS32, 0, 0, 0, 1l << 32 }, PP_E_RANGE, "R_AARCH64_ABS32," },
#endif
};

START_TEST(a_refused_relocation_is_named_and_leaves_nothing)
{
    const struct refusal *refusal = &refusals[_i % (int) (sizeof refusals / sizeof *refusals)];
    bool own = _i >= (int) (sizeof refusals / sizeof *refusals);
    pp_trace *trace = (pp_trace *) &code;

    start(true, false);
    snippet_begin(&code);
    snippet_call(&code, symbols[1]);
    snippet_end(&code);
    /* Room for any field; then the relocation itself, after a good one. */
    for (int i = 0; i < 4; i++)
        snippet_end(&code);
    pp_reloc reloc = refusal->reloc;
    if (reloc.symbol == 99)
        reloc.symbol = symbols[0];
    snippet_reloc(&code, 0, 0, 0, 0);
    code.relocs[1] = reloc;

    snippet_reloc(&code, 0, 0, 0, 0);
    code.reloc_count = 1;
    free_trace(link_code(0)); /* what a first trace makes for good is there */
    code.reloc_count = 2;
    pp_pool_stats before = stats();
    pp_trace_desc desc = snippet_desc(&code);
    desc.flags = own ? PP_TRACE_OWN_TRAMPOLINES : 0;
    desc.name = "refused";
    desc.error = &reason;
    reason.reloc_index = 77;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), refusal->status);
    ck_assert_ptr_eq(trace, (pp_trace *) &code);
    ck_assert_int_eq(reason.status, refusal->status);
    ck_assert_uint_eq(reason.reloc_index, 1);
    ck_assert_msg(strstr(reason.text, refusal->text) != NULL, "%s: %s", refusal->what,
                  reason.text);
    ck_assert_msg(strstr(reason.text, "relocation 1 ") != NULL, "%s", reason.text);
    assert_same(&before);
    desc.error = NULL;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), refusal->status);
    assert_same(&before);
    stop();
}
END_TEST

START_TEST(descriptions_are_validated)
{
    start(false, false);
    snippet_begin(&code);
    snippet_call(&code, symbols[0]);
    snippet_end(&code);
    const pp_trace_desc good = snippet_desc(&code);
    pp_trace *trace = NULL;
    pp_trace_size size = { .size = sizeof size };
    pp_trace_desc desc;
    free_trace(link_code(0));
    pp_pool_stats before = stats();

#define REFUSED(expected, ...) \
    do { \
        desc = good; \
        __VA_ARGS__; \
        ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), expected); \
        ck_assert_int_eq(pp_trace_measure(pool, &desc, &size), expected); \
        ck_assert_ptr_null(trace); \
    } while (0)

    REFUSED(PP_E_ARG, desc.size = 0);
    REFUSED(PP_E_ARG, desc.size--);
    REFUSED(PP_E_ARG, desc.code = NULL);
    REFUSED(PP_E_ARG, desc.code_size = 0);
    REFUSED(PP_E_NOMEM, desc.code_size = SIZE_MAX);
    REFUSED(PP_E_NOMEM, desc.code_size = SIZE_MAX / 2 + 1);
    REFUSED(PP_E_NOMEM, desc.data = &desc; desc.data_size = SIZE_MAX);
    REFUSED(PP_E_ARG, desc.data_size = 1);
    REFUSED(PP_E_ARG, desc.align = 8);
    REFUSED(PP_E_ARG, desc.align = 24);
    REFUSED(PP_E_ARG, desc.align = 131072);
    REFUSED(PP_E_ARG, desc.data_align = 3);
    REFUSED(PP_E_ARG, desc.data_align = 8192);
    REFUSED(PP_E_ARG, desc.relocs = NULL);
    REFUSED(PP_E_ARG, desc.entry = code.size);
    REFUSED(PP_E_ARG, desc.entry = SIZE_MAX);
    REFUSED(PP_E_ARG, desc.flags = 2);
    REFUSED(PP_E_ARG, desc.flags = UINT32_MAX);
    REFUSED(PP_E_ARG, desc.frame = &(pp_frame_rule) { .size = 1 });
    if (isa_host.code_align > 1)
        REFUSED(PP_E_ARG, desc.entry = 2);
    desc = good;
    ck_assert_int_eq(pp_trace_link(NULL, &desc, &trace), PP_E_ARG);
    ck_assert_int_eq(pp_trace_link(pool, NULL, &trace), PP_E_ARG);
    ck_assert_int_eq(pp_trace_link(pool, &desc, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_trace_measure(pool, &desc, NULL), PP_E_ARG);
    size.size = 4;
    ck_assert_int_eq(pp_trace_measure(pool, &desc, &size), PP_E_ARG);
    assert_same(&before);
    stop();
}
END_TEST

/* A record that the first instructions make where the rule has none. */
START_TEST(code_that_contradicts_its_rule_is_refused)
{
#if defined __x86_64__
    static const uint8_t bytes[] = { 0x55, 0x48, 0x89, 0xe5, 0xc9, 0xc3 };
    static const uint32_t wrong = 0, right = 16;
#else
    static const uint32_t bytes[] = { 0xa9be7bfd, 0x910003fd, 0xa8c27bfd, 0xd65f03c0 };
    static const uint32_t wrong = 16, right = 32;
#endif
    pp_trace *trace = NULL;
    start(false, false);
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD, .cfa_offset = wrong };
    pp_trace_desc desc = { .size = sizeof desc, .code = bytes, .code_size = sizeof bytes,
                           .frame = &rule, .error = &reason };
#if !defined __x86_64__
    pp_pool_stats before = stats();
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_E_ARG);
    ck_assert_str_eq(reason.text, "frame.cfa_offset: 16, but the code's frame record is 32 bytes "
                                  "below the caller's SP");
    assert_same(&before);
#endif
    rule.cfa_offset = right;
    ck_assert_msg(pp_trace_link(pool, &desc, &trace) == PP_OK, "%s", reason.text);
    free_trace(trace);
    stop();
}
END_TEST

START_TEST(a_trace_larger_than_a_region_is_refused)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) target_0 },
                                .region_bytes = 2 << 20 };
    pp_trace *trace = NULL;

    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    uint8_t *bytes = calloc(1, 4 << 20);
    pp_trace_desc desc = { .size = sizeof desc, .code = bytes, .code_size = 4 << 20 };
    pp_trace_size size = { .size = sizeof size };
    pp_pool_stats before = stats();
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_E_NOMEM);
    ck_assert_int_eq(pp_trace_measure(pool, &desc, &size), PP_E_NOMEM);
    assert_same(&before);
    desc.code_size = 512 << 10; /* less than half: islands may lie in the middle */
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    free(bytes);
    stop();
}
END_TEST

/* From here on the kernel refuses the pool's writes of code.  False: it does not (an emulator). */
static bool refuse_writes(pp_wx wx)
{
    if (wx == PP_WX_REMAP) { /* the end of a write maps the file again */
        const pp_fault script = { .call = PP_FAULT_MMAP, .first = 1 };
        return pp_fault_set(&script, 1) == PP_OK;
    }
    /* The start of a write makes private pages writable, which count as data. */
    const struct rlimit none = { 0, 0 };
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    void *probe = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(probe, MAP_FAILED);
    ck_assert_int_eq(setrlimit(RLIMIT_DATA, &none), 0);
    return mprotect(probe, page, PROT_READ | PROT_WRITE) != 0;
}

START_TEST(what_cannot_be_written_leaves_nothing)
{
    pp_wx wx = _i == 0 ? PP_WX_REMAP : PP_WX_FLIP;
    pp_trace *trace, *refused = NULL;
    if (SANITIZED) /* what is refused to the library is refused to the sanitizer, too */
        return;
    pp_reservation reservation = { .size = sizeof reservation };
    pp_trace_size size = { .size = sizeof size };

    pool = open_pool(false, false, wx);
    define_targets();
    snippet_begin(&code);
    snippet_call(&code, symbols[0]);
    snippet_end(&code);
    pp_trace_desc desc = snippet_desc(&code);
    desc.error = &reason;
    trace = link_code(0);
    free_trace(link_code(0)); /* metadata for a second one is there */
    if (refuse_writes(wx)) {
        pp_pool_stats before = stats();
        ck_assert_int_eq(pp_trace_measure(pool, &desc, &size), PP_OK);
        assert_same(&before);
        for (int i = 0; i < 3; i++) {
            ck_assert_int_ne(pp_trace_link(pool, &desc, &refused), PP_OK);
            ck_assert_str_ne(reason.system_call, "");
            assert_same(&before);
        }
        if (pp_trace_reserve(pool, 16, NULL, &reservation, &reason) == PP_OK) {
            ck_assert_int_ne(pp_trace_commit(pool, &reservation, 16, NULL, &refused), PP_OK);
            ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_OK);
        }
        assert_same(&before);
        run(trace);
        ck_assert_uint_eq(atomic_load(&hits[0]), 1);
    }
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace_refusals");
    TCase *tests = tcase_create("trace_refusals");
    tcase_set_timeout(tests, 20);
    tcase_add_loop_test(tests, a_refused_relocation_is_named_and_leaves_nothing, 0,
                        2 * (int) (sizeof refusals / sizeof *refusals));
    tcase_add_test(tests, descriptions_are_validated);
    tcase_add_test(tests, code_that_contradicts_its_rule_is_refused);
    tcase_add_test(tests, a_trace_larger_than_a_region_is_refused);
    tcase_add_loop_test(tests, what_cannot_be_written_leaves_nothing, 0, 2);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
