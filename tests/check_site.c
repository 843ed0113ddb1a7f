/* SPDX-License-Identifier: MIT */
/* Sites, entries and resuming: what is accepted, what is refused, and what they keep alive. */
#include <config.h>

#include "os/cpu.h"
#include "sanitized.h"
#include "stress/method.h"

#include <patchpoint/walk.h>

#include <check.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined __x86_64__
#define REG_A (1ull << 3)               /* rbx */
#define REG_B (1ull << 12)
#define REG_C (1ull << 13)              /* without a slot */
#define NOT_SAVED (1ull << 0)           /* rax */
#define STUB_REGISTER (1u << 11)        /* r11 */
#define LIVE_GPRS 0xf7ffu
#define LIVE_VECTORS 0xffffu
#else
#define REG_A (1ull << 19)
#define REG_B (1ull << 28)
#define REG_C (1ull << 20)
#define NOT_SAVED (1ull << 18)
#define STUB_REGISTER (1u << 17)
#define LIVE_GPRS 0xbffcffffu
#define LIVE_VECTORS 0xffffffffu
#endif

static pp_pool *pool;
static pp_thread thread;

static void setup(void)
{
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

static const pp_tier0_layout frame = {
    .size = sizeof frame, .frame_bytes = 128,
    .saves = { .slots = REG_A | REG_B, .saved = REG_A, .offset = -64 },
};

static pp_status never(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
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

static const pp_site_desc good_site = {
    .size = sizeof good_site, .kind = PP_SITE_COUNTED, .counter_offset = -8, .threshold = 1,
    .thread_offset = -16, .tier0 = &frame, .produce = never,
};

/* ---- descriptions -------------------------------------------------------- */

#define SITE(change) { pp_site_desc desc = good_site; change; \
    ck_assert_msg(pp_site_create(pool, &desc, &site) == PP_E_ARG, "%s", #change); }

START_TEST(site_refuses_what_cannot_be)
{
    pp_site *const untouched = (pp_site *) &frame;
    pp_site *site = untouched;
    pp_error error = { .size = sizeof error };
    SITE(desc.size--)
    SITE(desc.kind = 0)
    SITE(desc.kind = PP_SITE_ARMED + 1)
    SITE(desc.counter = PP_COUNTER_THREAD + 1)
    SITE(desc.counter = PP_COUNTER_DATA)
    SITE(desc.word = &error)
    SITE(desc.counter = PP_COUNTER_DATA; desc.word = (char *) &error + 2)
    SITE(desc.counter = PP_COUNTER_THREAD; desc.counter_offset = 64; desc.thread_offset = 0)
    SITE(desc.counter = PP_COUNTER_THREAD; desc.counter_offset = 60)
    SITE(desc.counter = PP_COUNTER_THREAD; desc.counter_offset = 66)
    SITE(desc.counter = PP_COUNTER_THREAD; desc.counter_offset = 4096)
    SITE(desc.flags = PP_SITE_BYTE)
    SITE(desc.poll = poll)
    SITE(desc.otherwise = &frame)
    SITE(desc.refused = refused)
    SITE(desc.threshold = 0)
    SITE(desc.threshold = -1)
    SITE(desc.threshold = (1 << 30) + 1)
    SITE(desc.save = PP_SAVE_MASK512 + 1)
    SITE(desc.save = (pp_save) -1)
    SITE(desc.live_gpr = 1)
    SITE(desc.live_vector = 1)
    SITE(desc.save = PP_SAVE_V128; desc.live_vector = 1)
    SITE(desc.save = PP_SAVE_MASK; desc.live_gpr = STUB_REGISTER)
    SITE(desc.size = offsetof(pp_site_desc, live_gpr) - 8)
    SITE(desc.flags = 4)
    SITE(desc.produce = NULL)
    SITE(desc.tier0 = NULL)
    SITE(desc.counter_offset = -6)
    SITE(desc.counter_offset = -132)
    SITE(desc.counter_offset = INT32_MIN)
    SITE(desc.counter_offset = INT32_MAX - 3)
    SITE(desc.counter_offset = 0)
    SITE(desc.counter_offset = 12)
    SITE(desc.counter_offset = 16)
    SITE(desc.counter_offset = -64)
    SITE(desc.counter_offset = -52)
    SITE(desc.thread_offset = -12)
    SITE(desc.thread_offset = -136)
    SITE(desc.thread_offset = -8)
    SITE(desc.thread_offset = -56)
#if defined __aarch64__
    SITE(desc.flags = PP_SITE_RED_ZONE)
#else
    SITE(desc.save = PP_SAVE_MASK; desc.live_gpr = 1 << 16)
    SITE(desc.save = PP_SAVE_MASK; desc.live_vector = 1 << 16)
#endif
    SITE(desc.error = &error; desc.threshold = 0)
    ck_assert_str_eq(error.text, "threshold: 0");
    SITE(desc.error = &error; desc.live_vector = 0x81)
    ck_assert_str_eq(error.text, "live_vector: 0x81 not kept");
    ck_assert_int_eq(pp_site_create(NULL, &good_site, &site), PP_E_ARG);
    ck_assert_int_eq(pp_site_create(pool, NULL, &site), PP_E_ARG);
    ck_assert_int_eq(pp_site_create(pool, &good_site, NULL), PP_E_ARG);
    ck_assert_ptr_eq(site, untouched);
}
END_TEST

static const pp_site_desc good_poll = {
    .size = sizeof good_poll, .kind = PP_SITE_POLLED, .counter_offset = -8, .thread_offset = -16,
    .tier0 = &frame, .poll = poll,
};
static const pp_site_desc good_forced = {
    .size = sizeof good_forced, .kind = PP_SITE_FORCED, .thread_offset = -16, .tier0 = &frame,
    .produce = never, .otherwise = &frame,
};

#define POLL(change) { pp_site_desc desc = good_poll; change; \
    ck_assert_msg(pp_site_create(pool, &desc, &site) == PP_E_ARG, "%s", #change); }
#define FORCED(change) { pp_site_desc desc = good_forced; change; \
    ck_assert_msg(pp_site_create(pool, &desc, &site) == PP_E_ARG, "%s", #change); }

START_TEST(other_kinds_refuse_what_cannot_be)
{
    pp_site *const untouched = (pp_site *) &frame;
    pp_site *site = untouched;
    POLL(desc.poll = NULL)
    POLL(desc.produce = never)
    POLL(desc.otherwise = &frame)
    POLL(desc.refused = refused)
    POLL(desc.counter_offset = -6)
    POLL(desc.counter = PP_COUNTER_SITE; desc.flags = PP_SITE_BYTE)
    POLL(desc.counter = PP_COUNTER_DATA)
    POLL(desc.counter = PP_COUNTER_DATA; desc.word = (char *) &site + 1)
    POLL(desc.flags = PP_SITE_BYTE; desc.counter_offset = -9) /* in the thread's slot */
    FORCED(desc.produce = NULL)
    FORCED(desc.otherwise = NULL)
    FORCED(desc.poll = poll)
    FORCED(desc.counter = PP_COUNTER_SITE)
    FORCED(desc.counter_offset = -8)
    FORCED(desc.word = &site)
    FORCED(desc.flags = PP_SITE_BYTE)
#if defined __aarch64__
    FORCED(desc.otherwise = (const char *) &frame + 2)
#endif
    ck_assert_ptr_eq(site, untouched);
    ck_assert_int_eq(pp_site_create(pool, &good_poll, &site), PP_OK);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &good_forced, &site), PP_OK);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
}
END_TEST

/* What the width does not have is refused before the processor is asked. */
START_TEST(wide_masks_name_registers_that_there_are)
{
    pp_error error = { .size = sizeof error };
    pp_site *site;
    pp_site_desc desc = good_site;
    desc.error = &error;
    desc.save = PP_SAVE_MASK256;
    desc.live_gpr = STUB_REGISTER;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_E_ARG);
    desc.save = PP_SAVE_MASK512;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_E_ARG);
#if defined __x86_64__
    desc.save = PP_SAVE_MASK256;
    desc.live_gpr = 0;
    desc.live_vector = 1u << 16;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_E_ARG);
    ck_assert_str_eq(error.text, "live_vector: 0x10000 not kept");
#endif
}
END_TEST

/* A class that the processor lacks is refused, with the reason; the others are there. */
START_TEST(site_has_the_classes_of_the_processor)
{
    static const struct {
        pp_save save;
        enum cpu_vectors needs;
        uint32_t live_gpr, live_vector;
        const char *name;
    } classes[] = {
        { PP_SAVE_ABI, CPU_VECTORS, 0, 0, NULL },
        { PP_SAVE_GPR, CPU_VECTORS, 0, 0, NULL },
        { PP_SAVE_V128, CPU_VECTORS, 0, 0, NULL },
        { PP_SAVE_MASK, CPU_VECTORS, 0, 0, NULL },
        { PP_SAVE_MASK, CPU_VECTORS, LIVE_GPRS, LIVE_VECTORS, NULL },
        { PP_SAVE_V256, CPU_V256, 0, 0, "save: V256: " },
        { PP_SAVE_V512, CPU_V512, 0, 0, "save: V512: " },
        { PP_SAVE_MASK256, CPU_V256, LIVE_GPRS, 0xffff, "save: MASK256: " },
        { PP_SAVE_MASK512, CPU_V512, LIVE_GPRS, UINT32_MAX, "save: MASK512: " },
    };
    pp_site *const untouched = (pp_site *) &frame;
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        pp_error error = { .size = sizeof error };
        pp_site *site = untouched;
        pp_site_desc desc = good_site;
        desc.save = classes[i].save;
        desc.live_gpr = classes[i].live_gpr;
        desc.live_vector = classes[i].live_vector;
        desc.error = &error;
        const char *lacks = classes[i].needs == CPU_VECTORS ? NULL : cpu_lacks(classes[i].needs);
        if (lacks != NULL) {
            ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_E_UNSUPPORTED);
            ck_assert_ptr_eq(site, untouched);
            ck_assert_int_eq(strncmp(error.text, classes[i].name, strlen(classes[i].name)), 0);
            ck_assert_str_eq(error.text + strlen(classes[i].name), lacks);
            printf("%s\n", error.text);
            continue;
        }
        ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
        const uint32_t *live = (const uint32_t *) ((const char *) pp_site_record(site)
                                                   + PP_SITE_LIVE_GPR);
        ck_assert_uint_eq(live[0], classes[i].live_gpr);
        ck_assert_uint_eq(live[1], classes[i].live_vector);
        ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    }
}
END_TEST

/* Hosts that were built before a member was added, or after one that is not here. */
START_TEST(site_takes_other_lengths)
{
    struct {
        pp_site_desc desc;
        uint64_t more;
    } longer = { .desc = good_site };
    pp_site *site;
    pp_site_desc shorter = good_site;
    shorter.size = offsetof(pp_site_desc, live_gpr);
    shorter.live_gpr = 1;                   /* not part of it */
    ck_assert_int_eq(pp_site_create(pool, &shorter, &site), PP_OK);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    longer.desc.size = sizeof longer;
    ck_assert_int_eq(pp_site_create(pool, &longer.desc, &site), PP_OK);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    longer.more = 1;
    ck_assert_int_eq(pp_site_create(pool, &longer.desc, &site), PP_E_ARG);
}
END_TEST

START_TEST(site_lives_and_dies)
{
    pp_site *sites[100];
    uint8_t bytes[128];
    pp_site_layout layout = { .size = sizeof layout };
    pp_site_stats stats = { .size = sizeof stats };
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < 100; i++) {
            pp_site_desc desc = good_site;
            desc.host = &sites[i];
            desc.threshold = (int32_t) i + 1;
            ck_assert_int_eq(pp_site_create(pool, &desc, &sites[i]), PP_OK);
            ck_assert_int_eq(pp_site_state(sites[i]), PP_SITE_IDLE);
            ck_assert_int_eq(pp_site_threshold(sites[i]), (int32_t) i + 1);
            ck_assert_ptr_eq(pp_site_host(sites[i]), &sites[i]);
            ck_assert_ptr_null(pp_site_entry(sites[i]));
            ck_assert_ptr_nonnull(pp_site_record(sites[i]));
            ck_assert_int_eq(pp_emit_site(sites[i], NULL, 0, &layout), PP_OK);
            ck_assert_int_eq(pp_site_state(sites[i]), PP_SITE_IDLE);
            ck_assert_int_eq(pp_emit_site(sites[i], bytes, layout.bytes - 1, &layout), PP_E_RANGE);
            ck_assert_int_eq(pp_site_state(sites[i]), PP_SITE_IDLE);
            ck_assert_int_eq(pp_emit_site(sites[i], bytes, sizeof bytes, &layout), PP_OK);
            ck_assert_int_eq(pp_site_state(sites[i]), PP_SITE_COUNTING);
        }
        ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
        for (unsigned i = 0; i < 100; i++) {
            pp_site *site = sites[(i * 37 + round) % 100];
            ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
            /* Every function sees that the handle is stale, also when its memory has another site. */
            ck_assert_int_eq(pp_site_destroy(pool, site), PP_E_STALE);
            ck_assert_int_eq(pp_emit_site(site, bytes, sizeof bytes, &layout), PP_E_STALE);
            ck_assert_int_eq(pp_site_disable(site), PP_E_STALE);
            ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_E_STALE);
            ck_assert_int_eq(pp_site_state(site), PP_SITE_DISABLED);
            ck_assert_ptr_null(pp_site_record(site));
        }
    }
    pp_site *first = sites[0];
    ck_assert_int_eq(pp_site_create(pool, &good_site, &sites[1]), PP_OK);
    ck_assert_int_eq(pp_site_destroy(pool, first), PP_E_STALE);
    pp_pool *other;
    ck_assert_int_eq(pp_pool_create(NULL, &other), PP_OK);
    ck_assert_int_eq(pp_site_destroy(other, sites[1]), PP_E_FAULT);
    pp_pool_destroy(other);
    ck_assert_int_eq(pp_site_destroy(NULL, sites[1]), PP_E_ARG);
    ck_assert_int_eq(pp_site_destroy(pool, NULL), PP_E_ARG);
}
END_TEST

/* ---- entries ---------------------------------------------------------------- */

static struct method method;

static void open_method(enum method_kind kind)
{
    struct method_shape shape = { .kind = kind, .threshold = 5 };
    ck_assert_int_eq(method_open(&method, pool, &shape), PP_OK);
}

#define ENTRY(status, change) { pp_entry_desc desc = good; change; \
    ck_assert_msg(pp_entry_create(pool, &desc, &entry) == (status), "%s", #change); }

START_TEST(entry_refuses_what_cannot_be)
{
    open_method(METHOD_SUM);
    const uint8_t *code = pp_trace_entry(method.trace);
    const pp_entry_desc good = { .size = sizeof good, .style = PP_ON_TOP, .code = code,
                                 .tier0 = &frame, .used = REG_A };
    pp_entry *const untouched = (pp_entry *) &frame;
    pp_entry *entry = untouched;
    ENTRY(PP_E_ARG, desc.size--)
    ENTRY(PP_E_ARG, desc.style = 0)
    ENTRY(PP_E_ARG, desc.scheme = 2)
    ENTRY(PP_E_ARG, desc.code = NULL)
    ENTRY(PP_E_ARG, desc.tier0 = NULL)
    ENTRY(PP_E_ARG, desc.used = NOT_SAVED)
    ENTRY(PP_E_ARG, desc.stack_bytes = SIZE_MAX)
    ENTRY(PP_E_ABI, desc.used = REG_A | REG_C)
    ENTRY(PP_E_FAULT, desc.code = code + 0x100000)
    ENTRY(PP_E_FAULT, desc.code = code - 0x10000)
    ENTRY(PP_E_FAULT, desc.code = (const void *) &open_method)
#if defined __aarch64__
    ENTRY(PP_E_ARG, desc.code = code + 2)
#endif
    ck_assert_int_eq(pp_entry_create(NULL, &good, &entry), PP_E_ARG);
    ck_assert_int_eq(pp_entry_create(pool, NULL, &entry), PP_E_ARG);
    ck_assert_int_eq(pp_entry_create(pool, &good, NULL), PP_E_ARG);
    ck_assert_ptr_eq(entry, untouched);

    ck_assert_int_eq(pp_entry_create(pool, &good, &entry), PP_OK);
    ck_assert_ptr_eq(pp_entry_code(entry), code);
    pp_tier0_layout same = frame;
    ck_assert_int_eq(pp_entry_check(entry, &same), PP_OK);
    same.cfa_offset = 16; /* as 0 says, too */
    ck_assert_int_eq(pp_entry_check(entry, &same), PP_OK);
    same.frame_bytes += 16;
    ck_assert_int_eq(pp_entry_check(entry, &same), PP_E_ABI);
    same = frame;
    same.saves.saved |= REG_B;
    ck_assert_int_eq(pp_entry_check(entry, &same), PP_E_ABI);
    same = frame;
    same.saves.offset += 8;
    ck_assert_int_eq(pp_entry_check(entry, &same), PP_E_ABI);
    ck_assert_int_eq(pp_entry_check(entry, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_entry_check(NULL, &frame), PP_E_ARG);

    ck_assert_int_eq(pp_trace_free(pool, method.trace), PP_E_BUSY);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_E_STALE);
    ck_assert_int_eq(pp_entry_check(entry, &frame), PP_E_STALE);
    ck_assert_ptr_null(pp_entry_code(entry));
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

/* It would go with its pool, and its site's pool would never know. */
START_TEST(entry_of_another_pool_is_refused)
{
    pp_pool *other;
    pp_trace *trace;
    pp_entry *entry;
    pp_site *site;
    const uint32_t code[4] = { 0 };
    pp_trace_desc body = { .size = sizeof body, .code = code, .code_size = sizeof code };
    ck_assert_int_eq(pp_pool_create(NULL, &other), PP_OK);
    ck_assert_int_eq(pp_trace_link(other, &body, &trace), PP_OK);
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .tier0 = &frame,
                           .code = pp_trace_entry(trace) };
    ck_assert_int_eq(pp_entry_create(other, &desc, &entry), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &good_site, &site), PP_OK);
    ck_assert_int_eq(pp_site_publish(site, entry), PP_E_FAULT);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_IDLE);
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(other, entry), PP_OK); /* no reference was left */
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    pp_pool_destroy(other);
}
END_TEST

START_TEST(entry_is_published_by_hand)
{
    open_method(METHOD_SUM);
    pp_entry *entry, *other;
    pp_site *site;
    pp_tier0_layout layout = frame;
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .tier0 = &frame,
                           .code = pp_trace_entry(method.trace) };
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    layout.frame_bytes += 16;
    desc.tier0 = &layout;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &other), PP_OK);
    ck_assert_int_eq(pp_site_create(pool, &good_site, &site), PP_OK);

    ck_assert_int_eq(pp_site_publish(NULL, entry), PP_E_ARG);
    ck_assert_int_eq(pp_site_publish(site, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_site_publish(site, other), PP_E_ABI);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_IDLE);
    ck_assert_int_eq(pp_site_publish(site, entry), PP_OK);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_READY);
    ck_assert_int_eq(pp_site_publish(site, entry), PP_E_BUSY);
    ck_assert_ptr_eq(pp_site_entry(site), entry);
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
    ck_assert_uint_eq(stats.refusals, 1);

    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_E_BUSY);
    ck_assert_int_eq(pp_entry_destroy(pool, other), PP_OK);
    ck_assert_int_eq(pp_site_publish(site, other), PP_E_STALE);
    ck_assert_int_eq(pp_site_disable(site), PP_OK);
    ck_assert_ptr_null(pp_site_entry(site));
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_E_STALE);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

/* ---- a frame that is not as described ------------------------------------------- */

START_TEST(site_in_another_frame_is_refused)
{
    /* Tier-0 with a frame of FRAME_BYTES runs sites that were described with 16 more. */
    open_method(METHOD_SUM);
    struct method lie = method;
    lie.tier0.frame_bytes += 16;
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_COUNTED,
                          .counter_offset = AT_COUNTER, .threshold = 5, .tier0 = &lie.tier0,
                          .produce = never };
    pp_site *site;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    pp_site *kept = method.sites[0];
    method.sites[0] = site;
    pp_trace *old = method.trace;
    ck_assert_int_eq(method_relink(&method), PP_OK);
    uint64_t saved[SAVE_SLOTS] = { 0 }, result;
    ck_assert(method_run(&method, &thread, 100, NULL, 1, saved, &result));
    ck_assert_uint_eq(result, 5050);
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
    ck_assert_uint_eq(stats.refusals, 1);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_FAILED);
    ck_assert_int_eq(pp_site_destroy(pool, kept), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, old), PP_OK);
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

/* ---- resume ------------------------------------------------------------------------ */

struct suspended {
    pp_resume_point point;
    void (*check)(struct suspended *suspended);
    pp_status got;
    unsigned calls, depth;
};

static pp_status resume_deep(struct suspended *s, const pp_resume_point *point, unsigned depth)
{
    volatile uint8_t stack[200];
    stack[0] = (uint8_t) depth;
    if (depth > 0) {
        pp_status status = resume_deep(s, point, depth - 1);
        stack[1] = stack[0];
        return status;
    }
    return pp_resume(&thread, point);
}

static void resume_it(struct suspended *s)
{
    s->calls++;
    s->point.pc = (uintptr_t) pp_trace_entry(method.trace) + method.resume_offset;
    s->got = resume_deep(s, &s->point, s->depth);
}

START_TEST(resume_leaves_c_frames)
{
    open_method(METHOD_SUSPEND);
    uint64_t saved[SAVE_SLOTS] = { 0 }, result;
    for (unsigned depth = 0; depth < 30; depth++) {
        struct suspended s = { .check = resume_it, .depth = depth, .got = 1 };
        s.point.value = 1000 + depth;
        ck_assert(method_run(&method, &thread, 1, &s, 0, saved, &result));
        if (s.got == PP_E_UNSUPPORTED) /* a shadow stack is active */
            break;
        ck_assert_int_eq(s.got, 1);
        ck_assert_uint_eq(result, 1000 + depth);
        ck_assert_uint_eq(thread.exit_fp, 0);
        ck_assert_uint_eq(thread.anchor, 0);
    }
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

#define REFUSED(status, change) { pp_resume_point point = good; change; \
    ck_assert_msg(pp_resume(&thread, &point) == (status), "%s", #change); }

static void resume_badly(struct suspended *s)
{
    uint8_t local[64] __attribute__((aligned(16)));
    pp_resume_point good = s->point;
    good.pc = (uintptr_t) pp_trace_entry(method.trace) + method.resume_offset;
    s->calls++;
    ck_assert_int_eq(pp_resume(NULL, &good), PP_E_ARG);
    ck_assert_int_eq(pp_resume(&thread, NULL), PP_E_ARG);
    REFUSED(PP_E_FAULT, point.pc = 0)
    REFUSED(PP_E_FAULT, point.pc = 1)
    REFUSED(PP_E_FAULT, point.pc = UINTPTR_MAX)
    REFUSED(PP_E_FAULT, point.pc = (uintptr_t) resume_badly)
    REFUSED(PP_E_FAULT, point.pc += 0x100000)
#if defined __aarch64__
    REFUSED(PP_E_FAULT, point.pc += 2)
#endif
    REFUSED(PP_E_STACK, point.sp += 8)
    REFUSED(PP_E_STACK, point.sp = point.fp + 16)
    REFUSED(PP_E_STACK, point.sp = 0)
    REFUSED(PP_E_STACK, point.sp = (uintptr_t) local)
    REFUSED(PP_E_STACK, point.fp = 0)
    REFUSED(PP_E_STACK, point.fp += 4)
    REFUSED(PP_E_STACK, point.fp = thread.anchor)
    REFUSED(PP_E_STACK, point.fp = thread.anchor - 8)
    REFUSED(PP_E_STACK, point.fp = thread.stack_hi)
    REFUSED(PP_E_STACK, point.fp = UINTPTR_MAX - 15)
    uintptr_t anchor = thread.anchor;
    thread.anchor = 0;
    REFUSED(PP_E_STACK, (void) point)
    thread.anchor = anchor + 16;
    REFUSED(PP_E_STACK, (void) point)
    thread.anchor = 0x1000;
    REFUSED(PP_E_STACK, (void) point)
    thread.anchor = anchor;
    thread.cookie++;
    REFUSED(PP_E_STACK, (void) point)
    thread.cookie--;
    s->got = PP_OK;
}

START_TEST(resume_refuses_what_it_cannot_check)
{
    open_method(METHOD_SUSPEND);
    struct suspended s = { .check = resume_badly, .got = 1 };
    uint64_t saved[SAVE_SLOTS] = { 0 }, result;
    ck_assert(method_run(&method, &thread, 1, &s, 0, saved, &result));
    ck_assert_uint_eq(result, 1); /* nothing moved */
    ck_assert_uint_eq(s.calls, 1);
    ck_assert_int_eq(s.got, PP_OK);
    pp_resume_point point = s.point;
    point.pc = (uintptr_t) pp_trace_entry(method.trace);
    ck_assert_int_eq(pp_resume(&thread, &point), PP_E_STACK); /* no activation */
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

/* ---- no system call ---------------------------------------------------------------- */

static bool walked;

/* pp_leave's frame, then the method's, which was called by the harness and not by pp_enter. */
static void walk_and_resume_it(struct suspended *s)
{
    pp_walk walk;
    pp_frame seen = { .size = sizeof seen };
    pp_walk_begin(&walk, &thread, NULL);
    walked = pp_walk_next(&walk, &seen) && seen.kind == PP_WALK_STUB
             && seen.verdict == PP_VERDICT_VALID && pp_walk_next(&walk, &seen)
             && seen.kind == PP_WALK_TRACE && seen.check == PP_CHECK_CLASS
             && !pp_walk_next(&walk, &seen) && walk.end == PP_END_BROKEN;
    resume_it(s);
}

/* In a child that may only write and exit: 0, or what went wrong; a system call more kills it. */
static int strict_child(struct method *sum, struct method *refusing)
{
    uint64_t saved[SAVE_SLOTS] = { 0 }, result;
    struct suspended s = { .check = walk_and_resume_it };
    s.point.value = 99;
    /* A sanitizer is told that pp_resume leaves frames, and asks the kernel where the stack is. */
    if (SANITIZED || prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
        return 77;
    if (!method_run(sum, &thread, 1000, NULL, 1, saved, &result) || result != 500500)
        return 1; /* the fast path, and a transition */
    if (!method_run(refusing, &thread, 1000, NULL, 1, saved, &result) || result != 500500)
        return 2; /* 200 slow paths; the producer itself does nothing */
    if (!method_run(&method, &thread, 1, &s, 0, saved, &result))
        return 3; /* pp_leave, frame steps, pp_resume */
    if (!walked)
        return 5;
    return result == 99 || s.got == PP_E_UNSUPPORTED ? 0 : 4;
}

START_TEST(nothing_needs_the_kernel)
{
    struct method sum, refusing;
    struct method_shape shape = { .kind = METHOD_SUM, .threshold = 5 };
    uint64_t saved[SAVE_SLOTS] = { 0 }, result;
    open_method(METHOD_SUSPEND);
    ck_assert_int_eq(method_open(&sum, pool, &shape), PP_OK);
    /* The producer links, so it has to run before. */
    ck_assert(method_run(&sum, &thread, 100, NULL, 1, saved, &result));
    shape.refuse = true;
    ck_assert_int_eq(method_open(&refusing, pool, &shape), PP_OK);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        syscall(SYS_exit, strict_child(&sum, &refusing));
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) == 77)
        printf("check_site: no strict seccomp here; not tested\n");
    else
        ck_assert_int_eq(WEXITSTATUS(status), 0);
    ck_assert_int_eq(method_close(&sum), PP_OK);
    ck_assert_int_eq(method_close(&refusing), PP_OK);
    ck_assert_int_eq(method_close(&method), PP_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("site");
    TCase *tests = tcase_create("site");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, site_refuses_what_cannot_be);
    tcase_add_test(tests, other_kinds_refuse_what_cannot_be);
    tcase_add_test(tests, wide_masks_name_registers_that_there_are);
    tcase_add_test(tests, site_has_the_classes_of_the_processor);
    tcase_add_test(tests, site_takes_other_lengths);
    tcase_add_test(tests, site_lives_and_dies);
    tcase_add_test(tests, entry_refuses_what_cannot_be);
    tcase_add_test(tests, entry_of_another_pool_is_refused);
    tcase_add_test(tests, entry_is_published_by_hand);
    tcase_add_test(tests, site_in_another_frame_is_refused);
    tcase_add_test(tests, resume_leaves_c_frames);
    tcase_add_test(tests, resume_refuses_what_it_cannot_check);
    tcase_add_test(tests, nothing_needs_the_kernel);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
