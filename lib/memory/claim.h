/* SPDX-License-Identifier: MIT */
/*
 * Claims: of which addresses libunwind was ever told what, for the life of the process.
 * A thread's cache of libunwind keeps for ever where the CFA and the frame record are at an
 * address that it has seen.  So addresses keep that part of their rule, the shape, when
 * their pool is gone; there are few shapes, and regions that come and go share claims.
 * libgcc keeps nothing.
 */
#ifndef MEMORY_CLAIM_H
#define MEMORY_CLAIM_H

#include "memory/rule.h"

#include <stddef.h>
#include <stdint.h>

/*
 * Before a rule's code runs at [lo, hi): note it.  False: the range overlaps
 * another rule's (two threads chose at once), or there is no memory for the note.
 */
bool claim_add(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule);

/* All of [lo, hi) is noted for this rule. */
bool claim_holds(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule);

/* The lowest range of another rule that overlaps [lo, hi); false: none, or rule is NULL. */
bool claim_conflict(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule, uintptr_t *from,
                    uintptr_t *to);

/* Bytes that are noted, for any rule. */
size_t claim_total(void);

/* NULL, or what is wrong with the notes. */
const char *claim_verify(void);

/* Around fork. */
void claim_lock(void);
void claim_unlock(void);

#endif
