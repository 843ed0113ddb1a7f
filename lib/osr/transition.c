/* SPDX-License-Identifier: MIT */
/*
 * From tier-0's frame to the body's.  All is read before anything is written:
 * the values into staging, which the entry's code has reserved below both frames,
 * and the caller's callee-saved registers, which tier-0 may have saved in memory
 * that is about to change, into an array.  The truth about these is in tier-0's
 * save area, and in the registers only for those that it did not save.
 *
 * PP_BUFFER writes nothing to a frame: the values go to the buffer, and the entry's
 * code pops tier-0's frame.
 */
#include <config.h>

#include "osr/transition.h"

#include "error.h"
#include "isa/isa.h"
#include "memory/pool.h"
#include "osr/buffer.h"
#include "osr/tier0.h"

#include "stub.h"

#include <string.h>

#define CODE_BYTES 256
#define STUB_BYTES 2048 /* the stub's frame and that of transition_run, with room to spare */

/* What a function has its arguments in, and finds clear. */
#if defined __x86_64__
#define FIRST 7            /* rdi */
#define SECOND 6           /* rsi */
#define FLAG_DIRECTION 0x400u
#else
#define FIRST 0
#define SECOND 1
#define FLAG_DIRECTION 0u
#endif

/* ---- the move ------------------------------------------------------------- */

/* Where a register is in pp_regs: its number, or its bit in a save area, tells. */
static uint64_t *word_of(struct pp_regs *regs, unsigned bit)
{
    return bit < 32 ? &regs->gpr[bit] : (uint64_t *) regs->vector[bit - 32];
}

/* Copy registers between pp_regs and the slots of a save area. */
static void load_saved(const pp_save_area *area, uintptr_t fp, struct pp_regs *regs)
{
    const uint64_t *slot = (const uint64_t *) (fp + (uintptr_t) (intptr_t) area->offset);
    for (uint64_t left = area->slots; left != 0; left &= left - 1, slot++)
        if (area->saved & left & -left)
            *word_of(regs, (unsigned) __builtin_ctzll(left)) = *slot;
}

static void store_saved(const pp_save_area *area, uintptr_t fp, struct pp_regs *regs)
{
    uint64_t *slot = (uint64_t *) (fp + (uintptr_t) (intptr_t) area->offset);
    for (uint64_t left = area->slots; left != 0; left &= left - 1, slot++)
        if (area->saved & left & -left)
            *slot = *word_of(regs, (unsigned) __builtin_ctzll(left));
}

/* As at the entry of a function. */
static void pack(const struct entry *entry, struct pp_regs *regs, uintptr_t fp, uint8_t *staging)
{
    pp_thread *thread = *(pp_thread **) (fp + (uintptr_t) (intptr_t) entry->thread_offset);
    uintptr_t buffer = (uintptr_t) buffer_take(thread, fp);
    if (buffer == 0) /* reserved by the site: the host has overwritten the thread */
        __builtin_trap();
    value_load(entry->program, regs, fp, buffer, staging);
    load_saved(&entry->tier0.saves, fp, regs);
    value_store(entry->program, regs, fp, buffer, staging);
    regs->gpr[FIRST] = buffer;
    if (entry->flags & PP_ENTRY_INDEX)
        regs->gpr[SECOND] = entry->index;
    regs->flags &= ~(uint64_t) FLAG_DIRECTION;
}

uintptr_t transition_run(const struct entry *entry, struct pp_regs *regs)
{
    uintptr_t fp = regs->gpr[PP_REGS_FP / 8];
    uint8_t *staging = (uint8_t *) regs->gpr[PP_REGS_SP / 8];
    regs->gpr[PP_REGS_SP / 8] = fp - entry->tier0.frame_bytes; /* as values see it */
    if (entry->style == PP_BUFFER) {
        pack(entry, regs, fp, staging);
        return (uintptr_t) entry->code;
    }
    value_load(entry->program, regs, fp, fp, staging);
    /* From here on the registers are the caller's again, as far as C functions keep them. */
    load_saved(&entry->tier0.saves, fp, regs);
    store_saved(&entry->body.saves, fp, regs);
    value_store(entry->program, regs, fp, 0, staging);
    return (uintptr_t) entry->code;
}

/* ---- its code ------------------------------------------------------------- */

static uint32_t staging_bytes(const struct entry *entry)
{
    return entry->program == NULL ? 0 : entry->program->count * VALUE_BYTES;
}

/* How much lower the body's SP is than tier-0's. */
static uint32_t growth(const struct entry *entry)
{
    return entry->style == PP_REPLACE && entry->body.frame_bytes > entry->tier0.frame_bytes
               ? entry->body.frame_bytes - entry->tier0.frame_bytes : 0;
}

size_t transition_stack_bytes(const struct entry *entry)
{
    return (size_t) growth(entry) + staging_bytes(entry) + STUB_BYTES;
}

pp_status transition_link(pp_pool *pool, struct entry *entry, pp_error *error)
{
    uint8_t code[CODE_BYTES];
    const struct transition_code shape = {
        .landing_pad = pool_landing_pads(pool),
        .moves = entry->style != PP_ON_TOP,
        .has_index = entry->style != PP_BUFFER && (entry->flags & PP_ENTRY_INDEX),
        .index = entry->index,
        .body = (uintptr_t) entry->code,
        .lower_bytes = growth(entry) + staging_bytes(entry),
        .entry = (uintptr_t) entry,
        .pops_frame = entry->style == PP_BUFFER,
        .cfa_offset = entry->tier0.cfa_offset,
        .frame_bytes = entry->body.frame_bytes,
    };
    struct transition_layout layout;
    pp_status status = isa_host.emit_transition(&shape, code, sizeof code, &layout);
    if (status != PP_OK)
        return error_set(error, status, "no code for this transition");
    pp_reloc call = { .offset = (uint32_t) layout.call_offset, .type = layout.call_type,
                      .section = PP_IN_CODE, .addend = layout.call_addend };
    if (shape.moves)
        call.symbol = pp_symbol_define(pool, NULL, frame_move);
    if (shape.moves && call.symbol == PP_SYMBOL_NONE)
        return error_set(error, PP_E_NOMEM, "no memory for a symbol");
    /* Tier-0's frame, under tier-0's rule: mostly its region has room. */
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD,
                           .cfa_offset = entry->tier0.cfa_offset, .saves = entry->tier0.saves };
    pp_trace_desc desc = { .size = sizeof desc, .name = "transition", .code = code,
                           .code_size = layout.bytes, .relocs = &call, .reloc_count = shape.moves,
                           .frame = &rule, .error = error };
    status = pp_trace_link(pool, &desc, &entry->way);
    if (status == PP_OK)
        entry->target = (uintptr_t) pp_trace_entry(entry->way);
    return status;
}
