/* SPDX-License-Identifier: MIT */
/* Filling in a caller's pp_error. */
#include <config.h>

#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A caller's struct may be older and shorter than ours; it is then left alone. */
static void fill(pp_error *error, pp_status status, const char *call, int number, size_t index,
                 const char *format, va_list arguments)
{
    if (error == NULL || error->size < sizeof *error)
        return;
    error->status = status;
    error->system_call = call;
    error->system_errno = number;
    error->reloc_index = index;
    vsnprintf(error->text, sizeof error->text, format, arguments);
}

pp_status error_set(pp_error *error, pp_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(error, status, NULL, 0, PP_NO_RELOC, format, arguments);
    va_end(arguments);
    return status;
}

static void fill_text(pp_error *error, pp_status status, const char *call, int number,
                      const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(error, status, call, number, PP_NO_RELOC, format, arguments);
    va_end(arguments);
}

pp_status error_system(pp_error *error, pp_status status, const char *call, int number)
{
    char reason[64] = "";
    /* The XSI and the GNU form of strerror_r differ; this one has a name in between. */
    const char *name = strerrordesc_np(number);
    snprintf(reason, sizeof reason, "%s", name != NULL ? name : "unknown error");
    fill_text(error, status, call, number, "%s: %s", call, reason);
    return status;
}

pp_status error_copy(pp_error *error, const pp_error *from)
{
    if (error != NULL && error->size >= sizeof *error) {
        size_t size = error->size;
        *error = *from;
        error->size = size;
    }
    return from->status;
}

pp_status error_reloc(pp_error *error, pp_status status, size_t index, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fill(error, status, NULL, 0, index, format, arguments);
    va_end(arguments);
    return status;
}
