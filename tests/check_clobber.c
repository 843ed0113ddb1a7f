/* SPDX-License-Identifier: MIT */
/*
 * Slow paths under force: what a class does not keep is the pattern afterwards, what it
 * keeps is kept, and a callback that changes either is found and put right.
 */
#include <config.h>

#include "os/cpu.h"
#include "osr/site.h"
#include "probe.h"
#include "sanitized.h"
#include "stub.h"

#include <patchpoint.h>

#include <check.h>
#include <stdio.h>
#include <string.h>

enum { ROUNDS = 50, OPMASKS = 8 };

#if defined __x86_64__
enum { FP_NUMBER = 5, VICTIM = 12 };
#define VOLATILE 0x07c7u                /* rax rcx rdx rsi rdi r8-r10 */
#define PRESERVED 0xf008u               /* rbx r12-r15 */
#else
enum { FP_NUMBER = 29, VICTIM = 23 };
#define VOLATILE 0x0004ffffu            /* x0-x15, x18 */
#define PRESERVED 0x1ff80000u           /* x19-x28 */
#endif

#if defined __clang__ || defined INSTRUMENTED
enum { KEEPS_VICTIM = 1 };
#else
enum { KEEPS_VICTIM = 0 };
#endif

static const struct class {
    const char *name;
    const void *stub;
    pp_save save;
    enum cpu_vectors needs;             /* CPU_VECTORS: nothing */
    unsigned bytes, vectors;            /* kept */
} classes[] = {
    { "ABI", patchpoint_abi, PP_SAVE_ABI, CPU_VECTORS, 0, 0 },
    { "GPR", patchpoint_gpr, PP_SAVE_GPR, CPU_VECTORS, 0, 0 },
    { "V128", patchpoint_v128, PP_SAVE_V128, CPU_VECTORS, 16, PP_REGS_VECTOR_COUNT },
    { "MASK", patchpoint_mask, PP_SAVE_MASK, CPU_VECTORS, 16, PP_REGS_VECTOR_COUNT },
#if defined __x86_64__
    { "V256", patchpoint_v256, PP_SAVE_V256, CPU_V256, 32, 16 },
    { "V512", patchpoint_v512, PP_SAVE_V512, CPU_V512, 64, 32 },
    { "MASK256", patchpoint_m256, PP_SAVE_MASK256, CPU_V256, 32, 16 },
    { "MASK512", patchpoint_m512, PP_SAVE_MASK512, CPU_V512, 64, 32 },
#endif
};

enum { CLASSES = sizeof classes / sizeof classes[0] };

static bool names(const struct class *class)
{
    return class->save == PP_SAVE_MASK || class->save == PP_SAVE_MASK256
        || class->save == PP_SAVE_MASK512;
}

static uint64_t seed;
static pp_pool *pool;
static pp_site *site;
static enum { DECENT, WRITES, SPOILS } habit;

/* What the host's callback does to the registers of others. */
static const void *poll(void *host, pp_site *of, const pp_regs *regs)
{
    (void) host, (void) of;
    if (habit == WRITES)
        ((pp_regs *) regs)->gpr[1] ^= 0x100;
#if defined __x86_64__
    if (habit == SPOILS)
        __asm__ volatile("not %r12"); /* not told to the compiler */
#else
    if (habit == SPOILS)
        __asm__ volatile("mvn x23, x23");
#endif
    return NULL;
}

/* How many bytes of vector registers there are here. */
static unsigned width(void)
{
#if defined __x86_64__
    if (cpu_lacks(CPU_V512) == NULL)
        return 64;
    if (cpu_lacks(CPU_V256) == NULL)
        return 32;
#endif
    return 16;
}

static const void *probe_that_edits(void *host, pp_site *of, pp_regs *regs)
{
    (void) host, (void) of;
    regs->gpr[1] ^= 0x100;
    regs->gpr[VICTIM] ^= 0x100;
    return NULL;
}

static bool is_probe;

static bool make(const struct class *class, uint32_t gpr, uint32_t vector)
{
    const pp_tier0_layout tier0 = { .size = sizeof tier0, .frame_bytes = 64 };
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_POLLED, .counter = PP_COUNTER_SITE,
                          .save = class->save, .tier0 = &tier0, .poll = poll,
                          .live_gpr = gpr, .live_vector = vector };
    if (is_probe) {
        desc.poll = NULL;
        desc.probe = probe_that_edits;
    }
    if (class->needs != CPU_VECTORS && cpu_lacks(class->needs) != NULL)
        return false;
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    ((struct site_record *) pp_site_record(site))->resume = probe_resume;
    return true;
}

static void pass(struct probe *probe, const struct class *class)
{
    uint8_t canary[PROBE_CANARY_BYTES] = { 0 };
    probe_fill_regs(&probe->in);
    probe_fill(&probe->wide_in, sizeof probe->wide_in);
    probe->width = width();
    probe->canary = canary;
    probe->stub = class->stub;
    probe->record = pp_site_record(site);
    probe_site(probe);
    ck_assert_uint_eq(probe->went, 0);
}

static const uint8_t *in_of(const struct probe *probe, unsigned n)
{
    return width() > 16 ? probe->wide_in.vector[n] : probe->in.vector[n];
}

static const uint8_t *out_of(const struct probe *probe, unsigned n)
{
    return width() > 16 ? probe->wide_out.vector[n] : probe->out.vector[n];
}

static void force(const char *text)
{
    pp_force force = { .size = sizeof force };
    ck_assert_int_eq(pp_force_parse(text, &force), PP_OK);
    ck_assert_int_eq(pp_pool_set_force(pool, &force), PP_OK);
}

static pp_force_stats stats(void)
{
    pp_force_stats result = { .size = sizeof result };
    ck_assert_int_eq(pp_pool_get_force_stats(pool, &result), PP_OK);
    return result;
}

static void setup(void)
{
    habit = DECENT;
    is_probe = false;
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
}

static void teardown(void)
{
    pp_pool_destroy(pool);
}

/* One vector register: `kept` bytes as before, and all others, up to `most`, the pattern. */
static void check_vector(const struct probe *probe, unsigned n, unsigned kept, unsigned most,
                         const char *name)
{
    const uint64_t pattern = PP_FORCE_PATTERN;
    const uint8_t *in = in_of(probe, n), *out = out_of(probe, n);
    if (kept > 0)
        ck_assert_msg(memcmp(in, out, kept) == 0, "%s: vector %u, seed %lu", name, n,
                      (unsigned long) seed);
    for (unsigned i = kept; i < most && !SANITIZED; i += 8) /* instrumented C uses some by then */
        ck_assert_msg(memcmp(out + i, &pattern, 8) == 0, "%s: vector %u byte %u, seed %lu", name,
                      n, i, (unsigned long) seed);
}

static unsigned kept_of(const struct class *class, unsigned n, uint32_t live)
{
    if (n < class->vectors && (!names(class) || live >> n & 1))
        return class->bytes;
#if defined __aarch64__
    if (n >= 8 && n < 16)
        return 8;
#endif
    return 0;
}

static void check_clobbered(const struct probe *probe, const struct class *class, uint32_t gpr,
                            uint32_t vector)
{
    for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++) {
        if (PRESERVED >> n & 1 || n == FP_NUMBER || (VOLATILE & gpr) >> n & 1)
            ck_assert_msg(probe->in.gpr[n] == probe->out.gpr[n], "%s: register %u, seed %lu",
                          class->name, n, (unsigned long) seed);
        else if (VOLATILE >> n & 1)
            ck_assert_msg(probe->out.gpr[n] == PP_FORCE_PATTERN, "%s: register %u holds %lx",
                          class->name, n, (unsigned long) probe->out.gpr[n]);
    }
    for (unsigned n = 0; n < (width() == 64 ? 32 : PP_REGS_VECTOR_COUNT); n++)
        /* To load a ymm register clears what is above it. */
        check_vector(probe, n, kept_of(class, n, vector),
                     class->bytes == 32 && n < 16 ? 32 : width(), class->name);
    for (unsigned n = 0; width() == 64 && n < OPMASKS; n++)
        ck_assert_uint_eq(probe->wide_out.opmask[n],
                          class->bytes == 64 ? probe->wide_in.opmask[n] : PP_FORCE_PATTERN);
    ck_assert_uint_eq(probe->in.fp_control, probe->out.fp_control);
}

START_TEST(what_is_not_kept_is_filled)
{
    const struct class *class = &classes[_i];
    force("clobber,verify");
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t gpr = UINT32_MAX, vector = UINT32_MAX;
        static struct probe probe;
        if (names(class)) {
            gpr = (uint32_t) probe_random() & (VOLATILE | PRESERVED);
            vector = (uint32_t) probe_random() & (uint32_t) ((1ull << class->vectors) - 1);
        }
        if (round % 8 == 7)
            gpr &= PRESERVED, vector &= 0xff;
        if (!names(class) ? !make(class, 0, 0) : !make(class, gpr, vector))
            return;
        if (!names(class))
            gpr = vector = UINT32_MAX;
        pass(&probe, class);
        check_clobbered(&probe, class, gpr, vector);
        ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    }
    ck_assert_uint_eq(stats().checks, ROUNDS);
    ck_assert_uint_eq(stats().mismatches, 0);
}
END_TEST

START_TEST(callback_that_writes_is_found)
{
    const struct class *class = &classes[_i];
    static struct probe probe;
    force("verify");
    if (!make(class, names(class) ? VOLATILE : 0, 0))
        return;
    habit = WRITES;
    for (unsigned round = 1; round < 4; round++) {
        pass(&probe, class);
        ck_assert_uint_eq(probe.in.gpr[1], probe.out.gpr[1]); /* put right */
        ck_assert_uint_eq(stats().mismatches, round);
        ck_assert_uint_eq(stats().checks, round);
    }
    ck_assert_uint_eq(stats().site, pp_site_number(site));
    ck_assert_uint_eq(stats().offset, PP_REGS_GPR + 8);
    ck_assert_uint_eq(stats().want ^ stats().got, 0x100);

    /* Without verification it has its way, and nothing is counted. */
    force("clobber");
    pass(&probe, class);
    ck_assert_uint_eq(probe.in.gpr[1] ^ 0x100, probe.out.gpr[1]);
    ck_assert_uint_eq(stats().checks + stats().mismatches + stats().want, 0);
}
END_TEST

START_TEST(callback_that_does_not_keep_is_found)
{
    const struct class *class = &classes[_i];
    static struct probe probe;
    force("verify");
    /* Where the functions around the callback use this register, they keep it. */
    if (KEEPS_VICTIM || !make(class, 0, 0))
        return;
    habit = SPOILS;
    pass(&probe, class);
    ck_assert_uint_eq(probe.in.gpr[VICTIM], probe.out.gpr[VICTIM]);
    ck_assert_uint_eq(stats().mismatches, 1);
    ck_assert_uint_eq(stats().offset, PP_REGS_GPR + 8 * VICTIM);
    ck_assert_uint_eq(stats().want, ~stats().got);
}
END_TEST

START_TEST(probes_may_write)
{
    const struct class *class = &classes[_i];
    const bool masked = names(class);
    static struct probe probe;
    is_probe = true;
    force("verify,clobber");
    if (class->save == PP_SAVE_ABI || !make(class, masked ? 1u << 1 | 1u << VICTIM : 0, 0))
        return;
    pass(&probe, class);
    ck_assert_uint_eq(probe.in.gpr[1] ^ 0x100, probe.out.gpr[1]);
    ck_assert_uint_eq(probe.in.gpr[VICTIM] ^ 0x100, probe.out.gpr[VICTIM]);
    ck_assert_uint_eq(stats().checks, 1);
    ck_assert_uint_eq(stats().mismatches, 0);
}
END_TEST

START_TEST(flags_are_read)
{
    pp_force force = { .size = sizeof force };
    ck_assert_int_eq(pp_force_parse("clobber,every=3,verify", &force), PP_OK);
    ck_assert_uint_eq(force.flags, PP_FORCE_CLOBBER | PP_FORCE_VERIFY);
    ck_assert_int_eq(force.mode, PP_FORCE_EVERY);
    ck_assert_uint_eq(force.number, 3);
    ck_assert_int_eq(pp_force_parse("verify", &force), PP_OK);
    ck_assert_uint_eq(force.flags, PP_FORCE_VERIFY);
    ck_assert_int_eq(force.mode, PP_FORCE_OFF);
    ck_assert_int_eq(pp_force_parse("verify,", &force), PP_E_ARG);
    ck_assert_int_eq(pp_force_parse("verify,verify", &force), PP_E_ARG);
    ck_assert_int_eq(pp_force_parse("verify=1", &force), PP_E_ARG);
    ck_assert_uint_eq(force.flags, PP_FORCE_VERIFY);
}
END_TEST

int main(void)
{
    seed = probe_seed("check_clobber");
    Suite *suite = suite_create("clobber");
    TCase *tests = tcase_create("clobber");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, what_is_not_kept_is_filled, 0, CLASSES);
    tcase_add_loop_test(tests, callback_that_writes_is_found, 0, CLASSES);
    tcase_add_loop_test(tests, callback_that_does_not_keep_is_found, 0, CLASSES);
    tcase_add_loop_test(tests, probes_may_write, 0, CLASSES);
    tcase_add_test(tests, flags_are_read);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
