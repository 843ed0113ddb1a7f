/* SPDX-License-Identifier: MIT */
/* Names of status codes, and the version. */
#include <config.h>

#include <patchpoint/status.h>

const char *pp_strerror(int status)
{
    switch ((pp_status) status) {
    case PP_OK: return "success";
    case PP_E_ARG: return "invalid argument";
    case PP_E_NOMEM: return "out of memory or address space";
    case PP_E_RANGE: return "out of branch or field range";
    case PP_E_STACK: return "not enough stack, or not in the stack";
    case PP_E_ABI: return "records do not fit each other";
    case PP_E_STALE: return "stale handle";
    case PP_E_BUSY: return "still in use";
    case PP_E_UNSUPPORTED: return "not supported here";
    case PP_E_FAULT: return "bad address, or a callback failed";
    case PP_E_SYSTEM: return "refused by the system";
    }
    return "unknown status";
}

unsigned pp_version(void)
{
    return PP_VERSION_NUMBER;
}
