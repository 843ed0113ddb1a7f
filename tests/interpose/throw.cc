// SPDX-License-Identifier: MIT
//
//      throw ALLOCATOR HEAP
//
// A C++ program that links the library throws and catches as before, through
// the runtime that its compiler gave it, before, while and after a pool lives.
#include <config.h>

#include "interpose/owner.h"
#include "interpose/pool.h"

#include <stdexcept>
#include <string>
#include <thread>

#include <execinfo.h>
#include <unwind.h>

static void __attribute__((noinline)) throw_from(int depth)
{
    std::string local(static_cast<size_t>(depth) + 100, 'x');
    if (depth == 0)
        throw std::runtime_error(local);
    throw_from(depth - 1);
    local.clear();
}

static bool catches()
{
    try {
        throw_from(20);
    } catch (const std::runtime_error &error) {
        return std::string(error.what()).size() == 100;
    }
    return false;
}

static void expect_owners(const char *heap)
{
#ifndef STATIC_RUNTIME
    expect_owner("_Unwind_RaiseException", reinterpret_cast<const void *>(&_Unwind_RaiseException), "libgcc_s.so.");
    expect_owner("_Unwind_Resume", reinterpret_cast<const void *>(&_Unwind_Resume), "libgcc_s.so.");
    expect_first("__cxa_throw", "libstdc++.so.");
    expect_first("_Znwm", "libstdc++.so.");
    expect_first("_ZdlPv", "libstdc++.so.");
#endif
    expect_host_unchanged(heap);
}

int main(int argc, char **argv)
{
    static const struct library library = LINKED_LIBRARY;
    if (argc != 3)
        return 99;
    for (int round = 0; round < 2; round++) {
        expect_owners(argv[2]);
        expect(catches(), "main catches what it throws");
        std::thread([] { expect(catches(), "a thread catches what it throws"); }).join();
        expect_allocator(use_pool(&library), argv[1]);
        pp_pool *pool;
        expect(pp_pool_create(nullptr, &pool) == PP_OK, "a pool for throwing beside it");
        expect(catches(), "main catches while a pool lives");
        pp_pool_destroy(pool);
    }
    expect_owners(argv[2]);
    return failures != 0;
}
