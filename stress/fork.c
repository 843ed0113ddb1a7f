/* SPDX-License-Identifier: MIT */
/*
 * fork: threads link, free, retire, reclaim, write and shrink while one forks.
 *
 * Whatever a thread has published is in a slot: where it is, what it returns and
 * a hash of its bytes.  A slot is emptied before the library is asked to change what
 * it tells of, so a child finds in it code that was whole at the fork; and as long
 * as the child is there, nobody may change that.  Children check all the slots again
 * and again while the parent goes on, try to write what is not theirs, make code
 * of their own, move a symbol to where only they go, and end with a verdict.
 */
#include <config.h>

#include "stress/stress.h"

#include <elf.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    STANDING = 64,        /* slots that stay as they are */
    CHURNING = 64,        /* slots of each thread */
    THREADS_MAX = 32,
    TOGETHER = 6,         /* children at a time */
    CROWD = 48,           /* now and then */
    OWN = 32,             /* spans that a child makes */
    CODE_MAX = 600,
    CHILD_SECONDS = 120   /* a child that hangs is ended, and is a failure */
};

typedef int32_t function(void);

struct slot {
    _Atomic(function *) run;  /* NULL: empty.  Stored last, cleared first */
    int32_t value;
    uint32_t size;
    uint64_t hash;
    pp_trace *trace;          /* one of the two; of the thread alone */
    pp_span *span;
};

struct show {
    struct stress *stress;
    pp_pool *pool;
    pp_symbol symbol;         /* leads to `same`; in a child, then to `other` */
    pp_wx wx;
    bool can_forget;          /* the system keeps mappings from children when asked to */
    struct slot standing[STANDING];
    struct churner *churners;
    unsigned count;
    pp_span *open;            /* never published */
    pp_span_place open_place;
    atomic_bool over;
};

struct churner {
    pthread_t thread;
    struct show *show;
    struct random random;
    struct slot slots[CHURNING];
    uint64_t operations, busy;
};

static int32_t same(int32_t value) { return value; }
static int32_t other(int32_t value) { return ~value; }

/* ---- code --------------------------------------------------------------------------- */

#if defined __x86_64__

/* mov $value, %eax; ret */
static size_t emit_return(uint8_t *code, int32_t value)
{
    code[0] = 0xb8;
    memcpy(code + 1, &value, sizeof value);
    code[5] = 0xc3;
    return 6;
}

/* mov $value, %edi; jmp symbol */
static size_t emit_jump(uint8_t *code, int32_t value, pp_reloc *reloc)
{
    code[0] = 0xbf;
    memcpy(code + 1, &value, sizeof value);
    memcpy(code + 5, "\xe9\0\0\0\0", 5);
    reloc->offset = 6;
    reloc->type = R_X86_64_PLT32;
    reloc->addend = -4;
    return 10;
}

#elif defined __aarch64__

static size_t emit_words(uint8_t *code, int32_t value, uint32_t last)
{
    const uint32_t bits = (uint32_t) value;
    const uint32_t words[] = { 0x52800000u | (bits & 0xffff) << 5, /* mov  w0, #low */
                               0x72a00000u | (bits >> 16) << 5,    /* movk w0, #high, lsl #16 */
                               last };
    memcpy(code, words, sizeof words);
    return sizeof words;
}

static size_t emit_return(uint8_t *code, int32_t value)
{
    return emit_words(code, value, 0xd65f03c0);
}

static size_t emit_jump(uint8_t *code, int32_t value, pp_reloc *reloc)
{
    reloc->offset = 8;
    reloc->type = R_AARCH64_JUMP26;
    return emit_words(code, value, 0x14000000);
}

#endif

static uint64_t hash_of(const void *code, size_t size)
{
    const uint8_t *bytes = code;
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3;
    return hash;
}

static void fill_slot(struct slot *slot, const void *code, size_t size, int32_t value)
{
    slot->value = value;
    slot->size = (uint32_t) size;
    slot->hash = hash_of(code, size);
    atomic_store_explicit(&slot->run, (function *) (uintptr_t) code, memory_order_release);
}

static void write_span(const pp_span_place *place, int32_t value)
{
    memset(place->write, value, place->bytes);
    emit_return(place->write, value);
}

static pp_status make_span(pp_pool *pool, struct slot *slot, size_t bytes, int32_t value)
{
    pp_span_desc desc = { .size = sizeof desc, .bytes = bytes };
    pp_span_place place = { .size = sizeof place };
    pp_status status = pp_span_alloc(pool, &desc, &slot->span, &place);
    if (status != PP_OK)
        return status;
    write_span(&place, value);
    status = pp_span_publish(pool, &slot->span, 1, NULL);
    if (status == PP_OK)
        fill_slot(slot, place.execute, bytes, value);
    return status;
}

static pp_status make_trace(pp_pool *pool, pp_symbol symbol, struct slot *slot, size_t data,
                            int32_t value)
{
    uint8_t code[16], bytes[CODE_MAX];
    pp_reloc reloc = { .symbol = symbol };
    size_t size = emit_jump(code, value, &reloc);
    memset(bytes, value, data);
    pp_trace_desc desc = { .size = sizeof desc, .code = code, .code_size = size, .data = bytes,
                           .data_size = data, .relocs = &reloc, .reloc_count = 1, .host = slot };
    pp_status status = pp_trace_link(pool, &desc, &slot->trace);
    if (status == PP_OK)
        fill_slot(slot, pp_trace_entry(slot->trace), size, value);
    return status;
}

/* ---- threads -------------------------------------------------------------------------- */

static void complain(struct churner *churner, const char *what, pp_status status)
{
    stress_fail(churner->show->stress, "%s: %s", what, pp_strerror(status));
}

static void fill(struct churner *churner, struct slot *slot)
{
    struct show *show = churner->show;
    int32_t value = (int32_t) random_below(&churner->random, INT32_MAX);
    size_t bytes = 16 + random_below(&churner->random, CODE_MAX - 16);
    pp_status status = random_below(&churner->random, 2) == 0
                           ? make_span(show->pool, slot, bytes, value)
                           : make_trace(show->pool, show->symbol, slot, bytes, value);
    if (status != PP_OK)
        complain(churner, "make", status);
}

/* A span of this thread is written again, if no child may be running it. */
static void rewrite(struct churner *churner, struct slot *slot)
{
    pp_pool *pool = churner->show->pool;
    pp_span_place place = { .size = sizeof place };
    pp_status status = pp_span_write(pool, slot->span, &place, NULL);
    if (status == PP_OK) {
        slot->value = (int32_t) random_below(&churner->random, INT32_MAX);
        write_span(&place, slot->value);
        status = pp_span_publish(pool, &slot->span, 1, NULL);
    } else if (status == PP_E_BUSY) {
        churner->busy++;
        status = pp_span_get_place(slot->span, &place);
    }
    if (status == PP_OK)
        fill_slot(slot, place.execute, slot->size, slot->value);
    else
        complain(churner, "write again", status);
}

static void shrink(struct churner *churner, struct slot *slot)
{
    size_t size = 16 + random_below(&churner->random, slot->size - 15);
    pp_span_place place = { .size = sizeof place };
    pp_status status = pp_span_shrink(churner->show->pool, slot->span, size);
    if (status == PP_OK)
        status = pp_span_get_place(slot->span, &place);
    if (status == PP_OK)
        fill_slot(slot, place.execute, size, slot->value);
    else
        complain(churner, "shrink", status);
}

static void change(struct churner *churner, struct slot *slot)
{
    pp_pool *pool = churner->show->pool;
    uint64_t kind = random_below(&churner->random, slot->span != NULL ? 5 : 3);
    pp_status status = PP_OK;
    if (kind == 3) {
        rewrite(churner, slot);
        return;
    }
    if (kind == 4) {
        shrink(churner, slot);
        return;
    }
    if (slot->span != NULL)
        status = kind == 0 ? pp_span_retire(pool, slot->span) : pp_span_free(pool, slot->span);
    else
        status = kind == 0 ? pp_trace_retire(pool, slot->trace) : pp_trace_free(pool, slot->trace);
    slot->span = NULL;
    slot->trace = NULL;
    if (status != PP_OK)
        complain(churner, kind == 0 ? "retire" : "free", status);
}

static void *be_churner(void *argument)
{
    struct churner *churner = argument;
    struct show *show = churner->show;
    for (; !atomic_load_explicit(&show->over, memory_order_relaxed); churner->operations++) {
        struct slot *slot = &churner->slots[random_below(&churner->random, CHURNING)];
        if (atomic_exchange_explicit(&slot->run, NULL, memory_order_acq_rel) == NULL)
            fill(churner, slot);
        else
            change(churner, slot);
        if (churner->operations % 64 == 0) {
            const void *to = (const void *) same;
            pp_ticket ticket = pp_retire_ticket(show->pool);
            pp_status status = pp_symbol_retarget(show->pool, show->symbol, to, NULL);
            if (status == PP_OK)
                status = pp_reclaim(show->pool, ticket, NULL, 0, NULL);
            if (status != PP_OK)
                complain(churner, "retarget or reclaim", status);
        }
    }
    return NULL;
}

/* ---- children --------------------------------------------------------------------------- */

enum verdict {
    GOOD, RESULT, BYTES, STORE, REFUSAL, ALLOCATE, OWN_RESULT, VERIFY, MOVE, RECLAIM, GRANDCHILD
};

static const char *const verdicts[] = {
    [GOOD] = "good", [RESULT] = "inherited code returned something else",
    [BYTES] = "bytes of inherited code changed", [STORE] = "a store into the parent's code did not fault",
    [REFUSAL] = "a change of an inherited span was not refused",
    [ALLOCATE] = "no code of its own", [OWN_RESULT] = "its own code returned something else",
    [VERIFY] = "pp_pool_verify", [MOVE] = "a symbol did not move, or moved wrongly",
    [RECLAIM] = "pp_reclaim", [GRANDCHILD] = "a child of its own failed"
};

static enum verdict check_slot(const struct slot *slot, bool moved)
{
    function *run = atomic_load_explicit(&slot->run, memory_order_acquire);
    if (run == NULL)
        return GOOD;
    if (hash_of((const void *) run, slot->size) != slot->hash)
        return BYTES;
    int32_t value = run();
    return value == (moved && slot->trace != NULL ? ~slot->value : slot->value) ? GOOD : RESULT;
}

static enum verdict check_slots(const struct show *show, bool moved)
{
    enum verdict verdict = GOOD;
    for (unsigned i = 0; i < STANDING && verdict == GOOD; i++)
        verdict = check_slot(&show->standing[i], moved);
    for (unsigned n = 0; n < show->count && verdict == GOOD; n++)
        for (unsigned i = 0; i < CHURNING && verdict == GOOD; i++)
            verdict = check_slot(&show->churners[n].slots[i], moved);
    return verdict;
}

static sigjmp_buf refused;
static void on_fault(int signal) { siglongjmp(refused, signal); }

static bool store_faults(uintptr_t at)
{
    struct sigaction action = { .sa_handler = on_fault };
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    volatile bool faults = true;
    if (sigsetjmp(refused, 1) == 0) {
        *(volatile uint8_t *) at ^= 0xff;
        faults = false;
    }
    action.sa_handler = SIG_DFL;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    return faults;
}

/* With two views neither can be written; one view is the child's own copy of the pages. */
static enum verdict try_to_write(struct show *show)
{
    pp_span_place place = { .size = sizeof place };
    const struct slot *span = &show->standing[0];
    bool shared = show->wx == PP_WX_DUAL || show->wx == PP_WX_REMAP;
    if (shared && show->can_forget && !store_faults((uintptr_t) show->open_place.write))
        return STORE;
    if (show->wx != PP_WX_RWX && !store_faults((uintptr_t) atomic_load(&span->run)))
        return STORE;
    if (!shared)
        memset(show->open_place.write, 0xee, show->open_place.bytes);
    return pp_span_write(show->pool, span->span, &place, NULL) == PP_E_UNSUPPORTED &&
                   pp_span_publish(show->pool, &show->open, 1, NULL) == PP_E_UNSUPPORTED
               ? GOOD : REFUSAL;
}

static enum verdict make_own(struct show *show, struct random *random)
{
    struct slot own[OWN] = { { NULL } };
    for (unsigned i = 0; i < OWN; i++) {
        int32_t value = (int32_t) random_below(random, INT32_MAX);
        pp_status status = i % 2 == 0 ? make_span(show->pool, &own[i], 100, value)
                                      : make_trace(show->pool, show->symbol, &own[i], 100, value);
        if (status != PP_OK)
            return ALLOCATE;
    }
    for (unsigned i = 0; i < OWN; i++)
        if (check_slot(&own[i], false) != GOOD)
            return OWN_RESULT;
    for (unsigned i = 0; i < OWN; i++) {
        pp_status status = i % 2 == 0 ? pp_span_retire(show->pool, own[i].span)
                                      : pp_trace_free(show->pool, own[i].trace);
        if (status != PP_OK)
            return RECLAIM;
    }
    return GOOD;
}

/* What only a child does: the symbol leads elsewhere, and everything retired goes. */
static enum verdict move_and_reclaim(struct show *show)
{
    pp_pool *pool = show->pool;
    if (pp_symbol_retarget(pool, show->symbol, (const void *) other, NULL) != PP_OK ||
        check_slots(show, true) != GOOD)
        return MOVE;
    if (pp_symbol_retarget(pool, show->symbol, (const void *) same, NULL) != PP_OK ||
        check_slots(show, false) != GOOD)
        return MOVE;
    return pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL) == PP_OK ? GOOD : RECLAIM;
}

static enum verdict be_child(struct show *show, struct random *random);

static enum verdict have_grandchild(struct show *show, struct random *random)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(be_child(show, random));
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? GOOD : GRANDCHILD;
}

static enum verdict be_child(struct show *show, struct random *random)
{
    unsigned rounds = 1 + (unsigned) random_below(random, 8);
    alarm(CHILD_SECONDS);
    enum verdict verdict = check_slots(show, false);
    if (verdict == GOOD)
        verdict = try_to_write(show);
    if (verdict == GOOD)
        verdict = make_own(show, random);
    for (unsigned i = 0; i < rounds && verdict == GOOD; i++) {
        usleep((useconds_t) random_below(random, 1500));
        verdict = check_slots(show, false);
    }
    if (verdict == GOOD && random_below(random, 8) == 0)
        verdict = have_grandchild(show, random);
    if (verdict == GOOD)
        verdict = move_and_reclaim(show);
    if (verdict == GOOD)
        verdict = check_slots(show, false);
    if (verdict == GOOD && pp_pool_verify(show->pool, NULL) != PP_OK)
        verdict = VERIFY;
    if (verdict == GOOD && random_below(random, 4) == 0)
        pp_pool_destroy(show->pool);
    return verdict;
}

/* ---- the parent --------------------------------------------------------------------------- */

struct forks {
    struct random random;
    unsigned alive;
    uint64_t count;
};

static void fork_one(struct show *show, struct forks *forks)
{
    struct random random = stress_random(show->stress, 1000 + forks->count);
    pid_t pid = fork();
    if (pid == 0)
        _exit(be_child(show, &random));
    if (pid < 0) {
        stress_fail(show->stress, "fork: %s", strerror(errno));
        return;
    }
    forks->alive++;
    forks->count++;
}

static void end_one(struct show *show, struct forks *forks)
{
    int status;
    pid_t pid = waitpid(-1, &status, 0);
    if (pid < 0)
        return;
    forks->alive--;
    if (WIFSIGNALED(status))
        stress_fail(show->stress, "a child ended by signal %d%s", WTERMSIG(status),
                    WTERMSIG(status) == SIGALRM ? ": it hung" : "");
    else if ((size_t) WEXITSTATUS(status) >= sizeof verdicts / sizeof *verdicts)
        stress_fail(show->stress, "a child ended with status %d", WEXITSTATUS(status));
    else if (WEXITSTATUS(status) != GOOD)
        stress_fail(show->stress, "a child says: %s", verdicts[WEXITSTATUS(status)]);
}

static void check_parent(struct show *show)
{
    pp_error error = { .size = sizeof error };
    for (unsigned i = 0; i < STANDING; i++) {
        enum verdict verdict = check_slot(&show->standing[i], false);
        if (verdict != GOOD)
            stress_fail(show->stress, "in the parent: %s", verdicts[verdict]);
    }
    for (size_t i = 0; i < show->open_place.bytes; i++)
        if (((const uint8_t *) show->open_place.write)[i] != 0x77) {
            stress_fail(show->stress, "a child wrote into a span of the parent");
            break;
        }
    if (pp_pool_verify(show->pool, &error) != PP_OK)
        stress_fail(show->stress, "pool: %s", error.text);
}

static void fork_all(struct show *show, struct forks *forks)
{
    struct stress *stress = show->stress;
    uint64_t wanted = stress_fills_time(stress) ? UINT64_MAX : stress_iterations(stress, 600);
    while (forks->count < wanted && !stress_expired(stress) && stress_failures(stress) == 0) {
        unsigned together = random_below(&forks->random, 50) == 0 ? CROWD : TOGETHER;
        while (forks->alive < together && forks->count < wanted)
            fork_one(show, forks);
        end_one(show, forks);
        if (forks->count % 16 == 0)
            check_parent(show);
        stress_progress(stress, "fork", forks->count, wanted == UINT64_MAX ? 0 : wanted);
    }
    while (forks->alive > 0)
        end_one(show, forks);
    check_parent(show);
}

/* ---- the scenario ----------------------------------------------------------------------- */

/* There are emulators that do not. */
static bool can_forget_mappings(void)
{
    size_t size = (size_t) sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return false;
    bool forgets = false;
    if (madvise(page, size, MADV_DONTFORK) == 0) {
        int status = 0;
        unsigned char resident;
        pid_t pid = fork();
        if (pid == 0)
            _exit(mincore(page, size, &resident) != 0);
        forgets = pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
                  WEXITSTATUS(status) == 1;
    }
    munmap(page, size);
    return forgets;
}

static bool open_show(struct show *show)
{
    struct stress *stress = show->stress;
    pp_error error = { .size = sizeof error };
    pp_pool_options options = stress_pool_options(stress, &error);
    pp_pool_stats stats = { .size = sizeof stats };
    pp_span_desc desc = { .size = sizeof desc, .bytes = 256 };
    options.branch_range = 1;
    show->can_forget = can_forget_mappings();
    if (!show->can_forget)
        stress_note(stress, "children have all mappings here: the write view is not tried");
    if (pp_pool_create(&options, &show->pool) != PP_OK) {
        stress_fail(stress, "pool: %s", error.text);
        return false;
    }
    pp_status status = pp_pool_get_stats(show->pool, &stats);
    show->wx = stats.wx;
    show->symbol = pp_symbol_declare(show->pool, "same", (const void *) same,
                                     PP_SYMBOL_RETARGETABLE);
    for (unsigned i = 0; i < STANDING && status == PP_OK; i++)
        status = i % 2 == 0 ? make_span(show->pool, &show->standing[i], 40 + i, (int32_t) i)
                            : make_trace(show->pool, show->symbol, &show->standing[i], i,
                                         (int32_t) i);
    show->open_place.size = sizeof show->open_place;
    if (status == PP_OK)
        status = pp_span_alloc(show->pool, &desc, &show->open, &show->open_place);
    if (status == PP_OK)
        memset(show->open_place.write, 0x77, show->open_place.bytes);
    else
        stress_fail(stress, "make: %s", pp_strerror(status));
    return status == PP_OK;
}

/* Nothing is kept for children that have ended. */
static void check_end(struct show *show)
{
    pp_pool *pool = show->pool;
    pp_pool_stats stats = { .size = sizeof stats };
    pp_error error = { .size = sizeof error };
    for (unsigned n = 0; n < show->count; n++)
        for (unsigned i = 0; i < CHURNING; i++) {
            struct slot *slot = &show->churners[n].slots[i];
            if (slot->span != NULL && pp_span_free(pool, slot->span) != PP_OK)
                stress_fail(show->stress, "a span cannot be freed");
            if (slot->trace != NULL && pp_trace_free(pool, slot->trace) != PP_OK)
                stress_fail(show->stress, "a trace cannot be freed");
        }
    if (pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL) != PP_OK ||
        pp_pool_get_stats(pool, &stats) != PP_OK || pp_pool_verify(pool, &error) != PP_OK)
        stress_fail(show->stress, "at the end: %s", error.text);
    if (stats.spans != STANDING + 1 || stats.retired_spans != 0 || stats.traces != STANDING / 2)
        stress_fail(show->stress, "at the end %zu spans are left, %zu of them retired, %zu traces",
                    stats.spans, stats.retired_spans, stats.traces);
}

static void report(struct show *show, const struct forks *forks, double seconds)
{
    uint64_t operations = 0, busy = 0;
    struct stress_table *table =
        stress_table(show->stress, "forks in a storm", 1, (const char *const[]) { "" });
    for (unsigned i = 0; i < show->count; i++) {
        operations += show->churners[i].operations;
        busy += show->churners[i].busy;
    }
    stress_value(table, "threads", "", show->count);
    stress_value(table, "forks", "", (double) forks->count);
    stress_value(table, "forks / second", "", (double) forks->count / seconds);
    stress_value(table, "operations of the threads", "", (double) operations);
    stress_value(table, "  / second", "", (double) operations / seconds);
    stress_value(table, "spans not opened because of children", "", (double) busy);
}

static void run(struct stress *stress)
{
    struct show *show = calloc(1, sizeof *show);
    struct churner *churners = calloc(THREADS_MAX, sizeof *churners);
    struct forks forks = { .random = stress_random(stress, 0) };
    if (show == NULL || churners == NULL) {
        stress_fail(stress, "no memory");
    } else {
        show->stress = stress;
        show->churners = churners;
    }
    if (show != NULL && churners != NULL && open_show(show)) {
        unsigned wanted = stress_threads(stress, 3);
        fflush(NULL);
        for (; show->count < wanted && show->count < THREADS_MAX; show->count++) {
            struct churner *churner = &churners[show->count];
            churner->show = show;
            churner->random = stress_random(stress, 1 + show->count);
            if (pthread_create(&churner->thread, NULL, be_churner, churner) != 0)
                break;
        }
        uint64_t begin = stress_clock();
        fork_all(show, &forks);
        double seconds = (double) (stress_clock() - begin) / 1e9;
        atomic_store(&show->over, true);
        for (unsigned i = 0; i < show->count; i++)
            pthread_join(churners[i].thread, NULL);
        check_end(show);
        report(show, &forks, seconds);
    }
    if (show != NULL)
        pp_pool_destroy(show->pool);
    free(churners);
    free(show);
}

const struct scenario scenario_fork = {
    .name = "fork",
    .summary = "threads allocate and retire while one forks; children check and write",
    .run = run,
    .seconds = 5,
};
