/* SPDX-License-Identifier: MIT */
/*
 * Scenario walk: threads deep in mixed frames, and a signal that walks them at
 * any instruction.
 *
 * Every thread runs random trees of calls: methods that call methods, enter
 * their OSR bodies, reach C through pp_leave, directly or through trampolines,
 * and are entered from there again.  The compiled code keeps a shadow of its
 * frames (frames.h), C adds marks around its part, and the handler compares
 * each walk with the shadow.  The two may differ only in the innermost frame,
 * and only in ways that an instruction between two updates explains; the
 * functions below say each of them.
 */
#include <config.h>

#include "stress/frames.h"
#include "stress/stress.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    METHODS = 3,          /* with a site and an OSR body each, per thread */
    NODES = 24,           /* calls of a tree */
    SHADOW_MAX = 256,
    SHADOW_WORDS = (sizeof(struct frames_shadow)
                    + SHADOW_MAX * sizeof(struct frames_shadow_entry)) / sizeof(uintptr_t),
    TREES_PER_ROUND = 64, /* before the methods are replaced by others */
    STACK_BYTES = 65536   /* of the signal */
};

/* Names of shadow entries: a method's index below, or a mark of C. */
enum { NAME_PLAIN, NAME_JUMP, NAME_SITE, NAME_OSR = NAME_SITE + METHODS,
       NAME_COUNT = NAME_OSR + METHODS, MARK_ENTER = 100, MARK_DIRECT };

/* The first difference that a thread's handler found. */
struct difference {
    const char *what;
    uintptr_t pc, fp;
    unsigned frame, depth;
    pp_walk_kind kind;
    pp_check check;
};

struct node {
    struct frames_call call;   /* first: the callbacks get it */
    struct worker *worker;
    struct node *visible, *direct; /* what C enters again, or NULL */
    const void *code;          /* of the method that this call is for */
};

struct worker {
    struct stress *stress;
    struct scene *scene;
    pthread_t id;
    unsigned index;
    struct random random;      /* the thread's own; never the handler's */
    pp_thread thread;
    struct frames_shadow *shadow;  /* in shadow_words */
    uintptr_t shadow_words[SHADOW_WORDS];
    struct node nodes[NODES];
    unsigned node_count;
    /* What a name stands for.  Written while no tree runs. */
    pp_trace *traces[NAME_COUNT];
    pp_site *sites[METHODS];
    pp_entry *entries[METHODS];
    /* Counted by the handler and by walks outside of it, in this thread only. */
    volatile sig_atomic_t ready;
    uint64_t walks, frames, kinds[PP_WALK_ENTRY + 1], verdicts[PP_VERDICT_BROKEN + 1],
        ends[PP_END_LIMIT + 1], deepest, compared, produced, differences;
    struct difference first;
    void *signal_stack;
};

/* What all threads share. */
struct scene {
    pp_pool *pool;
    pp_trace *plain, *jump_shared, *jump_own, *leaf;
    atomic_uint running;
};

static _Thread_local struct worker *self;

/* ---- marks of C -------------------------------------------------------------- */

static void mark(struct worker *worker, uintptr_t name)
{
    struct frames_shadow *shadow = worker->shadow;
    shadow->entries[shadow->depth].fp = 0;
    shadow->entries[shadow->depth].name = name;
    shadow->depth = shadow->depth + 1;
}

static void unmark(struct worker *worker)
{
    worker->shadow->depth = worker->shadow->depth - 1;
}

static void enter(struct worker *worker, struct node *node)
{
    mark(worker, MARK_ENTER);
    pp_enter(&worker->thread, node->code, (uintptr_t) &node->call, 0, 0, 0);
    unmark(worker);
}

/* ---- comparing --------------------------------------------------------------- */

static void differ(struct worker *worker, const char *what, const pp_frame *frame, unsigned n)
{
    if (worker->differences++ > 0)
        return;
    worker->first = (struct difference) {
        .what = what, .pc = frame->pc, .fp = frame->fp, .frame = n, .kind = frame->kind,
        .check = frame->check, .depth = (unsigned) worker->shadow->depth,
    };
}

/* Whether a frame is what a shadow entry says. */
static bool is_method(const struct worker *worker, const pp_frame *frame,
                      const struct frames_shadow_entry *entry, bool innermost)
{
    uintptr_t name = entry->name;
    if (entry->fp == 0 || frame->fp != entry->fp)
        return false;
    if (frame->trace == worker->traces[name])
        return (frame->kind == PP_WALK_OSR) == (name >= NAME_OSR);
    /* The OSR body has not come to tell its name yet. */
    return innermost && frame->is_top && name >= NAME_SITE && name < NAME_OSR
           && frame->kind == PP_WALK_OSR && frame->trace == worker->traces[name + METHODS];
}

/* A cursor over the shadow, from the innermost entry outwards. */
struct shadow_cursor {
    const struct frames_shadow *shadow;
    size_t depth;
};

static const struct frames_shadow_entry *peek(const struct shadow_cursor *cursor)
{
    return cursor->depth > 0 ? &cursor->shadow->entries[cursor->depth - 1] : NULL;
}

static bool at_mark(const struct shadow_cursor *cursor, uintptr_t name)
{
    const struct frames_shadow_entry *entry = peek(cursor);
    return entry != NULL && entry->fp == 0 && entry->name == name;
}

/* pp_enter's frame, over its mark; of a gap, over the methods that it hides, too. */
static const char *match_entry(const pp_frame *frame, struct shadow_cursor *cursor, bool innermost)
{
    if (frame->verdict == PP_VERDICT_GAP) {
        if (at_mark(cursor, MARK_DIRECT))
            cursor->depth--;
        else if (!innermost)
            return "a gap in an activation that called C visibly";
        while (peek(cursor) != NULL && peek(cursor)->fp != 0)
            cursor->depth--;
    }
    if (!at_mark(cursor, MARK_ENTER))
        return "an activation that is not there";
    cursor->depth--;
    return NULL;
}

/* One frame against the shadow; NULL, or what is wrong. */
static const char *match(const struct worker *worker, const pp_frame *frame,
                         struct shadow_cursor *cursor, unsigned n, bool *segment_begins)
{
    bool begins = *segment_begins, innermost = cursor->depth == cursor->shadow->depth;
    *segment_begins = frame->kind == PP_WALK_ENTRY;
    /* C that has not entered, or has returned: its mark is there without an activation. */
    if (n == 0 && !frame->is_top && at_mark(cursor, MARK_ENTER) && frame->kind != PP_WALK_ENTRY)
        cursor->depth--;
    if (n == 0 && !frame->is_top && frame->kind == PP_WALK_ENTRY && at_mark(cursor, MARK_ENTER)
        && cursor->depth > 1 && frame->verdict == PP_VERDICT_GAP)
        cursor->depth--;
    if (frame->verdict != PP_VERDICT_VALID
        && (frame->verdict != PP_VERDICT_GAP || frame->kind != PP_WALK_ENTRY))
        return "a verdict";
    switch (frame->kind) {
    case PP_WALK_STUB:
        return begins ? NULL : "a stub that is not innermost";
    case PP_WALK_TRAMPOLINE:
        return n == 0 && frame->is_top ? NULL : "a trampoline that is not innermost";
    case PP_WALK_ENTRY:
        return match_entry(frame, cursor, innermost);
    case PP_WALK_TRACE:
    case PP_WALK_OSR:
        if (frame->trace == worker->scene->leaf)
            return n == 0 ? NULL : "a leaf function that is not innermost";
        if (peek(cursor) != NULL && is_method(worker, frame, peek(cursor), innermost)) {
            cursor->depth--;
            return NULL;
        }
        /* In its prologue or epilogue a method is not in the shadow. */
        return n == 0 && frame->is_top ? NULL : "a method that is not there";
    }
    return "a kind";
}

/* Walk, count, and compare with the shadow. */
static void compare(struct worker *worker, pp_walk *walk)
{
    struct shadow_cursor cursor = { worker->shadow, worker->shadow->depth };
    pp_frame frame = { .size = sizeof frame };
    const char *wrong = NULL;
    unsigned n = 0;
    bool segment_begins = true;
    for (; pp_walk_next(walk, &frame); n++) {
        worker->kinds[frame.kind]++;
        worker->verdicts[frame.verdict]++;
        if (wrong == NULL) {
            wrong = match(worker, &frame, &cursor, n, &segment_begins);
            if (wrong != NULL)
                differ(worker, wrong, &frame, n);
        }
    }
    worker->walks++;
    worker->frames += n;
    worker->ends[walk->end]++;
    if (n > worker->deepest)
        worker->deepest = n;
    if (n == 0 && at_mark(&cursor, MARK_ENTER))
        cursor.depth--;
    if (wrong == NULL && (walk->end != PP_END_ROOT || cursor.depth != 0))
        differ(worker, walk->end != PP_END_ROOT ? "the end" : "frames that are missing", &frame, n);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    (void) number;
    (void) info;
    struct worker *worker = self;
    if (worker == NULL || !worker->ready)
        return;
    pp_walk walk;
    pp_walk_begin(&walk, &worker->thread, context);
    compare(worker, &walk);
}

/* ---- libunwind's opinion ----------------------------------------------------- */

/*
 * The CFAs of methods, as libunwind finds them from here outwards, against the
 * walker's.  Not comparable when a gap hides some from the walker.
 */
static void compare_with_libunwind(struct worker *worker)
{
    uintptr_t cfas[SHADOW_MAX];
    unsigned count = 0, i = 0;
    pp_walk walk;
    pp_frame frame = { .size = sizeof frame };
    for (pp_walk_begin(&walk, &worker->thread, NULL); pp_walk_next(&walk, &frame);) {
        if (frame.verdict != PP_VERDICT_VALID)
            return;
        if ((frame.kind == PP_WALK_TRACE || frame.kind == PP_WALK_OSR) && count < SHADOW_MAX)
            cfas[count++] = frame.cfa;
    }

    unw_context_t context;
    unw_cursor_t cursor;
    unw_getcontext(&context);
    unw_init_local(&cursor, &context);
    bool in_trace = false;
    int more;
    do {
        unw_word_t pc, sp;
        unw_get_reg(&cursor, UNW_REG_IP, &pc);
        unw_get_reg(&cursor, UNW_REG_SP, &sp);
        if (in_trace && (i == count || cfas[i++] != sp)) {
            differ(worker, "libunwind sees another CFA", &frame, i);
            return;
        }
        in_trace = pp_trace_at((const void *) (pc - 1)) != NULL;
        more = unw_step(&cursor);
    } while (more > 0);
    if (i != count)
        differ(worker, "libunwind sees fewer frames", &frame, i);
    worker->compared++;
}

/* ---- the C functions of a tree ------------------------------------------------ */

static void linger(struct worker *worker)
{
    for (volatile unsigned n = (unsigned) random_below(&worker->random, 200); n > 0;)
        n = n - 1;
}

static void on_visible(struct frames_call *call)
{
    struct node *node = (struct node *) call;
    linger(node->worker);
    if (node->visible != NULL)
        enter(node->worker, node->visible);
    if (random_below(&node->worker->random, 32) == 0) {
        pp_walk walk;
        pp_walk_begin(&walk, &node->worker->thread, NULL);
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &before); /* the counters are the handler's, too */
        compare(node->worker, &walk);
        compare_with_libunwind(node->worker);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
}

static void on_direct(struct frames_call *call)
{
    struct node *node = (struct node *) call;
    mark(node->worker, MARK_DIRECT);
    linger(node->worker);
    if (node->direct != NULL)
        enter(node->worker, node->direct);
    unmark(node->worker);
}

/* Target of a trampoline: called directly, and it calls nothing. */
static void on_target(struct frames_call *call)
{
    linger(((struct node *) call)->worker);
}

/* A producer sees the method from the registers of its patchpoint, and through the thread. */
static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    struct worker *worker = host;
    sigset_t all, before;
    pp_walk walk;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    pp_walk_begin_regs(&walk, &worker->thread, regs);
    compare(worker, &walk);
    pp_walk_begin(&walk, &worker->thread, NULL);
    compare(worker, &walk);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    worker->produced++;
    for (unsigned i = 0; i < METHODS; i++)
        if (worker->sites[i] == site)
            *entry = worker->entries[i];
    return *entry != NULL ? PP_OK : PP_E_FAULT;
}

/* ---- trees --------------------------------------------------------------------- */

/* A random call and what it calls, until the nodes are used up. */
static struct node *grow(struct worker *worker, unsigned depth)
{
    if (worker->node_count == NODES || depth == 0)
        return NULL;
    struct random *random = &worker->random;
    struct node *node = &worker->nodes[worker->node_count++];
    uintptr_t name = random_below(random, NAME_OSR);
    *node = (struct node) {
        .worker = worker,
        .call = { .thread = &worker->thread, .leave = pp_leave, .shadow = worker->shadow,
                  .threshold = 1, .name = name,
                  .osr_name = name >= NAME_SITE ? name + METHODS : 0 },
    };
    if (name == NAME_JUMP)
        worker->traces[NAME_JUMP] = worker->index % 2 ? worker->scene->jump_own
                                                      : worker->scene->jump_shared;
    node->code = pp_trace_entry(worker->traces[name]);
    if (name == NAME_JUMP)
        return node;
    if (random_below(random, 4) != 0) {
        node->call.visible = on_visible;
        node->visible = grow(worker, depth - 1);
    }
    if (random_below(random, 2) != 0) {
        struct node *callee = grow(worker, depth - 1);
        if (callee != NULL) {
            node->call.callee = callee->code;
            node->call.callee_call = &callee->call;
        }
    }
    if (random_below(random, 4) == 0) {
        node->call.direct = on_direct;
        node->direct = grow(worker, depth - 1);
    }
    if (random_below(random, 2) == 0)
        node->call.leaf = pp_trace_entry(worker->scene->leaf);
    return node;
}

static pp_status methods_open(struct worker *worker)
{
    pp_pool *pool = worker->scene->pool;
    pp_status status = PP_OK;
    for (unsigned i = 0; i < METHODS && status == PP_OK; i++) {
        pp_csr_scheme scheme = i % 2 ? PP_CSR_RELOAD : PP_CSR_RESERVE;
        status = frames_link_osr(pool, "osr", scheme, &worker->traces[NAME_OSR + i],
                                 &worker->entries[i]);
        if (status != PP_OK)
            break;
        pp_site_desc desc = {
            .size = sizeof desc, .kind = PP_SITE_COUNTED, .counter = PP_COUNTER_FRAME,
            .counter_offset = FRAMES_COUNTER_SLOT, .threshold = 1, .hits = 1 + i,
            .save = i == 0 ? PP_SAVE_GPR : PP_SAVE_V128, .thread_offset = FRAMES_THREAD_SLOT,
            .tier0 = &frames_tier0_layout, .produce = produce, .host = worker,
        };
        status = pp_site_create(pool, &desc, &worker->sites[i]);
        if (status == PP_OK)
            status = frames_link_tier0(pool, "tier0", worker->sites[i],
                                       &worker->traces[NAME_SITE + i]);
    }
    return status;
}

static pp_status methods_close(struct worker *worker)
{
    pp_pool *pool = worker->scene->pool;
    pp_status status = PP_OK;
    for (unsigned i = 0; i < METHODS; i++) {
        if (worker->traces[NAME_SITE + i] != NULL && status == PP_OK)
            status = pp_trace_free(pool, worker->traces[NAME_SITE + i]);
        if (worker->sites[i] != NULL && status == PP_OK)
            status = pp_site_destroy(pool, worker->sites[i]);
        if (worker->entries[i] != NULL && status == PP_OK)
            status = pp_entry_destroy(pool, worker->entries[i]);
        if (worker->traces[NAME_OSR + i] != NULL && status == PP_OK)
            status = pp_trace_free(pool, worker->traces[NAME_OSR + i]);
        worker->traces[NAME_SITE + i] = worker->traces[NAME_OSR + i] = NULL;
        worker->sites[i] = NULL;
        worker->entries[i] = NULL;
    }
    return status;
}

/* ---- threads ------------------------------------------------------------------- */

static void run_trees(struct worker *worker, uint64_t trees)
{
    struct stress *stress = worker->stress;
    for (uint64_t done = 0; (done < trees || stress_fills_time(stress)) && !stress_expired(stress);) {
        pp_status status = methods_open(worker);
        for (unsigned i = 0; i < TREES_PER_ROUND && status == PP_OK; i++, done++) {
            worker->node_count = 0;
            enter(worker, grow(worker, NODES));
        }
        if (status == PP_OK)
            status = methods_close(worker);
        if (status != PP_OK) {
            stress_fail(stress, "methods: %s", pp_strerror(status));
            return;
        }
        if (worker->index == 0)
            stress_progress(stress, "trees", done, trees);
    }
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct stress *stress = worker->stress;
    /* Every second thread takes its signals on a stack of their own. */
    stack_t alternate = { .ss_sp = worker->signal_stack, .ss_size = STACK_BYTES }, before;
    if (worker->signal_stack != NULL)
        sigaltstack(&alternate, &before);
    if (pp_thread_init(&worker->thread, NULL, NULL) != PP_OK)
        stress_fail(stress, "pp_thread_init");
    self = worker;
    worker->ready = 1;
    run_trees(worker, stress_iterations(stress, 20000));
    worker->ready = 0;
    if (worker->signal_stack != NULL)
        sigaltstack(&before, NULL); /* a sanitizer has one of its own, and unmaps it at the end */
    atomic_fetch_sub(&worker->scene->running, 1);
    return NULL;
}

/* Signals to every thread, some microseconds apart, until all have finished. */
static void send_signals(struct worker *workers, unsigned count, struct scene *scene,
                         struct random *random)
{
    while (atomic_load(&scene->running) > 0) {
        for (unsigned i = 0; i < count; i++)
            pthread_kill(workers[i].id, SIGUSR2);
        struct timespec pause = { .tv_nsec = (long) random_below(random, 60000) };
        nanosleep(&pause, NULL);
    }
}

static pp_status scene_open(struct stress *stress, struct scene *scene, pp_error *error)
{
    pp_pool_options options = stress_pool_options(stress, error);
    options.unwinders = PP_UNWIND_LIBUNWIND; /* its opinion is asked */
    options.branch_range = 1; /* every symbol is far: calls go through trampolines */
    pp_status status = pp_pool_create(&options, &scene->pool);
    if (status != PP_OK)
        return status;
    pp_symbol target = pp_symbol_define(scene->pool, "target", (const void *) on_target);
    status = frames_link_tier0(scene->pool, "plain", NULL, &scene->plain);
    if (status == PP_OK)
        status = frames_link_leaf(scene->pool, "leaf", &scene->leaf);
    if (status == PP_OK)
        status = frames_link_jump(scene->pool, "shared", target, 0, &scene->jump_shared);
    if (status == PP_OK)
        status = frames_link_jump(scene->pool, "own", target, PP_TRACE_OWN_TRAMPOLINES,
                                  &scene->jump_own);
    return status;
}

static void report_workers(struct stress *stress, const struct worker *workers, unsigned count)
{
    struct worker sum = { .walks = 0 };
    for (unsigned i = 0; i < count; i++) {
        const struct worker *worker = &workers[i];
        const struct difference *first = &worker->first;
        if (worker->differences > 0)
            stress_fail(stress, "thread %u, %llu differences; the first: %s; frame %u (%s, check %s, "
                        "pc %#lx, fp %#lx), shadow depth %u", i,
                        (unsigned long long) worker->differences, first->what, first->frame,
                        pp_walk_kind_name(first->kind), pp_check_name(first->check),
                        (long) first->pc, (long) first->fp, first->depth);
        sum.walks += worker->walks;
        sum.frames += worker->frames;
        sum.compared += worker->compared;
        sum.produced += worker->produced;
        sum.deepest = worker->deepest > sum.deepest ? worker->deepest : sum.deepest;
        for (unsigned k = 0; k <= PP_WALK_ENTRY; k++)
            sum.kinds[k] += worker->kinds[k];
        for (unsigned k = 0; k <= PP_VERDICT_BROKEN; k++)
            sum.verdicts[k] += worker->verdicts[k];
        for (unsigned k = 0; k <= PP_END_LIMIT; k++)
            sum.ends[k] += worker->ends[k];
    }
    if (sum.walks == 0 || sum.frames == 0)
        stress_fail(stress, "no signal has walked");

    char label[64];
    struct stress_table *table = stress_table(stress, "walks", 1, (const char *[]) { "count" });
    stress_value(table, "walks", "", (double) sum.walks);
    stress_value(table, "frames", "", (double) sum.frames);
    stress_value(table, "frames of the deepest", "", (double) sum.deepest);
    for (unsigned k = PP_WALK_TRACE; k <= PP_WALK_ENTRY; k++) {
        snprintf(label, sizeof label, "kind %s", pp_walk_kind_name((pp_walk_kind) k));
        stress_value(table, label, "", (double) sum.kinds[k]);
    }
    for (unsigned k = PP_VERDICT_VALID; k <= PP_VERDICT_BROKEN; k++) {
        snprintf(label, sizeof label, "verdict %s", pp_verdict_name((pp_verdict) k));
        stress_value(table, label, "", (double) sum.verdicts[k]);
    }
    for (unsigned k = PP_END_ROOT; k <= PP_END_LIMIT; k++) {
        snprintf(label, sizeof label, "end %s", pp_walk_end_name((pp_walk_end) k));
        stress_value(table, label, "", (double) sum.ends[k]);
    }
    stress_value(table, "transitions produced", "", (double) sum.produced);
    stress_value(table, "compared with libunwind", "", (double) sum.compared);
}

static void run_walk(struct stress *stress)
{
    unsigned count = stress_threads(stress, 4), started = 0;
    struct scene scene = { .pool = NULL };
    pp_error error = { .size = sizeof error };
    struct worker *workers = calloc(count, sizeof *workers);
    struct sigaction action = { .sa_sigaction = on_signal,
                                .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK }, before;
    if (workers == NULL) {
        stress_fail(stress, "no memory");
        return;
    }
    pp_status status = scene_open(stress, &scene, &error);
    if (status != PP_OK) {
        stress_fail(stress, "%s: %s", pp_strerror(status), error.text);
        goto out;
    }
    sigfillset(&action.sa_mask);
    sigaction(SIGUSR2, &action, &before);
    atomic_init(&scene.running, count);
    for (; started < count; started++) {
        struct worker *worker = &workers[started];
        worker->stress = stress;
        worker->scene = &scene;
        worker->index = started;
        worker->shadow = (struct frames_shadow *) worker->shadow_words;
        worker->random = stress_random(stress, 100 + started);
        worker->traces[NAME_PLAIN] = scene.plain;
        worker->signal_stack = started % 2 ? malloc(STACK_BYTES) : NULL;
        if (pthread_create(&worker->id, NULL, worker_main, worker) != 0) {
            stress_fail(stress, "pthread_create");
            atomic_fetch_sub(&scene.running, count - started);
            break;
        }
    }
    struct random random = stress_random(stress, 99);
    send_signals(workers, started, &scene, &random);
    for (unsigned i = 0; i < started; i++) {
        pthread_join(workers[i].id, NULL);
        free(workers[i].signal_stack);
    }
    sigaction(SIGUSR2, &before, NULL);
    report_workers(stress, workers, started);
out:
    pp_pool_destroy(scene.pool);
    free(workers);
}

const struct scenario scenario_walk = {
    .name = "walk",
    .summary = "signals walk threads that are deep in mixed frames",
    .run = run_walk,
    .seconds = 8,
};
