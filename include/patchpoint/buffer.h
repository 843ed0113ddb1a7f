/* SPDX-License-Identifier: MIT */
/*
 * Buffers: where a body of PP_BUFFER (osr.h) finds its values.
 *
 * They belong to a thread, are all of one size, and lie in memory of the host, so that
 * a transition allocates nothing.  It takes one; the body, or whoever the body hands it
 * to, gives it back.  A thread that has none left stays in tier-0 at that pass.
 *
 *      for each thread     memory = aligned_alloc(16, pp_buffer_space(256, 8));
 *                          pp_thread_set_buffers(&thread, memory, 256, 8)
 *      body(buffer)        loads its values, calls pp_buffer_release(&thread, buffer)
 *      thread's end        pp_thread_set_buffers(&thread, NULL, 0, 0); free(memory)
 *
 * One is enough for a body that gives it back before it calls anything.  Bodies that
 * keep theirs want one for each activation, as recursion has it.
 */
#ifndef PATCHPOINT_BUFFER_H
#define PATCHPOINT_BUFFER_H

#include <patchpoint/activation.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PP_BUFFERS_MAX 1024         /* of a thread */
#define PP_BUFFER_BYTES_MAX (1 << 28)

/* Bytes of memory that so many buffers of this size take; 0: more than is possible, or none. */
PP_API size_t pp_buffer_space(size_t bytes, size_t count);

/*
 * Give a thread its buffers, or others than it had: pp_buffer_space bytes, 16-aligned,
 * which stay the host's and are the library's until they are taken back.  All NULL and
 * 0: take them back.  By the thread itself, or while it runs no compiled code.  PP_E_ARG;
 * PP_E_BUSY, and nothing changed, if a buffer that the thread has is in use.
 * pp_thread_init forgets them.
 */
PP_API pp_status pp_thread_set_buffers(pp_thread *thread, void *memory, size_t bytes,
                                       size_t count) PP_MUST_CHECK;

/*
 * Give a buffer back.  Also for compiled code to call, and for other threads.  PP_E_STALE:
 * nobody has it, so it was given back before.  It is taken again as late as possible, but
 * by then giving it back twice is another's loss.  PP_E_FAULT: no buffer of this thread.
 * Lock-free and async-signal-safe.
 */
PP_API pp_status pp_buffer_release(pp_thread *thread, const void *buffer);

/*
 * The buffer in use that comes after `buffer` in memory, or the first if that is NULL;
 * NULL: no more.  For hosts whose collector has to look into them.  Async-signal-safe.
 */
PP_API void *pp_buffer_next(const pp_thread *thread, const void *buffer);

/*
 * For hosts that leave bodies by exceptions or longjmp: give back the buffers of all
 * bodies whose frames were below the caller's, on the thread's stack, and are gone.  By
 * the thread itself, with no buffer handed on by a body that has returned.  Returns how
 * many there were.  Async-signal-safe.
 */
PP_API size_t pp_buffer_reclaim(pp_thread *thread);

#ifdef __cplusplus
}
#endif
#endif
