/* SPDX-License-Identifier: MIT */
/*
 * Methods: the sites of one function of the host, which is compiled for one of them, and
 * then for the others.
 *
 *      pp_method_desc desc = { .size = sizeof desc, .bodies = 4, .flags = PP_METHOD_ONE_AT_A_TIME };
 *      status = pp_method_create(pool, &desc, &method);
 *      site_desc.method = method;                    // for each of its sites
 *      status = pp_site_create(pool, &site_desc, &site);
 *
 * As long as a site of the method has an entry, the others are worth it, too: each triggers at
 * its next slow path, whatever its hits.  There are never more than `bodies` of the method's
 * sites with an entry that a producer made, or is making.  A site that would be one more goes
 * on in tier-0, backs off, and counts a refusal, PP_E_NOMEM; a forced one goes where
 * passes without an entry go.  What the host publishes by hand at a site that nobody
 * compiles for is not counted: a body with many entries costs one.  Nor is what replaces an
 * entry (pp_site_replace), so the site gives back its share.  An attempt ends when its site is
 * ready, has failed, or is disabled or replaced; one whose producer still runs, when that returns.
 */
#ifndef PATCHPOINT_METHOD_H
#define PATCHPOINT_METHOD_H

#include <patchpoint/site.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pp_method_flags {
    PP_METHOD_ONE_AT_A_TIME = 1u << 0 /* one producer for all sites; what triggers meanwhile is
                                         refused as beyond `bodies`, with PP_E_BUSY */
};

typedef struct pp_method_desc {
    size_t size;          /* sizeof(pp_method_desc) */
    uint32_t bodies;      /* 0: no limit */
    uint32_t flags;       /* enum pp_method_flags */
    void *host;
    pp_error *error;
} pp_method_desc;

/* PP_E_ARG, PP_E_NOMEM. */
PP_API pp_status pp_method_create(pp_pool *pool, const pp_method_desc *desc,
                                  pp_method **method) PP_MUST_CHECK;

/* PP_E_BUSY while it has sites; PP_E_STALE, PP_E_FAULT (another pool's). */
PP_API pp_status pp_method_destroy(pp_pool *pool, pp_method *method) PP_MUST_CHECK;

PP_API void *pp_method_host(const pp_method *method);

typedef struct pp_method_stats {
    size_t size;          /* set by the caller */
    uint32_t sites;       /* that it has */
    uint32_t bodies;      /* counted ones, those that are being made among them */
    uint64_t successes;   /* entries that were published in its sites, by whomever */
    uint64_t full;        /* triggers that were refused because of `bodies` */
    uint64_t busy;        /* and because another site's producer was at work */
} pp_method_stats;

PP_API pp_status pp_method_get_stats(const pp_method *method, pp_method_stats *stats) PP_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
