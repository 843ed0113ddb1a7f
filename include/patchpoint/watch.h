/* SPDX-License-Identifier: MIT */
/*
 * Watches: code that is right only as long as something holds, and the patches that
 * undo it when it does not any more.
 *
 *      // compiled code relies on the shape of an object: a NOP becomes a jump to the exit
 *      status = pp_watch_add(pool, (uintptr_t) shape, &patch, NULL);
 *      ...
 *      // the shape changes: all code that relies on it, in one batch
 *      status = pp_watch_fire(pool, (uintptr_t) shape, NULL, NULL);
 *
 * A key is a value of the host's, mostly an address; it has a set of sites, each with
 * a patch (patch.h).  Firing applies what is there and takes it out, so that firing again
 * finds nothing to do.  A site may have several keys.
 *
 * A site goes with its trace or span: when that was freed, or reclaimed.  Code that is only
 * retired may still be running, so a fire patches it, and a watch of it can be added, until
 * it is reclaimed.  A free or a reclaim that comes while a fire is going on waits until that
 * is over; if it came first, the fire finds nothing there.  Nothing is ever written into
 * code that has the same address later.  The memory of a watch whose code is gone is used
 * for other watches: nothing looks for watches when code is freed.  What is split off a span
 * is another span: its sites are to be added again.
 *
 * Threads: any number may add, remove and fire at a time, beside free, retire and patch.
 * Not async-signal-safe.  Fork: a child has its parent's watches, but cannot patch its
 * parent's code, retired or not: PP_E_UNSUPPORTED.
 */
#ifndef PATCHPOINT_WATCH_H
#define PATCHPOINT_WATCH_H

#include <patchpoint/patch.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Let a fire of the key apply the patch, which is copied.  Its code is published, and may be
 * retired; its bytes are looked at when it is fired: with PP_PATCH_EXPECT_OLD it is refused then
 * unless they are `old`, or `value` already.  PP_E_BUSY: the key has a watch of this
 * address; PP_E_NOMEM; else as pp_patch_apply for the patch and the code that it is in.
 */
PP_API pp_status pp_watch_add(pp_pool *pool, uint64_t key, const pp_patch *patch,
                              pp_error *error) PP_MUST_CHECK;

/* End the watch.  PP_E_STALE: there is none, as after a fire, or its code is gone. */
PP_API pp_status pp_watch_remove(pp_pool *pool, uint64_t key, const void *address) PP_MUST_CHECK;

/* Number of sites of the key whose code is there, retired or not.  0: no pool. */
PP_API size_t pp_watch_count(pp_pool *pool, uint64_t key);

typedef struct pp_watch_result {
    size_t size;     /* set by the caller */
    size_t applied;  /* number of patches */
    size_t already;  /* the bytes were there already */
    size_t refused;  /* could not be applied: still watched */
    size_t dropped;  /* their code was freed or reclaimed */
} pp_watch_result;

/*
 * Apply all patches of the key that can be, in one batch, and end their watches.
 * `options` (of which `journal` is NULL) and `result` may be NULL.  PP_OK: all code of the key
 * that threads may run is changed, live and retired, so a thread that comes to one of the
 * sites executes what is new; also if the key has no watches.  The status and reason of the
 * first refusal if something is refused, by the protocol, or because the bytes are
 * others: the rest is applied.  PP_E_NOMEM, PP_E_SYSTEM, PP_E_FAULT (`stop` failed):
 * nothing is, and all is as it was.
 */
PP_API pp_status pp_watch_fire(pp_pool *pool, uint64_t key, const pp_patch_options *options,
                               pp_watch_result *result) PP_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
