/* SPDX-License-Identifier: MIT */
/*
 * The unwind information of a region: the bytes read back by a reader of their
 * own, and then by libgcc and libunwind, from code that lies in no file, called
 * by a function whose frame pointer is no frame pointer.
 */
#include <config.h>

#include "isa/isa.h"
#include "memory/state.h"
#include "unwind_code.h"
#include "walk/eh_frame.h"
#include "walk/unwind.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <check.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unwind.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- reading the bytes back ------------------------------------------- */

enum { REGS = 128, NOT_SAVED = INT32_MAX };

/* What an FDE says, in the terms of DWARF. */
struct cfi {
    uint64_t start, size;
    unsigned cfa_reg;
    int64_t cfa_offset;
    int32_t saved[REGS];   /* from the CFA */
};

struct reader {
    const uint8_t *at, *end;
};

static uint64_t read_number(struct reader *reader, unsigned size)
{
    uint64_t value = 0;
    ck_assert_uint_ge((size_t) (reader->end - reader->at), size);
    memcpy(&value, reader->at, size); /* both hosts are little-endian */
    reader->at += size;
    return value;
}

static uint64_t read_uleb(struct reader *reader)
{
    uint64_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint64_t byte = read_number(reader, 1);
        value |= (byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return value;
    }
}

static int64_t read_sleb(struct reader *reader)
{
    uint64_t value = 0, byte;
    unsigned shift = 0;
    do {
        byte = read_number(reader, 1);
        value |= (byte & 0x7f) << shift;
        shift += 7;
    } while (byte & 0x80);
    if (byte & 0x40)
        value |= ~(uint64_t) 0 << shift;
    return (int64_t) value;
}

static void read_program(struct reader program, int64_t data_align, struct cfi *cfi)
{
    for (unsigned i = 0; i < REGS; i++)
        cfi->saved[i] = NOT_SAVED;
    while (program.at < program.end) {
        uint64_t op = read_number(&program, 1);
        unsigned reg;
        switch (op) {
        case 0x00: /* nop */
            break;
        case 0x0c: /* def_cfa */
            cfi->cfa_reg = (unsigned) read_uleb(&program);
            cfi->cfa_offset = (int64_t) read_uleb(&program);
            break;
        case 0x08: /* same_value */
            reg = (unsigned) read_uleb(&program);
            ck_assert_uint_lt(reg, REGS);
            cfi->saved[reg] = NOT_SAVED;
            break;
        case 0x05: /* offset_extended */
        case 0x11: /* offset_extended_sf */
            reg = (unsigned) read_uleb(&program);
            ck_assert_uint_lt(reg, REGS);
            cfi->saved[reg] = (int32_t) (data_align * (op == 0x05 ? (int64_t) read_uleb(&program)
                                                                  : read_sleb(&program)));
            break;
        default:
            ck_abort_msg("instruction 0x%02x", (unsigned) op);
        }
    }
}

/* The FDEs of a section with one CIE; returns how many there are. */
static unsigned read_section(const uint8_t *bytes, size_t size, unsigned return_column,
                             struct cfi *cfis, const uint32_t *offsets)
{
    struct reader reader = { bytes, bytes + size };
    int64_t data_align = 0;
    unsigned count = 0;
    for (;;) {
        const uint8_t *start = reader.at;
        uint64_t length = read_number(&reader, 4);
        if (length == 0)
            break;
        ck_assert_uint_eq((length + 4) % 8, 0);
        struct reader record = { reader.at, reader.at + length };
        ck_assert_uint_le(length, (size_t) (reader.end - reader.at));
        reader.at += length;
        uint64_t id = read_number(&record, 4);
        if (start == bytes) {
            ck_assert_uint_eq(id, 0);
            ck_assert_uint_eq(read_number(&record, 1), 1);
            ck_assert_uint_eq(read_number(&record, 3), 'z' | 'R' << 8);
            ck_assert_uint_eq(read_uleb(&record), 1);
            data_align = read_sleb(&record);
            ck_assert_uint_eq(read_uleb(&record), return_column);
            ck_assert_uint_eq(read_uleb(&record), 1);
            ck_assert_uint_eq(read_number(&record, 1), 0); /* absolute addresses */
            continue;
        }
        ck_assert_uint_eq(id, (uint64_t) (start + 4 - bytes)); /* back to the CIE */
        ck_assert_uint_eq(offsets[count], (uint64_t) (start - bytes));
        struct cfi *cfi = &cfis[count++];
        cfi->start = read_number(&record, 8);
        cfi->size = read_number(&record, 8);
        ck_assert_uint_eq(read_uleb(&record), 0);
        read_program(record, data_align, cfi);
    }
    ck_assert_ptr_eq(reader.at, reader.end);
    return count;
}

static const struct {
    const char *name;
    pp_arch arch;
    struct frame_rule rule;
    unsigned return_column, cfa_reg;
    int64_t cfa_offset;
    struct { unsigned reg; int32_t offset; } saved[12]; /* offset 0 ends the list */
} rule_cases[] = {
    { "x86-64 leaf", PP_ARCH_X86_64, { .kind = PP_FRAME_LEAF }, 16, 7, 8, { { 16, -8 } } },
    { "x86-64 record", PP_ARCH_X86_64, { .kind = PP_FRAME_RECORD, .cfa_offset = 16 }, 16, 6, 16,
      { { 6, -16 }, { 16, -8 } } },
    /* rbx r12 r13 r14 r15 have slots, rbx (3) and r13 are saved. */
    { "x86-64 record with saves", PP_ARCH_X86_64,
      { .kind = PP_FRAME_RECORD, .cfa_offset = 16,
        .saves = { .slots = 0xf008, .saved = 0x2008, .offset = -40 } }, 16, 6, 16,
      { { 6, -16 }, { 16, -8 }, { 3, -56 }, { 13, -40 } } },
    /* Every number that differs between hardware and DWARF; rbp's slot does not win. */
    { "x86-64 numbers", PP_ARCH_X86_64,
      { .kind = PP_FRAME_OSR, .cfa_offset = 16,
        .saves = { .slots = 0xff, .saved = 0xef, .offset = -64 } }, 16, 6, 16,
      { { 6, -16 }, { 16, -8 }, { 0, -80 }, { 2, -72 }, { 1, -64 }, { 3, -56 }, { 4, -32 },
        { 5, -24 } } },
    { "x86-64 OSR with its own", PP_ARCH_X86_64,
      { .kind = PP_FRAME_OSR, .cfa_offset = 16,
        .saves = { .slots = 0x0008, .saved = 0x0008, .offset = -8 },
        .own = { .slots = 0x5008, .saved = 0x5008, .offset = -128 } }, 16, 6, 16,
      { { 6, -16 }, { 16, -8 }, { 3, -24 }, { 12, -136 }, { 14, -128 } } },
    { "AArch64 leaf", PP_ARCH_AARCH64, { .kind = PP_FRAME_LEAF }, 30, 31, 0, { { 0, 0 } } },
    { "AArch64 record at the bottom", PP_ARCH_AARCH64,
      { .kind = PP_FRAME_RECORD, .cfa_offset = 160,
        .saves = { .slots = 0x0000030000380000, .saved = 0x0000030000280000, .offset = 16 } },
      30, 29, 160,
      { { 29, -160 }, { 30, -152 }, { 19, -144 }, { 21, -128 }, { 72, -120 }, { 73, -112 } } },
    { "AArch64 OSR with its own", PP_ARCH_AARCH64,
      { .kind = PP_FRAME_OSR, .cfa_offset = 16,
        .saves = { .slots = 0x180000, .saved = 0x100000, .offset = -16 },
        .own = { .slots = 0x0000800000180000, .saved = 0x0000800000180000, .offset = -4096 } },
      30, 29, 16,
      { { 29, -16 }, { 30, -8 }, { 20, -24 }, { 19, -4112 }, { 79, -4096 } } },
    { "AArch64 slots above the CFA", PP_ARCH_AARCH64,
      { .kind = PP_FRAME_RECORD, .cfa_offset = 16,
        .saves = { .slots = 0x180000, .saved = 0x180000, .offset = 16 } }, 30, 29, 16,
      { { 29, -16 }, { 30, -8 }, { 20, 8 } } }, /* x19 is at the CFA itself */
};

START_TEST(rules_read_back)
{
    const struct frame_rule *rule = &rule_cases[_i].rule;
    static const struct frame_rule leaf = { .kind = PP_FRAME_LEAF };
    struct eh_frame_part parts[3] = { { 0x7f1200010000, 0x7f1200020000, rule },
                                      { 0x7f1200020000, 0x7f1200021000, &leaf },
                                      { 0x7f1200021000, 0x7f1204000000, rule } };
    uint8_t bytes[EH_FRAME_CAPACITY(3)];
    uint32_t offsets[3];
    struct cfi cfis[3];
    size_t size = eh_frame_encode(rule_cases[_i].arch, parts, 3, bytes, sizeof bytes, offsets);
    ck_assert_uint_gt(size, 0);
    ck_assert_uint_eq(read_section(bytes, size, rule_cases[_i].return_column, cfis, offsets), 3);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(cfis[i].start, parts[i].start);
        ck_assert_uint_eq(cfis[i].size, parts[i].end - parts[i].start);
    }
    for (unsigned i = 0; i < 3; i += 2) {
        unsigned expected = 0, found = 0;
        ck_assert_uint_eq(cfis[i].cfa_reg, rule_cases[_i].cfa_reg);
        ck_assert_int_eq(cfis[i].cfa_offset, rule_cases[_i].cfa_offset);
        for (; rule_cases[_i].saved[expected].offset != 0; expected++)
            ck_assert_msg(cfis[i].saved[rule_cases[_i].saved[expected].reg]
                              == rule_cases[_i].saved[expected].offset,
                          "%s: register %u", rule_cases[_i].name,
                          rule_cases[_i].saved[expected].reg);
        for (unsigned reg = 0; reg < REGS; reg++)
            found += cfis[i].saved[reg] != NOT_SAVED && cfis[i].saved[reg] != 0;
        ck_assert_uint_eq(found, expected);
    }
}
END_TEST

/* The worst rule there is fits the capacity, and less room is refused, not overrun. */
START_TEST(capacity_is_kept)
{
    const struct frame_rule rule = { .kind = PP_FRAME_OSR, .cfa_offset = INT32_MAX & ~15u,
                                     .saves = { ~0ull & ~(7ull << 29), 0xffff000000000000, 0, 0 },
                                     .own = { ~0ull & ~(7ull << 29), ~0ull, INT32_MIN, 0 } };
    struct eh_frame_part parts[3] = { { 1, 2, &rule }, { 2, 3, &rule }, { 3, 4, &rule } };
    uint8_t bytes[EH_FRAME_CAPACITY(3) + 1];
    uint32_t offsets[3];
    size_t size = eh_frame_encode(PP_ARCH_AARCH64, parts, 3, bytes, sizeof bytes - 1, offsets);
    ck_assert_uint_gt(size, 0);
    for (size_t capacity = 0; capacity < size; capacity++) {
        memset(bytes, 0xa5, sizeof bytes);
        ck_assert_uint_eq(eh_frame_encode(PP_ARCH_AARCH64, parts, 3, bytes, capacity, offsets), 0);
        ck_assert_uint_eq(bytes[capacity], 0xa5);
    }
    ck_assert_uint_eq(eh_frame_encode(PP_ARCH_AARCH64, parts, 3, bytes, size, offsets), size);
}
END_TEST

START_TEST(what_dwarf_cannot_say_is_refused)
{
    const struct frame_rule rules[] = {
        { .kind = PP_FRAME_NONE },
        { .kind = PP_FRAME_RECORD, .cfa_offset = 16,
          .saves = { .slots = 8, .saved = 8, .offset = -12 } },
        { .kind = PP_FRAME_RECORD, .cfa_offset = 16, /* x86-64 has no register 16 */
          .saves = { .slots = 1 << 16, .saved = 1 << 16, .offset = -8 } },
    };
    uint8_t bytes[EH_FRAME_CAPACITY(1)];
    uint32_t offset;
    for (unsigned i = 0; i < COUNT(rules); i++) {
        struct eh_frame_part part = { 16, 32, &rules[i] };
        ck_assert_uint_eq(eh_frame_encode(PP_ARCH_X86_64, &part, 1, bytes, sizeof bytes, &offset),
                          0);
    }
}
END_TEST

/* ---- the other unwinders ---------------------------------------------- */

enum { GUARD = 0x10000, REGION_BYTES = 0x30000, ISLANDS = 0x10000, CODE = 0x20000 };

static const struct frame_rule record_rule = {
    .kind = PP_FRAME_RECORD, .cfa_offset = RECORD_CODE_CFA,
    .saves = { RECORD_CODE_SLOTS, RECORD_CODE_SAVED, RECORD_CODE_OFFSET, 0 },
};

/* All that a registration wants of a pool. */
static struct pp_pool telling = { .unwinders = PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND };

/* A region of one mapping, with nothing beside it: code, islands in its middle, code. */
static struct region *region_map(const struct frame_rule *rule)
{
    struct region *region = calloc(1, sizeof *region);
    ck_assert_int_eq(walk_room.begin(&telling, NULL), PP_OK);
    uint8_t *memory = mmap(NULL, GUARD + REGION_BYTES + GUARD, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    memory += GUARD;
    memcpy(memory, record_code, (size_t) (record_code_end - record_code));
    memcpy(memory + CODE, record_code, (size_t) (record_code_end - record_code));
    ck_assert_int_eq(mprotect(memory, REGION_BYTES, PROT_READ | PROT_EXEC), 0);
    __builtin___clear_cache((char *) memory, (char *) memory + REGION_BYTES);
    region->base = region->code_lo = (uintptr_t) memory;
    region->island_lo = region->code_lo + ISLANDS;
    region->island_hi = region->code_lo + CODE;
    region->limit = region->code_hi = region->code_lo + REGION_BYTES;
    region->pool = &telling;
    region->told = rule;
    return region;
}

static void region_unmap(struct region *region)
{
    munmap((void *) (region->base - GUARD), GUARD + REGION_BYTES + GUARD);
    free(region);
}

static bool in_region(const struct region *region, uintptr_t pc)
{
    return pc - region->code_lo < region->code_hi - region->code_lo;
}

/* libgcc itself, whatever the program's own _Unwind_* are. */
static void *libgcc(const char *name)
{
    static void *library;
    if (library == NULL)
        library = dlopen("libgcc_s.so.1", RTLD_NOW);
    ck_assert_ptr_nonnull(library);
    void *symbol = dlsym(library, name);
    ck_assert_ptr_nonnull(symbol);
    return symbol;
}

struct dwarf_eh_bases {
    void *text, *data, *function;
};

static bool libgcc_knows(uintptr_t pc, uintptr_t start)
{
    const void *(*find)(void *, struct dwarf_eh_bases *) =
        (const void *(*)(void *, struct dwarf_eh_bases *)) libgcc("_Unwind_Find_FDE");
    struct dwarf_eh_bases bases = { 0 };
    if (find((void *) pc, &bases) == NULL)
        return false;
    ck_assert_uint_eq((uintptr_t) bases.function, start);
    return true;
}

static bool libunwind_knows(uintptr_t pc, uintptr_t start, uintptr_t end)
{
    unw_proc_info_t info;
    unw_flush_cache(unw_local_addr_space, 0, 0);
    if (unw_get_proc_info_by_ip(unw_local_addr_space, pc, &info, NULL) < 0)
        return false;
    ck_assert_uint_eq(info.start_ip, start);
    ck_assert_uint_eq(info.end_ip, end);
    return true;
}

static void expect_known(const struct region *region, bool known)
{
    const uintptr_t bounds[] = { region->code_lo, region->island_lo, region->island_hi,
                                 region->code_hi };
    for (unsigned i = 0; i + 1 < COUNT(bounds); i++) {
        const uintptr_t pcs[] = { bounds[i], bounds[i] + 1, (bounds[i] + bounds[i + 1]) / 2,
                                  bounds[i + 1] - 1 };
        for (unsigned k = 0; k < COUNT(pcs); k++) {
            ck_assert_int_eq(libgcc_knows(pcs[k], bounds[i]), known);
            ck_assert_int_eq(libunwind_knows(pcs[k], bounds[i], bounds[i + 1]), known);
        }
    }
    ck_assert(!libgcc_knows(region->code_hi, 0));
    ck_assert(!libunwind_knows(region->code_hi, 0, 0));
    ck_assert(!libgcc_knows(region->code_lo - 1, 0));
    ck_assert(!libunwind_knows(region->code_lo - 1, 0, 0));
}

START_TEST(regions_are_known_from_open_to_close)
{
    struct region *regions[4];
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < COUNT(regions); i++) {
            regions[i] = region_map(&record_rule);
            expect_known(regions[i], false);
            ck_assert_int_eq(walk_room.region_open(regions[i], NULL), PP_OK);
            expect_known(regions[i], true);
        }
        /* Not in the order in which they came. */
        for (unsigned i = 0; i < COUNT(regions); i++) {
            struct region *region = regions[(i * 3 + round) % COUNT(regions)];
            expect_known(region, true);
            walk_room.region_close(region);
            expect_known(region, false);
            ck_assert_ptr_null(region->unwind);
        }
        for (unsigned i = 0; i < COUNT(regions); i++)
            region_unmap(regions[i]);
    }
}
END_TEST

START_TEST(no_rule_no_registration)
{
    struct region *region = region_map(NULL);
    ck_assert_int_eq(walk_room.region_open(region, NULL), PP_OK);
    ck_assert_ptr_null(region->unwind);
    expect_known(region, false);
    walk_room.region_close(region);
    region_unmap(region);
}
END_TEST

START_TEST(a_refused_region_leaves_nothing)
{
    struct frame_rule rule = record_rule;
    rule.saves.offset = -12;
    struct region *region = region_map(&rule);
    pp_error error = { .size = sizeof error };
    ck_assert_int_eq(walk_room.region_open(region, &error), PP_E_ARG);
    ck_assert_uint_gt(strlen(error.text), 0);
    ck_assert_ptr_null(region->unwind);
    expect_known(region, false);
    region_unmap(region);
}
END_TEST

/* Callee-saved registers as marked_call set them: DWARF numbers, hardware numbers. */
#if defined __x86_64__
static const unsigned char marked[][2] = { { 3, 3 }, { 6, 5 }, { 12, 12 }, { 13, 13 },
                                           { 14, 14 }, { 15, 15 } };
#else
static const unsigned char marked[][2] = { { 19, 19 }, { 20, 20 }, { 21, 21 }, { 22, 22 },
                                           { 23, 23 }, { 24, 24 }, { 25, 25 }, { 26, 26 },
                                           { 27, 27 }, { 28, 28 }, { 29, 29 }, { 72, 8 },
                                           { 73, 9 }, { 74, 10 }, { 75, 11 }, { 76, 12 },
                                           { 77, 13 }, { 78, 14 }, { 79, 15 } };
#endif

/*
 * libunwind's unw_getcontext leaves out vector registers: of these it knows the
 * one that record_code saved.
 */
#if defined __x86_64__
enum { MARKED_FOR_LIBUNWIND = COUNT(marked) };
#else
enum { MARKED_FOR_LIBUNWIND = 11 + 1 };
#endif

/* The frames from the callback outwards, as an unwinder sees them. */
struct seen {
    const struct region *region;
    unsigned frames, in_region, marked;
};

static _Unwind_Reason_Code see_with_libgcc(struct _Unwind_Context *context, void *argument)
{
    uintptr_t (*get_ip)(struct _Unwind_Context *) =
        (uintptr_t (*)(struct _Unwind_Context *)) libgcc("_Unwind_GetIP");
    uintptr_t (*get_register)(struct _Unwind_Context *, int) =
        (uintptr_t (*)(struct _Unwind_Context *, int)) libgcc("_Unwind_GetGR");
    struct seen *seen = argument;
    uintptr_t pc = get_ip(context);
    seen->frames++;
    if (in_region(seen->region, pc))
        seen->in_region = seen->frames;
    else if (seen->in_region != 0 && seen->in_region + 1 == seen->frames)
        for (unsigned i = 0; i < COUNT(marked); i++)
            seen->marked += get_register(context, marked[i][0]) == MARK + marked[i][1];
    return _URC_NO_REASON;
}

/* libunwind's numbers are DWARF's; vector registers have a call of their own. */
static uint64_t libunwind_register(unw_cursor_t *cursor, int reg)
{
    unw_word_t value = 0;
    unw_fpreg_t vector = 0;
    if (reg < 64)
        return unw_get_reg(cursor, reg, &value) == 0 ? value : 0;
    if (unw_get_fpreg(cursor, reg, &vector) == 0)
        memcpy(&value, &vector, sizeof value);
    return value;
}

static void see_with_libunwind(struct seen *seen)
{
    unw_context_t context;
    unw_cursor_t cursor;
    unw_getcontext(&context);
    ck_assert_int_eq(unw_init_local(&cursor, &context), 0);
    do {
        unw_word_t pc;
        unw_get_reg(&cursor, UNW_REG_IP, &pc);
        seen->frames++;
        if (in_region(seen->region, pc))
            seen->in_region = seen->frames;
        else if (seen->in_region != 0 && seen->in_region + 1 == seen->frames)
            for (unsigned i = 0; i < COUNT(marked); i++)
                seen->marked += libunwind_register(&cursor, marked[i][0]) == MARK + marked[i][1];
    } while (unw_step(&cursor) > 0);
}

static const struct region *calling;
static struct seen by_libgcc, by_libunwind;
static bool with_cache; /* what libunwind has kept of earlier walks is used */

static void look_back(void)
{
    _Unwind_Reason_Code (*backtrace)(_Unwind_Trace_Fn, void *) =
        (_Unwind_Reason_Code (*)(_Unwind_Trace_Fn, void *)) libgcc("_Unwind_Backtrace");
    by_libgcc = by_libunwind = (struct seen){ .region = calling };
    if (!with_cache)
        unw_flush_cache(unw_local_addr_space, 0, 0);
    see_with_libunwind(&by_libunwind);
    backtrace(see_with_libgcc, &by_libgcc);
}

START_TEST(both_unwind_through_a_region)
{
    struct region *region = region_map(&record_rule);
    calling = region;
    for (unsigned round = 0; round < 2; round++) {
        ck_assert_int_eq(walk_room.region_open(region, NULL), PP_OK);
        for (unsigned place = 0; place < 2; place++) {
            marked_call((const void *) (region->code_lo + (place == 0 ? 0 : CODE)),
                        (void *) look_back);
            ck_assert_uint_eq(by_libgcc.marked, COUNT(marked));
            ck_assert_uint_eq(by_libunwind.marked, MARKED_FOR_LIBUNWIND);
            /* At least: the callback, the region, marked_call, this function, Check, main. */
            ck_assert_uint_ge(by_libgcc.frames, 6);
            ck_assert_uint_ge(by_libunwind.frames, 6);
        }
        walk_room.region_close(region);
    }
    region_unmap(region);
}
END_TEST

/* The test can fail: with another rule for the same code the registers are wrong. */
START_TEST(a_wrong_rule_is_noticed)
{
    struct frame_rule rule = record_rule;
    rule.saves.offset += 8;
    struct region *region = region_map(&rule);
    calling = region;
    ck_assert_int_eq(walk_room.region_open(region, NULL), PP_OK);
    marked_call((const void *) region->code_lo, (void *) look_back);
    ck_assert_uint_lt(by_libgcc.marked, COUNT(marked));
    ck_assert_uint_lt(by_libunwind.marked, MARKED_FOR_LIBUNWIND);
    walk_room.region_close(region);

    /* And without a registration nobody finds the way. */
    marked_call((const void *) region->code_lo, (void *) look_back);
    ck_assert_uint_lt(by_libgcc.marked, COUNT(marked));
    ck_assert_uint_lt(by_libunwind.marked, MARKED_FOR_LIBUNWIND);
    region_unmap(region);
}
END_TEST

/* What an unwinder has kept of the addresses' first rule is not used for the second. */
START_TEST(addresses_get_another_rule)
{
    struct frame_rule wrong = record_rule;
    wrong.saves.offset += 8;
    struct region *region = region_map(&wrong);
    calling = region;
    with_cache = true;
    for (unsigned round = 0; round < 4; round++) {
        bool right = round % 2 != 0;
        region->told = right ? &record_rule : &wrong;
        ck_assert_int_eq(walk_room.region_open(region, NULL), PP_OK);
        for (unsigned i = 0; i < 3; i++) {
            marked_call((const void *) region->code_lo, (void *) look_back);
            ck_assert_int_eq(by_libgcc.marked == COUNT(marked), right);
            ck_assert_int_eq(by_libunwind.marked == MARKED_FOR_LIBUNWIND, right);
        }
        walk_room.region_close(region);
    }
    with_cache = false;
    region_unmap(region);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eh_frame");
    TCase *bytes = tcase_create("bytes");
    tcase_add_loop_test(bytes, rules_read_back, 0, COUNT(rule_cases));
    tcase_add_test(bytes, capacity_is_kept);
    tcase_add_test(bytes, what_dwarf_cannot_say_is_refused);
    suite_add_tcase(suite, bytes);
    TCase *unwinders = tcase_create("unwinders");
    tcase_add_test(unwinders, regions_are_known_from_open_to_close);
    tcase_add_test(unwinders, no_rule_no_registration);
    tcase_add_test(unwinders, a_refused_region_leaves_nothing);
    tcase_add_test(unwinders, both_unwind_through_a_region);
    tcase_add_test(unwinders, a_wrong_rule_is_noticed);
    tcase_add_test(unwinders, addresses_get_another_rule);
    suite_add_tcase(suite, unwinders);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
