/* SPDX-License-Identifier: MIT */
/*
 * Stress by construction: transitions where a test wants them, not where counters run out.
 *
 *      pp_force force = { .size = sizeof force };
 *      status = pp_force_parse(option, &force);        // "every=3", as the host was told to
 *      status = pp_pool_set_force(pool, &force);       // before code with frame counters runs
 *
 * A pass is one that reaches the slow path of a counted or armed site which could trigger:
 * that has no entry, has not failed, and for which nobody compiles.  Under force each
 * pass of such a site is one, whatever its counter and its policy say, and passes have
 * numbers, from 1, in all sites of the pool together.  The mode says which of them trigger;
 * no other does.  To bisect: "count" and pp_pool_get_force_stats tell how many passes there
 * are, "at=n" triggers in one of them alone, "from=n" in all from there on.  Sites have numbers
 * as well, in the order in which they were made: "site=n".
 *
 * Producers work as ever, at once or later, and so do failures, attempts and what is
 * published by hand.  Sites of PP_SITE_FORCED and PP_SITE_POLLED are not concerned.
 *
 * Flags make all slow paths of the pool harder, of sites of any kind and with any mode:
 *
 *      "clobber"   registers that the site's class does not keep, and those that a transition's
 *                  map of values does not read, hold PP_FORCE_PATTERN afterwards, in all the
 *                  width that the processor has (above ymm registers that are kept: 0), so
 *                  that code that relied on one is found.  Not the arithmetic flags, and not
 *                  the stub's own registers
 *      "verify"    what the stub stored, and the registers that functions keep, are compared
 *                  with what they were before the host was called.  A difference, because a
 *                  callback wrote there or does not keep what it must, is counted and put
 *                  right.  A probe may write there.  And the slot of the frame at thread_offset,
 *                  of the site or of the entry that it leads to, holds a pp_thread of the stack
 *                  that runs; if not, that is counted, and the pass refused with PP_E_ABI,
 *                  before anything follows the pointer.  The first pass of a thread asks the
 *                  kernel for the list of mappings
 *
 *      MYJIT_FORCE=every=3,clobber,verify
 *
 * Sites that get an entry under a flag ask C at every pass, so that each transition is made
 * harder; those that had theirs before do not, until it is replaced.
 *
 * Without force nothing of this costs anything.
 */
#ifndef PATCHPOINT_FORCE_H
#define PATCHPOINT_FORCE_H

#include <patchpoint/site.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pp_force_mode {
    PP_FORCE_OFF = 0,    /* "off": as counters and policies say */
    PP_FORCE_COUNT,      /* "count": none */
    PP_FORCE_EVERY,      /* "every=n": pass n, 2n, 3n .. */
    PP_FORCE_AT,         /* "at=n": pass n */
    PP_FORCE_FROM,       /* "from=n": pass n and all behind it */
    PP_FORCE_SITE,       /* "site=n": the next pass of site n */
    PP_FORCE_SITES_FROM  /* "sites-from=n": of site n and of all made later */
} pp_force_mode;

enum pp_force_flags {
    PP_FORCE_CLOBBER = 1u << 0, /* "clobber" */
    PP_FORCE_VERIFY = 1u << 1   /* "verify" */
};

/* pp_force_stats.offset: `got` lies at thread_offset, which is `want`, and is no pp_thread. */
#define PP_FORCE_AT_THREAD 0xffffffffu

/* No address, and as a number of any width not one. */
#define PP_FORCE_PATTERN 0x7ff4dead7fa4deadu

typedef struct pp_force {
    size_t size;         /* sizeof(pp_force) */
    pp_force_mode mode;
    uint32_t flags;      /* enum pp_force_flags */
    uint64_t number;     /* n, from 1; 0 with PP_FORCE_OFF and PP_FORCE_COUNT */
    pp_error *error;
} pp_force;

/*
 * Read a mode and flags, in any order with commas between, written as above; NULL or "" is
 * "off".  `force` has its size set, and keeps its error.  PP_E_ARG with the reason, and
 * `force` as it was.  Async-signal-safe.
 */
PP_API pp_status pp_force_parse(const char *text, pp_force *force) PP_MUST_CHECK;

/*
 * For all sites of the pool, those that it has and those to come; numbers of passes and
 * statistics begin anew.  NULL: off.  While threads run the sites, too: each goes by it from
 * its next slow path on.  A frame's counter is what the frame was given: pp_site_threshold is 1
 * under force; the host's words of PP_COUNTER_DATA and PP_COUNTER_THREAD are the host's to
 * set.  PP_E_ARG, PP_E_NOMEM.
 */
PP_API pp_status pp_pool_set_force(pp_pool *pool, const pp_force *force) PP_MUST_CHECK;

/* Number of a site, or 0 when it is stale.  A pool's first site has 1. */
PP_API uint64_t pp_site_number(const pp_site *site);

typedef struct pp_force_stats {
    size_t size;         /* set by the caller */
    uint64_t passes;     /* with a number */
    uint64_t triggers;   /* of these, those that were to trigger */
    uint64_t sites;      /* made in this pool: the latest number */
    uint64_t checks;     /* slow paths that were verified */
    uint64_t mismatches; /* of these, those with a difference.  And of the first one: */
    uint64_t site;       /* the site's number */
    uint64_t want, got;  /* the first eight bytes that differ, as they were and as they became */
    uint32_t offset;     /* and where in pp_regs these bytes are; or PP_FORCE_AT_THREAD */
    uint32_t reserved;   /* 0 */
} pp_force_stats;

PP_API pp_status pp_pool_get_force_stats(pp_pool *pool, pp_force_stats *stats) PP_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
