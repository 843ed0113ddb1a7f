/* SPDX-License-Identifier: MIT */
/*
 * Spans of the host: memory for code that the library knows nothing of.  What is kept
 * for one is its owner: that of its frame rule and state, or the record of what retired it.
 */
#ifndef MEMORY_CODE_H
#define MEMORY_CODE_H

#include "memory/pool.h"

#include <patchpoint/span.h>

/* Find a span of the host in this pool, in any state but retired.  PP_E_ARG, _FAULT, _STALE. */
pp_status span_find(const pp_pool *pool, const pp_span *handle, struct code_place *place);

#endif
