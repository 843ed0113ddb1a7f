/* SPDX-License-Identifier: MIT */
/* Processors. */
#ifndef OS_PROCESSORS_H
#define OS_PROCESSORS_H

/* How many are online; at least 1. */
unsigned processors_online(void);

#endif
