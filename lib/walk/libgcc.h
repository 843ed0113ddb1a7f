/* SPDX-License-Identifier: MIT */
/* Registration with libgcc's unwinder, which throws C++ exceptions. */
#ifndef WALK_LIBGCC_H
#define WALK_LIBGCC_H

#include <patchpoint/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What libgcc keeps of a registration: 7 words at most, until now. */
struct libgcc_object {
    void *words[16];
};

/* Look for it, and load it if need be.  False: it is not to be had. */
bool libgcc_find(void);

/*
 * Register an .eh_frame with a terminator, of at most `size` bytes; one of its rows covers
 * `pc`.  Both structs stay where they are until it is deregistered.  PP_E_NOMEM;
 * PP_E_UNSUPPORTED: it does not answer.  Only after libgcc_find has found it.
 */
pp_status libgcc_register(const uint8_t *eh_frame, size_t size, struct libgcc_object *object,
                          uintptr_t pc, pp_error *error);
void libgcc_deregister(const uint8_t *eh_frame);

#endif
