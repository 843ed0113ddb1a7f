/* SPDX-License-Identifier: MIT */
/*
 * Proofs about the frame of interrupted code, the cheapest first:
 *
 *  - Behind a call of one of the library's stubs stands what an emitter put there: its last
 *    jump leads anywhere, but its instructions are known.
 *  - The instructions ahead show the frame (isa/frame.h).
 *  - By exclusion: if no word between SP and FP can be a return address, the frame's own
 *    is not there, so it is the one beside the record at FP.  On AArch64 it could be in x30,
 *    so that a call ahead has to promise the record.
 */
#include <config.h>

#include "walk/interrupted.h"

#include "isa/isa.h"
#include "link/trace.h"
#include "thread_stack.h"
#include "walk/check.h"

#include <stdatomic.h>
#include <string.h>

enum {
    BEHIND_MAX = 32,       /* bytes of an emitter's code behind its call */
    HOPS_MAX = 4,          /* instructions of a trampoline */
    SCAN_MAX = 64 * 1024,  /* bytes of a frame that are looked through */
    WORD = sizeof(uintptr_t)
};

/* ---- what may be read ---------------------------------------------------- */

/* Trampolines of an island, or the span that holds the address: its code, or what follows it. */
static enum frame_target find_target(void *context, uint64_t address, struct frame_code *code)
{
    (void) context;
    struct code_place place;
    uintptr_t start = address, end;
    uint32_t cfa_offset = 0; /* an island calls nothing */
    const struct region *region = region_at(address);
    if (region == NULL || stub_at(address) != NULL)
        return FRAME_TARGET_FUNCTION;
    if (address - region->island_lo < region->island_hi - region->island_lo) {
        end = region->island_hi;
    } else {
        if (!code_at(address, &place) || code_bytes_at(&place) == 0)
            return FRAME_TARGET_NOWHERE;
        size_t bytes = code_bytes_at(&place);
        bool in_code = address - place.start < bytes;
        start = in_code ? place.start : address;
        end = place.start + (in_code ? bytes : place.size);
        cfa_offset = owner_rule(place.owner)->cfa_offset;
    }
    *code = (struct frame_code) { (const uint8_t *) start, start, end - start, cfa_offset };
    return FRAME_TARGET_CODE;
}

static bool holds(uintptr_t lo, uintptr_t hi, uint64_t address)
{
    return hi - lo >= WORD && address - lo <= hi - lo - WORD;
}

/* The views of a region are readable as a whole, and stay. */
static bool find_literal(void *context, uint64_t address, uint64_t *value)
{
    const struct interrupted *at = context;
    const struct region *region = at->region, *other;
    if (!holds(region->code_lo, region->code_hi, address)
        && !holds(region->literal_lo, region->literal_hi, address)) {
        other = region_at(address);
        if (other == NULL || !holds(other->code_lo, other->code_hi, address))
            return false;
    }
    memcpy(value, (const void *) (uintptr_t) address, sizeof *value);
    return true;
}

/* ---- behind the library's own calls ---------------------------------------- */

/* Where a call ends up, through a trampoline or not. */
static uint64_t resolve(const struct interrupted *from, uint64_t target)
{
    const struct frame_query query = { .literal = find_literal, .context = (void *) from };
    struct frame_path path = { .pc = target, .spare_register = FRAME_NO_REGISTER };
    if (find_target(NULL, target, &path.code) != FRAME_TARGET_CODE)
        return target;
    for (unsigned i = 0; i < HOPS_MAX && path.pc - path.code.start < path.code.size; i++) {
        size_t at = (size_t) (path.pc - path.code.start);
        struct frame_step step = isa_host.frame->step(&query, &path, path.code.bytes + at,
                                                      path.code.size - at);
        if (step.event == FRAME_JUMP)
            return step.target;
        if (step.event != FRAME_NEXT)
            break;
        path.pc += step.length;
    }
    return target;
}

/* A stub that is called with the frame's record at FP, as its callers are made. */
static bool needs_record(void *context, uint64_t target)
{
    target = resolve(context, target);
    const struct stub *stub = stub_at(target);
    return stub != NULL && target == stub_start(stub)
        && (stub->kind == STUB_PATCHPOINT || stub->kind == STUB_TRANSITION);
}

const struct stub *interrupted_callee(const struct interrupted *at)
{
    uint64_t target;
    if (!isa_host.call_target((const uint8_t *) at->pc, at->pc - at->start, at->pc, &target))
        return NULL;
    target = resolve(at, target);
    const struct stub *stub = stub_at(target);
    return stub != NULL && target == stub_start(stub) ? stub : NULL;
}

static enum interrupted_in find_behind_call(const struct interrupted *at,
                                            const struct frame_query *query)
{
    for (uintptr_t end = at->pc; end > at->start && at->pc - end <= BEHIND_MAX;
         end -= isa_host.code_align) {
        uint64_t target;
        bool popped;
        if (isa_host.call_target((const uint8_t *) end, end - at->start, end, &target)
            && needs_record((void *) at, target)
            && frame_behind_call(isa_host.frame, &query->code, end, at->pc, &popped))
            return popped ? IN_NOTHING : IN_RECORD;
    }
    return IN_UNKNOWN;
}

/* ---- by exclusion ------------------------------------------------------------ */

static bool may_be_return(uintptr_t word)
{
    struct code_place place;
    enum return_to to;
    word = check_strip(word);
    return word == (uintptr_t) enter_return
        || (region_at(word - 1) != NULL && check_return(word, &to, &place) == PP_CHECK_NONE);
}

/* No return address lies between SP and the frame record at FP. */
static bool is_record_by_exclusion(const struct interrupted *at)
{
    uintptr_t word;
    if (at->thread->anchor == 0 || at->fp < at->sp || at->fp - at->sp > SCAN_MAX
        || at->fp % WORD != 0 || at->sp % WORD != 0)
        return false;
    for (uintptr_t address = at->sp; address < at->fp; address += WORD)
        if (check_word(at->thread, address, &word) != PP_CHECK_NONE || may_be_return(word))
            return false;
    return check_word(at->thread, at->fp + WORD, &word) == PP_CHECK_NONE && may_be_return(word);
}

/* ---- all of them -------------------------------------------------------------- */

static struct frame_query query_of(const struct interrupted *at)
{
    const struct thread_stack stack = thread_stack_of(at->thread, at->sp);
    return (struct frame_query) {
        .pc = at->pc, .sp = at->sp, .fp = at->fp, .link = at->link, .scratch = at->scratch,
        .stack_lo = stack.lo, .stack_hi = stack.hi,
        .code = { (const uint8_t *) at->start, at->start, at->size, at->cfa_offset },
        .target = find_target, .literal = find_literal, .needs_record = needs_record,
        .context = (void *) at,
    };
}

enum interrupted_in interrupted_find(const struct interrupted *at, struct frame_answer *answer)
{
    const struct frame_query query = query_of(at);
    enum interrupted_in in = find_behind_call(at, &query);
    if (in != IN_UNKNOWN)
        return in;
    switch (frame_find(isa_host.frame, &query, answer)) {
    case FRAME_PROVEN:
        return !answer->by_value || may_be_return(answer->return_address) ? IN_FOUND : IN_UNKNOWN;
    case FRAME_PROMISED:
        return is_record_by_exclusion(at) ? IN_FOUND : IN_UNKNOWN;
    case FRAME_UNKNOWN:
        return isa_host.arch == PP_ARCH_X86_64 && is_record_by_exclusion(at) ? IN_RECORD
                                                                             : IN_UNKNOWN;
    case FRAME_CONTRADICTED:
        break;
    }
    return IN_UNKNOWN;
}

/* ---- return addresses ----------------------------------------------------------- */

/*
 * What is known of return addresses, by a hash of the address and of its span's generation, so
 * that code that is gone has no say.  A word that is lost or replaced is found out again.
 */
enum { KNOWN_BITS = 11 };
enum known { KNOWN_NOT, KNOWN_KEPT, KNOWN_SILENT };

static _Atomic uint64_t known_words[1u << KNOWN_BITS];

static uint64_t known_key(uintptr_t address, uint32_t generation)
{
    uint64_t x = address * UINT64_C(0x9e3779b97f4a7c15) ^ generation * UINT64_C(0xbf58476d1ce4e5b9);
    return (x ^ x >> 32) * UINT64_C(0x94d049bb133111eb) & ~UINT64_C(3);
}

static enum known what_code_says(const struct interrupted *at, uint32_t generation,
                                 struct frame_answer *answer)
{
    const uint64_t key = known_key(at->pc, generation);
    _Atomic uint64_t *slot = &known_words[key >> (64 - KNOWN_BITS)];
    uint64_t word = atomic_load_explicit(slot, memory_order_relaxed);
    if ((word & ~UINT64_C(3)) == key && (word & 3) != 0)
        return (enum known) (word & 3);
    const struct frame_query query = query_of(at);
    enum frame_proof proof = FRAME_PROVEN;
    if (find_behind_call(at, &query) != IN_RECORD) /* else an emitter's call, just before */
        proof = frame_find_returned(isa_host.frame, &query, answer);
    if (proof == FRAME_CONTRADICTED && may_be_return(answer->return_address))
        return KNOWN_NOT;
    enum known known = proof == FRAME_PROVEN ? KNOWN_KEPT : KNOWN_SILENT;
    atomic_store_explicit(slot, key | known, memory_order_relaxed);
    return known;
}

enum interrupted_in interrupted_returning(const struct interrupted *at, uint32_t generation,
                                          struct frame_answer *answer)
{
    switch (what_code_says(at, generation, answer)) {
    case KNOWN_KEPT:
        return IN_RECORD;
    case KNOWN_NOT:
        return IN_FOUND;
    case KNOWN_SILENT:
        break;
    }
    return is_record_by_exclusion(at) ? IN_RECORD : IN_UNKNOWN;
}
