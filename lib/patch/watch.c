/* SPDX-License-Identifier: MIT */
/*
 * Watches.
 *
 * A watch has the handle of its span, so that it is known for what it is when the span is
 * gone; everything happens under pool_lock and the region's, as with batches, so a fire
 * and a release come one after the other.  Retired code is there: threads may be in it.
 * Watches of code that is gone cost their memory until the table would grow: then they are
 * swept out, which costs no more than growing it, and at most as many as the others wait
 * for that.  A free looks for none: it would have to take the pool's lock for that.
 */
#include <config.h>

#include "patch/watch.h"

#include "error.h"
#include "link/trace.h"
#include "memory/handle.h"
#include "patch/batch.h"
#include "patch/state.h"
#include "sized.h"

enum { RECORDS = 40, CAPACITY_FIRST = 64 };

struct watch_block {
    struct watch_block *next;
    struct watch watches[RECORDS];
};

/* ---- the table --------------------------------------------------------- */

static struct watch **bucket_of(struct watch_table *table, uint64_t key)
{
    return &table->buckets[(key * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & (table->capacity - 1)];
}

/*
 * The code that the watch is for is not gone: retired code may still run, and a span that is
 * being written will run again.  Guards are in no code.
 */
static bool is_there(const struct watch *watch)
{
    struct code_place place;
    if (watch->patch.protocol == PP_PATCH_GUARD)
        return true;
    return code_handle_find((uintptr_t) watch->patch.handle, &place) == PP_OK &&
           (owner_may_run(place.owner) || owner_is_host(place.owner));
}

static void take_out(struct watch_table *table, struct watch **at)
{
    struct watch *watch = *at;
    *at = watch->next;
    watch->next = table->free;
    table->free = watch;
    table->count--;
}

static void sweep(struct watch_table *table)
{
    for (size_t i = 0; i < table->capacity; i++) {
        for (struct watch **at = &table->buckets[i]; *at != NULL;) {
            if (is_there(*at))
                at = &(*at)->next;
            else
                take_out(table, at);
        }
    }
}

static bool grow(struct watch_table *table, pp_pool *pool)
{
    struct watch_table old = *table;
    size_t capacity = old.capacity == 0 ? CAPACITY_FIRST : 2 * old.capacity;
    struct watch **buckets = pool_meta_alloc(pool, capacity * sizeof *buckets);
    if (buckets == NULL)
        return false;
    table->buckets = buckets;
    table->capacity = capacity;
    for (size_t i = 0; i < old.capacity; i++) {
        for (struct watch *watch = old.buckets[i], *next; watch != NULL; watch = next) {
            struct watch **bucket = bucket_of(table, watch->key);
            next = watch->next;
            watch->next = *bucket;
            *bucket = watch;
        }
    }
    if (old.buckets != NULL)
        pool_meta_free(pool, old.buckets, old.capacity * sizeof *old.buckets);
    return true;
}

/* Room for one more. */
static bool reserve(struct watch_table *table, pp_pool *pool)
{
    if (table->count == table->capacity) {
        sweep(table);
        if (table->count >= table->capacity / 2 && !grow(table, pool))
            return false;
    }
    if (table->free != NULL)
        return true;
    struct watch_block *block = pool_meta_alloc(pool, sizeof *block);
    if (block == NULL)
        return false;
    block->next = table->blocks;
    table->blocks = block;
    for (size_t i = RECORDS; i-- > 0;) {
        block->watches[i].next = table->free;
        table->free = &block->watches[i];
    }
    return true;
}

void watch_table_close(struct watch_table *table, pp_pool *pool)
{
    while (table->blocks != NULL) {
        struct watch_block *block = table->blocks;
        table->blocks = block->next;
        pool_meta_free(pool, block, sizeof *block);
    }
    if (table->buckets != NULL)
        pool_meta_free(pool, table->buckets, table->capacity * sizeof *table->buckets);
}

const char *watch_verify_locked(const struct watch_table *table)
{
    size_t count = 0;
    for (size_t i = 0; i < table->capacity; i++) {
        for (const struct watch *watch = table->buckets[i]; watch != NULL; watch = watch->next)
            count++;
    }
    return count == table->count ? NULL : "watches are not counted right";
}

/* The watch of this key and address whose code is there, or NULL. */
static struct watch **find(struct watch_table *table, uint64_t key, const void *address)
{
    if (table->capacity == 0)
        return NULL;
    for (struct watch **at = bucket_of(table, key); *at != NULL; at = &(*at)->next) {
        if ((*at)->key == key && (*at)->patch.address == address && is_there(*at))
            return at;
    }
    return NULL;
}

static struct watch_table *table_of(pp_pool *pool)
{
    struct patch_state *state = pool_room_state(pool, ROOM_PATCH);
    return state != NULL ? &state->watches : NULL;
}

/* ---- adding and removing ------------------------------------------------ */

/* The code is there, and can be patched; what its bytes are is not asked yet. */
static pp_status check_code(pp_pool *pool, pp_patch *patch, pp_error *error)
{
    struct patch_step step;
    pp_patch copy = *patch;
    struct patch_batch batch = { .pool = pool, .steps = &step, .count = 1, .first = &copy,
                                 .error = error };
    step = (struct patch_step){ .patch = &copy };
    copy.flags &= (uint16_t) ~PP_PATCH_EXPECT_OLD;
    pp_status status = batch_lock(&batch);
    if (status != PP_OK)
        return status;
    batch_unlock(&batch);
    patch->handle = (const void *) step.handle;
    return PP_OK;
}

static pp_status add_locked(pp_pool *pool, uint64_t key, const pp_patch *from, pp_error *error)
{
    pp_patch patch = *from;
    pp_status status = check_code(pool, &patch, error);
    if (status != PP_OK)
        return status;
    struct patch_state *state = patch_state_locked(pool);
    if (state == NULL || !reserve(&state->watches, pool))
        return error_set(error, PP_E_NOMEM, "no memory for a watch");
    struct watch_table *table = &state->watches;
    if (find(table, key, patch.address) != NULL)
        return error_set(error, PP_E_BUSY, "the key has a watch of this address");
    struct watch *watch = table->free, **bucket = bucket_of(table, key);
    table->free = watch->next;
    *watch = (struct watch){ .next = *bucket, .key = key, .patch = patch };
    *bucket = watch;
    table->count++;
    return PP_OK;
}

pp_status pp_watch_add(pp_pool *pool, uint64_t key, const pp_patch *patch, pp_error *error)
{
    if (pool == NULL || patch == NULL)
        return error_set(error, PP_E_ARG, "no pool, or no patch");
    pp_status status = patch_check(patch, 0, error);
    if (status != PP_OK)
        return status;
    pool_lock(pool);
    status = add_locked(pool, key, patch, error);
    pool_unlock(pool);
    return status;
}

pp_status pp_watch_remove(pp_pool *pool, uint64_t key, const void *address)
{
    if (pool == NULL || address == NULL)
        return PP_E_ARG;
    pool_lock(pool);
    struct watch_table *table = table_of(pool);
    struct watch **at = table != NULL ? find(table, key, address) : NULL;
    if (at != NULL)
        take_out(table, at);
    pool_unlock(pool);
    return at != NULL ? PP_OK : PP_E_STALE;
}

size_t pp_watch_count(pp_pool *pool, uint64_t key)
{
    size_t count = 0;
    if (pool == NULL)
        return 0;
    pool_lock(pool);
    struct watch_table *table = table_of(pool);
    if (table != NULL && table->capacity != 0) {
        for (const struct watch *at = *bucket_of(table, key); at != NULL; at = at->next)
            count += at->key == key && is_there(at);
    }
    pool_unlock(pool);
    return count;
}

/* ---- firing ------------------------------------------------------------ */

/* What became of a watch. */
enum fate { FATE_APPLY, FATE_ALREADY, FATE_REFUSED, FATE_DROPPED };

/* What a fire needs for each watch, in arrays one behind the other. */
struct fired {
    pp_patch patch;          /* a copy, by which steps are numbered; `reserved` is its fate */
    struct patch_step step;  /* of all, in order of addresses; the locks go by them */
    struct patch_step kept;  /* those to apply, in order */
    struct span span;
};

struct fire {
    struct patch_batch all, kept;
    pp_patch *patches;
    bool stopped;            /* the host holds its threads */
    pp_watch_result result;
    pp_status refused;       /* of the first refusal */
    pp_error reason;
};

static size_t count_key(struct watch_table *table, uint64_t key, bool *stops)
{
    size_t count = 0;
    *stops = false;
    if (table == NULL || table->capacity == 0)
        return 0;
    for (const struct watch *at = *bucket_of(table, key); at != NULL; at = at->next) {
        if (at->key != key)
            continue;
        count++;
        *stops |= at->patch.protocol == PP_PATCH_STOPPED && is_there(at);
    }
    return count;
}

/* Those that were not refused go.  Copies are in the order of the list. */
static void take_key(struct watch_table *table, uint64_t key, const struct fire *fire)
{
    struct watch **at = bucket_of(table, key);
    for (size_t i = 0; *at != NULL;) {
        if ((*at)->key != key) {
            at = &(*at)->next;
            continue;
        }
        if (fire->patches[i++].reserved == FATE_REFUSED)
            at = &(*at)->next;
        else
            take_out(table, at);
    }
}

static void refuse(struct fire *fire, pp_status status, const pp_error *reason)
{
    if (fire->result.refused++ == 0) {
        fire->refused = status;
        error_copy(&fire->reason, reason);
    }
}

/* What is to be done with a step; its region is locked. */
static enum fate decide(struct fire *fire, struct patch_step *step, const struct patch_step *last)
{
    pp_error reason = { .size = sizeof reason };
    size_t index = (size_t) (step->patch - fire->patches);
    pp_status status = step_check_locked(fire->all.pool, step, index, &reason);
    if (status == PP_E_STALE || status == PP_E_FAULT)
        return FATE_DROPPED;
    if (step->same)
        return FATE_ALREADY;
    if (status == PP_OK && last != NULL &&
        patch_address(step) - patch_address(last) < last->patch->bytes)
        status = error_set(&reason, PP_E_ARG, "two patches of the key share a byte at %#zx",
                           (size_t) patch_address(step));
    if (status == PP_OK && step->patch->protocol == PP_PATCH_STOPPED && !fire->stopped)
        status = error_set(&reason, PP_E_BUSY, "STOPPED: added while the key was being fired");
    if (status == PP_OK)
        return FATE_APPLY;
    refuse(fire, status, &reason);
    return FATE_REFUSED;
}

static pp_status fire_batch(struct fire *fire)
{
    struct patch_batch *all = &fire->all, *kept = &fire->kept;
    const struct patch_step *last = NULL;
    batch_lock_regions(all);
    for (size_t i = 0; i < all->count; i++) {
        struct patch_step *step = &all->steps[i];
        enum fate fate = decide(fire, step, last);
        fire->patches[step->patch - fire->patches].reserved = fate;
        fire->result.already += fate == FATE_ALREADY;
        fire->result.dropped += fate == FATE_DROPPED;
        if (fate == FATE_APPLY) {
            last = step;
            kept->steps[kept->count++] = *step;
        }
    }
    pp_status status = kept->count > 0 ? batch_write_locked(kept) : PP_OK;
    batch_unlock(all);
    fire->result.applied = kept->count;
    return status;
}

static pp_status fire_locked(pp_pool *pool, uint64_t key, struct fire *fire, pp_error *error)
{
    bool stops;
    struct watch_table *table = table_of(pool);
    size_t count = count_key(table, key, &stops), index = 0;
    if (count == 0)
        return PP_OK;
    size_t bytes = count * sizeof(struct fired);
    char *memory = pool_meta_alloc(pool, bytes);
    if (memory == NULL)
        return error_set(error, PP_E_NOMEM, "no memory to fire %zu watches", count);
    fire->patches = (pp_patch *) memory;
    struct patch_step *steps = (struct patch_step *) (fire->patches + count);
    struct span *spans = (struct span *) (steps + 2 * count);
    for (const struct watch *at = *bucket_of(table, key); at != NULL; at = at->next) {
        if (at->key != key)
            continue;
        fire->patches[index] = at->patch;
        steps[index] = (struct patch_step){ .patch = &fire->patches[index] };
        index++;
    }
    fire->all = (struct patch_batch){ .pool = pool, .steps = steps, .spans = spans, .count = count,
                                      .first = fire->patches, .error = error };
    fire->kept = fire->all;
    fire->kept.steps = steps + count;
    fire->kept.count = 0;
    pp_status status = fire_batch(fire);
    if (status == PP_OK)
        take_key(table, key, fire);
    pool_meta_free(pool, memory, bytes);
    return status;
}

static pp_status fire_once(pp_pool *pool, uint64_t key, struct fire *fire, pp_error *error)
{
    pool_lock(pool);
    pp_status status = fire_locked(pool, key, fire, error);
    pool_unlock(pool);
    return status;
}

/* The host holds its threads without a lock of ours, if there is something to hold them for. */
static pp_status fire_all(pp_pool *pool, uint64_t key, const pp_patch_options *options,
                          struct fire *fire)
{
    bool stops;
    pool_lock(pool);
    (void) count_key(table_of(pool), key, &stops);
    pool_unlock(pool);
    if (stops && (options->stop == NULL || options->start == NULL))
        return error_set(options->error, PP_E_ARG, "STOPPED: no stop and start");
    if (stops && options->stop(options->host) != 0)
        return error_set(options->error, PP_E_FAULT,
                         "STOPPED: the host could not stop its threads");
    fire->stopped = stops;
    pp_status status = fire_once(pool, key, fire, options->error);
    if (stops)
        options->start(options->host);
    return status;
}

pp_status pp_watch_fire(pp_pool *pool, uint64_t key, const pp_patch_options *from,
                        pp_watch_result *result)
{
    struct fire fire = { .result.size = sizeof fire.result, .reason.size = sizeof fire.reason };
    pp_patch_options options = { .size = sizeof options };
    if (from != NULL && !sized_read(&options, sizeof options, sizeof options, from))
        return PP_E_ARG;
    if (pool == NULL || options.journal != NULL ||
        (result != NULL && result->size < sizeof *result))
        return error_set(options.error, PP_E_ARG, "no pool, a journal, or a result without size");
    pp_status status = fire_all(pool, key, &options, &fire);
    if (status != PP_OK)
        return status;
    if (result != NULL)
        sized_write(result, &fire.result, sizeof fire.result);
    return fire.result.refused == 0 ? PP_OK : error_copy(options.error, &fire.reason);
}
