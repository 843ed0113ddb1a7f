/* SPDX-License-Identifier: MIT */
/* Symbols that move: an aligned 8-byte store in each region that refers to one. */
#include <config.h>

#include "link/retarget.h"

#include "error.h"
#include "isa/isa.h"
#include "link/link.h"

/*
 * Threads load the word while it changes and go to the old address or to the new
 * one.  Trampolines load it without acquire order; see hand_over.
 */
static void store(uintptr_t place, uintptr_t address)
{
    atomic_store_explicit((_Atomic uint64_t *) place, address, memory_order_release);
}

struct retarget *retarget_new(pp_pool *pool, uintptr_t home)
{
    struct retarget *retarget = pool_meta_alloc(pool, sizeof *retarget);

    if (retarget != NULL)
        retarget->home = home;
    return retarget;
}

void retarget_free(pp_pool *pool, struct retarget *retarget)
{
    while (retarget->first.next != NULL) {
        struct retarget_literal *literal = retarget->first.next;
        retarget->first.next = literal->next;
        pool_meta_free(pool, literal, sizeof *literal);
    }
    pool_meta_free(pool, retarget, sizeof *retarget);
}

pp_status retarget_enter(struct link *link, pp_pool *pool, const struct symbol *symbol,
                         uintptr_t place)
{
    struct retarget_literal *first = &symbol->retarget->first, *literal = first;

    spin_lock(&link->moving);
    if (first->place != 0) {
        spin_unlock(&link->moving);
        literal = pool_meta_alloc(pool, sizeof *literal);
        if (literal == NULL)
            return PP_E_NOMEM;
        spin_lock(&link->moving);
        literal->next = first->next;
        first->next = literal;
    }
    literal->place = place;
    store(place, symbol_address(symbol));
    spin_unlock(&link->moving);
    return PP_OK;
}

void retarget_leave(struct link *link, pp_pool *pool, const struct symbol *symbol, uintptr_t place)
{
    struct retarget_literal *first = &symbol->retarget->first, *gone = NULL;

    spin_lock(&link->moving);
    if (first->place == place) {
        first->place = 0;
    } else {
        for (struct retarget_literal **at = &first->next; *at != NULL; at = &(*at)->next) {
            if ((*at)->place != place)
                continue;
            gone = *at;
            *at = gone->next;
            break;
        }
    }
    spin_unlock(&link->moving);
    if (gone != NULL)
        pool_meta_free(pool, gone, sizeof *gone);
}

bool retarget_verify(struct link *link, const struct symbol *symbol, uintptr_t place)
{
    const struct retarget_literal *literal = &symbol->retarget->first;

    spin_lock(&link->moving);
    while (literal != NULL && literal->place != place)
        literal = literal->next;
    bool good = literal != NULL && *(const uint64_t *) place == symbol_address(symbol);
    spin_unlock(&link->moving);
    return good;
}

/* ---- public ----------------------------------------------------------- */

static pp_status refuse(const struct symbol *symbol, pp_symbol number, pp_error *error)
{
    if (symbol == NULL)
        return error_set(error, PP_E_ARG, "no symbol %u in the pool", number);
    if (number < SYMBOL_FIRST)
        return error_set(error, PP_E_UNSUPPORTED, "symbol %u is the library's own", number);
    return error_set(error, PP_E_UNSUPPORTED,
                     "symbol %u (%.60s) was not declared PP_SYMBOL_RETARGETABLE: direct calls and "
                     "data may have its address", number, symbol->name != NULL ? symbol->name : "");
}

/*
 * What the caller has stored is seen by threads that go to the new address.  On AArch64 a
 * trampoline is ldr x16; br x16, and a branch orders no loads behind it.  An acquire load
 * there would cost every call; a barrier on all cores before the store costs only the
 * retarget: a thread that loads the new address has passed the barrier.  x86-64 keeps loads,
 * and stores, in order.
 */
static void hand_over(pp_pool *pool)
{
#if defined __aarch64__
    pool_sync_cores(pool);
#else
    (void) pool;
#endif
}

pp_status pp_symbol_retarget(pp_pool *pool, pp_symbol number, const void *address, pp_error *error)
{
    if (pool == NULL || address == NULL)
        return error_set(error, PP_E_ARG, "no pool, or no address");
    if (!isa_is_aligned(&isa_host, (uintptr_t) address))
        return error_set(error, PP_E_ARG, "the address is not one of an instruction");
    struct link *link = link_of(pool);
    if (link == NULL)
        return error_set(error, PP_E_NOMEM, "no memory for the pool's symbols");
    struct symbol *symbol = symbol_find(&link->symbols, number);
    if (symbol == NULL || symbol->retarget == NULL)
        return refuse(symbol, number, error);

    hand_over(pool);
    spin_lock(&link->moving);
    atomic_store_explicit(&symbol->address, (uintptr_t) address, memory_order_release);
    for (const struct retarget_literal *literal = &symbol->retarget->first; literal != NULL;
         literal = literal->next) {
        if (literal->place != 0)
            store(literal->place, (uintptr_t) address);
    }
    link->retargets++;
    spin_unlock(&link->moving);
    return PP_OK;
}
