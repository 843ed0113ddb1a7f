/* SPDX-License-Identifier: MIT */
/* Operations on pools, sites and processes, to be swept. */
#include <config.h>

#include "sweep.h"

#include <check.h>
#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- helpers ---------------------------------------------------------- */

static void nothing(struct world *world)
{
    (void) world;
}

static void link_one(struct world *world)
{
    ck_assert_uint_lt(world->count, WORLD_TRACES);
    ck_assert_msg(pp_trace_link(world->pool, &world->desc, &world->traces[world->count]) == PP_OK,
                  "%s", world->error.text);
    world->count++;
}

static void prepare_trace(struct world *world)
{
    sweep_define(world, 2);
    sweep_write_calls(world, 2);
    link_one(world);
}

/* ---- creating and destroying -------------------------------------------- */

static void check_pool(struct world *world)
{
    pp_pool_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_pool_get_stats(world->pool, &stats), PP_OK);
    ck_assert_uint_eq(stats.spans, 0);
    ck_assert(world->wx == PP_WX_AUTO ? stats.wx != PP_WX_RWX : stats.wx == world->wx);
    prepare_trace(world);
    sweep_run_traces(world, 2);
}

static pp_status run_destroy(struct world *world)
{
    pp_pool_destroy(world->pool);
    world->pool = NULL;
    return PP_OK;
}

static void prepare_destroy(struct world *world)
{
    pp_reservation reservation = { .size = sizeof reservation };
    ck_assert_int_eq(sweep_create_pool(world), PP_OK);
    prepare_trace(world);
    link_one(world);
    ck_assert_int_eq(pp_trace_reserve(world->pool, 5000, NULL, &reservation, NULL), PP_OK);
}

/* ---- looking ---------------------------------------------------------- */

static pp_status run_get_stats(struct world *world)
{
    pp_pool_stats stats = { .size = sizeof stats };
    pp_status status = pp_pool_get_stats(world->pool, &stats);
    ck_assert(status != PP_OK || stats.spans == 1);
    return status;
}

static pp_status run_verify(struct world *world)
{
    return pp_pool_verify(world->pool, &world->error);
}

/* ---- sites and entries -------------------------------------------------- */

#if defined __x86_64__
#define SAVED (1ull << 3) /* rbx */
#else
#define SAVED (1ull << 19)
#endif

static const pp_tier0_layout frame = {
    .size = sizeof frame, .frame_bytes = 128,
    .saves = { .slots = SAVED, .saved = SAVED, .offset = -64 },
};

static pp_status never(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site, (void) regs, (void) entry;
    return PP_E_FAULT;
}

enum { SITES = WORLD_SITES };

static pp_status run_sites(struct world *world)
{
    const pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_COUNTED, .threshold = 1,
                                .counter_offset = -8, .tier0 = &frame, .produce = never,
                                .error = &world->error };
    while (world->made < SITES) {
        pp_site *site = NULL;
        pp_status status = pp_site_create(world->pool, &desc, &site);
        ck_assert((status == PP_OK) == (site != NULL));
        if (status != PP_OK)
            return status;
        ck_assert_int_eq(pp_site_state(site), PP_SITE_IDLE);
        world->sites[world->made++] = site;
    }
    return PP_OK;
}

static void refused_sites(struct world *world)
{
    while (world->made > 0)
        ck_assert_int_eq(pp_site_destroy(world->pool, world->sites[--world->made]), PP_OK);
}

static void check_sites(struct world *world)
{
    ck_assert_uint_eq(world->made, SITES);
    refused_sites(world);
}

static pp_status run_entries(struct world *world)
{
    const pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .tier0 = &frame,
                                 .code = pp_trace_entry(world->traces[0]), .used = SAVED,
                                 .error = &world->error };
    while (world->made < SITES) {
        pp_entry *entry = NULL;
        pp_status status = pp_entry_create(world->pool, &desc, &entry);
        ck_assert((status == PP_OK) == (entry != NULL));
        if (status != PP_OK)
            return status;
        world->entries[world->made++] = entry;
    }
    return PP_OK;
}

/* A failed one holds the trace no more, the others do. */
static void refused_entries(struct world *world)
{
    if (world->made > 0)
        ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_E_BUSY);
    while (world->made > 0)
        ck_assert_int_eq(pp_entry_destroy(world->pool, world->entries[--world->made]), PP_OK);
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_OK);
    world->count = 0;
    link_one(world);
}

static void check_entries(struct world *world)
{
    ck_assert_uint_eq(world->made, SITES);
    refused_entries(world);
}

static void prepare_publish(struct world *world)
{
    prepare_trace(world);
    world->made = SITES - 1;
    ck_assert_int_eq(run_sites(world), PP_OK);
    world->made = SITES - 1;
    ck_assert_int_eq(run_entries(world), PP_OK);
}

static pp_status run_publish(struct world *world)
{
    return pp_site_publish(world->sites[SITES - 1], world->entries[SITES - 1]);
}

static void check_publish(struct world *world)
{
    ck_assert_int_eq(pp_site_state(world->sites[SITES - 1]), PP_SITE_READY);
    ck_assert_ptr_eq(pp_site_entry(world->sites[SITES - 1]), world->entries[SITES - 1]);
}

/* ---- processes ---------------------------------------------------------- */

/* In the child of a fork under the script: what it inherited runs, what it links is its own. */
static int live_as_child(struct world *world)
{
    pp_trace *trace;
    uint64_t before[PP_FAULT_CALLS]; /* the parent counts these */
    for (int i = 0; i < PP_FAULT_CALLS; i++)
        before[i] = pp_fault_hit((pp_fault_call) i);
    sweep_calls();
    for (unsigned i = 0; i < world->count; i++)
        ((void (*)(void)) pp_trace_entry(world->traces[i]))();
    if (sweep_calls() != 2 * world->count)
        return 1;
    pp_status status = pp_trace_link(world->pool, &world->desc, &trace);
    for (int i = 0; i < PP_FAULT_CALLS; i++)
        world->child_hits[i] = pp_fault_hit((pp_fault_call) i) - before[i];
    if (pp_fault_set(NULL, 0) != PP_OK)
        return 2;
    if (status != PP_OK && pp_trace_link(world->pool, &world->desc, &trace) != PP_OK)
        return 3;
    if (pp_pool_verify(world->pool, NULL) != PP_OK)
        return 4;
    ((void (*)(void)) pp_trace_entry(trace))();
    if (sweep_calls() != 2)
        return 5;
    pp_pool_destroy(world->pool);
    return 0;
}

static pp_status run_fork(struct world *world)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        _exit(live_as_child(world));
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %#x",
                  (unsigned) status);
    return PP_OK;
}

/* The parent frees and links as before. */
static void check_forked(struct world *world)
{
    sweep_run_traces(world, 2);
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_OK);
    world->count = 0;
    link_one(world);
    sweep_run_traces(world, 2);
}

static void prepare_child(struct world *world)
{
    int pipes[2];
    char byte;
    prepare_trace(world);
    link_one(world);
    ck_assert_int_eq(pipe(pipes), 0);
    world->child = fork();
    ck_assert_int_ge(world->child, 0);
    if (world->child == 0) {
        close(pipes[1]);
        _exit(read(pipes[0], &byte, 1) != 0);
    }
    close(pipes[0]);
    world->child_pipe = pipes[1];
}

static void end_child(struct world *world)
{
    if (world->child < 0)
        return;
    close(world->child_pipe);
    ck_assert_int_eq(waitpid(world->child, NULL, 0), world->child);
    world->child = -1;
}

static pp_status run_free(struct world *world)
{
    return pp_trace_free(world->pool, world->traces[0]);
}

/* The span waits for the child, and is used again when that has ended. */
static void check_deferred(struct world *world)
{
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_E_STALE);
    world->traces[0] = world->traces[1];
    world->count = 1;
    end_child(world);
    link_one(world);
    sweep_run_traces(world, 2);
}

/* Freed while the child lived; the child has ended; the next link clears it. */
static void prepare_settle(struct world *world)
{
    prepare_child(world);
    ck_assert_int_eq(pp_trace_free(world->pool, world->traces[0]), PP_OK);
    world->traces[0] = world->traces[1];
    world->count = 1;
    end_child(world);
}

static pp_status run_link(struct world *world)
{
    pp_trace *trace = NULL;
    pp_status status = pp_trace_link(world->pool, &world->desc, &trace);
    ck_assert((status == PP_OK) == (trace != NULL));
    if (status == PP_OK)
        world->traces[world->count++] = trace;
    return status;
}

static void check_settled(struct world *world)
{
    sweep_run_traces(world, 2);
}

const struct operation sweep_pool_operations[] = {
    { "pool: create", CALL(MMAP) | CALL(METADATA) | CALL(OPEN), MEMFD_CALLS,
      CALL(MPROTECT) | CALL(MADVISE), nothing, sweep_create_pool, check_pool, NULL, NULL,
      .no_pool = true, .far = true },
    { "pool: destroy", 0, 0, 0, prepare_destroy, run_destroy, nothing, NULL, NULL,
      .no_pool = true, .far = true },
    { "pool: get_stats", 0, 0, 0, prepare_trace, run_get_stats, nothing, NULL, NULL,
      .silent = true },
    { "pool: verify", 0, 0, 0, prepare_trace, run_verify, nothing, NULL, NULL },
    { "site: create", CALL(METADATA), 0, 0, nothing, run_sites, check_sites,
      refused_sites, NULL, .modeless = true },
    { "entry: create", CALL(METADATA), 0, 0, prepare_trace, run_entries, check_entries,
      refused_entries, NULL, .modeless = true },
    { "site: publish", 0, 0, 0, prepare_publish, run_publish, check_publish, NULL, NULL,
      .silent = true, .modeless = true },
    { "fork", CALL(METADATA) | CALL(MMAP), MEMFD_CALLS, CALL(MPROTECT),
      prepare_trace, run_fork, check_forked, NULL, NULL, .far = true,
      .changes_errno = true },
    { "trace: free with a child", 0, CALL(METADATA), 0, prepare_child, run_free, check_deferred,
      NULL, end_child, .silent = true },
    { "trace: link behind a child", 0, 0, CALL(MPROTECT), prepare_settle, run_link,
      check_settled, NULL, NULL, .far = true },
    { NULL }
};
