/* SPDX-License-Identifier: MIT */
/*
 * Symbols that move: which literals hold the address of each, so that all of them
 * follow it.
 *
 * Code refers to such a symbol through literals of islands only, one in each
 * region that has traces which need it.  A literal holds the newest address from
 * the moment at which it is entered here, because entering and moving exclude each
 * other by link->moving; so does one of a trace that is linked meanwhile.
 */
#ifndef LINK_RETARGET_H
#define LINK_RETARGET_H

#include "link/symbol.h"

#include <stdint.h>

struct link;

struct retarget_literal {
    uintptr_t place;                 /* an aligned word of a region's literals; 0: none */
    struct retarget_literal *next;
};

/* Under link->moving, but for `home`. */
struct retarget {
    uintptr_t home;                  /* constant: the address that the symbol was declared with */
    struct retarget_literal first;   /* mostly the only one */
};

struct retarget *retarget_new(pp_pool *pool, uintptr_t home);
void retarget_free(pp_pool *pool, struct retarget *retarget);

/* The literal at `place` is the symbol's from here on, and holds its address.  PP_E_NOMEM. */
pp_status retarget_enter(struct link *link, pp_pool *pool, const struct symbol *symbol,
                         uintptr_t place);

/* It is not any more. */
void retarget_leave(struct link *link, pp_pool *pool, const struct symbol *symbol,
                    uintptr_t place);

/* Whether the literal is known to be the symbol's and holds its address. */
bool retarget_verify(struct link *link, const struct symbol *symbol, uintptr_t place);

#endif
