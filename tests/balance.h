/* SPDX-License-Identifier: MIT */
/*
 * A shadow stack in software: fed with every instruction before it runs, it pushes at
 * calls, pops at returns, and notes a return to anywhere else.  x86-64, where every
 * instruction of the thread is visited, C and all.
 */
#ifndef TESTS_BALANCE_H
#define TESTS_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

enum { BALANCE_DEPTH = 512 };

struct balance {
    uintptr_t returns[BALANCE_DEPTH];
    unsigned depth;
    bool called, returned;      /* what the instruction before was */
    unsigned long calls, matched;
    uintptr_t wrong;            /* where the first return went that did not match, or 0 */
};

#if defined __x86_64__
static inline void balance_follow(struct balance *balance, uintptr_t pc, uintptr_t sp)
{
    if (balance->called && balance->depth < BALANCE_DEPTH) {
        balance->returns[balance->depth++] = *(const uintptr_t *) sp;
        balance->calls++;
    }
    /* Returns beyond the first call belong to the code before it was followed. */
    if (balance->returned && balance->depth > 0) {
        if (balance->returns[--balance->depth] == pc)
            balance->matched++;
        else if (balance->wrong == 0)
            balance->wrong = pc;
    }
    const uint8_t *byte = (const uint8_t *) pc;
    while ((*byte & 0xf0) == 0x40 || *byte == 0xf2 || *byte == 0xf3 || *byte == 0x66
           || *byte == 0x3e || *byte == 0x2e)
        byte++;
    balance->called = *byte == 0xe8 || (*byte == 0xff && (byte[1] >> 3 & 7) == 2);
    balance->returned = *byte == 0xc3 || *byte == 0xc2;
}
#else
static inline void balance_follow(struct balance *balance, uintptr_t pc, uintptr_t sp)
{
    (void) balance, (void) pc, (void) sp;
}
#endif

#endif
