/* SPDX-License-Identifier: MIT */
/* File descriptors that the library keeps. */
#include <config.h>

#include "os/descriptor.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

int descriptor_own(struct descriptor *descriptor, int fd)
{
    struct stat status;
    descriptor->fd = -1;
    if (fstat(fd, &status) != 0)
        return errno;
    *descriptor = (struct descriptor){ fd, status.st_dev, status.st_ino };
    return 0;
}

int descriptor_check(const struct descriptor *descriptor)
{
    struct stat status;
    int saved = errno;
    int failed = descriptor->fd < 0 || fstat(descriptor->fd, &status) != 0 ||
                 status.st_dev != descriptor->device || status.st_ino != descriptor->inode;
    errno = saved;
    return failed ? EBADF : 0;
}

void descriptor_close(struct descriptor *descriptor)
{
    int saved = errno;
    if (descriptor_check(descriptor) == 0)
        close(descriptor->fd);
    descriptor->fd = -1;
    errno = saved;
}
