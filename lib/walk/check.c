/* SPDX-License-Identifier: MIT */
/* The walker's checks, cheapest first within each function. */
#include <config.h>

#include "walk/check.h"

#include "isa/isa.h"
#include "link/trace.h"
#include "thread_stack.h"

#include <string.h>

enum {
    WORD = sizeof(uintptr_t),
#if defined __aarch64__
    CFA_ALIGN = 16,     /* SP is, whenever memory is accessed through it */
    ADDRESS_BITS = 48
#else
    CFA_ALIGN = 8,      /* compiled code may keep SP misaligned among its own */
    ADDRESS_BITS = 47
#endif
};

bool check_in_stack(const pp_thread *thread, uintptr_t address, size_t size)
{
    return thread_stack_holds(thread, address, size);
}

bool check_same_stack(const pp_thread *thread, uintptr_t one, uintptr_t other)
{
    struct thread_stack stack = thread_stack_of(thread, one);
    return stack.lo < stack.hi && other >= stack.lo && other <= stack.hi;
}

uintptr_t check_strip(uintptr_t address)
{
#if defined __aarch64__
    /* Bit 55 tells the halves of the address space apart; the rest above bit 47 may be a code. */
    const uintptr_t high = ~(uintptr_t) 0 << ADDRESS_BITS;
    return address >> 55 & 1 ? address | high : address & ~high;
#else
    return address;
#endif
}

/* Not a copy in a loop: one load, and no alias of the host's types. */
static uintptr_t read_word(uintptr_t address)
{
    uintptr_t word;
    memcpy(&word, (const void *) address, sizeof word);
    return word;
}

pp_check check_word(const pp_thread *thread, uintptr_t address, uintptr_t *word)
{
    if (address % WORD != 0)
        return PP_CHECK_ALIGN;
    if (!check_in_stack(thread, address, WORD))
        return PP_CHECK_BOUNDS;
    *word = read_word(address);
    return PP_CHECK_NONE;
}

pp_check check_record(const pp_thread *thread, uintptr_t fp, uint32_t cfa_offset, uintptr_t floor,
                      struct frame_record *record)
{
    if (fp % WORD != 0 || (fp + cfa_offset) % CFA_ALIGN != 0)
        return PP_CHECK_ALIGN;
    if (!check_in_stack(thread, fp, cfa_offset))
        return PP_CHECK_BOUNDS;
    if (fp < floor)
        return PP_CHECK_GROWTH;
    record->caller_fp = read_word(fp);
    record->return_address = read_word(fp + WORD);
    return PP_CHECK_NONE;
}

pp_check check_cfa(const pp_thread *thread, uintptr_t cfa, uintptr_t floor)
{
    if (cfa % CFA_ALIGN != 0)
        return PP_CHECK_ALIGN;
    if (!check_in_stack(thread, cfa, 0))
        return PP_CHECK_BOUNDS;
    return cfa < floor ? PP_CHECK_GROWTH : PP_CHECK_NONE;
}

pp_check check_call(uintptr_t return_address, uintptr_t start)
{
    return isa_host.is_after_call((const uint8_t *) return_address, return_address - start)
               ? PP_CHECK_NONE : PP_CHECK_CALL;
}

pp_check check_return(uintptr_t return_address, enum return_to *to,
                      struct code_place *place)
{
    *to = RETURN_NOWHERE;
    if (return_address == 0 || return_address >> ADDRESS_BITS != 0)
        return PP_CHECK_CANONICAL;
    if (return_address == (uintptr_t) enter_return) {
        *to = RETURN_ENTER;
        return PP_CHECK_NONE;
    }
    if (!code_at(return_address - 1, place) || return_address - place->start > code_bytes_at(place)
        || owner_rule(place->owner)->kind == PP_FRAME_LEAF)
        return PP_CHECK_CLASS;
    if (check_call(return_address, place->start) != PP_CHECK_NONE)
        return PP_CHECK_CALL;
    *to = RETURN_TRACE;
    return PP_CHECK_NONE;
}

pp_check check_anchor(const pp_thread *thread, uintptr_t anchor, uintptr_t floor,
                      struct anchor *record)
{
    if (anchor == 0)
        return PP_CHECK_ANCHOR;
    if (anchor % WORD != 0)
        return PP_CHECK_ALIGN;
    if (!check_in_stack(thread, anchor, PP_ANCHOR_SIZE))
        return PP_CHECK_BOUNDS;
    if (anchor < floor)
        return PP_CHECK_GROWTH;
    memcpy(record, (const void *) anchor, sizeof *record);
    if (record->cookie != (thread->cookie ^ anchor))
        return PP_CHECK_COOKIE;
    /* pp_enter's frame has one shape, and what came before it lies above it. */
    if (anchor != record->fp + (uintptr_t) (intptr_t) PP_ENTER_ANCHOR_OFFSET
        || !check_in_stack(thread, record->fp, 2 * WORD)
        || (record->previous != 0 && record->previous <= record->fp
            && check_same_stack(thread, record->previous, record->fp)))
        return PP_CHECK_ANCHOR;
    return PP_CHECK_NONE;
}
