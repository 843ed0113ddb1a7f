/* SPDX-License-Identifier: MIT */
/*
 * The C side of a patchpoint's slow path, called by the stub.
 *
 * Unless the host's producer does, it takes no lock, allocates nothing and
 * makes no system call.
 */
#include <config.h>

#include "osr/counter.h"
#include "osr/site.h"
#include "osr/tier0.h"

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
    int32_t passes = state == PP_SITE_DISABLED ? INT32_MAX : policy_passes(site);
    atomic_store_explicit(counter_of(site, fp_of(regs)), passes, memory_order_relaxed);
}

static uint32_t hits_of(const struct site *site)
{
    return method_is_eager(site->method) ? 1 : policy_hits(site_policy(site), site->desc.hits);
}

/* Whether this pass of a site that could trigger is to do so. */
static bool is_due(struct site *site, struct force *force)
{
    return force_passes(force) ? force_triggers(force, site->number)
                               : count(&site->hits) >= hits_of(site);
}

/* Whether this pass is the one, of all threads' passes, that produces. */
static bool wins(struct site *site)
{
    const uint32_t from = 1u << PP_SITE_IDLE | 1u << PP_SITE_COUNTING;
    if (!(from >> atomic_load_explicit(&site->head.state, memory_order_relaxed) & 1))
        return false;
    pp_status status = method_begin(site);
    if (status != PP_OK) {
        site_refuse(site, status);
        atomic_fetch_add_explicit(&site->level, 1, memory_order_relaxed);
        return false;
    }
    if (!site_move(site, from, PP_SITE_TRIGGERED)) {
        method_undo(site->method);
        return false;
    }
    if (site->method != NULL)
        atomic_store_explicit(&site->share, SHARE_MAKING, memory_order_relaxed);
    return true;
}

/*
 * Only the winner is here, and only it leaves TRIGGERED, and COMPILING unless it
 * deferred: then the site is another's by the time that the producer returns.
 */
static void produce(struct site *site, const struct pp_regs *regs)
{
    count(&site->triggers);
    atomic_store_explicit(&site->head.state, PP_SITE_COMPILING, memory_order_release);
    if (!tier0_has_sp(&site->tier0, fp_of(regs), sp_of(regs))) {
        /* Not the frame that the site was described with: a body would overwrite it. */
        site_fail(site, 1u << PP_SITE_COMPILING, PP_E_ABI);
        return;
    }
    const uint32_t defers = atomic_load_explicit(&site->defers, memory_order_relaxed);
    pp_entry *entry = NULL;
    pp_status status = site->desc.produce(site->desc.host, site_handle(site), regs, &entry);
    if (atomic_load_explicit(&site->defers, memory_order_relaxed) != defers)
        return;
    if (status == PP_OK)
        (void) site_publish(site, entry);
    else
        site_fail(site, 1u << PP_SITE_COMPILING, status);
}

/* Whether this activation may go where the site leads. */
static bool admits(struct site *site, const struct pp_regs *regs)
{
    const struct entry *entry = atomic_load_explicit(&site->entry, memory_order_relaxed);
    if (!entry_is_guarded(entry))
        return true; /* published under force */
    pp_thread *thread = *(pp_thread *const *) (fp_of(regs) + (int64_t) site->desc.thread_offset);
    pp_status status = entry_admit(entry, thread, fp_of(regs), sp_of(regs));
    if (status != PP_OK)
        site_refuse(site, status);
    return status == PP_OK;
}

/* The target of a ready site, or 0. */
static uintptr_t take_target(struct site *site, const struct pp_regs *regs)
{
    uint32_t state = atomic_load_explicit(&site->head.state, memory_order_acquire);
    if (state != PP_SITE_READY && (state != PP_SITE_GUARDED || !admits(site, regs)))
        return 0;
    count(&site->transitions);
    return atomic_load_explicit(&site->head.target, memory_order_relaxed);
}

/* The counter is set before anything else runs: a producer may pass sites that share it. */
static uintptr_t pass_counted(struct site *site, uint32_t state, const struct pp_regs *regs)
{
    const bool waits = 1u << state & (1u << PP_SITE_TRIGGERED | 1u << PP_SITE_COMPILING
                                      | 1u << PP_SITE_PENDING | 1u << PP_SITE_FAILED);
    struct force *force = policy_force(site_policy(site));
    count(&site->slow_paths);
    if (waits && !force_passes(force))
        atomic_fetch_add_explicit(&site->level, 1, memory_order_relaxed);
    rearm(site, state, regs);
    if (!waits && state != PP_SITE_READY && state != PP_SITE_GUARDED && state != PP_SITE_DISABLED
        && is_due(site, force) && wins(site)) {
        produce(site, regs);
        state = atomic_load_explicit(&site->head.state, memory_order_acquire);
        if (state != PP_SITE_READY)
            rearm(site, state, regs);
    }
    return take_target(site, regs);
}

/* Armed: every pass is a hit until there is a target; back-off would need a counter. */
static uintptr_t pass_armed(struct site *site, const struct pp_regs *regs)
{
    const uint32_t counts = 1u << PP_SITE_IDLE | 1u << PP_SITE_COUNTING;
    count(&site->slow_paths);
    if (counts >> atomic_load_explicit(&site->head.state, memory_order_relaxed) & 1
        && is_due(site, policy_force(site_policy(site))) && wins(site))
        produce(site, regs);
    return take_target(site, regs);
}

static pp_status why_not(struct site *site)
{
    const int last = atomic_load_explicit(&site->last, memory_order_relaxed);
    switch (atomic_load_explicit(&site->head.state, memory_order_acquire)) {
    case PP_SITE_FAILED:
    case PP_SITE_GUARDED:
        return (pp_status) last;
    case PP_SITE_COUNTING: /* failed, and may try again */
        return last != PP_OK ? (pp_status) last : PP_E_BUSY;
    case PP_SITE_DISABLED:
        return PP_E_STALE;
    default:
        return PP_E_BUSY;
    }
}

/* Never 0: there may be no code behind the site. */
static uintptr_t pass_forced(struct site *site, uint32_t state, const struct pp_regs *regs)
{
    count(&site->slow_paths);
    if (state != PP_SITE_READY && wins(site))
        produce(site, regs);
    uintptr_t target = take_target(site, regs);
    if (target == 0 && site->desc.refused != NULL)
        target = (uintptr_t) site->desc.refused(site->desc.host, site_handle(site), regs,
                                                why_not(site));
    return target != 0 ? target : (uintptr_t) site->desc.otherwise;
}

/* And armed sites with a probe. */
static uintptr_t pass_polled(struct site *site, uint32_t state, struct pp_regs *regs)
{
    count(&site->slow_paths);
    if (state == PP_SITE_DISABLED)
        return 0;
    /* Before the call, so that a request that comes meanwhile is not lost. */
    if (site->desc.counter == PP_COUNTER_SITE)
        atomic_exchange_explicit(&site->head.counter, 0, memory_order_acquire);
    /* What was stored before the flag: the site has loaded it without acquire order. */
    atomic_thread_fence(memory_order_acquire);
    if (site->desc.probe != NULL)
        return (uintptr_t) site->desc.probe(site->desc.host, site_handle(site), regs);
    return (uintptr_t) site->desc.poll(site->desc.host, site_handle(site), regs);
}

static uintptr_t pass(struct site *site, uint32_t state, struct pp_regs *regs)
{
    switch (site->desc.kind) {
    case PP_SITE_COUNTED:
        return pass_counted(site, state, regs);
    case PP_SITE_ARMED:
        return site->desc.probe == NULL ? pass_armed(site, regs) : pass_polled(site, state, regs);
    case PP_SITE_FORCED:
        return pass_forced(site, state, regs);
    default:
        return pass_polled(site, state, regs);
    }
}

uintptr_t patchpoint_slow(struct site_record *record, struct pp_regs *regs)
{
    struct site *site = (struct site *) record;
    int kept = errno;
    uint32_t state = atomic_load_explicit(&record->state, memory_order_acquire);
    const uintptr_t resume = regs->pc + record->resume; /* a probe may overwrite it */
    struct force *force = policy_force(site_policy(site));

    hide_red_zone(site, regs);
    uintptr_t target = force_marks(force) ? force_pass(force, site, state, regs, pass)
                                          : pass(site, state, regs);
    errno = kept;
    return target != 0 ? target : resume;
}
