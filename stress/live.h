/* SPDX-License-Identifier: MIT */
/* Many traces alive at a time, in one pool. */
#ifndef STRESS_LIVE_H
#define STRESS_LIVE_H

#include "stress/random.h"
#include "stress/stress.h"

#include <patchpoint.h>

/* Link so many, look them up, free them; the mappings of a region must stay as many as they were. */
void live_run(struct stress *stress, uint64_t count);

#endif
