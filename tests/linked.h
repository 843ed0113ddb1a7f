/* SPDX-License-Identifier: MIT */
/*
 * A pool with functions to be called, and traces in it whose sizes are compared with
 * what was measured and with what the pool counts.
 */
#ifndef TESTS_LINKED_H
#define TESTS_LINKED_H

#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

/* ---- functions to be called ---------------------------------------------- */

enum { TARGETS = 16 };

static _Atomic unsigned hits[TARGETS];

#define TARGET(n) \
    static void target_##n(void) { atomic_fetch_add_explicit(&hits[n], 1, memory_order_relaxed); }
TARGET(0) TARGET(1) TARGET(2) TARGET(3) TARGET(4) TARGET(5) TARGET(6) TARGET(7)
TARGET(8) TARGET(9) TARGET(10) TARGET(11) TARGET(12) TARGET(13) TARGET(14) TARGET(15)

static void (*const targets[TARGETS])(void) = {
    target_0, target_1, target_2, target_3, target_4, target_5, target_6, target_7,
    target_8, target_9, target_10, target_11, target_12, target_13, target_14, target_15,
};

/* ---- the pool ------------------------------------------------------------ */

struct setting {
    bool far, own, pads;
    pp_wx wx;
};

static pp_pool *pool;
static pp_symbol symbols[TARGETS];
static struct snippet code;
static pp_error reason;

static inline pp_pool *open_pool(bool far, bool pads, pp_wx wx)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) target_0 },
                                .branch_range = far ? 1 : 0, .wx = wx,
                                .flags = pads ? PP_POOL_LANDING_PADS : 0, .error = &reason };
    pp_pool *opened = NULL;

    reason = (pp_error) { .size = sizeof reason };
    ck_assert_msg(pp_pool_create(&options, &opened) == PP_OK, "%s", reason.text);
    return opened;
}

static inline void define_targets(void)
{
    char name[16];

    for (int i = 0; i < TARGETS; i++) {
        snprintf(name, sizeof name, "target_%d", i);
        symbols[i] = pp_symbol_define(pool, name, (void *) targets[i]);
        ck_assert_uint_ne(symbols[i], PP_SYMBOL_NONE);
        atomic_store(&hits[i], 0);
    }
}

static inline void start(bool far, bool pads)
{
    pool = open_pool(far, pads, PP_WX_AUTO);
    define_targets();
}
static inline void start_with(const struct setting *setting)
{
    pool = open_pool(setting->far, setting->pads, setting->wx);
    define_targets();
}
static inline void stop(void)
{
    snippet_free(&code);
    reason.text[0] = '\0';
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
    pp_pool_destroy(pool);
}

static inline pp_pool_stats stats(void)
{
    pp_pool_stats now = { .size = sizeof now };

    ck_assert_int_eq(pp_pool_get_stats(pool, &now), PP_OK);
    return now;
}

/* Everything that spans and traces account for is as it was. */
static inline void assert_same(const pp_pool_stats *before)
{
    pp_pool_stats now = stats();

    ck_assert_uint_eq(now.requested, before->requested);
    ck_assert_uint_eq(now.used, before->used);
    ck_assert_uint_eq(now.spans, before->spans);
    ck_assert_uint_eq(now.traces, before->traces);
    ck_assert_uint_eq(now.trampolines, before->trampolines);
    ck_assert_uint_eq(now.trampoline_bytes, before->trampoline_bytes);
    ck_assert_uint_eq(now.literals, before->literals);
    ck_assert_uint_eq(now.literal_bytes, before->literal_bytes);
    ck_assert_msg(pp_pool_verify(pool, &reason) == PP_OK, "%s", reason.text);
}

static inline bool same_size(const pp_trace_size *a, const pp_trace_size *b)
{
    return a->code == b->code && a->data == b->data && a->trampolines == b->trampolines &&
           a->literals == b->literals && a->trampoline_bytes == b->trampoline_bytes &&
           a->literal_bytes == b->literal_bytes && a->padding == b->padding &&
           a->total == b->total && a->shared_new == b->shared_new;
}

static inline pp_trace *link_desc(pp_trace_desc *desc)
{
    pp_trace_size measured = { .size = sizeof measured }, taken = measured;
    pp_trace *trace = NULL;

    desc->error = &reason;
    ck_assert_msg(pp_trace_measure(pool, desc, &measured) == PP_OK, "%s", reason.text);
    pp_pool_stats before = stats();
    ck_assert_msg(pp_trace_link(pool, desc, &trace) == PP_OK, "%s", reason.text);
    pp_pool_stats after = stats();
    ck_assert_int_eq(pp_trace_get_size(trace, &taken), PP_OK);
    ck_assert(same_size(&measured, &taken));
    ck_assert_uint_eq(taken.total, taken.code + taken.data + taken.trampoline_bytes +
                                       taken.literal_bytes + taken.padding);
    ck_assert_uint_eq(after.requested - before.requested, taken.total);
    ck_assert_uint_eq(after.spans - before.spans, 1);
    ck_assert_uint_eq(after.traces - before.traces, 1);
    return trace;
}

static inline pp_trace *link_code(uint32_t flags)
{
    pp_trace_desc desc = snippet_desc(&code);

    desc.flags = flags;
    return link_desc(&desc);
}

static inline void run(const pp_trace *trace)
{
    const void *entry = pp_trace_entry(trace);

    ck_assert_ptr_nonnull(entry);
    ((void (*)(void)) (uintptr_t) entry)();
}

static inline uint64_t run_for_value(const pp_trace *trace)
{
    return ((uint64_t (*)(void)) (uintptr_t) pp_trace_entry(trace))();
}

static inline void free_trace(pp_trace *trace)
{
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
}

static inline pp_trace_size size_of(const pp_trace *trace)
{
    pp_trace_size size = { .size = sizeof size };

    ck_assert_int_eq(pp_trace_get_size(trace, &size), PP_OK);
    return size;
}

#endif
