/* SPDX-License-Identifier: MIT */
/*
 * Resuming: leaving every C frame of the newest activation by one jump, after
 * everything that can be checked has been.
 */
#include <config.h>

#include "isa/isa.h"
#include "link/trace.h"
#include "memory/pool.h"

#include "stub.h"
#include "thread_stack.h"

#include <patchpoint/osr.h>

#include <stdbool.h>

#define RECORD_BYTES 16

/* There if the host is built with the address sanitizer: no frame above is left by its epilogue. */
extern void __asan_handle_no_return(void) __attribute__((weak));

/* Whether compiled code is published there: not a trampoline, literal or data. */
static bool is_code(uintptr_t pc)
{
    struct code_place place;
    return pc % isa_host.code_align == 0 && code_at(pc, &place)
        && pc - place.start < code_bytes_at(&place);
}

static bool in_stack(const pp_thread *thread, uintptr_t address, size_t bytes)
{
    return thread_stack_holds(thread, address, bytes);
}

/* The newest activation record, or NULL if there is none or it is not what pp_enter wrote. */
static const struct anchor *newest(const pp_thread *thread)
{
    uintptr_t address = thread->anchor;
    if (address % 8 != 0 || !in_stack(thread, address, sizeof(struct anchor)))
        return NULL;
    const struct anchor *anchor = (const struct anchor *) address;
    if (anchor->cookie != (thread->cookie ^ address)
        || anchor->fp + PP_ENTER_ANCHOR_OFFSET != address)
        return NULL;
    return anchor;
}

/* `floor`: the lowest SP that drops all C frames and leaves compiled code's. */
static bool in_activation(const pp_thread *thread, const struct anchor *anchor, uintptr_t floor,
                          const pp_resume_point *point)
{
    uintptr_t top = (uintptr_t) anchor;
    if (thread->exit_fp != 0 && thread->exit_fp + RECORD_BYTES > floor)
        floor = thread->exit_fp + RECORD_BYTES;
    return point->sp % 16 == 0 && point->fp % 8 == 0 && point->sp >= floor
        && point->sp <= point->fp && point->fp < top && top - point->fp >= RECORD_BYTES;
}

pp_status pp_resume(pp_thread *thread, const pp_resume_point *point)
{
    if (thread == NULL || point == NULL)
        return PP_E_ARG;
    if (!is_code(point->pc))
        return PP_E_FAULT;
    const struct anchor *anchor = newest(thread);
    uintptr_t own = (uintptr_t) __builtin_frame_address(0);
    if (anchor == NULL || !in_stack(thread, own, 1)
        || !in_activation(thread, anchor, own + RECORD_BYTES, point))
        return PP_E_STACK;
    pp_resume_point copy = *point; /* the host's may lie in a frame that goes */
    if (__asan_handle_no_return != NULL)
        __asan_handle_no_return();
    frame_resume(thread, &copy);
    return PP_E_UNSUPPORTED;
}
