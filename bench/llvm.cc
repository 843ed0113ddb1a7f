// SPDX-License-Identifier: MIT
// The two memory managers of LLVM's JITLink, as contestants.
#include <config.h>

#include "bench/contestant.h"

#include <llvm/ExecutionEngine/JITLink/JITLinkMemoryManager.h>
#include <llvm/ExecutionEngine/Orc/MapperJITLinkMemoryManager.h>
#include <llvm/ExecutionEngine/Orc/MemoryMapper.h>

#include <memory>
#include <optional>
#include <unistd.h>

using namespace llvm;
using jitlink::JITLinkMemoryManager;
using jitlink::SimpleSegmentAlloc;

namespace {

struct Manager {
    std::unique_ptr<JITLinkMemoryManager> memory;
    size_t pages = 0; // bytes: both give every segment whole pages
};

// A piece that is being written, then one that was finalized.
struct Held {
    std::optional<SimpleSegmentAlloc> written;
    JITLinkMemoryManager::FinalizedAlloc finalized;
};

const orc::AllocGroup executable(orc::MemProt::Read | orc::MemProt::Exec);

size_t in_pages(size_t bytes)
{
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
}

template <class Created> void *wrap(Created created)
{
    if (!created) {
        consumeError(created.takeError());
        return nullptr;
    }
    return new Manager{ std::move(*created) };
}

void *open_process()
{
    return wrap(jitlink::InProcessMemoryManager::Create());
}

void *open_mapper()
{
    return wrap(orc::MapperJITLinkMemoryManager::CreateWithMapper<orc::InProcessMemoryMapper>(
        size_t(64) << 20));
}

void close_manager(void *state)
{
    delete static_cast<Manager *>(state);
}

bool take(void *state, size_t bytes, piece *result)
{
    auto *manager = static_cast<Manager *>(state);
    SimpleSegmentAlloc::SegmentMap segments;
    segments[executable] = { bytes, Align(16) };
    auto allocated = SimpleSegmentAlloc::Create(*manager->memory, nullptr, std::move(segments));
    if (!allocated) {
        consumeError(allocated.takeError());
        return false;
    }
    auto info = allocated->getSegInfo(executable);
    *result = { info.WorkingMem.data(), info.Addr.toPtr<void *>(), bytes, nullptr };
    auto *held = new Held;
    held->written.emplace(std::move(*allocated));
    result->handle = held;
    manager->pages += in_pages(bytes);
    return true;
}

bool publish(void *, piece *published)
{
    auto *held = static_cast<Held *>(published->handle);
    auto finalized = held->written->finalize();
    if (!finalized) {
        consumeError(finalized.takeError());
        return false;
    }
    held->finalized = std::move(*finalized);
    held->written.reset();
    return true;
}

bool give(void *state, piece *given)
{
    auto *manager = static_cast<Manager *>(state);
    auto *held = static_cast<Held *>(given->handle);
    Error error = manager->memory->deallocate(std::move(held->finalized));
    manager->pages -= in_pages(given->bytes);
    delete held;
    if (!error)
        return true;
    consumeError(std::move(error));
    return false;
}

void measure(void *state, footprint *result)
{
    *result = { static_cast<Manager *>(state)->pages, 0 };
}

} // namespace

extern "C" {
const contestant llvm_process = { "LLVM in-process", open_process, close_manager, take, publish,
                                  give, measure };
const contestant llvm_mapper = { "LLVM mapper", open_mapper, close_manager, take, publish, give,
                                 measure };
}
