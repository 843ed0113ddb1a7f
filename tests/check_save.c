/* SPDX-License-Identifier: MIT */
/*
 * Every save class keeps and shows what it says, with random register contents,
 * and nothing that C does in between makes a difference.
 *
 * The stubs call this program's own patchpoint_count, which spoils the general registers
 * that a C function may, and patchpoint_slow, which spoils the others, too, in every width
 * that the processor has.
 */
#include <config.h>

#include "os/cpu.h"
#include "osr/site.h"
#include "probe.h"
#include "stub.h"

#include <check.h>
#include <errno.h>
#include <fenv.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 200, VECTORS_MAX = 32, OPMASKS = 8 };

#if defined __x86_64__
enum {
    SP_NUMBER = 4, FP_NUMBER = 5,
    FLAGS_KEPT = 0x400,                 /* DF */
    SKEW_MAX = 63,                      /* sites that break the alignment rule */
};
#define VOLATILE 0x07c7u                /* rax rcx rdx rsi rdi r8-r10 */
#define PRESERVED 0xf008u               /* rbx r12-r15 */
#else
enum { SP_NUMBER = 31, FP_NUMBER = 29, FLAGS_KEPT = 0, SKEW_MAX = 0 };
#define VOLATILE 0x0004ffffu            /* x0-x15, x18 */
#define PRESERVED 0x1ff80000u           /* x19-x28 */
#endif

#define ALL_VECTORS UINT32_MAX /* stubs ignore what their registers do not have */

static const struct class {
    const char *name;
    const void *stub;
    pp_save save;
    enum cpu_vectors needs; /* CPU_VECTORS: nothing */
    uint32_t shown;         /* general registers, but SP and FP */
    unsigned bytes;         /* of each vector register */
    unsigned vectors;       /* how many of them */
    unsigned opmasks;
    size_t size;            /* of what the stub stores for C */
} classes[] = {
    { "ABI", patchpoint_abi, PP_SAVE_ABI, CPU_VECTORS, VOLATILE, 0, 0, 0, PP_REGS_SIZE },
    { "GPR", patchpoint_gpr, PP_SAVE_GPR, CPU_VECTORS, VOLATILE | PRESERVED, 0, 0, 0, PP_REGS_SIZE },
    { "V128", patchpoint_v128, PP_SAVE_V128, CPU_VECTORS, VOLATILE | PRESERVED, 16,
      PP_REGS_VECTOR_COUNT, 0, PP_REGS_SIZE },
    { "MASK", patchpoint_mask, PP_SAVE_MASK, CPU_VECTORS, VOLATILE | PRESERVED, 16,
      PP_REGS_VECTOR_COUNT, 0, PP_REGS_SIZE },
#if defined __x86_64__
    { "V256", patchpoint_v256, PP_SAVE_V256, CPU_V256, VOLATILE | PRESERVED, 32, 16, 0,
      PP_REGS_V256_SIZE },
    { "V512", patchpoint_v512, PP_SAVE_V512, CPU_V512, VOLATILE | PRESERVED, 64, 32, OPMASKS,
      PP_REGS_V512_SIZE },
    { "MASK256", patchpoint_m256, PP_SAVE_MASK256, CPU_V256, VOLATILE | PRESERVED, 32, 16, 0,
      PP_REGS_V256_SIZE },
    { "MASK512", patchpoint_m512, PP_SAVE_MASK512, CPU_V512, VOLATILE | PRESERVED, 64, 32, OPMASKS,
      PP_REGS_V512_SIZE },
#endif
};

enum { CLASSES = sizeof classes / sizeof classes[0] };

static bool names(const struct class *class)
{
    return class->save == PP_SAVE_MASK || class->save == PP_SAVE_MASK256
        || class->save == PP_SAVE_MASK512;
}

static uint64_t seed;

/* Says so when the class cannot run here. */
static bool runs(const struct class *class)
{
    const char *lacks = class->needs == CPU_VECTORS ? NULL : cpu_lacks(class->needs);
    if (lacks != NULL)
        printf("%s skipped: %s\n", class->name, lacks);
    return lacks == NULL;
}

/* ---- the C side ---------------------------------------------------------- */

/* All that a stub can show. */
struct shown {
    pp_regs regs;
    uint8_t vector[VECTORS_MAX][64];
    unsigned vector_bytes[VECTORS_MAX + 1];
    uint64_t opmask[OPMASKS];
};

static struct {
    struct shown shown;
    uintptr_t address;      /* of its pp_regs */
    struct site_record *record;
    uintptr_t exit_fp;      /* of the thread, during the call */
    pp_thread *thread;
    unsigned calls;
    uintptr_t answer;       /* 0: resume */
    unsigned counts;        /* calls of patchpoint_count, what they had, and what they return */
    struct site_record *count_record;
    uintptr_t count_fp, count_pc, count_exit_fp;
    uintptr_t passes;
    bool upper_in_use;      /* of a ymm register, as C began */
    bool down;              /* DF, as C began */
    size_t edit;            /* a byte of what the stub stored is changed: its offset, and */
    uint8_t bits;           /* which bits of it */
} seen;

/* Raise inexact and invalid, and round otherwise than before. */
static void spoil_float(void)
{
    volatile double zero = 0.0, one = 1.0, three = 3.0, result;
    result = one / three;
    result = zero / zero;
    (void) result;
    fesetround(fegetround() == FE_UPWARD ? FE_DOWNWARD : FE_UPWARD);
}

/* Before anything else of C could have changed them. */
static bool upper_halves_in_use(void)
{
#if defined __x86_64__
    if (cpu_lacks(CPU_V256) == NULL) {
        uint64_t halves[16][2], any = 0;
        __asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n\t"
                         "vextractf128 $1, %%ymm\\n, 16 * \\n(%0)\n\t"
                         ".endr" : : "r"(halves) : "memory");
        for (size_t i = 0; i < 16; i++)
            any |= halves[i][0] | halves[i][1];
        return any != 0;
    }
#endif
    return false;
}

/* Strings go down: C wants them to go up. */
static bool goes_down(void)
{
#if defined __x86_64__
    return __builtin_ia32_readeflags_u64() & 0x400;
#else
    return false;
#endif
}

static void look(const struct pp_regs *regs)
{
    struct shown *shown = &seen.shown;
    shown->regs = *regs;
    for (unsigned n = 0; n <= VECTORS_MAX; n++) {
        size_t bytes = 99;
        const void *vector = pp_regs_vector(regs, n, &bytes);
        shown->vector_bytes[n] = (unsigned) bytes;
        if (vector != NULL)
            memcpy(shown->vector[n], vector, bytes);
    }
#if defined __x86_64__
    if (regs->save == PP_SAVE_V512 || regs->save == PP_SAVE_MASK512)
        memcpy(shown->opmask, (const char *) regs + PP_REGS_OPMASK, sizeof shown->opmask);
#endif
}

/* Of general registers what a C function may change, and nothing else. */
__attribute__((target("general-regs-only")))
uintptr_t patchpoint_count(struct site_record *record, uintptr_t fp, uintptr_t pc)
{
    seen.counts++;
    seen.count_record = record;
    seen.count_fp = fp;
    seen.count_pc = pc;
    if (seen.thread != NULL)
        seen.count_exit_fp = seen.thread->exit_fp;
    uintptr_t answer = seen.passes;
#if defined __x86_64__
    __asm__ volatile(".irp r, rcx, rdx, rsi, rdi, r8, r9, r10, r11\n\t"
                     "mov $0x0bad, %%\\r\n\t"
                     ".endr" : : "a"(answer)
                     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc");
#else
    __asm__ volatile(".irp n, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18\n\t"
                     "mov x\\n, #0x0bad\n\t"
                     ".endr\n\t"
                     "cmp x1, #1"
                     : : : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12",
                           "x13", "x14", "x15", "x16", "x17", "x18", "cc");
#endif
    return answer;
}

uintptr_t patchpoint_slow(struct site_record *record, struct pp_regs *regs)
{
    int kept = errno;
    seen.upper_in_use = upper_halves_in_use();
    seen.down = goes_down();
    look(regs);
    seen.address = (uintptr_t) regs;
    seen.record = record;
    seen.calls++;
    if (seen.thread != NULL)
        seen.exit_fp = seen.thread->exit_fp;
    uintptr_t answer = seen.answer != 0 ? seen.answer : regs->pc + record->resume;
    ((uint8_t *) regs)[seen.edit] ^= seen.bits;
    spoil_float();
    errno = kept;
    probe_spoil_registers();
    return answer;
}

/* ---- a pass through a site ------------------------------------------------- */

static const uint8_t *vector_of(const pp_regs *regs, const struct probe_wide *wide, unsigned bytes,
                                unsigned n)
{
    return bytes > 16 ? wide->vector[n] : regs->vector[n];
}

static void fill(struct probe *probe, unsigned width)
{
    probe_fill_regs(&probe->in);
    probe_fill(&probe->wide_in, sizeof probe->wide_in);
    probe->width = width;
}

static void run_site(struct probe *probe, struct site_record *record)
{
    uint8_t canary[PROBE_CANARY_BYTES];
    probe_fill(canary, sizeof canary);
    if (seen.thread != NULL) /* slot with the thread, from FP, which is SP + 64 then */
        memcpy(canary + 64 + record->thread_offset, &seen.thread, 8);
    probe->canary = canary;
    probe->record = record;
    probe->went = 99;
    errno = 4242;
    probe_site(probe);
    ck_assert_int_eq(errno, 4242);
    ck_assert_msg(memcmp(canary, probe_canary, sizeof canary) == 0, "stack above SP, seed %lu",
                  (unsigned long) seed);
    ck_assert_uint_eq(probe->out.gpr[SP_NUMBER], probe->sp);
}

static void check_gpr(const pp_regs *want, const pp_regs *got, const char *what, uint32_t which)
{
    for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++)
        if (which >> n & 1)
            ck_assert_msg(want->gpr[n] == got->gpr[n], "%s: register %u: %016lx is not %016lx, seed %lu",
                          what, n, (unsigned long) got->gpr[n], (unsigned long) want->gpr[n],
                          (unsigned long) seed);
}

static void check_vector(const uint8_t *want, const uint8_t *got, unsigned bytes, unsigned n,
                         const char *what)
{
    ck_assert_msg(memcmp(want, got, bytes) == 0, "%s: %u bytes of vector %u, seed %lu", what, bytes,
                  n, (unsigned long) seed);
}

static uint32_t all_but_masked(const struct class *class, uint32_t live, uint32_t all)
{
    return names(class) ? live : all;
}

/* That the class kept what it says, with `in` as it should be. */
static void check_kept(const struct probe *probe, const struct class *class,
                       const struct site_record *record)
{
    static const char what[] = "after the stub";
    const uint32_t fp = probe->frame ? 0 : 1u << FP_NUMBER;
    check_gpr(&probe->in, &probe->out, what, PRESERVED | fp);
    check_gpr(&probe->in, &probe->out, what, all_but_masked(class, record->live_gpr, VOLATILE)
                                                 & VOLATILE);
    ck_assert_uint_eq(probe->in.fp_control, probe->out.fp_control);
    ck_assert_uint_eq(probe->in.flags & FLAGS_KEPT, probe->out.flags & FLAGS_KEPT);
    const uint32_t live = all_but_masked(class, record->live_vector, UINT32_MAX);
    for (unsigned n = 0; n < class->vectors; n++)
        if (live >> n & 1)
            check_vector(vector_of(&probe->in, &probe->wide_in, class->bytes, n),
                         vector_of(&probe->out, &probe->wide_out, class->bytes, n), class->bytes,
                         n, what);
#if defined __aarch64__
    for (unsigned n = 8; n < 16; n++)
        check_vector(probe->in.vector[n], probe->out.vector[n], 8, n, "low half after the stub");
#endif
    for (unsigned n = 0; n < class->opmasks; n++)
        ck_assert_uint_eq(probe->wide_in.opmask[n], probe->wide_out.opmask[n]);
}

static void check_shown(const struct probe *probe, const struct class *class,
                        const struct site_record *record)
{
    static const char what[] = "in pp_regs";
    const struct shown *shown = &seen.shown;
    const uint32_t gpr = all_but_masked(class, record->live_gpr, UINT32_MAX) & class->shown;
    check_gpr(&probe->in, &shown->regs, what, gpr);
    if (!probe->frame)
        ck_assert_uint_eq(shown->regs.gpr[FP_NUMBER], probe->in.gpr[FP_NUMBER]);
    ck_assert_uint_eq(shown->regs.gpr[SP_NUMBER], probe->sp);
    ck_assert_uint_eq(shown->regs.pc, probe->pc);
    ck_assert_uint_eq(shown->regs.fp_control, probe->in.fp_control);
    ck_assert_uint_eq(shown->regs.save, class->save);
#if defined __x86_64__
    ck_assert_uint_eq(shown->regs.flags & FLAGS_KEPT, probe->in.flags);
#else
    ck_assert_uint_eq(shown->regs.flags, probe->in.flags);
#endif
    const uint32_t live = all_but_masked(class, record->live_vector, UINT32_MAX);
    for (unsigned n = 0; n <= VECTORS_MAX; n++) {
        ck_assert_uint_eq(shown->vector_bytes[n], n < class->vectors ? class->bytes : 0);
        if (n < class->vectors && live >> n & 1)
            check_vector(vector_of(&probe->in, &probe->wide_in, class->bytes, n), shown->vector[n],
                         class->bytes, n, what);
    }
    for (unsigned n = 0; n < class->opmasks; n++)
        ck_assert_uint_eq(shown->opmask[n], probe->wide_in.opmask[n]);
    ck_assert_uint_eq(seen.address % (class->bytes > 16 ? class->bytes : 16), 0);
    ck_assert_uint_le(seen.address + class->size, probe->sp);
    if (class->bytes > 16)
        ck_assert(!seen.upper_in_use);
    ck_assert(!seen.down);
}

/* ---- the slow path ------------------------------------------------------- */

static void random_live(struct site_record *record, unsigned round)
{
    record->live_gpr = (uint32_t) probe_random() & (VOLATILE | PRESERVED);
    record->live_vector = (uint32_t) probe_random() & ALL_VECTORS;
    if (round % 4 == 1)
        record->live_gpr = 1u << probe_random() % PP_REGS_GPR_COUNT & (VOLATILE | PRESERVED);
    if (round % 4 == 2)
        record->live_vector = 1u << probe_random() % 32;
    if (round % 8 == 3)
        record->live_vector = round % 16 == 3 ? 0 : ALL_VECTORS;
    if (round % 8 == 5)
        record->live_gpr = round % 16 == 5 ? 0 : VOLATILE | PRESERVED;
}

START_TEST(slow_path_keeps_and_shows)
{
    const struct class *class = &classes[_i];
    if (!runs(class))
        return;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct probe probe = { .stub = class->stub };
        struct site_record record = { .state = round % (PP_SITE_DISABLED + 1), .resume = probe_resume };
        if (record.state == PP_SITE_READY)
            continue;
        fill(&probe, class->bytes);
        memset(&seen, 0, sizeof seen);
        if (names(class))
            random_live(&record, (unsigned) probe_random());
        probe.skew = round % 2 * (probe_random() % (SKEW_MAX + 1));
        pp_thread thread = { 0 };
        if (round % 3 == 0) {
            seen.thread = &thread;
            record.thread_offset = round % 2 ? -24 : 40;
            probe.frame = 1;
        }
        bool transition = round % 5 == 1;
        if (transition)
            seen.answer = (uintptr_t) probe_target;
        run_site(&probe, &record);
        ck_assert_uint_eq(seen.counts, 1);
        ck_assert_uint_eq(seen.calls, 1);
        ck_assert_ptr_eq(seen.record, &record);
        ck_assert_uint_eq(probe.went, transition);
        check_shown(&probe, class, &record);
        check_kept(&probe, class, &record);
        ck_assert_uint_eq(thread.exit_fp, 0);
        if (seen.thread != NULL) {
            /* The record lay right below SP, and named the site's FP and return address. */
            ck_assert_uint_eq(seen.exit_fp, probe.sp - 16);
            ck_assert_uint_eq(seen.shown.regs.gpr[FP_NUMBER], probe.sp + 64);
        }
    }
}
END_TEST

/* As if of a class that keeps all there is. */
static struct class everything(const struct class *class)
{
    struct class all = *class;
    all.save = PP_SAVE_V128;
    all.bytes = 16;
    all.vectors = PP_REGS_VECTOR_COUNT;
    all.opmasks = 0;
#if defined __x86_64__
    for (unsigned i = 0; i < CLASSES; i++)
        if (classes[i].needs != CPU_VECTORS && cpu_lacks(classes[i].needs) == NULL) {
            all.bytes = classes[i].bytes;
            all.vectors = classes[i].vectors;
            all.opmasks = classes[i].opmasks;
        }
#endif
    return all;
}

START_TEST(pass_that_only_counts_changes_nothing)
{
    /* No register of the class is touched, so that every stub runs on every processor. */
    const struct class all = everything(&classes[_i]);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct probe probe = { .stub = all.stub };
        struct site_record record = { .state = PP_SITE_COUNTING, .resume = probe_resume };
        pp_thread thread = { 0 };
        fill(&probe, all.bytes);
        memset(&seen, 0, sizeof seen);
        seen.passes = (uintptr_t) probe_target;
        probe.skew = round % 2 * (probe_random() % (SKEW_MAX + 1));
        if (round % 3 == 0) {
            seen.thread = &thread;
            record.thread_offset = round % 2 ? -24 : 40;
            probe.frame = 1;
        }
        run_site(&probe, &record);
        ck_assert_uint_eq(seen.calls, 0);
        ck_assert_uint_eq(seen.counts, 1);
        ck_assert_ptr_eq(seen.count_record, &record);
        ck_assert_uint_eq(seen.count_pc, probe.pc);
        ck_assert_uint_eq(seen.count_fp, probe.frame ? probe.sp + 64 : probe.in.gpr[FP_NUMBER]);
        ck_assert_uint_eq(seen.count_exit_fp, probe.frame ? probe.sp - 16 : 0);
        ck_assert_uint_eq(thread.exit_fp, 0);
        ck_assert_uint_eq(probe.went, 1);
        check_kept(&probe, &all, &record);
    }
}
END_TEST

/*
 * C changes one byte of what the stub stored: so much, and nothing else, has to
 * change in the register.  What C happened not to spoil could otherwise pass for kept.
 */
static void edit(const struct class *class, size_t offset, void *(*place)(struct probe *, unsigned),
                 unsigned n, unsigned bytes, bool edited)
{
    struct probe probe = { .stub = class->stub };
    struct site_record record = { .resume = probe_resume, .edited = edited };
    if (names(class)) {
        record.live_gpr = VOLATILE | (edited ? PRESERVED : 0);
        record.live_vector = ALL_VECTORS;
    }
    fill(&probe, class->bytes);
    memset(&seen, 0, sizeof seen);
    unsigned byte = (unsigned) probe_random() % bytes;
    seen.edit = offset + byte;
    seen.bits = (uint8_t) (1 + probe_random() % 255);
    run_site(&probe, &record);
    check_shown(&probe, class, &record);
    if (place != NULL)
        ((uint8_t *) place(&probe, n))[byte] ^= seen.bits;
    check_kept(&probe, class, &record);
}

static void *gpr_place(struct probe *probe, unsigned n)
{
    return &probe->in.gpr[n];
}

static void *vector_place(struct probe *probe, unsigned n)
{
    return probe->width > 16 ? probe->wide_in.vector[n] : probe->in.vector[n];
}

#if defined __x86_64__
static void *opmask_place(struct probe *probe, unsigned n)
{
    return &probe->wide_in.opmask[n];
}
#endif

START_TEST(every_register_comes_from_its_slot)
{
    const struct class *class = &classes[_i];
    if (!runs(class))
        return;
    for (unsigned round = 0; round < 8; round++) {
        for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++)
            if (VOLATILE >> n & 1)
                edit(class, PP_REGS_GPR + 8 * n, gpr_place, n, 8, round % 2 && class->save != PP_SAVE_ABI);
#if defined __x86_64__
        for (unsigned n = 0; n < class->vectors; n++)
            edit(class, (class->bytes > 16 ? PP_REGS_WIDE : PP_REGS_VECTOR) + class->bytes * n,
                 vector_place, n, class->bytes, round % 2);
        for (unsigned n = 0; n < class->opmasks; n++)
            edit(class, PP_REGS_OPMASK + 8 * n, opmask_place, n, 8, round % 2);
#else
        for (unsigned n = 0; n < class->vectors; n++)
            edit(class, PP_REGS_VECTOR + 16 * n, vector_place, n, 16, round % 2);
#endif
    }
}
END_TEST

/* What C keeps is loaded for a probe, and for nobody else; SP and FP never. */
START_TEST(probes_change_what_c_keeps)
{
    const struct class *class = &classes[_i];
    if (!runs(class) || class->save == PP_SAVE_ABI)
        return;
    for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++) {
        const bool changes = (VOLATILE | PRESERVED) >> n & 1;
        edit(class, PP_REGS_GPR + 8 * n, changes ? gpr_place : NULL, n, 8, true);
        if (!(VOLATILE >> n & 1))
            edit(class, PP_REGS_GPR + 8 * n, NULL, n, 8, false);
    }
    edit(class, PP_REGS_PC, NULL, 0, 8, true);
    edit(class, PP_REGS_CLASS, NULL, 0, 8, true);
}
END_TEST

START_TEST(floating_point_control_is_restored_alone)
{
    const struct class *class = &classes[_i];
    if (!runs(class))
        return;
    for (unsigned n = 0; n < 2; n++) {
        /* A rounding mode, in the half of each of the two registers. */
        struct probe probe = { .stub = class->stub };
        struct site_record record = { .resume = probe_resume };
        fill(&probe, class->bytes);
        memset(&seen, 0, sizeof seen);
#if defined __x86_64__
        static const uint64_t bits[2] = { 0x2000, 0x400ull << 32 };
#else
        static const uint64_t bits[2] = { 0x400000, 0x10ull << 32 };
#endif
        unsigned byte = (unsigned) __builtin_ctzll(bits[n]) / 8;
        seen.edit = PP_REGS_FP_CONTROL + byte;
        seen.bits = (uint8_t) (bits[n] >> 8 * byte);
        run_site(&probe, &record);
        probe.in.fp_control ^= bits[n];
        check_kept(&probe, class, &record);
    }
}
END_TEST

/* ---- the fast path ------------------------------------------------------- */

START_TEST(ready_site_is_taken_without_entering_c)
{
    /* No register of the class is touched, so that every stub runs on every processor. */
    const struct class all = everything(&classes[_i]);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct probe probe = { .stub = all.stub };
        struct site_record record = { .state = PP_SITE_READY, .resume = probe_resume,
                                      .target = (uintptr_t) probe_target };
        fill(&probe, all.bytes);
        memset(&seen, 0, sizeof seen);
        run_site(&probe, &record);
        ck_assert_uint_eq(seen.counts + seen.calls, 0);
        ck_assert_uint_eq(probe.went, 1);
        check_kept(&probe, &all, &record);
#if defined __aarch64__
        ck_assert_uint_eq(probe.in.flags, probe.out.flags);
#endif
    }
}
END_TEST

/* ---- what decides -------------------------------------------------------- */

START_TEST(vectors_need_processor_and_system)
{
    static const uint32_t avx = 3u << 27, avx512 = 1u << 16 | 1u << 30;
    static const struct {
        struct cpu_words words;
        const char *v256, *v512; /* a word of the reason; NULL: there */
    } rows[] = {
        { { 0, 0, 0 }, "processor", "processor" },
        { { 1u << 27, avx512, 0xe7 }, "processor has no AVX", "processor has no AVX" },
        { { 1u << 28, avx512, 0 }, "system", "system" },
        { { avx, avx512, 1 }, "system", "system" },
        { { avx, avx512, 3 }, "system", "system" },
        { { avx, avx512, 5 }, "system", "system" },
        { { avx, 0, 7 }, NULL, "processor has no AVX-512" },
        { { avx, 1u << 30, 0xe7 }, NULL, "processor has no AVX-512" },
        { { avx, 1u << 16, 0xe7 }, NULL, "AVX-512 BW" },
        { { avx, avx512, 7 }, NULL, "system does not save the state of AVX-512" },
        { { avx, avx512, 0x67 }, NULL, "system does not save the state of AVX-512" },
        { { avx, avx512, 0xc7 }, NULL, "system does not save the state of AVX-512" },
        { { avx, avx512, 0xa7 }, NULL, "system does not save the state of AVX-512" },
        { { avx, avx512, 0xe7 }, NULL, NULL },
        { { ~0u, ~0u, ~0u }, NULL, NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *v256 = cpu_judge(&rows[i].words, CPU_V256);
        const char *v512 = cpu_judge(&rows[i].words, CPU_V512);
        ck_assert_msg((v256 == NULL) == (rows[i].v256 == NULL)
                      && (v256 == NULL || strstr(v256, rows[i].v256) != NULL), "row %zu: %s", i, v256);
        ck_assert_msg((v512 == NULL) == (rows[i].v512 == NULL)
                      && (v512 == NULL || strstr(v512, rows[i].v512) != NULL), "row %zu: %s", i, v512);
    }
    /* This processor: the same answer twice, and as the compiler's own test has it. */
    for (int again = 0; again < 2; again++) {
#if defined __x86_64__
        ck_assert_int_eq(cpu_lacks(CPU_V256) == NULL, __builtin_cpu_supports("avx") != 0);
        ck_assert_int_eq(cpu_lacks(CPU_V512) == NULL, __builtin_cpu_supports("avx512f")
                                                      && __builtin_cpu_supports("avx512bw"));
#else
        ck_assert_ptr_nonnull(cpu_lacks(CPU_V256));
        ck_assert_ptr_nonnull(cpu_lacks(CPU_V512));
#endif
    }
}
END_TEST

START_TEST(vectors_of_a_copy)
{
    static pp_regs regs;
    size_t bytes = 1;
    ck_assert_ptr_null(pp_regs_vector(NULL, 0, &bytes));
    ck_assert_uint_eq(bytes, 0);
    regs.save = PP_SAVE_V128;
    ck_assert_ptr_eq(pp_regs_vector(&regs, 3, NULL), regs.vector[3]);
    ck_assert_ptr_null(pp_regs_vector(&regs, PP_REGS_VECTOR_COUNT, NULL));
    ck_assert_ptr_null(pp_regs_vector(&regs, UINT32_MAX, NULL));
    regs.save = PP_SAVE_MASK;
    ck_assert_ptr_eq(pp_regs_vector(&regs, 0, &bytes), regs.vector[0]);
    ck_assert_uint_eq(bytes, 16);
    static const uint64_t without[] = { PP_SAVE_GPR, PP_SAVE_ABI, PP_SAVE_MASK512 + 1, UINT64_MAX };
    for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
        regs.save = without[i];
        ck_assert_ptr_null(pp_regs_vector(&regs, 0, &bytes));
        ck_assert_uint_eq(bytes, 0);
    }
}
END_TEST

int main(void)
{
    seed = probe_seed("check_save");

    Suite *suite = suite_create("save");
    TCase *tests = tcase_create("save");
    tcase_add_loop_test(tests, slow_path_keeps_and_shows, 0, CLASSES);
    tcase_add_loop_test(tests, pass_that_only_counts_changes_nothing, 0, CLASSES);
    tcase_add_loop_test(tests, every_register_comes_from_its_slot, 0, CLASSES);
    tcase_add_loop_test(tests, probes_change_what_c_keeps, 0, CLASSES);
    tcase_add_loop_test(tests, floating_point_control_is_restored_alone, 0, CLASSES);
    tcase_add_loop_test(tests, ready_site_is_taken_without_entering_c, 0, CLASSES);
    tcase_add_test(tests, vectors_need_processor_and_system);
    tcase_add_test(tests, vectors_of_a_copy);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
