/* SPDX-License-Identifier: MIT */
/*
 * Mappings: what the library asks of mmap and its kin.  Each function is 0, or
 * the errno that the kernel gave; errno itself is left as it was.  Addresses and
 * sizes are multiples of the page size.
 */
#ifndef OS_MAP_H
#define OS_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum map_protection { MAP_NOTHING, MAP_READ_WRITE, MAP_READ_EXEC, MAP_ALL };

size_t map_page_size(void);

/*
 * Address space without access, at `base` exactly: EEXIST if something is there,
 * also where the kernel does not know MAP_FIXED_NOREPLACE.
 */
int map_reserve(uintptr_t base, size_t size);

/* The same at a multiple of `align` that the kernel chooses. */
int map_reserve_anywhere(size_t size, size_t align, uintptr_t *base);

/* Zeroed memory that is in no heap, for what outlives pools.  NULL: there is none. */
void *map_memory(size_t size);

/* Private zero pages over a part of a reservation. */
int map_private(uintptr_t base, size_t size, enum map_protection protection);

/*
 * A view of a file from `offset` on.  *base is where it has to be, replacing what
 * is there in one step; or 0, and receives where the kernel put it.
 */
int map_shared(int fd, size_t offset, uintptr_t *base, size_t size,
               enum map_protection protection);

int map_protect(uintptr_t base, size_t size, enum map_protection protection);
int map_unmap(uintptr_t base, size_t size);

/* What /proc/self/maps calls private memory, where the kernel knows how to. */
void map_name(uintptr_t base, size_t size, const char *name);

/* The mapping is not there in a child. */
int map_not_in_child(uintptr_t base, size_t size);

/*
 * Memory behind pages that can be written, and their page table filled in.  ENOMEM,
 * EFAULT: there is none; EINVAL: Linux before 5.14.
 */
int map_populate(uintptr_t base, size_t size);

/* Give back the memory behind a shared mapping that can be written, for all of them. */
int map_remove(uintptr_t base, size_t size);

/* Forget the contents of private pages. */
int map_discard(uintptr_t base, size_t size);

/* Bytes of the range that have pages behind them. */
size_t map_resident(uintptr_t base, size_t size);

#endif
