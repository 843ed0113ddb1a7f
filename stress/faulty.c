/* SPDX-License-Identifier: MIT */
/* The operations of a thread under faults, and its model. */
#include <config.h>

#include "stress/faulty.h"

#include <elf.h>
#include <stdio.h>
#include <string.h>

#define CODE_MIN 16

/* ---- code ------------------------------------------------------------- */

/* What traces jump to; symbol i leads to function i % 8, which returns that. */
#define TARGET(n) static unsigned target_##n(void) { return n; }
TARGET(0) TARGET(1) TARGET(2) TARGET(3) TARGET(4) TARGET(5) TARGET(6) TARGET(7)
static unsigned (*const targets[])(void) = {
    target_0, target_1, target_2, target_3, target_4, target_5, target_6, target_7,
};
enum { TARGETS = sizeof targets / sizeof targets[0] };

/* unsigned f(void) { return value; } */
static void write_return(void *to, unsigned value)
{
#if defined __x86_64__
    const uint8_t code[] = { 0xb8, value & 0xff, value >> 8 & 0xff, 0, 0, 0xc3 };
#else
    const uint32_t code[] = { 0x52800000 | (value & 0xffff) << 5, 0xd65f03c0 };
#endif
    memcpy(to, code, sizeof code);
}

/* A jump to a symbol, 8 bytes long. */
#define JUMP_BYTES 8
#if defined __x86_64__
static const uint8_t jump[JUMP_BYTES] = { 0xe9, 0, 0, 0, 0, 0xcc, 0xcc, 0xcc };
enum { JUMP_FIELD = 1, JUMP_TYPE = R_X86_64_PLT32, JUMP_ADDEND = -4 };
#else
static const uint32_t jump[JUMP_BYTES / 4] = { 0x14000000, 0 };
enum { JUMP_FIELD = 0, JUMP_TYPE = R_AARCH64_JUMP26, JUMP_ADDEND = 0 };
#endif

static unsigned run(const void *address)
{
    return ((unsigned (*)(void)) address)();
}

struct jumps {
    uint8_t code[FAULTY_SYMBOLS * JUMP_BYTES];
    pp_reloc relocs[FAULTY_SYMBOLS];
};

static void write_jumps(const struct faulty_round *round, struct jumps *to, unsigned first,
                        unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        memcpy(to->code + i * JUMP_BYTES, jump, JUMP_BYTES);
        to->relocs[i] = (pp_reloc) { .offset = i * JUMP_BYTES + JUMP_FIELD, .type = JUMP_TYPE,
                                     .symbol = round->symbols[(first + i) % FAULTY_SYMBOLS],
                                     .addend = JUMP_ADDEND };
    }
}

/* ---- reporting -------------------------------------------------------- */

static void fail(const struct faulty_worker *worker, const char *what, int status)
{
    const struct faulty_round *round = worker->round;
    const char *script = atomic_load(&round->script);
    stress_fail(round->stress, "%s, thread %u, operation %llu, script \"%s\": %s (%s)",
                round->what, worker->index, (unsigned long long) worker->operations, script, what,
                pp_strerror(status));
}

/* The status of an operation that faults may refuse: true if it took effect. */
static bool succeeded(struct faulty_worker *worker, const char *what, pp_status status,
                      const pp_error *error)
{
    if (status == PP_OK) {
        if (error != NULL && error->text[0] != '\0')
            fail(worker, "a success with a reason for a failure", status);
        return true;
    }
    worker->refused++;
    if (status != PP_E_NOMEM && status != PP_E_SYSTEM)
        fail(worker, what, status);
    else if (error != NULL && (error->text[0] == '\0' || error->status != status))
        fail(worker, "a refusal without its reason", status);
    return false;
}

/* ---- spans ------------------------------------------------------------ */

static size_t random_size(struct faulty_worker *worker)
{
    uint64_t most = (uint64_t) CODE_MIN << random_below(&worker->random, 12);
    return CODE_MIN + (size_t) random_below(&worker->random, most);
}

static const pp_frame_rule *random_rule(struct faulty_worker *worker)
{
    static const pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD };
    return random_below(&worker->random, 4) == 0 ? &rule : NULL;
}

/* Code at the start, and a byte of its own at the end. */
static void fill_span(struct faulty_worker *worker, struct faulty_slot *slot)
{
    slot->value = (unsigned) random_below(&worker->random, 65536);
    memset(slot->place.write, (int) (slot->value & 0xff), slot->place.bytes);
    write_return(slot->place.write, slot->value);
    slot->bytes = slot->place.bytes;
    slot->unsure = false;
}

static void check_span(struct faulty_worker *worker, const struct faulty_slot *slot)
{
    const uint8_t *bytes = slot->place.execute;
    if (slot->unsure)
        return;
    if (run(bytes) != slot->value)
        fail(worker, "a span's code is wrong", PP_OK);
    if (slot->place.bytes > CODE_MIN &&
        bytes[slot->place.bytes - 1] != (uint8_t) slot->value)
        fail(worker, "a span's last byte is wrong", PP_OK);
    if (pp_span_at(bytes + slot->place.bytes - 1) != slot->span)
        fail(worker, "a span is not found by its address", PP_OK);
}

static void span_alloc(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_error error = { .size = sizeof error };
    pp_span_desc desc = { .size = sizeof desc, .bytes = random_size(worker),
                          .frame = random_rule(worker), .error = &error };
    slot->place = (pp_span_place) { .size = sizeof slot->place };
    pp_status status = pp_span_alloc(worker->round->pool, &desc, &slot->span, &slot->place);
    if (!succeeded(worker, "pp_span_alloc", status, &error))
        return;
    slot->kind = FAULTY_OPEN;
    fill_span(worker, slot);
}

/* This one and others that are open. */
static void span_publish(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_error error = { .size = sizeof error };
    struct faulty_slot *chosen[8] = { slot };
    pp_span *spans[8] = { slot->span };
    size_t count = 1, most = 1 + (size_t) random_below(&worker->random, 8);
    for (unsigned i = 0; i < FAULTY_SLOTS && count < most; i++) {
        struct faulty_slot *other = &worker->slots[i];
        if (other == slot || other->kind != FAULTY_OPEN)
            continue;
        chosen[count] = other;
        spans[count++] = other->span;
    }
    pp_status status = pp_span_publish(worker->round->pool, spans, count, &error);
    bool published = succeeded(worker, "pp_span_publish", status, &error);
    for (size_t i = 0; i < count; i++) {
        pp_span_place place = { .size = sizeof place };
        if (pp_span_get_place(spans[i], &place) != PP_OK)
            fail(worker, "a span is not there any more", status);
        else if (published && place.write != NULL)
            fail(worker, "a published span can be written", status);
        else if (!published && place.write == NULL && worker->round->mode != PP_WX_FLIP)
            fail(worker, "a span of a refused batch cannot be written", status);
        if (place.write != NULL) {
            memset((uint8_t *) place.write + CODE_MIN / 2, (int) (chosen[i]->value & 0xff),
                   place.bytes - CODE_MIN / 2);
            continue;
        }
        chosen[i]->kind = FAULTY_SPAN;
        chosen[i]->unsure = !published;
        check_span(worker, chosen[i]);
    }
}

static void span_write(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_error error = { .size = sizeof error };
    pp_status status = pp_span_write(worker->round->pool, slot->span, &slot->place, &error);
    if (!succeeded(worker, "pp_span_write", status, &error)) {
        check_span(worker, slot);
        return;
    }
    slot->kind = FAULTY_OPEN;
    fill_span(worker, slot);
}

static void span_shrink(struct faulty_worker *worker, struct faulty_slot *slot)
{
    size_t bytes = slot->place.bytes;
    size_t keep = CODE_MIN + (size_t) random_below(&worker->random, bytes - CODE_MIN + 1);
    pp_status status = pp_span_shrink(worker->round->pool, slot->span, keep);
    if (succeeded(worker, "pp_span_shrink", status, NULL))
        bytes = keep;
    pp_span_place place = { .size = sizeof place };
    if (pp_span_get_place(slot->span, &place) != PP_OK || place.bytes != bytes)
        fail(worker, "a span is not as long as it should be", status);
    slot->place.bytes = slot->bytes = bytes;
    if (slot->kind == FAULTY_SPAN)
        check_span(worker, slot);
}

static struct faulty_slot *empty_slot(struct faulty_worker *worker)
{
    for (unsigned i = 0; i < FAULTY_SLOTS; i++)
        if (worker->slots[i].kind == FAULTY_EMPTY)
            return &worker->slots[i];
    return NULL;
}

/* An open one: both parts get code of their own. */
static void span_split(struct faulty_worker *worker, struct faulty_slot *slot)
{
    struct faulty_slot *other = empty_slot(worker);
    size_t unit = slot->place.unit, at = slot->place.bytes / 2 / unit * unit;
    pp_span *tail;
    if (other == NULL || at < CODE_MIN || slot->place.bytes - at < CODE_MIN)
        return;
    pp_status status = pp_span_split(worker->round->pool, slot->span, at, &tail);
    if (!succeeded(worker, "pp_span_split", status, NULL))
        return;
    *other = (struct faulty_slot) { .kind = FAULTY_OPEN, .span = tail,
                                    .place = { .size = sizeof(pp_span_place) } };
    slot->place.size = sizeof slot->place;
    if (pp_span_get_place(tail, &other->place) != PP_OK ||
        pp_span_get_place(slot->span, &slot->place) != PP_OK || slot->place.bytes != at) {
        fail(worker, "a span was split wrongly", PP_OK);
        return;
    }
    fill_span(worker, slot);
    fill_span(worker, other);
}

/* Whoever looks at the pool next reclaims it. */
static void span_retire(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_status status = pp_span_retire(worker->round->pool, slot->span);
    if (succeeded(worker, "pp_span_retire", status, NULL))
        slot->kind = FAULTY_EMPTY;
    check_span(worker, slot);
}

static void span_free(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_status status = pp_span_free(worker->round->pool, slot->span);
    if (succeeded(worker, "pp_span_free", status, NULL))
        slot->kind = FAULTY_EMPTY;
    else if (slot->kind == FAULTY_SPAN)
        check_span(worker, slot);
    if (status == PP_OK && pp_span_free(worker->round->pool, slot->span) == PP_OK)
        fail(worker, "a span was freed twice", status);
}

/* ---- traces ----------------------------------------------------------- */

static void check_trace(struct faulty_worker *worker, const struct faulty_slot *slot)
{
    const uint8_t *entry = pp_trace_entry(slot->trace);
    if (entry == NULL) {
        fail(worker, "a trace is not there any more", PP_OK);
        return;
    }
    for (unsigned i = 0; i < slot->jumps; i++) {
        unsigned expected = (slot->value + i) % FAULTY_SYMBOLS % TARGETS;
        if (run(entry + i * JUMP_BYTES) != expected)
            fail(worker, "a trace reached another function", PP_OK);
    }
}

static void keep_trace(struct faulty_worker *worker, struct faulty_slot *slot, unsigned first,
                       unsigned jumps)
{
    pp_trace_size size = { .size = sizeof size };
    slot->kind = FAULTY_TRACE;
    slot->value = first;
    slot->jumps = jumps;
    if (pp_trace_get_size(slot->trace, &size) != PP_OK)
        fail(worker, "a trace has no size", PP_OK);
    slot->bytes = size.total;
    check_trace(worker, slot);
}

static pp_trace_desc describe(struct faulty_worker *worker, struct jumps *jumps, unsigned *first,
                              unsigned *count, pp_error *error)
{
    *first = (unsigned) random_below(&worker->random, FAULTY_SYMBOLS);
    *count = 1 + (unsigned) random_below(&worker->random, random_below(&worker->random, 4) == 0
                                                              ? FAULTY_SYMBOLS : 4);
    write_jumps(worker->round, jumps, *first, *count);
    return (pp_trace_desc) { .size = sizeof(pp_trace_desc), .code = jumps->code,
                             .code_size = *count * JUMP_BYTES, .relocs = jumps->relocs,
                             .reloc_count = *count, .error = error,
                             .name = random_below(&worker->random, 2) == 0 ? "trace" : NULL };
}

static void trace_link(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_error error = { .size = sizeof error };
    struct jumps jumps;
    unsigned first, count;
    pp_trace_desc desc = describe(worker, &jumps, &first, &count, &error);
    desc.frame = random_rule(worker);
    if (random_below(&worker->random, 2) == 0)
        desc.flags = PP_TRACE_OWN_TRAMPOLINES;
    pp_status status = pp_trace_link(worker->round->pool, &desc, &slot->trace);
    if (succeeded(worker, "pp_trace_link", status, &error))
        keep_trace(worker, slot, first, count);
}

static void trace_measure(struct faulty_worker *worker)
{
    pp_error error = { .size = sizeof error };
    pp_trace_size size = { .size = sizeof size };
    struct jumps jumps;
    unsigned first, count;
    pp_trace_desc desc = describe(worker, &jumps, &first, &count, &error);
    pp_status status = pp_trace_measure(worker->round->pool, &desc, &size);
    if (succeeded(worker, "pp_trace_measure", status, &error) && size.code != desc.code_size)
        fail(worker, "a trace is measured wrongly", status);
}

static void trace_free(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_status status = pp_trace_free(worker->round->pool, slot->trace);
    if (succeeded(worker, "pp_trace_free", status, NULL))
        slot->kind = FAULTY_EMPTY;
    else
        check_trace(worker, slot);
    if (status == PP_OK && pp_trace_free(worker->round->pool, slot->trace) == PP_OK)
        fail(worker, "a trace was freed twice", status);
}

static void trace_reserve(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_error error = { .size = sizeof error };
    slot->reservation = (pp_reservation) { .size = sizeof slot->reservation };
    size_t capacity = FAULTY_SYMBOLS * JUMP_BYTES + random_size(worker);
    pp_status status = pp_trace_reserve(worker->round->pool, capacity, random_rule(worker),
                                        &slot->reservation, &error);
    if (!succeeded(worker, "pp_trace_reserve", status, &error))
        return;
    slot->kind = FAULTY_RESERVED;
    slot->bytes = slot->reservation.capacity;
    memset(slot->reservation.write, 0x5a, slot->reservation.capacity);
}

/* A refused commit leaves the bytes as they were. */
static void trace_commit(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_error error = { .size = sizeof error };
    struct jumps jumps;
    unsigned first, count;
    pp_trace_desc desc = describe(worker, &jumps, &first, &count, &error);
    memcpy(slot->reservation.write, jumps.code, desc.code_size);
    pp_status status = pp_trace_commit(worker->round->pool, &slot->reservation, desc.code_size,
                                       &desc, &slot->trace);
    if (succeeded(worker, "pp_trace_commit", status, &error))
        keep_trace(worker, slot, first, count);
    else if (memcmp(slot->reservation.write, jumps.code, desc.code_size) != 0)
        fail(worker, "a refused commit changed the host's bytes", status);
    else
        memset(slot->reservation.write, 0x5a, slot->reservation.capacity);
}

static void trace_abandon(struct faulty_worker *worker, struct faulty_slot *slot)
{
    pp_status status = pp_trace_abandon(worker->round->pool, &slot->reservation);
    if (succeeded(worker, "pp_trace_abandon", status, NULL))
        slot->kind = FAULTY_EMPTY;
}

/* ---- others ----------------------------------------------------------- */

static void symbol_define(struct faulty_worker *worker)
{
    char name[32];
    unsigned number = (unsigned) random_below(&worker->random, 4000);
    const void *address = (const void *) (uintptr_t) (0x10000 + 16 * number);
    snprintf(name, sizeof name, "name %u", number);
    pp_symbol symbol = pp_symbol_define(worker->round->pool, name, address);
    worker->refused += symbol == PP_SYMBOL_NONE;
    if (symbol != PP_SYMBOL_NONE && pp_symbol_address(worker->round->pool, symbol) != address)
        fail(worker, "a symbol has another address", PP_OK);
}

/* A pool of its own, from beginning to end. */
static void own_pool(struct faulty_worker *worker)
{
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(worker->round->stress, &error);
    pp_pool *pool;
    options.region_bytes = (size_t) 2 << 20;
    options.wx = worker->round->wx;
    pp_status status = pp_pool_create(&options, &pool);
    if (!succeeded(worker, "pp_pool_create", status, &error))
        return;
    pp_span_desc desc = { .size = sizeof desc, .bytes = random_size(worker), .error = &error };
    pp_span_place place = { .size = sizeof place };
    pp_span *span;
    status = pp_span_alloc(pool, &desc, &span, &place);
    if (succeeded(worker, "pp_span_alloc", status, &error)) {
        write_return(place.write, 4711);
        status = pp_span_publish(pool, &span, 1, &error);
        if (succeeded(worker, "pp_span_publish", status, &error) && run(place.execute) != 4711)
            fail(worker, "a span's code is wrong", PP_OK);
    }
    status = pp_pool_verify(pool, &error);
    if (status != PP_OK)
        fail(worker, error.text, status);
    pp_pool_destroy(pool);
}

/* ---- steps ------------------------------------------------------------ */

static void step_empty(struct faulty_worker *worker, struct faulty_slot *slot)
{
    switch (random_below(&worker->random, 32)) {
    case 0: own_pool(worker); break;
    case 1: case 2: symbol_define(worker); break;
    case 3: case 4: trace_measure(worker); break;
    case 5: case 6: case 7: case 8: case 9: trace_reserve(worker, slot); break;
    default:
        if (random_below(&worker->random, 2) == 0)
            span_alloc(worker, slot);
        else
            trace_link(worker, slot);
    }
}

static void step_open(struct faulty_worker *worker, struct faulty_slot *slot)
{
    switch (random_below(&worker->random, 8)) {
    case 0: span_free(worker, slot); break;
    case 1: span_shrink(worker, slot); break;
    case 2: span_split(worker, slot); break;
    default: span_publish(worker, slot);
    }
}

static void step_span(struct faulty_worker *worker, struct faulty_slot *slot)
{
    switch (random_below(&worker->random, 6)) {
    case 0: case 1: span_write(worker, slot); break;
    case 2: span_shrink(worker, slot); break;
    case 3: span_retire(worker, slot); break;
    default: span_free(worker, slot);
    }
}

void faulty_step(struct faulty_worker *worker)
{
    struct faulty_slot *slot = &worker->slots[random_below(&worker->random, FAULTY_SLOTS)];
    worker->operations++;
    switch (slot->kind) {
    case FAULTY_EMPTY: step_empty(worker, slot); break;
    case FAULTY_OPEN: step_open(worker, slot); break;
    case FAULTY_SPAN:
        check_span(worker, slot);
        step_span(worker, slot);
        break;
    case FAULTY_TRACE:
        check_trace(worker, slot);
        trace_free(worker, slot);
        break;
    case FAULTY_RESERVED:
        if (random_below(&worker->random, 4) == 0)
            trace_abandon(worker, slot);
        else
            trace_commit(worker, slot);
    }
}

void faulty_finish(struct faulty_worker *worker)
{
    uint64_t refused = worker->refused;
    for (unsigned i = 0; i < FAULTY_SLOTS; i++) {
        struct faulty_slot *slot = &worker->slots[i];
        switch (slot->kind) {
        case FAULTY_EMPTY: break;
        case FAULTY_SPAN: check_span(worker, slot); /* fall through */
        case FAULTY_OPEN: span_free(worker, slot); break;
        case FAULTY_TRACE:
            check_trace(worker, slot);
            trace_free(worker, slot);
            break;
        case FAULTY_RESERVED: trace_abandon(worker, slot);
        }
    }
    if (worker->refused != refused)
        fail(worker, "something could not be freed, without a fault", PP_OK);
}

void faulty_add(const struct faulty_worker *worker, struct faulty_sum *sum)
{
    for (unsigned i = 0; i < FAULTY_SLOTS; i++) {
        const struct faulty_slot *slot = &worker->slots[i];
        if (slot->kind == FAULTY_EMPTY)
            continue;
        sum->spans++;
        sum->traces += slot->kind == FAULTY_TRACE;
        sum->requested += slot->bytes;
    }
}

bool faulty_prepare(struct faulty_round *round)
{
    char name[32];
    for (unsigned i = 0; i < FAULTY_SYMBOLS; i++) {
        snprintf(name, sizeof name, "target %u", i);
        round->symbols[i] = pp_symbol_define(round->pool, name,
                                             (const void *) targets[i % TARGETS]);
        if (round->symbols[i] == PP_SYMBOL_NONE)
            return false;
    }
    return true;
}
