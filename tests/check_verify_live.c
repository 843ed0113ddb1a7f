/* SPDX-License-Identifier: MIT */
/*
 * pp_pool_verify beside threads that do everything: it accuses no sound pool, in any
 * mode of writing, neither in the process nor in its children.
 */
#include <config.h>

#include "loop.h"
#include "sanitized.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined __x86_64__
enum { LENGTH = 5 };
#define LIVE PP_PATCH_WORD
#else
enum { LENGTH = 4 };
#define LIVE PP_PATCH_BRANCH
#endif

static pp_pool *pool;
static pp_symbol fixed[8], moving[4];
static atomic_bool over;
static atomic_ulong operations;
static char complaints[16][200];
static atomic_uint complaint_count;

static void target(void) { }
static void other_target(void) { }

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

static void complain(const char *what, pp_status status, const char *text)
{
    unsigned index = atomic_fetch_add(&complaint_count, 1);
    if (index < 16)
        snprintf(complaints[index], sizeof complaints[index], "%s: %s: %s", what,
                 pp_strerror(status), text);
    atomic_store(&over, true);
}

/* False: refused for a reason that there may be. */
static bool went(const char *what, pp_status status, bool may_be_refused)
{
    atomic_fetch_add_explicit(&operations, 1, memory_order_relaxed);
    if (status != PP_OK && !may_be_refused)
        complain(what, status, "");
    return status == PP_OK;
}

static unsigned draw(unsigned *seed, unsigned below)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % below;
}

/* ---- roles ------------------------------------------------------------------ */

/* A function that calls symbols, and has a site of `LENGTH` bytes at its start that can be patched. */
static pp_status link_one(unsigned *seed, pp_trace **trace)
{
    static const pp_frame_rule record = { .size = sizeof record, .kind = PP_FRAME_RECORD,
                                          .cfa_offset = 16 };
    struct snippet code = { 0 };
    uint8_t nop[16];
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, LENGTH, nop, sizeof nop), PP_OK);
    snippet_bytes(&code, nop, LENGTH);
    snippet_begin(&code);
    for (unsigned n = draw(seed, 4); n > 0; n--) {
        snippet_call(&code, fixed[draw(seed, 8)]);
        snippet_call(&code, moving[draw(seed, 4)]);
    }
    snippet_end(&code);
    for (unsigned n = draw(seed, 16) == 0 ? draw(seed, 8000) : 0; n > 0; n--)
        snippet_bytes(&code, "\0\0\0\0", 4);
    pp_trace_desc desc = snippet_desc(&code);
    desc.frame = draw(seed, 4) == 0 ? NULL : &record;
    desc.name = draw(seed, 2) == 0 ? "some name that is long enough to be kept somewhere else" : NULL;
    desc.flags = draw(seed, 4) == 0 ? PP_TRACE_OWN_TRAMPOLINES : 0;
    pp_status status = pp_trace_link(pool, &desc, trace);
    snippet_free(&code);
    return status;
}

static pp_patch exit_of(const uint8_t *code)
{
    size_t bytes;
    pp_patch patch = { .address = code, .protocol = LIVE, .bytes = LENGTH };
    ck_assert_int_eq(pp_emit_jump(PP_ARCH_HOST, code, code + 16, patch.value, sizeof patch.value,
                                  &bytes), PP_OK);
    return patch;
}

static void *link_and_free(void *number)
{
    unsigned seed = (unsigned) (uintptr_t) number;
    pp_trace *traces[32] = { NULL };
    while (!atomic_load(&over)) {
        pp_trace **slot = &traces[draw(&seed, 32)];
        if (*slot != NULL)
            went("free", pp_trace_free(pool, *slot), false);
        if (!went("link", link_one(&seed, slot), false))
            *slot = NULL;
    }
    return NULL;
}

static void *retire_and_reclaim(void *number)
{
    unsigned seed = (unsigned) (uintptr_t) number;
    while (!atomic_load(&over)) {
        for (unsigned n = draw(&seed, 20); n > 0; n--) {
            pp_trace *trace;
            if (!went("link", link_one(&seed, &trace), false))
                break;
            pp_patch patch = exit_of(pp_trace_entry(trace));
            if (draw(&seed, 2) == 0)
                went("watch", pp_watch_add(pool, draw(&seed, 4), &patch, NULL), true);
            went("retire", pp_trace_retire(pool, trace), false);
        }
        if (draw(&seed, 2) == 0)
            went("fire", pp_watch_fire(pool, draw(&seed, 4), NULL, NULL), true);
        went("reclaim", pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), false);
    }
    return NULL;
}

static void *reserve_and_end(void *number)
{
    unsigned seed = (unsigned) (uintptr_t) number;
    while (!atomic_load(&over)) {
        pp_reservation reservation = { .size = sizeof reservation };
        size_t capacity = 1 + draw(&seed, draw(&seed, 16) == 0 ? 100000 : 500);
        pp_trace *trace;
        if (!went("reserve", pp_trace_reserve(pool, capacity, NULL, &reservation, NULL), false))
            continue;
        memset(reservation.write, 0, capacity);
        if (draw(&seed, 3) == 0) {
            went("abandon", pp_trace_abandon(pool, &reservation), false);
            continue;
        }
        size_t used = 1 + draw(&seed, (unsigned) capacity);
        if (!went("commit", pp_trace_commit(pool, &reservation, used, NULL, &trace), false))
            continue;
        if (draw(&seed, 2) == 0)
            went("retire", pp_trace_retire(pool, trace), false);
        else
            went("free", pp_trace_free(pool, trace), false);
    }
    return NULL;
}

static void end_span(pp_span *span, unsigned *seed)
{
    pp_span *tail;
    pp_span_place place = { .size = sizeof place };
    if (pp_span_get_place(span, &place) == PP_OK && place.bytes > place.unit
        && went("split", pp_span_split(pool, span, place.unit, &tail), true))
        went("free", pp_span_free(pool, tail), false);
    went("shrink", pp_span_shrink(pool, span, 1), true);
    /* A child may be running it. */
    if (draw(seed, 4) == 0 && went("write", pp_span_write(pool, span, &place, NULL), true))
        went("publish", pp_span_publish(pool, &span, 1, NULL), false);
    if (draw(seed, 2) == 0)
        went("retire", pp_span_retire(pool, span), false);
    else
        went("free", pp_span_free(pool, span), false);
}

static void *take_spans(void *number)
{
    enum { MOST = 8 };
    unsigned seed = (unsigned) (uintptr_t) number;
    while (!atomic_load(&over)) {
        pp_span *spans[MOST];
        unsigned count = 0;
        for (unsigned wanted = 1 + draw(&seed, MOST); count < wanted; count++) {
            pp_span_desc desc = { .size = sizeof desc,
                                  .bytes = 1 + draw(&seed, draw(&seed, 8) == 0 ? 60000 : 300) };
            pp_span_place place = { .size = sizeof place };
            if (!went("alloc", pp_span_alloc(pool, &desc, &spans[count], &place), false))
                break;
            memset(place.write, 0, desc.bytes);
        }
        went("publish", pp_span_publish(pool, spans, count, NULL), false);
        while (count > 0)
            end_span(spans[--count], &seed);
    }
    return NULL;
}

/* One function is patched to and fro; FLIP refuses, and a child may be running it. */
static void *patch_and_retarget(void *number)
{
    unsigned seed = (unsigned) (uintptr_t) number;
    pp_trace *trace = NULL;
    if (!went("link", link_one(&seed, &trace), false))
        return NULL;
    while (!atomic_load(&over)) {
        pp_patch patch = exit_of(pp_trace_entry(trace)), back;
        pp_patch_options options = { .size = sizeof options, .journal = &back };
        if (went("patch", pp_patch_apply(pool, &patch, 1, &options), true))
            went("back", pp_patch_apply(pool, &back, 1, NULL), true);
        went("retarget", pp_symbol_retarget(pool, moving[draw(&seed, 4)],
                                            draw(&seed, 2) == 0 ? (const void *) target
                                                                : (const void *) other_target,
                                            NULL), false);
    }
    went("free", pp_trace_free(pool, trace), false);
    return NULL;
}

static pp_status never(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site, (void) regs, (void) entry;
    return PP_E_FAULT;
}

static void *make_sites(void *unused)
{
    static const pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_ARMED, .hits = 3,
                                       .tier0 = &loop_frame, .produce = never };
    (void) unused;
    while (!atomic_load(&over)) {
        pp_trace *body;
        pp_entry *entry;
        pp_site *sites[4];
        unsigned count = 0;
        if (!went("body", loop_body(pool, &body, &entry), false))
            continue;
        for (; count < 4; count++) {
            if (!went("site", pp_site_create(pool, &desc, &sites[count]), false))
                break;
            went("publish", pp_site_publish(sites[count], entry), false);
        }
        while (count > 0)
            went("destroy", pp_site_destroy(pool, sites[--count]), false);
        went("destroy", pp_entry_destroy(pool, entry), false);
        went("free", pp_trace_free(pool, body), false);
    }
    return NULL;
}

/* What a child finds at any moment is sound, too. */
static void *make_children(void *unused)
{
    (void) unused;
    while (!atomic_load(&over)) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            _exit(pp_pool_verify(pool, NULL) == PP_OK ? 0 : 1);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
            char text[32];
            snprintf(text, sizeof text, "status %#x", (unsigned) status);
            complain("child", PP_E_FAULT, text);
        }
        usleep(10000);
    }
    return NULL;
}

/* ---- the tests --------------------------------------------------------------- */

static const struct {
    const char *name;
    pp_wx wx;
    size_t limit, idle; /* bytes */
    bool forks;
} settings[] = {
    { "dual", PP_WX_DUAL, 0, 0, true },
    { "dual, with a limit", PP_WX_DUAL, 256u << 20, 65536, false },
    { "remap", PP_WX_REMAP, 0, 65536, false },
    { "remap, with children", PP_WX_REMAP, 0, 0, true },
    { "flip", PP_WX_FLIP, 0, 65536, false },
    { "rwx", PP_WX_RWX, 0, 65536, true },
};

static bool start(int setting)
{
    pp_error reason = { .size = sizeof reason };
    pp_pool_options options = { .size = sizeof options, .near = { (const void *) target },
                                .wx = settings[setting].wx, .branch_range = 1,
                                .limit_bytes = settings[setting].limit,
                                .idle_bytes = settings[setting].idle, .error = &reason };
    pp_status status = pp_pool_create(&options, &pool);
    ck_assert_msg(status == PP_OK || status == PP_E_UNSUPPORTED, "%s", reason.text);
    if (status != PP_OK)
        return false; /* an emulator does not have the mode */
    char name[16];
    for (unsigned i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "fixed %u", i);
        fixed[i] = pp_symbol_define(pool, name, (const void *) target);
    }
    for (unsigned i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "moving %u", i);
        moving[i] = pp_symbol_declare(pool, name, (const void *) target, PP_SYMBOL_RETARGETABLE);
    }
    return true;
}

START_TEST(a_sound_pool_is_not_accused)
{
    static void *(*const roles[])(void *) = {
        link_and_free, link_and_free, retire_and_reclaim, reserve_and_end, take_spans,
        patch_and_retarget, make_sites, make_children,
    };
    enum { ROLES = sizeof roles / sizeof *roles };
    pthread_t threads[ROLES];
    pp_error reason = { .size = sizeof reason };
    if (!start(_i))
        return;
    unsigned roles_here = settings[_i].forks && !SANITIZED ? ROLES : ROLES - 1, verified = 0;
    for (uintptr_t i = 0; i < roles_here; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, roles[i], (void *) (i + 1)), 0);
    for (double end = seconds() + 1.5; seconds() < end && !atomic_load(&over); verified++) {
        pp_status status = pp_pool_verify(pool, &reason);
        if (status != PP_OK)
            complain("verify", status, reason.text);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < roles_here; i++)
        pthread_join(threads[i], NULL);
    ck_assert_msg(atomic_load(&complaint_count) == 0, "%s: %s", settings[_i].name, complaints[0]);
    ck_assert_uint_gt(verified, 0);
    ck_assert_uint_gt(atomic_load(&operations), 0);
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("verify_live");
    TCase *tests = tcase_create("verify_live");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, a_sound_pool_is_not_accused, 0, sizeof settings / sizeof *settings);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
