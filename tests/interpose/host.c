/* SPDX-License-Identifier: MIT */
/*
 *      host ALLOCATOR HEAP
 *
 * A C program that links the library keeps its own malloc, which is HEAP's, its
 * own backtrace, and an unwinder that a C++ module, loaded later, can throw through.
 */
#include <config.h>

#include "interpose/owner.h"
#include "interpose/pool.h"

#include <execinfo.h>

int main(int argc, char **argv)
{
    static const struct library library = LINKED_LIBRARY;
    if (argc != 3)
        return 99;
    expect_owner("malloc as this program calls it", (const void *) malloc, argv[2]);
    expect_owner("backtrace as this program calls it", (const void *) backtrace, "libc.so.");

    for (int round = 0; round < 2; round++) {
        void *frames[8];
        expect_host_unchanged(argv[2]);
        expect(backtrace(frames, 8) >= 2, "backtrace sees main and its caller");
        expect_allocator(use_pool(&library), argv[1]);
    }
#if HAVE_CXX
    expect_plugin_throws("tests/interpose/.libs/plugin.so");
#endif
    expect_host_unchanged(argv[2]);
    return failures != 0;
}
