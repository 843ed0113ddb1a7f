/* SPDX-License-Identifier: MIT */
/* Mappings. */
#include <config.h>

#include "os/map.h"

#include "os/fault.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#ifndef PR_SET_VMA /* <linux/prctl.h>, Linux 5.17 */
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

static int prot_of(enum map_protection protection)
{
    switch (protection) {
    case MAP_NOTHING: return PROT_NONE;
    case MAP_READ_WRITE: return PROT_READ | PROT_WRITE;
    case MAP_READ_EXEC: return PROT_READ | PROT_EXEC;
    case MAP_ALL: return PROT_READ | PROT_WRITE | PROT_EXEC;
    }
    return PROT_NONE;
}

/* The errno of a call that failed; the caller's own is put back. */
static int result(bool failed, int saved)
{
    int number = failed ? errno : 0;
    errno = saved;
    return number;
}

static int map(uintptr_t *base, size_t size, int prot, int flags, int fd, size_t offset)
{
    int number;
    if (fault_fires(PP_FAULT_MMAP, &number))
        return number;
    int saved = errno;
    void *memory = mmap((void *) *base, size, prot, flags, fd, (off_t) offset);
    number = result(memory == MAP_FAILED, saved);
    if (number == 0)
        *base = (uintptr_t) memory;
    return number;
}

size_t map_page_size(void)
{
    static _Atomic size_t known; /* 0: not asked yet */
    size_t size = atomic_load_explicit(&known, memory_order_relaxed);
    if (size == 0) {
        size = (size_t) sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&known, size, memory_order_relaxed);
    }
    return size;
}

int map_reserve(uintptr_t base, size_t size)
{
    uintptr_t at = base;
    int number = map(&at, size, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (number == 0 && at != base) {
        /* Linux before 4.17 and some emulators take the address for a hint. */
        map_unmap(at, size);
        number = EEXIST;
    }
    return number;
}

int map_reserve_anywhere(size_t size, size_t align, uintptr_t *base)
{
    uintptr_t lo = 0;
    int number = map(&lo, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                     0);
    if (number != 0)
        return number;
    *base = (lo + align - 1) & -align;
    if (*base > lo)
        map_unmap(lo, *base - lo);
    if (lo + align > *base)
        map_unmap(*base + size, lo + align - *base);
    return 0;
}

void *map_memory(size_t size)
{
    uintptr_t base = 0;
    int number = map(&base, size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return number == 0 ? (void *) base : NULL;
}

int map_private(uintptr_t base, size_t size, enum map_protection protection)
{
    return map(&base, size, prot_of(protection),
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

int map_shared(int fd, size_t offset, uintptr_t *base, size_t size,
               enum map_protection protection)
{
    return map(base, size, prot_of(protection), MAP_SHARED | (*base != 0 ? MAP_FIXED : 0), fd,
               offset);
}

int map_protect(uintptr_t base, size_t size, enum map_protection protection)
{
    int number;
    if (fault_fires(PP_FAULT_MPROTECT, &number))
        return number;
    int saved = errno;
    return result(mprotect((void *) base, size, prot_of(protection)) != 0, saved);
}

int map_unmap(uintptr_t base, size_t size)
{
    int saved = errno;
    return result(munmap((void *) base, size) != 0, saved);
}

void map_name(uintptr_t base, size_t size, const char *name)
{
    int saved = errno;
    prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, base, size, name);
    errno = saved;
}

static int advise(uintptr_t base, size_t size, int advice)
{
    int number;
    if (fault_fires(PP_FAULT_MADVISE, &number))
        return number;
    int saved = errno;
    return result(madvise((void *) base, size, advice) != 0, saved);
}

int map_not_in_child(uintptr_t base, size_t size)
{
    return advise(base, size, MADV_DONTFORK);
}

int map_populate(uintptr_t base, size_t size)
{
    return advise(base, size, MADV_POPULATE_WRITE);
}

int map_remove(uintptr_t base, size_t size)
{
    return advise(base, size, MADV_REMOVE);
}

int map_discard(uintptr_t base, size_t size)
{
    return advise(base, size, MADV_DONTNEED);
}

size_t map_resident(uintptr_t base, size_t size)
{
    size_t page = map_page_size(), pages = size / page, resident = 0;
    unsigned char state[1024];
    int saved = errno;
    for (size_t i = 0; i < pages; i += sizeof state) {
        size_t count = pages - i < sizeof state ? pages - i : sizeof state;
        if (mincore((void *) (base + i * page), count * page, state) != 0)
            break;
        for (size_t j = 0; j < count; j++)
            resident += state[j] & 1;
    }
    errno = saved;
    return resident * page;
}
