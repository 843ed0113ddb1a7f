/* SPDX-License-Identifier: MIT */
/*
 * Small functions for the machine that the tests run on, put together from
 * instructions that the assembler made.  Each piece adds the relocation that an
 * assembler would add.
 */
#ifndef TESTS_SNIPPET_H
#define TESTS_SNIPPET_H

#include <patchpoint/trace.h>

#include <elf.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct snippet {
    uint8_t *code;
    size_t size, capacity;
    pp_reloc *relocs;
    size_t reloc_count, reloc_capacity;
};

static inline void snippet_free(struct snippet *snippet)
{
    free(snippet->code);
    free(snippet->relocs);
    *snippet = (struct snippet) { 0 };
}

static inline void snippet_bytes(struct snippet *snippet, const void *bytes, size_t size)
{
    if (snippet->size + size > snippet->capacity) {
        snippet->capacity = 2 * snippet->capacity + size + 64;
        snippet->code = realloc(snippet->code, snippet->capacity);
    }
    if (size > 0) /* there may be no memory yet */
        memcpy(snippet->code + snippet->size, bytes, size);
    snippet->size += size;
}

static inline void snippet_reloc(struct snippet *snippet, int back, uint16_t type,
                                 pp_symbol symbol, int64_t addend)
{
    if (snippet->reloc_count == snippet->reloc_capacity) {
        snippet->reloc_capacity = 2 * snippet->reloc_capacity + 8;
        snippet->relocs =
            realloc(snippet->relocs, snippet->reloc_capacity * sizeof *snippet->relocs);
    }
    snippet->relocs[snippet->reloc_count++] = (pp_reloc) {
        .offset = (uint32_t) (snippet->size - (size_t) back), .type = type,
        .symbol = symbol, .addend = addend
    };
}

#define SNIPPET_CODE(snippet, ...) \
    snippet_bytes(snippet, (const uint8_t[]) { __VA_ARGS__ }, \
                  sizeof((const uint8_t[]) { __VA_ARGS__ }))
#define SNIPPET_WORDS(snippet, ...) \
    snippet_bytes(snippet, (const uint32_t[]) { __VA_ARGS__ }, \
                  sizeof((const uint32_t[]) { __VA_ARGS__ }))

#if defined __x86_64__

#define SNIPPET_CALL_TYPE R_X86_64_PLT32
#define SNIPPET_ABS64 R_X86_64_64

/* push %rbp; mov %rsp, %rbp */
static inline void snippet_begin(struct snippet *s) { SNIPPET_CODE(s, 0x55, 0x48, 0x89, 0xe5); }

/* pop %rbp; ret */
static inline void snippet_end(struct snippet *s) { SNIPPET_CODE(s, 0x5d, 0xc3); }

/* call symbol */
static inline void snippet_call(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_CODE(s, 0xe8, 0, 0, 0, 0);
    snippet_reloc(s, 4, R_X86_64_PLT32, symbol, -4);
}

/* pop %rbp; jmp symbol */
static inline void snippet_tail(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_CODE(s, 0x5d, 0xe9, 0, 0, 0, 0);
    snippet_reloc(s, 4, R_X86_64_PLT32, symbol, -4);
}

/* call *symbol@GOTPCREL(%rip) */
static inline void snippet_got_call(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_CODE(s, 0xff, 0x15, 0, 0, 0, 0);
    snippet_reloc(s, 4, R_X86_64_GOTPCRELX, symbol, -4);
}

/* pop %rbp; jmp *symbol@GOTPCREL(%rip) */
static inline void snippet_got_tail(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_CODE(s, 0x5d, 0xff, 0x25, 0, 0, 0, 0);
    snippet_reloc(s, 4, R_X86_64_GOTPCRELX, symbol, -4);
}

/* mov symbol@GOTPCREL(%rip), %rax: the result is the symbol's address */
static inline void snippet_got_load(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_CODE(s, 0x48, 0x8b, 0x05, 0, 0, 0, 0);
    snippet_reloc(s, 4, R_X86_64_REX_GOTPCRELX, symbol, -4);
}

/* mov data(%rip), %rax: the result is the word at the symbol */
static inline void snippet_load(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_CODE(s, 0x48, 0x8b, 0x05, 0, 0, 0, 0);
    snippet_reloc(s, 4, R_X86_64_PC32, symbol, -4);
}

#elif defined __aarch64__

#define SNIPPET_CALL_TYPE R_AARCH64_CALL26
#define SNIPPET_ABS64 R_AARCH64_ABS64

/* stp x29, x30, [sp, #-16]!; mov x29, sp */
static inline void snippet_begin(struct snippet *s) { SNIPPET_WORDS(s, 0xa9bf7bfd, 0x910003fd); }

/* ldp x29, x30, [sp], #16; ret */
static inline void snippet_end(struct snippet *s) { SNIPPET_WORDS(s, 0xa8c17bfd, 0xd65f03c0); }

/* bl symbol */
static inline void snippet_call(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_WORDS(s, 0x94000000);
    snippet_reloc(s, 4, R_AARCH64_CALL26, symbol, 0);
}

/* ldp x29, x30, [sp], #16; b symbol */
static inline void snippet_tail(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_WORDS(s, 0xa8c17bfd, 0x14000000);
    snippet_reloc(s, 4, R_AARCH64_JUMP26, symbol, 0);
}

/* adrp x16, :got:symbol; ldr x16, [x16, :got_lo12:symbol] */
static inline void snippet_got_x16(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_WORDS(s, 0x90000010, 0xf9400210);
    snippet_reloc(s, 8, R_AARCH64_ADR_GOT_PAGE, symbol, 0);
    snippet_reloc(s, 4, R_AARCH64_LD64_GOT_LO12_NC, symbol, 0);
}

/* ...; blr x16 */
static inline void snippet_got_call(struct snippet *s, pp_symbol symbol)
{
    snippet_got_x16(s, symbol);
    SNIPPET_WORDS(s, 0xd63f0200);
}

/* ...; ldp x29, x30, [sp], #16; br x16 */
static inline void snippet_got_tail(struct snippet *s, pp_symbol symbol)
{
    snippet_got_x16(s, symbol);
    SNIPPET_WORDS(s, 0xa8c17bfd, 0xd61f0200);
}

/* adrp x0, :got:symbol; ldr x0, [x0, :got_lo12:symbol]: the result is the symbol's address */
static inline void snippet_got_load(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_WORDS(s, 0x90000000, 0xf9400000);
    snippet_reloc(s, 8, R_AARCH64_ADR_GOT_PAGE, symbol, 0);
    snippet_reloc(s, 4, R_AARCH64_LD64_GOT_LO12_NC, symbol, 0);
}

/* adrp x0, symbol; ldr x0, [x0, :lo12:symbol]: the result is the word at the symbol */
static inline void snippet_load(struct snippet *s, pp_symbol symbol)
{
    SNIPPET_WORDS(s, 0x90000000, 0xf9400000);
    snippet_reloc(s, 8, R_AARCH64_ADR_PREL_PG_HI21, symbol, 0);
    snippet_reloc(s, 4, R_AARCH64_LDST64_ABS_LO12_NC, symbol, 0);
}

#endif

/* What a description needs of a snippet. */
static inline pp_trace_desc snippet_desc(const struct snippet *snippet)
{
    return (pp_trace_desc) {
        .size = sizeof(pp_trace_desc), .code = snippet->code, .code_size = snippet->size,
        .relocs = snippet->relocs, .reloc_count = snippet->reloc_count
    };
}

#endif
