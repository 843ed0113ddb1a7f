/* SPDX-License-Identifier: MIT */
/* What the tests that use the probes share. */
#include <config.h>

#include "probe.h"

#include "os/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t seed, state;

uint64_t probe_seed(const char *program)
{
    const char *given = getenv("PP_SEED");
    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
    state = seed;
    printf("%s: seed %lu (PP_SEED)\n", program, (unsigned long) seed);
    return seed;
}

uint64_t probe_random(void)
{
    state += 0x9e3779b97f4a7c15u;
    uint64_t x = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

void probe_fill(void *memory, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *) memory)[i] = (uint8_t) probe_random();
}

void probe_fill_regs(pp_regs *regs)
{
    probe_fill(regs, sizeof *regs);
#if defined __x86_64__
    uint32_t mxcsr = 0x1f80 | (uint32_t) (probe_random() & 0x603f);
    uint32_t x87 = 0x37f | (uint32_t) (probe_random() & 0xc00);
    regs->fp_control = (uint64_t) x87 << 32 | mxcsr;
    regs->flags = probe_random() & 0x400;
#else
    uint32_t fpcr = (uint32_t) (probe_random() & 3) << 22;
    uint32_t fpsr = (uint32_t) (probe_random() & 0x9f);
    regs->fp_control = (uint64_t) fpsr << 32 | fpcr;
    regs->flags = probe_random() & 0xf0000000u;
#endif
}

#if defined __x86_64__
#define ALL_XMM "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

/* All bits of what the processor has, and the upper halves are left in use. */
static void spoil_wide(void)
{
    if (cpu_lacks(CPU_V512) == NULL)
        __asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, "
                         "19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31\n\t"
                         "vpternlogd $255, %%zmm\\n, %%zmm\\n, %%zmm\\n\n\t"
                         ".endr\n\t"
                         ".irp n, 0, 1, 2, 3, 4, 5, 6, 7\n\t"
                         "kxnorq %%k\\n, %%k\\n, %%k\\n\n\t"
                         ".endr" ::: ALL_XMM, "memory");
    else if (cpu_lacks(CPU_V256) == NULL)
        __asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n\t"
                         "vxorps %%ymm\\n, %%ymm\\n, %%ymm\\n\n\t"
                         "vcmptrueps %%ymm\\n, %%ymm\\n, %%ymm\\n\n\t"
                         ".endr" ::: ALL_XMM, "memory");
}
#endif

void probe_spoil_registers(void)
{
    static uint64_t value;
    value = ~value; /* all ones, and the next time zeros: what a stub took for its own would show */
#if defined __x86_64__
    uint64_t rax = value;
    spoil_wide();
    __asm__ volatile("mov %%rax, %%rcx; mov %%rax, %%rdx; mov %%rax, %%rsi; mov %%rax, %%rdi\n\t"
                     "mov %%rax, %%r8; mov %%rax, %%r9; mov %%rax, %%r10; mov %%rax, %%r11\n\t"
                     ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n\t"
                     "movq %%rax, %%xmm\\n; pshufd $0, %%xmm\\n, %%xmm\\n\n\t"
                     ".endr"
                     : "+a"(rax) :: "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", ALL_XMM,
                                    "cc", "memory");
#else
    register uint64_t x0 __asm__("x0") = value;
    __asm__ volatile(".irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18\n\t"
                     "mov x\\n, x0\n\t"
                     ".endr\n\t"
                     ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, "
                     "28, 29, 30, 31\n\t"
                     "dup v\\n\\().2d, x0\n\t"
                     ".endr\n\t"
                     /* Of v8 to v15 only the low halves belong to the caller. */
                     ".irp n, 8, 9, 10, 11, 12, 13, 14, 15\n\t"
                     "mov v\\n\\().d[1], x0\n\t"
                     ".endr"
                     : "+r"(x0) :: "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11",
                                   "x12", "x13", "x14", "x15", "x16", "x17", "x18", "v0", "v1", "v2",
                                   "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19", "v20",
                                   "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29",
                                   "v30", "v31", "cc", "memory");
#endif
}
