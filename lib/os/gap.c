/* SPDX-License-Identifier: MIT */
/*
 * Gaps between mappings.  Three kinds of room are left to their owners: above the
 * program break, below the stack, and below the lowest mapping of the area that
 * the kernel fills downwards, where the loader puts what is loaded next.  What is
 * above the highest mapping is left alone, too: its end is not in the list.
 */
#include <config.h>

#include "os/gap.h"

#include "os/maps.h"

#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LOWEST ((uintptr_t) 2 << 20)
#define HIGHEST ((uintptr_t) 1 << GAP_ADDRESS_BITS)
#if defined __aarch64__ /* where a branch reaches 128 MiB, margins have to be small */
#define BREAK_MARGIN ((uintptr_t) 32 << 20)
#define LOADER_MARGIN ((uintptr_t) 16 << 20)
#else
#define BREAK_MARGIN ((uintptr_t) 1 << 30)
#define LOADER_MARGIN ((uintptr_t) 32 << 20)
#endif
#define STACK_MARGIN ((uintptr_t) 256 << 20)

struct scan {
    gap_see *see;
    void *context;
    size_t size;
    uintptr_t program_break;
    uintptr_t stack_margin;
    uintptr_t end;         /* of the mappings before */
    struct gap loader;     /* the longest gap above the program break */
};

static void report(const struct scan *scan, uintptr_t lo, uintptr_t hi)
{
    if (hi > lo && hi - lo >= scan->size)
        scan->see((struct gap){ lo, hi }, scan->context);
}

static uintptr_t lowered(uintptr_t hi, uintptr_t lo, uintptr_t margin)
{
    return hi > lo && hi - lo > margin ? hi - margin : lo;
}

/* The heap grows from the break, which may lie anywhere in a gap while there is no heap. */
static uintptr_t above_break(const struct scan *scan, struct gap gap)
{
    if (scan->program_break + 65536 < gap.lo || scan->program_break >= gap.hi)
        return gap.lo;
    if (scan->program_break > gap.lo)
        report(scan, gap.lo, scan->program_break & -(uintptr_t) 65536);
    uintptr_t heap = scan->program_break > gap.lo ? scan->program_break : gap.lo;
    return gap.hi - heap > BREAK_MARGIN ? heap + BREAK_MARGIN : gap.hi;
}

static void see_line(const struct maps_line *line, void *context)
{
    struct scan *scan = context;
    struct gap gap = { scan->end, line->lo };
    if (line->lo >= HIGHEST)
        return; /* vsyscall, or beyond what is given out without asking */
    if (line->hi > scan->end)
        scan->end = line->hi;
    if (gap.hi <= gap.lo)
        return;
    gap.lo = above_break(scan, gap);
    if (strcmp(line->name, "[stack]") == 0) {
        report(scan, gap.lo, lowered(gap.hi, gap.lo, scan->stack_margin));
        return;
    }
    if (gap.hi > gap.lo && gap.hi > scan->program_break &&
        gap.hi - gap.lo > scan->loader.hi - scan->loader.lo) {
        /* The one that was the longest so far is an ordinary gap after all. */
        report(scan, scan->loader.lo, scan->loader.hi);
        scan->loader = gap;
        return;
    }
    report(scan, gap.lo, gap.hi);
}

/* As far as the stack may ever grow; all of the gap, if there is no limit. */
static uintptr_t stack_margin(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_STACK, &limit) != 0 || limit.rlim_cur < STACK_MARGIN)
        return STACK_MARGIN;
    return limit.rlim_cur < HIGHEST ? (uintptr_t) limit.rlim_cur + (1u << 20) : HIGHEST;
}

int gap_scan(size_t size, gap_see *see, void *context)
{
    struct scan scan = { .see = see, .context = context, .size = size,
                         .program_break = (uintptr_t) sbrk(0), .stack_margin = stack_margin(),
                         .end = LOWEST };
    int number = maps_read(see_line, &scan);
    if (number == 0)
        report(&scan, scan.loader.lo, lowered(scan.loader.hi, scan.loader.lo, LOADER_MARGIN));
    return number;
}
