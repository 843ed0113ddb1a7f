/* SPDX-License-Identifier: MIT */
/* Frame rules, validated and normalized. */
#include <config.h>

#include "memory/rule.h"

#include "error.h"
#include "isa/isa.h"
#include "sized.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define RECORD_BYTES 16 /* caller's FP and return address, at FP */
#define RULE_LEAST offsetof(pp_frame_rule, flags)

/*
 * Slots must not lie in the record itself, and have to be 8-byte aligned; beyond
 * that they can be anywhere in the frame.  An empty area has no offset.
 */
static pp_status area_from(const pp_save_area *from, const char *name, pp_save_area *area,
                           pp_error *error)
{
    *area = (pp_save_area){ .slots = 0 };
    if (from->reserved != 0)
        return error_set(error, PP_E_ARG, "frame rule: %s.reserved is not 0", name);
    if ((from->saved & ~from->slots) != 0)
        return error_set(error, PP_E_ARG, "frame rule: %s.saved has registers without a slot",
                         name);
    if (from->slots == 0)
        return PP_OK;
    if (from->offset % 8 != 0)
        return error_set(error, PP_E_ARG, "frame rule: %s.offset is not a multiple of 8", name);
    int64_t lo = from->offset, hi = lo + 8 * (int64_t) __builtin_popcountll(from->slots);
    if (lo < RECORD_BYTES && hi > 0)
        return error_set(error, PP_E_ARG, "frame rule: %s overlaps the frame record", name);
    *area = *from;
    return PP_OK;
}

pp_status frame_rule_from(const pp_frame_rule *host, struct frame_rule *rule, pp_error *error)
{
    struct frame_rule result;
    pp_frame_rule copy;
    const pp_frame_rule *from = &copy;
    memset(&result, 0, sizeof result);
    if (host == NULL) {
        *rule = result;
        return PP_OK;
    }
    if (!sized_read(&copy, sizeof copy, RULE_LEAST, host))
        return error_set(error, PP_E_ARG, "frame rule: its size is %zu, not %zu, or something is "
                         "set beyond that", host->size, sizeof copy);
    if ((from->flags & ~(uint32_t) PP_FRAME_UNREGISTERED) != 0 || from->reserved != 0)
        return error_set(error, PP_E_ARG, "frame rule: unknown flags 0x%x, or reserved is not 0",
                         (unsigned) from->flags);
    result.untold = (from->flags & PP_FRAME_UNREGISTERED) != 0;
    if ((unsigned) from->kind > PP_FRAME_OSR)
        return error_set(error, PP_E_ARG, "frame rule: unknown kind %u", (unsigned) from->kind);
    result.kind = from->kind;
    if (from->kind == PP_FRAME_RECORD || from->kind == PP_FRAME_OSR) {
        result.cfa_offset = from->cfa_offset == 0 ? RECORD_BYTES : from->cfa_offset;
        if (result.cfa_offset < RECORD_BYTES || result.cfa_offset % 8 != 0)
            return error_set(error, PP_E_ARG, "frame rule: cfa_offset %u is below 16 or odd",
                             (unsigned) from->cfa_offset);
        if (isa_host.arch == PP_ARCH_X86_64 && result.cfa_offset != RECORD_BYTES)
            return error_set(error, PP_E_ARG, "frame rule: cfa_offset is always 16 on x86-64");
        pp_status status = area_from(&from->saves, "saves", &result.saves, error);
        if (status == PP_OK && from->kind == PP_FRAME_OSR)
            status = area_from(&from->own, "own", &result.own, error);
        if (status != PP_OK)
            return status;
    }
    *rule = result;
    return PP_OK;
}

struct frame_rule frame_rule_told(const struct frame_rule *rule)
{
    struct frame_rule told = *rule;
    if (told.kind == PP_FRAME_OSR)
        told.kind = PP_FRAME_RECORD;
    /* A register that both areas have is where the first one has it. */
    told.own.saved &= ~told.saves.saved;
    if (told.saves.saved == 0)
        told.saves = (pp_save_area){ .slots = 0 };
    if (told.own.saved == 0)
        told.own = (pp_save_area){ .slots = 0 };
    return told;
}

struct frame_rule frame_rule_shape(const struct frame_rule *rule)
{
    struct frame_rule shape = { .kind = rule->kind, .cfa_offset = rule->cfa_offset };
    if (shape.kind == PP_FRAME_OSR)
        shape.kind = PP_FRAME_RECORD;
    return shape;
}

static bool area_equal(const pp_save_area *a, const pp_save_area *b)
{
    return a->slots == b->slots && a->saved == b->saved && a->offset == b->offset;
}

bool frame_rule_equal(const struct frame_rule *a, const struct frame_rule *b)
{
    return a->kind == b->kind && a->cfa_offset == b->cfa_offset &&
           area_equal(&a->saves, &b->saves) && area_equal(&a->own, &b->own) &&
           a->untold == b->untold;
}

/* One round of a multiplicative hash: high bits come down to where tables look. */
static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ hash >> 32;
}

static uint64_t mix_area(uint64_t hash, const pp_save_area *area)
{
    return mix(mix(mix(hash, area->slots), area->saved), (uint32_t) area->offset);
}

uint64_t frame_rule_hash(const struct frame_rule *rule)
{
    uint64_t hash = mix((uint64_t) rule->kind << 32 | rule->untold, rule->cfa_offset);
    return mix_area(mix_area(hash, &rule->saves), &rule->own);
}

static void tell_area(const pp_save_area *area, const char *name, char *text, size_t capacity)
{
    size_t length = strlen(text);
    if (area->slots != 0)
        snprintf(text + length, capacity - length, " %s 0x%llx/0x%llx at %d", name,
                 (unsigned long long) area->slots, (unsigned long long) area->saved,
                 (int) area->offset);
}

void frame_rule_tell(const struct frame_rule *rule, char *text, size_t capacity)
{
    static const char *const kinds[] = { [PP_FRAME_NONE] = "none", [PP_FRAME_LEAF] = "leaf",
                                         [PP_FRAME_RECORD] = "record", [PP_FRAME_OSR] = "osr" };
    if (rule->cfa_offset == 0)
        snprintf(text, capacity, "%s", kinds[rule->kind]);
    else
        snprintf(text, capacity, "%s cfa %u", kinds[rule->kind], (unsigned) rule->cfa_offset);
    tell_area(&rule->saves, "saves", text, capacity);
    tell_area(&rule->own, "own", text, capacity);
}
