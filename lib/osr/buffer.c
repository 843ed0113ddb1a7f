/* SPDX-License-Identifier: MIT */
/*
 * A thread's buffers: a word for each says whose it is, and changes by compare-and-swap
 * only, so that signal handlers that run compiled code on the same thread, and threads
 * that give back another's buffer, need no lock.
 *
 *      0           free
 *      fp + 1      reserved for the frame at fp, which is about to leave tier-0
 *      fp          of the body that took the place of the frame at fp
 *
 * Frames that lie deeper than a running one are gone; so is an earlier frame at the
 * same address.
 */
#include <config.h>

#include "osr/buffer.h"

#include <stdatomic.h>
#include <stdbool.h>

#define SEAL UINT64_C(0x7070427566666572) /* "ppBuffer" */
#define ALIGN 16
#define RESERVED ((uintptr_t) 1)

/* In the host's memory, with the buffers behind it.  All but the atomics is constant. */
struct buffers {
    uint64_t seal;          /* SEAL ^ address, while a thread has them */
    size_t bytes;           /* of each */
    size_t stride;          /* from one to the next */
    uint32_t count;
    _Atomic uint32_t next;  /* where the search for a free one begins; any value is right */
    char *first;
    _Atomic uintptr_t owners[];
};

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGN - 1) & ~(size_t) (ALIGN - 1);
}

static size_t head_bytes(size_t count)
{
    return round_up(sizeof(struct buffers) + count * sizeof(uintptr_t));
}

static uint64_t seal_of(const struct buffers *buffers)
{
    return SEAL ^ (uintptr_t) buffers;
}

static struct buffers *buffers_of(const pp_thread *thread)
{
    struct buffers *buffers = (struct buffers *) thread->buffers;
    return buffers != NULL && buffers->seal == seal_of(buffers) ? buffers : NULL;
}

size_t pp_buffer_space(size_t bytes, size_t count)
{
    if (bytes == 0 || bytes > PP_BUFFER_BYTES_MAX || count == 0 || count > PP_BUFFERS_MAX
        || round_up(bytes) > (SIZE_MAX - head_bytes(count)) / count)
        return 0;
    return head_bytes(count) + count * round_up(bytes);
}

static bool are_free(const struct buffers *buffers)
{
    for (uint32_t i = 0; i < buffers->count; i++)
        if (atomic_load_explicit(&buffers->owners[i], memory_order_acquire) != 0)
            return false;
    return true;
}

pp_status pp_thread_set_buffers(pp_thread *thread, void *memory, size_t bytes, size_t count)
{
    if (thread == NULL || (memory == NULL && (bytes != 0 || count != 0))
        || (memory != NULL && pp_buffer_space(bytes, count) == 0)
        || (uintptr_t) memory % ALIGN != 0)
        return PP_E_ARG;
    struct buffers *old = buffers_of(thread), *buffers = memory;
    if (old != NULL && !are_free(old))
        return PP_E_BUSY;
    thread->buffers = 0;
    if (old != NULL)
        old->seal = 0;
    if (buffers == NULL)
        return PP_OK;
    buffers->bytes = bytes;
    buffers->stride = round_up(bytes);
    buffers->count = (uint32_t) count;
    atomic_init(&buffers->next, 0);
    buffers->first = (char *) memory + head_bytes(count);
    for (size_t i = 0; i < count; i++)
        atomic_init(&buffers->owners[i], 0);
    buffers->seal = seal_of(buffers);
    thread->buffers = (uintptr_t) buffers;
    return PP_OK;
}

static bool change(struct buffers *buffers, uint32_t index, uintptr_t from, uintptr_t to)
{
    /* What the body before did with the buffer happened before what the next one does. */
    return atomic_compare_exchange_strong_explicit(&buffers->owners[index], &from, to,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

static uintptr_t owner_of(const struct buffers *buffers, uint32_t index)
{
    return atomic_load_explicit(&buffers->owners[index], memory_order_relaxed);
}

static bool in_stack(const pp_thread *thread, uintptr_t address)
{
    return address >= thread->stack_lo && address < thread->stack_hi;
}

/* Whether it is reserved for a frame that is gone, as one at `fp` is about to leave tier-0. */
static bool is_left_behind(const pp_thread *thread, uintptr_t owner, uintptr_t fp)
{
    uintptr_t frame = owner & ~RESERVED;
    return (owner & RESERVED) && frame <= fp && in_stack(thread, frame) && in_stack(thread, fp);
}

pp_status buffer_reserve(pp_thread *thread, uintptr_t fp, size_t bytes)
{
    struct buffers *buffers = buffers_of(thread);
    if (buffers == NULL)
        return PP_E_ABI;
    if (buffers->bytes < bytes)
        return PP_E_RANGE;
    uint32_t at = atomic_load_explicit(&buffers->next, memory_order_relaxed) % buffers->count;
    for (uint32_t i = 0; i < buffers->count; i++, at = at + 1 == buffers->count ? 0 : at + 1) {
        if (owner_of(buffers, at) == 0 && change(buffers, at, 0, fp | RESERVED)) {
            atomic_store_explicit(&buffers->next, at + 1, memory_order_relaxed);
            return PP_OK;
        }
    }
    for (uint32_t i = 0; i < buffers->count; i++) {
        uintptr_t owner = owner_of(buffers, i);
        if (is_left_behind(thread, owner, fp) && change(buffers, i, owner, fp | RESERVED))
            return PP_OK;
    }
    return PP_E_NOMEM;
}

void *buffer_take(pp_thread *thread, uintptr_t fp)
{
    struct buffers *buffers = buffers_of(thread);
    if (buffers == NULL)
        return NULL;
    /* Mostly it is the latest that was reserved. */
    uint32_t at = atomic_load_explicit(&buffers->next, memory_order_relaxed) % buffers->count;
    for (uint32_t i = 0; i < buffers->count; i++) {
        at = at == 0 ? buffers->count - 1 : at - 1;
        if (owner_of(buffers, at) == (fp | RESERVED) && change(buffers, at, fp | RESERVED, fp))
            return buffers->first + at * buffers->stride;
    }
    return NULL;
}

pp_status pp_buffer_release(pp_thread *thread, const void *buffer)
{
    if (thread == NULL || buffer == NULL)
        return PP_E_ARG;
    struct buffers *buffers = buffers_of(thread);
    if (buffers == NULL)
        return PP_E_FAULT;
    size_t distance = (uintptr_t) buffer - (uintptr_t) buffers->first;
    if (distance % buffers->stride != 0 || distance / buffers->stride >= buffers->count)
        return PP_E_FAULT;
    uint32_t index = (uint32_t) (distance / buffers->stride);
    uintptr_t owner = owner_of(buffers, index);
    /* One that is reserved was given to nobody yet. */
    if (owner == 0 || (owner & RESERVED) || !change(buffers, index, owner, 0))
        return PP_E_STALE;
    return PP_OK;
}

void *pp_buffer_next(const pp_thread *thread, const void *buffer)
{
    const struct buffers *buffers = thread == NULL ? NULL : buffers_of(thread);
    if (buffers == NULL)
        return NULL;
    size_t distance = (uintptr_t) buffer - (uintptr_t) buffers->first;
    size_t index = buffer == NULL ? 0 : distance / buffers->stride + 1;
    for (; index < buffers->count; index++) {
        uintptr_t owner = atomic_load_explicit(&buffers->owners[index], memory_order_acquire);
        if (owner != 0 && !(owner & RESERVED))
            return buffers->first + index * buffers->stride;
    }
    return NULL;
}

size_t pp_buffer_reclaim(pp_thread *thread)
{
    struct buffers *buffers = thread == NULL ? NULL : buffers_of(thread);
    uintptr_t here = (uintptr_t) __builtin_frame_address(0);
    size_t reclaimed = 0;
    if (buffers == NULL || !in_stack(thread, here))
        return 0;
    for (uint32_t i = 0; i < buffers->count; i++) {
        uintptr_t owner = owner_of(buffers, i);
        if (owner != 0 && owner < here && in_stack(thread, owner))
            reclaimed += change(buffers, i, owner, 0);
    }
    return reclaimed;
}
