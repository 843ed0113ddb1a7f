/* SPDX-License-Identifier: MIT */
/*
 * x86-64 instruction lengths: prefixes, opcode, ModRM, SIB, displacement, immediate.
 *
 * Refused are undefined opcodes, APX, XOP, and those whose length differs between
 * makers of processors: near branches with an operand size prefix.
 */
#include <config.h>

#include "isa/x86_64_decode.h"

#include "isa/bytes.h"

#include <string.h>

enum { LENGTH_MAX = 15 };

/*
 * What follows an opcode:
 *
 *      .   it is not known          -   nothing
 *      m   ModRM                    b   ModRM, 8 bits        z   ModRM, 16 or 32 bits
 *      1   8 bits                   4   16 or 32 bits        2   16 bits
 *      3   16 and 8 bits            v   16, 32 or 64 bits    o   an address
 *      r   distance of 8 bits       R   distance of 32 bits
 *      0   ModRM, must be /0: b     Z   the same: z
 *      g   b if /0 or /1, else m    G   z if /0 or /1, else m
 *
 * Prefixes and escapes do not come here.
 */
static const char one_byte[257] =
    "mmmm14..mmmm14.." /* 00 */
    "mmmm14..mmmm14.."
    "mmmm14..mmmm14.."
    "mmmm14..mmmm14.."
    "................" /* 40 */
    "----------------"
    "...m....4z1b----"
    "rrrrrrrrrrrrrrrr"
    "bz.bmmmmmmmmmmmm" /* 80 */
    "----------.-----"
    "oooo----14------"
    "11111111vvvvvvvv"
    "bb2-..0Z3-2--1.-" /* C0 */
    "mmmm...-mmmmmmmm"
    "rrrr1111RR.r----"
    ".-..--gG------mm";

static const char two_byte[257] =
    "mmmm.-----.-.m-b" /* 00 */
    "mmmmmmmmmmmmmmmm"
    "mmmm....mmmmmmmm"
    "------.-........"
    "mmmmmmmmmmmmmmmm" /* 40 */
    "mmmmmmmmmmmmmmmm"
    "mmmmmmmmmmmmmmmm"
    "bbbbmmm-....mmmm"
    "RRRRRRRRRRRRRRRR" /* 80 */
    "mmmmmmmmmmmmmmmm"
    "---mbm..---mbmmm"
    "mmmmmmmmmmbmmmmm"
    "mmbmbbbm--------" /* C0 */
    "mmmmmmmmmmmmmmmm"
    "mmmmmmmmmmmmmmmm"
    "mmmmmmmmmmmmmmmm";

struct cursor {
    const uint8_t *at, *end;
    bool short_of; /* bytes were asked for that are not there */
};

static uint8_t next_byte(struct cursor *c)
{
    if (c->at == c->end) {
        c->short_of = true;
        return 0;
    }
    return *c->at++;
}

static uint32_t next_word(struct cursor *c)
{
    if (c->end - c->at < 4) {
        c->short_of = true;
        c->at = c->end;
        return 0;
    }
    c->at += 4;
    return get_le32(c->at - 4);
}

static int64_t next_signed(struct cursor *c, unsigned bytes)
{
    uint64_t low;
    switch (bytes) {
    case 1:
        return (int8_t) next_byte(c);
    case 2:
        low = next_byte(c);
        return (int16_t) (low | (uint64_t) next_byte(c) << 8);
    case 4:
        return (int32_t) next_word(c);
    default:
        low = next_word(c);
        return (int64_t) (low | (uint64_t) next_word(c) << 32);
    }
}

/* ---- prefixes --------------------------------------------------------- */

/* REX.R, X and B, as VEX has them, too; and more of EVEX. */
struct extension {
    uint8_t reg, index, base;
};

/* Legacy prefixes and REX; leaves the cursor at the opcode. */
static void take_prefixes(struct cursor *c, struct x86_insn *insn, struct extension *rex)
{
    for (; c->at < c->end; c->at++) {
        switch (*c->at) {
        case 0x66: insn->operand16 = true; continue;
        case 0x67: insn->address32 = true; continue;
        case 0xf0: insn->locked = true; continue;
        case 0xf2: case 0xf3: insn->repeat = *c->at; continue;
        case 0x64: case 0x65: insn->segment = true; continue;
        case 0x26: case 0x2e: case 0x36: case 0x3e: continue;
        }
        break;
    }
    if (c->at < c->end && (*c->at & 0xf0) == 0x40) {
        uint8_t byte = *c->at++;
        insn->wide = byte >> 3 & 1;
        rex->reg = (uint8_t) ((byte & 4) << 1);
        rex->index = (uint8_t) ((byte & 2) << 2);
        rex->base = (uint8_t) ((byte & 1) << 3);
    }
}

static void take_simd_prefix(struct x86_insn *insn, uint8_t byte)
{
    insn->operand16 = (byte & 3) == 1;
    insn->repeat = (byte & 3) == 2 ? 0xf3 : (byte & 3) == 3 ? 0xf2 : 0;
    insn->third = ~byte >> 3 & 15;
}

/* C5 and C4: one or two bytes, inverted where they stand for bits of REX. */
static bool take_vex(struct cursor *c, struct x86_insn *insn, struct extension *rex, bool two)
{
    uint8_t first = next_byte(c), last = two ? next_byte(c) : first;
    insn->vector = true;
    insn->map = two ? first & 0x1f : X86_0F;
    rex->reg = (uint8_t) ((~first >> 7 & 1) << 3);
    if (two) {
        rex->index = (uint8_t) ((~first >> 6 & 1) << 3);
        rex->base = (uint8_t) ((~first >> 5 & 1) << 3);
        insn->wide = last >> 7;
    }
    take_simd_prefix(insn, last);
    return insn->map >= X86_0F && insn->map <= X86_0F3A;
}

/* 62: three bytes.  The bits that tell APX are refused. */
static bool take_evex(struct cursor *c, struct x86_insn *insn, struct extension *rex)
{
    uint8_t first = next_byte(c), second = next_byte(c);
    (void) next_byte(c);
    insn->vector = true;
    insn->map = first & 7;
    insn->wide = second >> 7;
    rex->reg = (uint8_t) ((~first >> 7 & 1) << 3);
    rex->index = (uint8_t) ((~first >> 6 & 1) << 3);
    rex->base = (uint8_t) ((~first >> 5 & 1) << 3);
    take_simd_prefix(insn, second);
    return !(first & 8) && (second & 4) && insn->map != X86_ONE_BYTE && insn->map != 4
        && insn->map != 7;
}

static bool is_bare(const struct x86_insn *insn, const uint8_t *start, const struct cursor *c)
{
    for (const uint8_t *at = start; at < c->at; at++)
        if ((*at & 0xf0) == 0x40)
            return false;
    return !insn->operand16 && !insn->locked && insn->repeat == 0;
}

/* ---- operands --------------------------------------------------------- */

static void take_modrm(struct cursor *c, struct x86_insn *insn, const struct extension *rex)
{
    uint8_t modrm = next_byte(c);
    unsigned mod = modrm >> 6, rm = modrm & 7;
    insn->has_modrm = true;
    insn->reg = (uint8_t) ((modrm >> 3 & 7) | rex->reg);
    if (mod == 3) {
        insn->rm = (uint8_t) (rm | rex->base);
        return;
    }
    insn->memory = true;
    unsigned base = rm;
    if (rm == 4) {
        uint8_t sib = next_byte(c);
        base = sib & 7;
        insn->indexed = ((sib >> 3 & 7) | rex->index) != 4;
    }
    if (mod == 0 && base == 5) {
        insn->rip_relative = rm == 5;
        insn->displacement = (int32_t) next_word(c);
        return;
    }
    insn->base = (uint8_t) (base | rex->base);
    if (mod != 0)
        insn->displacement = (int32_t) next_signed(c, mod == 1 ? 1 : 4);
}

static bool take_rest(struct cursor *c, struct x86_insn *insn, const struct extension *rex,
                      char form)
{
    const unsigned large = insn->operand16 && !insn->wide ? 2 : 4;
    if (strchr("mbz0ZgG", form) != NULL)
        take_modrm(c, insn, rex);
    const bool first_two = (insn->reg & 7) < 2;
    switch (form) {
    case '-': case 'm':
        return true;
    case '0': case 'Z':
        insn->immediate = next_signed(c, form == '0' ? 1 : large);
        return (insn->reg & 7) == 0;
    case 'g': case 'G':
        if (first_two)
            insn->immediate = next_signed(c, form == 'g' ? 1 : large);
        return true;
    case 'b': case '1': case 'r':
        insn->immediate = next_signed(c, 1);
        return true;
    case 'z': case '4':
        insn->immediate = next_signed(c, large);
        return true;
    case '2':
        insn->immediate = next_signed(c, 2) & 0xffff;
        return true;
    case '3':
        insn->immediate = next_signed(c, 2) & 0xffff;
        insn->immediate |= (int64_t) next_byte(c) << 16;
        return true;
    case 'v':
        insn->immediate = next_signed(c, insn->wide ? 8 : large);
        return true;
    case 'o':
        insn->immediate = next_signed(c, insn->address32 ? 4 : 8);
        return true;
    case 'R':
        insn->immediate = next_signed(c, 4);
        return large == 4;
    }
    return false;
}

/* ---- opcodes ---------------------------------------------------------- */

static bool has_byte(uint8_t opcode)
{
    return (opcode >= 0x70 && opcode <= 0x73) || opcode == 0xc2
        || (opcode >= 0xc4 && opcode <= 0xc6);
}

static char vector_form(const struct x86_insn *insn, bool evex)
{
    if (insn->map != X86_0F)
        return insn->map == X86_0F3A ? 'b' : 'm';
    if (insn->opcode == 0x77)
        return evex ? '.' : '-';
    if ((insn->opcode & 0xf0) == 0x80)
        return '.';
    return has_byte(insn->opcode) ? 'b' : 'm';
}

static char legacy_form(struct cursor *c, struct x86_insn *insn)
{
    if (insn->opcode != 0x0f)
        return one_byte[insn->opcode];
    insn->map = X86_0F;
    insn->opcode = next_byte(c);
    if (insn->opcode == 0x38 || insn->opcode == 0x3a) {
        insn->map = insn->opcode == 0x38 ? X86_0F38 : X86_0F3A;
        insn->opcode = next_byte(c);
        return insn->map == X86_0F38 ? 'm' : 'b';
    }
    if (insn->opcode == 0xb8 && insn->repeat != 0xf3)
        return '.';
    return two_byte[insn->opcode];
}

/* Forms that are not encodings of anything, or of something else. */
static bool is_undefined(const struct x86_insn *insn)
{
    if (insn->map != X86_ONE_BYTE || insn->vector)
        return false;
    switch (insn->opcode) {
    case 0x8d: return !insn->memory;
    case 0x8f: return (insn->reg & 7) != 0;
    case 0xfe: return (insn->reg & 7) > 1;
    case 0xff: return (insn->reg & 7) == 7;
    }
    return false;
}

bool x86_decode(const uint8_t *bytes, size_t available, struct x86_insn *insn)
{
    struct cursor c = { bytes, bytes + (available < LENGTH_MAX ? available : LENGTH_MAX), false };
    struct extension rex = { 0, 0, 0 };
    *insn = (struct x86_insn) { .reg = X86_NO_REGISTER, .rm = X86_NO_REGISTER,
                                .base = X86_NO_REGISTER, .third = X86_NO_REGISTER };
    take_prefixes(&c, insn, &rex);
    bool bare = is_bare(insn, bytes, &c);
    uint8_t opcode = next_byte(&c);
    char form;
    if (opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62) {
        bool known = opcode == 0x62 ? take_evex(&c, insn, &rex)
                                    : take_vex(&c, insn, &rex, opcode == 0xc4);
        if (!known || !bare)
            return false;
        insn->opcode = next_byte(&c);
        form = vector_form(insn, opcode == 0x62);
    } else {
        insn->opcode = opcode;
        form = legacy_form(&c, insn);
    }
    if (!take_rest(&c, insn, &rex, form) || c.short_of || is_undefined(insn))
        return false;
    insn->low = (uint8_t) ((insn->opcode & 7) | rex.base);
    insn->length = (uint8_t) (c.at - bytes);
    return true;
}
