/* SPDX-License-Identifier: MIT */
/* Traces made of the pieces of frames.S. */
#include <config.h>

#include "stress/frames.h"

#include <elf.h>
#include <string.h>

#define OFFSET(field, number) _Static_assert(offsetof(struct frames_call, field) == number, #field)
OFFSET(thread, FRAMES_THREAD);
OFFSET(leave, FRAMES_LEAVE);
OFFSET(shadow, FRAMES_SHADOW);
OFFSET(visible, FRAMES_VISIBLE);
OFFSET(callee, FRAMES_CALLEE);
OFFSET(callee_call, FRAMES_CALLEE_CALL);
OFFSET(direct, FRAMES_DIRECT);
OFFSET(leaf, FRAMES_LEAF);
OFFSET(threshold, FRAMES_THRESHOLD);
OFFSET(name, FRAMES_NAME);
OFFSET(osr_name, FRAMES_OSR_NAME);
_Static_assert(offsetof(struct frames_shadow, entries) == SHADOW_ENTRIES, "entries");
_Static_assert(sizeof(struct frames_shadow_entry) == SHADOW_ENTRY_SIZE, "entry");

const pp_frame_rule frames_tier0_rule = {
    .size = sizeof(pp_frame_rule), .kind = PP_FRAME_RECORD, .cfa_offset = FRAMES_CFA_OFFSET,
    .saves = { FRAMES_SLOTS, FRAMES_SAVED, FRAMES_SAVES_OFFSET, 0 },
};

const pp_tier0_layout frames_tier0_layout = {
    .size = sizeof(pp_tier0_layout), .frame_bytes = FRAMES_BYTES, .cfa_offset = FRAMES_CFA_OFFSET,
    .saves = { FRAMES_SLOTS, FRAMES_SAVED, FRAMES_SAVES_OFFSET, 0 },
};

/* Code under construction; `status` is the first failure. */
struct builder {
    uint8_t bytes[2048];
    size_t size;
    pp_status status;
};

static void add(struct builder *builder, const unsigned char *start, const unsigned char *end)
{
    size_t size = (size_t) (end - start);
    if (builder->status != PP_OK || size > sizeof builder->bytes - builder->size) {
        builder->status = builder->status != PP_OK ? builder->status : PP_E_RANGE;
        return;
    }
    memcpy(builder->bytes + builder->size, start, size);
    builder->size += size;
}

#define ADD(builder, piece) add(builder, piece, piece##_end)

static pp_status link_trace(pp_pool *pool, const char *name, const struct builder *builder,
                            const pp_frame_rule *rule, const pp_reloc *relocs, size_t count,
                            uint32_t flags, pp_trace **trace)
{
    if (builder->status != PP_OK)
        return builder->status;
    pp_trace_desc desc = {
        .size = sizeof desc, .name = name, .code = builder->bytes, .code_size = builder->size,
        .relocs = relocs, .reloc_count = count, .frame = rule, .flags = flags,
    };
    return pp_trace_link(pool, &desc, trace);
}

pp_status frames_link_tier0(pp_pool *pool, const char *name, pp_site *site, pp_trace **trace)
{
    struct builder builder = { .status = PP_OK };
    pp_reloc relocs[2];
    size_t count = 0;
    ADD(&builder, frames_tier0_head);
    if (site != NULL) {
        pp_site_layout layout = { .size = sizeof layout };
        builder.status = pp_emit_site(site, NULL, 0, &layout);
        if (builder.status != PP_OK)
            return builder.status;
        /* Alignment is filled up with traps: the head jumps over nothing, so there must be none. */
        if (layout.align > 1 && builder.size % layout.align != 0)
            return PP_E_ABI;
        builder.status = pp_emit_site(site, builder.bytes + builder.size,
                                      sizeof builder.bytes - builder.size, &layout);
        for (; count < layout.reloc_count; count++) {
            relocs[count] = layout.relocs[count];
            relocs[count].offset += (uint32_t) builder.size;
        }
        builder.size += layout.bytes;
    }
    ADD(&builder, frames_body);
    ADD(&builder, frames_tier0_tail);
    return link_trace(pool, name, &builder, &frames_tier0_rule, relocs, count, 0, trace);
}

pp_status frames_link_osr(pp_pool *pool, const char *name, pp_csr_scheme scheme,
                          pp_trace **trace, pp_entry **entry)
{
    struct builder builder = { .status = PP_OK };
    pp_osr_frame frame = { .size = sizeof frame, .scheme = scheme, .tier0 = &frames_tier0_layout,
                           .used = FRAMES_USED, .local_bytes = 64 };
    pp_osr_layout layout = { .size = sizeof layout }, ignored = { .size = sizeof ignored };
    builder.status = pp_emit_osr_prologue(&frame, builder.bytes, sizeof builder.bytes, &layout);
    builder.size = layout.bytes;
    ADD(&builder, frames_osr_head);
    ADD(&builder, frames_body);
    ADD(&builder, frames_osr_tail);
    if (builder.status == PP_OK)
        builder.status = pp_emit_osr_epilogue(&frame, builder.bytes + builder.size,
                                              sizeof builder.bytes - builder.size, &ignored);
    builder.size += ignored.bytes;
    pp_status status = link_trace(pool, name, &builder, &layout.rule, NULL, 0, 0, trace);
    if (status != PP_OK)
        return status;
    return pp_entry_create(pool, &(pp_entry_desc){
        .size = sizeof(pp_entry_desc), .style = PP_ON_TOP, .scheme = scheme,
        .code = pp_trace_entry(*trace), .tier0 = &frames_tier0_layout, .used = FRAMES_USED,
        .stack_bytes = layout.stack_bytes }, entry);
}

/* A larger frame, with a constant and two registers that change places, each over the other. */
pp_status frames_link_replace(pp_pool *pool, const char *name, pp_trace **trace, pp_entry **entry)
{
    enum { MORE = 64 };
    const pp_value values[] = {
        { PP_AT_CONSTANT, PP_AT_SLOT(-FRAMES_BYTES - 16), 8, 0, 0x5107 },
        { PP_AT_GPR(1), PP_AT_GPR(2), 8, 0, 0 },
        { PP_AT_GPR(2), PP_AT_GPR(1), 8, 0, 0 },
        { PP_AT_SLOT(FRAMES_CALL_SLOT), PP_AT_SLOT(-FRAMES_BYTES - 32), 8, 0, 0 },
    };
    pp_tier0_layout body = frames_tier0_layout;
    body.frame_bytes += MORE;
    body.saves.saved = FRAMES_SAVED | FRAMES_USED;
    struct builder builder = { .status = PP_OK };
    pp_osr_frame frame = { .size = sizeof frame, .scheme = PP_CSR_RESERVE, .tier0 = &body,
                           .used = FRAMES_USED };
    pp_osr_layout layout = { .size = sizeof layout };
    ADD(&builder, frames_osr_head);
    ADD(&builder, frames_body);
    ADD(&builder, frames_osr_tail);
    if (builder.status == PP_OK)
        builder.status = pp_emit_osr_epilogue(&frame, builder.bytes + builder.size,
                                              sizeof builder.bytes - builder.size, &layout);
    builder.size += layout.bytes;
    pp_status status = link_trace(pool, name, &builder, &layout.rule, NULL, 0, 0, trace);
    if (status != PP_OK)
        return status;
    return pp_entry_create(pool, &(pp_entry_desc){
        .size = sizeof(pp_entry_desc), .style = PP_REPLACE, .scheme = PP_CSR_RESERVE,
        .code = pp_trace_entry(*trace), .tier0 = &frames_tier0_layout, .used = FRAMES_USED,
        .body = &body, .values = values, .value_count = sizeof values / sizeof values[0],
        .thread_offset = FRAMES_THREAD_SLOT }, entry);
}

pp_status frames_link_function(pp_pool *pool, const char *name, pp_trace **trace, pp_entry **entry)
{
    const pp_value values[] = { { PP_AT_SLOT(FRAMES_CALL_SLOT), PP_AT_BUFFER(0), 8, 0, 0 } };
    struct builder builder = { .status = PP_OK };
    ADD(&builder, frames_function_head);
    ADD(&builder, frames_body);
    ADD(&builder, frames_tier0_tail);
    pp_status status = link_trace(pool, name, &builder, &frames_tier0_rule, NULL, 0, 0, trace);
    if (status != PP_OK)
        return status;
    return pp_entry_create(pool, &(pp_entry_desc){
        .size = sizeof(pp_entry_desc), .style = PP_BUFFER, .code = pp_trace_entry(*trace),
        .tier0 = &frames_tier0_layout, .values = values, .value_count = 1,
        .thread_offset = FRAMES_THREAD_SLOT }, entry);
}

pp_status frames_link_leaf(pp_pool *pool, const char *name, pp_trace **trace)
{
    struct builder builder = { .status = PP_OK };
    const pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_LEAF };
    ADD(&builder, frames_leaf);
    return link_trace(pool, name, &builder, &rule, NULL, 0, 0, trace);
}

pp_status frames_link_jump(pp_pool *pool, const char *name, pp_symbol target, uint32_t flags,
                           pp_trace **trace)
{
    struct builder builder = { .status = PP_OK };
    ADD(&builder, frames_jump_head);
    pp_reloc reloc = { .offset = (uint32_t) builder.size + FRAMES_JUMP_RELOC, .symbol = target,
#if defined __x86_64__
                       .type = R_X86_64_PLT32, .addend = -4 };
#else
                       .type = R_AARCH64_CALL26 };
#endif
    ADD(&builder, frames_jump_tail);
    return link_trace(pool, name, &builder, &frames_tier0_rule, &reloc, 1, flags, trace);
}
