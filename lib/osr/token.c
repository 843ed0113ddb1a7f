/* SPDX-License-Identifier: MIT */
/* Tokens: an address, and the handle of the trace that it lay in. */
#include <config.h>

#include "osr/token.h"

#include "isa/isa.h"
#include "link/trace.h"
#include "memory/handle.h"
#include "osr/room.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * Whether the place was a live trace's, and still is.  *inside: the address is an instruction's
 * in its code.
 */
static bool is_live(const struct code_place *place, uintptr_t code, bool *inside)
{
    const struct trace *trace = trace_live(place);
    if (trace == NULL)
        return false;
    *inside = isa_is_aligned(&isa_host, code) && code - place->start < trace_code_size(trace);
    return code_place_holds(place);
}

pp_status pp_token_make(const void *code, pp_token *token)
{
    struct code_place place;
    bool inside;
    if (code == NULL || token == NULL)
        return PP_E_ARG;
    if (!code_at((uintptr_t) code, &place) || !is_live(&place, (uintptr_t) code, &inside)
        || !inside)
        return PP_E_FAULT;
    *token = (pp_token) { .code = (uintptr_t) code, .trace = (uintptr_t) trace_handle(&place) };
    return PP_OK;
}

pp_status pp_token_check(const pp_token *token)
{
    struct code_place place;
    bool inside;
    if (token == NULL)
        return PP_E_ARG;
    pp_status status = code_handle_find(token->trace, &place);
    if (status != PP_OK)
        return status;
    if (!is_live(&place, token->code, &inside))
        return PP_E_STALE;
    /* The trace is there: the address is good, or the words do not belong together. */
    return inside ? PP_OK : PP_E_FAULT;
}

const void *pp_token_code(const pp_token *token)
{
    return pp_token_check(token) == PP_OK ? (const void *) token->code : NULL;
}

pp_status pp_token_resume(pp_thread *thread, const pp_token *token, const pp_resume_point *point)
{
    if (thread == NULL || token == NULL || point == NULL)
        return PP_E_ARG;
    pp_status status = pp_token_check(token);
    if (status != PP_OK)
        return status;
    pp_resume_point copy = *point;
    copy.pc = token->code;
    return pp_resume(thread, &copy);
}

/* ---- pins ------------------------------------------------------------------- */

static struct pin *pin_from(const pp_pin *handle)
{
    struct record *record = record_from(handle, RECORD_PIN);
    return record == NULL ? NULL : (struct pin *) ((char *) record - offsetof(struct pin, record));
}

static struct pin *take(pp_pool *pool)
{
    pool_lock(pool);
    struct osr_state *state = osr_state_locked(pool);
    struct record *record = state != NULL ? record_take_locked(pool, &state->pins) : NULL;
    pool_unlock(pool);
    return record != NULL ? (struct pin *) ((char *) record - state->pins.offset) : NULL;
}

static void give(pp_pool *pool, struct pin *pin)
{
    pool_lock(pool);
    record_give_locked(&((struct osr_state *) pool_room_state(pool, ROOM_OSR))->pins, &pin->record);
    pool_unlock(pool);
}

/* Hold the trace that the token means, and no other that has come to its place. */
static pp_status hold(pp_pool *pool, const pp_token *token, pp_trace **trace)
{
    pp_status status = pp_token_check(token);
    if (status != PP_OK)
        return status;
    status = trace_hold(pool, token->code, trace);
    if (status == PP_OK && (uintptr_t) *trace == token->trace)
        return PP_OK;
    if (status == PP_OK)
        trace_release(pool, *trace);
    /* Gone since the check, or another pool's. */
    return pp_token_check(token) == PP_OK ? PP_E_FAULT : PP_E_STALE;
}

pp_status pp_token_pin(pp_pool *pool, const pp_token *token, pp_pin **result)
{
    pp_trace *trace;
    if (pool == NULL || token == NULL || result == NULL)
        return PP_E_ARG;
    pp_status status = hold(pool, token, &trace);
    if (status != PP_OK)
        return status;
    struct pin *pin = take(pool);
    if (pin == NULL) {
        trace_release(pool, trace);
        return PP_E_NOMEM;
    }
    pin->trace = trace;
    record_birth(&pin->record);
    *result = record_handle(&pin->record);
    return PP_OK;
}

pp_status pp_token_unpin(pp_pool *pool, pp_pin *handle)
{
    if (pool == NULL || handle == NULL)
        return PP_E_ARG;
    struct pin *pin = pin_from(handle);
    if (pin == NULL)
        return PP_E_STALE;
    if (pin->record.pool != pool)
        return PP_E_FAULT;
    if (!record_death(&pin->record, handle))
        return PP_E_STALE;
    trace_release(pool, pin->trace);
    give(pool, pin);
    return PP_OK;
}
