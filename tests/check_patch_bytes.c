/* SPDX-License-Identifier: MIT */
/* Bytes to patch in, and what is known of those that are there; for both architectures. */
#include <config.h>

#include "isa/patch.h"

#include <patchpoint.h>

#include <check.h>
#include <string.h>

START_TEST(nops_are_one_instruction)
{
    uint8_t bytes[16];
    for (size_t length = 0; length <= 17; length++) {
        memset(bytes, 0x5a, sizeof bytes);
        pp_status status = pp_emit_nop(PP_ARCH_X86_64, length, bytes, 15);
        ck_assert_int_eq(status, length >= 1 && length <= 15 ? PP_OK : PP_E_ARG);
        if (status != PP_OK)
            continue;
        ck_assert_uint_eq(bytes[length], 0x5a);
        ck_assert_uint_eq(x86_64_instruction_length(bytes, 16), length);
        ck_assert_uint_eq(x86_64_instruction_length(bytes, length), length);
        ck_assert_uint_eq(x86_64_instruction_length(bytes, length - 1), 0);
        ck_assert_int_eq(pp_emit_nop(PP_ARCH_X86_64, length, bytes, length - 1), PP_E_RANGE);
    }
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_AARCH64, 5, bytes, 16), PP_E_ARG);
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_AARCH64, 4, bytes, 16), PP_OK);
    ck_assert(aarch64_is_patchable(0xd503201f));
    ck_assert_int_eq(pp_emit_nop((pp_arch) 77, 4, bytes, 16), PP_E_ARG);
    ck_assert_uint_eq(pp_patch_padding(PP_ARCH_AARCH64, 5, 4), 3);
    ck_assert_uint_eq(pp_patch_padding(PP_ARCH_AARCH64, 8, 4), 0);
    ck_assert_uint_eq(pp_patch_padding(PP_ARCH_AARCH64, 8, 5), PP_PATCH_NO_PADDING);
    ck_assert_uint_eq(pp_patch_padding(PP_ARCH_X86_64, 0, 9), PP_PATCH_NO_PADDING);
}
END_TEST

START_TEST(jumps_reach_as_far_as_they_do)
{
    static const struct { pp_arch arch; int64_t distance; pp_status status; } rows[] = {
        { PP_ARCH_X86_64, INT64_C(0x7fffffff) + 5, PP_OK },
        { PP_ARCH_X86_64, INT64_C(0x7fffffff) + 6, PP_E_RANGE },
        { PP_ARCH_X86_64, -INT64_C(0x80000000) + 5, PP_OK },
        { PP_ARCH_X86_64, -INT64_C(0x80000000) + 4, PP_E_RANGE },
        { PP_ARCH_AARCH64, 0x7fffffc, PP_OK },
        { PP_ARCH_AARCH64, 0x8000000, PP_E_RANGE },
        { PP_ARCH_AARCH64, -0x8000000, PP_OK },
        { PP_ARCH_AARCH64, -0x8000004, PP_E_RANGE },
        { PP_ARCH_AARCH64, 2, PP_E_ARG },
    };
    const uintptr_t from = UINT64_C(0x100000000000);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t bytes[16] = { 0 };
        size_t written = 99;
        ck_assert_int_eq(pp_emit_jump(rows[i].arch, (void *) from,
                                      (void *) (from + (uintptr_t) rows[i].distance), bytes, 16,
                                      &written), rows[i].status);
        if (rows[i].status != PP_OK) {
            ck_assert_uint_eq(written, 99);
            continue;
        }
        uint32_t word;
        memcpy(&word, bytes + (rows[i].arch == PP_ARCH_X86_64), 4);
        if (rows[i].arch == PP_ARCH_X86_64)
            ck_assert_int_eq((int64_t) (int32_t) word + 5, rows[i].distance);
        else
            ck_assert_int_eq(((int32_t) (word << 6) >> 6) * INT64_C(4), rows[i].distance);
    }
}
END_TEST

/* What assemblers make of it; a length of 0 for what is not known, or is cut off. */
START_TEST(lengths_are_right_or_unknown)
{
    static const struct { const char *bytes; size_t size, length; } rows[] = {
        { "\x90", 1, 1 }, { "\x66\x90", 2, 2 }, { "\xe9\0\0\0\0", 5, 5 }, { "\xe8\0\0\0\0", 5, 5 },
        { "\xeb\x05", 2, 2 }, { "\x74\x05", 2, 2 }, { "\x0f\x84\0\0\0\0", 6, 6 },
        { "\xff\x25\0\0\0\0", 6, 6 }, { "\xff\x15\0\0\0\0", 6, 6 }, { "\xff\xe0", 2, 0 },
        { "\xb8\1\0\0\0", 5, 5 }, { "\x41\xbb\1\0\0\0", 6, 6 },
        { "\x49\xbb\1\0\0\0\0\0\0\0", 10, 10 }, { "\x49\xbb\1\0\0\0\0\0\0", 9, 0 },
        { "\xa8\1", 2, 2 }, { "\xa9\1\0\0\0", 5, 5 }, { "\x3d\1\0\0\0", 5, 5 },
        { "\xc3", 1, 1 }, { "\xcc", 1, 1 }, { "\x0f\x0b", 2, 2 }, { "\xf3\x0f\x1e\xfa", 4, 4 },
        { "\xf3\x0f\x1e\xfb", 4, 0 }, { "\xf3\x90", 2, 0 }, { "\x66\xe9\0\0\0\0", 6, 0 },
        { "\x0f\x1f\x44\0\0", 5, 5 }, { "\x0f\x1f\x4c\0\0", 5, 0 }, { "\x0f\x1f\xc0", 3, 3 },
        { "\x0f\x1f\x05\0\0\0\0", 7, 7 }, { "\x0f\x1f\x04\x25\0\0\0\0", 8, 8 },
        { "\x0f\x1f\x04\x24", 4, 4 }, { "\x2e\x2e\x66\x0f\x1f\x84\0\0\0\0\0", 11, 11 },
        { "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90", 16, 0 },
        { "\xe9\0\0\0", 4, 0 }, { "\x0f", 1, 0 }, { "\x66", 1, 0 }, { "\x41", 1, 0 },
        { "\xff", 1, 0 }, { "\x48\x89\xe5", 3, 0 }, { "\x66\xb8\1\0", 4, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ck_assert_msg(x86_64_instruction_length((const uint8_t *) rows[i].bytes, rows[i].size) ==
                          rows[i].length, "row %zu", i);
    static const uint32_t in[] = { 0x14000001, 0x94000001, 0xd503201f, 0xd4200000, 0xd43fffe0,
                                   0xd4000001, 0xd4000002, 0xd4000003, 0xd5033fdf };
    static const uint32_t out[] = { 0x54000040, 0xb4000040, 0x36000040, 0x58000040, 0x90000000,
                                    0xd65f03c0, 0xd61f0200, 0xd503245f, 0xd5033bbf, 0xd4400000,
                                    0xd503205f, 0x00000000 };
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        ck_assert_msg(aarch64_is_patchable(in[i]), "%#x", in[i]);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        ck_assert_msg(!aarch64_is_patchable(out[i]), "%#x", out[i]);
}
END_TEST

/* One NOP in many encodings, and what only looks like one. */
START_TEST(nops_are_known_by_their_bytes)
{
    static const struct { const char *bytes; size_t size, length; } rows[] = {
        { "\x0f\x1f\x44\0\x08", 5, 5 }, { "\x3e\x0f\x1f\x44\0\0", 6, 6 },
        { "\x26\x36\x64\x65\x90", 5, 5 }, { "\x48\x0f\x1f\x40\0", 5, 5 },
        { "\x66\x4f\x0f\x1f\xc0", 5, 5 }, { "\x41\x90", 2, 0 }, { "\x48\x66\x90", 3, 0 },
        { "\xf3\x90", 2, 0 }, { "\xf2\x0f\x1f\xc0", 4, 0 }, { "\x0f\x1f\x48\0", 4, 0 },
        { "\x0f\x1e\xfa", 3, 0 }, { "\x0f\x18\x40\0", 4, 0 }, { "\x67\x90", 2, 0 },
        { "\x66\x66", 2, 0 }, { "\x48", 1, 0 }, { "\x48\x0f", 2, 0 }, { "\x0f\x1f\x44\0", 4, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ck_assert_msg(x86_64_nop_length((const uint8_t *) rows[i].bytes, rows[i].size) ==
                          rows[i].length, "row %zu", i);
    ck_assert_uint_eq(x86_64_nop_length((const uint8_t *) "", 0), 0);
}
END_TEST

/* Heads of every NOP that is emitted: those behind which there is a NOP. */
START_TEST(heads_of_nops)
{
    uint8_t bytes[16];
    for (size_t length = 1; length <= 15; length++) {
        x86_64_nop(bytes, length);
        for (size_t head = 1; head <= length; head++) {
            size_t rest = length - head;
            bool whole = rest == 0 || x86_64_nop_length(bytes + head, rest) == rest;
            ck_assert_int_eq(x86_64_is_nop_head(bytes, head, length), whole);
        }
        ck_assert(!x86_64_is_nop_head(bytes, length + 1, 16));
        ck_assert(!x86_64_is_nop_head(bytes, length, length - 1));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("patch_bytes");
    TCase *tests = tcase_create("patch_bytes");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, nops_are_one_instruction);
    tcase_add_test(tests, jumps_reach_as_far_as_they_do);
    tcase_add_test(tests, lengths_are_right_or_unknown);
    tcase_add_test(tests, nops_are_known_by_their_bytes);
    tcase_add_test(tests, heads_of_nops);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
