/* SPDX-License-Identifier: MIT */
/*
 * Sites that change their entries, from any state, while a producer runs, a job is out, or
 * threads pass; and what becomes of entries that sites give up.
 */
#include <config.h>

#include "loop.h"

#include <patchpoint/retire.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static pp_pool *pool;
static pp_thread thread;
static pp_site *site;
static struct loop loop;
static pp_trace *bodies[2];
static pp_entry *entries[2];

/* What the producer is to do, and what came of it. */
static struct {
    unsigned calls, rejected;
    pp_status answer, why;
    pp_status (*act)(pp_site *site);
    pp_status acted;
    pp_entry *entry, *latest;
} job;

static pp_status produce(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) regs;
    job.calls++;
    if (job.act != NULL)
        job.acted = job.act(of);
    *entry = job.entry;
    return job.answer;
}

static void on_rejected(void *host, pp_site *of, pp_entry *entry, pp_status why)
{
    ck_assert_ptr_eq(host, &job);
    ck_assert_ptr_eq(of, site);
    job.rejected++;
    job.latest = entry;
    job.why = why;
}

/* Four passes trigger it. */
static const pp_site_desc counted = {
    .size = sizeof counted, .kind = PP_SITE_COUNTED, .counter = PP_COUNTER_SITE, .threshold = 4,
    .tier0 = &loop_frame, .produce = produce, .rejected = on_rejected, .host = &job,
};

static void open_site(const pp_site_desc *desc)
{
    ck_assert_int_eq(pp_site_create(pool, desc, &site), PP_OK);
    loop_link(&loop, pool, site, 4, desc->kind != PP_SITE_FORCED);
}

static void setup(void)
{
    memset(&job, 0, sizeof job);
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(loop_body(pool, &bodies[i], &entries[i]), PP_OK);
    job.entry = entries[0];
}

static void teardown(void)
{
    pp_error error = { .size = sizeof error };
    ck_assert_msg(pp_pool_verify(pool, &error) == PP_OK, "%s", error.text);
    pp_pool_destroy(pool);
}

/* Whether n passes end in a body. */
static bool moves(uint64_t n)
{
    uint64_t sum = n * (n + 1) / 2;
    uint64_t result = pp_enter(&thread, pp_trace_entry(loop.trace), n, (uintptr_t) &thread, 0, 0);
    ck_assert(result == sum || result == sum + 2000000 || result == 1000000);
    return result == sum + 2000000;
}

static pp_site_stats stats(void)
{
    pp_site_stats result = { .size = sizeof result };
    ck_assert_int_eq(pp_site_get_stats(site, &result), PP_OK);
    return result;
}

/* ---- every state ----------------------------------------------------------------- */

/* Bring a new site to a state. */
static void bring_to(int state)
{
    pp_site_desc desc = counted;
    pp_policy once = { .size = sizeof once };
    job.act = NULL;
    job.answer = PP_OK;
    open_site(&desc);
    ck_assert_int_eq(pp_site_set_policy(site, &once), PP_OK);
    switch (state) {
    case PP_SITE_IDLE:
        ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
        break;
    case PP_SITE_READY:
        ck_assert(moves(4));
        break;
    case PP_SITE_FAILED:
        job.answer = PP_E_RANGE;
        ck_assert(!moves(4));
        break;
    case PP_SITE_DISABLED:
        ck_assert_int_eq(pp_site_disable(site), PP_OK);
        ck_assert(!moves(100));
        break;
    case PP_SITE_PENDING:
        job.act = pp_site_defer;
        ck_assert(!moves(4));
        break;
    default:
        break;
    }
    ck_assert_int_eq(pp_site_state(site), state);
    job.act = NULL;
    job.answer = PP_OK;
    job.calls = 0;
}

static const int states[] = { PP_SITE_IDLE, PP_SITE_COUNTING, PP_SITE_READY, PP_SITE_FAILED,
                              PP_SITE_DISABLED, PP_SITE_PENDING };
enum { STATES = sizeof states / sizeof states[0] };

START_TEST(any_state_counts_again)
{
    const int state = states[_i];
    pp_entry *old = entries[1];
    bring_to(state);
    ck_assert_int_eq(pp_site_replace(site, NULL, &old), PP_OK);
    ck_assert_ptr_eq(old, state == PP_SITE_READY ? entries[0] : NULL);
    ck_assert_ptr_null(pp_site_entry(site));
    ck_assert_int_eq(pp_site_state(site), state == PP_SITE_IDLE ? PP_SITE_IDLE : PP_SITE_COUNTING);
    ck_assert_uint_eq(stats().hits, 0);
    ck_assert_uint_eq(stats().failures, 0);
    ck_assert_uint_eq(stats().backoff, 0);
    if (state == PP_SITE_IDLE)
        return;
    if (state == PP_SITE_PENDING) { /* the job is still out: no pass asks for another */
        ck_assert(!moves(100));
        ck_assert_uint_eq(job.calls, 0);
        ck_assert_int_eq(pp_site_publish(site, entries[1]), PP_E_STALE);
        ck_assert_int_eq(pp_site_state(site), PP_SITE_COUNTING);
    }
    ck_assert(!moves(3) || state == PP_SITE_PENDING);
    ck_assert(moves(100));
    ck_assert_uint_eq(job.calls, 1);
    ck_assert_ptr_eq(pp_site_entry(site), entries[0]);
}
END_TEST

START_TEST(any_state_takes_another_entry)
{
    const int state = states[_i];
    pp_entry *old = NULL;
    bring_to(state);
    ck_assert_int_eq(pp_site_replace(site, entries[1], &old), PP_OK);
    ck_assert_ptr_eq(old, state == PP_SITE_READY ? entries[0] : NULL);
    ck_assert_ptr_eq(pp_site_entry(site), entries[1]);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_READY);
    if (state == PP_SITE_PENDING) {
        ck_assert_int_eq(pp_site_fail(site, PP_E_RANGE), PP_E_STALE);
        ck_assert_int_eq(pp_site_fail(site, PP_E_RANGE), PP_E_BUSY);
        ck_assert_ptr_eq(pp_site_entry(site), entries[1]);
    }
    ck_assert(state == PP_SITE_IDLE || moves(100));
    ck_assert_uint_eq(job.calls, 0);
    ck_assert_int_eq(pp_entry_destroy(pool, entries[1]), PP_E_BUSY);
    ck_assert_int_eq(pp_entry_destroy(pool, entries[0]), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, bodies[0]), PP_OK);
}
END_TEST

START_TEST(any_state_is_disabled_for_good)
{
    const int state = states[_i];
    pp_entry *old = entries[1];
    bring_to(state);
    ck_assert_int_eq(pp_site_withdraw(site, &old), PP_OK);
    ck_assert_ptr_eq(old, state == PP_SITE_READY ? entries[0] : NULL);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_DISABLED);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pp_site_publish(site, entries[1]), PP_E_STALE);
    ck_assert_int_eq(pp_site_fail(site, PP_E_RANGE), PP_E_STALE);
    ck_assert(state == PP_SITE_IDLE || !moves(100));
    ck_assert_uint_eq(job.calls, 0);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pp_entry_destroy(pool, entries[i]), PP_OK);
}
END_TEST

START_TEST(refused_replacements_change_nothing)
{
    pp_pool *strange;
    pp_trace *trace;
    pp_entry *foreign, *old = entries[1], *misfit;
    pp_tier0_layout layout = loop_frame;
    ck_assert_int_eq(pp_pool_create(NULL, &strange), PP_OK);
    ck_assert_int_eq(loop_body(strange, &trace, &foreign), PP_OK);
    layout.frame_bytes += 16;
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(bodies[1]), .tier0 = &layout };
    ck_assert_int_eq(pp_entry_create(pool, &desc, &misfit), PP_OK);
    bring_to(PP_SITE_READY);
    ck_assert_int_eq(pp_site_replace(NULL, entries[1], &old), PP_E_ARG);
    ck_assert_int_eq(pp_site_replace(site, foreign, &old), PP_E_FAULT);
    ck_assert_int_eq(pp_site_replace(site, misfit, &old), PP_E_ABI);
    ck_assert_int_eq(pp_entry_destroy(pool, misfit), PP_OK);
    ck_assert_int_eq(pp_site_replace(site, misfit, &old), PP_E_STALE);
    ck_assert_ptr_eq(old, entries[1]);
    ck_assert_ptr_eq(pp_site_entry(site), entries[0]);
    ck_assert(moves(100));
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_site_replace(site, entries[1], &old), PP_E_STALE);
    ck_assert_int_eq(pp_site_withdraw(site, &old), PP_E_STALE);
    pp_pool_destroy(strange);
}
END_TEST

START_TEST(forced_site_produces_again)
{
    pp_site_desc desc = counted;
    pp_entry *old;
    desc.kind = PP_SITE_FORCED;
    desc.counter = 0;
    desc.threshold = 0;
    job.answer = PP_E_RANGE;
    /* The place to go on at is in the loop that the site is in, so it is linked twice. */
    desc.otherwise = (const void *) pp_trace_entry(bodies[1]);
    open_site(&desc);
    pp_site *first = site;
    desc.otherwise = loop.out;
    open_site(&desc);
    ck_assert_int_eq(pp_site_destroy(pool, first), PP_OK);
    ck_assert(!moves(5));
    ck_assert_int_eq(pp_site_state(site), PP_SITE_FAILED);
    ck_assert_int_eq(pp_site_replace(site, NULL, NULL), PP_OK);
    job.answer = PP_OK;
    ck_assert(moves(5));
    ck_assert(moves(5));
    ck_assert_uint_eq(job.calls, 2);
    ck_assert_int_eq(pp_site_replace(site, NULL, &old), PP_OK);
    ck_assert_ptr_eq(old, entries[0]);
    ck_assert(moves(5));
    ck_assert_uint_eq(job.calls, 3);
}
END_TEST

static unsigned polls;

static const void *poll(void *host, pp_site *of, const pp_regs *regs)
{
    (void) host, (void) of, (void) regs;
    polls++;
    return NULL;
}

START_TEST(polled_site_calls_again)
{
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_POLLED, .counter = PP_COUNTER_SITE,
                          .tier0 = &loop_frame, .poll = poll };
    open_site(&desc);
    ck_assert_int_eq(pp_site_replace(site, entries[0], NULL), PP_E_ARG);
    ck_assert_int_eq(pp_site_disable(site), PP_OK);
    ck_assert_int_eq(pp_site_request(site), PP_E_STALE);
    ck_assert_int_eq(pp_site_replace(site, NULL, NULL), PP_OK);
    polls = 0;
    ck_assert_int_eq(pp_site_request(site), PP_OK);
    ck_assert(!moves(3));
    ck_assert_uint_eq(polls, 1);
}
END_TEST

/* ---- producers whose site is taken -------------------------------------------------- */

static pp_status replace_with_null(pp_site *of) { return pp_site_replace(of, NULL, NULL); }
static pp_status replace_with_other(pp_site *of) { return pp_site_replace(of, entries[1], NULL); }

static pp_status disable_and_count(pp_site *of)
{
    ck_assert_int_eq(pp_site_disable(of), PP_OK);
    ck_assert_int_eq(pp_site_publish(of, entries[1]), PP_E_STALE);
    return pp_site_replace(of, NULL, NULL);
}

static pp_status disable_and_publish(pp_site *of)
{
    ck_assert_int_eq(disable_and_count(of), PP_OK);
    ck_assert_int_eq(pp_site_destroy(pool, of), PP_E_BUSY);
    return pp_site_publish(of, entries[1]); /* by hand, before the producer is back */
}

static const struct {
    pp_status (*act)(pp_site *site);
    int state;
    bool other; /* led to entries[1] */
} taken[] = {
    { pp_site_disable, PP_SITE_DISABLED, false },
    { replace_with_null, PP_SITE_COUNTING, false },
    { replace_with_other, PP_SITE_READY, true },
    { disable_and_count, PP_SITE_COUNTING, false },
    { disable_and_publish, PP_SITE_READY, true },
};
enum { TAKEN = sizeof taken / sizeof taken[0] };

START_TEST(what_a_producer_brings_too_late_is_refused)
{
    const bool fails = _i >= TAKEN;
    const int i = _i % TAKEN;
    open_site(&counted);
    job.act = taken[i].act;
    job.answer = fails ? PP_E_RANGE : PP_OK;
    ck_assert(moves(4) == taken[i].other);
    ck_assert_uint_eq(job.calls, 1);
    ck_assert_int_eq(job.acted, PP_OK);
    ck_assert_int_eq(pp_site_state(site), taken[i].state);
    ck_assert_ptr_eq(pp_site_entry(site), taken[i].other ? entries[1] : NULL);
    ck_assert_uint_eq(job.rejected, !fails);
    if (!fails) {
        ck_assert_int_eq(job.why, PP_E_STALE);
        ck_assert_ptr_eq(job.latest, entries[0]);
    }
    ck_assert_uint_eq(stats().failures, 0);
    ck_assert_int_eq(pp_entry_destroy(pool, entries[0]), PP_OK); /* nobody has it */
    if (taken[i].state != PP_SITE_COUNTING)
        return;
    job.act = NULL;
    job.answer = PP_OK;
    job.entry = entries[1];
    ck_assert(moves(4));
    ck_assert_uint_eq(job.calls, 2);
}
END_TEST

START_TEST(entry_that_does_not_fit_is_given_back)
{
    pp_tier0_layout layout = loop_frame;
    layout.frame_bytes += 16;
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(bodies[0]), .tier0 = &layout };
    ck_assert_int_eq(pp_entry_create(pool, &desc, &job.entry), PP_OK);
    open_site(&counted);
    ck_assert(!moves(4));
    ck_assert_uint_eq(job.rejected, 1);
    ck_assert_int_eq(job.why, PP_E_ABI);
    ck_assert_ptr_eq(job.latest, job.entry);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_FAILED);
    ck_assert_int_eq(pp_entry_destroy(pool, job.entry), PP_OK);
}
END_TEST

/* ---- pp_site_defer is the producer's ------------------------------------------------- */

static void *defer(void *of)
{
    return (void *) (intptr_t) pp_site_defer(of);
}

static pp_status defer_elsewhere(pp_site *of)
{
    pthread_t stranger;
    void *status;
    ck_assert_int_eq(pthread_create(&stranger, NULL, defer, of), 0);
    ck_assert_int_eq(pthread_join(stranger, &status), 0);
    return (pp_status) (intptr_t) status;
}

START_TEST(strangers_cannot_defer)
{
    open_site(&counted);
    job.act = defer_elsewhere;
    ck_assert(moves(4));
    ck_assert_int_eq(job.acted, PP_E_BUSY);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_READY);
}
END_TEST

static pp_status defer_twice(pp_site *of)
{
    ck_assert_int_eq(pp_site_defer(of), PP_OK);
    ck_assert_int_eq(pp_site_publish(of, entries[1]), PP_OK); /* the other thread is quick */
    return pp_site_defer(of);
}

START_TEST(second_deferral_leaves_a_ready_site_alone)
{
    open_site(&counted);
    job.act = defer_twice;
    ck_assert(moves(4));
    ck_assert_int_eq(job.acted, PP_E_BUSY);
    ck_assert_ptr_eq(pp_site_entry(site), entries[1]);
    ck_assert_int_eq(pp_entry_destroy(pool, entries[0]), PP_OK);
}
END_TEST

/* ---- entries with code of their own ---------------------------------------------------- */

static size_t retired(void)
{
    pp_pool_stats all = { .size = sizeof all };
    ck_assert_int_eq(pp_pool_get_stats(pool, &all), PP_OK);
    return all.retired_spans;
}

/* An entry with an index, so with some instructions of its own. */
static pp_entry *indexed(pp_trace *body)
{
    pp_entry *entry;
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(body), .tier0 = &loop_frame,
                           .flags = PP_ENTRY_INDEX, .index = 7 };
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    return entry;
}

START_TEST(one_ticket_covers_entry_and_body)
{
    pp_entry *entry = indexed(bodies[0]), *old;
    pp_reclaim_result result = { .size = sizeof result };
    ck_assert_int_eq(pp_entry_destroy(pool, entries[0]), PP_OK);
    open_site(&counted);
    ck_assert_int_eq(pp_site_publish(site, entry), PP_OK);
    const uint8_t *way = *(const uint8_t *const *) ((char *) pp_site_record(site) + PP_SITE_TARGET);
    ck_assert_ptr_nonnull(way);
    ck_assert_int_eq(pp_trace_retire(pool, bodies[0]), PP_E_BUSY);
    ck_assert_int_eq(pp_site_replace(site, NULL, &old), PP_OK);
    ck_assert_ptr_eq(old, entry);
    ck_assert_int_eq(pp_trace_retire(pool, bodies[0]), PP_E_BUSY);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_E_STALE);
    ck_assert_uint_eq(retired(), 1);
    ck_assert_int_eq(pp_trace_retire(pool, bodies[0]), PP_OK);
    pp_ticket ticket = pp_retire_ticket(pool);
    /* A thread that stopped just behind the stub is on its way: what it reaches is held. */
    uint64_t word = (uintptr_t) way;
    pp_stack stack = { NULL, NULL, &word, 1 };
    ck_assert_int_eq(pp_reclaim(pool, ticket, &stack, 1, &result), PP_OK);
    ck_assert_uint_eq(result.held, 2);
    ck_assert_uint_eq(result.freed, 0);
    ck_assert_ptr_nonnull(pp_trace_at(way));
    ck_assert_int_eq(pp_reclaim(pool, ticket, NULL, 0, &result), PP_OK);
    ck_assert_uint_eq(result.freed, 2);
    ck_assert_ptr_null(pp_trace_at(way));
}
END_TEST

START_TEST(entries_that_nobody_was_led_to_go_at_once)
{
    pp_entry *entry = indexed(bodies[0]);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_uint_eq(retired(), 0);
    entry = indexed(bodies[0]);
    open_site(&counted);
    ck_assert_int_eq(pp_site_publish(site, entry), PP_OK);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_uint_eq(retired(), 0);
}
END_TEST

/* Hundreds of entries come and go, more than are reclaimed at a time. */
START_TEST(records_of_entries_are_used_again)
{
    enum { ROUNDS = 300 };
    pp_pool_stats first = { .size = sizeof first }, last = { .size = sizeof last };
    open_site(&counted);
    for (int i = 0; i < ROUNDS; i++) {
        pp_entry *entry = indexed(bodies[0]), *old;
        ck_assert_int_eq(pp_site_replace(site, entry, NULL), PP_OK);
        ck_assert(moves(10));
        ck_assert_int_eq(pp_site_replace(site, NULL, &old), PP_OK);
        ck_assert_ptr_eq(old, entry);
        ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
        if (i % 3 == 2)
            ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
        if (i == ROUNDS / 2)
            ck_assert_int_eq(pp_pool_get_stats(pool, &first), PP_OK);
    }
    ck_assert_int_eq(pp_pool_get_stats(pool, &last), PP_OK);
    ck_assert_uint_eq(last.metadata, first.metadata);
    ck_assert_uint_eq(retired(), 0);
}
END_TEST

/* ---- threads --------------------------------------------------------------------------- */

/*
 * Runners pass a site for as long as it takes.  Movers replace, disable, publish, fail and
 * count again as their numbers say, each with entries of its own; what a site gives up is
 * destroyed by the one who got it, and its body retired.  A reclaimer waits until every runner
 * has begun another run, and frees: with traps, so a thread that is led to freed code dies.
 */
enum { RUNNERS = 3, MOVERS = 3, MOVES = 1500 };
static atomic_bool over;
static _Atomic uint64_t epochs[RUNNERS];
static atomic_uint made, destroyed, deferred;
static _Atomic(pp_site *) queue;

static pp_entry *make_entry(unsigned number)
{
    pp_trace *body;
    pp_entry *plain, *entry;
    if (loop_body(pool, &body, &plain) != PP_OK)
        return NULL;
    atomic_fetch_add(&made, 1);
    if (number % 2 == 0)
        return plain;
    entry = indexed(body);
    return pp_entry_destroy(pool, plain) == PP_OK ? entry : NULL;
}

static void bury(pp_entry *entry)
{
    if (entry == NULL)
        return;
    pp_trace *body = pp_trace_at(pp_entry_code(entry));
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_trace_retire(pool, body), PP_OK);
    atomic_fetch_add(&destroyed, 1);
}

static pp_status produce_some(void *host, pp_site *of, const pp_regs *regs, pp_entry **entry)
{
    static atomic_uint number;
    (void) host, (void) regs;
    unsigned n = atomic_fetch_add(&number, 1);
    if (n % 5 == 4)
        return PP_E_RANGE;
    if (n % 3 == 2 && pp_site_defer(of) == PP_OK) {
        atomic_store(&queue, of);
        return PP_OK;
    }
    *entry = make_entry(n);
    return *entry != NULL ? PP_OK : PP_E_NOMEM;
}

static void bury_rejected(void *host, pp_site *of, pp_entry *entry, pp_status why)
{
    (void) host, (void) of, (void) why;
    bury(entry);
}

static void *worker(void *unused)
{
    unsigned missed = 0; /* sites that did not wait any more */
    (void) unused;
    while (!atomic_load(&over) || atomic_load(&queue) != NULL) {
        pp_site *of = atomic_exchange(&queue, NULL);
        if (of == NULL) {
            sched_yield();
            continue;
        }
        unsigned n = atomic_fetch_add(&deferred, 1);
        pp_entry *entry = n % 4 != 3 ? make_entry(n) : NULL;
        if (entry == NULL)
            missed += pp_site_fail(of, PP_E_RANGE) == PP_E_STALE;
        else if (pp_site_publish(of, entry) != PP_OK)
            bury(entry);
    }
    return missed > MOVERS * MOVES ? &over : NULL;
}

static void *mover(void *which)
{
    unsigned n = (unsigned) (uintptr_t) which;
    for (unsigned i = 0; i < MOVES; i++, n = n * 1103515245 + 12345) {
        pp_entry *old = NULL, *next = NULL;
        pp_status status = PP_OK;
        switch (n >> 16 & 7) {
        case 0:
            status = pp_site_withdraw(site, &old);
            break;
        case 1: case 2: case 3:
            status = pp_site_replace(site, NULL, &old);
            break;
        case 4:
            if ((next = make_entry(n >> 20)) != NULL && pp_site_publish(site, next) == PP_OK)
                next = NULL;
            break;
        default:
            next = make_entry(n >> 20);
            status = pp_site_replace(site, next, &old);
            next = NULL;
        }
        ck_assert_int_eq(status, PP_OK);
        bury(old);
        bury(next);
        if (i % 8 == 0)
            sched_yield();
    }
    return NULL;
}

static void *passer(void *which)
{
    _Atomic uint64_t *epoch = &epochs[(uintptr_t) which];
    pp_thread own;
    uintptr_t wrong = pp_thread_init(&own, NULL, NULL) != PP_OK;
    while (!atomic_load(&over) && !wrong) {
        uint64_t sum = pp_enter(&own, pp_trace_entry(loop.trace), 40, (uintptr_t) &own, 0, 0);
        wrong = sum != 820 && sum != 2000820;
        atomic_fetch_add(epoch, 1);
    }
    atomic_store(epoch, UINT64_MAX);
    return (void *) wrong;
}

/* The thread that frees: everybody has been outside since the ticket was drawn. */
static void *reclaimer(void *unused)
{
    (void) unused;
    while (!atomic_load(&over)) {
        pp_ticket ticket = pp_retire_ticket(pool);
        for (int i = 0; i < RUNNERS; i++)
            for (uint64_t seen = atomic_load(&epochs[i]); !atomic_load(&over)
                 && atomic_load(&epochs[i]) == seen && seen != UINT64_MAX;)
                sched_yield();
        if (!atomic_load(&over) && pp_reclaim(pool, ticket, NULL, 0, NULL) != PP_OK)
            return &over;
    }
    return NULL;
}

START_TEST(threads_use_an_entry_only_while_it_is_valid)
{
    pthread_t movers[MOVERS], runners[RUNNERS], others[2];
    pp_policy policy = { .size = sizeof policy, .attempts = 1000000 };
    pp_site_desc desc = counted;
    void *result;
    desc.produce = produce_some;
    desc.rejected = bury_rejected;
    if (_i & 1)
        desc.counter = PP_COUNTER_FRAME, desc.counter_offset = AT_LOOP_COUNTER;
    if (_i & 2) {
        pp_force force = { .size = sizeof force };
        ck_assert_int_eq(pp_force_parse("every=7,clobber,verify", &force), PP_OK);
        ck_assert_int_eq(pp_pool_set_force(pool, &force), PP_OK);
    }
    open_site(&desc);
    ck_assert_int_eq(pp_site_set_policy(site, &policy), PP_OK);
    atomic_store(&over, false);
    atomic_store(&made, 0);
    atomic_store(&destroyed, 0);
    ck_assert_int_eq(pthread_create(&others[0], NULL, worker, NULL), 0);
    ck_assert_int_eq(pthread_create(&others[1], NULL, reclaimer, NULL), 0);
    for (uintptr_t i = 0; i < RUNNERS; i++) {
        atomic_store(&epochs[i], 0);
        ck_assert_int_eq(pthread_create(&runners[i], NULL, passer, (void *) i), 0);
    }
    for (uintptr_t i = 0; i < MOVERS; i++)
        ck_assert_int_eq(pthread_create(&movers[i], NULL, mover, (void *) (7 * i + 1)), 0);
    for (int i = 0; i < MOVERS; i++)
        ck_assert_int_eq(pthread_join(movers[i], NULL), 0);
    atomic_store(&over, true);
    for (int i = 0; i < RUNNERS; i++) {
        ck_assert_int_eq(pthread_join(runners[i], &result), 0);
        ck_assert_ptr_null(result);
    }
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_join(others[i], &result), 0);
        ck_assert_ptr_null(result);
    }
    /* No entry is lost, and none was given back twice. */
    pp_entry *last;
    ck_assert_int_eq(pp_site_withdraw(site, &last), PP_OK);
    bury(last);
    ck_assert_uint_eq(atomic_load(&made), atomic_load(&destroyed));
    ck_assert_uint_gt(stats().triggers, 10);
    ck_assert_uint_gt(stats().transitions, 10);
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
    ck_assert_uint_eq(retired(), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replace");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, any_state_counts_again, 0, STATES);
    tcase_add_loop_test(tests, any_state_takes_another_entry, 0, STATES);
    tcase_add_loop_test(tests, any_state_is_disabled_for_good, 0, STATES);
    tcase_add_test(tests, refused_replacements_change_nothing);
    tcase_add_test(tests, forced_site_produces_again);
    tcase_add_test(tests, polled_site_calls_again);
    tcase_add_loop_test(tests, what_a_producer_brings_too_late_is_refused, 0, 2 * TAKEN);
    tcase_add_test(tests, entry_that_does_not_fit_is_given_back);
    tcase_add_test(tests, strangers_cannot_defer);
    tcase_add_test(tests, second_deferral_leaves_a_ready_site_alone);
    tcase_add_test(tests, one_ticket_covers_entry_and_body);
    tcase_add_test(tests, entries_that_nobody_was_led_to_go_at_once);
    tcase_add_test(tests, records_of_entries_are_used_again);
    tcase_add_loop_test(tests, threads_use_an_entry_only_while_it_is_valid, 0, 4);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
