/* SPDX-License-Identifier: MIT */
/*
 * Barriers on all cores.  The kernel refuses an expedited barrier with EPERM
 * until the process is registered; then one registration suffices.
 */
#include <config.h>

#include "os/barrier.h"

#include "os/fault.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* <linux/membarrier.h>, Linux 4.16; GLOBAL 4.3. */
#define GLOBAL (1 << 0)
#define EXPEDITED_SYNC_CORE (1 << 5)
#define REGISTER_EXPEDITED_SYNC_CORE (1 << 6)

static long membarrier(int command)
{
    return fault_fires_errno(PP_FAULT_MEMBARRIER) ? -1 : syscall(SYS_membarrier, command, 0, 0);
}

bool barrier_sync_core(void)
{
    int saved = errno;
    bool done = membarrier(EXPEDITED_SYNC_CORE) == 0;
    if (!done && errno == EPERM && membarrier(REGISTER_EXPEDITED_SYNC_CORE) == 0)
        done = membarrier(EXPEDITED_SYNC_CORE) == 0;
    /*
     * It waits until each core that runs user code was in the kernel, and a return
     * from there serializes a core; it takes milliseconds.
     */
    if (!done)
        done = membarrier(GLOBAL) == 0;
    errno = saved;
    return done;
}
