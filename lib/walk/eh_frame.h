/* SPDX-License-Identifier: MIT */
/*
 * The .eh_frame bytes of a region: one CIE, one FDE for each part of its code
 * that has a rule of its own, and the zero that ends the section.
 *
 * Pure: addresses come in as numbers and bytes go out.  Addresses are absolute
 * (DW_EH_PE_absptr), so the bytes may lie at any distance from the code.
 */
#ifndef WALK_EH_FRAME_H
#define WALK_EH_FRAME_H

#include "memory/rule.h"

#include <stddef.h>
#include <stdint.h>

/* Code with one frame rule.  Never PP_FRAME_NONE: such code has no FDE. */
struct eh_frame_part {
    uintptr_t start, end;          /* [start, end), not empty */
    const struct frame_rule *rule;
};

/* More than the CIE, `parts` FDEs with every register saved, and the end take. */
#define EH_FRAME_CAPACITY(parts) (64 + (size_t) (parts) * 768)

/*
 * Encode; fde_offsets[i] receives where the FDE of part i begins.  Returns the
 * number of bytes, or 0 if they do not fit or a rule cannot be said in DWARF:
 * a slot that is not a multiple of 8 from the CFA, a register without a number.
 */
size_t eh_frame_encode(pp_arch arch, const struct eh_frame_part *parts, unsigned count,
                       uint8_t *bytes, size_t capacity, uint32_t *fde_offsets);

#endif
