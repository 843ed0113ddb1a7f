/* SPDX-License-Identifier: MIT */
/* Where threads allocate. */
#include <config.h>

#include "memory/spread.h"

#include "os/processors.h"

#define WINDOW 64u /* meetings that are looked at together */
#define RARE 16u   /* fewer than one in so many spans does not matter */

static _Atomic(struct region *) *slot_of(struct spread *spread)
{
    return &spread->homes[thread_number(SPREAD_BITS)];
}

struct region *spread_home(struct spread *spread, const struct frame_rule *told)
{
    struct region *home = atomic_load_explicit(slot_of(spread), memory_order_acquire);
    bool fits = home != NULL && !home->inherited && home->told == told;
    return fits ? home : NULL;
}

bool spread_is_alone(struct spread *spread, const struct region *home)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SPREAD_HOMES; i++)
        count += atomic_load_explicit(&spread->homes[i], memory_order_relaxed) == home;
    return count == 1;
}

void spread_move(struct spread *spread, struct region *home)
{
    atomic_store_explicit(slot_of(spread), home, memory_order_release);
}

static unsigned processors_of(struct spread *spread)
{
    unsigned count = atomic_load_explicit(&spread->processors, memory_order_relaxed);
    if (count == 0) {
        count = processors_online();
        atomic_store_explicit(&spread->processors, count, memory_order_relaxed);
    }
    return count;
}

bool spread_wanted(struct spread *spread, unsigned count, size_t taken)
{
    if (atomic_load_explicit(&spread->over, memory_order_relaxed) ||
        count >= processors_of(spread))
        return false;
    if (atomic_fetch_add_explicit(&spread->meetings, 1, memory_order_relaxed) + 1 < WINDOW)
        return false;
    atomic_store_explicit(&spread->meetings, 0, memory_order_relaxed);
    size_t before = atomic_exchange_explicit(&spread->taken, taken, memory_order_relaxed);
    return taken - before < (size_t) WINDOW * RARE;
}

void spread_end(struct spread *spread)
{
    atomic_store_explicit(&spread->over, true, memory_order_relaxed);
}
