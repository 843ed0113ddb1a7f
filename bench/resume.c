/* SPDX-License-Identifier: MIT */
/*
 * What it costs to get back into an OSR body that suspended itself: a jump through
 * the continuation, against an indirect jump, and against what runtimes did before,
 * which is to capture all registers, to unwind to tier-0's caller, and to restore.
 *
 * One iteration is a call of tier-0, its frame, the way into the body, the body's count
 * and its return, in all contestants (stress/suspend.h); so the ratios to unwinding are
 * less than those of the ways alone.  Two unwinders, with 1, 3 and 8 C frames above
 * tier-0: libunwind, with its own restore; and libgcc, which hands out registers, with a
 * restore like longjmp's, in which the kernel has no part.  The row takes the faster one,
 * at 3 frames, the way of .NET: a stub, a function of the runtime and its worker.
 */
#include <config.h>

#include "bench/harness.h"

#include "stress/suspend.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unwind.h>

#if defined __x86_64__

enum { ROUNDS = 128, PASSES = 20000, UNWINDS = 100, PLAIN = 3, DEPTHS = 3 };
enum { BARE, DIRECT, READY, LIBUNWIND, LIBGCC = LIBUNWIND + DEPTHS, CONTESTANTS = LIBGCC + DEPTHS };

static const unsigned depths[DEPTHS] = { 1, 3, 8 };

static _Noreturn void give_up(const char *why)
{
    fprintf(stderr, "resume: %s\n", why);
    exit(1);
}

/* ---- libgcc ------------------------------------------------------------------------ */

struct found {
    const struct continuation *continuation;
    bool tier0, caller; /* were found */
    uint64_t sp, fp;    /* tier-0's */
    uint64_t rbx, r12, r13, r14, r15; /* its caller's */
};

static _Unwind_Reason_Code look(struct _Unwind_Context *context, void *argument)
{
    struct found *found = argument;
    if (found->tier0) { /* DWARF's numbers */
        found->rbx = _Unwind_GetGR(context, 3);
        found->r12 = _Unwind_GetGR(context, 12);
        found->r13 = _Unwind_GetGR(context, 13);
        found->r14 = _Unwind_GetGR(context, 14);
        found->r15 = _Unwind_GetGR(context, 15);
        found->caller = true;
        return _URC_NORMAL_STOP;
    }
    if (suspend_in_tier0(found->continuation, _Unwind_GetIP(context))) {
        found->sp = _Unwind_GetCFA(context);
        found->fp = _Unwind_GetGR(context, 6);
        found->tier0 = true;
    }
    return _URC_NO_REASON;
}

static _Noreturn void restore(const struct found *found, uintptr_t code)
{
    __asm__ volatile(
        "mov %c[rbx](%[from]), %%rbx\n\t"
        "mov %c[r12](%[from]), %%r12\n\t"
        "mov %c[r13](%[from]), %%r13\n\t"
        "mov %c[r14](%[from]), %%r14\n\t"
        "mov %c[r15](%[from]), %%r15\n\t"
        "mov %c[fp](%[from]), %%rbp\n\t"
        "mov %c[sp](%[from]), %%rsp\n\t"
        "jmp *%[code]"
        : : [from] "a"(found), [code] "d"(code), [sp] "i"(offsetof(struct found, sp)),
            [fp] "i"(offsetof(struct found, fp)), [rbx] "i"(offsetof(struct found, rbx)),
            [r12] "i"(offsetof(struct found, r12)), [r13] "i"(offsetof(struct found, r13)),
            [r14] "i"(offsetof(struct found, r14)), [r15] "i"(offsetof(struct found, r15))
        : "memory");
    __builtin_unreachable();
}

static void capture(struct continuation *continuation)
{
    struct found found = { .continuation = continuation };
    _Unwind_Backtrace(look, &found);
    if (!found.caller)
        abort(); /* no way back into code that does not expect one */
    restore(&found, continuation->code);
}

static void by_libgcc(struct continuation *continuation)
{
    suspend_deeper(continuation, capture);
}

/* ---- measuring --------------------------------------------------------------------- */

static void link_all(struct suspend *suspend, pp_pool *pool, pp_trace *tier0[CONTESTANTS])
{
    if (suspend_open(suspend, pool) != PP_OK
        || suspend_link(suspend, SUSPEND_BARE, NULL, &tier0[BARE]) != PP_OK
        || suspend_link(suspend, SUSPEND_DIRECT, NULL, &tier0[DIRECT]) != PP_OK
        || suspend_link(suspend, SUSPEND_PATCHPOINT, NULL, &tier0[READY]) != PP_OK
        || suspend_link(suspend, SUSPEND_CALL, suspend_libunwind, &tier0[LIBUNWIND]) != PP_OK
        || suspend_link(suspend, SUSPEND_CALL, by_libgcc, &tier0[LIBGCC]) != PP_OK)
        give_up("no method");
    for (unsigned i = 1; i < DEPTHS; i++) {
        tier0[LIBUNWIND + i] = tier0[LIBUNWIND];
        tier0[LIBGCC + i] = tier0[LIBGCC];
    }
}

static double pass(const struct suspend *suspend, const pp_trace *tier0, unsigned contestant)
{
    unsigned passes = contestant < PLAIN ? PASSES : UNWINDS;
    unsigned frames = contestant < PLAIN ? 1 : depths[(contestant - PLAIN) % DEPTHS];
    double begin = bench_clock();
    if (!suspend_run(suspend, tier0, frames, passes))
        give_up("iterations were lost");
    return (bench_clock() - begin) / passes;
}

static void report(const struct bench *bench, const double ns[CONTESTANTS])
{
    static const char *const names[] = { "indirect jump", "jump through the continuation",
                                         "ready patchpoint" };
    for (unsigned i = 0; i < PLAIN; i++)
        printf("  %-40s %9.2f\n", names[i], ns[i]);
    for (unsigned i = 0; i < DEPTHS; i++)
        printf("  libunwind, %u C frame%-21s %9.0f\n", depths[i], depths[i] > 1 ? "s" : "",
               ns[LIBUNWIND + i]);
    for (unsigned i = 0; i < DEPTHS; i++)
        printf("  libgcc, restored without a call, %u frame%-3s %5.0f\n", depths[i],
               depths[i] > 1 ? "s" : "", ns[LIBGCC + i]);
    double old = ns[LIBUNWIND + 1] < ns[LIBGCC + 1] ? ns[LIBUNWIND + 1] : ns[LIBGCC + 1];
    bench_row(bench, "direct resume, ratio", "indirect jump", false, 1.2, ns[DIRECT] / ns[BARE]);
    bench_row(bench, "direct resume, times faster", "unwinding 3 C frames", true, 100,
              old / ns[DIRECT]);
}

int main(int argc, char **argv)
{
    struct bench bench;
    static double times[CONTESTANTS][ROUNDS];
    struct suspend suspend;
    pp_trace *tier0[CONTESTANTS];
    pp_pool *pool;
    double ns[CONTESTANTS];
    bench_begin(&bench, argc, argv);
    printf("\nBack into a suspended OSR body, in ns per iteration.\n");
    const pp_pool_options options = { .size = sizeof options,
                                      .unwinders = PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND };
    if (pp_pool_create(&options, &pool) != PP_OK)
        give_up("no pool");
    link_all(&suspend, pool, tier0);
    unsigned rounds = bench.rounds < ROUNDS ? bench.rounds : ROUNDS;
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < CONTESTANTS; i++)
            times[i][round] = pass(&suspend, tier0[i], i);
    for (unsigned i = 0; i < CONTESTANTS; i++)
        ns[i] = bench_median(times[i], rounds);
    report(&bench, ns);
    pp_pool_destroy(pool);
    return 0;
}

#else

int main(int argc, char **argv)
{
    struct bench bench;
    bench_begin(&bench, argc, argv);
    printf("\nResumes are measured on x86-64 only.\n");
    return 0;
}

#endif
