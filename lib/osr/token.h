/* SPDX-License-Identifier: MIT */
/* Pins: references to traces, one record for each. */
#ifndef OSR_TOKEN_H
#define OSR_TOKEN_H

#include "osr/record.h"

#include <patchpoint/token.h>
#include <patchpoint/trace.h>

struct pin {
    _Alignas(16) pp_trace *trace; /* held */
    struct record record;
};

#endif
