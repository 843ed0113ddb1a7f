/* SPDX-License-Identifier: MIT */
/* Instructions of synthesized code, AArch64.  Registers: targets.h. */
#include <config.h>

#include "stress/instructions.h"

#include <elf.h>
#include <string.h>

const uint16_t reloc_absolute = R_AARCH64_ABS64;

enum { WORD = 4, PAIR = 8 };

static void put(uint8_t *at, uint32_t instruction)
{
    memcpy(at, &instruction, sizeof instruction);
}

uint32_t unit_bytes(enum site_kind kind, enum stress_form form)
{
    return kind != SITE_LOAD && form == FORM_PLT ? WORD : PAIR + WORD;
}

/*
 * An x86-64 site is a field anywhere: the word that it begins in.  The pair
 * that fetches an address comes before the branch; a load is a pair and what
 * adds up, in that order, too.
 */
int64_t unit_start(const struct recorded_site *site, enum recording_arch arch,
                   enum stress_form form)
{
    (void) arch;
    int64_t at = site->offset & ~3u;
    if (site->kind == SITE_LOAD)
        return at - WORD;
    return form == FORM_PLT ? at : at - PAIR;
}

/* adrp; ldr of a GOT slot into a register. */
static void write_pair(uint8_t *at, unsigned reg, struct unit_relocs *relocs)
{
    put(at, 0x90000000 | reg);                      /* adrp reg, slot */
    put(at + WORD, 0xf9400000 | reg << 5 | reg);    /* ldr reg, [reg, lo12 of slot] */
    relocs->count = 2;
    relocs->items[0].type = R_AARCH64_ADR_GOT_PAGE;
    relocs->items[1].type = R_AARCH64_LD64_GOT_LO12_NC;
    relocs->items[1].offset = WORD;
    relocs->items[0].can_relax = relocs->items[1].can_relax = true;
}

uint32_t unit_write(uint8_t *at, enum site_kind kind, enum stress_form form, uint32_t room,
                    struct unit_relocs *relocs)
{
    (void) room;
    *relocs = (struct unit_relocs) { 0 };
    if (kind == SITE_LOAD) {
        write_pair(at, 9, relocs);
        put(at + PAIR, 0x8b090084); /* add x4, x4, x9 */
        return PAIR + WORD;
    }
    if (form == FORM_GOT) {
        write_pair(at, 16, relocs);
        put(at + PAIR, kind == SITE_CALL ? 0xd63f0200 : 0xd61f0200); /* blr x16 - br x16 */
        return PAIR + WORD;
    }
    put(at, kind == SITE_CALL ? 0x94000000 : 0x14000000); /* bl - b */
    relocs->count = 1;
    relocs->items[0].type = kind == SITE_CALL ? R_AARCH64_CALL26 : R_AARCH64_JUMP26;
    relocs->items[0].is_branch = true;
    return WORD;
}

void prologue_write(uint8_t *at)
{
    put(at, 0xa9bf7bfd);     /* stp x29, x30, [sp, #-16]! */
    put(at + 4, 0x910003fd); /* mov x29, sp */
    put(at + 8, 0xaa1f03e4); /* mov x4, xzr */
}

void exit_write(uint8_t *at)
{
    put(at, 0xf9400049);     /* ldr x9, [x2] */
    put(at + 4, 0xd65f0120); /* ret x9 */
}

void nops_write(uint8_t *at, uint32_t bytes)
{
    for (; bytes >= WORD; bytes -= WORD, at += WORD)
        put(at, 0xd503201f);
}

void traps_write(uint8_t *at, uint32_t bytes)
{
    memset(at, 0, bytes); /* udf #0 */
}

void branch_write(uint8_t *at, uint32_t bytes)
{
    put(at, 0x14000000 | (bytes >> 2 & 0x3ffffff));
}
