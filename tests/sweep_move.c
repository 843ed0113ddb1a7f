/* SPDX-License-Identifier: MIT */
/* Operations on symbols that move, on code that is retired, and looks at a pool, to be swept. */
#include <config.h>

#include "sweep.h"

#include <check.h>
#include <stdio.h>

static void nothing(struct world *world) { (void) world; }

static pp_status link_one(struct world *world)
{
    pp_trace *trace = NULL;
    pp_status status = pp_trace_link(world->pool, &world->desc, &trace);
    ck_assert((status == PP_OK) == (trace != NULL));
    if (status == PP_OK)
        world->traces[world->count++] = trace;
    return status;
}

/* ---- symbols that move -------------------------------------------------- */

static unsigned old_calls, new_calls;
static void old_target(void) { old_calls++; }
static void new_target(void) { new_calls++; }

static void assert_reaches(struct world *world, unsigned old, unsigned new)
{
    ck_assert_uint_gt(world->count, 0);
    for (unsigned i = 0; i < world->count; i++) {
        old_calls = new_calls = 0;
        ((void (*)(void)) pp_trace_entry(world->traces[i]))();
        ck_assert_uint_eq(old_calls, old);
        ck_assert_uint_eq(new_calls, new);
    }
}

static void declare_one(struct world *world)
{
    world->symbols[0] = pp_symbol_declare(world->pool, "moves", (const void *) old_target,
                                          PP_SYMBOL_RETARGETABLE);
    ck_assert_uint_ne(world->symbols[0], PP_SYMBOL_NONE);
    sweep_write_calls(world, 1);
}

static void declare_own(struct world *world)
{
    declare_one(world);
    world->desc.flags = PP_TRACE_OWN_TRAMPOLINES;
}

static void check_moving(struct world *world)
{
    assert_reaches(world, 1, 0);
    ck_assert_int_eq(pp_symbol_retarget(world->pool, world->symbols[0],
                                        (const void *) new_target, NULL), PP_OK);
    assert_reaches(world, 0, 1);
}

enum { NAMES = 200 }; /* the table doubles, and needs another block */

static pp_status run_declare(struct world *world)
{
    for (; world->made < NAMES; world->made++) {
        char name[32];
        const void *address = (const void *) (0x10000 + 16 * world->made);
        snprintf(name, sizeof name, "moving %zu", world->made);
        pp_symbol symbol = pp_symbol_declare(world->pool, name, address, PP_SYMBOL_RETARGETABLE);
        if (symbol == PP_SYMBOL_NONE)
            return PP_E_NOMEM;
        ck_assert_ptr_eq(pp_symbol_address(world->pool, symbol), address);
    }
    return PP_OK;
}

static void prepare_retarget(struct world *world)
{
    declare_one(world);
    ck_assert_int_eq(link_one(world), PP_OK);
    world->desc.flags = PP_TRACE_OWN_TRAMPOLINES;
    ck_assert_int_eq(link_one(world), PP_OK);
}

static pp_status run_retarget(struct world *world)
{
    return pp_symbol_retarget(world->pool, world->symbols[0], (const void *) new_target,
                              &world->error);
}

static void check_retarget(struct world *world) { assert_reaches(world, 0, 1); }
static void refused_retarget(struct world *world) { assert_reaches(world, 1, 0); }

/* ---- retired code ------------------------------------------------------- */

static void prepare_retire(struct world *world)
{
    sweep_define(world, 3);
    sweep_write_calls(world, 3);
    ck_assert_int_eq(link_one(world), PP_OK);
    ck_assert_int_eq(link_one(world), PP_OK);
}

static pp_status run_retire(struct world *world)
{
    return pp_trace_retire(world->pool, world->traces[1]);
}

static void check_retire(struct world *world)
{
    pp_reclaim_result result = { .size = sizeof result };
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[1]), PP_E_STALE);
    ck_assert_int_eq(pp_reclaim(world->pool, pp_retire_ticket(world->pool), NULL, 0, &result),
                     PP_OK);
    ck_assert_uint_eq(result.freed, 1);
    world->count = 1;
    sweep_run_traces(world, 3);
}

enum { SPANS = 80 };
static pp_span *spans[SPANS];

static void prepare_spans(struct world *world)
{
    for (unsigned i = 0; i < SPANS; i++) {
        const pp_span_desc desc = { .size = sizeof desc, .bytes = 200, .error = &world->error };
        pp_span_place place = { .size = sizeof place };
        ck_assert_int_eq(pp_span_alloc(world->pool, &desc, &spans[i], &place), PP_OK);
        memset(place.write, 0, 200);
    }
    ck_assert_int_eq(pp_span_publish(world->pool, spans, SPANS, NULL), PP_OK);
}

static pp_status run_retire_spans(struct world *world)
{
    for (; world->made < SPANS; world->made++) {
        pp_status status = pp_span_retire(world->pool, spans[world->made]);
        if (status != PP_OK)
            return status;
    }
    return PP_OK;
}

/* It is as it was: published, and found by its handle. */
static void refused_retire_spans(struct world *world)
{
    pp_span_place place = { .size = sizeof place };
    ck_assert_int_eq(pp_span_get_place(spans[world->made], &place), PP_OK);
    ck_assert_ptr_null(place.write);
}

static void check_reclaimed(struct world *world)
{
    pp_pool_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_reclaim(world->pool, pp_retire_ticket(world->pool), NULL, 0, NULL), PP_OK);
    ck_assert_int_eq(pp_pool_get_stats(world->pool, &stats), PP_OK);
    ck_assert_uint_eq(stats.retired_spans, 0);
    ck_assert_uint_eq(stats.spans, world->count);
    ck_assert_uint_eq(stats.traces, world->count);
}

static void prepare_reclaim(struct world *world)
{
    prepare_spans(world);
    ck_assert_int_eq(run_retire_spans(world), PP_OK);
    prepare_retire(world);
    ck_assert_int_eq(run_retire(world), PP_OK);
    world->count = 1;
    world->made = 0;
}

/* What cannot be cleared stays retired, all else is freed. */
static pp_status run_reclaim(struct world *world)
{
    pp_reclaim_result result = { .size = sizeof result };
    pp_status status = pp_reclaim(world->pool, pp_retire_ticket(world->pool), NULL, 0, &result);
    ck_assert_uint_eq(result.waiting, 0);
    world->made += result.freed;
    return status;
}

static void check_reclaim(struct world *world)
{
    ck_assert_uint_eq(world->made, SPANS + 1);
    check_reclaimed(world);
    sweep_run_traces(world, 3);
}

/* ---- looking ---------------------------------------------------------- */

static int take_text(void *host, const char *text, size_t size)
{
    (void) text;
    *(size_t *) host += size;
    return 0;
}

static pp_status run_look(struct world *world)
{
    pp_region_info info = { .size = sizeof info };
    char reason[64];
    size_t written = 0;
    ck_assert_int_eq(pp_pool_get_region(world->pool, 0, &info), PP_OK);
    ck_assert_int_eq(pp_pool_get_fallback(world->pool, PP_FALLBACK_MODE, reason, sizeof reason),
                     PP_OK);
    pp_status status = pp_pool_dump(world->pool, take_text, &written);
    ck_assert(status != PP_OK || written > 100);
    return status;
}

const struct operation sweep_move_operations[] = {
    { "symbol: declare", CALL(METADATA), 0, 0, nothing, run_declare, nothing, NULL, NULL,
      .silent = true, .modeless = true },
    { "trace: link moving", CALL(METADATA), 0, CALL(MPROTECT), declare_one, link_one,
      check_moving, NULL, NULL },
    { "trace: link moving, own", CALL(METADATA), 0, CALL(MPROTECT), declare_own, link_one,
      check_moving, NULL, NULL, .far = true },
    { "symbol: retarget", 0, 0, 0, prepare_retarget, run_retarget, check_retarget,
      refused_retarget, NULL },
    { "trace: retire", 0, 0, 0, prepare_retire, run_retire, check_retire, NULL, NULL,
      .silent = true },
    { "span: retire", CALL(METADATA), 0, 0, prepare_spans, run_retire_spans, check_reclaimed,
      refused_retire_spans, NULL, .silent = true, .gradual = true },
    { "reclaim", 0, 0, CALL(MPROTECT), prepare_reclaim, run_reclaim, check_reclaim, NULL, NULL,
      .silent = true, .gradual = true },
    { "pool: look", 0, 0, 0, prepare_retire, run_look, nothing, NULL, NULL, .silent = true },
    { NULL }
};
