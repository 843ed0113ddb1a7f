/* SPDX-License-Identifier: MIT */
/* Processors. */
#ifndef OS_PROCESSORS_H
#define OS_PROCESSORS_H

#include <pthread.h>
#include <stdint.h>

/* How many are online; at least 1. */
unsigned processors_online(void);

/*
 * A number of so many bits that is the calling thread's as long as it lives: by the address
 * of its descriptor, so most threads that live at a time have different ones.
 */
static inline unsigned thread_number(unsigned bits)
{
    uint64_t hash = (uint64_t) (uintptr_t) pthread_self() * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned) (hash >> (64 - bits));
}

#endif
