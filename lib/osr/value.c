/* SPDX-License-Identifier: MIT */
/* Value maps: what is refused, the program, and how it is run. */
#include <config.h>

#include "osr/value.h"

#include "error.h"
#include "osr/tier0.h"

#include <stdbool.h>
#include <string.h>

#define BUFFER_LIMIT (1 << 28)

/* ---- checks --------------------------------------------------------------- */

/* Registers of an architecture, for the fixed roles that they have here. */
struct roles {
    unsigned gprs, vectors;
    uint32_t source;        /* general registers that can be read */
    uint32_t target;        /* that can be written */
    unsigned arguments[2];  /* what the address of a buffer, and an index arrive in */
};

static const struct roles *roles_of(pp_arch arch)
{
    static const struct roles x86_64 = {
        .gprs = 16, .vectors = 16,
        .source = 0xf7ff,                     /* not r11 */
        .target = 0xf7cf,                     /* nor SP and FP */
        .arguments = { 7, 6 },
    };
    static const struct roles aarch64 = {
        .gprs = 32, .vectors = 32,
        .source = 0xbffcffff,                 /* not x16, x17, x30 */
        .target = 0x1ff8ffff,                 /* nor x18, FP and SP */
        .arguments = { 0, 1 },
    };
    return arch == PP_ARCH_AARCH64 ? &aarch64 : &x86_64;
}

/* Where a check is, for its reason. */
struct context {
    const struct value_sides *sides;
    const struct roles *roles;
    size_t index;
    pp_error *error;
};

#define REFUSE(context, side, why) \
    error_set((context)->error, PP_E_ARG, "values[%zu].%s: %s", (context)->index, side, why)

static bool overlap(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

/* Memory of a frame that is nobody else's. */
static pp_status check_slot(const struct context *context, const char *side,
                            const pp_tier0_layout *frame, int64_t offset, int64_t bytes)
{
    if (offset % 4 != 0)
        return REFUSE(context, side, "a slot's offset is a multiple of 4");
    const char *fault = tier0_slot_fault(frame, offset, bytes);
    return fault == NULL ? PP_OK : REFUSE(context, side, fault);
}

static pp_status check_buffer(const struct context *context, const char *side, int64_t offset,
                              int64_t bytes)
{
    if (!context->sides->buffer)
        return REFUSE(context, side, "there is no buffer in this style");
    if (offset < 0 || offset % 4 != 0 || offset + bytes > BUFFER_LIMIT)
        return REFUSE(context, side, "no position in a buffer");
    return PP_OK;
}

static pp_status check_source(const struct context *context, const pp_value *value)
{
    const struct roles *roles = context->roles;
    const pp_place *from = &value->from;
    switch (from->kind) {
    case PP_PLACE_DEAD:
        return PP_OK;
    case PP_PLACE_GPR:
        if (from->number >= roles->gprs || !(roles->source >> from->number & 1))
            return REFUSE(context, "from", "a register that no site keeps");
        return value->bytes == 16 ? REFUSE(context, "bytes", "16 of a general register") : PP_OK;
    case PP_PLACE_VECTOR:
        return from->number < roles->vectors ? PP_OK : REFUSE(context, "from", "no vector register");
    case PP_PLACE_SLOT:
        return check_slot(context, "from", context->sides->tier0, from->offset, value->bytes);
    case PP_PLACE_CONSTANT:
        return value->bytes == 16 ? REFUSE(context, "bytes", "16 of a constant") : PP_OK;
    case PP_PLACE_ADDRESS:
        if (value->bytes != 8)
            return REFUSE(context, "bytes", "an address has 8");
        return context->sides->buffer
            ? check_buffer(context, "from", from->offset, 0)
            : check_slot(context, "from", context->sides->body, from->offset, 1);
    }
    return REFUSE(context, "from.kind", "no source");
}

/* The bit of a register that C functions keep, in a save area; 0: they do not. */
static uint64_t kept_by_c(const struct context *context, const pp_place *to)
{
    uint64_t bit = to->kind == PP_PLACE_VECTOR ? PP_VECTOR_BIT(to->number) : 1ull << to->number;
    return bit & callee_saved(context->sides->arch);
}

static pp_status check_register(const struct context *context, const pp_value *value)
{
    const struct roles *roles = context->roles;
    const pp_place *to = &value->to;
    const pp_tier0_layout *body = context->sides->body;
    if (to->kind == PP_PLACE_VECTOR) {
        if (to->number >= roles->vectors)
            return REFUSE(context, "to", "no vector register");
    } else {
        if (to->number >= roles->gprs || !(roles->target >> to->number & 1))
            return REFUSE(context, "to", "a register with a role of its own");
        if (value->bytes == 16)
            return REFUSE(context, "bytes", "16 into a general register");
        if (context->sides->buffer && to->number == roles->arguments[0])
            return REFUSE(context, "to", "the buffer's address arrives there");
        if (context->sides->buffer && context->sides->index && to->number == roles->arguments[1])
            return REFUSE(context, "to", "the index arrives there");
    }
    uint64_t kept = kept_by_c(context, to);
    if (kept != 0 && (body == NULL || !(body->saves.saved & kept)))
        return REFUSE(context, "to", "the caller's register, and the body has not saved it");
    return PP_OK;
}

static pp_status check_target(const struct context *context, const pp_value *value)
{
    switch (value->to.kind) {
    case PP_PLACE_DEAD:
        return PP_OK;
    case PP_PLACE_GPR:
    case PP_PLACE_VECTOR:
        return check_register(context, value);
    case PP_PLACE_SLOT:
        if (context->sides->body == NULL)
            return REFUSE(context, "to", "the body has no frame yet");
        return check_slot(context, "to", context->sides->body, value->to.offset, value->bytes);
    case PP_PLACE_BUFFER:
        return check_buffer(context, "to", value->to.offset, value->bytes);
    }
    return REFUSE(context, "to.kind", "no target");
}

static pp_status check_value(const struct context *context, const pp_value *value)
{
    if (value->bytes != 4 && value->bytes != 8 && value->bytes != 16)
        return REFUSE(context, "bytes", "not 4, 8 or 16");
    if (value->reserved != 0)
        return REFUSE(context, "reserved", "not 0");
    if (value->from.kind != PP_PLACE_CONSTANT && value->constant != 0)
        return REFUSE(context, "constant", "not 0, and the source is none");
    pp_status status = check_source(context, value);
    return status == PP_OK ? check_target(context, value) : status;
}

static bool same_place(const pp_value *a, const pp_value *b)
{
    if (a->to.kind != b->to.kind || a->to.kind == PP_PLACE_DEAD)
        return false;
    if (a->to.kind == PP_PLACE_GPR || a->to.kind == PP_PLACE_VECTOR)
        return a->to.number == b->to.number;
    return overlap(a->to.offset, a->bytes, b->to.offset, b->bytes);
}

static bool moves_something(const pp_value *value)
{
    return value->from.kind != PP_PLACE_DEAD && value->to.kind != PP_PLACE_DEAD;
}

pp_status value_check(const struct value_sides *sides, const pp_value *values, size_t count,
                      size_t *moves, pp_error *error)
{
    struct context context = { sides, roles_of(sides->arch), 0, error };
    if (count > PP_VALUES_MAX || (values == NULL && count != 0))
        return error_set(error, PP_E_ARG, "values: missing, or more than %d", PP_VALUES_MAX);
    *moves = 0;
    for (; context.index < count; context.index++) {
        const pp_value *value = &values[context.index];
        pp_status status = check_value(&context, value);
        if (status != PP_OK)
            return status;
        for (size_t i = 0; i < context.index; i++)
            if (same_place(value, &values[i]))
                return error_set(error, PP_E_ARG, "values[%zu].to: values[%zu] goes there, too",
                                 context.index, i);
        *moves += moves_something(value);
    }
    return PP_OK;
}

/* ---- programs ------------------------------------------------------------- */

void value_compile(const pp_value *values, size_t count, struct value_program *program)
{
    *program = (struct value_program) { 0 };
    for (size_t i = 0; i < count; i++) {
        const pp_value *value = &values[i];
        if (value->to.kind == PP_PLACE_BUFFER
            && (uint32_t) value->to.offset + value->bytes > program->buffer_bytes)
            program->buffer_bytes = (uint32_t) value->to.offset + value->bytes;
        if (!moves_something(value))
            continue;
        if (value->from.kind == PP_PLACE_GPR)
            program->gpr |= 1u << value->from.number;
        if (value->from.kind == PP_PLACE_VECTOR)
            program->vector |= 1u << value->from.number;
        program->moves[program->count++] = (struct value_move) {
            .from = (uint8_t) value->from.kind, .to = (uint8_t) value->to.kind,
            .bytes = (uint8_t) value->bytes,
            .from_register = (uint8_t) value->from.number,
            .to_register = (uint8_t) value->to.number,
            .from_offset = value->from.offset, .to_offset = value->to.offset,
            .constant = value->constant,
        };
    }
}

static uintptr_t at(uintptr_t base, int32_t offset)
{
    return base + (uintptr_t) (intptr_t) offset;
}

/* Sizes that the compiler knows need no call. */
static void copy(void *to, const void *from, unsigned bytes)
{
    if (bytes == 4)
        memcpy(to, from, 4);
    else if (bytes == 8)
        memcpy(to, from, 8);
    else
        memcpy(to, from, 16);
}

void value_load(const struct value_program *program, const struct pp_regs *regs, uintptr_t fp,
                uintptr_t base, uint8_t *staging)
{
    for (uint32_t i = 0; i < program->count; i++, staging += VALUE_BYTES) {
        const struct value_move *move = &program->moves[i];
        uint64_t word[2] = { 0, 0 };
        switch ((enum pp_place_kind) move->from) {
        case PP_PLACE_GPR:
            copy(word, &regs->gpr[move->from_register], move->bytes);
            break;
        case PP_PLACE_VECTOR:
            copy(word, regs->vector[move->from_register], move->bytes);
            break;
        case PP_PLACE_SLOT:
            copy(word, (const void *) at(fp, move->from_offset), move->bytes);
            break;
        case PP_PLACE_ADDRESS:
            word[0] = at(base, move->from_offset);
            break;
        default:
            copy(word, &move->constant, move->bytes);
        }
        memcpy(staging, word, sizeof word);
    }
}

void value_store(const struct value_program *program, struct pp_regs *regs, uintptr_t fp,
                 uintptr_t buffer, const uint8_t *staging)
{
    for (uint32_t i = 0; i < program->count; i++, staging += VALUE_BYTES) {
        const struct value_move *move = &program->moves[i];
        switch ((enum pp_place_kind) move->to) {
        case PP_PLACE_GPR:
            memcpy(&regs->gpr[move->to_register], staging, 8);
            break;
        case PP_PLACE_VECTOR:
            memcpy(regs->vector[move->to_register], staging, 16);
            break;
        case PP_PLACE_SLOT:
            copy((void *) at(fp, move->to_offset), staging, move->bytes);
            break;
        default:
            copy((void *) at(buffer, move->to_offset), staging, move->bytes);
        }
    }
}
