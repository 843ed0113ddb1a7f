/* SPDX-License-Identifier: MIT */
/* Operations on spans of the host, to be swept. */
#include <config.h>

#include "sweep.h"

#include <check.h>
#include <unistd.h>

enum { SPANS = 300, SMALL = 12, BYTES = 32 };

static pp_span *spans[SPANS], *tails[SPANS];       /* of the world that is open */
static pp_span_place places[SPANS];
static size_t count;

static const pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD };

/* int f(void) { return value; } */
static void write_return(void *to, uint16_t value)
{
#if defined __x86_64__
    const uint8_t code[] = { 0xb8, value & 0xff, value >> 8, 0, 0, 0xc3 };
#else
    const uint32_t code[] = { 0x52800000 | (uint32_t) value << 5, 0xd65f03c0 };
#endif
    memcpy(to, code, sizeof code);
}

static int call(const void *address)
{
    return ((int (*)(void)) address)();
}

static pp_status alloc_one(struct world *world, size_t bytes, const pp_frame_rule *frame)
{
    pp_span_desc desc = { .size = sizeof desc, .bytes = bytes, .frame = frame,
                          .error = &world->error };
    pp_span_place place = { .size = sizeof place };
    pp_span *span = NULL;
    pp_status status = pp_span_alloc(world->pool, &desc, &span, &place);
    ck_assert((status == PP_OK) == (span != NULL) && (span != NULL) == (place.write != NULL));
    if (status != PP_OK)
        return status;
    memset(place.write, 0, bytes);
    write_return(place.write, (uint16_t) count);
    spans[count] = span;
    places[count++] = place;
    return PP_OK;
}

static void free_last(struct world *world)
{
    ck_assert_int_eq(pp_span_free(world->pool, spans[--count]), PP_OK);
    ck_assert_int_eq(pp_span_free(world->pool, spans[count]), PP_E_STALE);
}

/* ---- taking ----------------------------------------------------------- */

static void prepare_none(struct world *world)
{
    (void) world;
    count = 0;
}

static pp_status run_alloc(struct world *world) { return alloc_one(world, 5000, NULL); }
static pp_status run_alloc_framed(struct world *world) { return alloc_one(world, 100, &rule); }

static void check_alloc(struct world *world)
{
    ck_assert_int_eq(pp_span_publish(world->pool, &spans[count - 1], 1, &world->error), PP_OK);
    ck_assert_int_eq(call(places[count - 1].execute), (int) count - 1);
    free_last(world);
}

static void prepare_other_rule(struct world *world)
{
    count = 0;
    ck_assert_int_eq(alloc_one(world, 100, NULL), PP_OK);
}

/* ---- publishing ------------------------------------------------------- */

static void prepare_batch(struct world *world, size_t batch)
{
    count = 0;
    for (size_t i = 0; i < 2 * batch; i++)
        ck_assert_int_eq(alloc_one(world, 100, i % 3 == 0 ? &rule : NULL), PP_OK);
    world->made = batch;
}

static void prepare_few(struct world *world) { prepare_batch(world, 3); }
static void prepare_many(struct world *world) { prepare_batch(world, 70); }

/* Every other span, so that none has its neighbour in the batch. */
static pp_status run_publish(struct world *world)
{
    pp_span *batch[SPANS];
    for (size_t i = 0; i < world->made; i++)
        batch[i] = spans[2 * i];
    return pp_span_publish(world->pool, batch, world->made, &world->error);
}

/*
 * Those whose protection could not be put back either are published, and say so; the
 * others can still be written.
 */
static void refused_publish(struct world *world)
{
    for (size_t i = 0; i < world->made; i++) {
        pp_span_place place = { .size = sizeof place };
        ck_assert_int_eq(pp_span_get_place(spans[2 * i], &place), PP_OK);
        if (place.write == NULL)
            ck_assert_int_eq(pp_span_write(world->pool, spans[2 * i], &place, NULL), PP_OK);
        ck_assert_ptr_eq(place.write, places[2 * i].write);
        memset(place.write, 0x5a, 100);
        write_return(place.write, (uint16_t) (2 * i));
    }
}

static void check_publish(struct world *world)
{
    for (size_t i = 0; i < world->made; i++) {
        pp_span_place place = { .size = sizeof place };
        ck_assert_int_eq(call(places[2 * i].execute), (int) (2 * i));
        ck_assert_int_eq(pp_span_get_place(spans[2 * i], &place), PP_OK);
        ck_assert_ptr_null(place.write);
        ck_assert_int_eq(pp_span_get_place(spans[2 * i + 1], &place), PP_OK);
        ck_assert_ptr_nonnull(place.write);
        memset(places[2 * i + 1].write, 0x5a, 100);
    }
}

/* ---- writing again ------------------------------------------------------ */

static void prepare_published(struct world *world)
{
    prepare_batch(world, 1);
    ck_assert_int_eq(run_publish(world), PP_OK);
}

static pp_status run_write(struct world *world)
{
    pp_span_place place = { .size = sizeof place };
    pp_status status = pp_span_write(world->pool, spans[0], &place, &world->error);
    ck_assert((status == PP_OK) == (place.write != NULL));
    return status;
}

static void refused_write(struct world *world)
{
    (void) world;
    ck_assert_int_eq(call(places[0].execute), 0);
}

static void check_write(struct world *world)
{
    write_return(places[0].write, 99);
    ck_assert_int_eq(pp_span_publish(world->pool, &spans[0], 1, NULL), PP_OK);
    ck_assert_int_eq(call(places[0].execute), 99);
}

/* ---- shrinking and splitting -------------------------------------------- */

/* Spans of two functions each, at 0 and at the unit; more than a block of records holds. */
static void prepare_pairs(struct world *world)
{
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    bool flip = world->wx == PP_WX_FLIP, remap = world->wx == PP_WX_REMAP;
    size_t pairs = flip || remap ? 40 : SPANS; /* each has mappings changed there */
    count = 0;
    for (size_t i = 0; i < pairs; i++) {
        ck_assert_int_eq(alloc_one(world, flip ? page + BYTES : BYTES, NULL), PP_OK);
        write_return((char *) places[i].write + places[i].unit, 7);
    }
    ck_assert_int_eq(pp_span_publish(world->pool, spans, count, NULL), PP_OK);
    world->made = 0;
}

static pp_status run_shrink(struct world *world)
{
    for (; world->made < count; world->made++) {
        pp_status status = pp_span_shrink(world->pool, spans[world->made], SMALL);
        if (status != PP_OK)
            return status;
    }
    return PP_OK;
}

/* What was refused is whole. */
static void refused_pair(struct world *world)
{
    pp_span_place place = { .size = sizeof place };
    size_t i = world->made;
    ck_assert_int_eq(pp_span_get_place(spans[i], &place), PP_OK);
    ck_assert_uint_eq(place.bytes, places[i].bytes);
    ck_assert_int_eq(call(places[i].execute), (int) i);
    ck_assert_int_eq(call((const char *) places[i].execute + places[i].unit), 7);
}

static void check_shrink(struct world *world)
{
    for (size_t i = 0; i < count; i++) {
        pp_span_place place = { .size = sizeof place };
        ck_assert_int_eq(pp_span_get_place(spans[i], &place), PP_OK);
        ck_assert_uint_eq(place.bytes, SMALL);
        ck_assert_int_eq(call(places[i].execute), (int) i);
        ck_assert_ptr_null(pp_span_at((const char *) places[i].execute + places[i].unit));
    }
    free_last(world);
}

static pp_status run_split(struct world *world)
{
    for (; world->made < count; world->made++) {
        size_t i = world->made;
        pp_span *tail = NULL;
        pp_status status = pp_span_split(world->pool, spans[i], places[i].unit, &tail);
        ck_assert((status == PP_OK) == (tail != NULL));
        if (status != PP_OK)
            return status;
        tails[i] = tail;
    }
    return PP_OK;
}

static void check_split(struct world *world)
{
    for (size_t i = 0; i < count; i++) {
        ck_assert_int_eq(pp_span_free(world->pool, spans[i]), PP_OK);
        ck_assert_int_eq(call((const char *) places[i].execute + places[i].unit), 7);
        ck_assert_int_eq(pp_span_free(world->pool, tails[i]), PP_OK);
    }
}

/* ---- releasing -------------------------------------------------------- */

static pp_status run_free(struct world *world) { return pp_span_free(world->pool, spans[0]); }

static void prepare_open(struct world *world) { prepare_batch(world, 1); }

static void refused_free(struct world *world)
{
    (void) world;
    ck_assert_int_eq(call(places[0].execute), 0);
    ck_assert_ptr_eq(pp_span_at(places[0].execute), spans[0]);
}

static void check_free(struct world *world)
{
    ck_assert_int_eq(pp_span_free(world->pool, spans[0]), PP_E_STALE);
    ck_assert_ptr_null(pp_span_at(places[0].execute));
    ck_assert_int_eq(alloc_one(world, 100, NULL), PP_OK);
    check_alloc(world);
}

const struct operation sweep_span_operations[] = {
    { "span: alloc", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_none, run_alloc,
      check_alloc, NULL, NULL },
    { "span: alloc framed", CALL(METADATA), CALL(MADVISE), CALL(MPROTECT), prepare_none,
      run_alloc_framed, check_alloc, NULL, NULL },
    { "span: alloc second rule", CALL(METADATA) | CALL(MMAP) | CALL(OPEN), MEMFD_CALLS,
      CALL(MPROTECT), prepare_other_rule, run_alloc_framed, check_alloc, NULL, NULL },
    { "span: publish", 0, 0, CALL(MPROTECT), prepare_few, run_publish, check_publish,
      refused_publish, NULL },
    { "span: publish many", CALL(METADATA), 0, CALL(MPROTECT), prepare_many, run_publish,
      check_publish, refused_publish, NULL },
    { "span: write", 0, 0, CALL(MPROTECT), prepare_published, run_write, check_write,
      refused_write, NULL },
    { "span: shrink", 0, 0, CALL(MPROTECT), prepare_pairs, run_shrink,
      check_shrink, refused_pair, NULL, .silent = true, .gradual = true,
      .in_place = CALL(METADATA) },
    { "span: split", 0, 0, 0, prepare_pairs, run_split, check_split, refused_pair,
      NULL, .silent = true, .gradual = true,
      .in_place = CALL(METADATA) },
    { "span: free", 0, 0, CALL(MPROTECT), prepare_published, run_free, check_free, refused_free,
      NULL, .silent = true },
    { "span: free open", 0, 0, CALL(MPROTECT), prepare_open, run_free, check_free, NULL, NULL,
      .silent = true },
    { NULL }
};
