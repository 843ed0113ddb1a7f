/* SPDX-License-Identifier: MIT */
/*
 * What patchpoints cost: not taken, armed and not, ready, and on the slow path.
 *
 * All contestants are one loop, `decq n(%rbp); jnz`, with different things at its
 * top, so that differences are those of what is there.  They take turns.
 */
#include <config.h>

#include "bench/harness.h"

#include <patchpoint.h>

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined __x86_64__

enum { ROUNDS = 128, PASSES = 20000, FRAME = 48, CONTESTANTS = 10 };

static const uint8_t head[] = {
    0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, FRAME, /* push, mov, sub */
    0x48, 0x89, 0x7d, 0xf8,                          /* mov %rdi, -8(%rbp): n */
    0xc7, 0x45, 0xec, 0xff, 0xff, 0xff, 0x7f,        /* movl $INT32_MAX, -20(%rbp): counter */
    0x66, 0x0f, 0x1f, 0x44, 0, 0,                    /* aligns what follows */
    0x66, 0x0f, 0x1f, 0x44, 0, 0, 0x90,
};
static const uint8_t tail[] = {
    0x48, 0xff, 0x4d, 0xf8, 0x0f, 0x85, 0, 0, 0, 0,  /* decq -8(%rbp); jnz top */
    0xc9, 0xc3,
};
/* call f; mov (%rsp), %r11; add $3, %r11; ret: a stub that keeps nothing and resumes */
static const uint8_t stub[] = {
    0x48, 0x83, 0xec, 0x08, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 0x08, 0x4c, 0x8b, 0x1c, 0x24,
    0x49, 0x83, 0xc3, 0x03, 0xc3,
};
/* mov slot, %r11 (an address that is loaded); call a ret; jmp *%r11 */
static const uint8_t peer[] = {
    0x49, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x4d, 0x8b, 0x1b, 0xe8, 0, 0, 0, 0, 0x41, 0xff, 0xe3,
};
static const uint8_t only_ret[] = { 0xc3 };

static const pp_tier0_layout frame = { .size = sizeof frame, .frame_bytes = FRAME };
static pp_pool *pool;
static pp_thread thread;
static const void *where; /* the peer's target */

static _Noreturn void give_up(const char *why)
{
    fprintf(stderr, "patchpoint: %s\n", why);
    exit(1);
}

__attribute__((noinline)) static void nothing(void)
{
    __asm__ volatile("");
}

static pp_status refuse(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site, (void) regs, (void) entry;
    return PP_E_UNSUPPORTED;
}

static const void *go_on(void *host, pp_site *site, const pp_regs *regs)
{
    (void) host, (void) site, (void) regs;
    return NULL;
}

static const uint8_t *link_code(const uint8_t *code, size_t size, const pp_reloc *relocs,
                                size_t count)
{
    pp_trace *trace;
    pp_trace_desc desc = { .size = sizeof desc, .code = code, .code_size = size, .relocs = relocs,
                           .reloc_count = count };
    if (pp_trace_link(pool, &desc, &trace) != PP_OK)
        give_up("no trace");
    return pp_trace_entry(trace);
}

/* The loop around `bytes`, with one relocation of theirs or none. */
static const uint8_t *link_loop(const uint8_t *bytes, size_t size, const pp_reloc *own)
{
    uint8_t code[256];
    pp_reloc relocs[2];
    memcpy(code, head, sizeof head);
    memcpy(code + sizeof head, bytes, size);
    memcpy(code + sizeof head + size, tail, sizeof tail);
    relocs[0] = (pp_reloc) { .offset = (uint32_t) (sizeof head + size + 6), .type = R_X86_64_PC32,
                             .symbol = PP_SYMBOL_CODE, .addend = (int64_t) sizeof head - 4 };
    if (own != NULL) {
        relocs[1] = *own;
        relocs[1].offset += sizeof head;
    }
    return link_code(code, sizeof head + size + sizeof tail, relocs, own != NULL ? 2 : 1);
}

static pp_site *make_site(pp_site_kind kind, pp_save save)
{
    pp_site *site;
    bool slow = kind == PP_SITE_COUNTED && save != PP_SAVE_ABI; /* at each pass */
    pp_site_desc desc = { .size = sizeof desc, .kind = kind, .tier0 = &frame, .save = save };
    if (kind == PP_SITE_POLLED) { /* its flag is the counter, and never 0 */
        desc.poll = go_on;
    } else {
        desc.produce = refuse;
        desc.hits = UINT32_MAX;
        desc.threshold = slow ? 1 : 1 << 30;
    }
    if (kind == PP_SITE_FORCED)
        desc.otherwise = only_ret;
    if (slow)
        desc.counter = PP_COUNTER_SITE;
    else if (kind == PP_SITE_COUNTED || kind == PP_SITE_POLLED)
        desc.counter_offset = -20;
    if (pp_site_create(pool, &desc, &site) != PP_OK)
        give_up("no site");
    return site;
}

static const uint8_t *loop_with(pp_site *site, pp_symbol other_stub)
{
    uint8_t bytes[128];
    pp_site_layout layout = { .size = sizeof layout };
    if (pp_emit_site(site, bytes, sizeof bytes, &layout) != PP_OK)
        give_up("no bytes");
    if (other_stub != PP_SYMBOL_NONE)
        layout.relocs[0].symbol = other_stub;
    return link_loop(bytes, layout.bytes, layout.reloc_count != 0 ? &layout.relocs[0] : NULL);
}

/* A ready site whose target is behind it, and what it is compared with. */
static void link_ready(const uint8_t **ready, const uint8_t **jump)
{
    pp_site *site = make_site(PP_SITE_FORCED, PP_SAVE_GPR);
    pp_site_layout layout = { .size = sizeof layout };
    pp_entry *entry;
    *ready = loop_with(site, PP_SYMBOL_NONE);
    if (pp_emit_site(site, NULL, 0, &layout) != PP_OK)
        give_up("no layout");
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .tier0 = &frame,
                           .code = *ready + sizeof head + layout.bytes };
    if (pp_entry_create(pool, &desc, &entry) != PP_OK || pp_site_publish(site, entry) != PP_OK)
        give_up("no entry");
    uint8_t bytes[sizeof peer];
    const void *slot = &where;
    memcpy(bytes, peer, sizeof peer);
    memcpy(bytes + 2, &slot, 8);
    pp_reloc call = { .offset = 14, .type = R_X86_64_PLT32, .addend = -4,
                      .symbol = pp_symbol_define(pool, "ret", link_code(only_ret, 1, NULL, 0)) };
    *jump = link_loop(bytes, sizeof bytes, &call);
    where = *jump + sizeof head + sizeof bytes;
}

static double pass(const uint8_t *loop)
{
    double begin = bench_clock();
    pp_enter(&thread, loop, PASSES, 0, 0, 0);
    return (bench_clock() - begin) / PASSES;
}

int main(int argc, char **argv)
{
    struct bench bench;
    static double times[CONTESTANTS][ROUNDS];
    enum { EMPTY, COUNTED, UNARMED, READY, JUMP, CALL, GPR, V128, POLLED, POLLED_V128 };
    const uint8_t *loops[CONTESTANTS];
    double ns[CONTESTANTS];
    bench_begin(&bench, argc, argv);
    printf("\nPatchpoints, in ns per pass of a loop.\n");
    if (pp_pool_create(NULL, &pool) != PP_OK || pp_thread_init(&thread, NULL, NULL) != PP_OK)
        give_up("no pool");
    pp_reloc call = { .offset = 5, .type = R_X86_64_PLT32, .addend = -4,
                      .symbol = pp_symbol_define(pool, "nothing", (const void *) nothing) };
    pp_symbol plain = pp_symbol_define(pool, "stub", link_code(stub, sizeof stub, &call, 1));
    loops[EMPTY] = link_loop(NULL, 0, NULL);
    loops[COUNTED] = loop_with(make_site(PP_SITE_COUNTED, PP_SAVE_ABI), PP_SYMBOL_NONE);
    loops[UNARMED] = loop_with(make_site(PP_SITE_ARMED, PP_SAVE_ABI), PP_SYMBOL_NONE);
    link_ready(&loops[READY], &loops[JUMP]);
    loops[GPR] = loop_with(make_site(PP_SITE_COUNTED, PP_SAVE_GPR), PP_SYMBOL_NONE);
    loops[V128] = loop_with(make_site(PP_SITE_COUNTED, PP_SAVE_V128), PP_SYMBOL_NONE);
    loops[POLLED] = loop_with(make_site(PP_SITE_POLLED, PP_SAVE_GPR), PP_SYMBOL_NONE);
    loops[POLLED_V128] = loop_with(make_site(PP_SITE_POLLED, PP_SAVE_V128), PP_SYMBOL_NONE);
    /* Its counter is never set again: it stays below zero, and every pass calls. */
    loops[CALL] = loop_with(make_site(PP_SITE_COUNTED, PP_SAVE_GPR), plain);

    unsigned rounds = bench.rounds < ROUNDS ? bench.rounds : ROUNDS;
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < CONTESTANTS; i++)
            times[i][round] = pass(loops[i]);
    static const char *const names[] = { "empty", "counted, not taken", "armed kind, unarmed", "ready",
                                         "call + ret + jump", "empty C call", "slow path, GPR",
                                         "slow path, V128", "GPR, calls the host",
                                         "V128, calls the host" };
    for (unsigned i = 0; i < CONTESTANTS; i++) {
        ns[i] = bench_median(times[i], rounds);
        printf("  %-32s %7.2f\n", names[i], ns[i]);
    }
    bench_row(&bench, "patchpoint not taken, ns more", "empty counted loop", false, 1,
              ns[COUNTED] - ns[EMPTY]);
    bench_row(&bench, "patchpoint unarmed, ns more", "empty counted loop", false, 0.25,
              ns[UNARMED] - ns[EMPTY]);
    bench_row(&bench, "ready patchpoint, ratio", "call + ret + jump", false, 1.5,
              ns[READY] / ns[JUMP]);
    bench_row(&bench, "slow path GPR, ns more", "empty C call", false, 4, ns[GPR] - ns[CALL]);
    bench_row(&bench, "slow path V128, ns more", "empty C call", false, 12, ns[V128] - ns[CALL]);
    pp_pool_destroy(pool);
    return 0;
}

#else

int main(int argc, char **argv)
{
    struct bench bench;
    bench_begin(&bench, argc, argv);
    printf("\nPatchpoints are measured on x86-64 only.\n");
    return 0;
}

#endif
