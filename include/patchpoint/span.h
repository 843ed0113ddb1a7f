/* SPDX-License-Identifier: MIT */
/*
 * Spans: executable memory for hosts that assemble and link by themselves.
 *
 *      pp_span_desc want = { .size = sizeof want, .bytes = n };
 *      pp_span_place place = { .size = sizeof place };
 *      status = pp_span_alloc(pool, &want, &span, &place);
 *      assemble(place.write, (uintptr_t) place.execute);
 *      status = pp_span_publish(pool, &span, 1, NULL);
 *      ((void (*)(void)) place.execute)();
 *      status = pp_span_free(pool, span);
 *
 * Nothing is kept for a span but what the pool knows of any: a host may have
 * millions.  A span is not a trace (trace.h), and each function refuses the
 * other's handle with PP_E_STALE; both may come from one pool.  The walker steps
 * through frames of published spans by their rule, without a name.
 *
 * Threads: spans are taken, published and freed from any thread at any time.
 * From pp_span_alloc or pp_span_write until pp_span_publish a span belongs to one
 * thread: what it does with the span meanwhile must not run beside another call
 * for the same span.  Nobody may be running a span that is freed, shrunk or
 * opened for writing, nor a part of it; if that cannot be known, retire.h helps.
 *
 * Fork: a child runs what was published, through the same addresses, and cannot
 * write it: in the child, inherited spans can be looked up, freed (the address
 * space stays taken) and retired; pp_span_publish, pp_span_write, pp_span_shrink and
 * pp_span_split of one are PP_E_UNSUPPORTED.  What a parent does with its spans does
 * not change what children run: see pp_span_write and pp_span_free.
 *
 * Signals: pp_span_at and pp_span_get_place are async-signal-safe, nothing else is.
 *
 * Handles: any value may be passed.  PP_E_ARG for NULL; PP_E_STALE for one of something
 * that is not there any more, that was retired, or that is a trace; PP_E_FAULT for one of
 * another pool, or that was never given out.  No value is given out twice as long as
 * the process lives, by this pool or by any other: what is stale stays stale.  After a
 * fork, parent and child give out values of their own; one that was given out in one of
 * them since then means nothing in the other.
 */
#ifndef PATCHPOINT_SPAN_H
#define PATCHPOINT_SPAN_H

#include <patchpoint/frame.h>
#include <patchpoint/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pp_span pp_span; /* a handle: not an address, and never dereferenced */

typedef struct pp_span_desc {
    size_t size;                /* sizeof(pp_span_desc) */
    size_t bytes;               /* at least 1 */
    size_t align;               /* of the first byte: a power of two from 16 to 65536; 0: 16 */
    const pp_frame_rule *frame; /* how to unwind the span; NULL: PP_FRAME_NONE.  Not kept */
    pp_error *error;
} pp_span_desc;

/* Where a span is.  The pointers stay right as long as the span lives. */
typedef struct pp_span_place {
    size_t size;         /* set by the caller */
    void *write;         /* where to store; NULL unless the span is being written */
    const void *execute; /* where the same byte will run */
    size_t bytes;        /* as asked for; what lies behind them up to `unit` is the span's, too */
    size_t unit;         /* spans take whole units of so many bytes, and are split at them: 16; in
                            a pool with PP_WX_FLIP the system's page */
} pp_span_place;

/*
 * Take a span.  It is writable through place->write, and holds nothing that has
 * a meaning; it is not executable for anyone before pp_span_publish.  On failure
 * neither *span nor *place is touched.  PP_E_ARG: a size, alignment or frame rule
 * that cannot be; PP_E_NOMEM: no room, a limit, or more than a region can hold;
 * PP_E_SYSTEM.
 */
PP_API pp_status pp_span_alloc(pp_pool *pool, const pp_span_desc *desc, pp_span **span,
                               pp_span_place *place) PP_MUST_CHECK;

/*
 * Publish spans that are being written, all or none.  When it has returned PP_OK, any thread
 * that learns an address may go there, and executes these bytes.  A plain load of the address
 * is enough for that; a host that hands over other data with it stores it with release order
 * and loads it with acquire order, as everywhere.  On AArch64 this takes one barrier on all
 * cores for the whole batch (membarrier), on x86-64 none.  Where the kernel refuses it
 * (PP_FALLBACK_BARRIER), a thread has to execute isb between the load and the jump.
 * `count` may be 0.  PP_E_ARG for a span that
 * is not being written, or that is twice in the batch; PP_E_SYSTEM and PP_E_NOMEM
 * if the kernel refuses a protection: then all of them can still be written.  With
 * PP_WX_FLIP the kernel may also refuse to make those writable again that were
 * executable already: their place has no `write` then, until pp_span_write gives it.
 */
PP_API pp_status pp_span_publish(pp_pool *pool, pp_span *const *spans, size_t count,
                                 pp_error *error) PP_MUST_CHECK;

/*
 * Open a published span for writing.  Its bytes are still there.  With PP_WX_FLIP it
 * cannot be executed until it is published again.  PP_E_BUSY if it is being
 * written, or if a child of this process may be running it: take another span then.
 */
PP_API pp_status pp_span_write(pp_pool *pool, pp_span *span, pp_span_place *place,
                               pp_error *error) PP_MUST_CHECK;

/*
 * Give back what is behind the first `bytes`, which is at least 1 and at most what
 * the span has.  The handle stays.
 */
PP_API pp_status pp_span_shrink(pp_pool *pool, pp_span *span, size_t bytes) PP_MUST_CHECK;

/*
 * Make two spans of one: the first keeps the handle and `at` bytes, *tail receives a
 * handle for the rest.  Both are as the one was, published or being written, and each
 * is freed by itself.  `at` is a multiple of the place's `unit`, and less than the
 * bytes of the span: else PP_E_ARG.  PP_E_NOMEM: no memory, or no handle is left for a
 * span that begins there (after a thousand million spans that began in the same page).
 */
PP_API pp_status pp_span_split(pp_pool *pool, pp_span *span, size_t at,
                               pp_span **tail) PP_MUST_CHECK;

/*
 * Release a span, published or not.  Its bytes become traps, and its addresses free:
 * as long as a child that was there when the span was may be running it, both wait.
 */
PP_API pp_status pp_span_free(pp_pool *pool, pp_span *span) PP_MUST_CHECK;

/* Where a span is, whoever's it is.  Lock-free, async-signal-safe. */
PP_API pp_status pp_span_get_place(const pp_span *span, pp_span_place *place) PP_MUST_CHECK;

/*
 * The span that holds this address, or NULL: published, being written, or retired and
 * not yet reclaimed.  Lock-free, async-signal-safe.
 */
PP_API pp_span *pp_span_at(const void *address);

#ifdef __cplusplus
}
#endif
#endif
