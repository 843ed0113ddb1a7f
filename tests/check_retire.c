/* SPDX-License-Identifier: MIT */
/* Retiring and reclaiming: what runs on, what stacks hold, what comes back, every wrong call. */
#include <config.h>

#include "isa/isa.h"
#include "link/trace.h"
#include "memory/state.h"

#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static pp_pool *pool, *other;
static pp_symbol symbol;
static pp_error reason;
static _Atomic unsigned hits;

static void target(void)
{
    atomic_fetch_add(&hits, 1);
}

static void start(void)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) target },
                                .branch_range = 1, .error = &reason };
    reason = (pp_error) { .size = sizeof reason };
    ck_assert_msg(pp_pool_create(&options, &pool) == PP_OK, "%s", reason.text);
    ck_assert_msg(pp_pool_create(NULL, &other) == PP_OK, "%s", reason.text);
    symbol = pp_symbol_define(pool, "target", (void *) target);
    atomic_store(&hits, 0);
}

static void stop(void)
{
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    pp_pool_destroy(pool);
    pp_pool_destroy(other);
}

static pp_pool_stats stats(void)
{
    pp_pool_stats now = { .size = sizeof now };
    ck_assert_int_eq(pp_pool_get_stats(pool, &now), PP_OK);
    return now;
}

/* A function that calls `target` through a shared trampoline. */
static pp_trace *make_trace(const char *name)
{
    struct snippet code = { 0 };
    pp_trace *trace = NULL;
    snippet_begin(&code);
    snippet_call(&code, symbol);
    snippet_end(&code);
    pp_trace_desc desc = snippet_desc(&code);
    desc.name = name;
    desc.host = &pool;
    desc.error = &reason;
    ck_assert_msg(pp_trace_link(pool, &desc, &trace) == PP_OK, "%s", reason.text);
    snippet_free(&code);
    return trace;
}

static pp_span *make_span(size_t bytes)
{
    pp_span *span = NULL;
    pp_span_desc desc = { .size = sizeof desc, .bytes = bytes, .error = &reason };
    pp_span_place place = { .size = sizeof place };
    ck_assert_msg(pp_span_alloc(pool, &desc, &span, &place) == PP_OK, "%s", reason.text);
    memset(place.write, 0, bytes);
    struct snippet code = { 0 };
#if defined __x86_64__
    SNIPPET_CODE(&code, 0xb8, 42, 0, 0, 0, 0xc3);
#else
    SNIPPET_WORDS(&code, 0x52800540, 0xd65f03c0);
#endif
    memcpy(place.write, code.code, code.size < bytes ? code.size : bytes);
    snippet_free(&code);
    ck_assert_msg(pp_span_publish(pool, &span, 1, &reason) == PP_OK, "%s", reason.text);
    return span;
}

static uintptr_t start_of(const pp_span *span)
{
    pp_span_place place = { .size = sizeof place };
    ck_assert_int_eq(pp_span_get_place(span, &place), PP_OK);
    return (uintptr_t) place.execute;
}

static pp_reclaim_result reclaim(pp_ticket ticket, const pp_stack *stacks, size_t count)
{
    pp_reclaim_result result = { .size = sizeof result };
    ck_assert_int_eq(pp_reclaim(pool, ticket, stacks, count, &result), PP_OK);
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    return result;
}

static bool is_traps(uintptr_t at, size_t size)
{
    for (size_t i = 0; i + isa_host.trap_size <= size; i += isa_host.trap_size)
        if (memcmp((const char *) at + i, &isa_host.trap, isa_host.trap_size) != 0)
            return false;
    return true;
}

START_TEST(retired_code_runs_on)
{
    start();
    pp_pool_stats before = stats();
    pp_trace *trace = make_trace("old");
    void (*run)(void) = (void (*)(void)) (uintptr_t) pp_trace_entry(trace);
    pp_trace_size size = { .size = sizeof size };
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);

    /* It runs, through its trampoline, and is named. */
    run();
    ck_assert_uint_eq(atomic_load(&hits), 1);
    ck_assert_ptr_eq(pp_trace_at((const void *) run), trace);
    ck_assert_ptr_eq(pp_trace_host(trace), &pool);
    /* The handle is stale for everything else. */
    ck_assert_ptr_null(pp_trace_entry(trace));
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_E_STALE);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_E_STALE);
    ck_assert_int_eq(pp_trace_get_size(trace, &size), PP_E_STALE);
    ck_assert_int_eq(pp_span_retire(pool, (pp_span *) trace), PP_E_STALE);
    pp_pool_stats now = stats();
    ck_assert_uint_eq(now.retired_spans, 1);
    ck_assert_uint_eq(now.retired, now.requested - before.requested);
    ck_assert_uint_eq(now.traces, 0);
    ck_assert_uint_eq(now.trampolines, 1);
    ck_assert_int_eq(pp_pool_verify(pool, &reason), PP_OK);

    /* An earlier ticket does not cover it, a later one does. */
    pp_trace *later = make_trace("later");
    pp_ticket ticket = pp_retire_ticket(pool);
    const void *entry = pp_trace_entry(later);
    ck_assert_int_eq(pp_trace_retire(pool, later), PP_OK);
    pp_reclaim_result result = reclaim(ticket, NULL, 0);
    ck_assert_uint_eq(result.freed, 1);
    ck_assert_uint_eq(result.freed_bytes, now.retired);
    ck_assert_uint_eq(result.held, 0);
    ck_assert_uint_eq(result.waiting, 1);
    ck_assert_ptr_null(pp_trace_at((const void *) run));
    ck_assert_ptr_null(pp_trace_host(trace));
    ck_assert(is_traps((uintptr_t) run, 16));
    ck_assert_uint_eq(stats().trampolines, 1);
    ((void (*)(void)) (uintptr_t) entry)();
    ck_assert_uint_eq(atomic_load(&hits), 2);
    result = reclaim(ticket, NULL, 0);
    ck_assert_uint_eq(result.freed, 0);
    ck_assert_uint_eq(result.waiting, 1);
    result = reclaim(pp_retire_ticket(pool), NULL, 0);
    ck_assert_uint_eq(result.freed, 1);
    now = stats();
    ck_assert_uint_eq(now.trampolines, 0);
    ck_assert_uint_eq(now.spans, before.spans);
    ck_assert_uint_eq(now.used, before.used);
    ck_assert_uint_eq(now.retired_spans + now.retired, 0);
    stop();
}
END_TEST

START_TEST(spans_retire_too)
{
    start();
    enum { SPANS = 1000 };
    static pp_span *spans[SPANS];
    for (size_t i = 0; i < SPANS; i++)
        spans[i] = make_span(1 + i);
    pp_pool_stats before = stats();
    pp_span_place place = { .size = sizeof place };
    for (size_t i = 0; i < SPANS; i += 2) {
        uintptr_t at = start_of(spans[i]);
        ck_assert_int_eq(pp_span_retire(pool, spans[i]), PP_OK);
        ck_assert_ptr_eq(pp_span_at((const void *) (at + i)), spans[i]);
        if (i >= 8)
            ck_assert_int_eq(((int (*)(void)) at)(), 42);
        ck_assert_int_eq(pp_span_retire(pool, spans[i]), PP_E_STALE);
        ck_assert_int_eq(pp_span_free(pool, spans[i]), PP_E_STALE);
        ck_assert_int_eq(pp_span_shrink(pool, spans[i], 1), PP_E_STALE);
        ck_assert_int_eq(pp_span_write(pool, spans[i], &place, NULL), PP_E_STALE);
        ck_assert_int_eq(pp_span_publish(pool, &spans[i], 1, NULL), PP_E_STALE);
        ck_assert_int_eq(pp_span_get_place(spans[i], &place), PP_E_STALE);
        ck_assert_int_eq(pp_trace_retire(pool, (pp_trace *) spans[i]), PP_E_STALE);
    }
    ck_assert_uint_eq(stats().retired_spans, SPANS / 2);
    ck_assert_uint_eq(stats().spans, before.spans);
    pp_reclaim_result result = reclaim(pp_retire_ticket(pool), NULL, 0);
    ck_assert_uint_eq(result.freed, SPANS / 2);
    ck_assert_uint_eq(result.freed_bytes, (SPANS / 2) * (SPANS / 2));
    ck_assert_uint_eq(stats().spans, before.spans - SPANS / 2);
    for (size_t i = 1; i < SPANS; i += 2)
        ck_assert_int_eq(pp_span_free(pool, spans[i]), PP_OK);
    ck_assert_uint_eq(stats().used, 0);
    stop();
}
END_TEST

START_TEST(wrong_calls_change_nothing)
{
    start();
    pp_trace *trace = make_trace("it");
    pp_span *span = make_span(64), *open = NULL;
    pp_span_desc desc = { .size = sizeof desc, .bytes = 64 };
    pp_span_place place = { .size = sizeof place };
    ck_assert_int_eq(pp_span_alloc(pool, &desc, &open, &place), PP_OK);
    ck_assert_int_eq(pp_span_retire(pool, open), PP_E_BUSY);
    ck_assert_int_eq(pp_span_retire(NULL, span), PP_E_ARG);
    ck_assert_int_eq(pp_span_retire(pool, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_span_retire(other, span), PP_E_FAULT);
    ck_assert_int_eq(pp_span_retire(pool, (pp_span *) trace), PP_E_STALE);
    ck_assert_int_eq(pp_span_retire(pool, (pp_span *) ((uintptr_t) span + 16)), PP_E_STALE);
    ck_assert_int_eq(pp_span_retire(pool, (pp_span *) &place), PP_E_FAULT);
    ck_assert_int_eq(pp_trace_retire(NULL, trace), PP_E_ARG);
    ck_assert_int_eq(pp_trace_retire(pool, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_trace_retire(other, trace), PP_E_FAULT);
    ck_assert_int_eq(pp_trace_retire(pool, (pp_trace *) span), PP_E_STALE);
    ck_assert_uint_eq(pp_retire_ticket(NULL), 0);

    ck_assert_int_eq(pp_reclaim(pool, 0, NULL, 0, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_reclaim(pool, 1, NULL, 0, NULL), PP_E_ARG); /* not drawn */
    pp_ticket ticket = pp_retire_ticket(pool);
    ck_assert_uint_eq(pp_retire_ticket(pool), ticket + 1);
    ck_assert_int_eq(pp_span_retire(pool, span), PP_OK);
    ticket = pp_retire_ticket(pool);
    uint64_t words[4] = { 0 };
    const pp_stack stacks[] = {
        { words + 4, words, NULL, 0 },
        { NULL, words, NULL, 0 },
        { words, (const void *) UINTPTR_MAX, NULL, 0 },
        { NULL, NULL, NULL, 1 },
        { words, words + 4, words, SIZE_MAX },
    };
    for (size_t i = 0; i < sizeof stacks / sizeof *stacks; i++)
        ck_assert_int_eq(pp_reclaim(pool, ticket, &stacks[i], 1, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_reclaim(pool, ticket, NULL, 1, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_reclaim(pool, ticket, stacks, SIZE_MAX, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_reclaim(pool, ticket + 1, NULL, 0, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_reclaim(pool, UINT64_MAX, NULL, 0, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_reclaim(NULL, ticket, NULL, 0, NULL), PP_E_ARG);
    pp_reclaim_result result = { .size = sizeof result - 1 };
    ck_assert_int_eq(pp_reclaim(pool, ticket, NULL, 0, &result), PP_E_ARG);
    ck_assert_uint_eq(stats().retired_spans, 1);
    ck_assert_int_eq(pp_reclaim(pool, ticket, NULL, 0, NULL), PP_OK);
    ck_assert_uint_eq(stats().retired_spans, 0);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK); /* and is left to pp_pool_destroy */
    stop();
}
END_TEST

/* Where a word points, relative to the span of 64 bytes; whether that holds it. */
START_TEST(stacks_hold_code)
{
    static const struct { long offset; bool held; } cases[] = {
        { 0, true }, { 1, true }, { 63, true }, { 64, true } /* a call came last */,
        { 65, false }, { -1, false }, { 80, false },
    };
    start();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int kind = 0; kind < 4; kind++) {
            pp_span *before = make_span(64), *span = make_span(64), *after = make_span(64);
            uintptr_t at = start_of(span);
            uint64_t words[9] = { 0 };
            pp_stack stack = { words, words + 9, NULL, 0 };
            if (kind == 0)
                words[4] = at + (uintptr_t) cases[i].offset;
            else if (kind == 1)
                words[8] = at + (uintptr_t) cases[i].offset;
            else if (kind == 2) {
                words[0] = at + (uintptr_t) cases[i].offset;
                stack = (pp_stack) { NULL, NULL, words, 1 };
            } else {
                words[1] = at + (uintptr_t) cases[i].offset;
                stack = (pp_stack) { (char *) words + 1, (char *) words + 17, NULL, 0 };
            }
            ck_assert_int_eq(pp_span_retire(pool, span), PP_OK);
            pp_reclaim_result result = reclaim(pp_retire_ticket(pool), &stack, 1);
            ck_assert_msg(result.held == cases[i].held, "offset %ld, kind %d", cases[i].offset, kind);
            ck_assert_uint_eq(result.freed, !cases[i].held);
            if (cases[i].held) {
                ck_assert_ptr_eq(pp_span_at((const void *) at), span);
                ck_assert_int_eq(((int (*)(void)) at)(), 42);
                memset(words, 0, sizeof words);
                result = reclaim(pp_retire_ticket(pool), &stack, 1);
                ck_assert_uint_eq(result.freed, 1);
            }
            ck_assert_int_eq(pp_span_free(pool, before), PP_OK);
            ck_assert_int_eq(pp_span_free(pool, after), PP_OK);
        }
    }
    stop();
}
END_TEST

/* A word behind the range, or in front of it, holds nothing. */
START_TEST(words_outside_do_not_count)
{
    start();
    pp_span *span = make_span(64);
    uint64_t words[4];
    for (size_t i = 0; i < 4; i++)
        words[i] = start_of(span);
    words[1] = 0;
    pp_stack stack = { (char *) words + 1, (char *) (words + 2) + 7, NULL, 0 };
    ck_assert_int_eq(pp_span_retire(pool, span), PP_OK);
    pp_reclaim_result result = reclaim(pp_retire_ticket(pool), &stack, 1);
    ck_assert_uint_eq(result.freed, 1);
    stop();
}
END_TEST

/* An entry keeps its trace from being retired. */
START_TEST(entries_keep_traces)
{
    start();
    pp_trace *trace = make_trace("body");
    static const pp_tier0_layout tier0 = { .size = sizeof tier0 };
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(trace), .tier0 = &tier0, .error = &reason };
    pp_entry *entry;
    ck_assert_msg(pp_entry_create(pool, &desc, &entry) == PP_OK, "%s", reason.text);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_E_BUSY);
    ck_assert_ptr_nonnull(pp_trace_entry(trace));
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_E_FAULT);
    desc.code = (const void *) start_of(make_span(64));
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_E_FAULT); /* a span is no trace */
    stop();
}
END_TEST

/* A million words, some of them addresses of code, at about the price of reading them. */
START_TEST(large_stacks_are_quick)
{
    enum { WORDS = 1 << 20, SPANS = 1000 };
    static uint64_t words[WORDS];
    start();
    pp_span *spans[SPANS];
    for (size_t i = 0; i < SPANS; i++)
        spans[i] = make_span(256);
    for (size_t i = 0; i < WORDS; i++)
        words[i] = i % 16 == 0 ? start_of(spans[i / 16 % (SPANS / 2)]) + i % 256 : i * 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < SPANS; i++)
        ck_assert_int_eq(pp_span_retire(pool, spans[i]), PP_OK);
    pp_stack stack = { words, words + WORDS, NULL, 0 };
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    pp_reclaim_result result = reclaim(pp_retire_ticket(pool), &stack, 1);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double ms = (to.tv_sec - from.tv_sec) * 1e3 + (to.tv_nsec - from.tv_nsec) / 1e6;
    printf("1 Mi words: %.1f ms\n", ms);
    ck_assert_uint_eq(result.held, SPANS / 2);
    ck_assert_uint_eq(result.freed, SPANS / 2);
    stop();
}
END_TEST

/* ---- threads ---------------------------------------------------------- */

enum { WORKERS = 4, ROUNDS = 2000 };
static atomic_bool done;
static atomic_size_t freed;

static void *retire_many(void *argument)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        if ((i + (uintptr_t) argument) % 2 == 0)
            ck_assert_int_eq(pp_trace_retire(pool, make_trace("many")), PP_OK);
        else
            ck_assert_int_eq(pp_span_retire(pool, make_span(32 + i % 64)), PP_OK);
    }
    return NULL;
}

static void *reclaim_many(void *argument)
{
    uint64_t words[8] = { 0 };
    pp_stack stack = { words, words + 8, NULL, 0 };
    pp_ticket before = 0;
    (void) argument;
    while (!atomic_load(&done)) {
        pp_reclaim_result result = { .size = sizeof result };
        pp_ticket ticket = pp_retire_ticket(pool);
        ck_assert_uint_gt(ticket, before);
        before = ticket;
        ck_assert_int_eq(pp_reclaim(pool, ticket, &stack, 1, &result), PP_OK);
        atomic_fetch_add(&freed, result.freed);
    }
    return NULL;
}

START_TEST(threads_retire_and_reclaim)
{
    start();
    pthread_t retirer[WORKERS], reclaimer[2];
    atomic_store(&done, false);
    atomic_store(&freed, 0);
    for (uintptr_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&reclaimer[i], NULL, reclaim_many, NULL), 0);
    for (uintptr_t i = 0; i < WORKERS; i++)
        ck_assert_int_eq(pthread_create(&retirer[i], NULL, retire_many, (void *) i), 0);
    for (uintptr_t i = 0; i < WORKERS; i++) {
        pthread_join(retirer[i], NULL);
        ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    }
    atomic_store(&done, true);
    for (uintptr_t i = 0; i < 2; i++)
        pthread_join(reclaimer[i], NULL);
    pp_reclaim_result result = reclaim(pp_retire_ticket(pool), NULL, 0);
    ck_assert_uint_eq(result.freed + atomic_load(&freed), WORKERS * ROUNDS);
    pp_pool_stats now = stats();
    ck_assert_uint_eq(now.spans + now.traces + now.retired + now.retired_spans, 0);
    ck_assert_uint_eq(now.trampolines, 0);
    stop();
}
END_TEST

enum { SPLIT, SHRINK, CUTS };
static _Atomic int cut;

static void *cut_span(void *span)
{
    pp_span *tail;
    pp_status status = atomic_load(&cut) == SPLIT ? pp_span_split(pool, span, 64, &tail)
                                                  : pp_span_shrink(pool, span, 64);
    return (void *) (intptr_t) status;
}

/* A retirement that comes between the first look at a span and the change of it. */
START_TEST(what_was_retired_meanwhile_is_not_cut)
{
    static const struct owner_tag retired = { { .kind = OWNER_SPAN_RETIRED } };
    struct code_place place, now;
    pthread_t thread;
    void *status;
    start();
    pp_span *span = make_span(512);
    uintptr_t at = start_of(span);
    ck_assert(code_at(at, &place));
    atomic_store(&cut, _i);
    pthread_mutex_lock(&place.region->lock);
    ck_assert_int_eq(pthread_create(&thread, NULL, cut_span, span), 0);
    usleep(20000); /* it waits for the lock; if it is not there yet, the test is easy */
    span_space_set_owner(&place.region->spans, at - place.region->code_lo, &retired.owner);
    pthread_mutex_unlock(&place.region->lock);
    pthread_join(thread, &status);
    ck_assert_int_eq((int) (intptr_t) status, PP_E_STALE);
    ck_assert(code_at(at, &now));
    ck_assert_uint_eq(now.size, 512);
    span_set_owner(&(struct span) { .region = place.region, .exec = at }, place.owner);
    ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
    stop();
}
END_TEST

static void *retire_trace(void *trace)
{
    return (void *) (intptr_t) pp_trace_retire(pool, trace);
}

static void *retire_span(void *span)
{
    return (void *) (intptr_t) pp_span_retire(pool, span);
}

/* A ticket that is drawn while a retirement goes on, and the code can still be found live. */
START_TEST(a_ticket_covers_what_was_retired_before)
{
    struct code_place place;
    pthread_t thread;
    pp_token token;
    void *status;
    start();
    pp_trace *trace = make_trace("it");
    pp_span *span = make_span(64);
    uintptr_t at = _i == 0 ? (uintptr_t) pp_trace_entry(trace) : start_of(span);
    ck_assert(code_at(at, &place));
    pthread_mutex_lock(&place.region->lock);
    ck_assert_int_eq(pthread_create(&thread, NULL, _i == 0 ? retire_trace : retire_span,
                                    _i == 0 ? (void *) trace : (void *) span), 0);
    usleep(20000); /* it waits for the lock; if it is not there yet, the test is easy */
    pp_ticket ticket = pp_retire_ticket(pool);
    if (_i == 0)
        ck_assert_int_eq(pp_token_make((const void *) at, &token), PP_OK);
    pthread_mutex_unlock(&place.region->lock);
    pthread_join(thread, &status);
    ck_assert_int_eq((int) (intptr_t) status, PP_OK);
    pp_reclaim_result result = reclaim(ticket, NULL, 0);
    ck_assert_uint_eq(result.freed, 0);
    ck_assert_uint_eq(result.waiting, 1);
    ck_assert_uint_eq(reclaim(pp_retire_ticket(pool), NULL, 0).freed, 1);
    stop();
}
END_TEST

/* ---- checking --------------------------------------------------------- */

static void expect_broken(const char *what)
{
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_E_FAULT, "not found: %s", what);
    ck_assert_msg(strstr(reason.text, what) != NULL, "not \"%s\" but \"%s\"", what, reason.text);
}

static void expect_ticket(struct retired *retired, uint64_t wrong, const char *what)
{
    const uint64_t right = atomic_exchange(&retired->ticket, wrong);
    expect_broken(what);
    atomic_store(&retired->ticket, right);
}

/* Two retired traces, in the list of those that wait or in that of those that were kept. */
START_TEST(the_retired_are_checked)
{
    start();
    struct trace *traces[2];
    for (unsigned i = 0; i < 2; i++) {
        struct code_place place;
        pp_trace *handle = make_trace("retired");
        ck_assert(code_at((uintptr_t) pp_trace_entry(handle), &place));
        traces[i] = trace_of(&place);
        (void) pp_retire_ticket(pool); /* the next one has a ticket of its own */
        ck_assert_int_eq(pp_trace_retire(pool, handle), PP_OK);
    }
    ck_assert_int_eq(pp_pool_verify(pool, &reason), PP_OK);
    struct retirement *list = &pool->retirement, whole = *list;
    struct retired *first = &traces[0]->retired, *last = &traces[1]->retired;
    ck_assert(list->first == first && first->next == last && list->last == last);
    list->waiting++;
    expect_broken("not counted right");
    list->waiting--;
    list->last = first;
    expect_broken("another end");
    list->last = last;
    first->next = NULL;
    list->first = last;
    last->next = first;
    list->last = first;
    expect_broken("not in order");
    list->first = first;
    first->next = last;
    last->next = NULL;
    list->last = last;
    for (unsigned round = 0; round < 2; round++) {
        struct span *span = &traces[1]->span;
        const uintptr_t exec = span->exec;
        const uint32_t generation = span->generation;
        if (round == 1) {
            list->first = list->last = NULL;
            list->waiting = 0;
            list->kept = first;
        }
        expect_ticket(first, 0, "a ticket that cannot be");
        expect_ticket(last, pp_retire_ticket(pool) + 2, "a ticket that cannot be");
        const uintptr_t wrong[] = { (uintptr_t) &pool, exec + isa_host.trap_size,
                                    traces[0]->span.exec };
        for (unsigned i = 0; i < 3; i++) {
            span->exec = wrong[i];
            span->generation = i == 2 ? traces[0]->span.generation : generation;
            expect_broken("owner of its span");
        }
        span->exec = exec;
        span->generation = generation + 1;
        expect_broken("owner of its span");
        span->generation = generation;
        ck_assert_int_eq(pp_pool_verify(pool, &reason), PP_OK);
    }
    list->first = whole.first;
    list->last = whole.last;
    list->waiting = whole.waiting;
    list->kept = whole.kept;
    stop();
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("retire");
    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, retired_code_runs_on);
    tcase_add_test(tcase, spans_retire_too);
    tcase_add_test(tcase, wrong_calls_change_nothing);
    tcase_add_test(tcase, stacks_hold_code);
    tcase_add_test(tcase, words_outside_do_not_count);
    tcase_add_test(tcase, entries_keep_traces);
    tcase_add_test(tcase, large_stacks_are_quick);
    tcase_add_test(tcase, threads_retire_and_reclaim);
    tcase_add_test(tcase, the_retired_are_checked);
    tcase_add_loop_test(tcase, a_ticket_covers_what_was_retired_before, 0, 2);
    tcase_add_loop_test(tcase, what_was_retired_meanwhile_is_not_cut, 0, CUTS);
    Suite *suite = suite_create("retire");
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
