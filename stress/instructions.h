/* SPDX-License-Identifier: MIT */
/*
 * The instructions of this machine that synthesized code is made of.  A unit
 * performs one site; one file for each architecture has the same functions.
 */
#ifndef STRESS_INSTRUCTIONS_H
#define STRESS_INSTRUCTIONS_H

#include "stress/recording.h"
#include "stress/stress.h"

#if defined __x86_64__
enum { CODE_ALIGN = 1, PROLOGUE_BYTES = 6, EXIT_BYTES = 2, BRANCH_BYTES = 5, NOPS_MAX = 15 };
#elif defined __aarch64__
enum { CODE_ALIGN = 4, PROLOGUE_BYTES = 12, EXIT_BYTES = 8, BRANCH_BYTES = 4, NOPS_MAX = 16 };
#endif

/* Relocations of one unit; offsets from the start of the unit. */
struct unit_relocs {
    unsigned count;
    struct {
        uint16_t type;
        uint16_t offset;
        int64_t addend;
        bool is_branch;   /* takes a trampoline when the symbol is far */
        bool can_relax;   /* a GOT relocation that disappears when the symbol is near */
    } items[2];
};

/* The ELF type of an absolute 8-byte address. */
extern const uint16_t reloc_absolute;

/* The least bytes of a unit, and where it starts if the site stays where it was recorded. */
uint32_t unit_bytes(enum site_kind kind, enum stress_form form);
int64_t unit_start(const struct recorded_site *site, enum recording_arch arch,
                   enum stress_form form);

/*
 * Write a unit.  `room`: bytes up to the next unit, at least unit_bytes; the
 * bytes used are returned.
 */
uint32_t unit_write(uint8_t *at, enum site_kind kind, enum stress_form form, uint32_t room,
                    struct unit_relocs *relocs);

/* Make the frame record and clear the sum. */
void prologue_write(uint8_t *at);

/* Go to the next address of the list. */
void exit_write(uint8_t *at);

/* Bytes that run through, and bytes that trap. */
void nops_write(uint8_t *at, uint32_t bytes);
void traps_write(uint8_t *at, uint32_t bytes);

/* A branch of BRANCH_BYTES to `bytes` behind its start. */
void branch_write(uint8_t *at, uint32_t bytes);

#endif
