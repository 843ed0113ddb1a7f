/* SPDX-License-Identifier: MIT */
/*
 * The frame rules of a pool: one of each, as long as the pool lives.  Whatever has
 * a rule points to it, so equal rules are equal pointers, and a thousand traces with
 * a rule cost a word each.
 */
#ifndef MEMORY_RULE_TABLE_H
#define MEMORY_RULE_TABLE_H

#include "memory/owner.h"

#include <patchpoint/pool.h>

#include <stdatomic.h>

/* A rule, and the owners of the spans of the host that have it. */
struct pool_rule {
    struct owner_tag states[OWNER_KINDS - OWNER_SPAN_OPEN];
    struct frame_rule rule;
};

struct rule_slots;

/* Zeroed, it is a table without rules. */
struct rule_table {
    _Atomic(const struct pool_rule *) latest; /* that was asked for */
    _Atomic(struct rule_slots *) slots;       /* NULL, or the newest; changed under pool_lock */
    size_t count;                             /* number of rules; pool_lock */
};

/*
 * The pool's rule that equals this one, made if it is new.  NULL: no memory.  Takes
 * pool_lock for a new one, and no lock for another.
 */
const struct pool_rule *rule_table_find(pp_pool *pool, const struct frame_rule *rule);

/* Free all of them, when the pool goes. */
void rule_table_close(pp_pool *pool);

/* NULL, or a sentence about the first invariant that is broken.  Under pool_lock. */
const char *rule_table_verify_locked(const struct rule_table *table);

/* The owner of a span of the host in this state. */
static inline const struct owner *rule_owner(const struct pool_rule *rule, enum owner_kind state)
{
    return &rule->states[state - OWNER_SPAN_OPEN].owner;
}

/* The owner that a span of the host has in another state. */
static inline const struct owner *owner_in_state(const struct owner *owner, enum owner_kind state)
{
    const char *rule = (const char *) owner_rule(owner);
    return rule_owner((const struct pool_rule *) (rule - offsetof(struct pool_rule, rule)), state);
}

#endif
