/* SPDX-License-Identifier: MIT */
/*
 * Traps that threads meet while an instruction changes.
 *
 * A trap may be delivered long after the instruction is whole again, so an address
 * stays known as long as its span lives.  There a trap of ours is told from one of
 * the host's by what is there: while the sequence is odd it is ours, and so it is if
 * there is none any more; if there is one, and the sequence stood still, the
 * instruction itself is a trap.  Everything that a handler reads is atomic, and stays
 * as long as handlers are counted in.
 */
#include <config.h>

#include "patch/trap.h"

#include "error.h"
#include "memory/handle.h"
#include "memory/state.h"
#include "os/barrier.h"
#include "patch/state.h"

#include <ucontext.h>

enum { CAPACITY_FIRST = 64 };

static size_t hash(uintptr_t address, size_t capacity)
{
    return (size_t) ((address * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (capacity - 1);
}

/* Where the address is, or the free place for it. */
static struct trap *find(struct trap_table *table, uintptr_t address)
{
    for (size_t i = hash(address, table->capacity);; i = (i + 1) & (table->capacity - 1)) {
        uintptr_t there = atomic_load_explicit(&table->traps[i].address, memory_order_acquire);
        if (there == address || there == 0)
            return &table->traps[i];
    }
}

static size_t table_bytes(size_t capacity)
{
    return sizeof(struct trap_table) + capacity * sizeof(struct trap);
}

static void enter(struct trap_table *table, uintptr_t address, uintptr_t handle, uint64_t sequence)
{
    struct trap *trap = find(table, address);
    bool fresh = atomic_load_explicit(&trap->address, memory_order_relaxed) == 0;
    atomic_store_explicit(&trap->handle, handle, memory_order_relaxed);
    atomic_store_explicit(&trap->sequence, sequence, memory_order_release);
    if (fresh) {
        table->count++;
        atomic_store_explicit(&trap->address, address, memory_order_release);
    }
}

static bool is_alive(const struct trap *trap)
{
    struct code_place place;
    return code_handle_find(atomic_load_explicit(&trap->handle, memory_order_relaxed),
                            &place) == PP_OK;
}

/*
 * Either a handler that comes finds the newest table, or it is seen here: both sides are
 * sequentially consistent.  Nobody waits: what is in use goes the next time.
 */
static void drop_older(pp_pool *pool, struct patch_state *state, struct trap_table *newest)
{
    if (atomic_load(&state->handlers) != 0)
        return;
    while (newest->older != NULL) {
        struct trap_table *table = newest->older;
        newest->older = table->older;
        pool_meta_free(pool, table, table_bytes(table->capacity));
    }
}

/* Room for so many more, at most two thirds full; what was in code that is gone is left behind. */
static bool reserve_locked(pp_pool *pool, struct patch_state *state, size_t more)
{
    struct trap_table *old = atomic_load_explicit(&state->traps, memory_order_relaxed);
    size_t count = old != NULL ? old->count : 0, capacity = CAPACITY_FIRST, alive = 0;
    if (old != NULL && count + more <= old->capacity / 3 * 2)
        return true;
    for (size_t i = 0; old != NULL && i < old->capacity; i++)
        alive += old->traps[i].address != 0 && is_alive(&old->traps[i]);
    while (capacity / 3 * 2 < 2 * alive + more)
        capacity *= 2;
    struct trap_table *table = pool_meta_alloc(pool, table_bytes(capacity));
    if (table == NULL)
        return false;
    table->capacity = capacity;
    table->older = old;
    for (size_t i = 0; old != NULL && i < old->capacity; i++) {
        const struct trap *trap = &old->traps[i];
        if (trap->address != 0 && is_alive(trap))
            enter(table, trap->address, trap->handle, trap->sequence);
    }
    atomic_store(&state->traps, table);
    drop_older(pool, state, table);
    return true;
}

static bool has_trap(const struct patch_step *step)
{
    return step->patch->protocol == PP_PATCH_INT3 && !step->same;
}

pp_status trap_enter_locked(struct patch_batch *batch)
{
    size_t count = 0;
    for (size_t i = 0; i < batch->count; i++)
        count += has_trap(&batch->steps[i]);
    if (count == 0)
        return PP_OK;
    struct patch_state *state = patch_state_locked(batch->pool);
    if (state == NULL || !reserve_locked(batch->pool, state, count))
        return error_set(batch->error, PP_E_NOMEM, "no memory for the addresses of %zu traps",
                         count);
    struct trap_table *table = atomic_load_explicit(&state->traps, memory_order_relaxed);
    for (size_t i = 0; i < batch->count; i++) {
        const struct patch_step *step = &batch->steps[i];
        if (has_trap(step))
            enter(table, patch_address(step), step->handle,
                  (find(table, patch_address(step))->sequence + 1) | 1);
    }
    return PP_OK;
}

void trap_leave_locked(struct patch_batch *batch)
{
    struct patch_state *state = pool_room_state(batch->pool, ROOM_PATCH);
    for (size_t i = 0; i < batch->count; i++) {
        const struct patch_step *step = &batch->steps[i];
        if (!has_trap(step))
            continue;
        struct trap_table *table = atomic_load_explicit(&state->traps, memory_order_relaxed);
        atomic_fetch_add_explicit(&find(table, patch_address(step))->sequence, 1,
                                  memory_order_release);
    }
}

bool trap_sync_cores(pp_pool *pool)
{
    atomic_fetch_add_explicit(&pool->barriers, 1, memory_order_relaxed);
    return barrier_sync_core();
}

/* ---- the room's state ------------------------------------------------- */

struct patch_state *patch_state_locked(pp_pool *pool)
{
    struct patch_state *state = pool_room_state(pool, ROOM_PATCH);
    if (state == NULL) {
        state = pool_meta_alloc(pool, sizeof *state);
        if (state != NULL)
            pool_set_room_state(pool, ROOM_PATCH, state);
    }
    return state;
}

void patch_state_close(pp_pool *pool)
{
    struct patch_state *state = pool_room_state(pool, ROOM_PATCH);
    if (state == NULL)
        return;
    for (struct trap_table *table = state->traps, *older; table != NULL; table = older) {
        older = table->older;
        pool_meta_free(pool, table, table_bytes(table->capacity));
    }
    watch_table_close(&state->watches, pool);
    pool_meta_free(pool, state, sizeof *state);
}

/* ---- the handler ------------------------------------------------------ */

#if defined __x86_64__

enum { TRAP_BREAKPOINT = 3 }; /* the vector of int3, and of int $3, but not of single steps */

static bool is_known(struct trap_table *table, const struct code_place *place, uintptr_t address)
{
    if (table == NULL)
        return false;
    struct trap *trap = find(table, address);
    if (atomic_load_explicit(&trap->address, memory_order_acquire) != address ||
        atomic_load_explicit(&trap->handle, memory_order_relaxed) !=
            code_place_handle(place))
        return false;
    uint64_t before = atomic_load_explicit(&trap->sequence, memory_order_acquire);
    uint8_t byte = atomic_load_explicit((const _Atomic uint8_t *) address, memory_order_acquire);
    uint64_t after = atomic_load_explicit(&trap->sequence, memory_order_acquire);
    return before % 2 == 1 || byte != 0xcc || before != after;
}

static bool is_ours(uintptr_t address)
{
    struct code_place place;
    if (!code_at(address, &place))
        return false;
    struct patch_state *state = pool_room_state(place.region->pool, ROOM_PATCH);
    if (state == NULL)
        return false;
    atomic_fetch_add(&state->handlers, 1);
    bool known = is_known(atomic_load(&state->traps), &place, address);
    atomic_fetch_sub(&state->handlers, 1);
    return known;
}

int pp_patch_trap(void *ucontext)
{
    ucontext_t *context = ucontext;
    greg_t *registers = context->uc_mcontext.gregs;
    uintptr_t address = (uintptr_t) registers[REG_RIP] - 1;
    if (registers[REG_TRAPNO] != TRAP_BREAKPOINT || !is_ours(address))
        return 0;
    registers[REG_RIP] = (greg_t) address;
    return 1;
}

#else

int pp_patch_trap(void *ucontext)
{
    (void) ucontext;
    return 0;
}

#endif
