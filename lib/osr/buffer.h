/* SPDX-License-Identifier: MIT */
/*
 * Buffers from inside: reserved for a frame while tier-0 can still go on, and
 * taken by the transition of that frame, which cannot fail.
 */
#ifndef OSR_BUFFER_H
#define OSR_BUFFER_H

#include <patchpoint/buffer.h>

/*
 * Reserve one of at least `bytes` for the frame at `fp`.  What an earlier attempt of a
 * frame that is gone left reserved is used when nothing else is free.  PP_E_ABI: the
 * thread has no buffers; PP_E_RANGE: they are too small; PP_E_NOMEM: all are in use.
 * Lock-free and async-signal-safe.
 */
pp_status buffer_reserve(pp_thread *thread, uintptr_t fp, size_t bytes);

/* The buffer that is reserved for this frame is in use from here on; NULL: there is none. */
void *buffer_take(pp_thread *thread, uintptr_t fp);

#endif
