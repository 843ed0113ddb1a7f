/* SPDX-License-Identifier: MIT */
/* The instructions of passages, AArch64. */
#include <config.h>

#include "stress/moves.h"

#include <elf.h>
#include <string.h>

void move_bytes(struct moves *m, const void *bytes, size_t size, const pp_reloc *relocs,
                unsigned reloc_count)
{
    if (m->status == PP_OK && (size > sizeof m->code - m->size
                               || reloc_count > sizeof m->relocs / sizeof m->relocs[0] - m->reloc_count))
        m->status = PP_E_RANGE;
    if (m->status != PP_OK)
        return;
    for (unsigned i = 0; i < reloc_count; i++) {
        m->relocs[m->reloc_count] = relocs[i];
        m->relocs[m->reloc_count++].offset += (uint32_t) m->size;
    }
    memcpy(m->code + m->size, bytes, size);
    m->size += size;
}

static void word(struct moves *m, uint32_t instruction)
{
    move_bytes(m, &instruction, sizeof instruction, NULL, 0);
}

/* A signed number in x16. */
static void number(struct moves *m, int32_t value)
{
    uint32_t bits = (uint32_t) value, low = bits & 0xffff;
    if (value < 0)
        word(m, 0x92800010 | (~low & 0xffff) << 5);  /* movn x16, # */
    else
        word(m, 0xd2800010 | low << 5);              /* movz x16, # */
    /* movk x16, #, lsl 16: the halves above are as the first one made them */
    word(m, 0xf2a00010 | bits >> 16 << 5);
}

void move_field(struct moves *m, unsigned reg, unsigned base, uint32_t offset, bool store)
{
    if (reg == MOVE_SP) {
        word(m, 0x910003f1);                         /* mov x17, sp */
        reg = 17;
    }
    if (reg < 32)
        word(m, (store ? 0xf9000000 : 0xf9400000) | offset / 8 << 10 | base << 5 | reg);
    else
        word(m, (store ? 0x3d800000 : 0x3dc00000) | offset / 16 << 10 | base << 5 | (reg - 32));
}

void move_slot(struct moves *m, unsigned reg, int32_t offset, bool store)
{
    number(m, offset);
    if (reg < 32)                                    /* ldr, str x, [x29, x16] */
        word(m, (store ? 0xf8306ba0 : 0xf8706ba0) | reg);
    else                                             /* of d */
        word(m, (store ? 0xfc306ba0 : 0xfc706ba0) | (reg - 32));
}

void move_landing(struct moves *m)
{
    word(m, 0xd503245f); /* bti c */
}

/* SP is always aligned, wherever FP is. */
void move_begin(struct moves *m, const pp_tier0_layout *frame)
{
    number(m, (int32_t) (frame->frame_bytes + frame->cfa_offset));
    word(m, 0xcb3063ff); /* sub sp, sp, x16 */
    number(m, (int32_t) frame->frame_bytes);
    word(m, 0x8b3063f1); /* add x17, sp, x16 */
    word(m, 0xa9007a3d); /* stp x29, x30, [x17] */
    word(m, 0xaa1103fd); /* mov x29, x17 */
}

void move_end(struct moves *m, const pp_tier0_layout *frame)
{
    number(m, (int32_t) frame->cfa_offset);
    word(m, 0x8b1003b1); /* add x17, x29, x16 */
    word(m, 0xa9407bbd); /* ldp x29, x30, [x29] */
    word(m, 0x9100023f); /* mov sp, x17 */
    word(m, 0xd65f03c0); /* ret */
}

void move_begin_function(struct moves *m)
{
    word(m, 0xa9bf7bfd); /* stp x29, x30, [sp, #-16]! */
    word(m, 0x910003fd); /* mov x29, sp */
}

void move_end_function(struct moves *m)
{
    word(m, 0xa8c17bfd); /* ldp x29, x30, [sp], #16 */
    word(m, 0xd65f03c0); /* ret */
}

void move_register(struct moves *m, unsigned to, unsigned from)
{
    word(m, 0xaa0003e0 | from << 16 | to);
}

void move_constant(struct moves *m, unsigned to, uint32_t value)
{
    word(m, 0x52800000 | (value & 0xffff) << 5 | to);
    word(m, 0x72a00000 | value >> 16 << 5 | to);
}

void move_call(struct moves *m, pp_symbol symbol)
{
    static const uint32_t call = 0x94000000;
    pp_reloc reloc = { .type = R_AARCH64_CALL26, .symbol = symbol };
    move_bytes(m, &call, sizeof call, &reloc, 1);
}

void move_again(struct moves *m, size_t target)
{
    word(m, 0xb5000000 | ((uint32_t) (target - m->size) >> 2 & 0x7ffff) << 5); /* cbnz x0 */
}

void move_spoil(struct moves *m, unsigned reg)
{
    word(m, reg < 32 ? 0x92800000 | reg : 0x4f07e7e0 | (reg - 32)); /* movn; movi */
}

void move_align(struct moves *m, size_t align)
{
    while (m->size % align != 0 && m->status == PP_OK)
        word(m, 0xd503201f);
}
