/* SPDX-License-Identifier: MIT */
/*
 * Conservative search of stacks.  Any word may be a return address: of a call that is
 * the last instruction of its span it is the address behind the span, so a word at
 * a span's end counts for the span before it, too.
 */
#include <config.h>

#include "patch/stack.h"

#include "memory/state.h"

#define ADDRESS_MASK (((uintptr_t) 1 << 48) - 1)
#define WORD sizeof(uint64_t)

/* No process has more threads, no thread more registers (AArch64: 32, and 64 halves of vectors). */
#define STACKS_MAX ((size_t) 1 << 22)
#define REGISTERS_MAX ((size_t) 4096)

pp_status stack_check(const pp_stack *stacks, size_t count)
{
    if (count > STACKS_MAX || (stacks == NULL && count != 0))
        return PP_E_ARG;
    for (size_t i = 0; i < count; i++) {
        uintptr_t lo = (uintptr_t) stacks[i].lo, hi = (uintptr_t) stacks[i].hi;
        if (lo > hi || hi > ADDRESS_MASK || (lo == 0 && hi != 0))
            return PP_E_ARG;
        if (stacks[i].register_count > REGISTERS_MAX ||
            (stacks[i].registers == NULL && stacks[i].register_count != 0))
            return PP_E_ARG;
    }
    return PP_OK;
}

struct search {
    const struct region *regions;  /* of the pool: nobody else's may be looked into */
    const struct region *region;   /* where the latest word was */
    uint64_t ticket;
    uintptr_t lo, hi;
    uintptr_t known_lo, known_hi;  /* a span that was marked, or is not retired */
};

static const struct region *region_of(struct search *search, uintptr_t address)
{
    const struct region *region = search->region;
    if (region != NULL && address - region->code_lo < region_code_size(region))
        return region;
    for (region = search->regions; region != NULL; region = region->next) {
        if (address - region->code_lo < region_code_size(region))
            return search->region = region;
    }
    return NULL;
}

static void mark(struct search *search, uintptr_t address)
{
    struct span_info info;
    const struct region *region = region_of(search, address);
    if (region == NULL || !span_space_at(&region->spans, address - region->code_lo, &info))
        return;
    struct retired *retired = retired_of(info.owner);
    if (retired != NULL) {
        uint64_t ticket = atomic_load_explicit(&retired->ticket, memory_order_relaxed);
        if (ticket != 0 && ticket <= search->ticket) {
            atomic_store_explicit(&retired->held, true, memory_order_relaxed);
            if (retired->leads != 0) /* to code that leads nowhere */
                mark(search, retired->leads);
        }
    }
    search->known_lo = region->code_lo + info.start;
    search->known_hi = search->known_lo + info.extent;
}

/*
 * The bounds are one address wider at the end than the code.  Pointers may be signed or
 * tagged in the bits above the address.
 */
static void look_at(struct search *search, uint64_t word)
{
    uintptr_t address = (uintptr_t) word & ADDRESS_MASK;
    if (address - search->lo > search->hi - search->lo)
        return;
    /* Neither end of a span that is known: nothing else can be there. */
    if (address > search->known_lo && address < search->known_hi)
        return;
    mark(search, address);
    if (address % SPAN_GRANULE == 0)
        mark(search, address - 1);
}

/* The words are other threads', at any offset of objects of theirs. */
__attribute__((no_sanitize_address, no_sanitize_thread)) static void
look_at_words(struct search *search, uintptr_t at, uintptr_t hi)
{
    at = (at + WORD - 1) & -WORD;
    for (; at < hi && hi - at >= WORD; at += WORD)
        look_at(search, *(const volatile uint64_t *) at);
}

void stack_search(const pp_pool *pool, uint64_t ticket, uintptr_t lo, uintptr_t hi,
                  const pp_stack *stacks, size_t count)
{
    struct search search = {
        .regions = atomic_load_explicit(&pool->regions, memory_order_acquire),
        .ticket = ticket,
        .lo = lo,
        .hi = hi,
    };
    for (size_t i = 0; i < count; i++) {
        look_at_words(&search, (uintptr_t) stacks[i].lo, (uintptr_t) stacks[i].hi);
        const uintptr_t registers = (uintptr_t) stacks[i].registers; /* NULL and 0 if there are none */
        look_at_words(&search, registers, registers + WORD * stacks[i].register_count);
    }
}
