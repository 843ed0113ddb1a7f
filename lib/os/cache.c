/* SPDX-License-Identifier: MIT */
/*
 * Instruction caches.
 *
 * x86-64: caches are coherent; only valgrind, which keeps translations, is told.
 * AArch64 (Arm ARM, B2.4.4 and D7.5): clean data to the point of unification by
 * the address that was written, unless CTR_EL0.IDC; invalidate instructions by
 * the address that will run, unless CTR_EL0.DIC; each followed by a barrier that
 * waits for all cores of the inner shareable domain.
 */
#include <config.h>

#include "os/cache.h"

#if HAVE_VALGRIND_VALGRIND_H
#include <valgrind/valgrind.h>
#else
#define VALGRIND_DISCARD_TRANSLATIONS(address, size) ((void) (address), (void) (size))
#endif

#if defined __aarch64__

static uint64_t cache_type(void)
{
    uint64_t ctr;
    __asm__("mrs %0, ctr_el0" : "=r"(ctr));
    return ctr;
}

void cache_sync(uintptr_t write, uintptr_t exec, size_t size)
{
    uint64_t ctr = cache_type();
    uintptr_t data_line = (uintptr_t) 4 << (ctr >> 16 & 15);
    uintptr_t code_line = (uintptr_t) 4 << (ctr & 15);

    if (!(ctr >> 28 & 1)) {
        for (uintptr_t line = write & -data_line; line < write + size; line += data_line)
            __asm__ volatile("dc cvau, %0" : : "r"(line) : "memory");
    }
    __asm__ volatile("dsb ish" : : : "memory");
    if (!(ctr >> 29 & 1)) {
        for (uintptr_t line = exec & -code_line; line < exec + size; line += code_line)
            __asm__ volatile("ic ivau, %0" : : "r"(line) : "memory");
        __asm__ volatile("dsb ish" : : : "memory");
    }
    __asm__ volatile("isb" : : : "memory");
    VALGRIND_DISCARD_TRANSLATIONS(exec, size);
}

#else

void cache_sync(uintptr_t write, uintptr_t exec, size_t size)
{
    (void) write;
    __asm__ volatile("" : : : "memory");
    VALGRIND_DISCARD_TRANSLATIONS(exec, size);
}

#endif
