/* SPDX-License-Identifier: MIT */
/*
 * Faults by script: chosen requests of the library to the kernel and to its
 * allocator fail, in any build, so that a host can test what it does then.
 *
 *      pp_fault script[4];
 *      size_t count;
 *      status = pp_fault_parse("mmap:3,metadata:5+2=ENOMEM", script, 4, &count, NULL);
 *      status = pp_fault_set(script, count);
 *      ... status = pp_trace_link(pool, &desc, &trace) ...
 *      status = pp_fault_set(NULL, 0);
 *
 * A script is for the whole process and only for this library: the host's own
 * calls never fail by it.  What gives something back (munmap, close, freeing
 * metadata) is not failed, because nothing can be done about it.  Without a script
 * a request costs one load more.
 */
#ifndef PATCHPOINT_FAULT_H
#define PATCHPOINT_FAULT_H

#include <patchpoint/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What can fail.  The errno behind each is the one of a script that names none. */
typedef enum pp_fault_call {
    PP_FAULT_MMAP,          /* ENOMEM */
    PP_FAULT_MPROTECT,      /* ENOMEM */
    PP_FAULT_MADVISE,       /* ENOMEM */
    PP_FAULT_MEMFD_CREATE,  /* EMFILE */
    PP_FAULT_FTRUNCATE,     /* EFBIG */
    PP_FAULT_FALLOCATE,     /* ENOSPC */
    PP_FAULT_FCNTL,         /* EPERM: seals */
    PP_FAULT_MEMBARRIER,    /* EPERM */
    PP_FAULT_METADATA,      /* ENOMEM: bookkeeping, and what else the C library allocates for it */
    PP_FAULT_OPEN,          /* EMFILE: the list of mappings */
    PP_FAULT_CALLS          /* how many there are; in a script: any of them, counted together */
} pp_fault_call;

#define PP_FAULT_ANY PP_FAULT_CALLS /* "any"; each fails with the usual errno of its own */

typedef struct pp_fault {
    pp_fault_call call;
    int error;       /* errno; 0: the usual one of the call */
    uint64_t first;  /* which call fails first: 1 is the next */
    uint64_t count;  /* how many fail; 0: all from the first on */
} pp_fault;

#define PP_FAULT_ROWS 16 /* most faults in a script */

/*
 * Replace the script by a copy of this one; all counts begin at 0.  Calls are
 * counted over all threads.  count 0 ends the script.  PP_E_ARG: an unknown
 * call, an errno that is none, `first` 0; PP_E_RANGE: more than PP_FAULT_ROWS.  A
 * child inherits script and counts.  Any thread may do it at any time; a call
 * that another thread has begun belongs to the old script or to the new one.
 */
PP_API pp_status pp_fault_set(const pp_fault *script, size_t count) PP_MUST_CHECK;

/*
 * Calls since the script was set, those that failed by it included; and how many
 * failed by it.  0 without a script, and for an unknown call.  Async-signal-safe.
 */
PP_API uint64_t pp_fault_seen(pp_fault_call call);
PP_API uint64_t pp_fault_hit(pp_fault_call call);

/*
 * A script from its text: items with commas between, each
 *
 *      CALL:FIRST[+COUNT][=ERRNO]
 *
 * CALL is a name of pp_fault_name, or "any"; COUNT is 1 if it is not there, and *
 * for all; ERRNO is a name or a number.  PP_E_ARG with the item at fault in
 * `error` (NULL is allowed); PP_E_RANGE: more than `capacity` items.  Nothing is stored
 * then.
 */
PP_API pp_status pp_fault_parse(const char *text, pp_fault *script, size_t capacity,
                                size_t *count, pp_error *error) PP_MUST_CHECK;

/* "mmap", "metadata" and so on; "any"; NULL for an unknown call.  Static storage. */
PP_API const char *pp_fault_name(pp_fault_call call);

#ifdef __cplusplus
}
#endif
#endif
