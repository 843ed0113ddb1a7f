/* SPDX-License-Identifier: MIT */
/* The mappings of this process, as the kernel lists them. */
#ifndef OS_MAPS_H
#define OS_MAPS_H

#include <stdbool.h>
#include <stdint.h>

struct maps_line {
    uintptr_t lo, hi;
    bool read, write, execute, shared;
    uint64_t offset, inode;   /* of a file; inode 0: there is none */
    const char *name;         /* the rest of the line, cut if it is very long; "" if there is none */
};

typedef void maps_see(const struct maps_line *line, void *context);

/*
 * Call `see` for every mapping, in ascending order.  Mappings that change meanwhile
 * may be seen in an old and a new form, or not at all.  0, or the errno of
 * reading the list; ENOENT if it is empty, as with some emulators.
 */
int maps_read(maps_see *see, void *context);

#endif
