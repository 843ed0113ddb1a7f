/* SPDX-License-Identifier: MIT */
/*
 * Waiting for a spin lock.  Its holder is about to be done, unless it lost its
 * processor: then ours is offered, and in the end left for a while, so that a
 * holder of lower priority gets on as well.
 */
#include <config.h>

#include "os/spin.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

enum { SPINS = 128, YIELDS = 16, PAUSE = 20000 /* nanoseconds */ };

static void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

void spin_wait(struct spin *spin)
{
    int saved = errno;
    unsigned tries = 0;
    do {
        for (; atomic_load_explicit(&spin->held, memory_order_relaxed); tries++) {
            if (tries < SPINS)
                relax();
            else if (tries < SPINS + YIELDS)
                sched_yield();
            else
                nanosleep(&(struct timespec){ .tv_nsec = PAUSE }, NULL);
        }
    } while (atomic_exchange_explicit(&spin->held, true, memory_order_acquire));
    errno = saved;
}
