/* SPDX-License-Identifier: MIT */
/* Single steps: by the trap flag, or by breakpoints everywhere. */
#include <config.h>

#include "step.h"

#include <check.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct {
    step_visit *visit;
    void *argument;
    const struct step_range *ranges;
    unsigned count;
    uint8_t saved[STEP_RANGES_MAX][STEP_BYTES_MAX];
} run;

#if defined __x86_64__

uintptr_t step_pc(const ucontext_t *context)
{
    return (uintptr_t) context->uc_mcontext.gregs[REG_RIP];
}

uintptr_t step_sp(const ucontext_t *context)
{
    return (uintptr_t) context->uc_mcontext.gregs[REG_RSP];
}

uintptr_t step_entry_return(const ucontext_t *context)
{
    return *(const uintptr_t *) step_sp(context);
}

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void) number;
    (void) info;
    run.visit(context, run.argument);
}

/* Bit 8 of the flags.  The handler runs without it, and the return from it sets it again. */
static void set_trap_flag(int on)
{
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
                     "pushfq\n\t"
                     "andq $~0x100, (%%rsp)\n\t"
                     "orq %0, (%%rsp)\n\t"
                     "popfq\n\t"
                     "lea 128(%%rsp), %%rsp"
                     : : "r"(on ? 0x100l : 0l) : "memory", "cc");
}

void step_pause(void)
{
}

void step_continue(void)
{
}

static void arm(void)
{
    set_trap_flag(1);
}

static void disarm(void)
{
    set_trap_flag(0);
}

#else

enum { BRK = 0xd4200000, INSN = 4 };

uintptr_t step_pc(const ucontext_t *context)
{
    return context->uc_mcontext.pc;
}

uintptr_t step_sp(const ucontext_t *context)
{
    return context->uc_mcontext.sp;
}

uintptr_t step_entry_return(const ucontext_t *context)
{
    return context->uc_mcontext.regs[30];
}

static void flush(const struct step_range *range)
{
    __builtin___clear_cache((char *) range->start, (char *) range->start + range->size);
}

/* Code that stays executable meanwhile: this function may be in the same page. */
static void make_writable(const struct step_range *range)
{
    uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
    uintptr_t start = range->start & ~(page - 1);
    uintptr_t end = (range->start + range->size + page - 1) & ~(page - 1);
    ck_assert_int_eq(mprotect((void *) start, end - start, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
}

/* Breakpoints on every instruction but the one at `except`. */
static void set_breakpoints(uintptr_t except)
{
    for (unsigned i = 0; i < run.count; i++) {
        const struct step_range *range = &run.ranges[i];
        for (uintptr_t at = range->start; at < range->start + range->size; at += INSN)
            if (at != except)
                *(volatile uint32_t *) at = BRK;
        flush(range);
    }
}

static void remove_breakpoints(void)
{
    for (unsigned i = 0; i < run.count; i++) {
        memcpy((void *) run.ranges[i].start, run.saved[i], run.ranges[i].size);
        flush(&run.ranges[i]);
    }
}

void step_pause(void)
{
    remove_breakpoints();
}

void step_continue(void)
{
    set_breakpoints(0);
}

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void) number;
    (void) info;
    remove_breakpoints();
    run.visit(context, run.argument);
    set_breakpoints(step_pc(context));
}

static void arm(void)
{
    for (unsigned i = 0; i < run.count; i++) {
        ck_assert_uint_le(run.ranges[i].size, STEP_BYTES_MAX);
        make_writable(&run.ranges[i]);
        memcpy(run.saved[i], (const void *) run.ranges[i].start, run.ranges[i].size);
    }
    set_breakpoints(0);
}

static void disarm(void)
{
    remove_breakpoints();
}

#endif

void step_run(const struct step_range *ranges, unsigned count, step_visit *visit,
              void (*body)(void *), void *argument)
{
    ck_assert_uint_le(count, STEP_RANGES_MAX);
    run.visit = visit;
    run.argument = argument;
    run.ranges = ranges;
    run.count = count;

    struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO }, before;
    sigemptyset(&action.sa_mask);
    ck_assert_int_eq(sigaction(SIGTRAP, &action, &before), 0);
    arm();
    body(argument);
    disarm();
    sigaction(SIGTRAP, &before, NULL);
}
