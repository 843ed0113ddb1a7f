/* SPDX-License-Identifier: MIT */
/* Live patching: each protocol, what it refuses, and what is left as it was. */
#include <config.h>

#include "memory/code_map.h"
#include "memory/region.h"
#include "patching.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

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

static bool in_one_region(const uint8_t *a, const uint8_t *b)
{
    pp_region_info info = { .size = sizeof info };
    for (unsigned i = 0; pp_pool_get_region(pool, i, &info) == PP_OK; i++)
        if ((uintptr_t) a - info.base < info.limit - info.base)
            return (uintptr_t) b - info.base < info.limit - info.base;
    return false;
}

/* Until there is no more space for it, and the pool has opened another region. */
static void fill_region(const uint8_t *code)
{
    pp_span *span;
    pp_span_desc desc = { .size = sizeof desc, .bytes = 65536, .error = &reason };
    pp_span_place place = { .size = sizeof place };
    do {
        ck_assert_msg(pp_span_alloc(pool, &desc, &span, &place) == PP_OK, "%s", reason.text);
    } while (in_one_region(code, (const uint8_t *) place.execute));
}

/* Two of many that meet are neighbours only when all are in order; in two regions. */
START_TEST(two_of_many_that_meet_are_found)
{
    enum { MANY = 24, ROUNDS = 200 };
    uint8_t *code[MANY];
    pp_patch patches[MANY + 1];
    uint32_t random = 1;
    pp_pool_options options = { .size = sizeof options, .region_bytes = 2 << 20, .error = &reason };
    reason = (pp_error) { .size = sizeof reason };
    ck_assert_msg(pp_pool_create(&options, &pool) == PP_OK, "%s", reason.text);
    for (unsigned i = 0; i < MANY; i++) {
        make_span(SITE, LENGTH, &code[i]);
        if (i == MANY / 2)
            fill_region(code[i]);
    }
    ck_assert(!in_one_region(code[0], code[MANY - 1]));
    for (unsigned round = 0; round < ROUNDS; round++) {
        const unsigned count = 2 + round % (MANY - 1);
        for (unsigned i = 0; i < count; i++)
            patches[i] = make_literal(code[i], 77, 78);
        patches[count] = patches[round % count];
        for (unsigned i = count; i > 0; i--) {
            random = random * 1103515245u + 12345;
            const unsigned other = (random >> 16) % (i + 1);
            pp_patch patch = patches[i];
            patches[i] = patches[other];
            patches[other] = patch;
        }
        ck_assert_int_eq(apply(patches, count + 1, NULL), PP_E_ARG);
        ck_assert_msg(strstr(reason.text, "share a byte") != NULL, "%s", reason.text);
    }
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_int_eq(run(code[i] + LOADER), 77);
    for (unsigned i = 0; i < MANY; i++)
        patches[i] = make_literal(code[i], 77, 80 + i);
    assert_applies(patches, MANY, NULL);
    for (unsigned i = 0; i < MANY; i++)
        ck_assert_int_eq(run(code[i] + LOADER), 80 + i);
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

#if defined __x86_64__
/* The host's word is taken for what the library does not know, not against what it knows. */
static const struct declared {
    unsigned protocol, bytes;
    const char *code;         /* what is there; behind it are returns */
    size_t size;
    const char *value;
    const char *refused;      /* NULL: it is not */
} declared[] = {
#define ROW(protocol, bytes, code, ...) { protocol, bytes, code, sizeof(code) - 1, __VA_ARGS__ }
#define NOP5 "\x0f\x1f\x44\x00\x08"
#define NOP8 "\x0f\x1f\x84\x00\x01\x00\x00\x00"
#define NOP15 "\x66\x66\x66\x66\x66\x66\x2e\x0f\x1f\x84\x00\x01\x02\x03\x04"
#define MOV3 "\x48\x89\xe5"                     /* an instruction that the library does not know */
#define MOV8 "\x48\xc7\x44\x24\xf8\x01\x00\x00" /* and the first bytes of one */
#define JMP5 "\xe9\x01\x00\x00\x00"
#define CALL5 "\xe8\x01\x00\x00\x00"
    ROW(PP_PATCH_WORD, 8, NOP5 MOV3, MOV8, "a NOP of 5 bytes is there, and the patch has 8"),
    ROW(PP_PATCH_WORD, 8, NOP5 MOV3, JMP5 "\x90\x90\x90", "a NOP of 5 bytes is there"),
    ROW(PP_PATCH_WORD, 8, NOP5 MOV3, NOP8, "a NOP of 5 bytes is there"),
    ROW(PP_PATCH_WORD, 7, NOP5 "\x90\xc3", "\x0f\x1f\x80\x01\x00\x00\x00", "a NOP of 5 bytes"),
    ROW(PP_PATCH_WORD, 8, NOP5 MOV3, JMP5 MOV3, NULL),
    ROW(PP_PATCH_WORD, 8, NOP5 "\x0f\x1f\x00", JMP5 "\x66\x90\x90", "a NOP of 5 bytes is there"),
    ROW(PP_PATCH_WORD, 8, NOP5 "\x0f\x1f\x00", JMP5 "\x0f\x1f\xc0", NULL),
    ROW(PP_PATCH_WORD, 5, NOP5 MOV3, "\x48\x83\x45\xf8\x01", NULL),
    ROW(PP_PATCH_WORD, 8, MOV8 "\x00", NOP8, NULL),
    ROW(PP_PATCH_WORD, 5, NOP8, JMP5, NULL),
    ROW(PP_PATCH_WORD, 5, NOP8, CALL5, "a NOP of 8 bytes is there, and the patch has 5"),
    ROW(PP_PATCH_WORD, 5, NOP8, "\x48\x83\x45\xf8\x01", "a NOP of 8 bytes is there"),
    ROW(PP_PATCH_WORD, 5, NOP15, CALL5, NULL),   /* what is behind is a NOP */
    ROW(PP_PATCH_WORD, 8, NOP15, CALL5 MOV3, "a NOP of 15 bytes is there"),
    ROW(PP_PATCH_WORD, 4, CALL5, "\xe8\x0f\x1f\x44", NULL),
    ROW(PP_PATCH_WORD, 4, MOV3 "\x90\x00\x01\x02\x03\x04", "\x0f\x1f\x84\x00",
      "the new bytes would be a NOP of 8 bytes, and the patch has 4"),
    ROW(PP_PATCH_WORD, 4, "\x0f\x1f\x00\x00\x55\x55", "\xe8\x00\x00\x00", NULL), /* a distance */
    ROW(PP_PATCH_WORD, 8, "\xe8\x01\x00\x00\x00\x0f\x1f\x00", NOP8, "the new bytes would be"),
    ROW(PP_PATCH_INT3, 8, NOP5 MOV3, MOV8, "more than one instruction"),
    ROW(PP_PATCH_INT3, 5, NOP8, CALL5, "a NOP of 8 bytes is there"),
    ROW(PP_PATCH_INT3, 5, NOP8, "\x48\x83\x45\xf8\x01", "a NOP of 8 bytes is there"),
    ROW(PP_PATCH_INT3, 5, NOP8, JMP5, NULL),
    ROW(PP_PATCH_INT3, 5, NOP15, CALL5, NULL),
    ROW(PP_PATCH_INT3, 9, "\x48\xc7\x44\x24\xf8\x01\x00\x00\x00", "\x66" NOP8, NULL),
};

static uint8_t *make_code(const struct declared *row, size_t place)
{
    pp_span *span;
    pp_span_desc desc = { .size = sizeof desc, .bytes = SIZE, .error = &reason };
    pp_span_place where = { .size = sizeof where };
    ck_assert_int_eq(pp_span_alloc(pool, &desc, &span, &where), PP_OK);
    memset(where.write, 0xc3, where.bytes);
    memcpy((uint8_t *) where.write + place, row->code, row->size);
    ck_assert_int_eq(pp_span_publish(pool, &span, 1, NULL), PP_OK);
    return (uint8_t *) (uintptr_t) where.execute;
}

START_TEST(what_is_declared_fits_what_is_known)
{
    const struct declared *row = &declared[_i];
    start();
    /* In the middle, and at the end, where nothing is behind. */
    for (size_t end = 0; end < 2; end++) {
        size_t place = end == 0 ? 8 : (SIZE - row->size) & -(size_t) 8;
        uint8_t *code = make_code(row, place);
        pp_patch back, patch = { .address = code + place, .protocol = (uint8_t) row->protocol,
                                 .bytes = (uint8_t) row->bytes, .flags = PP_PATCH_DECLARED };
        memcpy(patch.value, row->value, row->bytes);
        if (row->refused != NULL) {
            assert_refused(&patch, 1, PP_E_ARG, row->refused, code);
            continue;
        }
        assert_applies(&patch, 1, &back);
        assert_applies(&back, 1, NULL); /* what was done can be undone */
    }
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
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    pp_reclaim_result result = { .size = sizeof result };
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, &result), PP_OK);
    ck_assert_uint_eq(result.freed, 2);
    assert_refused(&patch, 1, PP_E_STALE, "nothing is there", code);
    pp_reservation reservation = { .size = sizeof reservation };
    ck_assert_int_eq(pp_trace_reserve(pool, SIZE, NULL, &reservation, NULL), PP_OK);
    patch.address = reservation.execute;
    ck_assert_int_eq(apply(&patch, 1, NULL), PP_E_STALE);
    ck_assert_int_eq(pp_trace_abandon(pool, &reservation), PP_OK);
    stop();
}
END_TEST

static int hold(void *host) { (void) host; return 0; }
static void let_go(void *host) { (void) host; }

/* Retired code runs until it is reclaimed, and is patched like any other: by address or handle. */
START_TEST(retired_code_is_patched)
{
    uint8_t *code, *traced;
    if (!start_in(modes[_i].wx))
        return;
    pp_patch_protocol protocol = modes[_i].wx == PP_WX_FLIP ? PP_PATCH_STOPPED : CODE_PROTOCOL;
    pp_span *span = make_span(SITE, LENGTH, &code);
    pp_trace *trace = make_trace(&traced);
    pp_patch patches[] = { make_patch(code, SITE, -1, 1, protocol),
                           make_patch(traced, SITE, -1, 1, protocol) }, back[2];
    patches[0].handle = span;
    patches[1].handle = trace;
    ck_assert_int_eq(pp_span_retire(pool, span), PP_OK);
    ck_assert_int_eq(pp_trace_retire(pool, trace), PP_OK);
    pp_patch_options options = { .size = sizeof options, .stop = hold, .start = let_go,
                                 .journal = back, .error = &reason };
    ck_assert_msg(pp_patch_apply(pool, patches, 2, &options) == PP_OK, "%s", reason.text);
    ck_assert_int_eq(run(code), 1);
    ck_assert_int_eq(run(traced), 1);
    options.journal = NULL;
    ck_assert_msg(pp_patch_apply(pool, back, 2, &options) == PP_OK, "%s", reason.text);
    ck_assert_int_eq(run(code), 0);
    ck_assert_int_eq(run(traced), 0);
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
    ck_assert_int_eq(pp_patch_apply(pool, &patches[0], 1, &options), PP_E_STALE);
    ck_assert_int_eq(pp_patch_apply(pool, &patches[1], 1, &options), PP_E_STALE);
    stop();
}
END_TEST

enum { PIECES = 24, PIECE_ROUNDS = 300 };
static _Atomic(uint8_t *) pieces[PIECES];
static atomic_bool over;

/* Each patch finds the piece that it was made for, or nothing. */
static void *patch_pieces(void *unused)
{
    (void) unused;
    for (unsigned n = 0; !atomic_load(&over); n++) {
        const uint8_t *code = atomic_load(&pieces[n % PIECES]);
        if (code == NULL)
            continue;
        pp_trace *trace = pp_trace_at(code);
        if (trace == NULL || pp_trace_host(trace) != pool)
            continue;
        pp_patch patch = make_patch(code, SITE, -1, 1, CODE_PROTOCOL);
        patch.handle = trace;
        pp_status status = pp_patch_apply(pool, &patch, 1, NULL);
        if (status != PP_OK && status != PP_E_STALE && status != PP_E_BUSY)
            return (void *) "a patch was neither done nor stale";
    }
    return NULL;
}

/* What has the place of reclaimed code is never written to: its sites are nops as before. */
START_TEST(patches_race_with_reclaims)
{
    pthread_t threads[2];
    pp_trace *traces[PIECES];
    void *complaint;
    if (!start_in(modes[_i].wx))
        return;
    atomic_store(&over, false);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, patch_pieces, NULL), 0);
    for (unsigned round = 0; round < PIECE_ROUNDS; round++) {
        void *host = round % 2 == 0 ? pool : NULL;
        for (unsigned i = 0; i < PIECES; i++) {
            uint8_t bytes[SIZE];
            write_function(bytes, SITE, LENGTH);
            pp_trace_desc desc = { .size = sizeof desc, .code = bytes, .code_size = SIZE,
                                   .host = host };
            ck_assert_int_eq(pp_trace_link(pool, &desc, &traces[i]), PP_OK);
            atomic_store(&pieces[i], (uint8_t *) (uintptr_t) pp_trace_entry(traces[i]));
        }
        for (unsigned i = 0; i < PIECES; i++) {
            long value = run(pieces[i]);
            ck_assert_msg(value == 0 || (value == 1 && host != NULL), "%ld", value);
            ck_assert_int_eq(pp_trace_retire(pool, traces[i]), PP_OK);
        }
        ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &complaint), 0);
        ck_assert_msg(complaint == NULL, "%s", (const char *) complaint);
    }
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

/* ---- locks ------------------------------------------------------------ */

struct patcher {
    const pp_patch *patch;
    pp_status status;
    atomic_bool done;
};

static void *apply_one(void *argument)
{
    struct patcher *patcher = argument;
    patcher->status = apply(patcher->patch, 1, NULL);
    atomic_store(&patcher->done, true);
    return NULL;
}

/* Else the span could go between the look at it and the patch. */
START_TEST(a_patch_waits_for_the_lock_of_its_region)
{
    uint8_t *code;
    pthread_t thread;
    start();
    make_span(SITE, LENGTH, &code);
    const pp_patch patch = make_literal(code, 77, 78);
    struct patcher patcher = { .patch = &patch };
    struct region *region = region_at((uintptr_t) code);
    pthread_mutex_lock(&region->lock);
    ck_assert_int_eq(pthread_create(&thread, NULL, apply_one, &patcher), 0);
    for (unsigned i = 0; i < 20 && !atomic_load(&patcher.done); i++)
        usleep(10000);
    ck_assert(!atomic_load(&patcher.done));
    ck_assert_int_eq(run(code + LOADER), 77);
    pthread_mutex_unlock(&region->lock);
    pthread_join(thread, NULL);
    ck_assert_int_eq(patcher.status, PP_OK);
    ck_assert_int_eq(run(code + LOADER), 78);
    stop();
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
    tcase_add_test(tests, two_of_many_that_meet_are_found);
#if defined __x86_64__
    tcase_add_test(tests, words_are_not_straddled);
    tcase_add_loop_test(tests, int3_patches_any_instruction, 0, LIVE_MODES);
    tcase_add_loop_test(tests, what_is_declared_fits_what_is_known, 0,
                        sizeof declared / sizeof declared[0]);
#endif
    tcase_add_test(tests, flip_pages_are_not_written_under_threads);
    tcase_add_test(tests, only_what_is_published_is_patched);
    tcase_add_loop_test(tests, retired_code_is_patched, 0, MODES);
    tcase_add_loop_test(tests, patches_race_with_reclaims, 0, LIVE_MODES);
    tcase_add_test(tests, children_keep_their_code);
    tcase_add_test(tests, a_patch_waits_for_the_lock_of_its_region);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failures = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failures != 0;
}
