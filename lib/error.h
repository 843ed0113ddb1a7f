/* SPDX-License-Identifier: MIT */
/* Filling in a caller's pp_error. */
#ifndef ERROR_H
#define ERROR_H

#include <patchpoint/status.h>

/* Each returns `status`, so that `return error_set(...)` reads well.  `error` may be NULL. */
pp_status error_set(pp_error *error, pp_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The kernel refused `call` with `number` (an errno). */
pp_status error_system(pp_error *error, pp_status status, const char *call, int number);

/* The reason that `from`, which is complete, has. */
pp_status error_copy(pp_error *error, const pp_error *from);

/* Relocation `index` is at fault. */
pp_status error_reloc(pp_error *error, pp_status status, size_t index, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
