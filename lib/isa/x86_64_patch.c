/* SPDX-License-Identifier: MIT */
/*
 * x86-64: lengths of the instructions that are patched in practice, after Intel's manual,
 * volume 2, chapter 2 and appendix A.  What is not known here has no length: a wrong
 * one would let a thread go on in the middle of an instruction.
 */
#include <config.h>

#include "isa/bytes.h"
#include "isa/patch.h"

enum { LENGTH_MAX = 15 };

/* ModRM, SIB and displacement; 0: cut off. */
static size_t operand_length(const uint8_t *bytes, size_t available)
{
    if (available == 0)
        return 0;
    unsigned mode = bytes[0] >> 6, base = bytes[0] & 7;
    size_t length = 1;
    if (mode == 3)
        return length;
    if (base == 4) {
        if (available < 2)
            return 0;
        base = bytes[1] & 7;
        length++;
    }
    if (mode == 1)
        return length + 1;
    return length + (mode == 2 || base == 5 ? 4 : 0);
}

/* 90 and 0f 1f /0 with any number of 66 and 2e before; 0: something else. */
static size_t nop_length(const uint8_t *bytes, size_t available)
{
    size_t at = 0;
    while (at < available && (bytes[at] == 0x66 || bytes[at] == 0x2e))
        at++;
    if (at < available && bytes[at] == 0x90)
        return at + 1;
    if (available - at < 3 || bytes[at] != 0x0f || bytes[at + 1] != 0x1f ||
        (bytes[at + 2] >> 3 & 7) != 0)
        return 0;
    size_t operand = operand_length(bytes + at + 2, available - at - 2);
    return operand == 0 ? 0 : at + 2 + operand;
}

static size_t two_byte_length(uint8_t opcode)
{
    if (opcode == 0x0b) /* ud2 */
        return 2;
    return opcode >= 0x80 && opcode <= 0x8f ? 6 : 0; /* jcc rel32 */
}

/* mov of an immediate to a register: 32 bits, or with REX.W 64. */
static size_t mov_length(const uint8_t *bytes, size_t available)
{
    bool prefix = (bytes[0] & 0xf0) == 0x40;
    if ((prefix && available < 2) || (bytes[prefix] & 0xf8) != 0xb8)
        return 0;
    return (size_t) prefix + 1 + (prefix && (bytes[0] & 8) ? 8 : 4);
}

static size_t plain_length(const uint8_t *bytes, size_t available)
{
    switch (bytes[0]) {
    case 0xc3: /* ret */
    case 0xcc: /* int3 */
        return 1;
    case 0xa8: /* test $imm8, %al */
    case 0x3c: /* cmp $imm8, %al */
    case 0xeb: /* jmp rel8 */
        return 2;
    case 0xa9: /* test $imm32, %eax */
    case 0x3d: /* cmp $imm32, %eax */
    case 0xe8: /* call rel32 */
    case 0xe9: /* jmp rel32 */
        return 5;
    case 0xff: /* call and jmp *rel32(%rip) */
        return available >= 2 && (bytes[1] == 0x15 || bytes[1] == 0x25) ? 6 : 0;
    case 0x0f:
        return available >= 2 ? two_byte_length(bytes[1]) : 0;
    case 0xf3: /* endbr64 */
        return available >= 4 && get_le32(bytes) == 0xfa1e0ff3 ? 4 : 0;
    }
    return bytes[0] >= 0x70 && bytes[0] <= 0x7f ? 2 : 0; /* jcc rel8 */
}

size_t x86_64_instruction_length(const uint8_t *bytes, size_t available)
{
    if (available == 0)
        return 0;
    size_t length = nop_length(bytes, available);
    if (length == 0)
        length = mov_length(bytes, available);
    if (length == 0)
        length = plain_length(bytes, available);
    return length <= available && length <= LENGTH_MAX ? length : 0;
}

void x86_64_nop(uint8_t *bytes, size_t length)
{
    /* Intel's recommended ones (volume 2B, NOP), and more prefixes before the longest. */
    static const uint8_t nops[9][9] = {
        { 0x90 },
        { 0x66, 0x90 },
        { 0x0f, 0x1f, 0x00 },
        { 0x0f, 0x1f, 0x40, 0x00 },
        { 0x0f, 0x1f, 0x44, 0x00, 0x00 },
        { 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
        { 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 },
        { 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
        { 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
    };
    for (; length > 9; length--)
        *bytes++ = 0x66;
    for (size_t i = 0; i < length; i++)
        bytes[i] = nops[length - 1][i];
}

bool x86_64_jump(uint8_t *bytes, uint64_t from, uint64_t to)
{
    int64_t distance = (int64_t) (to - (from + 5));
    if (!fits_signed(distance, 32))
        return false;
    bytes[0] = 0xe9;
    put_le32(bytes + 1, (uint32_t) distance);
    return true;
}
