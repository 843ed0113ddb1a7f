/* SPDX-License-Identifier: MIT */
/* What a protocol allows, and whether a patch finds what it is for. */
#include <config.h>

#include "patch/batch.h"

#include "error.h"
#include "isa/bytes.h"
#include "isa/patch.h"
#include "link/trace.h"
#include "memory/handle.h"

#include <string.h>

#if defined __x86_64__
#define HOST_IS_X86_64 true
#else
#define HOST_IS_X86_64 false
#endif

static const char *protocol_name(unsigned protocol)
{
    static const char *const names[] = { "?", "LITERAL", "WORD", "BRANCH", "INT3", "GUARD",
                                         "STOPPED" };
    return protocol < sizeof names / sizeof *names ? names[protocol] : "?";
}

/* ---- the patch alone --------------------------------------------------- */

/* NULL, or why the protocol has no patch of this length there. */
static const char *refuse_place(unsigned protocol, uintptr_t at, size_t bytes)
{
    switch (protocol) {
    case PP_PATCH_LITERAL:
        return bytes != 8 || at % 8 != 0 ? "8 bytes, aligned" : NULL;
    case PP_PATCH_WORD:
        return bytes > 8 || at % 8 + bytes > 8 ? "bytes of one aligned 8-byte word" : NULL;
    case PP_PATCH_BRANCH:
        return bytes != 4 || at % 4 != 0 ? "4 bytes, aligned" : NULL;
    case PP_PATCH_INT3:
        return bytes > 15 ? "an instruction of at most 15 bytes" : NULL;
    case PP_PATCH_GUARD:
        return (bytes & (bytes - 1)) != 0 || bytes > 8 || at % bytes != 0
                   ? "1, 2, 4 or 8 bytes, aligned" : NULL;
    default:
        return NULL;
    }
}

/* NULL, or what is wrong with these bytes, before or after. */
static const char *refuse_bytes(const pp_patch *patch, const uint8_t *bytes)
{
    bool declared = (patch->flags & PP_PATCH_DECLARED) != 0;
    size_t length;
    switch (patch->protocol) {
    case PP_PATCH_BRANCH:
        return aarch64_is_patchable(get_le32(bytes))
                   ? NULL : "not B, BL, NOP, BRK, ISB, SVC, HVC or SMC";
    case PP_PATCH_WORD:
        return declared || x86_64_instruction_length(bytes, patch->bytes) == patch->bytes
                   ? NULL : "not known to be one instruction of that length, and not declared";
    case PP_PATCH_INT3:
        length = x86_64_instruction_length(bytes, patch->bytes);
        if (length == patch->bytes || (declared && length == 0))
            return NULL;
        return length != 0 ? "more than one instruction"
                           : "not known to be one instruction of that length, and not declared";
    default:
        return NULL;
    }
}

pp_status patch_check(const pp_patch *patch, size_t index, pp_error *error)
{
    unsigned protocol = patch->protocol;
    const char *name = protocol_name(protocol);
    uintptr_t at = (uintptr_t) patch->address;
    if (protocol < PP_PATCH_LITERAL || protocol > PP_PATCH_STOPPED)
        return error_set(error, PP_E_ARG, "patch %zu: no protocol %u", index, protocol);
    if ((patch->flags & ~(PP_PATCH_EXPECT_OLD | PP_PATCH_DECLARED)) != 0 || patch->reserved != 0)
        return error_set(error, PP_E_ARG, "patch %zu: unknown flags", index);
    bool is_x86 = protocol == PP_PATCH_WORD || protocol == PP_PATCH_INT3;
    if ((is_x86 && !HOST_IS_X86_64) || (protocol == PP_PATCH_BRANCH && HOST_IS_X86_64))
        return error_set(error, PP_E_UNSUPPORTED, "patch %zu: %s is a protocol of %s", index, name,
                         is_x86 ? "x86-64" : "AArch64");
    if (at == 0 || patch->bytes == 0 || patch->bytes > PP_PATCH_BYTES)
        return error_set(error, PP_E_ARG, "patch %zu: no address, or %u bytes", index,
                         (unsigned) patch->bytes);
    const char *wrong = refuse_place(protocol, at, patch->bytes);
    if (wrong != NULL)
        return error_set(error, PP_E_ARG, "patch %zu: %s patches %s", index, name, wrong);
    wrong = refuse_bytes(patch, patch->value);
    if (wrong != NULL)
        return error_set(error, PP_E_ARG, "patch %zu: %s: the new bytes are %s", index, name,
                         wrong);
    return PP_OK;
}

/* ---- what it patches --------------------------------------------------- */

/*
 * The span may be patched: what the host says of it is true, and threads may be running it.
 * So may retired code: what a thread in it relies on can still break.
 */
static pp_status check_span(const struct patch_step *step, const struct code_place *place,
                            size_t index, pp_error *error)
{
    const struct owner *owner = place->owner;
    uintptr_t handle = (uintptr_t) step->patch->handle;
    if (handle != 0 && handle != code_place_handle(place))
        return error_set(error, PP_E_STALE, "patch %zu: another trace or span is there", index);
    if (owner_is_open(owner))
        return error_set(error, PP_E_BUSY, "patch %zu: the span is being written", index);
    if (!owner_may_run(owner))
        return error_set(error, PP_E_STALE, "patch %zu: nothing that is published is there",
                         index);
    return PP_OK;
}

/* What the mode of writing, and children, allow. */
static pp_status check_region(const struct patch_step *step, const struct code_place *place,
                              size_t index, pp_error *error)
{
    struct region *region = step->region;
    unsigned protocol = step->patch->protocol;
    if (region->inherited)
        return error_set(error, PP_E_UNSUPPORTED,
                         "patch %zu: code from before a fork is never written", index);
    if (region->wx == PP_WX_FLIP && protocol != PP_PATCH_STOPPED)
        return error_set(error, PP_E_UNSUPPORTED,
                         "patch %zu: %s: with PP_WX_FLIP the page cannot be run while it is "
                         "written; STOPPED can", index, protocol_name(protocol));
    if (children_may_run_locked(region, place->start - region->code_lo))
        return error_set(error, PP_E_BUSY, "patch %zu: a child may be running the code", index);
    return PP_OK;
}

static pp_status check_place(const pp_pool *pool, struct patch_step *step, size_t index,
                             size_t *available, pp_error *error)
{
    struct code_place place;
    const pp_patch *patch = step->patch;
    uintptr_t at = patch_address(step);
    if (step->region == NULL || step->region->pool != pool)
        return error_set(error, PP_E_FAULT, "patch %zu: no code of this pool", index);
    if (!code_at(at, &place))
        return error_set(error, PP_E_STALE, "patch %zu: nothing is there", index);
    step->handle = code_place_handle(&place);
    pp_status status = check_span(step, &place, index, error);
    if (status == PP_OK)
        status = check_region(step, &place, index, error);
    if (status != PP_OK)
        return status;
    bool data = patch->protocol == PP_PATCH_LITERAL || patch->protocol == PP_PATCH_STOPPED;
    size_t size = data ? place.size : code_bytes_at(&place), offset = at - place.start;
    if (offset >= size || patch->bytes > size - offset)
        return error_set(error, PP_E_ARG, "patch %zu: %s: beyond the %s", index,
                         protocol_name(patch->protocol), data ? "span" : "code");
    *available = size - offset;
    return PP_OK;
}

enum { INSTRUCTION_MOST = 15 };

/*
 * What the host declares must not contradict a NOP that the library knows, in what is
 * there or in what comes, whatever is behind the patch.  A patch of WORD may be a part of an
 * instruction, so short NOPs, which look like distances, are not taken for ones.
 */
static pp_status check_declared(const struct patch_step *step, size_t index, size_t available,
                                pp_error *error)
{
    const pp_patch *patch = step->patch;
    uint8_t before[PP_PATCH_BYTES + INSTRUCTION_MOST], after[sizeof before];
    if ((patch->flags & PP_PATCH_DECLARED) == 0 ||
        (patch->protocol != PP_PATCH_WORD && patch->protocol != PP_PATCH_INT3))
        return PP_OK;
    if (available > patch->bytes + (size_t) INSTRUCTION_MOST)
        available = patch->bytes + (size_t) INSTRUCTION_MOST;
    memcpy(before, patch->address, available);
    memcpy(after, before, available);
    memcpy(after, patch->value, patch->bytes);
    const size_t least = patch->protocol == PP_PATCH_INT3 ? 1 : patch->bytes > 4 ? 3 : 4;
    size_t old, new;
    bool old_fits = x86_64_fits_nop(before, after, patch->bytes, available, &old);
    bool new_fits = x86_64_fits_nop(after, before, patch->bytes, available, &new);
    if (!old_fits && old >= least)
        return error_set(error, PP_E_ARG, "patch %zu: %s: a NOP of %zu bytes is there, and the "
                         "patch has %u that do not fit it", index,
                         protocol_name(patch->protocol), old, (unsigned) patch->bytes);
    if (!new_fits && new >= least)
        return error_set(error, PP_E_ARG, "patch %zu: %s: the new bytes would be a NOP of %zu "
                         "bytes, and the patch has %u that do not fit it", index,
                         protocol_name(patch->protocol), new, (unsigned) patch->bytes);
    return PP_OK;
}

/* The host's own memory: whether it can be read is the host's to know. */
static pp_status check_guard(const struct patch_step *step, size_t index, pp_error *error)
{
    if (step->region != NULL)
        return error_set(error, PP_E_ARG, "patch %zu: GUARD: a flag in code memory", index);
    if (step->patch->handle != NULL)
        return error_set(error, PP_E_ARG, "patch %zu: GUARD: flags have no handle", index);
    return PP_OK;
}

pp_status step_check_locked(const pp_pool *pool, struct patch_step *step, size_t index,
                            pp_error *error)
{
    const pp_patch *patch = step->patch;
    bool guard = patch->protocol == PP_PATCH_GUARD;
    size_t available = 0;
    pp_status status = guard ? check_guard(step, index, error)
                             : check_place(pool, step, index, &available, error);
    if (status != PP_OK)
        return status;
    memcpy(step->before, patch->address, patch->bytes);
    step->same = memcmp(step->before, patch->value, patch->bytes) == 0;
    if ((patch->flags & PP_PATCH_EXPECT_OLD) != 0 &&
        memcmp(step->before, patch->old, patch->bytes) != 0)
        return error_set(error, PP_E_BUSY, "patch %zu: the bytes at %#zx are not the old ones",
                         index, (size_t) patch_address(step));
    const char *wrong = refuse_bytes(patch, step->before);
    if (wrong != NULL)
        return error_set(error, PP_E_ARG, "patch %zu: %s: the bytes that are there are %s", index,
                         protocol_name(patch->protocol), wrong);
    return check_declared(step, index, available, error);
}
