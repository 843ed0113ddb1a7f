/* SPDX-License-Identifier: MIT */
/*
 * x86-64: relocations, trampolines and decoding, after the System V psABI
 * (AMD64 supplement, relocation types and "optimize GOTPCRELX relocations")
 * and the instruction formats of the Intel SDM, volume 2.
 *
 * Sums of addresses wrap modulo 2^64, as the psABI has it; a field is refused
 * when the processor would not get the same sum back out of it.
 */
#include <config.h>

#include "isa/bytes.h"
#include "isa/emit.h"
#include "isa/isa.h"

#include <elf.h>
#include <string.h>

enum {
    OP_ADDR32 = 0x67,
    OP_MOV_LOAD = 0x8b,
    OP_LEA = 0x8d,
    OP_NOP = 0x90,
    OP_INT3 = 0xcc,
    OP_CALL_REL32 = 0xe8,
    OP_JMP_REL32 = 0xe9,
    OP_GROUP5 = 0xff,      /* call and jump through a register or memory, among others */
    MODRM_CALL_RIP = 0x15, /* FF /2 with a rip-relative operand */
    MODRM_JMP_RIP = 0x25   /* FF /4 */
};

static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };

/* ---- relocations ------------------------------------------------------ */

static const struct reloc_info *x86_64_reloc_info(uint16_t type)
{
    static const struct reloc_info value[] = {
        { "R_X86_64_64", RELOC_VALUE, 8, 0, 1, false, false },
        { "R_X86_64_32", RELOC_VALUE, 4, 0, 1, false, false },
        { "R_X86_64_32S", RELOC_VALUE, 4, 0, 1, false, false },
        { "R_X86_64_PC32", RELOC_VALUE, 4, 0, 1, false, true },
        { "R_X86_64_PC64", RELOC_VALUE, 8, 0, 1, false, true },
    };
    static const struct reloc_info branch = { "R_X86_64_PLT32", RELOC_BRANCH, 4, 0, 1, true, true };
    static const struct reloc_info got[] = {
        { "R_X86_64_GOTPCREL", RELOC_GOT, 4, 0, 1, true, true },
        { "R_X86_64_GOTPCRELX", RELOC_GOT, 4, 2, 1, true, true },
        { "R_X86_64_REX_GOTPCRELX", RELOC_GOT, 4, 3, 1, true, true },
    };

    switch (type) {
    case R_X86_64_64: return &value[0];
    case R_X86_64_32: return &value[1];
    case R_X86_64_32S: return &value[2];
    case R_X86_64_PC32: return &value[3];
    case R_X86_64_PC64: return &value[4];
    case R_X86_64_PLT32: return &branch;
    case R_X86_64_GOTPCREL: return &got[0];
    case R_X86_64_GOTPCRELX: return &got[1];
    case R_X86_64_REX_GOTPCRELX: return &got[2];
    }
    return NULL;
}

static enum reloc_result put_signed32(uint8_t *bytes, uint64_t value)
{
    if (!fits_signed((int64_t) value, 32))
        return RELOC_OUT_OF_RANGE;
    put_le32(bytes, (uint32_t) value);
    return RELOC_OK;
}

static enum reloc_result x86_64_reloc_apply(uint16_t type, uint8_t *bytes, uint64_t place,
                                            uint64_t value, int64_t addend)
{
    uint64_t sum = value + (uint64_t) addend;

    switch (type) {
    case R_X86_64_64:
        put_le64(bytes, sum);
        return RELOC_OK;
    case R_X86_64_32:
        if (sum > UINT32_MAX)
            return RELOC_OUT_OF_RANGE;
        put_le32(bytes, (uint32_t) sum);
        return RELOC_OK;
    case R_X86_64_32S:
        return put_signed32(bytes, sum);
    case R_X86_64_PC64:
        put_le64(bytes, sum - place);
        return RELOC_OK;
    case R_X86_64_PC32:
    case R_X86_64_PLT32:
    case R_X86_64_GOTPCREL:
    case R_X86_64_GOTPCRELX:
    case R_X86_64_REX_GOTPCRELX:
        return put_signed32(bytes, sum - place);
    }
    return RELOC_BAD_INSTRUCTION;
}

/* What a GOT load turns into when its symbol is near. */
enum relaxation {
    RELAX_NONE,
    RELAX_LEA, /* mov slot(%rip), %reg -> lea symbol(%rip), %reg */
    RELAX_CALL, /* call *slot(%rip) -> addr32 call symbol: one instruction of the same length */
    RELAX_JMP  /* jmp *slot(%rip) -> jmp symbol; nop: the field moves down by one byte */
};

static enum relaxation relaxation_of(uint16_t type, const uint8_t *bytes, int64_t addend)
{
    /* Any other addend: an immediate follows the field, or a word beside the slot is read. */
    if (addend != -4)
        return RELAX_NONE;
    if (type != R_X86_64_GOTPCRELX && type != R_X86_64_REX_GOTPCRELX)
        return RELAX_NONE;

    uint8_t opcode = bytes[-2], modrm = bytes[-1];
    bool rip_relative = (modrm & 0xc7) == 0x05;
    if (type == R_X86_64_REX_GOTPCRELX)
        return (bytes[-3] & 0xf0) == 0x40 && opcode == OP_MOV_LOAD && rip_relative ? RELAX_LEA
                                                                                   : RELAX_NONE;
    if (opcode == OP_MOV_LOAD && rip_relative)
        return RELAX_LEA;
    if (opcode == OP_GROUP5 && modrm == MODRM_CALL_RIP)
        return RELAX_CALL;
    if (opcode == OP_GROUP5 && modrm == MODRM_JMP_RIP)
        return RELAX_JMP;
    return RELAX_NONE;
}

static bool x86_64_reloc_can_relax(uint16_t type, const uint8_t *bytes, int64_t addend)
{
    return relaxation_of(type, bytes, addend) != RELAX_NONE;
}

static enum reloc_result x86_64_reloc_relax(uint16_t type, uint8_t *bytes, uint64_t place,
                                            uint64_t symbol, int64_t addend)
{
    enum relaxation relaxation = relaxation_of(type, bytes, addend);
    enum reloc_result result;

    switch (relaxation) {
    case RELAX_NONE:
        return RELOC_BAD_INSTRUCTION;
    case RELAX_JMP:
        /* rel32 counts from the end of the jump, one byte before the end of the old one. */
        result = put_signed32(bytes - 1, symbol + (uint64_t) addend - (place - 1));
        if (result == RELOC_OK) {
            bytes[-2] = OP_JMP_REL32;
            bytes[3] = OP_NOP;
        }
        return result;
    case RELAX_LEA:
    case RELAX_CALL:
        break;
    }
    result = put_signed32(bytes, symbol + (uint64_t) addend - place);
    if (result != RELOC_OK)
        return result;
    if (relaxation == RELAX_LEA) {
        bytes[-2] = OP_LEA;
    } else {
        bytes[-2] = OP_ADDR32;
        bytes[-1] = OP_CALL_REL32;
    }
    return RELOC_OK;
}

/* ---- trampolines ------------------------------------------------------ */

enum { TRAMPOLINE_BYTES = 6 }; /* jmp *literal(%rip) */

/* Island slots have a power of two, so that none of them straddles a cache line. */
static size_t x86_64_trampoline_size(enum trampoline_shape shape, bool landing_pad)
{
    if (shape == TRAMPOLINE_ISLAND)
        return landing_pad ? 16 : 8;
    return TRAMPOLINE_BYTES + (landing_pad ? sizeof endbr64 : 0);
}

static size_t x86_64_trampoline_encode(enum trampoline_shape shape, bool landing_pad,
                                       uint8_t *bytes, uint64_t place, uint64_t literal)
{
    size_t size = x86_64_trampoline_size(shape, landing_pad);
    size_t at = landing_pad ? sizeof endbr64 : 0;
    int64_t distance = (int64_t) (literal - (place + at + TRAMPOLINE_BYTES));

    if (!fits_signed(distance, 32))
        return 0;
    if (landing_pad)
        memcpy(bytes, endbr64, sizeof endbr64);
    bytes[at] = OP_GROUP5;
    bytes[at + 1] = MODRM_JMP_RIP;
    put_le32(bytes + at + 2, (uint32_t) distance);
    memset(bytes + at + TRAMPOLINE_BYTES, OP_INT3, size - at - TRAMPOLINE_BYTES);
    return size;
}

/* ---- decoding --------------------------------------------------------- */

/* Bytes of a group 5 instruction with this ModRM byte, prefixes not counted (SDM table 2-2). */
static size_t group5_length(uint8_t modrm, uint8_t sib)
{
    unsigned mod = modrm >> 6, rm = modrm & 7;

    if (mod == 3)
        return 2;
    size_t length = rm == 4 ? 3 : 2;
    if (mod == 1)
        return length + 1;
    if (mod == 2)
        return length + 4;
    if (rm == 5 || (rm == 4 && (sib & 7) == 5))
        return length + 4;
    return length;
}

/*
 * Prefixes (REX, addr32, notrack) come first and change nothing about the
 * bytes at the end, so a form with a prefix is found as the form without.
 */
static bool x86_64_is_after_call(const uint8_t *end, size_t available)
{
    if (available >= 5 && end[-5] == OP_CALL_REL32)
        return true;
    for (size_t length = 2; length <= 7 && length <= available; length++) {
        const uint8_t *start = end - length;
        if (start[0] == OP_GROUP5 && (start[1] >> 3 & 7) == 2 &&
            group5_length(start[1], length > 2 ? start[2] : 0) == length)
            return true;
    }
    return false;
}

static bool x86_64_call_target(const uint8_t *end, size_t available, uint64_t place,
                               uint64_t *target)
{
    if (available < 5 || end[-5] != OP_CALL_REL32)
        return false;
    *target = place + (uint64_t) (int64_t) (int32_t) get_le32(end - 4);
    return true;
}

const struct isa isa_x86_64 = {
    .arch = PP_ARCH_X86_64,
    .name = "x86-64",
    .branch_range = (uint64_t) 1 << 31,
    .got_range = (uint64_t) 1 << 31,
    .literal_range = (uint64_t) 1 << 31,
    .branch_addend = -4,
    .trap = 0xcccccccc,
    .trap_size = 1,
    .code_align = 1,
    .reloc_info = x86_64_reloc_info,
    .reloc_apply = x86_64_reloc_apply,
    .reloc_can_relax = x86_64_reloc_can_relax,
    .reloc_relax = x86_64_reloc_relax,
    .trampoline_size = x86_64_trampoline_size,
    .trampoline_encode = x86_64_trampoline_encode,
    .is_after_call = x86_64_is_after_call,
    .call_target = x86_64_call_target,
    .frame = &frame_x86_64,
    .emit_site = x86_64_emit_site,
    .emit_site_cold = x86_64_emit_site_cold,
    .emit_osr_prologue = x86_64_emit_osr_prologue,
    .emit_osr_epilogue = x86_64_emit_osr_epilogue,
    .emit_resume = x86_64_emit_resume,
    .emit_jump_register = x86_64_emit_jump_register,
    .emit_address = x86_64_emit_address,
    .emit_transition = x86_64_emit_transition,
};
