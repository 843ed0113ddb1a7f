/* SPDX-License-Identifier: MIT */
/*
 * Vector registers beyond 128 bits: the processor must have the instructions, and
 * the system must save the state when it switches threads (Intel SDM volume 1,
 * 14.3 and 15.2).
 */
#include <config.h>

#include "os/cpu.h"

#include <stdatomic.h>
#include <stddef.h>

#if defined __x86_64__
#include <cpuid.h>
#endif

#define LEAF1_OSXSAVE (1u << 27)
#define LEAF1_AVX (1u << 28)
#define LEAF7_AVX512F (1u << 16)
#define LEAF7_AVX512BW (1u << 30)
#define XCR0_YMM 0x06u /* xmm and upper halves of ymm */
#define XCR0_ZMM 0xe6u /* and k, upper halves of zmm, zmm16-zmm31 */

const char *cpu_judge(const struct cpu_words *words, enum cpu_vectors vectors)
{
    if (!(words->leaf1_ecx & LEAF1_AVX))
        return "the processor has no AVX";
    if ((words->xcr0 & XCR0_YMM) != XCR0_YMM)
        return "the system does not save the state of AVX";
    if (vectors == CPU_V256)
        return NULL;
    if (!(words->leaf7_ebx & LEAF7_AVX512F))
        return "the processor has no AVX-512";
    if (!(words->leaf7_ebx & LEAF7_AVX512BW))
        return "the processor has no AVX-512 BW";
    if ((words->xcr0 & XCR0_ZMM) != XCR0_ZMM)
        return "the system does not save the state of AVX-512";
    return NULL;
}

#if defined __x86_64__

static struct cpu_words ask(void)
{
    struct cpu_words words = { 0 };
    unsigned eax, ebx, ecx, edx;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        words.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        words.leaf7_ebx = ebx;
    if (words.leaf1_ecx & LEAF1_OSXSAVE) {
        __asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
        words.xcr0 = eax;
    }
    return words;
}

const char *cpu_lacks(enum cpu_vectors vectors)
{
    /* What cpu_judge said; before, the address of `unknown`.  Every thread stores the same. */
    static const char unknown[] = "";
    static const char *_Atomic said[CPU_VECTORS] = { unknown, unknown };
    const char *lacks = atomic_load_explicit(&said[vectors], memory_order_relaxed);
    if (lacks == unknown) {
        struct cpu_words words = ask();
        lacks = cpu_judge(&words, vectors);
        atomic_store_explicit(&said[vectors], lacks, memory_order_relaxed);
    }
    return lacks;
}

#else

const char *cpu_lacks(enum cpu_vectors vectors)
{
    (void) vectors;
    return "registers of x86-64";
}

#endif
