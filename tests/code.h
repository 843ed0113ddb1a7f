/* SPDX-License-Identifier: MIT */
/*
 * Assembler lines, and the bytes that GNU as and ld make of them at CODE_PLACE:
 * checked in, so that a test of either architecture needs neither on any host.
 */
#ifndef TESTS_CODE_H
#define TESTS_CODE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CODE_PLACE UINT64_C(0x100000001000)
#define CODE_MAX 256

struct code {
    const char *line; /* instructions separated by semicolons; NULL: no code */
    const char *hex;  /* bytes in memory order; spaces have no meaning */
};

/* The bytes; returns how many there are. */
static inline size_t code_bytes(const struct code *code, uint8_t bytes[CODE_MAX])
{
    size_t size = 0;
    unsigned byte;
    int used;

    for (const char *at = code->hex; at != NULL && size < CODE_MAX; at += used) {
        if (sscanf(at, " %2x%n", &byte, &used) != 1)
            break;
        bytes[size++] = (uint8_t) byte;
    }
    return size;
}

#endif
