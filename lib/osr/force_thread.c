/* SPDX-License-Identifier: MIT */
/*
 * Whether a slot of tier-0's frame holds the pp_thread that it was said to hold.  Any word
 * may be there, so it is followed only into memory that the kernel lists as writable, and
 * what is found must be of this stack.
 */
#include <config.h>

#include "osr/force.h"

#include "os/maps.h"

#include "stub.h"

#include <patchpoint/activation.h>

struct search {
    uintptr_t lo, hi;
    bool found;
};

static void see_line(const struct maps_line *line, void *context)
{
    struct search *search = context;
    if (line->write && line->lo <= search->lo && search->hi <= line->hi)
        search->found = true;
}

/* Where the list cannot be read nothing is known, and the host is trusted. */
static bool is_writable(uintptr_t address, size_t bytes)
{
    struct search search = { address, address + bytes, false };
    return search.hi > search.lo && (maps_read(see_line, &search) != 0 || search.found);
}

/* An activation on another stack, of a signal handler perhaps, still has its anchor's cookie. */
static bool has_anchor(const pp_thread *thread, uintptr_t sp)
{
    const uintptr_t address = thread->anchor;
    if (address % 8 != 0 || address <= sp || !is_writable(address, sizeof(struct anchor)))
        return false;
    return ((const struct anchor *) address)->cookie == (thread->cookie ^ address);
}

bool force_thread_is_right(struct force *force, uintptr_t address, uintptr_t sp)
{
    _Atomic uintptr_t *known = &force->threads[address / sizeof(pp_thread) % FORCE_THREADS];
    if (address % 8 != 0 || address == 0)
        return false;
    if (atomic_load_explicit(known, memory_order_relaxed) != address
        && !is_writable(address, sizeof(pp_thread)))
        return false;
    const pp_thread *thread = (const pp_thread *) address;
    if (thread->stack_lo >= thread->stack_hi)
        return false;
    if ((sp < thread->stack_lo || sp >= thread->stack_hi) && !has_anchor(thread, sp))
        return false;
    atomic_store_explicit(known, address, memory_order_relaxed);
    return true;
}
