/* SPDX-License-Identifier: MIT */
/* Methods in two tiers. */
#include <config.h>

#include "stress/method.h"

#include <elf.h>
#include <string.h>

#if defined __x86_64__
#define BRANCH_TYPE R_X86_64_PC32
#define CALL_TYPE R_X86_64_PLT32
#define FIELD_ADDEND (-4)
#define SAVES (1ull << 3 | 0xfull << 12)        /* rbx, r12 to r15 */
#define SAVED (1ull << 3 | 1ull << 12)          /* by tier-0: rbx, r12 */
#else
#define BRANCH_TYPE R_AARCH64_CONDBR19
#define CALL_TYPE R_AARCH64_CALL26
#define FIELD_ADDEND 0
#define SAVES (0x3ffull << 19 | 0xffull << 40)  /* x19 to x28, d8 to d15 */
#define SAVED (3ull << 19 | 1ull << 40)         /* x19, x20, d8 */
#endif

/* ---- putting pieces together -------------------------------------------- */

struct builder {
    uint8_t code[2048];
    size_t size;
    pp_reloc relocs[8];
    unsigned reloc_count;
    pp_status status; /* the first failure */
};

/* Append a piece; returns where it begins. */
static size_t append(struct builder *b, const uint8_t *start, const uint8_t *end)
{
    size_t at = b->size, size = (size_t) (end - start);
    if (b->status == PP_OK && size > sizeof b->code - at)
        b->status = PP_E_RANGE;
    if (b->status != PP_OK)
        return at;
    memcpy(b->code + at, start, size);
    b->size += size;
    return at;
}
#define APPEND(b, name) append(b, template_##name, template_##name##_end)

static void refer(struct builder *b, size_t at, uint16_t type, pp_symbol symbol, int64_t addend)
{
    b->relocs[b->reloc_count++] = (pp_reloc) {
        .offset = (uint32_t) at, .type = type, .section = PP_IN_CODE, .symbol = symbol,
        .addend = addend + FIELD_ADDEND,
    };
}
/* The jump or call of a piece that begins at `at`. */
#define JUMP(b, at, name, label, target) \
    refer(b, (at) + (size_t) (template_##label - template_##name), BRANCH_TYPE, PP_SYMBOL_CODE, \
          (int64_t) (target))
#define CALL(b, at, name, label, symbol) \
    refer(b, (at) + (size_t) (template_##label - template_##name), CALL_TYPE, symbol, 0)

static size_t append_site(struct builder *b, pp_site *site)
{
    pp_site_layout layout = { .size = sizeof layout };
    size_t at = b->size;
    if (b->status == PP_OK)
        b->status = pp_emit_site(site, b->code + at, sizeof b->code - at, &layout);
    if (b->status != PP_OK)
        return at;
    b->size += layout.bytes;
    for (unsigned i = 0; i < layout.reloc_count; i++) {
        b->relocs[b->reloc_count] = layout.relocs[i];
        b->relocs[b->reloc_count++].offset += (uint32_t) at;
    }
    return at;
}

static void put32(struct builder *b, size_t at, uint32_t value)
{
    memcpy(b->code + at, &value, sizeof value);
}

/* The two numbers in tier-0's prologue. */
static void append_head(struct builder *b, uint32_t frame_bytes, int32_t threshold)
{
    size_t at = APPEND(b, head);
    size_t frame = at + (size_t) (template_head_frame - template_head);
    size_t count = at + (size_t) (template_head_threshold - template_head);
#if defined __x86_64__
    put32(b, frame - 4, frame_bytes);
    put32(b, count - 4, (uint32_t) threshold);
#else
    put32(b, frame - 8, 0xd14003ff | frame_bytes >> 12 << 10);   /* sub sp, sp, #, lsl #12 */
    put32(b, frame - 4, 0xd10003ff | (frame_bytes & 0xfff) << 10);
    put32(b, count - 8, 0x52800009 | ((uint32_t) threshold & 0xffff) << 5); /* movz w9, # */
    put32(b, count - 4, 0x72a00009 | (uint32_t) threshold >> 16 << 5);      /* movk w9, #, lsl #16 */
#endif
}

static void build_suspend(struct builder *b, struct method *method)
{
    append_head(b, method->tier0.frame_bytes, 1);
    APPEND(b, save_rest); /* what C frames saved is lost when they are left behind */
    size_t at = APPEND(b, suspend);
    CALL(b, at, suspend, suspend_call, PP_SYMBOL_LEAVE);
    method->resume_offset = at + (size_t) (template_suspend_here - template_suspend);
    APPEND(b, restore_rest);
    APPEND(b, tail);
}

static void build_tier0(struct builder *b, const struct method *method)
{
    if (method->shape.kind == METHOD_RECURSION)
        APPEND(b, leaf);
    append_head(b, method->tier0.frame_bytes, pp_site_threshold(method->sites[0]));
    size_t top = b->size, at, inner;
    if (method->shape.kind == METHOD_REGISTERS) {
        APPEND(b, save_rest);
        top = APPEND(b, load);
    }
    append_site(b, method->sites[0]);
    switch (method->shape.kind) {
    case METHOD_SUM:
        at = APPEND(b, sum);
        JUMP(b, at, sum, sum_jump, top);
        break;
    case METHOD_NESTED:
        APPEND(b, outer);
        inner = append_site(b, method->sites[1]);
        at = APPEND(b, inner);
        JUMP(b, at, inner, inner_inner, inner);
        JUMP(b, at, inner, inner_outer, top);
        break;
    case METHOD_REGISTERS:
        at = APPEND(b, store);
        CALL(b, at, store, store_call, PP_SYMBOL_LEAVE);
        JUMP(b, at, store, store_jump, top);
        APPEND(b, restore_rest);
        break;
    default:
        at = APPEND(b, again);
        CALL(b, at, again, again_call, PP_SYMBOL_CODE);
        JUMP(b, at, again, again_jump, top);
        break;
    }
    APPEND(b, tail);
}

static void build_body(struct builder *b, const struct method *method, unsigned index)
{
    size_t at;
    switch (method->shape.kind) {
    case METHOD_SUM:
        APPEND(b, sum_body);
        break;
    case METHOD_NESTED:
        if (index == 0)
            APPEND(b, outer);
        APPEND(b, inner_body);
        break;
    case METHOD_REGISTERS:
        at = APPEND(b, store_body);
        CALL(b, at, store_body, store_body_call, PP_SYMBOL_LEAVE);
        break;
    default:
        at = APPEND(b, again_body);
        CALL(b, at, again_body, again_body_call,
             pp_symbol_define(method->pool, NULL, pp_trace_entry(method->trace)));
        break;
    }
}

static pp_status link_code(struct builder *b, const struct method *method, const char *name,
                           const pp_frame_rule *rule, pp_trace **trace)
{
    if (b->status != PP_OK)
        return b->status;
    pp_trace_desc desc = { .size = sizeof desc, .name = name, .code = b->code, .code_size = b->size,
                           .relocs = b->relocs, .reloc_count = b->reloc_count, .frame = rule };
    return pp_trace_link(method->pool, &desc, trace);
}

/* ---- the producer --------------------------------------------------------- */

static pp_status link_body(struct method *method, unsigned index)
{
    struct builder b = { .status = PP_OK };
    const struct method_replace *replace = method->shape.replace;
    /* A body that replaces tier-0's frame goes on top of its own, if it has anything to save. */
    bool whole = replace != NULL && method->shape.scheme == PP_CSR_RESERVE;
    pp_osr_frame frame = { .size = sizeof frame, .scheme = method->shape.scheme,
                           .tier0 = replace != NULL ? &replace->body : &method->tier0,
                           .used = SAVES,
                           .local_bytes = whole ? 0 : method->shape.local_bytes };
    pp_osr_layout prologue = { .size = sizeof prologue }, epilogue = { .size = sizeof epilogue };
    b.status = pp_emit_osr_prologue(&frame, b.code, sizeof b.code, &prologue);
    b.size = prologue.bytes;
    build_body(&b, method, index);
    if (b.status == PP_OK)
        b.status = pp_emit_osr_epilogue(&frame, b.code + b.size, sizeof b.code - b.size, &epilogue);
    b.size += epilogue.bytes;
    pp_status status = link_code(&b, method, "body", &prologue.rule, &method->bodies[index]);
    if (status != PP_OK)
        return status;
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = method->shape.scheme,
                           .code = pp_trace_entry(method->bodies[index]), .tier0 = &method->tier0,
                           .used = SAVES, .stack_bytes = prologue.stack_bytes, .host = method,
                           .flags = method->shape.entry_flags };
    if (replace != NULL) {
        desc.style = PP_REPLACE;
        desc.body = &replace->body;
        desc.values = replace->values;
        desc.value_count = replace->value_count;
        desc.thread_offset = method->shape.with_thread ? AT_THREAD : 0;
    }
    return pp_entry_create(method->pool, &desc, &method->entries[index]);
}

static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    struct method *method = host;
    unsigned index = site == method->sites[0] ? 0 : 1;
    (void) regs;
    atomic_fetch_add(&method->produced, 1);
    if (method->shape.refuse)
        return PP_E_FAULT;
    pp_status status = link_body(method, index);
    if (status != PP_OK)
        method->failed = status;
    *entry = method->entries[index];
    return status;
}

/* ---- methods ---------------------------------------------------------------- */

static pp_status make_sites(struct method *method)
{
    const struct method_shape *shape = &method->shape;
    pp_site_desc desc = {
        .size = sizeof desc, .kind = PP_SITE_COUNTED, .counter = shape->counter,
        .counter_offset = shape->counter == PP_COUNTER_FRAME ? AT_COUNTER : 0,
        .threshold = shape->threshold, .hits = shape->hits, .save = shape->save,
        .flags = shape->flags, .thread_offset = shape->with_thread ? AT_THREAD : 0,
        .tier0 = &method->tier0, .produce = produce, .host = method,
        .live_gpr = shape->live_gpr, .live_vector = shape->live_vector,
    };
    unsigned count = shape->kind == METHOD_NESTED ? 2 : 1;
    for (; method->site_count < count; method->site_count++) {
        pp_status status = pp_site_create(method->pool, &desc, &method->sites[method->site_count]);
        if (status != PP_OK)
            return status;
    }
    return PP_OK;
}

pp_status method_open(struct method *method, pp_pool *pool, const struct method_shape *shape)
{
    *method = (struct method) {
        .shape = *shape, .pool = pool,
        .tier0 = { .size = sizeof method->tier0, .frame_bytes = FRAME_BYTES + shape->more_bytes,
                   .saves = { .slots = SAVES, .saved = SAVED, .offset = AT_SAVES } },
    };
    if (shape->kind == METHOD_REGISTERS || shape->kind == METHOD_SUSPEND)
        method->tier0.saves.saved = SAVES;
    pp_status status = shape->kind == METHOD_SUSPEND ? PP_OK : make_sites(method);
    if (status == PP_OK)
        status = method_relink(method);
    if (status != PP_OK)
        (void) method_close(method);
    return status;
}

pp_status method_relink(struct method *method)
{
    struct builder b = { .status = PP_OK };
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD,
                           .saves = method->tier0.saves };
    if (method->shape.kind == METHOD_SUSPEND)
        build_suspend(&b, method);
    else
        build_tier0(&b, method);
    return link_code(&b, method, "tier-0", &rule, &method->trace);
}

static void keep(pp_status *first, pp_status status)
{
    if (*first == PP_OK)
        *first = status;
}

pp_status method_close(struct method *method)
{
    pp_status status = PP_OK;
    for (unsigned i = 0; i < method->site_count; i++)
        keep(&status, pp_site_destroy(method->pool, method->sites[i]));
    for (unsigned i = 0; i < METHOD_SITES; i++) {
        if (method->entries[i] != NULL)
            keep(&status, pp_entry_destroy(method->pool, method->entries[i]));
        if (method->bodies[i] != NULL)
            keep(&status, pp_trace_free(method->pool, method->bodies[i]));
    }
    if (method->trace != NULL)
        keep(&status, pp_trace_free(method->pool, method->trace));
    return status;
}

uint64_t method_model(const struct method *method, uint64_t n, uint64_t start)
{
    uint64_t value = 1;
    switch (method->shape.kind) {
    case METHOD_SUM:
        return n * (n + 1) / 2;
    case METHOD_NESTED:
        return n * (n + 1) / 2 * (start * (start + 1) / 2);
    case METHOD_REGISTERS:
        return n;
    case METHOD_SUSPEND:
        return 1;
    default:
        for (; n > 0; n--)
            value = start * value + 1;
        return value;
    }
}

bool method_run(const struct method *method, pp_thread *thread, uint64_t n, void *buffer,
                uint64_t start, const uint64_t saved[SAVE_SLOTS], uint64_t *result)
{
    struct method_call call = { .code = pp_trace_entry(method->trace),
                                .arguments = { (uintptr_t) thread, n, (uintptr_t) buffer, start } };
    memcpy(call.in, saved, sizeof call.in);
    pp_enter(thread, (const void *) method_call, (uintptr_t) &call, 0, 0, 0);
    *result = call.result;
    return call.sp[0] == call.sp[1] && memcmp(call.in, call.out, sizeof call.in) == 0;
}
