/* SPDX-License-Identifier: MIT */
/*
 * Handles of records - sites, entries, pins, methods: none is given out twice, and any
 * value may be passed for any kind.
 *
 *      SEED=n          of the random tests (printed)
 */
#include <config.h>

#include "loop.h"
#include "memory/slot.h"
#include "spans.h"

#include <patchpoint/method.h>
#include <patchpoint/token.h>

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site, (void) regs, (void) entry;
    return PP_E_NOMEM;
}

/* One of each kind. */
struct all {
    pp_trace *trace;
    pp_token token;
    pp_site *site;
    pp_entry *entry;
    pp_pin *pin;
    pp_method *method;
};

static void make(pp_pool *pool, struct all *all)
{
    uint8_t code[RETURN_BYTES];
    pp_trace_desc trace = { .size = sizeof trace, .code = code, .code_size = sizeof code };
    encode_return(code, 3);
    require(pp_trace_link(pool, &trace, &all->trace) == PP_OK);
    require(pp_token_make(pp_trace_entry(all->trace), &all->token) == PP_OK);
    require(pp_token_pin(pool, &all->token, &all->pin) == PP_OK);
    pp_method_desc method = { .size = sizeof method };
    require(pp_method_create(pool, &method, &all->method) == PP_OK);
    pp_site_desc site = { .size = sizeof site, .kind = PP_SITE_COUNTED, .threshold = 4,
                          .counter = PP_COUNTER_SITE, .tier0 = &loop_frame, .produce = produce };
    require(pp_site_create(pool, &site, &all->site) == PP_OK);
    pp_entry_desc entry = { .size = sizeof entry, .style = PP_ON_TOP, .scheme = PP_CSR_RESERVE,
                            .tier0 = &loop_frame, .code = pp_trace_entry(all->trace) };
    require(pp_entry_create(pool, &entry, &all->entry) == PP_OK);
}

static void unmake(pp_pool *pool, const struct all *all)
{
    require(pp_entry_destroy(pool, all->entry) == PP_OK);
    require(pp_site_destroy(pool, all->site) == PP_OK);
    require(pp_method_destroy(pool, all->method) == PP_OK);
    require(pp_token_unpin(pool, all->pin) == PP_OK);
    require(pp_trace_free(pool, all->trace) == PP_OK);
}

/* ---- all values that were given out ----------------------------------- */

struct values {
    uintptr_t *each;
    size_t count, room;
};

static void note(struct values *values, const void *handle)
{
    if (values->count == values->room) {
        values->room = values->room * 2 + 1024;
        values->each = realloc(values->each, values->room * sizeof *values->each);
        require(values->each != NULL);
    }
    values->each[values->count++] = (uintptr_t) handle;
}

static void note_all(struct values *values, const struct all *all)
{
    note(values, all->site);
    note(values, all->entry);
    note(values, all->pin);
    note(values, all->method);
}

static int compare(const void *a, const void *b)
{
    uintptr_t left = *(const uintptr_t *) a, right = *(const uintptr_t *) b;
    return (left > right) - (left < right);
}

static void none_is_there_twice(struct values *values)
{
    qsort(values->each, values->count, sizeof *values->each, compare);
    for (size_t i = 0; i < values->count; i++)
        require(values->each[i] != 0 && (i == 0 || values->each[i] != values->each[i - 1]));
    free(values->each);
    *values = (struct values){ 0 };
}

/* ---- what is refused -------------------------------------------------- */

enum { SITE = 1, ENTRY = 2, PIN = 4, METHOD = 8 };

/* Every function that takes one of these kinds. */
static void refused_as(pp_pool *pool, uintptr_t value, unsigned kinds)
{
    pp_site *site = (pp_site *) value;
    pp_entry *entry = (pp_entry *) value, *old;
    pp_method *method = (pp_method *) value;
    pp_site_layout layout = { .size = sizeof layout };
    pp_site_stats site_stats = { .size = sizeof site_stats };
    pp_method_stats method_stats = { .size = sizeof method_stats };
    const pp_status stale = value == 0 ? PP_E_ARG : PP_E_STALE;
    if (kinds & SITE) {
        require(pp_site_destroy(pool, site) != PP_OK);
        require(pp_emit_site(site, NULL, 0, &layout) == stale);
        require(pp_site_request(site) != PP_OK);
        require(pp_site_replace(site, NULL, &old) != PP_OK);
        require(pp_site_withdraw(site, &old) != PP_OK);
        require(pp_site_defer(site) == stale);
        require(pp_site_fail(site, PP_E_NOMEM) == stale);
        require(pp_site_disable(site) == stale);
        require(pp_site_set_policy(site, NULL) != PP_OK);
        require(pp_site_get_stats(site, &site_stats) == stale);
        require(pp_site_state(site) == PP_SITE_DISABLED);
        require(pp_site_entry(site) == NULL && pp_site_host(site) == NULL);
        require(pp_site_record(site) == NULL && pp_site_number(site) == 0);
    }
    if (kinds & ENTRY) {
        require(pp_entry_destroy(pool, entry) != PP_OK);
        require(pp_entry_check(entry, &loop_frame) != PP_OK);
        require(pp_entry_code(entry) == NULL);
    }
    if (kinds & PIN)
        require(pp_token_unpin(pool, (pp_pin *) value) == stale);
    if (kinds & METHOD) {
        require(pp_method_destroy(pool, method) == stale);
        require(pp_method_get_stats(method, &method_stats) == stale);
        require(pp_method_host(method) == NULL);
    }
}

static void all_refused(pp_pool *pool, const struct all *all)
{
    const uintptr_t values[] = { (uintptr_t) all->site, (uintptr_t) all->entry,
                                 (uintptr_t) all->pin, (uintptr_t) all->method };
    for (unsigned i = 0; i < 4; i++)
        refused_as(pool, values[i], SITE | ENTRY | PIN | METHOD);
}

/* ---- tests ------------------------------------------------------------ */

/* More lives of one record than a tag of 20 bits tells apart. */
START_TEST(an_old_handle_is_stale_after_a_million_lives)
{
    pp_pool *pool = open_pool(PP_WX_AUTO);
    pp_method_desc desc = { .size = sizeof desc };
    pp_method *old, *method;
    ck_assert_int_eq(pp_method_create(pool, &desc, &old), PP_OK);
    ck_assert_int_eq(pp_method_destroy(pool, old), PP_OK);
    for (unsigned i = 0; i < (1u << 20) + 3; i++) {
        require(pp_method_create(pool, &desc, &method) == PP_OK);
        require(method != old);
        require(pp_method_destroy(pool, method) == PP_OK);
    }
    ck_assert_int_eq(pp_method_destroy(pool, old), PP_E_STALE);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(pools_that_come_and_go_have_other_handles)
{
    enum { POOLS = 100 };
    static struct all made[POOLS];
    struct values values = { 0 };
    for (unsigned i = 0; i < POOLS; i++) {
        pp_pool *pool = open_pool(PP_WX_AUTO);
        for (unsigned j = 0; j < 5; j++) {
            make(pool, &made[i]);
            note_all(&values, &made[i]);
            if (j < 4)
                unmake(pool, &made[i]);
        }
        for (unsigned j = 0; j < i; j++)
            all_refused(pool, &made[j]);
        verify(pool);
        if (i % 2 == 0)
            unmake(pool, &made[i]);
        pp_pool_destroy(pool);
        pp_site_stats stats = { .size = sizeof stats };
        ck_assert_int_eq(pp_site_get_stats(made[i].site, &stats), PP_E_STALE);
        ck_assert_ptr_null(pp_entry_code(made[i].entry));
    }
    none_is_there_twice(&values);
}
END_TEST

/* A slot that has no generation left is not used again, by this record or another. */
START_TEST(a_slot_ends_before_its_generations_repeat)
{
    enum { LEFT = 20 };
    struct values values = { 0 };
    pp_pool *pool = open_pool(PP_WX_AUTO);
    struct all all;
    struct slot *slot = slot_take(&all);
    ck_assert_ptr_nonnull(slot);
    const uint32_t number = slot->number;
    atomic_store(&slot->life, 2 * (SLOT_GENERATION_MAX - LEFT));
    slot_give(slot);
    unsigned seen = 0;
    for (unsigned i = 0; i < 3 * LEFT; i++) {
        /* What was given back last is taken first: the first record of the pool gets it. */
        make(pool, &all);
        note_all(&values, &all);
        seen += (uintptr_t) all.pin >> SLOT_GENERATION_BITS == number;
        unmake(pool, &all);
        all_refused(pool, &all);
    }
    ck_assert_uint_eq(seen, LEFT);
    verify(pool);
    pp_pool_destroy(pool);
    for (unsigned i = 0; i < 300; i++) {
        slot = slot_take(&all);
        ck_assert_uint_ne(slot->number, number);
        ck_assert(slot_is_good(slot));
    }
    none_is_there_twice(&values);
}
END_TEST

/* Slots come a thousand at a time: handles lead to their own record behind those, too. */
START_TEST(thousands_of_records_are_told_apart)
{
    enum { METHODS = 3000 };
    static pp_method *methods[METHODS];
    struct values values = { 0 };
    pp_pool *pool = open_pool(PP_WX_AUTO);
    for (unsigned i = 0; i < METHODS; i++) {
        pp_method_desc desc = { .size = sizeof desc, .host = &methods[i] };
        require(pp_method_create(pool, &desc, &methods[i]) == PP_OK);
        note(&values, methods[i]);
    }
    for (unsigned i = 0; i < METHODS; i++)
        require(pp_method_host(methods[i]) == &methods[i]);
    for (unsigned i = 0; i < METHODS; i += 2)
        require(pp_method_destroy(pool, methods[i]) == PP_OK);
    for (unsigned i = 0; i < METHODS; i++)
        require(pp_method_host(methods[i]) == (i % 2 == 0 ? NULL : &methods[i]));
    none_is_there_twice(&values);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* A handle of one kind is none of another; nor is one of a trace, or any other value. */
START_TEST(any_value_may_be_passed)
{
    uint64_t random = seed() + 1;
    pp_pool *pool = open_pool(PP_WX_AUTO);
    struct all all;
    make(pool, &all);
    refused_as(pool, (uintptr_t) all.site, ENTRY | PIN | METHOD);
    refused_as(pool, (uintptr_t) all.entry, SITE | PIN | METHOD);
    refused_as(pool, (uintptr_t) all.pin, SITE | ENTRY | METHOD);
    refused_as(pool, (uintptr_t) all.method, SITE | ENTRY | PIN);
    refused_as(pool, (uintptr_t) all.trace, SITE | ENTRY | PIN | METHOD);
    const uintptr_t live[] = { (uintptr_t) all.site, (uintptr_t) all.entry, (uintptr_t) all.pin,
                               (uintptr_t) all.method };
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned bit = 0; bit < 64; bit++) {
            uintptr_t value = live[i] ^ (uintptr_t) 1 << bit;
            bool lives = false;
            for (unsigned j = 0; j < 4; j++)
                lives |= value == live[j];
            if (!lives)
                refused_as(pool, value, SITE | ENTRY | PIN | METHOD);
        }
    }
    for (unsigned i = 0; i < 20000; i++)
        refused_as(pool, next_random(&random), SITE | ENTRY | PIN | METHOD);
    const uintptr_t odd[] = { 0, 1, 16, UINTPTR_MAX, (uintptr_t) 1 << 63, (uintptr_t) 1 << 47,
                              (uintptr_t) &all, (uintptr_t) pool, (uintptr_t) produce,
                              (uintptr_t) pp_site_record(all.site), all.token.code };
    for (unsigned i = 0; i < sizeof odd / sizeof *odd; i++)
        refused_as(pool, odd[i], SITE | ENTRY | PIN | METHOD);
    unmake(pool, &all);
    all_refused(pool, &all);
    pp_pool_destroy(pool);
}
END_TEST

enum { THREADS = 4 };

struct worker {
    pthread_t thread;
    pp_pool *pool, *own;
    struct values values;
};

/* In a pool of all threads, and in pools of its own that go. */
static void *churn(void *argument)
{
    struct worker *worker = argument;
    for (unsigned i = 0; i < 300; i++) {
        struct all all;
        if (i % 30 == 0) {
            pp_pool_destroy(worker->own);
            require(pp_pool_create(NULL, &worker->own) == PP_OK);
        }
        pp_pool *pool = i % 2 == 0 ? worker->pool : worker->own;
        make(pool, &all);
        note_all(&worker->values, &all);
        unmake(pool, &all);
        all_refused(pool, &all);
    }
    pp_pool_destroy(worker->own);
    return NULL;
}

START_TEST(threads_never_share_a_value)
{
    static struct worker workers[THREADS];
    struct values all = { 0 };
    pp_pool *pool = open_pool(PP_WX_AUTO);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ .pool = pool };
        require(pthread_create(&workers[i].thread, NULL, churn, &workers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        require(pthread_join(workers[i].thread, NULL) == 0);
        for (size_t j = 0; j < workers[i].values.count; j++)
            note(&all, (void *) workers[i].values.each[j]);
        free(workers[i].values.each);
    }
    verify(pool);
    none_is_there_twice(&all);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(parent_and_child_go_on_by_themselves)
{
    struct values values = { 0 };
    struct all before, all;
    pp_pool *pool = open_pool(PP_WX_AUTO), *own;
    make(pool, &before);
    note_all(&values, &before);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    require(pp_site_state(before.site) == PP_SITE_IDLE);
    require(pp_entry_code(before.entry) != NULL);
    for (unsigned i = 0; i < 20; i++) {
        require(pp_pool_create(NULL, &own) == PP_OK);
        make(own, &all);
        note_all(&values, &all);
        make(pool, &all);
        note_all(&values, &all);
        unmake(pool, &all);
        all_refused(pool, &all);
        pp_pool_destroy(own);
    }
    unmake(pool, &before);
    all_refused(pool, &before);
    pp_pool_destroy(pool);
    none_is_there_twice(&values);
    if (child == 0)
        _exit(0);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("record");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, an_old_handle_is_stale_after_a_million_lives);
    tcase_add_test(tests, pools_that_come_and_go_have_other_handles);
    tcase_add_test(tests, a_slot_ends_before_its_generations_repeat);
    tcase_add_test(tests, thousands_of_records_are_told_apart);
    tcase_add_test(tests, any_value_may_be_passed);
    tcase_add_test(tests, threads_never_share_a_value);
    tcase_add_test(tests, parent_and_child_go_on_by_themselves);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
