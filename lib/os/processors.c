/* SPDX-License-Identifier: MIT */
/*
 * Processors.  The affinity of a thread says nothing about the others, so it is not
 * asked for.
 */
#include <config.h>

#include "os/processors.h"

#include <errno.h>
#include <unistd.h>

unsigned processors_online(void)
{
    int saved = errno;
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    errno = saved;
    return count > 0 ? (unsigned) count : 1;
}
