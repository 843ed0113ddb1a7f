/* SPDX-License-Identifier: MIT */
/* Thread records: where a thread's stack is, and the cookie of its activations. */
#include <config.h>

#include <patchpoint/activation.h>

#include "stub.h"
#include "thread_stack.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/auxv.h>

/* The finalizer of splitmix64: every bit of the result depends on every bit of x. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Differs for every call; cannot be told without the kernel's random bytes of this process. */
static uint64_t draw_cookie(void)
{
    static _Atomic uint64_t drawn;
    uint64_t random[2] = { 0, 0 };
    const void *kernel = (const void *) getauxval(AT_RANDOM);
    if (kernel != NULL)
        memcpy(random, kernel, sizeof random);
    uint64_t n = atomic_fetch_add_explicit(&drawn, 1, memory_order_relaxed);
    return mix(mix(random[0] + n) ^ random[1]);
}

static pp_status find_stack(uintptr_t *lo, uintptr_t *hi)
{
    pthread_attr_t attributes;
    void *address;
    size_t size;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0)
        return PP_E_SYSTEM;
    int failed = pthread_attr_getstack(&attributes, &address, &size);
    pthread_attr_destroy(&attributes);
    if (failed)
        return PP_E_SYSTEM;
    *lo = (uintptr_t) address;
    *hi = (uintptr_t) address + size;
    return PP_OK;
}

pp_status pp_thread_init(pp_thread *thread, const void *stack_lo, const void *stack_hi)
{
    if (thread == NULL || (stack_lo == NULL) != (stack_hi == NULL))
        return PP_E_ARG;
    uintptr_t lo = (uintptr_t) stack_lo, hi = (uintptr_t) stack_hi;
    if (stack_lo == NULL) {
        pp_status status = find_stack(&lo, &hi);
        if (status != PP_OK)
            return status;
    }
    if (lo >= hi)
        return PP_E_ARG;
    *thread = (pp_thread) { .stack_lo = lo, .stack_hi = hi, .cookie = draw_cookie() };
    return PP_OK;
}

/*
 * A handler that interrupts this one is on the same signal stack: it finds bounds that are
 * empty, or right.
 */
void enter_elsewhere(pp_thread *thread)
{
    uintptr_t here = (uintptr_t) __builtin_frame_address(0);
    int number = errno;
    stack_t stack;
    if (thread_stack_holds(thread, here, 1))
        return;
    if (sigaltstack(NULL, &stack) == 0 && here - (uintptr_t) stack.ss_sp < stack.ss_size) {
        thread->signal_hi = 0;
        atomic_signal_fence(memory_order_seq_cst);
        thread->signal_lo = (uintptr_t) stack.ss_sp;
        atomic_signal_fence(memory_order_seq_cst);
        thread->signal_hi = (uintptr_t) stack.ss_sp + stack.ss_size;
    }
    errno = number;
}

pp_mark pp_thread_mark(const pp_thread *thread)
{
    return (pp_mark) { thread->anchor, thread->exit_fp };
}

/*
 * A walk from a signal between the two stores finds an anchor below SP, and ends
 * broken at it, as it would have before.
 */
void pp_thread_rewind(pp_thread *thread, pp_mark mark)
{
    thread->exit_fp = mark.exit_fp;
    atomic_signal_fence(memory_order_seq_cst);
    thread->anchor = mark.anchor;
}
