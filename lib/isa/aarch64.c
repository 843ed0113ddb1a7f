/* SPDX-License-Identifier: MIT */
/*
 * AArch64: relocations, trampolines and decoding, after "ELF for the Arm
 * 64-bit Architecture" (section 5.7, static relocations) and the encoding
 * index of the Arm ARM (C4.1).
 *
 * An instruction is looked at before its field is filled in: the type says
 * which instructions it applies to, and any other one is refused.
 */
#include <config.h>

#include "isa/bytes.h"
#include "isa/emit.h"
#include "isa/isa.h"

#include <elf.h>
#include <string.h>

enum { IP0 = 16, ZERO_OR_SP = 31 };

#define NOP 0xd503201fu
#define BTI_C 0xd503245fu
#define BR_IP0 (0xd61f0000u | IP0 << 5)
#define LDR_LITERAL_IP0 (0x58000000u | IP0)              /* ldr x16, #0 */
#define LDR_IP0_IP0 (0xf9400000u | IP0 << 5 | IP0)       /* ldr x16, [x16, #0] */
#define ADRP_IP0 (0x90000000u | IP0)                     /* adrp x16, #0 */
#define ADD_IMMEDIATE_X 0x91000000u                      /* add x, x, #0 */

#define PAGE(address) ((address) & ~(uint64_t) 0xfff)

/* ---- relocations ------------------------------------------------------ */

/* Which instruction a type patches, and how. */
enum field {
    FIELD_DATA64, FIELD_DATA32,  /* no instruction */
    FIELD_BRANCH26, FIELD_COND19, FIELD_TEST14, FIELD_LITERAL19, FIELD_ADR, FIELD_ADRP,
    FIELD_ADD12, FIELD_LDST12, FIELD_GOT12, FIELD_MOVW
};

struct reloc {
    uint8_t field;      /* enum field */
    uint8_t scale;      /* LDST12: log2 of the access; MOVW: number of the 16-bit group */
    bool checked;       /* MOVW: the groups above must be zero */
    struct reloc_info info;
};

#define RELOC_TYPE_FIRST R_AARCH64_ABS64
#define RELOC_TYPE_LAST R_AARCH64_LD64_GOT_LO12_NC

#define DATA(type, size, field, relative) \
    [(type) - RELOC_TYPE_FIRST] = { field, 0, true, { #type, RELOC_VALUE, size, 0, 1, false, relative } }
#define CODE(type, kind, field, scale, relative, checked) \
    [(type) - RELOC_TYPE_FIRST] = { field, scale, checked, { #type, kind, 4, 0, 4, true, relative } }

/* By type; the gaps have no name. */
static const struct reloc relocs[RELOC_TYPE_LAST - RELOC_TYPE_FIRST + 1] = {
    DATA(R_AARCH64_ABS64, 8, FIELD_DATA64, false),
    DATA(R_AARCH64_ABS32, 4, FIELD_DATA32, false),
    DATA(R_AARCH64_PREL64, 8, FIELD_DATA64, true),
    DATA(R_AARCH64_PREL32, 4, FIELD_DATA32, true),
    CODE(R_AARCH64_MOVW_UABS_G0, RELOC_VALUE, FIELD_MOVW, 0, false, true),
    CODE(R_AARCH64_MOVW_UABS_G0_NC, RELOC_VALUE, FIELD_MOVW, 0, false, false),
    CODE(R_AARCH64_MOVW_UABS_G1, RELOC_VALUE, FIELD_MOVW, 1, false, true),
    CODE(R_AARCH64_MOVW_UABS_G1_NC, RELOC_VALUE, FIELD_MOVW, 1, false, false),
    CODE(R_AARCH64_MOVW_UABS_G2, RELOC_VALUE, FIELD_MOVW, 2, false, true),
    CODE(R_AARCH64_MOVW_UABS_G2_NC, RELOC_VALUE, FIELD_MOVW, 2, false, false),
    CODE(R_AARCH64_MOVW_UABS_G3, RELOC_VALUE, FIELD_MOVW, 3, false, true),
    CODE(R_AARCH64_LD_PREL_LO19, RELOC_VALUE, FIELD_LITERAL19, 0, true, true),
    CODE(R_AARCH64_ADR_PREL_LO21, RELOC_VALUE, FIELD_ADR, 0, true, true),
    CODE(R_AARCH64_ADR_PREL_PG_HI21, RELOC_VALUE, FIELD_ADRP, 0, true, true),
    CODE(R_AARCH64_ADD_ABS_LO12_NC, RELOC_VALUE, FIELD_ADD12, 0, false, false),
    CODE(R_AARCH64_LDST8_ABS_LO12_NC, RELOC_VALUE, FIELD_LDST12, 0, false, false),
    CODE(R_AARCH64_TSTBR14, RELOC_VALUE, FIELD_TEST14, 0, true, true),
    CODE(R_AARCH64_CONDBR19, RELOC_VALUE, FIELD_COND19, 0, true, true),
    CODE(R_AARCH64_JUMP26, RELOC_BRANCH, FIELD_BRANCH26, 0, true, true),
    CODE(R_AARCH64_CALL26, RELOC_BRANCH, FIELD_BRANCH26, 0, true, true),
    CODE(R_AARCH64_LDST16_ABS_LO12_NC, RELOC_VALUE, FIELD_LDST12, 1, false, false),
    CODE(R_AARCH64_LDST32_ABS_LO12_NC, RELOC_VALUE, FIELD_LDST12, 2, false, false),
    CODE(R_AARCH64_LDST64_ABS_LO12_NC, RELOC_VALUE, FIELD_LDST12, 3, false, false),
    CODE(R_AARCH64_LDST128_ABS_LO12_NC, RELOC_VALUE, FIELD_LDST12, 4, false, false),
    CODE(R_AARCH64_ADR_GOT_PAGE, RELOC_GOT, FIELD_ADRP, 0, true, true),
    CODE(R_AARCH64_LD64_GOT_LO12_NC, RELOC_GOT, FIELD_GOT12, 3, false, false),
};

#undef DATA
#undef CODE

static const struct reloc *reloc_find(uint16_t type)
{
    if (type < RELOC_TYPE_FIRST || type > RELOC_TYPE_LAST)
        return NULL;
    const struct reloc *reloc = &relocs[type - RELOC_TYPE_FIRST];
    return reloc->info.name != NULL ? reloc : NULL;
}

static const struct reloc_info *aarch64_reloc_info(uint16_t type)
{
    const struct reloc *reloc = reloc_find(type);

    return reloc != NULL ? &reloc->info : NULL;
}

/* log2 of the bytes that a load or store with an unsigned offset accesses, or -1. */
static int access_scale(uint32_t insn)
{
    unsigned size = insn >> 30;

    if ((insn & 0x3b000000) != 0x39000000)
        return -1;
    if ((insn & 0x04800000) != 0x04800000)
        return (int) size;
    return size == 0 ? 4 : -1; /* a Q register; larger sizes are unallocated */
}

/* Whether the instruction is one that the type applies to. */
static bool field_matches(const struct reloc *reloc, uint32_t insn)
{
    switch ((enum field) reloc->field) {
    case FIELD_DATA64:
    case FIELD_DATA32: return true;
    case FIELD_BRANCH26: return (insn & 0x7c000000) == 0x14000000; /* B, BL */
    case FIELD_COND19:                                            /* B.cond, CBZ, CBNZ */
        return (insn & 0xff000000) == 0x54000000 || (insn & 0x7e000000) == 0x34000000;
    case FIELD_TEST14: return (insn & 0x7e000000) == 0x36000000;    /* TBZ, TBNZ */
    case FIELD_LITERAL19: return (insn & 0x3b000000) == 0x18000000; /* LDR, LDRSW, PRFM */
    case FIELD_ADR: return (insn & 0x9f000000) == 0x10000000;
    case FIELD_ADRP: return (insn & 0x9f000000) == 0x90000000;
    case FIELD_ADD12: return (insn & 0x5fc00000) == 0x11000000; /* ADD, ADDS, not shifted */
    case FIELD_LDST12: return access_scale(insn) == reloc->scale;
    case FIELD_GOT12: /* LDR Xt, [Xn]; ADRP cannot have left an address in SP */
        return (insn & 0xffc00000) == 0xf9400000 && (insn >> 5 & 31) != ZERO_OR_SP;
    case FIELD_MOVW: /* MOVZ, MOVK of this group */
        return (insn & 0x5f800000) == 0x52800000 && (insn >> 21 & 3) == reloc->scale &&
               (insn >> 31 != 0 || reloc->scale < 2);
    }
    return false;
}

static uint32_t put_field(uint32_t insn, unsigned low, unsigned bits, uint64_t value)
{
    uint32_t mask = (((uint32_t) 1 << bits) - 1) << low;

    return (insn & ~mask) | ((uint32_t) value << low & mask);
}

/* ADR and ADRP: two bits of the immediate at 29, nineteen at 5. */
static uint32_t put_adr(uint32_t insn, uint64_t value)
{
    return put_field(put_field(insn, 29, 2, value), 5, 19, value >> 2);
}

/* A distance in instructions, in a field of `bits` bits. */
static enum reloc_result put_words(uint32_t *insn, unsigned low, unsigned bits, uint64_t distance)
{
    if (!fits_signed((int64_t) distance, bits + 2))
        return RELOC_OUT_OF_RANGE;
    if ((distance & 3) != 0)
        return RELOC_MISALIGNED;
    *insn = put_field(*insn, low, bits, distance >> 2);
    return RELOC_OK;
}

static enum reloc_result put_pages(uint32_t *insn, uint64_t target, uint64_t place)
{
    uint64_t distance = PAGE(target) - PAGE(place);

    if (!fits_signed((int64_t) distance, 21 + 12))
        return RELOC_OUT_OF_RANGE;
    *insn = put_adr(*insn, distance >> 12);
    return RELOC_OK;
}

/* The low 12 bits of an address, scaled. */
static enum reloc_result put_low12(uint32_t *insn, uint64_t address, unsigned scale)
{
    uint64_t low = address & 0xfff;

    if ((low & (((uint64_t) 1 << scale) - 1)) != 0)
        return RELOC_MISALIGNED;
    *insn = put_field(*insn, 10, 12, low >> scale);
    return RELOC_OK;
}

static enum reloc_result put_movw(uint32_t *insn, const struct reloc *reloc, uint64_t value)
{
    unsigned shift = 16u * reloc->scale;

    if (reloc->checked && shift < 48 && value >> (shift + 16) != 0)
        return RELOC_OUT_OF_RANGE;
    *insn = put_field(*insn, 5, 16, value >> shift);
    return RELOC_OK;
}

static enum reloc_result put_data32(uint8_t *bytes, uint64_t value, bool relative)
{
    /* An absolute word may be read back signed or unsigned, a distance only signed. */
    if (!fits_signed((int64_t) value, 32) && (relative || value > UINT32_MAX))
        return RELOC_OUT_OF_RANGE;
    put_le32(bytes, (uint32_t) value);
    return RELOC_OK;
}

static enum reloc_result put_instruction(const struct reloc *reloc, uint32_t *insn, uint64_t place,
                                         uint64_t sum)
{
    switch ((enum field) reloc->field) {
    case FIELD_BRANCH26: return put_words(insn, 0, 26, sum - place);
    case FIELD_COND19:
    case FIELD_LITERAL19: return put_words(insn, 5, 19, sum - place);
    case FIELD_TEST14: return put_words(insn, 5, 14, sum - place);
    case FIELD_ADR:
        if (!fits_signed((int64_t) (sum - place), 21))
            return RELOC_OUT_OF_RANGE;
        *insn = put_adr(*insn, sum - place);
        return RELOC_OK;
    case FIELD_ADRP: return put_pages(insn, sum, place);
    case FIELD_ADD12: return put_low12(insn, sum, 0);
    case FIELD_LDST12:
    case FIELD_GOT12: return put_low12(insn, sum, reloc->scale);
    case FIELD_MOVW: return put_movw(insn, reloc, sum);
    case FIELD_DATA64:
    case FIELD_DATA32: break;
    }
    return RELOC_BAD_INSTRUCTION;
}

static enum reloc_result aarch64_reloc_apply(uint16_t type, uint8_t *bytes, uint64_t place,
                                             uint64_t value, int64_t addend)
{
    const struct reloc *reloc = reloc_find(type);
    uint64_t sum = value + (uint64_t) addend;

    if (reloc == NULL)
        return RELOC_BAD_INSTRUCTION;
    if (reloc->field == FIELD_DATA64) {
        put_le64(bytes, reloc->info.relative ? sum - place : sum);
        return RELOC_OK;
    }
    if (reloc->field == FIELD_DATA32)
        return put_data32(bytes, reloc->info.relative ? sum - place : sum,
                          reloc->info.relative);

    uint32_t insn = get_le32(bytes);
    if (!field_matches(reloc, insn))
        return RELOC_BAD_INSTRUCTION;
    /* A GOT slot holds one symbol: there is none for the symbol plus something. */
    if (reloc->info.kind == RELOC_GOT && addend != 0)
        return RELOC_BAD_ADDEND;
    enum reloc_result result = put_instruction(reloc, &insn, place, sum);
    if (result == RELOC_OK)
        put_le32(bytes, insn);
    return result;
}

/*
 * The halves of a GOT load are relaxed each on its own, and both or none:
 * every instruction that a half may apply to can be relaxed.
 */
static bool aarch64_reloc_can_relax(uint16_t type, const uint8_t *bytes, int64_t addend)
{
    const struct reloc *reloc = reloc_find(type);

    return reloc != NULL && reloc->info.kind == RELOC_GOT && addend == 0 &&
           field_matches(reloc, get_le32(bytes));
}

static enum reloc_result aarch64_reloc_relax(uint16_t type, uint8_t *bytes, uint64_t place,
                                             uint64_t symbol, int64_t addend)
{
    uint32_t insn = get_le32(bytes);
    enum reloc_result result = RELOC_OK;

    if (!aarch64_reloc_can_relax(type, bytes, addend))
        return RELOC_BAD_INSTRUCTION;
    if (type == R_AARCH64_ADR_GOT_PAGE) {
        result = put_pages(&insn, symbol, place);
    } else if ((insn & 31) == ZERO_OR_SP) {
        insn = NOP; /* a load that is thrown away; as an addition it would change SP */
    } else {
        insn = ADD_IMMEDIATE_X | (insn & 0x3ff);
        result = put_low12(&insn, symbol, 0);
    }
    if (result == RELOC_OK)
        put_le32(bytes, insn);
    return result;
}

/* ---- trampolines ------------------------------------------------------ */

static size_t aarch64_trampoline_size(enum trampoline_shape shape, bool landing_pad)
{
    return (shape == TRAMPOLINE_NEAR ? 8 : 12) + (landing_pad ? 4 : 0);
}

static size_t aarch64_trampoline_encode(enum trampoline_shape shape, bool landing_pad,
                                        uint8_t *bytes, uint64_t place, uint64_t literal)
{
    uint32_t words[4];
    size_t count = 0;

    if (landing_pad)
        words[count++] = BTI_C;
    uint64_t load_place = place + 4 * count;
    if (shape == TRAMPOLINE_NEAR) {
        words[count] = LDR_LITERAL_IP0;
        if (put_words(&words[count++], 5, 19, literal - load_place) != RELOC_OK)
            return 0;
    } else {
        words[count] = ADRP_IP0;
        if (put_pages(&words[count++], literal, load_place) != RELOC_OK)
            return 0;
        words[count] = LDR_IP0_IP0;
        if (put_low12(&words[count++], literal, 3) != RELOC_OK)
            return 0;
    }
    words[count++] = BR_IP0;
    for (size_t i = 0; i < count; i++)
        put_le32(bytes + 4 * i, words[i]);
    return 4 * count;
}

/* ---- decoding --------------------------------------------------------- */

static bool aarch64_is_after_call(const uint8_t *end, size_t available)
{
    if (available < 4)
        return false;
    uint32_t insn = get_le32(end - 4);
    return (insn & 0xfc000000) == 0x94000000 || /* BL */
           (insn & 0xfffffc1f) == 0xd63f0000 || /* BLR */
           (insn & 0xfffff81f) == 0xd63f081f || /* BLRAAZ, BLRABZ */
           (insn & 0xfffff800) == 0xd73f0800;   /* BLRAA, BLRAB */
}

static bool aarch64_call_target(const uint8_t *end, size_t available, uint64_t place,
                                uint64_t *target)
{
    if (available < 4 || (get_le32(end - 4) & 0xfc000000) != 0x94000000)
        return false;
    int64_t words = (int64_t) ((uint64_t) get_le32(end - 4) << 38) >> 38;
    *target = place - 4 + (uint64_t) (words * 4);
    return true;
}

const struct isa isa_aarch64 = {
    .arch = PP_ARCH_AARCH64,
    .name = "AArch64",
    .branch_range = (uint64_t) 1 << 27,
    .got_range = ((uint64_t) 1 << 32) - 0x1000, /* of any two bytes: the rest is lost to pages */
    .literal_range = (uint64_t) 1 << 20,
    .branch_addend = 0,
    .trap = 0, /* udf #0 */
    .trap_size = 4,
    .code_align = 4,
    .reloc_info = aarch64_reloc_info,
    .reloc_apply = aarch64_reloc_apply,
    .reloc_can_relax = aarch64_reloc_can_relax,
    .reloc_relax = aarch64_reloc_relax,
    .trampoline_size = aarch64_trampoline_size,
    .trampoline_encode = aarch64_trampoline_encode,
    .is_after_call = aarch64_is_after_call,
    .call_target = aarch64_call_target,
    .frame = &frame_aarch64,
    .emit_site = aarch64_emit_site,
    .emit_site_cold = aarch64_emit_site_cold,
    .emit_osr_prologue = aarch64_emit_osr_prologue,
    .emit_osr_epilogue = aarch64_emit_osr_epilogue,
    .emit_resume = aarch64_emit_resume,
    .emit_jump_register = aarch64_emit_jump_register,
    .emit_address = aarch64_emit_address,
    .emit_transition = aarch64_emit_transition,
};
