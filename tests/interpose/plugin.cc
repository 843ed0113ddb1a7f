// SPDX-License-Identifier: MIT
// A C++ module that a C host loads: it throws through the unwinder that it is bound to.
#include <stdexcept>
#include <string>

#include <unwind.h>

extern "C" {
const void *plugin_unwinder(void);
int plugin_throw(int depth);
}

const void *plugin_unwinder(void)
{
    return reinterpret_cast<const void *>(&_Unwind_RaiseException);
}

static void __attribute__((noinline)) throw_from(int depth)
{
    std::string local(static_cast<size_t>(depth) + 100, 'x'); // a destructor to run on the way
    if (depth == 0)
        throw std::runtime_error(local);
    throw_from(depth - 1);
    local.clear();
}

int plugin_throw(int depth)
{
    try {
        throw_from(depth);
    } catch (const std::runtime_error &error) {
        return std::string(error.what()).size() == 100;
    }
    return 0;
}
