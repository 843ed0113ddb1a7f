/* SPDX-License-Identifier: MIT */
/* The frame that tier-0 and an OSR body agree on. */
#include <config.h>

#include "osr/tier0.h"

#include "error.h"
#include "sized.h"

#include <stddef.h>

/* No frame is larger; keeps every sum of offsets inside 32 bits. */
#define FRAME_LIMIT (1u << 28)
#define RECORD_BYTES 16
#define LAYOUT_BYTES offsetof(pp_tier0_layout, flags) /* of the first layout */

uint64_t callee_saved(pp_arch arch)
{
    /* rbx, r12 to r15; x19 to x28 and the low halves of v8 to v15. */
    const uint64_t x86_64 = 1ull << 3 | 0xfull << 12;
    const uint64_t aarch64 = 0x3ffull << 19 | 0xffull << 40;
    return arch == PP_ARCH_AARCH64 ? aarch64 : x86_64;
}

static pp_status check_saves(pp_arch arch, const pp_tier0_layout *from, int64_t cfa_offset,
                             pp_error *error)
{
    const pp_save_area *saves = &from->saves;
    if (saves->slots & ~callee_saved(arch))
        return error_set(error, PP_E_ARG, "tier0.saves.slots: not a callee-saved register");
    if (saves->saved & ~saves->slots)
        return error_set(error, PP_E_ARG, "tier0.saves.saved: a register without a slot");
    if (saves->reserved != 0)
        return error_set(error, PP_E_ARG, "tier0.saves.reserved: not 0");
    if (saves->slots == 0)
        return PP_OK;

    int64_t low = saves->offset;
    int64_t high = low + 8 * __builtin_popcountll(saves->slots);
    if (low % 8 != 0)
        return error_set(error, PP_E_ARG, "tier0.saves.offset: not a multiple of 8");
    if (low < -(int64_t) from->frame_bytes || high > cfa_offset)
        return error_set(error, PP_E_ARG, "tier0.saves: slots outside the frame");
    if (low < RECORD_BYTES && high > 0)
        return error_set(error, PP_E_ARG, "tier0.saves: slots overlap the frame record");
    return PP_OK;
}

pp_status tier0_from(pp_arch arch, const pp_tier0_layout *given, pp_tier0_layout *tier0,
                     pp_error *error)
{
    pp_tier0_layout copy, *from = &copy;
    if (given == NULL || !sized_read(&copy, sizeof copy, LAYOUT_BYTES, given))
        return error_set(error, PP_E_ARG, "tier0: missing, or its size is not set");
    if ((from->flags & ~PP_TIER0_DYNAMIC) || from->reserved != 0)
        return error_set(error, PP_E_ARG, "tier0.flags: %#x, or reserved is not 0",
                         (unsigned) from->flags);
    uint32_t cfa_offset = from->cfa_offset == 0 ? RECORD_BYTES : from->cfa_offset;
    if (cfa_offset < RECORD_BYTES || cfa_offset > FRAME_LIMIT || cfa_offset % 8 != 0
        || (arch == PP_ARCH_X86_64 && cfa_offset != RECORD_BYTES))
        return error_set(error, PP_E_ARG, "tier0.cfa_offset: %u", (unsigned) cfa_offset);
    if (from->frame_bytes > FRAME_LIMIT || (from->frame_bytes + cfa_offset) % 16 != 0)
        return error_set(error, PP_E_ARG, "tier0.frame_bytes: %u leaves SP misaligned or is too much",
                         (unsigned) from->frame_bytes);
    pp_status status = check_saves(arch, from, cfa_offset, error);
    if (status != PP_OK)
        return status;

    *tier0 = (pp_tier0_layout) {
        .size = sizeof *tier0,
        .frame_bytes = from->frame_bytes,
        .cfa_offset = cfa_offset,
        .saves = from->saves,
        .flags = from->flags,
    };
    if (tier0->saves.slots == 0)
        tier0->saves.offset = 0;
    return PP_OK;
}

static bool overlap(int64_t a, int64_t a_bytes, int64_t b, int64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

const char *tier0_slot_fault(const pp_tier0_layout *tier0, int64_t offset, int64_t bytes)
{
    const pp_save_area *saves = &tier0->saves;
    if (offset < -(int64_t) tier0->frame_bytes || offset + bytes > (int64_t) tier0->cfa_offset)
        return "outside the frame";
    if (overlap(offset, bytes, 0, RECORD_BYTES))
        return "in the frame record";
    if (saves->slots != 0
        && overlap(offset, bytes, saves->offset, 8 * __builtin_popcountll(saves->slots)))
        return "in the save area";
    return NULL;
}

const char *tier0_difference(const pp_tier0_layout *a, const pp_tier0_layout *b)
{
    if (a->frame_bytes != b->frame_bytes)
        return "frame_bytes";
    if (a->cfa_offset != b->cfa_offset)
        return "cfa_offset";
    if (a->saves.slots != b->saves.slots)
        return "saves.slots";
    if (a->saves.saved != b->saves.saved)
        return "saves.saved";
    if (a->saves.offset != b->saves.offset)
        return "saves.offset";
    return a->flags != b->flags ? "flags" : NULL;
}

pp_status tier0_check_scheme(pp_arch arch, const pp_tier0_layout *tier0, pp_csr_scheme scheme,
                             uint64_t used, pp_error *error)
{
    if (scheme != PP_CSR_RESERVE && scheme != PP_CSR_RELOAD)
        return error_set(error, PP_E_ARG, "scheme: %d", (int) scheme);
    if (used & ~callee_saved(arch))
        return error_set(error, PP_E_ARG, "used: not a callee-saved register");
    if (scheme == PP_CSR_RESERVE && (used & ~tier0->saves.slots))
        return error_set(error, PP_E_ABI, "used: tier-0 reserves no slot for a register");
    return PP_OK;
}

pp_status tier0_check_on_top(pp_arch arch, const pp_tier0_layout *tier0, pp_csr_scheme scheme,
                             uint64_t used, pp_error *error)
{
    pp_status status = tier0_check_scheme(arch, tier0, scheme, used, error);
    if (status == PP_OK && scheme == PP_CSR_RELOAD && used != 0
        && (tier0->flags & PP_TIER0_DYNAMIC))
        return error_set(error, PP_E_ABI, "used: tier-0's frame is dynamic, which wants RESERVE");
    return status;
}
