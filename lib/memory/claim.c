/* SPDX-License-Identifier: MIT */
/*
 * Claims, in ascending order and disjoint; two that touch have different rules.  The
 * array outlives pools, so it is mapped.
 */
#include <config.h>

#include "memory/claim.h"

#include "os/map.h"

#include <pthread.h>
#include <string.h>

#define FIRST_BYTES ((size_t) 65536)

struct claim {
    uintptr_t lo, hi;
    struct frame_rule rule;
};

static pthread_mutex_t claim_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct claim *claims;              /* these are guarded by claim_mutex */
static size_t claim_count, claim_bytes;

void claim_lock(void) { pthread_mutex_lock(&claim_mutex); }
void claim_unlock(void) { pthread_mutex_unlock(&claim_mutex); }

/* The first claim that ends behind `address`. */
static size_t behind_locked(uintptr_t address)
{
    size_t lo = 0, hi = claim_count;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if (claims[middle].hi > address)
            hi = middle;
        else
            lo = middle + 1;
    }
    return lo;
}

static bool grow_locked(void)
{
    if ((claim_count + 1) * sizeof *claims <= claim_bytes)
        return true;
    size_t bytes = claim_bytes == 0 ? FIRST_BYTES : claim_bytes * 2;
    struct claim *larger = map_memory(bytes);
    if (larger == NULL)
        return false;
    if (claims != NULL) {
        memcpy(larger, claims, claim_count * sizeof *claims);
        map_unmap((uintptr_t) claims, claim_bytes);
    }
    claims = larger;
    claim_bytes = bytes;
    return true;
}

static bool add_locked(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule)
{
    size_t first = behind_locked(lo), last = first;
    for (; last < claim_count && claims[last].lo < hi; last++) {
        if (!frame_rule_equal(&claims[last].rule, rule))
            return false;
    }
    /* Those that touch are of the same piece. */
    if (first > 0 && claims[first - 1].hi == lo && frame_rule_equal(&claims[first - 1].rule, rule))
        first--;
    if (last < claim_count && claims[last].lo == hi && frame_rule_equal(&claims[last].rule, rule))
        last++;
    if (first == last && !grow_locked())
        return false;
    struct claim claim = { lo, hi, *rule };
    if (first < last) {
        claim.lo = claims[first].lo < lo ? claims[first].lo : lo;
        claim.hi = claims[last - 1].hi > hi ? claims[last - 1].hi : hi;
    }
    memmove(&claims[first + 1], &claims[last], (claim_count - last) * sizeof *claims);
    claim_count += 1 - (last - first);
    claims[first] = claim;
    return true;
}

bool claim_add(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule)
{
    claim_lock();
    bool added = add_locked(lo, hi, rule);
    claim_unlock();
    return added;
}

bool claim_holds(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule)
{
    claim_lock();
    size_t i = behind_locked(lo);
    bool holds = i < claim_count && claims[i].lo <= lo && claims[i].hi >= hi &&
                 frame_rule_equal(&claims[i].rule, rule);
    claim_unlock();
    return holds;
}

bool claim_conflict(uintptr_t lo, uintptr_t hi, const struct frame_rule *rule, uintptr_t *from,
                    uintptr_t *to)
{
    if (rule == NULL)
        return false;
    claim_lock();
    size_t i = behind_locked(lo);
    while (i < claim_count && claims[i].lo < hi && frame_rule_equal(&claims[i].rule, rule))
        i++;
    bool found = i < claim_count && claims[i].lo < hi;
    if (found) {
        *from = claims[i].lo;
        *to = claims[i].hi;
    }
    claim_unlock();
    return found;
}

size_t claim_total(void)
{
    size_t total = 0;
    claim_lock();
    for (size_t i = 0; i < claim_count; i++)
        total += claims[i].hi - claims[i].lo;
    claim_unlock();
    return total;
}

const char *claim_verify(void)
{
    const char *broken = NULL;
    claim_lock();
    for (size_t i = 0; i < claim_count && broken == NULL; i++) {
        if (claims[i].lo >= claims[i].hi)
            broken = "a claim of addresses is empty";
        else if (i > 0 && claims[i - 1].hi > claims[i].lo)
            broken = "two claims of addresses overlap";
        else if (i > 0 && claims[i - 1].hi == claims[i].lo &&
                 frame_rule_equal(&claims[i - 1].rule, &claims[i].rule))
            broken = "two claims of one rule touch";
    }
    claim_unlock();
    return broken;
}
