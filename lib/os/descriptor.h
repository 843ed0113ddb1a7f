/* SPDX-License-Identifier: MIT */
/*
 * File descriptors that the library keeps.  There are hosts that close all
 * descriptors, and then open something else with the same number: before one is
 * used it is compared with what it was.
 */
#ifndef OS_DESCRIPTOR_H
#define OS_DESCRIPTOR_H

#include <stdint.h>

struct descriptor {
    int fd;                 /* -1: none */
    uint64_t device, inode;
};

/* Remember what `fd` is.  0, or an errno, and then nothing is kept. */
int descriptor_own(struct descriptor *descriptor, int fd);

/* 0, or EBADF: it is not ours any more. */
int descriptor_check(const struct descriptor *descriptor);

/* Closes what is ours, nothing else.  errno stays as it was. */
void descriptor_close(struct descriptor *descriptor);

#endif
