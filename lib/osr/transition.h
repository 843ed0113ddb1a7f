/* SPDX-License-Identifier: MIT */
/*
 * The code of an entry that does not leave tier-0's frame as it is, or that tells the body
 * an index: a small trace, which sites jump to.  It calls the transition stub with the
 * entry, if something moves.
 */
#ifndef OSR_TRANSITION_H
#define OSR_TRANSITION_H

#include "osr/entry.h"

/* Link the code of an entry that is complete but for this. */
pp_status transition_link(pp_pool *pool, struct entry *entry, pp_error *error);

/* Bytes of stack below tier-0's SP that a transition needs beside the body's frame. */
size_t transition_stack_bytes(const struct entry *entry);

#endif
