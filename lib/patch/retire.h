/* SPDX-License-Identifier: MIT */
/* What is retired in a pool: lists in the order of tickets, and records for spans. */
#ifndef PATCH_RETIRE_H
#define PATCH_RETIRE_H

#include "memory/pool.h"
#include "memory/retired.h"

#include <patchpoint/trace.h>

/* A span of the host that was retired, as its owner from then on. */
struct retired_span {
    _Alignas(16) struct owner owner; /* OWNER_SPAN_RETIRED, with the rule that the span had */
    struct retired retired;
    struct span span;
};

/*
 * pp_trace_retire for code of the library's own that leads threads on: a stack that holds
 * it holds what is at `leads`, too.
 */
pp_status trace_retire(pp_pool *pool, pp_trace *trace, uintptr_t leads) PP_MUST_CHECK;

/* What is retired there, if this is the owner of a span, or NULL. */
struct retired *retired_of(const struct owner *owner);

/* The span of what was retired. */
const struct span *retired_place(const struct retired *retired);

/* For the table of rooms. */
extern const struct pool_room patch_room;

#endif
