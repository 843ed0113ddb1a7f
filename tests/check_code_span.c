/* SPDX-License-Identifier: MIT */
/* Spans of the host: every call, and every call that is wrong. */
#include <config.h>

#include "memory/handle.h"

#include "snippet.h"
#include "spans.h"

#include <patchpoint.h>

#include <pthread.h>
#include <unistd.h>

static pp_pool *pool, *other;
static size_t unit;

static bool start(pp_wx wx)
{
    pool = open_pool(wx);
    if (pool == NULL)
        return false;
    other = open_pool(PP_WX_AUTO);
    unit = stats_of(pool).wx == PP_WX_FLIP ? (size_t) sysconf(_SC_PAGESIZE) : 16;
    return true;
}

static void stop(void)
{
    verify(pool);
    verify(other);
    pp_pool_destroy(pool);
    pp_pool_destroy(other);
}

static pp_span *alloc(size_t bytes, pp_span_place *place)
{
    pp_span *span = NULL;
    pp_span_desc desc = { .size = sizeof desc, .bytes = bytes, .error = &error };
    *place = (pp_span_place) { .size = sizeof *place };
    pp_status status = pp_span_alloc(pool, &desc, &span, place);
    ck_assert_msg(status == PP_OK, "%s", error.text);
    return span;
}

static void publish(pp_span *span)
{
    ck_assert_msg(pp_span_publish(pool, &span, 1, &error) == PP_OK, "%s", error.text);
}

static pp_span *make(unsigned value, size_t bytes, pp_span_place *place)
{
    pp_span *span = alloc(bytes, place);
    encode_return(place->write, value);
    publish(span);
    return span;
}

static unsigned call(const void *code) { return (unsigned) ((int (*)(void)) (uintptr_t) code)(); }

static pp_span_place place_of(const pp_span *span)
{
    pp_span_place place = { .size = sizeof place };
    ck_assert_int_eq(pp_span_get_place(span, &place), PP_OK);
    return place;
}

/* ---- what spans do ------------------------------------------------------- */

START_TEST(a_span_is_written_run_written_again_and_freed)
{
    pp_span_place place, now;
    if (!start((pp_wx) _i))
        return;
    pp_pool_stats before = stats_of(pool);
    pp_span *span = alloc(100, &place);
    ck_assert_uint_eq((uintptr_t) place.execute % 16, 0);
    ck_assert_uint_eq(place.bytes, 100);
    ck_assert_uint_eq(place.unit, unit);
    ck_assert_ptr_eq(pp_span_at(place.execute), span);
    ck_assert_ptr_null(pp_trace_at(place.execute));
    encode_return(place.write, 7);
    ck_assert_ptr_eq(place_of(span).write, place.write);
    publish(span);
    ck_assert_uint_eq(call(place.execute), 7);
    now = place_of(span);
    ck_assert_ptr_null(now.write); /* only while it is being written */
    ck_assert_ptr_eq(now.execute, place.execute);
    ck_assert_uint_eq(now.bytes, 100);

    now = (pp_span_place) { .size = sizeof now };
    ck_assert_int_eq(pp_span_write(pool, span, &now, &error), PP_OK);
    ck_assert_ptr_eq(now.write, place.write);
    ck_assert_int_eq(memcmp(now.write, place.execute, 8), 0); /* its bytes are still there */
    encode_return(now.write, 8);
    publish(span);
    ck_assert_uint_eq(call(place.execute), 8);
    ck_assert_ptr_eq(pp_span_at((const char *) place.execute + 99), span);
    ck_assert_uint_eq(stats_of(pool).spans, before.spans + 1);
    ck_assert_uint_eq(stats_of(pool).requested, before.requested + 100);
    ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
    ck_assert_ptr_null(pp_span_at(place.execute));
    ck_assert_uint_eq(stats_of(pool).spans, before.spans);
    stop();
}
END_TEST

START_TEST(batches_are_published_as_one)
{
    enum { SPANS = 500 };
    static pp_span *spans[SPANS];
    static pp_span_place places[SPANS];
    if (!start((pp_wx) _i))
        return;
    for (unsigned i = 0; i < SPANS; i++) {
        spans[i] = alloc(16 + i, &places[i]);
        encode_return(places[i].write, i);
    }
    ck_assert_int_eq(pp_span_publish(pool, spans, SPANS, &error), PP_OK);
    for (unsigned i = 0; i < SPANS; i++)
        require(call(places[i].execute) == i);
    ck_assert_int_eq(pp_span_publish(pool, NULL, 0, NULL), PP_OK);
    ck_assert_int_eq(pp_span_publish(pool, spans, 0, NULL), PP_OK);
    for (unsigned i = 0; i < SPANS; i++)
        require(pp_span_free(pool, spans[i]) == PP_OK);
    stop();
}
END_TEST

START_TEST(alignment_is_kept)
{
    pp_span *span;
    if (!start((pp_wx) _i))
        return;
    for (size_t align = 16; align <= 65536; align *= 2) {
        pp_span_desc desc = { .size = sizeof desc, .bytes = 100, .align = align };
        pp_span_place place = { .size = sizeof place };
        ck_assert_int_eq(pp_span_alloc(pool, &desc, &span, &place), PP_OK);
        ck_assert_uint_eq((uintptr_t) place.execute % align, 0);
    }
    stop();
}
END_TEST

/* Two spans of one, each by itself; while they are written, and when they are published. */
START_TEST(spans_are_split)
{
    pp_span_place place, head, rest;
    pp_span *tail, *last;
    if (!start((pp_wx) _i))
        return;
    for (int published = 0; published < 2; published++) {
        pp_pool_stats before = stats_of(pool);
        pp_span *span = alloc(2 * unit + 20, &place);
        for (unsigned i = 0; i < 3; i++)
            encode_return((uint8_t *) place.write + i * unit, 30 + i);
        if (published)
            publish(span);
        ck_assert_int_eq(pp_span_split(pool, span, 0, &tail), PP_E_ARG);
        ck_assert_int_eq(pp_span_split(pool, span, unit / 2, &tail), PP_E_ARG);
        ck_assert_int_eq(pp_span_split(pool, span, unit + 1, &tail), PP_E_ARG);
        ck_assert_int_eq(pp_span_split(pool, span, 4 * unit, &tail), PP_E_ARG);
        ck_assert_int_eq(pp_span_split(pool, span, SIZE_MAX & -unit, &tail), PP_E_ARG);
        ck_assert_int_eq(pp_span_split(pool, span, unit, NULL), PP_E_ARG);
        ck_assert_int_eq(pp_span_split(pool, span, 2 * unit, &last), PP_OK);
        ck_assert_int_eq(pp_span_split(pool, span, unit, &tail), PP_OK);
        head = place_of(span);
        rest = place_of(last);
        ck_assert_uint_eq(head.bytes, unit);
        ck_assert_uint_eq(place_of(tail).bytes, unit);
        ck_assert_uint_eq(rest.bytes, 20);
        ck_assert_ptr_eq(head.execute, place.execute);
        ck_assert_ptr_eq(rest.execute, (const char *) place.execute + 2 * unit);
        ck_assert((rest.write != NULL) == !published);
        ck_assert_ptr_eq(pp_span_at((const char *) place.execute + unit), tail);
        ck_assert_ptr_eq(pp_span_at((const char *) place.execute + unit - 1), span);
        ck_assert_uint_eq(stats_of(pool).spans, before.spans + 3);
        ck_assert_uint_eq(stats_of(pool).requested, before.requested + 2 * unit + 20);
        verify(pool);
        if (!published) {
            pp_span *all[] = { span, tail, last };
            ck_assert_int_eq(pp_span_publish(pool, all, 3, NULL), PP_OK);
        }
        ck_assert_int_eq(pp_span_free(pool, tail), PP_OK);
        ck_assert_uint_eq(call(place.execute), 30);
        ck_assert_uint_eq(call(rest.execute), 32);
        ck_assert_int_eq(pp_span_free(pool, tail), PP_E_STALE);
        ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
        ck_assert_uint_eq(call(rest.execute), 32);
        ck_assert_int_eq(pp_span_free(pool, last), PP_OK);
        ck_assert_uint_eq(stats_of(pool).used, before.used);
        verify(pool);
    }
    stop();
}
END_TEST

START_TEST(spans_shrink)
{
    pp_span_place place;
    if (!start((pp_wx) _i))
        return;
    pp_span *span = make(5, 3 * unit, &place);
    ck_assert_int_eq(pp_span_shrink(pool, span, 0), PP_E_ARG);
    ck_assert_int_eq(pp_span_shrink(pool, span, 3 * unit + 1), PP_E_ARG);
    ck_assert_int_eq(pp_span_shrink(pool, span, SIZE_MAX), PP_E_ARG);
    ck_assert_int_eq(pp_span_shrink(pool, span, 3 * unit), PP_OK);
    ck_assert_int_eq(pp_span_shrink(pool, span, unit + 1), PP_OK);
    ck_assert_uint_eq(place_of(span).bytes, unit + 1);
    ck_assert_ptr_null(pp_span_at((const char *) place.execute + 2 * unit));
    ck_assert_int_eq(pp_span_shrink(pool, span, 12), PP_OK);
    ck_assert_uint_eq(call(place.execute), 5);
    ck_assert_uint_eq(stats_of(pool).used, unit);
    verify(pool);
    pp_span *open = alloc(3 * unit, &place); /* while it is being written */
    ck_assert_int_eq(pp_span_shrink(pool, open, 12), PP_OK);
    encode_return(place.write, 6);
    publish(open);
    ck_assert_uint_eq(call(place.execute), 6);
    stop();
}
END_TEST

/* ---- what is refused ------------------------------------------------------- */

START_TEST(descriptions_are_validated)
{
    struct { pp_span_desc desc; size_t more[2]; } newer = { { 0 }, { 0 } };
    pp_span *span = (pp_span *) 1;
    if (!start(PP_WX_AUTO))
        return;
    static const pp_frame_rule bad_rule = { .size = sizeof bad_rule, .kind = (pp_frame_kind) 99 };
    const struct { pp_span_desc desc; pp_status status; } cases[] = {
        { { sizeof(pp_span_desc), 0, 0, NULL, NULL }, PP_E_ARG },
        { { sizeof(pp_span_desc), 16, 8, NULL, NULL }, PP_E_ARG },
        { { sizeof(pp_span_desc), 16, 24, NULL, NULL }, PP_E_ARG },
        { { sizeof(pp_span_desc), 16, 1 << 17, NULL, NULL }, PP_E_ARG },
        { { sizeof(pp_span_desc), 16, (size_t) 1 << 63, NULL, NULL }, PP_E_ARG },
        { { sizeof(pp_span_desc), 16, 0, &bad_rule, NULL }, PP_E_ARG },
        { { sizeof(pp_span_desc) - 8, 16, 0, NULL, NULL }, PP_E_ARG },
        { { 0, 16, 0, NULL, NULL }, PP_E_ARG },
        { { SIZE_MAX, 16, 0, NULL, NULL }, PP_E_ARG },
        { { sizeof(pp_span_desc), SIZE_MAX, 0, NULL, NULL }, PP_E_NOMEM },
        { { sizeof(pp_span_desc), SIZE_MAX - 15, 65536, NULL, NULL }, PP_E_NOMEM },
        { { sizeof(pp_span_desc), SIZE_MAX / 2, 0, NULL, NULL }, PP_E_NOMEM },
        { { sizeof(pp_span_desc), (size_t) 1 << 30, 0, NULL, NULL }, PP_E_NOMEM },
        { { sizeof(pp_span_desc), ((size_t) 1 << 30) + 1, 0, NULL, NULL }, PP_E_NOMEM },
    };
    pp_span_place place = { .size = sizeof place }, same = place;
    pp_pool_stats before = stats_of(pool);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_status status = pp_span_alloc(pool, &cases[i].desc, &span, &place);
        ck_assert_msg(status == cases[i].status, "case %zu: %d", i, status);
        ck_assert_ptr_eq(span, (pp_span *) 1);
        ck_assert_int_eq(memcmp(&place, &same, sizeof same), 0);
    }
    newer.desc = (pp_span_desc) { .size = sizeof newer, .bytes = 16 };
    newer.more[1] = 1;
    ck_assert_int_eq(pp_span_alloc(pool, &newer.desc, &span, &place), PP_E_ARG);
    ck_assert_int_eq(pp_span_alloc(NULL, &cases[0].desc, &span, &place), PP_E_ARG);
    ck_assert_int_eq(pp_span_alloc(pool, NULL, &span, &place), PP_E_ARG);
    newer.more[1] = 0;
    ck_assert_int_eq(pp_span_alloc(pool, &newer.desc, NULL, &place), PP_E_ARG);
    ck_assert_int_eq(pp_span_alloc(pool, &newer.desc, &span, NULL), PP_E_ARG);
    place.size = sizeof place - 8;
    ck_assert_int_eq(pp_span_alloc(pool, &newer.desc, &span, &place), PP_E_ARG);
    ck_assert_uint_eq(stats_of(pool).spans, before.spans);
    place.size = sizeof place;
    ck_assert_int_eq(pp_span_alloc(pool, &newer.desc, &span, &place), PP_OK);
    ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
    stop();
}
END_TEST

static pp_trace *link_return(void)
{
    uint8_t code[RETURN_BYTES];
    pp_trace *trace = NULL;
    encode_return(code, 3);
    pp_trace_desc desc = { .size = sizeof desc, .code = code, .code_size = sizeof code };
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    return trace;
}

/* Every function with every handle that is not one of a span of this pool. */
START_TEST(wrong_handles_are_refused)
{
    pp_span_place place, at;
    pp_span *tail;
    if (!start(PP_WX_AUTO))
        return;
    pp_span *span = make(1, 64, &place), *freed = make(2, 64, &at);
    pp_trace *trace = link_return();
    pp_reservation reservation = { .size = sizeof reservation };
    ck_assert_int_eq(pp_trace_reserve(pool, 64, NULL, &reservation, NULL), PP_OK);
    uintptr_t old = (uintptr_t) freed;
    ck_assert_int_eq(pp_span_free(pool, freed), PP_OK);
    pp_span *reused = make(2, 64, &at); /* at the same address, in another life */
    ck_assert_uint_eq(code_handle_address((uintptr_t) reused), code_handle_address(old));
    const struct { uintptr_t handle; pp_status status; } cases[] = {
        { 0, PP_E_ARG },
        { old, PP_E_STALE },
        { (uintptr_t) span + 16, PP_E_STALE },
        { (uintptr_t) span + 1, PP_E_STALE },
        { (uintptr_t) span ^ (uintptr_t) 1 << 29, PP_E_STALE },
        { (uintptr_t) span ^ (uintptr_t) 1 << 63, PP_E_FAULT },
        { (uintptr_t) place.execute, PP_E_FAULT }, /* an address is no handle */
        { (uintptr_t) trace, PP_E_STALE },
        { (uintptr_t) reservation.internal, PP_E_STALE },
        { (uintptr_t) &place, PP_E_FAULT },
        { UINTPTR_MAX, PP_E_FAULT },
        { 1, PP_E_FAULT },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_span *wrong = (pp_span *) cases[i].handle;
        pp_status status = cases[i].status;
        at.size = sizeof at;
        ck_assert_msg(pp_span_free(pool, wrong) == status, "case %zu", i);
        ck_assert_int_eq(pp_span_shrink(pool, wrong, 1), status);
        ck_assert_int_eq(pp_span_split(pool, wrong, 16, &tail), status);
        ck_assert_int_eq(pp_span_write(pool, wrong, &at, NULL), status);
        ck_assert_int_eq(pp_span_publish(pool, &wrong, 1, NULL), status);
        ck_assert_int_eq(pp_span_retire(pool, wrong), status);
        ck_assert_int_eq(pp_span_get_place(wrong, &at), status);
    }
    /* Right for one pool, foreign to the other; and no trace. */
    ck_assert_int_eq(pp_span_free(other, span), PP_E_FAULT);
    ck_assert_int_eq(pp_span_shrink(other, span, 1), PP_E_FAULT);
    ck_assert_int_eq(pp_span_split(other, span, 16, &tail), PP_E_FAULT);
    ck_assert_int_eq(pp_span_write(other, span, &at, NULL), PP_E_FAULT);
    ck_assert_int_eq(pp_span_publish(other, &span, 1, NULL), PP_E_FAULT);
    ck_assert_int_eq(pp_trace_free(pool, (pp_trace *) span), PP_E_STALE);
    ck_assert_ptr_null(pp_trace_entry((pp_trace *) span));
    ck_assert_ptr_null(pp_trace_host((pp_trace *) span));
    ck_assert_ptr_null(pp_trace_at(place.execute));
    ck_assert_ptr_null(pp_span_at(pp_trace_entry(trace)));
    ck_assert_ptr_null(pp_span_at(NULL));
    ck_assert_ptr_null(pp_span_at((const void *) UINTPTR_MAX));
    ck_assert_int_eq(pp_span_free(NULL, span), PP_E_ARG);
    ck_assert_int_eq(pp_span_shrink(NULL, span, 1), PP_E_ARG);
    ck_assert_int_eq(pp_span_publish(NULL, &span, 1, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_span_publish(pool, NULL, 1, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_span_publish(pool, &span, SIZE_MAX, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_span_write(pool, span, NULL, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_span_get_place(span, NULL), PP_E_ARG);
    at.size = 8;
    ck_assert_int_eq(pp_span_get_place(span, &at), PP_E_ARG);
    ck_assert_int_eq(pp_span_write(pool, span, &at, NULL), PP_E_ARG);
    ck_assert_uint_eq(call(place.execute), 1);
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_OK);
    stop();
}
END_TEST

START_TEST(states_are_kept_apart)
{
    enum { SPANS = 100 };
    static pp_span *spans[SPANS + 1];
    static pp_span_place places[SPANS];
    pp_span_place at = { .size = sizeof at };
    if (!start((pp_wx) _i))
        return;
    pp_span *published = make(9, 64, &at);
    publish(alloc(64, &at));
    ck_assert_int_eq(pp_span_publish(pool, &published, 1, NULL), PP_E_ARG); /* twice */
    ck_assert_int_eq(pp_span_write(pool, published, &at, NULL), PP_OK);
    ck_assert_int_eq(pp_span_write(pool, published, &at, NULL), PP_E_BUSY); /* begun twice */
    encode_return(at.write, 10);
    publish(published);
    ck_assert_uint_eq(call(at.execute), 10);

    /* One bad one: nothing is published.  Few of them and many are kept differently. */
    const struct { size_t count, bad; pp_span *with; } cases[] = {
        { 4, 3, published }, { 4, 0, published }, { 4, 2, NULL }, { 4, 3, (pp_span *) &at },
        { SPANS, SPANS - 1, published }, { SPANS, 50, NULL }, { 4, 3, (pp_span *) 1 },
        { 2, 1, (pp_span *) -1 }, { SPANS, SPANS - 1, (pp_span *) -1 },
    };
    for (unsigned i = 0; i < SPANS; i++) {
        spans[i] = alloc(32, &places[i]);
        encode_return(places[i].write, i);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pp_span *good = spans[cases[i].bad];
        spans[cases[i].bad] = cases[i].with == (pp_span *) -1 ? spans[0] : cases[i].with;
        pp_status status = pp_span_publish(pool, spans, cases[i].count, &error);
        ck_assert_msg(status == PP_E_ARG || (status == PP_E_FAULT && i == 3) ||
                          (status == PP_E_FAULT && i == 6), "case %zu: %d", i, status);
        spans[cases[i].bad] = good;
        for (unsigned n = 0; n < SPANS; n++)
            require(place_of(spans[n]).write == places[n].write);
        memset(places[0].write, 0, 4); /* they can be written as before */
        encode_return(places[0].write, 0);
    }
    ck_assert_uint_eq(call(at.execute), 10);
    ck_assert_int_eq(pp_span_publish(pool, spans, SPANS, NULL), PP_OK);
    for (unsigned i = 0; i < SPANS; i++)
        require(call(places[i].execute) == i);
    pp_span *open = alloc(64, &at);
    ck_assert_int_eq(pp_span_free(pool, open), PP_OK); /* never published */
    ck_assert_int_eq(pp_span_free(pool, open), PP_E_STALE);
    stop();
}
END_TEST

/* ---- threads --------------------------------------------------------------- */

static pp_span *contended[64];
static atomic_size_t freed;

static void *free_all(void *argument)
{
    (void) argument;
    for (unsigned i = 0; i < 64; i++) {
        pp_status status = i % 2 == 0 ? pp_span_free(pool, contended[i])
                                      : pp_span_retire(pool, contended[i]);
        require(status == PP_OK || status == PP_E_STALE);
        atomic_fetch_add(&freed, status == PP_OK);
    }
    return NULL;
}

/* Of two frees, or of a free and a retirement, one is refused. */
START_TEST(one_of_two_frees_is_refused)
{
    pp_span_place place;
    if (!start(PP_WX_AUTO))
        return;
    for (unsigned round = 0; round < 200; round++) {
        pthread_t thread[3];
        for (unsigned i = 0; i < 64; i++)
            contended[i] = make(i, 64, &place);
        atomic_store(&freed, 0);
        for (unsigned i = 0; i < 3; i++)
            ck_assert_int_eq(pthread_create(&thread[i], NULL, free_all, NULL), 0);
        for (unsigned i = 0; i < 3; i++)
            pthread_join(thread[i], NULL);
        ck_assert_uint_eq(atomic_load(&freed), 64);
        ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
        ck_assert_uint_eq(stats_of(pool).spans, 0);
    }
    stop();
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("span");
    tcase_set_timeout(tcase, 30);
    tcase_add_loop_test(tcase, a_span_is_written_run_written_again_and_freed, PP_WX_AUTO,
                        PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, batches_are_published_as_one, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, alignment_is_kept, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, spans_are_split, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, spans_shrink, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_test(tcase, descriptions_are_validated);
    tcase_add_test(tcase, wrong_handles_are_refused);
    tcase_add_loop_test(tcase, states_are_kept_apart, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_test(tcase, one_of_two_frees_is_refused);
    Suite *suite = suite_create("code span");
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
