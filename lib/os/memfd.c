/* SPDX-License-Identifier: MIT */
/* Memory behind a file descriptor. */
#include <config.h>

#include "os/memfd.h"

#include "os/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

static int create_with(const char *name, unsigned flags)
{
    return fault_fires_errno(PP_FAULT_MEMFD_CREATE) ? -1 : memfd_create(name, flags);
}

/*
 * MFD_NOEXEC_SEAL takes the execute bits off the file, not off mappings of it,
 * and is allowed at every level of vm.memfd_noexec.  Kernels before 6.3 do not
 * know it.
 */
static int create(const char *name)
{
    int fd = create_with(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = create_with(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd;
}

static int fail(int fd, const char **call, const char *name, int number, int saved)
{
    *call = name;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return number;
}

int memfd_open_unsealed(struct descriptor *memfd, const char *name)
{
    int saved = errno, fd = create(name);
    int number = fd < 0 ? errno : descriptor_own(memfd, fd);
    if (number != 0) {
        memfd->fd = -1;
        if (fd >= 0)
            close(fd);
    }
    errno = saved;
    return number;
}

int memfd_open(struct descriptor *memfd, const char *name, size_t size, const char **call)
{
    struct rlimit limit;
    int saved = errno;

    memfd->fd = -1;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        limit.rlim_cur < size)
        return fail(-1, call, "getrlimit(RLIMIT_FSIZE)", EFBIG, saved);
    int fd = create(name);
    if (fd < 0)
        return fail(fd, call, "memfd_create", errno, saved);
    if (fault_fires_errno(PP_FAULT_FTRUNCATE) || ftruncate(fd, (off_t) size) != 0)
        return fail(fd, call, "ftruncate", errno, saved);
    if (fault_fires_errno(PP_FAULT_FCNTL) ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
        return fail(fd, call, "fcntl(F_ADD_SEALS)", errno, saved);
    int number = descriptor_own(memfd, fd);
    if (number != 0)
        return fail(fd, call, "fstat", number, saved);
    errno = saved;
    return 0;
}

/*
 * A signal interrupts it, and what was allocated is undone.  With signals faster
 * than the pages come it would never end.
 */
#define INTERRUPTIONS 100

static int allocate(const struct descriptor *memfd, int mode, size_t offset, size_t size)
{
    int saved = errno;
    int number = descriptor_check(memfd);
    if (number == 0) {
        number = EINTR;
        for (unsigned i = 0; i < INTERRUPTIONS && number == EINTR; i++) {
            if (!fault_fires(PP_FAULT_FALLOCATE, &number))
                number = fallocate(memfd->fd, mode, (off_t) offset, (off_t) size) == 0 ? 0 : errno;
        }
    }
    errno = saved;
    return number;
}

int memfd_back(const struct descriptor *memfd, size_t offset, size_t size)
{
    return allocate(memfd, 0, offset, size);
}

int memfd_unback(const struct descriptor *memfd, size_t offset, size_t size)
{
    return allocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
}

size_t memfd_resident(const struct descriptor *memfd)
{
    struct stat status;
    int saved = errno;
    size_t bytes = SIZE_MAX;
    if (descriptor_check(memfd) == 0 && fstat(memfd->fd, &status) == 0)
        bytes = (size_t) status.st_blocks * 512;
    errno = saved;
    return bytes;
}
