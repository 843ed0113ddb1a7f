/* SPDX-License-Identifier: MIT */
/* The room of OSR in a pool: made with the first site or entry, gone with the pool. */
#include <config.h>

#include "osr/room.h"

#include "error.h"
#include "osr/nop.h"

#include <stddef.h>

struct osr_state *osr_state_locked(pp_pool *pool)
{
    struct osr_state *state = pool_room_state(pool, ROOM_OSR);
    if (state != NULL)
        return state;
    state = pool_meta_alloc(pool, sizeof *state);
    if (state == NULL)
        return NULL;
    state->sites.kind = RECORD_SITE;
    state->sites.record_size = sizeof(struct site);
    state->sites.offset = offsetof(struct site, record);
    state->entries.kind = RECORD_ENTRY;
    state->entries.record_size = sizeof(struct entry);
    state->entries.offset = offsetof(struct entry, record);
    state->pins.kind = RECORD_PIN;
    state->pins.record_size = sizeof(struct pin);
    state->pins.offset = offsetof(struct pin, record);
    state->methods.kind = RECORD_METHOD;
    state->methods.record_size = sizeof(struct method);
    state->methods.offset = offsetof(struct method, record);
    state->leaving_end = &state->leaving;
    atomic_store_explicit(&state->policy.seed, 1, memory_order_relaxed);
    pool_set_room_state(pool, ROOM_OSR, state);
    return state;
}

static void osr_close(pp_pool *pool)
{
    struct osr_state *state = pool_room_state(pool, ROOM_OSR);
    if (state == NULL)
        return;
    for (struct record *r = state->entries.live; r != NULL; r = r->next)
        entry_clear((struct entry *) ((char *) r - state->entries.offset));
    for (struct record *r = state->sites.live; r != NULL; r = r->next)
        nop_forget_locked((struct site *) ((char *) r - state->sites.offset));
    record_list_close(pool, &state->sites);
    record_list_close(pool, &state->entries);
    record_list_close(pool, &state->pins);
    record_list_close(pool, &state->methods);
    pool_meta_free(pool, state, sizeof *state);
}

/* What is wrong with a site that is in one state while it is looked at, or NULL. */
static const char *site_fault(struct site *site, bool *leads)
{
    uint64_t word, target;
    do {
        word = site_word(site);
        target = atomic_load_explicit(&site->head.target, memory_order_acquire);
    } while (site_word(site) != word);
    const struct entry *entry = word_entry(word);
    *leads = entry != NULL;
    if (target != (word_state(word) == PP_SITE_READY ? entry->target : 0) && site_word(site) == word)
        return "site: its target is not that of its entry";
    if ((word & SITE_RUNS) && word_is(word, STATES_PRODUCING))
        return "site: two producers";
    return NULL;
}

/*
 * Every site leads where its entry says, and entries have a reference
 * for each site.  A thread that is about to publish may have one more: it takes
 * it first, without the lock; and one that takes an entry away gives it back behind that.
 */
static pp_status verify_locked(struct osr_state *state, pp_error *error)
{
    uint64_t held = 0, references = 0, members = 0, counted = 0;
    for (struct record *r = state->sites.live; r != NULL; r = r->next) {
        struct site *site = (struct site *) ((char *) r - state->sites.offset);
        bool leads;
        const char *fault = site_fault(site, &leads);
        if (fault != NULL)
            return error_set(error, PP_E_FAULT, "%s", fault);
        members += site->method != NULL;
        held += leads;
    }
    for (struct record *r = state->entries.live; r != NULL; r = r->next) {
        struct entry *entry = (struct entry *) ((char *) r - state->entries.offset);
        uint32_t count = atomic_load(&entry->references);
        if (count != ENTRY_CLOSED) /* else a thread is about to take it off the list */
            references += count;
    }
    for (struct record *r = state->methods.live; r != NULL; r = r->next)
        counted += ((struct method *) ((char *) r - state->methods.offset))->sites;
    if (members != counted)
        return error_set(error, PP_E_FAULT, "methods: %llu sites, but %llu are counted",
                         (unsigned long long) members, (unsigned long long) counted);
    if (held > references)
        return error_set(error, PP_E_FAULT, "entries: %llu references, but %llu sites lead to one",
                         (unsigned long long) references, (unsigned long long) held);
    return PP_OK;
}

static pp_status osr_verify(pp_pool *pool, pp_error *error)
{
    pp_status status = PP_OK;
    pool_lock(pool);
    struct osr_state *state = pool_room_state(pool, ROOM_OSR);
    if (state != NULL)
        status = verify_locked(state, error);
    pool_unlock(pool);
    return status;
}

const struct pool_room osr_room = {
    .close = osr_close,
    .verify = osr_verify,
};
