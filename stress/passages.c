/* SPDX-License-Identifier: MIT */
/*
 * Random passages, in two pools: one that is like any, and one with landing pads in
 * which every symbol is far.
 *
 * Passage n of a seed is always the same, so that a failure comes again with the seed.
 */
#include <config.h>

#include "stress/passages.h"

#include "stress/passage.h"
#include "stress/together.h"

#include <stdlib.h>

#define STREAM 1000 /* the first of the streams that are drawn from */
#define RUNS 4
#define EACH 4      /* passages of a call */
#define RENEW 16    /* passages of a pair of pools */

enum { STYLES = PP_BUFFER + 1, KINDS = PP_SITE_ARMED + 1, SAVES = PP_SAVE_MASK + 1 };

struct counts {
    double passages, runs, passes, bodies;
};

struct passages {
    struct stress *stress;
    pp_pool *pools[2];
    struct passage_thread thread;
    struct passage passage;
    uint64_t number;
    unsigned saves;         /* that the processor has, as far as was tried */
    struct counts styles[STYLES], kinds[KINDS], classes[SAVES], threads;
};

static const uint32_t pool_flags[2] = { 0, PP_POOL_LANDING_PADS };

/* ---- what a site does, pass by pass ------------------------------------------------ */

/* Counters and hits of a site that one thread runs. */
struct forecast {
    int32_t left;
    uint32_t hits;
    bool ready;
};

/* Passes in tier-0 until the body; `limit`: it comes not.  UINT_MAX: earlier than `*most`. */
static unsigned foresee(const struct passage_shape *shape, struct forecast *forecast,
                        const struct passage_run *run, unsigned *most)
{
    bool own = shape->counter == PP_COUNTER_FRAME || shape->counter == PP_COUNTER_THREAD;
    *most = run->limit;
    if (shape->kind == PP_SITE_POLLED)
        return run->poll_for <= run->limit ? run->poll_for - 1 : run->limit;
    if (own)
        forecast->left = shape->threshold;
    if (forecast->ready && !own) {
        *most = (unsigned) shape->threshold < run->limit ? (unsigned) shape->threshold : run->limit;
        return UINT32_MAX;
    }
    for (unsigned pass = 0; pass < run->limit; pass++) {
        if (--forecast->left > 0)
            continue;
        forecast->left = shape->threshold;
        if (!forecast->ready && --forecast->hits == 0)
            forecast->ready = true;
        if (forecast->ready)
            return pass;
    }
    return run->limit;
}

static bool as_foreseen(const struct passage_shape *shape, struct forecast *forecast,
                        const struct passage_run *run)
{
    unsigned most, passes = foresee(shape, forecast, run, &most);
    if (passes == UINT32_MAX)
        return run->passes <= most;
    return run->passes == passes && run->bodies == (passes < run->limit);
}

/* ---- one passage ---------------------------------------------------------------------- */

static void fail(struct passages *p, const char *what)
{
    const struct passage_shape *shape = &p->passage.shape;
    stress_fail(p->stress, "passage %llu: %s (style %d, scheme %d, kind %d, counter %d, class %d,"
                " flags %x, entry flags %x, frame of %u, %u and %u bytes, %zu values)",
                (unsigned long long) p->number, what, (int) shape->style, (int) shape->scheme,
                (int) shape->kind, (int) shape->counter, (int) shape->save, (unsigned) shape->flags,
                (unsigned) shape->entry_flags, (unsigned) shape->tier0.frame_bytes,
                (unsigned) shape->tier0.cfa_offset, (unsigned) shape->body.frame_bytes,
                shape->value_count);
}

/* False: it cannot be opened, which may be as it should. */
static bool open_passage(struct passages *p, struct random *random)
{
    struct passage *passage = &p->passage;
    unsigned pool = (unsigned) random_below(random, 2);
    pp_error error = { .size = sizeof error };
    *passage = (struct passage) { .failed = PP_OK };
    passage_draw(&passage->shape, random, p->saves);
    pp_status status = passage_open(passage, p->pools[pool], pool_flags[pool], &error);
    if (status == PP_E_UNSUPPORTED
        && (passage->shape.save == PP_SAVE_V256 || passage->shape.save == PP_SAVE_V512))
        p->saves &= ~(1u << passage->shape.save);
    else if (status != PP_OK && !(status == PP_E_UNSUPPORTED && passage->shape.kind == PP_SITE_ARMED))
        fail(p, error.text[0] != '\0' ? error.text : pp_strerror(status));
    return status == PP_OK;
}

static void close_passage(struct passages *p)
{
    struct passage *passage = &p->passage;
    pp_site_stats stats = { .size = sizeof stats };
    if (passage->failed != PP_OK)
        fail(p, pp_strerror(passage->failed));
    if (pp_site_get_stats(passage->site, &stats) != PP_OK || stats.triggers > 1
        || stats.refusals != 0 || stats.failures != 0
        || passage->produced > !passage->shape.by_hand)
        fail(p, "its site counted what did not happen");
    if (passage_close(passage) != PP_OK)
        fail(p, "not freed");
}

static void add(struct counts *counts, const struct passage_run *run, bool first)
{
    counts->passages += first;
    counts->runs++;
    counts->passes += run->passes + run->bodies;
    counts->bodies += run->bodies;
}

static void run_alone(struct passages *p, struct random *random)
{
    const struct passage_shape *shape = &p->passage.shape;
    struct forecast forecast = { .left = shape->threshold, .hits = shape->hits,
                                 .ready = shape->by_hand };
    static struct passage_run run;
    for (unsigned i = 0; i < RUNS; i++) {
        struct random own = { random_next(random) };
        unsigned limit = 1 + (unsigned) random_below(random, 20);
        if (!passage_run(&run, &p->passage, &p->thread, own, limit)) {
            fail(p, run.wrong);
            break;
        }
        if (!as_foreseen(shape, &forecast, &run))
            fail(p, "the body began in another pass than it should");
        add(&p->styles[shape->style], &run, i == 0);
        add(&p->kinds[shape->kind], &run, i == 0);
        add(&p->classes[shape->save], &run, i == 0);
    }
}

/* ---- many threads --------------------------------------------------------------------- */

struct worker {
    struct passages *passages;
    struct passage_thread thread;
    struct random random;
    struct passage_run run;
    unsigned runs, bodies, passes;
    bool good;
};

static void work(void *item)
{
    struct worker *worker = item;
    worker->good = passage_thread_begin(&worker->thread);
    if (!worker->good)
        return;
    for (; worker->runs < 3 * RUNS && worker->good; worker->runs++) {
        struct random own = { random_next(&worker->random) };
        worker->good = passage_run(&worker->run, &worker->passages->passage, &worker->thread, own, 20);
        worker->bodies += worker->run.bodies;
        worker->passes += worker->run.passes;
    }
    passage_thread_end(&worker->thread);
}

static void run_together(struct passages *p, struct random *random)
{
    unsigned count = stress_threads(p->stress, 4);
    count = count < TOGETHER_MAX ? count : TOGETHER_MAX;
    struct worker *workers = calloc(count, sizeof *workers);
    for (unsigned i = 0; workers != NULL && i < count; i++) {
        workers[i].passages = p;
        workers[i].random = (struct random) { random_next(random) };
    }
    if (workers == NULL || !together(work, workers, sizeof *workers, count))
        fail(p, "threads could not be started");
    for (unsigned i = 0; workers != NULL && i < count; i++) {
        if (!workers[i].good)
            fail(p, workers[i].run.wrong);
        p->threads.runs += workers[i].runs;
        p->threads.bodies += workers[i].bodies;
        p->threads.passes += workers[i].passes + workers[i].bodies;
    }
    p->threads.passages++;
    free(workers);
}

/* ---- all of them --------------------------------------------------------------------- */

static bool open_pools(struct passages *p)
{
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(p->stress, &error);
    options.region_bytes = 2 << 20;
    pp_status status = pp_pool_create(&options, &p->pools[0]);
    if (status != PP_OK)
        p->pools[0] = NULL;
    options.flags = pool_flags[1];
    options.branch_range = 1;
    if (status == PP_OK && (status = pp_pool_create(&options, &p->pools[1])) != PP_OK)
        p->pools[1] = NULL;
    if (status != PP_OK)
        stress_fail(p->stress, "pools of passages: %s", error.text);
    return status == PP_OK;
}

static void close_pools(struct passages *p)
{
    for (unsigned i = 0; i < 2; i++) {
        if (p->pools[i] == NULL)
            continue;
        if (pp_pool_verify(p->pools[i], NULL) != PP_OK)
            stress_fail(p->stress, "passage %llu: the pool does not verify",
                        (unsigned long long) p->number);
        pp_pool_destroy(p->pools[i]);
        p->pools[i] = NULL;
    }
}

struct passages *passages_begin(struct stress *stress)
{
    struct passages *p = calloc(1, sizeof *p);
    if (p == NULL || !passage_thread_begin(&p->thread)) {
        stress_fail(stress, "no memory for passages, or no thread");
        free(p);
        return NULL;
    }
    p->stress = stress;
    p->saves = (1u << SAVES) - 1;
    return p;
}

void passages_more(struct passages *p)
{
    for (unsigned i = 0; i < EACH && stress_failures(p->stress) == 0; i++, p->number++) {
        struct random random = stress_random(p->stress, STREAM + p->number);
        if (p->number % RENEW == 0) {
            close_pools(p);
            if (!open_pools(p))
                return;
        }
        if (!open_passage(p, &random))
            continue;
        if (p->number % 8 == 7)
            run_together(p, &random);
        else
            run_alone(p, &random);
        close_passage(p);
    }
}

static void row(struct stress_table *table, const char *name, const struct counts *counts)
{
    const double values[] = { counts->passages, counts->runs, counts->passes, counts->bodies };
    if (counts->passages != 0)
        stress_row(table, name, "", values);
}

void passages_end(struct passages *p)
{
    static const char *const columns[] = { "passages", "runs", "passes", "moved" };
    static const char *const styles[STYLES] = { NULL, "on top", "replaced", "buffer" };
    static const char *const kinds[KINDS] = { NULL, "counted", "forced", "polled", "armed" };
    static const char *const classes[SAVES] = { "GPR", "V128", "ABI", "V256", "V512", "mask" };
    struct stress_table *table = stress_table(p->stress, "passages", 4, columns);
    for (unsigned i = 1; i < STYLES; i++)
        row(table, styles[i], &p->styles[i]);
    for (unsigned i = 1; i < KINDS; i++)
        row(table, kinds[i], &p->kinds[i]);
    for (unsigned i = 0; i < SAVES; i++)
        row(table, classes[i], &p->classes[i]);
    row(table, "many threads", &p->threads);
    close_pools(p);
    passage_thread_end(&p->thread);
    free(p);
}
