/* SPDX-License-Identifier: MIT */
/*
 * AArch64: instructions that may be changed while other cores execute them, after the Arm
 * ARM, B2.2.5, "Concurrent modification and execution of instructions".
 */
#include <config.h>

#include "isa/bytes.h"
#include "isa/patch.h"

bool aarch64_is_patchable(uint32_t instruction)
{
    static const struct { uint32_t mask, value; } set[] = {
        { 0x7c000000, 0x14000000 }, /* b, bl */
        { 0xffffffff, AARCH64_NOP },
        { 0xffe0001f, 0xd4200000 }, /* brk */
        { 0xffe0001f, 0xd4000001 }, /* svc */
        { 0xffe0001f, 0xd4000002 }, /* hvc */
        { 0xffe0001f, 0xd4000003 }, /* smc */
        { 0xfffff0ff, 0xd50330df }, /* isb */
    };
    for (size_t i = 0; i < sizeof set / sizeof *set; i++) {
        if ((instruction & set[i].mask) == set[i].value)
            return true;
    }
    return false;
}

bool aarch64_jump(uint8_t *bytes, uint64_t from, uint64_t to)
{
    int64_t distance = (int64_t) (to - from);
    if (!fits_signed(distance, 28))
        return false;
    put_le32(bytes, 0x14000000 | ((uint32_t) (distance >> 2) & 0x03ffffff));
    return true;
}
