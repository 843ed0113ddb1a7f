/* SPDX-License-Identifier: MIT */
/* Random contents for every register. */
#include <config.h>

#include "stress/registers.h"

#include <stddef.h>
#include <string.h>

#if defined __x86_64__
#define COMPARED 0xf7cfu             /* not rsp, rbp, r11 */
#define CALLEE_SAVED 0xf008u         /* rbx, r12 to r15 */
#define CALLEE_SAVED_VECTORS 0u
#define FP_CONTROL 0x1f80u           /* MXCSR: exceptions masked */
#define ROUNDING_SHIFT 13
#define FLAGS_COMPARED 0x400u        /* DF */
#else
#define COMPARED 0x1ffcffffu         /* not x16, x17, x29, x30, sp */
#define CALLEE_SAVED 0x1ff80000u     /* x19 to x28 */
#define CALLEE_SAVED_VECTORS 0xff00u /* v8 to v15 */
#define FP_CONTROL 0u
#define ROUNDING_SHIFT 22
#define FLAGS_COMPARED 0u
#endif

_Static_assert(offsetof(struct registers, in) == BUFFER_IN, "template.h");
_Static_assert(offsetof(struct registers, out) == BUFFER_OUT, "template.h");
_Static_assert(offsetof(struct registers, check) == BUFFER_CHECK, "template.h");

static void draw(struct registers *r)
{
    uint64_t *words = (uint64_t *) &r->in;
    for (size_t i = 0; i < sizeof r->in / sizeof *words; i++)
        words[i] = random_next(&r->random);
    r->in.fp_control = random_below(&r->random, 4) << ROUNDING_SHIFT | FP_CONTROL;
}

/* Called by compiled code right after the patchpoint; draws other contents for the next pass. */
static void check(struct registers *r, uintptr_t in_body)
{
    uint32_t gpr = COMPARED, vectors = r->vectors ? UINT32_MAX : 0;
    if (in_body && !r->whole) {
        gpr &= ~CALLEE_SAVED;
        vectors &= ~CALLEE_SAVED_VECTORS;
    }
    for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++)
        r->wrong += (gpr >> n & 1) && r->in.gpr[n] != r->out.gpr[n];
    for (unsigned n = 0; n < PP_REGS_VECTOR_COUNT; n++)
        r->wrong += (vectors >> n & 1) && memcmp(r->in.vector[n], r->out.vector[n], 16) != 0;
    r->wrong += (uint32_t) r->in.fp_control != (uint32_t) r->out.fp_control;
    r->wrong += (r->in.flags & FLAGS_COMPARED) != (r->out.flags & FLAGS_COMPARED);
    r->checked++;
    r->in_body += in_body != 0;
    draw(r);
}

void registers_begin(struct registers *r, struct random random, pp_csr_scheme scheme, bool vectors)
{
    *r = (struct registers) { .check = check, .random = random, .vectors = vectors,
                              .whole = scheme == PP_CSR_RESERVE };
    draw(r);
}
