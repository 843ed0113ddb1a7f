/* SPDX-License-Identifier: MIT */
/* Structs that begin with their size. */
#include <config.h>

#include "sized.h"

#include <string.h>

bool sized_read_other(void *copy, size_t known, size_t least, const void *from)
{
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < least || size > SIZED_MAX || size % sizeof(size_t) != 0)
        return false;
    for (size_t i = known; i < size; i++) {
        if (((const char *) from)[i] != 0)
            return false;
    }
    memset(copy, 0, known);
    memcpy(copy, from, size < known ? size : known);
    memcpy(copy, &known, sizeof known);
    return true;
}

void sized_write(void *to, const void *from, size_t known)
{
    size_t size;
    memcpy(&size, to, sizeof size);
    memcpy((char *) to + sizeof size, (const char *) from + sizeof size,
           (size < known ? size : known) - sizeof size);
}
