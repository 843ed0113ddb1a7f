/* SPDX-License-Identifier: MIT */
/* The instructions of passages, x86-64. */
#include <config.h>

#include "stress/moves.h"

#include <elf.h>
#include <string.h>

enum { RBP = 5 };

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

#define BYTES(m, ...) \
    move_bytes(m, (const uint8_t[]) { __VA_ARGS__ }, sizeof((const uint8_t[]) { __VA_ARGS__ }), \
               NULL, 0)

static void word(struct moves *m, uint32_t value)
{
    move_bytes(m, &value, sizeof value, NULL, 0);
}

/* A register and offset(base), which is neither rsp nor r12. */
static void operand(struct moves *m, unsigned reg, unsigned base, uint32_t offset)
{
    BYTES(m, (uint8_t) (0x80 | (reg & 7) << 3 | (base & 7)));
    word(m, offset);
}

void move_field(struct moves *m, unsigned reg, unsigned base, uint32_t offset, bool store)
{
    unsigned rex = (reg & 15) >> 3 << 2 | base >> 3;
    if (reg < 32)
        BYTES(m, (uint8_t) (0x48 | rex), store ? 0x89 : 0x8b);
    else
        BYTES(m, (uint8_t) (0x40 | rex), 0x0f, store ? 0x11 : 0x10); /* movups */
    operand(m, reg, base, offset);
}

void move_slot(struct moves *m, unsigned reg, int32_t offset, bool store)
{
    move_field(m, reg, RBP, (uint32_t) offset, store);
}

void move_landing(struct moves *m)
{
    BYTES(m, 0xf3, 0x0f, 0x1e, 0xfa); /* endbr64 */
}

void move_begin(struct moves *m, const pp_tier0_layout *frame)
{
    BYTES(m, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x81, 0xec); /* push, mov, sub */
    word(m, frame->frame_bytes);
}

void move_end(struct moves *m, const pp_tier0_layout *frame)
{
    (void) frame;
    BYTES(m, 0xc9, 0xc3);
}

void move_begin_function(struct moves *m)
{
    BYTES(m, 0x55, 0x48, 0x89, 0xe5);
}

void move_end_function(struct moves *m)
{
    BYTES(m, 0x5d, 0xc3);
}

void move_register(struct moves *m, unsigned to, unsigned from)
{
    BYTES(m, (uint8_t) (0x48 | from >> 3 << 2 | to >> 3), 0x89,
          (uint8_t) (0xc0 | (from & 7) << 3 | (to & 7)));
}

void move_constant(struct moves *m, unsigned to, uint32_t value)
{
    BYTES(m, (uint8_t) (0x40 | to >> 3), (uint8_t) (0xb8 | (to & 7)));
    word(m, value);
}

void move_call(struct moves *m, pp_symbol symbol)
{
    static const uint8_t call[] = { 0xe8, 0, 0, 0, 0 };
    pp_reloc reloc = { .offset = 1, .type = R_X86_64_PLT32, .symbol = symbol, .addend = -4 };
    move_bytes(m, call, sizeof call, &reloc, 1);
}

void move_again(struct moves *m, size_t target)
{
    BYTES(m, 0x48, 0x85, 0xc0, 0x0f, 0x85); /* test %rax, %rax; jnz */
    word(m, (uint32_t) (target - (m->size + 4)));
}

void move_spoil(struct moves *m, unsigned reg)
{
    uint8_t high = (reg & 15) >> 3, both = (uint8_t) (0xc0 | (reg & 7) << 3 | (reg & 7));
    if (reg < 32) {
        BYTES(m, 0x48 | high, 0xc7, (uint8_t) (0xc0 | (reg & 7)));
        word(m, UINT32_MAX);
    } else {
        BYTES(m, 0x66, (uint8_t) (0x40 | high << 2 | high), 0x0f, 0x76, both); /* pcmpeqd */
    }
}

void move_align(struct moves *m, size_t align)
{
    while (m->size % align != 0 && m->status == PP_OK)
        BYTES(m, 0x90);
}
