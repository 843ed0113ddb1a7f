/* SPDX-License-Identifier: MIT */
/* Threads that begin at the same moment. */
#include <config.h>

#include "stress/together.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { GO_WAIT, GO_RUN, GO_HOME };

struct one {
    pthread_t id;
    _Atomic int *go;
    void (*work)(void *item);
    void *item;
};

static void *begin(void *argument)
{
    struct one *one = argument;
    while (atomic_load(one->go) == GO_WAIT)
        sched_yield();
    if (atomic_load(one->go) == GO_RUN)
        one->work(one->item);
    return NULL;
}

bool together(void (*work)(void *item), void *items, size_t size, unsigned count)
{
    struct one ones[TOGETHER_MAX];
    _Atomic int go = GO_WAIT;
    unsigned started = 0;
    for (; started < count && started < TOGETHER_MAX; started++) {
        ones[started] = (struct one) { .go = &go, .work = work,
                                       .item = (char *) items + started * size };
        if (pthread_create(&ones[started].id, NULL, begin, &ones[started]) != 0)
            break;
    }
    atomic_store(&go, started == count ? GO_RUN : GO_HOME);
    for (unsigned i = 0; i < started; i++)
        pthread_join(ones[i].id, NULL);
    return started == count;
}
