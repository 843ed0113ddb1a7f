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

#include "linked.h"

#include <check.h>
#include <stdatomic.h>
#include <stdio.h>

#define WORD sizeof(uint64_t)

/* ---- settings ------------------------------------------------------------ */

static const struct setting settings[] = {
    { false, false, false, PP_WX_AUTO }, { false, true, false, PP_WX_AUTO },
    { true, false, false, PP_WX_AUTO },  { true, true, false, PP_WX_AUTO },
    { false, false, true, PP_WX_AUTO },  { false, true, true, PP_WX_AUTO },
    { true, false, true, PP_WX_AUTO },   { true, true, true, PP_WX_AUTO },
    { true, false, false, PP_WX_FLIP },  { true, true, true, PP_WX_FLIP },
    { true, false, false, PP_WX_REMAP }, { true, true, true, PP_WX_REMAP },
};

enum { SETTINGS = sizeof settings / sizeof *settings };
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
    tcase_add_test(tests, handles_are_checked);
    tcase_add_test(tests, a_held_trace_cannot_be_released);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
