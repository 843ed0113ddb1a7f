/* SPDX-License-Identifier: MIT */
/* How a site gets its entry, loses it, and fails; and what it says of itself. */
#include <config.h>

#include "osr/site.h"

#include "error.h"
#include "sized.h"

#include <stddef.h>
#include <string.h>

#define STATS_BYTES offsetof(pp_site_stats, hits) /* of the first layout */

struct site *site_from(const pp_site *handle)
{
    struct record *record = record_from(handle, RECORD_SITE);
    return record == NULL ? NULL
                          : (struct site *) ((char *) record - offsetof(struct site, record));
}

pp_site *site_handle(const struct site *site)
{
    return record_handle(&site->record);
}

pp_status site_refuse(struct site *site, pp_status why, const char *field)
{
    atomic_store_explicit(&site->field, field, memory_order_relaxed);
    atomic_store_explicit(&site->last, why, memory_order_relaxed);
    atomic_fetch_add_explicit(&site->refusals, 1, memory_order_relaxed);
    return why;
}

/* ---- the end of an attempt ------------------------------------------------------ */

static bool leads_nowhere(const struct site *site)
{
    return site->desc.kind == PP_SITE_POLLED || site->desc.probe != NULL;
}

static void begin_without_failures(struct site *site)
{
    atomic_store_explicit(&site->level, 0, memory_order_relaxed);
    atomic_store_explicit(&site->failures, 0, memory_order_relaxed);
}

/* A site that began anew meanwhile has no failure to take back: no count goes below 0. */
static void take_failure_back(struct site *site)
{
    uint32_t level = atomic_load_explicit(&site->level, memory_order_relaxed);
    while (level != 0
           && !atomic_compare_exchange_weak_explicit(&site->level, &level, level - 1,
                                                     memory_order_relaxed, memory_order_relaxed))
        continue;
    uint64_t failures = atomic_load_explicit(&site->failures, memory_order_relaxed);
    while (failures != 0
           && !atomic_compare_exchange_weak_explicit(&site->failures, &failures, failures - 1,
                                                     memory_order_relaxed, memory_order_relaxed))
        continue;
}

/* A step by which the attempt fails.  What it counts is there before another can begin. */
static bool fail_from(struct site *site, uint64_t *seen)
{
    atomic_store_explicit(&site->hits, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&site->level, 1, memory_order_relaxed);
    uint64_t failures = atomic_fetch_add_explicit(&site->failures, 1, memory_order_relaxed) + 1;
    if (site_step(site, seen, site_after_failure(site, failures)))
        return true;
    /* It was another step's to end. */
    take_failure_back(site);
    return false;
}

/* The producer of a site that was taken from it is back: others may be asked again. */
static void come_back(struct site *site)
{
    uint64_t seen = site_word(site);
    while ((seen & SITE_RUNS) && !site_step(site, &seen, seen & ~(SITE_RUNS | SITE_SHARE)))
        continue;
}

pp_status site_fail(struct site *site, pp_status why, const char *field)
{
    uint64_t seen = site_word(site);
    site_refuse(site, why, field);
    while (word_is(seen, STATES_PRODUCING))
        if (fail_from(site, &seen))
            return why;
    come_back(site);
    return why;
}

pp_status site_publish(struct site *site, const pp_entry *handle)
{
    struct entry *entry;
    const char *field;
    pp_status status = entry_acquire(handle, site->record.pool, &site->desc, &entry, &field);
    if (status != PP_OK)
        return site_fail(site, status, field);
    uint64_t seen = site_word(site);
    while (word_is(seen, STATES_PRODUCING)) {
        begin_without_failures(site);
        if (site_step(site, &seen, site_word_of(site, entry, seen & SITE_SHARE)))
            return PP_OK;
    }
    entry_release(entry);
    site_refuse(site, PP_E_STALE, NULL);
    come_back(site);
    return PP_E_STALE;
}

/* Whether what this job brings was given up by a disabling or a replacement. */
static bool pays_debt(struct site *site)
{
    uint64_t seen = site_word(site);
    while (seen & SITE_OWED)
        if (site_step(site, &seen, seen & ~SITE_OWED))
            return true;
    return false;
}

static pp_status why_not_published(uint64_t word)
{
    if (word_is(word, 1u << PP_SITE_DISABLED))
        return PP_E_STALE;
    return word_is(word, STATES_PRODUCING | STATES_READY) ? PP_E_BUSY : PP_OK;
}

pp_status pp_site_publish(pp_site *handle, pp_entry *given)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL || given == NULL ? PP_E_ARG : PP_E_STALE;
    if (given == NULL || leads_nowhere(site))
        return PP_E_ARG;
    if (pays_debt(site))
        return site_refuse(site, PP_E_STALE, NULL);
    struct entry *entry;
    const char *field;
    pp_status status = entry_acquire(given, site->record.pool, &site->desc, &entry, &field);
    if (status != PP_OK)
        return site_refuse(site, status, field);
    uint64_t seen = site_word(site), next;
    do {
        status = why_not_published(seen);
        if (status != PP_OK) {
            entry_release(entry);
            return status;
        }
        begin_without_failures(site);
        next = site_word_of(site, entry, word_is(seen, 1u << PP_SITE_PENDING)
                                             ? seen & SITE_SHARE : word_flags_after(seen));
    } while (!site_step(site, &seen, next));
    return PP_OK;
}

pp_status pp_site_fail(pp_site *handle, pp_status why)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    if (why >= PP_OK)
        return PP_E_ARG;
    if (pays_debt(site))
        return PP_E_STALE;
    uint64_t seen = site_word(site);
    do {
        if (!word_is(seen, 1u << PP_SITE_PENDING))
            return word_is(seen, 1u << PP_SITE_DISABLED) ? PP_E_STALE : PP_E_BUSY;
    } while (!fail_from(site, &seen));
    site_refuse(site, why, NULL);
    return PP_OK;
}

/* Whether the calling thread runs the site's producer, and the site still waits for it. */
static pp_status may_defer(struct site *site, uint64_t word)
{
    const bool taken = word & SITE_RUNS;
    if (!taken && !word_is(word, 1u << PP_SITE_COMPILING))
        return PP_E_BUSY;
    if (atomic_load_explicit(&site->producer, memory_order_relaxed) != pthread_self())
        return PP_E_BUSY;
    return taken ? PP_E_STALE : PP_OK;
}

pp_status pp_site_defer(pp_site *handle)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    uint64_t seen = site_word(site);
    for (;;) {
        pp_status status = may_defer(site, seen);
        if (status != PP_OK)
            return status;
        /* Before the step: from there on it may end, and begin again, in another thread. */
        atomic_fetch_add_explicit(&site->defers, 1, memory_order_relaxed);
        if (site_step(site, &seen, PP_SITE_PENDING | (seen & SITE_SHARE)))
            return PP_OK;
        atomic_fetch_sub_explicit(&site->defers, 1, memory_order_relaxed);
    }
}

/* ---- replacing and disabling ------------------------------------------------------ */

/*
 * Step from any state to what `to` says, with the flags of what is taken from the site;
 * `entry`, if it is not NULL, has a reference for this.  `old` receives the handle of the
 * entry that goes, or NULL.  False: the site is gone.
 */
static bool take_over(struct site *site, struct entry *entry, uint32_t to, pp_entry **old)
{
    uint64_t seen = site_word(site), next;
    struct entry *was;
    pp_entry *handle;
    do {
        if (seen & SITE_GONE)
            return false;
        const uint64_t flags = word_flags_after(seen);
        const bool idles = to == PP_SITE_COUNTING && word_is(seen, 1u << PP_SITE_IDLE);
        next = entry != NULL ? site_word_of(site, entry, flags)
                             : (idles ? PP_SITE_IDLE : to) | flags;
        /* Before the step, behind which the host may destroy it. */
        was = word_entry(seen);
        handle = was == NULL ? NULL : record_handle(&was->record);
    } while (!site_step(site, &seen, next));
    if (entry != NULL && was == entry) {
        entry_release(entry); /* it has one reference for this site */
        handle = NULL;
    }
    if (old != NULL)
        *old = handle;
    site_set_counter(site);
    return true;
}

pp_status pp_site_replace(pp_site *handle, pp_entry *next, pp_entry **old)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    if (next != NULL && leads_nowhere(site))
        return PP_E_ARG;
    struct entry *entry = NULL;
    if (next != NULL) {
        const char *field;
        pp_status status = entry_acquire(next, site->record.pool, &site->desc, &entry, &field);
        if (status != PP_OK)
            return site_refuse(site, status, field);
    }
    begin_without_failures(site);
    if (entry == NULL)
        atomic_store_explicit(&site->hits, 0, memory_order_relaxed);
    if (take_over(site, entry, PP_SITE_COUNTING, old))
        return PP_OK;
    if (entry != NULL)
        entry_release(entry);
    return PP_E_STALE;
}

pp_status pp_site_withdraw(pp_site *handle, pp_entry **old)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    return take_over(site, NULL, PP_SITE_DISABLED, old) ? PP_OK : PP_E_STALE;
}

pp_status pp_site_disable(pp_site *handle)
{
    return pp_site_withdraw(handle, NULL);
}

bool site_give_up(struct site *site)
{
    uint64_t seen = site_word(site);
    do {
        if (!word_is(seen, STATES_COUNTING | 1u << PP_SITE_FAILED | 1u << PP_SITE_PENDING))
            return false;
    } while (!site_step(site, &seen, PP_SITE_DISABLED | word_flags_after(seen)));
    site_set_counter(site);
    return true;
}

/* ---- what a site says of itself ------------------------------------------------------ */

pp_status pp_site_request(pp_site *handle)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    if (site->desc.kind != PP_SITE_POLLED || site->desc.counter != PP_COUNTER_SITE)
        return PP_E_ARG;
    if (word_is(site_word(site), 1u << PP_SITE_DISABLED))
        return PP_E_STALE;
    atomic_store_explicit(&site->head.counter, 1, memory_order_release);
    return PP_OK;
}

int pp_site_state(const pp_site *handle)
{
    struct site *site = site_from(handle);
    if (site == NULL)
        return PP_SITE_DISABLED;
    uint64_t word = site_word(site);
    return word_is(word, STATES_READY) ? PP_SITE_READY : (int) word_state(word);
}

void *pp_site_record(pp_site *handle)
{
    struct site *site = site_from(handle);
    return site == NULL ? NULL : &site->head;
}

int32_t site_first_passes(const struct site *site)
{
    return force_passes(policy_force(site_policy(site))) ? 1 : site->desc.threshold;
}

int32_t pp_site_threshold(const pp_site *handle)
{
    struct site *site = site_from(handle);
    return site == NULL ? INT32_MAX : site_first_passes(site);
}

pp_entry *pp_site_entry(const pp_site *handle)
{
    struct site *site = site_from(handle);
    for (;;) {
        const uint64_t word = site == NULL ? 0 : site_word(site);
        const struct entry *entry = word_entry(word);
        if (entry == NULL)
            return NULL;
        pp_entry *result = record_handle(&entry->record);
        atomic_thread_fence(memory_order_acquire);
        if (site_word(site) == word)
            return result;
    }
}

void *pp_site_host(const pp_site *handle)
{
    struct site *site = site_from(handle);
    return site == NULL ? NULL : site->desc.host;
}

static pp_status say_misfit(const struct entry *entry, const struct site *site, const char *field,
                            pp_error *error)
{
    const pp_tier0_layout *wants = &entry->tier0, *has = &site->tier0;
    if (strcmp(field, "save") == 0)
        return error_set(error, PP_E_ABI, "save: the class does not keep what the entry reads");
    if (strcmp(field, "thread_offset") == 0)
        return error_set(error, PP_E_ABI, "thread_offset: %d at the site, and the entry wants %s",
                         (int) site->desc.thread_offset,
                         entry->style == PP_BUFFER ? "its own" : "the thread");
    if (strcmp(field, "frame_bytes") == 0)
        return error_set(error, PP_E_ABI, "tier0.frame_bytes: %u at the site, %u for the entry",
                         (unsigned) has->frame_bytes, (unsigned) wants->frame_bytes);
    if (strcmp(field, "cfa_offset") == 0)
        return error_set(error, PP_E_ABI, "tier0.cfa_offset: %u at the site, %u for the entry",
                         (unsigned) has->cfa_offset, (unsigned) wants->cfa_offset);
    return error_set(error, PP_E_ABI, "tier0.%s: not what the entry expects", field);
}

pp_status pp_site_check(const pp_site *handle, const pp_entry *given, pp_error *error)
{
    struct site *site = site_from(handle);
    const char *field = NULL;
    if (site == NULL)
        return error_set(error, handle == NULL ? PP_E_ARG : PP_E_STALE, "site: missing or stale");
    if (leads_nowhere(site))
        return error_set(error, PP_E_ARG, "site: of a kind that leads to no entry");
    const struct entry *entry = entry_from(given);
    pp_status status = entry_check(given, site->record.pool, &site->desc, &field);
    if (status == PP_E_ABI && entry != NULL)
        return say_misfit(entry, site, field, error);
    return status == PP_OK ? PP_OK
        : error_set(error, status, status == PP_E_FAULT ? "entry: another pool's"
                                                        : "entry: missing or stale");
}

#define READ(field) atomic_load_explicit(&site->field, memory_order_relaxed)

pp_status pp_site_get_stats(const pp_site *handle, pp_site_stats *stats)
{
    struct site *site = site_from(handle);
    if (handle == NULL || stats == NULL || stats->size < STATS_BYTES || stats->size > SIZED_MAX)
        return PP_E_ARG;
    if (site == NULL)
        return PP_E_STALE;
    const pp_site_stats result = {
        .slow_paths = READ(slow_paths), .triggers = READ(triggers),
        .transitions = READ(transitions), .refusals = READ(refusals), .hits = READ(hits),
        .failures = READ(failures), .refusal = (pp_status) READ(last), .backoff = READ(level),
        .field = READ(field),
    };
    sized_write(stats, &result, sizeof result);
    return PP_OK;
}
