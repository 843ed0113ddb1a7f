/* SPDX-License-Identifier: MIT */
/* Entries: what a body expects to find, checked once and immutable from then on. */
#include <config.h>

#include "osr/entry.h"

#include "error.h"
#include "isa/isa.h"
#include "link/trace.h"
#include "osr/room.h"
#include "osr/tier0.h"

/* No body reaches farther below tier-0's SP. */
#define STACK_LIMIT ((size_t) 1 << 29)

struct entry *entry_from(const pp_entry *handle)
{
    struct entry *entry = handle_address(handle);
    return entry != NULL && record_is(&entry->record, handle) ? entry : NULL;
}

pp_status entry_check(const pp_entry *handle, const pp_pool *pool, const pp_tier0_layout *tier0)
{
    struct entry *entry = entry_from(handle);
    if (entry != NULL && entry->record.pool != pool)
        return PP_E_FAULT;
    return pp_entry_check(handle, tier0);
}

pp_status entry_acquire(const pp_entry *handle, const pp_pool *pool, const pp_tier0_layout *tier0,
                        struct entry **result)
{
    struct entry *entry = entry_from(handle);
    if (entry == NULL)
        return PP_E_STALE;
    uint32_t references = atomic_load_explicit(&entry->references, memory_order_relaxed);
    do {
        if (references == ENTRY_CLOSED)
            return PP_E_STALE;
    } while (!atomic_compare_exchange_weak_explicit(&entry->references, &references,
                                                    references + 1, memory_order_acq_rel,
                                                    memory_order_relaxed));
    /* With the reference it cannot be destroyed; it may have been just before. */
    pp_status status = entry_check(handle, pool, tier0);
    if (status != PP_OK) {
        entry_release(entry);
        return status;
    }
    *result = entry;
    return PP_OK;
}

void entry_release(struct entry *entry)
{
    atomic_fetch_sub_explicit(&entry->references, 1, memory_order_release);
}

pp_status pp_entry_check(const pp_entry *handle, const pp_tier0_layout *layout)
{
    struct entry *entry = entry_from(handle);
    if (entry == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    pp_tier0_layout tier0;
    pp_status status = tier0_from(isa_host.arch, layout, &tier0, NULL);
    if (status != PP_OK)
        return status;
    /* The trace is alive as long as the entry is: it is held. */
    if (entry->style != PP_ON_TOP || !tier0_equal(&entry->tier0, &tier0))
        return PP_E_ABI;
    return PP_OK;
}

const void *pp_entry_code(const pp_entry *handle)
{
    struct entry *entry = entry_from(handle);
    return entry == NULL ? NULL : entry->code;
}

static pp_status check_desc(const pp_entry_desc *desc, pp_tier0_layout *tier0)
{
    pp_error *error = desc->error;
    if (desc->style != PP_ON_TOP)
        return error_set(error, PP_E_ARG, "style: %d", (int) desc->style);
    if (desc->code == NULL || (uintptr_t) desc->code % isa_host.code_align != 0)
        return error_set(error, PP_E_ARG, "code: missing or misaligned");
    if (desc->stack_bytes > STACK_LIMIT)
        return error_set(error, PP_E_ARG, "stack_bytes: %zu", desc->stack_bytes);
    pp_status status = tier0_from(isa_host.arch, desc->tier0, tier0, error);
    if (status != PP_OK)
        return status;
    return tier0_check_scheme(isa_host.arch, tier0, desc->scheme, desc->used, error);
}

static struct entry *take(pp_pool *pool)
{
    pool_lock(pool);
    struct osr_state *state = osr_state_locked(pool);
    struct record *record = state != NULL ? record_take_locked(pool, &state->entries) : NULL;
    pool_unlock(pool);
    return record != NULL ? (struct entry *) ((char *) record - state->entries.offset) : NULL;
}

static void give(struct entry *entry)
{
    pp_pool *pool = entry->record.pool;
    pool_lock(pool);
    struct osr_state *state = pool_room_state(pool, ROOM_OSR);
    record_give_locked(&state->entries, &entry->record);
    pool_unlock(pool);
}

pp_status pp_entry_create(pp_pool *pool, const pp_entry_desc *desc, pp_entry **result)
{
    if (pool == NULL || desc == NULL || result == NULL || desc->size < sizeof *desc)
        return PP_E_ARG;
    pp_tier0_layout tier0;
    pp_status status = check_desc(desc, &tier0);
    if (status != PP_OK)
        return status;
    pp_trace *trace;
    status = trace_hold(pool, (uintptr_t) desc->code, &trace);
    if (status != PP_OK)
        return error_set(desc->error, status, "code: not in a committed trace of this pool");
    struct entry *entry = take(pool);
    if (entry == NULL) {
        trace_release(pool, trace);
        return error_set(desc->error, PP_E_NOMEM, "no memory for an entry");
    }
    entry->style = desc->style;
    entry->scheme = desc->scheme;
    entry->code = desc->code;
    entry->tier0 = tier0;
    entry->used = desc->used;
    entry->stack_bytes = desc->stack_bytes;
    entry->trace = trace;
    entry->host = desc->host;
    record_birth(&entry->record);
    *result = record_handle(entry, &entry->record);
    return PP_OK;
}

pp_status pp_entry_destroy(pp_pool *pool, pp_entry *handle)
{
    if (pool == NULL || handle == NULL)
        return PP_E_ARG;
    struct entry *entry = entry_from(handle);
    if (entry == NULL)
        return PP_E_STALE;
    if (entry->record.pool != pool)
        return PP_E_FAULT;
    uint32_t none = 0;
    if (!atomic_compare_exchange_strong_explicit(&entry->references, &none, ENTRY_CLOSED,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return none == ENTRY_CLOSED ? PP_E_STALE : PP_E_BUSY;
    record_death(&entry->record, handle);
    trace_release(pool, entry->trace);
    give(entry);
    return PP_OK;
}
