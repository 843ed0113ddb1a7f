/* SPDX-License-Identifier: MIT */
/*
 * Which file a function of the process comes from: what these tests are about.
 * They are programs of their own, without Check, so that a host looks as it
 * does in the field.  For C and C++.
 */
#ifndef INTERPOSE_OWNER_H
#define INTERPOSE_OWNER_H

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static inline const char *file_of(const void *address)
{
    Dl_info info;
    if (address == NULL || dladdr(address, &info) == 0)
        return "nothing";
    const char *slash = strrchr(info.dli_fname, '/');
    return slash != NULL ? slash + 1 : info.dli_fname;
}

/* `address` must come from a file whose name begins with `file`. */
static inline void expect_owner(const char *what, const void *address, const char *file)
{
    const char *actual = file_of(address);
    if (strncmp(actual, file, strlen(file)) != 0) {
        printf("%s: from %s, not from %s\n", what, actual, file);
        failures++;
    }
}

/* The first definition in the search order, which is what every file in the process binds to. */
static inline void expect_first(const char *name, const char *file)
{
    expect_owner(name, dlsym(RTLD_DEFAULT, name), file);
}

static inline void expect(int truth, const char *what)
{
    if (!truth) {
        printf("not so: %s\n", what);
        failures++;
    }
}

/* The C library still owns what jemalloc and unwinders could replace. */
static inline void expect_libc_owns_heap_and_backtrace(void)
{
    static const char *const names[] = {
        "malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "memalign",
        "malloc_usable_size", "backtrace", "backtrace_symbols", "mmap", "munmap", "mprotect", "fork",
        "sigaction", "pthread_create",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        expect_first(names[i], "libc.so.");
}

/* The compiler's unwinder, or nobody, owns these in the global search order. */
static inline void expect_libgcc_or_nobody_unwinds(void)
{
    static const char *const names[] = {
        "_Unwind_RaiseException", "_Unwind_Resume", "_Unwind_Backtrace", "_Unwind_Find_FDE",
        "_Unwind_GetIP", "_Unwind_DeleteException", "__register_frame", "__deregister_frame",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (dlsym(RTLD_DEFAULT, names[i]) != NULL)
            expect_first(names[i], "libgcc_s.so.");
}

#endif
