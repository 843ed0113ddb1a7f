/* SPDX-License-Identifier: MIT */
/*
 * Refusals: each with its status and its reason, and after each everything is as it was:
 * what the pool holds, the bytes of code, the site and what it has counted, the places
 * for results.
 */
#include <config.h>

#include "stress/method.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#if defined __x86_64__
#define USED (1ull << 3)        /* rbx, which tier-0 has a slot for */
#define NO_SLOT (1ull << 15)    /* r15, which the frame below has none for */
#define NOT_C (1ull << 1)       /* rcx */
#define STUBS_OWN (1u << 11)
#else
#define USED (1ull << 19)
#define NO_SLOT (1ull << 28)
#define NOT_C (1ull << 1)
#define STUBS_OWN (1u << 16)
#endif

enum { CODE = 256 };

static pp_pool *pool;
static pp_thread thread;
static struct method method;
static const uint8_t *code;
static pp_error error;
static int32_t word;

static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site, (void) regs, (void) entry;
    return PP_E_FAULT;
}

static const void *poll(void *host, pp_site *site, const pp_regs *regs)
{
    (void) host, (void) site, (void) regs;
    return NULL;
}

static const void *refused(void *host, pp_site *site, const pp_regs *regs, pp_status why)
{
    (void) host, (void) site, (void) regs, (void) why;
    return NULL;
}

static const pp_tier0_layout frame = {
    .size = sizeof frame, .frame_bytes = 64, .saves = { USED, USED, -64, 0 },
};

/* ---- what must not change --------------------------------------------------------- */

static struct state {
    pp_pool_stats pool;
    pp_site_stats site;
    int site_state;
    uint8_t code[CODE];
} before;

static struct state take(void)
{
    struct state state;
    memset(&state, 0, sizeof state); /* padding is compared, too */
    state.pool.size = sizeof state.pool;
    state.site.size = sizeof state.site;
    ck_assert_int_eq(pp_pool_get_stats(pool, &state.pool), PP_OK);
    ck_assert_int_eq(pp_site_get_stats(method.sites[0], &state.site), PP_OK);
    state.site_state = pp_site_state(method.sites[0]);
    memcpy(state.code, code, CODE);
    return state;
}

static void setup(void)
{
    const struct method_shape shape = { .kind = METHOD_SUM, .threshold = 10 };
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
    code = pp_trace_entry(method.trace);
    before = take();
}

static void teardown(void)
{
    pp_pool_destroy(pool);
}

/* `why`: in the reason; NULL: the call has no place for one. */
static void assert_refused(const char *what, pp_status is, pp_status status, const char *why)
{
    ck_assert_msg(is == status, "%s: %s instead of %s (%s)", what, pp_strerror(is),
                  pp_strerror(status), error.text);
    if (why != NULL)
        ck_assert_msg(error.status == status && strstr(error.text, why) != NULL,
                      "%s: the reason is \"%s\", not \"%s\"", what, error.text, why);
    struct state now = take();
    ck_assert_msg(memcmp(&now, &before, sizeof now) == 0, "%s: something has changed", what);
    ck_assert_msg(pp_pool_verify(pool, NULL) == PP_OK, "%s: the pool does not verify", what);
    error = (pp_error) { .size = sizeof error };
}

/* ---- sites ------------------------------------------------------------------------ */

#define SITE(why, change) { \
    pp_site_desc desc = good; \
    pp_tier0_layout layout = frame; \
    pp_site *site = (pp_site *) &pool; \
    desc.tier0 = &layout; \
    change; \
    assert_refused(#change, pp_site_create(pool, &desc, &site), PP_E_ARG, why); \
    ck_assert_ptr_eq(site, (pp_site *) &pool); }

START_TEST(sites)
{
    const pp_site_desc good = { .size = sizeof good, .kind = PP_SITE_COUNTED, .counter_offset = -8,
                                .threshold = 10, .thread_offset = -16, .produce = produce,
                                .error = &error };
    error = (pp_error) { .size = sizeof error };
    SITE("kind: 77", desc.kind = (pp_site_kind) 77)
    SITE("threshold: 0", desc.threshold = 0)
    SITE("threshold: -5", desc.threshold = -5)
    SITE("threshold: 1073741825", desc.threshold = (1 << 30) + 1)
    SITE("produce: missing", desc.produce = NULL)
    SITE("poll: not polled", desc.poll = poll)
    SITE("otherwise: not forced", desc.otherwise = code)
    SITE("otherwise: not forced", desc.refused = refused)
    SITE("flags: 0x80", desc.flags = 0x80)
    SITE("flags: a counter has four bytes", desc.flags = PP_SITE_BYTE)
    SITE("save: 77", desc.save = (pp_save) 77)
    SITE("live_gpr: 0x1 not kept", desc.live_gpr = 1)
    SITE("live_vector: 0x2 not kept", desc.live_vector = 2)
    SITE("live_gpr: ", desc.save = PP_SAVE_MASK; desc.live_gpr = STUBS_OWN)
    SITE("tier0: missing", desc.tier0 = NULL)
    SITE("tier0: missing", layout.size = 8)
    SITE("tier0.frame_bytes: 56", layout.frame_bytes = 56)
    SITE("tier0.frame_bytes", layout.frame_bytes = (1u << 28) + 16)
    SITE("tier0.cfa_offset: 8", layout.cfa_offset = 8)
    SITE("tier0.cfa_offset: 20", layout.cfa_offset = 20)
    SITE("tier0.saves.slots: not a callee-saved", layout.saves.slots = NOT_C)
    SITE("tier0.saves.saved: a register without", layout.saves.saved = USED | NO_SLOT)
    SITE("tier0.saves.reserved", layout.saves.reserved = 1)
    SITE("tier0.saves.offset: not a multiple", layout.saves.offset = -60)
    SITE("tier0.saves: slots outside", layout.saves.offset = -72)
    SITE("tier0.saves: slots overlap", layout.saves.offset = 8)
    SITE("counter_offset: not a multiple of 4", desc.counter_offset = -6)
    SITE("counter_offset: outside", desc.counter_offset = -68)
    SITE("counter_offset: outside", desc.counter_offset = 16)
    SITE("counter_offset: in the frame record", desc.counter_offset = 8)
    SITE("counter_offset: in the save area", desc.counter_offset = -60)
    SITE("thread_offset: not a multiple of 8", desc.thread_offset = -20)
    SITE("thread_offset: outside", desc.thread_offset = INT32_MIN)
    SITE("thread_offset: outside", desc.thread_offset = 0x7ffffff8)
    SITE("thread_offset: in the frame record", desc.thread_offset = 8)
    SITE("thread_offset: in the save area", desc.thread_offset = -64)
    SITE("thread_offset: the counter is there", desc.counter_offset = -12)
    SITE("counter: 77", desc.counter = (pp_counter) 77)
    SITE("word: the counter is elsewhere", desc.word = &word)
    SITE("word: missing", desc.counter = PP_COUNTER_DATA)
    SITE("word: misaligned", desc.counter = PP_COUNTER_DATA; desc.word = (char *) &word + 2)
    SITE("counter_offset: 60 from", desc.counter = PP_COUNTER_THREAD; desc.counter_offset = 60)
    SITE("counter_offset: 66 from", desc.counter = PP_COUNTER_THREAD; desc.counter_offset = 66)
    SITE("counter_offset: 4096 from", desc.counter = PP_COUNTER_THREAD; desc.counter_offset = 4096)
    SITE("thread_offset: missing", desc.counter = PP_COUNTER_THREAD; desc.thread_offset = 0)
    SITE("otherwise: missing", desc.kind = PP_SITE_FORCED)
    SITE("counter: this kind has none", desc.kind = PP_SITE_FORCED; desc.otherwise = code)
    SITE("counter: this kind has none", desc.kind = PP_SITE_ARMED)
    SITE("produce: not polled", desc.kind = PP_SITE_POLLED; desc.poll = poll)
    SITE("poll: missing", desc.kind = PP_SITE_POLLED; desc.produce = NULL)
    SITE("flags: the site's flag has four", desc.kind = PP_SITE_POLLED; desc.produce = NULL;
         desc.poll = poll; desc.flags = PP_SITE_BYTE; desc.counter = PP_COUNTER_SITE;
         desc.counter_offset = 0)
#if defined __aarch64__
    SITE("otherwise: misaligned", desc.kind = PP_SITE_FORCED; desc.otherwise = code + 2)
#endif
    SITE(NULL, desc.size = 0)
}
END_TEST

/* ---- entries ---------------------------------------------------------------------- */

#define ENTRY(why, status, change) { \
    pp_entry_desc desc = good; \
    pp_entry *entry = (pp_entry *) &pool; \
    change; \
    assert_refused(#change, pp_entry_create(pool, &desc, &entry), status, why); \
    ck_assert_ptr_eq(entry, (pp_entry *) &pool); }

START_TEST(entries)
{
    static const pp_value value = { PP_AT_SLOT(-8), PP_AT_GPR(1), .bytes = 8 };
    const pp_entry_desc good = { .size = sizeof good, .style = PP_ON_TOP, .code = code,
                                 .tier0 = &frame, .used = USED, .error = &error };
    error = (pp_error) { .size = sizeof error };
    ENTRY("style: 0", PP_E_ARG, desc.style = 0)
    ENTRY("style: 4", PP_E_ARG, desc.style = (pp_osr_style) 4)
    ENTRY("scheme: 2", PP_E_ARG, desc.scheme = (pp_csr_scheme) 2)
    ENTRY("code: missing", PP_E_ARG, desc.code = NULL)
    ENTRY("code: not in a committed trace", PP_E_FAULT, desc.code = (const void *) &method_open)
    ENTRY("code: not in a committed trace", PP_E_FAULT, desc.code = code + 0x100000)
    ENTRY("stack_bytes: ", PP_E_ARG, desc.stack_bytes = SIZE_MAX)
    ENTRY("flags: 0x8000", PP_E_ARG, desc.flags = 0x8000)
    ENTRY("tier0: missing", PP_E_ARG, desc.tier0 = NULL)
    ENTRY("used: not a callee-saved", PP_E_ARG, desc.used = NOT_C)
    ENTRY("used: tier-0 reserves no slot", PP_E_ABI, desc.used = USED | NO_SLOT)
    ENTRY("not in this style", PP_E_ARG, desc.body = &frame)
    ENTRY("not in this style", PP_E_ARG, desc.values = &value)
    ENTRY("not in this style", PP_E_ARG, desc.value_count = 1)
    ENTRY("not in this style", PP_E_ARG, desc.thread_offset = -16)
    ENTRY("values: missing", PP_E_ARG, desc.style = PP_REPLACE; desc.body = &frame;
          desc.value_count = 1)
    ENTRY("or more than 1024", PP_E_ARG, desc.style = PP_REPLACE; desc.body = &frame;
          desc.values = &value; desc.value_count = PP_VALUES_MAX + 1)
    ENTRY("body: missing", PP_E_ARG, desc.style = PP_REPLACE)
    ENTRY("body: not in this style", PP_E_ARG, desc.style = PP_BUFFER; desc.thread_offset = -16;
          desc.body = &frame)
    ENTRY("thread_offset: missing", PP_E_ARG, desc.style = PP_BUFFER)
#if defined __aarch64__
    ENTRY("misaligned", PP_E_ARG, desc.code = code + 2)
#endif
    ENTRY(NULL, PP_E_ARG, desc.size = 0)
}
END_TEST

/* ---- policies ----------------------------------------------------------------------- */

#define POLICY(why, change) { \
    pp_policy policy = good; \
    change; \
    assert_refused(#change, pp_pool_set_policy(pool, &policy), PP_E_ARG, why); \
    assert_refused(#change, pp_site_set_policy(method.sites[0], &policy), PP_E_ARG, why); }

START_TEST(policies)
{
    const pp_policy good = { .size = sizeof good, .threshold = 100, .error = &error };
    error = (pp_error) { .size = sizeof error };
    POLICY("threshold: -1", policy.threshold = -1)
    POLICY("threshold: 1073741825", policy.threshold = (1 << 30) + 1)
    POLICY("threshold_max: 99", policy.threshold_max = 99)
    POLICY("threshold_max: -1", policy.threshold_max = -1)
    POLICY("backoff: 17", policy.backoff = 17)
    POLICY("random: 1073741825", policy.random = (1u << 30) + 1)
    POLICY("flags: 0x2", policy.flags = 2)
    POLICY("reserved: not 0", policy.reserved = 1)
    POLICY(NULL, policy.size = 0)
    /* None of them is in force: a method of ten passes moves in its tenth. */
    uint64_t saved[SAVE_SLOTS] = { 0 }, result;
    ck_assert(method_run(&method, &thread, 9, NULL, 1, saved, &result));
    ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_COUNTING);
    ck_assert(method_run(&method, &thread, 10, NULL, 1, saved, &result));
    ck_assert_int_eq(pp_site_state(method.sites[0]), PP_SITE_READY);
}
END_TEST

/* ---- emitters: nothing is written, nothing reported -------------------------------- */

enum { ROOM = 512, UNTOUCHED = 0xa5 };
static uint8_t room[ROOM];
static size_t bytes;

static void assert_untouched(const char *what, pp_status is, pp_status status)
{
    assert_refused(what, is, status, NULL);
    for (size_t i = 0; i < ROOM; i++)
        ck_assert_msg(room[i] == UNTOUCHED, "%s: byte %zu was written", what, i);
    ck_assert_msg(bytes == 77, "%s: a length was reported", what);
}
#define EMIT(status, call) assert_untouched(#call, call, status);

START_TEST(emitters)
{
    static const pp_arch archs[] = { PP_ARCH_X86_64, PP_ARCH_AARCH64 };
    pp_site_layout site = { .size = sizeof site, .bytes = 77 };
    const pp_site_layout same = site;
    memset(room, UNTOUCHED, ROOM);
    bytes = 77;
    EMIT(PP_E_ARG, pp_emit_site(NULL, room, ROOM, &site))
    EMIT(PP_E_ARG, pp_emit_site(method.sites[0], NULL, ROOM, &site))
    EMIT(PP_E_ARG, pp_emit_site(method.sites[0], room, ROOM, NULL))
    EMIT(PP_E_RANGE, pp_emit_site(method.sites[0], room, 4, &site))
    EMIT(PP_E_ARG, pp_emit_site_cold(method.sites[0], 0, room, ROOM, &site))
    /* But for the reason. */
    ck_assert_ptr_nonnull(site.why);
    site.why = NULL;
    ck_assert_mem_eq(&site, &same, sizeof site);
    for (unsigned i = 0; i < 2; i++) {
        pp_address_layout address = { .size = sizeof address, .bytes = 77 };
        const void *odd = (const void *) 0x1002, *here = (const void *) 0x10000;
        EMIT(PP_E_ARG, pp_emit_nop(archs[i], 0, room, ROOM))
        EMIT(PP_E_ARG, pp_emit_nop(archs[i], 16, room, ROOM))
        EMIT(PP_E_ARG, pp_emit_nop(archs[i], 4, NULL, ROOM))
        EMIT(PP_E_RANGE, pp_emit_nop(archs[i], 4, room, 3))
        EMIT(PP_E_ARG, pp_emit_jump(archs[i], here, here, NULL, ROOM, &bytes))
        EMIT(PP_E_ARG, pp_emit_jump(archs[i], here, here, room, ROOM, NULL))
        EMIT(PP_E_RANGE, pp_emit_jump(archs[i], here, here, room, 3, &bytes))
        EMIT(PP_E_RANGE, pp_emit_jump(archs[i], here, (const void *) (1ull << 40), room, ROOM, &bytes))
        if (archs[i] == PP_ARCH_AARCH64) {
            EMIT(PP_E_ARG, pp_emit_jump(archs[i], odd, here, room, ROOM, &bytes))
            EMIT(PP_E_ARG, pp_emit_jump(archs[i], here, odd, room, ROOM, &bytes))
            EMIT(PP_E_ARG, pp_emit_nop(archs[i], 8, room, ROOM))
        }
        EMIT(PP_E_RANGE, pp_emit_resume(archs[i], 0, 0, room, 1, &bytes))
        EMIT(PP_E_ARG, pp_emit_resume(archs[i], 32, 0, room, ROOM, &bytes))
        EMIT(PP_E_RANGE, pp_emit_jump_register(archs[i], 1, room, 1, &bytes))
        EMIT(PP_E_ARG, pp_emit_jump_register(archs[i], 32, room, ROOM, &bytes))
        EMIT(PP_E_RANGE, pp_emit_address(archs[i], 1, PP_SYMBOL_CODE, 0, room, 3, &address))
        EMIT(PP_E_ARG, pp_emit_address(archs[i], 32, PP_SYMBOL_CODE, 0, room, ROOM, &address))
        ck_assert_uint_eq(address.bytes, 77);
    }
    EMIT(PP_E_ARG, pp_emit_nop((pp_arch) 9, 4, room, ROOM))
    EMIT(PP_E_ARG, pp_emit_jump((pp_arch) 9, code, code, room, ROOM, &bytes))
}
END_TEST

START_TEST(prologues)
{
    pp_osr_layout layout = { .size = sizeof layout, .bytes = 77 };
    pp_osr_frame good = { .size = sizeof good, .tier0 = &frame, .used = USED, .local_bytes = 64 };
    const pp_osr_layout same = layout;
    memset(room, UNTOUCHED, ROOM);
    bytes = 77;
    for (unsigned i = 0; i < 2; i++) {
        pp_status (*emit)(const pp_osr_frame *, void *, size_t, pp_osr_layout *) =
            i == 0 ? pp_emit_osr_prologue : pp_emit_osr_epilogue;
        pp_osr_frame bad = good;
        EMIT(PP_E_RANGE, emit(&good, room, 1, &layout))
        EMIT(PP_E_ARG, emit(NULL, room, ROOM, &layout))
        EMIT(PP_E_ARG, emit(&good, NULL, ROOM, &layout))
        EMIT(PP_E_ARG, emit(&good, room, ROOM, NULL))
        bad.used = NO_SLOT;
        EMIT(PP_E_ABI, emit(&bad, room, ROOM, &layout))
        bad.used = NOT_C;
        EMIT(PP_E_ARG, emit(&bad, room, ROOM, &layout))
        bad = good;
        bad.tier0 = NULL;
        EMIT(PP_E_ARG, emit(&bad, room, ROOM, &layout))
        bad = good;
        bad.local_bytes = UINT32_MAX;
        EMIT(PP_E_ARG, emit(&bad, room, ROOM, &layout))
        bad = good;
        bad.arch = (pp_arch) 9;
        EMIT(PP_E_ARG, emit(&bad, room, ROOM, &layout))
        ck_assert_mem_eq(&layout, &same, sizeof layout);
    }
}
END_TEST

/* ---- tokens ----------------------------------------------------------------------- */

START_TEST(tokens)
{
    pp_token token = { 77, 78 };
    pp_pin *pin = (pp_pin *) &pool;
    error = (pp_error) { .size = sizeof error };
    assert_refused("data", pp_token_make(&token, &token), PP_E_FAULT, NULL);
    assert_refused("NULL", pp_token_make(NULL, &token), PP_E_ARG, NULL);
    ck_assert(token.code == 77 && token.trace == 78);
    assert_refused("check", pp_token_check(&token), PP_E_FAULT, NULL);
    assert_refused("pin", pp_token_pin(pool, &token, &pin), PP_E_FAULT, NULL);
    ck_assert_ptr_eq(pin, (pp_pin *) &pool);
    ck_assert_ptr_null(pp_token_code(&token));
    ck_assert_int_eq(pp_token_make(code, &token), PP_OK);
    ck_assert_int_eq(pp_token_pin(pool, &token, &pin), PP_OK);
    before = take();
    assert_refused("pinned", pp_trace_free(pool, method.trace), PP_E_BUSY, NULL);
    assert_refused("pinned", pp_trace_retire(pool, method.trace), PP_E_BUSY, NULL);
    ck_assert_int_eq(pp_token_unpin(pool, pin), PP_OK);
    before = take();
    assert_refused("twice", pp_token_unpin(pool, pin), PP_E_STALE, NULL);
}
END_TEST

/* ---- patches and watches ------------------------------------------------------------ */

static int stops;

static int stop(void *host)
{
    (void) host;
    stops++;
    return -1;
}

static void start(void *host)
{
    (void) host;
    ck_abort_msg("started what was never stopped");
}

START_TEST(patches)
{
    static uint32_t flag;
    pp_patch journal = { .reserved = 99 };
    pp_patch good = { .address = code, .protocol = PP_PATCH_STOPPED, .bytes = 4 };
    const pp_patch guard = { .address = &flag, .protocol = PP_PATCH_GUARD, .bytes = 4,
                             .value = { 1 } };
    pp_patch_options options = { .size = sizeof options, .journal = &journal, .error = &error };
    error = (pp_error) { .size = sizeof error };
    memcpy(good.value, code, 4);
    pp_patch both[] = { guard, good };
    assert_refused("no stop", pp_patch_apply(pool, both, 2, &options), PP_E_ARG,
                   "STOPPED: no stop and start");
    options.stop = stop;
    assert_refused("no start", pp_patch_apply(pool, both, 2, &options), PP_E_ARG,
                   "STOPPED: no stop and start");
    options.start = start;
    assert_refused("huge", pp_patch_apply(pool, both, SIZE_MAX / 2, &options), PP_E_ARG,
                   "a batch of");
    both[0].bytes = 3;
    assert_refused("guard", pp_patch_apply(pool, both, 2, &options), PP_E_ARG, "patch 0");
    both[0] = guard;
    both[0].handle = method.trace;
    assert_refused("handle", pp_patch_apply(pool, both, 2, &options), PP_E_ARG,
                   "patch 0: GUARD: flags have no handle");
    ck_assert_int_eq(stops, 0);
    both[0] = guard;
    assert_refused("stop", pp_patch_apply(pool, both, 2, &options), PP_E_FAULT,
                   "could not stop its threads");
    ck_assert_int_eq(stops, 1);
    ck_assert_uint_eq(flag, 0);
    ck_assert_uint_eq(journal.reserved, 99);
}
END_TEST

START_TEST(watches)
{
    static uint32_t flag;
    pp_patch_options options = { .size = sizeof options, .error = &error };
    pp_patch patch = { .address = code, .protocol = 77, .bytes = 4 }, journal;
    pp_watch_result result = { .size = sizeof result, .applied = 77 };
    error = (pp_error) { .size = sizeof error };
    assert_refused("protocol", pp_watch_add(pool, 1, &patch, &error), PP_E_ARG, "no protocol 77");
    assert_refused("nothing", pp_watch_add(pool, 1, NULL, &error), PP_E_ARG, "no pool, or no patch");
    patch.protocol = PP_PATCH_STOPPED;
    patch.address = &flag;
    assert_refused("data", pp_watch_add(pool, 1, &patch, &error), PP_E_FAULT, "no code of this pool");
    patch.address = code;
    patch.handle = (const void *) 16;
    assert_refused("handle", pp_watch_add(pool, 1, &patch, &error), PP_E_STALE, "another trace");
    ck_assert_uint_eq(pp_watch_count(pool, 1), 0);

    patch.handle = NULL;
    memcpy(patch.value, code, 4);
    patch.value[0] ^= 1;
    ck_assert_int_eq(pp_watch_add(pool, 1, &patch, &error), PP_OK);
    before = take();
    assert_refused("twice", pp_watch_add(pool, 1, &patch, &error), PP_E_BUSY, "has a watch");
    assert_refused("remove", pp_watch_remove(pool, 1, code + 8), PP_E_STALE, NULL);
    assert_refused("no stop", pp_watch_fire(pool, 1, &options, &result), PP_E_ARG, "no stop and start");
    options.stop = stop;
    options.start = start;
    assert_refused("stop", pp_watch_fire(pool, 1, &options, &result), PP_E_FAULT, "could not stop");
    options.journal = &journal;
    assert_refused("journal", pp_watch_fire(pool, 1, &options, &result), PP_E_ARG, "a journal");
    options.journal = NULL;
    result.size = 0;
    assert_refused("result", pp_watch_fire(pool, 1, &options, &result), PP_E_ARG, "without size");
    ck_assert_uint_eq(pp_watch_count(pool, 1), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("refusals");
    TCase *tests = tcase_create("refusals");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, sites);
    tcase_add_test(tests, entries);
    tcase_add_test(tests, policies);
    tcase_add_test(tests, emitters);
    tcase_add_test(tests, prologues);
    tcase_add_test(tests, tokens);
    tcase_add_test(tests, patches);
    tcase_add_test(tests, watches);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
