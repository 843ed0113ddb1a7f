/* SPDX-License-Identifier: MIT */
/*
 * patch: threads run sites while others patch them, by every protocol, in batches that
 * are undone now and then; and traces with watched sites are made, fired by other
 * threads, and freed, or retired and fired once more.
 *
 * Each site leads to one of several endings, which return their numbers.  Who patches a
 * site counts its moves, before and after each; who runs it reads both counts around
 * the call, so that it knows which endings may have been reached: those of the moves
 * from the last that was over to the last that had begun.
 */
#include <config.h>

#include "stress/stress.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    PATCHERS = 2,
    SITES = 24,           /* of each patcher */
    BATCH = 8,
    CHOICES = 5,          /* what a site does by itself, and endings; values of a literal */
    RUNNERS_MAX = 64,
    HISTORY = 64,         /* moves during one call that are looked at one by one */
    KEYS = 4,
    KEPT = 32             /* watched traces at a time */
};

/* A function: entry, endings, and a word of data.  The site is at the entry. */
enum { STEP = 16, ENDINGS = 16, DATA = ENDINGS + CHOICES * STEP, SIZE = DATA + 8 };

struct site {
    const uint8_t *code;      /* of the function */
    pp_patch_protocol protocol;
    size_t offset;            /* of the site in it */
    _Atomic uint64_t flag;    /* GUARD */
    _Atomic uint64_t begun, over;
    _Atomic uint8_t choices[HISTORY]; /* of move n at n % HISTORY */
};

struct show {
    struct stress *stress;
    pp_pool *pool;
    struct site sites[PATCHERS][SITES];
    atomic_bool over;
};

struct worker {
    pthread_t thread;
    struct show *show;
    unsigned number;
    struct random random;
    uint64_t done, refused, undone, dropped;
};

/* ---- code ------------------------------------------------------------------------ */

#if defined __x86_64__
enum { LENGTH = 5 };
static const pp_patch_protocol kinds[] = { PP_PATCH_WORD, PP_PATCH_LITERAL, PP_PATCH_INT3,
                                           PP_PATCH_GUARD };

static void emit_nops(uint8_t *to) { memset(to, 0x90, SIZE); }

static void emit_return(uint8_t *to, unsigned value)
{
    memcpy(to, (const uint8_t[]) { 0xb8, (uint8_t) value, 0, 0, 0, 0xc3 }, 6);
}

/* mov data(%rip), %rax; of a guard: mov (%rax), %rax; ret */
static void emit_load(uint8_t *to, bool through)
{
    const uint8_t load[] = { 0x48, 0x8b, 0x05, DATA - 7, 0, 0, 0, 0x48, 0x8b, 0x00, 0xc3 };
    memcpy(to, load, 7);
    memcpy(to + 7, load + (through ? 7 : 10), through ? 4 : 1);
}
#else
enum { LENGTH = 4 };
static const pp_patch_protocol kinds[] = { PP_PATCH_BRANCH, PP_PATCH_LITERAL, PP_PATCH_GUARD };

static void emit_nops(uint8_t *to)
{
    for (unsigned i = 0; i < SIZE; i += 4)
        memcpy(to + i, &(uint32_t) { 0xd503201f }, 4);
}

static void emit_return(uint8_t *to, unsigned value)
{
    memcpy(to, (const uint32_t[]) { 0x52800000u | value << 5, 0xd65f03c0 }, 8);
}

/* ldr x0, data; of a guard: ldr x0, [x0]; ret */
static void emit_load(uint8_t *to, bool through)
{
    const uint32_t load[] = { 0x58000000u | DATA / 4 << 5, 0xf9400000, 0xd65f03c0 };
    memcpy(to, load, 4);
    memcpy(to + 4, load + (through ? 1 : 2), through ? 8 : 4);
}
#endif

enum { KINDS = sizeof kinds / sizeof *kinds };

/* The bytes that make a site do this. */
static void choose(const struct site *site, unsigned choice, uint8_t *bytes)
{
    size_t written;
    pp_status status = PP_OK;
    if (site->protocol == PP_PATCH_LITERAL || site->protocol == PP_PATCH_GUARD)
        memcpy(bytes, &(uint64_t) { choice }, 8);
    else if (choice == 0)
        status = pp_emit_nop(PP_ARCH_HOST, LENGTH, bytes, PP_PATCH_BYTES);
    else
        status = pp_emit_jump(PP_ARCH_HOST, site->code + site->offset,
                              site->code + ENDINGS + choice * STEP, bytes, PP_PATCH_BYTES,
                              &written);
    if (status != PP_OK)
        abort();
}

static pp_trace *link_site(struct show *show, struct site *site)
{
    uint8_t bytes[SIZE];
    pp_trace *trace = NULL;
    pp_error error = { .size = sizeof error };
    bool data = site->protocol == PP_PATCH_LITERAL || site->protocol == PP_PATCH_GUARD;
    uint64_t word = site->protocol == PP_PATCH_GUARD ? (uintptr_t) &site->flag : 0;
    emit_nops(bytes);
    for (unsigned i = 0; i < CHOICES; i++)
        emit_return(bytes + ENDINGS + i * STEP, i);
    site->offset = site->protocol == PP_PATCH_INT3 ? 6 : 0;
    if (data)
        emit_load(bytes, site->protocol == PP_PATCH_GUARD);
    else if (pp_emit_nop(PP_ARCH_HOST, LENGTH, bytes + site->offset, LENGTH) != PP_OK)
        abort();
    memcpy(bytes + DATA, &word, sizeof word);
    pp_trace_desc desc = { .size = sizeof desc, .code = bytes, .code_size = DATA,
                           .data = bytes + DATA, .data_size = 8, .host = site, .error = &error };
    pp_status status = pp_trace_link(show->pool, &desc, &trace);
    if (status != PP_OK) {
        stress_fail(show->stress, "pp_trace_link: %s: %s", pp_strerror(status), error.text);
        return NULL;
    }
    site->code = pp_trace_entry(trace);
    return trace;
}

static pp_patch make_patch(const struct site *site, unsigned from, unsigned to)
{
    bool literal = site->protocol == PP_PATCH_LITERAL, guard = site->protocol == PP_PATCH_GUARD;
    pp_patch patch = { .address = site->code + (literal ? DATA : site->offset),
                       .protocol = (uint8_t) site->protocol,
                       .bytes = literal || guard ? 8 : LENGTH, .flags = PP_PATCH_EXPECT_OLD };
    if (guard)
        patch.address = (const void *) &site->flag;
    choose(site, from, patch.old);
    choose(site, to, patch.value);
    return patch;
}

/* ---- running --------------------------------------------------------------------- */

static long run_site(const struct site *site)
{
    return ((long (*)(void)) (uintptr_t) site->code)();
}

static bool may_reach(const struct site *site, uint64_t from, uint64_t to, long value)
{
    if (to - from >= HISTORY / 2)
        return value >= 0 && value < CHOICES;
    for (uint64_t move = from; move <= to; move++)
        if (value == atomic_load_explicit(&site->choices[move % HISTORY], memory_order_relaxed))
            return true;
    return false;
}

static void check_site(struct show *show, const struct site *site)
{
    uint64_t from = atomic_load_explicit(&site->over, memory_order_acquire);
    long value = run_site(site);
    atomic_thread_fence(memory_order_acquire);
    uint64_t to = atomic_load_explicit(&site->begun, memory_order_acquire);
    if (may_reach(site, from, to, value))
        return;
    /* The history may have been written over since: then it says nothing. */
    uint64_t now = atomic_load_explicit(&site->begun, memory_order_acquire);
    if (now - from >= HISTORY / 2 && value >= 0 && value < CHOICES)
        return;
    stress_fail(show->stress, "a site of protocol %d did %ld, which is none of moves %" PRIu64
                " to %" PRIu64, site->protocol, value, from, to);
}

static void *be_runner(void *argument)
{
    struct worker *worker = argument;
    struct show *show = worker->show;
    while (!atomic_load_explicit(&show->over, memory_order_relaxed)) {
        for (unsigned i = 0; i < PATCHERS; i++)
            for (unsigned j = 0; j < SITES; j++)
                check_site(show, &show->sites[i][j]);
        worker->done += PATCHERS * SITES;
    }
    return NULL;
}

/* ---- patching -------------------------------------------------------------------- */

static unsigned now_of(const struct site *site)
{
    uint64_t move = atomic_load_explicit(&site->over, memory_order_relaxed);
    return atomic_load_explicit(&site->choices[move % HISTORY], memory_order_relaxed);
}

static void begin_move(struct site *site, unsigned choice)
{
    uint64_t next = atomic_load_explicit(&site->over, memory_order_relaxed) + 1;
    atomic_store_explicit(&site->choices[next % HISTORY], (uint8_t) choice, memory_order_relaxed);
    atomic_store_explicit(&site->begun, next, memory_order_release);
}

static void end_move(struct site *site)
{
    atomic_store_explicit(&site->over,
                          atomic_load_explicit(&site->begun, memory_order_relaxed),
                          memory_order_release);
}

static void apply(struct worker *worker, struct site *const *sites, const pp_patch *patches,
                  const unsigned *choices, unsigned count, pp_patch *journal)
{
    pp_error error = { .size = sizeof error };
    pp_patch_options options = { .size = sizeof options, .journal = journal, .error = &error };
    for (unsigned i = 0; i < count; i++)
        begin_move(sites[i], choices[i]);
    pp_status status = pp_patch_apply(worker->show->pool, patches, count, &options);
    for (unsigned i = 0; i < count; i++)
        end_move(sites[i]);
    if (status != PP_OK)
        stress_fail(worker->show->stress, "pp_patch_apply: %s: %s", pp_strerror(status),
                    error.text);
    worker->done += count;
}

/* A batch of some of the patcher's sites; with a wrong expectation, refused as a whole. */
static void patch_some(struct worker *worker)
{
    struct show *show = worker->show;
    struct site *sites[BATCH];
    pp_patch patches[BATCH], journal[BATCH];
    unsigned choices[BATCH], before[BATCH];
    unsigned count = 1 + (unsigned) random_below(&worker->random, BATCH);
    unsigned first = (unsigned) random_below(&worker->random, SITES);
    for (unsigned i = 0; i < count; i++) {
        sites[i] = &show->sites[worker->number][(first + 7 * i) % SITES];
        before[i] = now_of(sites[i]);
        choices[i] = (unsigned) random_below(&worker->random, CHOICES);
        patches[i] = make_patch(sites[i], before[i], choices[i]);
    }
    unsigned what = (unsigned) random_below(&worker->random, 8);
    if (what == 0) {
        unsigned last = count - 1;
        choose(sites[last], (before[last] + 1) % CHOICES, patches[last].old);
        if (pp_patch_apply(show->pool, patches, count, NULL) != PP_E_BUSY)
            stress_fail(show->stress, "a batch with other old bytes is not refused");
        worker->refused++;
        return;
    }
    apply(worker, sites, patches, choices, count, what <= 2 ? journal : NULL);
    if (what <= 2) {
        apply(worker, sites, journal, before, count, NULL);
        worker->undone++;
    }
}

static void *be_patcher(void *argument)
{
    struct worker *worker = argument;
    for (unsigned i = 1; !atomic_load_explicit(&worker->show->over, memory_order_relaxed); i++) {
        patch_some(worker);
        if (i % 64 == 0)
            sched_yield(); /* the lock is not fair */
    }
    return NULL;
}

/* ---- watching -------------------------------------------------------------------- */

static void *be_firer(void *argument)
{
    struct worker *worker = argument;
    struct show *show = worker->show;
    while (!atomic_load_explicit(&show->over, memory_order_relaxed)) {
        pp_error error = { .size = sizeof error };
        pp_watch_result result = { .size = sizeof result };
        pp_patch_options options = { .size = sizeof options, .error = &error };
        uint64_t key = random_below(&worker->random, KEYS);
        pp_status status = pp_watch_fire(show->pool, key, &options, &result);
        if (status != PP_OK)
            stress_fail(show->stress, "pp_watch_fire: %s: %s", pp_strerror(status), error.text);
        worker->done += result.applied;
        worker->dropped += result.dropped;
        sched_yield();
    }
    return NULL;
}

static void let_go(struct worker *worker, pp_trace *trace)
{
    pp_pool *pool = worker->show->pool;
    bool retire = random_next(&worker->random) & 1;
    pp_status status = retire ? pp_trace_retire(pool, trace) : pp_trace_free(pool, trace);
    if (status == PP_OK && retire)
        status = pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL);
    if (status != PP_OK)
        stress_fail(worker->show->stress, "a trace cannot be released: %s", pp_strerror(status));
}

struct watched {
    struct site site;
    pp_trace *trace;
    uint64_t key;
    long last;               /* what it did */
};

/* It does what it was linked for until it is fired, and then the other for good. */
static void run_watched(struct show *show, struct watched *watched)
{
    long value = run_site(&watched->site);
    if ((value != 0 && value != 1) || value < watched->last)
        stress_fail(show->stress, "a watched site did %ld after %ld", value, watched->last);
    watched->last = value;
}

static bool watch_another(struct worker *worker, struct watched *watched)
{
    struct show *show = worker->show;
    pp_error error = { .size = sizeof error };
    *watched = (struct watched) { .site.protocol = kinds[0] };
    watched->trace = link_site(show, &watched->site);
    if (watched->trace == NULL)
        return false;
    pp_patch patch = make_patch(&watched->site, 0, 1);
    watched->key = random_below(&worker->random, KEYS);
    if (pp_watch_add(show->pool, watched->key, &patch, &error) != PP_OK)
        stress_fail(show->stress, "pp_watch_add: %s", error.text);
    return true;
}

/* With the same bytes, mostly at the same address, and nobody's key. */
static bool look_at_innocent(struct worker *worker)
{
    struct site innocent = { .protocol = kinds[0] };
    pp_trace *trace = link_site(worker->show, &innocent);
    if (trace == NULL)
        return false;
    for (unsigned i = 0; i < 8; i++)
        if (run_site(&innocent) != 0)
            stress_fail(worker->show->stress, "a site was fired that nobody watches");
    let_go(worker, trace);
    return true;
}

/* Retired code runs on, and a fire reaches it as before. */
static void retire_watched(struct worker *worker, struct watched *watched)
{
    struct show *show = worker->show;
    pp_status status = pp_trace_retire(show->pool, watched->trace);
    if (status == PP_OK) {
        run_watched(show, watched);
        status = pp_watch_fire(show->pool, watched->key, NULL, NULL);
    }
    if (status == PP_OK && run_site(&watched->site) != 1)
        stress_fail(show->stress, "retired code was not fired");
    if (status == PP_OK)
        status = pp_reclaim(show->pool, pp_retire_ticket(show->pool), NULL, 0, NULL);
    if (status != PP_OK)
        stress_fail(show->stress, "watched code was not retired, fired and reclaimed: %s",
                    pp_strerror(status));
}

/* Traces that are watched come and go, and others take their places. */
static void *be_owner(void *argument)
{
    struct worker *worker = argument;
    struct show *show = worker->show;
    struct watched kept[KEPT] = { { .trace = NULL } };
    bool good = true;
    for (; good && !atomic_load_explicit(&show->over, memory_order_relaxed); worker->done++) {
        struct watched *watched = &kept[worker->done % KEPT];
        pp_error error = { .size = sizeof error };
        if (watched->trace != NULL && worker->done % 3 == 0)
            retire_watched(worker, watched);
        else if (watched->trace != NULL)
            let_go(worker, watched->trace);
        good = look_at_innocent(worker) && watch_another(worker, watched);
        for (unsigned i = 0; i < KEPT; i++)
            if (kept[i].trace != NULL)
                run_watched(show, &kept[i]);
        if (worker->done % 256 == 0 && pp_pool_verify(show->pool, &error) != PP_OK)
            stress_fail(show->stress, "pool: %s", error.text);
    }
    for (unsigned i = 0; i < KEPT; i++)
        if (kept[i].trace != NULL)
            let_go(worker, kept[i].trace);
    return NULL;
}

/* ---- traps ------------------------------------------------------------------------ */

static _Atomic uint64_t traps;
static struct stress *trapped;

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void) number;
    (void) info;
    if (pp_patch_trap(context))
        atomic_fetch_add_explicit(&traps, 1, memory_order_relaxed);
    else
        stress_fail(trapped, "a trap that is none of the library's");
}

/* ---- the scenario ------------------------------------------------------------------ */

static bool make_sites(struct show *show)
{
    for (unsigned i = 0; i < PATCHERS; i++) {
        for (unsigned j = 0; j < SITES; j++) {
            show->sites[i][j].protocol = kinds[j % KINDS];
            if (link_site(show, &show->sites[i][j]) == NULL)
                return false;
        }
    }
    return true;
}

static void wait_for_end(struct show *show)
{
    struct stress *stress = show->stress;
    uint64_t begin = stress_clock(), limit = stress_fills_time(stress) ? UINT64_MAX : 3000000000u;
    struct timespec pause = { .tv_nsec = 20000000 };
    while (!stress_expired(stress) && stress_failures(stress) == 0 &&
           stress_clock() - begin < limit) {
        nanosleep(&pause, NULL);
        stress_progress(stress, "ms", (stress_clock() - begin) / 1000000, 0);
    }
    atomic_store(&show->over, true);
}

static void report(struct show *show, const struct worker *workers, unsigned runners,
                   double seconds)
{
    struct stress_table *table = stress_table(show->stress, "patches of running code", 1,
                                              (const char *const[]) { "" });
    const struct worker *patchers = workers, *firer = workers + PATCHERS, *owner = firer + 1;
    uint64_t runs = 0, patches = patchers[0].done + patchers[1].done;
    for (unsigned i = 0; i < runners; i++)
        runs += owner[1 + i].done;
    stress_value(table, "patches", "", (double) patches);
    stress_value(table, "  a second", "", (double) patches / seconds);
    stress_value(table, "batches undone", "", (double) (patchers[0].undone + patchers[1].undone));
    stress_value(table, "batches refused", "",
                 (double) (patchers[0].refused + patchers[1].refused));
    stress_value(table, "runs of sites", "", (double) runs);
    stress_value(table, "  a second", "", (double) runs / seconds);
    stress_value(table, "traps met", "", (double) atomic_load(&traps));
    stress_value(table, "watched traces", "", (double) owner->done);
    stress_value(table, "  fired", "", (double) firer->done);
    stress_value(table, "  gone before", "", (double) firer->dropped);
}

static void run_threads(struct show *show)
{
    static void *(*const roles[])(void *) = { be_patcher, be_patcher, be_firer, be_owner };
    enum { ROLES = sizeof roles / sizeof *roles };
    struct worker *workers = calloc(ROLES + RUNNERS_MAX, sizeof *workers);
    unsigned runners = stress_threads(show->stress, 2), count = 0;
    runners = runners < RUNNERS_MAX ? runners : RUNNERS_MAX;
    if (workers == NULL) {
        stress_fail(show->stress, "no memory");
        return;
    }
    uint64_t begin = stress_clock();
    for (; count < ROLES + runners; count++) {
        workers[count].show = show;
        workers[count].number = count;
        workers[count].random = stress_random(show->stress, 1 + count);
        if (pthread_create(&workers[count].thread, NULL,
                           count < ROLES ? roles[count] : be_runner, &workers[count]) != 0)
            break;
    }
    if (count < ROLES + runners)
        stress_fail(show->stress, "no threads can be started");
    wait_for_end(show);
    for (unsigned i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
    /* Nobody patches any more: each does what its last move says. */
    for (unsigned i = 0; i < PATCHERS; i++)
        for (unsigned j = 0; j < SITES; j++)
            check_site(show, &show->sites[i][j]);
    double seconds = (double) (stress_clock() - begin) / 1e9;
    if (stress_failures(show->stress) == 0)
        report(show, workers, runners, seconds);
    free(workers);
}

static void run_in(struct show *show)
{
    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO }, old;
    pp_error error = { .size = sizeof error };
    trapped = show->stress;
    atomic_store(&traps, 0);
    sigaction(SIGTRAP, &action, &old);
    if (make_sites(show))
        run_threads(show);
    if (pp_pool_verify(show->pool, &error) != PP_OK)
        stress_fail(show->stress, "pool: %s", error.text);
    sigaction(SIGTRAP, &old, NULL);
}

static void run(struct stress *stress)
{
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    pp_pool_stats stats = { .size = sizeof stats };
    struct show *show = calloc(1, sizeof *show);
    if (show == NULL) {
        stress_fail(stress, "no memory");
        return;
    }
    show->stress = stress;
    if (pp_pool_create(&options, &show->pool) != PP_OK)
        stress_fail(stress, "pool: %s", error.text);
    else if (pp_pool_get_stats(show->pool, &stats) != PP_OK || stats.wx == PP_WX_FLIP)
        stress_note(stress, "pages that are flipped cannot be patched while they run");
    else
        run_in(show);
    pp_pool_destroy(show->pool);
    free(show);
}

const struct scenario scenario_patch = {
    .name = "patch",
    .summary = "threads run sites while others patch, watch, fire and free them",
    .run = run,
    .seconds = 3,
};
