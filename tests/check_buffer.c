/* SPDX-License-Identifier: MIT */
/*
 * Buffers of threads: one owner at a time, none for frames that are gone, and given back
 * by whoever comes by.
 */
#include <config.h>

#include "entered.h"
#include "osr/buffer.h"
#include "snippet.h"
#include "stress/method.h"

#include <check.h>
#include <pthread.h>

enum { BYTES = 512, COUNT = 4 };

static pp_thread thread;
static _Alignas(16) char memory[COUNT * BYTES + 256];

static void give_buffers(size_t bytes, size_t count)
{
    ck_assert_uint_le(pp_buffer_space(bytes, count), sizeof memory);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, memory, bytes, count), PP_OK);
}

static void setup(void)
{
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_thread_set_buffers(&thread, NULL, 0, 0), PP_OK);
}

START_TEST(buffers_need_room)
{
    ck_assert_uint_eq(pp_buffer_space(0, 1), 0);
    ck_assert_uint_eq(pp_buffer_space(1, 0), 0);
    ck_assert_uint_eq(pp_buffer_space(1, PP_BUFFERS_MAX + 1), 0);
    ck_assert_uint_eq(pp_buffer_space((size_t) PP_BUFFER_BYTES_MAX + 1, 1), 0);
    ck_assert_uint_eq(pp_buffer_space(SIZE_MAX, SIZE_MAX), 0);
    ck_assert_uint_gt(pp_buffer_space(PP_BUFFER_BYTES_MAX, PP_BUFFERS_MAX), 1ull << 38);
    ck_assert_uint_eq(pp_buffer_space(17, 3) % 16, 0);
    ck_assert_uint_ge(pp_buffer_space(17, 3), 3 * 32);
    const pp_thread before = thread;
    ck_assert_int_eq(pp_thread_set_buffers(NULL, memory, 16, 1), PP_E_ARG);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, NULL, 16, 0), PP_E_ARG);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, NULL, 0, 1), PP_E_ARG);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, memory, 0, 1), PP_E_ARG);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, memory + 8, 16, 1), PP_E_ARG);
    ck_assert_mem_eq(&before, &thread, sizeof thread);
    ck_assert_ptr_null(pp_buffer_next(&thread, NULL));
    ck_assert_ptr_null(pp_buffer_next(NULL, NULL));
    ck_assert_uint_eq(pp_buffer_reclaim(&thread), 0);
    ck_assert_uint_eq(pp_buffer_reclaim(NULL), 0);
    ck_assert_int_eq(pp_buffer_release(&thread, memory), PP_E_FAULT);
    ck_assert_int_eq(buffer_reserve(&thread, 16, 1), PP_E_ABI);
    ck_assert_ptr_null(buffer_take(&thread, 16));
}
END_TEST

/* Frames of a stack, from the deepest. */
static uintptr_t frame_at(unsigned i)
{
    return ((uintptr_t) __builtin_frame_address(0) - 65536 + 64 * i) & ~(uintptr_t) 15;
}

START_TEST(each_buffer_has_one_owner)
{
    char *taken[COUNT];
    give_buffers(BYTES, COUNT);
    ck_assert_int_eq(buffer_reserve(&thread, frame_at(0), BYTES + 1), PP_E_RANGE);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < COUNT; i++) {
            ck_assert_int_eq(buffer_reserve(&thread, frame_at(i), BYTES), PP_OK);
            ck_assert_ptr_null(buffer_take(&thread, frame_at(i) + 16));
            taken[i] = buffer_take(&thread, frame_at(i));
            ck_assert_ptr_nonnull(taken[i]);
            ck_assert_uint_eq((uintptr_t) taken[i] % 16, 0);
            ck_assert(taken[i] >= memory && taken[i] + BYTES <= memory + sizeof memory);
            ck_assert_ptr_null(buffer_take(&thread, frame_at(i)));
            for (unsigned j = 0; j < i; j++)
                ck_assert_uint_ge((size_t) labs(taken[i] - taken[j]), BYTES);
            memset(taken[i], 0xff, BYTES);
        }
        ck_assert_int_eq(buffer_reserve(&thread, frame_at(0), 1), PP_E_NOMEM);
        unsigned in_use = 0;
        for (void *at = NULL; (at = pp_buffer_next(&thread, at)) != NULL;)
            in_use++;
        ck_assert_uint_eq(in_use, COUNT);
        ck_assert_int_eq(pp_thread_set_buffers(&thread, NULL, 0, 0), PP_E_BUSY);
        ck_assert_int_eq(pp_thread_set_buffers(&thread, memory, BYTES, 1), PP_E_BUSY);
        for (unsigned i = 0; i < COUNT; i++) {
            ck_assert_int_eq(pp_buffer_release(&thread, taken[i] + 16), PP_E_FAULT);
            ck_assert_int_eq(pp_buffer_release(&thread, taken[i]), PP_OK);
            ck_assert_int_eq(pp_buffer_release(&thread, taken[i]), PP_E_STALE);
        }
        ck_assert_ptr_null(pp_buffer_next(&thread, NULL));
    }
    ck_assert_int_eq(pp_buffer_release(&thread, memory), PP_E_FAULT);
    ck_assert_int_eq(pp_buffer_release(&thread, memory + sizeof memory), PP_E_FAULT);
    ck_assert_int_eq(pp_buffer_release(&thread, &thread), PP_E_FAULT);
    ck_assert_int_eq(pp_buffer_release(&thread, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_buffer_release(NULL, taken[0]), PP_E_ARG);
    /* The one that was given back last is taken again last. */
    void *first = NULL;
    for (unsigned i = 0; i < COUNT; i++) {
        ck_assert_int_eq(buffer_reserve(&thread, frame_at(i), BYTES), PP_OK);
        void *buffer = buffer_take(&thread, frame_at(i));
        ck_assert_ptr_ne(buffer, first);
        first = i == 0 ? buffer : first;
        ck_assert_int_eq(pp_buffer_release(&thread, buffer), PP_OK);
    }
}
END_TEST

/* A reservation whose frame never went on does not cost its buffer for ever. */
START_TEST(frames_that_are_gone_have_none)
{
    give_buffers(16, 2);
    ck_assert_int_eq(buffer_reserve(&thread, frame_at(4), 16), PP_OK);
    ck_assert_int_eq(buffer_reserve(&thread, frame_at(5), 16), PP_OK);
    ck_assert_int_eq(pp_buffer_release(&thread, memory + pp_buffer_space(16, 2) - 16), PP_E_STALE);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, NULL, 0, 0), PP_E_BUSY);
    ck_assert_int_eq(buffer_reserve(&thread, frame_at(3), 16), PP_E_NOMEM); /* these are above */
    ck_assert_int_eq(buffer_reserve(&thread, frame_at(4), 16), PP_OK);
    ck_assert_int_eq(buffer_reserve(&thread, frame_at(4), 16), PP_OK);
    ck_assert_int_eq(buffer_reserve(&thread, frame_at(6), 16), PP_OK);
    ck_assert_ptr_nonnull(buffer_take(&thread, frame_at(6)));
    ck_assert_ptr_null(buffer_take(&thread, frame_at(4)));
    ck_assert_ptr_nonnull(buffer_take(&thread, frame_at(5)));
    ck_assert_int_eq(buffer_reserve(&thread, frame_at(7), 16), PP_E_NOMEM); /* in use */
    ck_assert_uint_eq(pp_buffer_reclaim(&thread), 2); /* all are below this function's */
    ck_assert_uint_eq(pp_buffer_reclaim(&thread), 0);
    ck_assert_int_eq(buffer_reserve(&thread, (uintptr_t) thread.stack_hi - 16, 16), PP_OK);
    ck_assert_uint_eq(pp_buffer_reclaim(&thread), 0); /* and that is not */
    void *buffer = buffer_take(&thread, (uintptr_t) thread.stack_hi - 16);
    ck_assert_int_eq(pp_buffer_release(&thread, buffer), PP_OK);
}
END_TEST

static void *release_elsewhere(void *buffer)
{
    return (void *) (intptr_t) pp_buffer_release(&thread, buffer);
}

START_TEST(another_thread_gives_a_buffer_back)
{
    pthread_t other;
    void *status;
    give_buffers(16, 1);
    ck_assert_int_eq(buffer_reserve(&thread, frame_at(0), 16), PP_OK);
    void *buffer = buffer_take(&thread, frame_at(0));
    ck_assert_int_eq(pthread_create(&other, NULL, release_elsewhere, buffer), 0);
    ck_assert_int_eq(pthread_join(other, &status), 0);
    ck_assert_int_eq((int) (intptr_t) status, PP_OK);
    ck_assert_int_eq(pp_buffer_release(&thread, buffer), PP_E_STALE);
}
END_TEST

/* ---- threads ------------------------------------------------------------------ */

#if defined __x86_64__
enum { OTHER = 6 };
#else
enum { OTHER = 1 };
#endif

enum { THREADS = 4, RUNS = 1000 };

/* Each body leaves its buffer here and gives back an earlier one, mostly another thread's. */
static struct lot {
    pp_thread *thread;
    _Atomic(const void *) buffer; /* stored last */
} lots[THREADS * RUNS];
static _Atomic unsigned lot_count, lots_lost;

static pthread_barrier_t all_done;

pp_regs entered_regs; /* of whichever thread came last */

static const pp_value values[] = {
    { PP_AT_SLOT(AT_N), PP_AT_BUFFER(0), .bytes = 8 },
    { PP_AT_SLOT(AT_SUM), PP_AT_BUFFER(8), .bytes = 8 },
    { PP_AT_SLOT(AT_THREAD), PP_AT_GPR(OTHER), .bytes = 8 },
};

/* A method whose site leads to this body. */
static pp_entry *open_method(struct method *method, pp_pool *pool, const pp_trace *body)
{
    struct method_shape shape = { .kind = METHOD_SUM, .save = PP_SAVE_GPR, .with_thread = true,
                                  .threshold = 5, .hits = 1 };
    pp_entry *entry;
    ck_assert_int_eq(method_open(method, pool, &shape), PP_OK);
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_BUFFER, .tier0 = &method->tier0,
                           .code = pp_trace_entry(body), .thread_offset = AT_THREAD,
                           .values = values, .value_count = 3 };
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    ck_assert_int_eq(pp_site_publish(method->sites[0], entry), PP_OK);
    return entry;
}

/* A body: `entered`, which goes on to entered_check. */
static pp_trace *link_body(pp_pool *pool)
{
    struct snippet s = { 0 };
    pp_trace *body;
#if defined __x86_64__
    SNIPPET_CODE(&s, 0xe9, 0, 0, 0, 0);
    snippet_reloc(&s, 4, R_X86_64_PLT32, pp_symbol_define(pool, NULL, entered), -4);
#else
    SNIPPET_WORDS(&s, 0x14000000);
    snippet_reloc(&s, 4, R_AARCH64_JUMP26, pp_symbol_define(pool, NULL, entered), 0);
#endif
    pp_trace_desc desc = snippet_desc(&s);
    ck_assert_int_eq(pp_trace_link(pool, &desc, &body), PP_OK);
    snippet_free(&s);
    return body;
}

uintptr_t entered_check(uintptr_t first, uintptr_t second)
{
    const uint64_t *buffer = (const uint64_t *) first;
    uint64_t n = buffer[0], sum = buffer[1];
    unsigned at = atomic_fetch_add(&lot_count, 1);
    lots[at].thread = (pp_thread *) second;
    atomic_store_explicit(&lots[at].buffer, buffer, memory_order_release);
    if (at >= THREADS) {
        const void *other = atomic_load_explicit(&lots[at - THREADS].buffer, memory_order_acquire);
        if (other != NULL && pp_buffer_release(lots[at - THREADS].thread, other) != PP_OK)
            atomic_fetch_add(&lots_lost, 1);
    }
    return sum + n * (n + 1) / 2;
}

static void *run_many(void *method)
{
    static _Alignas(16) char rooms[THREADS][512];
    static _Atomic unsigned number;
    pp_thread own;
    uint64_t saved[SAVE_SLOTS] = { 1, 2, 3, 4, 5 }, result;
    unsigned me = atomic_fetch_add(&number, 1), wrong = 0;
    if (pp_thread_init(&own, NULL, NULL) != PP_OK
        || pp_thread_set_buffers(&own, rooms[me], 16, 2 + me) != PP_OK)
        return "not made";
    for (unsigned i = 0; i < RUNS; i++)
        wrong += !method_run(method, &own, 50, NULL, 1, saved, &result) || result != 1275;
    pthread_barrier_wait(&all_done); /* nobody gives back to a thread that is gone */
    return wrong ? "wrong" : NULL;
}

START_TEST(threads_have_buffers_of_their_own)
{
    struct method method;
    pthread_t threads[THREADS];
    pp_pool *pool;
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    open_method(&method, pool, link_body(pool));
    ck_assert_int_eq(pthread_barrier_init(&all_done, NULL, THREADS), 0);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_many, &method), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        void *wrong;
        ck_assert_int_eq(pthread_join(threads[i], &wrong), 0);
        ck_assert_ptr_null(wrong);
    }
    ck_assert_uint_gt(lot_count, THREADS);
    ck_assert_uint_eq(lots_lost, 0);
    ck_assert_int_eq(method_close(&method), PP_OK);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- compiled bodies --------------------------------------------------------- */

/*
 * A function of a buffer and a thread: loads n and sum into registers that it has saved,
 * calls pp_buffer_release, and finishes the sum.
 */
static pp_trace *link_function(pp_pool *pool)
{
    struct snippet s = { 0 };
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD };
    pp_symbol release = pp_symbol_define(pool, "release", (const void *) pp_buffer_release);
    pp_trace *trace;
#if defined __x86_64__
    SNIPPET_CODE(&s, 0x55, 0x48, 0x89, 0xe5, 0x53, 0x41, 0x54); /* push; mov; push %rbx, %r12 */
    SNIPPET_CODE(&s, 0x48, 0x8b, 0x1f, 0x4c, 0x8b, 0x67, 0x08); /* mov (%rdi), %rbx; 8, %r12 */
    SNIPPET_CODE(&s, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xc6); /* rdi <-> rsi */
    snippet_call(&s, release);
    SNIPPET_CODE(&s, 0x49, 0x01, 0xdc, 0x48, 0xff, 0xcb, 0x75, 0xf8); /* add; dec %rbx; jnz */
    SNIPPET_CODE(&s, 0x4c, 0x89, 0xe0, 0x41, 0x5c, 0x5b, 0x5d, 0xc3); /* mov %r12, %rax; pops */
#else
    SNIPPET_WORDS(&s, 0xa9be7bfd, 0x910003fd, 0xa90153f3); /* stp, #-32; mov; stp x19, x20 */
    SNIPPET_WORDS(&s, 0xa9405013, 0xaa0003e9, 0xaa0103e0, 0xaa0903e1); /* ldp; x0 <-> x1 */
    snippet_call(&s, release);
    SNIPPET_WORDS(&s, 0x8b130294, 0xf1000673, 0x54ffffc1); /* add x20; subs x19; b.ne */
    SNIPPET_WORDS(&s, 0xaa1403e0, 0xa94153f3, 0xa8c27bfd, 0xd65f03c0); /* mov x0; ldps; ret */
    rule.cfa_offset = 32;
#endif
    pp_trace_desc desc = snippet_desc(&s);
    desc.frame = &rule;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    snippet_free(&s);
    return trace;
}

/* One buffer is enough: each activation has given it back before the next one. */
START_TEST(compiled_bodies_give_their_buffers_back)
{
    struct method method;
    pp_pool *pool;
    pp_site_stats stats = { .size = sizeof stats };
    give_buffers(16, 1);
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    open_method(&method, pool, link_function(pool));
    for (uint64_t n = 1; n < 100; n++) {
        uint64_t saved[SAVE_SLOTS] = { 6, 7, 8, 9 }, result;
        ck_assert(method_run(&method, &thread, n, NULL, 1, saved, &result));
        ck_assert_uint_eq(result, n * (n + 1) / 2);
        ck_assert_ptr_null(pp_buffer_next(&thread, NULL));
    }
    ck_assert_int_eq(pp_site_get_stats(method.sites[0], &stats), PP_OK);
    ck_assert_uint_eq(stats.transitions, 95);
    ck_assert_uint_eq(stats.refusals, 0);
    ck_assert_int_eq(method_close(&method), PP_OK);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("buffer");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, buffers_need_room);
    tcase_add_test(tests, each_buffer_has_one_owner);
    tcase_add_test(tests, frames_that_are_gone_have_none);
    tcase_add_test(tests, another_thread_gives_a_buffer_back);
    tcase_add_test(tests, threads_have_buffers_of_their_own);
    tcase_add_test(tests, compiled_bodies_give_their_buffers_back);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
