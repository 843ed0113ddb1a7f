/* SPDX-License-Identifier: MIT */
/*
 * What x86-64 instructions do to rsp, rbp, and one more register that has a known
 * value (Intel SDM, volume 2).  An instruction that is not modelled makes every general
 * register that it names unknown, and those that instructions use without a name.
 *
 * Stores count only where they save rbp, or overwrite the word on top of the stack.
 * No compiler writes over a return address or a saved rbp for another reason.
 */
#include <config.h>

#include "isa/frame.h"
#include "isa/x86_64_decode.h"

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R11 = 11, WORD = 8 };
enum { THUNK_REACH = 16 }; /* a call over so few bytes is no call of a function */

static const struct frame_value unknown = { VALUE_UNKNOWN, 0, 0 };

struct machine {
    const struct frame_query *query;
    struct frame_path *path;
};

/* ---- registers and the stack ------------------------------------------ */

static struct frame_value get(const struct frame_path *path, unsigned reg)
{
    if (reg == RSP) /* in another register it is not what that had before */
        return frame_add(path->sp, 0);
    if (reg == RBP)
        return path->fp;
    return reg == path->spare_register ? path->spare : unknown;
}

static void set(struct frame_path *path, unsigned reg, struct frame_value value)
{
    if (reg == RSP) {
        path->sp = value;
    } else if (reg == RBP) {
        path->fp = value;
        path->fp_is_set = false;
    } else if (reg < 16 && (value.kind != VALUE_UNKNOWN || reg == path->spare_register)) {
        path->spare = value;
        path->spare_register = value.kind == VALUE_UNKNOWN ? FRAME_NO_REGISTER : (uint8_t) reg;
    }
}

static void forget(struct frame_path *path, unsigned reg)
{
    set(path, reg, unknown);
}

static void push(const struct machine *m, struct frame_value value)
{
    struct frame_path *path = m->path;
    path->sp = frame_add(path->sp, (uint64_t) -WORD);
    if (path->sp.kind != VALUE_UNKNOWN)
        frame_store(m->query, path, path->sp.n, value);
}

static struct frame_value pop(const struct machine *m)
{
    struct frame_value value = unknown;
    if (m->path->sp.kind != VALUE_UNKNOWN)
        value = frame_load(&frame_x86_64, m->query, m->path, m->path->sp.n);
    m->path->sp = frame_add(m->path->sp, WORD);
    return value;
}

static bool is_plain_memory(const struct x86_insn *insn)
{
    return insn->memory && !insn->indexed && !insn->rip_relative && !insn->address32
        && !insn->segment && insn->base != X86_NO_REGISTER;
}

/* The address that an operand in memory has. */
static struct frame_value address_of(const struct frame_path *path, const struct x86_insn *insn)
{
    if (insn->memory && insn->rip_relative && !insn->address32)
        return (struct frame_value) { VALUE_COMPUTED, path->pc + insn->length
                                                          + (uint64_t) (int64_t) insn->displacement,
                                      0 };
    if (!is_plain_memory(insn))
        return unknown;
    return frame_add(get(path, insn->base), (uint64_t) (int64_t) insn->displacement);
}

/* A word of the stack, or a constant of the code. */
static struct frame_value load(const struct machine *m, const struct x86_insn *insn)
{
    struct frame_value address = address_of(m->path, insn), value = unknown;
    if (address.kind == VALUE_UNKNOWN)
        return unknown;
    if (!insn->rip_relative)
        return frame_load(&frame_x86_64, m->query, m->path, address.n);
    if (m->query->literal(m->query->context, address.n, &value.n))
        value.kind = VALUE_COMPUTED;
    return value;
}

/* ---- instructions ------------------------------------------------------ */

/* An instruction of general registers that is not modelled. */
static void forget_named(struct frame_path *path, const struct x86_insn *insn)
{
    forget(path, insn->reg);
    forget(path, insn->rm);
    forget(path, insn->third);
}

static void forget_implied(struct frame_path *path)
{
    for (unsigned reg = RAX; reg <= RDI; reg++)
        if (reg != RSP && reg != RBP)
            forget(path, reg);
    forget(path, R11);
}

static bool is_whole(const struct x86_insn *insn)
{
    return insn->wide && !insn->locked;
}

/* mov, lea between registers and the stack. */
static void move(const struct machine *m, const struct x86_insn *insn)
{
    struct frame_path *path = m->path;
    switch (insn->opcode) {
    case 0x88: case 0x89:
        if (!insn->memory) {
            struct frame_value value = get(path, insn->reg);
            bool frame = insn->rm == RBP && insn->reg == RSP;
            set(path, insn->rm, is_whole(insn) && insn->opcode == 0x89 ? value : unknown);
            if (insn->opcode == 0x89 && is_whole(insn) && frame)
                path->fp_is_set = true;
            return;
        }
        struct frame_value at = address_of(path, insn);
        bool top = path->sp.kind != VALUE_UNKNOWN && at.n == path->sp.n;
        if (at.kind != VALUE_UNKNOWN && !insn->rip_relative && (insn->reg == RBP || top))
            frame_store(m->query, path, at.n,
                        is_whole(insn) && insn->opcode == 0x89 ? get(path, insn->reg) : unknown);
        return;
    case 0x8a: case 0x8b: {
        bool whole = insn->opcode == 0x8b && is_whole(insn);
        bool frame = whole && !insn->memory && insn->reg == RBP && insn->rm == RSP;
        set(path, insn->reg, !whole ? unknown : insn->memory ? load(m, insn) : get(path, insn->rm));
        if (frame)
            path->fp_is_set = true;
        return;
    }
    case 0x8d: {
        struct frame_value value = address_of(path, insn);
        bool frame = insn->reg == RBP && insn->base == RSP;
        set(path, insn->reg, is_whole(insn) ? value : unknown);
        if (frame && is_whole(insn) && value.kind != VALUE_UNKNOWN)
            path->fp_is_set = true;
        return;
    }
    }
}

/* Group 1 with an immediate: add, or, adc, sbb, and, sub, xor, cmp. */
static void calculate(struct frame_path *path, const struct x86_insn *insn)
{
    struct frame_value value = get(path, insn->rm);
    const uint64_t operand = (uint64_t) insn->immediate;
    if (insn->memory || (insn->reg & 7) == 7)
        return;
    if (!insn->wide || insn->opcode == 0x80)
        value = unknown;
    switch (insn->reg & 7) {
    case 0: value = frame_add(value, operand); break;
    case 5: value = frame_add(value, -operand); break;
    case 4:
        if (value.kind != VALUE_UNKNOWN)
            value = (struct frame_value) { VALUE_COMPUTED, value.n & operand, 0 };
        break;
    default: value = unknown;
    }
    set(path, insn->rm, value);
}

/* Opcodes 00 to 3F: eight operations in six forms each. */
static void operate(struct frame_path *path, const struct x86_insn *insn)
{
    unsigned operation = insn->opcode >> 3 & 7, form = insn->opcode & 7;
    if (operation == 7 || (form < 2 && insn->memory))
        return;
    unsigned to = form >= 4 ? RAX : form < 2 ? insn->rm : insn->reg;
    unsigned from = form < 2 ? insn->reg : insn->rm;
    struct frame_value value = unknown, other = form < 4 ? get(path, from) : unknown;
    if ((form == 1 || form == 3) && insn->wide && !insn->memory && other.kind != VALUE_UNKNOWN) {
        if (operation == 0)
            value = frame_add(get(path, to), other.n);
        else if (operation == 5)
            value = frame_add(get(path, to), -other.n);
    }
    set(path, to, value);
}

/* enter: the frame, without nested ones. */
static bool enter(const struct machine *m, const struct x86_insn *insn)
{
    if (insn->immediate >> 16 != 0 || insn->operand16)
        return false;
    push(m, m->path->fp);
    m->path->fp = frame_add(m->path->sp, 0);
    m->path->fp_is_set = true;
    m->path->sp = frame_add(m->path->sp, (uint64_t) -(insn->immediate & 0xffff));
    return true;
}

static void leave_frame(const struct machine *m)
{
    m->path->sp = frame_add(m->path->fp, 0);
    set(m->path, RBP, pop(m));
}

static struct frame_step go_on(const struct x86_insn *insn)
{
    return (struct frame_step) { FRAME_NEXT, insn->length, 0 };
}

static struct frame_step event(enum frame_event event, const struct x86_insn *insn,
                               uint64_t target)
{
    return (struct frame_step) { event, insn->length, target };
}

static uint64_t destination(const struct frame_path *path, const struct x86_insn *insn)
{
    return path->pc + insn->length + (uint64_t) insn->immediate;
}

/* FF: inc, dec, call, jmp, push. */
static struct frame_step group5(const struct machine *m, const struct x86_insn *insn)
{
    struct frame_path *path = m->path;
    switch (insn->reg & 7) {
    case 0: case 1:
        if (!insn->memory)
            forget(path, insn->rm);
        return go_on(insn);
    case 2:
        return event(FRAME_CALL, insn, 0);
    case 4: {
        struct frame_value target = insn->memory ? unknown : get(path, insn->rm);
        if (insn->memory && insn->rip_relative)
            target = load(m, insn);
        return event(target.kind == VALUE_COMPUTED ? FRAME_JUMP : FRAME_STOP, insn, target.n);
    }
    case 6:
        if (insn->operand16)
            break;
        push(m, unknown);
        return go_on(insn);
    }
    return event(FRAME_STOP, insn, 0);
}

/* ModRM.reg is a part of the opcode. */
static bool is_group(uint8_t opcode)
{
    return opcode == 0xc0 || opcode == 0xc1 || opcode == 0xc6 || opcode == 0xc7
        || (opcode >= 0xd0 && opcode <= 0xd3) || opcode == 0xf6 || opcode == 0xf7 || opcode == 0xfe;
}

static struct frame_step step_one_byte(const struct machine *m, const struct x86_insn *insn)
{
    struct frame_path *path = m->path;
    const uint8_t opcode = insn->opcode;
    if (opcode < 0x40) {
        operate(path, insn);
        return go_on(insn);
    }
    if (opcode >= 0x50 && opcode <= 0x5f && insn->operand16)
        return event(FRAME_STOP, insn, 0);
    switch (opcode) {
    case 0x68: case 0x6a:
        if (insn->operand16)
            return event(FRAME_STOP, insn, 0);
        push(m, unknown);
        return go_on(insn);
    case 0x63: case 0x69: case 0x6b:
        forget(path, insn->reg);
        return go_on(insn);
    case 0x80: case 0x81: case 0x83:
        calculate(path, insn);
        return go_on(insn);
    case 0x84: case 0x85: case 0x8e: case 0x9b: case 0xa8: case 0xa9: case 0xf5: case 0xf8:
    case 0xf9: case 0xfc: case 0xfd:
        return go_on(insn);
    case 0xf6: case 0xf7:
        if ((insn->reg & 7) < 2) /* test */
            return go_on(insn);
        break;
    case 0xc7:
        if (insn->memory)
            return go_on(insn);
        break;
    case 0x88: case 0x89: case 0x8a: case 0x8b: case 0x8d:
        move(m, insn);
        return go_on(insn);
    case 0x8f: {
        if (insn->operand16)
            return event(FRAME_STOP, insn, 0);
        struct frame_value value = pop(m);
        if (!insn->memory)
            set(path, insn->rm, value);
        return go_on(insn);
    }
    case 0x9c: case 0x9d:
        if (insn->operand16)
            return event(FRAME_STOP, insn, 0);
        if (opcode == 0x9c)
            push(m, unknown);
        else
            (void) pop(m);
        return go_on(insn);
    case 0xc2: case 0xc3:
        return event(FRAME_RETURN, insn, 0);
    case 0xc8:
        return enter(m, insn) ? go_on(insn) : event(FRAME_STOP, insn, 0);
    case 0xc9:
        if (insn->operand16)
            return event(FRAME_STOP, insn, 0);
        leave_frame(m);
        return go_on(insn);
    case 0xca: case 0xcb: case 0xcc: case 0xcf: case 0xf1: case 0xf4:
        return event(FRAME_STOP, insn, 0);
    case 0xe0: case 0xe1: case 0xe2: case 0xe3:
        forget(path, RCX);
        return event(FRAME_BRANCH, insn, destination(path, insn));
    case 0xe8:
        /* The next bytes are a thunk's, which returns elsewhere, or the call reads pc. */
        if ((uint64_t) insn->immediate < THUNK_REACH)
            return event(FRAME_STOP, insn, 0);
        return event(FRAME_CALL, insn, destination(path, insn));
    case 0xe9: case 0xeb:
        return event(FRAME_JUMP, insn, destination(path, insn));
    case 0xff:
        return group5(m, insn);
    }
    if ((opcode & 0xf0) == 0x70)
        return event(FRAME_BRANCH, insn, destination(path, insn));
    if (opcode < 0xd8 || opcode > 0xdf) { /* operands of x87 are in memory */
        forget(path, insn->rm);
        if (!is_group(opcode))
            forget(path, insn->reg);
    }
    forget_implied(path);
    return go_on(insn);
}

/* 50 to 5F, 90 to 97, B0 to BF: true if it was one of them. */
static bool step_register(const struct machine *m, const struct x86_insn *insn)
{
    struct frame_path *path = m->path;
    const uint8_t row = insn->opcode & 0xf8;
    if (row != 0x50 && row != 0x58 && row != 0x90 && row != 0xb0 && row != 0xb8)
        return false;
    unsigned reg = insn->low;
    if ((row == 0x50 || row == 0x58) && insn->operand16)
        return false;
    switch (row) {
    case 0x50:
        push(m, get(path, reg));
        break;
    case 0x58: {
        struct frame_value value = pop(m);
        set(path, reg, value);
        break;
    }
    case 0x90:
        if (reg != RAX) {
            forget(path, reg);
            forget(path, RAX);
        }
        break;
    case 0xb0: /* a byte: of rsp or rbp it would be, or of ah to bh */
        forget(path, reg);
        break;
    default:
        set(path, reg, insn->wide ? (struct frame_value) { VALUE_COMPUTED,
                                                           (uint64_t) insn->immediate, 0 }
                                  : unknown);
    }
    return true;
}

/* What an instruction of map 0F writes of general registers. */
enum written {
    WRITES_NOTHING, WRITES_REG, WRITES_RM, WRITES_BOTH,
    WRITES_ANY /* and what it does not name */
};

/* VEX and EVEX: vectors and masks, but for moves and conversions to general registers. */
static enum written written_by_vector(const struct x86_insn *insn)
{
    switch (insn->opcode) {
    case 0x2c: case 0x2d: case 0x50: case 0x93: case 0xc5: case 0xd7:
        return WRITES_REG;
    case 0x78: case 0x79:
        return insn->repeat != 0 ? WRITES_REG : WRITES_NOTHING;
    case 0x7e:
        return insn->repeat != 0 ? WRITES_NOTHING : WRITES_RM;
    }
    return WRITES_NOTHING;
}

static enum written written_by_0f(const struct x86_insn *insn)
{
    const uint8_t opcode = insn->opcode, group = insn->reg & 7;
    switch (opcode) {
    case 0x02: case 0x03: case 0xaf: case 0xb2: case 0xb4: case 0xb5: case 0xb6: case 0xb7:
    case 0xb8: case 0xbc: case 0xbd: case 0xbe: case 0xbf:
        return WRITES_REG;
    case 0x0d: case 0x18: case 0x19: case 0x1a: case 0x1b: case 0x1c: case 0x1d: case 0x1f:
    case 0xa3: case 0xc3: /* prefetch and nop, bt, movnti */
        return WRITES_NOTHING;
    case 0x1e: /* endbr64; rdssp */
        return group == 1 ? WRITES_RM : WRITES_NOTHING;
    case 0xae: /* fences; rdfsbase */
        return insn->repeat != 0 ? WRITES_RM : WRITES_NOTHING;
    case 0xba:
        return group == 4 ? WRITES_NOTHING : WRITES_RM;
    case 0x00: case 0x20: case 0x21: case 0xa4: case 0xa5: case 0xab: case 0xac: case 0xad:
    case 0xb3: case 0xbb:
        return WRITES_RM;
    case 0xc0: case 0xc1:
        return WRITES_BOTH;
    }
    if ((opcode & 0xf0) == 0x40)
        return WRITES_REG;
    if ((opcode & 0xf0) == 0x90)
        return WRITES_RM;
    /* SSE and MMX. */
    if ((opcode >= 0x10 && opcode <= 0x17) || (opcode >= 0x28 && opcode <= 0x2f)
        || (opcode >= 0x50 && opcode <= 0x7f) || opcode == 0xc2 || (opcode >= 0xc4 && opcode <= 0xc6)
        || opcode >= 0xd0)
        return written_by_vector(insn);
    return WRITES_ANY;
}

static bool is_trap_0f(uint8_t opcode)
{
    return opcode == 0x07 || opcode == 0x0b || opcode == 0x34 || opcode == 0x35 || opcode == 0x37
        || opcode == 0xaa || opcode == 0xb9 || opcode == 0xff;
}

static struct frame_step step_0f(const struct machine *m, const struct x86_insn *insn)
{
    struct frame_path *path = m->path;
    const uint8_t opcode = insn->opcode;
    if (!insn->vector && (opcode & 0xf0) == 0x80)
        return event(FRAME_BRANCH, insn, destination(path, insn));
    if (!insn->vector && is_trap_0f(opcode))
        return event(FRAME_STOP, insn, 0);
    if (!insn->vector && (opcode & 0xf6) == 0xa0) {
        if (opcode & 1) /* push and pop of fs, gs */
            (void) pop(m);
        else
            push(m, unknown);
        return go_on(insn);
    }
    if (!insn->vector && (opcode & 0xf8) == 0xc8) { /* bswap */
        forget(path, insn->low);
        return go_on(insn);
    }
    enum written written = insn->vector ? written_by_vector(insn) : written_by_0f(insn);
    bool group = opcode == 0x01 || opcode == 0xc7;
    if (written == WRITES_REG || written == WRITES_BOTH || (written == WRITES_ANY && !group))
        forget(path, insn->reg);
    if (written == WRITES_RM || written == WRITES_BOTH || written == WRITES_ANY)
        forget(path, insn->rm);
    if (written == WRITES_ANY)
        forget_implied(path);
    return go_on(insn);
}

/* 0F 38 and 0F 3A: vectors, but for what BMI, movbe, crc32 and the extracts make. */
static struct frame_step step_0f38(const struct machine *m, const struct x86_insn *insn)
{
    bool general = insn->map == X86_0F38 ? insn->opcode >= 0xf0 || (insn->opcode & 0xf0) == 0x80
                   : (insn->opcode >= 0x14 && insn->opcode <= 0x17) || insn->opcode >= 0xf0;
    if (insn->map == X86_0F38 && insn->vector && (insn->opcode & 0xf0) == 0x80)
        general = false;
    if (general)
        forget_named(m->path, insn);
    return go_on(insn);
}

static struct frame_step step(const struct frame_query *query, struct frame_path *path,
                              const uint8_t *bytes, size_t available)
{
    const struct machine m = { query, path };
    struct x86_insn insn;
    if (!x86_decode(bytes, available, &insn))
        return (struct frame_step) { FRAME_STOP, 0, 0 };
    switch (insn.map) {
    case X86_ONE_BYTE:
        return step_register(&m, &insn) ? go_on(&insn) : step_one_byte(&m, &insn);
    case X86_0F:
        return step_0f(&m, &insn);
    case X86_0F38: case X86_0F3A:
        return step_0f38(&m, &insn);
    }
    /* Half precision, in maps 5 and 6: general registers are written by conversions and moves. */
    forget_named(path, &insn);
    return go_on(&insn);
}

static struct frame_leaving leave(const struct frame_query *query, const struct frame_path *path)
{
    struct frame_leaving left = { .known = path->sp.kind != VALUE_UNKNOWN };
    if (!left.known)
        return left;
    left.return_address = frame_load(&frame_x86_64, query, path, path->sp.n);
    left.cfa = path->sp.n + WORD;
    return left;
}

static void returned(struct frame_path *path)
{
    path->spare = unknown;
    path->spare_register = FRAME_NO_REGISTER;
}

const struct frame_machine frame_x86_64 = {
    .step = step,
    .leave = leave,
    .returned = returned,
    .record_has_cfa = true,
    .scratch = R11,
    .red_zone = 128,
};
