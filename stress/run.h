/* SPDX-License-Identifier: MIT */
/* The run behind `struct stress`: shared by stress.c and report.c only. */
#ifndef STRESS_RUN_H
#define STRESS_RUN_H

#include "stress/report.h"
#include "stress/stress.h"

#include <stdatomic.h>

struct stress {
    struct stress_options options;
    const struct scenario *scenario;
    bool all;             /* the scenario runs as a part of `all` */
    double slowness;
    uint64_t deadline;    /* of the scenario, clock; 0: none */
    atomic_bool cut;      /* stress_expired has said so */
    struct report report;
};

#endif
