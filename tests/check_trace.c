/* SPDX-License-Identifier: MIT */
/*
 * Traces that are linked, run and released, near and far, with trampolines of
 * their own and shared ones.  What a trace took is compared exactly with what it
 * should have taken; a trace that is released, or refused, leaves nothing.
 */
#include <config.h>

#include "isa/isa.h"
#include "link/island.h"
#include "link/trace.h"
#include "memory/region.h"

#include "sanitized.h"
#include "snippet.h"

#include <patchpoint/fault.h>

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORD sizeof(uint64_t)

/* ---- functions to be called ---------------------------------------------- */

enum { TARGETS = 16 };

static _Atomic unsigned hits[TARGETS];

#define TARGET(n) \
    static void target_##n(void) { atomic_fetch_add_explicit(&hits[n], 1, memory_order_relaxed); }
TARGET(0) TARGET(1) TARGET(2) TARGET(3) TARGET(4) TARGET(5) TARGET(6) TARGET(7)
TARGET(8) TARGET(9) TARGET(10) TARGET(11) TARGET(12) TARGET(13) TARGET(14) TARGET(15)

static void (*const targets[TARGETS])(void) = {
    target_0, target_1, target_2, target_3, target_4, target_5, target_6, target_7,
    target_8, target_9, target_10, target_11, target_12, target_13, target_14, target_15,
};

/* ---- settings ------------------------------------------------------------ */

static const struct setting {
    bool far, own, pads;
    pp_wx wx;
} settings[] = {
    { false, false, false, PP_WX_AUTO }, { false, true, false, PP_WX_AUTO },
    { true, false, false, PP_WX_AUTO },  { true, true, false, PP_WX_AUTO },
    { false, false, true, PP_WX_AUTO },  { false, true, true, PP_WX_AUTO },
    { true, false, true, PP_WX_AUTO },   { true, true, true, PP_WX_AUTO },
    { true, false, false, PP_WX_FLIP },  { true, true, true, PP_WX_FLIP },
    { true, false, false, PP_WX_REMAP }, { true, true, true, PP_WX_REMAP },
};

enum { SETTINGS = sizeof settings / sizeof *settings };

static pp_pool *pool;
static pp_symbol symbols[TARGETS];
static struct snippet code;
static pp_error reason;

static pp_pool *open_pool(bool far, bool pads, pp_wx wx)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) target_0 },
                                .branch_range = far ? 1 : 0, .wx = wx,
                                .flags = pads ? PP_POOL_LANDING_PADS : 0, .error = &reason };
    pp_pool *opened = NULL;

    reason = (pp_error) { .size = sizeof reason };
    ck_assert_msg(pp_pool_create(&options, &opened) == PP_OK, "%s", reason.text);
    return opened;
}

static void define_targets(void)
{
    char name[16];

    for (int i = 0; i < TARGETS; i++) {
        snprintf(name, sizeof name, "target_%d", i);
        symbols[i] = pp_symbol_define(pool, name, (void *) targets[i]);
        ck_assert_uint_ne(symbols[i], PP_SYMBOL_NONE);
        atomic_store(&hits[i], 0);
    }
}

static void start(bool far, bool pads)
{
    pool = open_pool(far, pads, PP_WX_AUTO);
    define_targets();
}

static void start_with(const struct setting *setting)
{
    pool = open_pool(setting->far, setting->pads, setting->wx);
    define_targets();
}

static void stop(void)
{
    snippet_free(&code);
    reason.text[0] = '\0';
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    pp_pool_destroy(pool);
}

static pp_pool_stats stats(void)
{
    pp_pool_stats now = { .size = sizeof now };

    ck_assert_int_eq(pp_pool_get_stats(pool, &now), PP_OK);
    return now;
}

/* Everything that spans and traces account for is as it was. */
static void assert_same(const pp_pool_stats *before)
{
    pp_pool_stats now = stats();

    ck_assert_uint_eq(now.requested, before->requested);
    ck_assert_uint_eq(now.used, before->used);
    ck_assert_uint_eq(now.spans, before->spans);
    ck_assert_uint_eq(now.traces, before->traces);
    ck_assert_uint_eq(now.trampolines, before->trampolines);
    ck_assert_uint_eq(now.trampoline_bytes, before->trampoline_bytes);
    ck_assert_uint_eq(now.literals, before->literals);
    ck_assert_uint_eq(now.literal_bytes, before->literal_bytes);
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
}

static bool same_size(const pp_trace_size *a, const pp_trace_size *b)
{
    return a->code == b->code && a->data == b->data && a->trampolines == b->trampolines &&
           a->literals == b->literals && a->trampoline_bytes == b->trampoline_bytes &&
           a->literal_bytes == b->literal_bytes && a->padding == b->padding &&
           a->total == b->total && a->shared_new == b->shared_new;
}

static pp_trace *link_desc(pp_trace_desc *desc)
{
    pp_trace_size measured = { .size = sizeof measured }, taken = measured;
    pp_trace *trace = NULL;

    desc->error = &reason;
    ck_assert_msg(pp_trace_measure(pool, desc, &measured) == PP_OK, "%s", reason.text);
    pp_pool_stats before = stats();
    ck_assert_msg(pp_trace_link(pool, desc, &trace) == PP_OK, "%s", reason.text);
    pp_pool_stats after = stats();
    ck_assert_int_eq(pp_trace_get_size(trace, &taken), PP_OK);
    ck_assert(same_size(&measured, &taken));
    ck_assert_uint_eq(taken.total, taken.code + taken.data + taken.trampoline_bytes +
                                       taken.literal_bytes + taken.padding);
    ck_assert_uint_eq(after.requested - before.requested, taken.total);
    ck_assert_uint_eq(after.spans - before.spans, 1);
    ck_assert_uint_eq(after.traces - before.traces, 1);
    return trace;
}

static pp_trace *link_code(uint32_t flags)
{
    pp_trace_desc desc = snippet_desc(&code);

    desc.flags = flags;
    return link_desc(&desc);
}

static void run(const pp_trace *trace)
{
    const void *entry = pp_trace_entry(trace);

    ck_assert_ptr_nonnull(entry);
    ((void (*)(void)) (uintptr_t) entry)();
}

static uint64_t run_for_value(const pp_trace *trace)
{
    return ((uint64_t (*)(void)) (uintptr_t) pp_trace_entry(trace))();
}

static void free_trace(pp_trace *trace)
{
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
}

static pp_trace_size size_of(const pp_trace *trace)
{
    pp_trace_size size = { .size = sizeof size };

    ck_assert_int_eq(pp_trace_get_size(trace, &size), PP_OK);
    return size;
}

/* ---- linking and running --------------------------------------------------- */

/* Calls and a tail jump: each target once directly and once through the GOT. */
START_TEST(every_symbol_is_reached)
{
    const struct setting *setting = &settings[_i];

    start_with(setting);
    snippet_begin(&code);
    for (int i = 0; i < TARGETS; i++)
        snippet_call(&code, symbols[i]);
    for (int i = 0; i < TARGETS; i++)
        snippet_got_call(&code, symbols[i]);
    snippet_tail(&code, symbols[3]);

    pp_pool_stats before = stats();
    pp_trace *trace = link_code(setting->own ? PP_TRACE_OWN_TRAMPOLINES : 0);
    pp_trace_size size = size_of(trace);
    unsigned far = setting->far ? TARGETS : 0, own = setting->own ? far : 0;
    size_t near_bytes = isa_host.trampoline_size(TRAMPOLINE_NEAR, setting->pads);
    size_t island_bytes = isa_host.trampoline_size(TRAMPOLINE_ISLAND, setting->pads);

    ck_assert_uint_eq(size.trampolines, own);
    ck_assert_uint_eq(size.literals, own);
    ck_assert_uint_eq(size.trampoline_bytes, own * near_bytes);
    ck_assert_uint_eq(size.literal_bytes, own * WORD);
    ck_assert_uint_eq(size.shared_new, far - own);
    ck_assert_uint_lt(size.padding, WORD);
    pp_pool_stats linked = stats();
    ck_assert_uint_eq(linked.trampolines - before.trampolines, far);
    ck_assert_uint_eq(linked.trampoline_bytes - before.trampoline_bytes,
                      far * ((setting->own ? near_bytes : island_bytes) + WORD));
    ck_assert_uint_eq(linked.literals, before.literals);

    run(trace);
    run(trace);
    for (int i = 0; i < TARGETS; i++)
        ck_assert_uint_eq(atomic_load(&hits[i]), i == 3 ? 6 : 4);
    free_trace(trace);
    assert_same(&before);
    stop();
}
END_TEST

START_TEST(tail_jumps_through_the_got)
{
    const struct setting *setting = &settings[_i];

    start_with(setting);
    snippet_begin(&code);
    snippet_got_tail(&code, symbols[5]);
    pp_trace *trace = link_code(setting->own ? PP_TRACE_OWN_TRAMPOLINES : 0);
    run(trace);
    ck_assert_uint_eq(atomic_load(&hits[5]), 1);
    ck_assert_uint_eq(size_of(trace).trampolines, 0);
    ck_assert_uint_eq(size_of(trace).literals, setting->far && setting->own);
    ck_assert_uint_eq(size_of(trace).shared_new, setting->far && !setting->own);
    ck_assert_uint_eq(stats().literals, setting->far);
    ck_assert_uint_eq(stats().trampolines, 0);
    free_trace(trace);
    ck_assert_uint_eq(stats().literals, 0);
    stop();
}
END_TEST

/* A thousand branches to a symbol, one trampoline; the GOT load uses its literal. */
START_TEST(one_trampoline_serves_all_branches)
{
    const struct setting *setting = &settings[_i];

    start_with(setting);
    snippet_begin(&code);
    for (int i = 0; i < 1000; i++) {
        snippet_call(&code, symbols[7]);
        if (i % 100 == 0)
            snippet_got_call(&code, symbols[7]);
    }
    snippet_end(&code);
    pp_trace *trace = link_code(setting->own ? PP_TRACE_OWN_TRAMPOLINES : 0);
    run(trace);
    ck_assert_uint_eq(atomic_load(&hits[7]), 1010);
    ck_assert_uint_eq(stats().trampolines, setting->far);
    ck_assert_uint_eq(stats().literals, 0);
    ck_assert_uint_eq(size_of(trace).trampolines, setting->far && setting->own);
    ck_assert_uint_eq(size_of(trace).literals, setting->far && setting->own);
    free_trace(trace);
    ck_assert_uint_eq(stats().trampolines, 0);
    stop();
}
END_TEST

START_TEST(a_loaded_address_is_the_symbols_own)
{
    const struct setting *setting = &settings[_i];

    start_with(setting);
    snippet_begin(&code);
    snippet_got_load(&code, symbols[2]);
    snippet_end(&code);
    pp_trace *trace = link_code(setting->own ? PP_TRACE_OWN_TRAMPOLINES : 0);
    ck_assert_uint_eq(run_for_value(trace), (uintptr_t) target_2);
    free_trace(trace);
    stop();
}
END_TEST

START_TEST(data_is_behind_the_code)
{
    const struct setting *setting = &settings[_i];
    struct { uint64_t value, own_code, own_data, target; } data = { 42, 0, 0, 0 };

    start_with(setting);
    snippet_begin(&code);
    snippet_call(&code, symbols[1]);
    snippet_load(&code, PP_SYMBOL_DATA);
    snippet_end(&code);
    for (uint32_t i = 1; i < 4; i++) {
        static const pp_symbol of[] = { 0, PP_SYMBOL_CODE, PP_SYMBOL_DATA };
        snippet_reloc(&code, 0, SNIPPET_ABS64, i == 3 ? symbols[9] : of[i], 0);
        code.relocs[code.reloc_count - 1].section = PP_IN_DATA;
        code.relocs[code.reloc_count - 1].offset = i * 8;
    }
    pp_trace_desc desc = snippet_desc(&code);
    desc.data = &data;
    desc.data_size = sizeof data;
    desc.flags = setting->own ? PP_TRACE_OWN_TRAMPOLINES : 0;
    for (desc.align = 16; desc.align <= 65536; desc.align *= 16) {
        for (desc.data_align = 1; desc.data_align <= 4096; desc.data_align *= 8) {
            /* Words are loaded: what the host asks for less, the field may refuse. */
            if (desc.data_align < 8)
                continue;
            pp_trace *trace = link_desc(&desc);
            uintptr_t entry = (uintptr_t) pp_trace_entry(trace);
            pp_trace_size size = size_of(trace);
            const uint64_t *at = (const uint64_t *) (entry + size.total - sizeof data);
            ck_assert_uint_eq(run_for_value(trace), 42);
            ck_assert_uint_eq(entry % desc.align, 0);
            ck_assert_uint_eq((uintptr_t) at % desc.data_align, 0);
            ck_assert_uint_eq(at[0], 42);
            ck_assert_uint_eq(at[1], entry);
            ck_assert_uint_eq(at[2], (uintptr_t) at);
            ck_assert_uint_eq(at[3], (uintptr_t) target_9);
            ck_assert_uint_eq(size.data, sizeof data);
            free_trace(trace);
        }
    }
    stop();
}
END_TEST

/* Near symbols need neither trampolines nor literals: the bytes are direct. */
START_TEST(near_symbols_are_used_directly)
{
    start(false, false);
    snippet_begin(&code);
    snippet_got_call(&code, symbols[0]);
    size_t got_load = code.size;
    snippet_got_load(&code, symbols[1]);
    snippet_end(&code);
    pp_trace *trace = link_code(0);
    const uint8_t *at = pp_trace_entry(trace);
#if defined __x86_64__
    int32_t distance;
    memcpy(&distance, at + 6, 4);
    ck_assert_uint_eq(at[4], 0x67); /* addr32 call */
    ck_assert_uint_eq(at[5], 0xe8);
    ck_assert_ptr_eq(at + 10 + distance, (void *) target_0);
    ck_assert_uint_eq(at[got_load + 1], 0x8d); /* lea */
#else
    uint32_t load, add;
    memcpy(&load, at + 12, 4);
    memcpy(&add, at + got_load + 4, 4);
    ck_assert_uint_eq(load, 0x91000210 | ((uintptr_t) target_0 & 0xfff) << 10);
    ck_assert_uint_eq(add, 0x91000000 | ((uintptr_t) target_1 & 0xfff) << 10);
#endif
    ck_assert_uint_eq(stats().trampolines + stats().literals, 0);
    free_trace(trace);
    stop();
}
END_TEST

START_TEST(name_host_and_entry_are_kept)
{
    char name[] = "loop@42";
    struct code_place place;

    start(false, false);
    snippet_begin(&code);
    snippet_end(&code);
    size_t entry = code.size;
    snippet_begin(&code);
    snippet_call(&code, symbols[0]);
    snippet_end(&code);
    pp_trace_desc desc = snippet_desc(&code);
    desc.name = name;
    desc.host = &place;
    desc.entry = entry;
    pp_trace *trace = link_desc(&desc);
    name[0] = 'x';
    const uint8_t *at = pp_trace_entry(trace);
    run(trace);
    ck_assert_uint_eq(atomic_load(&hits[0]), 1);
    ck_assert_ptr_eq(pp_trace_host(trace), &place);
    ck_assert(code_at((uintptr_t) at, &place));
    ck_assert_uint_eq(place.start + entry, (uintptr_t) at);
    ck_assert_str_eq(trace_name(trace_of(&place)), "loop@42");
    ck_assert_ptr_eq(trace_host(trace_of(&place)), &place);
    ck_assert_uint_eq(trace_code_size(trace_of(&place)), code.size);
    ck_assert_ptr_eq(trace_handle(&place), trace);
    ck_assert_ptr_eq(pp_trace_at(at), trace);
    ck_assert_ptr_eq(pp_trace_at(at - entry), trace);
    ck_assert_ptr_eq(pp_trace_at(at - entry + code.size - 1), trace);
    ck_assert_ptr_null(pp_trace_at(at - entry - 1));
    ck_assert_ptr_null(pp_trace_at((void *) target_0));
    ck_assert_ptr_null(pp_trace_at(NULL));
    ck_assert_ptr_null(pp_trace_at((void *) UINTPTR_MAX));
    free_trace(trace);
    ck_assert_ptr_null(pp_trace_at(at));
    stop();
}
END_TEST

/* ---- sharing ------------------------------------------------------------- */

START_TEST(traces_share_what_they_have_in_common)
{
    pp_trace *traces[TARGETS];

    start(true, false);
    for (unsigned n = 0; n < TARGETS; n++) {
        snippet_free(&code);
        snippet_begin(&code);
        for (unsigned i = 0; i <= n; i++)
            snippet_call(&code, symbols[i]);
        snippet_end(&code);
        traces[n] = link_code(0);
        ck_assert_uint_eq(size_of(traces[n]).shared_new, 1);
        ck_assert_uint_eq(stats().trampolines, n + 1);
    }
    for (unsigned n = 0; n < TARGETS; n++)
        run(traces[n]);
    for (unsigned i = 0; i < TARGETS; i++)
        ck_assert_uint_eq(atomic_load(&hits[i]), TARGETS - i);
    /* The last trace that calls a symbol takes the trampoline with it. */
    for (unsigned n = TARGETS; n-- > 0;) {
        free_trace(traces[n]);
        ck_assert_uint_eq(stats().trampolines, n);
    }
    stop();
}
END_TEST

/* A literal becomes a trampoline's, and is a mere literal again. */
START_TEST(a_literal_and_a_trampoline_share_a_slot)
{
    start(true, false);
    snippet_begin(&code);
    snippet_got_call(&code, symbols[4]);
    snippet_end(&code);
    pp_trace *load = link_code(0);
    ck_assert_uint_eq(stats().literals, 1);
    ck_assert_uint_eq(stats().literal_bytes, WORD);
    ck_assert_uint_eq(stats().trampolines, 0);
    struct region *region = region_at((uintptr_t) pp_trace_entry(load));

    snippet_free(&code);
    snippet_begin(&code);
    snippet_call(&code, symbols[4]);
    snippet_end(&code);
    pp_trace *call = link_code(0);
    ck_assert_uint_eq(size_of(call).shared_new, 1);
    ck_assert_uint_eq(stats().literals, 0);
    ck_assert_uint_eq(stats().trampolines, 1);
    ck_assert_uint_eq(island_of(region)->used, 1);
    run(load);
    run(call);
    free_trace(call);
    ck_assert_uint_eq(stats().literals, 1);
    ck_assert_uint_eq(stats().trampolines, 0);
    run(load);
    ck_assert_uint_eq(atomic_load(&hits[4]), 3);
    free_trace(load);
    ck_assert_uint_eq(stats().literals, 0);
    ck_assert_uint_eq(stats().literal_bytes, 0);
    stop();
}
END_TEST

/* Slots are used again by other symbols, and then lead to them. */
START_TEST(slots_are_used_again)
{
    struct region *region = NULL;

    start(true, _i != 0);
    for (int round = 0; round < 200; round++) {
        snippet_free(&code);
        snippet_begin(&code);
        for (int i = 0; i < 4; i++)
            snippet_call(&code, symbols[(round + 3 * i) % TARGETS]);
        snippet_end(&code);
        pp_trace *trace = link_code(0);
        region = region_at((uintptr_t) pp_trace_entry(trace));
        unsigned before[TARGETS];
        for (int i = 0; i < TARGETS; i++)
            before[i] = atomic_load(&hits[i]);
        run(trace);
        for (int i = 0; i < 4; i++)
            before[(round + 3 * i) % TARGETS]++;
        for (int i = 0; i < TARGETS; i++)
            ck_assert_uint_eq(atomic_load(&hits[i]), before[i]);
        free_trace(trace);
    }
    ck_assert_uint_eq(island_of(region)->used, 4);
    stop();
}
END_TEST

/* What does not fit into the island goes into the trace. */
START_TEST(a_full_island_is_no_obstacle)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) target_0 },
                                .branch_range = 1, .region_bytes = 2 << 20 };
    char name[32];

    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    define_targets();
    snippet_begin(&code);
    snippet_call(&code, symbols[0]);
    snippet_end(&code);
    pp_trace *small = link_code(0);
    uint32_t capacity = island_of(region_at((uintptr_t) pp_trace_entry(small)))->capacity;

    snippet_free(&code);
    snippet_begin(&code);
    for (uint32_t i = 0; i < capacity; i++) {
        snprintf(name, sizeof name, "far %u", i);
        snippet_call(&code, pp_symbol_define(pool, name, (void *) targets[i % TARGETS]));
    }
    snippet_end(&code);
    pp_trace *large = link_code(0);
    ck_assert_uint_eq(size_of(large).trampolines, capacity);
    ck_assert_uint_eq(size_of(large).shared_new, 0);
    run(large);
    /* One fewer, and the island serves them all. */
    code.reloc_count--;
    code.relocs[code.reloc_count - 1].symbol = symbols[0];
    pp_trace_desc desc = snippet_desc(&code);
    free_trace(large);
    code.relocs[code.reloc_count] = code.relocs[code.reloc_count - 1];
    desc.reloc_count = code.reloc_count;
    large = link_desc(&desc);
    ck_assert_uint_eq(size_of(large).trampolines, 0);
    ck_assert_uint_eq(size_of(large).shared_new, capacity - 2);
    free_trace(large);
    free_trace(small);
    ck_assert_uint_eq(stats().trampolines, 0);
    stop();
}
END_TEST

/* So many that a near trampoline of AArch64 would not reach its literal. */
START_TEST(a_trace_may_have_very_many_trampolines)
{
    enum { MANY = 70000 };
    char name[32];

    start(true, true);
    snippet_begin(&code);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "many %d", i);
        snippet_call(&code, pp_symbol_define(pool, name, (void *) targets[i % TARGETS]));
    }
    snippet_end(&code);
    pp_trace *trace = link_code(PP_TRACE_OWN_TRAMPOLINES);
    ck_assert_uint_eq(size_of(trace).trampolines, MANY);
    run(trace);
    for (int i = 0; i < TARGETS; i++)
        ck_assert_uint_eq(atomic_load(&hits[i]), MANY / TARGETS);
    free_trace(trace);
    stop();
}
END_TEST

/* ---- refusals ------------------------------------------------------------ */

#if defined __x86_64__
enum { FIELD = 5, ABS64 = R_X86_64_64, PC32 = R_X86_64_PC32, GOT = R_X86_64_GOTPCRELX,
       CALL_ADDEND = -4 };
#else
enum { FIELD = 8, ABS64 = R_AARCH64_ABS64, PC32 = R_AARCH64_PREL32, GOT = R_AARCH64_ADR_GOT_PAGE,
       CALL_ADDEND = 0 };
#endif

/* The one relocation of `begin; call; end` with something changed. */
static const struct refusal {
    const char *what;
    pp_reloc reloc; /* symbol 99: target_0 */
    pp_status status;
    const char *text; /* that the reason holds */
} refusals[] = {
    { "type", { FIELD, 0xffff, 0, 99, 0, 0 }, PP_E_ARG, "(type 65535, target_0)" },
    { "type none", { FIELD, 0, 0, 99, 0, 0 }, PP_E_ARG, "type 0" },
    { "section", { FIELD, SNIPPET_CALL_TYPE, 2, 99, 0, CALL_ADDEND }, PP_E_ARG, "section" },
    { "reserved", { FIELD, SNIPPET_CALL_TYPE, 0, 99, 1, CALL_ADDEND }, PP_E_ARG, "reserved" },
    { "no symbol", { FIELD, SNIPPET_CALL_TYPE, 0, 0, 0, CALL_ADDEND }, PP_E_ARG, "needs a symbol" },
    { "no GOT symbol", { FIELD + 3, GOT, 0, 0, 0, CALL_ADDEND }, PP_E_ARG, "symbol" },
    { "bad symbol", { FIELD, SNIPPET_CALL_TYPE, 0, 1000000, 0, CALL_ADDEND }, PP_E_ARG,
      "symbol 1000000" },
    { "no data", { FIELD, ABS64, 0, PP_SYMBOL_DATA, 0, 0 }, PP_E_ARG, "own data" },
    { "data section", { 0, ABS64, 1, 99, 0, 0 }, PP_E_ARG, "beyond its section" },
    { "call in data", { 0, SNIPPET_CALL_TYPE, 1, 99, 0, CALL_ADDEND }, PP_E_ARG, "is in data" },
    { "beyond", { 1000, ABS64, 0, 99, 0, 0 }, PP_E_ARG, "beyond its section" },
    { "last byte", { UINT32_MAX, ABS64, 0, 99, 0, 0 }, PP_E_ARG, "beyond its section" },
    { "far PC32", { FIELD, PC32, 0, 99, 0, 0 }, PP_E_RANGE, "target_0" },
    { "addend", { FIELD, SNIPPET_CALL_TYPE, 0, 99, 0, 4 }, PP_E_RANGE, "no other byte" },
    { "own code too far", { FIELD, SNIPPET_CALL_TYPE, 0, PP_SYMBOL_CODE, 0, 1l << 40 },
      PP_E_RANGE, "own code" },
#if defined __x86_64__
    { "before", { 1, GOT, 0, 99, 0, -4 }, PP_E_ARG, "begins before" },
    { "32", { FIELD, R_X86_64_32, 0, 0, 0, 1l << 32 }, PP_E_RANGE, "R_X86_64_32," },
    { "32S", { FIELD, R_X86_64_32S, 0, 0, 0, 1l << 31 }, PP_E_RANGE, "R_X86_64_32S," },
#else
    { "offset", { FIELD + 2, R_AARCH64_CALL26, 0, 99, 0, 0 }, PP_E_ARG, "misaligned offset" },
    { "instruction", { 0, R_AARCH64_CALL26, 0, 99, 0, 0 }, PP_E_ARG, "not an instruction" },
    { "value", { FIELD, R_AARCH64_CALL26, 0, PP_SYMBOL_CODE, 0, 2 }, PP_E_ARG, "misaligned value" },
    { "32", { FIELD, R_AARCH64_ABS32, 0, 0, 0, 1l << 32 }, PP_E_RANGE, "R_AARCH64_ABS32," },
#endif
};

START_TEST(a_refused_relocation_is_named_and_leaves_nothing)
{
    const struct refusal *refusal = &refusals[_i % (int) (sizeof refusals / sizeof *refusals)];
    bool own = _i >= (int) (sizeof refusals / sizeof *refusals);
    pp_trace *trace = (pp_trace *) &code;

    start(true, false);
    snippet_begin(&code);
    snippet_call(&code, symbols[1]);
    snippet_end(&code);
    /* Room for any field; then the relocation itself, after a good one. */
    for (int i = 0; i < 4; i++)
        snippet_end(&code);
    pp_reloc reloc = refusal->reloc;
    if (reloc.symbol == 99)
        reloc.symbol = symbols[0];
    snippet_reloc(&code, 0, 0, 0, 0);
    code.relocs[1] = reloc;

    snippet_reloc(&code, 0, 0, 0, 0);
    code.reloc_count = 1;
    free_trace(link_code(0)); /* what a first trace makes for good is there */
    code.reloc_count = 2;
    pp_pool_stats before = stats();
    pp_trace_desc desc = snippet_desc(&code);
    desc.flags = own ? PP_TRACE_OWN_TRAMPOLINES : 0;
    desc.name = "refused";
    desc.error = &reason;
    reason.reloc_index = 77;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), refusal->status);
    ck_assert_ptr_eq(trace, (pp_trace *) &code);
    ck_assert_int_eq(reason.status, refusal->status);
    ck_assert_uint_eq(reason.reloc_index, 1);
    ck_assert_msg(strstr(reason.text, refusal->text) != NULL, "%s: %s", refusal->what,
                  reason.text);
    ck_assert_msg(strstr(reason.text, "relocation 1 ") != NULL, "%s", reason.text);
    assert_same(&before);
    desc.error = NULL;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), refusal->status);
    assert_same(&before);
    stop();
}
END_TEST

START_TEST(descriptions_are_validated)
{
    start(false, false);
    snippet_begin(&code);
    snippet_call(&code, symbols[0]);
    snippet_end(&code);
    const pp_trace_desc good = snippet_desc(&code);
    pp_trace *trace = NULL;
    pp_trace_size size = { .size = sizeof size };
    pp_trace_desc desc;
    free_trace(link_code(0));
    pp_pool_stats before = stats();

#define REFUSED(expected, ...) \
    do { \
        desc = good; \
        __VA_ARGS__; \
        ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), expected); \
        ck_assert_int_eq(pp_trace_measure(pool, &desc, &size), expected); \
        ck_assert_ptr_null(trace); \
    } while (0)

    REFUSED(PP_E_ARG, desc.size = 0);
    REFUSED(PP_E_ARG, desc.size--);
    REFUSED(PP_E_ARG, desc.code = NULL);
    REFUSED(PP_E_ARG, desc.code_size = 0);
    REFUSED(PP_E_NOMEM, desc.code_size = SIZE_MAX);
    REFUSED(PP_E_NOMEM, desc.code_size = SIZE_MAX / 2 + 1);
    REFUSED(PP_E_NOMEM, desc.data = &desc; desc.data_size = SIZE_MAX);
    REFUSED(PP_E_ARG, desc.data_size = 1);
    REFUSED(PP_E_ARG, desc.align = 8);
    REFUSED(PP_E_ARG, desc.align = 24);
    REFUSED(PP_E_ARG, desc.align = 131072);
    REFUSED(PP_E_ARG, desc.data_align = 3);
    REFUSED(PP_E_ARG, desc.data_align = 8192);
    REFUSED(PP_E_ARG, desc.relocs = NULL);
    REFUSED(PP_E_ARG, desc.entry = code.size);
    REFUSED(PP_E_ARG, desc.entry = SIZE_MAX);
    REFUSED(PP_E_ARG, desc.flags = 2);
    REFUSED(PP_E_ARG, desc.flags = UINT32_MAX);
    REFUSED(PP_E_ARG, desc.frame = &(pp_frame_rule) { .size = 1 });
    if (isa_host.code_align > 1)
        REFUSED(PP_E_ARG, desc.entry = 2);
    desc = good;
    ck_assert_int_eq(pp_trace_link(NULL, &desc, &trace), PP_E_ARG);
    ck_assert_int_eq(pp_trace_link(pool, NULL, &trace), PP_E_ARG);
    ck_assert_int_eq(pp_trace_link(pool, &desc, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_trace_measure(pool, &desc, NULL), PP_E_ARG);
    size.size = 4;
    ck_assert_int_eq(pp_trace_measure(pool, &desc, &size), PP_E_ARG);
    assert_same(&before);
    stop();
}
END_TEST

START_TEST(a_trace_larger_than_a_region_is_refused)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) target_0 },
                                .region_bytes = 2 << 20 };
    pp_trace *trace = NULL;

    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    uint8_t *bytes = calloc(1, 4 << 20);
    pp_trace_desc desc = { .size = sizeof desc, .code = bytes, .code_size = 4 << 20 };
    pp_trace_size size = { .size = sizeof size };
    pp_pool_stats before = stats();
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_E_NOMEM);
    ck_assert_int_eq(pp_trace_measure(pool, &desc, &size), PP_E_NOMEM);
    assert_same(&before);
    desc.code_size = 512 << 10; /* less than half: islands may lie in the middle */
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    free(bytes);
    stop();
}
END_TEST

/* From here on the kernel refuses the pool's writes of code.  False: it does not (an emulator). */
static bool refuse_writes(pp_wx wx)
{
    if (wx == PP_WX_REMAP) { /* the end of a write maps the file again */
        const pp_fault script = { .call = PP_FAULT_MMAP, .first = 1 };
        return pp_fault_set(&script, 1) == PP_OK;
    }
    /* The start of a write makes private pages writable, which count as data. */
    const struct rlimit none = { 0, 0 };
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    void *probe = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(probe, MAP_FAILED);
    ck_assert_int_eq(setrlimit(RLIMIT_DATA, &none), 0);
    return mprotect(probe, page, PROT_READ | PROT_WRITE) != 0;
}

START_TEST(what_cannot_be_written_leaves_nothing)
{
    pp_wx wx = _i == 0 ? PP_WX_REMAP : PP_WX_FLIP;
    pp_trace *trace, *refused = NULL;
    if (SANITIZED) /* what is refused to the library is refused to the sanitizer, too */
        return;
    pp_reservation reservation = { .size = sizeof reservation };
    pp_trace_size size = { .size = sizeof size };

    pool = open_pool(false, false, wx);
    define_targets();
    snippet_begin(&code);
    snippet_call(&code, symbols[0]);
    snippet_end(&code);
    pp_trace_desc desc = snippet_desc(&code);
    desc.error = &reason;
    trace = link_code(0);
    free_trace(link_code(0)); /* metadata for a second one is there */
    if (refuse_writes(wx)) {
        pp_pool_stats before = stats();
        ck_assert_int_eq(pp_trace_measure(pool, &desc, &size), PP_OK);
        assert_same(&before);
        for (int i = 0; i < 3; i++) {
            ck_assert_int_ne(pp_trace_link(pool, &desc, &refused), PP_OK);
            ck_assert_str_ne(reason.system_call, "");
            assert_same(&before);
        }
        if (pp_trace_reserve(pool, 16, NULL, &reservation, &reason) == PP_OK) {
            ck_assert_int_ne(pp_trace_commit(pool, &reservation, 16, NULL, &refused), PP_OK);
            ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_OK);
        }
        assert_same(&before);
        run(trace);
        ck_assert_uint_eq(atomic_load(&hits[0]), 1);
    }
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    stop();
}
END_TEST

/* ---- handles ------------------------------------------------------------- */

START_TEST(handles_are_checked)
{
    start(false, false);
    snippet_begin(&code);
    snippet_end(&code);
    pp_trace *first = link_code(0), *other = link_code(0);
    const void *entry = pp_trace_entry(first);
    pp_trace_size size = { .size = sizeof size };

    ck_assert_int_eq(pp_trace_free(pool, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_trace_free(NULL, first), PP_E_ARG);
    ck_assert_int_eq(pp_trace_get_size(first, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_trace_get_size(NULL, &size), PP_E_ARG);
    ck_assert_int_eq(pp_trace_free(pool, first), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, first), PP_E_STALE);
    ck_assert_int_eq(pp_trace_get_size(first, &size), PP_E_STALE);
    ck_assert_ptr_null(pp_trace_entry(first));
    ck_assert_ptr_null(pp_trace_host(first));

    /* A new trace at the same address has another handle. */
    pp_trace *second = link_code(0);
    for (int i = 0; i < 100 && pp_trace_entry(second) != entry; i++)
        second = link_code(0);
    ck_assert_ptr_eq(pp_trace_entry(second), entry);
    ck_assert_ptr_ne(second, first);
    ck_assert_int_eq(pp_trace_free(pool, first), PP_E_STALE);
    ck_assert_ptr_null(pp_trace_entry(first));
    ck_assert_int_eq(pp_trace_free(pool, second), PP_OK);

    uintptr_t bits = (uintptr_t) other;
    for (int bit = 0; bit < 64; bit++) {
        pp_trace *wrong = (pp_trace *) (bits ^ (uintptr_t) 1 << bit);
        pp_status status = pp_trace_free(pool, wrong);
        ck_assert_msg(status == PP_E_STALE || status == PP_E_FAULT, "bit %d", bit);
        ck_assert_ptr_null(pp_trace_entry(wrong));
        ck_assert_ptr_null(pp_trace_host(wrong));
    }
    static const uintptr_t garbage[] = { 1, 15, 16, 0x1000, 0x7fffffffffff, 0x800000000000,
                                         0xdeadbeefdeadbeef, 0xffff800000000000, UINTPTR_MAX };
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        ck_assert_int_eq(pp_trace_free(pool, (pp_trace *) garbage[i]), PP_E_FAULT);
        ck_assert_int_eq(pp_trace_get_size((pp_trace *) garbage[i], &size), PP_E_FAULT);
        ck_assert_ptr_null(pp_trace_entry((pp_trace *) garbage[i]));
    }
    ck_assert_int_eq(pp_trace_free(pool, (pp_trace *) &code), PP_E_FAULT);
    ck_assert_int_eq(pp_trace_free(pool, (pp_trace *) (uintptr_t) target_0), PP_E_FAULT);

    pp_pool *stranger = open_pool(false, false, PP_WX_AUTO);
    ck_assert_int_eq(pp_trace_free(stranger, other), PP_E_FAULT);
    pp_pool_destroy(stranger);
    ck_assert_int_eq(pp_trace_free(pool, other), PP_OK);
    stop();
}
END_TEST

START_TEST(a_held_trace_cannot_be_released)
{
    pp_trace *held = NULL;

    start(false, false);
    snippet_begin(&code);
    snippet_end(&code);
    pp_trace_desc desc = snippet_desc(&code);
    desc.data = "data";
    desc.data_size = 5;
    pp_trace *trace = link_desc(&desc);
    uintptr_t entry = (uintptr_t) pp_trace_entry(trace);
    ck_assert_int_eq(trace_hold(pool, entry, &held), PP_OK);
    ck_assert_ptr_eq(held, trace);
    ck_assert_int_eq(trace_hold(pool, entry + code.size - 1, &held), PP_OK);
    ck_assert_int_eq(trace_hold(pool, entry + code.size, &held), PP_E_FAULT);
    ck_assert_int_eq(trace_hold(pool, (uintptr_t) target_0, &held), PP_E_FAULT);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_E_BUSY);
    trace_release(pool, trace);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_E_BUSY);
    ck_assert_uint_eq(entry, (uintptr_t) pp_trace_entry(trace));
    trace_release(pool, trace);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    ck_assert_int_eq(trace_hold(pool, entry, &held), PP_E_FAULT);
    stop();
}
END_TEST

/* ---- processes and threads ------------------------------------------------- */

/* A child runs and releases what it inherited, and links anew; the parent does not notice. */
START_TEST(a_child_leaves_the_parent_alone)
{
    start(true, false);
    snippet_begin(&code);
    snippet_call(&code, symbols[0]);
    snippet_end(&code);
    pp_trace *trace = link_code(0);
    pid_t child = fork();
    if (child == 0) {
        void (*entry)(void) = (void (*)(void)) (uintptr_t) pp_trace_entry(trace);
        pp_trace_desc desc = snippet_desc(&code);
        pp_trace *mine;
        entry();
        if (pp_trace_link(pool, &desc, &mine) != PP_OK || pp_trace_free(pool, trace) != PP_OK)
            _exit(1);
        ((void (*)(void)) (uintptr_t) pp_trace_entry(mine))();
        _exit(atomic_load(&hits[0]) == 2 && pp_pool_verify(pool, NULL) == PP_OK ? 0 : 2);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        ck_assert_int_eq(errno, EINTR);
    ck_assert_int_eq(status, 0);
    run(trace);
    ck_assert_uint_eq(atomic_load(&hits[0]), 1);
    free_trace(trace);
    stop();
}
END_TEST

enum { THREADS = 4, ROUNDS = 300, KEPT = 8 };

static atomic_bool failed;

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Link and run traces with some calls of some targets; the calls are counted in `calls`. */
static void *link_and_run(void *argument)
{
    unsigned *calls = argument;
    uint32_t random = (uint32_t) (uintptr_t) argument;
    pp_trace *kept[KEPT] = { NULL };
    struct snippet mine = { 0 };

    for (int round = 0; round < ROUNDS && !atomic_load(&failed); round++) {
        mine.size = mine.reloc_count = 0;
        snippet_begin(&mine);
        for (uint32_t n = 1 + next_random(&random) % 12; n > 0; n--) {
            uint32_t target = next_random(&random) % TARGETS;
            calls[target]++;
            if (next_random(&random) % 3 == 0)
                snippet_got_call(&mine, symbols[target]);
            else
                snippet_call(&mine, symbols[target]);
        }
        snippet_end(&mine);
        pp_trace_desc desc = snippet_desc(&mine);
        desc.flags = next_random(&random) % 4 == 0 ? PP_TRACE_OWN_TRAMPOLINES : 0;
        pp_trace **slot = &kept[next_random(&random) % KEPT];
        if (*slot != NULL && pp_trace_free(pool, *slot) != PP_OK)
            atomic_store(&failed, true);
        if (pp_trace_link(pool, &desc, slot) != PP_OK) {
            atomic_store(&failed, true);
            break;
        }
        ((void (*)(void)) (uintptr_t) pp_trace_entry(*slot))();
        if (pp_trace_at(pp_trace_entry(*slot)) != *slot)
            atomic_store(&failed, true);
    }
    for (int i = 0; i < KEPT; i++) {
        if (kept[i] != NULL && pp_trace_free(pool, kept[i]) != PP_OK)
            atomic_store(&failed, true);
    }
    snippet_free(&mine);
    return NULL;
}

START_TEST(threads_link_and_run_at_once)
{
    static unsigned calls[THREADS][TARGETS];
    pthread_t threads[THREADS];

    static const struct setting modes[] = {
        { false, false, false, PP_WX_AUTO }, { true, false, false, PP_WX_AUTO },
        { true, false, true, PP_WX_AUTO },   { true, false, false, PP_WX_FLIP },
    };

    start_with(&modes[_i]);
    memset(calls, 0, sizeof calls);
    atomic_store(&failed, false);
    for (int t = 0; t < THREADS; t++)
        ck_assert_int_eq(pthread_create(&threads[t], NULL, link_and_run, calls[t]), 0);
    /* The invariants hold at every moment, not only when everything is quiet. */
    for (int i = 0; i < 20; i++) {
        pp_status status = pp_pool_verify(pool, &reason);
        ck_assert_msg(status == PP_OK, "%s", reason.text);
    }
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    ck_assert(!atomic_load(&failed));
    for (int i = 0; i < TARGETS; i++) {
        unsigned expected = 0;
        for (int t = 0; t < THREADS; t++)
            expected += calls[t][i];
        ck_assert_uint_eq(atomic_load(&hits[i]), expected);
    }
    pp_pool_stats now = stats();
    ck_assert_uint_eq(now.traces, 0);
    ck_assert_uint_eq(now.spans, 0);
    ck_assert_uint_eq(now.trampolines, 0);
    ck_assert_uint_eq(now.trampoline_bytes, 0);
    ck_assert_uint_eq(now.literals, 0);
    ck_assert_uint_eq(now.literal_bytes, 0);
    stop();
}
END_TEST

/* Readers of handles while the traces behind them come and go. */
static atomic_bool done;
static _Atomic(pp_trace *) current;

static void *look(void *argument)
{
    (void) argument;
    while (!atomic_load(&done)) {
        pp_trace *trace = atomic_load(&current);
        void *host = pp_trace_host(trace);
        const void *entry = pp_trace_entry(trace);
        pp_trace_size size = { .size = sizeof size };
        pp_status status = pp_trace_get_size(trace, &size);
        /* A trace's host is what it was linked with, or nothing. */
        if ((host != NULL && host != &hits[0] && host != &hits[1]) ||
            (status == PP_OK && size.code != code.size))
            atomic_store(&failed, true);
        pp_trace *at = entry != NULL ? pp_trace_at(entry) : NULL;
        if (at != NULL && at != trace && at == atomic_load(&current) &&
            pp_trace_entry(trace) != NULL)
            atomic_store(&failed, true);
    }
    return NULL;
}

START_TEST(handles_may_be_asked_while_traces_go)
{
    pthread_t thread;

    start(false, false);
    snippet_begin(&code);
    snippet_end(&code);
    pp_trace_desc desc = snippet_desc(&code);
    pp_trace *trace;
    desc.host = &hits[0];
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    atomic_store(&current, trace);
    atomic_store(&done, false);
    atomic_store(&failed, false);
    ck_assert_int_eq(pthread_create(&thread, NULL, look, NULL), 0);
    for (int i = 0; i < 3000; i++) {
        pp_trace *next;
        desc.host = &hits[i & 1];
        desc.name = i & 2 ? "name" : NULL;
        if (pp_trace_free(pool, trace) != PP_OK || pp_trace_link(pool, &desc, &next) != PP_OK) {
            atomic_store(&failed, true);
            break;
        }
        trace = next;
        atomic_store(&current, trace);
    }
    atomic_store(&done, true);
    pthread_join(thread, NULL);
    ck_assert(!atomic_load(&failed));
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace");
    TCase *tests = tcase_create("trace");
    tcase_set_timeout(tests, 20);
    tcase_add_loop_test(tests, every_symbol_is_reached, 0, SETTINGS);
    tcase_add_loop_test(tests, tail_jumps_through_the_got, 0, SETTINGS);
    tcase_add_loop_test(tests, one_trampoline_serves_all_branches, 0, SETTINGS);
    tcase_add_loop_test(tests, a_loaded_address_is_the_symbols_own, 0, SETTINGS);
    tcase_add_loop_test(tests, data_is_behind_the_code, 0, SETTINGS);
    tcase_add_test(tests, near_symbols_are_used_directly);
    tcase_add_test(tests, name_host_and_entry_are_kept);
    tcase_add_test(tests, traces_share_what_they_have_in_common);
    tcase_add_test(tests, a_literal_and_a_trampoline_share_a_slot);
    tcase_add_loop_test(tests, slots_are_used_again, 0, 2);
    tcase_add_test(tests, a_full_island_is_no_obstacle);
    tcase_add_test(tests, a_trace_may_have_very_many_trampolines);
    tcase_add_loop_test(tests, a_refused_relocation_is_named_and_leaves_nothing, 0,
                        2 * (int) (sizeof refusals / sizeof *refusals));
    tcase_add_test(tests, descriptions_are_validated);
    tcase_add_test(tests, a_trace_larger_than_a_region_is_refused);
    tcase_add_loop_test(tests, what_cannot_be_written_leaves_nothing, 0, 2);
    tcase_add_test(tests, handles_are_checked);
    tcase_add_test(tests, a_held_trace_cannot_be_released);
    tcase_add_test(tests, a_child_leaves_the_parent_alone);
    tcase_add_loop_test(tests, threads_link_and_run_at_once, 0, 4);
    tcase_add_test(tests, handles_may_be_asked_while_traces_go);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
