/* SPDX-License-Identifier: MIT */
/*
 * Walks of code that a compiler made, from every instruction.  Its functions are copied
 * into a span whose rule promises frame records, which code without frame pointers does
 * not keep.  What the walker should see is known from calls and returns, by which nobody
 * decodes a frame.
 *
 * No frame that is called valid may lead to a wrong caller, and no stack is broken.
 * How many frames are unsure differs among compilers and options.
 */
#include <config.h>

#include "shapes.h"
#include "step.h"
#include "stub.h"

#include <patchpoint.h>

#include <check.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct shapes_code *const __start_shapes_list[], *const __stop_shapes_list[];

enum { DEPTH_MAX = 64 };

static struct {
    pp_pool *pool;
    pp_thread thread;
    pp_span *span;
    uintptr_t start, end;   /* of the code under test */
    shapes_run *run;
    struct shapes shapes;
    jmp_buf out;
    pp_mark mark;
    /* Calls that have not returned: pp_enter's first. */
    struct {
        uintptr_t return_address, cfa;
    } calls[DEPTH_MAX];
    unsigned depth;
    uintptr_t last_pc, last_sp;
    /* What was seen. */
    unsigned long steps, exact, unsure, wrong, wrong_cfa, broken;
    char report[400];
} now;

/* ---- the truth -------------------------------------------------------- */

static void note_call(uintptr_t return_address, uintptr_t cfa)
{
    if (now.depth == 0 && return_address != (uintptr_t) enter_return)
        return;
    ck_assert_uint_lt(now.depth, DEPTH_MAX);
    now.calls[now.depth].return_address = return_address;
    now.calls[now.depth++].cfa = cfa;
}

#if defined __x86_64__

/* A call pushes the address of the next instruction, and goes elsewhere. */
static void follow(const ucontext_t *context)
{
    uintptr_t pc = step_pc(context), sp = step_sp(context);
    while (now.depth > 0 && sp >= now.calls[now.depth - 1].cfa)
        now.depth--;
    if (now.last_pc != 0 && sp == now.last_sp - 8) {
        uintptr_t pushed = *(const uintptr_t *) sp;
        if (pushed > now.last_pc && pushed - now.last_pc <= 15 && pushed != pc)
            note_call(pushed, sp + 8);
    }
    now.last_pc = pc;
    now.last_sp = sp;
}

#else

static bool is_call(uintptr_t pc)
{
    uint32_t insn = *(const uint32_t *) pc;
    return (insn & 0xfc000000) == 0x94000000 || (insn & 0xfffffc1f) == 0xd63f0000;
}

/* Only the code under test is visited, so calls of C return at once. */
static void follow(const ucontext_t *context)
{
    uintptr_t pc = step_pc(context), sp = step_sp(context);
    while (now.depth > 0 && sp == now.calls[now.depth - 1].cfa
           && pc == now.calls[now.depth - 1].return_address)
        now.depth--;
    if (now.last_pc == 0)
        note_call(context->uc_mcontext.regs[30], sp);
    else if (is_call(now.last_pc) && pc != now.last_pc + 4)
        note_call(now.last_pc + 4, sp);
    now.last_pc = pc;
    now.last_sp = sp;
}

#endif

/*
 * On AArch64 the frames have sizes of their own, against the one rule of all, which is what a
 * walker has for the CFA where no return is in sight.
 */
#if defined __x86_64__
enum { CFA_IS_KNOWN = true };
#else
enum { CFA_IS_KNOWN = false };
#endif

/* ---- walks ------------------------------------------------------------ */

static void report(const char *what, uintptr_t pc, unsigned number, const pp_frame *frame)
{
    if (now.report[0] != '\0' && getenv("CHECK_COMPILED_ALL") == NULL)
        return;
    int length = snprintf(now.report, sizeof now.report, "%s at +%#lx, frame %u: %s, %s, pc %+ld, bytes",
                          what, (long) (pc - now.start), number, pp_verdict_name(frame->verdict),
                          pp_check_name(frame->check), (long) (frame->pc - now.start));
    for (unsigned i = 0; i < 24 && pc + i < now.end; i++)
        length += snprintf(now.report + length, sizeof now.report - (size_t) length, " %02x",
                           *(const uint8_t *) (pc + i));
    if (getenv("CHECK_COMPILED_ALL") != NULL)
        printf("%s\n", now.report);
}

/* Frame 0 is the interrupted one; the last is pp_enter's. */
static void compare(const ucontext_t *context)
{
    uintptr_t pc = step_pc(context);
    pp_walk walk;
    pp_frame frame = { .size = sizeof frame }, last = frame;
    unsigned number = 0;
    bool sure = true, right = true;
    pp_walk_begin(&walk, &now.thread, context);
    for (; pp_walk_next(&walk, &frame); number++, last = frame) {
        uintptr_t expected = number == 0 ? pc : number <= now.depth
                             ? now.calls[now.depth - number].return_address : 0;
        if (frame.verdict == PP_VERDICT_BROKEN) {
            now.broken++;
            report("broken", pc, number, &frame);
        }
        right = right && frame.pc == expected
             && (frame.kind == PP_WALK_ENTRY) == (number == now.depth);
        if (!right) {
            if (number > 0 && last.verdict == PP_VERDICT_VALID) {
                now.wrong++;
                report("wrong", pc, number, &frame);
            } else {
                now.unsure++;
            }
            return;
        }
        if (number == 0 && frame.verdict == PP_VERDICT_VALID
            && frame.cfa != now.calls[now.depth - 1].cfa) {
            now.wrong_cfa++;
            if (CFA_IS_KNOWN)
                report("cfa", pc, number, &frame);
        }
        sure = sure && frame.verdict == PP_VERDICT_VALID;
    }
    if (sure && number == now.depth + 1 && walk.end == PP_END_ROOT)
        now.exact++;
    else if (sure) {
        now.wrong++;
        report("cut short", pc, number, &frame);
    } else {
        now.unsure++;
        if (getenv("CHECK_COMPILED_UNSURE") != NULL)
            report("unsure", pc, number, &frame);
    }
}

static void visit(ucontext_t *context, void *unused)
{
    (void) unused;
    uintptr_t pc = step_pc(context);
#if !defined __x86_64__
    if (pc - now.start >= now.end - now.start)
        return;
#endif
    follow(context);
    if (pc - now.start >= now.end - now.start || now.depth == 0)
        return;
    now.steps++;
    compare(context);
}

/* ---- code -------------------------------------------------------------- */

static long in_c(long n)
{
    return (n * 7 + 3) & 15;
}

static void __attribute__((noreturn)) leave_for_good(struct shapes *shapes, long n)
{
    (void) shapes;
    (void) n;
    pp_thread_rewind(&now.thread, now.mark);
    longjmp(now.out, 1);
}

static void copy_code(const struct shapes_code *code)
{
    const size_t bytes = (size_t) (code->end - code->start);
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD };
    pp_span_desc desc = { .size = sizeof desc, .bytes = bytes, .align = 64, .frame = &rule };
    pp_span_place place = { .size = sizeof place };
    ck_assert_int_eq(pp_span_alloc(now.pool, &desc, &now.span, &place), PP_OK);
    memcpy(place.write, code->start, bytes);
    ck_assert_int_eq(pp_span_publish(now.pool, &now.span, 1, NULL), PP_OK);
    now.start = (uintptr_t) place.execute;
    now.end = now.start + bytes;
    now.run = (shapes_run *) (now.start + (uintptr_t) ((const char *) code->run - code->start));
}

static void enter(void *unused)
{
    (void) unused;
    now.mark = pp_thread_mark(&now.thread);
    if (setjmp(now.out) == 0)
        pp_enter(&now.thread, (const void *) now.run, (uintptr_t) &now.shapes, 5, 0, 0);
}

/*
 * A floor for the share of exact walks, in percent; what is measured is a few more: without
 * optimization at least 97 for gcc's code, and 94 for clang's.
 */
#if defined __clang__
enum { FLOOR_O0 = 90 };
#else
enum { FLOOR_O0 = 95 };
#endif

static unsigned floor_of(const char *name)
{
    if (strstr(name, "omit") != NULL)
        return 0;
    return strstr(name, "O0") != NULL ? FLOOR_O0 : CFA_IS_KNOWN ? 85 : 75;
}

START_TEST(no_walk_of_compiled_code_lies)
{
    const struct shapes_code *code = __start_shapes_list[_i];
    pp_pool_options options = { .size = sizeof options, .wx = PP_WX_FLIP };
    memset(&now, 0, sizeof now);
    ck_assert_int_eq(pp_pool_create(&options, &now.pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&now.thread, NULL, NULL), PP_OK);
    copy_code(code);
    now.shapes = (struct shapes) { .c = in_c, .leave = leave_for_good,
                                   .seeds = { 3, 1, 4, 1, 5, 9, 2, 6 } };
    for (now.shapes.again = 0; now.shapes.again < 2; now.shapes.again++) {
        struct step_range range = { now.start, now.end - now.start };
        now.depth = 0;
        now.last_pc = 0;
        step_run(&range, 1, visit, enter, NULL);
    }
    unsigned share = now.steps == 0 ? 0 : (unsigned) (now.exact * 100 / now.steps);
    printf("%s: %lu instructions, %u %% exact, %lu unsure, %lu wrong, %lu wrong CFAs, %lu broken\n",
           code->name, now.steps, share, now.unsure, now.wrong, now.wrong_cfa, now.broken);
    if (getenv("CHECK_COMPILED_ALL") == NULL) {
        ck_assert_msg(now.wrong == 0 && now.broken == 0 && (now.wrong_cfa == 0 || !CFA_IS_KNOWN),
                      "%s: %s", code->name, now.report);
        ck_assert_uint_ge(share, floor_of(code->name));
    }
    pp_pool_destroy(now.pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compiled");
    TCase *tests = tcase_create("compiled");
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, no_walk_of_compiled_code_lies, 0,
                        (int) (__stop_shapes_list - __start_shapes_list));
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
