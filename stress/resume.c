/* SPDX-License-Identifier: MIT */
/*
 * resume: what it costs to get back into an OSR body that suspended itself.
 *
 * One iteration calls a method's tier-0 with a continuation; tier-0 builds its
 * frame and gets into the body, which lowers SP, counts, stores its own address
 * in the continuation and returns.  Only the way from tier-0 into the body
 * differs:
 *
 *   bare        jmp *%register: what any two pieces of code need
 *   direct      the bytes of pp_emit_resume: a jump through the continuation
 *   patchpoint  a ready patchpoint
 *   unwind      C captures its registers with libunwind, steps to tier-0 and once
 *               more to its caller, whose callee-saved registers it takes over,
 *               and restores all of it at the body
 */
#include <config.h>

#include "stress/stress.h"
#include "stress/template.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#if defined __x86_64__
#define CALL_TYPE R_X86_64_PLT32
#define SELF_TYPE R_X86_64_PC32
#define FIELD_ADDEND (-4)
#define FIRST_ARGUMENT 7           /* rdi */
#define USED (1ull << 3)           /* rbx */
static const int callee_saved[] = { UNW_X86_64_RBX, UNW_X86_64_R12, UNW_X86_64_R13, UNW_X86_64_R14,
                                    UNW_X86_64_R15 };
#else
#define CALL_TYPE R_AARCH64_CALL26
#define SELF_TYPE R_AARCH64_ADR_PREL_LO21
#define FIELD_ADDEND 0
#define FIRST_ARGUMENT 0           /* x0 */
#define USED (1ull << 19)          /* x19 */
static const int callee_saved[] = { UNW_AARCH64_X19, UNW_AARCH64_X20, UNW_AARCH64_X21,
                                    UNW_AARCH64_X22, UNW_AARCH64_X23, UNW_AARCH64_X24,
                                    UNW_AARCH64_X25, UNW_AARCH64_X26, UNW_AARCH64_X27,
                                    UNW_AARCH64_X28 };
#endif

enum way { BARE, DIRECT, PATCHPOINT, UNWIND, WAYS };

static const char *const way_names[WAYS] = {
    "bare jump", "direct jump", "patchpoint", "capture, unwind, restore",
};

/* The old way takes so much longer that it does a part of the iterations only. */
#define UNWIND_SHARE 100
#define ROUNDS 9

struct continuation {
    uintptr_t code;   /* ASYNC_CODE */
    uint64_t count;   /* ASYNC_COUNT */
};

typedef uint64_t async_method(struct continuation *continuation, uintptr_t body);

struct bench {
    struct stress *stress;
    pp_pool *pool;
    pp_site *site;
    pp_trace *traces[WAYS], *body;
    pp_entry *entry;
    pp_tier0_layout tier0;
};

/* ---- the old way -------------------------------------------------------------- */

/* Called by tier-0; continues in the body in tier-0's frame. */
static void resume_by_unwinding(struct continuation *continuation)
{
    unw_context_t context;
    unw_cursor_t tier0, caller;
    unw_word_t value;
    if (unw_getcontext(&context) != 0 || unw_init_local(&tier0, &context) != 0
        || unw_step(&tier0) <= 0)
        abort(); /* no way back into code that does not expect one */
    caller = tier0;
    if (unw_step(&caller) <= 0)
        abort();
    for (size_t i = 0; i < sizeof callee_saved / sizeof callee_saved[0]; i++)
        if (unw_get_reg(&caller, callee_saved[i], &value) == 0)
            unw_set_reg(&tier0, callee_saved[i], value);
    unw_set_reg(&tier0, UNW_REG_IP, continuation->code);
    unw_resume(&tier0);
    abort();
}

/* ---- the pieces ----------------------------------------------------------------- */

struct piece {
    uint8_t code[512];
    size_t size;
    pp_reloc relocs[2];
    unsigned reloc_count;
};

static size_t append(struct piece *piece, const uint8_t *start, const uint8_t *end)
{
    size_t at = piece->size;
    memcpy(piece->code + at, start, (size_t) (end - start));
    piece->size += (size_t) (end - start);
    return at;
}
#define APPEND(piece, name) append(piece, template_##name, template_##name##_end)

static void refer(struct piece *piece, size_t at, uint16_t type, pp_symbol symbol)
{
    piece->relocs[piece->reloc_count++] = (pp_reloc) { .offset = (uint32_t) at, .type = type,
                                                       .symbol = symbol, .addend = FIELD_ADDEND };
}

static pp_status link_piece(struct bench *bench, const struct piece *piece, const char *name,
                            const pp_frame_rule *rule, pp_trace **trace)
{
    pp_trace_desc desc = { .size = sizeof desc, .name = name, .code = piece->code,
                           .code_size = piece->size, .relocs = piece->relocs,
                           .reloc_count = piece->reloc_count, .frame = rule };
    return pp_trace_link(bench->pool, &desc, trace);
}

static pp_status link_body(struct bench *bench)
{
    struct piece piece = { .size = 0 };
    pp_osr_frame frame = { .size = sizeof frame, .scheme = PP_CSR_RELOAD, .tier0 = &bench->tier0,
                           .used = USED, .local_bytes = 32 };
    pp_osr_layout layout = { .size = sizeof layout }, end = { .size = sizeof end };
    pp_status status = pp_emit_osr_prologue(&frame, piece.code, sizeof piece.code, &layout);
    if (status != PP_OK)
        return status;
    piece.size = layout.bytes;
    size_t at = APPEND(&piece, async_body);
    refer(&piece, at + (size_t) (template_async_body_self - template_async_body), SELF_TYPE,
          PP_SYMBOL_CODE);
    status = pp_emit_osr_epilogue(&frame, piece.code + piece.size, sizeof piece.code - piece.size,
                                  &end);
    piece.size += end.bytes;
    if (status == PP_OK)
        status = link_piece(bench, &piece, "async body", &layout.rule, &bench->body);
    if (status != PP_OK)
        return status;
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(bench->body), .tier0 = &bench->tier0,
                           .used = USED, .stack_bytes = layout.stack_bytes };
    return pp_entry_create(bench->pool, &desc, &bench->entry);
}

static pp_status unused(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site, (void) regs, (void) entry;
    return PP_E_FAULT; /* the entry is published by hand */
}

static pp_status append_site(struct bench *bench, struct piece *piece)
{
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_COUNTED,
                          .counter_offset = AT_COUNTER, .threshold = 1, .tier0 = &bench->tier0,
                          .produce = unused };
    pp_site_layout layout = { .size = sizeof layout };
    pp_status status = pp_site_create(bench->pool, &desc, &bench->site);
    if (status == PP_OK)
        status = pp_emit_site(bench->site, piece->code + piece->size,
                              sizeof piece->code - piece->size, &layout);
    if (status != PP_OK)
        return status;
    piece->relocs[0] = layout.relocs[0];
    piece->relocs[0].offset += (uint32_t) piece->size;
    piece->reloc_count = 1;
    piece->size += layout.bytes;
    return pp_site_publish(bench->site, bench->entry);
}

static pp_status append_way(struct bench *bench, struct piece *piece, enum way way)
{
    size_t at, size;
    pp_status status;
    switch (way) {
    case BARE:
        APPEND(piece, async_bare);
        return PP_OK;
    case DIRECT:
        status = pp_emit_resume(PP_ARCH_HOST, FIRST_ARGUMENT, ASYNC_CODE, piece->code + piece->size,
                                sizeof piece->code - piece->size, &size);
        piece->size += status == PP_OK ? size : 0;
        return status;
    case PATCHPOINT:
        APPEND(piece, async_counter);
        return append_site(bench, piece);
    default:
        at = APPEND(piece, async_old);
        refer(piece, at + (size_t) (template_async_old_call - template_async_old), CALL_TYPE,
              pp_symbol_define(bench->pool, "resume_by_unwinding",
                               (const void *) resume_by_unwinding));
        return PP_OK;
    }
}

static pp_status build(struct bench *bench)
{
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD };
    bench->tier0 = (pp_tier0_layout) { .size = sizeof bench->tier0,
                                       .frame_bytes = ASYNC_FRAME_BYTES };
    pp_status status = link_body(bench);
    for (unsigned way = 0; way < WAYS && status == PP_OK; way++) {
        struct piece piece = { .size = 0 };
        APPEND(&piece, async_head);
        status = append_way(bench, &piece, way);
        if (status == PP_OK)
            status = link_piece(bench, &piece, way_names[way], &rule, &bench->traces[way]);
    }
    return status;
}

/* ---- measuring -------------------------------------------------------------------- */

/* Nanoseconds for one iteration; a wrong count is a failure. */
static double run_way(struct bench *bench, enum way way, uint64_t iterations)
{
    async_method *method;
    uintptr_t body = (uintptr_t) pp_trace_entry(bench->body);
    struct continuation continuation = { .code = body, .count = 0 };
    const void *code = pp_trace_entry(bench->traces[way]);
    uint64_t returned = 0;
    memcpy(&method, &code, sizeof method);
    uint64_t start = stress_clock();
    for (uint64_t i = 0; i < iterations; i++)
        returned += method(&continuation, body);
    uint64_t end = stress_clock();
#if defined __aarch64__
    /* What libunwind restores leaves d8 to d15 undefined: this function keeps its caller's. */
    __asm__ volatile("" ::: "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15");
#endif
    if (continuation.count != iterations || continuation.code != body
        || returned != iterations * (iterations + 1) / 2)
        stress_fail(bench->stress, "%s: %llu of %llu iterations counted", way_names[way],
                    (unsigned long long) continuation.count, (unsigned long long) iterations);
    return (double) (end - start) / (double) iterations;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static void report(struct stress *stress, const double each[WAYS], uint64_t iterations)
{
    static const char *const column[] = { "" };
    struct stress_table *table = stress_table(stress, "one iteration", 1, column);
    for (unsigned way = 0; way < WAYS; way++)
        stress_value(table, way_names[way], "ns", each[way]);
    table = stress_table(stress, "all iterations; unwinding did a part of them", 1, column);
    stress_value(table, "iterations", "", (double) iterations);
    for (unsigned way = 0; way < WAYS; way++)
        stress_value(table, way_names[way], "ms", each[way] * (double) iterations / 1e6);
    table = stress_table(stress, "ratios", 1, column);
    stress_value(table, "direct jump / bare jump", "x", each[DIRECT] / each[BARE]);
    stress_value(table, "patchpoint / bare jump", "x", each[PATCHPOINT] / each[BARE]);
    stress_value(table, "unwinding / direct jump", "x", each[UNWIND] / each[DIRECT]);
    stress_value(table, "unwinding / patchpoint", "x", each[UNWIND] / each[PATCHPOINT]);
    if (each[UNWIND] < 20 * each[DIRECT] || each[DIRECT] > 1.5 * each[BARE])
        stress_note(stress, "the direct jump is slower here than it should be");
}

static void measure(struct bench *bench)
{
    struct stress *stress = bench->stress;
    uint64_t iterations = stress_iterations(stress, 10000000);
    double each[WAYS][ROUNDS], middle[WAYS];
    unsigned rounds = 0;
    for (; rounds < ROUNDS && (rounds == 0 || !stress_expired(stress)); rounds++) {
        for (unsigned way = 0; way < WAYS; way++) {
            uint64_t part = iterations / ROUNDS / (way == UNWIND ? UNWIND_SHARE : 1);
            each[way][rounds] = run_way(bench, way, part > 0 ? part : 1);
        }
        stress_progress(stress, "round", rounds + 1, ROUNDS);
    }
    for (unsigned way = 0; way < WAYS; way++)
        middle[way] = median(each[way], rounds);
    report(stress, middle, iterations);
}

static void run(struct stress *stress)
{
    struct bench bench = { .stress = stress };
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    if (pp_pool_create(&options, &bench.pool) != PP_OK) {
        stress_fail(stress, "pool: %s", error.text);
        return;
    }
    pp_status status = build(&bench);
    if (status != PP_OK)
        stress_fail(stress, "the method cannot be linked: %s", pp_strerror(status));
    else
        measure(&bench);
    pp_pool_destroy(bench.pool);
}

const struct scenario scenario_resume = {
    .name = "resume",
    .summary = "back into a suspended OSR body: a jump, a patchpoint, or an unwinder",
    .run = run,
    .seconds = 8,
};
