/* SPDX-License-Identifier: MIT */
/*
 * Forced triggers.  Sites find what is forced through their policy, which then
 * varies: so passes that only count need not ask.
 */
#include <config.h>

#include "osr/force.h"

#include "error.h"
#include "osr/room.h"
#include "sized.h"

#include <string.h>

#define READ(force, field) atomic_load_explicit(&(force)->field, memory_order_relaxed)
#define WRITE(force, field, value) \
    atomic_store_explicit(&(force)->field, value, memory_order_relaxed)

static bool due(uint32_t mode, uint64_t number, uint64_t pass, uint64_t site)
{
    switch (mode) {
    case PP_FORCE_EVERY:
        return number != 0 && pass % number == 0;
    case PP_FORCE_AT:
        return pass == number;
    case PP_FORCE_FROM:
        return pass >= number;
    case PP_FORCE_SITE:
        return site == number;
    case PP_FORCE_SITES_FROM:
        return site >= number;
    default:
        return false;
    }
}

bool force_triggers(struct force *force, uint64_t site)
{
    uint64_t pass = atomic_fetch_add_explicit(&force->passes, 1, memory_order_relaxed) + 1;
    bool triggers = due(READ(force, mode), READ(force, number), pass, site);
    if (triggers)
        atomic_fetch_add_explicit(&force->triggers, 1, memory_order_relaxed);
    return triggers;
}

/* ---- setting --------------------------------------------------------------- */

static bool has_number(pp_force_mode mode)
{
    return mode != PP_FORCE_OFF && mode != PP_FORCE_COUNT;
}

static pp_status force_read(const pp_force *given, pp_force *force)
{
    const pp_force none = { .size = sizeof none };
    if (!sized_read(force, sizeof *force, sizeof *force, given != NULL ? given : &none))
        return PP_E_ARG;
    if ((unsigned) force->mode > PP_FORCE_SITES_FROM)
        return error_set(force->error, PP_E_ARG, "mode: %d", (int) force->mode);
    if (force->flags & ~(PP_FORCE_CLOBBER | PP_FORCE_VERIFY))
        return error_set(force->error, PP_E_ARG, "flags: %#x", (unsigned) force->flags);
    if ((force->number != 0) != has_number(force->mode))
        return error_set(force->error, PP_E_ARG, has_number(force->mode)
                         ? "number: counts from 1" : "number: this mode has none");
    return PP_OK;
}

/* A site that counts in its record comes to its slow path at the next pass. */
static void hasten(struct site *site)
{
    if (!record_is_alive(&site->record))
        return; /* half made */
    int32_t passes = atomic_load_explicit(&site->head.counter, memory_order_relaxed);
    if (site->desc.kind == PP_SITE_COUNTED && site->desc.counter == PP_COUNTER_SITE
        && !word_is(site_word(site), 1u << PP_SITE_DISABLED))
        atomic_compare_exchange_strong_explicit(&site->head.counter, &passes, 1,
                                                memory_order_relaxed, memory_order_relaxed);
}

pp_status pp_pool_set_force(pp_pool *pool, const pp_force *given)
{
    pp_force force;
    if (pool == NULL)
        return PP_E_ARG;
    pp_status status = force_read(given, &force);
    if (status != PP_OK)
        return status;
    pool_lock(pool);
    struct osr_state *state = osr_state_locked(pool);
    if (state == NULL) {
        pool_unlock(pool);
        return error_set(force.error, PP_E_NOMEM, "no memory to force anything");
    }
    WRITE(&state->force, mode, force.mode);
    WRITE(&state->force, number, force.number);
    WRITE(&state->force, flags, force.flags);
    WRITE(&state->force, passes, 0);
    WRITE(&state->force, triggers, 0);
    WRITE(&state->force, checks, 0);
    WRITE(&state->force, mismatches, 0);
    const bool forces = force.mode != PP_FORCE_OFF;
    struct force *in_force = forces || force.flags != 0 ? &state->force : NULL;
    policy_set_force(&state->policy, in_force);
    for (struct record *r = state->sites.live; r != NULL; r = r->next) {
        struct site *site = (struct site *) ((char *) r - state->sites.offset);
        policy_set_force(&site->own_policy, in_force);
        site_set_thread(site);
        if (forces)
            hasten(site);
    }
    pool_unlock(pool);
    return PP_OK;
}

uint64_t pp_site_number(const pp_site *handle)
{
    struct site *site = site_from(handle);
    return site == NULL ? 0 : site->number;
}

pp_status pp_pool_get_force_stats(pp_pool *pool, pp_force_stats *stats)
{
    if (pool == NULL || stats == NULL || stats->size < sizeof *stats || stats->size > SIZED_MAX)
        return PP_E_ARG;
    pp_force_stats result = { 0 };
    pool_lock(pool);
    const struct osr_state *state = pool_room_state(pool, ROOM_OSR);
    if (state != NULL) {
        result.passes = READ(&state->force, passes);
        result.triggers = READ(&state->force, triggers);
        result.sites = state->site_number;
        result.checks = READ(&state->force, checks);
        result.mismatches = READ(&state->force, mismatches);
        if (result.mismatches != 0) {
            result.site = READ(&state->force, site);
            result.offset = READ(&state->force, offset);
            result.want = READ(&state->force, want);
            result.got = READ(&state->force, got);
        }
    }
    pool_unlock(pool);
    sized_write(stats, &result, sizeof result);
    return PP_OK;
}

/* ---- as text --------------------------------------------------------------- */

static const struct word {
    const char *name;
    pp_force_mode mode;
} modes[] = {
    { "off", PP_FORCE_OFF },
    { "count", PP_FORCE_COUNT },
    { "every=", PP_FORCE_EVERY },
    { "at=", PP_FORCE_AT },
    { "from=", PP_FORCE_FROM },
    { "site=", PP_FORCE_SITE },
    { "sites-from=", PP_FORCE_SITES_FROM },
};

/* A decimal number from 1 that fills the text; 0: it is none. */
static uint64_t number_from(const char *text, size_t length)
{
    uint64_t number = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(number, 10, &number)
            || __builtin_add_overflow(number, (uint64_t) (text[i] - '0'), &number))
            return 0;
    }
    return number;
}

static const struct {
    const char *name;
    uint32_t flag;
} flags[] = {
    { "clobber", PP_FORCE_CLOBBER },
    { "verify", PP_FORCE_VERIFY },
};

static bool flag_read(const char *text, size_t length, pp_force *force)
{
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (length == strlen(flags[i].name) && memcmp(text, flags[i].name, length) == 0
            && !(force->flags & flags[i].flag)) {
            force->flags |= flags[i].flag;
            return true;
        }
    return false;
}

/* One word of `length`.  False: it is none, or it says what another one said. */
static bool word_read(const char *text, size_t length, pp_force *force, bool *has_mode)
{
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        const size_t name = strlen(modes[i].name);
        if (length < name || memcmp(text, modes[i].name, name) != 0)
            continue;
        const uint64_t number = number_from(text + name, length - name);
        if (has_number(modes[i].mode) ? number == 0 : length != name)
            continue;
        if (*has_mode)
            return false;
        *has_mode = true;
        force->mode = modes[i].mode;
        force->number = number;
        return true;
    }
    return flag_read(text, length, force);
}

pp_status pp_force_parse(const char *text, pp_force *given)
{
    pp_force force;
    bool has_mode = false;
    if (given == NULL || !sized_read(&force, sizeof force, sizeof force, given))
        return PP_E_ARG;
    force.mode = PP_FORCE_OFF;
    force.flags = 0;
    force.number = 0;
    for (const char *at = text; at != NULL && *text != '\0'; at++) {
        const size_t length = strcspn(at, ",");
        if (!word_read(at, length, &force, &has_mode))
            return error_set(force.error, PP_E_ARG, "force: what is \"%.*s\"?",
                             (int) (length < 40 ? length : 40), at);
        at += length;
        if (*at == '\0')
            break;
        if (at[1] == '\0')
            return error_set(force.error, PP_E_ARG, "force: what is \"\"?");
    }
    given->mode = force.mode;
    given->flags = force.flags;
    given->number = force.number;
    return PP_OK;
}
