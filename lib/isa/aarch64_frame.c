/* SPDX-License-Identifier: MIT */
/*
 * What AArch64 instructions do to SP, x29, x30, and one more register that has a known
 * value (Arm ARM, C4.1).  An instruction that is not modelled makes every general
 * register that it may write unknown.  Return addresses that are signed are values like
 * others: a walker strips them.
 */
#include <config.h>

#include "isa/bytes.h"
#include "isa/frame.h"

enum { IP0 = 16, FP = 29, LR = 30, SP = 32, ZERO = 31, WORD = 8, INSN = 4 };

static const struct frame_value unknown = { VALUE_UNKNOWN, 0, 0 };

struct machine {
    const struct frame_query *query;
    struct frame_path *path;
};

static uint32_t bits(uint32_t insn, unsigned low, unsigned count)
{
    return insn >> low & ((1u << count) - 1);
}

static int64_t signed_bits(uint32_t insn, unsigned low, unsigned count)
{
    return (int64_t) ((uint64_t) bits(insn, low, count) << (64 - count)) >> (64 - count);
}

/* ---- registers and the stack ------------------------------------------ */

/* 31 is the zero register here; where it is SP, callers say SP. */
static struct frame_value get(const struct frame_path *path, unsigned reg)
{
    switch (reg) {
    case SP: return frame_add(path->sp, 0); /* elsewhere it is not what that had before */
    case FP: return path->fp;
    case LR: return path->link;
    case ZERO: return (struct frame_value) { VALUE_COMPUTED, 0, 0 };
    }
    return reg == path->spare_register ? path->spare : unknown;
}

static void set(struct frame_path *path, unsigned reg, struct frame_value value)
{
    switch (reg) {
    case SP:
        path->sp = value;
        return;
    case FP:
        path->fp = value;
        path->fp_is_set = false;
        return;
    case LR:
        path->link = value;
        return;
    case ZERO:
        return;
    }
    if (value.kind != VALUE_UNKNOWN) {
        path->spare = value;
        path->spare_register = (uint8_t) reg;
    } else if (reg == path->spare_register) {
        path->spare_register = FRAME_NO_REGISTER;
    }
}

static void forget(struct frame_path *path, unsigned reg)
{
    set(path, reg, unknown);
}

static unsigned sp_or(unsigned reg)
{
    return reg == 31 ? SP : reg;
}

static struct frame_step go_on(void)
{
    return (struct frame_step) { FRAME_NEXT, INSN, 0 };
}

static struct frame_step event(enum frame_event event, uint64_t target)
{
    return (struct frame_step) { event, INSN, target };
}

/* ---- data processing --------------------------------------------------- */

static struct frame_value constant(uint64_t n)
{
    return (struct frame_value) { VALUE_COMPUTED, n, 0 };
}

/* add and sub of an immediate: x29 may be set, SP moved. */
static void add_immediate(struct frame_path *path, uint32_t insn)
{
    const unsigned to = bits(insn, 0, 5), from = sp_or(bits(insn, 5, 5));
    const bool flags = bits(insn, 29, 1), subtract = bits(insn, 30, 1), whole = bits(insn, 31, 1);
    uint64_t distance = (uint64_t) bits(insn, 10, 12) << (bits(insn, 22, 1) ? 12 : 0);
    struct frame_value value = frame_add(get(path, from), subtract ? -distance : distance);
    set(path, flags ? to : sp_or(to), whole ? value : unknown);
    if (to == FP && from == SP && whole && value.kind != VALUE_UNKNOWN)
        path->fp_is_set = true;
}

static void move_wide(struct frame_path *path, uint32_t insn)
{
    const unsigned to = bits(insn, 0, 5), operation = bits(insn, 29, 2);
    const unsigned shift = 16 * bits(insn, 21, 2);
    const uint64_t field = (uint64_t) bits(insn, 5, 16) << shift;
    struct frame_value value = unknown, old = get(path, to);
    if (operation == 2)
        value = constant(field);
    else if (operation == 0 && bits(insn, 31, 1))
        value = constant(~field);
    else if (operation == 3 && old.kind == VALUE_COMPUTED)
        value = constant((old.n & ~((uint64_t) 0xffff << shift)) | field);
    set(path, to, value);
}

static void process_immediate(struct frame_path *path, uint32_t insn)
{
    const unsigned to = bits(insn, 0, 5);
    switch (bits(insn, 23, 3)) {
    case 0: case 1: { /* adr, adrp */
        uint64_t distance = (uint64_t) signed_bits(insn, 5, 19) << 2 | bits(insn, 29, 2);
        set(path, to, bits(insn, 31, 1)
                          ? constant((path->pc & ~(uint64_t) 0xfff) + (distance << 12))
                          : constant(path->pc + distance));
        return;
    }
    case 2:
        add_immediate(path, insn);
        return;
    case 4: /* and, orr, eor may write SP; ands not */
        forget(path, bits(insn, 29, 2) == 3 ? to : sp_or(to));
        return;
    case 5:
        move_wide(path, insn);
        return;
    }
    if (bits(insn, 23, 3) == 3) /* add and subtract with tags, min and max */
        forget(path, SP);
    forget(path, to);
}

/* add and sub of an extended register: how SP is moved far. */
static bool add_extended(struct frame_path *path, uint32_t insn)
{
    if ((insn & 0x1fe00000) != 0x0b200000)
        return false;
    const unsigned to = bits(insn, 0, 5), from = sp_or(bits(insn, 5, 5)), by = bits(insn, 16, 5);
    const unsigned extend = bits(insn, 13, 3), shift = bits(insn, 10, 3);
    const bool flags = bits(insn, 29, 1), subtract = bits(insn, 30, 1), whole = bits(insn, 31, 1);
    struct frame_value distance = get(path, by), value = unknown;
    if (whole && (extend == 3 || extend == 7) && distance.kind == VALUE_COMPUTED && shift <= 4) {
        uint64_t n = distance.n << shift;
        value = frame_add(get(path, from), subtract ? -n : n);
    }
    set(path, flags ? to : sp_or(to), value);
    return true;
}

static void process_registers(struct frame_path *path, uint32_t insn)
{
    const unsigned to = bits(insn, 0, 5);
    if (add_extended(path, insn))
        return;
    if ((insn & 0xffe0ffe0) == 0xaa0003e0) { /* mov */
        set(path, to, get(path, bits(insn, 16, 5)));
        return;
    }
    if ((insn & 0xffff0000) == 0xdac10000 && to == LR) /* pac and aut of x30 */
        return;
    if ((insn & 0x3fe00000) == 0x3a400000) /* ccmp, ccmn */
        return;
    forget(path, to);
}

/* Conversions and moves to general registers; else vectors. */
static void process_vectors(struct frame_path *path, uint32_t insn)
{
    bool converts = (insn & 0x5f200000) == 0x1e200000 && (insn & 0xfc00) == 0;
    bool fixed = (insn & 0x5f200000) == 0x1e000000;
    bool moves = (insn & 0xbfe0ec00) == 0x0e002c00; /* smov, umov */
    if (converts || fixed || moves)
        forget(path, bits(insn, 0, 5));
}

/* ---- loads and stores --------------------------------------------------- */

/* A word at base + offset, which may be a constant of the code. */
static struct frame_value load(const struct machine *m, struct frame_value address)
{
    struct frame_value value = unknown;
    if (address.kind == VALUE_UNKNOWN)
        return unknown;
    value = frame_load(&frame_aarch64, m->query, m->path, address.n);
    if (value.kind == VALUE_UNKNOWN && address.kind == VALUE_COMPUTED
        && m->query->literal(m->query->context, address.n, &value.n))
        value.kind = VALUE_COMPUTED;
    return value;
}

static void store(const struct machine *m, struct frame_value address, unsigned reg)
{
    if (address.kind != VALUE_UNKNOWN && (reg == FP || reg == LR))
        frame_store(m->query, m->path, address.n, get(m->path, reg));
}

static void access(const struct machine *m, struct frame_value address, unsigned reg, bool loads)
{
    if (loads)
        set(m->path, reg, load(m, address));
    else
        store(m, address, reg);
}

enum indexing { OFFSET, PRE_INDEX, POST_INDEX };

/* The address of the access; the base moves. */
static struct frame_value take_address(struct frame_path *path, unsigned base, int64_t offset,
                                       enum indexing indexing)
{
    struct frame_value from = get(path, base), moved = frame_add(from, (uint64_t) offset);
    if (indexing != OFFSET)
        set(path, base, moved);
    return indexing == POST_INDEX ? from : moved;
}

static void access_pair(const struct machine *m, uint32_t insn)
{
    struct frame_path *path = m->path;
    const unsigned base = sp_or(bits(insn, 5, 5)), one = bits(insn, 0, 5), two = bits(insn, 10, 5);
    const bool vector = bits(insn, 26, 1), loads = bits(insn, 22, 1);
    const unsigned size = bits(insn, 30, 2), mode = bits(insn, 23, 2);
    const unsigned scale = vector ? 2 + size : size == 2 ? 3 : loads ? 2 : 4;
    struct frame_value address = take_address(path, base, signed_bits(insn, 15, 7) * (1 << scale),
                                              mode == 1 ? POST_INDEX : mode == 3 ? PRE_INDEX
                                                                                 : OFFSET);
    if (vector)
        return;
    if (size != 2) {
        if (loads) {
            forget(path, one);
            forget(path, two);
        }
        return;
    }
    struct frame_value second = frame_add(address, WORD);
    path->link_is_stored |= !loads && (one == LR || two == LR);
    struct frame_value both[2] = { unknown, unknown };
    if (loads) { /* both addresses are those before either is loaded */
        both[0] = load(m, address);
        both[1] = load(m, second);
        set(path, one, both[0]);
        set(path, two, both[1]);
        return;
    }
    store(m, address, one);
    store(m, second, two);
}

/* One register, with an offset, an index before or after, or another register. */
static bool access_single(const struct machine *m, uint32_t insn)
{
    struct frame_path *path = m->path;
    const unsigned base = sp_or(bits(insn, 5, 5)), reg = bits(insn, 0, 5), size = bits(insn, 30, 2);
    const unsigned opc = bits(insn, 22, 2), mode = bits(insn, 10, 2);
    const bool vector = bits(insn, 26, 1), unsigned_offset = bits(insn, 24, 1);
    const bool other_register = !unsigned_offset && bits(insn, 21, 1);
    if (other_register && mode != 2)
        return false;
    struct frame_value address = unknown;
    if (unsigned_offset)
        address = frame_add(get(path, base), (uint64_t) bits(insn, 10, 12) << size);
    else if (!other_register)
        address = take_address(path, base, signed_bits(insn, 12, 9),
                               mode == 1 ? POST_INDEX : mode == 3 ? PRE_INDEX : OFFSET);
    if (vector || (size == 3 && opc == 2)) /* prefetch */
        return true;
    if (size == 3 && opc < 2) {
        path->link_is_stored |= opc == 0 && reg == LR;
        access(m, address, reg, opc == 1);
    } else if (opc != 0) {
        forget(path, reg);
    }
    return true;
}

static struct frame_step access_memory(const struct machine *m, uint32_t insn)
{
    struct frame_path *path = m->path;
    const unsigned group = bits(insn, 28, 2);
    if (group == 2) {
        access_pair(m, insn);
        return go_on();
    }
    if (group == 3 && access_single(m, insn))
        return go_on();
    if (group == 1 && !bits(insn, 24, 1)) { /* a literal */
        if (!bits(insn, 26, 1))
            set(path, bits(insn, 0, 5),
                bits(insn, 30, 2) == 1
                    ? load(m, constant(path->pc + (uint64_t) (signed_bits(insn, 5, 19) * 4)))
                    : unknown);
        return go_on();
    }
    /* Vector structures: the base may move, by a register, too. */
    if (group == 0 && bits(insn, 26, 1)) {
        if (bits(insn, 23, 1))
            forget(path, sp_or(bits(insn, 5, 5)));
        return go_on();
    }
    /* Exclusives, atomics, tags, copies of memory: whatever they name. */
    forget(path, bits(insn, 0, 5));
    forget(path, bits(insn, 10, 5));
    forget(path, bits(insn, 16, 5));
    if (group == 0) /* a pair */
        forget(path, bits(insn, 16, 5) | 1);
    if (group == 1 || (group == 3 && bits(insn, 10, 2) != 0))
        forget(path, sp_or(bits(insn, 5, 5)));
    return go_on();
}

/* ---- branches ----------------------------------------------------------- */

static struct frame_step branch_register(const struct frame_path *path, uint32_t insn)
{
    const unsigned operation = bits(insn, 21, 4), reg = bits(insn, 5, 5);
    switch (operation & 7) {
    case 0: {
        struct frame_value target = get(path, reg);
        return event(target.kind == VALUE_COMPUTED ? FRAME_JUMP : FRAME_STOP, target.n);
    }
    case 1:
        return event(FRAME_CALL, 0);
    case 2:
        /* retaa and retab name no register. */
        return event(operation == 2 && (reg == LR || reg == 31) ? FRAME_RETURN : FRAME_STOP, 0);
    }
    return event(FRAME_STOP, 0);
}

static struct frame_step branch(const struct machine *m, uint32_t insn)
{
    struct frame_path *path = m->path;
    if ((insn & 0x7c000000) == 0x14000000) {
        uint64_t target = path->pc + (uint64_t) (signed_bits(insn, 0, 26) * INSN);
        bool calls = bits(insn, 31, 1);
        /* A call of the next instruction reads pc. */
        return event(!calls ? FRAME_JUMP : target == path->pc + INSN ? FRAME_STOP : FRAME_CALL,
                     target);
    }
    if ((insn & 0xff000000) == 0x54000000 || (insn & 0x7e000000) == 0x34000000)
        return event(FRAME_BRANCH, path->pc + (uint64_t) (signed_bits(insn, 5, 19) * INSN));
    if ((insn & 0x7e000000) == 0x36000000)
        return event(FRAME_BRANCH, path->pc + (uint64_t) (signed_bits(insn, 5, 14) * INSN));
    if ((insn & 0xfe000000) == 0xd6000000)
        return branch_register(path, insn);
    if ((insn & 0xffe0001f) == 0xd4000001) { /* svc */
        forget(path, 0);
        return go_on();
    }
    if ((insn & 0xffc00000) == 0xd5000000) { /* hints, barriers, system registers */
        if (bits(insn, 21, 1))
            forget(path, bits(insn, 0, 5));
        return go_on();
    }
    return event(FRAME_STOP, 0);
}

static struct frame_step step(const struct frame_query *query, struct frame_path *path,
                              const uint8_t *bytes, size_t available)
{
    const struct machine m = { query, path };
    if (available < INSN)
        return event(FRAME_STOP, 0);
    const uint32_t insn = get_le32(bytes);
    switch (bits(insn, 25, 4)) {
    case 8: case 9:
        process_immediate(path, insn);
        return go_on();
    case 10: case 11:
        return branch(&m, insn);
    case 4: case 6: case 12: case 14:
        return access_memory(&m, insn);
    case 5: case 13:
        process_registers(path, insn);
        return go_on();
    case 7: case 15:
        process_vectors(path, insn);
        return go_on();
    }
    return event(FRAME_STOP, 0); /* undefined; scalable vectors */
}

static struct frame_leaving leave(const struct frame_query *query, const struct frame_path *path)
{
    (void) query;
    return (struct frame_leaving) { path->link, path->sp.n, path->sp.kind != VALUE_UNKNOWN };
}

/* x30 is the call's own return address; x0 to x18 are not kept. */
static void returned(struct frame_path *path)
{
    path->link = unknown;
    path->spare_register = FRAME_NO_REGISTER;
    path->link_is_stored = false;
}

const struct frame_machine frame_aarch64 = {
    .step = step,
    .leave = leave,
    .returned = returned,
    .scratch = IP0,
    .red_zone = 0,
};
