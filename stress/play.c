/* SPDX-License-Identifier: MIT */
/*
 * Playing a recording in one setting.  Every player follows the recording on
 * its own and checks what its traces do; what the pool as a whole holds is
 * compared with the recording after every event when there is one player, and
 * when all of them have come to the end otherwise.
 */
#include <config.h>

#include "stress/play.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    VERIFY_EVENTS = 61,    /* events between two looks at every invariant of the pool, */
    VERIFY_SHARE = 4,      /* or more: the looks take one of so many parts of the time */
    STALE_EVENTS = 7,      /* frees between two tries to use the handle again */
    CHURN_MAX = 8,         /* traces freed and linked again at a time */
    PAGES_MAX = 512 << 20, /* bytes of pages per trace at a time; traces beyond go without */
    SHARED_EXACT = 4096    /* symbols that an island certainly has room for */
};

/* One playing of a recording; shared by the players. */
struct show {
    struct stress *stress;
    const struct recording *recording;
    const struct setting *setting;
    struct targets targets;
    pp_pool *pool;
    pp_symbol *symbols;       /* the pool's, in the order of the recording's */
    unsigned player_count;
    uint64_t pass;
    atomic_bool pages_off;    /* the system refuses a page per trace */
    _Atomic uint64_t page_bytes;  /* of all pages per trace */
    _Atomic uint64_t verify_next; /* clock: not again before */
    _Atomic uint64_t live, peak, resident; /* bytes: live code and data, and the most of both */
    struct outcome *outcome;
    pthread_mutex_t lock;     /* guards *outcome while players run */
};

/* A recorded trace that a player has linked. */
struct part {
    pp_trace *trace;          /* NULL: not alive */
    struct pages pages;
    uint32_t place;           /* in player->live */
};

struct player {
    struct show *show;
    unsigned number;
    struct random random;
    struct synth synth;
    struct performer performer;
    struct tally tally;
    struct part *parts;       /* one for each trace of the recording */
    uint32_t *live;           /* traces that are alive, in no order */
    size_t live_count;
    unsigned act;             /* 0, then 1: everything once more in memory that was used */
    uint64_t frees;           /* for STALE_EVENTS */
    struct outcome outcome;   /* times and counts of this player */
};

static const struct recorded_trace *trace_at(const struct show *show, size_t index)
{
    return &show->recording->traces[index];
}

__attribute__((format(printf, 3, 4)))
static void complain(struct show *show, size_t index, const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    stress_fail(show->stress, "%s:%" PRIu32 ": %s: trace %" PRIu32 ": %s", show->recording->path,
                trace_at(show, index)->line, show->setting->name, trace_at(show, index)->id, text);
}

/* Synthesis is a function of the recording; replay has tried it before. */
static bool synthesize(struct player *player, size_t index)
{
    struct show *show = player->show;
    char error[256];
    if (synth_trace(&player->synth, show->recording, trace_at(show, index),
                    stress_options(show->stress)->form, show->symbols, &show->targets, error,
                    sizeof error))
        return true;
    stress_fail(show->stress, "%s", error);
    return false;
}

static void note_time(struct player *player, enum operation operation, uint64_t begin)
{
    samples_add(&player->outcome.times[player->act][operation], stress_clock() - begin);
}

/* ---- one trace ------------------------------------------------------------------------- */

static pp_trace_desc describe(const struct player *player, size_t index, pp_error *error)
{
    static const pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD };
    const struct synth *synth = &player->synth;
    return (pp_trace_desc) {
        .size = sizeof(pp_trace_desc),
        .code = synth->code, .code_size = synth->code_size,
        .data = synth->data, .data_size = synth->data_size,
        .relocs = synth->relocs, .reloc_count = synth->reloc_count,
        .frame = &rule,
        .flags = player->show->setting->is_own ? PP_TRACE_OWN_TRAMPOLINES : 0,
        .host = (void *) trace_at(player->show, index),
        .error = error,
    };
}

/* In the near setting a region may still lie too far away; then nothing follows from the recording. */
static bool is_predictable(const struct show *show, const pp_pool_stats *stats)
{
    if (!show->setting->is_far && stats->near_regions != stats->regions)
        return false;
    return show->setting->is_own ||
           (stats->regions == 1 && show->recording->symbol_count <= SHARED_EXACT);
}

static bool read_stats(struct show *show, pp_pool_stats *stats)
{
    *stats = (pp_pool_stats) { .size = sizeof *stats };
    pp_status status = pp_pool_get_stats(show->pool, stats);
    if (status != PP_OK)
        stress_fail(show->stress, "%s: pp_pool_get_stats: %s", show->recording->path,
                    pp_strerror(status));
    return status == PP_OK;
}

/* What pp_trace_measure says, against what follows from the recording. */
static bool check_measure(struct player *player, size_t index, const pp_trace_desc *desc,
                          pp_trace_size *size)
{
    struct show *show = player->show;
    pp_pool_stats stats;
    *size = (pp_trace_size) { .size = sizeof *size };
    pp_status status = pp_trace_measure(show->pool, desc, size);
    if (status != PP_OK) {
        complain(show, index, "pp_trace_measure: %s: %s", pp_strerror(status), desc->error->text);
        return false;
    }
    if (size->code != desc->code_size || size->data != desc->data_size ||
        size->total != size->code + size->data + size->trampoline_bytes + size->literal_bytes +
                           size->padding) {
        complain(show, index, "pp_trace_measure: the parts do not add up to %zu bytes",
                 size->total);
        return false;
    }
    if (!read_stats(show, &stats) || !is_predictable(show, &stats))
        return true;
    struct need need = need_of(show->setting, &player->synth);
    if (!show->setting->is_own)
        need.trampolines = need.literals = 0;
    if (size->trampolines != need.trampolines || size->literals != need.literals) {
        complain(show, index, "measured %u trampolines and %u literals, but %u and %u follow from "
                 "the recording", size->trampolines, size->literals, need.trampolines,
                 need.literals);
        return false;
    }
    unsigned fresh = show->setting->is_own ? 0 : tally_new(&player->tally, &player->synth);
    if (show->player_count == 1 && size->shared_new != fresh) {
        complain(show, index, "measured %u shared ones that are missing, but %u follow from the "
                 "recording", size->shared_new, fresh);
        return false;
    }
    return true;
}

static bool check_linked(struct player *player, size_t index, const pp_trace *trace,
                         const pp_trace_size *measured)
{
    struct show *show = player->show;
    const uint8_t *entry = pp_trace_entry(trace);
    pp_trace_size size = { .size = sizeof size };
    if (entry == NULL || pp_trace_host(trace) != trace_at(show, index)) {
        complain(show, index, "the entry or the host's pointer is not there");
        return false;
    }
    if (pp_trace_at(entry) != trace || pp_trace_at(entry + player->synth.code_size - 1) != trace) {
        complain(show, index, "pp_trace_at does not find the trace by its addresses");
        return false;
    }
    pp_status status = pp_trace_get_size(trace, &size);
    if (status != PP_OK || size.total != measured->total ||
        size.trampolines != measured->trampolines || size.literals != measured->literals) {
        complain(show, index, "pp_trace_get_size: %s; %zu bytes, %u trampolines, %u literals, but "
                 "%zu, %u, %u were measured", pp_strerror(status), size.total, size.trampolines,
                 size.literals, measured->total, measured->trampolines, measured->literals);
        return false;
    }
    return true;
}

/* Run a live trace and look at its data.  The player's synth is the trace's. */
static bool run_part(struct player *player, size_t index)
{
    struct show *show = player->show;
    struct part *part = &player->parts[index];
    char error[256];
    pp_trace_size size = { .size = sizeof size };
    const uint8_t *entry = pp_trace_entry(part->trace);
    if (entry == NULL || pp_trace_get_size(part->trace, &size) != PP_OK) {
        complain(show, index, "the handle of a live trace is refused");
        return false;
    }
    if (!perform(&player->performer, &player->synth, entry, error, sizeof error)) {
        complain(show, index, "%s", error);
        return false;
    }
    player->outcome.sites += trace_at(show, index)->site_count;
    if (!perform_data(&player->synth, entry, entry + size.total - size.data)) {
        complain(show, index, "its data were changed");
        return false;
    }
    return true;
}

/* ---- a page per trace -------------------------------------------------------------------- */

static void link_pages(struct player *player, size_t index)
{
    struct show *show = player->show;
    struct part *part = &player->parts[index];
    char error[256];
    if (atomic_load_explicit(&show->pages_off, memory_order_relaxed) ||
        atomic_load_explicit(&show->page_bytes, memory_order_relaxed) > PAGES_MAX)
        return;
    uint64_t begin = stress_clock();
    bool good = pages_link(&part->pages, &player->synth, &show->targets, show->setting->is_far);
    note_time(player, PAGE_LINK, begin);
    if (!good) {
        if (!atomic_exchange(&show->pages_off, true))
            stress_note(show->stress, "%s: no page per trace to compare with: %s",
                        show->recording->path,
                        errno != 0 ? strerror(errno) : "its symbols are out of reach");
        return;
    }
    atomic_fetch_add(&show->page_bytes, part->pages.mapped);
    if (!perform(&player->performer, &player->synth, part->pages.base, error, sizeof error))
        complain(show, index, "in a page of its own: %s", error);
}

static void free_pages(struct player *player, size_t index)
{
    struct part *part = &player->parts[index];
    if (part->pages.base == NULL)
        return;
    atomic_fetch_sub(&player->show->page_bytes, part->pages.mapped);
    uint64_t begin = stress_clock();
    pages_free(&part->pages);
    note_time(player, PAGE_FREE, begin);
}

/* ---- the pool as a whole ------------------------------------------------------------------ */

static void raise_to(_Atomic uint64_t *most, uint64_t value)
{
    uint64_t seen = atomic_load_explicit(most, memory_order_relaxed);
    while (value > seen && !atomic_compare_exchange_weak(most, &seen, value)) {}
}

/* The numbers of the moment, if this is the fullest so far. */
static void keep_peak(struct show *show, const struct tally *tally, const pp_pool_stats *stats)
{
    struct outcome *outcome = show->outcome;
    pthread_mutex_lock(&show->lock);
    if (tally->bytes > outcome->live) {
        outcome->live = tally->bytes;
        outcome->page_bytes = tally->pages;
        outcome->symbol_bytes = tally->symbols * 16;
        outcome->trampolines = stats->trampolines;
        outcome->literals = stats->literals;
        outcome->trampoline_bytes = stats->trampoline_bytes + stats->literal_bytes;
    }
    pthread_mutex_unlock(&show->lock);
}

/* Compare the pool with a tally of all that is alive in it. */
static void compare(struct show *show, const struct tally *tally)
{
    pp_pool_stats stats;
    if (!read_stats(show, &stats))
        return;
    raise_to(&show->resident, stats.resident);
    keep_peak(show, tally, &stats);
    if (stats.traces != tally->traces)
        stress_fail(show->stress, "%s: %s: the pool counts %zu traces, but %zu are alive",
                    show->recording->path, show->setting->name, stats.traces, tally->traces);
    if (is_predictable(show, &stats) &&
        (stats.trampolines != tally->trampolines || stats.literals != tally->literals))
        stress_fail(show->stress, "%s: %s: the pool counts %zu trampolines and %zu other literals, "
                    "but %" PRIu64 " and %" PRIu64 " follow from the recording",
                    show->recording->path, show->setting->name, stats.trampolines, stats.literals,
                    tally->trampolines, tally->literals);
}

static void verify(struct show *show)
{
    pp_error error = { .size = sizeof error };
    pp_status status = pp_pool_verify(show->pool, &error);
    if (status != PP_OK)
        stress_fail(show->stress, "%s: %s: pp_pool_verify: %s: %s", show->recording->path,
                    show->setting->name, pp_strerror(status), error.text);
}

/* Every invariant of a large pool takes long to check, also between the events. */
static void verify_sometimes(struct show *show, uint64_t event)
{
    uint64_t begin = stress_clock();
    if (event % VERIFY_EVENTS != 0 || begin < atomic_load(&show->verify_next))
        return;
    verify(show);
    uint64_t end = stress_clock();
    atomic_store(&show->verify_next, end + (end - begin) * (VERIFY_SHARE - 1));
}

/* ---- making and freeing ------------------------------------------------------------------- */

static bool link_part(struct player *player, size_t index)
{
    struct show *show = player->show;
    struct part *part = &player->parts[index];
    pp_error error = { .size = sizeof error };
    pp_trace_desc desc = describe(player, index, &error);
    pp_trace_size measured;
    pp_trace *trace = NULL;
    if (!check_measure(player, index, &desc, &measured))
        return false;
    uint64_t begin = stress_clock();
    pp_status status = pp_trace_link(show->pool, &desc, &trace);
    note_time(player, POOL_LINK, begin);
    if (status != PP_OK) {
        complain(show, index, "pp_trace_link: %s: %s", pp_strerror(status), error.text);
        return false;
    }
    part->trace = trace;
    part->place = (uint32_t) player->live_count;
    player->live[player->live_count++] = (uint32_t) index;
    tally_add(&player->tally, &player->synth, trace_at(show, index));
    uint64_t bytes = player->synth.code_size + player->synth.data_size;
    raise_to(&show->peak, atomic_fetch_add(&show->live, bytes) + bytes);
    return check_linked(player, index, trace, &measured);
}

/* Link, run, and the same in pages of its own; which comes first alternates. */
static void make(struct player *player, size_t index)
{
    if (!synthesize(player, index))
        return;
    bool pages_first = index & 1;
    if (pages_first)
        link_pages(player, index);
    if (link_part(player, index))
        run_part(player, index);
    if (!pages_first)
        link_pages(player, index);
    if (player->show->player_count == 1) {
        compare(player->show, &player->tally);
    } else {
        pp_pool_stats stats;
        if (index % 16 == 0 && read_stats(player->show, &stats))
            raise_to(&player->show->resident, stats.resident);
    }
}

/* A handle that was given back must be refused by everything. */
static void check_stale(struct player *player, size_t index, pp_trace *trace)
{
    struct show *show = player->show;
    pp_status status = pp_trace_free(show->pool, trace);
    if (status != PP_E_STALE)
        complain(show, index, "freed twice: %s", pp_strerror(status));
    if (pp_trace_entry(trace) != NULL || pp_trace_host(trace) != NULL)
        complain(show, index, "the handle of a freed trace is not refused");
}

/* Run it once more, since others were freed and made after it; then free it. */
static void drop(struct player *player, size_t index)
{
    struct show *show = player->show;
    struct part *part = &player->parts[index];
    pp_trace *trace = part->trace;
    free_pages(player, index);
    if (trace == NULL || !synthesize(player, index))
        return;
    run_part(player, index);
    uint64_t begin = stress_clock();
    pp_status status = pp_trace_free(show->pool, trace);
    note_time(player, POOL_FREE, begin);
    if (status != PP_OK) {
        complain(show, index, "pp_trace_free: %s", pp_strerror(status));
        return;
    }
    part->trace = NULL;
    uint32_t last = player->live[--player->live_count];
    player->live[part->place] = last;
    player->parts[last].place = part->place;
    tally_remove(&player->tally, &player->synth, trace_at(show, index));
    atomic_fetch_sub(&show->live, player->synth.code_size + player->synth.data_size);
    if (player->frees++ % STALE_EVENTS == 0)
        check_stale(player, index, trace);
    if (show->player_count == 1)
        compare(show, &player->tally);
}

/* ---- players ------------------------------------------------------------------------------- */

/* Free some live traces and link them again in another order. */
static void churn(struct player *player)
{
    uint32_t chosen[CHURN_MAX];
    size_t count = 0, wanted = random_below(&player->random, CHURN_MAX + 1);
    while (count < wanted && player->live_count > 0) {
        chosen[count] = player->live[random_below(&player->random, player->live_count)];
        drop(player, chosen[count]);
        if (player->parts[chosen[count]].trace != NULL)
            break; /* it could not be freed, and that is reported */
        count++;
    }
    while (count > 0) {
        size_t i = random_below(&player->random, count);
        make(player, chosen[i]);
        chosen[i] = chosen[--count];
    }
}

static void play_events(struct player *player)
{
    struct show *show = player->show;
    const struct recording *recording = show->recording;
    bool churns = stress_options(show->stress)->churn;
    for (size_t i = 0; i < recording->event_count && !stress_expired(show->stress); i++) {
        const struct recorded_event *event = &recording->events[i];
        if (event->is_free)
            drop(player, event->trace);
        else
            make(player, event->trace);
        if (churns)
            churn(player);
        verify_sometimes(show, i + player->number);
        if (player->number == 0)
            stress_progress(show->stress, show->setting->name, i, recording->event_count);
    }
    if (!performer_idle(&player->performer))
        stress_fail(show->stress, "%s: %s: symbols were reached that no trace refers to",
                    recording->path, show->setting->name);
}

/* What the recording leaves alive, in random order. */
static void play_end(struct player *player)
{
    for (uint64_t freed = 0; player->live_count > 0; freed++) {
        size_t before = player->live_count;
        drop(player, player->live[random_below(&player->random, before)]);
        if (player->live_count == before)
            break; /* reported */
        verify_sometimes(player->show, freed);
    }
}

static bool player_init(struct player *player, struct show *show, unsigned number)
{
    const struct recording *recording = show->recording;
    *player = (struct player) { .show = show, .number = number };
    player->random = stress_random(show->stress, show->pass << 16 | number);
    player->parts = calloc(recording->trace_count, sizeof *player->parts);
    player->live = calloc(recording->trace_count, sizeof *player->live);
    return player->parts != NULL && player->live != NULL &&
           synth_init(&player->synth, recording->symbol_count) &&
           tally_init(&player->tally, show->setting, recording->symbol_count);
}

static void player_free(struct player *player)
{
    if (player->parts != NULL)
        for (size_t i = 0; i < player->show->recording->trace_count; i++)
            pages_free(&player->parts[i].pages);
    for (unsigned i = 0; i < 2 * OPERATIONS; i++)
        samples_free(&player->outcome.times[i / OPERATIONS][i % OPERATIONS]);
    free(player->parts);
    free(player->live);
    synth_free(&player->synth);
    tally_free(&player->tally);
}

/* Each part runs with a performer of the thread that plays. */
static void with_performer(struct player *player, void (*what)(struct player *player))
{
    if (performer_init(&player->performer, &player->show->targets))
        what(player);
    else
        stress_fail(player->show->stress, "no memory for a thread, or its stack is not known");
    performer_free(&player->performer);
}

static void *begin_events(void *player)
{
    with_performer(player, play_events);
    return NULL;
}

static void *begin_end(void *player)
{
    with_performer(player, play_end);
    return NULL;
}

/* One player plays in this thread, so that a debugger has it easy. */
static void run_all(struct show *show, struct player *players, void *(*what)(void *player))
{
    pthread_t *threads = calloc(show->player_count, sizeof *threads);
    unsigned started = 0;
    if (show->player_count == 1 || threads == NULL) {
        for (unsigned i = 0; i < show->player_count; i++)
            what(&players[i]);
    } else {
        for (; started < show->player_count; started++) {
            int number = pthread_create(&threads[started], NULL, what, &players[started]);
            if (number != 0) {
                stress_fail(show->stress, "pthread_create: %s", strerror(number));
                break;
            }
        }
        for (unsigned i = 0; i < started; i++)
            pthread_join(threads[i], NULL);
    }
    free(threads);
}

/* All players have stopped: what the pool holds is what they hold together. */
static void compare_all(struct show *show, const struct player *players)
{
    struct tally sum;
    if (tally_init(&sum, show->setting, show->recording->symbol_count)) {
        for (unsigned i = 0; i < show->player_count; i++)
            tally_merge(&sum, &players[i].tally);
        compare(show, &sum);
    } else {
        stress_fail(show->stress, "no memory to compare");
    }
    tally_free(&sum);
    verify(show);
}

/* ---- one show -------------------------------------------------------------------------------- */

static bool open_pool(struct show *show)
{
    struct stress *stress = show->stress;
    const struct recording *recording = show->recording;
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    options.branch_range = show->setting->is_far ? 1 : 0;
    if (recording->symbol_count > 0) {
        options.near[0] = targets_address(&show->targets, 0);
        options.near[1] = targets_address(&show->targets, recording->symbol_count - 1);
    }
    pp_status status = pp_pool_create(&options, &show->pool);
    if (status != PP_OK) {
        stress_fail(stress, "pp_pool_create: %s: %s", pp_strerror(status), error.text);
        return false;
    }
    for (size_t i = 0; i < recording->symbol_count; i++) {
        char name[32];
        snprintf(name, sizeof name, "symbol %" PRIu32, recording->symbols[i].id);
        show->symbols[i] = pp_symbol_define(show->pool, name, targets_address(&show->targets, i));
        if (show->symbols[i] == PP_SYMBOL_NONE) {
            stress_fail(stress, "%s:%" PRIu32 ": pp_symbol_define refuses symbol %" PRIu32,
                        recording->path, recording->symbols[i].line, recording->symbols[i].id);
            return false;
        }
    }
    return true;
}

static void add_outcome(struct show *show, const struct player *players)
{
    static const char *const modes[] = { "auto", "dual", "remap", "flip", "rwx" };
    struct outcome *outcome = show->outcome;
    pp_pool_stats stats;
    for (unsigned n = 0; n < show->player_count; n++) {
        const struct outcome *own = &players[n].outcome;
        for (unsigned act = 0; act < 2; act++)
            for (unsigned i = 0; i < OPERATIONS; i++)
                samples_merge(&outcome->times[act][i], &own->times[act][i]);
        outcome->sites += own->sites;
    }
    uint64_t peak = atomic_load(&show->peak), resident = atomic_load(&show->resident);
    if (show->player_count > 1 && peak > outcome->live) {
        outcome->live = peak;
        outcome->page_bytes = 0; /* nobody saw all players at that moment */
    }
    if (resident > outcome->resident)
        outcome->resident = resident;
    if (read_stats(show, &stats)) {
        outcome->reserved = stats.reserved;
        outcome->metadata = stats.metadata;
        outcome->regions = stats.regions;
        outcome->near_regions = stats.near_regions;
        outcome->wx = (unsigned) stats.wx < 5 ? modes[stats.wx] : "?";
    }
}

static void run_show(struct show *show, struct player *players)
{
    bool good = true;
    for (unsigned i = 0; i < show->player_count; i++)
        good &= player_init(&players[i], show, i);
    for (unsigned act = 0; act < 2 && good; act++) {
        for (unsigned i = 0; i < show->player_count; i++)
            players[i].act = act;
        run_all(show, players, begin_events);
        compare_all(show, players);
        run_all(show, players, begin_end);
        if (stress_failures(show->stress) == 0)
            compare_all(show, players);
    }
    if (good) {
        add_outcome(show, players);
    } else {
        stress_fail(show->stress, "%s: no memory to play it", show->recording->path);
    }
    for (unsigned i = 0; i < show->player_count; i++)
        player_free(&players[i]);
}

void play(struct stress *stress, const struct recording *recording,
          const struct setting *setting, uint64_t pass, struct outcome *outcome)
{
    struct show show = { .stress = stress, .recording = recording, .setting = setting,
                         .player_count = stress_threads(stress, 1), .pass = pass,
                         .outcome = outcome };
    struct player *players = calloc(show.player_count, sizeof *players);
    show.symbols = calloc(recording->symbol_count + 1, sizeof *show.symbols);
    pthread_mutex_init(&show.lock, NULL);
    if (players == NULL || show.symbols == NULL)
        stress_fail(stress, "%s: no memory to play it", recording->path);
    else if (!targets_create(&show.targets, recording->symbol_count))
        stress_fail(stress, "%s: no memory for counting functions: %s", recording->path,
                    strerror(errno));
    else if (open_pool(&show))
        run_show(&show, players);
    pp_pool_destroy(show.pool);
    targets_destroy(&show.targets);
    pthread_mutex_destroy(&show.lock);
    free(show.symbols);
    free(players);
}
