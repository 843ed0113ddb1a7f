/* SPDX-License-Identifier: MIT */
/*
 * A loop with a site at its top: sums n + (n - 1) + .. + 1 in its frame, on the
 * machine that the tests run on.
 *
 *      head        frame; n, thread and counter stored, sum = 0
 *      site        behind a forced one, where nothing goes, is a trap
 *      loop        sum += n; if (--n) back to the site; return sum
 *      out         return 1000000 + sum: where passes without an entry may go
 */
#ifndef TESTS_LOOP_H
#define TESTS_LOOP_H

#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <stdbool.h>

#if defined __x86_64__
enum { LOOP_FRAME = 48, LOOP_CFA = 16, AT_LOOP_N = -8, AT_LOOP_SUM = -16, AT_LOOP_COUNTER = -20,
       AT_LOOP_THREAD = -32 };
#else
enum { LOOP_FRAME = 0, LOOP_CFA = 64, AT_LOOP_N = 16, AT_LOOP_SUM = 24, AT_LOOP_COUNTER = 32,
       AT_LOOP_THREAD = 40 };
#endif

static const pp_tier0_layout loop_frame = {
    .size = sizeof loop_frame, .frame_bytes = LOOP_FRAME, .cfa_offset = LOOP_CFA
};

struct loop {
    pp_trace *trace;
    const uint8_t *site, *loop, *out, *cold; /* addresses; cold: of an armed site only */
    pp_site_layout layout;
};

static inline void loop_head(struct snippet *s, int32_t counter)
{
#if defined __x86_64__
    SNIPPET_CODE(s, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x30); /* push, mov, sub $48, %rsp */
    SNIPPET_CODE(s, 0x48, 0x89, 0x7d, 0xf8);                         /* mov %rdi, -8(%rbp) */
    SNIPPET_CODE(s, 0x48, 0xc7, 0x45, 0xf0, 0, 0, 0, 0);             /* movq $0, -16(%rbp) */
    SNIPPET_CODE(s, 0xc7, 0x45, 0xec, (uint8_t) counter, (uint8_t) (counter >> 8), 0, 0);
    SNIPPET_CODE(s, 0x48, 0x89, 0x75, 0xe0);                         /* mov %rsi, -32(%rbp) */
#else
    SNIPPET_WORDS(s, 0xa9bc7bfd, 0x910003fd); /* stp x29, x30, [sp, #-64]!; mov x29, sp */
    SNIPPET_WORDS(s, 0xf9000ba0, 0xf9000fbf); /* str x0, [x29, #16]; str xzr, [x29, #24] */
    SNIPPET_WORDS(s, 0x52800009 | (uint32_t) counter << 5, 0xb90023a9); /* mov w9; str, #32 */
    SNIPPET_WORDS(s, 0xf90017a1);             /* str x1, [x29, #40] */
#endif
}

static inline void loop_rest(struct snippet *s, size_t site, size_t *loop, size_t *out)
{
#if defined __x86_64__
    SNIPPET_CODE(s, 0x0f, 0x0b);                               /* ud2 */
    *loop = s->size;
    SNIPPET_CODE(s, 0x48, 0x8b, 0x45, 0xf8, 0x48, 0x01, 0x45, 0xf0); /* sum += n */
    SNIPPET_CODE(s, 0x48, 0xff, 0x4d, 0xf8, 0x0f, 0x85, 0, 0, 0, 0); /* if (--n) go to the site */
    snippet_reloc(s, 4, R_X86_64_PC32, PP_SYMBOL_CODE, (int64_t) site - 4);
    SNIPPET_CODE(s, 0x48, 0x8b, 0x45, 0xf0, 0xc9, 0xc3);       /* return sum */
    *out = s->size;
    SNIPPET_CODE(s, 0x48, 0x8b, 0x45, 0xf0, 0x48, 0x05, 0x40, 0x42, 0x0f, 0, 0xc9, 0xc3);
#else
    SNIPPET_WORDS(s, 0x00000000);                              /* udf */
    *loop = s->size;
    SNIPPET_WORDS(s, 0xf9400ba9, 0xf9400faa, 0x8b09014a, 0xf9000faa); /* sum += n */
    SNIPPET_WORDS(s, 0xf1000529, 0xf9000ba9, 0x54000001);      /* if (--n) go to the site */
    snippet_reloc(s, 4, R_AARCH64_CONDBR19, PP_SYMBOL_CODE, (int64_t) site);
    SNIPPET_WORDS(s, 0xf9400fa0, 0xa8c47bfd, 0xd65f03c0);      /* return sum */
    *out = s->size;
    SNIPPET_WORDS(s, 0xf9400fa0, 0x9143d000, 0x91090000, 0xa8c47bfd, 0xd65f03c0);
#endif
}

/* A jump of no conditions to `loop`, over the trap: how sites that go on get there. */
static inline void loop_over(struct snippet *s)
{
#if defined __x86_64__
    SNIPPET_CODE(s, 0xeb, 2);
#else
    SNIPPET_WORDS(s, 0x14000002);
#endif
}

/* What pp_emit_site wrote, with its relocations. */
static inline void loop_site(struct snippet *s, const uint8_t *bytes, const pp_site_layout *layout)
{
    snippet_bytes(s, bytes, layout->bytes);
    for (unsigned i = 0; i < layout->reloc_count; i++)
        snippet_reloc(s, (int) (layout->bytes - layout->relocs[i].offset), layout->relocs[i].type,
                      layout->relocs[i].symbol, layout->relocs[i].addend);
}

static inline void loop_make(struct loop *loop, pp_pool *pool, pp_site *site, int32_t counter,
                             bool goes_on, bool armed)
{
    struct snippet s = { 0 };
    uint8_t bytes[160];
    size_t at, body, out, cold;
    pp_site_layout cold_layout = { .size = sizeof cold_layout };
    loop->layout = (pp_site_layout) { .size = sizeof loop->layout };
    ck_assert_int_eq(pp_emit_site(site, bytes, sizeof bytes, &loop->layout), PP_OK);
    loop_head(&s, counter);
    while (s.size % loop->layout.align != 0)
        snippet_bytes(&s, "\x90", 1); /* nop; instructions of AArch64 are aligned as it is */
    at = s.size;
    loop_site(&s, bytes, &loop->layout);
    if (goes_on)
        loop_over(&s);
    loop_rest(&s, at, &body, &out);
    cold = s.size;
    if (armed) {
        ck_assert_int_eq(pp_emit_site_cold(site, (int64_t) at - (int64_t) cold, bytes, sizeof bytes,
                                           &cold_layout), PP_OK);
        loop_site(&s, bytes, &cold_layout);
    }
    pp_trace_desc desc = snippet_desc(&s);
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD, .cfa_offset = LOOP_CFA };
    desc.frame = &rule;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &loop->trace), PP_OK);
    const uint8_t *code = pp_trace_entry(loop->trace);
    loop->site = code + at;
    loop->loop = code + body;
    loop->out = code + out;
    loop->cold = code + cold;
    snippet_free(&s);
}

static inline void loop_link(struct loop *loop, pp_pool *pool, pp_site *site, int32_t counter,
                             bool goes_on)
{
    loop_make(loop, pool, site, counter, goes_on, false);
}

static inline void loop_link_armed(struct loop *loop, pp_pool *pool, pp_site *site)
{
    loop_make(loop, pool, site, 0, true, true);
}

/* An OSR body that adds 2000000 to the sum and finishes the loop. */
static inline pp_status loop_body(pp_pool *pool, pp_trace **trace, pp_entry **entry)
{
    uint8_t code[128];
    pp_osr_frame osr = { .size = sizeof osr, .scheme = PP_CSR_RELOAD, .tier0 = &loop_frame };
    pp_osr_layout prologue = { .size = sizeof prologue }, epilogue = { .size = sizeof epilogue };
    struct snippet s = { 0 };
    pp_status status = pp_emit_osr_prologue(&osr, code, sizeof code, &prologue);
    snippet_bytes(&s, code, prologue.bytes);
#if defined __x86_64__
    SNIPPET_CODE(&s, 0x48, 0x8b, 0x45, 0xf0, 0x48, 0x8b, 0x4d, 0xf8, 0x48, 0x05, 0x80, 0x84, 0x1e, 0);
    SNIPPET_CODE(&s, 0x48, 0x01, 0xc8, 0x48, 0xff, 0xc9, 0x75, 0xf8);
#else
    SNIPPET_WORDS(&s, 0xf9400fa0, 0xf9400ba9, 0x9147a000, 0x91120000);
    SNIPPET_WORDS(&s, 0x8b090000, 0xf1000529, 0x54ffffc1);
#endif
    if (status == PP_OK)
        status = pp_emit_osr_epilogue(&osr, code, sizeof code, &epilogue);
    snippet_bytes(&s, code, epilogue.bytes);
    pp_trace_desc desc = snippet_desc(&s);
    desc.frame = &prologue.rule;
    if (status == PP_OK)
        status = pp_trace_link(pool, &desc, trace);
    snippet_free(&s);
    if (status != PP_OK)
        return status;
    pp_entry_desc way = { .size = sizeof way, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                          .code = pp_trace_entry(*trace), .tier0 = &loop_frame,
                          .stack_bytes = prologue.stack_bytes };
    return pp_entry_create(pool, &way, entry);
}

/* What is in a slot of the frame that a site shows. */
static inline uint64_t loop_slot(const pp_regs *regs, int32_t offset)
{
    return *(const uint64_t *) (regs->gpr[PP_REGS_FP / 8] + (int64_t) offset);
}

#endif
