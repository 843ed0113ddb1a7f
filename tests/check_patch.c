/* SPDX-License-Identifier: MIT */
/* Live patching: each protocol, what it refuses, and what is left as it was. */
#include <config.h>

#include "isa/patch.h"

#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static pp_pool *pool;
static pp_error reason;

static const struct { const char *name; pp_wx wx; } modes[] = {
    { "auto", PP_WX_AUTO }, { "dual", PP_WX_DUAL }, { "remap", PP_WX_REMAP },
    { "rwx", PP_WX_RWX }, { "flip", PP_WX_FLIP },
};
enum { LIVE_MODES = 4, MODES = 5 };

/* False: an emulator does not have the mode. */
static bool start_in(pp_wx wx)
{
    pp_pool_options options = { .size = sizeof options, .wx = wx, .error = &reason };
    reason = (pp_error) { .size = sizeof reason };
    return pp_pool_create(&options, &pool) == PP_OK;
}

static void start(void)
{
    ck_assert_msg(start_in(PP_WX_AUTO), "%s", reason.text);
}

static void stop(void)
{
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    pp_pool_destroy(pool);
}

/*
 * int f(void): a site that can be patched to lead to any of `CHOICES` endings; the
 * first returns 0, and so on; what the site does by itself is the first.
 *
 *      0 site; 8 return 0; 16 return 1; ... ; a literal behind them, which
 *      `literal()` returns.
 */
enum { SITE = 0, ENDINGS = 16, ENDING = 16, CHOICES = 4, LOADER = ENDINGS + CHOICES * ENDING,
       LITERAL = LOADER + 16, SIZE = LITERAL + 8 };

#if defined __x86_64__
enum { LENGTH = 5 };
#define CODE_PROTOCOL PP_PATCH_WORD
#else
enum { LENGTH = 4 };
#define CODE_PROTOCOL PP_PATCH_BRANCH
#endif

static void write_return(uint8_t *to, uint8_t value)
{
#if defined __x86_64__
    const uint8_t code[] = { 0xb8, value, 0, 0, 0, 0xc3 };
#else
    const uint32_t code[] = { 0x52800000u | (uint32_t) value << 5, 0xd65f03c0 };
#endif
    memcpy(to, code, sizeof code);
}

/* `offset` of the site: its nop is there, and what is before is nops, too. */
static void write_function(uint8_t *to, size_t site, size_t length)
{
#if defined __x86_64__
    static const uint8_t load[] = { 0x48, 0x8b, 0x05, 9, 0, 0, 0, 0xc3 }; /* mov 9(%rip), %rax */
    memset(to, 0x90, SIZE);
#else
    static const uint32_t load[] = { 0x58000080, 0xd65f03c0 }; /* ldr x0, . + 16 */
    for (size_t i = 0; i < SIZE / 4; i++)
        memcpy(to + 4 * i, &(uint32_t) { AARCH64_NOP }, 4);
#endif
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, length, to + site, SIZE), PP_OK);
    for (unsigned i = 0; i < CHOICES; i++)
        write_return(to + ENDINGS + i * ENDING, (uint8_t) i);
    memcpy(to + LOADER, load, sizeof load);
    memcpy(to + LITERAL, &(uint64_t) { 77 }, 8);
}

static pp_span *make_span(size_t site, size_t length, uint8_t **code)
{
    pp_span *span = NULL;
    pp_span_desc desc = { .size = sizeof desc, .bytes = SIZE, .error = &reason };
    pp_span_place place = { .size = sizeof place };
    ck_assert_msg(pp_span_alloc(pool, &desc, &span, &place) == PP_OK, "%s", reason.text);
    write_function(place.write, site, length);
    ck_assert_msg(pp_span_publish(pool, &span, 1, &reason) == PP_OK, "%s", reason.text);
    *code = (uint8_t *) (uintptr_t) place.execute;
    return span;
}

static pp_trace *make_trace(uint8_t **code)
{
    uint8_t bytes[SIZE];
    pp_trace *trace = NULL;
    write_function(bytes, SITE, LENGTH);
    pp_trace_desc desc = { .size = sizeof desc, .code = bytes, .code_size = LITERAL,
                           .data = bytes + LITERAL, .data_size = 8, .error = &reason };
    ck_assert_msg(pp_trace_link(pool, &desc, &trace) == PP_OK, "%s", reason.text);
    *code = (uint8_t *) (uintptr_t) pp_trace_entry(trace);
    return trace;
}

static long run(const uint8_t *code)
{
    return ((long (*)(void)) (uintptr_t) code)();
}

/* From the site to an ending; -1: its nop. */
static void jump_bytes(const uint8_t *code, size_t site, int choice, size_t length, uint8_t *bytes)
{
    size_t written = length;
    if (choice < 0)
        ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, length, bytes, 16), PP_OK);
    else
        ck_assert_int_eq(pp_emit_jump(PP_ARCH_HOST, code + site,
                                      code + ENDINGS + choice * ENDING, bytes, 16, &written),
                         PP_OK);
    ck_assert_uint_eq(written, length);
}

static pp_patch make_patch(const uint8_t *code, size_t site, int from, int to,
                           pp_patch_protocol protocol)
{
    pp_patch patch = { .address = code + site, .protocol = (uint8_t) protocol, .bytes = LENGTH,
                       .flags = PP_PATCH_EXPECT_OLD };
    jump_bytes(code, site, from, LENGTH, patch.old);
    jump_bytes(code, site, to, LENGTH, patch.value);
    return patch;
}

static pp_patch make_literal(const uint8_t *code, uint64_t from, uint64_t to)
{
    pp_patch patch = { .address = code + LITERAL, .protocol = PP_PATCH_LITERAL, .bytes = 8,
                       .flags = PP_PATCH_EXPECT_OLD };
    memcpy(patch.old, &from, 8);
    memcpy(patch.value, &to, 8);
    return patch;
}

static pp_status apply(const pp_patch *patches, size_t count, pp_patch *journal)
{
    pp_patch_options options = { .size = sizeof options, .journal = journal, .error = &reason };
    reason.text[0] = '\0';
    return pp_patch_apply(pool, patches, count, &options);
}

#define assert_applies(patches, count, journal) \
    do { \
        pp_status applied = apply(patches, count, journal); \
        ck_assert_msg(applied == PP_OK, "%d: %s", applied, reason.text); \
    } while (0)

/* Refused for this reason, and nothing changed: neither code, journal nor the pool's counts. */
static void assert_refused(const pp_patch *patches, size_t count, pp_status status,
                           const char *text, const uint8_t *code)
{
    uint8_t before[SIZE];
    pp_patch journal[4], untouched[4];
    pp_pool_stats old = { .size = sizeof old }, new = { .size = sizeof new };
    memset(journal, 0x5a, sizeof journal);
    memcpy(untouched, journal, sizeof journal);
    memcpy(before, code, SIZE);
    ck_assert_int_eq(pp_pool_get_stats(pool, &old), PP_OK);
    pp_status refused = apply(patches, count, journal);
    ck_assert_msg(refused == status, "%d instead of %d: %s", refused, status, reason.text);
    ck_assert_msg(strstr(reason.text, text) != NULL, "'%s' not in '%s'", text, reason.text);
    ck_assert_int_eq(reason.status, status);
    ck_assert_mem_eq(code, before, SIZE);
    ck_assert_mem_eq(journal, untouched, sizeof journal);
    ck_assert_int_eq(pp_pool_get_stats(pool, &new), PP_OK);
    ck_assert_uint_eq(old.barriers, new.barriers);
    ck_assert_uint_eq(old.metadata, new.metadata);
}

/* ---- what works -------------------------------------------------------- */

START_TEST(sites_are_armed_retargeted_and_disarmed)
{
    uint8_t *code, *traced;
    if (!start_in(modes[_i].wx))
        return;
    make_span(SITE, LENGTH, &code);
    make_trace(&traced);
    for (unsigned round = 0; round < 3; round++) {
        for (int to = 0; to < CHOICES; to++) {
            pp_patch patches[] = { make_patch(code, SITE, to - 1, to, CODE_PROTOCOL),
                                   make_patch(traced, SITE, to - 1, to, CODE_PROTOCOL) };
            assert_applies(patches, 2, NULL);
            ck_assert_int_eq(run(code), to);
            ck_assert_int_eq(run(traced), to);
        }
        pp_patch off[] = { make_patch(code, SITE, CHOICES - 1, -1, CODE_PROTOCOL),
                           make_patch(traced, SITE, CHOICES - 1, -1, CODE_PROTOCOL) };
        assert_applies(off, 2, NULL);
        ck_assert_int_eq(run(code), 0);
        ck_assert_int_eq(run(traced), 0);
    }
    stop();
}
END_TEST

START_TEST(literals_change)
{
    uint8_t *code, *traced;
    if (!start_in(modes[_i].wx))
        return;
    pp_pool_stats old = { .size = sizeof old }, new = { .size = sizeof new };
    make_span(SITE, LENGTH, &code);
    make_trace(&traced);
    ck_assert_int_eq(run(code + LOADER), 77);
    ck_assert_int_eq(pp_pool_get_stats(pool, &old), PP_OK);
    pp_patch patches[] = { make_literal(code, 77, 78), make_literal(traced, 77, 79) }, back[2];
    assert_applies(patches, 2, back);
    ck_assert_int_eq(run(code + LOADER), 78);
    ck_assert_int_eq(run(traced + LOADER), 79);
    assert_applies(back, 2, NULL);
    ck_assert_int_eq(run(code + LOADER), 77);
    ck_assert_int_eq(run(traced + LOADER), 77);
    ck_assert_int_eq(pp_pool_get_stats(pool, &new), PP_OK);
    ck_assert_uint_eq(old.barriers, new.barriers);
    stop();
}
END_TEST

/* A batch larger than what is on the stack, in no order, with one barrier; and back. */
START_TEST(a_batch_has_one_barrier_and_a_way_back)
{
    enum { MANY = 50 };
    static uint8_t *code[MANY];
    pp_patch patches[MANY], back[MANY];
    pp_pool_stats old = { .size = sizeof old }, new = { .size = sizeof new };
    if (!start_in(modes[_i].wx))
        return;
    for (unsigned i = 0; i < MANY; i++)
        make_span(SITE, LENGTH, &code[i]);
    for (unsigned i = 0; i < MANY; i++)
        patches[i] = make_patch(code[i * 7 % MANY], SITE, -1, (int) (i % CHOICES), CODE_PROTOCOL);
    ck_assert_int_eq(pp_pool_get_stats(pool, &old), PP_OK);
    assert_applies(patches, MANY, back);
    ck_assert_int_eq(pp_pool_get_stats(pool, &new), PP_OK);
    ck_assert_uint_eq(new.barriers, old.barriers + 1);
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_int_eq(run(code[i * 7 % MANY]), i % CHOICES);
    assert_applies(back, MANY, patches);
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_int_eq(run(code[i]), 0);
    assert_applies(patches, MANY, NULL);
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_int_eq(run(code[i * 7 % MANY]), i % CHOICES);
    stop();
}
END_TEST

/* One that something has been changed under undoes nothing. */
START_TEST(a_journal_undoes_all_or_nothing)
{
    uint8_t *code, *other;
    pp_patch back[2];
    start();
    make_span(SITE, LENGTH, &code);
    pp_span *span = make_span(SITE, LENGTH, &other);
    pp_patch patches[] = { make_patch(code, SITE, -1, 1, CODE_PROTOCOL),
                           make_patch(other, SITE, -1, 2, CODE_PROTOCOL) };
    assert_applies(patches, 2, back);
    pp_patch between = make_patch(other, SITE, 2, 3, CODE_PROTOCOL), again;
    assert_applies(&between, 1, &again);
    assert_refused(back, 2, PP_E_BUSY, "not the old ones", code);
    ck_assert_int_eq(run(code), 1);
    ck_assert_int_eq(run(other), 3);
    assert_applies(&again, 1, NULL);
    assert_applies(back, 2, NULL);
    ck_assert_int_eq(run(code), 0);

    /* The same bytes at the same address, but another span. */
    assert_applies(patches, 2, back);
    ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
    uint8_t *reused;
    make_span(SITE, LENGTH, &reused);
    ck_assert_ptr_eq(reused, other);
    patches[1].handle = NULL;
    assert_applies(&patches[1], 1, NULL);
    assert_refused(back, 2, PP_E_STALE, "another trace or span", code);
    ck_assert_int_eq(run(reused), 2);
    stop();
}
END_TEST

START_TEST(guards_change)
{
    static _Alignas(8) uint8_t flags[32];
    start();
    for (unsigned bytes = 1; bytes <= 8; bytes *= 2) {
        pp_patch guard = { .address = flags + 8, .protocol = PP_PATCH_GUARD,
                           .bytes = (uint8_t) bytes, .flags = PP_PATCH_EXPECT_OLD }, back;
        memset(flags, 0, sizeof flags);
        memset(guard.value, 0xa0 + (int) bytes, bytes);
        assert_applies(&guard, 1, &back);
        for (unsigned i = 0; i < sizeof flags; i++)
            ck_assert_uint_eq(flags[i], i >= 8 && i < 8 + bytes ? 0xa0 + bytes : 0);
        ck_assert_int_eq(apply(&guard, 1, NULL), PP_E_BUSY);
        assert_applies(&back, 1, NULL);
        for (unsigned i = 0; i < sizeof flags; i++)
            ck_assert_uint_eq(flags[i], 0);
        guard.address = flags + 9;
        ck_assert_int_eq(apply(&guard, 1, NULL), bytes == 1 ? PP_OK : PP_E_ARG);
    }
    stop();
}
END_TEST

/* ---- stopped ----------------------------------------------------------- */

struct world {
    int stopped, started;
    int refuse;
    pp_span *victim;     /* freed while the world stands still */
};

static int stop_world(void *host)
{
    struct world *world = host;
    world->stopped++;
    if (world->victim != NULL)
        ck_assert_int_eq(pp_span_free(pool, world->victim), PP_OK);
    return world->refuse;
}

static void start_world(void *host)
{
    struct world *world = host;
    ck_assert_int_eq(++world->started, world->stopped);
}

START_TEST(stopped_patches_change_anything)
{
    uint8_t *code;
    struct world world = { 0 };
    if (!start_in(modes[_i].wx))
        return;
    pp_patch back, patch = { .protocol = PP_PATCH_STOPPED, .bytes = 10 };
    pp_patch_options options = { .size = sizeof options, .stop = stop_world, .start = start_world,
                                 .host = &world, .journal = &back, .error = &reason };
    pp_span *span = make_span(SITE, LENGTH, &code);
    patch.address = code + ENDINGS;
    memcpy(patch.value, code + ENDINGS + ENDING, patch.bytes);
    ck_assert_msg(pp_patch_apply(pool, &patch, 1, &options) == PP_OK, "%s", reason.text);
    ck_assert_int_eq(run(code), 1);
    options.journal = NULL;
    ck_assert_msg(pp_patch_apply(pool, &back, 1, &options) == PP_OK, "%s", reason.text);
    ck_assert_int_eq(run(code), 0);
    ck_assert_int_eq(world.started, 2);

    /* What is refused anyway stops nobody. */
    ck_assert_int_eq(pp_patch_apply(pool, &back, 1, &options), PP_E_BUSY);
    ck_assert_int_eq(world.stopped, 2);
    world.refuse = 1;
    ck_assert_int_eq(pp_patch_apply(pool, &patch, 1, &options), PP_E_FAULT);
    ck_assert_int_eq(world.stopped, 3);
    ck_assert_int_eq(world.started, 2);
    world = (struct world){ .victim = span };
    ck_assert_int_eq(pp_patch_apply(pool, &patch, 1, &options), PP_E_STALE);
    ck_assert_int_eq(world.started, 1);
    options.stop = NULL;
    ck_assert_int_eq(pp_patch_apply(pool, &patch, 1, &options), PP_E_ARG);
    stop();
}
END_TEST

/* ---- what does not ----------------------------------------------------- */

START_TEST(wrong_patches_are_refused)
{
    uint8_t *code;
    start();
    make_span(SITE, LENGTH, &code);
    pp_patch good = make_patch(code, SITE, -1, 1, CODE_PROTOCOL), bad = good;
    bad.protocol = 0;
    assert_refused(&bad, 1, PP_E_ARG, "no protocol", code);
    bad.protocol = PP_PATCH_STOPPED + 1;
    assert_refused(&bad, 1, PP_E_ARG, "no protocol", code);
    bad = good;
    bad.flags |= 4;
    assert_refused(&bad, 1, PP_E_ARG, "unknown flags", code);
    bad = good;
    bad.reserved = 1;
    assert_refused(&bad, 1, PP_E_ARG, "unknown flags", code);
    for (unsigned bytes = 0; bytes < 256; bytes++) {
        bad = good;
        bad.bytes = (uint8_t) bytes;
        if (bytes != LENGTH)
            assert_refused(&bad, 1, PP_E_ARG, "patch 0", code);
    }
    bad = good;
    bad.address = NULL;
    assert_refused(&bad, 1, PP_E_ARG, "no address", code);
    bad.address = &bad;
    assert_refused(&bad, 1, PP_E_FAULT, "no code", code);
    bad = make_literal(code, 77, 78);
    bad.address = code + LITERAL - 4;
    assert_refused(&bad, 1, PP_E_ARG, "aligned", code);
    bad.address = code + LITERAL + 8;
    assert_refused(&bad, 1, PP_E_ARG, "beyond the span", code);
    bad = make_literal(code, 76, 78);
    assert_refused(&bad, 1, PP_E_BUSY, "not the old ones", code);
    bad = (pp_patch){ .address = code, .protocol = PP_PATCH_GUARD, .bytes = 1 };
    assert_refused(&bad, 1, PP_E_ARG, "code memory", code);
#if defined __x86_64__
    bad = good;
    bad.protocol = PP_PATCH_BRANCH;
    assert_refused(&bad, 1, PP_E_UNSUPPORTED, "AArch64", code);
#else
    bad = good;
    bad.protocol = PP_PATCH_WORD;
    assert_refused(&bad, 1, PP_E_UNSUPPORTED, "x86-64", code);
    bad.protocol = PP_PATCH_INT3;
    assert_refused(&bad, 1, PP_E_UNSUPPORTED, "x86-64", code);
    bad = good;
    memcpy(bad.value, &(uint32_t) { 0x54000040 }, 4); /* b.eq . + 8 */
    assert_refused(&bad, 1, PP_E_ARG, "the new bytes are not B", code);
    bad = good;
    bad.flags = 0;
    bad.address = code + ENDINGS; /* mov */
    assert_refused(&bad, 1, PP_E_ARG, "the bytes that are there are not B", code);
    bad.address = code + 2;
    assert_refused(&bad, 1, PP_E_ARG, "aligned", code);
#endif
    /* One that is refused refuses all, and two must not meet. */
    pp_patch both[] = { good, make_literal(code, 1, 2) };
    assert_refused(both, 2, PP_E_BUSY, "patch 1", code);
    both[1] = good;
    assert_refused(both, 2, PP_E_ARG, "share a byte", code);
    ck_assert_int_eq(pp_patch_apply(NULL, &good, 1, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_patch_apply(pool, NULL, 1, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_patch_apply(pool, NULL, 0, NULL), PP_OK);
    pp_patch_options options = { .size = 8 };
    ck_assert_int_eq(pp_patch_apply(pool, &good, 1, &options), PP_E_ARG);
    stop();
}
END_TEST

#if defined __x86_64__
START_TEST(words_are_not_straddled)
{
    uint8_t *code;
    start();
    for (size_t site = 0; site < 8; site++) {
        make_span(site, LENGTH, &code);
        pp_patch patch = make_patch(code, site, -1, 2, PP_PATCH_WORD);
        ck_assert_uint_eq(pp_patch_padding(PP_ARCH_HOST, (uintptr_t) code + site, LENGTH),
                          site <= 3 ? 0 : 8 - site);
        if (site > 3) {
            assert_refused(&patch, 1, PP_E_ARG, "one aligned 8-byte word", code);
        } else {
            assert_applies(&patch, 1, NULL);
            ck_assert_int_eq(run(code), 2);
        }
    }
    /* Five NOPs are five boundaries; what the host declares is its word. */
    uint8_t nops[LENGTH];
    make_span(SITE, LENGTH, &code);
    memset(nops, 0x90, sizeof nops);
    pp_patch patch = make_patch(code, SITE, -1, 2, PP_PATCH_WORD);
    memcpy(patch.value, nops, sizeof nops);
    assert_refused(&patch, 1, PP_E_ARG, "the new bytes are not known to be one", code);
    patch.address = code + 8;
    jump_bytes(code, 8, 2, LENGTH, patch.value);
    patch.flags = 0;
    assert_refused(&patch, 1, PP_E_ARG, "the bytes that are there are not known", code);
    patch = make_patch(code, SITE, -1, 1, PP_PATCH_WORD);
    assert_applies(&patch, 1, NULL);
    /* The displacement alone. */
    pp_patch part = { .address = code + 1, .protocol = PP_PATCH_WORD, .bytes = 4 };
    uint8_t jump[16];
    jump_bytes(code, SITE, 3, LENGTH, jump);
    memcpy(part.value, jump + 1, 4);
    assert_refused(&part, 1, PP_E_ARG, "not declared", code);
    part.flags = PP_PATCH_DECLARED;
    assert_applies(&part, 1, NULL);
    ck_assert_int_eq(run(code), 3);
    stop();
}
END_TEST
#endif

#if defined __x86_64__
/* One NOP of any length, at any place, becomes a jump of its length and a NOP again. */
START_TEST(int3_patches_any_instruction)
{
    pp_pool_stats old = { .size = sizeof old }, new = { .size = sizeof new };
    if (!start_in(modes[_i].wx))
        return;
    for (size_t site = 0; site < 8; site++) {
        uint8_t *code;
        make_span(site, LENGTH, &code);
        pp_patch patch = make_patch(code, site, -1, 2, PP_PATCH_INT3), back, again;
        ck_assert_int_eq(pp_pool_get_stats(pool, &old), PP_OK);
        assert_applies(&patch, 1, &back);
        ck_assert_int_eq(pp_pool_get_stats(pool, &new), PP_OK);
        ck_assert_uint_eq(new.barriers, old.barriers + 3);
        ck_assert_int_eq(run(code), 2);
        assert_applies(&back, 1, &again);
        ck_assert_int_eq(run(code), 0);
        assert_applies(&again, 1, NULL);
        ck_assert_int_eq(run(code), 2);
    }
    /* What it cannot know to be one instruction, it needs the host's word for. */
    uint8_t *code;
    make_span(SITE, 9, &code);
    pp_patch patch = { .address = code, .protocol = PP_PATCH_INT3, .bytes = 9 };
    memcpy(patch.value, "\x48\xc7\x44\x24\xf8\1\0\0\0", 9); /* movq $1, -8(%rsp) */
    assert_refused(&patch, 1, PP_E_ARG, "the new bytes are not known", code);
    patch.flags = PP_PATCH_DECLARED;
    assert_applies(&patch, 1, NULL);
    ck_assert_int_eq(run(code), 0);
    memcpy(patch.value, "\xeb\x07\x90\x90\x90\x90\x90\x90\x90", 9);
    assert_refused(&patch, 1, PP_E_ARG, "more than one instruction", code);
    stop();
}
END_TEST
#endif

START_TEST(flip_pages_are_not_written_under_threads)
{
    uint8_t *code;
    ck_assert(start_in(PP_WX_FLIP));
    make_span(SITE, LENGTH, &code);
    pp_patch patch = make_patch(code, SITE, -1, 1, CODE_PROTOCOL);
    assert_refused(&patch, 1, PP_E_UNSUPPORTED, "PP_WX_FLIP", code);
    patch = make_literal(code, 77, 78);
    assert_refused(&patch, 1, PP_E_UNSUPPORTED, "PP_WX_FLIP", code);
    stop();
}
END_TEST

START_TEST(only_what_is_published_is_patched)
{
    uint8_t *code, *traced;
    pp_span_place place = { .size = sizeof place };
    start();
    pp_span *span = make_span(SITE, LENGTH, &code);
    pp_trace *trace = make_trace(&traced);
    pp_patch patch = make_patch(code, SITE, -1, 1, CODE_PROTOCOL);
    pp_patch other = make_patch(traced, SITE, -1, 1, CODE_PROTOCOL);
    other.handle = span;
    assert_refused(&other, 1, PP_E_STALE, "another trace or span", traced);
    other.handle = trace;
    assert_applies(&other, 1, NULL);
    other = make_patch(traced, SITE, 1, 2, CODE_PROTOCOL);
    other.address = traced + LITERAL;
    other.flags = PP_PATCH_DECLARED;
    assert_refused(&other, 1, PP_E_ARG, "beyond the code", traced);
    ck_assert_int_eq(pp_span_write(pool, span, &place, NULL), PP_OK);
    assert_refused(&patch, 1, PP_E_BUSY, "being written", code);
    ck_assert_int_eq(pp_span_publish(pool, &span, 1, NULL), PP_OK);
    assert_applies(&patch, 1, NULL);
    ck_assert_int_eq(pp_span_retire(pool, span), PP_OK);
    patch = make_patch(code, SITE, 1, 2, CODE_PROTOCOL);
    assert_refused(&patch, 1, PP_E_STALE, "retired", code);
    other = make_patch(traced, SITE, 1, 2, CODE_PROTOCOL);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    assert_refused(&other, 1, PP_E_STALE, "retired", traced);
    pp_reclaim_result result = { .size = sizeof result };
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, &result), PP_OK);
    ck_assert_uint_eq(result.freed, 2);
    assert_refused(&patch, 1, PP_E_STALE, "nothing is there", code);
    stop();
}
END_TEST

START_TEST(children_keep_their_code)
{
    uint8_t *code;
    int go[2];
    start();
    make_span(SITE, LENGTH, &code);
    pp_patch patch = make_patch(code, SITE, -1, 1, CODE_PROTOCOL);
    ck_assert_int_eq(pipe(go), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        char byte;
        close(go[1]);
        if (apply(&patch, 1, NULL) != PP_E_UNSUPPORTED)
            _exit(1);
        _exit(read(go[0], &byte, 1) == 0 && run(code) == 0 ? 0 : 2);
    }
    close(go[0]);
    assert_refused(&patch, 1, PP_E_BUSY, "a child", code);
    close(go[1]);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
    assert_applies(&patch, 1, NULL);
    ck_assert_int_eq(run(code), 1);
    stop();
}
END_TEST

/* ---- threads ----------------------------------------------------------- */

enum { RUNNERS = 2 };

struct runner {
    pthread_t thread;
    const uint8_t *code;
    uint64_t seen[CHOICES];
    bool bad;
};

static atomic_bool over;

static void *run_forever(void *argument)
{
    struct runner *runner = argument;
    while (!atomic_load_explicit(&over, memory_order_relaxed)) {
        long value = run(runner->code);
        if (value < 0 || value >= CHOICES)
            runner->bad = true;
        else
            runner->seen[value]++;
    }
    return NULL;
}

/* Patches while threads run the site: they come out at one of its endings. */
static void patch_under_threads(uint8_t *code, size_t site, pp_patch_protocol protocol,
                                unsigned rounds)
{
    struct runner runners[RUNNERS] = { { .code = code }, { .code = code } };
    atomic_store(&over, false);
    for (unsigned i = 0; i < RUNNERS; i++)
        ck_assert_int_eq(pthread_create(&runners[i].thread, NULL, run_forever, &runners[i]), 0);
    for (unsigned i = 0; i < rounds; i++) {
        int from = (int) (i % (CHOICES + 1)) - 1, to = (int) ((i + 1) % (CHOICES + 1)) - 1;
        pp_patch patch = make_patch(code, site, from, to, protocol);
        assert_applies(&patch, 1, NULL);
        ck_assert_int_eq(run(code), to < 0 ? 0 : to);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < RUNNERS; i++) {
        pthread_join(runners[i].thread, NULL);
        ck_assert(!runners[i].bad);
    }
}

START_TEST(threads_run_what_was_or_what_is)
{
    uint8_t *code;
    if (!start_in(modes[_i].wx))
        return;
    make_span(SITE, LENGTH, &code);
    patch_under_threads(code, SITE, CODE_PROTOCOL, 1000);
    stop();
}
END_TEST

#if defined __x86_64__
static atomic_uint ours, foreign;

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void) number;
    (void) info;
    if (pp_patch_trap(context))
        atomic_fetch_add(&ours, 1);
    else
        atomic_fetch_add(&foreign, 1);
}

static void catch_traps(void)
{
    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
    atomic_store(&ours, 0);
    atomic_store(&foreign, 0);
    ck_assert_int_eq(sigaction(SIGTRAP, &action, NULL), 0);
}

/* Through the trap: threads wait in front of the site, and go on when it is whole. */
START_TEST(threads_wait_at_a_trap)
{
    uint8_t *code;
    if (!start_in(modes[_i].wx))
        return;
    catch_traps();
    make_span(6, LENGTH, &code);
    for (unsigned i = 0; i < 50 && (i < 4 || atomic_load(&ours) == 0); i++)
        patch_under_threads(code, 6, PP_PATCH_INT3, 1000);
    ck_assert_uint_gt(atomic_load(&ours), 0);
    ck_assert_uint_eq(atomic_load(&foreign), 0);
    stop();
}
END_TEST

/* The host's own traps are the host's, also where there was one of ours. */
START_TEST(foreign_traps_are_left_alone)
{
    uint8_t *code;
    start();
    catch_traps();
    raise(SIGTRAP);
    ck_assert_uint_eq(atomic_load(&foreign), 1);
    __asm__ volatile("int3");
    ck_assert_uint_eq(atomic_load(&foreign), 2);
    make_span(SITE, 1, &code);
    pp_patch patch = { .address = code, .protocol = PP_PATCH_INT3, .bytes = 1, .value = { 0xcc } };
    pp_patch back;
    assert_applies(&patch, 1, &back);
    ck_assert_int_eq(run(code), 0);
    ck_assert_uint_eq(atomic_load(&foreign), 3);
    assert_applies(&back, 1, NULL);
    ck_assert_int_eq(run(code), 0);
    ck_assert_uint_eq(atomic_load(&foreign), 3);
    ck_assert_uint_eq(atomic_load(&ours), 0);

    /* A trap that is delivered when it is gone; one byte beside; a single step; reused code. */
    ucontext_t context;
    memset(&context, 0, sizeof context);
    greg_t *registers = context.uc_mcontext.gregs;
    registers[REG_TRAPNO] = 3;
    registers[REG_RIP] = (greg_t) (code + 1);
    ck_assert_int_eq(pp_patch_trap(&context), 1);
    ck_assert_int_eq(registers[REG_RIP], (greg_t) code);
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    registers[REG_RIP] = (greg_t) (code + 2);
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    registers[REG_RIP] = (greg_t) (code + 1);
    registers[REG_TRAPNO] = 1;
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    registers[REG_TRAPNO] = 3;
    uint8_t *again;
    ck_assert_int_eq(pp_span_free(pool, pp_span_at(code)), PP_OK);
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    make_span(SITE, 1, &again);
    ck_assert_ptr_eq(again, code);
    ck_assert_int_eq(pp_patch_trap(&context), 0);
    ck_assert_int_eq(registers[REG_RIP], (greg_t) (code + 1));
    stop();
}
END_TEST

/* The table of traps grows, and forgets those of code that is gone. */
START_TEST(traps_of_gone_code_are_forgotten)
{
    enum { MANY = 4000 };
    static uint8_t *code[MANY];
    static pp_span *spans[MANY];
    pp_pool_stats old = { .size = sizeof old }, new = { .size = sizeof new };
    start();
    for (unsigned i = 0; i < MANY; i++)
        spans[i] = make_span(6, LENGTH, &code[i]);
    for (unsigned i = 0; i < MANY; i++) {
        pp_patch patch = make_patch(code[i], 6, -1, 1, PP_PATCH_INT3);
        assert_applies(&patch, 1, NULL);
        if (i >= 10)
            ck_assert_int_eq(pp_span_free(pool, spans[i - 10]), PP_OK);
        if (i == 100)
            ck_assert_int_eq(pp_pool_get_stats(pool, &old), PP_OK);
    }
    ck_assert_int_eq(pp_pool_get_stats(pool, &new), PP_OK);
    ck_assert_uint_le(new.metadata, old.metadata + 16384);
    for (unsigned i = 0; i < MANY - 10; i++)
        make_span(6, LENGTH, &code[i]);
    for (unsigned i = 0; i < MANY; i++) {
        pp_patch patch = make_patch(code[i], 6, i < MANY - 10 ? -1 : 1, 2, PP_PATCH_INT3);
        assert_applies(&patch, 1, NULL);
    }
    ucontext_t context;
    memset(&context, 0, sizeof context);
    context.uc_mcontext.gregs[REG_TRAPNO] = 3;
    for (unsigned i = 0; i < MANY; i++) {
        context.uc_mcontext.gregs[REG_RIP] = (greg_t) (code[i] + 7);
        ck_assert_int_eq(pp_patch_trap(&context), 1);
    }
    stop();
}
END_TEST
#endif

/* ---- bytes ------------------------------------------------------------- */

START_TEST(nops_are_one_instruction)
{
    uint8_t bytes[16];
    for (size_t length = 0; length <= 17; length++) {
        memset(bytes, 0x5a, sizeof bytes);
        pp_status status = pp_emit_nop(PP_ARCH_X86_64, length, bytes, 15);
        ck_assert_int_eq(status, length >= 1 && length <= 15 ? PP_OK : PP_E_ARG);
        if (status != PP_OK)
            continue;
        ck_assert_uint_eq(bytes[length], 0x5a);
        ck_assert_uint_eq(x86_64_instruction_length(bytes, 16), length);
        ck_assert_uint_eq(x86_64_instruction_length(bytes, length), length);
        ck_assert_uint_eq(x86_64_instruction_length(bytes, length - 1), 0);
        ck_assert_int_eq(pp_emit_nop(PP_ARCH_X86_64, length, bytes, length - 1), PP_E_RANGE);
    }
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_AARCH64, 5, bytes, 16), PP_E_ARG);
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_AARCH64, 4, bytes, 16), PP_OK);
    ck_assert(aarch64_is_patchable(0xd503201f));
    ck_assert_int_eq(pp_emit_nop((pp_arch) 77, 4, bytes, 16), PP_E_ARG);
    ck_assert_uint_eq(pp_patch_padding(PP_ARCH_AARCH64, 5, 4), 3);
    ck_assert_uint_eq(pp_patch_padding(PP_ARCH_AARCH64, 8, 4), 0);
    ck_assert_uint_eq(pp_patch_padding(PP_ARCH_AARCH64, 8, 5), PP_PATCH_NO_PADDING);
    ck_assert_uint_eq(pp_patch_padding(PP_ARCH_X86_64, 0, 9), PP_PATCH_NO_PADDING);
}
END_TEST

START_TEST(jumps_reach_as_far_as_they_do)
{
    static const struct { pp_arch arch; int64_t distance; pp_status status; } rows[] = {
        { PP_ARCH_X86_64, INT64_C(0x7fffffff) + 5, PP_OK },
        { PP_ARCH_X86_64, INT64_C(0x7fffffff) + 6, PP_E_RANGE },
        { PP_ARCH_X86_64, -INT64_C(0x80000000) + 5, PP_OK },
        { PP_ARCH_X86_64, -INT64_C(0x80000000) + 4, PP_E_RANGE },
        { PP_ARCH_AARCH64, 0x7fffffc, PP_OK },
        { PP_ARCH_AARCH64, 0x8000000, PP_E_RANGE },
        { PP_ARCH_AARCH64, -0x8000000, PP_OK },
        { PP_ARCH_AARCH64, -0x8000004, PP_E_RANGE },
        { PP_ARCH_AARCH64, 2, PP_E_ARG },
    };
    const uintptr_t from = UINT64_C(0x100000000000);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t bytes[16] = { 0 };
        size_t written = 99;
        ck_assert_int_eq(pp_emit_jump(rows[i].arch, (void *) from,
                                      (void *) (from + (uintptr_t) rows[i].distance), bytes, 16,
                                      &written), rows[i].status);
        if (rows[i].status != PP_OK) {
            ck_assert_uint_eq(written, 99);
            continue;
        }
        uint32_t word;
        memcpy(&word, bytes + (rows[i].arch == PP_ARCH_X86_64), 4);
        if (rows[i].arch == PP_ARCH_X86_64)
            ck_assert_int_eq((int64_t) (int32_t) word + 5, rows[i].distance);
        else
            ck_assert_int_eq(((int32_t) (word << 6) >> 6) * INT64_C(4), rows[i].distance);
    }
}
END_TEST

/* What assemblers make of it; a length of 0 for what is not known, or is cut off. */
START_TEST(lengths_are_right_or_unknown)
{
    static const struct { const char *bytes; size_t size, length; } rows[] = {
        { "\x90", 1, 1 }, { "\x66\x90", 2, 2 }, { "\xe9\0\0\0\0", 5, 5 }, { "\xe8\0\0\0\0", 5, 5 },
        { "\xeb\x05", 2, 2 }, { "\x74\x05", 2, 2 }, { "\x0f\x84\0\0\0\0", 6, 6 },
        { "\xff\x25\0\0\0\0", 6, 6 }, { "\xff\x15\0\0\0\0", 6, 6 }, { "\xff\xe0", 2, 0 },
        { "\xb8\1\0\0\0", 5, 5 }, { "\x41\xbb\1\0\0\0", 6, 6 },
        { "\x49\xbb\1\0\0\0\0\0\0\0", 10, 10 }, { "\x49\xbb\1\0\0\0\0\0\0", 9, 0 },
        { "\xa8\1", 2, 2 }, { "\xa9\1\0\0\0", 5, 5 }, { "\x3d\1\0\0\0", 5, 5 },
        { "\xc3", 1, 1 }, { "\xcc", 1, 1 }, { "\x0f\x0b", 2, 2 }, { "\xf3\x0f\x1e\xfa", 4, 4 },
        { "\xf3\x0f\x1e\xfb", 4, 0 }, { "\xf3\x90", 2, 0 }, { "\x66\xe9\0\0\0\0", 6, 0 },
        { "\x0f\x1f\x44\0\0", 5, 5 }, { "\x0f\x1f\x4c\0\0", 5, 0 }, { "\x0f\x1f\xc0", 3, 3 },
        { "\x0f\x1f\x05\0\0\0\0", 7, 7 }, { "\x0f\x1f\x04\x25\0\0\0\0", 8, 8 },
        { "\x0f\x1f\x04\x24", 4, 4 }, { "\x2e\x2e\x66\x0f\x1f\x84\0\0\0\0\0", 11, 11 },
        { "\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90", 16, 0 },
        { "\xe9\0\0\0", 4, 0 }, { "\x0f", 1, 0 }, { "\x66", 1, 0 }, { "\x41", 1, 0 },
        { "\xff", 1, 0 }, { "\x48\x89\xe5", 3, 0 }, { "\x66\xb8\1\0", 4, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ck_assert_msg(x86_64_instruction_length((const uint8_t *) rows[i].bytes, rows[i].size) ==
                          rows[i].length, "row %zu", i);
    static const uint32_t in[] = { 0x14000001, 0x94000001, 0xd503201f, 0xd4200000, 0xd43fffe0,
                                   0xd4000001, 0xd4000002, 0xd4000003, 0xd5033fdf };
    static const uint32_t out[] = { 0x54000040, 0xb4000040, 0x36000040, 0x58000040, 0x90000000,
                                    0xd65f03c0, 0xd61f0200, 0xd503245f, 0xd5033bbf, 0xd4400000,
                                    0xd503205f, 0x00000000 };
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        ck_assert_msg(aarch64_is_patchable(in[i]), "%#x", in[i]);
    for (size_t i = 0; i < sizeof out / sizeof *out; i++)
        ck_assert_msg(!aarch64_is_patchable(out[i]), "%#x", out[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("patch");
    TCase *tests = tcase_create("patch");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, sites_are_armed_retargeted_and_disarmed, 0, LIVE_MODES);
    tcase_add_loop_test(tests, literals_change, 0, LIVE_MODES);
    tcase_add_loop_test(tests, a_batch_has_one_barrier_and_a_way_back, 0, LIVE_MODES);
    tcase_add_test(tests, a_journal_undoes_all_or_nothing);
    tcase_add_test(tests, guards_change);
    tcase_add_loop_test(tests, stopped_patches_change_anything, 0, MODES);
    tcase_add_test(tests, wrong_patches_are_refused);
#if defined __x86_64__
    tcase_add_test(tests, words_are_not_straddled);
    tcase_add_loop_test(tests, int3_patches_any_instruction, 0, LIVE_MODES);
    tcase_add_loop_test(tests, threads_wait_at_a_trap, 0, LIVE_MODES);
    tcase_add_test(tests, foreign_traps_are_left_alone);
    tcase_add_test(tests, traps_of_gone_code_are_forgotten);
#endif
    tcase_add_loop_test(tests, threads_run_what_was_or_what_is, 0, LIVE_MODES);
    tcase_add_test(tests, flip_pages_are_not_written_under_threads);
    tcase_add_test(tests, only_what_is_published_is_patched);
    tcase_add_test(tests, children_keep_their_code);
    tcase_add_test(tests, nops_are_one_instruction);
    tcase_add_test(tests, jumps_reach_as_far_as_they_do);
    tcase_add_test(tests, lengths_are_right_or_unknown);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
