/* SPDX-License-Identifier: MIT */
/* Sites, OSR prologues and epilogues, and resume jumps in x86-64 instructions. */
#include <config.h>

#include "isa/emit.h"

#include "isa/bytes.h"

#include <elf.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12 };

#define RED_ZONE 128

static void emit_endbr64(struct emitter *e)
{
    emit_le32(e, 0xfa1e0ff3);
}

/*
 * ModRM, SIB where rsp or r12 is the base, and a displacement, short if it
 * fits.  rbp and r13 have no form without one.
 */
static void emit_operand(struct emitter *e, unsigned field, unsigned base, int32_t offset)
{
    unsigned mod = offset == 0 && (base & 7) != RBP ? 0 : offset == (int8_t) offset ? 1 : 2;
    emit_byte(e, (uint8_t) (mod << 6 | (field & 7) << 3 | (base & 7)));
    if ((base & 7) == RSP)
        emit_byte(e, 0x24);
    if (mod == 1)
        emit_byte(e, (uint8_t) offset);
    else if (mod == 2)
        emit_le32(e, (uint32_t) offset);
}

/* REX.W opcode, register, offset(base) */
static void emit_rm64(struct emitter *e, uint8_t opcode, unsigned reg, unsigned base,
                      int32_t offset)
{
    emit_byte(e, (uint8_t) (0x48 | (reg >> 3) << 2 | base >> 3));
    emit_byte(e, opcode);
    emit_operand(e, reg, base, offset);
}

static void emit_load(struct emitter *e, unsigned reg, int32_t offset)
{
    emit_rm64(e, 0x8b, reg, RBP, offset);
}

static void emit_store(struct emitter *e, unsigned reg, int32_t offset)
{
    emit_rm64(e, 0x89, reg, RBP, offset);
}

static void emit_lea(struct emitter *e, unsigned reg, unsigned base, int32_t offset)
{
    emit_rm64(e, 0x8d, reg, base, offset);
}

/* sub $bytes, %rsp */
static void emit_sub_rsp(struct emitter *e, uint32_t bytes)
{
    emit_byte(e, 0x48);
    emit_byte(e, bytes < 128 ? 0x83 : 0x81);
    emit_byte(e, 0xec);
    if (bytes < 128)
        emit_byte(e, (uint8_t) bytes);
    else
        emit_le32(e, bytes);
}

/* mov %rsp, reg */
static void emit_mov_rsp(struct emitter *e, unsigned reg)
{
    emit_byte(e, (uint8_t) (0x48 | reg >> 3));
    emit_byte(e, 0x89);
    emit_byte(e, (uint8_t) (0xe0 | (reg & 7)));
}

/* A move for each register of `move`, by its slot. */
static void emit_moves(struct emitter *e, const struct save_move *move,
                       void (*emit)(struct emitter *, unsigned, int32_t))
{
    int32_t offset = move->offset;
    for (unsigned reg = 0; reg < 16; reg++) {
        if (move->which >> reg & 1)
            emit(e, reg, offset);
        if (move->slots >> reg & 1)
            offset += 8;
    }
}

/* ---- patchpoints -------------------------------------------------------- */

struct operand {
    unsigned base;
    int32_t offset;
};

/* movabs $value, %r11 */
static void emit_mov_r11(struct emitter *e, uint64_t value)
{
    emit_byte(e, 0x49);
    emit_byte(e, 0xbb);
    emit_le64(e, value);
}

/* Where the counter or flag is; what leads there is in r11. */
static struct operand emit_find(struct emitter *e, const struct pp_site_desc *desc,
                                uintptr_t record)
{
    switch (desc->counter) {
    case PP_COUNTER_SITE:
        emit_mov_r11(e, record);
        return (struct operand) { R11, PP_SITE_COUNTER };
    case PP_COUNTER_DATA:
        emit_mov_r11(e, (uintptr_t) desc->word);
        return (struct operand) { R11, 0 };
    case PP_COUNTER_THREAD:
        emit_load(e, R11, desc->thread_offset);
        return (struct operand) { R11, desc->counter_offset };
    default:
        return (struct operand) { RBP, desc->counter_offset };
    }
}

/* decl, and jg over `bytes`; or cmp $0, and je over them */
static void emit_test(struct emitter *e, const struct pp_site_desc *desc, uintptr_t record,
                      size_t bytes)
{
    bool polled = desc->kind == PP_SITE_POLLED;
    struct operand at = emit_find(e, desc, record);
    if (at.base >= R8)
        emit_byte(e, 0x41);
    emit_byte(e, !polled ? 0xff : desc->flags & PP_SITE_BYTE ? 0x80 : 0x83);
    emit_operand(e, polled ? 7 : 1, at.base, at.offset);
    if (polled)
        emit_byte(e, 0);
    emit_byte(e, polled ? 0x74 : 0x7f);
    emit_byte(e, (uint8_t) bytes);
}

/* The call, and the jump to where its answer says. */
static void emit_call(struct emitter *e, const struct pp_site_desc *desc,
                      struct pp_site_layout *layout)
{
    bool red_zone = (desc->flags & PP_SITE_RED_ZONE) != 0;
    if (red_zone)
        emit_lea(e, RSP, RSP, -RED_ZONE);
    emit_byte(e, 0xe8); /* call the stub */
    layout->relocs[0] = (pp_reloc) {
        .offset = (uint32_t) e->length,
        .type = R_X86_64_PLT32,
        .section = PP_IN_CODE,
        .symbol = emit_patchpoint_stub(desc->save),
        .addend = -4,
    };
    layout->reloc_count = 1;
    emit_le32(e, 0);
    layout->return_offset = e->length;
    if (red_zone)
        emit_lea(e, RSP, RSP, RED_ZONE);
    emit_byte(e, 0x41); /* jmp *%r11 */
    emit_byte(e, 0xff);
    emit_byte(e, 0xe3);
}

pp_status x86_64_emit_site(const struct pp_site_desc *desc, uintptr_t record, bool landing_pads,
                           uint8_t *buffer, size_t capacity, struct pp_site_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    bool forced = desc->kind == PP_SITE_FORCED;
    if (desc->kind == PP_SITE_ARMED) {
        emit_le32(&e, 0x00441f0f); /* nopl 0(%rax,%rax) */
        emit_byte(&e, 0);
        layout->reloc_count = 0;
        layout->return_offset = layout->resume_offset = layout->bytes = e.length;
        layout->align = 8; /* in one aligned word, so that it is patched in one store */
        return emit_finish(&e);
    }
    bool has_record = !forced && desc->counter == PP_COUNTER_SITE;
    size_t lea_bytes = desc->flags & PP_SITE_RED_ZONE ? 5 + 8 : 0;

    if (!forced)
        emit_test(&e, desc, record, (has_record ? 0 : 10) + 5 + 3 + lea_bytes);
    if (!has_record)
        emit_mov_r11(&e, record);
    emit_call(&e, desc, layout);
    layout->resume_offset = e.length;
    if (landing_pads && !forced)
        emit_endbr64(&e);
    layout->bytes = e.length;
    layout->align = 1;
    return emit_finish(&e);
}

pp_status x86_64_emit_site_cold(const struct pp_site_desc *desc, uintptr_t record,
                                bool landing_pads, int64_t hot, uint8_t *buffer, size_t capacity,
                                struct pp_site_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    emit_mov_r11(&e, record);
    emit_call(&e, desc, layout);
    layout->resume_offset = e.length;
    if (landing_pads)
        emit_endbr64(&e);
    emit_byte(&e, 0xe9); /* jmp behind the site */
    int64_t distance = add_wrapping(hot, 5 - ((int64_t) e.length + 4));
    emit_le32(&e, (uint32_t) distance);
    layout->bytes = e.length;
    layout->align = 1;
    return distance == (int32_t) distance ? emit_finish(&e) : PP_E_RANGE;
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
        emit_lea(e, R11, RSP, -(int32_t) pages);
        size_t loop = e->length;
        emit_sub_rsp(e, PROBE_PAGE);
        emit_rm64(e, 0x83, 1, RSP, 0); /* orq $0, (%rsp) */
        emit_byte(e, 0);
        emit_byte(e, 0x4c); /* cmp %r11, %rsp */
        emit_byte(e, 0x39);
        emit_byte(e, 0xdc);
        emit_byte(e, 0x75); /* jne loop */
        emit_byte(e, (uint8_t) (loop - (e->length + 1)));
    }
    if (bytes != pages)
        emit_sub_rsp(e, bytes - pages);
}

pp_status x86_64_emit_osr_prologue(const struct pp_osr_frame *frame, uint8_t *buffer,
                                   size_t capacity, struct pp_osr_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    struct osr_plan plan;
    osr_plan_from(frame, &plan, layout);
    if (plan.landing_pad)
        emit_endbr64(&e);
    emit_moves(&e, &plan.reload, emit_load);
    emit_lower(&e, plan.stack_bytes);
    emit_moves(&e, &plan.save, emit_store);
    if (plan.base.kind == PP_PLACE_SLOT)
        emit_store(&e, RSP, plan.base.offset);
    else if (plan.base.kind == PP_PLACE_GPR)
        emit_mov_rsp(&e, plan.base.number);
    layout->bytes = e.length;
    return emit_finish(&e);
}

pp_status x86_64_emit_osr_epilogue(const struct pp_osr_frame *frame, uint8_t *buffer,
                                   size_t capacity, struct pp_osr_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    struct osr_plan plan;
    osr_plan_from(frame, &plan, layout);
    emit_moves(&e, &plan.restore, emit_load);
    emit_byte(&e, 0xc9); /* leave */
    emit_byte(&e, 0xc3); /* ret */
    layout->bytes = e.length;
    return emit_finish(&e);
}

/* ---- resume ------------------------------------------------------------- */

pp_status x86_64_emit_resume(unsigned base, int32_t offset, uint8_t *buffer, size_t capacity,
                             size_t *bytes)
{
    struct emitter e = { buffer, capacity, 0 };
    if (base >= R8)
        emit_byte(&e, 0x41);
    emit_byte(&e, 0xff); /* jmp *offset(base) */
    emit_operand(&e, 4, base, offset);
    *bytes = e.length;
    return emit_finish(&e);
}

pp_status x86_64_emit_jump_register(unsigned reg, uint8_t *buffer, size_t capacity, size_t *bytes)
{
    struct emitter e = { buffer, capacity, 0 };
    if (reg >= R8)
        emit_byte(&e, 0x41);
    emit_byte(&e, 0xff); /* jmp *reg */
    emit_byte(&e, (uint8_t) (0xe0 | (reg & 7)));
    *bytes = e.length;
    return emit_finish(&e);
}

pp_status x86_64_emit_address(unsigned reg, pp_symbol symbol, int64_t addend, uint8_t *buffer,
                              size_t capacity, struct pp_address_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    emit_byte(&e, (uint8_t) (0x48 | (reg >> 3) << 2)); /* lea symbol(%rip), reg */
    emit_byte(&e, 0x8d);
    emit_byte(&e, (uint8_t) (0x05 | (reg & 7) << 3));
    layout->relocs[0] = (pp_reloc) { .offset = (uint32_t) e.length, .type = R_X86_64_PC32,
                                     .section = PP_IN_CODE, .symbol = symbol,
                                     .addend = add_wrapping(addend, -4) };
    layout->reloc_count = 1;
    emit_le32(&e, 0);
    layout->bytes = e.length;
    return emit_finish(&e);
}

/* ---- transitions -------------------------------------------------------- */

static void emit_move(struct emitter *e, const struct transition_code *code,
                      struct transition_layout *layout)
{
    emit_lower(e, code->lower_bytes);
    emit_mov_r11(e, code->entry);
    emit_byte(e, 0xe8); /* call the stub */
    layout->call_offset = e->length;
    layout->call_type = R_X86_64_PLT32;
    layout->call_addend = -4;
    emit_le32(e, 0);
    if (code->pops_frame) {
        emit_byte(e, 0x48); /* mov %rbp, %rsp; pop %rbp: before a jump, walkers know no leave */
        emit_byte(e, 0x89);
        emit_byte(e, 0xec);
        emit_byte(e, 0x5d);
    } else {
        emit_lea(e, RSP, RBP, -(int32_t) code->frame_bytes);
    }
}

/* r11 is the only register that the body finds undefined, or with its index. */
pp_status x86_64_emit_transition(const struct transition_code *code, uint8_t *buffer,
                                 size_t capacity, struct transition_layout *layout)
{
    struct emitter e = { buffer, capacity, 0 };
    if (code->landing_pad)
        emit_endbr64(&e);
    if (code->moves)
        emit_move(&e, code, layout);
    if (code->has_index) {
        emit_byte(&e, 0x41); /* mov $index, %r11d; jmp *0(%rip): the address is right behind */
        emit_byte(&e, 0xbb);
        emit_le32(&e, code->index);
        emit_byte(&e, 0xff);
        emit_byte(&e, 0x25);
        emit_le32(&e, 0);
        emit_le64(&e, code->body);
    } else {
        emit_byte(&e, 0x41); /* jmp *%r11 */
        emit_byte(&e, 0xff);
        emit_byte(&e, 0xe3);
    }
    layout->bytes = e.length;
    return emit_finish(&e);
}
