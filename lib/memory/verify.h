/* SPDX-License-Identifier: MIT */
/* Checks of a pool against the list of the process's mappings. */
#ifndef MEMORY_VERIFY_H
#define MEMORY_VERIFY_H

#include "memory/state.h"

/*
 * Every part of every region is mapped as it has to be, in the constant number of
 * mappings.  PP_OK too if the list cannot be read.
 */
pp_status verify_mappings_locked(pp_pool *pool, pp_error *error);

#endif
