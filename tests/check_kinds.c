/* SPDX-License-Identifier: MIT */
/* Kinds of sites at work: where they count, what they poll, and that forced ones never go on. */
#include <config.h>

#include "loop.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

static pp_pool *pool;

/* A host's struct that begins with the thread. */
static struct {
    pp_thread thread;
    uint32_t other;
    int32_t word;
    uint8_t byte[4];
} own;

static union {
    int32_t word;
    uint8_t byte[4];
} data;

static void setup(void)
{
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&own.thread, NULL, NULL), PP_OK);
    own.word = 0;
    memset(own.byte, 0, sizeof own.byte);
    data.word = 0;
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static uint64_t run(const struct loop *loop, uint64_t n)
{
    return pp_enter(&own.thread, pp_trace_entry(loop->trace), n, (uintptr_t) &own, 0, 0);
}

static pp_site_stats stats_of(const pp_site *site)
{
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
    return stats;
}

/* ---- where a site counts --------------------------------------------------- */

static struct {
    unsigned calls;
    uint64_t n;          /* in the frame at the last call */
    pp_status answer;
    pp_trace *body;
    pp_entry *entry;
} made;

static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site;
    made.calls++;
    made.n = loop_slot(regs, AT_LOOP_N);
    if (made.answer != PP_OK)
        return made.answer;
    pp_status status = made.entry == NULL ? loop_body(pool, &made.body, &made.entry) : PP_OK;
    *entry = made.entry;
    return status;
}

static const pp_site_desc counted = {
    .size = sizeof counted, .kind = PP_SITE_COUNTED, .threshold = 7, .hits = 3,
    .thread_offset = AT_LOOP_THREAD, .tier0 = &loop_frame, .produce = produce,
};

static const struct {
    pp_counter counter;
    int32_t offset;
    int32_t *word;
} places[] = {
    { PP_COUNTER_FRAME, AT_LOOP_COUNTER, NULL },
    { PP_COUNTER_SITE, 0, NULL },
    { PP_COUNTER_DATA, 0, &data.word },
    { PP_COUNTER_THREAD, sizeof(pp_thread) + 4, &own.word },
};

static pp_site_desc at_place(const pp_site_desc *like, int i)
{
    pp_site_desc desc = *like;
    desc.counter = places[i].counter;
    desc.counter_offset = places[i].offset;
    desc.word = places[i].counter == PP_COUNTER_DATA ? places[i].word : NULL;
    return desc;
}

START_TEST(counts_where_it_should)
{
    struct loop loop;
    pp_site *site;
    pp_site_desc desc = at_place(&counted, _i);
    memset(&made, 0, sizeof made);
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    loop_link(&loop, pool, site, 7, true);
    if (places[_i].word != NULL)
        *places[_i].word = 7;
    ck_assert_uint_eq(run(&loop, 20), 210); /* two hits of three, and 6 of 7 passes */
    ck_assert_uint_eq(made.calls, 0);
    ck_assert_uint_eq(stats_of(site).slow_paths, 2);
    if (places[_i].counter == PP_COUNTER_FRAME) { /* a new frame counts anew; hits stay */
        ck_assert_uint_eq(run(&loop, 20), 2000210);
        ck_assert_uint_eq(made.n, 14);
    } else {
        if (places[_i].word != NULL)
            ck_assert_int_eq(*places[_i].word, 1);
        ck_assert_uint_eq(run(&loop, 20), 2000210);
        ck_assert_uint_eq(made.n, 20);
    }
    ck_assert_uint_eq(made.calls, 1);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_READY);
    ck_assert_int_eq(pp_site_disable(site), PP_OK);
    if (places[_i].word != NULL)
        *places[_i].word = 1;
    ck_assert_uint_eq(run(&loop, 1000), 500500);
    if (places[_i].word != NULL)
        ck_assert_int_eq(*places[_i].word, INT32_MAX - 999);
    ck_assert_uint_eq(own.other, 0);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
}
END_TEST

/* ---- polled ------------------------------------------------------------------ */

static struct {
    unsigned calls, leave;   /* the flag stays set for so many calls */
    uint64_t n;
    void *flag;
    const void *answer;
    pp_site *site;
} polled;

static const void *poll(void *host, pp_site *site, const pp_regs *regs)
{
    ck_assert_ptr_eq(host, &polled);
    polled.calls++;
    polled.n = loop_slot(regs, AT_LOOP_N);
    polled.site = site;
    if (polled.flag == NULL && polled.leave > 0)
        ck_assert_int_eq(pp_site_request(site), PP_OK);
    if (polled.leave > 0)
        polled.leave--;
    else if (polled.flag != NULL)
        *(uint8_t *) polled.flag = 0;
    return polled.answer;
}

static const struct {
    pp_counter counter;
    int32_t offset;
    uint32_t flags;
    uint8_t *flag;
} flags[] = {
    { PP_COUNTER_SITE, 0, 0, NULL },
    { PP_COUNTER_DATA, 0, 0, data.byte },
    { PP_COUNTER_DATA, 0, PP_SITE_BYTE, data.byte + 1 },
    { PP_COUNTER_THREAD, offsetof(__typeof__(own), word), 0, (uint8_t *) &own.word },
    { PP_COUNTER_THREAD, offsetof(__typeof__(own), byte) + 1, PP_SITE_BYTE, own.byte + 1 },
};

START_TEST(polls_what_it_should)
{
    struct loop loop;
    pp_site *site;
    pp_site_desc desc = {
        .size = sizeof desc, .kind = PP_SITE_POLLED, .counter = flags[_i].counter,
        .counter_offset = flags[_i].offset, .flags = flags[_i].flags, .tier0 = &loop_frame,
        .thread_offset = AT_LOOP_THREAD, .poll = poll, .host = &polled,
        .word = flags[_i].counter == PP_COUNTER_DATA ? flags[_i].flag : NULL,
    };
    memset(&polled, 0, sizeof polled);
    polled.flag = flags[_i].flag;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    loop_link(&loop, pool, site, 0, true);
    ck_assert_uint_eq(run(&loop, 100), 5050);
    ck_assert_uint_eq(polled.calls, 0);

    polled.leave = 3;
    if (flags[_i].flag != NULL)
        *flags[_i].flag = 0x80;
    else
        ck_assert_int_eq(pp_site_request(site), PP_OK);
    ck_assert_uint_eq(run(&loop, 100), 5050);
    ck_assert_uint_eq(polled.calls, 4);
    ck_assert_uint_eq(polled.n, 97);
    ck_assert_ptr_eq(polled.site, site);
    ck_assert_uint_eq(stats_of(site).slow_paths, 4);

    if (flags[_i].flags & PP_SITE_BYTE) { /* the bytes beside it say nothing */
        flags[_i].flag[-1] = flags[_i].flag[1] = 0xff;
        ck_assert_uint_eq(run(&loop, 100), 5050);
        ck_assert_uint_eq(polled.calls, 4);
    }
    /* The answer is where it goes. */
    polled.answer = loop.out;
    if (flags[_i].flag != NULL)
        *flags[_i].flag = 1;
    else
        ck_assert_int_eq(pp_site_request(site), PP_OK);
    ck_assert_uint_eq(run(&loop, 100), 1000000);
    ck_assert_uint_eq(polled.calls, 5);

    /* Disabled: nobody is called, and nothing goes elsewhere. */
    if (flags[_i].flag != NULL)
        *flags[_i].flag = 1;
    ck_assert_int_eq(pp_site_disable(site), PP_OK);
    ck_assert_uint_eq(run(&loop, 100), 5050);
    ck_assert_uint_eq(polled.calls, 5);
    ck_assert_int_eq(pp_site_request(site), flags[_i].flag == NULL ? PP_E_STALE : PP_E_ARG);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_site_request(site), PP_E_STALE);
    ck_assert_int_eq(pp_site_request(NULL), PP_E_ARG);
}
END_TEST

/* It would take passes from the host that asked for them. */
START_TEST(polled_site_leads_nowhere)
{
    pp_site *site, *other;
    pp_trace *trace;
    pp_entry *entry;
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_POLLED, .counter = PP_COUNTER_SITE,
                          .tier0 = &loop_frame, .poll = poll };
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &counted, &other), PP_E_ARG); /* no offset */
    desc = at_place(&counted, 1);
    ck_assert_int_eq(pp_site_create(pool, &desc, &other), PP_OK);
    ck_assert_int_eq(pp_site_request(other), PP_E_ARG);
    ck_assert_int_eq(loop_body(pool, &trace, &entry), PP_OK);
    ck_assert_int_eq(pp_site_publish(site, entry), PP_E_ARG);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_IDLE);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
}
END_TEST

/* ---- forced -------------------------------------------------------------------- */

static struct {
    unsigned calls, again;   /* tries the site again for so many calls */
    pp_status why;
    const void *answer;
    const struct loop *loop;
} refused;

static const void *on_refused(void *host, pp_site *site, const pp_regs *regs, pp_status why)
{
    (void) host, (void) site;
    refused.calls++;
    refused.why = why;
    const uint8_t *first = (const uint8_t *) regs->pc - refused.loop->layout.return_offset;
    ck_assert_ptr_eq(first, refused.loop->site);
    if (refused.again > 0) {
        refused.again--;
        return first;
    }
    return refused.answer;
}

/* `otherwise` has to be known before the site: it is in a loop that was linked before. */
static void open_forced(struct loop *loop, pp_site **site, uint32_t site_flags, bool asks)
{
    struct loop first;
    pp_site_desc desc = at_place(&counted, 1);
    memset(&made, 0, sizeof made);
    memset(&refused, 0, sizeof refused);
    ck_assert_int_eq(pp_site_create(pool, &desc, site), PP_OK);
    loop_link(&first, pool, *site, 7, true);
    desc = (pp_site_desc) {
        .size = sizeof desc, .kind = PP_SITE_FORCED, .tier0 = &loop_frame, .produce = produce,
        .thread_offset = AT_LOOP_THREAD, .otherwise = first.out, .flags = site_flags,
        .refused = asks ? on_refused : NULL,
    };
    ck_assert_int_eq(pp_site_create(pool, &desc, site), PP_OK);
    loop_link(loop, pool, *site, 7, false);
    refused.loop = loop;
}

#if defined __x86_64__
#define FLAGS_OF(i) ((i) & 1 ? PP_SITE_RED_ZONE : 0)
#else
#define FLAGS_OF(i) 0
#endif

START_TEST(forced_site_transitions_at_once)
{
    struct loop loop;
    pp_site *site;
    open_forced(&loop, &site, FLAGS_OF(_i), _i & 2);
    ck_assert_uint_eq(run(&loop, 10), 2000055);
    ck_assert_uint_eq(made.calls, 1);
    ck_assert_uint_eq(made.n, 10);
    ck_assert_uint_eq(run(&loop, 10), 2000055);
    ck_assert_uint_eq(made.calls, 1);
    ck_assert_uint_eq(stats_of(site).slow_paths, 1); /* the second did not enter C */
    ck_assert_uint_eq(refused.calls, 0);
}
END_TEST

START_TEST(forced_site_never_falls_through)
{
    struct loop loop;
    pp_site *site;
    open_forced(&loop, &site, FLAGS_OF(_i), _i & 2);
    made.answer = PP_E_NOMEM;
    ck_assert_uint_eq(run(&loop, 10), 1000000);
    ck_assert_uint_eq(run(&loop, 10), 1000000);
    ck_assert_uint_eq(made.calls, 1);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_FAILED);
    ck_assert_uint_eq(refused.calls, _i & 2 ? 2 : 0);
    ck_assert_int_eq(refused.why, _i & 2 ? PP_E_NOMEM : 0);
    ck_assert_int_eq(pp_site_disable(site), PP_OK);
    ck_assert_uint_eq(run(&loop, 10), 1000000);
    ck_assert_int_eq(refused.why, _i & 2 ? PP_E_STALE : 0);
}
END_TEST

/* The callback answers with tier-0's loop, whose back edge forces again: ten passes. */
START_TEST(forced_site_goes_where_the_host_says)
{
    struct loop loop;
    pp_site *site;
    open_forced(&loop, &site, FLAGS_OF(_i), true);
    made.answer = PP_E_UNSUPPORTED;
    refused.answer = loop.loop;
    ck_assert_uint_eq(run(&loop, 10), 55);
    ck_assert_uint_eq(refused.calls, 10);
    ck_assert_int_eq(refused.why, PP_E_UNSUPPORTED);
    /* And its own first byte tries again. */
    refused.again = 3;
    ck_assert_uint_eq(run(&loop, 10), 55);
    ck_assert_uint_eq(refused.calls, 23);
    /* What was published meanwhile is taken. */
    ck_assert_int_eq(loop_body(pool, &made.body, &made.entry), PP_OK);
    ck_assert_int_eq(pp_site_publish(site, made.entry), PP_OK);
    ck_assert_uint_eq(run(&loop, 10), 2000055);
    ck_assert_uint_eq(refused.calls, 23);
}
END_TEST

static struct loop *nested;
static uint64_t nested_result;

static pp_status produce_nested(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site, (void) regs, (void) entry;
    nested_result = run(nested, 10); /* a second activation meets the site while it compiles */
    return PP_E_FAULT;
}

START_TEST(forced_site_does_not_wait)
{
    struct loop loop, first;
    pp_site *site;
    open_forced(&first, &site, 0, false);
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_FORCED, .tier0 = &loop_frame,
                          .produce = produce_nested, .thread_offset = AT_LOOP_THREAD,
                          .otherwise = first.out, .refused = on_refused };
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    loop_link(&loop, pool, site, 7, false);
    nested = &loop;
    refused.loop = &loop;
    refused.again = 2;
    ck_assert_uint_eq(run(&loop, 10), 1000000);
    ck_assert_uint_eq(nested_result, 1000000);
    ck_assert_uint_eq(refused.calls, 4); /* 3 of the inner one: busy; 1 of the outer: failed */
    ck_assert_int_eq(refused.why, PP_E_FAULT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kinds");
    TCase *tests = tcase_create("kinds");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, counts_where_it_should, 0, 4);
    tcase_add_loop_test(tests, polls_what_it_should, 0, 5);
    tcase_add_test(tests, polled_site_leads_nowhere);
    tcase_add_loop_test(tests, forced_site_transitions_at_once, 0, 4);
    tcase_add_loop_test(tests, forced_site_never_falls_through, 0, 4);
    tcase_add_loop_test(tests, forced_site_goes_where_the_host_says, 0, 2);
    tcase_add_test(tests, forced_site_does_not_wait);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
