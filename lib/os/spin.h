/* SPDX-License-Identifier: MIT */
/*
 * A lock for some stores and no more: one atomic operation to take it, a plain
 * store to give it back, where a mutex needs two.  Who holds it calls nothing that
 * could wait.
 */
#ifndef OS_SPIN_H
#define OS_SPIN_H

#include <stdatomic.h>
#include <stdbool.h>

struct spin {
    atomic_bool held;
};

/* Take it when it is held. */
void spin_wait(struct spin *spin);

static inline void spin_lock(struct spin *spin)
{
    if (atomic_exchange_explicit(&spin->held, true, memory_order_acquire))
        spin_wait(spin);
}

static inline void spin_unlock(struct spin *spin)
{
    atomic_store_explicit(&spin->held, false, memory_order_release);
}

#endif
