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
extern "C" {
#include "walk/eh_frame.h"
}

#include <check.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <memory>
#include <pthread.h>
#include <stdexcept>
#include <vector>

extern "C" void __register_frame(void *);
extern "C" void __deregister_frame(void *);

namespace {

/* The ways into a body: over tier-0's frame, in its place, or as a function. */
enum body { RESERVE, RELOAD, INDEXED, REPLACE, FUNCTION, BODIES };

const char *const body_names[BODIES] = { "reserve", "reload", "indexed", "replace", "function" };

enum { BUFFER_BYTES = 8, BUFFERS = 4, NAME = 0x71e0, OSR_NAME = 0x05e };

pp_pool *pool;
pp_thread thread;
pp_trace *tier0, *bodies[BODIES];
pp_entry *entries[BODIES];
alignas(16) char buffers[256];

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
    call.name = NAME;
    call.osr_name = OSR_NAME;
    call.threshold = 1; /* a patchpoint's slow path comes at the first pass */
    return call;
}

pp_status produce(void *host, pp_site *, const pp_regs *, pp_entry **entry)
{
    *entry = static_cast<pp_entry *>(host);
    return PP_OK;
}

/* A site at the head of a tier-0 method; all but what is done there. */
pp_site_desc site_desc(pp_site_kind kind, pp_save save)
{
    pp_site_desc desc = {};
    desc.size = sizeof desc;
    desc.kind = kind;
    desc.counter = kind == PP_SITE_POLLED ? PP_COUNTER_SITE : PP_COUNTER_FRAME;
    if (kind != PP_SITE_POLLED) {
        desc.counter_offset = FRAMES_COUNTER_SLOT;
        desc.threshold = 1;
    }
    desc.save = save;
    desc.thread_offset = FRAMES_THREAD_SLOT;
    desc.tier0 = &frames_tier0_layout;
    return desc;
}

pp_trace *tier0_with(pp_site *site)
{
    pp_trace *trace;
    ck_assert_int_eq(frames_link_tier0(pool, "tier0", site, &trace), PP_OK);
    return trace;
}

/* A tier-0 method that enters this body at its first patchpoint. */
pp_trace *tier0_into(body which)
{
    pp_site *site;
    pp_site_desc desc = site_desc(PP_SITE_COUNTED, PP_SAVE_V128);
    desc.produce = produce;
    desc.host = entries[which];
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    return tier0_with(site);
}

/* One of several entries of a body has code of its own, which jumps on to the body. */
pp_status link_indexed(pp_trace **trace, pp_entry **entry)
{
    pp_entry *plain;
    pp_status status = frames_link_osr(pool, body_names[INDEXED], PP_CSR_RESERVE, trace, &plain);
    if (status != PP_OK)
        return status;
    pp_entry_desc desc = {};
    desc.size = sizeof desc;
    desc.style = PP_ON_TOP;
    desc.scheme = PP_CSR_RESERVE;
    desc.code = pp_trace_entry(*trace);
    desc.tier0 = &frames_tier0_layout;
    desc.used = FRAMES_USED;
    desc.flags = PP_ENTRY_INDEX;
    desc.index = 1;
    return pp_entry_create(pool, &desc, entry);
}

pp_status link_body(body which)
{
    pp_trace **trace = &bodies[which];
    pp_entry **entry = &entries[which];
    switch (which) {
    case INDEXED:
        return link_indexed(trace, entry);
    case REPLACE:
        return frames_link_replace(pool, body_names[which], trace, entry);
    case FUNCTION:
        return frames_link_function(pool, body_names[which], trace, entry);
    default:
        return frames_link_osr(pool, body_names[which],
                               which == RELOAD ? PP_CSR_RELOAD : PP_CSR_RESERVE, trace, entry);
    }
}

void thread_open()
{
    ck_assert_int_eq(pp_thread_init(&thread, nullptr, nullptr), PP_OK);
    ck_assert_uint_le(pp_buffer_space(BUFFER_BYTES, BUFFERS), sizeof buffers);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, buffers, BUFFER_BYTES, BUFFERS), PP_OK);
}

void setup()
{
    pp_pool_options options = {};
    options.size = sizeof options;
    options.unwinders = PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    thread_open();
    ck_assert_int_eq(frames_link_tier0(pool, "tier0", nullptr, &tier0), PP_OK);
    for (int which = 0; which < BODIES; which++)
        ck_assert_int_eq(link_body(static_cast<body>(which)), PP_OK);
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

/* The compiled frame that has called C, as the walker sees it. */
const pp_trace *caller;
unsigned caller_kind;

void note_caller()
{
    pp_walk walk;
    pp_frame frame = {};
    frame.size = sizeof frame;
    pp_walk_begin(&walk, &thread, nullptr);
    while (pp_walk_next(&walk, &frame) && frame.kind == PP_WALK_STUB)
        continue;
    caller = frame.trace;
    caller_kind = frame.kind;
}

/* Of a body that was not entered nothing is proven: the walker saw it, and it left its name. */
void expect_thrown_in(body which)
{
    ck_assert_ptr_eq(caller, bodies[which]);
    ck_assert_uint_eq(caller_kind, which == FUNCTION ? PP_WALK_TRACE : PP_WALK_OSR);
    ck_assert_uint_eq(shadow.shadow.entries[shadow.shadow.depth].name, OSR_NAME);
    ck_assert_uint_eq(pp_buffer_reclaim(&thread), which == FUNCTION);
}

__attribute__((noinline)) void thrower(frames_call *call)
{
    guard here;
    note_caller();
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

/* Once, with another number and other values each time. */
void expect_thrown(const pp_trace *code, void (*visible)(frames_call *), int number)
{
    frames_call call = call_make();
    call.visible = visible;
    call.host = &number;
    destroyed = 0;
    ck_assert_uint_eq(catch_one(code, &call, 0x1234567u * static_cast<unsigned>(number)),
                      static_cast<unsigned>(number));
    ck_assert_uint_eq(destroyed, 1);
    expect_root();
}

START_TEST(through_tier0)
{
    for (int number = 1; number < 200; number++) {
        expect_thrown(tier0, thrower, number);
        ck_assert_ptr_eq(caller, tier0);
        ck_assert_uint_eq(shadow.shadow.entries[0].name, NAME);
    }
}
END_TEST

START_TEST(through_a_body)
{
    const body which = static_cast<body>(_i);
    pp_trace *code = tier0_into(which);
    for (int number = 1; number < 200; number++) {
        expect_thrown(code, thrower, number);
        expect_thrown_in(which);
    }
}
END_TEST

/* A trace calls a trace, which enters a body; and the same in the activation below. */
START_TEST(through_activations)
{
    const body which = static_cast<body>(_i);
    pp_trace *code = tier0_into(which);
    int number = 42;
    frames_call inner = call_make(), deep = call_make(), outer = call_make();
    inner.visible = thrower;
    inner.host = &number;
    deep.callee = pp_trace_entry(code);
    deep.callee_call = &inner;
    outer.visible = nested;
    outer.host = &deep;
    destroyed = 0;
    ck_assert_uint_eq(catch_one(code, &outer, 99), 42);
    ck_assert_uint_eq(destroyed, 2);
    ck_assert_ptr_eq(caller, bodies[which]);
    ck_assert_uint_eq(shadow.shadow.entries[0].name, OSR_NAME); /* outer's; the next is deep's */
    ck_assert_uint_eq(shadow.shadow.entries[1].name, NAME);
    ck_assert_uint_eq(shadow.shadow.entries[2].name, OSR_NAME);
    ck_assert_uint_eq(pp_buffer_reclaim(&thread), which == FUNCTION ? 2 : 0);
    expect_root();
}
END_TEST

/* The frame goes on at its patchpoint, without the frames of C that it had called. */
void resumes(frames_call *call)
{
    pp_walk walk;
    pp_frame frame = {};
    frame.size = sizeof frame;
    pp_walk_begin(&walk, &thread, nullptr);
    while (pp_walk_next(&walk, &frame) && frame.kind == PP_WALK_STUB)
        continue;
    call->visible = thrower;
    pp_resume_point point = {};
    point.pc = reinterpret_cast<uintptr_t>(pp_trace_entry(tier0))
               + static_cast<uintptr_t>(frames_tier0_head_end - frames_tier0_head);
    point.fp = frame.fp;
    point.sp = frame.fp - FRAMES_BYTES;
    ck_abort_msg("pp_resume: %s", pp_strerror(pp_resume(&thread, &point)));
}

START_TEST(through_a_resumed_frame)
{
    for (int number = 1; number < 200; number++) {
        expect_thrown(tier0, resumes, number);
        ck_assert_ptr_eq(caller, tier0);
    }
}
END_TEST

#ifndef LIBUNWIND_FIRST
/* ---- beside unwind information of the host's --------------------------------- */

#if defined __x86_64__
const pp_arch ARCH = PP_ARCH_X86_64;
#else
const pp_arch ARCH = PP_ARCH_AARCH64;
#endif

extern "C" void throw_seven()
{
    throw 7;
}

/* A function with a frame record that calls throw_seven. */
std::vector<uint8_t> calling_code()
{
    const uintptr_t target = reinterpret_cast<uintptr_t>(throw_seven);
#if defined __x86_64__
    std::vector<uint8_t> code = { 0x55, 0x48, 0x89, 0xe5, 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0,
                                  0xff, 0xd0, 0x5d, 0xc3 };
    std::memcpy(&code[6], &target, sizeof target);
#else
    const uint32_t words[] = { 0xa9bf7bfd, 0x910003fd, 0x58000090, 0xd63f0200, /* stp, mov, ldr, blr */
                               0xa8c17bfd, 0xd65f03c0 };                       /* ldp, ret */
    std::vector<uint8_t> code(sizeof words + sizeof target);
    std::memcpy(&code[0], words, sizeof words);
    std::memcpy(&code[sizeof words], &target, sizeof target);
#endif
    return code;
}

struct host_code {
    pp_span *span;
    void (*function)();
    uint8_t eh_frame[EH_FRAME_CAPACITY(1)];
};

const pp_frame_rule plain_rule = { sizeof(pp_frame_rule), PP_FRAME_RECORD, 16, {}, {}, 0, 0 };

/* A span with this rule; registered by the host itself, if it likes. */
std::unique_ptr<host_code> place_code(const pp_frame_rule *rule, bool registers)
{
    static const frame_rule told = { PP_FRAME_RECORD, 16, {}, {}, false };
    const std::vector<uint8_t> code = calling_code();
    std::unique_ptr<host_code> result(new host_code());
    pp_span_desc want = {};
    want.size = sizeof want;
    want.bytes = code.size();
    want.frame = rule;
    pp_span_place place = {};
    place.size = sizeof place;
    ck_assert_int_eq(pp_span_alloc(pool, &want, &result->span, &place), PP_OK);
    std::memcpy(place.write, code.data(), code.size());
    ck_assert_int_eq(pp_span_publish(pool, &result->span, 1, nullptr), PP_OK);
    const uintptr_t start = reinterpret_cast<uintptr_t>(place.execute);
    result->function = reinterpret_cast<void (*)()>(start);
    const eh_frame_part part = { start, start + code.size(), &told };
    uint32_t fde;
    ck_assert_uint_ne(eh_frame_encode(ARCH, &part, 1, result->eh_frame,
                                      sizeof result->eh_frame, &fde), 0);
    if (registers)
        __register_frame(result->eh_frame);
    return result;
}

void expect_seven(const host_code &code)
{
    int caught = 0;
    try {
        code.function();
    } catch (int number) {
        caught = number;
    }
    ck_assert_int_eq(caught, 7);
}

/* As compilers do that register each object: between code of which libgcc is told. */
START_TEST(through_code_that_the_host_registers)
{
    pp_frame_rule own = plain_rule;
    own.flags = PP_FRAME_UNREGISTERED;
    std::unique_ptr<host_code> all[24];
    for (int i = 0; i < 24; i++) {
        bool registers = i % 3 == 1;
        all[i] = place_code(registers ? &own : &plain_rule, registers);
        expect_seven(*all[i]);
    }
    for (int i = 0; i < 24; i++)
        expect_seven(*all[(i * 7) % 24]);
    for (int i = 1; i < 24; i += 6) {
        __deregister_frame(all[i]->eh_frame);
        ck_assert_int_eq(pp_span_free(pool, all[i]->span), PP_OK);
    }
    for (int i = 0; i < 24; i++)
        if (i % 6 != 1)
            expect_seven(*all[i]);
    for (int i = 4; i < 24; i += 6)
        __deregister_frame(all[i]->eh_frame);
}
END_TEST

/* Threads throw through told code while regions are told and forgotten. */
void *throw_often(void *argument)
{
    const host_code *code = static_cast<const host_code *>(argument);
    for (int i = 0; i < 2000; i++)
        expect_seven(*code);
    return nullptr;
}

START_TEST(while_regions_come_and_go)
{
    pthread_t threads[2];
    const std::unique_ptr<host_code> code = place_code(&plain_rule, false);
    for (pthread_t &other : threads)
        ck_assert_int_eq(pthread_create(&other, nullptr, throw_often, code.get()), 0);
    for (int i = 0; i < 40; i++) {
        pp_pool_options options = {};
        options.size = sizeof options;
        options.region_bytes = 2 << 20;
        options.unwinders = PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND;
        pp_pool *const before = pool;
        ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
        for (int j = 0; j < 10; j++) {
            pp_frame_rule rule = plain_rule;
            rule.saves.slots = rule.saves.saved = 1 << 3;
            rule.saves.offset = -8 * (j + 1);
            place_code(&rule, false);
        }
        pp_pool_destroy(pool);
        pool = before;
    }
    for (pthread_t other : threads)
        ck_assert_int_eq(pthread_join(other, nullptr), 0);
}
END_TEST

/* And in a pool of which nobody is told, all of whose code may be the host's to register. */
START_TEST(through_registered_code_of_a_pool_that_tells_nobody)
{
    pp_pool *const telling = pool;
    ck_assert_int_eq(pp_pool_create(nullptr, &pool), PP_OK);
    std::unique_ptr<host_code> all[24];
    for (int i = 0; i < 24; i++) {
        all[i] = place_code(&plain_rule, true);
        expect_seven(*all[i]);
    }
    for (int i = 0; i < 24; i++)
        __deregister_frame(all[i]->eh_frame);
    pp_pool_destroy(pool);
    pool = telling;
}
END_TEST
#endif

/* ---- out of what a patchpoint calls -------------------------------------- */

/* Whether the processor has what this class saves. */
bool site_make(const pp_site_desc &desc, pp_site **site)
{
    pp_status status = pp_site_create(pool, &desc, site);
    if (status != PP_E_UNSUPPORTED)
        ck_assert_int_eq(status, PP_OK);
    return status == PP_OK;
}

pp_site_desc masked(pp_site_desc desc)
{
    if (desc.save >= PP_SAVE_MASK) {
        desc.live_gpr = 1u << 1 | 1u << 3;
        desc.live_vector = 1u << 1;
    }
    return desc;
}

int thrown;

const void *poll_throws(void *, pp_site *, const pp_regs *)
{
    guard here;
    if (thrown != 0)
        throw fault(thrown);
    return nullptr;
}

/* What a probe has written is for the code behind the site, which an exception never reaches. */
const void *probe_throws(void *host, pp_site *site, pp_regs *regs)
{
    for (unsigned i = 0; i < PP_REGS_GPR_COUNT; i++)
        regs->gpr[i] = ~regs->gpr[i];
    return poll_throws(host, site, regs);
}

/* Of all save classes, each of which has a stub of its own. */
START_TEST(out_of_a_poll_or_probe)
{
    for (int i = PP_SAVE_GPR; i <= PP_SAVE_MASK512; i++) {
        pp_save save = static_cast<pp_save>(i);
        pp_site *site;
        pp_site_desc desc = masked(site_desc(PP_SITE_POLLED, save));
        if (_i == 0)
            desc.poll = poll_throws;
        else
            desc.probe = probe_throws;
        if ((_i == 1 && save == PP_SAVE_ABI) || !site_make(desc, &site))
            continue;
        pp_trace *code = tier0_with(site);
        for (thrown = 1; thrown < 50; thrown++) {
            ck_assert_int_eq(pp_site_request(site), PP_OK);
            expect_thrown(code, nullptr, thrown);
        }
        /* Nothing of it stays: the next pass does what it did before. */
        thrown = 0;
        destroyed = 0;
        frames_call call = call_make();
        if (_i == 0)
            ck_assert_int_eq(pp_site_request(site), PP_OK);
        ck_assert_uint_eq(catch_one(code, &call, 3), 0);
        ck_assert_uint_eq(destroyed, _i == 0);
        expect_root();
    }
}
END_TEST

/* The slow path has a frame more under force, which keeps registers. */
START_TEST(out_of_a_poll_under_force)
{
    pp_force force = {};
    force.size = sizeof force;
    ck_assert_int_eq(pp_force_parse("every=1,clobber,verify", &force), PP_OK);
    ck_assert_int_eq(pp_pool_set_force(pool, &force), PP_OK);
    pp_site *site;
    pp_site_desc desc = site_desc(PP_SITE_POLLED, PP_SAVE_V128);
    desc.poll = poll_throws;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    pp_trace *code = tier0_with(site);
    for (thrown = 1; thrown < 200; thrown++) {
        ck_assert_int_eq(pp_site_request(site), PP_OK);
        expect_thrown(code, nullptr, thrown);
    }
}
END_TEST

pp_status produce_throws(void *, pp_site *, const pp_regs *, pp_entry **)
{
    guard here;
    throw fault(thrown);
}

/* The manual forbids it, and says what comes of it: the site compiles for ever, the thread is well. */
START_TEST(out_of_a_producer)
{
    for (int i = PP_SAVE_GPR; i <= PP_SAVE_MASK512; i++) {
        pp_site *site;
        pp_site_desc desc = masked(site_desc(PP_SITE_COUNTED, static_cast<pp_save>(i)));
        desc.produce = produce_throws;
        if (!site_make(desc, &site))
            continue;
        pp_trace *code = tier0_with(site);
        thrown = i;
        expect_thrown(code, nullptr, i);
        ck_assert_int_eq(pp_site_state(site), PP_SITE_COMPILING);
        expect_thrown(code, thrower, 77);
        ck_assert_ptr_eq(caller, code);
        ck_assert_int_eq(pp_site_state(site), PP_SITE_COMPILING);
    }
}
END_TEST

/* A producer may throw to itself, and run code that throws. */
pp_status produce_catches(void *host, pp_site *, const pp_regs *, pp_entry **entry)
{
    frames_call call = call_make();
    call.visible = thrower;
    call.host = &thrown;
    ck_assert_uint_eq(catch_one(tier0, &call, 7), static_cast<unsigned>(thrown));
    *entry = static_cast<pp_entry *>(host);
    return PP_OK;
}

START_TEST(caught_in_a_producer)
{
    const body which = static_cast<body>(_i);
    pp_site *site;
    pp_site_desc desc = site_desc(PP_SITE_COUNTED, PP_SAVE_V128);
    desc.produce = produce_catches;
    desc.host = entries[which];
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    pp_trace *code = tier0_with(site);
    int number = 43;
    frames_call call = call_make();
    call.visible = thrower;
    call.host = &number;
    thrown = 44;
    destroyed = 0;
    ck_assert_uint_eq(catch_one(code, &call, 5), 43);
    ck_assert_uint_eq(destroyed, 2);
    expect_thrown_in(which);
    expect_root();
}
END_TEST

/* ---- and further ----------------------------------------------------------- */

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
    note_caller();
    pthread_exit(nullptr);
}

void *thread_main(void *code)
{
    guard here;
    frames_call call = call_make();
    call.visible = leaves_thread;
    thread_open();
    pp_enter(&thread, pp_trace_entry(static_cast<pp_trace *>(code)),
             reinterpret_cast<uintptr_t>(&call), 0, 0, 0);
    return &thread; /* not reached */
}

START_TEST(forced_unwinding)
{
    pthread_t other;
    void *result = &other;
    pp_trace *code = _i < BODIES ? tier0_into(static_cast<body>(_i)) : tier0;
    destroyed = 0;
    ck_assert_int_eq(pthread_create(&other, nullptr, thread_main, code), 0);
    ck_assert_int_eq(pthread_join(other, &result), 0);
    ck_assert_ptr_null(result);
    ck_assert_uint_eq(destroyed, 2);
    ck_assert_ptr_eq(caller, _i < BODIES ? bodies[_i] : tier0);
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
    tcase_add_loop_test(tests, through_a_body, 0, BODIES);
    tcase_add_loop_test(tests, through_activations, 0, BODIES);
#ifndef LIBUNWIND_FIRST
    tcase_add_test(tests, through_code_that_the_host_registers);
    tcase_add_test(tests, while_regions_come_and_go);
    tcase_add_test(tests, through_registered_code_of_a_pool_that_tells_nobody);
#endif
    tcase_add_test(tests, through_a_resumed_frame);
    tcase_add_loop_test(tests, out_of_a_poll_or_probe, 0, 2);
    tcase_add_test(tests, out_of_a_poll_under_force);
    tcase_add_test(tests, out_of_a_producer);
    tcase_add_loop_test(tests, caught_in_a_producer, 0, BODIES);
    tcase_add_test(tests, caught_between_activations);
#ifndef LIBUNWIND_FIRST
    tcase_add_loop_test(tests, forced_unwinding, 0, BODIES + 1);
#endif
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
