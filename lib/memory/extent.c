/* SPDX-License-Identifier: MIT */
/* The records of extents. */
#include <config.h>

#include "memory/extent.h"

/* Memory for the record with this index. */
static bool extent_back(struct extents *extents, uint32_t index,
                        const struct span_memory *memory)
{
    _Atomic(struct extent_table *) *slot = &extents->tables[index >> EXTENT_TABLE_SHIFT];
    struct extent_table *table = atomic_load_explicit(slot, memory_order_relaxed);
    if (table == NULL) {
        table = memory->alloc(memory->context, sizeof *table);
        if (table == NULL)
            return false;
        atomic_store_explicit(slot, table, memory_order_release);
    }
    _Atomic(struct extent *) *block =
        &table->blocks[index >> EXTENT_BLOCK_SHIFT & (EXTENT_TABLE - 1)];
    if (atomic_load_explicit(block, memory_order_relaxed) == NULL) {
        struct extent *fresh =
            memory->alloc(memory->context, EXTENT_BLOCK * sizeof *fresh);
        if (fresh == NULL)
            return false;
        atomic_store_explicit(block, fresh, memory_order_release);
    }
    return true;
}

void extents_give(struct extents *extents, uint32_t index)
{
    place_set(extents, index, place_pack(NO_OFFSET, 0, 0));
    body_set(extents, index, extents->spare);
    extents->spare = index;
    extents->spares++;
}

bool extents_prepare(struct extents *extents, unsigned count, const struct span_memory *memory)
{
    while (extents->spares < count) {
        if (extents->count > EXTENT_INDEX_MAX || !extent_back(extents, extents->count, memory))
            return false;
        extents_give(extents, extents->count++);
    }
    return true;
}

uint32_t extents_take(struct extents *extents)
{
    uint32_t index = extents->spare;
    extents->spare = (uint32_t) body_get(extents, index);
    extents->spares--;
    return index;
}

void extents_init(struct extents *extents)
{
    extents->count = 1;
}

void extents_fini(struct extents *extents, const struct span_memory *memory)
{
    for (unsigned i = 0; i < EXTENT_TABLES; i++) {
        struct extent_table *table = atomic_load(&extents->tables[i]);
        for (unsigned j = 0; table != NULL && j < EXTENT_TABLE; j++) {
            struct extent *block = atomic_load(&table->blocks[j]);
            if (block != NULL)
                memory->free(memory->context, block, EXTENT_BLOCK * sizeof *block);
        }
        if (table != NULL)
            memory->free(memory->context, table, sizeof *table);
    }
}
