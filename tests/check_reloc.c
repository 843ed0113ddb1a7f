/* SPDX-License-Identifier: MIT */
/*
 * Every relocation of both architectures at its exact limits: the last value
 * that fits gives the assembler's bytes, the first that does not is refused and
 * leaves the bytes alone; so are values that a scaled field cannot hold, and
 * instructions that the type does not apply to.
 */
#include <config.h>

#include "isa/isa.h"

#include "code.h"

#include <check.h>
#include <elf.h>
#include <string.h>

/* S is absolute, or counts from CODE_PLACE where the first byte of `before` stands. */
enum value { ABSOLUTE, RELATIVE };

static const struct limit {
    const struct isa *isa;
    uint16_t type;
    bool relax;
    uint8_t field;      /* offset of the field in the instruction */
    uint8_t step;       /* 1, or what S must be a multiple of */
    enum value value;
    int64_t addend;
    int64_t low, high;  /* extreme values of S */
    struct code before, at_low, at_high;
} limits[] = {
    /* x86-64: absolute */
    { &isa_x86_64, R_X86_64_32, false, 1, 1, ABSOLUTE, 0, 0, 0xffffffff,
      { "mov $0x5a5a5a5a, %eax", "b8 5a 5a 5a 5a" },
      { "mov $0, %eax", "b8 00 00 00 00" },
      { "mov $0xffffffff, %eax", "b8 ff ff ff ff" } },
    { &isa_x86_64, R_X86_64_32, false, 1, 1, ABSOLUTE, 16, -16, 0xffffffef,
      { "mov $0, %ecx", "b9 00 00 00 00" },
      { "mov $0, %ecx", "b9 00 00 00 00" },
      { "mov $0xffffffff, %ecx", "b9 ff ff ff ff" } },
    { &isa_x86_64, R_X86_64_32S, false, 3, 1, ABSOLUTE, 0, -0x80000000l, 0x7fffffff,
      { "movq $0, %rax", "48 c7 c0 00 00 00 00" },
      { "movq $-0x80000000, %rax", "48 c7 c0 00 00 00 80" },
      { "movq $0x7fffffff, %rax", "48 c7 c0 ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_32S, false, 4, 1, ABSOLUTE, -8, -0x7ffffff8l, 0x80000007,
      { "mov 0(,%rax,8), %rax", "48 8b 04 c5 00 00 00 00" },
      { "mov -0x80000000(,%rax,8), %rax", "48 8b 04 c5 00 00 00 80" },
      { "mov 0x7fffffff(,%rax,8), %rax", "48 8b 04 c5 ff ff ff 7f" } },
    /* x86-64: relative; S counts from the instruction's first byte */
    { &isa_x86_64, R_X86_64_PLT32, false, 1, 1, RELATIVE, -4, -0x7ffffffb, 0x80000004,
      { "call .+5", "e8 00 00 00 00" },
      { "call .-0x7ffffffb", "e8 00 00 00 80" },
      { "call .+0x80000004", "e8 ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_PLT32, false, 1, 1, RELATIVE, -4, -0x7ffffffb, 0x80000004,
      { "{disp32} jmp .+5", "e9 00 00 00 00" },
      { "jmp .-0x7ffffffb", "e9 00 00 00 80" },
      { "jmp .+0x80000004", "e9 ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_PLT32, false, 2, 1, RELATIVE, -4, -0x7ffffffa, 0x80000005,
      { "{disp32} jne .+6", "0f 85 00 00 00 00" },
      { "jne .-0x7ffffffa", "0f 85 00 00 00 80" },
      { "jne .+0x80000005", "0f 85 ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_PC32, false, 3, 1, RELATIVE, -4, -0x7ffffff9, 0x80000006,
      { "lea 0(%rip), %rax", "48 8d 05 00 00 00 00" },
      { "lea -0x80000000(%rip), %rax", "48 8d 05 00 00 00 80" },
      { "lea 0x7fffffff(%rip), %rax", "48 8d 05 ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_PC32, false, 2, 1, RELATIVE, -5, -0x7ffffff9, 0x80000006,
      { "cmpb $7, 0(%rip)", "80 3d 00 00 00 00 07" },
      { "cmpb $7, -0x80000000(%rip)", "80 3d 00 00 00 80 07" },
      { "cmpb $7, 0x7fffffff(%rip)", "80 3d ff ff ff 7f 07" } },
    { &isa_x86_64, R_X86_64_GOTPCREL, false, 3, 1, RELATIVE, -4, -0x7ffffff9, 0x80000006,
      { "mov 0(%rip), %r9", "4c 8b 0d 00 00 00 00" },
      { "mov -0x80000000(%rip), %r9", "4c 8b 0d 00 00 00 80" },
      { "mov 0x7fffffff(%rip), %r9", "4c 8b 0d ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_GOTPCRELX, false, 2, 1, RELATIVE, -4, -0x7ffffffa, 0x80000005,
      { "call *0(%rip)", "ff 15 00 00 00 00" },
      { "call *-0x80000000(%rip)", "ff 15 00 00 00 80" },
      { "call *0x7fffffff(%rip)", "ff 15 ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_REX_GOTPCRELX, false, 3, 1, RELATIVE, -4, -0x7ffffff9, 0x80000006,
      { "cmp 0(%rip), %rax", "48 3b 05 00 00 00 00" },
      { "cmp -0x80000000(%rip), %rax", "48 3b 05 00 00 00 80" },
      { "cmp 0x7fffffff(%rip), %rax", "48 3b 05 ff ff ff 7f" } },
    /* x86-64: relaxed */
    { &isa_x86_64, R_X86_64_GOTPCRELX, true, 2, 1, RELATIVE, -4, -0x7ffffffa, 0x80000005,
      { "mov 0(%rip), %eax", "8b 05 00 00 00 00" },
      { "lea -0x80000000(%rip), %eax", "8d 05 00 00 00 80" },
      { "lea 0x7fffffff(%rip), %eax", "8d 05 ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_REX_GOTPCRELX, true, 3, 1, RELATIVE, -4, -0x7ffffff9, 0x80000006,
      { "mov 0(%rip), %r15", "4c 8b 3d 00 00 00 00" },
      { "lea -0x80000000(%rip), %r15", "4c 8d 3d 00 00 00 80" },
      { "lea 0x7fffffff(%rip), %r15", "4c 8d 3d ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_GOTPCRELX, true, 2, 1, RELATIVE, -4, -0x7ffffffa, 0x80000005,
      { "call *0(%rip)", "ff 15 00 00 00 00" },
      { "addr32; call .-0x7ffffffb", "67 e8 00 00 00 80" },
      { "addr32; call .+0x80000004", "67 e8 ff ff ff 7f" } },
    { &isa_x86_64, R_X86_64_GOTPCRELX, true, 2, 1, RELATIVE, -4, -0x7ffffffb, 0x80000004,
      { "jmp *0(%rip)", "ff 25 00 00 00 00" },
      { "jmp .-0x7ffffffb; nop", "e9 00 00 00 80 90" },
      { "jmp .+0x80000004; nop", "e9 ff ff ff 7f 90" } },
    /* AArch64: data */
    { &isa_aarch64, R_AARCH64_ABS32, false, 0, 1, ABSOLUTE, 0, -0x80000000l, 0xffffffff,
      { ".word 0", "00000000" },
      { ".word 0x80000000", "00000080" },
      { ".word 0xffffffff", "ffffffff" } },
    { &isa_aarch64, R_AARCH64_PREL32, false, 0, 1, RELATIVE, 0, -0x80000000l, 0x7fffffff,
      { ".word 1", "01000000" },
      { ".word 0x80000000", "00000080" },
      { ".word 0x7fffffff", "ffffff7f" } },
    { &isa_aarch64, R_AARCH64_PREL32, false, 0, 1, RELATIVE, 8, -0x80000008l, 0x7ffffff7,
      { ".word 1", "01000000" },
      { ".word 0x80000000", "00000080" },
      { ".word 0x7fffffff", "ffffff7f" } },
    /* AArch64: branches */
    { &isa_aarch64, R_AARCH64_CALL26, false, 0, 4, RELATIVE, 0, -0x8000000, 0x7fffffc,
      { "bl .", "00000094" }, { "bl .-0x8000000", "00000096" }, { "bl .+0x7fffffc", "ffffff95" } },
    { &isa_aarch64, R_AARCH64_JUMP26, false, 0, 4, RELATIVE, 0, -0x8000000, 0x7fffffc,
      { "b .+64", "10000014" }, { "b .-0x8000000", "00000016" }, { "b .+0x7fffffc", "ffffff15" } },
    { &isa_aarch64, R_AARCH64_JUMP26, false, 0, 4, RELATIVE, 8, -0x8000008, 0x7fffff4,
      { "b .", "00000014" }, { "b .-0x8000000", "00000016" }, { "b .+0x7fffffc", "ffffff15" } },
    { &isa_aarch64, R_AARCH64_CONDBR19, false, 0, 4, RELATIVE, 0, -0x100000, 0xffffc,
      { "b.ne .", "01000054" },
      { "b.ne .-0x100000", "01008054" },
      { "b.ne .+0xffffc", "e1ff7f54" } },
    { &isa_aarch64, R_AARCH64_CONDBR19, false, 0, 4, RELATIVE, 0, -0x100000, 0xffffc,
      { "cbz x7, .", "070000b4" },
      { "cbz x7, .-0x100000", "070080b4" },
      { "cbz x7, .+0xffffc", "e7ff7fb4" } },
    { &isa_aarch64, R_AARCH64_CONDBR19, false, 0, 4, RELATIVE, 0, -0x100000, 0xffffc,
      { "cbnz w30, .", "1e000035" },
      { "cbnz w30, .-0x100000", "1e008035" },
      { "cbnz w30, .+0xffffc", "feff7f35" } },
    { &isa_aarch64, R_AARCH64_TSTBR14, false, 0, 4, RELATIVE, 0, -0x8000, 0x7ffc,
      { "tbz x3, #63, .", "0300f8b6" },
      { "tbz x3, #63, .-0x8000", "0300fcb6" },
      { "tbz x3, #63, .+0x7ffc", "e3fffbb6" } },
    { &isa_aarch64, R_AARCH64_TSTBR14, false, 0, 4, RELATIVE, 0, -0x8000, 0x7ffc,
      { "tbnz w3, #1, .", "03000837" },
      { "tbnz w3, #1, .-0x8000", "03000c37" },
      { "tbnz w3, #1, .+0x7ffc", "e3ff0b37" } },
    /* AArch64: addresses */
    { &isa_aarch64, R_AARCH64_ADR_PREL_LO21, false, 0, 1, RELATIVE, 0, -0x100000, 0xfffff,
      { "adr x5, .", "05000010" },
      { "adr x5, .-0x100000", "05008010" },
      { "adr x5, .+0xfffff", "e5ff7f70" } },
    { &isa_aarch64, R_AARCH64_LD_PREL_LO19, false, 0, 4, RELATIVE, 0, -0x100000, 0xffffc,
      { "ldr x5, .", "05000058" },
      { "ldr x5, .-0x100000", "05008058" },
      { "ldr x5, .+0xffffc", "e5ff7f58" } },
    { &isa_aarch64, R_AARCH64_LD_PREL_LO19, false, 0, 4, RELATIVE, 0, -0x100000, 0xffffc,
      { "ldr q31, .", "1f00009c" },
      { "ldr q31, .-0x100000", "1f00809c" },
      { "ldr q31, .+0xffffc", "ffff7f9c" } },
    { &isa_aarch64, R_AARCH64_LD_PREL_LO19, false, 0, 4, RELATIVE, 4, -0x100004, 0xffff8,
      { "ldrsw x1, .", "01000098" },
      { "ldrsw x1, .-0x100000", "01008098" },
      { "ldrsw x1, .+0xffffc", "e1ff7f98" } },
    { &isa_aarch64, R_AARCH64_ADR_PREL_PG_HI21, false, 0, 1, RELATIVE, 0, -0x100000000,
      0xffffffff, { "adrp x30, .", "1e000090" }, { "adrp x30, .-0x100000000", "1e008090" },
      { "adrp x30, .+0xfffff000", "feff7ff0" } },
    { &isa_aarch64, R_AARCH64_ADR_PREL_PG_HI21, false, 0, 1, RELATIVE, 0x123, -0x100000123,
      0xfffffedc, { "adrp x0, .", "00000090" },
        { "adrp x0, .-0x100000000", "00008090" },
        { "adrp x0, .+0xfffff000", "e0ff7ff0" } },
    { &isa_aarch64, R_AARCH64_ADR_GOT_PAGE, false, 0, 1, RELATIVE, 0, -0x100000000, 0xffffffff,
      { "adrp x1, .", "01000090" },
      { "adrp x1, .-0x100000000", "01008090" },
      { "adrp x1, .+0xfffff000", "e1ff7ff0" } },
    { &isa_aarch64, R_AARCH64_ADR_GOT_PAGE, true, 0, 1, RELATIVE, 0, -0x100000000, 0xffffffff,
      { "adrp x1, .", "01000090" },
      { "adrp x1, .-0x100000000", "01008090" },
      { "adrp x1, .+0xfffff000", "e1ff7ff0" } },
    /* AArch64: groups of 16 bits, the checked ones */
    { &isa_aarch64, R_AARCH64_MOVW_UABS_G0, false, 0, 1, ABSOLUTE, 0, 0, 0xffff,
      { "movz x4, #0x5a5a", "444b8bd2" },
      { "movz x4, #0", "040080d2" },
      { "movz x4, #0xffff", "e4ff9fd2" } },
    { &isa_aarch64, R_AARCH64_MOVW_UABS_G0, false, 0, 1, ABSOLUTE, 1, -1, 0xfffe,
      { "movk w4, #0x5a5a", "444b8b72" },
      { "movk w4, #0", "04008072" },
      { "movk w4, #0xffff", "e4ff9f72" } },
    { &isa_aarch64, R_AARCH64_MOVW_UABS_G1, false, 0, 1, ABSOLUTE, 0, 0, 0xffffffff,
      { "movz w4, #0x5a5a, lsl #16", "444bab52" }, { "movz w4, #0, lsl #16", "0400a052" },
      { "movz w4, #0xffff, lsl #16", "e4ffbf52" } },
    { &isa_aarch64, R_AARCH64_MOVW_UABS_G2, false, 0, 1, ABSOLUTE, 0, 0, 0xffffffffffff,
      { "movk x4, #0x5a5a, lsl #32", "444bcbf2" }, { "movk x4, #0, lsl #32", "0400c0f2" },
      { "movk x4, #0xffff, lsl #32", "e4ffdff2" } },
};

/* Apply at S, with other bytes around; `expected` has to come out. */
static enum reloc_result apply(const struct limit *limit, int64_t symbol,
                               const struct code *expected)
{
    uint8_t buffer[CODE_MAX + 16], bytes[CODE_MAX];
    size_t size = code_bytes(&limit->before, bytes);

    memset(buffer, 0xa5, sizeof buffer);
    memcpy(buffer + 8, bytes, size);
    uint64_t value = (uint64_t) symbol + (limit->value == RELATIVE ? CODE_PLACE : 0);
    uint8_t *field = buffer + 8 + limit->field;
    uint64_t place = CODE_PLACE + limit->field;
    enum reloc_result result =
        limit->relax ? limit->isa->reloc_relax(limit->type, field, place, value, limit->addend)
                     : limit->isa->reloc_apply(limit->type, field, place, value, limit->addend);

    ck_assert_uint_eq(code_bytes(expected, bytes), size);
    ck_assert_msg(memcmp(buffer + 8, bytes, size) == 0, "%s: S %+lld is not %s",
                  limit->before.line, (long long) symbol, expected->line);
    for (size_t i = 0; i < 8; i++) {
        ck_assert_uint_eq(buffer[i], 0xa5);
        ck_assert_uint_eq(buffer[8 + size + i], 0xa5);
    }
    return result;
}

START_TEST(fields_hold_their_extremes_and_nothing_beyond)
{
    const struct limit *limit = &limits[_i];

    ck_assert_int_eq(apply(limit, limit->low, &limit->at_low), RELOC_OK);
    ck_assert_int_eq(apply(limit, limit->high, &limit->at_high), RELOC_OK);
    ck_assert_int_eq(apply(limit, limit->low - limit->step, &limit->before), RELOC_OUT_OF_RANGE);
    ck_assert_int_eq(apply(limit, limit->high + limit->step, &limit->before), RELOC_OUT_OF_RANGE);
    ck_assert_int_eq(apply(limit, limit->low - ((int64_t) 1 << 50), &limit->before),
                     RELOC_OUT_OF_RANGE);
    ck_assert_int_eq(apply(limit, limit->high + ((int64_t) 1 << 50), &limit->before),
                     RELOC_OUT_OF_RANGE);
    for (int64_t odd = 1; odd < limit->step; odd++) {
        ck_assert_int_eq(apply(limit, limit->low + odd, &limit->before), RELOC_MISALIGNED);
        ck_assert_int_eq(apply(limit, limit->high - odd, &limit->before), RELOC_MISALIGNED);
    }
}
END_TEST

/* ---- fields without limits ------------------------------------------------- */

static const struct exact {
    const struct isa *isa;
    uint16_t type;
    bool relax;
    uint8_t field;
    uint64_t place, symbol;
    int64_t addend;
    enum reloc_result result;
    struct code before, after; /* no `after`: unchanged */
} exacts[] = {
    { &isa_x86_64, R_X86_64_64, false, 2, 0, 0x8123456789abcdef, 0x10, RELOC_OK,
      { "movabs $0x5a5a5a5a5a5a5a5a, %r10", "49 ba 5a 5a 5a 5a 5a 5a 5a 5a" },
      { "movabs $0x8123456789abcdff, %r10", "49 ba ff cd ab 89 67 45 23 81" } },
    { &isa_x86_64, R_X86_64_64, false, 2, 0, 0, -1, RELOC_OK,
      { "movabs $0x5a5a5a5a5a5a5a5a, %r10", "49 ba 5a 5a 5a 5a 5a 5a 5a 5a" },
      { "movabs $-1, %r10", "49 ba ff ff ff ff ff ff ff ff" } },
    { &isa_x86_64, R_X86_64_PC64, false, 0, 0x7fff00000000, 0x1000, 8, RELOC_OK,
      { ".quad 0", "00 00 00 00 00 00 00 00" },
      { ".quad -0x7ffeffffeff8", "08 10 00 00 01 80 ff ff" } },
    /* The sum wraps: one below address 0 is the last address. */
    { &isa_x86_64, R_X86_64_32S, false, 3, 0, 0xffffffff80000000, 0, RELOC_OK,
      { "movq $0, %rax", "48 c7 c0 00 00 00 00" },
      { "movq $-0x80000000, %rax", "48 c7 c0 00 00 00 80" } },
    { &isa_x86_64, R_X86_64_PC32, false, 3, 0x100000, 0xffffffffffffffff, -4, RELOC_OK,
      { "lea 0(%rip), %rax", "48 8d 05 00 00 00 00" },
      { "lea -0x100005(%rip), %rax", "48 8d 05 fb ff ef ff" } },
    { &isa_aarch64, R_AARCH64_ABS64, false, 0, 0, 0xfedcba9876543210, 0x10, RELOC_OK,
      { ".quad 0", "00000000 00000000" }, { ".quad 0xfedcba9876543220", "20325476 98badcfe" } },
    { &isa_aarch64, R_AARCH64_PREL64, false, 0, 0x2000, 0x1000, 8, RELOC_OK,
      { ".quad 0", "00000000 00000000" }, { ".quad -0xff8", "08f0ffff ffffffff" } },
    { &isa_aarch64, R_AARCH64_MOVW_UABS_G3, false, 0, 0, 0xffffffffffffffff, 0, RELOC_OK,
      { "movz x9, #0, lsl #48", "0900e0d2" }, { "movz x9, #0xffff, lsl #48", "e9ffffd2" } },
    { &isa_aarch64, R_AARCH64_MOVW_UABS_G0_NC, false, 0, 0, 0x123456789abcdef0, 0, RELOC_OK,
      { "movk x9, #0", "090080f2" }, { "movk x9, #0xdef0", "09de9bf2" } },
    { &isa_aarch64, R_AARCH64_MOVW_UABS_G1_NC, false, 0, 0, 0x123456789abcdef0, 0, RELOC_OK,
      { "movk x9, #0, lsl #16", "0900a0f2" }, { "movk x9, #0x9abc, lsl #16", "8957b3f2" } },
    { &isa_aarch64, R_AARCH64_MOVW_UABS_G2_NC, false, 0, 0, 0x123456789abcdef0, 0, RELOC_OK,
      { "movk x9, #0, lsl #32", "0900c0f2" }, { "movk x9, #0x5678, lsl #32", "09cfcaf2" } },
    { &isa_aarch64, R_AARCH64_ADD_ABS_LO12_NC, false, 0, 0, 0x12345fff, 0, RELOC_OK,
      { "add x9, x10, #0", "49010091" }, { "add x9, x10, #0xfff", "49fd3f91" } },
    { &isa_aarch64, R_AARCH64_ADD_ABS_LO12_NC, false, 0, 0, 0x12345fff, 1, RELOC_OK,
      { "adds w9, w10, #0xfff", "49fd3f31" }, { "adds w9, w10, #0", "49010031" } },
    { &isa_aarch64, R_AARCH64_LDST8_ABS_LO12_NC, false, 0, 0, 0x12345fff, 0, RELOC_OK,
      { "ldrb w1, [x2]", "41004039" }, { "ldrb w1, [x2, #0xfff]", "41fc7f39" } },
    { &isa_aarch64, R_AARCH64_LDST8_ABS_LO12_NC, false, 0, 0, 0x12345fff, 0, RELOC_OK,
      { "str b1, [x2]", "4100003d" }, { "str b1, [x2, #0xfff]", "41fc3f3d" } },
    { &isa_aarch64, R_AARCH64_LDST16_ABS_LO12_NC, false, 0, 0, 0x12345ffe, 0, RELOC_OK,
      { "ldrsh x1, [x2]", "41008079" }, { "ldrsh x1, [x2, #0xffe]", "41fc9f79" } },
    { &isa_aarch64, R_AARCH64_LDST32_ABS_LO12_NC, false, 0, 0, 0x12345ffc, 0, RELOC_OK,
      { "str w1, [x2]", "410000b9" }, { "str w1, [x2, #0xffc]", "41fc0fb9" } },
    { &isa_aarch64, R_AARCH64_LDST64_ABS_LO12_NC, false, 0, 0, 0x12345ff8, 0, RELOC_OK,
      { "ldr d1, [x2]", "410040fd" }, { "ldr d1, [x2, #0xff8]", "41fc47fd" } },
    { &isa_aarch64, R_AARCH64_LDST64_ABS_LO12_NC, false, 0, 0, 0x12345ff8, 0, RELOC_OK,
      { "prfm pldl1keep, [x2]", "400080f9" }, { "prfm pldl1keep, [x2, #0xff8]", "40fc87f9" } },
    { &isa_aarch64, R_AARCH64_LDST128_ABS_LO12_NC, false, 0, 0, 0x12345ff0, 0, RELOC_OK,
      { "str q1, [x2]", "4100803d" }, { "str q1, [x2, #0xff0]", "41fc833d" } },
    { &isa_aarch64, R_AARCH64_LD64_GOT_LO12_NC, false, 0, 0, 0x12345ff8, 0, RELOC_OK,
      { "ldr x1, [x2]", "410040f9" }, { "ldr x1, [x2, #0xff8]", "41fc47f9" } },
    { &isa_aarch64, R_AARCH64_LD64_GOT_LO12_NC, true, 0, 0, 0x12345fff, 0, RELOC_OK,
      { "ldr x1, [x2]", "410040f9" }, { "add x1, x2, #0xfff", "41fc3f91" } },
    { &isa_aarch64, R_AARCH64_LD64_GOT_LO12_NC, true, 0, 0, 0x12345fff, 0, RELOC_OK,
      { "ldr xzr, [x2]", "5f0040f9" }, { "nop", "1f2003d5" } },
    /* scaled fields that do not hold the value */
    { &isa_aarch64, R_AARCH64_LDST16_ABS_LO12_NC, false, 0, 0, 0x1001, 0, RELOC_MISALIGNED,
      { "ldrh w1, [x2]", "41004079" }, { NULL } },
    { &isa_aarch64, R_AARCH64_LDST32_ABS_LO12_NC, false, 0, 0, 0x1002, 0, RELOC_MISALIGNED,
      { "ldr w1, [x2]", "410040b9" }, { NULL } },
    { &isa_aarch64, R_AARCH64_LDST64_ABS_LO12_NC, false, 0, 0, 0x1000, 4, RELOC_MISALIGNED,
      { "ldr x1, [x2]", "410040f9" }, { NULL } },
    { &isa_aarch64, R_AARCH64_LDST128_ABS_LO12_NC, false, 0, 0, 0x1008, 0, RELOC_MISALIGNED,
      { "ldr q1, [x2]", "4100c03d" }, { NULL } },
    { &isa_aarch64, R_AARCH64_LD64_GOT_LO12_NC, false, 0, 0, 0x1004, 0, RELOC_MISALIGNED,
      { "ldr x1, [x2]", "410040f9" }, { NULL } },
    { &isa_aarch64, R_AARCH64_LD64_GOT_LO12_NC, false, 0, 0, 0x1000, 8, RELOC_BAD_ADDEND,
      { "ldr x1, [x2]", "410040f9" }, { NULL } },
    { &isa_aarch64, R_AARCH64_ADR_GOT_PAGE, false, 0, 0, 0x1000, 8, RELOC_BAD_ADDEND,
      { "adrp x1, .", "01000090" }, { NULL } },
};

START_TEST(fields_without_limits)
{
    const struct exact *exact = &exacts[_i];
    uint8_t bytes[CODE_MAX], expected[CODE_MAX];
    size_t size = code_bytes(&exact->before, bytes);
    const struct code *after = exact->after.line != NULL ? &exact->after : &exact->before;
    uint8_t *field = bytes + exact->field;

    ck_assert_uint_eq(code_bytes(after, expected), size);
    enum reloc_result result =
        exact->relax ? exact->isa->reloc_relax(exact->type, field, exact->place, exact->symbol,
                                               exact->addend)
                     : exact->isa->reloc_apply(exact->type, field, exact->place, exact->symbol,
                                               exact->addend);
    ck_assert_int_eq(result, exact->result);
    ck_assert_msg(memcmp(bytes, expected, size) == 0, "%s", after->line);
}
END_TEST

/* ---- instructions that a type does not apply to ------------------------------- */

static const struct wrong {
    uint16_t type;
    struct code code;
} wrongs[] = {
    { R_AARCH64_CALL26, { "b.eq .+8", "40000054" } },
    { R_AARCH64_CALL26, { "nop", "1f2003d5" } },
    { R_AARCH64_JUMP26, { "cbz x0, .+8", "400000b4" } },
    { R_AARCH64_JUMP26, { "br x16", "00021fd6" } },
    { R_AARCH64_CONDBR19, { "b .+8", "02000014" } },
    { R_AARCH64_CONDBR19, { "tbz x0, #1, .+8", "40000836" } },
    { R_AARCH64_CONDBR19, { "ldr x0, .+8", "40000058" } },
    { R_AARCH64_TSTBR14, { "cbz x0, .+8", "400000b4" } },
    { R_AARCH64_TSTBR14, { "b.eq .+8", "40000054" } },
    { R_AARCH64_LD_PREL_LO19, { "ldr x0, [x1]", "200040f9" } },
    { R_AARCH64_LD_PREL_LO19, { "adr x0, .", "00000010" } },
    { R_AARCH64_ADR_PREL_LO21, { "adrp x0, .", "00000090" } },
    { R_AARCH64_ADR_PREL_PG_HI21, { "adr x0, .", "00000010" } },
    { R_AARCH64_ADR_GOT_PAGE, { "adr x0, .", "00000010" } },
    { R_AARCH64_ADR_GOT_PAGE, { "ldr x0, [x0]", "000040f9" } },
    { R_AARCH64_ADD_ABS_LO12_NC, { "sub x0, x0, #0", "000000d1" } },
    { R_AARCH64_ADD_ABS_LO12_NC, { "add x0, x0, #1, lsl #12", "00044091" } },
    { R_AARCH64_ADD_ABS_LO12_NC, { "add x0, x0, x1", "0000018b" } },
    { R_AARCH64_ADD_ABS_LO12_NC, { "ldr x0, [x0]", "000040f9" } },
    { R_AARCH64_LDST8_ABS_LO12_NC, { "ldrh w0, [x0]", "00004079" } },
    { R_AARCH64_LDST8_ABS_LO12_NC, { "str q0, [x0]", "0000803d" } },
    { R_AARCH64_LDST16_ABS_LO12_NC, { "ldrb w0, [x0]", "00004039" } },
    { R_AARCH64_LDST32_ABS_LO12_NC, { "ldr x0, [x0]", "000040f9" } },
    { R_AARCH64_LDST64_ABS_LO12_NC, { "ldr w0, [x0]", "000040b9" } },
    { R_AARCH64_LDST64_ABS_LO12_NC, { "ldr x0, [x1], #8", "208440f8" } },
    { R_AARCH64_LDST64_ABS_LO12_NC, { "ldr x0, [x1, x2]", "206862f8" } },
    { R_AARCH64_LDST64_ABS_LO12_NC, { "ldur x0, [x1]", "200040f8" } },
    { R_AARCH64_LDST128_ABS_LO12_NC, { "ldrb w0, [x0]", "00004039" } },
    { R_AARCH64_LDST128_ABS_LO12_NC, { "ldr d0, [x0]", "000040fd" } },
    { R_AARCH64_LDST128_ABS_LO12_NC, { "ldp x0, x1, [x0]", "000440a9" } },
    { R_AARCH64_LD64_GOT_LO12_NC, { "ldr w0, [x0]", "000040b9" } },
    { R_AARCH64_LD64_GOT_LO12_NC, { "ldr d0, [x0]", "000040fd" } },
    { R_AARCH64_LD64_GOT_LO12_NC, { "str x0, [x0]", "000000f9" } },
    { R_AARCH64_LD64_GOT_LO12_NC, { "ldr x0, [sp]", "e00340f9" } },
    { R_AARCH64_LD64_GOT_LO12_NC, { "add x0, x0, #0", "00000091" } },
    { R_AARCH64_MOVW_UABS_G0, { "movz x0, #0, lsl #16", "0000a0d2" } },
    { R_AARCH64_MOVW_UABS_G0_NC, { "movn x0, #0", "00008092" } },
    { R_AARCH64_MOVW_UABS_G1, { "movz x0, #0", "000080d2" } },
    { R_AARCH64_MOVW_UABS_G1_NC, { "movk x0, #0, lsl #32", "0000c0f2" } },
    { R_AARCH64_MOVW_UABS_G2, { "movk x0, #0, lsl #48", "0000e0f2" } },
    { R_AARCH64_MOVW_UABS_G2_NC,
      { ".inst 0x52c00000", "0000c052" } }, /* 32 bits wide: unallocated */
    { R_AARCH64_MOVW_UABS_G3, { "movz x0, #0, lsl #32", "0000c0d2" } },
    { R_AARCH64_MOVW_UABS_G3, { "add x0, x0, #0", "00000091" } },
};

START_TEST(other_instructions_are_refused)
{
    const struct wrong *wrong = &wrongs[_i];
    uint8_t bytes[CODE_MAX], before[CODE_MAX];
    size_t size = code_bytes(&wrong->code, bytes);
    bool got = isa_aarch64.reloc_info(wrong->type)->kind == RELOC_GOT;

    memcpy(before, bytes, sizeof before);
    ck_assert_uint_eq(size, 4);
    ck_assert_int_eq(isa_aarch64.reloc_apply(wrong->type, bytes, CODE_PLACE, CODE_PLACE, 0),
                     RELOC_BAD_INSTRUCTION);
    ck_assert(!isa_aarch64.reloc_can_relax(wrong->type, bytes, 0));
    if (got)
        ck_assert_int_eq(isa_aarch64.reloc_relax(wrong->type, bytes, CODE_PLACE, CODE_PLACE, 0),
                         RELOC_BAD_INSTRUCTION);
    ck_assert_mem_eq(bytes, before, 4);
}
END_TEST

/* ---- what may be relaxed -------------------------------------------------------- */

static const struct rewrite {
    uint16_t type;
    uint8_t field;
    int64_t addend;
    bool relaxed;
    struct code code;
} rewrites[] = {
    { R_X86_64_GOTPCRELX, 2, -4, true, { "mov 0(%rip), %eax", "8b 05 00 00 00 00" } },
    { R_X86_64_GOTPCRELX, 2, -4, true, { "call *0(%rip)", "ff 15 00 00 00 00" } },
    { R_X86_64_GOTPCRELX, 2, -4, true, { "jmp *0(%rip)", "ff 25 00 00 00 00" } },
    { R_X86_64_REX_GOTPCRELX, 3, -4, true, { "mov 0(%rip), %rax", "48 8b 05 00 00 00 00" } },
    { R_X86_64_REX_GOTPCRELX, 3, -4, true, { "mov 0(%rip), %r8d", "44 8b 05 00 00 00 00" } },
    { R_X86_64_GOTPCREL, 2, -4, false, { "mov 0(%rip), %eax", "8b 05 00 00 00 00" } },
    { R_X86_64_GOTPCREL, 2, -4, false, { "call *0(%rip)", "ff 15 00 00 00 00" } },
    { R_X86_64_PC32, 2, -4, false, { "call *0(%rip)", "ff 15 00 00 00 00" } },
    { R_X86_64_GOTPCRELX, 2, 0, false, { "call *0(%rip)", "ff 15 00 00 00 00" } },
    { R_X86_64_GOTPCRELX, 2, 4, false, { "mov 0(%rip), %eax", "8b 05 00 00 00 00" } },
    { R_X86_64_REX_GOTPCRELX, 3, -5, false, { "mov 0(%rip), %rax", "48 8b 05 00 00 00 00" } },
    { R_X86_64_GOTPCRELX, 2, -4, false, { "add 0(%rip), %eax", "03 05 00 00 00 00" } },
    { R_X86_64_GOTPCRELX, 2, -4, false, { "test %eax, 0(%rip)", "85 05 00 00 00 00" } },
    { R_X86_64_GOTPCRELX, 2, -4, false, { "mov %eax, 0(%rip)", "89 05 00 00 00 00" } },
    { R_X86_64_GOTPCRELX, 2, -4, false,
      { "mov 0(%rax), %ebx; nop; nop; nop; nop", "8b 18 90 90 90 90" } },
    { R_X86_64_GOTPCRELX, 2, -4, false, { "push 0(%rip)", "ff 35 00 00 00 00" } },
    { R_X86_64_REX_GOTPCRELX, 3, -4, false, { "add 0(%rip), %rax", "48 03 05 00 00 00 00" } },
    { R_X86_64_REX_GOTPCRELX, 3, -4, false, { "nop; mov 0(%rip), %eax", "90 8b 05 00 00 00 00" } },
    { R_X86_64_REX_GOTPCRELX, 3, -4, false, { "rex.W call *0(%rip)", "48 ff 15 00 00 00 00" } },
};

START_TEST(only_known_instructions_are_rewritten)
{
    const struct rewrite *rewrite = &rewrites[_i];
    uint8_t bytes[CODE_MAX], before[CODE_MAX];
    size_t size = code_bytes(&rewrite->code, bytes);
    uint8_t *field = bytes + rewrite->field;

    memcpy(before, bytes, size);
    ck_assert(isa_x86_64.reloc_can_relax(rewrite->type, field, rewrite->addend) ==
              rewrite->relaxed);
    ck_assert_int_eq(isa_x86_64.reloc_relax(rewrite->type, field, CODE_PLACE, CODE_PLACE,
                                            rewrite->addend),
                     rewrite->relaxed ? RELOC_OK : RELOC_BAD_INSTRUCTION);
    ck_assert((memcmp(bytes, before, size) != 0) == rewrite->relaxed);
}
END_TEST

/* ---- the tables ----------------------------------------------------------------- */

struct expected_info {
    uint16_t type;
    struct reloc_info info;
};

static void check_infos(const struct isa *isa, const struct expected_info *expected, size_t count)
{
    size_t known = 0;

    for (unsigned type = 0; type <= UINT16_MAX; type++)
        known += isa->reloc_info((uint16_t) type) != NULL;
    ck_assert_uint_eq(known, count);
    for (size_t i = 0; i < count; i++) {
        const struct reloc_info *info = isa->reloc_info(expected[i].type);
        ck_assert_ptr_nonnull(info);
        ck_assert_str_eq(info->name, expected[i].info.name);
        ck_assert_int_eq(info->kind, expected[i].info.kind);
        ck_assert_uint_eq(info->size, expected[i].info.size);
        ck_assert_uint_eq(info->before, expected[i].info.before);
        ck_assert_uint_eq(info->align, expected[i].info.align);
        ck_assert(info->instruction == expected[i].info.instruction);
        ck_assert(info->relative == expected[i].info.relative);
    }
}

#define INFO(type, ...) { type, { #type, __VA_ARGS__ } }

START_TEST(x86_64_types)
{
    static const struct expected_info expected[] = {
        INFO(R_X86_64_64, RELOC_VALUE, 8, 0, 1, false, false),
        INFO(R_X86_64_32, RELOC_VALUE, 4, 0, 1, false, false),
        INFO(R_X86_64_32S, RELOC_VALUE, 4, 0, 1, false, false),
        INFO(R_X86_64_PC32, RELOC_VALUE, 4, 0, 1, false, true),
        INFO(R_X86_64_PC64, RELOC_VALUE, 8, 0, 1, false, true),
        INFO(R_X86_64_PLT32, RELOC_BRANCH, 4, 0, 1, true, true),
        INFO(R_X86_64_GOTPCREL, RELOC_GOT, 4, 0, 1, true, true),
        INFO(R_X86_64_GOTPCRELX, RELOC_GOT, 4, 2, 1, true, true),
        INFO(R_X86_64_REX_GOTPCRELX, RELOC_GOT, 4, 3, 1, true, true),
    };
    uint8_t bytes[8] = { 0 };

    check_infos(&isa_x86_64, expected, sizeof expected / sizeof *expected);
    ck_assert_int_ne(isa_x86_64.reloc_apply(R_X86_64_NONE, bytes, 0, 0, 0), RELOC_OK);
}
END_TEST

START_TEST(aarch64_types)
{
#define DATA(type, size, relative) INFO(R_AARCH64_##type, RELOC_VALUE, size, 0, 1, false, relative)
#define CODE(type, kind, relative) INFO(R_AARCH64_##type, kind, 4, 0, 4, true, relative)
    static const struct expected_info expected[] = {
        DATA(ABS64, 8, false), DATA(ABS32, 4, false), DATA(PREL64, 8, true), DATA(PREL32, 4, true),
        CODE(CALL26, RELOC_BRANCH, true), CODE(JUMP26, RELOC_BRANCH, true),
        CODE(CONDBR19, RELOC_VALUE, true), CODE(TSTBR14, RELOC_VALUE, true),
        CODE(ADR_PREL_LO21, RELOC_VALUE, true), CODE(LD_PREL_LO19, RELOC_VALUE, true),
        CODE(ADR_PREL_PG_HI21, RELOC_VALUE, true), CODE(ADD_ABS_LO12_NC, RELOC_VALUE, false),
        CODE(LDST8_ABS_LO12_NC, RELOC_VALUE, false), CODE(LDST16_ABS_LO12_NC, RELOC_VALUE, false),
        CODE(LDST32_ABS_LO12_NC, RELOC_VALUE, false), CODE(LDST64_ABS_LO12_NC, RELOC_VALUE, false),
        CODE(LDST128_ABS_LO12_NC, RELOC_VALUE, false), CODE(MOVW_UABS_G0, RELOC_VALUE, false),
        CODE(MOVW_UABS_G0_NC, RELOC_VALUE, false), CODE(MOVW_UABS_G1, RELOC_VALUE, false),
        CODE(MOVW_UABS_G1_NC, RELOC_VALUE, false), CODE(MOVW_UABS_G2, RELOC_VALUE, false),
        CODE(MOVW_UABS_G2_NC, RELOC_VALUE, false), CODE(MOVW_UABS_G3, RELOC_VALUE, false),
        CODE(ADR_GOT_PAGE, RELOC_GOT, true), CODE(LD64_GOT_LO12_NC, RELOC_GOT, false),
    };
    uint8_t bytes[8] = { 0 };

    check_infos(&isa_aarch64, expected, sizeof expected / sizeof *expected);
    ck_assert_int_ne(isa_aarch64.reloc_apply(R_AARCH64_NONE, bytes, 0, 0, 0), RELOC_OK);
    ck_assert(!isa_aarch64.reloc_can_relax(R_AARCH64_NONE, bytes, 0));
}
END_TEST

/* ---- near means near ---------------------------------------------------------------- */

/* Any two bytes less than branch_range (got_range) apart reach each other. */
START_TEST(ranges_hold_for_every_direction)
{
    static const int64_t x = (int64_t) 1 << 31, a = (int64_t) 1 << 27;
    uint8_t call[] = { 0xe8, 0, 0, 0, 0 }, jump[] = { 0xff, 0x25, 0, 0, 0, 0 };
    uint8_t bl[] = { 0, 0, 0, 0x94 }, adrp[] = { 0, 0, 0, 0x90 };

    ck_assert_uint_eq(isa_x86_64.branch_range, (uint64_t) x);
    ck_assert_uint_eq(isa_aarch64.branch_range, (uint64_t) a);
    for (int sign = -1; sign <= 1; sign += 2) {
        /* A region counts from its first byte and from the one behind its last. */
        uint64_t symbol = CODE_PLACE + (uint64_t) (sign < 0 ? 6 - (x - 1) : x - 1);
        ck_assert_int_eq(isa_x86_64.reloc_apply(R_X86_64_PLT32, call + 1, CODE_PLACE + 1, symbol,
                                                -4), RELOC_OK);
        memcpy(jump, "\xff\x25", 2);
        ck_assert_int_eq(isa_x86_64.reloc_relax(R_X86_64_GOTPCRELX, jump + 2, CODE_PLACE + 2,
                                                symbol, -4), RELOC_OK);
        ck_assert_int_eq(isa_aarch64.reloc_apply(R_AARCH64_CALL26, bl, CODE_PLACE,
                                                 CODE_PLACE + (uint64_t) (sign * (a - 4)), 0),
                         RELOC_OK);
        int64_t far = sign * ((int64_t) isa_aarch64.got_range - 1);
        for (uint64_t place = CODE_PLACE; place < CODE_PLACE + 0x1000; place += 4)
            ck_assert_int_eq(isa_aarch64.reloc_relax(R_AARCH64_ADR_GOT_PAGE, adrp, place,
                                                     place + (uint64_t) far, 0), RELOC_OK);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reloc");
    TCase *tests = tcase_create("reloc");
    tcase_add_loop_test(tests, fields_hold_their_extremes_and_nothing_beyond, 0,
                        sizeof limits / sizeof *limits);
    tcase_add_loop_test(tests, fields_without_limits, 0, sizeof exacts / sizeof *exacts);
    tcase_add_loop_test(tests, other_instructions_are_refused, 0, sizeof wrongs / sizeof *wrongs);
    tcase_add_loop_test(tests, only_known_instructions_are_rewritten, 0,
                        sizeof rewrites / sizeof *rewrites);
    tcase_add_test(tests, x86_64_types);
    tcase_add_test(tests, aarch64_types);
    tcase_add_test(tests, ranges_hold_for_every_direction);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
