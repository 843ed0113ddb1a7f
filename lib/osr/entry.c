/* SPDX-License-Identifier: MIT */
/* Entries: what a body expects to find, checked once and immutable from then on. */
#include <config.h>

#include "osr/entry.h"

#include "isa/isa.h"
#include "osr/tier0.h"

/* No body reaches farther below tier-0's SP. */
#define STACK_LIMIT ((size_t) 1 << 29)

struct entry *entry_from(const pp_entry *handle)
{
    struct entry *entry = handle_address(handle);
    return entry != NULL && record_is(&entry->record, handle) ? entry : NULL;
}

pp_status entry_acquire(const pp_entry *handle, const pp_tier0_layout *tier0,
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
    pp_status status = pp_entry_check(handle, tier0);
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
