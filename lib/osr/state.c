/* SPDX-License-Identifier: MIT */
/* The states of a site: what a step is, and who accounts for what it changed. */
#include <config.h>

#include "osr/site.h"

_Static_assert((offsetof(struct site, head) + PP_SITE_TARGET) % 16 == 0, "a pair for one exchange");
_Static_assert(PP_SITE_STATE == PP_SITE_TARGET + 8, "a pair for one exchange");

uint64_t word_flags_after(uint64_t word)
{
    const uint64_t held = word & SITE_SHARE;
    if (word_is(word, STATES_PRODUCING))
        return held | SITE_RUNS;
    if (word_is(word, 1u << PP_SITE_PENDING))
        return SITE_OWED;
    return (word & (SITE_RUNS | SITE_OWED)) | (word & SITE_RUNS ? held : 0);
}

uint64_t site_word_of(const struct site *site, const struct entry *entry, uint64_t flags)
{
    const uint64_t life = (uintptr_t) record_handle(&entry->record);
    const bool asks = entry_is_guarded(entry) || force_marks(policy_force(site_policy(site)));
    return (asks ? PP_SITE_GUARDED : PP_SITE_READY) | (uintptr_t) entry
           | (life << 48 & SITE_LIFE) | flags;
}

static uint64_t target_of(uint64_t word)
{
    return word_state(word) == PP_SITE_READY ? word_entry(word)->target : 0;
}

bool site_step(struct site *site, uint64_t *seen, uint64_t next)
{
    /* What is read here may be half of two steps: the exchange then fails. */
    const struct pair from = {
        atomic_load_explicit(&site->head.target, memory_order_relaxed), *seen
    };
    const struct pair to = { target_of(next), next };
    if ((*seen & SITE_GONE) || !pair_exchange(&site->head.target, from, to)) {
        *seen = site_word(site);
        return false;
    }
    method_account(site->method, *seen, next);
    struct entry *was = word_entry(*seen);
    if (was == NULL || was == word_entry(next))
        return true;
    if (next & SITE_GONE) /* no thread is at the site, nor comes there */
        entry_release(was);
    else
        entry_let_go(was);
    return true;
}

bool site_move(struct site *site, uint32_t from, uint32_t to)
{
    uint64_t seen = site_word(site);
    do {
        if (!word_is(seen, from) || (seen & SITE_GONE))
            return false;
    } while (!site_step(site, &seen, (seen & ~(SITE_STATE | SITE_ENTRY | SITE_LIFE)) | to));
    return true;
}

/* ---- the counter ---------------------------------------------------------------- */

static int32_t counter_for(const struct site *site)
{
    return word_is(site_word(site), 1u << PP_SITE_DISABLED) ? INT32_MAX : site_first_passes(site);
}

/*
 * Compiled code counts without a lock, so it may store over what is stored here.  A count
 * that is too low costs a slow path; one that is too high would be for ever, so it is
 * looked at again.
 */
void site_set_counter(struct site *site)
{
    enum { LOOKS = 64 };
    if (site->desc.counter != PP_COUNTER_SITE)
        return;
    if (site->desc.kind == PP_SITE_POLLED) {
        atomic_store_explicit(&site->head.counter, 0, memory_order_relaxed);
        return;
    }
    for (int i = 0; i < LOOKS; i++) {
        const int32_t passes = counter_for(site);
        atomic_exchange_explicit(&site->head.counter, passes, memory_order_seq_cst);
        /* And the state may be another one by now, whose counter came before this. */
        if (counter_for(site) == passes
            && atomic_load_explicit(&site->head.counter, memory_order_seq_cst) <= passes)
            return;
    }
}
