/* SPDX-License-Identifier: MIT */
/*
 * pthread_mutex_unlock for test programs that are linked with --wrap: what is unlocked has to be
 * locked.  So a lock that was not taken shows at once, without a race.
 */
#include <config.h>

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    static const char complaint[] = "a mutex is unlocked that was not locked\n";
    if (pthread_mutex_trylock(mutex) == 0) {
        (void) !write(STDERR_FILENO, complaint, sizeof complaint - 1);
        abort();
    }
    return __real_pthread_mutex_unlock(mutex);
}
