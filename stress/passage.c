/* SPDX-License-Identifier: MIT */
/* Passages: their code, and running it. */
#include <config.h>

#include "stress/passage.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUT offsetof(struct passage_run, out)
#define GPR(n) (PP_REGS_GPR + 8 * (n))
#define VECTOR(n) (PP_REGS_VECTOR + 16 * (n))

/* Registers that tier-0 loads: not those that it has to keep for its caller. */
static uint64_t loaded(const struct passage_shape *shape)
{
    return MOVE_ALL & ~(MOVE_CALLEE_SAVED & ~shape->tier0.saves.saved);
}

/* ---- code -------------------------------------------------------------------------- */

static void move_saves(struct moves *m, const pp_save_area *saves, bool store)
{
    int32_t offset = saves->offset;
    for (uint64_t left = saves->slots; left != 0; left &= left - 1, offset += 8)
        if (saves->saved & left & -left)
            move_slot(m, (unsigned) __builtin_ctzll(left), offset, store);
}

static void move_fields(struct moves *m, uint64_t registers, uint32_t at, bool store)
{
    for (uint64_t left = registers; left != 0; left &= left - 1) {
        unsigned reg = (unsigned) __builtin_ctzll(left);
        move_field(m, reg, MOVE_BASE, at + (reg < 32 ? GPR(reg) : VECTOR(reg - 32)), store);
    }
}

/* Show every register to the image in MOVE_BASE. */
static void show(struct moves *m)
{
    move_fields(m, MOVE_ALL | 1ull << MOVE_SP | 1ull << MOVE_FP, (uint32_t) OUT, true);
#if defined __aarch64__
    move_field(m, 30, MOVE_BASE, (uint32_t) OUT + GPR(30), true);
#endif
}

static void call_check(struct moves *m, struct passage *passage, bool in_body)
{
    move_register(m, MOVE_FIRST, MOVE_BASE);
    move_constant(m, MOVE_SECOND, in_body);
    move_call(m, pp_symbol_define(passage->pool, "passage_check", (const void *) passage_check));
}

static void spoil(struct moves *m, uint64_t registers)
{
    for (uint64_t left = registers; left != 0; left &= left - 1)
        move_spoil(m, (unsigned) __builtin_ctzll(left));
}

static pp_status link_moves(struct moves *m, struct passage *passage, const char *name,
                            const pp_frame_rule *rule, pp_trace **trace)
{
    if (m->status != PP_OK)
        return m->status;
    pp_trace_desc desc = { .size = sizeof desc, .name = name, .code = m->code,
                           .code_size = m->size, .relocs = m->relocs,
                           .reloc_count = m->reloc_count, .frame = rule };
    return pp_trace_link(passage->pool, &desc, trace);
}

static void emit_head(struct moves *m, struct passage *passage)
{
    const struct passage_shape *shape = &passage->shape;
    move_landing(m);
    move_begin(m, &shape->tier0);
    move_saves(m, &shape->tier0.saves, true);
    move_slot(m, MOVE_FIRST, shape->thread_at, true);
    move_slot(m, MOVE_SECOND, shape->image_at, true);
    move_register(m, MOVE_FIRST, MOVE_SECOND);
    move_register(m, MOVE_SECOND, MOVE_FP);
    move_call(m, pp_symbol_define(passage->pool, "passage_fill", (const void *) passage_fill));
}

/* The site; returns where it begins. */
static size_t emit_site(struct moves *m, struct passage *passage, size_t *resume)
{
    uint8_t bytes[256];
    pp_site_layout layout = { .size = sizeof layout };
    pp_status status = pp_emit_site(passage->site, bytes, sizeof bytes, &layout);
    if (m->status == PP_OK)
        m->status = status;
    if (m->status != PP_OK)
        return 0;
    move_align(m, layout.align);
    size_t at = m->size;
    move_bytes(m, bytes, layout.bytes, layout.relocs, layout.reloc_count);
    *resume = at + layout.resume_offset;
    return at;
}

static size_t emit_cold(struct moves *m, struct passage *passage, size_t hot)
{
    uint8_t bytes[256];
    pp_site_layout layout = { .size = sizeof layout };
    if (m->status != PP_OK)
        return 0;
    size_t cold = m->size;
    m->status = pp_emit_site_cold(passage->site, (int64_t) hot - (int64_t) cold, bytes,
                                  sizeof bytes, &layout);
    if (m->status == PP_OK)
        move_bytes(m, bytes, layout.bytes, layout.relocs, layout.reloc_count);
    return cold;
}

static pp_status link_tier0(struct passage *passage)
{
    const struct passage_shape *shape = &passage->shape;
    struct moves m = { .status = PP_OK };
    size_t resume = 0, cold = 0;
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD,
                           .cfa_offset = shape->tier0.cfa_offset, .saves = shape->tier0.saves };
    emit_head(&m, passage);
    size_t top = m.size;
    move_slot(&m, MOVE_BASE, shape->image_at, false);
    move_fields(&m, loaded(shape), 0, false);
    size_t site = emit_site(&m, passage, &resume);
    move_slot(&m, MOVE_BASE, shape->image_at, false);
    show(&m);
    call_check(&m, passage, false);
    move_again(&m, top);
    move_saves(&m, &shape->tier0.saves, false);
    move_constant(&m, MOVE_RESULT, PASSAGE_TIER0);
    move_end(&m, &shape->tier0);
    if (shape->kind == PP_SITE_ARMED)
        cold = emit_cold(&m, passage, site);
    pp_status status = link_moves(&m, passage, "tier-0", &rule, &passage->trace);
    if (status != PP_OK)
        return status;
    const uint8_t *code = pp_trace_entry(passage->trace);
    passage->resume = code + resume;
    return shape->kind == PP_SITE_ARMED ? pp_site_arm(passage->site, code + site, code + cold, NULL)
                                        : PP_OK;
}

/* A body with its frame on top of tier-0's, or of what replaced it. */
static pp_status link_frame_body(struct passage *passage, uint32_t *stack_bytes)
{
    const struct passage_shape *shape = &passage->shape;
    struct moves m = { .status = PP_OK };
    uint8_t bytes[1024];
    pp_osr_frame frame = { .size = sizeof frame, .scheme = shape->scheme, .tier0 = &shape->body,
                           .used = shape->used, .local_bytes = shape->local_bytes,
                           .flags = passage->osr_flags };
    pp_osr_layout layout = { .size = sizeof layout }, end = { .size = sizeof end };
    move_landing(&m);
    move_slot(&m, MOVE_BASE, shape->body_image_at, false);
    show(&m);
    m.status = pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout);
    move_bytes(&m, bytes, layout.bytes, NULL, 0);
    move_slot(&m, MOVE_BASE, shape->body_image_at, false);
    call_check(&m, passage, true);
    spoil(&m, MOVE_ALL & ~(MOVE_CALLEE_SAVED & ~shape->used));
    move_constant(&m, MOVE_RESULT, PASSAGE_BODY);
    if (m.status == PP_OK)
        m.status = pp_emit_osr_epilogue(&frame, bytes, sizeof bytes, &end);
    move_bytes(&m, bytes, end.bytes, NULL, 0);
    *stack_bytes = layout.stack_bytes;
    return link_moves(&m, passage, "body", &layout.rule, &passage->body);
}

/* A body that is a function, with its image in its buffer. */
static pp_status link_function_body(struct passage *passage)
{
    struct moves m = { .status = PP_OK };
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD };
    move_landing(&m);
    move_field(&m, MOVE_BASE, MOVE_FIRST, (uint32_t) passage->shape.body_image_at, false);
    show(&m);
    move_begin_function(&m);
    call_check(&m, passage, true);
    spoil(&m, MOVE_ALL & ~MOVE_CALLEE_SAVED);
    move_constant(&m, MOVE_RESULT, PASSAGE_BODY);
    move_end_function(&m);
    return link_moves(&m, passage, "body", &rule, &passage->body);
}

static pp_status make_entry(struct passage *passage, pp_error *error)
{
    const struct passage_shape *shape = &passage->shape;
    uint32_t stack_bytes = 64;
    pp_status status = shape->style == PP_BUFFER ? link_function_body(passage)
                                                 : link_frame_body(passage, &stack_bytes);
    if (status != PP_OK)
        return status;
    pp_entry_desc desc = { .size = sizeof desc, .style = shape->style, .scheme = shape->scheme,
                           .code = pp_trace_entry(passage->body), .tier0 = &shape->tier0,
                           .used = shape->used, .stack_bytes = stack_bytes, .host = passage,
                           .error = error, .flags = shape->entry_flags,
                           .thread_offset = shape->entry_knows_thread ? shape->thread_at : 0 };
    if (shape->style != PP_ON_TOP) {
        desc.body = shape->style == PP_REPLACE ? &shape->body : NULL;
        desc.values = shape->values;
        desc.value_count = shape->value_count;
    }
    return pp_entry_create(passage->pool, &desc, &passage->entry);
}

/* ---- what the library calls ----------------------------------------------------- */

static struct passage_run *run_of(const struct passage *passage, const pp_regs *regs)
{
    return *(struct passage_run **) (regs->gpr[PP_REGS_FP / 8]
                                     + (uintptr_t) (intptr_t) passage->shape.image_at);
}

static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    struct passage *passage = host;
    (void) site;
    passage_show(run_of(passage, regs), regs);
    atomic_fetch_add(&passage->produced, 1);
    pp_status status = make_entry(passage, NULL);
    if (status != PP_OK)
        passage->failed = status;
    *entry = passage->entry;
    return status;
}

static const void *refused(void *host, pp_site *site, const pp_regs *regs, pp_status why)
{
    struct passage *passage = host;
    (void) site, (void) why;
    passage_show(run_of(passage, regs), regs);
    return passage->resume;
}

static const void *poll(void *host, pp_site *site, const pp_regs *regs)
{
    struct passage *passage = host;
    struct passage_run *run = run_of(passage, regs);
    passage_show(run, regs);
    if (passage->shape.counter == PP_COUNTER_SITE && pp_site_request(site) != PP_OK)
        snprintf(run->wrong, sizeof run->wrong, "a flag could not be set again");
    return ++run->polls == run->poll_for ? pp_entry_code(passage->entry) : NULL;
}

/* ---- passages ----------------------------------------------------------------------- */

static pp_status make_site(struct passage *passage, pp_error *error)
{
    const struct passage_shape *shape = &passage->shape;
    bool counts = shape->kind == PP_SITE_COUNTED, polls = shape->kind == PP_SITE_POLLED;
    bool forced = shape->kind == PP_SITE_FORCED;
    pp_site_desc desc = {
        .size = sizeof desc, .kind = shape->kind, .counter = shape->counter,
        .threshold = counts ? shape->threshold : 0, .hits = polls ? 0 : shape->hits,
        .save = shape->save, .flags = shape->flags, .live_gpr = shape->live_gpr,
        .live_vector = shape->live_vector, .tier0 = &shape->tier0, .host = passage, .error = error,
        .thread_offset = shape->site_knows_thread ? shape->thread_at : 0,
        .produce = polls ? NULL : produce, .poll = polls ? poll : NULL,
        .refused = forced ? refused : NULL,
    };
    if ((counts || polls) && shape->counter == PP_COUNTER_FRAME)
        desc.counter_offset = shape->counter_at;
    if (shape->counter == PP_COUNTER_THREAD)
        desc.counter_offset = (int32_t) offsetof(struct passage_thread, word);
    if (shape->counter == PP_COUNTER_DATA)
        desc.word = &passage->word;
    if (forced) {
        struct moves m = { .status = PP_OK };
        move_landing(&m);
        move_call(&m, pp_symbol_define(passage->pool, "abort", (const void *) abort));
        pp_status status = link_moves(&m, passage, "trap", NULL, &passage->trap);
        if (status != PP_OK)
            return status;
        desc.otherwise = pp_trace_entry(passage->trap);
    }
    return pp_site_create(passage->pool, &desc, &passage->site);
}

pp_status passage_open(struct passage *passage, pp_pool *pool, uint32_t pool_flags, pp_error *error)
{
    struct passage_shape *shape = &passage->shape;
    passage->pool = pool;
    passage->osr_flags = pool_flags & PP_POOL_LANDING_PADS;
    passage->word = shape->threshold;
    pp_status status = make_site(passage, error);
    if (status == PP_OK)
        status = link_tier0(passage);
    if (status == PP_OK && (shape->by_hand || shape->kind == PP_SITE_POLLED))
        status = make_entry(passage, error);
    if (status == PP_OK && shape->by_hand)
        status = pp_site_publish(passage->site, passage->entry);
    if (status == PP_OK && shape->kind == PP_SITE_POLLED && shape->counter == PP_COUNTER_SITE)
        status = pp_site_request(passage->site);
    if (status != PP_OK)
        (void) passage_close(passage);
    return status;
}

static void keep(pp_status *first, pp_status status)
{
    if (*first == PP_OK)
        *first = status;
}

pp_status passage_close(struct passage *passage)
{
    pp_trace *const traces[] = { passage->body, passage->trace, passage->trap };
    pp_status status = PP_OK;
    if (passage->site != NULL)
        keep(&status, pp_site_destroy(passage->pool, passage->site));
    if (passage->entry != NULL)
        keep(&status, pp_entry_destroy(passage->pool, passage->entry));
    for (unsigned i = 0; i < sizeof traces / sizeof traces[0]; i++)
        if (traces[i] != NULL)
            keep(&status, pp_trace_free(passage->pool, traces[i]));
    return status;
}

/* ---- runs ------------------------------------------------------------------------- */

bool passage_thread_begin(struct passage_thread *thread)
{
    *thread = (struct passage_thread) { 0 };
    size_t space = pp_buffer_space(PASSAGE_BUFFER_MAX, 2);
    thread->memory = malloc(PASSAGE_BELOW_MAX + PASSAGE_ABOVE_MAX + PASSAGE_CANARY);
    thread->buffers = aligned_alloc(16, (space + 15) & ~(size_t) 15);
    if (thread->memory != NULL && thread->buffers != NULL
        && pp_thread_init(&thread->thread, NULL, NULL) == PP_OK
        && pp_thread_set_buffers(&thread->thread, thread->buffers, PASSAGE_BUFFER_MAX, 2) == PP_OK)
        return true;
    free(thread->buffers);
    free(thread->memory);
    return false;
}

void passage_thread_end(struct passage_thread *thread)
{
    /* All were given back, or the run has failed. */
    (void) !pp_thread_set_buffers(&thread->thread, NULL, 0, 0);
    free(thread->buffers);
    free(thread->memory);
}

bool passage_run(struct passage_run *run, const struct passage *passage,
                 struct passage_thread *thread, struct random random, unsigned limit)
{
    struct method_call call = { .code = pp_trace_entry(passage->trace),
                                .arguments = { (uintptr_t) thread, (uintptr_t) run } };
    *run = (struct passage_run) { .passage = passage, .thread = thread, .random = random,
                                  .limit = limit };
    run->poll_for = 1 + (unsigned) random_below(&run->random, limit + 1);
    for (unsigned i = 0; i < SAVE_SLOTS; i++)
        call.in[i] = run->callers[i] = random_next(&run->random);
    thread->word = passage->shape.threshold;
    pp_enter(&thread->thread, (const void *) method_call, (uintptr_t) &call, 0, 0, 0);
    if (run->wrong[0] != '\0')
        return false;
    uintptr_t result = run->bodies != 0 ? PASSAGE_BODY : PASSAGE_TIER0;
    if ((uint32_t) call.result != result)
        snprintf(run->wrong, sizeof run->wrong, "%lu returned instead of %lu",
                 (unsigned long) call.result, (unsigned long) result);
    else if (call.sp[0] != call.sp[1])
        snprintf(run->wrong, sizeof run->wrong, "SP %lx became %lx", (unsigned long) call.sp[0],
                 (unsigned long) call.sp[1]);
    else if (memcmp(call.in, call.out, sizeof call.in) != 0)
        snprintf(run->wrong, sizeof run->wrong, "the caller's callee-saved registers changed");
    else if (thread->thread.anchor != 0 || thread->thread.exit_fp != 0
             || pp_buffer_next(&thread->thread, NULL) != NULL)
        snprintf(run->wrong, sizeof run->wrong, "something is left in the thread");
    return run->wrong[0] == '\0';
}
