/* SPDX-License-Identifier: MIT */
/*
 * Random contents for every register, and the comparison with what compiled
 * code found in them after a patchpoint: the buffer of METHOD_REGISTERS.
 */
#ifndef STRESS_REGISTERS_H
#define STRESS_REGISTERS_H

#include "stress/random.h"
#include "stress/template.h"

#include <stdbool.h>

struct registers {
    pp_regs in, out;             /* offsets in template.h */
    void (*check)(struct registers *registers, uintptr_t in_body);
    struct random random;
    bool vectors;                /* compare vector registers, too */
    bool whole;                  /* in the body, compare callee-saved ones, too */
    unsigned checked, in_body;   /* comparisons; of these, in an OSR body */
    unsigned wrong;              /* registers that were not what they should be */
};

/*
 * Begin with drawn contents.  A body of scheme PP_CSR_RELOAD finds its caller's
 * callee-saved registers, one of PP_CSR_RESERVE those of tier-0.
 */
void registers_begin(struct registers *registers, struct random random, pp_csr_scheme scheme,
                     bool vectors);

#endif
