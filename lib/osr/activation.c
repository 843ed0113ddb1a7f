/* SPDX-License-Identifier: MIT */
/*
 * Activations that end by an exception or by forced unwinding (pthread_exit,
 * pthread_cancel): pp_enter never gets to its own epilogue, so its personality
 * routine takes the activation off the thread when its frame goes.
 */
#include <config.h>

#include "stub.h"

#include <string.h>
#include <unwind.h>

/*
 * At its one call pp_enter has its activation record at SP + ANCHOR_FROM_SP, and
 * the thread right behind it.
 */
#if defined __x86_64__
#define ANCHOR_FROM_SP 16
#else
#define ANCHOR_FROM_SP 0
#endif

struct activation {
    struct anchor anchor;
    pp_thread *thread;
};
_Static_assert(sizeof(struct anchor) == PP_ANCHOR_SIZE, "pp_enter writes it");

_Unwind_Reason_Code enter_personality(int version, _Unwind_Action actions,
                                      _Unwind_Exception_Class class,
                                      struct _Unwind_Exception *exception,
                                      struct _Unwind_Context *context)
    __attribute__((visibility("hidden")));

/*
 * Called twice for each frame of pp_enter: in the search for a handler, of which
 * it has none, and when the frame is given up.
 */
_Unwind_Reason_Code enter_personality(int version, _Unwind_Action actions,
                                      _Unwind_Exception_Class class,
                                      struct _Unwind_Exception *exception,
                                      struct _Unwind_Context *context)
{
    (void) class;
    (void) exception;
    if (version != 1 || !(actions & _UA_CLEANUP_PHASE)
        || _Unwind_GetIP(context) != (uintptr_t) enter_return)
        return _URC_CONTINUE_UNWIND;
    /* The CFA that a personality routine is told is the one of the frame below: SP of this. */
    uintptr_t address = _Unwind_GetCFA(context) + ANCHOR_FROM_SP;
    struct activation activation;
    memcpy(&activation, (const void *) address, sizeof activation);
    pp_thread *thread = activation.thread;
    if (thread->anchor == address && activation.anchor.cookie == (thread->cookie ^ address)) {
        thread->exit_fp = activation.anchor.exit_fp;
        thread->anchor = activation.anchor.previous;
    }
    return _URC_CONTINUE_UNWIND;
}
