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

/* The operand's size, and segments, which no NOP uses. */
static bool is_idle_prefix(uint8_t byte)
{
    return byte == 0x66 || (byte & 0xe7) == 0x26 || byte == 0x64 || byte == 0x65;
}

/* 90 and 0f 1f /0 behind any of these prefixes, 0f 1f also behind REX; 0: something else. */
static size_t nop_length(const uint8_t *bytes, size_t available)
{
    size_t at = 0;
    while (at < available && is_idle_prefix(bytes[at]))
        at++;
    if (at < available && bytes[at] == 0x90)
        return at + 1;
    if (at < available && (bytes[at] & 0xf0) == 0x40)
        at++;
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

size_t x86_64_nop_length(const uint8_t *bytes, size_t available)
{
    size_t length = nop_length(bytes, available);
    return length <= available && length <= LENGTH_MAX ? length : 0;
}

/* ---- what fits into what ------------------------------------------------ */

static bool are_nops(const uint8_t *bytes, size_t size)
{
    size_t at = 0, length = 1;
    for (; at < size && length != 0; at += length)
        length = x86_64_nop_length(bytes + at, size - at);
    return at == size && length != 0;
}

bool x86_64_is_nop_head(const uint8_t *bytes, size_t head, size_t available)
{
    size_t length = x86_64_nop_length(bytes, available);
    return length >= head && are_nops(bytes + head, length - head);
}

/* All instructions are known, and begin at the same places. */
static bool have_same_bounds(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    for (size_t at = 0, length; at < bytes; at += length) {
        length = x86_64_instruction_length(a + at, bytes - at);
        if (length == 0 || length != x86_64_instruction_length(b + at, bytes - at))
            return false;
    }
    return true;
}

/* An instruction that is known lies across `at`. */
static bool has_across(const uint8_t *code, size_t at, size_t available)
{
    size_t end = 0, length = 1;
    for (; end < at && length != 0; end += length)
        length = x86_64_instruction_length(code + end, available - end);
    return end > at;
}

/* jmp, ret, ud2: what is right behind is not reached from there. */
static bool leaves(const uint8_t *code, size_t bytes)
{
    size_t at = 0, length = x86_64_instruction_length(code, bytes);
    while (length != 0 && at + length < bytes) {
        at += length;
        length = x86_64_instruction_length(code + at, bytes - at);
    }
    if (length == 0)
        return false;
    const uint8_t first = code[at], second = length > 1 ? code[at + 1] : 0;
    return first == 0xe9 || first == 0xeb || first == 0xc3 || (first == 0x0f && second == 0x0b) ||
           (first == 0xff && second == 0x25);
}

/* A thread that has executed the first instruction comes to one that begins before the end. */
static bool goes_on_inside(const uint8_t *code, size_t bytes)
{
    size_t length = x86_64_instruction_length(code, bytes);
    return length != 0 && length < bytes && !leaves(code, length);
}

bool x86_64_fits_nop(const uint8_t *code, const uint8_t *other, size_t bytes, size_t available,
                     size_t *nop)
{
    const size_t length = *nop = x86_64_nop_length(code, available);
    if (length == 0)
        return true;
    if (length == bytes)
        return !goes_on_inside(other, bytes);
    if (length > bytes)
        return leaves(other, bytes) || are_nops(code + bytes, length - bytes);
    bool same_behind = true;
    for (size_t i = length; i < bytes; i++)
        same_behind &= code[i] == other[i];
    return same_behind ? !has_across(other, length, available)
                       : have_same_bounds(code, other, bytes);
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
