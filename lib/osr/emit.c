/* SPDX-License-Identifier: MIT */
/*
 * The public emitters: arguments checked, the bytes counted, and only then
 * written by the architecture's own, so that a refusal leaves the buffer alone.
 */
#include <config.h>

#include "error.h"
#include "isa/isa.h"
#include "osr/tier0.h"
#include "sized.h"

#include <stddef.h>

/* No body has more locals; with tier-0's limit every offset stays inside 32 bits. */
#define LOCAL_LIMIT (1u << 28)
#define FRAME_BYTES offsetof(pp_osr_frame, base) /* of the first layout */
#define ADDRESS_BYTES offsetof(pp_address_layout, why)
/* Of a header whose rules have no flags. */
#define LAYOUT_OLDER (offsetof(pp_osr_layout, rule) + offsetof(pp_frame_rule, flags))

typedef pp_status emit_osr(const struct pp_osr_frame *frame, uint8_t *buffer, size_t capacity,
                           struct pp_osr_layout *layout);

static pp_status refuse_base(const pp_osr_frame *frame, pp_status status, const char *why)
{
    return error_set(frame->error, status, "base: %s", why);
}

/* Where the base of a body's locals may be. */
static pp_status check_base(pp_arch arch, const pp_osr_frame *frame, const pp_tier0_layout *tier0)
{
    /* All but SP, FP, what the emitters and the system use, and the link register. */
    const uint32_t registers = arch == PP_ARCH_AARCH64 ? 0x1ff8ffff : 0xf7cf;
    const pp_place *base = &frame->base;
    if (base->kind == PP_PLACE_DEAD)
        return base->number == 0 && base->offset == 0
            ? PP_OK : refuse_base(frame, PP_E_ARG, "nowhere, and yet a number or an offset");
    if (!(tier0->flags & PP_TIER0_DYNAMIC))
        return refuse_base(frame, PP_E_ARG, "tier-0's frame is not dynamic");
    if (base->kind == PP_PLACE_SLOT) {
        const char *fault = base->number != 0 || base->offset % 8 != 0
            ? "not a multiple of 8" : tier0_slot_fault(tier0, base->offset, 8);
        return fault == NULL ? PP_OK : refuse_base(frame, PP_E_ARG, fault);
    }
    if (base->kind != PP_PLACE_GPR || base->offset != 0 || base->number > 31
        || !(registers >> base->number & 1))
        return refuse_base(frame, PP_E_ARG, "neither a slot nor a register that can have it");
    if (1ull << base->number & callee_saved(arch) & ~frame->used)
        return refuse_base(frame, PP_E_ABI, "a callee-saved register that is not in `used`");
    return PP_OK;
}

/* Check a frame and copy it with its tier0 normalized into `tier0`. */
static pp_status frame_from(const pp_osr_frame *from, pp_osr_frame *frame, pp_tier0_layout *tier0,
                            const struct isa **isa)
{
    if (!sized_read(frame, sizeof *frame, FRAME_BYTES, from))
        return PP_E_ARG;
    pp_error *error = frame->error;
    *isa = isa_find(frame->arch);
    if (*isa == NULL)
        return error_set(error, PP_E_ARG, "arch: %d", (int) frame->arch);
    if (frame->local_bytes > LOCAL_LIMIT)
        return error_set(error, PP_E_ARG, "local_bytes: %u", (unsigned) frame->local_bytes);
    if (frame->flags & ~PP_POOL_LANDING_PADS)
        return error_set(error, PP_E_ARG, "flags: %#x", (unsigned) frame->flags);
    pp_status status = tier0_from((*isa)->arch, frame->tier0, tier0, error);
    if (status == PP_OK)
        status = tier0_check_on_top((*isa)->arch, tier0, frame->scheme, frame->used, error);
    if (status == PP_OK)
        status = check_base((*isa)->arch, frame, tier0);
    frame->tier0 = tier0;
    return status;
}

static pp_status emit_part(const pp_osr_frame *from, void *buffer, size_t capacity,
                           pp_osr_layout *layout, bool epilogue)
{
    pp_osr_frame frame;
    pp_tier0_layout tier0;
    const struct isa *isa;
    if (from == NULL || layout == NULL
        || (layout->size < sizeof *layout && layout->size != LAYOUT_OLDER)
        || (buffer == NULL && capacity != 0))
        return PP_E_ARG;
    pp_status status = frame_from(from, &frame, &tier0, &isa);
    if (status != PP_OK)
        return status;
    pp_osr_layout result = { .size = layout->size };
    emit_osr *emit = epilogue ? isa->emit_osr_epilogue : isa->emit_osr_prologue;
    status = emit(&frame, NULL, 0, &result);
    if (status != PP_OK)
        return error_set(frame.error, status, "the frame is too large for its instructions");
    if (buffer != NULL && result.bytes > capacity)
        return error_set(frame.error, PP_E_RANGE, "capacity: %zu bytes, and %zu are wanted",
                         capacity, result.bytes);
    if (buffer != NULL)
        status = emit(&frame, buffer, capacity, &result);
    if (status != PP_OK)
        return status;
    if (layout->size < sizeof result) /* the caller's rule ends before its flags */
        result.rule.size = offsetof(pp_frame_rule, flags);
    sized_write(layout, &result, sizeof result);
    return PP_OK;
}

pp_status pp_emit_osr_prologue(const pp_osr_frame *frame, void *buffer, size_t capacity,
                               pp_osr_layout *layout)
{
    return emit_part(frame, buffer, capacity, layout, false);
}

pp_status pp_emit_osr_epilogue(const pp_osr_frame *frame, void *buffer, size_t capacity,
                               pp_osr_layout *layout)
{
    return emit_part(frame, buffer, capacity, layout, true);
}

pp_status pp_emit_resume(pp_arch arch, unsigned base, int32_t offset, void *buffer,
                         size_t capacity, size_t *bytes)
{
    const struct isa *isa = isa_find(arch);
    if (isa == NULL || bytes == NULL || (buffer == NULL && capacity != 0)
        || base > (isa->arch == PP_ARCH_AARCH64 ? 31u : 15u))
        return PP_E_ARG;
    size_t size;
    pp_status status = isa->emit_resume(base, offset, NULL, 0, &size);
    if (status == PP_OK && buffer != NULL)
        status = size <= capacity ? isa->emit_resume(base, offset, buffer, capacity, &size)
                                  : PP_E_RANGE;
    if (status == PP_OK)
        *bytes = size;
    return status;
}

/* Whether a general register may have an address, by its hardware number. */
static bool holds_address(const struct isa *isa, unsigned reg)
{
    return isa->arch == PP_ARCH_AARCH64 ? reg < 31 : reg < 16 && reg != 4;
}

pp_status pp_emit_jump_register(pp_arch arch, unsigned reg, void *buffer, size_t capacity,
                                size_t *bytes)
{
    const struct isa *isa = isa_find(arch);
    if (isa == NULL || bytes == NULL || (buffer == NULL && capacity != 0)
        || !holds_address(isa, reg))
        return PP_E_ARG;
    size_t size;
    pp_status status = isa->emit_jump_register(reg, NULL, 0, &size);
    if (status == PP_OK && buffer != NULL)
        status = size <= capacity ? isa->emit_jump_register(reg, buffer, capacity, &size)
                                  : PP_E_RANGE;
    if (status == PP_OK)
        *bytes = size;
    return status;
}

static pp_status refuse_address(pp_address_layout *layout, pp_status status, const char *why)
{
    if (layout->size >= sizeof *layout)
        layout->why = why;
    return status;
}

pp_status pp_emit_address(pp_arch arch, unsigned reg, pp_symbol symbol, int64_t addend,
                          void *buffer, size_t capacity, pp_address_layout *layout)
{
    const struct isa *isa = isa_find(arch);
    if (layout == NULL || layout->size < ADDRESS_BYTES || layout->size > SIZED_MAX)
        return PP_E_ARG;
    if (buffer == NULL && capacity != 0)
        return refuse_address(layout, PP_E_ARG, "buffer: missing");
    if (isa == NULL)
        return refuse_address(layout, PP_E_ARG, "arch: none that is known");
    if (!holds_address(isa, reg))
        return refuse_address(layout, PP_E_ARG, "reg: cannot have an address");
    pp_address_layout result = { .size = layout->size };
    pp_status status = isa->emit_address(reg, symbol, addend, NULL, 0, &result);
    if (status == PP_OK && buffer != NULL)
        status = result.bytes <= capacity
            ? isa->emit_address(reg, symbol, addend, buffer, capacity, &result) : PP_E_RANGE;
    if (status != PP_OK)
        return refuse_address(layout, status, "capacity: the buffer is too small");
    sized_write(layout, &result, sizeof result);
    return PP_OK;
}
