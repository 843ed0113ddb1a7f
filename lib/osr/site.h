/* SPDX-License-Identifier: MIT */
/*
 * Sites.  The head of a site is the record that its code loads and that the
 * patchpoint stub reads.
 *
 *      IDLE -> COUNTING                                    (its bytes are emitted)
 *      IDLE, COUNTING -> TRIGGERED -> COMPILING -> READY   (a pass wins, and produces)
 *      COMPILING -> PENDING -> READY                       (pp_site_defer, pp_site_publish)
 *      COMPILING, PENDING -> COUNTING | FAILED | DISABLED  (a failure, by the policy)
 *      IDLE, COUNTING, FAILED -> READY                     (pp_site_publish)
 *      any -> DISABLED | COUNTING | READY                  (pp_site_disable, pp_site_replace)
 *      GUARDED instead of READY, for an entry that asks C each time
 *
 * The state word has the state in its low four bits, flags in its high ones, and between
 * them the address of the entry of a ready site.  It and `target` change in one step
 * (pair.h), so no two threads need to take turns, and no step is ever half done: not for a
 * pass, not for a signal handler, not in the child of a fork.  `target` is what the stub
 * goes to without asking: that of a READY site's entry, else 0.
 *
 * A step that takes a producer's site away leaves a flag, RUNS or OWED: its result will be
 * refused, and until it has come nobody else is asked.  So there is never more than one
 * attempt of a site under way, and the thread whose step ends an attempt, or takes an
 * entry out, is the one that accounts for it.
 */
#ifndef OSR_SITE_H
#define OSR_SITE_H

#include "osr/entry.h"
#include "osr/method.h"
#include "osr/policy.h"
#include "osr/pair.h"
#include "osr/record.h"

#include <patchpoint/emit.h>
#include <patchpoint/site.h>

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* What layout.h says of PP_SITE_STATE and the others. */
struct site_record {
    uint32_t reserved;
    _Atomic int32_t counter;   /* PP_COUNTER_SITE; compiled code counts it down without a lock */
    _Atomic uint64_t target;   /* with `state` a pair; 16-aligned */
    _Atomic uint64_t state;    /* a state and flags */
    _Atomic int32_t thread_offset; /* 0 as long as force verifies: then C looks first */
    uint32_t resume;           /* written once */
    uint32_t live_gpr, live_vector; /* written once; classes that are masks */
    uint32_t edited;           /* written once: the stub loads what C functions keep, too */
    uint32_t reserved_too;
};

#define SITE_STATE UINT64_C(15)
#define SITE_ENTRY UINT64_C(0x0000fffffffffff0) /* READY, GUARDED: the address of a struct entry */
#define SITE_LIFE UINT64_C(0x00ff000000000000)  /* and eight bits of its generation */
#define SITE_SHARE (UINT64_C(1) << 60) /* the attempt, or the entry, is one of its method's bodies */
#define SITE_GONE (UINT64_C(1) << 61)  /* destroyed: no further step */
#define SITE_RUNS (UINT64_C(1) << 62)  /* a producer is running whose site was taken away */
#define SITE_OWED (UINT64_C(1) << 63)  /* the result of a job that was deferred is still to come, and
                                          nobody waits for it */

struct site {
    _Alignas(16) uint64_t number; /* first; written once: of the sites that the pool has made */
    struct site_record head;   /* its target is at a boundary of 16 */
    struct record record;
    pp_site_desc desc;         /* written once; hits at least 1, tier0 the copy below, error NULL */
    pp_tier0_layout tier0;     /* normalized */
    _Atomic int last;          /* pp_status: the latest refusal, or PP_OK */
    const char *_Atomic field; /* and of PP_E_ABI, what it is about; or NULL */
    struct policy own_policy;  /* written under pool_lock */
    const struct policy *_Atomic policy; /* own_policy or the pool's */
    struct method *method;     /* written once; NULL: none */
    _Atomic pthread_t producer; /* the thread whose producer runs; set before COMPILING */
    _Atomic uint32_t level;    /* of back-off */
    _Atomic uint32_t defers;   /* calls of pp_site_defer: the producer sees whether there was one */
    _Atomic uint64_t hits;     /* since the site last failed, or began */
    _Atomic uint64_t failures; /* since it was last ready, or began */
    _Atomic uint64_t slow_paths, triggers, transitions, refusals;
    struct nop *nops;          /* of armed places, but for the library's own; under pool_lock */
};

static inline struct site *site_of(struct site_record *record)
{
    return (struct site *) ((char *) record - offsetof(struct site, head));
}

/* ---- the state word ---------------------------------------------------------- */

static inline uint64_t site_word(const struct site *site)
{
    return atomic_load_explicit(&site->head.state, memory_order_acquire);
}

static inline uint32_t word_state(uint64_t word)
{
    return (uint32_t) (word & SITE_STATE);
}

/* Whether the state is one of a mask of 1 << state. */
static inline bool word_is(uint64_t word, uint32_t states)
{
    return states >> word_state(word) & 1;
}

#define STATES_READY (1u << PP_SITE_READY | 1u << PP_SITE_GUARDED)
#define STATES_PRODUCING (1u << PP_SITE_TRIGGERED | 1u << PP_SITE_COMPILING)
#define STATES_COUNTING (1u << PP_SITE_IDLE | 1u << PP_SITE_COUNTING)

static inline struct entry *word_entry(uint64_t word)
{
    return word_is(word, STATES_READY) ? (struct entry *) (uintptr_t) (word & SITE_ENTRY) : NULL;
}

/* Whether a pass may win: nobody compiles, not even for nothing. */
static inline bool word_may_trigger(uint64_t word)
{
    return word_is(word, STATES_COUNTING) && !(word & (SITE_RUNS | SITE_OWED));
}

/* Whether an attempt is under way that the method waits for. */
static inline bool word_attempts(uint64_t word)
{
    return word_is(word, STATES_PRODUCING | 1u << PP_SITE_PENDING) || (word & SITE_RUNS);
}

/* The flags that stay when whatever the site is doing is taken from it. */
uint64_t word_flags_after(uint64_t word);

/* ---- steps --------------------------------------------------------------------- */

/*
 * One step, from the word `seen` to another, with all that hangs on it: the target, the
 * method's accounts, the reference of an entry that goes, which is the host's again.  The
 * reference of one that comes was taken before.  False: the word is another one by now,
 * and `seen` is that one.  Lock-free.
 */
bool site_step(struct site *site, uint64_t *seen, uint64_t next);

/* A step from any of these states (a mask of 1 << state) to another, with the same flags. */
bool site_move(struct site *site, uint32_t from, uint32_t to);

/* The word of a site that leads to this entry, with these flags. */
uint64_t site_word_of(const struct site *site, const struct entry *entry, uint64_t flags);

static inline const struct policy *site_policy(const struct site *site)
{
    return atomic_load_explicit(&site->policy, memory_order_acquire);
}

/* The site behind a handle, or NULL when it is stale. */
struct site *site_from(const pp_site *handle);
pp_site *site_handle(const struct site *site);

/* ---- attempts ------------------------------------------------------------------ */

/* Count a refusal and keep its reason; returns it.  `field`: what PP_E_ABI is about, else NULL. */
pp_status site_refuse(struct site *site, pp_status why, const char *field);

/*
 * End the attempt of the producer that the caller ran, with its entry: READY on success,
 * else a failure.  PP_E_STALE if the site was taken from it meanwhile.
 */
pp_status site_publish(struct site *site, const pp_entry *entry);

/* The same without an entry, for this reason; the policy says what the site is then. */
pp_status site_fail(struct site *site, pp_status why, const char *field);
uint32_t site_after_failure(const struct site *site, uint64_t failures);

/* What counters begin with: 1 where each pass is to be a slow path. */
int32_t site_first_passes(const struct site *site);

/* By a policy: a site that has an entry, or whose producer runs, stays what it is (false). */
bool site_give_up(struct site *site);

/* Whether a layout can be filled in, and why not, in it. */
#define SITE_LAYOUT_BYTES offsetof(pp_site_layout, why)
bool site_layout_takes(const pp_site_layout *layout);
pp_status site_layout_refuse(pp_site_layout *layout, pp_status status, const char *why);

/* The stub follows thread_offset, or leaves it to C, as what is forced says. */
void site_set_thread(struct site *site);

/* A counter in the site's record is what the state wants. */
void site_set_counter(struct site *site);

#endif
