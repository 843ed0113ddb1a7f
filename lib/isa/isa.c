/* SPDX-License-Identifier: MIT */
/* Choosing an architecture by its public name. */
#include <config.h>

#include "isa/isa.h"

const struct isa *isa_find(pp_arch arch)
{
    switch (arch) {
    case PP_ARCH_HOST: return &isa_host;
    case PP_ARCH_X86_64: return &isa_x86_64;
    case PP_ARCH_AARCH64: return &isa_aarch64;
    }
    return NULL;
}
