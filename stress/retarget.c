/* SPDX-License-Identifier: MIT */
/*
 * retarget: threads call through traces while one thread moves the symbols that
 * the traces lead to, and another links and frees traces of the same symbols.
 *
 * Every symbol has targets of its own, near and far ones in turn, and each target
 * returns its number.  The mover counts the moves of a symbol, before and after
 * each; a caller reads both counts around its call, so that it knows which targets
 * the call may have reached: those of the moves from the last that was over to the
 * last that had begun.  While nothing moves that is the newest alone, and from time
 * to time the mover waits until every caller has seen that.
 */
#include <config.h>

#include "stress/stress.h"

#include <elf.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    SYMBOLS = 6,
    CHOICES = 8,         /* targets of a symbol */
    FORMS = 4,           /* traces of a symbol: jump or slot, shared trampoline or its own */
    TRACES = SYMBOLS * FORMS,
    CALLERS_MAX = 64,
    KEPT = 16,           /* traces that the linking thread has at a time */
    MOVES_BETWEEN = 4096,/* from one quiet moment to the next */
    EXACT = 64           /* moves during one call that are looked at one by one */
};

typedef int32_t function(void);

struct moving {
    pp_symbol symbol;
    uint64_t seed;
    _Atomic uint64_t begun, over; /* number of moves */
};

struct leading {         /* a trace */
    function *entry;
    struct moving *moving;
};

struct show {
    struct stress *stress;
    pp_pool *pool;               /* of the traces and the near targets */
    pp_pool *far_pool;
    struct moving moving[SYMBOLS];
    function *targets[SYMBOLS][CHOICES];
    struct leading traces[TRACES];
    atomic_bool over;
    _Atomic uint64_t moment;     /* quiet ones so far */
};

struct caller {
    pthread_t thread;
    struct show *show;
    _Atomic uint64_t seen;       /* the last moment in which a round of calls began and ended */
    uint64_t calls, quiet;
};

/* ---- code ------------------------------------------------------------------------ */

struct piece {
    uint8_t code[16];
    size_t size;
    pp_reloc relocs[2];
    size_t reloc_count;
};

#if defined __x86_64__

static void emit_target(struct piece *piece, uint32_t number)
{
    static const uint8_t code[] = { 0xf3, 0x0f, 0x1e, 0xfa, /* endbr64 */
                                    0xb8, 0, 0, 0, 0,       /* mov $number, %eax */
                                    0xc3 };
    *piece = (struct piece) { .size = sizeof code };
    memcpy(piece->code, code, sizeof code);
    memcpy(piece->code + 5, &number, sizeof number);
}

static void emit_leading(struct piece *piece, pp_symbol symbol, bool slot)
{
    static const uint8_t jump[] = { 0xe9, 0, 0, 0, 0 }, load[] = { 0xff, 0x25, 0, 0, 0, 0 };
    *piece = (struct piece) { .size = slot ? sizeof load : sizeof jump, .reloc_count = 1 };
    memcpy(piece->code, slot ? load : jump, piece->size);
    piece->relocs[0] = (pp_reloc) { .offset = slot ? 2 : 1, .symbol = symbol, .addend = -4,
                                    .type = slot ? R_X86_64_GOTPCRELX : R_X86_64_PLT32 };
}

#elif defined __aarch64__

static void emit_words(struct piece *piece, const uint32_t *words, size_t count)
{
    *piece = (struct piece) { .size = count * sizeof *words };
    memcpy(piece->code, words, piece->size);
}

static void emit_target(struct piece *piece, uint32_t number)
{
    const uint32_t words[] = { 0xd503245f,                    /* bti c */
                               0x52800000u | number << 5,     /* mov w0, #number */
                               0xd65f03c0 };
    emit_words(piece, words, 3);
}

static void emit_leading(struct piece *piece, pp_symbol symbol, bool slot)
{
    /* b symbol; or adrp x16, ldr x16, br x16 */
    static const uint32_t jump[] = { 0x14000000 }, load[] = { 0x90000010, 0xf9400210, 0xd61f0200 };
    emit_words(piece, slot ? load : jump, slot ? 3 : 1);
    piece->reloc_count = slot ? 2 : 1;
    piece->relocs[0] = (pp_reloc) { .symbol = symbol,
                                    .type = slot ? R_AARCH64_ADR_GOT_PAGE : R_AARCH64_JUMP26 };
    piece->relocs[1] = (pp_reloc) { .offset = 4, .symbol = symbol,
                                    .type = R_AARCH64_LD64_GOT_LO12_NC };
}

#endif

static pp_trace *link_piece(struct stress *stress, pp_pool *pool, const struct piece *piece,
                            bool own)
{
    pp_error error = { .size = sizeof error };
    pp_trace *trace = NULL;
    pp_trace_desc desc = { .size = sizeof desc, .code = piece->code, .code_size = piece->size,
                           .relocs = piece->relocs, .reloc_count = piece->reloc_count,
                           .flags = own ? PP_TRACE_OWN_TRAMPOLINES : 0, .error = &error };
    pp_status status = pp_trace_link(pool, &desc, &trace);
    if (status == PP_OK)
        return trace;
    stress_fail(stress, "pp_trace_link: %s: %s", pp_strerror(status), error.text);
    return NULL;
}

static function *entry_of(const pp_trace *trace)
{
    return (function *) pp_trace_entry(trace);
}

/* ---- which target ---------------------------------------------------------------- */

static int32_t number_of(unsigned symbol, unsigned choice)
{
    return (int32_t) (1 + symbol * CHOICES + choice);
}

/* Where the n-th move leads; the 0th is the declaration. */
static unsigned choice_of(const struct moving *moving, uint64_t move)
{
    struct random random = random_stream(moving->seed, move);
    return (unsigned) random_below(&random, CHOICES);
}

static bool may_reach(const struct show *show, const struct moving *moving, uint64_t from,
                      uint64_t to, int32_t number)
{
    unsigned symbol = (unsigned) (moving - show->moving);
    if (to - from >= EXACT)
        return number >= number_of(symbol, 0) && number < number_of(symbol, CHOICES);
    for (uint64_t move = from; move <= to; move++)
        if (number == number_of(symbol, choice_of(moving, move)))
            return true;
    return false;
}

/* Call, and see where it led.  True: nothing moved meanwhile. */
static bool call(struct show *show, const struct leading *trace)
{
    struct moving *moving = trace->moving;
    uint64_t from = atomic_load_explicit(&moving->over, memory_order_acquire);
    int32_t number = trace->entry();
    /* The load of the literal comes before the next one. */
    atomic_thread_fence(memory_order_acquire);
    uint64_t to = atomic_load_explicit(&moving->begun, memory_order_acquire);
    if (!may_reach(show, moving, from, to, number))
        stress_fail(show->stress,
                    "symbol %td led to target %" PRId32 ", which is none of moves %" PRIu64
                    " to %" PRIu64, moving - show->moving, number, from, to);
    return from == to;
}

/* ---- threads ------------------------------------------------------------------------ */

static void *be_caller(void *argument)
{
    struct caller *caller = argument;
    struct show *show = caller->show;
    while (!atomic_load_explicit(&show->over, memory_order_relaxed)) {
        uint64_t moment = atomic_load_explicit(&show->moment, memory_order_acquire);
        for (unsigned i = 0; i < TRACES; i++)
            caller->quiet += call(show, &show->traces[i]);
        caller->calls += TRACES;
        atomic_store_explicit(&caller->seen, moment, memory_order_release);
    }
    return NULL;
}

struct linker {
    pthread_t thread;
    struct show *show;
    struct random random;
    uint64_t links;
};

static void *be_linker(void *argument)
{
    struct linker *linker = argument;
    struct show *show = linker->show;
    struct stress *stress = show->stress;
    pp_trace *kept[KEPT] = { NULL };
    for (; !atomic_load_explicit(&show->over, memory_order_relaxed); linker->links++) {
        struct moving *moving = &show->moving[random_below(&linker->random, SYMBOLS)];
        pp_trace **place = &kept[random_below(&linker->random, KEPT)];
        bool slot = random_next(&linker->random) & 1, own = random_next(&linker->random) & 1;
        struct piece piece;
        if (*place != NULL && pp_trace_free(show->pool, *place) != PP_OK)
            stress_fail(stress, "a trace cannot be freed");
        emit_leading(&piece, moving->symbol, slot);
        *place = link_piece(stress, show->pool, &piece, own);
        if (*place == NULL)
            break;
        struct leading leading = { entry_of(*place), moving };
        call(show, &leading);
        pp_error error = { .size = sizeof error };
        if (linker->links % 512 == 0 && pp_pool_verify(show->pool, &error) != PP_OK)
            stress_fail(stress, "pool: %s", error.text);
    }
    for (unsigned i = 0; i < KEPT; i++)
        if (kept[i] != NULL && pp_trace_free(show->pool, kept[i]) != PP_OK)
            stress_fail(stress, "a trace cannot be freed");
    return NULL;
}

/* ---- moving ------------------------------------------------------------------------- */

static void move(struct show *show, struct moving *moving)
{
    unsigned symbol = (unsigned) (moving - show->moving);
    uint64_t next = atomic_load_explicit(&moving->over, memory_order_relaxed) + 1;
    function *target = show->targets[symbol][choice_of(moving, next)];
    atomic_store_explicit(&moving->begun, next, memory_order_relaxed);
    pp_status status = pp_symbol_retarget(show->pool, moving->symbol, (const void *) target, NULL);
    atomic_store_explicit(&moving->over, next, memory_order_release);
    if (status != PP_OK)
        stress_fail(show->stress, "pp_symbol_retarget: %s", pp_strerror(status));
}

/* Until every caller has begun and ended a round while nothing moved. */
static void rest(struct show *show, struct caller *callers, unsigned count)
{
    uint64_t moment = atomic_fetch_add(&show->moment, 1) + 1;
    for (unsigned i = 0; i < count; i++)
        while (atomic_load_explicit(&callers[i].seen, memory_order_acquire) < moment)
            sched_yield();
}

static uint64_t move_all(struct show *show, struct caller *callers, unsigned count)
{
    struct stress *stress = show->stress;
    struct random random = stress_random(stress, 2);
    uint64_t wanted = stress_fills_time(stress) ? UINT64_MAX : stress_iterations(stress, 400000);
    uint64_t moves = 0;
    while (moves < wanted && !stress_expired(stress) && stress_failures(stress) == 0) {
        for (unsigned i = 0; i < MOVES_BETWEEN && moves < wanted; i++, moves++)
            move(show, &show->moving[random_below(&random, SYMBOLS)]);
        rest(show, callers, count);
        stress_progress(stress, "move", moves, wanted == UINT64_MAX ? 0 : wanted);
    }
    return moves;
}

/* ---- what a move costs ------------------------------------------------------------------ */

/* A page of code is made writable, changed, and made executable again: what a move saves. */
static double time_flip(uint8_t *page, size_t size)
{
    uint64_t begin = stress_clock();
    if (mprotect(page, size, PROT_READ | PROT_WRITE) != 0)
        return NAN;
    *(volatile uint64_t *) page += 1;
    if (mprotect(page, size, PROT_READ | PROT_EXEC) != 0)
        return NAN;
    return (double) (stress_clock() - begin);
}

static double time_moves(struct show *show, unsigned count)
{
    struct moving *moving = &show->moving[0];
    function *const *targets = show->targets[0];
    bool good = true;
    uint64_t begin = stress_clock();
    for (unsigned i = 0; i < count; i++)
        good &= pp_symbol_retarget(show->pool, moving->symbol,
                                   (const void *) targets[i % CHOICES], NULL) == PP_OK;
    double time = (double) (stress_clock() - begin) / count;
    if (!good)
        stress_fail(show->stress, "pp_symbol_retarget fails");
    return time;
}

/* Alone, in turns; the least of each, which is what it costs undisturbed. */
static void measure(struct show *show, struct stress_table *table)
{
    enum { ROUNDS = 200, MOVES = 1000, PAGES = 16 };
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    uint8_t *pages = mmap(NULL, PAGES * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                          -1, 0);
    double least_move = INFINITY, least_flip = INFINITY;
    if (pages == MAP_FAILED)
        return;
    memset(pages, 0, PAGES * page);
    bool allowed = mprotect(pages, PAGES * page, PROT_READ | PROT_EXEC) == 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        double time = time_moves(show, MOVES);
        least_move = time < least_move ? time : least_move;
        time = allowed ? time_flip(pages + PAGES / 2 * page, page) : NAN;
        least_flip = time < least_flip ? time : least_flip;
    }
    munmap(pages, PAGES * page);
    stress_value(table, "a move, alone", "ns", least_move);
    stress_value(table, "mprotect, a store, mprotect", "ns", allowed ? least_flip : NAN);
    stress_value(table, "  that / a move", "x", allowed ? least_flip / least_move : NAN);
}

/* ---- the scenario ---------------------------------------------------------------------- */

static pp_pool *open_pool(struct stress *stress, const void *near, bool pads)
{
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    pp_pool *pool = NULL;
    options.near[0] = near;
    options.flags = pads ? PP_POOL_LANDING_PADS : 0;
    if (pp_pool_create(&options, &pool) != PP_OK)
        stress_fail(stress, "pool: %s", error.text);
    return pool;
}

static bool make_targets(struct show *show)
{
    for (unsigned symbol = 0; symbol < SYMBOLS; symbol++) {
        for (unsigned choice = 0; choice < CHOICES; choice++) {
            struct piece piece;
            emit_target(&piece, (uint32_t) number_of(symbol, choice));
            pp_trace *trace = link_piece(show->stress, choice % 2 == 0 ? show->pool : show->far_pool,
                                         &piece, false);
            if (trace == NULL)
                return false;
            show->targets[symbol][choice] = entry_of(trace);
        }
    }
    return true;
}

static bool make_traces(struct show *show)
{
    struct random random = stress_random(show->stress, 1);
    for (unsigned i = 0; i < SYMBOLS; i++) {
        struct moving *moving = &show->moving[i];
        char name[16] = { (char) ('a' + i) };
        moving->seed = random_next(&random);
        moving->symbol = pp_symbol_declare(show->pool, name,
                                           (const void *) show->targets[i][choice_of(moving, 0)],
                                           PP_SYMBOL_RETARGETABLE);
        if (moving->symbol == PP_SYMBOL_NONE) {
            stress_fail(show->stress, "pp_symbol_declare");
            return false;
        }
        for (unsigned form = 0; form < FORMS; form++) {
            struct piece piece;
            emit_leading(&piece, moving->symbol, form & 1);
            pp_trace *trace = link_piece(show->stress, show->pool, &piece, form & 2);
            if (trace == NULL)
                return false;
            show->traces[i * FORMS + form] = (struct leading) { entry_of(trace), moving };
        }
    }
    return true;
}

static void report(struct show *show, struct caller *callers, unsigned count, uint64_t links,
                   uint64_t moves, double seconds)
{
    struct stress_table *table = stress_table(show->stress, "symbols that move", 1,
                                              (const char *const[]) { "" });
    uint64_t calls = 0, quiet = 0;
    pp_pool_stats stats = { .size = sizeof stats };
    for (unsigned i = 0; i < count; i++) {
        calls += callers[i].calls;
        quiet += callers[i].quiet;
    }
    if (pp_pool_get_stats(show->pool, &stats) != PP_OK || stats.retargets != moves)
        stress_fail(show->stress, "the pool counts %zu moves, not %" PRIu64, stats.retargets, moves);
    stress_value(table, "moves", "", (double) moves);
    stress_value(table, "  a second", "", (double) moves / seconds);
    stress_value(table, "calls", "", (double) calls);
    stress_value(table, "  a second", "", (double) calls / seconds);
    stress_value(table, "calls while their symbol stood still", "", (double) quiet);
    stress_value(table, "quiet moments", "", (double) atomic_load(&show->moment));
    stress_value(table, "traces linked and freed", "", (double) links);
    measure(show, table);
}

static void run_threads(struct show *show)
{
    struct stress *stress = show->stress;
    unsigned wanted = stress_threads(stress, 3), count = 0;
    struct caller *callers = calloc(CALLERS_MAX, sizeof *callers);
    struct linker linker = { .show = show, .random = stress_random(stress, 3) };
    if (callers == NULL) {
        stress_fail(stress, "no memory");
        return;
    }
    uint64_t begin = stress_clock();
    for (; count < wanted && count < CALLERS_MAX; count++) {
        callers[count].show = show;
        if (pthread_create(&callers[count].thread, NULL, be_caller, &callers[count]) != 0)
            break;
    }
    bool links = pthread_create(&linker.thread, NULL, be_linker, &linker) == 0;
    if (count == 0 || !links)
        stress_fail(stress, "no threads can be started");
    uint64_t moves = move_all(show, callers, count);
    atomic_store(&show->over, true);
    for (unsigned i = 0; i < count; i++)
        pthread_join(callers[i].thread, NULL);
    if (links)
        pthread_join(linker.thread, NULL);
    double seconds = (double) (stress_clock() - begin) / 1e9;
    if (stress_failures(stress) == 0)
        report(show, callers, count, linker.links, moves, seconds);
    free(callers);
}

static void run(struct stress *stress)
{
    struct show *show = calloc(1, sizeof *show);
    if (show == NULL) {
        stress_fail(stress, "no memory");
        return;
    }
    /* Half of the address space away: beyond every branch. */
    uintptr_t here = (uintptr_t) pp_pool_create;
    bool pads = stress_options(stress)->seed & 1;
    show->stress = stress;
    show->pool = open_pool(stress, (const void *) here, pads);
    show->far_pool = open_pool(stress, (const void *) (here ^ (uintptr_t) 1 << 45), false);
    if (show->pool != NULL && show->far_pool != NULL && make_targets(show) && make_traces(show))
        run_threads(show);
    pp_error error = { .size = sizeof error };
    if (show->pool != NULL && pp_pool_verify(show->pool, &error) != PP_OK)
        stress_fail(stress, "pool: %s", error.text);
    pp_pool_destroy(show->pool);
    pp_pool_destroy(show->far_pool);
    free(show);
}

const struct scenario scenario_retarget = {
    .name = "retarget",
    .summary = "threads call through traces while their symbols are moved",
    .run = run,
    .seconds = 4,
};
