/* SPDX-License-Identifier: MIT */
/*
 * Activations: from C into compiled code, and out to C again.
 *
 * pp_enter calls compiled code and leaves an activation record (an anchor) in
 * its frame; pp_leave calls C from compiled code and notes the frame record it
 * left from.  Between them a walker knows every frame of compiled code and
 * never has to guess at C frames.
 */
#ifndef PATCHPOINT_ACTIVATION_H
#define PATCHPOINT_ACTIVATION_H

#include <patchpoint/layout.h>
#include <patchpoint/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * One for each thread (or fiber) that runs compiled code.  The host owns the
 * memory; it must stay until the last activation has returned.  The fields are
 * read by walkers, written by stubs, and otherwise the library's.
 */
typedef struct pp_thread {
    uintptr_t anchor;
    uintptr_t exit_fp;
    uintptr_t stack_lo;
    uintptr_t stack_hi;
    uintptr_t cookie;
    uintptr_t buffers;
    uintptr_t signal_lo;
    uintptr_t signal_hi;
} pp_thread;

/*
 * Prepare a thread record.  stack_lo and stack_hi bound the stack that the
 * thread will run on; both NULL: the calling thread's own stack, which the
 * operating system is asked for.  A signal stack need not be named: pp_enter notices it.
 * Errors: PP_E_ARG, PP_E_SYSTEM.
 */
PP_API pp_status pp_thread_init(pp_thread *thread, const void *stack_lo,
                                const void *stack_hi) PP_MUST_CHECK;

/*
 * Call compiled code with up to four arguments by the C calling convention and
 * return what it returns.  All callee-saved registers are kept, even if the
 * code does not.  C++ exceptions and unwinders pass through, if the pool tells them of the
 * compiled code (pp_pool_options.unwinders); for longjmp see pp_thread_rewind.  Calls may
 * nest, also on a signal stack (sigaltstack) while the thread's own stack is in compiled
 * code: the first time there the system is asked where that is, unless the stack has
 * SS_AUTODISARM, which hides it; walks end there then.  Takes no lock, and makes no other
 * system call.
 */
PP_API uintptr_t pp_enter(pp_thread *thread, const void *code, uintptr_t a, uintptr_t b,
                          uintptr_t c, uintptr_t d);

/*
 * For hosts that leave compiled code by longjmp or by switching to another
 * context, past pp_enter: take a mark where setjmp is called, and rewind to it
 * after the jump.  C++ exceptions, pthread_exit and pthread_cancel need nothing:
 * they take activations off the thread as their frames go.  A thread that is not
 * rewound would keep a record of a frame that is gone, and walks of it end
 * broken.  Both are async-signal-safe.
 */
typedef struct pp_mark {
    uintptr_t anchor;
    uintptr_t exit_fp;
} pp_mark;

PP_API pp_mark pp_thread_mark(const pp_thread *thread);
PP_API void pp_thread_rewind(pp_thread *thread, pp_mark mark);

/*
 * Not a C function: the target of a call from compiled code that wants to
 * reach a C function and stay visible to walkers.
 *
 *              x86-64   AArch64
 *      in      r10      x17      the pp_thread
 *              r11      x15      the C function
 *      args    in registers only, by the C calling convention
 *      out     as the C function returns
 *
 * Compiled code must have a frame record (PP_FRAME_RECORD, PP_FRAME_OSR).
 */
PP_API void pp_leave(void);

#ifdef __cplusplus
}
#endif
#endif
