/* SPDX-License-Identifier: MIT */
/*
 * The table of a pool's frame rules: open addressing, at most half full.  Readers take
 * no lock.  A rule is complete before its slot is written, and slots never
 * change again; a larger table is filled before it is published, and the older ones
 * stay for those that are still looking in them.
 */
#include <config.h>

#include "memory/rule_table.h"

#include "memory/state.h"

enum { FIRST_SLOTS = 16 };

struct rule_slots {
    struct rule_slots *older;
    size_t count; /* a power of two */
    _Atomic(struct pool_rule *) slots[];
};

static size_t bytes_of(size_t count)
{
    return sizeof(struct rule_slots) + count * sizeof(_Atomic(struct pool_rule *));
}

/* The rule, or NULL; *at receives its slot, or the one that it would have. */
static struct pool_rule *look(struct rule_slots *slots, const struct frame_rule *rule, size_t *at)
{
    size_t mask = slots->count - 1;
    for (size_t i = frame_rule_hash(rule) & mask;; i = (i + 1) & mask) {
        /* Pairs with the release of put. */
        struct pool_rule *found = atomic_load_explicit(&slots->slots[i], memory_order_acquire);
        *at = i;
        if (found == NULL || frame_rule_equal(&found->rule, rule))
            return found;
    }
}

static void put(struct rule_slots *slots, size_t at, struct pool_rule *rule)
{
    atomic_store_explicit(&slots->slots[at], rule, memory_order_release);
}

/* Room for one more. */
static struct rule_slots *grow_locked(pp_pool *pool, struct rule_slots *slots)
{
    size_t count = slots == NULL ? FIRST_SLOTS : slots->count, at;
    if (slots != NULL && (pool->rules.count + 1) * 2 <= count)
        return slots;
    if (slots != NULL)
        count *= 2;
    struct rule_slots *larger = pool_meta_alloc(pool, bytes_of(count));
    if (larger == NULL)
        return NULL;
    larger->older = slots;
    larger->count = count;
    for (size_t i = 0; slots != NULL && i < slots->count; i++) {
        struct pool_rule *rule = atomic_load_explicit(&slots->slots[i], memory_order_relaxed);
        if (rule != NULL && look(larger, &rule->rule, &at) == NULL)
            put(larger, at, rule);
    }
    atomic_store_explicit(&pool->rules.slots, larger, memory_order_release);
    return larger;
}

static struct pool_rule *rule_new(pp_pool *pool, const struct frame_rule *from)
{
    struct pool_rule *rule = pool_meta_alloc(pool, sizeof *rule);
    if (rule == NULL)
        return NULL;
    rule->rule = *from;
    for (unsigned i = 0; i < sizeof rule->states / sizeof *rule->states; i++) {
        rule->states[i].owner.kind = OWNER_SPAN_OPEN + i;
        owner_set_rule(&rule->states[i].owner, &rule->rule);
    }
    return rule;
}

static struct pool_rule *add_locked(pp_pool *pool, const struct frame_rule *from)
{
    size_t at;
    struct rule_slots *slots =
        grow_locked(pool, atomic_load_explicit(&pool->rules.slots, memory_order_relaxed));
    if (slots == NULL)
        return NULL;
    struct pool_rule *rule = look(slots, from, &at);
    if (rule != NULL)
        return rule;
    rule = rule_new(pool, from);
    if (rule != NULL) {
        put(slots, at, rule);
        pool->rules.count++;
    }
    return rule;
}

const struct pool_rule *rule_table_find(pp_pool *pool, const struct frame_rule *from)
{
    struct rule_table *table = &pool->rules;
    const struct pool_rule *rule = atomic_load_explicit(&table->latest, memory_order_acquire);
    size_t at;
    if (rule != NULL && frame_rule_equal(&rule->rule, from))
        return rule;
    struct rule_slots *slots = atomic_load_explicit(&table->slots, memory_order_acquire);
    rule = slots == NULL ? NULL : look(slots, from, &at);
    if (rule == NULL) {
        pool_lock(pool);
        rule = add_locked(pool, from);
        pool_unlock(pool);
    }
    if (rule != NULL)
        atomic_store_explicit(&table->latest, rule, memory_order_release);
    return rule;
}

void rule_table_close(pp_pool *pool)
{
    struct rule_slots *slots = atomic_load_explicit(&pool->rules.slots, memory_order_relaxed);
    for (size_t i = 0; slots != NULL && i < slots->count; i++)
        pool_meta_free(pool, atomic_load_explicit(&slots->slots[i], memory_order_relaxed),
                       sizeof(struct pool_rule));
    while (slots != NULL) {
        struct rule_slots *older = slots->older;
        pool_meta_free(pool, slots, bytes_of(slots->count));
        slots = older;
    }
    atomic_store_explicit(&pool->rules.slots, NULL, memory_order_relaxed);
}

const char *rule_table_verify_locked(const struct rule_table *table)
{
    struct rule_slots *slots = atomic_load_explicit(&table->slots, memory_order_relaxed);
    size_t count = 0, at;
    for (size_t i = 0; slots != NULL && i < slots->count; i++) {
        struct pool_rule *rule = atomic_load_explicit(&slots->slots[i], memory_order_relaxed);
        if (rule == NULL)
            continue;
        count++;
        if (look(slots, &rule->rule, &at) != rule)
            return "a frame rule is not found";
    }
    return count == table->count ? NULL : "the frame rules are not counted right";
}
