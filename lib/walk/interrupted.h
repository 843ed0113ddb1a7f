/* SPDX-License-Identifier: MIT */
/*
 * The frame of compiled code that was interrupted at any of its instructions, by a signal or
 * by its own call: what can be proven of it, and nothing else.
 */
#ifndef WALK_INTERRUPTED_H
#define WALK_INTERRUPTED_H

#include "isa/frame.h"
#include "memory/region.h"

#include <patchpoint/activation.h>

struct stub;

/* What was interrupted. */
struct interrupted {
    const pp_thread *thread;
    struct region *region;
    uintptr_t pc, sp, fp, link;
    uintptr_t scratch;     /* r11; x16 */
    uintptr_t start;       /* of the instructions around pc, in a trace or an island */
    size_t size;
    uint32_t cfa_offset;   /* of their rule */
};

enum interrupted_in {
    IN_UNKNOWN,   /* not to be told */
    IN_FOUND,     /* the answer says where the caller is */
    IN_RECORD,    /* the frame's record is at FP */
    IN_NOTHING    /* no frame: the return address is where a call leaves it */
};

/* The stub of the library that the call before a return address is of, or NULL: not to be told. */
const struct stub *interrupted_callee(const struct interrupted *at);

enum interrupted_in interrupted_find(const struct interrupted *at, struct frame_answer *answer);

/*
 * The same of code that a call is about to return to, at at->pc, with at->sp the SP then;
 * `generation` is that of its span.  IN_RECORD: it keeps its record at FP, as far as its
 * instructions tell.  IN_FOUND: they find the caller elsewhere, unless the call never returns.
 * IN_UNKNOWN: neither.  Remembers what the instructions say.
 */
enum interrupted_in interrupted_returning(const struct interrupted *at, uint32_t generation,
                                          struct frame_answer *answer);

#endif
