/* SPDX-License-Identifier: MIT */
/*
 * Entries that do not leave tier-0's frame as it is: descriptions that are refused,
 * and random maps of values, run and compared with what C says of them.
 */
#include <config.h>

#include "stress/method.h"
#include "stress/random.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined __x86_64__
enum { GPRS = 16, VECTORS = 16 };
#define SAVES (1ull << 3 | 0xfull << 12)
#define SOURCES 0xf7cfu          /* all but SP, FP and r11 */
#define TARGETS 0xf7cfu
#else
enum { GPRS = 32, VECTORS = 32 };
#define SAVES (0x3ffull << 19 | 0xffull << 40)
#define SOURCES 0x1ff8ffffu      /* x0-x15, x19-x28 */
#define TARGETS 0x1ff8ffffu
#endif

#define FRAME_MAX 4096
#define VALUES 24

static uint64_t seed;
static struct random stream;
static pp_pool *pool;
static pp_thread thread;

static void setup(void)
{
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

/* ---- what is run ------------------------------------------------------------ */

/* The buffer of METHOD_REGISTERS, and what the test knows. */
struct show {
    pp_regs in, out;
    void (*check)(struct show *show, uintptr_t in_body);
    const struct method_shape *shape;
    uint64_t saved[SAVE_SLOTS];
    uint8_t frame[FRAME_MAX];    /* tier-0's below its save area, as of the last pass */
    uintptr_t fp;
    unsigned passes, bodies, wrong;
    char report[160];
};
_Static_assert(offsetof(struct show, out) == BUFFER_OUT, "template.h");
_Static_assert(offsetof(struct show, check) == BUFFER_CHECK, "template.h");

static void complain(struct show *show, const char *what, size_t n)
{
    if (show->wrong++ == 0)
        snprintf(show->report, sizeof show->report, "%s %zu", what, n);
}

static uint32_t frame_bytes(const struct show *show)
{
    return FRAME_BYTES + show->shape->more_bytes;
}

/* What the map says of a value. */
static void expect(const struct show *show, const pp_value *value, uint8_t bytes[16])
{
    memset(bytes, 0, 16);
    uint64_t address = show->fp + (uint64_t) (int64_t) value->from.offset;
    switch (value->from.kind) {
    case PP_PLACE_GPR:
        memcpy(bytes, &show->in.gpr[value->from.number], value->bytes);
        break;
    case PP_PLACE_VECTOR:
        memcpy(bytes, show->in.vector[value->from.number], value->bytes);
        break;
    case PP_PLACE_SLOT:
        memcpy(bytes, show->frame + frame_bytes(show) + value->from.offset, value->bytes);
        break;
    case PP_PLACE_ADDRESS:
        memcpy(bytes, &address, 8);
        break;
    default:
        memcpy(bytes, &value->constant, value->bytes);
    }
}

static void check_values(struct show *show, uint32_t *gprs, uint32_t *vectors)
{
    const struct method_replace *replace = show->shape->replace;
    for (size_t i = 0; i < replace->value_count; i++) {
        const pp_value *value = &replace->values[i];
        uint8_t bytes[16];
        expect(show, value, bytes);
        if (value->from.kind == PP_PLACE_DEAD)
            continue;
        if (value->to.kind == PP_PLACE_GPR) {
            *gprs |= 1u << value->to.number;
            if (memcmp(&show->out.gpr[value->to.number], bytes, 8) != 0)
                complain(show, "general register of value", i);
        } else if (value->to.kind == PP_PLACE_VECTOR) {
            *vectors |= 1u << value->to.number;
            if (memcmp(show->out.vector[value->to.number], bytes, 16) != 0)
                complain(show, "vector register of value", i);
        } else if (value->to.kind == PP_PLACE_SLOT
                   && memcmp((const char *) show->fp + value->to.offset, bytes, value->bytes) != 0) {
            complain(show, "slot of value", i);
        }
    }
}

/* Callee-saved registers that no value went to are the caller's. */
static void check_kept(struct show *show, uint32_t gprs, uint32_t vectors)
{
    unsigned slot = 0;
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(SAVES >> bit & 1))
            continue;
        uint64_t saved = show->saved[slot++], found;
        if (bit < 32 ? gprs >> bit & 1 : vectors >> (bit - 32) & 1)
            continue;
        memcpy(&found, bit < 32 ? (const void *) &show->out.gpr[bit]
                                : (const void *) show->out.vector[bit - 32], 8);
        if (found != saved)
            complain(show, "register of the caller", bit);
    }
}

static void look(struct show *show, uintptr_t in_body)
{
    const uintptr_t *record = (const uintptr_t *) thread.exit_fp;
    show->fp = record[0];
    if (in_body) {
        uint32_t gprs = 0, vectors = 0;
        show->bodies++;
        check_values(show, &gprs, &vectors);
        check_kept(show, gprs, vectors);
        return;
    }
    show->passes++;
    /* The next pass is perhaps the last one: fill what tier-0 does not use, and remember all. */
    uint32_t bytes = frame_bytes(show);
    uint8_t *low = (uint8_t *) show->fp - bytes;
    for (uint32_t i = 0; i < bytes - (uint32_t) -AT_SAVES; i++)
        low[i] = (uint8_t) random_next(&stream);
    memcpy(show->frame, low, bytes);
    for (unsigned i = 0; i < GPRS; i++)
        show->in.gpr[i] = random_next(&stream);
    for (unsigned i = 0; i < VECTORS * 16; i++)
        ((uint8_t *) show->in.vector)[i] = (uint8_t) random_next(&stream);
}

static void run_method(const struct method *method, struct show *show)
{
    uint64_t result;
    for (unsigned i = 0; i < SAVE_SLOTS; i++)
        show->saved[i] = random_next(&stream);
    show->bodies = show->passes = 0;
    bool kept = method_run(method, &thread, 1000, show, 0, show->saved, &result);
    ck_assert_int_eq(method->failed, PP_OK);
    ck_assert_msg(kept, "the caller's registers or SP changed, seed %lu", (unsigned long) seed);
    ck_assert_msg(show->wrong == 0, "%s: seed %lu", show->report, (unsigned long) seed);
    ck_assert_uint_eq(show->bodies, 1);
    ck_assert_uint_eq(show->passes, result);
    ck_assert_uint_eq(thread.exit_fp, 0);
}

static void begin(struct show *show, const struct method_shape *shape)
{
    *show = (struct show) { .check = look, .shape = shape };
    show->in.fp_control = 0x1f80;
#if defined __aarch64__
    show->in.fp_control = 0;
#endif
}

/* ---- random maps -------------------------------------------------------------- */

static uint16_t draw_bit(uint32_t mask)
{
    for (;;) {
        uint16_t n = (uint16_t) random_below(&stream, 32);
        if (mask >> n & 1)
            return n;
    }
}

/* In the lowest part of a frame, so that sources and targets meet. */
static int32_t draw_slot(uint32_t bytes, uint32_t window, uint32_t size)
{
    uint32_t room = bytes - (uint32_t) -AT_SAVES;
    if (room > window)
        room = window;
    return -(int32_t) bytes + 4 * (int32_t) random_below(&stream, (room - size) / 4 + 1);
}

static bool taken(const pp_value *values, size_t count, const pp_value *value)
{
    for (size_t i = 0; i < count; i++) {
        const pp_place *a = &values[i].to, *b = &value->to;
        if (a->kind == b->kind && a->number == b->number
            && (a->kind != PP_PLACE_SLOT
                || (a->offset < b->offset + (int32_t) value->bytes
                    && b->offset < a->offset + (int32_t) values[i].bytes)))
            return true;
    }
    return false;
}

static pp_value draw_value(const struct method_shape *shape, const pp_tier0_layout *body)
{
    static const uint8_t sizes[] = { 4, 8, 16 };
    pp_value value = { .bytes = sizes[random_below(&stream, 3)] };
    bool vectors = shape->save != PP_SAVE_GPR && shape->save != PP_SAVE_ABI;
    uint32_t gpr = shape->save == PP_SAVE_MASK ? SOURCES & shape->live_gpr : SOURCES;
    switch (random_below(&stream, 5)) {
    case 0:
        value.from = (pp_place) PP_AT_GPR(draw_bit(gpr));
        break;
    case 1:
        value.from = vectors ? (pp_place) PP_AT_VECTOR(draw_bit(shape->live_vector))
                             : (pp_place) PP_AT_NOWHERE;
        break;
    case 2:
        value.from = (pp_place) PP_AT_CONSTANT;
        value.constant = random_next(&stream);
        break;
    case 3:
        value.from = (pp_place) PP_AT_ADDRESS(draw_slot(body->frame_bytes, FRAME_MAX, 4));
        value.bytes = 8;
        break;
    default:
        value.from = (pp_place) PP_AT_SLOT(draw_slot(FRAME_BYTES + shape->more_bytes, 96, value.bytes));
    }
    if (value.bytes == 16 && (value.from.kind == PP_PLACE_GPR || value.from.kind == PP_PLACE_CONSTANT))
        value.bytes = 8;
    switch (random_below(&stream, 4)) {
    case 0:
        value.to = value.bytes == 16 ? (pp_place) PP_AT_NOWHERE
                 : shape->scheme == PP_CSR_RESERVE
                     ? (pp_place) PP_AT_GPR(draw_bit(TARGETS))
                     : (pp_place) PP_AT_GPR(draw_bit(TARGETS & ~(uint32_t) SAVES));
        break;
    case 1:
        value.to = (pp_place) PP_AT_VECTOR((uint16_t) random_below(&stream, 8));
        break;
    default:
        value.to = (pp_place) PP_AT_SLOT(draw_slot(body->frame_bytes, 96, value.bytes));
    }
    return value;
}

static void draw_map(const struct method_shape *shape, struct method_replace *replace,
                     pp_value values[VALUES])
{
    uint32_t lower = 16 * (uint32_t) random_below(&stream, 5);
    replace->body = (pp_tier0_layout) { .size = sizeof replace->body,
        .frame_bytes = FRAME_BYTES + 16 * (uint32_t) random_below(&stream, 200) };
    if (random_below(&stream, 3) == 0)  /* as large as tier-0's: sources and targets overlap */
        replace->body.frame_bytes = FRAME_BYTES + shape->more_bytes;
    if (shape->scheme == PP_CSR_RESERVE && replace->body.frame_bytes < FRAME_BYTES + lower)
        lower = 0;
    if (shape->scheme == PP_CSR_RESERVE)
        replace->body.saves = (pp_save_area) { .slots = SAVES, .saved = SAVES, .offset = AT_SAVES };
    replace->values = values;
    replace->value_count = 0;
    for (unsigned i = 0; i < VALUES; i++) {
        pp_value value = draw_value(shape, &replace->body);
        if (!taken(values, replace->value_count, &value))
            values[replace->value_count++] = value;
    }
}

START_TEST(random_maps)
{
    static const pp_save classes[] = { PP_SAVE_V128, PP_SAVE_GPR, PP_SAVE_ABI, PP_SAVE_MASK };
    for (unsigned round = 0; round < 60; round++) {
        pp_value values[VALUES];
        struct method_replace replace;
        struct method_shape shape = {
            .kind = METHOD_REGISTERS, .threshold = 2 + (int32_t) random_below(&stream, 3), .hits = 1,
            .scheme = round & 1 ? PP_CSR_RELOAD : PP_CSR_RESERVE,
            .counter = PP_COUNTER_FRAME, .save = classes[_i], .with_thread = (round & 2) != 0,
            .more_bytes = 16 * (uint32_t) random_below(&stream, 150),
            .local_bytes = 40, .replace = &replace,
        };
        uint32_t live = (uint32_t) (random_next(&stream) & 0xffff) | 1;
        shape.live_vector = classes[_i] == PP_SAVE_MASK ? live : 0xffff;
        shape.live_gpr = classes[_i] == PP_SAVE_MASK ? SOURCES : 0;
        draw_map(&shape, &replace, values);
        struct method_shape given = shape;
        if (classes[_i] != PP_SAVE_MASK)
            given.live_vector = given.live_gpr = 0;
        struct show show;
        struct method method;
        begin(&show, &shape);
        ck_assert_int_eq(method_open(&method, pool, &given), PP_OK);
        run_method(&method, &show); /* through the slow path */
        ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_READY);
        for (unsigned i = 0; i < 3; i++)
            run_method(&method, &show);
        ck_assert_int_eq(pp_entry_destroy(pool, method.entries[0]), PP_E_BUSY);
        ck_assert_int_eq(method_close(&method), PP_OK);
    }
}
END_TEST

/* ---- the stack's limit ------------------------------------------------------------ */

static pp_site_stats stats_of(const struct method *method)
{
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(method->sites[0], &stats), PP_OK);
    return stats;
}

static void sum_to(const struct method *method, pp_thread *on, uint64_t n)
{
    uint64_t saved[SAVE_SLOTS] = { 1, 2, 3 }, result;
    ck_assert(method_run(method, on, n, NULL, 1, saved, &result));
    ck_assert_uint_eq(result, method_model(method, n, 1));
}

/* On a thread that says it has less stack than a body takes, and on one that has more. */
START_TEST(bodies_that_do_not_fit_are_not_entered)
{
    enum { BODY = 1 << 16 };
    struct method_replace replace = { .body = { .size = sizeof replace.body,
                                                .frame_bytes = FRAME_BYTES + BODY,
        .saves = { .slots = SAVES, .saved = SAVES, .offset = AT_SAVES } } };
    struct method_shape shape = {
        .kind = METHOD_SUM, .scheme = PP_CSR_RESERVE, .save = PP_SAVE_GPR, .with_thread = true,
        .threshold = 5, .hits = 1, .local_bytes = BODY, .entry_flags = PP_ENTRY_CHECK_STACK,
        .replace = _i ? &replace : NULL,
    };
    struct method method;
    pp_thread small;
    const char *here = __builtin_frame_address(0);
    ck_assert_int_eq(pp_thread_init(&small, here - BODY, here), PP_OK);
    ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
    sum_to(&method, &small, 100);
    ck_assert_int_eq(method.failed, PP_OK);
    ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_READY);
    ck_assert_ptr_eq(pp_site_entry(method.sites[0]), method.entries[0]);
    ck_assert_uint_eq(stats_of(&method).transitions, 0);
    ck_assert_uint_eq(stats_of(&method).refusals, 20); /* one for each slow path */
    sum_to(&method, &thread, 100);
    ck_assert_uint_eq(stats_of(&method).transitions, 1);
    ck_assert_uint_eq(stats_of(&method).refusals, 20);
    sum_to(&method, &small, 4);
    sum_to(&method, &small, 5);
    ck_assert_uint_eq(stats_of(&method).refusals, 21);
    ck_assert_uint_eq(stats_of(&method).triggers, 1);
    ck_assert_int_eq(pp_site_disable(method.sites[0]), PP_OK);
    sum_to(&method, &thread, 100);
    ck_assert_uint_eq(stats_of(&method).transitions, 1);
    ck_assert_int_eq(method_close(&method), PP_OK);

    shape.with_thread = false; /* nobody knows the stack: not published */
    ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
    sum_to(&method, &thread, 100);
    ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_FAILED);
    ck_assert_uint_eq(stats_of(&method).transitions, 0);
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

/* ---- refusals ------------------------------------------------------------------- */

static pp_trace *code;
static pp_tier0_layout tier0, body;

static void setup_refusals(void)
{
    setup();
    static const uint8_t nops[16];
    pp_trace_desc desc = { .size = sizeof desc, .code = nops, .code_size = sizeof nops };
    ck_assert_int_eq(pp_trace_link(pool, &desc, &code), PP_OK);
    tier0 = (pp_tier0_layout) { .size = sizeof tier0, .frame_bytes = 64,
                                .saves = { .slots = SAVES, .offset = -64 } };
    tier0.frame_bytes = 16 + 8 * SAVE_SLOTS + 8 * (SAVE_SLOTS & 1) + 64;
    tier0.saves.offset = -(int32_t) tier0.frame_bytes;
    body = tier0;
    body.saves.saved = SAVES;
    body.frame_bytes += 32;
}

static pp_entry_desc description(const pp_value *values, size_t count)
{
    return (pp_entry_desc) { .size = sizeof(pp_entry_desc), .style = PP_REPLACE,
                             .code = pp_trace_entry(code), .tier0 = &tier0, .body = &body,
                             .values = values, .value_count = count };
}

static void refuse(const pp_entry_desc *given, pp_status status, const char *why)
{
    pp_error error = { .size = sizeof error };
    pp_pool_stats before = { .size = sizeof before }, after = { .size = sizeof after };
    pp_entry_desc desc = *given;
    pp_entry *entry = (pp_entry *) 1;
    desc.error = &error;
    ck_assert_int_eq(pp_pool_get_stats(pool, &before), PP_OK);
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), status);
    ck_assert_msg(strstr(error.text, why) != NULL, "\"%s\" is not in \"%s\"", why, error.text);
    ck_assert_ptr_eq(entry, (pp_entry *) 1);
    ck_assert_int_eq(pp_pool_get_stats(pool, &after), PP_OK);
    ck_assert_uint_eq(before.traces, after.traces);
    ck_assert_int_eq(pp_trace_free(pool, NULL) == PP_OK, 0);
}

START_TEST(values_are_refused)
{
    const int32_t low = -(int32_t) tier0.frame_bytes, body_low = -(int32_t) body.frame_bytes;
    const struct {
        pp_value value;
        const char *why;
    } wrong[] = {
        { { PP_AT_SLOT(-8), PP_AT_SLOT(-8), .bytes = 2 }, "bytes: not 4, 8 or 16" },
        { { PP_AT_SLOT(-8), PP_AT_SLOT(-8), .bytes = 8, .reserved = 1 }, "reserved" },
        { { PP_AT_SLOT(-8), PP_AT_SLOT(-8), .bytes = 8, .constant = 1 }, "constant" },
        { { PP_AT_SLOT(-6), PP_AT_SLOT(-8), .bytes = 4 }, "from: a slot's offset" },
        { { PP_AT_SLOT(low - 4), PP_AT_SLOT(-8), .bytes = 4 }, "from: outside the frame" },
        { { PP_AT_SLOT(INT32_MIN), PP_AT_SLOT(-8), .bytes = 4 }, "from: outside the frame" },
        { { PP_AT_SLOT(INT32_MAX & ~3), PP_AT_SLOT(-8), .bytes = 4 }, "from: outside the frame" },
        { { PP_AT_SLOT(16), PP_AT_SLOT(-8), .bytes = 4 }, "from: outside the frame" },
        { { PP_AT_SLOT(-4), PP_AT_SLOT(-8), .bytes = 8 }, "from: in the frame record" },
        { { PP_AT_SLOT(8), PP_AT_SLOT(-8), .bytes = 4 }, "from: in the frame record" },
        { { PP_AT_SLOT(low), PP_AT_SLOT(-8), .bytes = 4 }, "from: in the save area" },
        { { PP_AT_SLOT(-8), PP_AT_SLOT(low), .bytes = 4 }, "to: in the save area" },
        { { PP_AT_SLOT(-8), PP_AT_SLOT(body_low - 4), .bytes = 4 }, "to: outside the frame" },
        { { PP_AT_SLOT(-8), PP_AT_SLOT(0), .bytes = 4 }, "to: in the frame record" },
        { { PP_AT_GPR(GPRS), PP_AT_SLOT(-8), .bytes = 8 }, "from: a register that no site keeps" },
        { { PP_AT_GPR(0), PP_AT_SLOT(-16), .bytes = 16 }, "bytes: 16 of a general register" },
        { { PP_AT_VECTOR(VECTORS), PP_AT_SLOT(-8), .bytes = 8 }, "from: no vector register" },
        { { PP_AT_SLOT(-8), PP_AT_VECTOR(VECTORS), .bytes = 8 }, "to: no vector register" },
        { { PP_AT_CONSTANT, PP_AT_SLOT(-16), .bytes = 16 }, "bytes: 16 of a constant" },
        { { PP_AT_SLOT(-16), PP_AT_GPR(0), .bytes = 16 }, "bytes: 16 into a general register" },
        { { PP_AT_ADDRESS(-8), PP_AT_GPR(0), .bytes = 4 }, "bytes: an address has 8" },
        { { PP_AT_ADDRESS(body_low - 4), PP_AT_GPR(0), .bytes = 8 }, "from: outside the frame" },
        { { PP_AT_SLOT(-8), PP_AT_CONSTANT, .bytes = 8 }, "to.kind: no target" },
        { { PP_AT_BUFFER(0), PP_AT_GPR(0), .bytes = 8 }, "from.kind: no source" },
        { { PP_AT_SLOT(-8), PP_AT_BUFFER(0), .bytes = 8 }, "no buffer in this style" },
        { { { 99, 0, 0 }, PP_AT_GPR(0), .bytes = 8 }, "from.kind: no source" },
#if defined __x86_64__
        { { PP_AT_GPR(11), PP_AT_SLOT(-8), .bytes = 8 }, "from: a register that no site keeps" },
        { { PP_AT_SLOT(-8), PP_AT_GPR(4), .bytes = 8 }, "to: a register with a role" },
        { { PP_AT_SLOT(-8), PP_AT_GPR(5), .bytes = 8 }, "to: a register with a role" },
        { { PP_AT_SLOT(-8), PP_AT_GPR(11), .bytes = 8 }, "to: a register with a role" },
#else
        { { PP_AT_GPR(16), PP_AT_SLOT(-8), .bytes = 8 }, "from: a register that no site keeps" },
        { { PP_AT_SLOT(-8), PP_AT_GPR(18), .bytes = 8 }, "to: a register with a role" },
        { { PP_AT_SLOT(-8), PP_AT_GPR(29), .bytes = 8 }, "to: a register with a role" },
        { { PP_AT_SLOT(-8), PP_AT_GPR(30), .bytes = 8 }, "to: a register with a role" },
        { { PP_AT_SLOT(-8), PP_AT_GPR(31), .bytes = 8 }, "to: a register with a role" },
#endif
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        pp_value values[] = { { PP_AT_CONSTANT, PP_AT_GPR(1), .bytes = 8 }, wrong[i].value };
        pp_entry_desc desc = description(values, 2);
        refuse(&desc, PP_E_ARG, "values[1].");
        refuse(&desc, PP_E_ARG, wrong[i].why);
    }
}
END_TEST

START_TEST(two_values_for_one_place_are_refused)
{
    pp_value values[] = { { PP_AT_SLOT(-16), PP_AT_SLOT(-16), .bytes = 8 },
                          { PP_AT_SLOT(-16), PP_AT_SLOT(-12), .bytes = 4 } };
    pp_entry_desc desc = description(values, 2);
    refuse(&desc, PP_E_ARG, "values[1].to: values[0] goes there, too");
    values[0].to = values[1].to = (pp_place) PP_AT_VECTOR(1);
    refuse(&desc, PP_E_ARG, "values[1].to: values[0] goes there, too");
    values[0].to = values[1].to = (pp_place) PP_AT_GPR(1);
    refuse(&desc, PP_E_ARG, "values[1].to: values[0] goes there, too");
    desc.value_count = PP_VALUES_MAX + 1;
    refuse(&desc, PP_E_ARG, "more than 1024");
    desc.values = NULL;
    desc.value_count = 1;
    refuse(&desc, PP_E_ARG, "values: missing");
}
END_TEST

START_TEST(frames_that_do_not_fit_are_refused)
{
    pp_value value = { PP_AT_SLOT(-8), PP_AT_GPR(__builtin_ctzll(SAVES)), .bytes = 8 };
    pp_entry_desc desc = description(&value, 1);
    body.saves.saved = 0;
    refuse(&desc, PP_E_ARG, "the caller's register, and the body has not saved it");
    desc.used = SAVES;
    refuse(&desc, PP_E_ABI, "used: a register that body.saves.saved has not");
    desc.scheme = PP_CSR_RELOAD;
    refuse(&desc, PP_E_ARG, "body.saves: the body has yet to make it");
    desc.scheme = PP_CSR_RESERVE;
    desc.used = 0;
    desc.value_count = 0;
    desc.thread_offset = -4;
    refuse(&desc, PP_E_ARG, "thread_offset: not a multiple of 8");
    desc.thread_offset = 8;
    refuse(&desc, PP_E_ARG, "thread_offset: in the frame record");
    desc.thread_offset = 0;
    desc.body = NULL;
    refuse(&desc, PP_E_ARG, "body: missing");
    desc.body = &body;
    body.frame_bytes += 8;
    refuse(&desc, PP_E_ARG, "frame_bytes");
    body.frame_bytes -= 8;
#if defined __aarch64__
    body.cfa_offset = 32;
    refuse(&desc, PP_E_ABI, "body.cfa_offset: 32");
    body.cfa_offset = 0;
#endif
    desc.style = PP_ON_TOP;
    refuse(&desc, PP_E_ARG, "not in this style");
    desc.style = (pp_osr_style) 77;
    refuse(&desc, PP_E_ARG, "style: 77");
    desc.style = PP_REPLACE;
    desc.flags = 4;
    refuse(&desc, PP_E_ARG, "flags: 0x4");
}
END_TEST

static pp_entry_desc buffered(const pp_value *values, size_t count)
{
    pp_entry_desc desc = description(values, count);
    desc.style = PP_BUFFER;
    desc.body = NULL;
    desc.thread_offset = -16;
    return desc;
}

/* Values of a body of PP_BUFFER, and what else it cannot have. */
START_TEST(functions_have_no_frame_yet)
{
#if defined __x86_64__
    enum { FIRST = 7 };
#else
    enum { FIRST = 0 };
#endif
    const struct {
        pp_value value;
        const char *why;
    } wrong[] = {
        { { PP_AT_SLOT(-8), PP_AT_BUFFER(-4), .bytes = 4 }, "to: no position in a buffer" },
        { { PP_AT_SLOT(-8), PP_AT_BUFFER(6), .bytes = 4 }, "to: no position in a buffer" },
        { { PP_AT_SLOT(-8), PP_AT_BUFFER(PP_BUFFER_BYTES_MAX), .bytes = 4 }, "to: no position" },
        { { PP_AT_ADDRESS(-4), PP_AT_BUFFER(0), .bytes = 8 }, "from: no position in a buffer" },
        { { PP_AT_SLOT(-8), PP_AT_SLOT(-8), .bytes = 8 }, "to: the body has no frame yet" },
        { { PP_AT_SLOT(-8), PP_AT_GPR(FIRST), .bytes = 8 }, "to: the buffer's address" },
        { { PP_AT_SLOT(-8), PP_AT_GPR(__builtin_ctzll(SAVES)), .bytes = 8 }, "to: the caller's" },
        { { PP_AT_BUFFER(0), PP_AT_BUFFER(0), .bytes = 8 }, "from.kind: no source" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        pp_value values[] = { { PP_AT_CONSTANT, PP_AT_BUFFER(32), .bytes = 8 }, wrong[i].value };
        pp_entry_desc desc = buffered(values, 2);
        refuse(&desc, PP_E_ARG, "values[1].");
        refuse(&desc, PP_E_ARG, wrong[i].why);
    }
    pp_value values[] = { { PP_AT_SLOT(-8), PP_AT_BUFFER(0), .bytes = 8 },
                          { PP_AT_SLOT(-8), PP_AT_BUFFER(4), .bytes = 4 } };
    pp_entry_desc desc = buffered(values, 2);
    refuse(&desc, PP_E_ARG, "values[1].to: values[0] goes there, too");
    desc.value_count = 1;
    desc.thread_offset = 0;
    refuse(&desc, PP_E_ARG, "thread_offset: missing");
    desc.thread_offset = -4;
    refuse(&desc, PP_E_ARG, "thread_offset: not a multiple of 8");
    desc.thread_offset = tier0.saves.offset;
    refuse(&desc, PP_E_ARG, "thread_offset: in the save area");
    desc.thread_offset = -16;
    desc.body = &body;
    refuse(&desc, PP_E_ARG, "body: not in this style");
    desc.body = NULL;
    desc.scheme = (pp_csr_scheme) 2;
    refuse(&desc, PP_E_ARG, "scheme: 2");
    desc.scheme = PP_CSR_RESERVE;
    desc.used = 1;
    refuse(&desc, PP_E_ARG, "used: not a callee-saved register");
}
END_TEST

static pp_status never(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site, (void) regs, (void) entry;
    return PP_E_FAULT;
}

/* A site that does not keep what the map reads. */
START_TEST(save_classes_must_suffice)
{
    pp_value values[] = { { PP_AT_VECTOR(3), PP_AT_SLOT(-16), .bytes = 16 },
                          { PP_AT_GPR(1), PP_AT_GPR(2), .bytes = 8 } };
    pp_entry_desc desc = description(values, 2);
    pp_entry *entry;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    pp_site_desc wish = { .size = sizeof wish, .kind = PP_SITE_COUNTED, .counter = PP_COUNTER_SITE,
                          .threshold = 1, .tier0 = &tier0, .produce = never };
    static const struct {
        pp_save save;
        uint32_t gpr, vector;
        pp_status status;
    } sites[] = {
        { PP_SAVE_GPR, 0, 0, PP_E_ABI }, { PP_SAVE_ABI, 0, 0, PP_E_ABI },
        { PP_SAVE_MASK, 0, 0, PP_E_ABI }, { PP_SAVE_MASK, 2, 0, PP_E_ABI },
        { PP_SAVE_MASK, 0, 8, PP_E_ABI }, { PP_SAVE_MASK, 2, 8, PP_OK },
        { PP_SAVE_V128, 0, 0, PP_OK },
    };
    for (size_t i = 0; i < sizeof sites / sizeof sites[0]; i++) {
        pp_site *site;
        pp_site_stats stats = { .size = sizeof stats };
        wish.save = sites[i].save;
        wish.live_gpr = sites[i].gpr;
        wish.live_vector = sites[i].vector;
        ck_assert_int_eq(pp_site_create(pool, &wish, &site), PP_OK);
        ck_assert_int_eq(pp_site_publish(site, entry), sites[i].status);
        ck_assert_int_eq(pp_site_state(site),
                         sites[i].status == PP_OK ? PP_SITE_READY : PP_SITE_IDLE);
        ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
        ck_assert_uint_eq(stats.refusals, sites[i].status != PP_OK);
        ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    }
    pp_tier0_layout other = tier0;
    other.frame_bytes += 16;
    ck_assert_int_eq(pp_entry_check(entry, &tier0), PP_OK);
    ck_assert_int_eq(pp_entry_check(entry, &other), PP_E_ABI);
    ck_assert_int_eq(pp_trace_free(pool, code), PP_E_BUSY);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_entry_check(entry, &tier0), PP_E_STALE);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_E_STALE);
    ck_assert_int_eq(pp_trace_free(pool, code), PP_OK);
}
END_TEST

int main(void)
{
    const char *given = getenv("PP_SEED");
    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
    stream = random_stream(seed, 1);
    printf("check_entry: seed %lu (PP_SEED)\n", (unsigned long) seed);

    Suite *suite = suite_create("entry");
    TCase *tests = tcase_create("run");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, random_maps, 0, 4);
    tcase_add_loop_test(tests, bodies_that_do_not_fit_are_not_entered, 0, 2);
    suite_add_tcase(suite, tests);
    TCase *refusals = tcase_create("refusals");
    tcase_add_checked_fixture(refusals, setup_refusals, teardown);
    tcase_add_test(refusals, values_are_refused);
    tcase_add_test(refusals, two_values_for_one_place_are_refused);
    tcase_add_test(refusals, frames_that_do_not_fit_are_refused);
    tcase_add_test(refusals, functions_have_no_frame_yet);
    tcase_add_test(refusals, save_classes_must_suffice);
    suite_add_tcase(suite, refusals);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
