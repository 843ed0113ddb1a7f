/* SPDX-License-Identifier: MIT */
/*
 * Memory behind a file descriptor, to be mapped more than once.
 *
 * Its size is fixed and sealed.  Pages are taken by memfd_back, so that running
 * out of memory is an errno and never a signal at the first touch.
 */
#ifndef OS_MEMFD_H
#define OS_MEMFD_H

#include "os/descriptor.h"

#include <stddef.h>

/* Empty, and without seals.  0, or an errno. */
int memfd_open_unsealed(struct descriptor *memfd, const char *name);

/*
 * 0, or an errno and in *call which system call gave it.  EFBIG before anything
 * is done if RLIMIT_FSIZE does not allow the size: going on would raise SIGXFSZ.
 * Closed on exec, and by descriptor_close.  The name is for people who read the list
 * of mappings.
 */
int memfd_open(struct descriptor *memfd, const char *name, size_t size, const char **call);

/* Pages behind [offset, offset + size), or an errno and what was there before. */
int memfd_back(const struct descriptor *memfd, size_t offset, size_t size);

/* Their contents are given back. */
int memfd_unback(const struct descriptor *memfd, size_t offset, size_t size);

/* Bytes that have pages, or SIZE_MAX if that cannot be told. */
size_t memfd_resident(const struct descriptor *memfd);

#endif
