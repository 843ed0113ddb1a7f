// SPDX-License-Identifier: MIT
// asmjit's JitAllocator, as a contestant.
#include <config.h>

#include "bench/contestant.h"

#include <asmjit/core.h>

#include <new>

using asmjit::JitAllocator;
using asmjit::JitAllocatorOptions;

static void *open_with(JitAllocatorOptions options)
{
    JitAllocator::CreateParams parameters;
    parameters.options = options;
    return new (std::nothrow) JitAllocator(&parameters);
}

static void *open_dual()
{
    return open_with(JitAllocatorOptions::kUseDualMapping);
}

static void *open_pools()
{
    return open_with(JitAllocatorOptions::kUseDualMapping |
                     JitAllocatorOptions::kUseMultiplePools);
}

static void *open_single()
{
    return open_with(JitAllocatorOptions::kNone);
}

static void close_allocator(void *state)
{
    delete static_cast<JitAllocator *>(state);
}

static bool take(void *state, size_t bytes, piece *result)
{
    void *execute, *write;
    if (static_cast<JitAllocator *>(state)->alloc(&execute, &write, bytes) != asmjit::kErrorOk)
        return false;
    *result = { write, execute, bytes, nullptr };
    return true;
}

static bool publish(void *, piece *published)
{
    char *code = static_cast<char *>(published->execute);
    __builtin___clear_cache(code, code + published->bytes);
    return true;
}

static bool give(void *state, piece *given)
{
    return static_cast<JitAllocator *>(state)->release(given->execute) == asmjit::kErrorOk;
}

static void measure(void *state, footprint *result)
{
    JitAllocator::Statistics statistics = static_cast<JitAllocator *>(state)->statistics();
    *result = { statistics.reservedSize(), statistics.overheadSize() };
}

extern "C" {
const contestant asmjit_dual = { "asmjit dual", open_dual, close_allocator, take, publish, give,
                                 measure };
const contestant asmjit_pools = { "asmjit dual, pools", open_pools, close_allocator, take,
                                  publish, give, measure };
const contestant asmjit_single = { "asmjit single", open_single, close_allocator, take, publish,
                                   give, measure };
}
