/* SPDX-License-Identifier: MIT */
/*
 * A function that notes the registers it is entered with, for bodies of PP_BUFFER: a
 * trace that jumps here is one.
 */
#ifndef TESTS_ENTERED_H
#define TESTS_ENTERED_H

#include <patchpoint/osr.h>

/* Not C: stores all registers but r11, x16, x17 and the flags in entered_regs; on to entered_check. */
extern const char entered[];
extern pp_regs entered_regs;

/* The test's; its arguments are the body's, its result is the method's. */
uintptr_t entered_check(uintptr_t first, uintptr_t second);

#endif
