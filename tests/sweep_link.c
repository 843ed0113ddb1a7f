/* SPDX-License-Identifier: MIT */
/* Operations on symbols, traces and reservations, to be swept. */
#include <config.h>

#include "sweep.h"

#include <check.h>
#include <stdio.h>

/* ---- linking ---------------------------------------------------------- */

static void prepare_calls(struct world *world, unsigned count, uint32_t flags, const char *name)
{
    sweep_define(world, count);
    sweep_write_calls(world, count);
    world->desc.flags = flags;
    world->desc.name = name;
}

static pp_status run_link(struct world *world)
{
    pp_trace *trace = NULL;
    pp_status status = pp_trace_link(world->pool, &world->desc, &trace);
    ck_assert((status == PP_OK) == (trace != NULL));
    if (status != PP_OK)
        return status;
    ck_assert_uint_lt(world->count, WORLD_TRACES);
    world->traces[world->count++] = trace;
    return PP_OK;
}

static void check_link(struct world *world)
{
    pp_trace_size size = { .size = sizeof size };
    unsigned calls = 0;
    for (size_t i = 0; i < world->desc.reloc_count; i++)
        calls += world->desc.relocs[i].symbol > PP_SYMBOL_LEAVE;
    sweep_run_traces(world, calls);
    ck_assert_int_eq(pp_trace_get_size(world->traces[world->count - 1], &size), PP_OK);
    ck_assert_uint_eq(size.code, world->desc.code_size);
}

static void prepare_shared(struct world *world) { prepare_calls(world, 3, 0, NULL); }
static void prepare_many_shared(struct world *world) { prepare_calls(world, 40, 0, "forty"); }
static void prepare_own(struct world *world)
{
    prepare_calls(world, 3, PP_TRACE_OWN_TRAMPOLINES, "own");
}

static void prepare_many_own(struct world *world)
{
    prepare_calls(world, 40, PP_TRACE_OWN_TRAMPOLINES, NULL);
}

/* Other traces are there, with some of the symbols. */
static void prepare_warm(struct world *world)
{
    prepare_shared(world);
    ck_assert_int_eq(run_link(world), PP_OK);
    sweep_define(world, 40);
    snippet_free(&world->code);
    world->count = 0;
    prepare_calls(world, 40, 0, "warm");
}

/* A result that is an address, through a literal without a trampoline. */
static void prepare_literal(struct world *world)
{
    sweep_define(world, 1);
    snippet_begin(&world->code);
    snippet_got_load(&world->code, world->symbols[0]);
    snippet_end(&world->code);
    world->desc = snippet_desc(&world->code);
    world->desc.error = &world->error;
}

static void prepare_own_literal(struct world *world)
{
    prepare_literal(world);
    world->desc.flags = PP_TRACE_OWN_TRAMPOLINES;
}

static void check_literal(struct world *world)
{
    const void *address = ((const void *(*)(void)) pp_trace_entry(world->traces[0]))();
    ck_assert_ptr_eq(address, pp_symbol_address(world->pool, world->symbols[0]));
}

/* Two find room in a small region, also where the island is in the middle; not three. */
enum { LARGE = 700 << 10 };

static void prepare_large(struct world *world)
{
    static uint8_t data[LARGE];
    prepare_shared(world);
    world->desc.data = data;
    world->desc.data_size = LARGE;
}

static void prepare_second_region(struct world *world)
{
    prepare_large(world);
    ck_assert_int_eq(run_link(world), PP_OK);
    ck_assert_int_eq(run_link(world), PP_OK);
}

#if defined __x86_64__
#define SAVED (1ull << 3) /* rbx */
#else
#define SAVED (1ull << 19)
#endif

/* A rule that no address has yet: it would show if one got it for nothing. */
static void prepare_second_rule(struct world *world)
{
    static pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD,
                                  .saves = { .slots = SAVED, .saved = SAVED, .offset = -64 } };
    rule.saves.offset -= 8;
    prepare_shared(world);
    ck_assert_int_eq(run_link(world), PP_OK);
    world->desc.frame = &rule;
}

/* More than a block of records holds. */
/* Records keep their memory for the next trace, so that each time it comes farther. */
static pp_status run_link_many(struct world *world)
{
    while (world->count < 70) {
        pp_status status = run_link(world);
        if (status != PP_OK)
            return status;
        world->made = world->count > world->made ? world->count : world->made;
    }
    return PP_OK;
}

static void refused_link_many(struct world *world)
{
    while (world->count > 0)
        ck_assert_int_eq(pp_trace_free(world->pool, world->traces[--world->count]), PP_OK);
}

/* ---- batches ---------------------------------------------------------- */

static pp_status link_batch(struct world *world, size_t count)
{
    const pp_trace_desc *descs[5];
    pp_trace *traces[5] = { NULL };
    ck_assert_uint_le(count, 5);
    for (size_t i = 0; i < count; i++)
        descs[i] = &world->desc;
    pp_status status = pp_trace_link_batch(world->pool, descs, count, traces);
    for (size_t i = 0; i < count; i++) {
        ck_assert((status == PP_OK) == (traces[i] != NULL));
        if (status == PP_OK)
            world->traces[world->count++] = traces[i];
    }
    return status;
}

static pp_status run_batch(struct world *world) { return link_batch(world, 5); }
static pp_status run_batch_of_three(struct world *world) { return link_batch(world, 3); }

/* ---- measuring -------------------------------------------------------- */

static pp_status run_measure(struct world *world)
{
    pp_trace_size size = { .size = sizeof size };
    pp_status status = pp_trace_measure(world->pool, &world->desc, &size);
    ck_assert_uint_eq(size.code, status == PP_OK ? world->desc.code_size : 0);
    return status;
}

static void check_measure(struct world *world)
{
    pp_pool_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_pool_get_stats(world->pool, &stats), PP_OK);
    ck_assert_uint_eq(stats.spans, 0);
    ck_assert_uint_eq(stats.traces, 0);
}

/* ---- reservations ----------------------------------------------------- */

static void prepare_reserve(struct world *world)
{
    world->reservation = (pp_reservation){ .size = sizeof world->reservation };
    prepare_shared(world);
}

static pp_status reserve(struct world *world, size_t capacity)
{
    pp_status status = pp_trace_reserve(world->pool, capacity, NULL, &world->reservation,
                                        &world->error);
    ck_assert((status == PP_OK) == (world->reservation.write != NULL));
    return status;
}

static pp_status run_reserve(struct world *world) { return reserve(world, 9000); }

static void check_reserve(struct world *world)
{
    ck_assert_uint_ge(world->reservation.capacity, 9000);
    memset(world->reservation.write, 0, 9000);
    ck_assert_int_eq(pp_trace_abandon(world->pool, &world->reservation), PP_OK);
    ck_assert_int_eq(pp_trace_abandon(world->pool, &world->reservation), PP_E_STALE);
}

static void prepare_commit(struct world *world)
{
    prepare_reserve(world);
    ck_assert_int_eq(reserve(world, 9000), PP_OK);
    memcpy(world->reservation.write, world->code.code, world->code.size);
    ck_assert_uint_le(world->code.size, sizeof world->kept);
    memcpy(world->kept, world->code.code, world->code.size);
}

static pp_status run_commit(struct world *world)
{
    pp_trace *trace = NULL;
    pp_status status = pp_trace_commit(world->pool, &world->reservation, world->code.size,
                                       &world->desc, &trace);
    ck_assert((status == PP_OK) == (trace != NULL));
    if (status == PP_OK)
        world->traces[world->count++] = trace;
    return status;
}

/* The reservation is as it was, and can still be written. */
static void refused_commit(struct world *world)
{
    ck_assert_uint_ge(world->reservation.capacity, 9000);
    ck_assert_mem_eq(world->reservation.write, world->kept, world->code.size);
    memset(world->reservation.write, 0x5a, 9000);
    memcpy(world->reservation.write, world->kept, world->code.size);
}

static void check_commit(struct world *world)
{
    check_link(world);
    ck_assert_int_eq(pp_trace_abandon(world->pool, &world->reservation), PP_E_STALE);
}

static pp_status run_abandon(struct world *world)
{
    return pp_trace_abandon(world->pool, &world->reservation);
}

static void check_abandon(struct world *world)
{
    pp_pool_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_trace_abandon(world->pool, &world->reservation), PP_E_STALE);
    ck_assert_int_eq(pp_pool_get_stats(world->pool, &stats), PP_OK);
    ck_assert_uint_eq(stats.spans, 0);
}

/* ---- releasing -------------------------------------------------------- */

static void prepare_free(struct world *world)
{
    prepare_shared(world);
    ck_assert_int_eq(run_link(world), PP_OK);
    ck_assert_int_eq(run_link(world), PP_OK);
}

static pp_status run_free(struct world *world)
{
    return pp_trace_free(world->pool, world->traces[1]);
}

/* A trace that could not be freed is whole. */
static void refused_free(struct world *world)
{
    ck_assert_ptr_eq(pp_trace_at(pp_trace_entry(world->traces[1])), world->traces[1]);
    sweep_run_traces(world, 3);
}

static void check_free(struct world *world)
{
    ck_assert_ptr_null(pp_trace_entry(world->traces[1]));
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[1]), PP_E_STALE);
    world->count = 1;
    sweep_run_traces(world, 3);
    ck_assert_int_eq(run_link(world), PP_OK);
    sweep_run_traces(world, 3);
}

/* ---- symbols ---------------------------------------------------------- */

enum { NAMES = 200 }; /* the table doubles, and needs another block */

static pp_status define_all(struct world *world, bool named)
{
    char name[32];
    for (size_t i = 0; i < NAMES; i++) {
        const void *address = (const void *) (0x10000 + 16 * i);
        snprintf(name, sizeof name, "name_%zu", i);
        pp_symbol symbol = pp_symbol_define(world->pool, named ? name : NULL, address);
        if (symbol == PP_SYMBOL_NONE) {
            ck_assert_uint_ge(i, world->made);
            return PP_E_NOMEM;
        }
        ck_assert_ptr_eq(pp_symbol_address(world->pool, symbol), address);
        world->made = i + 1 > world->made ? i + 1 : world->made;
    }
    return PP_OK;
}

static void nothing(struct world *world) { (void) world; }
static pp_status run_define(struct world *world) { return define_all(world, true); }
static pp_status run_define_unnamed(struct world *world) { return define_all(world, false); }

static void check_define(struct world *world)
{
    ck_assert_uint_eq(world->made, NAMES);
    ck_assert_uint_eq(pp_symbol_define(world->pool, "name_7", (const void *) 1), PP_SYMBOL_NONE);
}

#define FIRST CALL(METADATA) | CALL(MMAP)

const struct operation sweep_link_operations[] = {
    { "symbol: define", CALL(METADATA), 0, 0, nothing, run_define, check_define, NULL, NULL,
      .silent = true, .modeless = true },
    { "symbol: define unnamed", CALL(METADATA), 0, 0, nothing, run_define_unnamed, nothing, NULL,
      NULL, .silent = true, .modeless = true },
    { "trace: link near", CALL(METADATA), 0, CALL(MPROTECT), prepare_shared, run_link,
      check_link, NULL, NULL },
    { "trace: link shared", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_shared,
      run_link, check_link, NULL, NULL, .far = true },
    { "trace: link many shared", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT),
      prepare_many_shared, run_link, check_link, NULL, NULL, .far = true },
    { "trace: link own", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_own, run_link,
      check_link, NULL, NULL, .far = true },
    { "trace: link many own", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_many_own,
      run_link, check_link, NULL, NULL, .far = true },
    { "trace: link literal", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_literal,
      run_link, check_literal, NULL, NULL, .far = true },
    { "trace: link own literal", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT),
      prepare_own_literal, run_link, check_literal, NULL, NULL, .far = true },
    { "trace: link among others", CALL(METADATA), 0, CALL(MPROTECT), prepare_warm, run_link,
      check_link, NULL, NULL, .far = true },
    { "trace: link large", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_large,
      run_link, check_link, NULL, NULL, .far = true },
    { "trace: link second region", FIRST | CALL(OPEN), MEMFD_CALLS, CALL(MPROTECT) | CALL(MADVISE),
      prepare_second_region, run_link, check_link, NULL, NULL, .far = true },
    { "trace: link second rule", FIRST | CALL(OPEN), MEMFD_CALLS, CALL(MPROTECT) | CALL(MADVISE),
      prepare_second_rule, run_link, check_link, NULL, NULL, .far = true },
    { "trace: link first of process", FIRST, CALL(FALLOCATE), CALL(MPROTECT),
      prepare_second_rule, run_link, check_link, NULL, NULL, .far = true, .fresh = true },
    { "trace: link seventy", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_shared,
      run_link_many, check_link, refused_link_many, NULL, .far = true },
    { "trace: link batch", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_shared,
      run_batch, check_link, NULL, NULL, .far = true },
    { "trace: link batch own", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_many_own,
      run_batch, check_link, NULL, NULL, .far = true },
    { "trace: link batch in two regions", FIRST | CALL(OPEN), MEMFD_CALLS,
      CALL(MPROTECT) | CALL(MADVISE), prepare_large, run_batch_of_three, check_link, NULL, NULL,
      .far = true },
    { "trace: measure", CALL(METADATA), 0, 0, prepare_many_shared, run_measure, check_measure,
      NULL, NULL, .far = true },
    { "trace: reserve", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_reserve,
      run_reserve, check_reserve, NULL, NULL },
    { "trace: commit", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_commit,
      run_commit, check_commit, refused_commit, NULL, .far = true },
    { "trace: abandon", 0, 0, CALL(MPROTECT), prepare_commit, run_abandon, check_abandon,
      refused_commit, NULL, .silent = true },
    { "trace: free", 0, 0, CALL(MPROTECT), prepare_free, run_free, check_free, refused_free,
      NULL, .far = true, .silent = true },
    { NULL }
};
