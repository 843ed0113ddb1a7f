/* SPDX-License-Identifier: MIT */
/* Spans for tests: taken, filled with a function, run. */
#ifndef TESTS_SPANS_H
#define TESTS_SPANS_H

#include "memory/pool.h"

#include <check.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Check's own assertions tell a pipe that they passed: too slow for loops, wrong in threads. */
#define require(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static const struct frame_rule no_rule;
static pp_error error = { .size = sizeof error };

static inline pp_status fixed_size(struct region *region, void *context, size_t *size)
{
    (void) region;
    *size = *(size_t *) context;
    return PP_OK;
}

static inline pp_status take_with(pp_pool *pool, const struct frame_rule *rule, size_t size,
                                  size_t align, struct span *span)
{
    return pool_alloc(pool, rule, align, fixed_size, &size, span, &error);
}

static inline pp_status take(pp_pool *pool, size_t size, struct span *span)
{
    return take_with(pool, &no_rule, size, 16, span);
}

/* NULL: this machine cannot do the mode. */
static inline pp_pool *open_telling(pp_wx wx, uint32_t unwinders)
{
    pp_pool_options options = { .size = sizeof options, .wx = wx, .unwinders = unwinders,
                                .error = &error };
    if (unwinders & PP_UNWIND_LIBUNWIND)
        require(dlopen("libunwind.so.8", RTLD_NOW) != NULL);
    pp_pool *pool = NULL;
    pp_status status = pp_pool_create(&options, &pool);
    if (status == PP_E_UNSUPPORTED && wx != PP_WX_AUTO) {
        printf("mode %d is skipped: %s\n", wx, error.text);
        return NULL;
    }
    ck_assert_msg(status == PP_OK, "%s", error.text);
    return pool;
}

static inline pp_pool *open_pool(pp_wx wx) { return open_telling(wx, 0); }

static inline pp_pool_stats stats_of(pp_pool *pool)
{
    pp_pool_stats stats = { .size = sizeof stats };
    require(pp_pool_get_stats(pool, &stats) == PP_OK);
    return stats;
}

static inline void verify(pp_pool *pool)
{
    pp_status status = pp_pool_verify(pool, &error);
    ck_assert_msg(status == PP_OK, "%s", error.text);
}

#define RETURN_BYTES 8

/* int f(void) { return value; } */
static inline void encode_return(uint8_t *write, unsigned value)
{
#if defined __x86_64__
    const uint8_t code[RETURN_BYTES] = { 0xb8, value & 0xff, value >> 8 & 0xff, 0, 0, 0xc3 };
#else
    const uint32_t code[] = { 0x52800000 | (uint32_t) (value & 0xffff) << 5, 0xd65f03c0 };
#endif
    memcpy(write, code, RETURN_BYTES);
}

static inline pp_status write_return(const struct span *span, unsigned value)
{
    uint8_t *write;
    pp_status status = region_write_begin(span->region, span->exec, span->size, &write, &error);
    if (status != PP_OK)
        return status;
    encode_return(write, value);
    return region_write_end(span->region, span->exec, span->size, &error);
}

static inline unsigned run(const struct span *span)
{
    return (unsigned) ((int (*)(void)) span->exec)();
}

static inline unsigned seed(void)
{
    const char *text = getenv("SEED");
    unsigned value = text != NULL ? (unsigned) strtoul(text, NULL, 0) : (unsigned) time(NULL);
    printf("SEED=%u\n", value);
    return value;
}

static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static inline bool is_emulated(void)
{
    /* Its idea of address space, limits and mappings is not the kernel's. */
    return getenv("emulator") != NULL && *getenv("emulator") != '\0';
}

#endif
