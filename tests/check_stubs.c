/* SPDX-License-Identifier: MIT */
/*
 * Every stub keeps what its contract says, with random register contents.
 *
 * The patchpoint stubs call this program's own patchpoint_slow, which spoils
 * everything that a C function may.
 */
#include <config.h>

#include "osr/site.h"
#include "probe.h"
#include "stub.h"

#include <check.h>
#include <errno.h>
#include <fenv.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

_Static_assert(offsetof(struct probe, out) == PROBE_OUT, "probe.h");
_Static_assert(offsetof(struct probe, stub) == PROBE_STUB, "probe.h");
_Static_assert(offsetof(struct probe, record) == PROBE_RECORD, "probe.h");
_Static_assert(offsetof(struct probe, skew) == PROBE_SKEW, "probe.h");
_Static_assert(offsetof(struct probe, sp) == PROBE_SP, "probe.h");
_Static_assert(offsetof(struct probe, pc) == PROBE_PC, "probe.h");
_Static_assert(offsetof(struct probe, frame) == PROBE_FRAME, "probe.h");
_Static_assert(offsetof(struct probe, went) == PROBE_WENT, "probe.h");
_Static_assert(offsetof(struct probe, canary) == PROBE_BELOW, "probe.h");
_Static_assert(sizeof(struct probe) == PROBE_SIZE, "probe.h");

#define ROUNDS 200

#if defined __x86_64__
#define SCRATCH_BITS (1u << 4 | 1u << 11)       /* rsp is checked on its own; r11 */
#define FP_NUMBER 5
#define FLAGS_KEPT 0x400u                       /* DF */
#else
#define SCRATCH_BITS (3u << 16 | 3u << 30)      /* x16, x17, x30; sp */
#define FP_NUMBER 29
#define FLAGS_KEPT 0u
#endif

static uint64_t seed, state;

static uint64_t random64(void)
{
    state += 0x9e3779b97f4a7c15u;
    uint64_t x = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static void random_fill(void *memory, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *) memory)[i] = (uint8_t) random64();
}

/* ---- the C side ---------------------------------------------------------- */

static struct {
    pp_regs regs;           /* as the stub showed them */
    uintptr_t address;      /* of its pp_regs */
    struct site_record *record;
    uintptr_t exit_fp;      /* of the thread, during the call */
    pp_thread *thread;
    unsigned calls;
    uintptr_t answer;       /* 0: resume */
} seen;

/* Leave nothing as it was that the calling convention lets a C function change. */
static void spoil_registers(void)
{
#if defined __x86_64__
    __asm__ volatile("mov $-1, %%rax; mov %%rax, %%rcx; mov %%rax, %%rdx; mov %%rax, %%rsi\n\t"
                     "mov %%rax, %%rdi; mov %%rax, %%r8; mov %%rax, %%r9; mov %%rax, %%r10\n\t"
                     "mov %%rax, %%r11\n\t"
                     "movq %%rax, %%xmm0; movdqa %%xmm0, %%xmm1; movdqa %%xmm0, %%xmm2\n\t"
                     "movdqa %%xmm0, %%xmm3; movdqa %%xmm0, %%xmm4; movdqa %%xmm0, %%xmm5\n\t"
                     "movdqa %%xmm0, %%xmm6; movdqa %%xmm0, %%xmm7; movdqa %%xmm0, %%xmm8\n\t"
                     "movdqa %%xmm0, %%xmm9; movdqa %%xmm0, %%xmm10; movdqa %%xmm0, %%xmm11\n\t"
                     "movdqa %%xmm0, %%xmm12; movdqa %%xmm0, %%xmm13; movdqa %%xmm0, %%xmm14\n\t"
                     "movdqa %%xmm0, %%xmm15"
                     ::: "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm0", "xmm1",
                         "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
                         "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
#else
    __asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18\n\t"
                     "mov x\\n, #-1\n\t"
                     ".endr\n\t"
                     ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, "
                     "28, 29, 30, 31\n\t"
                     "movi v\\n\\().16b, #255\n\t"
                     ".endr\n\t"
                     /* Of v8 to v15 only the low halves belong to the caller. */
                     ".irp n, 8, 9, 10, 11, 12, 13, 14, 15\n\t"
                     "mov v\\n\\().d[1], x0\n\t"
                     ".endr"
                     ::: "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12",
                         "x13", "x14", "x15", "x16", "x17", "x18", "v0", "v1", "v2", "v3", "v4", "v5",
                         "v6", "v7", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24",
                         "v25", "v26", "v27", "v28", "v29", "v30", "v31", "cc", "memory");
#endif
}

/* Raise inexact and invalid, and round otherwise than before. */
static void spoil_float(void)
{
    volatile double zero = 0.0, one = 1.0, three = 3.0, result;
    result = one / three;
    result = zero / zero;
    (void) result;
    fesetround(fegetround() == FE_UPWARD ? FE_DOWNWARD : FE_UPWARD);
}

uintptr_t patchpoint_slow(struct site_record *record, struct pp_regs *regs)
{
    int kept = errno;
    seen.regs = *regs;
    seen.address = (uintptr_t) regs;
    seen.record = record;
    seen.calls++;
    if (seen.thread != NULL)
        seen.exit_fp = seen.thread->exit_fp;
    uintptr_t answer = seen.answer != 0 ? seen.answer : regs->pc + record->resume;
    spoil_float();
    errno = kept;
    spoil_registers();
    return answer;
}

/* ---- patchpoint ---------------------------------------------------------- */

static void random_regs(pp_regs *regs)
{
    random_fill(regs, sizeof *regs);
#if defined __x86_64__
    uint32_t mxcsr = 0x1f80 | (uint32_t) (random64() & 0x603f);
    uint32_t x87 = 0x37f | (uint32_t) (random64() & 0xc00);
    regs->fp_control = (uint64_t) x87 << 32 | mxcsr;
    regs->flags = random64() & 0x400;
#else
    uint32_t fpcr = (uint32_t) (random64() & 3) << 22;
    uint32_t fpsr = (uint32_t) (random64() & 0x9f);
    regs->fp_control = (uint64_t) fpsr << 32 | fpcr;
    regs->flags = random64() & 0xf0000000u;
#endif
}

static void check_gpr(const pp_regs *want, const pp_regs *got, const char *what, bool fp_is_random)
{
    for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++)
        if (!(SCRATCH_BITS & 1u << n) && (n != FP_NUMBER || fp_is_random))
            ck_assert_msg(want->gpr[n] == got->gpr[n], "%s: register %u: %016lx is not %016lx, seed %lu",
                          what, n, (unsigned long) got->gpr[n], (unsigned long) want->gpr[n],
                          (unsigned long) seed);
}

static void check_vector(const pp_regs *want, const pp_regs *got, const char *what, size_t bytes,
                         unsigned from, unsigned to)
{
    for (unsigned n = from; n < to; n++)
        ck_assert_msg(memcmp(want->vector[n], got->vector[n], bytes) == 0, "%s: vector %u, seed %lu",
                      what, n, (unsigned long) seed);
}

static void run_site(struct probe *probe, struct site_record *record)
{
    uint8_t canary[PROBE_CANARY_BYTES];
    random_fill(canary, sizeof canary);
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
    ck_assert_uint_eq(probe->out.gpr[PP_REGS_SP / 8], probe->sp);
}

static void check_kept(const struct probe *probe, pp_save save, bool fast)
{
    check_gpr(&probe->in, &probe->out, "after the stub", !probe->frame);
    ck_assert_uint_eq(probe->in.fp_control, probe->out.fp_control);
    ck_assert_uint_eq(probe->in.flags & FLAGS_KEPT, probe->out.flags & FLAGS_KEPT);
    if (save == PP_SAVE_V128 || fast)
        check_vector(&probe->in, &probe->out, "after the stub", 16, 0, PP_REGS_VECTOR_COUNT);
#if defined __aarch64__
    else
        check_vector(&probe->in, &probe->out, "low half after the stub", 8, 8, 16);
    if (fast)
        ck_assert_uint_eq(probe->in.flags, probe->out.flags);
#endif
}

static void check_shown(const struct probe *probe, pp_save save)
{
    check_gpr(&probe->in, &seen.regs, "in pp_regs", !probe->frame);
    ck_assert_uint_eq(seen.regs.gpr[PP_REGS_SP / 8], probe->sp);
    ck_assert_uint_eq(seen.regs.pc, probe->pc);
    ck_assert_uint_eq(seen.regs.fp_control, probe->in.fp_control);
    ck_assert_uint_eq(seen.regs.save, save);
#if defined __x86_64__
    ck_assert_uint_eq(seen.regs.flags & FLAGS_KEPT, probe->in.flags);
#else
    ck_assert_uint_eq(seen.regs.flags, probe->in.flags);
#endif
    if (save == PP_SAVE_V128)
        check_vector(&probe->in, &seen.regs, "in pp_regs", 16, 0, PP_REGS_VECTOR_COUNT);
    ck_assert_uint_eq(seen.address % 16, 0);
    ck_assert_uint_le(seen.address + sizeof(pp_regs), probe->sp);
}

static void slow_path(const void *stub, pp_save save)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct probe probe = { .stub = stub };
        struct site_record record = { .state = round % (PP_SITE_DISABLED + 1), .resume = probe_resume };
        if (record.state == PP_SITE_READY)
            continue;
        random_regs(&probe.in);
        memset(&seen, 0, sizeof seen);
#if defined __x86_64__
        probe.skew = round / 2 % 2 * 8; /* a site that breaks the alignment rule */
#endif
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
        ck_assert_uint_eq(seen.calls, 1);
        ck_assert_ptr_eq(seen.record, &record);
        ck_assert_uint_eq(probe.went, transition);
        check_shown(&probe, save);
        check_kept(&probe, save, false);
        ck_assert_uint_eq(thread.exit_fp, 0);
        if (seen.thread != NULL) {
            /* The record lay right below SP, and named the site's FP and return address. */
            ck_assert_uint_eq(seen.exit_fp, probe.sp - 16);
            ck_assert_uint_eq(seen.regs.gpr[FP_NUMBER], probe.sp + 64);
        }
    }
}

START_TEST(patchpoint_gpr_slow_path_keeps_registers)
{
    slow_path(patchpoint_gpr, PP_SAVE_GPR);
}
END_TEST

START_TEST(patchpoint_v128_slow_path_keeps_registers)
{
    slow_path(patchpoint_v128, PP_SAVE_V128);
}
END_TEST

static void fast_path(const void *stub, pp_save save)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct probe probe = { .stub = stub };
        struct site_record record = { .state = PP_SITE_READY, .resume = probe_resume,
                                      .target = (uintptr_t) probe_target };
        random_regs(&probe.in);
        memset(&seen, 0, sizeof seen);
        run_site(&probe, &record);
        ck_assert_uint_eq(seen.calls, 0);
        ck_assert_uint_eq(probe.went, 1);
        check_kept(&probe, save, true);
    }
}

START_TEST(ready_site_is_taken_without_entering_c)
{
    fast_path(patchpoint_gpr, PP_SAVE_GPR);
    fast_path(patchpoint_v128, PP_SAVE_V128);
}
END_TEST

/* ---- enter and leave ----------------------------------------------------- */

static void init_thread(pp_thread *thread)
{
    ck_assert_int_eq(pp_thread_init(thread, NULL, NULL), PP_OK);
}

START_TEST(enter_keeps_callee_saved_registers)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct probe probe = { 0 };
        pp_thread thread;
        init_thread(&thread);
        thread.exit_fp = 0x1230;
        random_regs(&probe.in);
        ck_assert_uint_eq(probe_enter(&probe, &thread, probe_spoil), 0x5015);
        ck_assert_uint_eq(thread.anchor, 0);
        ck_assert_uint_eq(thread.exit_fp, 0x1230);
#if defined __x86_64__
        static const uint8_t kept[] = { 3, 5, 12, 13, 14, 15 };
        for (size_t i = 0; i < sizeof kept; i++)
            ck_assert_uint_eq(probe.in.gpr[kept[i]], probe.out.gpr[kept[i]]);
        ck_assert_uint_eq(probe.out.gpr[4], probe.sp);
        ck_assert_uint_eq(probe.in.fp_control & 0xffffffc0, probe.out.fp_control & 0xffffffc0);
        ck_assert_uint_eq(probe.in.fp_control >> 32, probe.out.fp_control >> 32);
        ck_assert_uint_eq(probe.out.flags & 0x400, 0);
#else
        for (unsigned n = 19; n <= 29; n++)
            ck_assert_uint_eq(probe.in.gpr[n], probe.out.gpr[n]);
        ck_assert_uint_eq(probe.out.gpr[31], probe.sp);
        check_vector(&probe.in, &probe.out, "low half after pp_enter", 8, 8, 16);
        ck_assert_uint_eq((uint32_t) probe.in.fp_control, (uint32_t) probe.out.fp_control);
#endif
    }
}
END_TEST

static pp_thread *current;
static struct {
    uintptr_t exit_fp, anchor, frame;
    unsigned calls;
} left;

static uintptr_t callee(uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e, uintptr_t f)
{
    left.calls++;
    left.exit_fp = current->exit_fp;
    left.anchor = current->anchor;
    left.frame = (uintptr_t) __builtin_frame_address(0);
    spoil_registers();
    return a == 11 && b == 12 && c == 13 && d == 14 && e == 15 && f == 16 ? 0x1ea5e : 0;
}

START_TEST(leave_notes_the_way_out)
{
    pp_thread thread;
    init_thread(&thread);
    current = &thread;
    uintptr_t result = pp_enter(&thread, probe_leave, (uintptr_t) &thread, (uintptr_t) callee, 0, 0);
    ck_assert_uint_eq(result, 0x1ea5e + 1);
    ck_assert_uint_eq(left.calls, 1);
    ck_assert_uint_eq(thread.exit_fp, 0);
    ck_assert_uint_eq(thread.anchor, 0);

    /* The stack is still as it was but for what ran since; the addresses tell the order. */
    ck_assert_uint_lt(left.frame, left.exit_fp);
    ck_assert_uint_lt(left.exit_fp, left.anchor);
    ck_assert_uint_lt(left.anchor, thread.stack_hi);
    ck_assert_uint_ge(left.frame, thread.stack_lo);
}
END_TEST

/* C called by compiled code, in the middle of two activations: every record is there. */
static uintptr_t nested(uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e, uintptr_t f)
{
    const uintptr_t *record = (const uintptr_t *) current->exit_fp;
    ck_assert_uint_eq(record[1], (uintptr_t) probe_leave_return);
    const uintptr_t *compiled = (const uintptr_t *) record[0];
    ck_assert_uint_eq(compiled[1], (uintptr_t) enter_return);
    const struct anchor *anchor = (const struct anchor *) current->anchor;
    ck_assert_uint_eq(anchor->fp, compiled[0]);
    ck_assert_uint_eq(anchor->fp + PP_ENTER_ANCHOR_OFFSET, current->anchor);
    ck_assert_uint_eq(anchor->cookie, current->cookie ^ current->anchor);
    ck_assert_uint_eq(anchor->previous, left.anchor);
    ck_assert_uint_eq(anchor->exit_fp, left.exit_fp);

    if (left.calls++ < 3) {
        left.anchor = current->anchor;
        left.exit_fp = current->exit_fp;
        uintptr_t before[2] = { current->anchor, current->exit_fp };
        uintptr_t inner = pp_enter(current, probe_leave, (uintptr_t) current, (uintptr_t) nested, 0, 0);
        ck_assert_uint_eq(inner, 0x1ea5e + 1);
        ck_assert_uint_eq(before[0], current->anchor);
        ck_assert_uint_eq(before[1], current->exit_fp);
    }
    return a == 11 && b == 12 && c == 13 && d == 14 && e == 15 && f == 16 ? 0x1ea5e : 0;
}

START_TEST(activations_nest)
{
    pp_thread thread;
    init_thread(&thread);
    current = &thread;
    memset(&left, 0, sizeof left);
    ck_assert_uint_eq(pp_enter(&thread, probe_leave, (uintptr_t) &thread, (uintptr_t) nested, 0, 0),
                      0x1ea5e + 1);
    ck_assert_uint_eq(left.calls, 4);
    ck_assert_uint_eq(thread.anchor, 0);
}
END_TEST

/* ---- resume -------------------------------------------------------------- */

/* Through twenty frames of C; returns only if a shadow stack is active. */
static unsigned deep_resume(pp_thread *thread, const pp_resume_point *point, unsigned depth)
{
    if (depth > 0)
        return deep_resume(thread, point, depth - 1) + 1;
    ck_assert_uint_ne(thread->exit_fp, 0);
    frame_resume(thread, point);
    return 0;
}

static uintptr_t resume_from_c(pp_thread *thread, const pp_resume_point *point)
{
    return deep_resume(thread, point, 20) == 20 ? 1 : 0;
}

START_TEST(resume_continues_in_compiled_code)
{
    pp_thread thread;
    init_thread(&thread);
    for (uintptr_t value = 2; value < 100; value++) {
        uintptr_t result = pp_enter(&thread, probe_resumable, (uintptr_t) &thread,
                                    (uintptr_t) resume_from_c, value, 0);
        ck_assert_uint_eq(result, value);
        ck_assert_uint_eq(thread.exit_fp, 0);
        ck_assert_uint_eq(thread.anchor, 0);
    }
}
END_TEST

/* ---- table and thread ---------------------------------------------------- */

START_TEST(every_stub_has_a_row)
{
    static const struct {
        const char *name;
        const void *code;
        unsigned kind;
    } stubs[] = {
        { "pp_enter", (const void *) pp_enter, STUB_ENTER },
        { "pp_leave", (const void *) pp_leave, STUB_LEAVE },
        { "patchpoint_gpr", patchpoint_gpr, STUB_PATCHPOINT },
        { "patchpoint_v128", patchpoint_v128, STUB_PATCHPOINT },
        { "frame_resume", (const void *) frame_resume, STUB_RESUME },
    };
    ck_assert_int_eq(stub_table_end - stub_table, sizeof stubs / sizeof stubs[0]);
    for (size_t i = 0; i < sizeof stubs / sizeof stubs[0]; i++) {
        uintptr_t code = (uintptr_t) stubs[i].code;
        const struct stub *stub = stub_at(code);
        ck_assert_ptr_nonnull(stub);
        ck_assert_str_eq(stub->name, stubs[i].name);
        ck_assert_uint_eq(stub->kind, stubs[i].kind);
        ck_assert_uint_eq(stub_start(stub), code);
        ck_assert_ptr_eq(stub_at(code + stub->size - 1), stub);
        ck_assert_ptr_ne(stub_at(code + stub->size), stub);
        ck_assert_ptr_ne(stub_at(code - 1), stub);
        ck_assert_uint_lt(stub->pushed, stub->set);
        ck_assert_uint_lt(stub->set, stub->popped);
        ck_assert_uint_le(stub->popped, stub->size);
    }
    ck_assert_str_eq(stub_at((uintptr_t) enter_return)->name, "pp_enter");
}
END_TEST

/* ---- leaving by longjmp ------------------------------------------------ */

static jmp_buf landing;

static void jump_out(pp_thread *thread)
{
    ck_assert_uint_ne(thread->anchor, 0);
    longjmp(landing, 1);
}

static void nest_and_jump_out(pp_thread *thread)
{
    pp_enter(thread, (const void *) jump_out, (uintptr_t) thread, 0, 0, 0);
}

static int enter_and_jump_out(pp_thread *thread)
{
    if (setjmp(landing) != 0)
        return 1;
    pp_enter(thread, (const void *) nest_and_jump_out, (uintptr_t) thread, 0, 0, 0);
    return 0;
}

/* Between two activations, so that rewinding too far would show as well. */
static void enter_jump_and_rewind(pp_thread *thread)
{
    pp_mark mark = pp_thread_mark(thread);
    uintptr_t anchor = thread->anchor;
    ck_assert_uint_ne(anchor, 0);
    ck_assert_int_eq(enter_and_jump_out(thread), 1);
    ck_assert_uint_ne(thread->anchor, anchor);
    pp_thread_rewind(thread, mark);
    ck_assert_uint_eq(thread->anchor, anchor);
    ck_assert_uint_eq(thread->exit_fp, 0);
}

START_TEST(thread_is_rewound_after_a_long_jump)
{
    pp_thread thread;
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    pp_enter(&thread, (const void *) enter_jump_and_rewind, (uintptr_t) &thread, 0, 0, 0);
    ck_assert_uint_eq(thread.anchor, 0);
    ck_assert_uint_eq(thread.exit_fp, 0);
}
END_TEST

START_TEST(thread_knows_its_stack)
{
    pp_thread a, b;
    int local;
    ck_assert_int_eq(pp_thread_init(NULL, NULL, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_thread_init(&a, &local, NULL), PP_E_ARG);
    ck_assert_int_eq(pp_thread_init(&a, NULL, &local), PP_E_ARG);
    ck_assert_int_eq(pp_thread_init(&a, &local, &local), PP_E_ARG);
    ck_assert_int_eq(pp_thread_init(&a, &local + 1, &local), PP_E_ARG);
    ck_assert_int_eq(pp_thread_init(&a, NULL, NULL), PP_OK);
    ck_assert_uint_lt(a.stack_lo, (uintptr_t) &local);
    ck_assert_uint_gt(a.stack_hi, (uintptr_t) &local);
    ck_assert_int_eq(pp_thread_init(&b, &local, &local + 1), PP_OK);
    ck_assert_uint_eq(b.stack_lo, (uintptr_t) &local);
    ck_assert_uint_eq(b.stack_hi, (uintptr_t) (&local + 1));
    ck_assert_uint_ne(a.cookie, b.cookie);
    ck_assert_uint_eq(a.anchor | a.exit_fp, 0);
}
END_TEST

int main(void)
{
    const char *given = getenv("PP_SEED");
    seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
    state = seed;
    printf("check_stubs: seed %lu (PP_SEED)\n", (unsigned long) seed);

    Suite *suite = suite_create("stubs");
    TCase *tests = tcase_create("stubs");
    tcase_add_test(tests, patchpoint_gpr_slow_path_keeps_registers);
    tcase_add_test(tests, patchpoint_v128_slow_path_keeps_registers);
    tcase_add_test(tests, ready_site_is_taken_without_entering_c);
    tcase_add_test(tests, enter_keeps_callee_saved_registers);
    tcase_add_test(tests, leave_notes_the_way_out);
    tcase_add_test(tests, activations_nest);
    tcase_add_test(tests, resume_continues_in_compiled_code);
    tcase_add_test(tests, every_stub_has_a_row);
    tcase_add_test(tests, thread_is_rewound_after_a_long_jump);
    tcase_add_test(tests, thread_knows_its_stack);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
