/* SPDX-License-Identifier: MIT */
/* Memory behind a file descriptor. */
#include <config.h>

#include "os/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/*
 * MFD_NOEXEC_SEAL takes the execute bits off the file, not off mappings of it,
 * and is allowed at every level of vm.memfd_noexec.  Kernels before 6.3 do not
 * know it.
 */
static int create(void)
{
    int fd = memfd_create("patchpoint", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("patchpoint", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd;
}

static int identify(int fd, struct stat *status)
{
    return fstat(fd, status) == 0 ? 0 : errno;
}

static int fail(struct memfd *memfd, const char **call, const char *name, int number, int saved)
{
    *call = name;
    if (memfd->fd >= 0)
        close(memfd->fd);
    memfd->fd = -1;
    errno = saved;
    return number;
}

int memfd_open(struct memfd *memfd, size_t size, const char **call)
{
    struct rlimit limit;
    struct stat status;
    int saved = errno;

    memfd->fd = -1;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < size)
        return fail(memfd, call, "getrlimit(RLIMIT_FSIZE)", EFBIG, saved);
    memfd->fd = create();
    if (memfd->fd < 0)
        return fail(memfd, call, "memfd_create", errno, saved);
    if (ftruncate(memfd->fd, (off_t) size) != 0)
        return fail(memfd, call, "ftruncate", errno, saved);
    if (fcntl(memfd->fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
        return fail(memfd, call, "fcntl(F_ADD_SEALS)", errno, saved);
    int number = identify(memfd->fd, &status);
    if (number != 0)
        return fail(memfd, call, "fstat", number, saved);
    memfd->device = status.st_dev;
    memfd->inode = status.st_ino;
    errno = saved;
    return 0;
}

int memfd_check(const struct memfd *memfd)
{
    struct stat status;
    int saved = errno;
    int number = memfd->fd < 0 ? EBADF : identify(memfd->fd, &status);
    errno = saved;
    if (number == 0 && (status.st_dev != memfd->device || status.st_ino != memfd->inode))
        number = EBADF;
    return number;
}

void memfd_close(struct memfd *memfd)
{
    int saved = errno;
    if (memfd_check(memfd) == 0)
        close(memfd->fd);
    memfd->fd = -1;
    errno = saved;
}

static int allocate(const struct memfd *memfd, int mode, size_t offset, size_t size)
{
    int saved = errno;
    int number = memfd_check(memfd);
    while (number == 0 && fallocate(memfd->fd, mode, (off_t) offset, (off_t) size) != 0) {
        if (errno != EINTR) {
            number = errno;
            break;
        }
    }
    errno = saved;
    return number;
}

int memfd_back(const struct memfd *memfd, size_t offset, size_t size)
{
    return allocate(memfd, 0, offset, size);
}

int memfd_unback(const struct memfd *memfd, size_t offset, size_t size)
{
    return allocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
}

size_t memfd_resident(const struct memfd *memfd)
{
    struct stat status;
    int saved = errno;
    size_t bytes = SIZE_MAX;
    if (memfd_check(memfd) == 0 && identify(memfd->fd, &status) == 0)
        bytes = (size_t) status.st_blocks * 512;
    errno = saved;
    return bytes;
}
