/* SPDX-License-Identifier: MIT */
/*
 * Symbols that move: every form of reference follows, in every region, in every
 * mode; what cannot follow is refused.
 */
#include <config.h>

#include "isa/isa.h"
#include "link/island.h"
#include "link/link.h"
#include "link/retarget.h"
#include "memory/pool.h"

#include "snippet.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- targets, which say who they are -------------------------------------- */

enum { TARGETS = 4 };

static _Atomic int reached;

#define TARGET(n) static long target_##n(void) { atomic_store(&reached, n); return n; }
TARGET(0) TARGET(1) TARGET(2) TARGET(3)

static long (*const targets[TARGETS])(void) = { target_0, target_1, target_2, target_3 };

static const void *target(unsigned n)
{
    return (const void *) targets[n];
}

/* ---- a pool ------------------------------------------------------------------ */

static const struct setting {
    bool far, own, pads;
    pp_wx wx;
    uint32_t unwinders;
} settings[] = {
    { false, false, false, PP_WX_AUTO, 0 }, { false, true, false, PP_WX_AUTO, 0 },
    { true, false, false, PP_WX_AUTO, 0 },  { true, true, false, PP_WX_AUTO, 0 },
    { false, false, true, PP_WX_AUTO, 0 },  { false, true, true, PP_WX_AUTO, 0 },
    { true, false, true, PP_WX_AUTO, 0 },   { true, true, true, PP_WX_AUTO, 0 },
    { true, false, false, PP_WX_FLIP, 0 },  { false, true, true, PP_WX_FLIP, 0 },
    { false, false, false, PP_WX_REMAP, 0 }, { true, true, true, PP_WX_REMAP, 0 },
};

enum { SETTINGS = sizeof settings / sizeof *settings };

static pp_pool *pool;
static pp_error reason;
static struct snippet code;

static void start_with(const struct setting *setting)
{
    pp_pool_options options = { .size = sizeof options, .near = { target(0) },
                                .branch_range = setting->far ? 1 : 0, .wx = setting->wx,
                                .region_bytes = 2u << 20, .unwinders = setting->unwinders,
                                .flags = setting->pads ? PP_POOL_LANDING_PADS : 0,
                                .error = &reason };

    reason = (pp_error) { .size = sizeof reason };
    ck_assert_msg(pp_pool_create(&options, &pool) == PP_OK, "%s", reason.text);
}

static void start(void)
{
    start_with(&settings[0]);
}

/* Each rule that is told has a region. */
static void start_telling(void)
{
    struct setting setting = settings[0];
    setting.unwinders = PP_UNWIND_LIBGCC;
    start_with(&setting);
}

static void verify(void)
{
    reason.text[0] = '\0';
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
}

static void stop(void)
{
    snippet_free(&code);
    verify();
    pp_pool_destroy(pool);
}

static pp_pool_stats stats(void)
{
    pp_pool_stats now = { .size = sizeof now };

    ck_assert_int_eq(pp_pool_get_stats(pool, &now), PP_OK);
    return now;
}

static pp_symbol declare(const char *name, unsigned n)
{
    pp_symbol symbol = pp_symbol_declare(pool, name, target(n), PP_SYMBOL_RETARGETABLE);

    ck_assert_uint_ne(symbol, PP_SYMBOL_NONE);
    return symbol;
}

static void retarget(pp_symbol symbol, unsigned n)
{
    ck_assert_msg(pp_symbol_retarget(pool, symbol, target(n), &reason) == PP_OK, "%s",
                  reason.text);
    ck_assert_ptr_eq(pp_symbol_address(pool, symbol), target(n));
}

/* ---- traces of one reference ------------------------------------------------ */

enum form { CALL, TAIL, GOT_CALL, GOT_TAIL, GOT_LOAD, FORMS };

static bool ends_itself(enum form form)
{
    return form == TAIL || form == GOT_TAIL;
}

static void emit(enum form form, pp_symbol symbol)
{
    static void (*const forms[FORMS])(struct snippet *, pp_symbol) = {
        snippet_call, snippet_tail, snippet_got_call, snippet_got_tail, snippet_got_load
    };

    code.size = code.reloc_count = 0;
    snippet_begin(&code);
    forms[form](&code, symbol);
    if (!ends_itself(form))
        snippet_end(&code);
}

static pp_trace *link_form(enum form form, pp_symbol symbol, bool own, const pp_frame_rule *rule)
{
    pp_trace *trace = NULL;

    emit(form, symbol);
    pp_trace_desc desc = snippet_desc(&code);
    desc.flags = own ? PP_TRACE_OWN_TRAMPOLINES : 0;
    desc.frame = rule;
    desc.error = &reason;
    ck_assert_msg(pp_trace_link(pool, &desc, &trace) == PP_OK, "%s", reason.text);
    return trace;
}

static void assert_leads_to(const pp_trace *trace, enum form form, unsigned n)
{
    long (*run)(void) = (long (*)(void)) pp_trace_entry(trace);

    if (form == GOT_LOAD) {
        ck_assert_int_eq(run(), (long) target(n));
        return;
    }
    atomic_store(&reached, -1);
    ck_assert_int_eq(run(), n);
    ck_assert_int_eq(atomic_load(&reached), n);
}

static pp_trace_size size_of(const pp_trace *trace)
{
    pp_trace_size size = { .size = sizeof size };

    ck_assert_int_eq(pp_trace_get_size(trace, &size), PP_OK);
    return size;
}

/* ---- references follow --------------------------------------------------------- */

START_TEST(every_reference_follows)
{
    const struct setting *setting = &settings[_i];
    pp_trace *traces[FORMS];

    start_with(setting);
    pp_symbol symbol = declare("moves", 0);
    for (unsigned form = 0; form < FORMS; form++) {
        pp_trace_size measured = { .size = sizeof measured };
        emit(form, symbol);
        pp_trace_desc desc = snippet_desc(&code);
        desc.flags = setting->own ? PP_TRACE_OWN_TRAMPOLINES : 0;
        ck_assert_int_eq(pp_trace_measure(pool, &desc, &measured), PP_OK);
        traces[form] = link_form(form, symbol, setting->own, NULL);
        assert_leads_to(traces[form], form, 0);

        /* Its trampoline, if it has one, is in the trace; its literal never. */
        pp_trace_size size = size_of(traces[form]);
        ck_assert_uint_eq(size.trampolines, setting->own && (form == CALL || form == TAIL));
        ck_assert_uint_eq(size.literals, 0);
        ck_assert_uint_eq(size.literal_bytes, 0);
        ck_assert_uint_eq(measured.total, size.total);
        ck_assert_uint_eq(measured.trampoline_bytes, size.trampoline_bytes);
        ck_assert_uint_eq(measured.shared_new, size.shared_new);
        ck_assert_uint_eq(size.shared_new, form == CALL);
    }
    for (unsigned n = 1; n <= TARGETS; n++) {
        retarget(symbol, n % TARGETS);
        for (unsigned form = 0; form < FORMS; form++)
            assert_leads_to(traces[form], form, n % TARGETS);
        verify();
    }
    pp_pool_stats now = stats();
    ck_assert_uint_eq(now.retargets, TARGETS);
    ck_assert_uint_eq(now.trampolines, setting->own ? 2 : 1);
    ck_assert_uint_eq(now.literals, setting->own ? 1 : 0);
    for (unsigned form = 0; form < FORMS; form++)
        ck_assert_int_eq(pp_trace_free(pool, traces[form]), PP_OK);
    now = stats();
    ck_assert_uint_eq(now.trampolines + now.literals, 0);
    ck_assert_uint_eq(now.trampoline_bytes + now.literal_bytes, 0);

    /* Nobody refers to it: it moves all the same, and the next trace knows. */
    retarget(symbol, 2);
    pp_trace *late = link_form(CALL, symbol, setting->own, NULL);
    assert_leads_to(late, CALL, 2);
    stop();
}
END_TEST

/* Far away: no direct branch reaches it, whatever the symbol was declared with. */
START_TEST(the_way_leads_out_of_reach_and_back)
{
    start();
    pp_symbol symbol = declare("moves", 0);
    pp_trace *load = link_form(GOT_LOAD, symbol, false, NULL);
    pp_trace *call = link_form(CALL, symbol, false, NULL);
    const void *nowhere = (const void *) (((uintptr_t) 1 << 46) + 4096);
    ck_assert_int_eq(pp_symbol_retarget(pool, symbol, nowhere, NULL), PP_OK);
    long (*run)(void) = (long (*)(void)) pp_trace_entry(load);
    ck_assert_int_eq(run(), (long) nowhere);
    verify();
    retarget(symbol, 3);
    assert_leads_to(call, CALL, 3);
    stop();
}
END_TEST

/* A literal is a word of the region's data, with room between it and all code. */
START_TEST(literals_keep_away_from_code)
{
    start_with(&settings[_i]);
    pp_symbol symbol = declare("moves", 0);
    pp_trace *trace = link_form(CALL, symbol, settings[_i].own, NULL);
    struct link *link = link_of(pool);
    uintptr_t place = symbol_find(&link->symbols, symbol)->retarget->first.place;
    const struct region *region = region_at((uintptr_t) pp_trace_entry(trace));
    ck_assert_uint_eq(place % sizeof(uint64_t), 0);
    ck_assert_uint_ge(place, region->literal_lo);
    ck_assert_uint_le(place + sizeof(uint64_t), region->literal_hi);
    ck_assert(place >= region->code_hi + 4096 || place + 4096 <= region->code_lo);
    stop();
}
END_TEST

/* One store for each region that refers to the symbol. */
START_TEST(all_regions_follow)
{
    enum { REGIONS = 3 };
    const pp_frame_rule leaf = { .size = sizeof leaf, .kind = PP_FRAME_LEAF };
    const pp_frame_rule record = { .size = sizeof record, .kind = PP_FRAME_RECORD };
    const pp_frame_rule *const rules[REGIONS] = { NULL, &leaf, &record };
    pp_trace *traces[REGIONS];

    start_telling();
    pp_symbol symbol = declare("moves", 0);
    for (unsigned i = 0; i < REGIONS; i++)
        traces[i] = link_form(CALL, symbol, false, rules[i]);
    ck_assert_uint_eq(stats().trampolines, REGIONS);
    retarget(symbol, 1);
    for (unsigned i = 0; i < REGIONS; i++)
        assert_leads_to(traces[i], CALL, 1);
    verify();

    /* In any order they are forgotten again, and entered again. */
    for (unsigned gone = 0; gone < REGIONS; gone++) {
        ck_assert_int_eq(pp_trace_free(pool, traces[gone]), PP_OK);
        retarget(symbol, 2);
        for (unsigned i = 0; i < REGIONS; i++)
            if (i != gone)
                assert_leads_to(traces[i], CALL, 2);
        verify();
        traces[gone] = link_form(CALL, symbol, false, rules[gone]);
        retarget(symbol, 3);
        for (unsigned i = 0; i < REGIONS; i++)
            assert_leads_to(traces[i], CALL, 3);
        verify();
    }
    stop();
}
END_TEST

START_TEST(symbols_move_by_themselves)
{
    pp_trace *traces[TARGETS];
    pp_symbol symbols[TARGETS];

    start();
    for (unsigned i = 0; i < TARGETS; i++) {
        char name[8];
        snprintf(name, sizeof name, "s%u", i);
        symbols[i] = declare(name, 0);
        traces[i] = link_form(CALL, symbols[i], false, NULL);
    }
    for (unsigned i = 0; i < TARGETS; i++)
        retarget(symbols[i], i);
    for (unsigned i = 0; i < TARGETS; i++)
        assert_leads_to(traces[i], CALL, i);
    ck_assert_uint_eq(stats().trampolines, TARGETS);
    stop();
}
END_TEST

/* ---- declaring ------------------------------------------------------------------ */

START_TEST(declarations_agree_or_are_refused)
{
    const uint32_t moves = PP_SYMBOL_RETARGETABLE;

    start();
    pp_symbol symbol = declare("f", 0);
    ck_assert_uint_eq(declare("f", 0), symbol);
    ck_assert_uint_eq(pp_symbol_define(pool, "f", target(0)), PP_SYMBOL_NONE);
    ck_assert_uint_eq(pp_symbol_declare(pool, "f", target(0), 0), PP_SYMBOL_NONE);
    ck_assert_uint_eq(pp_symbol_declare(pool, "f", target(1), moves), PP_SYMBOL_NONE);
    retarget(symbol, 1);
    ck_assert_uint_eq(declare("f", 0), symbol);
    ck_assert_uint_eq(declare("f", 1), symbol);
    ck_assert_uint_eq(pp_symbol_declare(pool, "f", target(2), moves), PP_SYMBOL_NONE);

    pp_symbol fixed = pp_symbol_define(pool, "g", target(0));
    ck_assert_uint_ne(fixed, PP_SYMBOL_NONE);
    ck_assert_uint_eq(pp_symbol_declare(pool, "g", target(0), 0), fixed);
    ck_assert_uint_eq(pp_symbol_declare(pool, "g", target(0), moves), PP_SYMBOL_NONE);

    /* By value alone: what moves is not what does not, and not what has a name. */
    pp_symbol value = pp_symbol_define(pool, NULL, target(0));
    ck_assert_uint_eq(value, fixed);
    pp_symbol moving = pp_symbol_declare(pool, NULL, target(0), moves);
    ck_assert_uint_ne(moving, PP_SYMBOL_NONE);
    ck_assert_uint_ne(moving, value);
    ck_assert_uint_ne(moving, symbol);
    retarget(moving, 3);
    ck_assert_uint_eq(pp_symbol_declare(pool, NULL, target(0), moves), moving);
    ck_assert_uint_eq(pp_symbol_define(pool, NULL, target(0)), value);
    ck_assert_ptr_eq(pp_symbol_address(pool, symbol), target(1));
    ck_assert_ptr_eq(pp_symbol_address(pool, value), target(0));

    ck_assert_uint_eq(pp_symbol_declare(pool, "h", target(0), 2), PP_SYMBOL_NONE);
    ck_assert_uint_eq(pp_symbol_declare(pool, "h", NULL, moves), PP_SYMBOL_NONE);
    ck_assert_uint_eq(pp_symbol_declare(NULL, "h", target(0), moves), PP_SYMBOL_NONE);
    const void *odd = (const char *) target(0) + 1;
    ck_assert_uint_eq(pp_symbol_declare(pool, "h", odd, moves) == PP_SYMBOL_NONE,
                      isa_host.code_align > 1);
    stop();
}
END_TEST

/* The tables of names and addresses are made anew as they grow. */
START_TEST(symbols_are_found_after_many_others)
{
    enum { MANY = 1000 };
    pp_symbol symbols[MANY];
    char name[16];

    start();
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "s%u", i);
        symbols[i] = declare(i % 2 == 0 ? name : NULL, 0);
        retarget(symbols[i], i % TARGETS);
    }
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "s%u", i);
        ck_assert_uint_eq(declare(i % 2 == 0 ? name : NULL, 0), symbols[i]);
        ck_assert_ptr_eq(pp_symbol_address(pool, symbols[i]),
                         target(i % 2 == 0 ? i % TARGETS : (MANY - 1) % TARGETS));
    }
    stop();
}
END_TEST

START_TEST(what_does_not_move_is_refused)
{
    start();
    pp_symbol fixed = pp_symbol_define(pool, "fixed", target(0));
    pp_symbol moves = declare("moves", 0);
    const struct {
        pp_symbol symbol;
        const void *address;
        pp_status status;
    } cases[] = {
        { fixed, target(1), PP_E_UNSUPPORTED },
        { PP_SYMBOL_CODE, target(1), PP_E_UNSUPPORTED },
        { PP_SYMBOL_DATA, target(1), PP_E_UNSUPPORTED },
        { PP_SYMBOL_LEAVE, target(1), PP_E_UNSUPPORTED },
        { PP_SYMBOL_PATCHPOINT_GPR, target(1), PP_E_UNSUPPORTED },
        { PP_SYMBOL_PATCHPOINT_V128, target(1), PP_E_UNSUPPORTED },
        { PP_SYMBOL_NONE, target(1), PP_E_ARG },
        { moves + 1, target(1), PP_E_ARG },
        { UINT32_MAX, target(1), PP_E_ARG },
        { moves, NULL, PP_E_ARG },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        reason.text[0] = '\0';
        ck_assert_int_eq(pp_symbol_retarget(pool, cases[i].symbol, cases[i].address, &reason),
                         cases[i].status);
        ck_assert_str_ne(reason.text, "");
        ck_assert_int_eq(reason.status, cases[i].status);
    }
    ck_assert_int_eq(pp_symbol_retarget(NULL, moves, target(1), &reason), PP_E_ARG);
    const void *odd = (const char *) target(1) + 1;
    ck_assert_int_eq(pp_symbol_retarget(pool, moves, odd, NULL),
                     isa_host.code_align > 1 ? PP_E_ARG : PP_OK);
    if (isa_host.code_align > 1)
        ck_assert_ptr_eq(pp_symbol_address(pool, moves), target(0));
    ck_assert_ptr_eq(pp_symbol_address(pool, fixed), target(0));
    ck_assert_uint_eq(stats().retargets, isa_host.code_align == 1);
    stop();
}
END_TEST

/* What would bake the address in. */
START_TEST(a_fixed_reference_is_refused)
{
    start();
    pp_symbol symbol = declare("moves", 0);
    pp_pool_stats before = stats();
    for (unsigned i = 0; i < 3; i++) {
        uint8_t data[8] = { 0 };
        pp_trace *trace = NULL;
        code.size = code.reloc_count = 0;
        snippet_begin(&code);
        snippet_call(&code, symbol);
        if (i == 1)
            snippet_load(&code, symbol);
        snippet_end(&code);
        pp_trace_desc desc = snippet_desc(&code);
        pp_reloc relocs[8];
        memcpy(relocs, code.relocs, code.reloc_count * sizeof *relocs);
        desc.relocs = relocs;
        desc.error = &reason;
        desc.data = data;
        desc.data_size = sizeof data;
        size_t at = 1;
        if (i == 0)
            relocs[desc.reloc_count++] = (pp_reloc) { .type = SNIPPET_ABS64, .section = PP_IN_DATA,
                                                      .symbol = symbol };
        if (i == 2) {
            relocs[0].addend += 4;
            at = 0;
        }
        pp_trace_size size = { .size = sizeof size };
        ck_assert_int_eq(pp_trace_measure(pool, &desc, &size), PP_E_ARG);
        ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_E_ARG);
        ck_assert_uint_eq(reason.reloc_index, at);
        ck_assert_ptr_nonnull(strstr(reason.text, "moves"));
        ck_assert_ptr_nonnull(strstr(reason.text, "retargeted"));
        ck_assert_ptr_null(trace);
    }
    pp_pool_stats after = stats();
    ck_assert_uint_eq(after.spans, before.spans);
    ck_assert_uint_eq(after.trampolines + after.literals, 0);
    stop();
}
END_TEST

/* ---- reservations, islands ------------------------------------------------------ */

START_TEST(reservations_follow)
{
    const struct setting *setting = &settings[_i];
    pp_reservation reservation = { .size = sizeof reservation };
    pp_trace *trace = NULL;

    start_with(setting);
    pp_symbol symbol = declare("moves", 0);
    emit(CALL, symbol);
    ck_assert_int_eq(pp_trace_reserve(pool, 256, NULL, &reservation, NULL), PP_OK);
    memcpy(reservation.write, code.code, code.size);
    pp_trace_desc desc = snippet_desc(&code);
    desc.error = &reason;
    if (setting->own) {
        desc.flags = PP_TRACE_OWN_TRAMPOLINES; /* for which there is no room */
        ck_assert_int_eq(pp_trace_commit(pool, &reservation, code.size, &desc, &trace),
                         PP_E_RANGE);
        desc.flags = 0;
    }
    ck_assert_msg(pp_trace_commit(pool, &reservation, code.size, &desc, &trace) == PP_OK, "%s",
                  reason.text);
    assert_leads_to(trace, CALL, 0);
    retarget(symbol, 1);
    assert_leads_to(trace, CALL, 1);
    stop();
}
END_TEST

/* Where the island is full there is no literal to share: the trace goes elsewhere. */
START_TEST(a_full_island_sends_it_to_another_region)
{
    pp_trace *full, *own, *before;

    start_with(&settings[2 + _i]); /* far: shared, or its own */
    bool wants_own = settings[2 + _i].own;
    pp_symbol early = declare("early", 0);
    before = link_form(CALL, early, wants_own, NULL);
    const struct region *region = region_at((uintptr_t) pp_trace_entry(before));
    uint32_t room = island_of(region)->capacity - 1;

    code.size = code.reloc_count = 0;
    snippet_begin(&code);
    for (uint32_t i = 0; i < room; i++)
        snippet_call(&code, pp_symbol_define(pool, NULL, (char *) target(0) + 16 * (i + 1)));
    snippet_end(&code);
    pp_trace_desc desc = snippet_desc(&code);
    desc.error = &reason;
    ck_assert_msg(pp_trace_link(pool, &desc, &full) == PP_OK, "%s", reason.text);
    ck_assert_uint_eq(island_of(region)->live, room + 1);

    /* What is in the island can be used by more traces; what is not brings its own. */
    pp_trace *again = link_form(CALL, early, wants_own, NULL);
    ck_assert_ptr_eq(region_at((uintptr_t) pp_trace_entry(again)), region);
    own = link_form(CALL, pp_symbol_define(pool, "fixed", target(2)), false, NULL);
    ck_assert_ptr_eq(region_at((uintptr_t) pp_trace_entry(own)), region);
    ck_assert_uint_eq(size_of(own).trampolines, 1);
    ck_assert_uint_eq(stats().fallbacks[PP_FALLBACK_ISLAND], 1);
    char text[160];
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_ISLAND, text, sizeof text), PP_OK);
    ck_assert_ptr_nonnull(strstr(text, "full"));

    pp_symbol late = declare("late", 1);
    pp_trace_size measured = { .size = sizeof measured };
    emit(CALL, late);
    desc = snippet_desc(&code);
    desc.flags = wants_own ? PP_TRACE_OWN_TRAMPOLINES : 0;
    ck_assert_int_eq(pp_trace_measure(pool, &desc, &measured), PP_OK);
    pp_trace *away = link_form(CALL, late, wants_own, NULL);
    ck_assert_ptr_ne(region_at((uintptr_t) pp_trace_entry(away)), region);
    ck_assert_uint_eq(measured.total, size_of(away).total);
    retarget(late, 2);
    retarget(early, 3);
    assert_leads_to(away, CALL, 2);
    assert_leads_to(before, CALL, 3);
    assert_leads_to(again, CALL, 3);
    assert_leads_to(own, CALL, 2);
    stop();
}
END_TEST

/* Slots change hands; a symbol's move never reaches what was its slot. */
START_TEST(a_slot_of_another_is_left_alone)
{
    start();
    pp_symbol moves = declare("moves", 0), other = declare("other", 1);
    pp_trace *first = link_form(CALL, moves, false, NULL);
    ck_assert_int_eq(pp_trace_free(pool, first), PP_OK);
    pp_trace *second = link_form(CALL, other, false, NULL);
    const struct region *region = region_at((uintptr_t) pp_trace_entry(second));
    ck_assert_uint_eq(island_of(region)->used, 1);
    retarget(moves, 3);
    assert_leads_to(second, CALL, 1);
    verify();
    stop();
}
END_TEST

/* The check sees a literal that is not what it should be. */
START_TEST(verify_reads_the_literals)
{
    start();
    pp_symbol moves = declare("moves", 0);
    link_form(CALL, moves, false, NULL);
    struct link *link = link_of(pool);
    struct retarget *retarget = symbol_find(&link->symbols, moves)->retarget;
    uint64_t *literal = (uint64_t *) retarget->first.place, good = *literal;
    *literal = (uintptr_t) target(1);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_E_FAULT);
    *literal = good;
    uintptr_t place = retarget->first.place;
    retarget->first.place = 0;
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_E_FAULT);
    retarget->first.place = place;
    stop();
}
END_TEST

/* ---- others at work ----------------------------------------------------------------- */

static atomic_bool stopping;
static pp_symbol busy;

static void *move_forever(void *unused)
{
    for (unsigned n = 0; !atomic_load(&stopping); n++)
        if (pp_symbol_retarget(pool, busy, target(n % TARGETS), NULL) != PP_OK)
            return "refused";
    (void) unused;
    return NULL;
}

/* A literal that is made while the symbol moves has the address that it ends with. */
START_TEST(links_race_with_moves)
{
    enum { ROUNDS = 300 };
    pthread_t mover;
    void *complaint;

    start();
    busy = declare("busy", 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        atomic_store(&stopping, false);
        ck_assert_int_eq(pthread_create(&mover, NULL, move_forever, NULL), 0);
        pp_trace *trace = NULL;
        for (unsigned i = 0; i < 50; i++) {
            if (trace != NULL)
                ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
            trace = link_form(CALL, busy, i % 2, NULL);
        }
        atomic_store(&stopping, true);
        ck_assert_int_eq(pthread_join(mover, &complaint), 0);
        ck_assert_ptr_null(complaint);
        uintptr_t place =
            symbol_find(&link_of(pool)->symbols, busy)->retarget->first.place;
        ck_assert_uint_eq(*(const uint64_t *) place, (uintptr_t) pp_symbol_address(pool, busy));
        ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    }
    stop();
}
END_TEST

static int child_moves(pp_trace *trace, pp_symbol symbol)
{
    long (*run)(void) = (long (*)(void)) pp_trace_entry(trace);

    if (run() != 1)
        return 1;
    if (pp_symbol_retarget(pool, symbol, target(2), NULL) != PP_OK || run() != 2)
        return 2;
    emit(CALL, symbol);
    pp_trace_desc desc = snippet_desc(&code);
    pp_trace *own;
    if (pp_trace_link(pool, &desc, &own) != PP_OK)
        return 3;
    long (*fresh)(void) = (long (*)(void)) pp_trace_entry(own);
    if (region_at((uintptr_t) run) == region_at((uintptr_t) fresh) || fresh() != 2)
        return 4;
    if (pp_symbol_retarget(pool, symbol, target(3), NULL) != PP_OK || run() != 3 || fresh() != 3)
        return 5;
    return pp_pool_verify(pool, NULL) == PP_OK ? 0 : 6;
}

/* Parent and child move the symbol each for itself, also in traces that both have. */
START_TEST(a_child_moves_for_itself)
{
    start_with(&settings[_i]);
    pp_symbol symbol = declare("moves", 0);
    pp_trace *trace = link_form(CALL, symbol, settings[_i].own, NULL);
    retarget(symbol, 1);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(child_moves(trace, symbol));
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(WIFEXITED(status), 1);
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    assert_leads_to(trace, CALL, 1);
    retarget(symbol, 0);
    assert_leads_to(trace, CALL, 0);
    stop();
}
END_TEST

/* A fork in the middle of another thread's moves leaves the child with a lock that is free. */
START_TEST(a_child_of_a_busy_parent_can_move)
{
    pthread_t mover;

    start();
    busy = declare("busy", 0);
    pp_trace *trace = link_form(CALL, busy, false, NULL);
    atomic_store(&stopping, false);
    ck_assert_int_eq(pthread_create(&mover, NULL, move_forever, NULL), 0);
    for (unsigned i = 0; i < 200; i++) {
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            alarm(20);
            long (*run)(void) = (long (*)(void)) pp_trace_entry(trace);
            _exit(pp_symbol_retarget(pool, busy, target(2), NULL) == PP_OK && run() == 2 ? 0 : 1);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
    }
    atomic_store(&stopping, true);
    pthread_join(mover, NULL);
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("retarget");
    TCase *tests = tcase_create("retarget");

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, every_reference_follows, 0, SETTINGS);
    tcase_add_test(tests, the_way_leads_out_of_reach_and_back);
    tcase_add_loop_test(tests, literals_keep_away_from_code, 0, SETTINGS);
    tcase_add_test(tests, all_regions_follow);
    tcase_add_test(tests, symbols_move_by_themselves);
    tcase_add_test(tests, declarations_agree_or_are_refused);
    tcase_add_test(tests, symbols_are_found_after_many_others);
    tcase_add_test(tests, what_does_not_move_is_refused);
    tcase_add_test(tests, a_fixed_reference_is_refused);
    tcase_add_loop_test(tests, reservations_follow, 0, SETTINGS);
    tcase_add_loop_test(tests, a_full_island_sends_it_to_another_region, 0, 2);
    tcase_add_test(tests, a_slot_of_another_is_left_alone);
    tcase_add_test(tests, verify_reads_the_literals);
    tcase_add_test(tests, links_race_with_moves);
    tcase_add_loop_test(tests, a_child_moves_for_itself, 0, 2);
    tcase_add_test(tests, a_child_of_a_busy_parent_can_move);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
