/* SPDX-License-Identifier: MIT */
/* The frame that tier-0 and an OSR body agree on, validated and normalized. */
#ifndef OSR_TIER0_H
#define OSR_TIER0_H

#include <patchpoint/osr.h>

#include <stdbool.h>

/* Callee-saved registers of an architecture that a save area may hold; FP is in the record. */
uint64_t callee_saved(pp_arch arch);

/*
 * Copy a description with `cfa_offset` filled in.  PP_E_ARG: a size, register,
 * alignment or overlap that cannot be.
 */
pp_status tier0_from(pp_arch arch, const pp_tier0_layout *from, pp_tier0_layout *tier0,
                     pp_error *error);

/* Whether SP is where the frame at `fp` has it at a patchpoint. */
static inline bool tier0_has_sp(const pp_tier0_layout *tier0, uintptr_t fp, uintptr_t sp)
{
    if (!(tier0->flags & PP_TIER0_DYNAMIC))
        return fp - sp == tier0->frame_bytes;
    return sp % 16 == 0 && sp <= fp && fp - sp >= tier0->frame_bytes;
}

/* Why memory at FP + offset is not the frame's to hold a value, or NULL. */
const char *tier0_slot_fault(const pp_tier0_layout *tier0, int64_t offset, int64_t bytes);

/* The first field in which two normalized descriptions differ, or NULL: they are of one frame. */
const char *tier0_difference(const pp_tier0_layout *a, const pp_tier0_layout *b);

/*
 * Whether a body that changes `used` can be entered from this frame: PP_E_ARG
 * for registers that are not callee-saved, PP_E_ABI for PP_CSR_RESERVE and a
 * used register that has no slot.
 */
pp_status tier0_check_scheme(pp_arch arch, const pp_tier0_layout *tier0, pp_csr_scheme scheme,
                             uint64_t used, pp_error *error);

/*
 * The same for a body on top: its own saves lie below SP, and so, with a dynamic part, at
 * no distance from FP that a rule could tell.
 */
pp_status tier0_check_on_top(pp_arch arch, const pp_tier0_layout *tier0, pp_csr_scheme scheme,
                             uint64_t used, pp_error *error);

#endif
