/* SPDX-License-Identifier: MIT */
/* What of the processor's registers programs may use. */
#ifndef OS_CPU_H
#define OS_CPU_H

#include <stdint.h>

/* Vector registers that not every processor has. */
enum cpu_vectors {
    CPU_V256, /* ymm0-ymm15 */
    CPU_V512, /* zmm0-zmm31, 64 bits of k0-k7 */
    CPU_VECTORS
};

/*
 * Why they cannot be used, or NULL when they can.  Asks the processor once.
 * Thread-safe, async-signal-safe.
 */
const char *cpu_lacks(enum cpu_vectors vectors);

/* What decides on x86-64. */
struct cpu_words {
    uint32_t leaf1_ecx, leaf7_ebx; /* of cpuid; 0 where it has no such leaf */
    uint32_t xcr0;                 /* low half: the states that the system saves; 0 without OSXSAVE */
};

/* As cpu_lacks, from the words alone. */
const char *cpu_judge(const struct cpu_words *words, enum cpu_vectors vectors);

#endif
