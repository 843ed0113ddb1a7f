/* SPDX-License-Identifier: MIT */
/* A function whose site can be patched, in spans and traces, for tests of patches. */
#ifndef TESTS_PATCHING_H
#define TESTS_PATCHING_H

#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <stdbool.h>

static pp_pool *pool;
static pp_error reason;

static const struct { const char *name; pp_wx wx; } modes[] = {
    { "auto", PP_WX_AUTO }, { "dual", PP_WX_DUAL }, { "remap", PP_WX_REMAP },
    { "rwx", PP_WX_RWX }, { "flip", PP_WX_FLIP },
};
enum { LIVE_MODES = 4, MODES = 5 };

/* False: an emulator does not have the mode. */
static inline bool start_in(pp_wx wx)
{
    pp_pool_options options = { .size = sizeof options, .wx = wx, .error = &reason };
    reason = (pp_error) { .size = sizeof reason };
    return pp_pool_create(&options, &pool) == PP_OK;
}

static inline void start(void)
{
    ck_assert_msg(start_in(PP_WX_AUTO), "%s", reason.text);
}

static inline void stop(void)
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

static inline void write_return(uint8_t *to, uint8_t value)
{
#if defined __x86_64__
    const uint8_t code[] = { 0xb8, value, 0, 0, 0, 0xc3 };
#else
    const uint32_t code[] = { 0x52800000u | (uint32_t) value << 5, 0xd65f03c0 };
#endif
    memcpy(to, code, sizeof code);
}

/* `offset` of the site: its nop is there, and what is before is nops, too. */
static inline void write_function(uint8_t *to, size_t site, size_t length)
{
#if defined __x86_64__
    static const uint8_t load[] = { 0x48, 0x8b, 0x05, 9, 0, 0, 0, 0xc3 }; /* mov 9(%rip), %rax */
    memset(to, 0x90, SIZE);
#else
    static const uint32_t load[] = { 0x58000080, 0xd65f03c0 }; /* ldr x0, . + 16 */
    for (size_t i = 0; i < SIZE / 4; i++)
        memcpy(to + 4 * i, &(uint32_t) { 0xd503201f }, 4);
#endif
    ck_assert_int_eq(pp_emit_nop(PP_ARCH_HOST, length, to + site, SIZE), PP_OK);
    for (unsigned i = 0; i < CHOICES; i++)
        write_return(to + ENDINGS + i * ENDING, (uint8_t) i);
    memcpy(to + LOADER, load, sizeof load);
    memcpy(to + LITERAL, &(uint64_t) { 77 }, 8);
}

static inline pp_span *make_span(size_t site, size_t length, uint8_t **code)
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

static inline pp_trace *make_trace(uint8_t **code)
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

static inline long run(const uint8_t *code)
{
    return ((long (*)(void)) (uintptr_t) code)();
}

/* From the site to an ending; -1: its nop. */
static inline void jump_bytes(const uint8_t *code, size_t site, int choice, size_t length, uint8_t *bytes)
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

static inline pp_patch make_patch(const uint8_t *code, size_t site, int from, int to,
                           pp_patch_protocol protocol)
{
    pp_patch patch = { .address = code + site, .protocol = (uint8_t) protocol, .bytes = LENGTH,
                       .flags = PP_PATCH_EXPECT_OLD };
    jump_bytes(code, site, from, LENGTH, patch.old);
    jump_bytes(code, site, to, LENGTH, patch.value);
    return patch;
}

static inline pp_patch make_literal(const uint8_t *code, uint64_t from, uint64_t to)
{
    pp_patch patch = { .address = code + LITERAL, .protocol = PP_PATCH_LITERAL, .bytes = 8,
                       .flags = PP_PATCH_EXPECT_OLD };
    memcpy(patch.old, &from, 8);
    memcpy(patch.value, &to, 8);
    return patch;
}

static inline pp_status apply(const pp_patch *patches, size_t count, pp_patch *journal)
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

#endif
