/* SPDX-License-Identifier: MIT */
/* Entries: what a body expects to find, checked once and immutable from then on. */
#include <config.h>

#include "osr/entry.h"

#include "error.h"
#include "isa/isa.h"
#include "link/trace.h"
#include "osr/buffer.h"
#include "osr/room.h"
#include "osr/tier0.h"
#include "osr/transition.h"
#include "patch/retire.h"
#include "sized.h"

#include "stub.h"
#include "thread_stack.h"

#include <stddef.h>

/* No body reaches farther below tier-0's SP. */
#define STACK_LIMIT ((size_t) 1 << 29)
#define DESC_BYTES offsetof(pp_entry_desc, body) /* of the first layout */

/* "ppEntry" and the layout of struct entry, which compiled code knows by its address. */
#define SEAL (UINT64_C(0x7070456e74727900) | 1)

_Static_assert(offsetof(struct entry, thread_offset) == ENTRY_THREAD_OFFSET, "the stub reads it");

static uint64_t seal_of(const struct entry *entry)
{
    return SEAL ^ (uint64_t) isa_host.arch << 8 ^ (uintptr_t) entry << 12;
}

struct entry *entry_from(const pp_entry *handle)
{
    struct record *record = record_from(handle, RECORD_ENTRY);
    if (record == NULL)
        return NULL;
    struct entry *entry = (struct entry *) ((char *) record - offsetof(struct entry, record));
    return entry->seal == seal_of(entry) ? entry : NULL;
}

/* Whether a site keeps what the map reads.  All classes keep what C functions keep. */
static bool keeps_sources(const pp_site_desc *site, const struct entry *entry)
{
    uint32_t kept_by_c = (uint32_t) callee_saved(isa_host.arch)
                         | 1u << PP_REGS_SP / 8 | 1u << PP_REGS_FP / 8;
    switch (site->save) {
    case PP_SAVE_V128:
    case PP_SAVE_V256:
    case PP_SAVE_V512:
        return true;
    case PP_SAVE_MASK:
    case PP_SAVE_MASK256:
    case PP_SAVE_MASK512:
        return !(entry->reads_gpr & ~(site->live_gpr | kept_by_c))
            && !(entry->reads_vector & ~site->live_vector);
    default:
        return entry->reads_vector == 0;
    }
}

/* What keeps an entry from being taken at a site, or NULL. */
static const char *misfit(const struct entry *entry, const pp_site_desc *site)
{
    const char *field = tier0_difference(&entry->tier0, site->tier0);
    if (field != NULL)
        return field;
    if (!keeps_sources(site, entry))
        return "save";
    if (entry_is_guarded(entry) && site->thread_offset == 0)
        return "thread_offset";
    /* The thread whose buffer is reserved at the site is the one that it is taken from. */
    if (entry->style == PP_BUFFER && site->thread_offset != entry->thread_offset)
        return "thread_offset";
    return NULL;
}

pp_status entry_check(const pp_entry *handle, const pp_pool *pool, const pp_site_desc *site,
                      const char **field)
{
    struct entry *entry = entry_from(handle);
    *field = NULL;
    if (entry == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    if (entry->record.pool != pool)
        return PP_E_FAULT;
    *field = misfit(entry, site);
    return *field == NULL ? PP_OK : PP_E_ABI;
}

pp_status entry_admit(const struct entry *entry, pp_thread *thread, uintptr_t fp, uintptr_t sp,
                      const char **field)
{
    const struct thread_stack stack = thread_stack_of(thread, sp);
    *field = "frame_bytes";
    if (!tier0_has_sp(&entry->tier0, fp, sp))
        return PP_E_ABI;
    *field = NULL;
    if ((entry->flags & PP_ENTRY_CHECK_STACK)
        && (stack.hi == 0 || sp - stack.lo < entry->stack_bytes))
        return PP_E_STACK;
    /* Last: nobody would give it back. */
    if (entry->style != PP_BUFFER)
        return PP_OK;
    pp_status status = buffer_reserve(thread, fp, entry->buffer_bytes);
    *field = status == PP_E_ABI ? "buffers" : NULL;
    return status;
}

pp_status entry_acquire(const pp_entry *handle, const pp_pool *pool, const pp_site_desc *site,
                        struct entry **result, const char **field)
{
    struct entry *entry = entry_from(handle);
    *field = NULL;
    if (entry == NULL)
        return PP_E_STALE;
    uint32_t references = atomic_load_explicit(&entry->references, memory_order_relaxed);
    do {
        if (references == ENTRY_CLOSED)
            return PP_E_STALE;
    } while (!atomic_compare_exchange_weak_explicit(&entry->references, &references,
                                                    references + 1, memory_order_acq_rel,
                                                    memory_order_relaxed));
    /* With the reference it cannot be destroyed; it may have been just before. */
    pp_status status = entry_check(handle, pool, site, field);
    if (status != PP_OK) {
        entry_release(entry);
        return status;
    }
    *result = entry;
    return PP_OK;
}

void entry_release(struct entry *entry)
{
    atomic_fetch_sub_explicit(&entry->references, 1, memory_order_release);
}

void entry_let_go(struct entry *entry)
{
    /* The call that takes the last reference sees it. */
    atomic_store_explicit(&entry->let_go, true, memory_order_relaxed);
    entry_release(entry);
}

pp_status pp_entry_check(const pp_entry *handle, const pp_tier0_layout *layout)
{
    struct entry *entry = entry_from(handle);
    if (entry == NULL)
        return handle == NULL ? PP_E_ARG : PP_E_STALE;
    pp_tier0_layout tier0;
    pp_status status = tier0_from(isa_host.arch, layout, &tier0, NULL);
    if (status != PP_OK)
        return status;
    /* The trace is alive as long as the entry is: it is held. */
    return tier0_difference(&entry->tier0, &tier0) == NULL ? PP_OK : PP_E_ABI;
}

const void *pp_entry_code(const pp_entry *handle)
{
    struct entry *entry = entry_from(handle);
    return entry == NULL ? NULL : entry->code;
}

uint32_t pp_entry_index(const pp_entry *handle)
{
    struct entry *entry = entry_from(handle);
    return entry == NULL ? 0 : entry->index;
}

/* ---- descriptions ----------------------------------------------------------- */

/* What a description comes to. */
struct plan {
    pp_tier0_layout tier0, body; /* normalized */
    size_t moves;
};

static pp_status check_common(const pp_entry_desc *desc, struct plan *plan)
{
    pp_error *error = desc->error;
    if (desc->style != PP_ON_TOP && desc->style != PP_REPLACE && desc->style != PP_BUFFER)
        return error_set(error, PP_E_ARG, "style: %d", (int) desc->style);
    if (desc->code == NULL || (uintptr_t) desc->code % isa_host.code_align != 0)
        return error_set(error, PP_E_ARG, "code: missing or misaligned");
    if (desc->stack_bytes > STACK_LIMIT)
        return error_set(error, PP_E_ARG, "stack_bytes: %zu", desc->stack_bytes);
    if (desc->flags & ~(PP_ENTRY_CHECK_STACK | PP_ENTRY_INDEX))
        return error_set(error, PP_E_ARG, "flags: %#x", (unsigned) desc->flags);
    if (desc->reserved != 0 || (desc->index != 0 && !(desc->flags & PP_ENTRY_INDEX)))
        return error_set(error, PP_E_ARG, "index, reserved: not 0");
    return tier0_from(isa_host.arch, desc->tier0, &plan->tier0, error);
}

static pp_status check_on_top(const pp_entry_desc *desc, const struct plan *plan)
{
    if (desc->body != NULL || desc->values != NULL || desc->value_count != 0
        || desc->thread_offset != 0)
        return error_set(desc->error, PP_E_ARG, "body, values, thread_offset: not in this style");
    return tier0_check_on_top(isa_host.arch, &plan->tier0, desc->scheme, desc->used, desc->error);
}

/* The frame that a body of PP_REPLACE finds, and what its registers are saved in. */
static pp_status check_body(const pp_entry_desc *desc, struct plan *plan)
{
    pp_error *error = desc->error;
    if (desc->body == NULL)
        return error_set(error, PP_E_ARG, "body: missing");
    pp_status status = tier0_from(isa_host.arch, desc->body, &plan->body, error);
    if (status != PP_OK)
        return status;
    if (plan->body.flags & PP_TIER0_DYNAMIC)
        return error_set(error, PP_E_ARG, "body.flags: its frame is not dynamic");
    if (plan->body.cfa_offset != plan->tier0.cfa_offset)
        return error_set(error, PP_E_ABI, "body.cfa_offset: %u, and tier-0 has %u",
                         (unsigned) plan->body.cfa_offset, (unsigned) plan->tier0.cfa_offset);
    status = tier0_check_scheme(isa_host.arch, &plan->body, desc->scheme, desc->used, error);
    if (status != PP_OK)
        return status;
    if (desc->scheme == PP_CSR_RELOAD && plan->body.saves.slots != 0)
        return error_set(error, PP_E_ARG, "body.saves: the body has yet to make it (RELOAD)");
    if (desc->scheme == PP_CSR_RESERVE && (desc->used & ~plan->body.saves.saved))
        return error_set(error, PP_E_ABI, "used: a register that body.saves.saved has not");
    return PP_OK;
}

static pp_status check_thread(const pp_entry_desc *desc, const struct plan *plan)
{
    const char *fault = desc->thread_offset % 8 != 0
        ? "not a multiple of 8" : tier0_slot_fault(&plan->tier0, desc->thread_offset, 8);
    return fault == NULL ? PP_OK : error_set(desc->error, PP_E_ARG, "thread_offset: %s", fault);
}

static pp_status check_values(const pp_entry_desc *desc, struct plan *plan)
{
    const bool buffer = desc->style == PP_BUFFER;
    const struct value_sides sides = { .arch = isa_host.arch, .buffer = buffer,
                                       .index = (desc->flags & PP_ENTRY_INDEX) != 0,
                                       .tier0 = &plan->tier0,
                                       .body = buffer ? NULL : &plan->body };
    return value_check(&sides, desc->values, desc->value_count, &plan->moves, desc->error);
}

static pp_status check_replace(const pp_entry_desc *desc, struct plan *plan)
{
    pp_status status = check_body(desc, plan);
    if (status == PP_OK && desc->thread_offset != 0)
        status = check_thread(desc, plan);
    return status == PP_OK ? check_values(desc, plan) : status;
}

/* The body is a function: it saves what it uses, wherever it wants. */
static pp_status check_buffer(const pp_entry_desc *desc, struct plan *plan)
{
    pp_error *error = desc->error;
    if (desc->body != NULL)
        return error_set(error, PP_E_ARG, "body: not in this style");
    if (desc->thread_offset == 0)
        return error_set(error, PP_E_ARG, "thread_offset: missing, and the thread has the buffers");
    pp_csr_scheme scheme = desc->scheme == PP_CSR_RESERVE ? PP_CSR_RELOAD : desc->scheme;
    pp_status status = tier0_check_scheme(isa_host.arch, &plan->tier0, scheme, desc->used, error);
    if (status == PP_OK)
        status = check_thread(desc, plan);
    return status == PP_OK ? check_values(desc, plan) : status;
}

static pp_status check_desc(const pp_entry_desc *desc, struct plan *plan)
{
    *plan = (struct plan) { .moves = 0 };
    pp_status status = check_common(desc, plan);
    if (status != PP_OK)
        return status;
    switch (desc->style) {
    case PP_REPLACE:
        return check_replace(desc, plan);
    case PP_BUFFER:
        return check_buffer(desc, plan);
    default:
        return check_on_top(desc, plan);
    }
}

/* ---- making ----------------------------------------------------------------- */

static void leave_locked(struct osr_state *state, struct entry *entry)
{
    entry->next_leaving = NULL;
    *state->leaving_end = entry;
    state->leaving_end = &entry->next_leaving;
}

/* Whether the code of an entry is still there: retired, and not reclaimed. */
static bool way_is_there(const struct entry *entry)
{
    return pp_trace_at((const void *) entry->target) == entry->way;
}

/*
 * Records of destroyed entries stay until their code is reclaimed, which reads them.  It
 * mostly goes in the order of the list; what a stack holds goes to its end.
 */
static void sweep_locked(struct osr_state *state)
{
    enum { LOOKS = 4 };
    for (int i = 0; i < LOOKS && state->leaving != NULL; i++) {
        struct entry *entry = state->leaving;
        state->leaving = entry->next_leaving;
        if (state->leaving == NULL)
            state->leaving_end = &state->leaving;
        if (way_is_there(entry)) {
            leave_locked(state, entry);
        } else {
            entry_clear(entry);
            record_give_locked(&state->entries, &entry->record);
        }
    }
}

static struct entry *take(pp_pool *pool)
{
    pool_lock(pool);
    struct osr_state *state = osr_state_locked(pool);
    if (state != NULL)
        sweep_locked(state);
    struct record *record = state != NULL ? record_take_locked(pool, &state->entries) : NULL;
    pool_unlock(pool);
    return record != NULL ? (struct entry *) ((char *) record - state->entries.offset) : NULL;
}

void entry_clear(struct entry *entry)
{
    if (entry->program != NULL)
        pool_meta_free(entry->record.pool, entry->program,
                       value_program_bytes(entry->program->count));
    entry->program = NULL;
}

static void give(struct entry *entry)
{
    pp_pool *pool = entry->record.pool;
    entry_clear(entry);
    pool_lock(pool);
    struct osr_state *state = pool_room_state(pool, ROOM_OSR);
    record_give_locked(&state->entries, &entry->record);
    pool_unlock(pool);
}

static void fill_in(struct entry *entry, const pp_entry_desc *desc, const struct plan *plan)
{
    entry->seal = seal_of(entry);
    entry->style = desc->style;
    entry->scheme = desc->scheme;
    entry->code = desc->code;
    entry->target = (uintptr_t) desc->code;
    entry->tier0 = plan->tier0;
    entry->body = plan->body;
    entry->used = desc->used;
    entry->stack_bytes = desc->stack_bytes;
    entry->thread_offset = desc->thread_offset;
    entry->flags = desc->flags;
    entry->index = desc->index;
    entry->host = desc->host;
}

/* Below tier-0's SP: of a function that begins where tier-0's frame ends, and of the transition. */
static size_t stack_below(const struct entry *entry)
{
    size_t bytes = entry->stack_bytes, freed = entry->tier0.frame_bytes + entry->tier0.cfa_offset;
    size_t transition = transition_stack_bytes(entry);
    if (entry->style == PP_BUFFER)
        bytes = bytes > freed ? bytes - freed : 0;
    return bytes > transition ? bytes : transition;
}

static pp_status add_transition(struct entry *entry, const pp_entry_desc *desc,
                                const struct plan *plan)
{
    pp_pool *pool = entry->record.pool;
    entry->program = pool_meta_alloc(pool, value_program_bytes(plan->moves));
    if (entry->program == NULL)
        return error_set(desc->error, PP_E_NOMEM, "no memory for the values");
    value_compile(desc->values, desc->value_count, entry->program);
    entry->reads_gpr = entry->program->gpr;
    entry->reads_vector = entry->program->vector;
    entry->buffer_bytes = entry->program->buffer_bytes;
    entry->stack_bytes = stack_below(entry);
    return transition_link(pool, entry, desc->error);
}

/* The body goes on in tier-0's frame: their rules have the CFA at one place. */
static pp_status check_rule(const pp_entry_desc *desc, const struct plan *plan)
{
    struct code_place place;
    if (desc->style == PP_BUFFER || !code_at((uintptr_t) desc->code, &place) || place.owner == NULL)
        return PP_OK;
    const struct frame_rule *rule = owner_rule(place.owner);
    if ((rule->kind != PP_FRAME_OSR && rule->kind != PP_FRAME_RECORD)
        || rule->cfa_offset == plan->tier0.cfa_offset)
        return PP_OK;
    return error_set(desc->error, PP_E_ABI, "tier0.cfa_offset: %u, and the rule of the body has %u",
                     (unsigned) plan->tier0.cfa_offset, (unsigned) rule->cfa_offset);
}

pp_status pp_entry_create(pp_pool *pool, const pp_entry_desc *given, pp_entry **result)
{
    pp_entry_desc desc;
    struct plan plan;
    if (pool == NULL || given == NULL || result == NULL
        || !sized_read(&desc, sizeof desc, DESC_BYTES, given))
        return PP_E_ARG;
    pp_status status = check_desc(&desc, &plan);
    if (status != PP_OK)
        return status;
    pp_trace *trace;
    status = trace_hold(pool, (uintptr_t) desc.code, &trace);
    if (status != PP_OK)
        return error_set(desc.error, status, "code: not in a committed trace of this pool");
    status = check_rule(&desc, &plan);
    struct entry *entry = status == PP_OK ? take(pool) : NULL;
    if (entry == NULL) {
        trace_release(pool, trace);
        return status != PP_OK ? status
                               : error_set(desc.error, PP_E_NOMEM, "no memory for an entry");
    }
    fill_in(entry, &desc, &plan);
    entry->trace = trace;
    if (desc.style != PP_ON_TOP)
        status = add_transition(entry, &desc, &plan);
    else if (desc.flags & PP_ENTRY_INDEX)
        status = transition_link(pool, entry, desc.error);
    if (status != PP_OK) {
        trace_release(pool, trace);
        give(entry);
        return status;
    }
    record_birth(&entry->record);
    *result = record_handle(&entry->record);
    return PP_OK;
}

pp_status pp_entry_destroy(pp_pool *pool, pp_entry *handle)
{
    if (pool == NULL || handle == NULL)
        return PP_E_ARG;
    struct entry *entry = entry_from(handle);
    if (entry == NULL)
        return PP_E_STALE;
    if (entry->record.pool != pool)
        return PP_E_FAULT;
    uint32_t none = 0;
    if (!atomic_compare_exchange_strong_explicit(&entry->references, &none, ENTRY_CLOSED,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return none == ENTRY_CLOSED ? PP_E_STALE : PP_E_BUSY;
    const bool leaves = entry->way != NULL
                        && atomic_load_explicit(&entry->let_go, memory_order_relaxed);
    if (entry->way != NULL) {
        pp_status status = leaves ? trace_retire(pool, entry->way, (uintptr_t) entry->code)
                                  : pp_trace_free(pool, entry->way);
        if (status != PP_OK) { /* its code could not be cleared: all is as before */
            atomic_store_explicit(&entry->references, 0, memory_order_release);
            return status;
        }
    }
    record_death(&entry->record, handle);
    trace_release(pool, entry->trace);
    if (!leaves) {
        give(entry);
        return PP_OK;
    }
    pool_lock(pool);
    leave_locked(pool_room_state(pool, ROOM_OSR), entry);
    pool_unlock(pool);
    return PP_OK;
}
