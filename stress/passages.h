/* SPDX-License-Identifier: MIT */
/* Random passages, a part of the osr scenario. */
#ifndef STRESS_PASSAGES_H
#define STRESS_PASSAGES_H

#include "stress/stress.h"

struct passages;

/* Pools and a thread of their own; NULL, and a failure is reported. */
struct passages *passages_begin(struct stress *stress);

/* Draw some more and run them, by this thread, and each eighth by many. */
void passages_more(struct passages *passages);

/* Report, and let go of everything. */
void passages_end(struct passages *passages);

#endif
