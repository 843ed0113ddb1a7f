/* SPDX-License-Identifier: MIT */
/*
 * The instructions of this machine that passages (passage.h) are made of, for frames of
 * any size: offsets of any 32 bits.  One file for each architecture has the same
 * functions.
 *
 * Registers are numbered as in a save area: 0 to 31 general ones, 32 to 63 vectors.
 * MOVE_BASE, and on AArch64 x17, are changed by everything.
 */
#ifndef STRESS_MOVES_H
#define STRESS_MOVES_H

#include <patchpoint.h>

#include <stdbool.h>

#if defined __x86_64__
enum { MOVE_RESULT = 0, MOVE_FIRST = 7, MOVE_SECOND = 6, MOVE_SP = 4, MOVE_FP = 5, MOVE_BASE = 11 };
#define MOVE_GPRS 0xf7cfu          /* with nothing of their own: not rsp, rbp, r11 */
#define MOVE_CALLEE_SAVED (1ull << 3 | 0xfull << 12)
#define MOVE_VECTORS 16
#else
enum { MOVE_RESULT = 0, MOVE_FIRST = 0, MOVE_SECOND = 1, MOVE_SP = 31, MOVE_FP = 29, MOVE_BASE = 16 };
#define MOVE_GPRS 0x1ffcffffu      /* not x16, x17, x29, x30, sp */
#define MOVE_CALLEE_SAVED (0x3ffull << 19 | 0xffull << 40)
#define MOVE_VECTORS 32
#endif
#define MOVE_ALL (MOVE_GPRS | ((1ull << MOVE_VECTORS) - 1) << 32)

struct moves {
    uint8_t code[4096];
    size_t size;
    pp_reloc relocs[8];
    unsigned reloc_count;
    pp_status status;      /* the first failure */
};

/* Bytes that others made, with their relocations. */
void move_bytes(struct moves *moves, const void *bytes, size_t size, const pp_reloc *relocs,
                unsigned reloc_count);

/* A landing pad for calls and jumps. */
void move_landing(struct moves *moves);

/* The frame record and SP of this frame, and the way back to the caller. */
void move_begin(struct moves *moves, const pp_tier0_layout *frame);
void move_end(struct moves *moves, const pp_tier0_layout *frame);

/* Of a function with nothing but a frame record. */
void move_begin_function(struct moves *moves);
void move_end_function(struct moves *moves);

/* 8 bytes between a register and FP + offset. */
void move_slot(struct moves *moves, unsigned reg, int32_t offset, bool store);

/* A general register, SP included, or 16 bytes of a vector one; the field is at base + offset. */
void move_field(struct moves *moves, unsigned reg, unsigned base, uint32_t offset, bool store);

void move_register(struct moves *moves, unsigned to, unsigned from);
void move_constant(struct moves *moves, unsigned to, uint32_t value);
void move_call(struct moves *moves, pp_symbol symbol);

/* To `target` in these moves, if MOVE_RESULT is not 0. */
void move_again(struct moves *moves, size_t target);

/* All bits of a register. */
void move_spoil(struct moves *moves, unsigned reg);

/* Nops up to a multiple of `align`. */
void move_align(struct moves *moves, size_t align);

#endif
