/* SPDX-License-Identifier: MIT */
/*
 * faults: threads use a pool while the scripts of faults change under them.  Again and
 * again they are stopped, the pool is verified, and its counts are compared with what
 * the threads have; at the end of a round everything is freed, and nothing may be left.
 *
 * The scripts are drawn from the seed, or are always the one of --fault.
 */
#include <config.h>

#include "stress/faulty.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    THREADS = 4,
    ROUNDS = 24,        /* of a native run */
    SCRIPTS = 60,       /* in a round */
    CHECK_EVERY = 10,
    TEXT_MAX = 128
};
#define REGION_BYTES ((size_t) 16 << 20)
#define POOL_NAME "pp-stress-faults"

/* A round: the threads hold the lock for an operation each, the director to look at all. */
struct stage {
    struct faulty_round round;
    pthread_rwlock_t lock;
    atomic_bool stop;
    unsigned thread_count;
    struct faulty_worker *workers;
    struct random random;       /* the director's */
    char texts[2][TEXT_MAX];    /* of the script in force, and of the one before */
    char what[64];
};

struct sum {
    uint64_t rounds, scripts, operations, refused, checks;
    uint64_t seen[PP_FAULT_CALLS], hits[PP_FAULT_CALLS];
};

/* ---- scripts ---------------------------------------------------------- */

static void random_item(struct random *random, char *text, size_t size)
{
    static const char *const errors[] = { "", "", "", "", "=ENOMEM", "=EAGAIN", "=EINTR",
                                          "=EPERM", "=EACCES", "=EMFILE", "=ENOSPC", "=EINVAL" };
    char count[16] = "";
    uint64_t kind = random_below(random, 4);
    if (kind == 0)
        snprintf(count, sizeof count, "+*");
    else if (kind < 3)
        snprintf(count, sizeof count, "+%u", 1 + (unsigned) random_below(random, 40));
    snprintf(text, size, "%s:%u%s%s",
             pp_fault_name((pp_fault_call) random_below(random, PP_FAULT_CALLS + 1)),
             1 + (unsigned) random_below(random, 60), count,
             errors[random_below(random, sizeof errors / sizeof errors[0])]);
}

/* In one of four there is none. */
static void random_script(struct random *random, char *text, size_t size)
{
    size_t items = (size_t) random_below(random, 4), length = 0;
    text[0] = '\0';
    for (size_t i = 0; i < items; i++) {
        char item[TEXT_MAX];
        random_item(random, item, sizeof item);
        length += (size_t) snprintf(text + length, size - length, "%s%s", i > 0 ? "," : "", item);
        if (length >= size) /* cannot be: an item has at most 40 characters */
            abort();
    }
}

/* Set the script, and count what the one before did. */
static void change_script(struct stage *stage, const char *text, struct sum *sum)
{
    pp_fault script[PP_FAULT_ROWS];
    size_t count = 0;
    for (int i = 0; i < PP_FAULT_CALLS; i++) {
        sum->seen[i] += pp_fault_seen((pp_fault_call) i);
        sum->hits[i] += pp_fault_hit((pp_fault_call) i);
    }
    if (text[0] != '\0' &&
        pp_fault_parse(text, script, PP_FAULT_ROWS, &count, NULL) != PP_OK)
        stress_fail(stage->round.stress, "the script \"%s\" is not understood", text);
    if (pp_fault_set(script, count) != PP_OK)
        stress_fail(stage->round.stress, "the script \"%s\" cannot be set", text);
    atomic_store(&stage->round.script, text);
}

static void next_script(struct stage *stage, uint64_t number, struct sum *sum)
{
    const struct stress_options *options = stress_options(stage->round.stress);
    char *text = stage->texts[number % 2];
    random_script(&stage->random, text, TEXT_MAX);
    change_script(stage, options->fault != NULL ? options->fault : text, sum);
    sum->scripts++;
}

/* ---- looking ---------------------------------------------------------- */

static void expect(struct stage *stage, const char *what, size_t is, size_t should)
{
    if (is != should)
        stress_fail(stage->round.stress, "%s: the pool has %zu %s instead of %zu",
                    stage->what, is, what, should);
}

/* Nobody uses the pool, and there is no script. */
static void look(struct stage *stage, struct sum *sum)
{
    struct stress *stress = stage->round.stress;
    struct faulty_sum have = { 0 };
    pp_pool_stats stats = { .size = sizeof stats };
    pp_error error = { .size = sizeof error };
    sum->checks++;
    if (pp_pool_verify(stage->round.pool, &error) != PP_OK)
        stress_fail(stress, "%s: %s", stage->what, error.text);
    pp_status status = pp_reclaim(stage->round.pool, pp_retire_ticket(stage->round.pool), NULL, 0,
                                  NULL);
    if (status != PP_OK)
        stress_fail(stress, "%s: pp_reclaim: %s", stage->what, pp_strerror(status));
    if (pp_pool_get_stats(stage->round.pool, &stats) != PP_OK)
        stress_fail(stress, "%s: there are no statistics", stage->what);
    for (unsigned i = 0; i < stage->thread_count; i++)
        faulty_add(&stage->workers[i], &have);
    expect(stage, "spans", stats.spans, have.spans);
    expect(stage, "traces", stats.traces, have.traces);
    expect(stage, "bytes", stats.requested, have.requested);
    expect(stage, "retired spans", stats.retired_spans, 0);
    if (have.traces == 0) {
        expect(stage, "trampolines", stats.trampolines, 0);
        expect(stage, "literals", stats.literals, 0);
    }
    if (have.spans == 0)
        expect(stage, "used bytes", stats.used, 0);
}

/* Mappings that have the pool's name, where the kernel gives names. */
static size_t count_named(void)
{
    char line[512];
    size_t count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, POOL_NAME) != NULL;
    if (maps != NULL)
        fclose(maps);
    return count;
}

/* ---- a round ---------------------------------------------------------- */

static void *work(void *argument)
{
    struct faulty_worker *worker = argument;
    struct stage *stage = (struct stage *) worker->round;
    while (!atomic_load_explicit(&stage->stop, memory_order_relaxed)) {
        pthread_rwlock_rdlock(&stage->lock);
        faulty_step(worker);
        pthread_rwlock_unlock(&stage->lock);
    }
    return NULL;
}

/* The mode in use, which the faults may have changed from the best one to another. */
static bool note_mode(struct stage *stage)
{
    static const char *const names[] = { "auto", "dual", "remap", "flip", "rwx" };
    pp_pool_stats stats = { .size = sizeof stats };
    size_t length = strlen(stage->what);
    if (pp_pool_get_stats(stage->round.pool, &stats) != PP_OK) {
        stress_fail(stage->round.stress, "%s: there are no statistics", stage->what);
        return false;
    }
    stage->round.mode = stats.wx;
    if (stats.wx != stage->round.wx)
        snprintf(stage->what + length, sizeof stage->what - length, ", in use: %s",
                 names[stats.wx]);
    return true;
}

/* With faults first, when it may be refused; then without. */
static bool open_pool(struct stage *stage, struct sum *sum)
{
    struct stress *stress = stage->round.stress;
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    options.wx = stage->round.wx;
    options.region_bytes = REGION_BYTES;
    options.branch_range = stage->round.far ? 1 : 0;
    options.name = POOL_NAME;
    options.idle_bytes = stage->round.far ? 4096 : 0;
    next_script(stage, 0, sum);
    pp_status status = pp_pool_create(&options, &stage->round.pool);
    change_script(stage, "", sum);
    if (status != PP_OK) {
        if (status != PP_E_NOMEM && status != PP_E_SYSTEM && status != PP_E_UNSUPPORTED)
            stress_fail(stress, "%s: pp_pool_create: %s", stage->what, pp_strerror(status));
        status = pp_pool_create(&options, &stage->round.pool);
    }
    if (status == PP_E_UNSUPPORTED) {
        stress_note(stress, "%s: %s", stage->what, error.text);
        return false;
    }
    if (status != PP_OK || !faulty_prepare(&stage->round)) {
        stress_fail(stress, "%s: without faults: %s", stage->what, error.text);
        return false;
    }
    return note_mode(stage);
}

static void direct(struct stage *stage, struct sum *sum)
{
    for (uint64_t i = 1; i <= SCRIPTS; i++) {
        uint64_t microseconds = 100 + random_below(&stage->random, 3000);
        struct timespec time = { 0, (long) microseconds * 1000 };
        next_script(stage, i, sum);
        nanosleep(&time, NULL);
        if (i % CHECK_EVERY == 0) {
            pthread_rwlock_wrlock(&stage->lock);
            change_script(stage, "", sum);
            look(stage, sum);
            pthread_rwlock_unlock(&stage->lock);
        }
        if (stress_expired(stage->round.stress))
            break;
    }
    pthread_rwlock_wrlock(&stage->lock);
    change_script(stage, "", sum);
    pthread_rwlock_unlock(&stage->lock);
    atomic_store(&stage->stop, true);
}

static void run_threads(struct stage *stage, uint64_t number, struct sum *sum)
{
    struct stress *stress = stage->round.stress;
    pthread_t *threads = calloc(stage->thread_count, sizeof *threads);
    unsigned started = 0;
    for (; threads != NULL && started < stage->thread_count; started++) {
        struct faulty_worker *worker = &stage->workers[started];
        worker->round = &stage->round;
        worker->index = started;
        worker->random = stress_random(stress, (number << 16) + 1 + started);
        if (pthread_create(&threads[started], NULL, work, worker) != 0)
            break;
    }
    if (started < stage->thread_count)
        stress_fail(stress, "no memory for %u threads", stage->thread_count);
    direct(stage, sum);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    for (unsigned i = 0; i < started; i++) {
        faulty_finish(&stage->workers[i]);
        sum->operations += stage->workers[i].operations;
        sum->refused += stage->workers[i].refused;
    }
}

static void run_round(struct stress *stress, uint64_t number, struct sum *sum)
{
    static const struct { pp_wx wx; const char *name; } modes[] = {
        { PP_WX_AUTO, "auto" }, { PP_WX_FLIP, "flip" }, { PP_WX_REMAP, "remap" },
        { PP_WX_RWX, "rwx" },
    };
    pp_wx wanted = stress_options(stress)->wx;
    struct stage stage = { .round = { .stress = stress, .far = number / 4 % 2 == 0,
                                      .wx = wanted != PP_WX_AUTO ? wanted : modes[number % 4].wx,
                                      .script = "" },
                           .thread_count = stress_threads(stress, THREADS),
                           .random = stress_random(stress, number << 16) };
    snprintf(stage.what, sizeof stage.what, "round %llu, %s, %s", (unsigned long long) number,
             wanted != PP_WX_AUTO ? "given mode" : modes[number % 4].name,
             stage.round.far ? "far" : "near");
    stage.round.what = stage.what;
    stage.workers = calloc(stage.thread_count, sizeof *stage.workers);
    pthread_rwlockattr_t writers_first;
    pthread_rwlockattr_init(&writers_first);
    pthread_rwlockattr_setkind_np(&writers_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&stage.lock, &writers_first);
    pthread_rwlockattr_destroy(&writers_first);
    if (stage.workers == NULL) {
        stress_fail(stress, "no memory for %u threads", stage.thread_count);
    } else if (open_pool(&stage, sum)) {
        run_threads(&stage, number, sum);
        look(&stage, sum);
        pp_pool_destroy(stage.round.pool);
        size_t left = count_named();
        if (left != 0)
            stress_fail(stress, "%s: %zu mappings of the pool are left", stage.what, left);
    }
    free(stage.workers);
    pthread_rwlock_destroy(&stage.lock);
    sum->rounds++;
}

/* ---- the scenario ------------------------------------------------------- */

static void show(struct stress *stress, const struct sum *sum)
{
    static const char *const counts[] = { "count" };
    static const char *const columns[] = { "asked", "failed" };
    struct stress_table *table = stress_table(stress, "operations under faults", 1, counts);
    stress_value(table, "rounds", "", (double) sum->rounds);
    stress_value(table, "scripts", "", (double) sum->scripts);
    stress_value(table, "operations", "", (double) sum->operations);
    stress_value(table, "of these, refused", "", (double) sum->refused);
    stress_value(table, "times the pool was checked", "", (double) sum->checks);
    table = stress_table(stress, "requests under a script", 2, columns);
    uint64_t hits = 0;
    for (int i = 0; i < PP_FAULT_CALLS; i++) {
        const double values[] = { (double) sum->seen[i], (double) sum->hits[i] };
        hits += sum->hits[i];
        stress_row(table, pp_fault_name((pp_fault_call) i), "", values);
    }
    if (hits == 0 && stress_options(stress)->fault == NULL)
        stress_fail(stress, "no fault was met");
}

static void run_faults(struct stress *stress)
{
    struct sum sum = { 0 };
    uint64_t rounds = stress_iterations(stress, ROUNDS);
    for (uint64_t i = 0; i < rounds || stress_fills_time(stress); i++) {
        stress_progress(stress, "rounds", i, stress_fills_time(stress) ? 0 : rounds);
        run_round(stress, i, &sum);
        if (stress_expired(stress))
            break;
    }
    show(stress, &sum);
}

const struct scenario scenario_faults = {
    .name = "faults",
    .summary = "use pools from threads while requests to the kernel and the allocator fail",
    .run = run_faults,
    .seconds = 4,
    .takes_faults = true,
};
