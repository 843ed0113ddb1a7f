/* SPDX-License-Identifier: MIT */
/*
 * Structs that begin with `size_t size`: the caller's may be of an older header,
 * which is shorter, or of a newer one.
 */
#ifndef SIZED_H
#define SIZED_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define SIZED_MAX 4096 /* bytes: no struct grows beyond that, and a wild size is refused */

bool sized_read_other(void *copy, size_t known, size_t least, const void *from);

/*
 * Copy what the caller filled in into `copy`, of `known` bytes, whose size becomes
 * `known`; what the caller does not have is 0.  False: shorter than `least` bytes,
 * which is the first layout, not a whole number of words, or something is set beyond
 * `known`.
 */
static inline bool sized_read(void *copy, size_t known, size_t least, const void *from)
{
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size != known)
        return sized_read_other(copy, known, least, from);
    memcpy(copy, from, known);
    return true;
}

/* Fill in the caller's struct as far as it goes; its size stays. */
void sized_write(void *to, const void *from, size_t known);

#endif
