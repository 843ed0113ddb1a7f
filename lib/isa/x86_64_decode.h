/* SPDX-License-Identifier: MIT */
/*
 * Where an x86-64 instruction ends, and what its fields are (Intel SDM, volume 2,
 * chapter 2 and appendix A).  It knows the instructions that compilers and
 * assemblers for Linux make, with legacy, VEX and EVEX encodings; what it does
 * not know it refuses.  What an instruction does is the caller's business.
 */
#ifndef ISA_X86_64_DECODE_H
#define ISA_X86_64_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { X86_NO_REGISTER = 0xff };

/* `vector` encodings count their opcodes in maps of the same numbers. */
enum x86_map { X86_ONE_BYTE, X86_0F, X86_0F38, X86_0F3A, X86_MAP5 = 5, X86_MAP6 };

struct x86_insn {
    uint8_t length;      /* bytes, 1 to 15 */
    uint8_t map;         /* enum x86_map */
    uint8_t opcode;
    uint8_t repeat;      /* 0, 0xf2 or 0xf3: the last such prefix, or what VEX and EVEX have of it */
    bool vector;         /* VEX or EVEX */
    bool wide;           /* REX.W */
    bool operand16;      /* prefix 0x66 */
    bool address32;      /* prefix 0x67 */
    bool locked;         /* prefix 0xf0 */
    bool segment;        /* prefix for fs or gs */
    bool has_modrm;
    bool memory;         /* ModRM names memory */
    bool indexed;        /* with an index register */
    bool rip_relative;
    uint8_t reg;         /* ModRM.reg, extended; X86_NO_REGISTER without ModRM */
    uint8_t rm;          /* a register, extended; X86_NO_REGISTER if memory */
    uint8_t base;        /* of memory; X86_NO_REGISTER: none */
    uint8_t low;         /* the low bits of the opcode as a register, extended */
    uint8_t third;       /* VEX.vvvv; X86_NO_REGISTER without VEX */
    int32_t displacement;
    int64_t immediate;   /* also of jumps: from the end of the instruction */
};

/* Reads at most `available` bytes, and 15.  False: not known, or cut off. */
bool x86_decode(const uint8_t *bytes, size_t available, struct x86_insn *insn);

#endif
