/* SPDX-License-Identifier: MIT */
/* NOPs of hosts: recognized, kept while a site is armed, forgotten with it. */
#include <config.h>

#include "osr/nop.h"

#include "isa/bytes.h"
#include "isa/patch.h"
#include "memory/handle.h"
#include "osr/site.h"

#include <string.h>

/* The library's own. */
static void put_usual(uint8_t bytes[NOP_BYTES])
{
#if defined __x86_64__
    x86_64_nop(bytes, NOP_BYTES);
#else
    put_le32(bytes, AARCH64_NOP);
#endif
}

static bool is_usual(const uint8_t *bytes)
{
    uint8_t usual[NOP_BYTES];
    put_usual(usual);
    return memcmp(bytes, usual, NOP_BYTES) == 0;
}

/* One that can be replaced while threads run it. */
static bool is_nop(const uint8_t *bytes, size_t available)
{
#if defined __x86_64__
    return x86_64_is_nop_head(bytes, NOP_BYTES, available);
#else
    return available >= NOP_BYTES && is_usual(bytes);
#endif
}

/* Of a place whose code has gone nothing is kept any more. */
static bool is_alive(const struct nop *nop)
{
    struct code_place place;
    return code_handle_find(nop->handle, &place) == PP_OK;
}

static struct nop *kept(const struct site *site, const uint8_t *hot, uintptr_t handle)
{
    struct nop *nop = site->nops;
    while (nop != NULL && (nop->hot != (uintptr_t) hot || nop->handle != handle))
        nop = nop->next;
    return nop;
}

void nop_find_locked(const struct site *site, const uint8_t *hot, const struct code_place *place,
                     uint8_t bytes[NOP_BYTES])
{
    const struct nop *nop = kept(site, hot, code_place_handle(place));
    size_t available = place->start + place->size - (uintptr_t) hot;
    if (is_nop(hot, available))
        memcpy(bytes, hot, NOP_BYTES);
    else if (nop != NULL)
        memcpy(bytes, nop->bytes, NOP_BYTES);
    else
        put_usual(bytes);
}

/* The one of this place, else one that is needed no more, else a new one. */
static struct nop *take(struct site *site, const uint8_t *hot, uintptr_t handle)
{
    struct nop *nop = kept(site, hot, handle);
    for (struct nop *other = site->nops; nop == NULL && other != NULL; other = other->next) {
        if (!is_alive(other))
            nop = other;
    }
    if (nop == NULL) {
        nop = pool_meta_alloc(site->record.pool, sizeof *nop);
        if (nop == NULL)
            return NULL;
        nop->next = site->nops;
        site->nops = nop;
    }
    nop->hot = (uintptr_t) hot;
    nop->handle = handle;
    return nop;
}

bool nop_keep_locked(struct site *site, const uint8_t *hot, const struct code_place *place,
                     const uint8_t bytes[NOP_BYTES])
{
    const uintptr_t handle = code_place_handle(place);
    if (is_usual(bytes) && kept(site, hot, handle) == NULL)
        return true;
    struct nop *nop = take(site, hot, handle);
    if (nop != NULL)
        memcpy(nop->bytes, bytes, NOP_BYTES);
    return nop != NULL;
}

void nop_forget_locked(struct site *site)
{
    while (site->nops != NULL) {
        struct nop *nop = site->nops;
        site->nops = nop->next;
        pool_meta_free(site->record.pool, nop, sizeof *nop);
    }
}
