/* SPDX-License-Identifier: MIT */
/*
 * What instructions may be patched, and bytes to patch in.  Pure, and compiled for
 * both architectures on every host.
 */
#ifndef ISA_PATCH_H
#define ISA_PATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The length of the instruction at `bytes`, of which `available` may be read; 0: it is
 * none of those that are known (patch.h), or it is longer than that.
 */
size_t x86_64_instruction_length(const uint8_t *bytes, size_t available);

/* The length of the NOP at `bytes`; 0: none, or it is longer than `available`. */
size_t x86_64_nop_length(const uint8_t *bytes, size_t available);

/*
 * Whether the first `head` bytes are a NOP, or the beginning of a longer one whose other
 * bytes are NOPs by themselves: a thread behind the head may go on there.
 */
bool x86_64_is_nop_head(const uint8_t *bytes, size_t head, size_t available);

/*
 * `code` and `other` are one piece of code without and with a patch of its first `bytes`
 * bytes, or the other way round; `available` bytes may be read of both.  Whether the patch
 * fits the NOP that `code` begins with: no thread comes to be inside of an instruction, as
 * far as the lengths are known.  *nop is its length, or 0: then it is none, and fits.
 */
bool x86_64_fits_nop(const uint8_t *code, const uint8_t *other, size_t bytes, size_t available,
                     size_t *nop);

/* One NOP of 1 to 15 bytes. */
void x86_64_nop(uint8_t *bytes, size_t length);

/* jmp rel32: 5 bytes.  False: too far. */
bool x86_64_jump(uint8_t *bytes, uint64_t from, uint64_t to);

/* Whether it may be replaced by, and replace, another such one while it is executed. */
bool aarch64_is_patchable(uint32_t instruction);

#define AARCH64_NOP UINT32_C(0xd503201f)

/* b: 4 bytes.  False: too far. */
bool aarch64_jump(uint8_t *bytes, uint64_t from, uint64_t to);

#endif
