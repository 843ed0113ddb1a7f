/* SPDX-License-Identifier: MIT */
/* Batches: in order, locked, and written, or not at all. */
#include <config.h>

#include "patch/batch.h"

#include "error.h"
#include "memory/state.h"
#include "sized.h"

/* ---- order -------------------------------------------------------------- */

static void swap(struct patch_step *a, struct patch_step *b)
{
    struct patch_step step = *a;
    *a = *b;
    *b = step;
}

static void sift(struct patch_step *steps, size_t at, size_t end)
{
    for (size_t child; (child = 2 * at + 1) < end; at = child) {
        if (child + 1 < end && patch_address(&steps[child]) < patch_address(&steps[child + 1]))
            child++;
        if (patch_address(&steps[at]) >= patch_address(&steps[child]))
            return;
        swap(&steps[at], &steps[child]);
    }
}

/* By address.  The C library's qsort may ask for memory. */
static void sort(struct patch_step *steps, size_t count)
{
    for (size_t i = count / 2; i-- > 0;)
        sift(steps, i, count);
    for (size_t end = count; end-- > 1;) {
        swap(&steps[0], &steps[end]);
        sift(steps, 0, end);
    }
}

static size_t index_of(const struct patch_batch *batch, const struct patch_step *step)
{
    return (size_t) (step->patch - batch->first);
}

static pp_status check_overlap(const struct patch_batch *batch)
{
    for (size_t i = 1; i < batch->count; i++) {
        const struct patch_step *step = &batch->steps[i - 1], *next = step + 1;
        if (patch_address(next) - patch_address(step) < step->patch->bytes)
            return error_set(batch->error, PP_E_ARG, "patches %zu and %zu share a byte",
                             index_of(batch, step), index_of(batch, next));
    }
    return PP_OK;
}

/* ---- locks ------------------------------------------------------------ */

/* Whether a step is in the region: they are in order. */
static bool concerns(const struct patch_batch *batch, const struct region *region)
{
    size_t lo = 0, hi = batch->count;
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        if (patch_address(&batch->steps[middle]) < region->base)
            lo = middle + 1;
        else
            hi = middle;
    }
    return lo < batch->count && patch_address(&batch->steps[lo]) < region->limit;
}

static void lock_regions(const struct patch_batch *batch, bool lock)
{
    struct region *region = atomic_load_explicit(&batch->pool->regions, memory_order_acquire);
    for (; region != NULL; region = region->next) {
        if (concerns(batch, region))
            (lock ? pthread_mutex_lock : pthread_mutex_unlock)(&region->lock);
    }
}

void batch_lock_regions(struct patch_batch *batch)
{
    sort(batch->steps, batch->count);
    for (size_t i = 0; i < batch->count; i++)
        batch->steps[i].region = region_at(patch_address(&batch->steps[i]));
    lock_regions(batch, true);
}

pp_status batch_lock(struct patch_batch *batch)
{
    batch_lock_regions(batch);
    pp_status status = check_overlap(batch);
    for (size_t i = 0; i < batch->count && status == PP_OK; i++)
        status = step_check_locked(batch->pool, &batch->steps[i],
                                   index_of(batch, &batch->steps[i]), batch->error);
    if (status != PP_OK)
        lock_regions(batch, false);
    return status;
}

void batch_unlock(struct patch_batch *batch)
{
    lock_regions(batch, false);
}

/* ---- applying --------------------------------------------------------- */

static pp_status apply(struct patch_batch *batch, bool write)
{
    pool_lock(batch->pool);
    pp_status status = batch_lock(batch);
    if (status == PP_OK) {
        if (write)
            status = batch_write_locked(batch);
        batch_unlock(batch);
    }
    pool_unlock(batch->pool);
    return status;
}

/* Threads are held without a lock of ours: they may have to give some back first. */
static pp_status apply_stopped(struct patch_batch *batch, const pp_patch_options *options)
{
    if (options->stop == NULL || options->start == NULL)
        return error_set(batch->error, PP_E_ARG, "STOPPED: no stop and start");
    pp_status status = apply(batch, false);
    if (status != PP_OK)
        return status;
    if (options->stop(options->host) != 0)
        return error_set(batch->error, PP_E_FAULT, "STOPPED: the host could not stop its threads");
    status = apply(batch, true);
    options->start(options->host);
    return status;
}

static pp_status run(struct patch_batch *batch, const pp_patch_options *options)
{
    bool stops = false;
    for (size_t i = 0; i < batch->count; i++) {
        const pp_patch *patch = &batch->first[i];
        pp_status status = patch_check(patch, i, batch->error);
        if (status != PP_OK)
            return status;
        batch->steps[i] = (struct patch_step){ .patch = patch };
        stops |= patch->protocol == PP_PATCH_STOPPED;
    }
    pp_status status = stops ? apply_stopped(batch, options) : apply(batch, true);
    for (size_t i = 0; status == PP_OK && options->journal != NULL && i < batch->count; i++)
        options->journal[i] = step_inverse(&batch->steps[i]);
    return status;
}

enum { BATCH_INLINE = 16 };
#define BATCH_MOST ((size_t) 1 << 24)

struct patch_room {
    struct patch_step step;
    struct span span;
};

pp_status pp_patch_apply(pp_pool *pool, const pp_patch *patches, size_t count,
                         const pp_patch_options *from)
{
    struct patch_step few[BATCH_INLINE];
    struct span spans[BATCH_INLINE];
    pp_patch_options options = { .size = sizeof options };
    if (from != NULL && !sized_read(&options, sizeof options, sizeof options, from))
        return PP_E_ARG;
    struct patch_batch batch = { .pool = pool, .steps = few, .spans = spans, .count = count,
                                 .first = patches, .error = options.error };
    if (pool == NULL || (patches == NULL && count != 0) || count > BATCH_MOST)
        return error_set(options.error, PP_E_ARG, "no pool, or a batch of %zu patches", count);
    size_t bytes = count * sizeof(struct patch_room);
    void *memory = NULL;
    if (count > BATCH_INLINE) {
        memory = pool_meta_alloc(pool, bytes);
        if (memory == NULL)
            return error_set(options.error, PP_E_NOMEM, "no memory for a batch of %zu patches",
                             count);
        batch.steps = memory;
        batch.spans = (struct span *) (batch.steps + count);
    }
    pp_status status = run(&batch, &options);
    if (memory != NULL)
        pool_meta_free(pool, memory, bytes);
    return status;
}
