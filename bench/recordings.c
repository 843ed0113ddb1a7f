/* SPDX-License-Identifier: MIT */
/*
 * What a real JIT linked, linked again: a pool against a page per trace, with
 * the same code and the same relocations.  The events of a recording follow
 * each other with nothing in between; what is left at its end is freed, too.
 */
#include <config.h>

#include "bench/harness.h"

#include "stress/pages.h"
#include "stress/recording.h"
#include "stress/synth.h"

#include <patchpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 64 };

/* What is alive. */
struct bytes {
    size_t exact;   /* code and data */
    size_t pages;   /* with the trampolines that were recorded, in whole pages */
    size_t symbols; /* 16 for each symbol of each trace that branches to it */
};

struct show {
    struct recording recording;
    struct targets targets;
    struct synth *traces;  /* the code of each trace, made before the clock starts */
    pp_pool *pool;
    pp_symbol *symbols;
    bool far, own;
    pp_trace **linked;
    struct pages *pages;
    pp_pool_stats peak;    /* when most bytes were alive */
    struct bytes bytes, most;
};

static _Noreturn void give_up(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* ---- the two ways ------------------------------------------------------- */

static void link_one(struct show *show, size_t index)
{
    static const pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD };
    const struct synth *synth = &show->traces[index];
    pp_trace_desc desc = {
        .size = sizeof desc, .code = synth->code, .code_size = synth->code_size,
        .data = synth->data, .data_size = synth->data_size,
        .relocs = synth->relocs, .reloc_count = synth->reloc_count, .frame = &rule,
        .flags = show->own ? PP_TRACE_OWN_TRAMPOLINES : 0,
    };
    if (pp_trace_link(show->pool, &desc, &show->linked[index]) != PP_OK)
        give_up(show->recording.path, "a trace was not linked");
}

static void free_one(struct show *show, size_t index)
{
    if (pp_trace_free(show->pool, show->linked[index]) != PP_OK)
        give_up(show->recording.path, "a trace was not freed");
}

static void link_page(struct show *show, size_t index)
{
    if (!pages_link(&show->pages[index], &show->traces[index], &show->targets, show->far))
        give_up(show->recording.path, "no pages for a trace");
}

static void free_page(struct show *show, size_t index)
{
    pages_free(&show->pages[index]);
}

typedef void step(struct show *show, size_t index);

/* All events; nanoseconds for each trace. */
static double play(struct show *show, step *make, step *end)
{
    const struct recording *recording = &show->recording;
    double begin = bench_clock();
    for (size_t i = 0; i < recording->event_count; i++) {
        const struct recorded_event *event = &recording->events[i];
        if (event->is_free)
            end(show, event->trace);
        else
            make(show, event->trace);
    }
    for (size_t i = 0; i < recording->trace_count; i++) {
        if (!recording->traces[i].freed)
            end(show, i);
    }
    return (bench_clock() - begin) / (double) recording->trace_count;
}

/* ---- bytes -------------------------------------------------------------- */

static size_t in_pages(size_t bytes)
{
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) & -page;
}

static void account(struct show *show, size_t index, bool add)
{
    const struct recorded_trace *trace = &show->recording.traces[index];
    const struct synth *synth = &show->traces[index];
    size_t sign = add ? 1 : (size_t) -1, branches = 0;
    for (size_t i = 0; i < synth->use_count; i++)
        branches += synth->uses[i].branches;
    show->bytes.exact += sign * ((size_t) trace->code + trace->data);
    show->bytes.pages += sign * in_pages((size_t) trace->code + trace->data + trace->trampolines);
    show->bytes.symbols += sign * branches * 16;
}

static void count_event(struct show *show, const struct recorded_event *event)
{
    account(show, event->trace, !event->is_free);
}

static void play_event(struct show *show, const struct recorded_event *event)
{
    (event->is_free ? free_one : link_one)(show, event->trace);
}

typedef void visitor(struct show *show, const struct recorded_event *event);

/* From one event on; and what the recording left alive is freed. */
static void visit_rest(struct show *show, size_t from, visitor *visit)
{
    const struct recording *recording = &show->recording;
    for (size_t i = from; i < recording->event_count; i++)
        visit(show, &recording->events[i]);
    for (size_t i = 0; i < recording->trace_count; i++) {
        if (!recording->traces[i].freed)
            visit(show, &(struct recorded_event){ .trace = (uint32_t) i, .is_free = true });
    }
}

/* The pool when the recording is at its fullest. */
static void measure(struct show *show)
{
    const struct recording *recording = &show->recording;
    size_t fullest = 0;
    show->most = show->bytes = (struct bytes){ 0, 0, 0 };
    for (size_t i = 0; i < recording->event_count; i++) {
        count_event(show, &recording->events[i]);
        if (show->bytes.exact > show->most.exact) {
            show->most = show->bytes;
            fullest = i;
        }
    }
    for (size_t i = 0; i <= fullest; i++)
        play_event(show, &recording->events[i]);
    show->peak = (pp_pool_stats){ .size = sizeof show->peak };
    if (pp_pool_get_stats(show->pool, &show->peak) != PP_OK)
        give_up(recording->path, "no statistics");
    visit_rest(show, fullest + 1, play_event);
}

/* ---- a recording -------------------------------------------------------- */

static void open_pool(struct show *show)
{
    pp_pool_options options = { .size = sizeof options, .branch_range = show->far ? 1 : 0,
                                .near = { show->targets.base } };
    if (pp_pool_create(&options, &show->pool) != PP_OK)
        give_up(show->recording.path, "no pool");
    for (size_t i = 0; i < show->recording.symbol_count; i++)
        show->symbols[i] = pp_symbol_define(show->pool, NULL, targets_address(&show->targets, i));
}

/* Symbols have the same numbers in every pool, so one synthesis serves all. */
static void synthesize(struct show *show)
{
    char error[256];
    for (size_t i = 0; i < show->recording.trace_count; i++) {
        if (!synth_init(&show->traces[i], show->recording.symbol_count) ||
            !synth_trace(&show->traces[i], &show->recording, &show->recording.traces[i],
                         FORM_PLT, show->symbols, &show->targets, error, sizeof error))
            give_up(show->recording.path, "a trace cannot be made for this machine");
    }
}

static void compete(const struct bench *bench, struct show *show, const char *name, bool is_goal)
{
    double pool[ROUNDS], pages[ROUNDS];
    unsigned rounds = bench->rounds < ROUNDS ? bench->rounds : ROUNDS;
    open_pool(show);
    measure(show);
    for (unsigned round = 0; round < rounds; round++) {
        pool[round] = play(show, link_one, free_one);
        pages[round] = play(show, link_page, free_page);
    }
    double mine = bench_median(pool, rounds), other = bench_median(pages, rounds);
    double resident = (double) show->peak.resident / (double) show->most.exact;
    size_t small = show->peak.trampoline_bytes + show->peak.literal_bytes;
    double share = show->most.symbols == 0 ? 0
                                          : 100.0 * (double) small / (double) show->most.symbols;
    printf("  %-5s %-7s page per trace / pool %6.2f  (%6.0f ns / %6.0f ns)   resident / exact %.3f"
           "  (a page per trace %.3f)   trampolines %.2f %%\n", show->far ? "far" : "near",
           show->own ? "own" : "shared", other / mine, other, mine, resident,
           (double) show->most.pages / (double) show->most.exact, share);
    if (is_goal && show->far && !show->own) {
        char what[80];
        snprintf(what, sizeof what, "link + publish + free, %s", name);
        bench_row(bench, what, "page per trace", true, 5, other / mine);
        snprintf(what, sizeof what, "resident / exact, %s", name);
        bench_row(bench, what, "exact", false, 1.01, resident);
        snprintf(what, sizeof what, "trampoline bytes, %%, %s", name);
        bench_row(bench, what, "16 B a symbol", false, 2, share);
    }
    pp_pool_destroy(show->pool);
}

static void compare(const struct bench *bench, const char *directory, const char *name)
{
    char path[512], error[256];
    struct show show = { .far = false };
    snprintf(path, sizeof path, "%s/%s.rec", directory, name);
    if (!recording_read(path, &show.recording, error, sizeof error))
        give_up(path, error);
    const struct recording *recording = &show.recording;
    show.traces = bench_memory(recording->trace_count * sizeof *show.traces);
    show.symbols = bench_memory((recording->symbol_count + 1) * sizeof *show.symbols);
    show.linked = bench_memory(recording->trace_count * sizeof(pp_trace *));
    show.pages = bench_memory(recording->trace_count * sizeof *show.pages);
    if (!targets_create(&show.targets, recording->symbol_count))
        give_up(path, "no memory for its symbols");
    open_pool(&show);
    synthesize(&show);
    pp_pool_destroy(show.pool);
    printf("%s: %zu traces, %zu symbols\n", name, recording->trace_count, recording->symbol_count);
    bool is_goal = strstr(name, "tests") != NULL || strstr(name, "loops") != NULL;
    for (unsigned i = 0; i < 4; i++) {
        show.far = i / 2;
        show.own = i % 2;
        compete(bench, &show, name, is_goal);
        fflush(stdout);
    }
    for (size_t i = 0; i < recording->trace_count; i++)
        synth_free(&show.traces[i]);
    free(show.traces);
    free(show.symbols);
    free(show.linked);
    free(show.pages);
    targets_destroy(&show.targets);
    recording_free(&show.recording);
}

int main(int argc, char **argv)
{
#if defined __x86_64__
    static const char *const names[] = { "cpython-x86_64-tests", "cpython-x86_64-loops",
                                         "cpython-x86_64-nbody", "cpython-x86_64-richards" };
#else
    static const char *const names[] = { "cpython-aarch64-loops", "cpython-aarch64-nbody",
                                         "cpython-aarch64-richards" };
#endif
    struct bench bench;
    bench_begin(&bench, argc, argv);
    printf("\nWhat CPython's JIT linked: link, publish and free, events back to back.\n");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        compare(&bench, BENCH_RECORDINGS, names[i]);
    return 0;
}
