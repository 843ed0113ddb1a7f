/* SPDX-License-Identifier: MIT */
/*
 * Tokens: of live, freed, retired and foreign code, pinned and resumed; and code
 * that goes by its own address, made of the bytes of the emitters.
 */
#include <config.h>

#include "stress/method.h"

#include <patchpoint/fault.h>
#include <patchpoint/retire.h>

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#if defined __x86_64__
static const uint8_t body[] = { 0xf3, 0x0f, 0x1e, 0xfa, 0xb8, 42, 0, 0, 0, 0xc3 }; /* 42 */
enum { RESULT = 0, STEP = 1 };
static const uint8_t leave_it[] = { 0xc3 };
#else
static const uint32_t body[] = { 0xd503245f, 0x52800540, 0xd65f03c0 };
enum { RESULT = 0, STEP = 4 };
static const uint32_t leave_it[] = { 0xd65f03c0 };
#endif

static pp_pool *pool;

static void setup(void)
{
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static pp_trace *link_code(const void *code, size_t size, const pp_reloc *relocs, size_t count)
{
    static const pp_frame_rule leaf = { .size = sizeof leaf, .kind = PP_FRAME_LEAF };
    static const uint8_t data[64];
    pp_trace_desc desc = { .size = sizeof desc, .code = code, .code_size = size, .data = data,
                           .data_size = sizeof data, .relocs = relocs, .reloc_count = count,
                           .frame = &leaf };
    pp_trace *trace;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    return trace;
}

static pp_trace *link_body(void)
{
    return link_code(body, sizeof body, NULL, 0);
}

START_TEST(tokens_follow_the_life_of_their_code)
{
    pp_trace *trace = link_body();
    const uint8_t *entry = pp_trace_entry(trace);
    pp_token token = { 1, 2 }, kept;
    ck_assert_int_eq(sizeof token, 16);
    ck_assert_int_eq(pp_token_make(entry + sizeof body, &token), PP_E_FAULT); /* padding or data */
    ck_assert_int_eq(pp_token_make(body, &token), PP_E_FAULT);
    ck_assert_int_eq(pp_token_make(NULL, &token), PP_E_ARG);
    ck_assert_int_eq(pp_token_make(entry, NULL), PP_E_ARG);
#if defined __aarch64__
    ck_assert_int_eq(pp_token_make(entry + 2, &token), PP_E_FAULT);
#endif
    ck_assert_uint_eq(token.code, 1);
    ck_assert_uint_eq(token.trace, 2);
    ck_assert_int_eq(pp_token_make(entry + STEP, &token), PP_OK);
    ck_assert_int_eq(pp_token_check(&token), PP_OK);
    ck_assert_ptr_eq(pp_token_code(&token), entry + STEP);
    kept = token;

    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    ck_assert_int_eq(pp_token_check(&token), PP_E_STALE);
    ck_assert_ptr_null(pp_token_code(&token));
    /* Another trace at the same address, many times. */
    bool again = false;
    for (unsigned i = 0; i < 100; i++) {
        trace = link_body();
        again |= pp_trace_entry(trace) == (const void *) entry;
        ck_assert_int_eq(pp_token_check(&kept), PP_E_STALE);
        ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    }
    ck_assert(again);
}
END_TEST

START_TEST(tokens_of_retired_code_are_stale)
{
    pp_trace *trace = link_body();
    const uint8_t *entry = pp_trace_entry(trace);
    pp_token token, other;
    ck_assert_int_eq(pp_token_make(entry, &token), PP_OK);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    ck_assert_int_eq(pp_token_check(&token), PP_E_STALE);
    ck_assert_int_eq(pp_token_make(entry, &other), PP_E_FAULT);
    pp_pin *pin = NULL;
    ck_assert_int_eq(pp_token_pin(pool, &token, &pin), PP_E_STALE);
    ck_assert_ptr_null(pin);
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
    ck_assert_int_eq(pp_token_check(&token), PP_E_STALE);
}
END_TEST

/* ---- beside other threads ------------------------------------------------- */

enum { MANY = 3000 }; /* so that a reclaim takes longer than a turn of the scheduler */
static pp_token shared_token;
static pp_trace *shared_trace;
static _Atomic unsigned phase, answered; /* odd: look; the one that is looked at, or 0 */

static const char *look_at_stale(void)
{
    pp_token token;
    pp_pin *pin;
    if (pp_token_check(&shared_token) != PP_E_STALE || pp_token_code(&shared_token) != NULL)
        return "a token was good again";
    if (pp_trace_entry(shared_trace) != NULL)
        return "a handle had an entry again";
    if (pp_token_make((const void *) shared_token.code, &token) != PP_E_FAULT)
        return "a token was made of code that is not live";
    if (pp_token_pin(pool, &shared_token, &pin) != PP_E_STALE)
        return "a stale token was pinned";
    return NULL;
}

static void *look(void *unused)
{
    const char *complaint = NULL;
    (void) unused;
    for (unsigned now; (now = atomic_load(&phase)) != UINT32_MAX;) {
        if (now % 2 == 0)
            continue;
        bool gone = false;
        do {
            const char *seen = look_at_stale();
            complaint = complaint != NULL ? complaint : seen;
            bool named = pp_trace_host(shared_trace) != NULL;
            if (gone && named)
                complaint = "a handle that was gone had a host again";
            gone = !named;
            atomic_store(&answered, now);
        } while (atomic_load(&phase) == now);
        atomic_store(&answered, 0);
    }
    return (void *) complaint;
}

static void begin_looking(void)
{
    atomic_fetch_add(&phase, 1);
    while (atomic_load(&answered) != atomic_load(&phase))
        continue;
}

static void end_looking(void)
{
    atomic_fetch_add(&phase, 1);
    while (atomic_load(&answered) != 0)
        continue;
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

/* From the retirement to the last byte that a reclaim frees. */
START_TEST(what_is_stale_stays_stale)
{
    static pp_trace *traces[MANY];
    pthread_t looker;
    void *complaint;
    atomic_store(&phase, 0);
    ck_assert_int_eq(pthread_create(&looker, NULL, look, NULL), 0);
    for (double end = seconds() + 1.5; seconds() < end;) {
        static const pp_frame_rule leaf = { .size = sizeof leaf, .kind = PP_FRAME_LEAF };
        pp_trace_desc desc = { .size = sizeof desc, .code = body, .code_size = sizeof body,
                               .frame = &leaf, .host = &pool };
        for (unsigned i = 0; i < MANY; i++)
            ck_assert_int_eq(pp_trace_link(pool, &desc, &traces[i]), PP_OK);
        shared_trace = traces[MANY - 1];
        ck_assert_int_eq(pp_token_make(pp_trace_entry(shared_trace), &shared_token), PP_OK);
        for (unsigned i = 0; i < MANY; i++)
            ck_assert_int_eq(pp_trace_retire(pool, traces[i]), PP_OK);
        ck_assert_ptr_eq(pp_trace_host(shared_trace), &pool);
        begin_looking();
        pp_reclaim_result result = { .size = sizeof result };
        ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, &result), PP_OK);
        ck_assert_uint_eq(result.freed, MANY);
        end_looking();
    }
    atomic_store(&phase, UINT32_MAX);
    ck_assert_int_eq(pthread_join(looker, &complaint), 0);
    ck_assert_msg(complaint == NULL, "%s", (const char *) complaint);
}
END_TEST

static const char *volatile seen_by_handler;
static volatile sig_atomic_t looks;

static void look_from_handler(int number)
{
    pp_token token;
    (void) number;
    if (atomic_load(&phase) % 2 == 0)
        return;
    looks++;
    if (pp_token_check(&shared_token) != PP_E_STALE || pp_token_code(&shared_token) != NULL)
        seen_by_handler = "a token was good again";
    if (pp_trace_entry(shared_trace) != NULL)
        seen_by_handler = "a handle had an entry again";
    if (pp_token_make((const void *) shared_token.code, &token) != PP_E_FAULT)
        seen_by_handler = "a token was made of code that is not live";
}

/* At any instruction of the reclaim itself. */
START_TEST(what_is_stale_stays_stale_for_handlers)
{
    static pp_trace *traces[MANY];
    const struct itimerval often = { { 0, 200 }, { 0, 200 } }, never = { { 0, 0 }, { 0, 0 } };
    struct sigaction action = { .sa_handler = look_from_handler, .sa_flags = SA_RESTART };
    atomic_store(&phase, 0);
    seen_by_handler = NULL;
    looks = 0;
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    for (double end = seconds() + 1; seconds() < end || looks < 10;) {
        for (unsigned i = 0; i < MANY; i++)
            traces[i] = link_body();
        shared_trace = traces[MANY - 1];
        ck_assert_int_eq(pp_token_make(pp_trace_entry(shared_trace), &shared_token), PP_OK);
        for (unsigned i = 0; i < MANY; i++)
            ck_assert_int_eq(pp_trace_retire(pool, traces[i]), PP_OK);
        atomic_store(&phase, 1);
        ck_assert_int_eq(setitimer(ITIMER_REAL, &often, NULL), 0);
        ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
        ck_assert_int_eq(setitimer(ITIMER_REAL, &never, NULL), 0);
        atomic_store(&phase, 2);
    }
    ck_assert_msg(seen_by_handler == NULL, "%s", seen_by_handler);
}
END_TEST

static void *look_at_live(void *complaint)
{
    while (atomic_load(&phase) == 1) {
        if (pp_token_check(&shared_token) != PP_OK || pp_trace_entry(shared_trace) == NULL)
            return complaint;
    }
    return NULL;
}

static void refuse_all(bool refuse)
{
    pp_fault script[] = { { .call = PP_FAULT_MPROTECT, .first = 1 },
                          { .call = PP_FAULT_MADVISE, .first = 1 } };
    ck_assert_int_eq(pp_fault_set(script, refuse ? 2 : 0), PP_OK);
}

/*
 * FLIP: the kernel may refuse to clear code.  What could not be freed was never stale, and what
 * could not be reclaimed never good again.
 */
START_TEST(refusals_change_no_answer)
{
    pp_pool_options options = { .size = sizeof options, .wx = PP_WX_FLIP };
    pp_pool *automatic = pool;
    pthread_t looker;
    void *complaint;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    shared_trace = link_body();
    ck_assert_int_eq(pp_token_make(pp_trace_entry(shared_trace), &shared_token), PP_OK);
    atomic_store(&phase, 1);
    ck_assert_int_eq(pthread_create(&looker, NULL, look_at_live, (void *) "it was stale"), 0);
    refuse_all(true);
    for (double end = seconds() + 0.3; seconds() < end;)
        ck_assert_int_eq(pp_trace_free(pool, shared_trace), PP_E_NOMEM);
    refuse_all(false);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    atomic_store(&phase, 2);
    ck_assert_int_eq(pthread_join(looker, &complaint), 0);
    ck_assert_msg(complaint == NULL, "%s", (const char *) complaint);

    ck_assert_int_eq(pp_trace_retire(pool, shared_trace), PP_OK);
    ck_assert_int_eq(pthread_create(&looker, NULL, look, NULL), 0);
    begin_looking();
    refuse_all(true);
    for (double end = seconds() + 0.3; seconds() < end;)
        ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_E_NOMEM);
    refuse_all(false);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
    atomic_store(&phase, UINT32_MAX);
    ck_assert_int_eq(pthread_join(looker, &complaint), 0);
    ck_assert_msg(complaint == NULL, "%s", (const char *) complaint);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
    pool = automatic;
}
END_TEST

/* ---- pins ----------------------------------------------------------------- */

START_TEST(pins_keep_the_code)
{
    pp_trace *trace = link_body();
    pp_token token;
    pp_pin *pins[3];
    ck_assert_int_eq(pp_token_make(pp_trace_entry(trace), &token), PP_OK);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_eq(pp_token_pin(pool, &token, &pins[i]), PP_OK);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(pp_trace_free(pool, trace), PP_E_BUSY);
        ck_assert_int_eq(pp_trace_retire(pool, trace), PP_E_BUSY);
        ck_assert_int_eq(pp_token_unpin(pool, pins[i]), PP_OK);
        ck_assert_int_eq(pp_token_unpin(pool, pins[i]), PP_E_STALE);
    }
    pp_pool *other;
    ck_assert_int_eq(pp_pool_create(NULL, &other), PP_OK);
    ck_assert_int_eq(pp_token_pin(other, &token, &pins[0]), PP_E_FAULT);
    ck_assert_int_eq(pp_token_pin(pool, &token, &pins[1]), PP_OK);
    ck_assert_int_eq(pp_token_unpin(other, pins[1]), PP_E_FAULT);
    ck_assert_int_eq(pp_token_unpin(pool, pins[1]), PP_OK);
    pp_pool_destroy(other);
    ck_assert_int_eq(pp_token_pin(NULL, &token, &pins[0]), PP_E_ARG);
    ck_assert_int_eq(pp_token_pin(pool, NULL, &pins[0]), PP_E_ARG);
    ck_assert_int_eq(pp_token_pin(pool, &token, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_token_unpin(pool, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    ck_assert_int_eq(pp_token_pin(pool, &token, &pins[0]), PP_E_STALE);
}
END_TEST

START_TEST(words_that_are_no_token)
{
    pp_trace *trace = link_body(), *second = link_body();
    const uint8_t *entry = pp_trace_entry(trace);
    pp_token token;
    ck_assert_int_eq(pp_token_make(entry, &token), PP_OK);
    token.code += sizeof body;
    ck_assert_int_eq(pp_token_check(&token), PP_E_FAULT);
    token.code = (uintptr_t) pp_trace_entry(second);
    ck_assert_int_eq(pp_token_check(&token), PP_E_FAULT);
    token.code = (uintptr_t) entry - STEP;
    ck_assert_int_eq(pp_token_check(&token), PP_E_FAULT);
    static const uintptr_t wild[] = { 0, 1, 15, 4096, UINTPTR_MAX, UINTPTR_MAX / 2, 1ull << 47 };
    for (size_t i = 0; i < sizeof wild / sizeof wild[0]; i++) {
        token = (pp_token) { (uintptr_t) entry, wild[i] };
        ck_assert_int_ne(pp_token_check(&token), PP_OK);
        token = (pp_token) { wild[i], (uintptr_t) trace };
        ck_assert_int_eq(pp_token_check(&token), PP_E_FAULT);
        ck_assert_ptr_null(pp_token_code(&token));
    }
    ck_assert_int_eq(pp_token_check(NULL), PP_E_ARG);
    ck_assert_ptr_null(pp_token_code(NULL));
}
END_TEST

/* Refused before pp_resume has looked at anything; and what that refuses. */
START_TEST(resumes_by_token)
{
    pp_trace *trace = link_body();
    pp_thread thread;
    pp_token token;
    pp_resume_point point = { .sp = 16, .fp = 16 };
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    ck_assert_int_eq(pp_token_make(pp_trace_entry(trace), &token), PP_OK);
    ck_assert_int_eq(pp_token_resume(NULL, &token, &point), PP_E_ARG);
    ck_assert_int_eq(pp_token_resume(&thread, NULL, &point), PP_E_ARG);
    ck_assert_int_eq(pp_token_resume(&thread, &token, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_token_resume(&thread, &token, &point), PP_E_STACK);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    ck_assert_int_eq(pp_token_resume(&thread, &token, &point), PP_E_STALE);
}
END_TEST

/* The buffer of METHOD_SUSPEND, and what the test does in its C function. */
struct suspended {
    pp_resume_point point;
    void (*check)(struct suspended *suspended);
    pp_thread *thread;
    const struct method *method;
    pp_token token;
    pp_status got;       /* of a resume that was refused */
    bool gone;           /* retire the method first */
};
_Static_assert(offsetof(struct suspended, check) == SUSPEND_CHECK, "template.h");

/* The pc of the point is another's; the token has the address. */
static void resume_it(struct suspended *s)
{
    pp_resume_point point = s->point;
    point.pc = (uintptr_t) body;
    point.value = 4711;
    const void *code = (const char *) pp_trace_entry(s->method->trace) + s->method->resume_offset;
    ck_assert_int_eq(pp_token_make(code, &s->token), PP_OK);
    if (s->gone)
        ck_assert_int_eq(pp_trace_retire(pool, s->method->trace), PP_OK);
    uintptr_t exit_fp = s->thread->exit_fp, anchor = s->thread->anchor;
    s->got = pp_token_resume(s->thread, &s->token, &point);
    ck_assert_uint_eq(s->thread->exit_fp, exit_fp);
    ck_assert_uint_eq(s->thread->anchor, anchor);
}

/* The frames of C are left; or, if the code is retired, the method goes on behind its call. */
START_TEST(resumes_where_the_token_says)
{
    pp_thread thread;
    struct method method;
    struct method_shape shape = { .kind = METHOD_SUSPEND };
    uint64_t saved[SAVE_SLOTS] = { 31, 32, 33 }, result;
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
    struct suspended s = { .check = resume_it, .thread = &thread, .method = &method, .got = 1 };
    for (unsigned i = 0; i < 10; i++) {
        ck_assert(method_run(&method, &thread, 1, &s, 0, saved, &result));
        if (s.got == PP_E_UNSUPPORTED) /* a shadow stack is active */
            break;
        ck_assert_uint_eq(result, 4711);
        ck_assert_int_eq(s.got, 1);
        ck_assert_uint_eq(thread.exit_fp, 0);
        ck_assert_uint_eq(thread.anchor, 0);
    }
    s.gone = true;
    ck_assert(method_run(&method, &thread, 1, &s, 0, saved, &result));
    ck_assert_uint_eq(result, 1);
    ck_assert_int_eq(s.got, PP_E_STALE);
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
    method.trace = NULL;
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

/* ---- code that has its own address, and goes there -------------------------------- */

/* A function that makes the address of its second half, and goes there through a register. */
START_TEST(addresses_and_jumps)
{
    for (unsigned reg = 0; reg < 2; reg++) {
        unsigned number = reg ? 8 : RESULT; /* r8; x8 */
        uint8_t code[64];
        size_t size = 0, bytes;
        pp_address_layout layout = { .size = sizeof layout };
        ck_assert_int_eq(pp_emit_address(PP_ARCH_HOST, number, PP_SYMBOL_CODE, 32, code,
                                         sizeof code, &layout), PP_OK);
        size = layout.bytes;
        ck_assert_int_eq(pp_emit_jump_register(PP_ARCH_HOST, number, code + size, sizeof code - size,
                                      &bytes), PP_OK);
        size += bytes;
        while (size < 32)
            code[size++] = 0;           /* never run */
        memcpy(code + size, body, sizeof body);
        size += sizeof body;
        pp_trace *trace = link_code(code, size, layout.relocs, layout.reloc_count);
        uintptr_t (*f)(void) = (uintptr_t (*)(void)) (uintptr_t) pp_trace_entry(trace);
        ck_assert_uint_eq(f(), 42);
        ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    }
    /* The address itself. */
    uint8_t code[32];
    pp_address_layout layout = { .size = sizeof layout };
    ck_assert_int_eq(pp_emit_address(PP_ARCH_HOST, RESULT, PP_SYMBOL_CODE, 0, code, sizeof code,
                                     &layout), PP_OK);
    memcpy(code + layout.bytes, leave_it, sizeof leave_it);
    pp_trace *trace = link_code(code, layout.bytes + sizeof leave_it, layout.relocs,
                                layout.reloc_count);
    uintptr_t (*f)(void) = (uintptr_t (*)(void)) (uintptr_t) pp_trace_entry(trace);
    ck_assert_uint_eq(f(), (uintptr_t) pp_trace_entry(trace));
}
END_TEST

struct emitted {
    pp_arch arch;
    unsigned reg;
    size_t size;
    uint8_t bytes[8];
};

START_TEST(bytes_of_jumps)
{
    static const struct emitted jumps[] = {
        { PP_ARCH_X86_64, 0, 2, { 0xff, 0xe0 } },
        { PP_ARCH_X86_64, 5, 2, { 0xff, 0xe5 } },
        { PP_ARCH_X86_64, 11, 3, { 0x41, 0xff, 0xe3 } },
        { PP_ARCH_X86_64, 12, 3, { 0x41, 0xff, 0xe4 } },
        { PP_ARCH_AARCH64, 16, 4, { 0x00, 0x02, 0x1f, 0xd6 } },
        { PP_ARCH_AARCH64, 17, 4, { 0x20, 0x02, 0x1f, 0xd6 } },
        { PP_ARCH_AARCH64, 3, 8, { 0xf0, 0x03, 0x03, 0xaa, 0x00, 0x02, 0x1f, 0xd6 } },
    };
    for (size_t i = 0; i < sizeof jumps / sizeof jumps[0]; i++) {
        const struct emitted *jump = &jumps[i];
        uint8_t bytes[16] = { 0 };
        size_t size = 0;
        ck_assert_int_eq(pp_emit_jump_register(jump->arch, jump->reg, NULL, 0, &size), PP_OK);
        ck_assert_uint_eq(size, jump->size);
        size = 99;
        ck_assert_int_eq(pp_emit_jump_register(jump->arch, jump->reg, bytes, jump->size - 1, &size),
                         PP_E_RANGE);
        ck_assert_uint_eq(size, 99);
        ck_assert_uint_eq(bytes[0], 0);
        ck_assert_int_eq(pp_emit_jump_register(jump->arch, jump->reg, bytes, sizeof bytes, &size), PP_OK);
        ck_assert_mem_eq(bytes, jump->bytes, jump->size);
    }
    static const struct emitted addresses[] = {
        { PP_ARCH_X86_64, 0, 7, { 0x48, 0x8d, 0x05, 0, 0, 0, 0 } },
        { PP_ARCH_X86_64, 15, 7, { 0x4c, 0x8d, 0x3d, 0, 0, 0, 0 } },
        { PP_ARCH_AARCH64, 3, 8, { 0x03, 0x00, 0x00, 0x90, 0x63, 0x00, 0x00, 0x91 } },
        { PP_ARCH_AARCH64, 30, 8, { 0x1e, 0x00, 0x00, 0x90, 0xde, 0x03, 0x00, 0x91 } },
    };
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        const struct emitted *address = &addresses[i];
        uint8_t bytes[16] = { 0 };
        pp_address_layout layout = { .size = sizeof layout };
        ck_assert_int_eq(pp_emit_address(address->arch, address->reg, PP_SYMBOL_CODE, 5, bytes,
                                         address->size - 1, &layout), PP_E_RANGE);
        ck_assert_uint_eq(layout.bytes, 0);
        ck_assert_int_eq(pp_emit_address(address->arch, address->reg, PP_SYMBOL_CODE, 5, bytes,
                                         sizeof bytes, &layout), PP_OK);
        ck_assert_uint_eq(layout.bytes, address->size);
        ck_assert_mem_eq(bytes, address->bytes, address->size);
    }
    uint8_t bytes[16];
    size_t size;
    pp_address_layout layout = { .size = sizeof layout };
    ck_assert_int_eq(pp_emit_jump_register(PP_ARCH_X86_64, 4, bytes, 16, &size), PP_E_ARG);
    ck_assert_int_eq(pp_emit_jump_register(PP_ARCH_X86_64, 16, bytes, 16, &size), PP_E_ARG);
    ck_assert_int_eq(pp_emit_jump_register(PP_ARCH_AARCH64, 31, bytes, 16, &size), PP_E_ARG);
    ck_assert_int_eq(pp_emit_jump_register((pp_arch) 9, 0, bytes, 16, &size), PP_E_ARG);
    ck_assert_int_eq(pp_emit_jump_register(PP_ARCH_HOST, 0, NULL, 16, &size), PP_E_ARG);
    ck_assert_int_eq(pp_emit_jump_register(PP_ARCH_HOST, 0, bytes, 16, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_emit_address(PP_ARCH_HOST, 0, PP_SYMBOL_CODE, 0, NULL, 16, &layout),
                     PP_E_ARG);
    ck_assert_int_eq(pp_emit_address(PP_ARCH_AARCH64, 31, PP_SYMBOL_CODE, 0, bytes, 16, &layout),
                     PP_E_ARG);
    layout.size = 8;
    ck_assert_int_eq(pp_emit_address(PP_ARCH_HOST, 0, PP_SYMBOL_CODE, 0, bytes, 16, &layout),
                     PP_E_ARG);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("token");
    TCase *tests = tcase_create("token");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, tokens_follow_the_life_of_their_code);
    tcase_add_test(tests, tokens_of_retired_code_are_stale);
    tcase_add_test(tests, what_is_stale_stays_stale);
    tcase_add_test(tests, what_is_stale_stays_stale_for_handlers);
    tcase_add_test(tests, refusals_change_no_answer);
    tcase_add_test(tests, pins_keep_the_code);
    tcase_add_test(tests, words_that_are_no_token);
    tcase_add_test(tests, resumes_by_token);
    tcase_add_test(tests, resumes_where_the_token_says);
    tcase_add_test(tests, addresses_and_jumps);
    tcase_add_test(tests, bytes_of_jumps);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
