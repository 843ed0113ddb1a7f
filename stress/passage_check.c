/* SPDX-License-Identifier: MIT */
/* What passages find, compared with an interpreter of their value maps. */
#include <config.h>

#include "stress/passage.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Static_assert(PP_REGS_VECTOR_COUNT == MOVE_VECTORS, "one for each");

__attribute__((format(printf, 2, 3))) static void wrong(struct passage_run *run,
                                                        const char *format, ...)
{
    va_list arguments;
    if (run->wrong[0] != '\0')
        return; /* the first one counts */
    va_start(arguments, format);
    vsnprintf(run->wrong, sizeof run->wrong, format, arguments);
    va_end(arguments);
}

static uintptr_t at(uintptr_t base, int64_t offset)
{
    return base + (uintptr_t) (intptr_t) offset;
}

/* What the frame, and what is above it, had at this address. */
static const uint8_t *filled(const struct passage_run *run, uintptr_t address)
{
    return run->thread->memory + (address - run->filled[0]);
}

/* The caller's callee-saved register with this number in save areas. */
static uint64_t callers(const struct passage_run *run, unsigned bit)
{
    return run->callers[__builtin_popcountll(MOVE_CALLEE_SAVED & ((1ull << bit) - 1))];
}

/* ---- before the site ------------------------------------------------------------ */

/* New contents for all registers, but for those that have the caller's. */
static void draw_registers(struct passage_run *run)
{
    const struct passage_shape *shape = &run->passage->shape;
    uint64_t *words = (uint64_t *) &run->in;
    for (size_t i = 0; i < sizeof run->in / sizeof *words; i++)
        words[i] = random_next(&run->random);
    for (uint64_t left = MOVE_CALLEE_SAVED & ~shape->tier0.saves.saved; left != 0; left &= left - 1) {
        unsigned bit = (unsigned) __builtin_ctzll(left);
        uint64_t value = callers(run, bit);
        memcpy(bit < 32 ? (void *) &run->in.gpr[bit] : run->in.vector[bit - 32], &value, 8);
    }
    run->in.gpr[MOVE_FP] = run->fp;
    run->in.gpr[MOVE_SP] = run->fp - shape->tier0.frame_bytes;
}

/* Whether tier-0 or the library has stored something in these 4 bytes. */
static bool is_owned(const struct passage_shape *shape, int64_t offset)
{
    const pp_save_area *saves = &shape->tier0.saves;
    int64_t end = saves->offset + 8 * (int64_t) __builtin_popcountll(saves->slots);
    return (offset >= 0 && offset < 16) || (offset >= shape->thread_at && offset < shape->thread_at + 8)
        || (offset >= shape->image_at && offset < shape->image_at + 8)
        || (saves->slots != 0 && offset >= saves->offset && offset < end);
}

void passage_fill(struct passage_run *run, uintptr_t fp)
{
    const struct passage_shape *shape = &run->passage->shape;
    int64_t low = -(int64_t) shape->tier0.frame_bytes, high = shape->tier0.cfa_offset;
    run->fp = fp;
    for (int64_t offset = low; offset < high; offset += 4)
        if (!is_owned(shape, offset))
            *(uint32_t *) at(fp, offset) = (uint32_t) random_next(&run->random);
    if (shape->counter == PP_COUNTER_FRAME)
        *(int32_t *) at(fp, shape->counter_at) = shape->threshold;
    run->filled[0] = at(fp, low);
    run->filled[1] = at(fp, high) + PASSAGE_CANARY;
    memcpy(run->thread->memory, (void *) run->filled[0], run->filled[1] - run->filled[0]);
    draw_registers(run);
}

/* ---- comparisons ---------------------------------------------------------------- */

static void compare_memory(struct passage_run *run, uintptr_t from, uintptr_t to, const char *what)
{
    const uint8_t *now = (const uint8_t *) from, *before = filled(run, from);
    if (memcmp(now, before, to - from) == 0)
        return;
    for (size_t i = 0; i < to - from; i++)
        if (now[i] != before[i]) {
            wrong(run, "%s changed at FP %+ld", what, (long) (from + i - run->fp));
            return;
        }
}

/* All that is above the record and is the caller's. */
static void compare_caller(struct passage_run *run)
{
    compare_memory(run, run->fp, run->fp + 16, "the frame record");
    compare_memory(run, run->fp + run->passage->shape.tier0.cfa_offset, run->filled[1],
                   "the caller's frame");
}

/* Tier-0's whole frame, but for a counter in it. */
static void compare_frame(struct passage_run *run)
{
    const struct passage_shape *shape = &run->passage->shape;
    uintptr_t counter = at(run->fp, shape->counter_at);
    compare_memory(run, run->filled[0], counter, "tier-0's frame");
    if (shape->counter != PP_COUNTER_FRAME)
        compare_memory(run, counter, counter + 4, "the place of a counter");
    compare_memory(run, counter + 4, run->filled[1], "tier-0's frame");
}

static void compare_gpr(struct passage_run *run, const uint64_t *found, unsigned n, uint64_t value)
{
    if (*found != value)
        wrong(run, "register %u: %llx instead of %llx", n, (unsigned long long) *found,
              (unsigned long long) value);
}

static void compare_bytes(struct passage_run *run, const char *what, long where, const void *found,
                          const void *value, size_t bytes)
{
    if (memcmp(found, value, bytes) != 0)
        wrong(run, "%s %ld: %zu bytes differ", what, where, bytes);
}

/* What a site's class keeps: whole registers, and those of which C keeps a half. */
struct kept {
    uint32_t gpr, vector, half;
};

static struct kept kept_by(const struct passage_shape *shape)
{
    struct kept kept = { .gpr = MOVE_GPRS, .half = (uint32_t) (MOVE_CALLEE_SAVED >> 32) };
    if (shape->save == PP_SAVE_MASK) {
        kept.gpr = shape->live_gpr | (uint32_t) MOVE_CALLEE_SAVED;
        kept.vector = shape->live_vector;
    } else if (shape->save != PP_SAVE_GPR && shape->save != PP_SAVE_ABI) {
        kept.vector = (uint32_t) (MOVE_ALL >> 32);
    }
    return kept;
}

/* Registers whose high half nobody has set. */
static uint32_t halves(const struct passage_shape *shape)
{
    return (uint32_t) ((MOVE_CALLEE_SAVED & ~shape->tier0.saves.saved) >> 32);
}

static void compare_kept(struct passage_run *run)
{
    const struct passage_shape *shape = &run->passage->shape;
    struct kept kept = kept_by(shape);
    for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++)
        if (kept.gpr >> n & 1)
            compare_gpr(run, &run->out.gpr[n], n, run->in.gpr[n]);
    for (unsigned n = 0; n < MOVE_VECTORS; n++)
        if ((kept.vector | kept.half) >> n & 1)
            compare_bytes(run, "vector", (long) n, run->out.vector[n], run->in.vector[n],
                          (kept.vector & ~halves(shape)) >> n & 1 ? 16 : 8);
}

void passage_show(struct passage_run *run, const pp_regs *regs)
{
    const struct passage_shape *shape = &run->passage->shape;
    uint32_t gpr = MOVE_GPRS, vector = kept_by(shape).vector;
    if (shape->save == PP_SAVE_MASK)
        gpr = shape->live_gpr;
    else if (shape->save == PP_SAVE_ABI)
        gpr &= ~(uint32_t) MOVE_CALLEE_SAVED;
    gpr |= 1u << MOVE_SP | 1u << MOVE_FP;
    for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++)
        if (gpr >> n & 1 && regs->gpr[n] != run->in.gpr[n])
            wrong(run, "the host was shown %llx in register %u, not %llx",
                  (unsigned long long) regs->gpr[n], n, (unsigned long long) run->in.gpr[n]);
    for (unsigned n = 0; n < MOVE_VECTORS; n++) {
        size_t bytes;
        const void *shown = pp_regs_vector(regs, n, &bytes);
        if (!(vector >> n & 1))
            continue;
        if (shown == NULL || bytes < 16)
            wrong(run, "the host was not shown vector %u", n);
        else
            compare_bytes(run, "the host was shown vector", (long) n, shown, run->in.vector[n],
                          halves(shape) >> n & 1 ? 8 : 16);
    }
    if (regs->save != (uint64_t) shape->save)
        wrong(run, "the host was shown class %d", (int) regs->save);
}

/* ---- the interpreter ------------------------------------------------------------ */

/* What a source was when the site was reached, with zeros above it. */
static void source(const struct passage_run *run, const pp_value *value, uintptr_t base,
                   uint8_t word[16])
{
    uint64_t address = at(base, value->from.offset);
    const void *from = &value->constant;
    memset(word, 0, 16);
    switch (value->from.kind) {
    case PP_PLACE_GPR:
        from = &run->in.gpr[value->from.number];
        break;
    case PP_PLACE_VECTOR:
        from = run->in.vector[value->from.number];
        break;
    case PP_PLACE_SLOT:
        from = filled(run, at(run->fp, value->from.offset));
        break;
    case PP_PLACE_ADDRESS:
        from = &address;
        break;
    }
    memcpy(word, from, value->bytes);
}

static void compare_values(struct passage_run *run, uintptr_t base)
{
    const struct passage_shape *shape = &run->passage->shape;
    for (size_t i = 0; i < shape->value_count; i++) {
        const pp_value *value = &shape->values[i];
        uint8_t word[16];
        if (value->from.kind == PP_PLACE_DEAD)
            continue;
        source(run, value, base, word);
        if (value->to.kind == PP_PLACE_GPR)
            compare_bytes(run, "value in register, number", (long) i,
                          &run->out.gpr[value->to.number], word, 8);
        else if (value->to.kind == PP_PLACE_VECTOR)
            compare_bytes(run, "value in vector, number", (long) i,
                          run->out.vector[value->to.number], word, 16);
        else if (value->to.kind != PP_PLACE_DEAD)
            compare_bytes(run, "value in memory, number", (long) i,
                          (const void *) at(base, value->to.offset), word, value->bytes);
    }
}

/* The caller's registers: in the body's save area, or where they were. */
static void compare_callers(struct passage_run *run, const pp_save_area *saves)
{
    const uint64_t *slot = (const uint64_t *) at(run->fp, saves->offset);
    for (uint64_t left = saves->slots; left != 0; left &= left - 1, slot++) {
        unsigned bit = (unsigned) __builtin_ctzll(left);
        uint64_t value = callers(run, bit);
        if (saves->saved >> bit & 1)
            compare_bytes(run, "save slot", (long) bit, slot, &value, 8);
    }
    for (uint64_t left = MOVE_CALLEE_SAVED & ~saves->saved; left != 0; left &= left - 1) {
        unsigned bit = (unsigned) __builtin_ctzll(left);
        uint64_t value = callers(run, bit);
        compare_bytes(run, "the caller's register", (long) bit,
                      bit < 32 ? (void *) &run->out.gpr[bit] : run->out.vector[bit - 32], &value, 8);
    }
}

/* ---- behind the site ------------------------------------------------------------ */

static void compare_sp(struct passage_run *run, uintptr_t sp, uintptr_t fp)
{
    compare_gpr(run, &run->out.gpr[MOVE_SP], MOVE_SP, sp);
    compare_gpr(run, &run->out.gpr[MOVE_FP], MOVE_FP, fp);
}

static void compare_function(struct passage_run *run)
{
    static const pp_save_area none;
    uintptr_t cfa = run->fp + run->passage->shape.tier0.cfa_offset, record[2];
    uintptr_t buffer = run->out.gpr[MOVE_FIRST];
    memcpy(record, filled(run, run->fp), sizeof record);
#if defined __x86_64__
    compare_sp(run, cfa - 8, record[0]);
    if (*(uintptr_t *) (cfa - 8) != record[1])
        wrong(run, "the return address changed");
#else
    compare_sp(run, cfa, record[0]);
    compare_gpr(run, &run->out.gpr[30], 30, record[1]);
#endif
    compare_memory(run, cfa, run->filled[1], "the caller's frame");
    compare_callers(run, &none);
    compare_values(run, buffer);
    if (pp_buffer_release(&run->thread->thread, (const void *) buffer) != PP_OK)
        wrong(run, "the buffer is none");
}

/* PP_CSR_RESERVE: the body has stored in tier-0's slots what tier-0 did not. */
static void expect_reserved(struct passage_run *run)
{
    const struct passage_shape *shape = &run->passage->shape;
    const pp_save_area *saves = &shape->tier0.saves;
    uintptr_t slot = at(run->fp, saves->offset);
    for (uint64_t left = saves->slots; left != 0; left &= left - 1, slot += 8) {
        uint64_t value = callers(run, (unsigned) __builtin_ctzll(left));
        if (left & -left & shape->used & ~saves->saved)
            memcpy(run->thread->memory + (slot - run->filled[0]), &value, 8);
    }
}

static void compare_body(struct passage_run *run)
{
    const struct passage_shape *shape = &run->passage->shape;
    if (shape->style == PP_BUFFER) {
        compare_function(run);
        return;
    }
    compare_sp(run, run->fp - shape->body.frame_bytes, run->fp);
    compare_caller(run);
    if (shape->style == PP_ON_TOP) {
        if (shape->scheme == PP_CSR_RESERVE)
            expect_reserved(run);
        compare_frame(run);
        compare_kept(run);
    } else {
        compare_callers(run, &shape->body.saves);
        compare_values(run, run->fp);
    }
}

uintptr_t passage_check(struct passage_run *run, uintptr_t in_body)
{
    if (in_body) {
        if (run->bodies++ != 0)
            wrong(run, "the body began twice");
        compare_body(run);
        return 0;
    }
    compare_sp(run, run->in.gpr[MOVE_SP], run->in.gpr[MOVE_FP]);
    compare_frame(run);
    compare_kept(run);
    draw_registers(run);
    return ++run->passes < run->limit;
}
