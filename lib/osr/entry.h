/* SPDX-License-Identifier: MIT */
/*
 * Entries: immutable once born, referenced by the sites that lead to them.
 *
 * `references` counts sites; ENTRY_CLOSED, set by the one who destroys, keeps
 * further ones out.  Neither taking nor dropping a reference needs a lock.
 */
#ifndef OSR_ENTRY_H
#define OSR_ENTRY_H

#include "osr/record.h"

#include <patchpoint/osr.h>
#include <patchpoint/trace.h>

#define ENTRY_CLOSED UINT32_MAX

struct entry {
    struct record record;
    _Atomic uint32_t references; /* sites that lead here, or ENTRY_CLOSED */
    pp_osr_style style;
    pp_csr_scheme scheme;
    const void *code;
    pp_tier0_layout tier0;       /* normalized */
    uint64_t used;
    size_t stack_bytes;
    pp_trace *trace;             /* held */
    void *host;
};

/* The entry behind a handle, or NULL when it is stale. */
struct entry *entry_from(const pp_entry *handle);

/*
 * pp_entry_check for a site of this pool: PP_E_FAULT for an entry of another, which
 * would go with that pool while the site still leads to it.
 */
pp_status entry_check(const pp_entry *handle, const pp_pool *pool, const pp_tier0_layout *tier0);

/*
 * Check the entry against a site's pool and frame and add a reference.  PP_E_STALE,
 * PP_E_FAULT, PP_E_ABI.  Lock-free.
 */
pp_status entry_acquire(const pp_entry *handle, const pp_pool *pool, const pp_tier0_layout *tier0,
                        struct entry **entry);
void entry_release(struct entry *entry);

#endif
