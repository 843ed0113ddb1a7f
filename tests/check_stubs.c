/* SPDX-License-Identifier: MIT */
/*
 * The stubs keep what their contracts say, with random register contents.
 * Those of patchpoints have check_save.
 */
#include <config.h>

#include "probe.h"
#include "stub.h"

#include <check.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 200

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
        probe_fill_regs(&probe.in);
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
        for (unsigned n = 8; n < 16; n++)
            ck_assert_mem_eq(probe.in.vector[n], probe.out.vector[n], 8);
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
    probe_spoil_registers();
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
        { "patchpoint_abi", patchpoint_abi, STUB_PATCHPOINT },
        { "patchpoint_gpr", patchpoint_gpr, STUB_PATCHPOINT },
        { "patchpoint_v128", patchpoint_v128, STUB_PATCHPOINT },
#if defined __x86_64__
        { "patchpoint_v256", patchpoint_v256, STUB_PATCHPOINT },
        { "patchpoint_v512", patchpoint_v512, STUB_PATCHPOINT },
        { "patchpoint_m256", patchpoint_m256, STUB_PATCHPOINT },
        { "patchpoint_m512", patchpoint_m512, STUB_PATCHPOINT },
#endif
        { "patchpoint_mask", patchpoint_mask, STUB_PATCHPOINT },
        { "frame_move", frame_move, STUB_TRANSITION },
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

/* The cookie of a process for which the kernel drew these bytes, but for the bits of a mask. */
static uint64_t cookie_of_a_process(unsigned byte, uint8_t mask)
{
    uint64_t cookie = 0;
    int ends[2], status;
    ck_assert_int_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        pp_thread thread;
        ((uint8_t *) getauxval(AT_RANDOM))[byte] ^= mask;
        if (pp_thread_init(&thread, NULL, NULL) != PP_OK)
            _exit(1);
        _exit(write(ends[1], &thread.cookie, sizeof cookie) != sizeof cookie);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(read(ends[0], &cookie, sizeof cookie), sizeof cookie);
    close(ends[0]);
    close(ends[1]);
    return cookie;
}

START_TEST(cookies_depend_on_all_random_bytes)
{
    uint64_t cookie = cookie_of_a_process(0, 0);
    ck_assert_uint_eq(cookie_of_a_process(0, 0), cookie); /* else this shows nothing */
    for (unsigned byte = 0; byte < 16; byte++)
        ck_assert_uint_ne(cookie_of_a_process(byte, 0x10), cookie);
}
END_TEST

int main(void)
{
    probe_seed("check_stubs");

    Suite *suite = suite_create("stubs");
    TCase *tests = tcase_create("stubs");
    tcase_add_test(tests, enter_keeps_callee_saved_registers);
    tcase_add_test(tests, leave_notes_the_way_out);
    tcase_add_test(tests, activations_nest);
    tcase_add_test(tests, resume_continues_in_compiled_code);
    tcase_add_test(tests, every_stub_has_a_row);
    tcase_add_test(tests, thread_is_rewound_after_a_long_jump);
    tcase_add_test(tests, thread_knows_its_stack);
    tcase_add_test(tests, cookies_depend_on_all_random_bytes);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
