/* SPDX-License-Identifier: MIT */
/*
 * Status codes.  Every function that can fail returns a pp_status; PP_OK is 0
 * and the failures are negative.  A refused operation leaves everything as it
 * was before the call.
 */
#ifndef PATCHPOINT_STATUS_H
#define PATCHPOINT_STATUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PP_VERSION_MAJOR 0
#define PP_VERSION_MINOR 1
#define PP_VERSION_PATCH 0
#define PP_VERSION_NUMBER (PP_VERSION_MAJOR * 10000 + PP_VERSION_MINOR * 100 + PP_VERSION_PATCH)

#if defined __GNUC__
#define PP_MUST_CHECK __attribute__((warn_unused_result))
#define PP_API __attribute__((visibility("default")))
#else
#define PP_MUST_CHECK
#define PP_API
#endif

typedef enum pp_status {
    PP_OK = 0,
    PP_E_ARG = -1,         /* an argument is null, malformed or out of its documented range */
    PP_E_NOMEM = -2,       /* memory, address space or a configured limit is used up */
    PP_E_RANGE = -3,       /* a branch or a relocated field cannot hold the distance */
    PP_E_STACK = -4,       /* not enough stack, or an address outside the thread's stack */
    PP_E_ABI = -5,         /* two records disagree: frame layout, style, architecture, magic */
    PP_E_STALE = -6,       /* a handle of something that was freed */
    PP_E_BUSY = -7,        /* still in use; nothing was released */
    PP_E_UNSUPPORTED = -8, /* this machine or this configuration cannot do it */
    PP_E_FAULT = -9,       /* a callback of the host failed, or an address is not ours */
    PP_E_SYSTEM = -10      /* the kernel refused; pp_error has the call and its errno */
} pp_status;

/*
 * The reason behind a status, filled in by a function whose options or
 * description points to one.  The caller owns it and sets `size`.  The text
 * names the call, the relocation or the field at fault and is always
 * terminated.  Untouched by a call that succeeds.
 */
typedef struct pp_error {
    size_t size;
    pp_status status;
    int system_errno;     /* errno of `system_call`, or 0 */
    const char *system_call; /* name of the system call at fault, or NULL; static storage */
    size_t reloc_index;   /* index of the relocation at fault, or PP_NO_RELOC */
    char text[160];
} pp_error;

#define PP_NO_RELOC ((size_t) -1)

/* The name of a status as a short sentence.  Static storage; never NULL; async-signal-safe. */
PP_API const char *pp_strerror(int status);

/* PP_VERSION_NUMBER of the library that is running, to compare with the header's. */
PP_API unsigned pp_version(void);

#ifdef __cplusplus
}
#endif
#endif
