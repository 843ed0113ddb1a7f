/* SPDX-License-Identifier: MIT */
/* Sweeps: see sweep.h.  A test is one operation in one mode, in a process of its own. */
#include <config.h>

#include "sweep.h"

#include "memory/claim.h"
#include "memory/meta.h"
#include "memory/state.h"
#include "sanitized.h"

#include <check.h>
#include <dlfcn.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define REGION_BYTES ((size_t) 2 << 20)
enum {
    SWEEP_END = 2000,   /* no operation has as many requests */
    REFUSALS = 12,      /* until repeated refusals have filled all caches */
    ATTEMPTS = 4        /* an allocator or the C library may map something on its own */
};

/* ---- what calls reach --------------------------------------------------- */

static _Atomic unsigned calls;

static void reached(void)
{
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
}

#define TARGET(n) __attribute__((noinline)) static void target_##n(void) \
    { __asm__ volatile("" : : "i"(n)); reached(); }
TARGET(0) TARGET(1) TARGET(2) TARGET(3) TARGET(4) TARGET(5) TARGET(6) TARGET(7)
static void (*const targets[])(void) = {
    target_0, target_1, target_2, target_3, target_4, target_5, target_6, target_7,
};

unsigned sweep_calls(void)
{
    return atomic_exchange_explicit(&calls, 0, memory_order_relaxed);
}

void sweep_define(struct world *world, unsigned count)
{
    char name[32];
    ck_assert_uint_le(count, WORLD_SYMBOLS);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "target_%u", i);
        world->symbols[i] = pp_symbol_define(world->pool, name,
                                             (void *) targets[i % (sizeof targets / sizeof *targets)]);
        ck_assert_uint_ne(world->symbols[i], PP_SYMBOL_NONE);
    }
}

void sweep_write_calls(struct world *world, unsigned count)
{
    snippet_begin(&world->code);
    for (unsigned i = 0; i < count; i++)
        snippet_call(&world->code, world->symbols[i]);
    snippet_end(&world->code);
    world->desc = snippet_desc(&world->code);
    world->desc.error = &world->error;
}

void sweep_run_traces(struct world *world, unsigned count)
{
    ck_assert_uint_gt(world->count, 0);
    sweep_calls();
    for (unsigned i = 0; i < world->count; i++) {
        void (*entry)(void) = (void (*)(void)) pp_trace_entry(world->traces[i]);
        ck_assert_ptr_nonnull((void *) entry);
        entry();
        ck_assert_uint_eq(sweep_calls(), count);
    }
}

/* ---- what there is ------------------------------------------------------ */

struct census {
    pp_pool_stats stats;
    size_t mappings, bytes, descriptors;
    size_t published; /* number of regions that lookups find */
    size_t claims; /* bytes of addresses that have a rule for good */
};

/* Mappings of the process, but for heap and stack, which grow as they like. */
static void count_mappings(struct census *census)
{
    static char text[1 << 20];
    size_t fill = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    for (ssize_t got; (got = read(fd, text + fill, sizeof text - 1 - fill)) > 0;)
        fill += (size_t) got;
    close(fd);
    text[fill] = '\0';
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char *end;
        size_t lo = strtoull(line, &end, 16), hi = strtoull(end + 1, NULL, 16);
        if (strstr(line, "[heap]") != NULL || strstr(line, "[stack]") != NULL)
            continue;
        census->mappings++;
        census->bytes += hi - lo;
    }
}

static void count_descriptors(struct census *census)
{
    DIR *dir = opendir("/proc/self/fd");
    ck_assert_ptr_nonnull(dir);
    while (readdir(dir) != NULL)
        census->descriptors++;
    closedir(dir);
}

static struct census take_census(pp_pool *pool)
{
    struct census census = { .stats = { .size = sizeof census.stats } };
    if (pool != NULL) {
        ck_assert_int_eq(pp_pool_get_stats(pool, &census.stats), PP_OK);
        for (const struct region *region = atomic_load(&pool->regions); region != NULL;
             region = region->next)
            census.published++;
    }
    census.claims = claim_total();
    count_mappings(&census);
    count_descriptors(&census);
    return census;
}

/* What a refused operation leaves as it was. */
static const struct { const char *name; size_t offset; } kept[] = {
#define KEPT(field) { #field, offsetof(pp_pool_stats, field) }
    KEPT(requested), KEPT(used), KEPT(spans), KEPT(traces), KEPT(trampolines),
    KEPT(trampoline_bytes), KEPT(literals), KEPT(literal_bytes), KEPT(retired_spans),
    KEPT(retired), KEPT(inherited_spans), KEPT(shared_trampolines), KEPT(trampoline_uses),
    KEPT(trampoline_saved), KEPT(retargets),
#undef KEPT
};

static void assert_kept(const struct census *was_taken, const struct census *is_taken)
{
    const pp_pool_stats *before = &was_taken->stats, *after = &is_taken->stats;
    ck_assert_uint_ge(after->regions, before->regions);
    ck_assert_uint_ge(after->reserved, before->reserved);
    if (is_taken->published == was_taken->published)
        ck_assert_uint_eq(is_taken->claims, was_taken->claims);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        size_t was = *(const size_t *) ((const char *) before + kept[i].offset);
        size_t is = *(const size_t *) ((const char *) after + kept[i].offset);
        ck_assert_msg(was == is, "%s: %zu before, %zu after it was refused", kept[i].name, was, is);
    }
}

/* What may grow at first, because it is kept for the next time: regions, bookkeeping. */
static bool has_grown(const struct census *before, const struct census *after)
{
    return after->stats.metadata > before->stats.metadata ||
           after->stats.regions > before->stats.regions ||
           after->stats.reserved > before->stats.reserved ||
           after->mappings > before->mappings || after->bytes > before->bytes ||
           after->descriptors > before->descriptors;
}

/* ---- one fault ---------------------------------------------------------- */

static void assert_verified(struct world *world)
{
    pp_error broken = { .size = sizeof broken };
    if (world->pool != NULL)
        ck_assert_msg(pp_pool_verify(world->pool, &broken) == PP_OK, "%s", broken.text);
}

pp_status sweep_create_pool(struct world *world)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) reached },
                                .region_bytes = REGION_BYTES, .wx = world->wx,
                                .branch_range = world->operation->far ? 1 : 0,
                                .unwinders = PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND,
                                .error = &world->error };
    pp_pool *const untouched = world->pool;
    pp_status status = pp_pool_create(&options, &world->pool);
    ck_assert(status == PP_OK || world->pool == untouched);
    return status;
}

static void open_world(struct world *world, const struct operation *operation, pp_wx wx)
{
    memset(world, 0, sizeof *world);
    world->operation = operation;
    world->wx = wx;
    world->child = -1;
    world->error.size = sizeof world->error;
    if (!operation->no_pool)
        ck_assert_msg(sweep_create_pool(world) == PP_OK, "%s", world->error.text);
    operation->prepare(world);
}

static void close_world(struct world *world)
{
    if (world->operation->finish != NULL)
        world->operation->finish(world);
    assert_verified(world);
    pp_pool_destroy(world->pool);
    snippet_free(&world->code);
}

/* Run it once.  The script stays; hits[] receives what it met. */
static pp_status run(struct world *world, const pp_fault *fault, uint64_t *hits)
{
    memset(&world->error, 0, sizeof world->error);
    world->error.size = sizeof world->error;
    memset(world->child_hits, 0, PP_FAULT_CALLS * sizeof *world->child_hits);
    ck_assert_int_eq(pp_fault_set(fault, fault != NULL), PP_OK);
    errno = 77;
    pp_status status = world->operation->run(world);
    ck_assert_msg(errno == 77 || world->operation->changes_errno, "errno became %d", errno);
    for (int i = 0; i < PP_FAULT_CALLS; i++)
        hits[i] = pp_fault_hit((pp_fault_call) i) + world->child_hits[i];
    ck_assert_int_eq(pp_fault_set(NULL, 0), PP_OK);
    assert_verified(world);
    if (status == PP_OK) {
        ck_assert_str_eq(world->error.text, "");
        return status;
    }
    ck_assert_msg(status == PP_E_NOMEM || status == PP_E_SYSTEM, "status %s",
                  pp_strerror(status));
    ck_assert(world->operation->silent || world->error.status == status);
    ck_assert(world->operation->silent || world->error.text[0] != '\0');
    if (world->operation->refused != NULL)
        world->operation->refused(world);
    return status;
}

/* It was refused: again, until it is plain that nothing accumulates. */
static pp_status repeat(struct world *world, const pp_fault *fault, const struct census *before)
{
    uint64_t hits[PP_FAULT_CALLS];
    struct census last = take_census(world->pool);
    for (unsigned i = 0; i < REFUSALS;) {
        size_t made = world->made;
        if (world->pool != NULL && !world->operation->gradual)
            assert_kept(before, &last);
        if (run(world, fault, hits) == PP_OK)
            return PP_OK;
        i = made == world->made ? i + 1 : 0; /* it came a step farther, which is no leak */
        struct census now = take_census(world->pool);
        if (world->operation->gradual && made == world->made)
            assert_kept(&last, &now);
        if (!has_grown(&last, &now))
            return run(world, NULL, hits);
        last = now;
    }
    ck_abort_msg("each refusal leaves more behind: metadata %zu, regions %u, mappings %zu, "
                 "descriptors %zu", last.stats.metadata, last.stats.regions, last.mappings,
                 last.descriptors);
    return PP_E_FAULT;
}

/* The operation under one fault, from a new pool to its end.  False: something is left. */
static bool run_once(const struct operation *operation, pp_wx wx, const pp_fault *fault,
                     uint64_t *hits)
{
    static struct world world;
    static uint64_t *child_hits;
    if (child_hits == NULL)
        child_hits = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct census base = take_census(NULL);
    open_world(&world, operation, wx);
    world.child_hits = child_hits;
    struct census before = take_census(world.pool);
    pp_status status = run(&world, fault, hits);
    if (status != PP_OK)
        status = repeat(&world, fault, &before);
    ck_assert_msg(status == PP_OK, "without faults: %s", world.error.text);
    operation->check(&world);
    close_world(&world);
    struct census after = take_census(NULL);
    ck_assert_msg(meta_lost() == 0, "%zu bytes of bookkeeping are lost", meta_lost());
    return !has_grown(&base, &after) || SANITIZED;
}

/*
 * The same in a process of its own: what the library makes once per process and keeps
 * (a part of the code map, a node for unwinders) is made under the fault.
 */
static bool run_apart(const struct operation *operation, pp_wx wx, const pp_fault *fault,
                      uint64_t *hits)
{
    static uint64_t *shared;
    int status;
    if (shared == NULL)
        shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        (void) run_once(operation, wx, fault, shared);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the process ended with %#x",
                  (unsigned) status);
    memcpy(hits, shared, PP_FAULT_CALLS * sizeof *hits);
    return true;
}

/* ---- all faults ----------------------------------------------------------- */

struct sums {
    uint64_t hits[PP_FAULT_CALLS];
    unsigned runs;
};

static void describe(const pp_fault *fault, char *text, size_t size)
{
    snprintf(text, size, "%s:%llu%s", pp_fault_name(fault->call),
             (unsigned long long) fault->first, fault->count == 0 ? "+*" : "");
}

static char *current; /* what the process was doing, for the parent to print if it dies */

static void sweep_call(const struct operation *operation, pp_wx wx, pp_fault_call call,
                       uint64_t count, struct sums *sums)
{
    for (uint64_t n = 1;; n++) {
        pp_fault fault = { call, 0, n, count };
        uint64_t hits[PP_FAULT_CALLS], hit = 0;
        bool clean = false;
        describe(&fault, current, SWEEP_TEXT);
        ck_assert_uint_lt(n, SWEEP_END);
        for (unsigned i = 0; i < ATTEMPTS && !clean; i++)
            clean = (operation->fresh ? run_apart : run_once)(operation, wx, &fault, hits);
        ck_assert_msg(clean, "mappings or descriptors are left behind");
        for (int i = 0; i < PP_FAULT_CALLS; i++) {
            sums->hits[i] += hits[i];
            hit += hits[i];
        }
        sums->runs++;
        if (hit == 0)
            return;
    }
}

static unsigned missing_calls(const struct operation *operation, pp_wx wx, const struct sums *sums)
{
    unsigned must = operation->always;
    if (wx == PP_WX_DUAL || wx == PP_WX_REMAP)
        must |= operation->memfd;
    if (wx == PP_WX_DUAL || wx == PP_WX_RWX)
        must |= operation->in_place;
    if (wx == PP_WX_FLIP)
        must |= operation->flip;
    for (int i = 0; i < PP_FAULT_CALLS; i++)
        if (sums->hits[i] != 0)
            must &= ~(1u << i);
    /* Memory for a file's pages comes by either of the two: where one is ignored, by the other. */
    if (sums->hits[PP_FAULT_MADVISE] != 0 || sums->hits[PP_FAULT_FALLOCATE] != 0)
        must &= ~(CALL(MADVISE) | CALL(FALLOCATE));
    return must;
}

void sweep(const struct operation *operation, pp_wx wx, char *where)
{
    static const char *const modes[] = { "auto", "dual", "remap", "flip", "rwx" };
    struct sums sums = { { 0 }, 0 };
    uint64_t hits[PP_FAULT_CALLS], total = 0;
    char line[256];
    current = where;
    snprintf(current, SWEEP_TEXT, "no fault");
    if (!operation->fresh)
        run_once(operation, wx, NULL, hits); /* what is made once per process */
    for (int call = 0; call < PP_FAULT_CALLS; call++) {
        sweep_call(operation, wx, (pp_fault_call) call, 1, &sums);
        sweep_call(operation, wx, (pp_fault_call) call, 0, &sums);
    }
    sweep_call(operation, wx, PP_FAULT_ANY, 0, &sums);
    int length = 0;
    for (int i = 0; i < PP_FAULT_CALLS; i++) {
        total += sums.hits[i];
        if (sums.hits[i] != 0)
            length += snprintf(line + length, sizeof line - (size_t) length, "  %s %llu",
                               pp_fault_name((pp_fault_call) i),
                               (unsigned long long) sums.hits[i]);
    }
    line[length] = '\0';
    printf("%-28s %-5s %5u runs %6llu faults%s\n", operation->name, modes[wx], sums.runs,
           (unsigned long long) total, line);
    fflush(stdout);
    unsigned missing = missing_calls(operation, wx, &sums);
    for (int i = 0; i < PP_FAULT_CALLS; i++)
        ck_assert_msg((missing >> i & 1) == 0, "%s was never made to fail",
                      pp_fault_name((pp_fault_call) i));
}
