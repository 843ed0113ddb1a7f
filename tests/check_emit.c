/* SPDX-License-Identifier: MIT */
/* Emitters of both architectures against the assembler's bytes. */
#include <config.h>

#include "isa/isa.h"

#include "code.h"

#include <patchpoint/patch.h>

#include <check.h>
#include <elf.h>
#include <stddef.h>
#include <string.h>

/* Registers in a save area: one, a range, a vector register. */
#define R(n) (1ull << (n))
#define RR(low, high) ((2ull << (high)) - (1ull << (low)))
#define V(n) PP_VECTOR_BIT(n)

#define WORD 0x123456789abcu
#define RECORD UINT64_C(0x1122334455667788)
#define FILL 0xa5

/* Emitted bytes are those of the line, and nothing is written behind them. */
static void check_bytes(const struct code *want, const uint8_t *got, size_t size)
{
    uint8_t bytes[CODE_MAX];
    size_t expected = code_bytes(want, bytes);
    ck_assert_msg(size == expected, "%s: %zu bytes, not %zu", want->line, size, expected);
    for (size_t i = 0; i < size; i++)
        ck_assert_msg(got[i] == bytes[i], "%s: byte %zu is %02x, not %02x", want->line, i, got[i],
                      bytes[i]);
    for (size_t i = size; i < CODE_MAX; i++)
        ck_assert_msg(got[i] == FILL, "%s: byte %zu written", want->line, i);
}

/* ---- OSR prologues and epilogues ---------------------------------------- */

static const struct osr {
    const struct isa *isa;
    pp_csr_scheme scheme;
    bool pads;
    uint32_t frame_bytes, cfa_offset;
    pp_save_area saves;
    uint64_t used;
    uint32_t local_bytes;
    struct code prologue, epilogue;
} osrs[] = {
    { &isa_x86_64, PP_CSR_RESERVE, false, 16, 16, { 0, 0, 0, 0 },
      0, 0,
      { "", "" },
      { "leave; ret",
        "c9 c3" } },
    { &isa_x86_64, PP_CSR_RESERVE, false, 64, 16, { R(3) | R(12) | R(13) | R(14) | R(15), R(3), -40, 0 },
      R(3) | R(12), 24,
      { "sub $32, %rsp; mov %r12, -32(%rbp)",
        "48 83 ec 20 4c 89 65 e0" },
      { "mov -40(%rbp), %rbx; mov -32(%rbp), %r12; leave; ret",
        "48 8b 5d d8 4c 8b 65 e0 c9 c3" } },
    { &isa_x86_64, PP_CSR_RESERVE, true, 144, 16, { R(3) | R(12) | R(13) | R(14) | R(15), 0, -136, 0 },
      R(3) | R(12) | R(13) | R(14) | R(15), 112,
      { "endbr64; sub $112, %rsp; mov %rbx, -136(%rbp); mov %r12, -128(%rbp); mov %r13, "
        "-120(%rbp); mov %r14, -112(%rbp); mov %r15, -104(%rbp)",
        "f3 0f 1e fa 48 83 ec 70 48 89 9d 78 ff ff ff 4c 89 65 80 4c 89 6d 88 4c 89 75 90 4c 89 "
        "7d 98" },
      { "mov -136(%rbp), %rbx; mov -128(%rbp), %r12; mov -120(%rbp), %r13; mov -112(%rbp), %r14; "
        "mov -104(%rbp), %r15; leave; ret",
        "48 8b 9d 78 ff ff ff 4c 8b 65 80 4c 8b 6d 88 4c 8b 75 90 4c 8b 7d 98 c9 c3" } },
    { &isa_x86_64, PP_CSR_RELOAD, true, 512, 16, { R(3) | R(14) | R(15), R(3) | R(15), -512, 0 },
      R(12) | R(13) | R(14), 200,
      { "endbr64; mov -512(%rbp), %rbx; mov -496(%rbp), %r15; sub $224, %rsp; mov %r12, "
        "-536(%rbp); mov %r13, -528(%rbp); mov %r14, -520(%rbp)",
        "f3 0f 1e fa 48 8b 9d 00 fe ff ff 4c 8b bd 10 fe ff ff 48 81 ec e0 00 00 00 4c 89 a5 e8 "
        "fd ff ff 4c 89 ad f0 fd ff ff 4c 89 b5 f8 fd ff ff" },
      { "mov -536(%rbp), %r12; mov -528(%rbp), %r13; mov -520(%rbp), %r14; leave; ret",
        "4c 8b a5 e8 fd ff ff 4c 8b ad f0 fd ff ff 4c 8b b5 f8 fd ff ff c9 c3" } },
    { &isa_x86_64, PP_CSR_RELOAD, false, 16, 16, { 0, 0, 0, 0 },
      0, 128,
      { "sub $128, %rsp",
        "48 81 ec 80 00 00 00" },
      { "leave; ret",
        "c9 c3" } },
    { &isa_x86_64, PP_CSR_RELOAD, false, 16, 16, { 0, 0, 0, 0 },
      0, 4080,
      { "sub $4080, %rsp",
        "48 81 ec f0 0f 00 00" },
      { "leave; ret",
        "c9 c3" } },
    { &isa_x86_64, PP_CSR_RELOAD, false, 16, 16, { 0, 0, 0, 0 },
      0, 4081,
      { "lea -4096(%rsp), %r11; 1: sub $4096, %rsp; orq $0, (%rsp); cmp %r11, %rsp; jne 1b",
        "4c 8d 9c 24 00 f0 ff ff 48 81 ec 00 10 00 00 48 83 0c 24 00 4c 39 dc 75 ef" },
      { "leave; ret",
        "c9 c3" } },
    { &isa_x86_64, PP_CSR_RELOAD, false, 16, 16, { 0, 0, 0, 0 },
      R(3), 65576,
      { "lea -65536(%rsp), %r11; 1: sub $4096, %rsp; orq $0, (%rsp); cmp %r11, %rsp; jne 1b; sub "
        "$48, %rsp; mov %rbx, -24(%rbp)",
        "4c 8d 9c 24 00 00 ff ff 48 81 ec 00 10 00 00 48 83 0c 24 00 4c 39 dc 75 ef 48 83 ec 30 "
        "48 89 5d e8" },
      { "mov -24(%rbp), %rbx; leave; ret",
        "48 8b 5d e8 c9 c3" } },
    { &isa_x86_64, PP_CSR_RESERVE, false, 268435456, 16, { R(15), 0, -268435456, 0 },
      R(15), 268435456,
      { "lea -0x10000000(%rsp), %r11; 1: sub $4096, %rsp; orq $0, (%rsp); cmp %r11, %rsp; jne "
        "1b; mov %r15, -0x10000000(%rbp)",
        "4c 8d 9c 24 00 00 00 f0 48 81 ec 00 10 00 00 48 83 0c 24 00 4c 39 dc 75 ef 4c 89 bd 00 "
        "00 00 f0" },
      { "mov -0x10000000(%rbp), %r15; leave; ret",
        "4c 8b bd 00 00 00 f0 c9 c3" } },
    { &isa_aarch64, PP_CSR_RESERVE, false, 0, 16, { 0, 0, 0, 0 },
      0, 0,
      { "", "" },
      { "mov sp, x29; ldp x29, x30, [sp], #16; ret",
        "bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RESERVE, false, 0, 160, { RR(19, 28) | V(8) | V(9) | V(10) | V(11) | V(12) | V(13) | V(14) | V(15), R(19) | R(20), 16, 0 },
      R(19) | R(21) | R(22) | V(8) | V(9) | V(10), 40,
      { "sub sp, sp, #48; stp x21, x22, [x29, #32]; stp d8, d9, [x29, #96]; str d10, [x29, #112]",
        "ffc300d1 b55b02a9 a827066d aa3b00fd" },
      { "ldp x19, x20, [x29, #16]; ldp x21, x22, [x29, #32]; ldp d8, d9, [x29, #96]; ldr d10, "
        "[x29, #112]; mov sp, x29; ldp x29, x30, [sp], #160; ret",
        "b35341a9 b55b42a9 a827466d aa3b40fd bf030091 fd7bcaa8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RESERVE, true, 512, 16, { RR(19, 28), R(20), -512, 0 },
      R(19) | R(21), 0,
      { "bti j; sub x16, x29, #512; str x19, [x16]; str x21, [x16, #16]",
        "9f2403d5 b00308d1 130200f9 150a00f9" },
      { "sub x16, x29, #512; ldp x19, x20, [x16]; ldr x21, [x16, #16]; mov sp, x29; ldp x29, "
        "x30, [sp], #16; ret",
        "b00308d1 135240a9 150a40f9 bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RELOAD, true, 512, 16, { RR(19, 28), R(19) | R(20) | R(21) | R(22), -512, 0 },
      R(28) | V(15), 1000,
      { "bti j; ldp x19, x20, [x29, #-512]; ldp x21, x22, [x29, #-496]; sub sp, sp, #1024; sub "
        "x16, x29, #528; str x28, [x16]; str d15, [x16, #8]",
        "9f2403d5 b35360a9 b55b61a9 ff0310d1 b04308d1 1c0200f9 0f0600fd" },
      { "sub x16, x29, #528; ldr x28, [x16]; ldr d15, [x16, #8]; mov sp, x29; ldp x29, x30, "
        "[sp], #16; ret",
        "b04308d1 1c0240f9 0f0640fd bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RELOAD, false, 528, 16, { RR(19, 20), R(19) | R(20), -520, 0 },
      R(21) | R(22), 0,
      { "sub x16, x29, #520; ldp x19, x20, [x16]; sub sp, sp, #16; sub x16, x29, #544; stp x21, "
        "x22, [x16]",
        "b02308d1 135240a9 ff4300d1 b08308d1 155a00a9" },
      { "sub x16, x29, #544; ldp x21, x22, [x16]; mov sp, x29; ldp x29, x30, [sp], #16; ret",
        "b08308d1 155a40a9 bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RELOAD, false, 256, 16, { R(19), R(19), -256, 0 },
      0, 0,
      { "ldur x19, [x29, #-256]",
        "b30350f8" },
      { "mov sp, x29; ldp x29, x30, [sp], #16; ret",
        "bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RELOAD, false, 272, 16, { R(19), R(19), -264, 0 },
      0, 0,
      { "sub x16, x29, #264; ldr x19, [x16]",
        "b02304d1 130240f9" },
      { "mov sp, x29; ldp x29, x30, [sp], #16; ret",
        "bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RESERVE, false, 16, 528, { RR(19, 20), R(19), 504, 0 },
      R(20), 0,
      { "str x20, [x29, #512]",
        "b40301f9" },
      { "ldp x19, x20, [x29, #504]; mov sp, x29; ldp x29, x30, [sp]; add sp, sp, #528; ret",
        "b3d35fa9 bf030091 fd7b40a9 ff430891 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RESERVE, false, 8, 504, { R(19), 0, 488, 0 },
      R(19), 0,
      { "str x19, [x29, #488]",
        "b3f700f9" },
      { "ldr x19, [x29, #488]; mov sp, x29; ldp x29, x30, [sp], #504; ret",
        "b3f740f9 bf030091 fdfbdfa8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RESERVE, false, 0, 528, { RR(19, 20), R(19) | R(20), 512, 0 },
      0, 0,
      { "", "" },
      { "add x16, x29, #512; ldp x19, x20, [x16]; mov sp, x29; ldp x29, x30, [sp]; add sp, sp, "
        "#528; ret",
        "b0030891 135240a9 bf030091 fd7b40a9 ff430891 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RESERVE, false, 0, 32768, { R(28), R(28), 32760, 0 },
      0, 0,
      { "", "" },
      { "ldr x28, [x29, #32760]; mov sp, x29; ldp x29, x30, [sp]; add sp, sp, #8, lsl #12; ret",
        "bcff7ff9 bf030091 fd7b40a9 ff234091 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RESERVE, false, 0, 32784, { R(28), 0, 32768, 0 },
      R(28), 0,
      { "add x16, x29, #8, lsl #12; str x28, [x16]",
        "b0234091 1c0200f9" },
      { "add x16, x29, #8, lsl #12; ldr x28, [x16]; mov sp, x29; ldp x29, x30, [sp]; add sp, sp, "
        "#8, lsl #12; add sp, sp, #16; ret",
        "b0234091 1c0240f9 bf030091 fd7b40a9 ff234091 ff430091 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RESERVE, false, 4112, 16, { R(19) | V(8), 0, -4104, 0 },
      R(19) | V(8), 0,
      { "sub x16, x29, #1, lsl #12; sub x16, x16, #8; str x19, [x16]; str d8, [x16, #8]",
        "b00740d1 102200d1 130200f9 080600fd" },
      { "sub x16, x29, #1, lsl #12; sub x16, x16, #8; ldr x19, [x16]; ldr d8, [x16, #8]; mov sp, "
        "x29; ldp x29, x30, [sp], #16; ret",
        "b00740d1 102200d1 130240f9 080640fd bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RESERVE, false, 268435456, 268435456, { RR(19, 20), R(19), -268435456, 0 },
      R(19) | R(20), 0,
      { "movn x16, #0xffff; movk x16, #0xf000, lsl #16; add x16, x29, x16, uxtx; str x20, [x16, "
        "#8]",
        "f0ff9f92 1000bef2 b063308b 140600f9" },
      { "movn x16, #0xffff; movk x16, #0xf000, lsl #16; add x16, x29, x16, uxtx; ldp x19, x20, "
        "[x16]; mov sp, x29; ldp x29, x30, [sp]; movz x16, #0; movk x16, #0x1000, lsl #16; add "
        "sp, sp, x16; ret",
        "f0ff9f92 1000bef2 b063308b 135240a9 bf030091 fd7b40a9 100080d2 1000a2f2 ff63308b "
        "c0035fd6" } },
    { &isa_aarch64, PP_CSR_RELOAD, false, 16, 16, { 0, 0, 0, 0 },
      0, 4080,
      { "sub sp, sp, #4080",
        "ffc33fd1" },
      { "mov sp, x29; ldp x29, x30, [sp], #16; ret",
        "bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RELOAD, false, 16, 16, { 0, 0, 0, 0 },
      0, 4081,
      { "sub x16, sp, #1, lsl #12; 1: sub sp, sp, #1, lsl #12; str xzr, [sp]; cmp sp, x16; b.ne "
        "1b",
        "f00740d1 ff0740d1 ff0300f9 ff6330eb a1ffff54" },
      { "mov sp, x29; ldp x29, x30, [sp], #16; ret",
        "bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RELOAD, false, 16, 16, { 0, 0, 0, 0 },
      R(19), 65576,
      { "sub x16, sp, #16, lsl #12; 1: sub sp, sp, #1, lsl #12; str xzr, [sp]; cmp sp, x16; b.ne "
        "1b; sub sp, sp, #48; stur x19, [x29, #-24]",
        "f04340d1 ff0740d1 ff0300f9 ff6330eb a1ffff54 ffc300d1 b3831ef8" },
      { "ldur x19, [x29, #-24]; mov sp, x29; ldp x29, x30, [sp], #16; ret",
        "b3835ef8 bf030091 fd7bc1a8 c0035fd6" } },
    { &isa_aarch64, PP_CSR_RELOAD, false, 16, 16, { 0, 0, 0, 0 },
      0, 16781328,
      { "movn x16, #0xfff; movk x16, #0xfeff, lsl #16; add x16, sp, x16; 1: sub sp, sp, #1, lsl "
        "#12; str xzr, [sp]; cmp sp, x16; b.ne 1b; sub sp, sp, #16",
        "f0ff8192 f0dfbff2 f063308b ff0740d1 ff0300f9 ff6330eb a1ffff54 ff4300d1" },
      { "mov sp, x29; ldp x29, x30, [sp], #16; ret",
        "bf030091 fd7bc1a8 c0035fd6" } },
};

static void osr_frame(const struct osr *osr, pp_tier0_layout *tier0, pp_osr_frame *frame)
{
    *tier0 = (pp_tier0_layout) { .size = sizeof *tier0, .frame_bytes = osr->frame_bytes,
                                 .cfa_offset = osr->cfa_offset, .saves = osr->saves };
    *frame = (pp_osr_frame) { .size = sizeof *frame, .arch = osr->isa->arch, .scheme = osr->scheme,
                              .tier0 = tier0, .used = osr->used, .local_bytes = osr->local_bytes,
                              .flags = osr->pads ? PP_POOL_LANDING_PADS : 0 };
}

START_TEST(osr_prologue)
{
    const struct osr *osr = &osrs[_i];
    pp_tier0_layout tier0;
    pp_osr_frame frame;
    pp_osr_layout layout = { .size = sizeof layout };
    uint8_t bytes[CODE_MAX];
    osr_frame(osr, &tier0, &frame);
    memset(bytes, FILL, sizeof bytes);
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout), PP_OK);
    check_bytes(&osr->prologue, bytes, layout.bytes);

    uint32_t own = osr->scheme == PP_CSR_RELOAD ? 8 * __builtin_popcountll(osr->used) : 0;
    ck_assert_uint_eq(layout.stack_bytes % 16, 0);
    ck_assert_uint_ge(layout.stack_bytes, osr->local_bytes + own);
    ck_assert_uint_lt(layout.stack_bytes, osr->local_bytes + own + 16);
    ck_assert_int_eq(layout.local_offset, -(int64_t) osr->frame_bytes - layout.stack_bytes);
    ck_assert_int_eq(layout.rule.kind, PP_FRAME_OSR);
    ck_assert_uint_eq(layout.rule.size, sizeof layout.rule);
    ck_assert_uint_eq(layout.rule.cfa_offset, osr->cfa_offset);
    ck_assert_uint_eq(layout.rule.saves.slots, osr->saves.slots);
    if (osr->scheme == PP_CSR_RESERVE) {
        ck_assert_uint_eq(layout.rule.saves.saved, osr->saves.saved | osr->used);
        ck_assert_uint_eq(layout.rule.own.slots, 0);
    } else {
        ck_assert_uint_eq(layout.rule.saves.saved, osr->saves.saved);
        ck_assert_uint_eq(layout.rule.own.saved, osr->used);
        if (osr->used != 0)
            ck_assert_int_eq(layout.rule.own.offset, -(int64_t) osr->frame_bytes - own);
    }
}
END_TEST

START_TEST(osr_epilogue)
{
    const struct osr *osr = &osrs[_i];
    pp_tier0_layout tier0;
    pp_osr_frame frame;
    pp_osr_layout layout = { .size = sizeof layout };
    uint8_t bytes[CODE_MAX];
    osr_frame(osr, &tier0, &frame);
    memset(bytes, FILL, sizeof bytes);
    ck_assert_int_eq(pp_emit_osr_epilogue(&frame, bytes, sizeof bytes, &layout), PP_OK);
    check_bytes(&osr->epilogue, bytes, layout.bytes);
}
END_TEST

/* Every capacity: either all bytes or none; a measure says how many. */
START_TEST(osr_needs_room)
{
    const struct osr *osr = &osrs[_i];
    pp_tier0_layout tier0;
    pp_osr_frame frame;
    pp_osr_layout size = { .size = sizeof size }, layout = { .size = sizeof layout };
    osr_frame(osr, &tier0, &frame);
    ck_assert_int_eq(pp_emit_osr_epilogue(&frame, NULL, 0, &size), PP_OK);
    for (size_t capacity = 1; capacity <= size.bytes + 1; capacity++) {
        uint8_t bytes[CODE_MAX];
        memset(bytes, FILL, sizeof bytes);
        layout.bytes = 999;
        pp_status status = pp_emit_osr_epilogue(&frame, bytes, capacity, &layout);
        ck_assert_int_eq(status, capacity < size.bytes ? PP_E_RANGE : PP_OK);
        ck_assert_uint_eq(layout.bytes, capacity < size.bytes ? 999 : size.bytes);
        ck_assert_uint_eq(bytes[0] == FILL, capacity < size.bytes);
    }
}
END_TEST

/* What cannot be is refused, and the layout keeps what it had. */
START_TEST(osr_refuses)
{
    const pp_tier0_layout good = { .size = sizeof good, .frame_bytes = 64,
                                   .saves = { R(3) | R(12), R(3), -40, 0 } };
    static const struct {
        pp_status status;
        pp_tier0_layout tier0;
        pp_osr_frame frame;
    } bad[] = {
        { PP_E_ARG, { .size = 0, .frame_bytes = 64 }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 56 }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = (1u << 28) + 16 }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = UINT32_MAX - 15 }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .cfa_offset = 32 }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .cfa_offset = 8 }, { .arch = PP_ARCH_AARCH64 } },
        { PP_E_ARG, { .frame_bytes = 64, .cfa_offset = 24 }, { .arch = PP_ARCH_AARCH64 } },
        { PP_E_ARG, { .frame_bytes = 64, .cfa_offset = 20 }, { .arch = PP_ARCH_AARCH64 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { R(5), 0, -40, 0 } }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { V(8), 0, -40, 0 } }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { R(29), 0, -40, 0 } }, { .arch = PP_ARCH_AARCH64 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { V(16), 0, -40, 0 } }, { .arch = PP_ARCH_AARCH64 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { R(3), R(12), -40, 0 } }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { R(3), 0, -36, 0 } }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { R(3), 0, -72, 0 } }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { R(3), 0, 0, 0 } }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { R(3) | R(12), 0, -8, 0 } }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { R(3), 0, 16, 0 } }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64, .saves = { R(3), 0, -40, 1 } }, { .used = 0 } },
        { PP_E_ARG, { .frame_bytes = 64 }, { .used = R(5), .scheme = PP_CSR_RELOAD } },
        { PP_E_ARG, { .frame_bytes = 64 }, { .used = R(0), .scheme = PP_CSR_RELOAD } },
        { PP_E_ARG, { .frame_bytes = 64 }, { .used = R(3), .scheme = (pp_csr_scheme) 2 } },
        { PP_E_ABI, { .frame_bytes = 64 }, { .used = R(3), .scheme = PP_CSR_RESERVE } },
        { PP_E_ARG, { .frame_bytes = 64 }, { .arch = (pp_arch) 3 } },
        { PP_E_ARG, { .frame_bytes = 64 }, { .local_bytes = (1u << 28) + 1 } },
        { PP_E_ARG, { .frame_bytes = 64 }, { .local_bytes = UINT32_MAX } },
        { PP_E_ARG, { .frame_bytes = 64 }, { .flags = 2 } },
    };
    pp_osr_layout layout = { .size = sizeof layout, .bytes = 4711 };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pp_tier0_layout tier0 = bad[i].tier0;
        pp_osr_frame frame = bad[i].frame;
        tier0.size = i == 0 ? 0 : sizeof tier0;
        frame.size = sizeof frame;
        frame.tier0 = &tier0;
        if (frame.arch == PP_ARCH_HOST)
            frame.arch = PP_ARCH_X86_64;
        ck_assert_msg(pp_emit_osr_prologue(&frame, NULL, 0, &layout) == bad[i].status, "row %zu", i);
        ck_assert_msg(pp_emit_osr_epilogue(&frame, NULL, 0, &layout) == bad[i].status, "row %zu", i);
    }
    pp_osr_frame frame = { .size = sizeof frame, .arch = PP_ARCH_X86_64, .tier0 = &good };
    uint8_t byte;
    ck_assert_int_eq(pp_emit_osr_prologue(NULL, NULL, 0, &layout), PP_E_ARG);
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, NULL, 0, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, NULL, 1, &layout), PP_E_ARG);
    layout.size--;
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, NULL, 0, &layout), PP_E_ARG);
    layout.size++;
    /* From an older header, whose rules end before their flags. */
    layout.size = offsetof(pp_osr_layout, rule) + offsetof(pp_frame_rule, flags);
    layout.rule.flags = 4711;
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, NULL, 0, &layout), PP_OK);
    ck_assert_uint_eq(layout.rule.size, offsetof(pp_frame_rule, flags));
    ck_assert_uint_eq(layout.rule.flags, 4711);
    layout = (pp_osr_layout) { .size = sizeof layout, .bytes = 4711 };
    frame.size--;
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, &byte, 1, &layout), PP_E_ARG);
    frame.size++;
    frame.tier0 = NULL;
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, NULL, 0, &layout), PP_E_ARG);
    ck_assert_uint_eq(layout.bytes, 4711);
}
END_TEST

/* ---- sites ---------------------------------------------------------------- */

static const struct site {
    const struct isa *isa;
    pp_counter counter;
    int32_t counter_offset;
    pp_save save;
    uint32_t flags;
    bool pads;
    size_t return_offset, resume_offset;
    struct code code;
    pp_site_kind kind;          /* 0: counted */
    int32_t thread_offset;
} sites[] = {
    { &isa_x86_64, PP_COUNTER_FRAME, -4, PP_SAVE_GPR, 0, false, 20, 23,
      { "decl -4(%rbp); jg 1f; movabs $0x1122334455667788, %r11; .byte 0xe8, 0, 0, 0, 0; jmp "
        "*%r11; 1:",
        "ff 4d fc 7f 12 49 bb 88 77 66 55 44 33 22 11 e8 00 00 00 00 41 ff e3" } },
    { &isa_x86_64, PP_COUNTER_FRAME, -128, PP_SAVE_V128, 0, true, 20, 23,
      { "decl -128(%rbp); jg 1f; movabs $0x1122334455667788, %r11; .byte 0xe8, 0, 0, 0, 0; jmp "
        "*%r11; 1: endbr64",
        "ff 4d 80 7f 12 49 bb 88 77 66 55 44 33 22 11 e8 00 00 00 00 41 ff e3 f3 0f 1e fa" } },
    { &isa_x86_64, PP_COUNTER_FRAME, -132, PP_SAVE_GPR, PP_SITE_RED_ZONE, false, 28, 39,
      { "decl -132(%rbp); jg 1f; movabs $0x1122334455667788, %r11; lea -128(%rsp), %rsp; .byte "
        "0xe8, 0, 0, 0, 0; lea 128(%rsp), %rsp; jmp *%r11; 1:",
        "ff 8d 7c ff ff ff 7f 1f 49 bb 88 77 66 55 44 33 22 11 48 8d 64 24 80 e8 00 00 00 00 48 "
        "8d a4 24 80 00 00 00 41 ff e3" } },
    { &isa_x86_64, PP_COUNTER_FRAME, -268435456, PP_SAVE_GPR, PP_SITE_RED_ZONE, true, 28, 39,
      { "decl -268435456(%rbp); jg 1f; movabs $0x1122334455667788, %r11; lea -128(%rsp), %rsp; "
        ".byte 0xe8, 0, 0, 0, 0; lea 128(%rsp), %rsp; jmp *%r11; 1: endbr64",
        "ff 8d 00 00 00 f0 7f 1f 49 bb 88 77 66 55 44 33 22 11 48 8d 64 24 80 e8 00 00 00 00 48 "
        "8d a4 24 80 00 00 00 41 ff e3 f3 0f 1e fa" } },
    { &isa_x86_64, PP_COUNTER_SITE, 0, PP_SAVE_GPR, 0, false, 21, 24,
      { "movabs $0x1122334455667788, %r11; decl 4(%r11); jg 1f; .byte 0xe8, 0, 0, 0, 0; jmp "
        "*%r11; 1:",
        "49 bb 88 77 66 55 44 33 22 11 41 ff 4b 04 7f 08 e8 00 00 00 00 41 ff e3" } },
    { &isa_x86_64, PP_COUNTER_SITE, 0, PP_SAVE_V128, PP_SITE_RED_ZONE, true, 26, 37,
      { "movabs $0x1122334455667788, %r11; decl 4(%r11); jg 1f; lea -128(%rsp), %rsp; .byte "
        "0xe8, 0, 0, 0, 0; lea 128(%rsp), %rsp; jmp *%r11; 1: endbr64",
        "49 bb 88 77 66 55 44 33 22 11 41 ff 4b 04 7f 15 48 8d 64 24 80 e8 00 00 00 00 48 8d a4 "
        "24 80 00 00 00 41 ff e3 f3 0f 1e fa" } },
    { &isa_aarch64, PP_COUNTER_FRAME, -4, PP_SAVE_GPR, 0, false, 24, 36,
      { "ldur w16, [x29, #-4]; subs w16, w16, #1; stur w16, [x29, #-4]; b.gt 1f; ldr x17, 2f; "
        ".inst 0x94000000; br x16; 2: .quad 0x1122334455667788; 1:",
        "b0c35fb8 10060071 b0c31fb8 cc000054 71000058 00000094 00021fd6 88776655 44332211" } },
    { &isa_aarch64, PP_COUNTER_FRAME, -256, PP_SAVE_V128, 0, true, 24, 36,
      { "ldur w16, [x29, #-256]; subs w16, w16, #1; stur w16, [x29, #-256]; b.gt 1f; ldr x17, "
        "2f; .inst 0x94000000; br x16; 2: .quad 0x1122334455667788; 1: bti j",
        "b00350b8 10060071 b00310b8 cc000054 71000058 00000094 00021fd6 88776655 44332211 "
        "9f2403d5" } },
    { &isa_aarch64, PP_COUNTER_FRAME, -260, PP_SAVE_GPR, 0, false, 28, 40,
      { "movn x17, #259; ldr w16, [x29, x17]; subs w16, w16, #1; str w16, [x29, x17]; b.gt 1f; "
        "ldr x17, 2f; .inst 0x94000000; br x16; 2: .quad 0x1122334455667788; 1:",
        "71208092 b06b71b8 10060071 b06b31b8 cc000054 71000058 00000094 00021fd6 88776655 "
        "44332211" } },
    { &isa_aarch64, PP_COUNTER_FRAME, 16, PP_SAVE_GPR, 0, false, 24, 36,
      { "ldr w16, [x29, #16]; subs w16, w16, #1; str w16, [x29, #16]; b.gt 1f; ldr x17, 2f; "
        ".inst 0x94000000; br x16; 2: .quad 0x1122334455667788; 1:",
        "b01340b9 10060071 b01300b9 cc000054 71000058 00000094 00021fd6 88776655 44332211" } },
    { &isa_aarch64, PP_COUNTER_FRAME, 16380, PP_SAVE_GPR, 0, false, 24, 36,
      { "ldr w16, [x29, #16380]; subs w16, w16, #1; str w16, [x29, #16380]; b.gt 1f; ldr x17, "
        "2f; .inst 0x94000000; br x16; 2: .quad 0x1122334455667788; 1:",
        "b0ff7fb9 10060071 b0ff3fb9 cc000054 71000058 00000094 00021fd6 88776655 44332211" } },
    { &isa_aarch64, PP_COUNTER_FRAME, 16384, PP_SAVE_GPR, 0, false, 28, 40,
      { "movz x17, #16384; ldr w16, [x29, x17]; subs w16, w16, #1; str w16, [x29, x17]; b.gt 1f; "
        "ldr x17, 2f; .inst 0x94000000; br x16; 2: .quad 0x1122334455667788; 1:",
        "110088d2 b06b71b8 10060071 b06b31b8 cc000054 71000058 00000094 00021fd6 88776655 "
        "44332211" } },
    { &isa_aarch64, PP_COUNTER_FRAME, 74564, PP_SAVE_GPR, 0, false, 32, 44,
      { "movz x17, #0x2344; movk x17, #1, lsl #16; ldr w16, [x29, x17]; subs w16, w16, #1; str "
        "w16, [x29, x17]; b.gt 1f; ldr x17, 2f; .inst 0x94000000; br x16; 2: .quad "
        "0x1122334455667788; 1:",
        "916884d2 3100a0f2 b06b71b8 10060071 b06b31b8 cc000054 71000058 00000094 00021fd6 "
        "88776655 44332211" } },
    { &isa_aarch64, PP_COUNTER_FRAME, -268435456, PP_SAVE_GPR, 0, true, 32, 44,
      { "movn x17, #0xffff; movk x17, #0xf000, lsl #16; ldr w16, [x29, x17]; subs w16, w16, #1; "
        "str w16, [x29, x17]; b.gt 1f; ldr x17, 2f; .inst 0x94000000; br x16; 2: .quad "
        "0x1122334455667788; 1: bti j",
        "f1ff9f92 1100bef2 b06b71b8 10060071 b06b31b8 cc000054 71000058 00000094 00021fd6 "
        "88776655 44332211 9f2403d5" } },
    { &isa_aarch64, PP_COUNTER_SITE, 0, PP_SAVE_GPR, 0, false, 24, 36,
      { "ldr x17, 2f; ldr w16, [x17, #4]; subs w16, w16, #1; str w16, [x17, #4]; b.gt 1f; .inst "
        "0x94000000; br x16; 2: .quad 0x1122334455667788; 1:",
        "f1000058 300640b9 10060071 300600b9 ac000054 00000094 00021fd6 88776655 44332211" } },
    { &isa_aarch64, PP_COUNTER_SITE, 0, PP_SAVE_V128, 0, true, 24, 36,
      { "ldr x17, 2f; ldr w16, [x17, #4]; subs w16, w16, #1; str w16, [x17, #4]; b.gt 1f; .inst "
        "0x94000000; br x16; 2: .quad 0x1122334455667788; 1: bti j",
        "f1000058 300640b9 10060071 300600b9 ac000054 00000094 00021fd6 88776655 44332211 "
        "9f2403d5" } },
    { &isa_x86_64, PP_COUNTER_DATA, 0, PP_SAVE_GPR, 0, false, 30, 33,
      { "movabs $0x123456789abc, %r11; decl (%r11); jg 1f; movabs $0x1122334455667788, %r11; "
        ".byte 0xe8, 0, 0, 0, 0; jmp *%r11; 1:",
        "49 bb bc 9a 78 56 34 12 00 00 41 ff 0b 7f 12 49 bb 88 77 66 55 44 33 22 11 e8 00 00 "
        "00 00 41 ff e3" }, PP_SITE_COUNTED, 0 },
    { &isa_x86_64, PP_COUNTER_DATA, 0, PP_SAVE_GPR, PP_SITE_RED_ZONE, true, 36, 47,
      { "movabs $0x123456789abc, %r11; cmpl $0, (%r11); je 1f; movabs $0x1122334455667788, "
        "%r11; lea -128(%rsp), %rsp; .byte 0xe8, 0, 0, 0, 0; lea 128(%rsp), %rsp; jmp *%r11; "
        "1: endbr64",
        "49 bb bc 9a 78 56 34 12 00 00 41 83 3b 00 74 1f 49 bb 88 77 66 55 44 33 22 11 48 8d "
        "64 24 80 e8 00 00 00 00 48 8d a4 24 80 00 00 00 41 ff e3 f3 0f 1e fa" }, PP_SITE_POLLED, 0 },
    { &isa_x86_64, PP_COUNTER_DATA, 0, PP_SAVE_GPR, PP_SITE_BYTE, false, 31, 34,
      { "movabs $0x123456789abc, %r11; cmpb $0, (%r11); je 1f; movabs $0x1122334455667788, "
        "%r11; .byte 0xe8, 0, 0, 0, 0; jmp *%r11; 1:",
        "49 bb bc 9a 78 56 34 12 00 00 41 80 3b 00 74 12 49 bb 88 77 66 55 44 33 22 11 e8 00 "
        "00 00 00 41 ff e3" }, PP_SITE_POLLED, 0 },
    { &isa_x86_64, PP_COUNTER_THREAD, 4092, PP_SAVE_GPR, 0, false, 31, 34,
      { "mov -300(%rbp), %r11; decl 4092(%r11); jg 1f; movabs $0x1122334455667788, %r11; "
        ".byte 0xe8, 0, 0, 0, 0; jmp *%r11; 1:",
        "4c 8b 9d d4 fe ff ff 41 ff 8b fc 0f 00 00 7f 12 49 bb 88 77 66 55 44 33 22 11 e8 00 "
        "00 00 00 41 ff e3" }, PP_SITE_COUNTED, -300 },
    { &isa_x86_64, PP_COUNTER_THREAD, 64, PP_SAVE_GPR, PP_SITE_BYTE, false, 26, 29,
      { "mov -8(%rbp), %r11; cmpb $0, 64(%r11); je 1f; movabs $0x1122334455667788, %r11; "
        ".byte 0xe8, 0, 0, 0, 0; jmp *%r11; 1:",
        "4c 8b 5d f8 41 80 7b 40 00 74 12 49 bb 88 77 66 55 44 33 22 11 e8 00 00 00 00 41 ff "
        "e3" }, PP_SITE_POLLED, -8 },
    { &isa_x86_64, PP_COUNTER_SITE, 0, PP_SAVE_GPR, 0, true, 22, 25,
      { "movabs $0x1122334455667788, %r11; cmpl $0, 4(%r11); je 1f; .byte 0xe8, 0, 0, 0, 0; "
        "jmp *%r11; 1: endbr64",
        "49 bb 88 77 66 55 44 33 22 11 41 83 7b 04 00 74 08 e8 00 00 00 00 41 ff e3 f3 0f 1e "
        "fa" }, PP_SITE_POLLED, 0 },
    { &isa_x86_64, PP_COUNTER_FRAME, -132, PP_SAVE_GPR, 0, false, 24, 27,
      { "cmpl $0, -132(%rbp); je 1f; movabs $0x1122334455667788, %r11; .byte 0xe8, 0, 0, 0, "
        "0; jmp *%r11; 1:",
        "83 bd 7c ff ff ff 00 74 12 49 bb 88 77 66 55 44 33 22 11 e8 00 00 00 00 41 ff e3" }, PP_SITE_POLLED, 0 },
    { &isa_x86_64, PP_COUNTER_FRAME, 0, PP_SAVE_GPR, 0, true, 15, 18,
      { "movabs $0x1122334455667788, %r11; .byte 0xe8, 0, 0, 0, 0; jmp *%r11",
        "49 bb 88 77 66 55 44 33 22 11 e8 00 00 00 00 41 ff e3" }, PP_SITE_FORCED, 0 },
    { &isa_x86_64, PP_COUNTER_FRAME, 0, PP_SAVE_GPR, PP_SITE_RED_ZONE, false, 20, 31,
      { "movabs $0x1122334455667788, %r11; lea -128(%rsp), %rsp; .byte 0xe8, 0, 0, 0, 0; lea "
        "128(%rsp), %rsp; jmp *%r11",
        "49 bb 88 77 66 55 44 33 22 11 48 8d 64 24 80 e8 00 00 00 00 48 8d a4 24 80 00 00 00 "
        "41 ff e3" }, PP_SITE_FORCED, 0 },
    { &isa_aarch64, PP_COUNTER_DATA, 0, PP_SAVE_GPR, 0, false, 28, 48,
      { "ldr x17, 3f; ldr w16, [x17]; subs w16, w16, #1; str w16, [x17]; b.gt 1f; ldr x17, "
        "2f; .inst 0x94000000; br x16; 2: .quad 0x1122334455667788; 3: .quad 0x123456789abc; "
        "1:",
        "51010058 300240b9 10060071 300200b9 0c010054 71000058 00000094 00021fd6 88776655 "
        "44332211 bc9a7856 34120000" }, PP_SITE_COUNTED, 0 },
    { &isa_aarch64, PP_COUNTER_DATA, 0, PP_SAVE_GPR, PP_SITE_BYTE, true, 20, 40,
      { "ldr x17, 3f; ldrb w16, [x17]; cbz w16, 1f; ldr x17, 2f; .inst 0x94000000; br x16; 2: "
        ".quad 0x1122334455667788; 3: .quad 0x123456789abc; 1: bti j",
        "11010058 30024039 10010034 71000058 00000094 00021fd6 88776655 44332211 bc9a7856 "
        "34120000 9f2403d5" }, PP_SITE_POLLED, 0 },
    { &isa_aarch64, PP_COUNTER_THREAD, 4092, PP_SAVE_GPR, 0, false, 32, 44,
      { "movn x17, #299; ldr x17, [x29, x17]; ldr w16, [x17, #4092]; subs w16, w16, #1; str "
        "w16, [x17, #4092]; b.gt 1f; ldr x17, 2f; .inst 0x94000000; br x16; 2: .quad "
        "0x1122334455667788; 1:",
        "71258092 b16b71f8 30fe4fb9 10060071 30fe0fb9 cc000054 71000058 00000094 00021fd6 "
        "88776655 44332211" }, PP_SITE_COUNTED, -300 },
    { &isa_aarch64, PP_COUNTER_THREAD, 65, PP_SAVE_GPR, PP_SITE_BYTE, false, 20, 32,
      { "ldr x17, [x29, #40]; ldrb w16, [x17, #65]; cbz w16, 1f; ldr x17, 2f; .inst "
        "0x94000000; br x16; 2: .quad 0x1122334455667788; 1:",
        "b11740f9 30064139 d0000034 71000058 00000094 00021fd6 88776655 44332211" }, PP_SITE_POLLED, 40 },
    { &isa_aarch64, PP_COUNTER_SITE, 0, PP_SAVE_GPR, 0, false, 16, 28,
      { "ldr x17, 2f; ldr w16, [x17, #4]; cbz w16, 1f; .inst 0x94000000; br x16; 2: .quad "
        "0x1122334455667788; 1:",
        "b1000058 300640b9 b0000034 00000094 00021fd6 88776655 44332211" }, PP_SITE_POLLED, 0 },
    { &isa_aarch64, PP_COUNTER_FRAME, -257, PP_SAVE_GPR, PP_SITE_BYTE, false, 20, 32,
      { "movn x17, #256; ldrb w16, [x29, x17]; cbz w16, 1f; ldr x17, 2f; .inst 0x94000000; br "
        "x16; 2: .quad 0x1122334455667788; 1:",
        "11208092 b06b7138 d0000034 71000058 00000094 00021fd6 88776655 44332211" }, PP_SITE_POLLED, 0 },
    { &isa_aarch64, PP_COUNTER_FRAME, -132, PP_SAVE_GPR, 0, false, 16, 28,
      { "ldur w16, [x29, #-132]; cbz w16, 1f; ldr x17, 2f; .inst 0x94000000; br x16; 2: .quad "
        "0x1122334455667788; 1:",
        "b0c357b8 d0000034 71000058 00000094 00021fd6 88776655 44332211" }, PP_SITE_POLLED, 0 },
    { &isa_aarch64, PP_COUNTER_FRAME, 0, PP_SAVE_GPR, 0, true, 8, 20,
      { "ldr x17, 2f; .inst 0x94000000; br x16; 2: .quad 0x1122334455667788",
        "71000058 00000094 00021fd6 88776655 44332211" }, PP_SITE_FORCED, 0 },
};

START_TEST(site_bytes)
{
    const struct site *site = &sites[_i];
    const bool is_x86_64 = site->isa == &isa_x86_64;
    pp_site_desc desc = { .size = sizeof desc, .counter = site->counter,
                          .counter_offset = site->counter_offset, .save = site->save,
                          .flags = site->flags, .kind = site->kind,
                          .thread_offset = site->thread_offset, .word = (void *) WORD };
    pp_site_layout layout = { .size = sizeof layout };
    uint8_t bytes[CODE_MAX];
    memset(bytes, FILL, sizeof bytes);
    ck_assert_int_eq(site->isa->emit_site(&desc, RECORD, site->pads, bytes, sizeof bytes, &layout),
                     PP_OK);
    check_bytes(&site->code, bytes, layout.bytes);
    ck_assert_uint_eq(layout.return_offset, site->return_offset);
    ck_assert_uint_eq(layout.resume_offset, site->resume_offset);
    ck_assert_uint_eq(layout.align, is_x86_64 ? 1 : 4);
    ck_assert_uint_eq(layout.reloc_count, 1);
    ck_assert_uint_eq(layout.relocs[0].offset, site->return_offset - 4);
    ck_assert_uint_eq(layout.relocs[0].type, is_x86_64 ? R_X86_64_PLT32 : R_AARCH64_CALL26);
    ck_assert_int_eq(layout.relocs[0].addend, is_x86_64 ? -4 : 0);
    ck_assert_uint_eq(layout.relocs[0].symbol, site->save == PP_SAVE_V128
                                                   ? PP_SYMBOL_PATCHPOINT_V128
                                                   : PP_SYMBOL_PATCHPOINT_GPR);
}
END_TEST

START_TEST(site_calls_the_stub_of_its_class)
{
    static const struct {
        pp_save save;
        pp_symbol stub;
    } classes[] = {
        { PP_SAVE_GPR, 3 }, { PP_SAVE_V128, 4 }, { PP_SAVE_ABI, 6 }, { PP_SAVE_V256, 7 },
        { PP_SAVE_V512, 8 }, { PP_SAVE_MASK, 9 },
    };
    for (size_t i = 0; i < 2 * sizeof classes / sizeof classes[0]; i++) {
        const struct isa *isa = i % 2 ? &isa_x86_64 : &isa_aarch64;
        pp_site_desc desc = { .size = sizeof desc, .counter_offset = -4,
                              .save = classes[i / 2].save };
        pp_site_layout layout = { .size = sizeof layout };
        ck_assert_int_eq(isa->emit_site(&desc, RECORD, false, NULL, 0, &layout), PP_OK);
        ck_assert_uint_eq(layout.reloc_count, 1);
        ck_assert_uint_eq(layout.relocs[0].symbol, classes[i / 2].stub);
    }
}
END_TEST

/* ---- resume --------------------------------------------------------------- */

static const struct resume {
    const struct isa *isa;
    unsigned base;
    int32_t offset;
    struct code code;
} resumes[] = {
    { &isa_x86_64, 0, 0,
      { "jmp *(%rax)",
        "ff 20" } },
    { &isa_x86_64, 3, 0,
      { "jmp *(%rbx)",
        "ff 23" } },
    { &isa_x86_64, 7, 127,
      { "jmp *127(%rdi)",
        "ff 67 7f" } },
    { &isa_x86_64, 7, 128,
      { "jmp *128(%rdi)",
        "ff a7 80 00 00 00" } },
    { &isa_x86_64, 6, -128,
      { "jmp *-128(%rsi)",
        "ff 66 80" } },
    { &isa_x86_64, 6, -129,
      { "jmp *-129(%rsi)",
        "ff a6 7f ff ff ff" } },
    { &isa_x86_64, 4, 0,
      { "jmp *(%rsp)",
        "ff 24 24" } },
    { &isa_x86_64, 4, 8,
      { "jmp *8(%rsp)",
        "ff 64 24 08" } },
    { &isa_x86_64, 5, 0,
      { "jmp *(%rbp)",
        "ff 65 00" } },
    { &isa_x86_64, 8, 0,
      { "jmp *(%r8)",
        "41 ff 20" } },
    { &isa_x86_64, 11, 16,
      { "jmp *16(%r11)",
        "41 ff 63 10" } },
    { &isa_x86_64, 12, 0,
      { "jmp *(%r12)",
        "41 ff 24 24" } },
    { &isa_x86_64, 12, 4096,
      { "jmp *4096(%r12)",
        "41 ff a4 24 00 10 00 00" } },
    { &isa_x86_64, 13, 0,
      { "jmp *(%r13)",
        "41 ff 65 00" } },
    { &isa_x86_64, 15, INT32_MIN,
      { "jmp *-2147483648(%r15)",
        "41 ff a7 00 00 00 80" } },
    { &isa_aarch64, 0, 0,
      { "ldr x16, [x0]; br x16",
        "100040f9 00021fd6" } },
    { &isa_aarch64, 19, 8,
      { "ldr x16, [x19, #8]; br x16",
        "700640f9 00021fd6" } },
    { &isa_aarch64, 1, 255,
      { "ldur x16, [x1, #255]; br x16",
        "30f04ff8 00021fd6" } },
    { &isa_aarch64, 1, 256,
      { "ldr x16, [x1, #256]; br x16",
        "308040f9 00021fd6" } },
    { &isa_aarch64, 1, 257,
      { "movz x16, #257; ldr x16, [x1, x16]; br x16",
        "302080d2 306870f8 00021fd6" } },
    { &isa_aarch64, 2, -256,
      { "ldur x16, [x2, #-256]; br x16",
        "500050f8 00021fd6" } },
    { &isa_aarch64, 2, -257,
      { "movn x16, #256; ldr x16, [x2, x16]; br x16",
        "10208092 506870f8 00021fd6" } },
    { &isa_aarch64, 30, 32760,
      { "ldr x16, [x30, #32760]; br x16",
        "d0ff7ff9 00021fd6" } },
    { &isa_aarch64, 30, 32768,
      { "movz x16, #32768; ldr x16, [x30, x16]; br x16",
        "100090d2 d06b70f8 00021fd6" } },
    { &isa_aarch64, 31, 16,
      { "ldr x16, [sp, #16]; br x16",
        "f00b40f9 00021fd6" } },
    { &isa_aarch64, 31, 344865,
      { "movz x16, #0x4321; movk x16, #5, lsl #16; ldr x16, [sp, x16]; br x16",
        "306488d2 b000a0f2 f06b70f8 00021fd6" } },
    { &isa_aarch64, 16, 8,
      { "ldr x16, [x16, #8]; br x16",
        "100640f9 00021fd6" } },
    { &isa_aarch64, 29, INT32_MIN,
      { "movn x16, #0xffff; movk x16, #0x8000, lsl #16; ldr x16, [x29, x16]; br x16",
        "f0ff9f92 1000b0f2 b06b70f8 00021fd6" } },
};

START_TEST(resume_jump)
{
    const struct resume *resume = &resumes[_i];
    uint8_t bytes[CODE_MAX];
    size_t size, measured;
    memset(bytes, FILL, sizeof bytes);
    ck_assert_int_eq(pp_emit_resume(resume->isa->arch, resume->base, resume->offset, bytes,
                                    sizeof bytes, &size), PP_OK);
    check_bytes(&resume->code, bytes, size);
    ck_assert_int_eq(pp_emit_resume(resume->isa->arch, resume->base, resume->offset, NULL, 0,
                                    &measured), PP_OK);
    ck_assert_uint_eq(measured, size);
    memset(bytes, FILL, sizeof bytes);
    ck_assert_int_eq(pp_emit_resume(resume->isa->arch, resume->base, resume->offset, bytes, size - 1,
                                    &measured), PP_E_RANGE);
    ck_assert_uint_eq(bytes[0], FILL);
}
END_TEST

START_TEST(resume_refuses)
{
    uint8_t bytes[CODE_MAX];
    size_t size = 4711;
    ck_assert_int_eq(pp_emit_resume(PP_ARCH_X86_64, 16, 0, bytes, sizeof bytes, &size), PP_E_ARG);
    ck_assert_int_eq(pp_emit_resume(PP_ARCH_AARCH64, 32, 0, bytes, sizeof bytes, &size), PP_E_ARG);
    ck_assert_int_eq(pp_emit_resume((pp_arch) 7, 0, 0, bytes, sizeof bytes, &size), PP_E_ARG);
    ck_assert_int_eq(pp_emit_resume(PP_ARCH_HOST, 0, 0, NULL, 8, &size), PP_E_ARG);
    ck_assert_int_eq(pp_emit_resume(PP_ARCH_HOST, 0, 0, bytes, sizeof bytes, NULL), PP_E_ARG);
    /* x16 would have to hold the continuation and the offset. */
    ck_assert_int_eq(pp_emit_resume(PP_ARCH_AARCH64, 16, -1000, bytes, sizeof bytes, &size),
                     PP_E_RANGE);
    ck_assert_uint_eq(size, 4711);
}
END_TEST

/* ---- hostile numbers: sums wrap, nothing is undefined (sanitizers look) ------- */

static const int64_t extremes[] = {
    INT64_MAX, INT64_MIN, INT64_MAX - 3, INT64_MIN + 3, INT64_MAX / 2, INT64_MIN / 2,
    (int64_t) INT32_MAX + 1, (int64_t) INT32_MIN - 1,
};
enum { EXTREMES = sizeof extremes / sizeof extremes[0] };

static const struct isa *const both[] = { &isa_x86_64, &isa_aarch64 };

START_TEST(far_parts_out_of_line_are_refused)
{
    const pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_ARMED, .save = PP_SAVE_GPR };
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned j = 0; j < EXTREMES; j++) {
            uint8_t code[CODE_MAX];
            pp_site_layout layout = { .size = sizeof layout };
            bool fits = i == 0 && extremes[j] == (int64_t) INT32_MAX + 1; /* from its jump's end */
            ck_assert_int_eq(both[i]->emit_site_cold(&desc, RECORD, _i, extremes[j], code,
                                                     sizeof code, &layout),
                             fits ? PP_OK : PP_E_RANGE);
        }
    }
}
END_TEST

START_TEST(addends_wrap)
{
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned j = 0; j < EXTREMES; j++) {
            uint8_t code[CODE_MAX];
            pp_address_layout layout = { .size = sizeof layout };
            uint64_t from = both[i]->arch == PP_ARCH_X86_64 ? 4 : 0; /* the field's end */
            ck_assert_int_eq(pp_emit_address(both[i]->arch, 1, PP_SYMBOL_CODE, extremes[j], code,
                                             sizeof code, &layout), PP_OK);
            for (unsigned k = 0; k < layout.reloc_count; k++)
                ck_assert_uint_eq((uint64_t) layout.relocs[k].addend + from,
                                  (uint64_t) extremes[j]);
        }
    }
}
END_TEST

/* At either end of the address space, every type, every sum. */
START_TEST(relocations_take_any_number)
{
    static const uint64_t addresses[] = { 0, 4, 0x400000, INT64_MAX - 3, (uint64_t) INT64_MIN,
                                          UINT64_MAX - 3 };
    enum { ADDRESSES = sizeof addresses / sizeof addresses[0] };
    const struct isa *isa = both[_i];
    unsigned types = 0;
    for (unsigned type = 0; type < 1024; type++) {
        types += isa->reloc_info((uint16_t) type) != NULL;
        for (unsigned i = 0; i < EXTREMES * ADDRESSES * ADDRESSES; i++) {
            uint64_t place = addresses[i % ADDRESSES], value = addresses[i / ADDRESSES % ADDRESSES];
            int64_t addend = extremes[i / ADDRESSES / ADDRESSES];
            uint8_t bytes[16] = { 0x48, 0x8b, 0x05, 0, 0x48, 0x8b, 0x05 };
            if (isa->reloc_info((uint16_t) type) == NULL)
                break;
            (void) isa->reloc_apply((uint16_t) type, bytes + 4, place, value, addend);
            (void) isa->reloc_relax((uint16_t) type, bytes + 4, place, value, addend);
        }
    }
    ck_assert_uint_ge(types, 9);
}
END_TEST

START_TEST(jumps_between_any_addresses)
{
    static const uintptr_t ends[] = { 4, INT64_MAX - 3, (uintptr_t) INT64_MIN, UINT64_MAX - 3 };
    for (unsigned i = 0; i < 4 * 4; i++) {
        uint8_t code[8];
        size_t bytes;
        const void *from = (const void *) ends[i % 4], *to = (const void *) ends[i / 4];
        for (unsigned j = 0; j < 2; j++) {
            pp_status status = pp_emit_jump(both[j]->arch, from, to, code, sizeof code, &bytes);
            bool near = ends[i % 4] - ends[i / 4] + 8 <= 16; /* around zero, too */
            ck_assert_int_eq(status, near ? PP_OK : PP_E_RANGE);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("emit");
    TCase *tests = tcase_create("emit");
    tcase_add_loop_test(tests, osr_prologue, 0, sizeof osrs / sizeof osrs[0]);
    tcase_add_loop_test(tests, osr_epilogue, 0, sizeof osrs / sizeof osrs[0]);
    tcase_add_loop_test(tests, osr_needs_room, 0, sizeof osrs / sizeof osrs[0]);
    tcase_add_test(tests, osr_refuses);
    tcase_add_loop_test(tests, site_bytes, 0, sizeof sites / sizeof sites[0]);
    tcase_add_test(tests, site_calls_the_stub_of_its_class);
    tcase_add_loop_test(tests, resume_jump, 0, sizeof resumes / sizeof resumes[0]);
    tcase_add_test(tests, resume_refuses);
    tcase_add_loop_test(tests, far_parts_out_of_line_are_refused, 0, 2);
    tcase_add_test(tests, addends_wrap);
    tcase_add_loop_test(tests, relocations_take_any_number, 0, 2);
    tcase_add_test(tests, jumps_between_any_addresses);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
