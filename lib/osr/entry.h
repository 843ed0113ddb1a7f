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
#include "osr/value.h"

#include <patchpoint/site.h>

#define ENTRY_CLOSED UINT32_MAX

/* All but the record and the references is written once, before the entry is born. */
struct entry {
    int32_t thread_offset;       /* ENTRY_THREAD_OFFSET */
    uint32_t flags;
    uint32_t index;              /* PP_ENTRY_INDEX */
    uint64_t seal;               /* magic, architecture and layout of this struct, and its address */
    struct record record;
    _Atomic uint32_t references; /* sites that lead here, or ENTRY_CLOSED */
    atomic_bool let_go;          /* a site has led here, and threads may be on their way yet */
    struct entry *next_leaving;  /* destroyed, and its own code is retired; under pool_lock */
    pp_osr_style style;
    pp_csr_scheme scheme;
    const void *code;            /* of the body */
    uintptr_t target;            /* where sites jump: to the body, or to the code in `way` */
    pp_tier0_layout tier0;       /* normalized */
    pp_tier0_layout body;        /* PP_REPLACE: normalized */
    struct value_program *program; /* PP_REPLACE, PP_BUFFER: its own */
    pp_trace *way;               /* its own, if it has code beside the body's */
    uint32_t reads_gpr, reads_vector, buffer_bytes; /* of the program: passes look at no more */
    uint64_t used;
    size_t stack_bytes;
    pp_trace *trace;             /* held */
    void *host;
};

/* Whether an activation may be refused: sites ask C at every pass. */
static inline bool entry_is_guarded(const struct entry *entry)
{
    return (entry->flags & PP_ENTRY_CHECK_STACK) != 0 || entry->style == PP_BUFFER;
}

/* The entry behind a handle, or NULL when it is stale. */
struct entry *entry_from(const pp_entry *handle);

/*
 * pp_entry_check for a site of this pool, and whether the site keeps all registers
 * that the entry reads.  PP_E_FAULT for an entry of another pool, which would go with
 * that pool while the site still leads to it.  `field` receives what PP_E_ABI is about, else NULL.
 */
pp_status entry_check(const pp_entry *handle, const pp_pool *pool, const pp_site_desc *site,
                      const char **field);

/*
 * Check the entry against a site and add a reference.  PP_E_STALE, PP_E_FAULT,
 * PP_E_ABI.  Lock-free.
 */
pp_status entry_acquire(const pp_entry *handle, const pp_pool *pool, const pp_site_desc *site,
                        struct entry **entry, const char **field);
void entry_release(struct entry *entry);

/*
 * The same for a site that threads go on to pass: some may be on their way to the entry, so
 * what it has of its own is freed by way of pp_reclaim.
 */
void entry_let_go(struct entry *entry);

/*
 * Whether an activation may take a guarded entry, which it then does: PP_BUFFER has its
 * buffer reserved.  PP_E_STACK, PP_E_ABI, and as buffer_reserve.
 */
pp_status entry_admit(const struct entry *entry, pp_thread *thread, uintptr_t fp, uintptr_t sp,
                      const char **field);

/* Give back what an entry has beside its record. */
void entry_clear(struct entry *entry);

#endif
