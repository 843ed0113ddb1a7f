/* SPDX-License-Identifier: MIT */
/* Instructions of synthesized code, x86-64.  Registers: targets.h. */
#include <config.h>

#include "stress/instructions.h"

#include <elf.h>
#include <string.h>

/* Older C libraries do not have the relaxable kinds. */
#ifndef R_X86_64_GOTPCRELX
#define R_X86_64_GOTPCRELX 41
#define R_X86_64_REX_GOTPCRELX 42
#endif

const uint16_t reloc_absolute = R_X86_64_64;

enum { OPCODE_BRANCH = 2, OPCODE_LOAD = 3, FIELD = 4, ADD = 3 };

uint32_t unit_bytes(enum site_kind kind, enum stress_form form)
{
    (void) form;
    return (kind == SITE_LOAD ? OPCODE_LOAD : OPCODE_BRANCH) + FIELD;
}

/* An AArch64 site is the start of an instruction, ours is the field behind the opcode. */
int64_t unit_start(const struct recorded_site *site, enum recording_arch arch,
                   enum stress_form form)
{
    (void) form;
    if (arch == RECORDING_AARCH64)
        return site->offset;
    return (int64_t) site->offset - (site->kind == SITE_LOAD ? OPCODE_LOAD : OPCODE_BRANCH);
}

static void one_reloc(struct unit_relocs *relocs, uint16_t type, uint16_t offset)
{
    relocs->count = 1;
    relocs->items[0].type = type;
    relocs->items[0].offset = offset;
    relocs->items[0].addend = -4;
    relocs->items[0].is_branch = type == R_X86_64_PLT32;
    relocs->items[0].can_relax = type != R_X86_64_PLT32 && type != R_X86_64_GOTPCREL;
}

static uint32_t write_load(uint8_t *at, uint32_t room, struct unit_relocs *relocs)
{
    static const uint8_t load[] = { 0x4c, 0x8b, 0x05, 0, 0, 0, 0, /* mov slot(%rip), %r8 */
                                    0x4c, 0x01, 0xc0 };           /* add %r8, %rax */
    static const uint8_t load_add[] = { 0x48, 0x03, 0x05, 0, 0, 0, 0 }; /* add slot(%rip), %rax */
    if (room >= sizeof load) {
        memcpy(at, load, sizeof load);
        one_reloc(relocs, R_X86_64_REX_GOTPCRELX, OPCODE_LOAD);
        return sizeof load;
    }
    memcpy(at, load_add, sizeof load_add);
    one_reloc(relocs, R_X86_64_GOTPCREL, OPCODE_LOAD);
    return sizeof load_add;
}

uint32_t unit_write(uint8_t *at, enum site_kind kind, enum stress_form form, uint32_t room,
                    struct unit_relocs *relocs)
{
    static const uint8_t opcodes[2][2][OPCODE_BRANCH] = {
        [FORM_PLT] = { { 0x90, 0xe8 }, { 0x90, 0xe9 } }, /* nop; call - nop; jmp */
        [FORM_GOT] = { { 0xff, 0x15 }, { 0xff, 0x25 } }, /* call *slot(%rip) - jmp *slot(%rip) */
    };
    *relocs = (struct unit_relocs) { 0 };
    if (kind == SITE_LOAD)
        return write_load(at, room, relocs);
    memcpy(at, opcodes[form][kind == SITE_JUMP], OPCODE_BRANCH);
    memset(at + OPCODE_BRANCH, 0, FIELD);
    one_reloc(relocs, form == FORM_PLT ? R_X86_64_PLT32 : R_X86_64_GOTPCRELX, OPCODE_BRANCH);
    return OPCODE_BRANCH + FIELD;
}

void prologue_write(uint8_t *at)
{
    static const uint8_t prologue[PROLOGUE_BYTES] = { 0x55,             /* push %rbp */
                                                      0x48, 0x89, 0xe5, /* mov %rsp, %rbp */
                                                      0x31, 0xc0 };     /* xor %eax, %eax */
    memcpy(at, prologue, sizeof prologue);
}

void exit_write(uint8_t *at)
{
    static const uint8_t code[EXIT_BYTES] = { 0xff, 0x22 }; /* jmp *(%rdx) */
    memcpy(at, code, sizeof code);
}

/* The long NOPs that the manuals recommend. */
void nops_write(uint8_t *at, uint32_t bytes)
{
    static const uint8_t nops[9][9] = {
        { 0x90 },
        { 0x66, 0x90 },
        { 0x0f, 0x1f, 0x00 },
        { 0x0f, 0x1f, 0x40, 0x00 },
        { 0x0f, 0x1f, 0x44, 0x00, 0x00 },
        { 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
        { 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 },
        { 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
        { 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
    };
    while (bytes > 0) {
        uint32_t n = bytes < 9 ? bytes : 9;
        memcpy(at, nops[n - 1], n);
        at += n;
        bytes -= n;
    }
}

void traps_write(uint8_t *at, uint32_t bytes)
{
    memset(at, 0xcc, bytes); /* int3 */
}

void branch_write(uint8_t *at, uint32_t bytes)
{
    uint32_t distance = bytes - BRANCH_BYTES;
    at[0] = 0xe9; /* jmp rel32 */
    memcpy(at + 1, &distance, sizeof distance);
}
