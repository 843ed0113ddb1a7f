/* SPDX-License-Identifier: MIT */
/* Patches and watches, to be swept. */
#include <config.h>

#include "sweep.h"

#include <check.h>

enum { SPANS = 20, BYTES = 32, STEP = 16 };

static pp_span *spans[SPANS];
static const uint8_t *code[SPANS];
static uint64_t flag;
static pp_patch patches[SPANS + 1], journal[SPANS + 1];
static size_t count;

#if defined __x86_64__
enum { LENGTH = 5 };
#define LIVE PP_PATCH_WORD
#else
enum { LENGTH = 4 };
#define LIVE PP_PATCH_BRANCH
#endif

/* int f(void): a site, and two endings; a NOP of the site leads to the first. */
static void make_span(struct world *world, unsigned index)
{
    uint8_t bytes[BYTES + STEP];
    pp_span_desc desc = { .size = sizeof desc, .bytes = sizeof bytes, .error = &world->error };
    pp_span_place place = { .size = sizeof place };
    for (unsigned i = 0; i < sizeof bytes; i += LENGTH == 5 ? 1 : 4)
        ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, LENGTH == 5 ? 1 : 4, bytes + i, 4), PP_OK);
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, LENGTH, bytes, LENGTH), PP_OK);
    for (unsigned i = 0; i < 2; i++) {
#if defined __x86_64__
        const uint8_t ending[] = { 0xb8, (uint8_t) i, 0, 0, 0, 0xc3 };
#else
        const uint32_t ending[] = { 0x52800000u | i << 5, 0xd65f03c0 };
#endif
        memcpy(bytes + STEP + i * STEP, ending, sizeof ending);
    }
    ck_assert_int_eq(pp_span_alloc(world->pool, &desc, &spans[index], &place), PP_OK);
    memcpy(place.write, bytes, sizeof bytes);
    ck_assert_int_eq(pp_span_publish(world->pool, &spans[index], 1, NULL), PP_OK);
    code[index] = place.execute;
}

static void prepare(struct world *world, size_t sites, pp_patch_protocol protocol)
{
    size_t written;
    count = sites;
    flag = 0;
    for (unsigned i = 0; i < count; i++) {
        pp_patch *patch = &patches[i];
        make_span(world, i);
        *patch = (pp_patch) { .address = code[i], .protocol = (uint8_t) protocol,
                              .bytes = LENGTH, .flags = PP_PATCH_EXPECT_OLD };
        ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, LENGTH, patch->old, 16), PP_OK);
        ck_assert_int_eq(pp_emit_jump(PP_ARCH_HOST, code[i], code[i] + 2 * STEP, patch->value, 16,
                                      &written), PP_OK);
    }
    patches[count++] = (pp_patch) { .address = &flag, .protocol = PP_PATCH_GUARD, .bytes = 8,
                                    .flags = PP_PATCH_EXPECT_OLD, .value = { 1 } };
    memset(journal, 0x5a, sizeof journal);
}

/* In FLIP mode only what is stopped can be patched. */
static pp_patch_protocol live(const struct world *world)
{
    return world->wx == PP_WX_FLIP ? PP_PATCH_STOPPED : LIVE;
}

static void prepare_few(struct world *world) { prepare(world, 3, live(world)); }
static void prepare_many(struct world *world) { prepare(world, SPANS, live(world)); }
static void prepare_stopped(struct world *world) { prepare(world, 3, PP_PATCH_STOPPED); }

static int stop_nobody(void *host) { (void) host; return 0; }
static void start_nobody(void *host) { (void) host; }

static pp_status run_apply(struct world *world)
{
    pp_patch_options options = { .size = sizeof options, .stop = stop_nobody,
                                 .start = start_nobody, .journal = journal,
                                 .error = &world->error };
    return pp_patch_apply(world->pool, patches, count, &options);
}

/* The old bytes; a page of FLIP may be one that cannot be run. */
static void refused_apply(struct world *world)
{
    ck_assert_uint_eq(flag, 0);
    ck_assert_int_eq(journal[0].protocol, 0x5a);
    for (unsigned i = 0; i + 1 < count; i++) {
        ck_assert_mem_eq(code[i], patches[i].old, LENGTH);
        if (world->wx != PP_WX_FLIP)
            ck_assert_int_eq(((int (*)(void)) (uintptr_t) code[i])(), 0);
    }
}

static void check_apply(struct world *world)
{
    ck_assert_uint_eq(flag, 1);
    for (unsigned i = 0; i + 1 < count; i++)
        ck_assert_int_eq(((int (*)(void)) (uintptr_t) code[i])(), 1);
    memcpy(patches, journal, sizeof patches);
    ck_assert_int_eq(run_apply(world), PP_OK);
    ck_assert_uint_eq(flag, 0);
    for (unsigned i = 0; i + 1 < count; i++)
        ck_assert_int_eq(((int (*)(void)) (uintptr_t) code[i])(), 0);
}

/* ---- watches ----------------------------------------------------------- */

/* More than the records of a block. */
static pp_status run_watch(struct world *world)
{
    for (; world->made < 100; world->made++) {
        pp_status status = pp_watch_add(world->pool, world->made, &patches[world->made % count],
                                        &world->error);
        if (status != PP_OK)
            return status;
    }
    return PP_OK;
}

static void check_watch(struct world *world)
{
    for (unsigned key = 0; key < 100; key++)
        ck_assert_uint_eq(pp_watch_count(world->pool, key), 1);
}

static void prepare_fire(struct world *world)
{
    prepare_many(world);
    for (unsigned i = 0; i < count; i++)
        ck_assert_int_eq(pp_watch_add(world->pool, 1, &patches[i], &world->error), PP_OK);
}

static pp_status run_fire(struct world *world)
{
    pp_patch_options options = { .size = sizeof options, .stop = stop_nobody,
                                 .start = start_nobody, .error = &world->error };
    return pp_watch_fire(world->pool, 1, &options, NULL);
}

static void refused_fire(struct world *world)
{
    refused_apply(world);
    ck_assert_uint_eq(pp_watch_count(world->pool, 1), count);
}

static void check_fire(struct world *world)
{
    ck_assert_uint_eq(pp_watch_count(world->pool, 1), 0);
    ck_assert_uint_eq(flag, 1);
    for (unsigned i = 0; i + 1 < count; i++)
        ck_assert_int_eq(((int (*)(void)) (uintptr_t) code[i])(), 1);
}

#if defined __x86_64__
/* In FLIP mode there is none: what is stopped stands for it. */
static void prepare_int3(struct world *world)
{
    prepare(world, 3, world->wx == PP_WX_FLIP ? PP_PATCH_STOPPED : PP_PATCH_INT3);
}
#endif

const struct operation sweep_patch_operations[] = {
    { "patch: few", 0, 0, CALL(MPROTECT), prepare_few, run_apply, check_apply, refused_apply,
      NULL },
    { "patch: many", CALL(METADATA), 0, CALL(MPROTECT), prepare_many, run_apply, check_apply,
      refused_apply, NULL },
    { "patch: stopped", 0, 0, CALL(MPROTECT), prepare_stopped, run_apply, check_apply,
      refused_apply, NULL },
#if defined __x86_64__
    { "patch: int3", 0, 0, CALL(MPROTECT), prepare_int3, run_apply, check_apply, refused_apply,
      NULL, .in_place = CALL(METADATA) | CALL(MEMBARRIER) },
#endif
    { "watch: add", CALL(METADATA), 0, 0, prepare_few, run_watch, check_watch, NULL, NULL,
      .gradual = true },
    { "watch: fire", CALL(METADATA), 0, CALL(MPROTECT), prepare_fire, run_fire, check_fire,
      refused_fire, NULL },
    { NULL }
};
