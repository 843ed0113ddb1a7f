/* SPDX-License-Identifier: MIT */
/* Handles: encoded, and looked up. */
#include <config.h>

#include "memory/handle.h"

#include <stdatomic.h>

enum {
    ADDRESS_BITS = 48,
    GENERATION_LOW_BITS = 4
};

#define GENERATION_MASK (((uint32_t) 1 << SPAN_GENERATION_BITS) - 1)

uintptr_t code_handle(uintptr_t start, uint32_t generation)
{
    uintptr_t low = generation & ((1u << GENERATION_LOW_BITS) - 1);
    uintptr_t high = (generation & GENERATION_MASK) >> GENERATION_LOW_BITS;

    return start | low | high << ADDRESS_BITS;
}

uintptr_t code_handle_address(uintptr_t handle)
{
    uintptr_t address = handle & (((uintptr_t) 1 << ADDRESS_BITS) - 1);

    return address & ~(((uintptr_t) 1 << GENERATION_LOW_BITS) - 1);
}

uint32_t code_handle_generation(uintptr_t handle)
{
    uint32_t low = handle & ((1u << GENERATION_LOW_BITS) - 1);

    return low | (uint32_t) (handle >> ADDRESS_BITS) << GENERATION_LOW_BITS;
}

pp_status code_handle_find(uintptr_t handle, struct code_place *place)
{
    uintptr_t address = code_handle_address(handle);

    if (handle == 0)
        return PP_E_ARG;
    if (!code_at(address, place))
        return region_at(address) != NULL ? PP_E_STALE : PP_E_FAULT;
    return code_handle(place->start, place->generation) == handle ? PP_OK : PP_E_STALE;
}

bool code_place_holds(const struct code_place *place)
{
    struct code_place again;

    atomic_thread_fence(memory_order_acquire);
    return code_at(place->start, &again) && place->start == again.start &&
           place->generation == again.generation && place->owner == again.owner;
}
