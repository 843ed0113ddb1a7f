/* SPDX-License-Identifier: MIT */
/*
 * How the bytes of a batch are written.
 *
 * In one store, all of them, but those of INT3: there the first byte becomes a trap,
 * then the others change, then the first byte, with a barrier after each, so that no core
 * has the beginning of one instruction and the end of the other (Intel's manual, volume 3,
 * 9.1.3, cross-modifying code; as Linux patches itself).
 */
#include <config.h>

#include "patch/batch.h"

#include "error.h"
#include "memory/state.h"
#include "patch/trap.h"

#include <stdatomic.h>
#include <string.h>

static uint8_t *writable(const struct patch_step *step)
{
    return (uint8_t *) (patch_address(step) + (uintptr_t) step->region->write_delta);
}

static bool is(const struct patch_step *step, pp_patch_protocol protocol)
{
    return step->patch->protocol == protocol;
}

/* ---- stores ----------------------------------------------------------- */

/* One aligned store of 1, 2, 4 or 8 bytes.  Release: what they lead to is there before. */
static void store_exact(uint8_t *to, const uint8_t *bytes, size_t size)
{
    uint64_t value = 0;
    memcpy(&value, bytes, size);
    switch (size) {
    case 1: atomic_store_explicit((_Atomic uint8_t *) to, (uint8_t) value, memory_order_release);
        break;
    case 2: atomic_store_explicit((_Atomic uint16_t *) to, (uint16_t) value, memory_order_release);
        break;
    case 4: atomic_store_explicit((_Atomic uint32_t *) to, (uint32_t) value, memory_order_release);
        break;
    default: atomic_store_explicit((_Atomic uint64_t *) to, value, memory_order_release);
    }
}

/* The aligned word around the bytes, in one store; nobody else writes there (batch.h). */
static void store_in_word(uint8_t *to, const uint8_t *bytes, size_t size)
{
    uintptr_t within = (uintptr_t) to % 8;
    _Atomic uint64_t *word = (_Atomic uint64_t *) (to - within);
    uint64_t value = atomic_load_explicit(word, memory_order_relaxed);
    memcpy((uint8_t *) &value + within, bytes, size);
    atomic_store_explicit(word, value, memory_order_release);
}

static void store(const struct patch_step *step, const uint8_t *bytes)
{
    size_t size = step->patch->bytes;
    if (is(step, PP_PATCH_WORD))
        store_in_word(writable(step), bytes, size);
    else if (is(step, PP_PATCH_STOPPED))
        memcpy(writable(step), bytes, size);
    else
        store_exact(writable(step), bytes, size);
}

/*
 * A guard is the host's memory, which may change meanwhile: with an expected old value
 * it is exchanged.
 */
static bool store_guard(const struct patch_step *step, const uint8_t *from, const uint8_t *bytes)
{
    uint8_t *to = (uint8_t *) (uintptr_t) step->patch->address;
    size_t size = step->patch->bytes;
    if ((step->patch->flags & PP_PATCH_EXPECT_OLD) == 0) {
        store_exact(to, bytes, size);
        return true;
    }
#define EXCHANGE(bits)                                                                       \
    do {                                                                                     \
        uint##bits##_t expected, value;                                                      \
        memcpy(&expected, from, sizeof expected);                                            \
        memcpy(&value, bytes, sizeof value);                                                 \
        return atomic_compare_exchange_strong_explicit((_Atomic uint##bits##_t *) to,        \
                                                       &expected, value,                     \
                                                       memory_order_release,                 \
                                                       memory_order_relaxed);                \
    } while (0)
    switch (size) {
    case 1: EXCHANGE(8);
    case 2: EXCHANGE(16);
    case 4: EXCHANGE(32);
    default: EXCHANGE(64);
    }
#undef EXCHANGE
}

/* ---- rounds ----------------------------------------------------------- */

/* Nothing to write, and no page that was opened for it. */
static bool is_skipped(const struct patch_step *step)
{
    return step->same && (step->region == NULL || step->region->wx != PP_WX_FLIP);
}

/* What a round of stores covers. */
enum round { ROUND_ALL, ROUND_INT3 };

/* Ranges of code that the round wrote; literals are data. */
static size_t collect(struct patch_batch *batch, enum round round)
{
    size_t count = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const struct patch_step *step = &batch->steps[i];
        if (is_skipped(step) || step->region == NULL || is(step, PP_PATCH_LITERAL) ||
            (round == ROUND_INT3 && !is(step, PP_PATCH_INT3)))
            continue;
        batch->spans[count++] = (struct span){ step->region, patch_address(step),
                                               step->patch->bytes, 0 };
    }
    return count;
}

/* Caches right, and no core with an older instruction. */
static pp_status end_round(struct patch_batch *batch, enum round round, bool *synced)
{
    size_t count = collect(batch, round);
    *synced = true;
    if (count == 0)
        return PP_OK;
    pp_status status = region_publish(batch->spans, count, batch->error);
#if defined __x86_64__
    if (status == PP_OK)
        *synced = trap_sync_cores(batch->pool);
#endif
    return status;
}

/*
 * FLIP: a page that was executable again when another was refused, and cannot be made
 * writable, keeps what was written.
 */
static bool is_open(const struct patch_step *step)
{
    struct span span = { step->region, patch_address(step), step->patch->bytes, 0 };
    uint8_t *write;
    return region_is_writable(&span) ||
           region_write_begin(span.region, span.exec, span.size, &write, NULL) == PP_OK;
}

static void store_heads(struct patch_batch *batch, const uint8_t *head, bool before)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct patch_step *step = &batch->steps[i];
        if (step->same || !is(step, PP_PATCH_INT3))
            continue;
        const uint8_t *bytes = before ? step->before : step->patch->value;
        store_exact(writable(step), head != NULL ? head : bytes, 1);
    }
}

static void store_tails(struct patch_batch *batch, bool before)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct patch_step *step = &batch->steps[i];
        if (step->same || !is(step, PP_PATCH_INT3))
            continue;
        const uint8_t *bytes = before ? step->before : step->patch->value;
        memcpy(writable(step) + 1, bytes + 1, step->patch->bytes - 1u);
    }
}

/* Everything but INT3, in one store each; guards have their own. */
static void store_others(struct patch_batch *batch, bool before)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct patch_step *step = &batch->steps[i];
        if (!step->same && step->region != NULL && !is(step, PP_PATCH_INT3) &&
            (!before || is_open(step)))
            store(step, before ? step->before : step->patch->value);
    }
}

static const uint8_t trap = 0xcc;

/* The kernel refused: the old bytes again, `tails` of INT3 too.  As far as it goes. */
static void take_back(struct patch_batch *batch, bool tails)
{
    bool synced;
    pp_error *error = batch->error;
    batch->error = NULL;
    if (tails) {
        store_tails(batch, true);
        (void) end_round(batch, ROUND_INT3, &synced);
    }
    store_others(batch, true);
    store_heads(batch, NULL, true);
    for (unsigned tries = 0; tries < 3 && end_round(batch, ROUND_ALL, &synced) != PP_OK; tries++)
        continue;
    batch->error = error;
}

static pp_status no_barrier(struct patch_batch *batch)
{
    return error_set(batch->error, PP_E_SYSTEM,
                     "INT3: membarrier: the kernel has no barrier on all cores");
}

/* The instructions of INT3 are traps: now the rest of them. */
static pp_status write_int3(struct patch_batch *batch)
{
    bool synced;
    store_tails(batch, false);
    pp_status status = end_round(batch, ROUND_INT3, &synced);
    if (status == PP_OK && !synced)
        status = no_barrier(batch);
    if (status != PP_OK)
        return status;
    store_heads(batch, NULL, false);
    status = end_round(batch, ROUND_INT3, &synced);
    if (status != PP_OK)
        store_heads(batch, &trap, false);
    return status;
}

static bool has_int3(const struct patch_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (!batch->steps[i].same && is(&batch->steps[i], PP_PATCH_INT3))
            return true;
    }
    return false;
}

static pp_status write_code(struct patch_batch *batch)
{
    bool synced, int3 = has_int3(batch);
    store_others(batch, false);
    store_heads(batch, &trap, false);
    pp_status status = end_round(batch, ROUND_ALL, &synced);
    if (status == PP_OK && int3 && !synced)
        status = no_barrier(batch);
    if (status != PP_OK) {
        take_back(batch, false);
        return status;
    }
    if (!synced)
        pool_note_fallback(batch->pool, PP_FALLBACK_BARRIER,
                           "membarrier(SYNC_CORE) is refused: a core may go on with the old "
                           "instruction for a while");
    if (int3)
        status = write_int3(batch);
    if (status != PP_OK)
        take_back(batch, true);
    return status;
}

/* ---- guards ----------------------------------------------------------- */

static void guards_back(struct patch_batch *batch, size_t end)
{
    for (size_t i = 0; i < end; i++) {
        const struct patch_step *step = &batch->steps[i];
        if (step->region == NULL)
            (void) store_guard(step, step->patch->value, step->before);
    }
}

/* First of all, because they can still be refused. */
static pp_status store_guards(struct patch_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct patch_step *step = &batch->steps[i];
        if (step->region != NULL || store_guard(step, step->before, step->patch->value))
            continue;
        guards_back(batch, i);
        return error_set(batch->error, PP_E_BUSY, "patch %zu: GUARD: the flag changes",
                         (size_t) (step->patch - batch->first));
    }
    return PP_OK;
}

/* ---- FLIP ------------------------------------------------------------- */

/* Pages of STOPPED patches become writable, all or none; elsewhere they are. */
static pp_status open_pages(struct patch_batch *batch)
{
    pp_status status = PP_OK;
    uint8_t *write;
    size_t opened = 0;
    for (; opened < batch->count && status == PP_OK; opened++) {
        const struct patch_step *step = &batch->steps[opened];
        if (step->region != NULL && step->region->wx == PP_WX_FLIP)
            status = region_write_begin(step->region, patch_address(step), step->patch->bytes,
                                        &write, batch->error);
    }
    for (size_t i = 0; status != PP_OK && i < opened; i++) {
        const struct patch_step *step = &batch->steps[i];
        if (step->region != NULL && step->region->wx == PP_WX_FLIP)
            (void) region_write_end(step->region, patch_address(step), step->patch->bytes, NULL);
    }
    return status;
}

/* Pages that the kernel would not make executable again. */
static pp_status tell_lost(struct patch_batch *batch, pp_status status)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct patch_step *step = &batch->steps[i];
        struct span span = { step->region, patch_address(step), step->patch->bytes, 0 };
        if (step->region == NULL || step->region->wx != PP_WX_FLIP || !region_is_writable(&span))
            continue;
        return error_set(batch->error, status,
                         "mprotect: the page at %#zx cannot be run until it is patched again",
                         (size_t) span.exec);
    }
    return status;
}

pp_status batch_write_locked(struct patch_batch *batch)
{
    pp_status status = trap_enter_locked(batch);
    if (status != PP_OK)
        return status;
    status = store_guards(batch);
    if (status == PP_OK) {
        status = open_pages(batch);
        if (status == PP_OK)
            status = write_code(batch);
        if (status != PP_OK) {
            guards_back(batch, batch->count);
            status = tell_lost(batch, status);
        }
    }
    trap_leave_locked(batch);
    return status;
}

pp_patch step_inverse(const struct patch_step *step)
{
    pp_patch inverse = *step->patch;
    inverse.handle = (const void *) step->handle;
    inverse.flags |= PP_PATCH_EXPECT_OLD;
    memcpy(inverse.old, step->patch->value, sizeof inverse.old);
    memset(inverse.value, 0, sizeof inverse.value);
    memcpy(inverse.value, step->before, step->patch->bytes);
    return inverse;
}
