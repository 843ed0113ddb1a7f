/* SPDX-License-Identifier: MIT */
/*
 * The C side of a patchpoint's slow path, called by the stub.
 *
 * Unless the host's producer does, it takes no lock, allocates nothing and
 * makes no system call.
 */
#include <config.h>

#include "osr/site.h"

#include "stub.h"

#include <errno.h>
#include <stdbool.h>

#if defined __x86_64__
#define RED_ZONE_BYTES 128
#else
#define RED_ZONE_BYTES 0
#endif

/* The registers show SP as tier-0 has it, not as the site moved it around its call. */
static void hide_red_zone(const struct site *site, struct pp_regs *regs)
{
    if (site->desc.flags & PP_SITE_RED_ZONE)
        ((uint64_t *) regs)[PP_REGS_SP / 8] += RED_ZONE_BYTES;
}

static uint64_t fp_of(const struct pp_regs *regs)
{
    return ((const uint64_t *) regs)[PP_REGS_FP / 8];
}

static uint64_t sp_of(const struct pp_regs *regs)
{
    return ((const uint64_t *) regs)[PP_REGS_SP / 8];
}

/* A disabled site stays disabled: its slow path comes again as late as the counter allows. */
static void rearm(struct site *site, uint32_t state, const struct pp_regs *regs)
{
    int32_t count = state == PP_SITE_DISABLED ? INT32_MAX : site->desc.threshold;
    if (site->desc.counter == PP_COUNTER_SITE)
        atomic_store_explicit(&site->head.counter, count, memory_order_relaxed);
    else
        *(int32_t *) (fp_of(regs) + (int64_t) site->desc.counter_offset) = count;
}

static uint64_t count(_Atomic uint64_t *counter)
{
    return atomic_fetch_add_explicit(counter, 1, memory_order_relaxed) + 1;
}

/* Whether this pass is the one, of all threads' passes, that produces. */
static bool wins(struct site *site, uint64_t passes)
{
    return passes >= site->desc.hits
        && site_move(site, 1u << PP_SITE_IDLE | 1u << PP_SITE_COUNTING, PP_SITE_TRIGGERED);
}

/* Only the winner is here, and only it leaves TRIGGERED and COMPILING. */
static void produce(struct site *site, const struct pp_regs *regs)
{
    count(&site->triggers);
    if (fp_of(regs) - sp_of(regs) != site->tier0.frame_bytes) {
        /* Not the frame that the site was described with: a body would overwrite it. */
        count(&site->refusals);
        atomic_store_explicit(&site->head.state, PP_SITE_FAILED, memory_order_release);
        return;
    }
    atomic_store_explicit(&site->head.state, PP_SITE_COMPILING, memory_order_release);
    pp_entry *entry = NULL;
    if (site->desc.produce(site->desc.host, site_handle(site), regs, &entry) == PP_OK)
        (void) site_publish(site, entry);
    else
        atomic_store_explicit(&site->head.state, PP_SITE_FAILED, memory_order_release);
}

uintptr_t patchpoint_slow(struct site_record *record, struct pp_regs *regs)
{
    struct site *site = (struct site *) record;
    int kept = errno;

    uint32_t state = atomic_load_explicit(&record->state, memory_order_acquire);
    rearm(site, state, regs);
    hide_red_zone(site, regs);
    uint64_t passes = count(&site->slow_paths);
    if (state != PP_SITE_READY && wins(site, passes))
        produce(site, regs);

    uintptr_t target = regs->pc + record->resume;
    if (atomic_load_explicit(&record->state, memory_order_acquire) == PP_SITE_READY) {
        count(&site->transitions);
        target = atomic_load_explicit(&record->target, memory_order_relaxed);
    }
    errno = kept;
    return target;
}
