/* SPDX-License-Identifier: MIT */
/*
 * Who owns a span.  An owner begins with what it is, is 16-byte aligned, lives as
 * long as the pool and never changes its kind: whoever found it may look, however
 * late.  A span without an owner is being filled and is nobody's code yet.
 */
#ifndef MEMORY_OWNER_H
#define MEMORY_OWNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum owner_kind {
    OWNER_TRACE = 1,   /* the first member of a struct trace */
    OWNER_SPAN_OPEN,   /* span_open: of the host, being written */
    OWNER_SPAN,        /* span_published: of the host, to be run */
    OWNER_SPAN_RETIRED /* of the host, given up, maybe running: a record of lib/patch */
};

struct owner {
    uint32_t kind; /* enum owner_kind */
};

/* The owners of all spans of the host that are in these states. */
struct owner_tag {
    _Alignas(16) struct owner owner;
};
extern const struct owner_tag span_open, span_published;

/* Stands for each of them where one is asked for; no span has it. */
extern const struct owner_tag span_any;

static inline bool owner_is_host(const struct owner *owner)
{
    return owner != NULL && (owner->kind == OWNER_SPAN || owner->kind == OWNER_SPAN_OPEN);
}

#endif
