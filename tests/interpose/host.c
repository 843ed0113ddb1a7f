/* SPDX-License-Identifier: MIT */
/*
 * A C program that links the library keeps its own malloc, its own backtrace,
 * and an unwinder that a C++ module, loaded later, can throw through.
 */
#include "interpose/owner.h"
#include "interpose/pool.h"

#include <execinfo.h>

#ifdef HAVE_CXX
static void expect_plugin_throws(void)
{
    void *plugin = dlopen("tests/interpose/.libs/plugin.so", RTLD_NOW | RTLD_LOCAL);
    if (plugin == NULL) {
        printf("%s\n", dlerror());
        failures++;
        return;
    }
    const void *(*unwinder)(void);
    int (*throw_and_catch)(int);
    *(void **) &unwinder = dlsym(plugin, "plugin_unwinder");
    *(void **) &throw_and_catch = dlsym(plugin, "plugin_throw");
    expect_owner("_Unwind_RaiseException of a plugin", unwinder(), "libgcc_s.so.");
    expect(throw_and_catch(20), "the plugin catches what it throws");
}
#endif

static void expect_backtrace(void)
{
    void *frames[8];
    expect(backtrace(frames, 8) >= 2, "backtrace sees main and its caller");
}

int main(void)
{
    static const struct library library = LINKED_LIBRARY;
    expect_owner("malloc as this program calls it", (const void *) malloc, "libc.so.");
    expect_owner("backtrace as this program calls it", (const void *) backtrace, "libc.so.");

    for (int round = 0; round < 2; round++) {
        expect_libc_owns_heap_and_backtrace();
        expect_libgcc_or_nobody_unwinds();
        expect_backtrace();
        const char *allocator = use_pool(&library);
        expect(allocator != NULL, "a pool works");
        printf("metadata in %s\n", allocator != NULL ? allocator : "nothing");
#ifdef EXPECT_ALLOCATOR
        expect(allocator != NULL && strcmp(allocator, EXPECT_ALLOCATOR) == 0, "metadata is in " EXPECT_ALLOCATOR);
#endif
    }
#ifdef HAVE_CXX
    expect_plugin_throws();
#endif
    expect_libc_owns_heap_and_backtrace();
    expect_libgcc_or_nobody_unwinds();
    return failures != 0;
}
