/* SPDX-License-Identifier: MIT */
/* What a pool is created with. */
#ifndef MEMORY_OPTIONS_H
#define MEMORY_OPTIONS_H

#include "memory/state.h"

/*
 * Validate the options, and keep them in a pool that has no regions.  PP_E_ARG,
 * PP_E_NOMEM; options_forget all the same.
 */
pp_status options_set(pp_pool *pool, const pp_pool_options *options);
void options_forget(pp_pool *pool);

#endif
