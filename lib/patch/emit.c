/* SPDX-License-Identifier: MIT */
/* Bytes to patch in, for hosts. */
#include <config.h>

#include "isa/bytes.h"
#include "isa/isa.h"
#include "isa/patch.h"

#include <patchpoint/patch.h>

pp_status pp_emit_nop(pp_arch arch, size_t bytes, void *buffer, size_t capacity)
{
    const struct isa *isa = isa_find(arch);
    if (isa == NULL || buffer == NULL)
        return PP_E_ARG;
    bool x86 = isa->arch == PP_ARCH_X86_64;
    if (x86 ? bytes == 0 || bytes > 15 : bytes != 4)
        return PP_E_ARG;
    if (bytes > capacity)
        return PP_E_RANGE;
    if (x86)
        x86_64_nop(buffer, bytes);
    else
        put_le32(buffer, AARCH64_NOP);
    return PP_OK;
}

pp_status pp_emit_jump(pp_arch arch, const void *from, const void *to, void *buffer,
                       size_t capacity, size_t *bytes)
{
    const struct isa *isa = isa_find(arch);
    uint8_t code[8];
    if (isa == NULL || buffer == NULL || bytes == NULL || !isa_is_aligned(isa, (uintptr_t) from) ||
        !isa_is_aligned(isa, (uintptr_t) to))
        return PP_E_ARG;
    bool x86 = isa->arch == PP_ARCH_X86_64;
    size_t length = x86 ? 5 : 4;
    bool near = (x86 ? x86_64_jump : aarch64_jump)(code, (uintptr_t) from, (uintptr_t) to);
    if (!near || length > capacity)
        return PP_E_RANGE;
    for (size_t i = 0; i < length; i++)
        ((uint8_t *) buffer)[i] = code[i];
    *bytes = length;
    return PP_OK;
}

size_t pp_patch_padding(pp_arch arch, uintptr_t at, size_t bytes)
{
    const struct isa *isa = isa_find(arch);
    if (isa == NULL || bytes == 0)
        return PP_PATCH_NO_PADDING;
    if (isa->arch == PP_ARCH_AARCH64)
        return bytes == 4 ? -at & 3 : PP_PATCH_NO_PADDING;
    if (bytes > 8)
        return PP_PATCH_NO_PADDING;
    return at % 8 + bytes <= 8 ? 0 : 8 - at % 8;
}
