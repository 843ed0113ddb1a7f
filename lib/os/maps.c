/* SPDX-License-Identifier: MIT */
/* Reading /proc/self/maps without a buffer for all of it. */
#include <config.h>

#include "os/maps.h"

#include "os/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const char *parse_number(const char *text, unsigned base, uint64_t *value)
{
    *value = 0;
    for (;; text++) {
        unsigned digit = base;
        if (*text >= '0' && *text <= '9')
            digit = (unsigned) (*text - '0');
        else if (*text >= 'a' && *text <= 'f')
            digit = (unsigned) (*text - 'a') + 10;
        if (digit >= base)
            return text;
        *value = *value * base + digit;
    }
}

static const char *skip_field(const char *text)
{
    while (*text != ' ' && *text != '\0')
        text++;
    while (*text == ' ')
        text++;
    return text;
}

/* LO-HI rwxp OFFSET MAJOR:MINOR INODE NAME; see proc_pid_maps(5). */
static bool parse_line(const char *text, struct maps_line *line)
{
    uint64_t value;
    text = parse_number(text, 16, &value);
    line->lo = (uintptr_t) value;
    if (*text++ != '-')
        return false;
    text = parse_number(text, 16, &value);
    line->hi = (uintptr_t) value;
    if (*text++ != ' ' || line->hi <= line->lo || strlen(text) < 4)
        return false;
    line->read = text[0] == 'r';
    line->write = text[1] == 'w';
    line->execute = text[2] == 'x';
    line->shared = text[3] == 's';
    parse_number(text = skip_field(text), 16, &line->offset);
    parse_number(text = skip_field(skip_field(text)), 10, &line->inode);
    line->name = skip_field(text);
    return true;
}

/* Lines longer than the buffer are cut, not split: their numbers come first. */
static int read_lines(int fd, maps_see *see, void *context)
{
    char buffer[4096];
    size_t fill = 0;
    bool cut = false, any = false;
    for (;;) {
        ssize_t count = read(fd, buffer + fill, sizeof buffer - 1 - fill);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count < 0 ? errno : any ? 0 : ENOENT;
        fill += (size_t) count;
        buffer[fill] = '\0';
        char *text = buffer, *end;
        for (;;) {
            end = memchr(text, '\n', (size_t) (buffer + fill - text));
            bool full = end == NULL && text == buffer && fill == sizeof buffer - 1;
            if (end == NULL && !full)
                break;
            if (end != NULL)
                *end = '\0';
            struct maps_line line;
            if (!cut && parse_line(text, &line)) {
                see(&line, context);
                any = true;
            }
            cut = full;
            text = full ? buffer + fill : end + 1;
        }
        fill = (size_t) (buffer + fill - text);
        memmove(buffer, text, fill);
    }
}

int maps_read(maps_see *see, void *context)
{
    int saved = errno;
    int fd = fault_fires_errno(PP_FAULT_OPEN) ? -1 : open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    int number = fd < 0 ? errno : read_lines(fd, see, context);
    if (fd >= 0)
        close(fd);
    errno = saved;
    return number;
}
