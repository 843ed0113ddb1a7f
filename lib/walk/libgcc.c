/* SPDX-License-Identifier: MIT */
/*
 * libgcc's unwinder.  It gets memory for its object from here, so that it need not ask.
 *
 * Up to version 12 a lookup takes a mutex as soon as anything is registered.  From 13 on
 * readers take no lock, but the first one that meets an object sorts it under a mutex, and
 * so do all others as long as there is no memory for it: so the object is looked up here,
 * before anything can run where it is for.
 *
 * All signals are blocked meanwhile: a handler that unwinds, in the midst of a change by
 * its own thread, would wait for itself with either version.
 */
#include <config.h>

#include "walk/libgcc.h"

#include "error.h"
#include "os/fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* A node of its tree, and most nodes that a registration may need. */
#define TREE_NODE_BYTES 256
#define TREE_NODES 7

struct dwarf_eh_bases {
    void *tbase, *dbase, *func;
};

typedef void register_fn(const void *eh_frame, void *object);
typedef void *deregister_fn(const void *eh_frame);
typedef const void *find_fn(void *pc, struct dwarf_eh_bases *bases);

extern register_fn __register_frame_info __attribute__((weak));
extern deregister_fn __deregister_frame_info __attribute__((weak));
extern find_fn _Unwind_Find_FDE __attribute__((weak));

/* Threads that look at the same time find the same, and may all write it. */
static struct {
    _Atomic(register_fn *) register_info;
    _Atomic(deregister_fn *) deregister_info;
    _Atomic(find_fn *) find_fde;
} libgcc;

/*
 * Linked with the program, or loaded: a host that throws may come later than its first
 * pool.  The handle is kept, because nothing that holds an object may be unloaded.
 */
bool libgcc_find(void)
{
    register_fn *register_info = __register_frame_info;
    deregister_fn *deregister_info = __deregister_frame_info;
    find_fn *find_fde = _Unwind_Find_FDE;
    if (register_info == NULL || deregister_info == NULL || find_fde == NULL) {
        void *library = dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL);
        if (library == NULL)
            return false;
        *(void **) &register_info = dlsym(library, "__register_frame_info");
        *(void **) &deregister_info = dlsym(library, "__deregister_frame_info");
        *(void **) &find_fde = dlsym(library, "_Unwind_Find_FDE");
    }
    if (register_info == NULL || deregister_info == NULL || find_fde == NULL)
        return false;
    atomic_store(&libgcc.register_info, register_info);
    atomic_store(&libgcc.deregister_info, deregister_info);
    atomic_store(&libgcc.find_fde, find_fde);
    return true;
}

static void signals_block(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

static void signals_restore(const sigset_t *before) { pthread_sigmask(SIG_SETMASK, before, NULL); }

/*
 * From version 13 on libgcc asks malloc for the nodes of its tree and does not look at the
 * answer.  If there is as much now, and it goes back at once, then an allocator that
 * keeps for a thread what the thread frees has it a moment later.
 */
static bool has_memory(void)
{
    void *probes[TREE_NODES];
    unsigned count = 0;
    int number;
    if (fault_fires(PP_FAULT_METADATA, &number))
        return false;
    while (count < TREE_NODES && (probes[count] = malloc(TREE_NODE_BYTES)) != NULL)
        count++;
    bool all = count == TREE_NODES;
    while (count-- > 0) {
        __asm__ volatile("" : "+r"(probes[count])); /* else the compiler leaves both calls out */
        free(probes[count]);
    }
    return all;
}

/* Whether it is found now, and without a lock later: the fourth word is ours until it is sorted. */
static pp_status check(const uint8_t *eh_frame, size_t size, const struct libgcc_object *object,
                       uintptr_t pc, pp_error *error)
{
    struct dwarf_eh_bases bases;
    const uint8_t *fde = atomic_load(&libgcc.find_fde)((void *) pc, &bases);
    if (fde == NULL || (size_t) (fde - eh_frame) >= size)
        return error_set(error, PP_E_UNSUPPORTED, "libgcc's unwinder does not find what it was "
                         "told: the host has told it of the same addresses, or another libgcc answers");
    if (object->words[3] == eh_frame)
        return error_set(error, PP_E_NOMEM, "no memory inside libgcc's unwinder");
    return PP_OK;
}

static pp_status register_blocked(const uint8_t *eh_frame, size_t size,
                                  struct libgcc_object *object, uintptr_t pc, pp_error *error)
{
    if (!has_memory())
        return error_set(error, PP_E_NOMEM, "no memory for libgcc's unwinder");
    memset(object, 0, sizeof *object);
    atomic_load(&libgcc.register_info)(eh_frame, object);
    pp_status status = check(eh_frame, size, object, pc, error);
    if (status != PP_OK)
        atomic_load(&libgcc.deregister_info)(eh_frame);
    return status;
}

pp_status libgcc_register(const uint8_t *eh_frame, size_t size, struct libgcc_object *object,
                          uintptr_t pc, pp_error *error)
{
    sigset_t before;
    int saved = errno;
    signals_block(&before);
    pp_status status = register_blocked(eh_frame, size, object, pc, error);
    signals_restore(&before);
    errno = saved;
    return status;
}

void libgcc_deregister(const uint8_t *eh_frame)
{
    sigset_t before;
    signals_block(&before);
    atomic_load(&libgcc.deregister_info)(eh_frame);
    signals_restore(&before);
}
