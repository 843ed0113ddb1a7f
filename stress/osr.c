/* SPDX-License-Identifier: MIT */
/*
 * osr: methods of every kind in random shapes, run against a model in C, with
 * random register contents; many threads on one site; and passages, in which frames,
 * registers and value maps are random.
 */
#include <config.h>

#include "stress/method.h"
#include "stress/passages.h"
#include "stress/registers.h"
#include "stress/stress.h"
#include "stress/together.h"

static const char *const kind_names[METHOD_KINDS] = {
    [METHOD_SUM] = "sum",
    [METHOD_NESTED] = "nested loops, two patchpoints",
    [METHOD_REGISTERS] = "all registers",
    [METHOD_RECURSION] = "recursion",
    [METHOD_SUSPEND] = "suspended", /* the resume scenario's */
};

struct tally {
    uint64_t methods, runs, slow_paths, transitions, bodies;
};

/* ---- shapes ----------------------------------------------------------------- */

static struct method_shape draw_shape(struct random *random, enum method_kind kind)
{
    static const uint32_t sizes[] = { 0, 16, 3840, 4096, 65536, 131072 };
    uint64_t bits = random_next(random);
    struct method_shape shape = {
        .kind = kind,
        .scheme = bits & 1 ? PP_CSR_RELOAD : PP_CSR_RESERVE,
        .counter = bits & 2 ? PP_COUNTER_SITE : PP_COUNTER_FRAME,
        .save = bits & 4 ? PP_SAVE_V128 : PP_SAVE_GPR,
        .with_thread = (bits & 8) != 0,
#if defined __x86_64__
        .flags = bits & 16 ? PP_SITE_RED_ZONE : 0,
#endif
        .threshold = 1 + (int32_t) random_below(random, 40),
        .hits = 1 + (uint32_t) random_below(random, 10),
    };
    if (kind != METHOD_RECURSION) { /* large frames, one at a time */
        shape.more_bytes = sizes[random_below(random, 6)];
        shape.local_bytes = sizes[random_below(random, 6)];
    }
    return shape;
}

static void draw_saved(struct random *random, uint64_t saved[SAVE_SLOTS])
{
    for (unsigned i = 0; i < SAVE_SLOTS; i++)
        saved[i] = random_next(random);
}

/* ---- one method ------------------------------------------------------------- */

static void run_registers(struct stress *stress, const struct method *method, pp_thread *thread,
                          struct random *random)
{
    const struct method_shape *shape = &method->shape;
    uint64_t saved[SAVE_SLOTS], result, n = 1 + random_below(random, 1000);
    struct registers registers;
    registers_begin(&registers, (struct random) { random_next(random) }, shape->scheme,
                    shape->save == PP_SAVE_V128);
    draw_saved(random, saved);
    if (!method_run(method, thread, n, &registers, 0, saved, &result))
        stress_fail(stress, "registers: the caller's callee-saved registers or SP changed");
    if (registers.wrong != 0)
        stress_fail(stress, "registers: %u were not what they should be, scheme %d, class %d",
                    registers.wrong, (int) shape->scheme, (int) shape->save);
    /* Every pass in tier-0 was compared, and the entry into the body if there was one. */
    if (registers.checked != result + registers.in_body || registers.in_body > 1
        || (result != n && registers.in_body != 1))
        stress_fail(stress, "registers: %u comparisons, %u in a body, for %llu of %llu passes",
                    registers.checked, registers.in_body, (unsigned long long) result,
                    (unsigned long long) n);
}

static void run_model(struct stress *stress, const struct method *method, pp_thread *thread,
                      struct random *random)
{
    enum method_kind kind = method->shape.kind;
    uint64_t saved[SAVE_SLOTS], result;
    uint64_t n = kind == METHOD_RECURSION ? random_below(random, 8) : 1 + random_below(random, 200);
    uint64_t start = kind == METHOD_RECURSION ? 3 : 1 + random_below(random, 30);
    draw_saved(random, saved);
    if (!method_run(method, thread, n, NULL, start, saved, &result))
        stress_fail(stress, "%s: the caller's callee-saved registers or SP changed",
                    kind_names[kind]);
    if (result != method_model(method, n, start))
        stress_fail(stress, "%s(%llu, %llu) gave %llu, not %llu", kind_names[kind],
                    (unsigned long long) n, (unsigned long long) start,
                    (unsigned long long) result,
                    (unsigned long long) method_model(method, n, start));
}

static void add_stats(struct stress *stress, const struct method *method, struct tally *tally)
{
    for (unsigned i = 0; i < method->site_count; i++) {
        pp_site_stats stats = { .size = sizeof stats };
        if (pp_site_get_stats(method->sites[i], &stats) != PP_OK)
            stress_fail(stress, "pp_site_get_stats failed");
        if (stats.triggers > 1 || stats.refusals != 0)
            stress_fail(stress, "a site triggered %llu times and refused %llu entries",
                        (unsigned long long) stats.triggers, (unsigned long long) stats.refusals);
        tally->slow_paths += stats.slow_paths;
        tally->transitions += stats.transitions;
    }
    tally->bodies += method->produced;
}

static bool open_method(struct stress *stress, struct method *method, pp_pool *pool,
                        const struct method_shape *shape)
{
    pp_status status = method_open(method, pool, shape);
    if (status != PP_OK)
        stress_fail(stress, "%s: %s", kind_names[shape->kind], pp_strerror(status));
    return status == PP_OK;
}

static void close_method(struct stress *stress, struct method *method)
{
    if (method->failed != PP_OK)
        stress_fail(stress, "%s: no body: %s", kind_names[method->shape.kind],
                    pp_strerror(method->failed));
    pp_status status = method_close(method);
    if (status != PP_OK)
        stress_fail(stress, "%s: not freed: %s", kind_names[method->shape.kind],
                    pp_strerror(status));
}

static void run_kind(struct stress *stress, pp_pool *pool, pp_thread *thread,
                     struct random *random, enum method_kind kind, struct tally *tally)
{
    struct method method;
    struct method_shape shape = draw_shape(random, kind);
    if (!open_method(stress, &method, pool, &shape))
        return;
    for (unsigned i = 0; i < 20; i++) {
        if (kind == METHOD_REGISTERS)
            run_registers(stress, &method, thread, random);
        else
            run_model(stress, &method, thread, random);
    }
    tally->methods++;
    tally->runs += 20;
    add_stats(stress, &method, tally);
    close_method(stress, &method);
}

/* ---- many threads on one site ------------------------------------------------- */

struct worker {
    const struct method *method;
    uint64_t n, result;
    uint64_t saved[SAVE_SLOTS];
    bool good;
};

static void work(void *item)
{
    struct worker *worker = item;
    pp_thread thread;
    worker->good = pp_thread_init(&thread, NULL, NULL) == PP_OK
                && method_run(worker->method, &thread, worker->n, NULL, 1, worker->saved,
                              &worker->result);
}

static void run_threads(struct stress *stress, pp_pool *pool, struct random *random,
                        struct tally *tally)
{
    unsigned count = stress_threads(stress, 8);
    struct worker workers[TOGETHER_MAX];
    struct method method;
    struct method_shape shape = draw_shape(random, METHOD_SUM);
    if (count > TOGETHER_MAX)
        count = TOGETHER_MAX;
    if (!open_method(stress, &method, pool, &shape))
        return;
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker) { .method = &method,
                                       .n = 5000 + random_below(random, 5000) };
        draw_saved(random, workers[i].saved);
    }
    bool ran = together(work, workers, sizeof *workers, count);
    if (!ran)
        stress_fail(stress, "threads: %u could not be started", count);
    for (unsigned i = 0; i < count; i++)
        if (ran && (!workers[i].good || workers[i].result != method_model(&method, workers[i].n, 1)))
            stress_fail(stress, "threads: thread %u of %u went wrong", i, count);
    if (ran && method.produced != 1)
        stress_fail(stress, "threads: %u producers, not one", (unsigned) method.produced);
    tally->methods++;
    tally->runs += count;
    add_stats(stress, &method, tally);
    close_method(stress, &method);
}

/* ---- the scenario --------------------------------------------------------------- */

static void report(struct stress *stress, const struct tally *tallies)
{
    static const char *const columns[] = { "methods", "runs", "slow paths", "of them moved",
                                           "bodies" };
    struct stress_table *table = stress_table(stress, "transitions", 5, columns);
    for (unsigned kind = 0; kind <= METHOD_KINDS; kind++) {
        const struct tally *t = &tallies[kind];
        if (kind == METHOD_SUSPEND)
            continue;
        const double values[] = { (double) t->methods, (double) t->runs, (double) t->slow_paths,
                                  (double) t->transitions, (double) t->bodies };
        stress_row(table, kind == METHOD_KINDS ? "many threads, one site" : kind_names[kind], "",
                   values);
        if (t->bodies == 0 && stress_failures(stress) == 0)
            stress_fail(stress, "no transition at all");
    }
}

static void run(struct stress *stress)
{
    struct tally tallies[METHOD_KINDS + 1] = { { 0 } };
    struct random random = stress_random(stress, 1);
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    pp_pool *pool;
    pp_thread thread;
    if (pp_pool_create(&options, &pool) != PP_OK) {
        stress_fail(stress, "pool: %s", error.text);
        return;
    }
    if (pp_thread_init(&thread, NULL, NULL) != PP_OK)
        stress_fail(stress, "no bounds of the stack");

    struct passages *passages = passages_begin(stress);
    uint64_t rounds = stress_iterations(stress, 1000);
    for (uint64_t i = 0; (i < rounds || stress_fills_time(stress)) && stress_failures(stress) == 0;
         i++) {
        if (i > 0 && stress_expired(stress))
            break;
        for (unsigned kind = 0; kind < METHOD_KINDS; kind++)
            if (kind != METHOD_SUSPEND)
                run_kind(stress, pool, &thread, &random, kind, &tallies[kind]);
        if (passages != NULL)
            passages_more(passages);
        if (i % 8 == 0)
            run_threads(stress, pool, &random, &tallies[METHOD_KINDS]);
        stress_progress(stress, "round", i + 1, stress_fills_time(stress) ? 0 : rounds);
    }
    report(stress, tallies);
    if (passages != NULL)
        passages_end(passages);
    if (pp_pool_verify(pool, &error) != PP_OK)
        stress_fail(stress, "pool: %s", error.text);
    pp_pool_destroy(pool);
}

const struct scenario scenario_osr = {
    .name = "osr",
    .summary = "methods move from tier-0 into OSR bodies, checked against a model",
    .run = run,
    .seconds = 8,
};
