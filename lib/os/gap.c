/* SPDX-License-Identifier: MIT */
/*
 * Gaps between mappings.  Three kinds of room are left to their owners: above the
 * program break, below the stack, and below the lowest mapping of the area that
 * the kernel fills downwards, where the loader puts what is loaded next.
 */
#include <config.h>

#include "os/gap.h"

#include "os/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define LOWEST ((uintptr_t) 2 << 20)
#define HIGHEST ((uintptr_t) 1 << 47)
#if defined __aarch64__ /* where a branch reaches 128 MiB, margins have to be small */
#define BREAK_MARGIN ((uintptr_t) 32 << 20)
#define LOADER_MARGIN ((uintptr_t) 16 << 20)
#else
#define BREAK_MARGIN ((uintptr_t) 1 << 30)
#define LOADER_MARGIN ((uintptr_t) 32 << 20)
#endif
#define STACK_MARGIN ((uintptr_t) 256 << 20)

struct scan {
    struct gap *gaps;
    size_t capacity, count, size;
    uintptr_t center;      /* gaps near it are kept */
    uintptr_t program_break;
    uintptr_t end;         /* of the mapping before */
    struct gap loader;     /* the longest gap above the program break */
};

static uintptr_t distance(const struct gap *gap, uintptr_t center)
{
    if (center < gap->lo)
        return gap->lo - center;
    return center > gap->hi ? center - gap->hi : 0;
}

static void keep(struct scan *scan, struct gap gap)
{
    if (gap.hi <= gap.lo || gap.hi - gap.lo < scan->size)
        return;
    if (scan->count < scan->capacity) {
        scan->gaps[scan->count++] = gap;
        return;
    }
    size_t farthest = 0;
    for (size_t i = 1; i < scan->count; i++) {
        if (distance(&scan->gaps[i], scan->center) > distance(&scan->gaps[farthest], scan->center))
            farthest = i;
    }
    if (distance(&gap, scan->center) < distance(&scan->gaps[farthest], scan->center))
        scan->gaps[farthest] = gap;
}

static void shorten(uintptr_t *hi, uintptr_t lo, uintptr_t margin)
{
    *hi = *hi - lo > margin ? *hi - margin : lo;
}

/* A mapping [lo, hi) comes next in ascending order. */
static void see(struct scan *scan, uintptr_t lo, uintptr_t hi, bool is_stack)
{
    struct gap gap = { scan->end, lo < HIGHEST ? lo : HIGHEST };
    if (hi > scan->end)
        scan->end = hi;
    if (gap.hi <= gap.lo)
        return;
    bool above_break = gap.hi > scan->program_break;
    if (above_break && gap.lo <= scan->program_break + 65536)
        gap.lo = gap.hi - gap.lo > BREAK_MARGIN ? gap.lo + BREAK_MARGIN : gap.hi;
    if (is_stack)
        shorten(&gap.hi, gap.lo, STACK_MARGIN);
    if (above_break && !is_stack && gap.hi - gap.lo > scan->loader.hi - scan->loader.lo) {
        /* The one that was the longest so far is an ordinary gap after all. */
        keep(scan, scan->loader);
        scan->loader = gap;
        return;
    }
    keep(scan, gap);
}

static const char *parse_hex(const char *text, uintptr_t *value)
{
    *value = 0;
    for (;; text++) {
        unsigned digit;
        if (*text >= '0' && *text <= '9')
            digit = (unsigned) (*text - '0');
        else if (*text >= 'a' && *text <= 'f')
            digit = (unsigned) (*text - 'a') + 10;
        else
            return text;
        *value = *value << 4 | digit;
    }
}

static void see_line(struct scan *scan, const char *line)
{
    uintptr_t lo, hi;
    const char *text = parse_hex(line, &lo);
    if (*text++ != '-')
        return;
    parse_hex(text, &hi);
    see(scan, lo, hi, strstr(line, "[stack]") != NULL);
}

/* Lines longer than the buffer (their bounds come first) are cut, not split. */
static int read_lines(int fd, struct scan *scan)
{
    char buffer[4096];
    size_t fill = 0;
    bool cut = false;
    for (;;) {
        ssize_t count = read(fd, buffer + fill, sizeof buffer - 1 - fill);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count < 0 ? errno : 0;
        fill += (size_t) count;
        buffer[fill] = '\0';
        char *line = buffer, *end;
        while ((end = strchr(line, '\n')) != NULL) {
            *end = '\0';
            if (!cut)
                see_line(scan, line);
            cut = false;
            line = end + 1;
        }
        fill = (size_t) (buffer + fill - line);
        memmove(buffer, line, fill);
        if (fill == sizeof buffer - 1) {
            buffer[fill] = '\0';
            if (!cut)
                see_line(scan, buffer);
            cut = true;
            fill = 0;
        }
    }
}

size_t gap_scan(struct gap *gaps, size_t capacity, size_t size, uintptr_t center, int *number)
{
    struct scan scan = { .gaps = gaps, .capacity = capacity, .size = size, .center = center,
                         .program_break = (uintptr_t) sbrk(0), .end = LOWEST };
    int saved = errno;
    int fd = fault_fires_errno(PP_FAULT_OPEN) ? -1 : open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    *number = fd < 0 ? errno : read_lines(fd, &scan);
    if (fd >= 0)
        close(fd);
    errno = saved;
    if (*number == 0 && scan.end == LOWEST)
        *number = ENOENT; /* an empty file: some emulators fail that way */
    if (*number != 0)
        return 0;
    shorten(&scan.loader.hi, scan.loader.lo, LOADER_MARGIN);
    keep(&scan, scan.loader);
    return scan.count;
}
