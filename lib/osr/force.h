/* SPDX-License-Identifier: MIT */
/* What a pool forces, as slow paths read it: each field for itself, while it may be changed. */
#ifndef OSR_FORCE_H
#define OSR_FORCE_H

#include <patchpoint/force.h>

#include <stdatomic.h>
#include <stdbool.h>

#define FORCE_THREADS 64

struct force {
    _Atomic uint32_t mode;             /* pp_force_mode */
    _Atomic uint32_t flags;            /* enum pp_force_flags */
    _Atomic uint64_t number;
    _Atomic uint64_t passes, triggers; /* exact: passes are told apart by their number */
    _Atomic uint64_t checks, mismatches;
    _Atomic uint32_t offset;           /* of the first mismatch; and the others, as in the statistics */
    _Atomic uint64_t site, want, got;
    _Atomic uintptr_t threads[FORCE_THREADS]; /* that were looked at and are right, by address */
};

/* Whether each pass of a site shall be a slow path. */
static inline bool force_passes(const struct force *force)
{
    return force != NULL
        && atomic_load_explicit(&force->mode, memory_order_relaxed) != PP_FORCE_OFF;
}

/* Whether slow paths are to be made harder. */
static inline bool force_marks(const struct force *force)
{
    return force != NULL && atomic_load_explicit(&force->flags, memory_order_relaxed) != 0;
}

static inline bool force_verifies(const struct force *force)
{
    return force != NULL
        && (atomic_load_explicit(&force->flags, memory_order_relaxed) & PP_FORCE_VERIFY) != 0;
}

/* Whether a pp_thread is at this address, of the stack that has SP. */
bool force_thread_is_right(struct force *force, uintptr_t address, uintptr_t sp);

struct site;
struct pp_regs;

/*
 * The same for what lies at an offset of the frame that a site shows.  False is counted as a
 * mismatch of the site.
 */
bool force_has_thread(struct force *force, const struct site *site, int32_t offset,
                      const struct pp_regs *regs);

typedef uintptr_t force_passed(struct site *site, uint32_t state, struct pp_regs *regs);

/* Do what a slow path does, and what the flags say around it; returns what it returns. */
uintptr_t force_pass(struct force *force, struct site *site, uint32_t state, struct pp_regs *regs,
                     force_passed *pass);

/* Number this pass of a site that could trigger, and say whether it does. */
bool force_triggers(struct force *force, uint64_t site);

#endif
