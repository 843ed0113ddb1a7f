/* SPDX-License-Identifier: MIT */
/*
 * What a walker checks before it believes a word from a stack.  Every function
 * is pure, reads only what it has found to lie in the thread's stack or in live
 * code, and may run in a signal handler.
 */
#ifndef WALK_CHECK_H
#define WALK_CHECK_H

#include "memory/pool.h"
#include "stub.h"

#include <patchpoint/walk.h>

/* A frame record: two words at FP on both architectures. */
struct frame_record {
    uintptr_t caller_fp;
    uintptr_t return_address;
};

/* What a return address leads to. */
enum return_to {
    RETURN_NOWHERE,  /* not to be believed */
    RETURN_TRACE,    /* into the code of a live trace */
    RETURN_ENTER     /* to pp_enter: the compiled frames of an activation end here */
};

/* Whether [address, address + size) lies in one of the thread's stacks. */
bool check_in_stack(const pp_thread *thread, uintptr_t address, size_t size);

/* Whether both lie in the same one: only then is the one above the other. */
bool check_same_stack(const pp_thread *thread, uintptr_t one, uintptr_t other);

/* A code address without what pointer authentication may have put into its high bits. */
uintptr_t check_strip(uintptr_t address);

/*
 * Read the frame record at fp and the CFA that belongs to it.  `floor` is what
 * the record must not lie below: the CFA of the frame before it, or SP.
 */
pp_check check_record(const pp_thread *thread, uintptr_t fp, uint32_t cfa_offset, uintptr_t floor,
                      struct frame_record *record);

/* A CFA that belongs to no record at FP, not below `floor`. */
pp_check check_cfa(const pp_thread *thread, uintptr_t cfa, uintptr_t floor);

/* Read a word of the stack, such as a return address at SP. */
pp_check check_word(const pp_thread *thread, uintptr_t address, uintptr_t *word);

/*
 * A return address, stripped.  RETURN_TRACE fills `place`, which belongs to the
 * byte before it: a call may be the last instruction of its trace.
 */
pp_check check_return(uintptr_t return_address, enum return_to *to,
                      struct code_place *place);

/* The part of it that remains when the trace, which begins at `start`, is known. */
pp_check check_call(uintptr_t return_address, uintptr_t start);

/* Read the activation record at `anchor`, not below `floor`. */
pp_check check_anchor(const pp_thread *thread, uintptr_t anchor, uintptr_t floor,
                      struct anchor *record);

#endif
