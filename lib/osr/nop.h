/* SPDX-License-Identifier: MIT */
/*
 * The NOPs that armed sites replace.  A host may have one of its own encoding there; while
 * the site is armed the jump is in its place, so its bytes are kept.
 */
#ifndef OSR_NOP_H
#define OSR_NOP_H

#include "memory/pool.h"

#include <stdbool.h>
#include <stdint.h>

struct site;

#if defined __x86_64__
enum { NOP_BYTES = 5 };
#else
enum { NOP_BYTES = 4 };
#endif

/* Kept for a site and a place, unless it is the library's own NOP. */
struct nop {
    struct nop *next;
    uintptr_t hot;
    uintptr_t handle;         /* of the code that it is in */
    uint8_t bytes[NOP_BYTES];
};

/*
 * What stands at `hot`, in code that begins at place->start, while the site is not
 * armed: the NOP that is there now, else the one that was kept, else the library's own.
 * With pool_lock held, so that no patch is half done.
 */
void nop_find_locked(const struct site *site, const uint8_t *hot, const struct code_place *place,
                     uint8_t bytes[NOP_BYTES]);

/* Keep it for as long as the code or the site lives.  False: no memory. */
bool nop_keep_locked(struct site *site, const uint8_t *hot, const struct code_place *place,
                     const uint8_t bytes[NOP_BYTES]);

/* The site goes. */
void nop_forget_locked(struct site *site);

#endif
