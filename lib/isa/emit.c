/* SPDX-License-Identifier: MIT */
/* Emitting instructions into a host's buffer: what both architectures share. */
#include <config.h>

#include "isa/emit.h"

void emit_byte(struct emitter *emitter, uint8_t byte)
{
    if (emitter->length < emitter->capacity)
        emitter->bytes[emitter->length] = byte;
    emitter->length++;
}

void emit_le32(struct emitter *emitter, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        emit_byte(emitter, (uint8_t) (word >> (8 * i)));
}

void emit_le64(struct emitter *emitter, uint64_t word)
{
    emit_le32(emitter, (uint32_t) word);
    emit_le32(emitter, (uint32_t) (word >> 32));
}

pp_status emit_finish(const struct emitter *emitter)
{
    return emitter->bytes == NULL || emitter->length <= emitter->capacity ? PP_OK : PP_E_RANGE;
}

pp_symbol emit_patchpoint_stub(pp_save save)
{
    switch (save) {
    case PP_SAVE_GPR: return PP_SYMBOL_PATCHPOINT_GPR;
    case PP_SAVE_V128: return PP_SYMBOL_PATCHPOINT_V128;
    case PP_SAVE_ABI: return PP_SYMBOL_PATCHPOINT_ABI;
    case PP_SAVE_V256: return PP_SYMBOL_PATCHPOINT_V256;
    case PP_SAVE_V512: return PP_SYMBOL_PATCHPOINT_V512;
    case PP_SAVE_MASK: return PP_SYMBOL_PATCHPOINT_MASK;
    case PP_SAVE_MASK256: return PP_SYMBOL_PATCHPOINT_M256;
    case PP_SAVE_MASK512: return PP_SYMBOL_PATCHPOINT_M512;
    }
    return PP_SYMBOL_NONE;
}

/*
 * RESERVE: the body's saves go into tier-0's free slots, so that the epilogue
 * finds all of them in one area.  RELOAD: the body brings the registers back to
 * what the caller had in them, and saves those it uses at the top of its own
 * part, right below tier-0's SP.
 */
void osr_plan_from(const struct pp_osr_frame *frame, struct osr_plan *plan,
                   struct pp_osr_layout *layout)
{
    const pp_tier0_layout *tier0 = frame->tier0;
    uint32_t own_bytes = 0;

    *plan = (struct osr_plan) {
        .landing_pad = (frame->flags & PP_POOL_LANDING_PADS) != 0,
        .cfa_offset = tier0->cfa_offset,
        .base = frame->base,
    };
    layout->rule = (pp_frame_rule) {
        .size = sizeof layout->rule,
        .kind = PP_FRAME_OSR,
        .cfa_offset = tier0->cfa_offset,
        .saves = tier0->saves,
    };
    struct save_move area = { tier0->saves.slots, tier0->saves.offset, tier0->saves.saved };
    if (frame->scheme == PP_CSR_RESERVE) {
        plan->restore = plan->save = area;
        plan->save.which = frame->used & ~tier0->saves.saved;
        plan->restore.which |= frame->used;
        layout->rule.saves.saved |= frame->used;
    } else {
        plan->reload = area;
        own_bytes = 8 * (uint32_t) __builtin_popcountll(frame->used);
        int32_t offset = -(int32_t) (tier0->frame_bytes + own_bytes);
        plan->save = plan->restore = (struct save_move) { frame->used, offset, frame->used };
        if (frame->used != 0)
            layout->rule.own = (pp_save_area) { .slots = frame->used, .saved = frame->used,
                                                .offset = offset };
    }
    plan->stack_bytes = (own_bytes + frame->local_bytes + 15) & ~15u;
    layout->stack_bytes = plan->stack_bytes;
    layout->local_offset = tier0->flags & PP_TIER0_DYNAMIC
        ? 0 : -(int32_t) (tier0->frame_bytes + plan->stack_bytes);
}
