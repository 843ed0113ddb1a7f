/* SPDX-License-Identifier: MIT */
/*
 * Fork: a child is born with all locks free and bookkeeping whole, keeps running
 * the code that it inherited, and writes none of it.  Its parent, who shares the
 * pages, leaves freed spans alone as long as such a child is there.
 */
#ifndef MEMORY_FORK_H
#define MEMORY_FORK_H

#include "memory/state.h"

/* Watch over a pool.  The first call installs the handlers; false: that failed. */
bool fork_watch(pp_pool *pool);
void fork_forget(pp_pool *pool);

/*
 * Whether a child (or one of its own) that was forked from this process may
 * still run inherited code: it neither ended nor executed another program.
 */
bool fork_has_children(void);

#endif
