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

static inline void expect(int truth, const char *what)
{
    if (!truth) {
        printf("not so: %s\n", what);
        failures++;
    }
}

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

/*
 * `heap` still owns what jemalloc could replace, the C library what an unwinder
 * could, and the compiler's unwinder (or nobody) what libunwind could.
 */
static inline void expect_host_unchanged(const char *heap)
{
    static const char *const of_heap[] = {
        "malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign", "memalign", "malloc_usable_size",
    };
    static const char *const of_libc[] = {
        "backtrace", "backtrace_symbols", "mmap", "munmap", "mprotect", "fork", "sigaction", "pthread_create",
    };
    static const char *const of_unwinder[] = {
        "_Unwind_RaiseException", "_Unwind_Resume", "_Unwind_Backtrace", "_Unwind_Find_FDE",
        "_Unwind_GetIP", "_Unwind_DeleteException", "__register_frame", "__deregister_frame",
    };
    for (size_t i = 0; i < sizeof of_heap / sizeof *of_heap; i++)
        expect_first(of_heap[i], heap);
    for (size_t i = 0; i < sizeof of_libc / sizeof *of_libc; i++)
        expect_first(of_libc[i], "libc.so.");
    for (size_t i = 0; i < sizeof of_unwinder / sizeof *of_unwinder; i++)
        if (dlsym(RTLD_DEFAULT, of_unwinder[i]) != NULL)
            expect_first(of_unwinder[i], "libgcc_s.so.");
}

/* A pool's bookkeeping is in `wanted`, or works at all if that is "any". */
static inline void expect_allocator(const char *actual, const char *wanted)
{
    printf("metadata in %s\n", actual != NULL ? actual : "nothing");
    expect(actual != NULL && (strcmp(wanted, "any") == 0 || strcmp(actual, wanted) == 0),
           "a pool works, with its metadata where it was expected");
}

/* A C++ module, loaded now, throws and catches, through libgcc's unwinder. */
static inline void expect_plugin_throws(const char *path)
{
    void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const void *(*unwinder)(void) = NULL;
    int (*throw_and_catch)(int) = NULL;
    if (plugin != NULL) {
        *(void **) &unwinder = dlsym(plugin, "plugin_unwinder");
        *(void **) &throw_and_catch = dlsym(plugin, "plugin_throw");
    }
    if (unwinder == NULL || throw_and_catch == NULL) {
        printf("%s\n", dlerror());
        failures++;
        return;
    }
    expect_owner("_Unwind_RaiseException of a plugin", unwinder(), "libgcc_s.so.");
    expect(throw_and_catch(20), "the plugin catches what it throws");
}

#endif
