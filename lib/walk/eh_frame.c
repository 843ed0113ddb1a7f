/* SPDX-License-Identifier: MIT */
/*
 * .eh_frame generation: "DWARF 4", 6.4, with the differences that the System V
 * ABI for x86-64 (4.2.4) and the DWARF for AArch64 supplement (AADWARF64)
 * describe.  Version 1 and augmentation "zR" are what every unwinder reads.
 */
#include <config.h>

#include "walk/eh_frame.h"

#include <stdbool.h>
#include <string.h>

enum {
    DW_EH_PE_absptr = 0x00,
    DW_CFA_same_value = 0x08,
    DW_CFA_def_cfa = 0x0c,
    DW_CFA_offset_extended = 0x05,
    DW_CFA_offset_extended_sf = 0x11,
    DATA_ALIGN = -8
};

/* DWARF's names for what a rule speaks of. */
struct dwarf_machine {
    unsigned sp, fp, return_address;
    unsigned leaf_cfa_offset;     /* from SP, before a leaf function does anything */
    bool return_address_pushed;   /* by the call, right below the CFA */
    const uint8_t *gpr;           /* by hardware number; NULL: the same numbers */
    unsigned gpr_count;
    unsigned vector;              /* number of v0; 0: unwinders know no saved vectors */
};

static const uint8_t x86_64_gpr[16] = { 0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15 };

static const struct dwarf_machine machines[] = {
    /* The ABI keeps no vector across calls, and libunwind refuses a rule for one. */
    [PP_ARCH_X86_64] = { .sp = 7, .fp = 6, .return_address = 16, .leaf_cfa_offset = 8,
                         .return_address_pushed = true, .gpr = x86_64_gpr, .gpr_count = 16 },
    [PP_ARCH_AARCH64] = { .sp = 31, .fp = 29, .return_address = 30, .leaf_cfa_offset = 0,
                          .gpr_count = 31, .vector = 64 },
};

/* Where bytes go.  `full` is sticky, so that only the end needs a check. */
struct sink {
    uint8_t *bytes;
    size_t size, capacity;
    bool full;
};

static void put_byte(struct sink *sink, unsigned value)
{
    if (sink->size == sink->capacity) {
        sink->full = true;
        return;
    }
    sink->bytes[sink->size++] = (uint8_t) value;
}

static void put_number(struct sink *sink, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        put_byte(sink, (unsigned) (value >> (8 * i)) & 0xff);
}

static void put_uleb(struct sink *sink, uint64_t value)
{
    do {
        unsigned low = value & 0x7f;
        value >>= 7;
        put_byte(sink, low | (value != 0 ? 0x80 : 0));
    } while (value != 0);
}

static void put_sleb(struct sink *sink, int64_t value)
{
    for (;;) {
        unsigned low = value & 0x7f;
        value >>= 7; /* arithmetic, as every compiler for ELF does it */
        bool last = (value == 0 && !(low & 0x40)) || (value == -1 && (low & 0x40));
        put_byte(sink, low | (last ? 0 : 0x80));
        if (last)
            return;
    }
}

/* A record begins with its length, which does not count itself; returns where. */
static size_t record_begin(struct sink *sink)
{
    size_t start = sink->size;
    put_number(sink, 0, 4);
    return start;
}

/* Pad with DW_CFA_nop to the next address and fill in the length. */
static void record_end(struct sink *sink, size_t start)
{
    while ((sink->size - start) % 8 != 0 && !sink->full)
        put_byte(sink, 0);
    if (sink->full)
        return;
    uint32_t length = (uint32_t) (sink->size - start - 4);
    memcpy(sink->bytes + start, &length, sizeof length);
}

static void put_cie(struct sink *sink, const struct dwarf_machine *machine)
{
    size_t start = record_begin(sink);
    put_number(sink, 0, 4); /* a CIE */
    put_byte(sink, 1);      /* version */
    put_byte(sink, 'z');
    put_byte(sink, 'R');
    put_byte(sink, 0);
    put_uleb(sink, 1);      /* code alignment */
    put_sleb(sink, DATA_ALIGN);
    put_byte(sink, machine->return_address);
    put_uleb(sink, 1);      /* bytes of augmentation */
    put_byte(sink, DW_EH_PE_absptr);
    record_end(sink, start);
}

/* `reg` is kept at CFA + offset. */
static bool put_saved(struct sink *sink, unsigned reg, int64_t offset)
{
    if (offset % DATA_ALIGN != 0)
        return false;
    int64_t factored = offset / DATA_ALIGN;
    put_byte(sink, factored >= 0 ? DW_CFA_offset_extended : DW_CFA_offset_extended_sf);
    put_uleb(sink, reg);
    if (factored >= 0)
        put_uleb(sink, (uint64_t) factored);
    else
        put_sleb(sink, factored);
    return true;
}

/* The registers of `which` in an area; its slots are counted from FP. */
static bool put_area(struct sink *sink, const struct dwarf_machine *machine,
                     const struct frame_rule *rule, const pp_save_area *area, uint64_t which)
{
    int64_t offset = (int64_t) area->offset - rule->cfa_offset;
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(area->slots >> bit & 1))
            continue;
        if (which >> bit & 1) {
            unsigned reg;
            if (bit < machine->gpr_count)
                reg = machine->gpr != NULL ? machine->gpr[bit] : bit;
            else if (bit >= 32)
                reg = machine->vector + (bit - 32);
            else
                return false;
            if (bit < 32 || machine->vector != 0)
                if (!put_saved(sink, reg, offset))
                    return false;
        }
        offset += 8;
    }
    return true;
}

static bool put_rule(struct sink *sink, const struct dwarf_machine *machine,
                     const struct frame_rule *rule)
{
    put_byte(sink, DW_CFA_def_cfa);
    if (rule->kind == PP_FRAME_LEAF) {
        put_uleb(sink, machine->sp);
        put_uleb(sink, machine->leaf_cfa_offset);
        if (machine->return_address_pushed)
            return put_saved(sink, machine->return_address, -8);
        put_byte(sink, DW_CFA_same_value);
        put_uleb(sink, machine->return_address);
        return true;
    }
    put_uleb(sink, machine->fp);
    put_uleb(sink, rule->cfa_offset);
    int64_t record = -(int64_t) rule->cfa_offset;
    /* The record's own registers come last: a save area cannot change where they are. */
    return put_area(sink, machine, rule, &rule->saves, rule->saves.saved)
           && put_area(sink, machine, rule, &rule->own, rule->own.saved & ~rule->saves.saved)
           && put_saved(sink, machine->fp, record)
           && put_saved(sink, machine->return_address, record + 8);
}

static bool put_fde(struct sink *sink, const struct dwarf_machine *machine,
                    const struct eh_frame_part *part)
{
    size_t start = record_begin(sink);
    put_number(sink, sink->size, 4); /* distance from this field back to the CIE, at 0 */
    put_number(sink, part->start, 8);
    put_number(sink, part->end - part->start, 8);
    put_uleb(sink, 0);               /* bytes of augmentation */
    if (!put_rule(sink, machine, part->rule))
        return false;
    record_end(sink, start);
    return true;
}

size_t eh_frame_encode(pp_arch arch, const struct eh_frame_part *parts, unsigned count,
                       uint8_t *bytes, size_t capacity, uint32_t *fde_offsets)
{
    if (arch != PP_ARCH_X86_64 && arch != PP_ARCH_AARCH64)
        return 0;
    const struct dwarf_machine *machine = &machines[arch];
    struct sink sink = { .bytes = bytes, .capacity = capacity };
    put_cie(&sink, machine);
    for (unsigned i = 0; i < count; i++) {
        fde_offsets[i] = (uint32_t) sink.size;
        if (parts[i].rule->kind == PP_FRAME_NONE || !put_fde(&sink, machine, &parts[i]))
            return 0;
    }
    put_number(&sink, 0, 4);
    return sink.full ? 0 : sink.size;
}
