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
    uint64_t seen = site_word(site);
    if (!word_may_trigger(seen))
        return false;
    pp_status status = method_begin(site);
    if (status != PP_OK) {
        site_refuse(site, status, NULL);
        atomic_fetch_add_explicit(&site->level, 1, memory_order_relaxed);
        return false;
    }
    const uint64_t next = PP_SITE_TRIGGERED | (site->method != NULL ? SITE_SHARE : 0);
    while (word_may_trigger(seen))
        if (site_step(site, &seen, next))
            return true;
    method_undo(site->method);
    return false;
}

/* From TRIGGERED on: false if the site was taken from this producer before it began. */
static bool begins(struct site *site)
{
    atomic_store_explicit(&site->producer, pthread_self(), memory_order_relaxed);
    return site_move(site, 1u << PP_SITE_TRIGGERED, PP_SITE_COMPILING);
}

static void reject(struct site *site, pp_entry *entry, pp_status why)
{
    if (entry != NULL && why != PP_OK && site->desc.rejected != NULL)
        site->desc.rejected(site->desc.host, site_handle(site), entry, why);
}

/*
 * Only the winner is here, and nobody else is until it has ended the attempt, unless it
 * deferred: then the site is another's by the time that the producer returns.
 */
static void produce(struct site *site, const struct pp_regs *regs)
{
    count(&site->triggers);
    if (!begins(site)) {
        site_fail(site, PP_E_STALE, NULL);
        return;
    }
    if (!tier0_has_sp(&site->tier0, fp_of(regs), sp_of(regs))) {
        /* Not the frame that the site was described with: a body would overwrite it. */
        site_fail(site, PP_E_ABI, "frame_bytes");
        return;
    }
    const uint32_t defers = atomic_load_explicit(&site->defers, memory_order_relaxed);
    pp_entry *entry = NULL;
    pp_status status = site->desc.produce(site->desc.host, site_handle(site), regs, &entry);
    if (atomic_load_explicit(&site->defers, memory_order_relaxed) != defers)
        return;
    if (status == PP_OK)
        reject(site, entry, site_publish(site, entry));
    else
        site_fail(site, status, NULL);
}

/* Whether this activation may go where the site leads. */
static bool admits(struct site *site, const struct entry *entry, const struct pp_regs *regs)
{
    if (!entry_is_guarded(entry))
        return true; /* published under force */
    pp_thread *thread = *(pp_thread *const *) (fp_of(regs) + (int64_t) site->desc.thread_offset);
    const char *field;
    pp_status status = entry_admit(entry, thread, fp_of(regs), sp_of(regs), &field);
    if (status != PP_OK)
        site_refuse(site, status, field);
    return status == PP_OK;
}

/* Under force, whether the transition finds the thread where its entry says. */
static bool has_entrys_thread(struct site *site, const struct entry *entry,
                              const struct pp_regs *regs)
{
    struct force *force = policy_force(site_policy(site));
    const int32_t offset = entry->thread_offset;
    if (offset == 0 || offset == site->desc.thread_offset || !force_verifies(force)
        || force_has_thread(force, site, offset, regs))
        return true;
    site_refuse(site, PP_E_ABI, "thread_offset");
    return false;
}

/*
 * The target of a guarded site, or 0.  By the time that the entry is read it may have
 * gone, and another entry may have its record.  Then the word has changed, too, and the
 * target that was read is not used.
 */
static uintptr_t take_guarded(struct site *site, uint64_t word, const struct pp_regs *regs)
{
    const struct entry *entry = word_entry(word);
    if (!has_entrys_thread(site, entry, regs) || !admits(site, entry, regs))
        return 0;
    const uintptr_t target = entry->target;
    atomic_thread_fence(memory_order_acquire);
    return site_word(site) == word ? target : 0;
}

/* The target of a ready site, or 0. */
static uintptr_t take_target(struct site *site, const struct pp_regs *regs)
{
    const uint64_t word = site_word(site);
    uintptr_t target = 0;
    if (word_state(word) == PP_SITE_GUARDED)
        target = take_guarded(site, word, regs);
    else if (word_state(word) == PP_SITE_READY)
        target = atomic_load_explicit(&site->head.target, memory_order_acquire);
    if (target != 0)
        count(&site->transitions);
    return target;
}

/* The counter is set before anything else runs: a producer may pass sites that share it. */
static uintptr_t pass_counted(struct site *site, const struct pp_regs *regs)
{
    const uint64_t word = site_word(site);
    const bool may_trigger = word_may_trigger(word);
    const bool waits = !may_trigger && !word_is(word, STATES_READY | 1u << PP_SITE_DISABLED);
    struct force *force = policy_force(site_policy(site));
    count(&site->slow_paths);
    if (waits && !force_passes(force))
        atomic_fetch_add_explicit(&site->level, 1, memory_order_relaxed);
    rearm(site, word_state(word), regs);
    if (may_trigger && is_due(site, force) && wins(site)) {
        produce(site, regs);
        const uint64_t now = site_word(site);
        if (word_state(now) != PP_SITE_READY)
            rearm(site, word_state(now), regs);
    }
    return take_target(site, regs);
}

/* Armed: every pass is a hit until there is a target; back-off would need a counter. */
static uintptr_t pass_armed(struct site *site, const struct pp_regs *regs)
{
    count(&site->slow_paths);
    if (word_may_trigger(site_word(site)) && is_due(site, policy_force(site_policy(site)))
        && wins(site))
        produce(site, regs);
    return take_target(site, regs);
}

/* Where a forced pass without an entry goes. */
static uintptr_t go_elsewhere(struct site *site, const struct pp_regs *regs, pp_status why)
{
    uintptr_t target = 0;
    if (site->desc.refused != NULL)
        target = (uintptr_t) site->desc.refused(site->desc.host, site_handle(site), regs, why);
    return target != 0 ? target : (uintptr_t) site->desc.otherwise;
}

static pp_status why_not(struct site *site)
{
    const int last = atomic_load_explicit(&site->last, memory_order_relaxed);
    const uint64_t word = site_word(site);
    if (word & (SITE_RUNS | SITE_OWED))
        return word_is(word, 1u << PP_SITE_DISABLED) ? PP_E_STALE : PP_E_BUSY;
    switch (word_state(word)) {
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
    return target != 0 ? target : go_elsewhere(site, regs, why_not(site));
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
        return pass_counted(site, regs);
    case PP_SITE_ARMED:
        return site->desc.probe == NULL ? pass_armed(site, regs) : pass_polled(site, state, regs);
    case PP_SITE_FORCED:
        return pass_forced(site, state, regs);
    default:
        return pass_polled(site, state, regs);
    }
}

/* Nobody may follow what lies at thread_offset. */
static uintptr_t pass_without_thread(struct site *site, const struct pp_regs *regs)
{
    count(&site->slow_paths);
    site_refuse(site, PP_E_ABI, "thread_offset");
    if (site->desc.kind == PP_SITE_FORCED)
        return go_elsewhere(site, regs, PP_E_ABI);
    if (site->desc.kind == PP_SITE_COUNTED && site->desc.counter != PP_COUNTER_THREAD)
        rearm(site, word_state(site_word(site)), regs);
    return 0;
}

/*
 * What the stub does with the thread otherwise, for sites whose offset force has hidden from
 * it: the frame record that `frame` is can be found while C runs.
 */
static uintptr_t pass_verified(struct force *force, struct site *site, uint32_t state,
                               struct pp_regs *regs, uintptr_t frame)
{
    const int32_t offset = site->desc.thread_offset;
    if (offset == 0)
        return force_pass(force, site, state, regs, pass);
    if (!force_has_thread(force, site, offset, regs))
        return pass_without_thread(site, regs);
    pp_thread *thread = *(pp_thread *const *) (fp_of(regs) + (int64_t) offset);
    thread->exit_fp = frame;
    uintptr_t target = force_pass(force, site, state, regs, pass);
    thread->exit_fp = 0;
    return target;
}

static uintptr_t pass_forcefully(struct force *force, struct site *site, uint32_t state,
                                 struct pp_regs *regs, uintptr_t frame)
{
    return force_verifies(force) ? pass_verified(force, site, state, regs, frame)
                                 : force_pass(force, site, state, regs, pass);
}

uintptr_t patchpoint_slow(struct site_record *record, struct pp_regs *regs)
{
    struct site *site = site_of(record);
    int kept = errno;
    const uint32_t state = word_state(site_word(site));
    const uintptr_t resume = regs->pc + record->resume; /* a probe may overwrite it */
    struct force *force = policy_force(site_policy(site));

    const uintptr_t frame = sp_of(regs) - 16; /* of the stub, as it is in both architectures */

    hide_red_zone(site, regs);
    uintptr_t target = force_marks(force) ? pass_forcefully(force, site, state, regs, frame)
                                          : pass(site, state, regs);
    errno = kept;
    return target != 0 ? target : resume;
}
