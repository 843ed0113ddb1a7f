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
