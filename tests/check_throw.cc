/* SPDX-License-Identifier: MIT */
/*
 * C++ exceptions thrown by C++ that compiled code has called, through pp_leave,
 * traces and pp_enter, to a C++ function that has called these.
 *
 * Built twice: check_throw has libgcc's unwinder in front of libunwind's,
 * check_throw_libunwind the other way round; whoever serves the exceptions must
 * find the way.  With libunwind in front a C++ program cannot be unwound by
 * force, whatever is on its stack: the C library takes libgcc's unwinder for it,
 * and the C++ library's personality routine asks libunwind.
 */
#include <config.h>

#include "stress/frames.h"

#include <check.h>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <pthread.h>
#include <stdexcept>

namespace {

pp_pool *pool;
pp_thread thread;
pp_trace *tier0, *osr_reserve, *osr_reload;
pp_entry *entries[2];

union {
    frames_shadow shadow;
    char room[sizeof(frames_shadow) + 64 * sizeof(frames_shadow_entry)];
} shadow;

frames_call call_make()
{
    frames_call call = {};
    call.thread = &thread;
    call.leave = pp_leave;
    call.shadow = &shadow.shadow;
    call.threshold = 1000;
    return call;
}

pp_status produce(void *host, pp_site *, const pp_regs *, pp_entry **entry)
{
    *entry = static_cast<pp_entry *>(host);
    return PP_OK;
}

/* A tier-0 method that enters this OSR body at its first patchpoint. */
pp_trace *tier0_with(pp_entry *entry)
{
    pp_site *site;
    pp_trace *trace;
    pp_site_desc desc = {};
    desc.size = sizeof desc;
    desc.kind = PP_SITE_COUNTED;
    desc.counter = PP_COUNTER_FRAME;
    desc.counter_offset = FRAMES_COUNTER_SLOT;
    desc.threshold = 1;
    desc.save = PP_SAVE_V128;
    desc.thread_offset = FRAMES_THREAD_SLOT;
    desc.tier0 = &frames_tier0_layout;
    desc.produce = produce;
    desc.host = entry;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    ck_assert_int_eq(frames_link_tier0(pool, "tier0", site, &trace), PP_OK);
    return trace;
}

void setup()
{
    ck_assert_int_eq(pp_pool_create(nullptr, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, nullptr, nullptr), PP_OK);
    ck_assert_int_eq(frames_link_tier0(pool, "tier0", nullptr, &tier0), PP_OK);
    ck_assert_int_eq(frames_link_osr(pool, "reserve", PP_CSR_RESERVE, &osr_reserve, &entries[0]),
                     PP_OK);
    ck_assert_int_eq(frames_link_osr(pool, "reload", PP_CSR_RELOAD, &osr_reload, &entries[1]),
                     PP_OK);
    shadow.shadow.depth = 0;
}

void teardown()
{
    pp_pool_destroy(pool);
}

struct fault : std::runtime_error {
    explicit fault(int n) : std::runtime_error("fault"), number(n) {}
    int number;
};

unsigned destroyed;

struct guard {
    ~guard() { destroyed++; }
};

__attribute__((noinline)) void thrower(frames_call *call)
{
    guard here;
    throw fault(*static_cast<int *>(call->host));
}

__attribute__((noinline)) void nested(frames_call *call)
{
    guard here;
    frames_call *inner = static_cast<frames_call *>(call->host);
    pp_enter(&thread, pp_trace_entry(tier0), reinterpret_cast<uintptr_t>(inner), 0, 0, 0);
}

/* Values that live across the call, more than there are callee-saved registers. */
__attribute__((noinline)) uint64_t catch_one(const pp_trace *code, frames_call *call, uint64_t x)
{
    uint64_t a = x * 3, b = x * 5, c = x * 7, d = x * 11, e = x * 13, f = x * 17, g = x * 19,
             h = x * 23;
    double p = static_cast<double>(x) * 0.5, q = static_cast<double>(x) * 0.25;
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
    __asm__ volatile("" : "+r"(e), "+r"(f), "+r"(g), "+r"(h));
    uint64_t caught = 0;
    const uintptr_t depth = shadow.shadow.depth;
    try {
        pp_enter(&thread, pp_trace_entry(code), reinterpret_cast<uintptr_t>(call), 0, 0, 0);
    } catch (const fault &what) {
        caught = static_cast<uint64_t>(what.number);
        shadow.shadow.depth = depth; /* the methods' epilogues have not run */
    }
    __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d));
    __asm__ volatile("" : "+r"(e), "+r"(f), "+r"(g), "+r"(h));
    ck_assert_uint_eq(a, x * 3);
    ck_assert_uint_eq(b, x * 5);
    ck_assert_uint_eq(c, x * 7);
    ck_assert_uint_eq(d, x * 11);
    ck_assert_uint_eq(e, x * 13);
    ck_assert_uint_eq(f, x * 17);
    ck_assert_uint_eq(g, x * 19);
    ck_assert_uint_eq(h, x * 23);
    ck_assert(p == static_cast<double>(x) * 0.5 && q == static_cast<double>(x) * 0.25);
    return caught;
}

/* No activation is left, for walkers and for the next one. */
void expect_root()
{
    pp_walk walk;
    pp_frame frame = {};
    frame.size = sizeof frame;
    ck_assert_uint_eq(thread.anchor, 0);
    ck_assert_uint_eq(thread.exit_fp, 0);
    pp_walk_begin(&walk, &thread, nullptr);
    ck_assert_int_eq(pp_walk_next(&walk, &frame), 0);
    ck_assert_int_eq(walk.end, PP_END_ROOT);
}

START_TEST(through_tier0)
{
    for (int number = 1; number < 200; number++) {
        frames_call call = call_make();
        call.visible = thrower;
        call.host = &number;
        destroyed = 0;
        ck_assert_uint_eq(catch_one(tier0, &call, 0x1234567u * static_cast<unsigned>(number)),
                          static_cast<unsigned>(number));
        ck_assert_uint_eq(destroyed, 1);
        expect_root();
    }
}
END_TEST

START_TEST(through_an_osr_body)
{
    pp_trace *code = tier0_with(entries[_i]);
    for (int number = 1; number < 200; number++) {
        frames_call call = call_make();
        call.visible = thrower;
        call.host = &number;
        ck_assert_uint_eq(catch_one(code, &call, 0x7654321u * static_cast<unsigned>(number)),
                          static_cast<unsigned>(number));
        expect_root();
    }
}
END_TEST

START_TEST(through_activations)
{
    pp_trace *code = tier0_with(entries[0]);
    int number = 42;
    frames_call inner = call_make(), deep = call_make(), outer = call_make();
    inner.visible = thrower;
    inner.host = &number;
    deep.callee = pp_trace_entry(code); /* a trace calls a trace, which enters its OSR body */
    deep.callee_call = &inner;
    outer.visible = nested;
    outer.host = &deep;
    destroyed = 0;
    ck_assert_uint_eq(catch_one(tier0, &outer, 99), 42);
    ck_assert_uint_eq(destroyed, 2);
    expect_root();
}
END_TEST

/* Caught in the middle: the activation below goes on, and is what a walker sees. */
unsigned frames_after_catch;

void catches(frames_call *call)
{
    ck_assert_uint_eq(catch_one(tier0, static_cast<frames_call *>(call->host), 5), 7);
    pp_walk walk;
    pp_frame frame = {};
    frame.size = sizeof frame;
    for (pp_walk_begin(&walk, &thread, nullptr); pp_walk_next(&walk, &frame);)
        frames_after_catch++;
    ck_assert_int_eq(walk.end, PP_END_ROOT);
}

START_TEST(caught_between_activations)
{
    int number = 7;
    frames_call inner = call_make(), outer = call_make();
    inner.visible = thrower;
    inner.host = &number;
    outer.visible = catches;
    outer.host = &inner;
    frames_after_catch = 0;
    pp_enter(&thread, pp_trace_entry(tier0), reinterpret_cast<uintptr_t>(&outer), 0, 0, 0);
    ck_assert_uint_eq(frames_after_catch, 3); /* pp_leave, tier-0, pp_enter */
    expect_root();
}
END_TEST

#ifndef LIBUNWIND_FIRST
/* A thread that ends in the middle: the C library unwinds its stack by force. */
void leaves_thread(frames_call *)
{
    guard here;
    pthread_exit(nullptr);
}

void *thread_main(void *)
{
    guard here;
    frames_call call = call_make();
    call.visible = leaves_thread;
    ck_assert_int_eq(pp_thread_init(&thread, nullptr, nullptr), PP_OK);
    pp_enter(&thread, pp_trace_entry(tier0), reinterpret_cast<uintptr_t>(&call), 0, 0, 0);
    return &thread; /* not reached */
}

START_TEST(forced_unwinding)
{
    pthread_t other;
    void *result = &other;
    destroyed = 0;
    ck_assert_int_eq(pthread_create(&other, nullptr, thread_main, nullptr), 0);
    ck_assert_int_eq(pthread_join(other, &result), 0);
    ck_assert_ptr_null(result);
    ck_assert_uint_eq(destroyed, 2);
    ck_assert_uint_eq(thread.anchor, 0);
    ck_assert_uint_eq(thread.exit_fp, 0);
}
END_TEST
#endif

} /* namespace */

int main()
{
    Dl_info info;
    void *raise = dlsym(RTLD_DEFAULT, "_Unwind_RaiseException");
    if (raise != nullptr && dladdr(raise, &info) != 0)
        std::printf("exceptions by %s\n", info.dli_fname);

    Suite *suite = suite_create("throw");
    TCase *tests = tcase_create("throw");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, through_tier0);
    tcase_add_loop_test(tests, through_an_osr_body, 0, 2);
    tcase_add_test(tests, through_activations);
    tcase_add_test(tests, caught_between_activations);
#ifndef LIBUNWIND_FIRST
    tcase_add_test(tests, forced_unwinding);
#endif
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
