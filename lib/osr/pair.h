/* SPDX-License-Identifier: MIT */
/*
 * Two neighbouring words that change in one step: compiled code reads the first by an
 * ordinary load, C asks the second, and neither ever sees one without the other.
 *
 * C11 has no such exchange without a library beside it, so it is written out: cmpxchg16b,
 * which all processors but the first ones of x86-64 have, and a pair of exclusives.
 */
#ifndef OSR_PAIR_H
#define OSR_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#if defined __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define PAIR_RELEASES(at) __tsan_release((void *) (at)) /* it does not see the instructions */
#else
#define PAIR_RELEASES(at) ((void) (at))
#endif

struct pair {
    _Alignas(16) uint64_t low;
    uint64_t high;
};

/*
 * Exchange both words at a 16-byte boundary if they are those of `from`; of full order.
 * False: one of them was another, perhaps for a moment.
 */
static inline bool pair_exchange(volatile void *at, struct pair from, struct pair to)
{
    bool done;
    PAIR_RELEASES(at);
    PAIR_RELEASES((volatile char *) at + 8);
#if defined __x86_64__
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(done), "+m"(*(volatile struct pair *) at), "+a"(from.low),
                       "+d"(from.high)
                     : "b"(to.low), "c"(to.high)
                     : "memory");
#else
    uint64_t low, high;
    uint32_t failed;
    __asm__ volatile("1: ldaxp %0, %1, [%3]\n\t"
                     "mov %w2, #1\n\t"
                     "cmp %0, %4\n\t"
                     "ccmp %1, %5, #0, eq\n\t"
                     "b.ne 2f\n\t"
                     "stlxp %w2, %6, %7, [%3]\n\t"
                     "cbnz %w2, 1b\n\t"
                     "b 3f\n"
                     "2: clrex\n"
                     "3:"
                     : "=&r"(low), "=&r"(high), "=&r"(failed)
                     : "r"(at), "r"(from.low), "r"(from.high), "r"(to.low), "r"(to.high)
                     : "cc", "memory");
    done = failed == 0;
#endif
    return done;
}

#endif
