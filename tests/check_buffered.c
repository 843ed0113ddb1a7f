/* SPDX-License-Identifier: MIT */
/*
 * Bodies of PP_BUFFER: functions that take tier-0's place, with random maps compared
 * with what C says of them, at any depth and under signals.
 */
#include <config.h>

#include "entered.h"
#include "snippet.h"
#include "stress/method.h"
#include "stress/random.h"

#include <check.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <time.h>

#if defined __x86_64__
enum { GPRS = 16, VECTORS = 16, FIRST = 7, OTHER = 6 };
#define SAVES (1ull << 3 | 0xfull << 12)
#define SOURCES 0xf7cfu          /* all but SP, FP and r11 */
#define TARGETS 0x0747u          /* rax rcx rdx rsi r8 r9 r10 */
#else
enum { GPRS = 32, VECTORS = 32, FIRST = 0, OTHER = 1 };
#define SAVES (0x3ffull << 19 | 0xffull << 40)
#define SOURCES 0x1ff8ffffu      /* x0-x15, x19-x28 */
#define TARGETS 0x0000fffeu      /* x1-x15 */
#endif

enum { BYTES = 512, COUNT = 4, VALUES = 24, FRAME_MAX = 4096 };

static uint64_t seed;
static struct random stream;
static pp_pool *pool;
static pp_thread thread;
static _Alignas(16) char memory[COUNT * BYTES + 256];
static pp_trace *body;

pp_regs entered_regs;
static uintptr_t (*on_entered)(uintptr_t first, uintptr_t second);

uintptr_t entered_check(uintptr_t first, uintptr_t second)
{
    return on_entered(first, second);
}

static void give_buffers(size_t bytes, size_t count)
{
    ck_assert_uint_le(pp_buffer_space(bytes, count), sizeof memory);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, memory, bytes, count), PP_OK);
}

static void open_pool(uint32_t flags)
{
    pp_pool_options options = { .size = sizeof options, .flags = flags };
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    struct snippet s = { 0 };
#if defined __x86_64__
    SNIPPET_CODE(&s, 0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0, 0, 0, 0); /* endbr64; jmp entered */
    snippet_reloc(&s, 4, R_X86_64_PLT32, pp_symbol_define(pool, NULL, entered), -4);
#else
    SNIPPET_WORDS(&s, 0xd503245f, 0x14000000);                  /* bti c; b entered */
    snippet_reloc(&s, 4, R_AARCH64_JUMP26, pp_symbol_define(pool, NULL, entered), 0);
#endif
    pp_trace_desc desc = snippet_desc(&s);
    ck_assert_int_eq(pp_trace_link(pool, &desc, &body), PP_OK);
    snippet_free(&s);
}

static void setup(void)
{
    open_pool(0);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_thread_set_buffers(&thread, NULL, 0, 0), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, body), PP_OK);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

/* ---- methods ------------------------------------------------------------------ */

static pp_entry *entry;

static pp_entry_desc description(const struct method *method, const pp_value *values, size_t count)
{
    return (pp_entry_desc) { .size = sizeof(pp_entry_desc), .style = PP_BUFFER,
                             .scheme = method->shape.scheme, .code = pp_trace_entry(body),
                             .tier0 = &method->tier0, .used = SAVES, .thread_offset = AT_THREAD,
                             .values = values, .value_count = count };
}

/* Tier-0 with a site that leads to the body, from its first slow path on. */
static void open_method(struct method *method, const struct method_shape *shape,
                        const pp_value *values, size_t count)
{
    ck_assert_int_eq(method_open(method, pool, shape), PP_OK);
    pp_entry_desc desc = description(method, values, count);
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    ck_assert_int_eq(pp_site_publish(method->sites[0], entry), PP_OK);
    ck_assert_int_eq(pp_site_state(method->sites[0]), PP_SITE_READY);
}

static void close_method(struct method *method)
{
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_E_BUSY);
    ck_assert_int_eq(pp_trace_free(pool, body), PP_E_BUSY);
    ck_assert_int_eq(method_close(method), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
}

static pp_site_stats stats_of(const struct method *method)
{
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(method->sites[0], &stats), PP_OK);
    return stats;
}

/* ---- random maps -------------------------------------------------------------- */

/* The buffer of METHOD_REGISTERS, and what the test knows. */
static struct show {
    pp_regs in, out;
    void (*check)(struct show *show, uintptr_t in_body);
    const pp_value *values;
    size_t value_count;
    uint32_t frame_bytes;
    uint64_t saved[SAVE_SLOTS];
    uint8_t frame[FRAME_MAX];    /* tier-0's below its save area, as of the last pass */
    unsigned passes, bodies;
    char *wrong;
} show;
_Static_assert(offsetof(struct show, out) == BUFFER_OUT, "template.h");
_Static_assert(offsetof(struct show, check) == BUFFER_CHECK, "template.h");

static void look(struct show *at, uintptr_t in_body)
{
    (void) in_body;
    const uintptr_t *record = (const uintptr_t *) thread.exit_fp;
    uint8_t *low = (uint8_t *) record[0] - at->frame_bytes;
    at->passes++;
    for (uint32_t i = 0; i < at->frame_bytes - (uint32_t) -AT_SAVES; i++)
        low[i] = (uint8_t) random_next(&stream);
    memcpy(at->frame, low, at->frame_bytes);
    for (unsigned i = 0; i < GPRS; i++)
        at->in.gpr[i] = random_next(&stream);
    for (unsigned i = 0; i < VECTORS * 16; i++)
        ((uint8_t *) at->in.vector)[i] = (uint8_t) random_next(&stream);
#if defined __x86_64__
    at->in.flags = random_next(&stream) & 0x400; /* DF */
#endif
}

/* What the map says of a value. */
static void expect(const pp_value *value, uintptr_t buffer, uint8_t bytes[16])
{
    uint64_t address = buffer + (uint64_t) (int64_t) value->from.offset;
    memset(bytes, 0, 16);
    if (value->from.kind == PP_PLACE_GPR)
        memcpy(bytes, &show.in.gpr[value->from.number], value->bytes);
    else if (value->from.kind == PP_PLACE_VECTOR)
        memcpy(bytes, show.in.vector[value->from.number], value->bytes);
    else if (value->from.kind == PP_PLACE_SLOT)
        memcpy(bytes, show.frame + show.frame_bytes + value->from.offset, value->bytes);
    else if (value->from.kind == PP_PLACE_ADDRESS)
        memcpy(bytes, &address, 8);
    else
        memcpy(bytes, &value->constant, value->bytes);
}

static bool is_right(const pp_value *value, uintptr_t buffer)
{
    uint8_t bytes[16];
    expect(value, buffer, bytes);
    if (value->from.kind == PP_PLACE_DEAD || value->to.kind == PP_PLACE_DEAD)
        return true;
    if (value->to.kind == PP_PLACE_GPR)
        return memcmp(&entered_regs.gpr[value->to.number], bytes, 8) == 0;
    if (value->to.kind == PP_PLACE_VECTOR)
        return memcmp(entered_regs.vector[value->to.number], bytes, 16) == 0;
    return memcmp((const char *) buffer + value->to.offset, bytes, value->bytes) == 0;
}

/* Nothing is asserted in the body: the test's frames lie behind it. */
static uintptr_t compare(uintptr_t first, uintptr_t second)
{
    unsigned slot = 0;
    (void) second;
    show.bodies++;
    show.wrong = NULL;
    for (size_t i = 0; i < show.value_count; i++)
        if (!is_right(&show.values[i], first))
            show.wrong = "a value";
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(SAVES >> bit & 1))
            continue;
        const void *found = bit < 32 ? (const void *) &entered_regs.gpr[bit]
                                     : (const void *) entered_regs.vector[bit - 32];
        if (memcmp(found, &show.saved[slot++], 8) != 0)
            show.wrong = "a register of the caller";
    }
    if ((void *) first != pp_buffer_next(&thread, NULL) || entered_regs.gpr[FIRST] != first)
        show.wrong = "the buffer";
    if (entered_regs.gpr[PP_REGS_SP / 8] % 16 != (GPRS == 16 ? 8 : 0))
        show.wrong = "SP";
    if (GPRS == 16 && (entered_regs.flags & 0x400))
        show.wrong = "DF";
    if (thread.exit_fp != 0)
        show.wrong = "exit_fp";
    if (pp_buffer_release(&thread, (void *) first) != PP_OK)
        show.wrong = "the release";
    return 77;
}

static uint16_t draw_bit(uint32_t mask)
{
    for (;;) {
        uint16_t n = (uint16_t) random_below(&stream, 32);
        if (mask >> n & 1)
            return n;
    }
}

static bool taken(const pp_value *values, size_t count, const pp_value *value)
{
    for (size_t i = 0; i < count; i++) {
        const pp_place *a = &values[i].to, *b = &value->to;
        if (a->kind == b->kind && a->number == b->number
            && (a->kind != PP_PLACE_BUFFER
                || (a->offset < b->offset + (int32_t) value->bytes
                    && b->offset < a->offset + (int32_t) values[i].bytes)))
            return true;
    }
    return false;
}

static pp_value draw_value(const struct method_shape *shape, uint32_t live_vector)
{
    static const uint8_t sizes[] = { 4, 8, 16 };
    pp_value value = { .bytes = sizes[random_below(&stream, 3)] };
    uint32_t window = FRAME_BYTES + shape->more_bytes - (uint32_t) -AT_SAVES;
    switch (random_below(&stream, 5)) {
    case 0:
        value.from = (pp_place) PP_AT_GPR(draw_bit(SOURCES));
        break;
    case 1:
        value.from = live_vector == 0 ? (pp_place) PP_AT_NOWHERE
                                      : (pp_place) PP_AT_VECTOR(draw_bit(live_vector));
        break;
    case 2:
        value.from = (pp_place) PP_AT_CONSTANT;
        value.constant = random_next(&stream);
        break;
    case 3:
        value.from = (pp_place) PP_AT_ADDRESS((int32_t) random_below(&stream, BYTES / 4) * 4);
        value.bytes = 8;
        break;
    default:
        value.from = (pp_place) PP_AT_SLOT(-(int32_t) (FRAME_BYTES + shape->more_bytes)
                         + 4 * (int32_t) random_below(&stream, (window - value.bytes) / 4 + 1));
    }
    if (value.from.kind == PP_PLACE_GPR || value.from.kind == PP_PLACE_CONSTANT)
        value.bytes = value.bytes == 16 ? 8 : value.bytes;
    unsigned to = (unsigned) random_below(&stream, 6);
    if (to == 0 && value.bytes != 16)
        value.to = (pp_place) PP_AT_GPR(draw_bit(TARGETS));
    else if (to == 1)
        value.to = (pp_place) PP_AT_VECTOR((uint16_t) random_below(&stream, 8));
    else
        value.to = (pp_place) PP_AT_BUFFER(4 * (int32_t) random_below(&stream,
                                               (BYTES - value.bytes) / 4 + 1));
    return value;
}

/* What the save class does not keep is no source. */
static size_t draw_map(struct method_shape *shape, pp_value values[VALUES])
{
    uint32_t live = shape->save == PP_SAVE_V128 ? 0xffff : 0;
    size_t count = 0;
    if (shape->save == PP_SAVE_MASK) {
        shape->live_vector = live = (uint32_t) (random_next(&stream) & 0xffff) | 1;
        shape->live_gpr = SOURCES;
    }
    for (unsigned i = 0; i < VALUES; i++) {
        pp_value value = draw_value(shape, live);
        if (!taken(values, count, &value))
            values[count++] = value;
    }
    return count;
}

static void run_registers(const struct method *method)
{
    uint64_t result;
    for (unsigned i = 0; i < SAVE_SLOTS; i++)
        show.saved[i] = random_next(&stream);
    show.bodies = show.passes = 0;
    bool kept = method_run(method, &thread, 1000, &show, 0, show.saved, &result);
    ck_assert_msg(kept, "the caller's registers or SP changed, seed %lu", (unsigned long) seed);
    ck_assert_msg(show.wrong == NULL, "%s, seed %lu", show.wrong, (unsigned long) seed);
    ck_assert_uint_eq(show.bodies, 1);
    ck_assert_uint_eq(show.passes, (unsigned) method->shape.threshold - 1);
    ck_assert_uint_eq(result, 77);
    ck_assert_uint_eq(thread.exit_fp, 0);
}

START_TEST(random_maps)
{
    static const pp_save classes[] = { PP_SAVE_V128, PP_SAVE_GPR, PP_SAVE_ABI, PP_SAVE_MASK };
    on_entered = compare;
    give_buffers(BYTES, COUNT);
    for (unsigned round = 0; round < 60; round++) {
        pp_value values[VALUES];
        struct method method;
        struct method_shape shape = {
            .kind = METHOD_REGISTERS, .hits = 1,
            .threshold = 2 + (int32_t) random_below(&stream, 3),
            .scheme = round & 1 ? PP_CSR_RELOAD : PP_CSR_RESERVE, .with_thread = true,
            .counter = PP_COUNTER_FRAME, .save = classes[_i],
            .more_bytes = 16 * (uint32_t) random_below(&stream, 150),
        };
        show = (struct show) { .check = look, .values = values,
                               .frame_bytes = FRAME_BYTES + shape.more_bytes };
#if defined __x86_64__
        show.in.fp_control = 0x1f80;
#endif
        show.value_count = draw_map(&shape, values);
        open_method(&method, &shape, values, show.value_count);
        for (unsigned i = 0; i < 3; i++)
            run_registers(&method);
        ck_assert_uint_eq(stats_of(&method).transitions, 3);
        ck_assert_uint_eq(stats_of(&method).refusals, 0);
        close_method(&method);
    }
}
END_TEST

/* ---- sums --------------------------------------------------------------------- */

static const pp_value sum_values[] = {
    { PP_AT_SLOT(AT_N), PP_AT_BUFFER(0), .bytes = 8 },
    { PP_AT_SLOT(AT_SUM), PP_AT_BUFFER(8), .bytes = 8 },
    { PP_AT_SLOT(AT_START), PP_AT_GPR(OTHER), .bytes = 8 },
};

static struct method_shape sum_shape(void)
{
    return (struct method_shape) { .kind = METHOD_SUM, .save = PP_SAVE_GPR, .with_thread = true,
                                   .threshold = 5, .hits = 1 };
}

static uint64_t run_sum(const struct method *method, uint64_t n, uint64_t start)
{
    uint64_t saved[SAVE_SLOTS] = { 1, 2, 3, 4, 5 }, result;
    ck_assert(method_run(method, &thread, n, NULL, start, saved, &result));
    return result;
}

/* The rest of the sum, read from the buffer. */
static uintptr_t sum_rest(uintptr_t first, uintptr_t second)
{
    const uint64_t *buffer = (const uint64_t *) first;
    uint64_t n = buffer[0], sum = buffer[1];
    (void) second;
    show.bodies++;
    pp_buffer_release(&thread, buffer);
    return sum + n * (n + 1) / 2;
}

START_TEST(frames_of_every_size_are_popped)
{
    static const uint32_t sizes[] = { 0, 1 << 12, 3840, 4080, 1 << 16, (1 << 20) - 256, 1 << 20,
                                      (1 << 20) + 16, (3 << 20) + 4080 };
    pp_trace_free(pool, body) == PP_OK ? pp_pool_destroy(pool) : ck_abort();
    open_pool(_i & 1 ? PP_POOL_LANDING_PADS : 0);
    on_entered = sum_rest;
    give_buffers(16, 1);
    struct method method;
    struct method_shape shape = sum_shape();
    shape.more_bytes = sizes[_i / 2];
    shape.scheme = _i & 2 ? PP_CSR_RELOAD : PP_CSR_RESERVE;
    open_method(&method, &shape, sum_values, 3);
    for (uint64_t n = 1; n < 12; n++)
        ck_assert_uint_eq(run_sum(&method, n, 1), n * (n + 1) / 2);
    ck_assert_uint_eq(stats_of(&method).transitions, 7);
    close_method(&method);
}
END_TEST

#if defined __aarch64__

static uintptr_t twice(uintptr_t first, uintptr_t second)
{
    uint64_t value = *(const uint64_t *) first;
    (void) second;
    pp_buffer_release(&thread, (const void *) first);
    return 2 * value;
}

static pp_status refuse_always(void *host, pp_site *site, const pp_regs *regs, pp_entry **result)
{
    (void) host, (void) site, (void) regs, (void) result;
    return PP_E_FAULT;
}

/* A frame whose record lies at its lowest address, and a forced site. */
static pp_trace *link_tier0(pp_site *site, uint32_t cfa_offset)
{
    struct snippet s = { 0 };
    uint8_t bytes[64];
    pp_trace *trace;
    pp_site_layout layout = { .size = sizeof layout };
    SNIPPET_WORDS(&s, 0xd2800009 | (cfa_offset & 0xffff) << 5); /* mov x9, cfa_offset */
    SNIPPET_WORDS(&s, 0xf2a00009 | cfa_offset >> 16 << 5, 0xcb2963ff); /* movk; sub sp, sp, x9 */
    SNIPPET_WORDS(&s, 0xa9007bfd, 0x910003fd); /* stp x29, x30, [sp]; mov x29, sp */
    SNIPPET_WORDS(&s, 0xa90107a0);             /* stp x0, x1, [x29, #16] */
    ck_assert_int_eq(pp_emit_site(site, bytes, sizeof bytes, &layout), PP_OK);
    snippet_bytes(&s, bytes, layout.bytes);
    for (unsigned i = 0; i < layout.reloc_count; i++)
        snippet_reloc(&s, (int) (layout.bytes - layout.relocs[i].offset), layout.relocs[i].type,
                      layout.relocs[i].symbol, layout.relocs[i].addend);
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD, .cfa_offset = cfa_offset };
    pp_trace_desc desc = snippet_desc(&s);
    desc.frame = &rule;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    snippet_free(&s);
    return trace;
}

START_TEST(records_at_the_end_of_large_frames)
{
    static const uint32_t sizes[] = { 32, 496, 512, 4096, 65536 + 16, 1 << 20, (1 << 22) + 48 };
    static const pp_value value = { PP_AT_SLOT(24), PP_AT_BUFFER(8), .bytes = 8 };
    static const pp_value address = { PP_AT_ADDRESS(8), PP_AT_GPR(9), .bytes = 8 };
    const pp_value values[] = { value, { PP_AT_SLOT(24), PP_AT_BUFFER(0), .bytes = 8 }, address };
    pp_tier0_layout tier0 = { .size = sizeof tier0, .cfa_offset = sizes[_i] };
    pp_site_desc wish = { .size = sizeof wish, .kind = PP_SITE_FORCED, .tier0 = &tier0,
                          .thread_offset = 16, .otherwise = entered };
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_BUFFER, .code = pp_trace_entry(body),
                           .tier0 = &tier0, .thread_offset = 16, .values = values,
                           .value_count = 3 };
    pp_site *site;
    struct method_call call = { .arguments = { (uintptr_t) &thread, 21 }, .in = { 1, 2, 3, 4 } };
    on_entered = twice;
    give_buffers(16, 2);
    wish.produce = refuse_always;
    ck_assert_int_eq(pp_site_create(pool, &wish, &site), PP_OK);
    pp_trace *trace = link_tier0(site, sizes[_i]);
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    ck_assert_int_eq(pp_site_publish(site, entry), PP_OK);
    call.code = pp_trace_entry(trace);
    for (unsigned i = 0; i < 3; i++) {
        call.result = call.sp[1] = 0;
        pp_enter(&thread, (const void *) method_call, (uintptr_t) &call, 0, 0, 0);
        ck_assert_uint_eq(call.result, 42);
        ck_assert_uint_eq(call.sp[0], call.sp[1]);
        ck_assert_uint_eq(call.sp[0], entered_regs.gpr[31]);
        ck_assert_mem_eq(call.in, call.out, sizeof call.in);
        ck_assert_uint_eq(entered_regs.gpr[9], entered_regs.gpr[FIRST] + 8);
    }
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
}
END_TEST

#endif

static const struct method *nested;

/* Keeps its buffer while it runs the method again: second is how often. */
static uintptr_t sum_deeper(uintptr_t first, uintptr_t second)
{
    const uint64_t *buffer = (const uint64_t *) first;
    uint64_t n = buffer[0], sum = buffer[1], inner = 0;
    show.bodies++;
    if (second > 1)
        inner = run_sum(nested, n, second - 1);
    if (n != buffer[0] || sum != buffer[1])
        show.wrong = "the buffer is another's";
    pp_buffer_release(&thread, buffer);
    return sum + n * (n + 1) / 2 + inner;
}

START_TEST(activations_without_a_buffer_stay_in_tier0)
{
    struct method method;
    struct method_shape shape = sum_shape();
    shape.counter = PP_COUNTER_FRAME;
    on_entered = sum_deeper;
    nested = &method;
    show = (struct show) { .check = NULL };
    open_method(&method, &shape, sum_values, 3);
    ck_assert_uint_eq(run_sum(&method, 50, 1), 1275); /* no buffers at all */
    ck_assert_uint_eq(show.bodies, 0);
    ck_assert_int_eq(stats_of(&method).refusal, PP_E_ABI);
    ck_assert_uint_eq(stats_of(&method).refusals, 10);
    give_buffers(15, 1);
    ck_assert_uint_eq(run_sum(&method, 50, 1), 1275); /* too small */
    ck_assert_int_eq(stats_of(&method).refusal, PP_E_RANGE);
    ck_assert_uint_eq(stats_of(&method).refusals, 20);
    give_buffers(16, 3);
    uint64_t n = 50, sum = 0;
    for (unsigned depth = 1; depth <= 4; depth++, n -= 4)
        sum += n * (n + 1) / 2;
    ck_assert_uint_eq(run_sum(&method, 50, 4), sum); /* the fourth has none: 38 in tier-0 */
    ck_assert_ptr_null(show.wrong);
    ck_assert_uint_eq(show.bodies, 3);
    ck_assert_uint_eq(stats_of(&method).transitions, 3);
    ck_assert_int_eq(stats_of(&method).refusal, PP_E_NOMEM);
    ck_assert_uint_eq(stats_of(&method).refusals, 27);
    ck_assert_ptr_null(pp_buffer_next(&thread, NULL));
    ck_assert_uint_eq(run_sum(&method, 50, 1), 1275);
    ck_assert_uint_eq(show.bodies, 4);
    ck_assert_int_eq(pp_site_disable(method.sites[0]), PP_OK);
    ck_assert_uint_eq(run_sum(&method, 50, 1), 1275);
    ck_assert_uint_eq(show.bodies, 4);
    ck_assert_int_eq(pp_site_replace(method.sites[0], entry, NULL), PP_OK);
    ck_assert_uint_eq(run_sum(&method, 50, 1), 1275);
    ck_assert_uint_eq(show.bodies, 5);
    close_method(&method);
}
END_TEST

static jmp_buf way_out;

static uintptr_t jump_out(uintptr_t first, uintptr_t second)
{
    (void) first;
    (void) second;
    longjmp(way_out, 1);
}

static void run_and_jump_out(const struct method *method)
{
    pp_mark mark = pp_thread_mark(&thread);
    if (setjmp(way_out) == 0)
        run_sum(method, 50, 1);
    pp_thread_rewind(&thread, mark);
}

START_TEST(buffers_of_abandoned_bodies_are_reclaimed)
{
    struct method method;
    struct method_shape shape = sum_shape();
    on_entered = jump_out;
    give_buffers(16, 2);
    open_method(&method, &shape, sum_values, 3);
    for (unsigned i = 0; i < 2; i++)
        run_and_jump_out(&method);
    ck_assert_uint_eq(stats_of(&method).transitions, 2);
    ck_assert_uint_eq(run_sum(&method, 50, 1), 1275); /* none is left: in tier-0 */
    ck_assert_int_eq(stats_of(&method).refusal, PP_E_NOMEM);
    ck_assert_uint_eq(pp_buffer_reclaim(&thread), 2);
    on_entered = sum_rest;
    show.bodies = 0;
    ck_assert_uint_eq(run_sum(&method, 50, 1), 1275);
    ck_assert_uint_eq(show.bodies, 1);
    close_method(&method);
}
END_TEST

/* ---- signals ------------------------------------------------------------------ */

static volatile sig_atomic_t handled, lost;

static void on_alarm(int number)
{
    uint64_t saved[SAVE_SLOTS] = { 9, 8, 7 }, result;
    (void) number;
    handled++;
    if (!method_run(nested, &thread, 30, NULL, 1, saved, &result) || result != 465)
        lost++;
}

/* The handler's activations take buffers between those of the code that it interrupts. */
START_TEST(signals_run_the_method_at_any_instruction)
{
    struct method method;
    struct method_shape shape = sum_shape();
    struct sigaction action = { .sa_handler = on_alarm };
    struct itimerval timer = { { 0, 300 }, { 0, 300 } }, none = { { 0, 0 }, { 0, 0 } };
    on_entered = sum_rest;
    nested = &method;
    give_buffers(16, 3);
    open_method(&method, &shape, sum_values, 3);
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &timer, NULL), 0);
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    unsigned long runs = 0;
    do {
        for (unsigned i = 0; i < 100; i++, runs++)
            ck_assert_uint_eq(run_sum(&method, 50, 1), 1275);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < 500);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &none, NULL), 0);
    ck_assert_int_gt(handled, 0);
    ck_assert_int_eq(lost, 0);
    ck_assert_uint_eq(stats_of(&method).refusals, 0);
    ck_assert_ptr_null(pp_buffer_next(&thread, NULL));
    close_method(&method);
}
END_TEST

/* ---- refusals ------------------------------------------------------------------- */

/* The site has to know the same thread as the entry. */
START_TEST(sites_without_the_thread_are_refused)
{
    struct method method;
    struct method_shape shape = sum_shape();
    for (unsigned i = 0; i < 2; i++) {
        shape.with_thread = i;
        ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
        pp_entry_desc desc = description(&method, sum_values, 3);
        desc.thread_offset = i ? AT_BUFFER : AT_THREAD;
        ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
        ck_assert_int_eq(pp_site_publish(method.sites[0], entry), PP_E_ABI);
        ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_COUNTING);
        ck_assert_uint_eq(stats_of(&method).refusals, 1);
        ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
        ck_assert_int_eq(method_close(&method), PP_OK);
    }
}
END_TEST

int main(void)
{
    const char *given = getenv("PP_SEED");
    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
    stream = random_stream(seed, 1);
    printf("check_buffered: seed %lu (PP_SEED)\n", (unsigned long) seed);

    Suite *suite = suite_create("buffered");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, random_maps, 0, 4);
    tcase_add_loop_test(tests, frames_of_every_size_are_popped, 0, 18);
#if defined __aarch64__
    tcase_add_loop_test(tests, records_at_the_end_of_large_frames, 0, 7);
#endif
    tcase_add_test(tests, activations_without_a_buffer_stay_in_tier0);
    tcase_add_test(tests, buffers_of_abandoned_bodies_are_reclaimed);
    tcase_add_test(tests, signals_run_the_method_at_any_instruction);
    tcase_add_test(tests, sites_without_the_thread_are_refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
