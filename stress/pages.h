/* SPDX-License-Identifier: MIT */
/*
 * A page per trace: what JITs do that have no pool, for comparison.  Every
 * trace gets whole pages of its own by mmap, with its trampolines and GOT
 * slots behind its code, is relocated there, and made executable by mprotect.
 */
#ifndef STRESS_PAGES_H
#define STRESS_PAGES_H

#include "stress/synth.h"

struct pages {
    uint8_t *base;   /* NULL: none */
    size_t mapped;   /* bytes */
    uint8_t *data;   /* of the trace, within */
};

/*
 * Link a synthesized trace.  With `all_far` no symbol is called directly.
 * False: `errno` says which call of the system failed and why, or is 0 when
 * memory of this kind cannot reach its symbols.
 */
bool pages_link(struct pages *pages, const struct synth *synth, const struct targets *targets,
                bool all_far);

void pages_free(struct pages *pages);

#endif
