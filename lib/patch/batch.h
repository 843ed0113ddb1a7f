/* SPDX-License-Identifier: MIT */
/*
 * A batch of patches on its way: checked, then written.
 *
 * What is patched stays where it is because the batch holds the locks of the regions,
 * which a thread takes to release, open or retire a span; several of these in the order of
 * the pool's list, as fork does.  What is patched may run: it is live, or retired and not
 * gone.  pool_lock keeps other batches and retirement away.
 */
#ifndef PATCH_BATCH_H
#define PATCH_BATCH_H

#include "memory/pool.h"

#include <patchpoint/patch.h>

struct patch_step {
    const pp_patch *patch;
    struct region *region;          /* NULL: a guard */
    uintptr_t handle;               /* of the span, as the host has it */
    uint8_t before[PP_PATCH_BYTES]; /* what is there */
    bool same;                      /* that is what is wanted: nothing to write */
};

struct patch_batch {
    pp_pool *pool;
    struct patch_step *steps;
    struct span *spans;             /* room for as many ranges */
    size_t count;
    const pp_patch *first;          /* patches are numbered from here in reasons */
    pp_error *error;
};

static inline uintptr_t patch_address(const struct patch_step *step)
{
    return (uintptr_t) step->patch->address;
}

/*
 * What can be said of a patch alone, without a lock: protocol, lengths, alignment,
 * instructions in `value`, and in `old` if it is expected.
 */
pp_status patch_check(const pp_patch *patch, size_t index, pp_error *error);

/*
 * Find what the steps patch, in ascending order from then on, lock the regions, and check
 * all of them.  With pool_lock held; the regions are locked if it returns PP_OK, until
 * batch_unlock.
 */
pp_status batch_lock(struct patch_batch *batch);
void batch_unlock(struct patch_batch *batch);

/* The same without a check. */
void batch_lock_regions(struct patch_batch *batch);

/*
 * For one step whose region is locked, or that is a guard: is it there, published, of the
 * handle, in a mode that can do it, as the protocol and the host expect it?  Fills in
 * `before`.
 */
pp_status step_check_locked(const pp_pool *pool, struct patch_step *step, size_t index,
                            pp_error *error);

/* Write all of them, or none. */
pp_status batch_write_locked(struct patch_batch *batch);

/* The patch that undoes a step that was written. */
pp_patch step_inverse(const struct patch_step *step);

#endif
