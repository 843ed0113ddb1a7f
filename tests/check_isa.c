/* SPDX-License-Identifier: MIT */
/* Trampolines and decoders of both architectures against the assembler's bytes. */
#include <config.h>

#include "isa/isa.h"

#include "code.h"

#include <check.h>
#include <string.h>

/* ---- the tables themselves ----------------------------------------------- */

START_TEST(architectures_are_found_by_name)
{
    ck_assert_ptr_eq(isa_find(PP_ARCH_X86_64), &isa_x86_64);
    ck_assert_ptr_eq(isa_find(PP_ARCH_AARCH64), &isa_aarch64);
    ck_assert_ptr_eq(isa_find(PP_ARCH_HOST), &isa_host);
    ck_assert_ptr_null(isa_find((pp_arch) 3));
    ck_assert_ptr_null(isa_find((pp_arch) -1));
}
END_TEST

/* ---- trampolines -------------------------------------------------------- */

static const struct trampoline {
    const struct isa *isa;
    enum trampoline_shape shape;
    bool pad;
    int64_t literal; /* from CODE_PLACE */
    struct code code; /* no line: the literal is out of reach */
} trampolines[] = {
    { &isa_x86_64, TRAMPOLINE_NEAR, false, 6, { "jmp *0(%rip)", "ff 25 00 00 00 00" } },
    { &isa_x86_64, TRAMPOLINE_NEAR, false, 0x20, { "jmp *0x1a(%rip)", "ff 25 1a 00 00 00" } },
    { &isa_x86_64, TRAMPOLINE_NEAR, true, 0x20,
      { "endbr64; jmp *0x16(%rip)", "f3 0f 1e fa ff 25 16 00 00 00" } },
    { &isa_x86_64, TRAMPOLINE_NEAR, false, -0x7ffffffa,
      { "jmp *-0x80000000(%rip)", "ff 25 00 00 00 80" } },
    { &isa_x86_64, TRAMPOLINE_NEAR, false, -0x7ffffffb, { NULL } },
    { &isa_x86_64, TRAMPOLINE_NEAR, false, 0x80000005,
      { "jmp *0x7fffffff(%rip)", "ff 25 ff ff ff 7f" } },
    { &isa_x86_64, TRAMPOLINE_NEAR, false, 0x80000006, { NULL } },
    { &isa_x86_64, TRAMPOLINE_NEAR, true, 0x80000009,
      { "endbr64; jmp *0x7fffffff(%rip)", "f3 0f 1e fa ff 25 ff ff ff 7f" } },
    { &isa_x86_64, TRAMPOLINE_NEAR, true, 0x8000000a, { NULL } },
    { &isa_x86_64, TRAMPOLINE_ISLAND, false, 0x10000,
      { "jmp *0xfffa(%rip); int3; int3", "ff 25 fa ff 00 00 cc cc" } },
    { &isa_x86_64, TRAMPOLINE_ISLAND, true, 0x10000,
      { "endbr64; jmp *0xfff6(%rip); int3; int3; int3; int3; int3; int3",
        "f3 0f 1e fa ff 25 f6 ff 00 00 cc cc cc cc cc cc" } },
    { &isa_x86_64, TRAMPOLINE_ISLAND, false, -0x7ffffffb, { NULL } },
    { &isa_aarch64, TRAMPOLINE_NEAR, false, 8, { "ldr x16, .+8; br x16", "50000058 00021fd6" } },
    { &isa_aarch64, TRAMPOLINE_NEAR, true, 16,
      { "bti c; ldr x16, .+12; br x16", "5f2403d5 70000058 00021fd6" } },
    { &isa_aarch64, TRAMPOLINE_NEAR, false, 0xffffc,
      { "ldr x16, .+0xffffc; br x16", "f0ff7f58 00021fd6" } },
    { &isa_aarch64, TRAMPOLINE_NEAR, false, 0x100000, { NULL } },
    { &isa_aarch64, TRAMPOLINE_NEAR, true, 0x100000,
      { "bti c; ldr x16, .+0xffffc; br x16", "5f2403d5 f0ff7f58 00021fd6" } },
    { &isa_aarch64, TRAMPOLINE_NEAR, true, 0x100004, { NULL } },
    { &isa_aarch64, TRAMPOLINE_NEAR, false, -0x100000,
      { "ldr x16, .-0x100000; br x16", "10008058 00021fd6" } },
    { &isa_aarch64, TRAMPOLINE_NEAR, false, -0x100004, { NULL } },
    { &isa_aarch64, TRAMPOLINE_NEAR, false, 0x1002, { NULL } },
    { &isa_aarch64, TRAMPOLINE_ISLAND, false, 0x3038,
      { "adrp x16, .+0x3000; ldr x16, [x16, #0x38]; br x16", "100000f0 101e40f9 00021fd6" } },
    { &isa_aarch64, TRAMPOLINE_ISLAND, true, 0x3ff8,
      { "bti c; adrp x16, .+0x3000; ldr x16, [x16, #0xff8]; br x16",
        "5f2403d5 100000f0 10fe47f9 00021fd6" } },
    { &isa_aarch64, TRAMPOLINE_ISLAND, false, 0xfffffff8,
      { "adrp x16, .+0xfffff000; ldr x16, [x16, #0xff8]; br x16", "f0ff7ff0 10fe47f9 00021fd6" } },
    { &isa_aarch64, TRAMPOLINE_ISLAND, false, 0x100000000, { NULL } },
    { &isa_aarch64, TRAMPOLINE_ISLAND, false, -0x100000000,
      { "adrp x16, .-0x100000000; ldr x16, [x16]; br x16", "10008090 100240f9 00021fd6" } },
    { &isa_aarch64, TRAMPOLINE_ISLAND, false, -0x100000008, { NULL } },
    { &isa_aarch64, TRAMPOLINE_ISLAND, false, 0x3004, { NULL } },
};

START_TEST(trampolines_are_what_the_assembler_makes)
{
    const struct trampoline *t = &trampolines[_i];
    uint8_t bytes[32], expected[CODE_MAX];

    memset(bytes, 0xa5, sizeof bytes);
    size_t announced = t->isa->trampoline_size(t->shape, t->pad);
    size_t size = t->isa->trampoline_encode(t->shape, t->pad, bytes, CODE_PLACE,
                                            CODE_PLACE + (uint64_t) t->literal);
    ck_assert_uint_eq(size, code_bytes(&t->code, expected));
    if (t->code.line != NULL) {
        ck_assert_uint_eq(size, announced);
        ck_assert_msg(memcmp(bytes, expected, size) == 0, "%s", t->code.line);
    }
    for (size_t i = size; i < sizeof bytes; i++)
        ck_assert_uint_eq(bytes[i], 0xa5);
}
END_TEST

/* A literal closer than literal_range is in reach of every near trampoline. */
START_TEST(near_trampolines_reach_what_the_table_says)
{
    static const struct isa *const isas[] = { &isa_x86_64, &isa_aarch64 };
    uint8_t bytes[32];

    for (size_t i = 0; i < 2; i++) {
        uint64_t reach = isas[i]->literal_range - 8;
        for (int pad = 0; pad < 2; pad++) {
            ck_assert_uint_ne(isas[i]->trampoline_encode(TRAMPOLINE_NEAR, pad, bytes, CODE_PLACE,
                                                         CODE_PLACE + reach), 0);
            ck_assert_uint_ne(isas[i]->trampoline_encode(TRAMPOLINE_NEAR, pad, bytes, CODE_PLACE,
                                                         CODE_PLACE - reach + 16), 0);
        }
    }
}
END_TEST

/* ---- return addresses --------------------------------------------------- */

static const struct call {
    const struct isa *isa;
    bool call;
    struct code code; /* the last instruction ends where the question is asked */
} calls[] = {
    { &isa_x86_64, true, { "call .+0x1234", "e8 2f 12 00 00" } },
    { &isa_x86_64, true, { "addr32; call .+0x1234", "67 e8 2f 12 00 00" } },
    { &isa_x86_64, true, { "call *%rax", "ff d0" } },
    { &isa_x86_64, true, { "call *%r11", "41 ff d3" } },
    { &isa_x86_64, true, { "notrack call *%rax", "3e ff d0" } },
    { &isa_x86_64, true, { "call *(%rax)", "ff 10" } },
    { &isa_x86_64, true, { "call *(%r13,%r14,8)", "43 ff 54 f5 00" } },
    { &isa_x86_64, true, { "call *(%rsp)", "ff 14 24" } },
    { &isa_x86_64, true, { "call *(%rax,%rbx,2)", "ff 14 58" } },
    { &isa_x86_64, true, { "call *8(%rbp)", "ff 55 08" } },
    { &isa_x86_64, true, { "call *8(%r12)", "41 ff 54 24 08" } },
    { &isa_x86_64, true, { "call *0x12345678(%rax)", "ff 90 78 56 34 12" } },
    { &isa_x86_64, true, { "call *0x12345678(%r12,%rax,4)", "41 ff 94 84 78 56 34 12" } },
    { &isa_x86_64, true, { "call *0x12345678(%rip)", "ff 15 78 56 34 12" } },
    { &isa_x86_64, true, { "call *0x12345678", "ff 14 25 78 56 34 12" } },
    { &isa_x86_64, true, { "call *0x12345678(,%r9,8)", "42 ff 14 cd 78 56 34 12" } },
    { &isa_x86_64, false, { "jmp .+0x1234", "e9 2f 12 00 00" } },
    { &isa_x86_64, false, { "jmp *%r11", "41 ff e3" } },
    { &isa_x86_64, false, { "jmp *(%rax)", "ff 20" } },
    { &isa_x86_64, false, { "jmp *0x12345678(%rip)", "ff 25 78 56 34 12" } },
    { &isa_x86_64, false, { "push 8(%rax)", "ff 70 08" } },
    { &isa_x86_64, false, { "incl (%rax)", "ff 00" } },
    { &isa_x86_64, false, { "lcall *(%rax)", "ff 18" } },
    { &isa_x86_64, false, { "call *%rax; nop", "ff d0 90" } },
    { &isa_x86_64, false, { "mov $0x12345678, %eax", "b8 78 56 34 12" } },
    { &isa_aarch64, true, { "bl .+0x1234", "8d040094" } },
    { &isa_aarch64, true, { "bl .-0x1234", "73fbff97" } },
    { &isa_aarch64, true, { "blr x0", "00003fd6" } },
    { &isa_aarch64, true, { "blr x30", "c0033fd6" } },
    { &isa_aarch64, true, { "blraa x1, x2", "22083fd7" } },
    { &isa_aarch64, true, { "blraa x1, sp", "3f083fd7" } },
    { &isa_aarch64, true, { "blrab x1, x2", "220c3fd7" } },
    { &isa_aarch64, true, { "blraaz x3", "7f083fd6" } },
    { &isa_aarch64, true, { "blrabz x30", "df0f3fd6" } },
    { &isa_aarch64, false, { "b .+0x1234", "8d040014" } },
    { &isa_aarch64, false, { "br x16", "00021fd6" } },
    { &isa_aarch64, false, { "braa x1, x2", "22081fd7" } },
    { &isa_aarch64, false, { "ret", "c0035fd6" } },
    { &isa_aarch64, false, { "retaa", "ff0b5fd6" } },
    { &isa_aarch64, false, { "bl .+8; nop", "02000094 1f2003d5" } },
};

START_TEST(calls_are_recognized_from_behind)
{
    const struct call *call = &calls[_i];
    uint8_t bytes[CODE_MAX];
    size_t size = code_bytes(&call->code, bytes);
    const uint8_t *end = bytes + size;

    ck_assert_msg(call->isa->is_after_call(end, size) == call->call, "%s", call->code.line);
    /* One byte less than the instruction is not enough to see it, none never is. */
    ck_assert(!call->isa->is_after_call(end, 0));
    ck_assert(!call->isa->is_after_call(end, 1));
}
END_TEST

/* Exactly the bytes that may be read are read: the rest is another call. */
START_TEST(no_byte_before_the_available_ones_counts)
{
    static const uint8_t call[] = { 0xe8, 1, 2, 3, 4 }, memory[] = { 0xff, 0x94, 0x24, 1, 2, 3, 4 };
    static const uint8_t bl[] = { 0x01, 0x00, 0x00, 0x94 };

    for (size_t available = 0; available <= sizeof call; available++)
        ck_assert(isa_x86_64.is_after_call(call + sizeof call, available) == (available == 5));
    for (size_t available = 0; available <= sizeof memory; available++)
        ck_assert(isa_x86_64.is_after_call(memory + sizeof memory, available) == (available == 7));
    for (size_t available = 0; available <= sizeof bl; available++)
        ck_assert(isa_aarch64.is_after_call(bl + sizeof bl, available) == (available == 4));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("isa");
    TCase *tests = tcase_create("isa");
    tcase_add_test(tests, architectures_are_found_by_name);
    tcase_add_loop_test(tests, trampolines_are_what_the_assembler_makes, 0,
                        sizeof trampolines / sizeof *trampolines);
    tcase_add_test(tests, near_trampolines_reach_what_the_table_says);
    tcase_add_loop_test(tests, calls_are_recognized_from_behind, 0, sizeof calls / sizeof *calls);
    tcase_add_test(tests, no_byte_before_the_available_ones_counts);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
