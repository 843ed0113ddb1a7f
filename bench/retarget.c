/* SPDX-License-Identifier: MIT */
/*
 * Moving the target of a trampoline that many traces share: one store into a
 * literal, against making the page of the trampoline writable and executable
 * again around the store.  With HAVE_FFI also against preparing a closure anew.
 */
#include <config.h>

#include "bench/harness.h"

#include <patchpoint.h>

#include <elf.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if HAVE_FFI
#include <ffi.h>
#endif

enum { ROUNDS = 64, STORES = 20000, FLIPS = 500 };

static int one(void) { return 1; }
static int two(void) { return 2; }
static int (*const targets[2])(void) = { one, two };

struct stage {
    pp_pool *pool;
    pp_symbol symbol;
    int (*trace)(void);
    uint8_t *page;        /* of the peer: a jump and its literal */
    atomic_bool stop;
    atomic_ulong wrong;   /* calls that ended elsewhere */
    bool running;
};

#define LITERAL 64 /* where the peer's literal is: in another line than the jump */

#if defined __x86_64__
static const uint8_t tail_call[] = { 0xe9, 0, 0, 0, 0 };
static const uint8_t peer_jump[] = { 0xff, 0x25, LITERAL - 6, 0, 0, 0 };
enum { RELOC_AT = 1, RELOC_TYPE = R_X86_64_PLT32, RELOC_ADDEND = -4 };
#else
static const uint32_t tail_call[] = { 0x14000000 };
static const uint32_t peer_jump[] = { 0x58000010 | LITERAL / 4 << 5, 0xd61f0200 };
enum { RELOC_AT = 0, RELOC_TYPE = R_AARCH64_JUMP26, RELOC_ADDEND = 0 };
#endif

static _Noreturn void give_up(const char *why)
{
    fprintf(stderr, "retarget: %s\n", why);
    exit(1);
}

static void open_stage(struct stage *stage)
{
    pp_pool_options options = { .size = sizeof options };
    if (pp_pool_create(&options, &stage->pool) != PP_OK)
        give_up("no pool");
    stage->symbol = pp_symbol_declare(stage->pool, "target", (const void *) one,
                                      PP_SYMBOL_RETARGETABLE);
    pp_reloc reloc = { .offset = RELOC_AT, .type = RELOC_TYPE, .symbol = stage->symbol,
                       .addend = RELOC_ADDEND };
    pp_trace_desc desc = { .size = sizeof desc, .code = tail_call, .code_size = sizeof tail_call,
                           .relocs = &reloc, .reloc_count = 1 };
    pp_trace *trace;
    if (pp_trace_link(stage->pool, &desc, &trace) != PP_OK)
        give_up("no trace");
    stage->trace = (int (*)(void)) pp_trace_entry(trace);
    size_t bytes = (size_t) sysconf(_SC_PAGESIZE);
    stage->page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stage->page == MAP_FAILED)
        give_up("no page");
    memcpy(stage->page, peer_jump, sizeof peer_jump);
    memcpy(stage->page + LITERAL, &targets[0], sizeof targets[0]);
    if (mprotect(stage->page, bytes, PROT_READ | PROT_EXEC) != 0)
        give_up("no executable page");
    __builtin___clear_cache((char *) stage->page, (char *) stage->page + sizeof peer_jump);
}

static double by_symbol(struct stage *stage)
{
    double begin = bench_clock();
    for (unsigned i = 0; i < STORES; i++) {
        if (pp_symbol_retarget(stage->pool, stage->symbol, (const void *) targets[i & 1], NULL) !=
            PP_OK)
            give_up("a retarget was refused");
    }
    return (bench_clock() - begin) / STORES;
}

/* Nobody calls through this page meanwhile: while it is writable, a call would fault. */
static double by_flip(struct stage *stage)
{
    size_t bytes = (size_t) sysconf(_SC_PAGESIZE);
    double begin = bench_clock();
    for (unsigned i = 0; i < FLIPS; i++) {
        if (mprotect(stage->page, bytes, PROT_READ | PROT_WRITE) != 0)
            give_up("mprotect");
        memcpy(stage->page + LITERAL, &targets[i & 1], sizeof targets[0]);
        if (mprotect(stage->page, bytes, PROT_READ | PROT_EXEC) != 0)
            give_up("mprotect");
    }
    return (bench_clock() - begin) / FLIPS;
}

#if HAVE_FFI
static void closure_called(ffi_cif *cif, void *result, void **arguments, void *data)
{
    (void) cif, (void) arguments;
    *(ffi_arg *) result = (ffi_arg) ((int (*)(void)) data)();
}

/* A closure that is prepared again, as its documentation allows when nobody is in it. */
static double by_closure(struct stage *stage)
{
    static ffi_cif cif;
    void *code;
    (void) stage;
    ffi_closure *closure = ffi_closure_alloc(sizeof *closure, &code);
    if (closure == NULL || ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 0, &ffi_type_sint, NULL) != FFI_OK)
        give_up("no closure");
    double begin = bench_clock();
    for (unsigned i = 0; i < STORES; i++) {
        if (ffi_prep_closure_loc(closure, &cif, closure_called, (void *) targets[i & 1], code) !=
            FFI_OK)
            give_up("ffi_prep_closure_loc");
    }
    double each = (bench_clock() - begin) / STORES;
    ffi_closure_free(closure);
    return each;
}
#endif

static void *call_for_ever(void *argument)
{
    struct stage *stage = argument;
    bench_pin(0);
    while (!atomic_load_explicit(&stage->stop, memory_order_relaxed)) {
        int got = stage->trace();
        if (got != 1 && got != 2)
            atomic_fetch_add(&stage->wrong, 1);
    }
    return NULL;
}

static void compete(const struct bench *bench, struct stage *stage)
{
    double symbol[ROUNDS], flip[ROUNDS];
    unsigned rounds = bench->rounds < ROUNDS ? bench->rounds : ROUNDS;
    pthread_t caller;
    if (stage->running && pthread_create(&caller, NULL, call_for_ever, stage) != 0)
        give_up("no thread");
    for (unsigned round = 0; round < rounds; round++) {
        symbol[round] = by_symbol(stage);
        flip[round] = by_flip(stage);
    }
    atomic_store(&stage->stop, true);
    if (stage->running)
        pthread_join(caller, NULL);
    double mine = bench_median(symbol, rounds), other = bench_median(flip, rounds);
    printf("  %-32s mprotect flip / retarget %6.0f   (%.0f ns / %.1f ns)\n",
           stage->running ? "another thread calls through it" : "one thread", other / mine, other,
           mine);
    if (atomic_load(&stage->wrong) != 0)
        give_up("a call ended at no target");
    bench_row(bench, stage->running ? "retarget while another thread calls" : "retarget",
              "mprotect flip", true, 300, other / mine);
#if HAVE_FFI
    if (!stage->running) {
        double closure[ROUNDS];
        for (unsigned round = 0; round < rounds; round++) {
            symbol[round] = by_symbol(stage);
            closure[round] = by_closure(stage);
        }
        mine = bench_median(symbol, rounds);
        other = bench_median(closure, rounds);
        printf("  %-32s libffi prep / retarget   %6.2f   (%.1f ns / %.1f ns)\n", "one thread",
               other / mine, other, mine);
    }
#endif
}

int main(int argc, char **argv)
{
    struct bench bench;
    static struct stage stage;
    bench_begin(&bench, argc, argv);
    printf("\nMoving what all traces call.\n");
    open_stage(&stage);
    compete(&bench, &stage);
    if (bench_processors() > 1) {
        stage.running = true;
        atomic_store(&stage.stop, false);
        compete(&bench, &stage);
    }
    pp_pool_destroy(stage.pool);
    return 0;
}
