/* SPDX-License-Identifier: MIT */
/*
 * Fork: a child is born with all locks free and bookkeeping whole, keeps running
 * the code that it inherited, and writes none of it.
 */
#ifndef MEMORY_FORK_H
#define MEMORY_FORK_H

#include "memory/state.h"

/* Watch over a pool.  The first call installs the handlers; false: that failed. */
bool fork_watch(pp_pool *pool);
void fork_forget(pp_pool *pool);

#endif
