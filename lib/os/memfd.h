/* SPDX-License-Identifier: MIT */
/*
 * Memory behind a file descriptor, to be mapped more than once.
 *
 * Its size is fixed and sealed.  Pages are taken by memfd_back, so that running
 * out of memory is an errno and never a signal at the first touch.
 */
#ifndef OS_MEMFD_H
#define OS_MEMFD_H

#include <stddef.h>
#include <stdint.h>

struct memfd {
    int fd;               /* -1: none; closed on exec */
    uint64_t device, inode; /* what fd must be: hosts that close all descriptors exist */
};

/*
 * 0, or an errno and in *call which system call gave it.  EFBIG before anything
 * is done if RLIMIT_FSIZE does not allow the size: going on would raise SIGXFSZ.
 */
int memfd_open(struct memfd *memfd, size_t size, const char **call);

/* Only closes what memfd_open opened. */
void memfd_close(struct memfd *memfd);

/* 0, or EBADF: the descriptor is not ours any more. */
int memfd_check(const struct memfd *memfd);

/* Pages behind [offset, offset + size), or an errno and what was there before. */
int memfd_back(const struct memfd *memfd, size_t offset, size_t size);

/* Their contents are given back. */
int memfd_unback(const struct memfd *memfd, size_t offset, size_t size);

/* Bytes that have pages, or SIZE_MAX if that cannot be told. */
size_t memfd_resident(const struct memfd *memfd);

#endif
