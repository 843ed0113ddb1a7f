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

void cache_clean(uintptr_t write, size_t size)
{
    uint64_t ctr = cache_type();
    uintptr_t line_bytes = (uintptr_t) 4 << (ctr >> 16 & 15);

    if (ctr >> 28 & 1)
        return;
    for (uintptr_t line = write & -line_bytes; line < write + size; line += line_bytes)
        __asm__ volatile("dc cvau, %0" : : "r"(line) : "memory");
}

void cache_clean_wait(void)
{
    __asm__ volatile("dsb ish" : : : "memory");
}

void cache_invalidate(uintptr_t exec, size_t size)
{
    uint64_t ctr = cache_type();
    uintptr_t line_bytes = (uintptr_t) 4 << (ctr & 15);

    VALGRIND_DISCARD_TRANSLATIONS(exec, size);
    if (ctr >> 29 & 1)
        return;
    for (uintptr_t line = exec & -line_bytes; line < exec + size; line += line_bytes)
        __asm__ volatile("ic ivau, %0" : : "r"(line) : "memory");
}

void cache_invalidate_wait(void)
{
    __asm__ volatile("dsb ish\n\tisb" : : : "memory");
}

#else

void cache_clean(uintptr_t write, size_t size)
{
    (void) write;
    (void) size;
    __asm__ volatile("" : : : "memory");
}

void cache_clean_wait(void) {}

void cache_invalidate(uintptr_t exec, size_t size)
{
    (void) exec;
    (void) size;
    VALGRIND_DISCARD_TRANSLATIONS(exec, size);
}

void cache_invalidate_wait(void) {}

#endif
