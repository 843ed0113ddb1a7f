/* SPDX-License-Identifier: MIT */
/*
 * memory: threads allocate, write, cut and free spans of 1 byte to 256 KiB, each
 * with a model of what is its own.
 *
 * A span's bytes are a function of a tag that nobody else has, so whatever is
 * overwritten, moved or given out twice is seen when the span is looked at.  Between
 * rounds, when all threads have stopped, the pool has to count exactly what the models
 * hold, and to find its own bookkeeping whole.
 */
#include <config.h>

#include "stress/live.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    THREADS = 3,
    THREADS_MAX = 64,
    ROUNDS = 10,
    OPERATIONS = 6000,        /* of a thread in a round */
    PIECES = 1500,            /* of a thread at a time */
    BATCH = 8,
    LARGEST = 256 << 10,      /* bytes */
    LOOKED_AT_WHOLE = 2048    /* longer ones are looked at here and there */
};

struct piece {
    pp_span *span;
    const uint8_t *execute;
    size_t bytes;
    uint64_t tag;
};

struct worker {
    pthread_t thread;
    struct stress *stress;
    pp_pool *pool, *stranger;
    struct random random;
    struct piece pieces[PIECES];
    size_t count;
    size_t retired, retired_bytes; /* since the last reclaim */
    uint64_t operations, misuses;
};

/* ---- bytes ---------------------------------------------------------------- */

static uint8_t byte_of(uint64_t tag, size_t i)
{
    return (uint8_t) ((tag >> i % 8 * 8) + i / 8);
}

static void write_bytes(uint8_t *write, const struct piece *piece)
{
    for (size_t i = 0; i < piece->bytes; i++)
        write[i] = byte_of(piece->tag, i);
}

static bool has_bytes(const struct piece *piece)
{
    size_t step = piece->bytes <= LOOKED_AT_WHOLE ? 1 : 61;
    for (size_t i = 0; i < piece->bytes; i += step) {
        if (piece->execute[i] != byte_of(piece->tag, i))
            return false;
    }
    return piece->execute[piece->bytes - 1] == byte_of(piece->tag, piece->bytes - 1);
}

static void look(struct worker *worker, const struct piece *piece)
{
    const uint8_t *last = piece->execute + piece->bytes - 1;
    pp_span_place place = { .size = sizeof place };
    if (!has_bytes(piece))
        stress_fail(worker->stress, "the bytes of a span of %zu changed", piece->bytes);
    if (pp_span_get_place(piece->span, &place) != PP_OK || place.execute != piece->execute ||
        place.bytes != piece->bytes || place.write != NULL)
        stress_fail(worker->stress, "a span of %zu bytes is elsewhere, or not as long",
                    piece->bytes);
    if (pp_span_at(piece->execute) != piece->span || pp_span_at(last) != piece->span ||
        pp_span_at(last + place.unit) == piece->span)
        stress_fail(worker->stress, "a span of %zu bytes is not found", piece->bytes);
}

/* ---- operations ----------------------------------------------------------- */

static void expect(struct worker *worker, const char *what, pp_status status, pp_status wanted)
{
    if (status != wanted)
        stress_fail(worker->stress, "%s: %s, not %s", what, pp_strerror(status),
                    pp_strerror(wanted));
}

static size_t draw_size(struct random *random)
{
    static const size_t most[] = { 16, 64, 600, 2048, 2048, 20000 };
    if (random_below(random, 200) == 0)
        return 1 + random_below(random, LARGEST);
    return 1 + random_below(random, most[random_below(random, 6)]);
}

/* Written, not published. */
static bool take(struct worker *worker, struct piece *piece)
{
    struct random *random = &worker->random;
    pp_span_desc desc = { .size = sizeof desc, .bytes = draw_size(random) };
    pp_span_place place = { .size = sizeof place };
    if (random_below(random, 4) == 0)
        desc.align = (size_t) 16 << random_below(random, 13);
    pp_status status = pp_span_alloc(worker->pool, &desc, &piece->span, &place);
    expect(worker, "pp_span_alloc", status, PP_OK);
    if (status != PP_OK)
        return false;
    piece->execute = place.execute;
    piece->bytes = place.bytes;
    piece->tag = random_next(random);
    if (place.bytes != desc.bytes ||
        (desc.align != 0 && (uintptr_t) place.execute % desc.align != 0))
        stress_fail(worker->stress, "a span of %zu bytes at %zu is not as it was asked for",
                    desc.bytes, desc.align);
    write_bytes(place.write, piece);
    return true;
}

static void make_batch(struct worker *worker, size_t count)
{
    pp_span *spans[BATCH];
    size_t taken = 0;
    while (taken < count && worker->count + taken < PIECES &&
           take(worker, &worker->pieces[worker->count + taken])) {
        spans[taken] = worker->pieces[worker->count + taken].span;
        taken++;
    }
    expect(worker, "pp_span_publish", pp_span_publish(worker->pool, spans, taken, NULL), PP_OK);
    worker->count += taken;
}

static void drop(struct worker *worker, size_t index, bool retire)
{
    struct piece piece = worker->pieces[index];
    look(worker, &piece);
    worker->pieces[index] = worker->pieces[--worker->count];
    if (retire) {
        expect(worker, "pp_span_retire", pp_span_retire(worker->pool, piece.span), PP_OK);
        worker->retired++;
        worker->retired_bytes += piece.bytes;
    } else {
        expect(worker, "pp_span_free", pp_span_free(worker->pool, piece.span), PP_OK);
    }
    expect(worker, "freed again", pp_span_free(worker->pool, piece.span), PP_E_STALE);
}

static void cut(struct worker *worker, struct piece *piece)
{
    size_t bytes = 1 + random_below(&worker->random, piece->bytes);
    expect(worker, "pp_span_shrink", pp_span_shrink(worker->pool, piece->span, bytes), PP_OK);
    piece->bytes = bytes;
    look(worker, piece);
    expect(worker, "made longer", pp_span_shrink(worker->pool, piece->span, bytes + 1), PP_E_ARG);
}

static void rewrite(struct worker *worker, struct piece *piece)
{
    pp_span_place place = { .size = sizeof place };
    pp_status status = pp_span_write(worker->pool, piece->span, &place, NULL);
    expect(worker, "pp_span_write", status, PP_OK);
    if (status != PP_OK)
        return;
    piece->tag = random_next(&worker->random);
    write_bytes(place.write, piece);
    expect(worker, "written twice", pp_span_write(worker->pool, piece->span, &place, NULL),
           PP_E_BUSY);
    expect(worker, "published again", pp_span_publish(worker->pool, &piece->span, 1, NULL), PP_OK);
}

/* The second part has bytes of its own from here on. */
static void split(struct worker *worker, struct piece *piece)
{
    pp_span_place place = { .size = sizeof place };
    struct piece *tail = &worker->pieces[worker->count];
    if (worker->count == PIECES || pp_span_get_place(piece->span, &place) != PP_OK ||
        piece->bytes <= place.unit)
        return;
    size_t at = (1 + random_below(&worker->random, (piece->bytes - 1) / place.unit)) * place.unit;
    pp_status status = pp_span_split(worker->pool, piece->span, at, &tail->span);
    expect(worker, "pp_span_split", status, PP_OK);
    if (status != PP_OK)
        return;
    tail->execute = piece->execute + at;
    tail->bytes = piece->bytes - at;
    piece->bytes = at;
    worker->count++;
    rewrite(worker, tail);
    look(worker, tail);
    look(worker, piece);
}

static void reserve(struct worker *worker)
{
    pp_reservation reservation = { .size = sizeof reservation };
    size_t capacity = 1 + random_below(&worker->random, 4096);
    pp_trace *trace;
    pp_status status = pp_trace_reserve(worker->pool, capacity, NULL, &reservation, NULL);
    expect(worker, "pp_trace_reserve", status, PP_OK);
    if (status != PP_OK)
        return;
    memset(reservation.write, 0x90, reservation.capacity);
    if (random_below(&worker->random, 2) == 0) {
        expect(worker, "pp_trace_abandon", pp_trace_abandon(worker->pool, &reservation), PP_OK);
        return;
    }
    size_t used = 1 + random_below(&worker->random, capacity);
    status = pp_trace_commit(worker->pool, &reservation, used, NULL, &trace);
    expect(worker, "pp_trace_commit", status, PP_OK);
    if (status != PP_OK)
        return;
    expect(worker, "a trace as a span", pp_span_free(worker->pool, (pp_span *) trace), PP_E_STALE);
    expect(worker, "pp_trace_free", pp_trace_free(worker->pool, trace), PP_OK);
}

/* Nothing of this changes anything. */
static void misuse(struct worker *worker, const struct piece *piece)
{
    uintptr_t handle = (uintptr_t) piece->span;
    pp_span *twice[] = { piece->span, piece->span }, *tail;
    expect(worker, "another generation", pp_span_free(worker->pool, (pp_span *) (handle ^ 1)),
           PP_E_STALE);
    if (piece->bytes > 16)
        expect(worker, "the inside", pp_span_free(worker->pool, (pp_span *) (handle + 16)),
               PP_E_STALE);
    expect(worker, "another pool", pp_span_free(worker->stranger, piece->span), PP_E_FAULT);
    expect(worker, "no span", pp_span_free(worker->pool, NULL), PP_E_ARG);
    expect(worker, "a trace", pp_trace_free(worker->pool, (pp_trace *) handle), PP_E_STALE);
    expect(worker, "published before", pp_span_publish(worker->pool, twice, 2, NULL), PP_E_ARG);
    expect(worker, "no length", pp_span_shrink(worker->pool, piece->span, 0), PP_E_ARG);
    expect(worker, "no unit", pp_span_split(worker->pool, piece->span, 1, &tail), PP_E_ARG);
    worker->misuses++;
    look(worker, piece);
}

static void operate(struct worker *worker)
{
    uint64_t kind = random_below(&worker->random, 100);
    size_t index = worker->count != 0 ? random_below(&worker->random, worker->count) : 0;
    struct piece *piece = &worker->pieces[index];
    if (kind < 40 || worker->count == 0)
        make_batch(worker, kind < 4 ? 1 + random_below(&worker->random, BATCH) : 1);
    else if (kind < 78)
        drop(worker, index, kind >= 74);
    else if (kind < 84)
        cut(worker, piece);
    else if (kind < 89)
        split(worker, piece);
    else if (kind < 93)
        rewrite(worker, piece);
    else if (kind < 97)
        reserve(worker);
    else
        misuse(worker, piece);
    worker->operations++;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    for (unsigned i = 0; i < OPERATIONS && stress_failures(worker->stress) < 20; i++)
        operate(worker);
    return NULL;
}

/* ---- the whole ------------------------------------------------------------ */

/* All threads have stopped. */
static void compare(struct stress *stress, pp_pool *pool, const struct worker *workers,
                    unsigned count)
{
    pp_pool_stats stats = { .size = sizeof stats };
    pp_error error = { .size = sizeof error };
    size_t spans = 0, requested = 0, counted = 0, counted_bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        for (size_t j = 0; j < workers[i].count; j++)
            requested += workers[i].pieces[j].bytes;
        spans += workers[i].count + workers[i].retired;
        requested += workers[i].retired_bytes;
    }
    if (pp_pool_get_stats(pool, &stats) != PP_OK || pp_pool_verify(pool, &error) != PP_OK) {
        stress_fail(stress, "pp_pool_verify: %s", error.text);
        return;
    }
    for (unsigned i = 0; i < PP_SIZE_CLASSES; i++) {
        counted += stats.classes[i].spans;
        counted_bytes += stats.classes[i].requested;
    }
    if (stats.spans != spans || stats.requested != requested || counted != spans ||
        counted_bytes != requested)
        stress_fail(stress, "%zu spans of %zu bytes are counted (by size %zu of %zu), but there "
                    "are %zu of %zu", stats.spans, stats.requested, counted, counted_bytes, spans,
                    requested);
}

static void reclaim(struct stress *stress, pp_pool *pool, struct worker *workers, unsigned count)
{
    pp_reclaim_result result = { .size = sizeof result };
    size_t retired = 0;
    for (unsigned i = 0; i < count; i++) {
        retired += workers[i].retired;
        workers[i].retired = workers[i].retired_bytes = 0;
    }
    if (pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, &result) != PP_OK ||
        result.freed != retired)
        stress_fail(stress, "%zu spans were reclaimed of %zu", result.freed, retired);
}

static void round_of(struct stress *stress, pp_pool *pool, struct worker *workers, unsigned count)
{
    unsigned started = 0;
    while (started < count &&
           pthread_create(&workers[started].thread, NULL, work, &workers[started]) == 0)
        started++;
    if (started < count)
        stress_fail(stress, "no thread");
    for (unsigned i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    compare(stress, pool, workers, count);
    reclaim(stress, pool, workers, count);
    compare(stress, pool, workers, count);
}

static void put(struct stress_table *table, const char *label, const char *unit, double value)
{
    stress_row(table, label, unit, &value);
}

static void report(struct stress *stress, const pp_pool_stats *most, const struct worker *workers,
                   unsigned count, double seconds)
{
    static const char *const names[] = { "count" };
    struct stress_table *table = stress_table(stress, "spans that come and go", 1, names);
    uint64_t operations = 0, misuses = 0;
    for (unsigned i = 0; i < count; i++) {
        operations += workers[i].operations;
        misuses += workers[i].misuses;
    }
    put(table, "operations", "", (double) operations);
    put(table, "operations / second", "", (double) operations / seconds);
    put(table, "handles misused", "", (double) misuses);
    put(table, "spans alive at the end", "", (double) most->spans);
    double requested = (double) (most->requested != 0 ? most->requested : 1);
    put(table, "committed / requested", "x", (double) most->committed / requested);
    put(table, "metadata / requested", "%", 100 * (double) most->metadata / requested);
    put(table, "regions", "", most->regions);
}

static void churn(struct stress *stress, pp_pool *pool, pp_pool *stranger)
{
    unsigned count = stress_threads(stress, THREADS);
    uint64_t rounds = stress_iterations(stress, ROUNDS), begin = stress_clock();
    pp_pool_stats most = { .size = sizeof most };
    count = count < THREADS_MAX ? count : THREADS_MAX;
    struct worker *workers = calloc(count, sizeof *workers);
    if (workers == NULL) {
        stress_fail(stress, "no memory for %u threads", count);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        workers[i].stress = stress;
        workers[i].pool = pool;
        workers[i].stranger = stranger;
        workers[i].random = stress_random(stress, i);
    }
    for (uint64_t i = 0; (stress_fills_time(stress) || i < rounds) && !stress_expired(stress) &&
                         stress_failures(stress) == 0; i++) {
        round_of(stress, pool, workers, count);
        stress_progress(stress, "rounds", i + 1, stress_fills_time(stress) ? 0 : rounds);
    }
    double seconds = (double) (stress_clock() - begin) / 1e9;
    if (pp_pool_get_stats(pool, &most) == PP_OK)
        report(stress, &most, workers, count, seconds);
    for (unsigned i = 0; i < count; i++) {
        while (workers[i].count > 0)
            drop(&workers[i], workers[i].count - 1, false);
    }
    compare(stress, pool, workers, count);
    free(workers);
}

static void run(struct stress *stress)
{
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    pp_pool *pool, *stranger;
    if (stress_options(stress)->live != 0) {
        live_run(stress, stress_options(stress)->live);
        return;
    }
    if (pp_pool_create(&options, &pool) != PP_OK) {
        stress_fail(stress, "pp_pool_create: %s", error.text);
        return;
    }
    if (pp_pool_create(&options, &stranger) != PP_OK) {
        stress_fail(stress, "pp_pool_create: %s", error.text);
    } else {
        churn(stress, pool, stranger);
        pp_pool_destroy(stranger);
    }
    pp_pool_destroy(pool);
}

const struct scenario scenario_memory = {
    .name = "memory",
    .summary = "threads allocate, cut and free spans, checked against a model",
    .run = run,
    .seconds = 6,
};
