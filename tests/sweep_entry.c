/* SPDX-License-Identifier: MIT */
/* Entries with code of their own, and pins, to be swept. */
#include <config.h>

#include "sweep.h"

#include <check.h>

enum { PINS = 100, THREAD = -8, SLOT = -16 };

static const pp_tier0_layout tier0 = { .size = sizeof tier0, .frame_bytes = 64 };
static const pp_value replaced[] = { { PP_AT_SLOT(SLOT), PP_AT_SLOT(SLOT), .bytes = 8 } };
static const pp_value packed[] = { { PP_AT_SLOT(SLOT), PP_AT_BUFFER(0), .bytes = 8 } };

static pp_entry *entry;
static pp_pin *pins[PINS];

static void prepare(struct world *world)
{
    world->desc = (pp_trace_desc) { .size = sizeof world->desc, .code = world->kept,
                                    .code_size = sizeof world->kept, .error = &world->error };
    ck_assert_int_eq(pp_trace_link(world->pool, &world->desc, &world->traces[0]), PP_OK);
    entry = NULL;
}

static pp_status create(struct world *world, pp_osr_style style)
{
    pp_entry_desc desc = { .size = sizeof desc, .style = style, .tier0 = &tier0,
                           .code = pp_trace_entry(world->traces[0]), .error = &world->error };
    if (style == PP_ON_TOP) {
        desc.flags = PP_ENTRY_INDEX;
        desc.index = 3;
        return pp_entry_create(world->pool, &desc, &entry);
    }
    desc.body = style == PP_REPLACE ? &tier0 : NULL;
    desc.values = style == PP_REPLACE ? replaced : packed;
    desc.value_count = 1;
    desc.thread_offset = THREAD;
    return pp_entry_create(world->pool, &desc, &entry);
}

static pp_status run_replace(struct world *world) { return create(world, PP_REPLACE); }
static pp_status run_buffer(struct world *world) { return create(world, PP_BUFFER); }
static pp_status run_index(struct world *world) { return create(world, PP_ON_TOP); }

/* The body's trace is not held: it is freed, and linked again. */
static void refused_create(struct world *world)
{
    ck_assert_ptr_null(entry);
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_OK);
    ck_assert_int_eq(pp_trace_link(world->pool, &world->desc, &world->traces[0]), PP_OK);
}

static void check_create(struct world *world)
{
    ck_assert_int_eq(pp_entry_check(entry, &tier0), PP_OK);
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_E_BUSY);
    ck_assert_int_eq(pp_entry_destroy(world->pool, entry), PP_OK);
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_OK);
}

/* ---- destroying --------------------------------------------------------- */

static void prepare_destroy(struct world *world)
{
    prepare(world);
    ck_assert_int_eq(create(world, PP_BUFFER), PP_OK);
}

static pp_status run_destroy(struct world *world)
{
    return pp_entry_destroy(world->pool, entry);
}

/* As before: it can be used, and destroyed. */
static void refused_destroy(struct world *world)
{
    ck_assert_int_eq(pp_entry_check(entry, &tier0), PP_OK);
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_E_BUSY);
}

static void check_destroy(struct world *world)
{
    ck_assert_int_eq(pp_entry_check(entry, &tier0), PP_E_STALE);
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_OK);
}

/* ---- pins --------------------------------------------------------------- */

static pp_status run_pins(struct world *world)
{
    pp_token token;
    ck_assert_int_eq(pp_token_make(pp_trace_entry(world->traces[0]), &token), PP_OK);
    for (; world->made < PINS; world->made++) {
        pp_pin *pin = NULL;
        pp_status status = pp_token_pin(world->pool, &token, &pin);
        ck_assert((status == PP_OK) == (pin != NULL));
        if (status != PP_OK)
            return status;
        pins[world->made] = pin;
    }
    return PP_OK;
}

/* A failed one holds nothing, the others do. */
static void check_pins(struct world *world)
{
    ck_assert_uint_eq(world->made, PINS);
    while (world->made > 0) {
        ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_E_BUSY);
        ck_assert_int_eq(pp_token_unpin(world->pool, pins[--world->made]), PP_OK);
    }
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_OK);
}

const struct operation sweep_entry_operations[] = {
    { "entry: replace", CALL(METADATA), 0, CALL(MPROTECT), prepare, run_replace, check_create,
      refused_create, NULL },
    { "entry: replace, far", CALL(METADATA), 0, CALL(MPROTECT), prepare, run_replace, check_create,
      refused_create, NULL, .far = true },
    { "entry: buffer", CALL(METADATA), 0, CALL(MPROTECT), prepare, run_buffer, check_create,
      refused_create, NULL },
    { "entry: index", CALL(METADATA), 0, CALL(MPROTECT), prepare, run_index, check_create,
      refused_create, NULL },
    { "entry: destroy", 0, 0, CALL(MPROTECT), prepare_destroy, run_destroy, check_destroy,
      refused_destroy, NULL, .silent = true },
    { "token: pin", CALL(METADATA), 0, 0, prepare, run_pins, check_pins, NULL, NULL,
      .silent = true, .gradual = true, .modeless = true },
    { NULL }
};
