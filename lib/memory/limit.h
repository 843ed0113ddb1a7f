/* SPDX-License-Identifier: MIT */
/*
 * The host is asked before an allocation fails for want of memory: it may free
 * something.  A thread that is inside the host's answer is not asked again.
 */
#ifndef MEMORY_LIMIT_H
#define MEMORY_LIMIT_H

#include <patchpoint/pool.h>

#include <pthread.h>
#include <stdbool.h>

/* A thread inside on_limit; on its stack. */
struct asker {
    pthread_t thread;
    struct asker *next;
};

struct limit {
    pp_limit_fn *ask;         /* NULL: nobody is asked */
    void *host;
    pthread_mutex_t lock;     /* innermost: guards askers */
    struct asker *askers;
};

void limit_init(struct limit *limit);
void limit_fini(struct limit *limit);

/*
 * `bytes` are refused.  True: the host says that it is worth trying again.  No
 * lock of the library may be held.
 */
bool limit_ask(pp_pool *pool, size_t bytes);

/* Around fork; in the child only the thread that forked goes on. */
void limit_lock(struct limit *limit);
void limit_unlock(struct limit *limit);
void limit_child(struct limit *limit);

#endif
