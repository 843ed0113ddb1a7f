/* SPDX-License-Identifier: MIT */
/* Handles: encoded, and looked up. */
#include <config.h>

#include "memory/handle.h"

#include "memory/number.h"

#include <stdatomic.h>

enum {
    GRANULE_BITS = NUMBER_CHUNK_SHIFT - SPAN_GRANULE_SHIFT,
    NUMBER_SHIFT = GRANULE_BITS + SPAN_GENERATION_BITS
};

_Static_assert(NUMBER_BITS + NUMBER_SHIFT == 64, "a handle is a word");

static inline uint32_t number_at(const struct region *region, uintptr_t address)
{
    return region->numbers[(address - region->base) >> NUMBER_CHUNK_SHIFT];
}

static inline uintptr_t pack(const struct region *region, uintptr_t start, uint32_t generation)
{
    uintptr_t granule = (start & (NUMBER_CHUNK - 1)) >> SPAN_GRANULE_SHIFT;

    return (uintptr_t) number_at(region, start) << NUMBER_SHIFT |
           granule << SPAN_GENERATION_BITS | generation;
}

uintptr_t code_handle(const struct region *region, uintptr_t start, uint32_t generation)
{
    return pack(region, start, generation);
}

uintptr_t code_place_handle(const struct code_place *place)
{
    return pack(place->region, place->start, place->generation);
}

static inline uintptr_t address_of(uintptr_t handle)
{
    uintptr_t chunk = number_chunk((uint32_t) (handle >> NUMBER_SHIFT));
    uintptr_t granule = handle >> SPAN_GENERATION_BITS & (((uintptr_t) 1 << GRANULE_BITS) - 1);

    return chunk == 0 ? 0 : chunk + (granule << SPAN_GRANULE_SHIFT);
}

uintptr_t code_handle_address(uintptr_t handle)
{
    return address_of(handle);
}

uint32_t code_handle_generation(uintptr_t handle)
{
    return (uint32_t) handle & SPAN_GENERATION_MAX;
}

struct region *code_handle_region(uintptr_t handle, uintptr_t *start)
{
    struct region *region;

    *start = address_of(handle);
    region = region_at(*start);
    return region != NULL && number_at(region, *start) == handle >> NUMBER_SHIFT ? region : NULL;
}

static inline bool is_of(uintptr_t handle, const struct code_place *place)
{
    return place->generation == code_handle_generation(handle) &&
           number_at(place->region, place->start) == handle >> NUMBER_SHIFT;
}

/* In a region's code, or of a region that is gone. */
static __attribute__((noinline)) pp_status refuse(uintptr_t handle, uintptr_t address)
{
    uint32_t number = (uint32_t) (handle >> NUMBER_SHIFT);

    return region_at(address) != NULL || number_was_used(number, code_handle_generation(handle))
               ? PP_E_STALE : PP_E_FAULT;
}

pp_status code_handle_find(uintptr_t handle, struct code_place *place)
{
    uintptr_t address = address_of(handle);

    if (handle == 0)
        return PP_E_ARG;
    if (!code_at(address, place))
        return refuse(handle, address);
    return place->start == address && is_of(handle, place) ? PP_OK : PP_E_STALE;
}

bool code_place_holds(const struct code_place *place)
{
    struct code_place again;

    atomic_thread_fence(memory_order_acquire);
    return code_at(place->start, &again) && place->start == again.start &&
           place->generation == again.generation && place->owner == again.owner;
}
