/* SPDX-License-Identifier: MIT */
/* Registers as a stub stored them. */
#include <config.h>

#include <patchpoint/osr.h>

#include <stddef.h>

/* Where the vector registers of each class are in what its stub stores. */
static const struct vectors {
    uint16_t offset, bytes, count;
} vectors[] = {
    [PP_SAVE_V128] = { PP_REGS_VECTOR, 16, PP_REGS_VECTOR_COUNT },
    [PP_SAVE_MASK] = { PP_REGS_VECTOR, 16, PP_REGS_VECTOR_COUNT },
#if defined __x86_64__
    [PP_SAVE_V256] = { PP_REGS_WIDE, 32, 16 },
    [PP_SAVE_V512] = { PP_REGS_WIDE, 64, 32 },
    [PP_SAVE_MASK256] = { PP_REGS_WIDE, 32, 16 },
    [PP_SAVE_MASK512] = { PP_REGS_WIDE, 64, 32 },
#endif
};

const void *pp_regs_vector(const pp_regs *regs, unsigned number, size_t *bytes)
{
    const struct vectors none = { 0 }, *of = &none;
    if (regs != NULL && regs->save < sizeof vectors / sizeof vectors[0])
        of = &vectors[regs->save];
    if (number >= of->count)
        of = &none;
    if (bytes != NULL)
        *bytes = of->bytes;
    return of->bytes != 0 ? (const char *) regs + of->offset + (size_t) number * of->bytes : NULL;
}
