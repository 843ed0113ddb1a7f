/* SPDX-License-Identifier: MIT */
/*
 * Sites, OSR prologues and epilogues, and resume jumps in AArch64 instructions.
 *
 * x16 serves for every offset that no immediate holds.  Encodings are those of
 * the Arm ARM, chapter C6 (general) and C7 (SIMD and floating point).
 */
#include <config.h>

#include "isa/emit.h"

#include "isa/bytes.h"

#include <elf.h>

#define X16 16u
#define X17 17u
#define FP 29u
#define X30 30u
#define SP 31u

#define BTI_J 0xd503249fu
#define BR_X16 0xd61f0200u
#define NOP 0xd503201fu
#define RET 0xd65f03c0u

/* A load or store, in the forms that differ by the reach of their offset. */
struct access {
    uint32_t scaled;   /* [Xn, #imm12 * size] */
    uint32_t unscaled; /* [Xn, #imm9] */
    uint32_t indexed;  /* [Xn, Xm] */
    unsigned size;
};

static const struct access load_b = { 0x39400000, 0x38400000, 0x38606800, 1 };
static const struct access load_w = { 0xb9400000, 0xb8400000, 0xb8606800, 4 };
static const struct access store_w = { 0xb9000000, 0xb8000000, 0xb8206800, 4 };
static const struct access load_x = { 0xf9400000, 0xf8400000, 0xf8606800, 8 };
static const struct access store_x = { 0xf9000000, 0xf8000000, 0xf8206800, 8 };
static const struct access load_d = { 0xfd400000, 0xfc400000, 0, 8 };
static const struct access store_d = { 0xfd000000, 0xfc000000, 0, 8 };

static bool reaches(const struct access *access, int64_t offset)
{
    return fits_signed(offset, 9)
        || (offset >= 0 && offset % access->size == 0 && offset / access->size < 4096);
}

/* The caller knows that it reaches. */
static void emit_access(struct emitter *e, const struct access *access, unsigned reg, unsigned base,
                        int64_t offset)
{
    if (offset >= 0 && offset % access->size == 0 && offset / access->size < 4096)
        emit_le32(e, access->scaled | (uint32_t) (offset / access->size) << 10 | base << 5 | reg);
    else
        emit_le32(e, access->unscaled | ((uint32_t) offset & 0x1ff) << 12 | base << 5 | reg);
}

static void emit_indexed(struct emitter *e, const struct access *access, unsigned reg,
                         unsigned base, unsigned index)
{
    emit_le32(e, access->indexed | index << 16 | base << 5 | reg);
}

/* mov reg, #value: one or two instructions for 32 bits with sign */
static void emit_mov(struct emitter *e, unsigned reg, int64_t value)
{
    uint32_t low = (uint32_t) value & 0xffff, high = (uint32_t) value >> 16;
    if (value >= 0) {
        emit_le32(e, 0xd2800000 | low << 5 | reg);       /* movz */
        if (high != 0)
            emit_le32(e, 0xf2a00000 | high << 5 | reg);  /* movk, lsl 16 */
    } else {
        emit_le32(e, 0x92800000 | (low ^ 0xffff) << 5 | reg); /* movn */
        if (high != 0xffff)
            emit_le32(e, 0xf2a00000 | high << 5 | reg);
    }
}

/* to = from + offset; clobbers x16 when an immediate is too short, so from is not x16 */
static void emit_add(struct emitter *e, unsigned to, unsigned from, int64_t offset)
{
    uint64_t size = (uint64_t) (offset < 0 ? -offset : offset);
    uint32_t opcode = offset < 0 ? 0xd1000000 : 0x91000000; /* sub, add */
    if (size >= 1u << 24) {
        emit_mov(e, X16, offset);
        emit_le32(e, 0x8b206000 | X16 << 16 | from << 5 | to); /* add to, from, x16, uxtx */
        return;
    }
    if (size >= 4096) {
        emit_le32(e, opcode | 1u << 22 | (uint32_t) (size >> 12) << 10 | from << 5 | to);
        from = to;
    }
    if (size % 4096 != 0 || size == 0)
        emit_le32(e, opcode | (uint32_t) (size % 4096) << 10 | from << 5 | to);
}

/* ---- save areas --------------------------------------------------------- */

struct pair {
    unsigned first, count;
    unsigned reg[2]; /* bits of the save area */
    int64_t offset;
};

/* The next one or two registers that move and lie side by side, or count 0. */
static struct pair next_pair(const struct save_move *move, unsigned *bit, int64_t *offset)
{
    struct pair pair = { .count = 0 };
    for (; *bit < 64; ++*bit) {
        uint64_t mask = 1ull << *bit;
        if (!(move->slots & mask))
            continue;
        bool moves = (move->which & mask) != 0;
        if (pair.count == 1 && (!moves || (pair.reg[0] ^ *bit) & 32))
            return pair; /* looked at again in the next call */
        if (moves) {
            if (pair.count == 0)
                pair.offset = *offset;
            pair.reg[pair.count++] = *bit;
        }
        *offset += 8;
        if (pair.count == 2) {
            ++*bit;
            return pair;
        }
    }
    return pair;
}

static bool pair_reaches(const struct pair *pair)
{
    if (pair->count == 2)
        return pair->offset % 8 == 0 && fits_signed(pair->offset / 8, 7);
    return reaches(&load_x, pair->offset);
}

static bool all_reach(const struct save_move *move)
{
    unsigned bit = 0;
    int64_t offset = move->offset;
    for (;;) {
        struct pair pair = next_pair(move, &bit, &offset);
        if (pair.count == 0)
            return true;
        if (!pair_reaches(&pair))
            return false;
    }
}

static void emit_pair(struct emitter *e, const struct pair *pair, bool load, unsigned base)
{
    bool vector = (pair->reg[0] & 32) != 0;
    unsigned first = pair->reg[0] & 31;
    if (pair->count == 1) {
        const struct access *access = vector ? (load ? &load_d : &store_d)
                                             : (load ? &load_x : &store_x);
        emit_access(e, access, first, base, pair->offset);
        return;
    }
    uint32_t opcode = (vector ? 0x6d000000 : 0xa9000000) | (load ? 1u << 22 : 0); /* stp, ldp */
    emit_le32(e, opcode | ((uint32_t) (pair->offset / 8) & 0x7f) << 15 | (pair->reg[1] & 31) << 10
                     | base << 5 | first);
}

/* From FP directly if every slot is in reach, else from x16. */
static void emit_moves(struct emitter *e, const struct save_move *move, bool load)
{
    if (move->which == 0)
        return;
    unsigned base = FP, bit = 0;
    int64_t offset = move->offset;
    if (!all_reach(move)) {
        emit_add(e, X16, FP, offset);
        base = X16;
        offset = 0;
    }
    for (;;) {
        struct pair pair = next_pair(move, &bit, &offset);
        if (pair.count == 0)
            return;
        emit_pair(e, &pair, load, base);
    }
}

/* ---- patchpoints -------------------------------------------------------- */

/*
 * Literals lie behind the jump, where nothing runs; they are 4-aligned only,
 * which a load of normal memory takes (Arm ARM B2.5).  The lengths of
 * instructions do not depend on where the labels are, so one pass finds the
 * labels for the next.
 */
struct labels {
    size_t resume, record, word;
};

static uint32_t imm19(const struct emitter *e, size_t label)
{
    return (uint32_t) ((int64_t) (label - e->length) / 4) << 5 & 0xffffe0;
}

static void emit_literal(struct emitter *e, size_t label)
{
    emit_le32(e, 0x58000000 | X17 | imm19(e, label)); /* ldr x17, literal */
}

/* w16 = the counter less one, and flags; or the flag that is polled. */
static void emit_word(struct emitter *e, const struct pp_site_desc *desc, unsigned base,
                      int64_t offset)
{
    const bool polled = desc->kind == PP_SITE_POLLED;
    const struct access *load = polled && desc->flags & PP_SITE_BYTE ? &load_b : &load_w;
    bool direct = reaches(load, offset);
    if (direct) {
        emit_access(e, load, X16, base, offset);
    } else {
        emit_mov(e, X17, offset);
        emit_indexed(e, load, X16, base, X17);
    }
    if (polled)
        return;
    emit_le32(e, 0x71000610); /* subs w16, w16, #1 */
    if (direct)
        emit_access(e, &store_w, X16, base, offset);
    else
        emit_indexed(e, &store_w, X16, base, X17);
}

/* Count or look, and go on behind the site if it is not time. */
static void emit_test(struct emitter *e, const struct pp_site_desc *desc,
                      const struct labels *labels)
{
    switch (desc->counter) {
    case PP_COUNTER_SITE:
        emit_literal(e, labels->record);
        emit_word(e, desc, X17, PP_SITE_COUNTER);
        break;
    case PP_COUNTER_DATA:
        emit_literal(e, labels->word);
        emit_word(e, desc, X17, 0);
        break;
    case PP_COUNTER_THREAD:
        if (reaches(&load_x, desc->thread_offset)) {
            emit_access(e, &load_x, X17, FP, desc->thread_offset);
        } else {
            emit_mov(e, X17, desc->thread_offset);
            emit_indexed(e, &load_x, X17, FP, X17);
        }
        emit_word(e, desc, X17, desc->counter_offset); /* known to reach */
        break;
    default:
        emit_word(e, desc, FP, desc->counter_offset);
    }
    /* cbz w16, resume; b.gt resume */
    emit_le32(e, (desc->kind == PP_SITE_POLLED ? 0x34000000 | X16 : 0x5400000c)
                     | imm19(e, labels->resume));
}

/* The call, and the jump to where its answer says. */
static void emit_call(struct emitter *e, const struct pp_site_desc *desc,
                      struct pp_site_layout *layout)
{
    layout->relocs[0] = (pp_reloc) {
        .offset = (uint32_t) e->length,
        .type = R_AARCH64_CALL26,
        .section = PP_IN_CODE,
        .symbol = emit_patchpoint_stub(desc->save),
    };
    layout->reloc_count = 1;
    emit_le32(e, 0x94000000); /* bl stub */
    layout->return_offset = e->length;
    emit_le32(e, BR_X16);
}

static void emit_parts(struct emitter *e, const struct pp_site_desc *desc, uintptr_t record,
                       struct labels *labels, struct pp_site_layout *layout)
{
    const bool forced = desc->kind == PP_SITE_FORCED;
    const struct labels to = *labels;
    if (!forced)
        emit_test(e, desc, &to);
    if (forced || desc->counter != PP_COUNTER_SITE)
        emit_literal(e, to.record);
    emit_call(e, desc, layout);
    labels->record = e->length;
    emit_le64(e, record);
    labels->word = e->length;
    if (!forced && desc->counter == PP_COUNTER_DATA)
        emit_le64(e, (uintptr_t) desc->word);
    labels->resume = e->length;
}

pp_status aarch64_emit_site(const struct pp_site_desc *desc, uintptr_t record, bool landing_pads,
                            uint8_t *buffer, size_t capacity, struct pp_site_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    struct labels labels = { 0, 0, 0 };
    if (desc->kind == PP_SITE_ARMED) {
        emit_le32(&e, NOP);
        layout->reloc_count = 0;
        layout->return_offset = layout->resume_offset = layout->bytes = e.length;
        layout->align = 4;
        return emit_finish(&e);
    }
    e = (struct emitter) { NULL, 0, 0 };
    emit_parts(&e, desc, record, &labels, layout);
    e = (struct emitter) { buffer, capacity, 0 };
    emit_parts(&e, desc, record, &labels, layout);
    layout->resume_offset = e.length;
    if (landing_pads && desc->kind != PP_SITE_FORCED)
        emit_le32(&e, BTI_J);
    layout->bytes = e.length;
    layout->align = 4;
    return emit_finish(&e);
}

pp_status aarch64_emit_site_cold(const struct pp_site_desc *desc, uintptr_t record,
                                 bool landing_pads, int64_t hot, uint8_t *buffer, size_t capacity,
                                 struct pp_site_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    emit_literal(&e, landing_pads ? 20 : 16);
    emit_call(&e, desc, layout);
    layout->resume_offset = e.length;
    if (landing_pads)
        emit_le32(&e, BTI_J);
    int64_t distance = add_wrapping(hot, 4 - (int64_t) e.length);
    emit_le32(&e, 0x14000000 | ((uint32_t) (distance / 4) & 0x3ffffff)); /* b behind the site */
    emit_le64(&e, record);
    layout->bytes = e.length;
    layout->align = 4;
    return distance % 4 == 0 && fits_signed(distance, 28) ? emit_finish(&e) : PP_E_RANGE;
}

/* ---- OSR bodies --------------------------------------------------------- */

/*
 * Lower SP.  From a page on every page is touched on the way, so that an
 * overflow meets the guard page; the rest, less than a page, is not, as in C.
 */
static void emit_lower(struct emitter *e, uint32_t bytes)
{
    uint32_t pages = bytes & ~(PROBE_PAGE - 1);
    if (pages != 0) {
        emit_add(e, X16, SP, -(int64_t) pages);
        emit_le32(e, 0xd14007ff);                           /* loop: sub sp, sp, #1, lsl #12 */
        emit_le32(e, 0xf90003ff);                           /* str xzr, [sp] */
        emit_le32(e, 0xeb206000 | X16 << 16 | SP << 5 | 31); /* cmp sp, x16 */
        emit_le32(e, 0x54000001 | (-3u & 0x7ffff) << 5);    /* b.ne loop */
    }
    if (bytes != pages)
        emit_add(e, SP, SP, -(int64_t) (bytes - pages));
}

/* What is in x30 at an OSR entry is nobody's: the epilogue loads it. */
static void emit_base(struct emitter *e, const pp_place *base)
{
    if (base->kind == PP_PLACE_DEAD)
        return;
    unsigned reg = base->kind == PP_PLACE_GPR ? base->number : X30;
    emit_le32(e, 0x910003e0 | reg); /* mov reg, sp */
    if (base->kind == PP_PLACE_GPR)
        return;
    if (reaches(&store_x, base->offset)) {
        emit_access(e, &store_x, reg, FP, base->offset);
    } else {
        emit_mov(e, X16, base->offset);
        emit_indexed(e, &store_x, reg, FP, X16);
    }
}

pp_status aarch64_emit_osr_prologue(const struct pp_osr_frame *frame, uint8_t *buffer,
                                    size_t capacity, struct pp_osr_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    struct osr_plan plan;
    osr_plan_from(frame, &plan, layout);
    if (plan.landing_pad)
        emit_le32(&e, BTI_J);
    emit_moves(&e, &plan.reload, true);
    emit_lower(&e, plan.stack_bytes);
    emit_moves(&e, &plan.save, false);
    emit_base(&e, &plan.base);
    layout->bytes = e.length;
    return emit_finish(&e);
}

pp_status aarch64_emit_osr_epilogue(const struct pp_osr_frame *frame, uint8_t *buffer,
                                    size_t capacity, struct pp_osr_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    struct osr_plan plan;
    osr_plan_from(frame, &plan, layout);
    emit_moves(&e, &plan.restore, true);
    emit_le32(&e, 0x910003bf); /* mov sp, x29 */
    if (plan.cfa_offset <= 504) {
        emit_le32(&e, 0xa8c07bfd | plan.cfa_offset / 8 << 15); /* ldp x29, x30, [sp], #cfa_offset */
    } else {
        emit_le32(&e, 0xa9407bfd); /* ldp x29, x30, [sp] */
        emit_add(&e, SP, SP, plan.cfa_offset);
    }
    emit_le32(&e, RET);
    layout->bytes = e.length;
    return emit_finish(&e);
}

/* ---- resume ------------------------------------------------------------- */

pp_status aarch64_emit_resume(unsigned base, int32_t offset, uint8_t *buffer, size_t capacity,
                              size_t *bytes)
{
    struct emitter e = { buffer, capacity, 0 };
    if (reaches(&load_x, offset)) {
        emit_access(&e, &load_x, X16, base, offset);
    } else if (base == X16) {
        return PP_E_RANGE; /* x16 is needed for the offset */
    } else {
        emit_mov(&e, X16, offset);
        emit_indexed(&e, &load_x, X16, base, X16);
    }
    emit_le32(&e, BR_X16);
    *bytes = e.length;
    return emit_finish(&e);
}

pp_status aarch64_emit_jump_register(unsigned reg, uint8_t *buffer, size_t capacity, size_t *bytes)
{
    struct emitter e = { buffer, capacity, 0 };
    if (reg != X16 && reg != X17) {
        emit_le32(&e, 0xaa0003e0 | reg << 16 | X16); /* mov x16, reg */
        reg = X16;
    }
    emit_le32(&e, 0xd61f0000 | reg << 5); /* br */
    *bytes = e.length;
    return emit_finish(&e);
}

pp_status aarch64_emit_address(unsigned reg, pp_symbol symbol, int64_t addend, uint8_t *buffer,
                               size_t capacity, struct pp_address_layout *layout)
{
    static const uint16_t types[] = { R_AARCH64_ADR_PREL_PG_HI21, R_AARCH64_ADD_ABS_LO12_NC };
    struct emitter e = { buffer, capacity, 0 };
    emit_le32(&e, 0x90000000 | reg);            /* adrp reg, symbol */
    emit_le32(&e, 0x91000000 | reg << 5 | reg); /* add reg, reg, :lo12:symbol */
    for (unsigned i = 0; i < 2; i++)
        layout->relocs[i] = (pp_reloc) { .offset = 4 * i, .type = types[i], .section = PP_IN_CODE,
                                         .symbol = symbol, .addend = addend };
    layout->reloc_count = 2;
    layout->bytes = e.length;
    return emit_finish(&e);
}

/* ---- transitions -------------------------------------------------------- */

/*
 * x16 has the target behind the call, so x17 serves for the body's SP.  SP moves
 * in one instruction: what lies below it may be gone at any time.
 */
static void emit_body_sp(struct emitter *e, uint32_t frame_bytes)
{
    if (frame_bytes < 4096) {
        emit_le32(e, 0xd1000000 | frame_bytes << 10 | FP << 5 | SP); /* sub sp, x29, # */
        return;
    }
    emit_mov(e, X17, frame_bytes);
    emit_le32(e, 0xcb206000 | X17 << 16 | FP << 5 | SP); /* sub sp, x29, x17, uxtx */
}

/*
 * What lies below SP may be gone at any time, so the record is loaded before SP passes it;
 * and walkers know the two forms, by the ldp from SP.
 */
static void emit_pop(struct emitter *e, uint32_t cfa_offset)
{
    bool near = cfa_offset <= 504;
    if (!near) {
        emit_mov(e, X17, cfa_offset);
        emit_le32(e, 0x8b206000 | X17 << 16 | FP << 5 | X17); /* add x17, x29, x17, uxtx */
    }
    emit_le32(e, 0x910003bf); /* mov sp, x29 */
    if (near) {
        emit_le32(e, 0xa8c07bfd | cfa_offset / 8 << 15); /* ldp x29, x30, [sp], #cfa_offset */
        return;
    }
    emit_le32(e, 0xa9407bfd); /* ldp x29, x30, [sp] */
    emit_le32(e, 0x9100001f | X17 << 5); /* mov sp, x17 */
}

/* What follows the call, or is all: the body's SP, its index and the jump. */
static void emit_end(struct emitter *e, const struct transition_code *code)
{
    if (code->pops_frame)
        emit_pop(e, code->cfa_offset);
    else if (code->moves)
        emit_body_sp(e, code->frame_bytes);
    if (code->has_index)
        emit_mov(e, X17, code->index);
    if (!code->moves)
        emit_le32(e, 0x58000000 | X16 | 2 << 5); /* ldr x16, the literal behind the jump */
    emit_le32(e, BR_X16);
}

pp_status aarch64_emit_transition(const struct transition_code *code, uint8_t *buffer,
                                  size_t capacity, struct transition_layout *layout)
{
    struct emitter e = { NULL, 0, 0 };
    emit_end(&e, code);
    uint32_t end = (uint32_t) e.length;
    e = (struct emitter) { buffer, capacity, 0 };
    if (code->landing_pad)
        emit_le32(&e, BTI_J);
    if (code->moves) {
        emit_lower(&e, code->lower_bytes);
        emit_le32(&e, 0x58000000 | X17 | (end + 8) / 4 << 5); /* ldr x17, entry */
        layout->call_offset = e.length;
        layout->call_type = R_AARCH64_CALL26;
        layout->call_addend = 0;
        emit_le32(&e, 0x94000000); /* bl stub */
    }
    emit_end(&e, code);
    emit_le64(&e, code->moves ? code->entry : code->body);
    layout->bytes = e.length;
    return emit_finish(&e);
}
