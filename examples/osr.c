/* SPDX-License-Identifier: MIT */
/*
 * A loop that starts slow and finishes fast: tier-0 code sums n + (n - 1) + .. + 1
 * in its frame; at the thousandth pass its patchpoint asks for a better body and
 * jumps into the middle of it.  Plain C, and C++ as well.
 */
#include <patchpoint.h>

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a compiler would have made ---------------------------------- */

#if defined __x86_64__ /* n at FP - 8, sum at FP - 16, counter at FP - 20 */
enum { FRAME = 32, CFA = 16, COUNTER = -20, BRANCH = 14, BRANCH_TYPE = R_X86_64_PC32, ADDEND = -4 };
static const unsigned char head[] = {
    0x55,                                           /* push %rbp */
    0x48, 0x89, 0xe5,                               /* mov  %rsp, %rbp */
    0x48, 0x83, 0xec, 0x20,                         /* sub  $32, %rsp */
    0x48, 0x89, 0x7d, 0xf8,                         /* mov  %rdi, -8(%rbp) */
    0x48, 0xc7, 0x45, 0xf0, 0x00, 0x00, 0x00, 0x00, /* movq $0, -16(%rbp) */
    0xc7, 0x45, 0xec, 0xe8, 0x03, 0x00, 0x00,       /* movl $1000, -20(%rbp) */
};
static const unsigned char loop[] = {
    0x48, 0x8b, 0x45, 0xf8,                         /* mov  -8(%rbp), %rax */
    0x48, 0x01, 0x45, 0xf0,                         /* add  %rax, -16(%rbp) */
    0x48, 0xff, 0x4d, 0xf8,                         /* decq -8(%rbp) */
    0x0f, 0x85, 0x00, 0x00, 0x00, 0x00,             /* jnz  patchpoint */
    0x48, 0x8b, 0x45, 0xf0,                         /* mov  -16(%rbp), %rax */
    0xc9,                                           /* leave */
    0xc3,                                           /* ret */
};
static const unsigned char body[] = {
    0x48, 0x8b, 0x45, 0xf0,                         /* mov  -16(%rbp), %rax */
    0x48, 0x8b, 0x4d, 0xf8,                         /* mov  -8(%rbp), %rcx */
    0x48, 0x01, 0xc8,                               /* 1: add %rcx, %rax */
    0x48, 0xff, 0xc9,                               /* dec  %rcx */
    0x75, 0xf8,                                     /* jnz  1b */
};
#else /* n at FP + 16, sum at FP + 24, counter at FP + 32 */
enum { FRAME = 0, CFA = 48, COUNTER = 32, BRANCH = 24, BRANCH_TYPE = R_AARCH64_CONDBR19, ADDEND = 0 };
static const unsigned char head[] = {
    0xfd, 0x7b, 0xbd, 0xa9,                         /* stp  x29, x30, [sp, #-48]! */
    0xfd, 0x03, 0x00, 0x91,                         /* mov  x29, sp */
    0xa0, 0x0b, 0x00, 0xf9,                         /* str  x0, [x29, #16] */
    0xbf, 0x0f, 0x00, 0xf9,                         /* str  xzr, [x29, #24] */
    0x09, 0x7d, 0x80, 0x52,                         /* mov  w9, #1000 */
    0xa9, 0x23, 0x00, 0xb9,                         /* str  w9, [x29, #32] */
};
static const unsigned char loop[] = {
    0xa9, 0x0b, 0x40, 0xf9,                         /* ldr  x9, [x29, #16] */
    0xaa, 0x0f, 0x40, 0xf9,                         /* ldr  x10, [x29, #24] */
    0x4a, 0x01, 0x09, 0x8b,                         /* add  x10, x10, x9 */
    0xaa, 0x0f, 0x00, 0xf9,                         /* str  x10, [x29, #24] */
    0x29, 0x05, 0x00, 0xf1,                         /* subs x9, x9, #1 */
    0xa9, 0x0b, 0x00, 0xf9,                         /* str  x9, [x29, #16] */
    0x01, 0x00, 0x00, 0x54,                         /* b.ne patchpoint */
    0xa0, 0x0f, 0x40, 0xf9,                         /* ldr  x0, [x29, #24] */
    0xfd, 0x7b, 0xc3, 0xa8,                         /* ldp  x29, x30, [sp], #48 */
    0xc0, 0x03, 0x5f, 0xd6,                         /* ret */
};
static const unsigned char body[] = {
    0xa0, 0x0f, 0x40, 0xf9,                         /* ldr  x0, [x29, #24] */
    0xa9, 0x0b, 0x40, 0xf9,                         /* ldr  x9, [x29, #16] */
    0x00, 0x00, 0x09, 0x8b,                         /* 1: add x0, x0, x9 */
    0x29, 0x05, 0x00, 0xf1,                         /* subs x9, x9, #1 */
    0xc1, 0xff, 0xff, 0x54,                         /* b.ne 1b */
};
#endif

/* ---- what its author writes -------------------------------------------- */

static pp_pool *pool;
static const pp_tier0_layout frame = { .size = sizeof frame, .frame_bytes = FRAME, .cfa_offset = CFA };

static void check(pp_status status, const char *what)
{
    if (status == PP_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, pp_strerror(status));
    exit(1);
}

/* The loop is hot: link a body, and say where it begins and what it expects to find. */
static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    unsigned char code[128];
    pp_osr_frame osr = { .size = sizeof osr, .scheme = PP_CSR_RELOAD, .tier0 = &frame };
    pp_osr_layout prologue = { .size = sizeof prologue }, epilogue = { .size = sizeof epilogue };
    check(pp_emit_osr_prologue(&osr, code, sizeof code, &prologue), "prologue");
    size_t size = prologue.bytes;
    memcpy(code + size, body, sizeof body);
    size += sizeof body;
    check(pp_emit_osr_epilogue(&osr, code + size, sizeof code - size, &epilogue), "epilogue");
    size += epilogue.bytes;

    pp_trace *trace;
    pp_trace_desc desc = { .size = sizeof desc, .name = "sum, OSR body", .code = code,
                           .code_size = size, .frame = &prologue.rule };
    check(pp_trace_link(pool, &desc, &trace), "link the body");
    pp_entry_desc way = { .size = sizeof way, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                          .code = pp_trace_entry(trace), .tier0 = &frame,
                          .stack_bytes = prologue.stack_bytes };
    printf("pass %d of %s: jumping into a better body\n", 1000, (const char *) host);
    (void) site, (void) regs;
    return pp_entry_create(pool, &way, entry);
}

int main(void)
{
    check(pp_pool_create(NULL, &pool), "pool");

    char name[] = "sum";
    pp_site *site;
    pp_site_desc patchpoint = { .size = sizeof patchpoint, .kind = PP_SITE_COUNTED,
                                .counter = PP_COUNTER_FRAME, .counter_offset = COUNTER,
                                .threshold = 1000, .tier0 = &frame, .produce = produce, .host = name };
    check(pp_site_create(pool, &patchpoint, &site), "site");

    /* head | patchpoint | loop: the library says what the patchpoint is and how it is linked. */
    unsigned char code[256];
    pp_site_layout layout = { .size = sizeof layout };
    check(pp_emit_site(site, code + sizeof head, sizeof code - sizeof head, &layout), "patchpoint");
    memcpy(code, head, sizeof head);
    memcpy(code + sizeof head + layout.bytes, loop, sizeof loop);
    layout.relocs[0].offset += sizeof head;
    pp_reloc back = { .offset = (uint32_t) (sizeof head + layout.bytes + BRANCH), .type = BRANCH_TYPE,
                      .section = PP_IN_CODE, .symbol = PP_SYMBOL_CODE, .reserved = 0,
                      .addend = (int64_t) sizeof head + ADDEND };
    pp_reloc relocs[] = { layout.relocs[0], back };

    pp_trace *trace;
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD, .cfa_offset = CFA };
    pp_trace_desc desc = { .size = sizeof desc, .name = "sum, tier-0", .code = code,
                           .code_size = sizeof head + layout.bytes + sizeof loop,
                           .relocs = relocs, .reloc_count = 2, .frame = &rule };
    check(pp_trace_link(pool, &desc, &trace), "link tier-0");

    pp_thread thread;
    uint64_t n = 1000000;
    check(pp_thread_init(&thread, NULL, NULL), "thread");
    uint64_t sum = pp_enter(&thread, pp_trace_entry(trace), n, 0, 0, 0);
    printf("%s of 1 .. %llu is %llu\n", name, (unsigned long long) n, (unsigned long long) sum);
    int good = sum == n * (n + 1) / 2 && pp_site_state(site) == PP_SITE_READY;
    pp_pool_destroy(pool);
    return good ? 0 : 1;
}
