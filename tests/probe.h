/* SPDX-License-Identifier: MIT */
/*
 * Assembler probes for check_save and check_stubs: they load every register from a struct,
 * go through a stub, and store every register into the struct again.  One
 * probe at a time: the struct's address is kept in a variable meanwhile.
 */
#ifndef PROBE_H
#define PROBE_H

/* struct probe; the registers are laid out as in pp_regs. */
#define PROBE_IN 0
#define PROBE_OUT PP_REGS_SIZE
#define PROBE_STUB (2 * PP_REGS_SIZE)
#define PROBE_RECORD (PROBE_STUB + 8)
#define PROBE_SKEW (PROBE_STUB + 16)      /* bytes that SP is moved down before the call */
#define PROBE_SP (PROBE_STUB + 24)        /* out: SP at the call */
#define PROBE_PC (PROBE_STUB + 32)        /* out: return address of the call */
#define PROBE_FRAME (PROBE_STUB + 40)     /* 1: FP is a frame of the probe's, not random */
#define PROBE_WENT (PROBE_STUB + 48)      /* out: 0 resumed, 1 at the target */
#define PROBE_BELOW (PROBE_STUB + 56)     /* bytes of random data above SP at the call */
#define PROBE_WIDTH (PROBE_STUB + 64)     /* bytes of vector registers; beyond 16 also `wide` */
#define PROBE_WIDE_IN (PROBE_STUB + 72)
#define PROBE_WIDE_OUT (PROBE_WIDE_IN + PROBE_WIDE_SIZE)
#define PROBE_SIZE (PROBE_WIDE_OUT + PROBE_WIDE_SIZE)

/* struct probe_wide */
#define PROBE_OPMASK (32 * 64)
#define PROBE_WIDE_SIZE (PROBE_OPMASK + 8 * 8)

/* Bytes of the probe's own frame above SP at the call. */
#define PROBE_CANARY_BYTES 512

#ifndef __ASSEMBLER__

#include <patchpoint/osr.h>

#include <stddef.h>
#include <stdint.h>

/* x86-64: ymm0 .. ymm15, or zmm0 .. zmm31 and k0 .. k7. */
struct probe_wide {
    uint8_t vector[32][64];
    uint64_t opmask[8];
};

struct probe {
    pp_regs in, out;
    const void *stub;
    void *record;
    uint64_t skew;
    uint64_t sp, pc;
    uint64_t frame;
    uint64_t went;
    const uint8_t *canary; /* PROBE_CANARY_BYTES to lie above SP at the call */
    uint64_t width;
    struct probe_wide wide_in, wide_out;
};

_Static_assert(offsetof(struct probe, out) == PROBE_OUT, "probe.h");
_Static_assert(offsetof(struct probe, stub) == PROBE_STUB, "probe.h");
_Static_assert(offsetof(struct probe, record) == PROBE_RECORD, "probe.h");
_Static_assert(offsetof(struct probe, skew) == PROBE_SKEW, "probe.h");
_Static_assert(offsetof(struct probe, sp) == PROBE_SP, "probe.h");
_Static_assert(offsetof(struct probe, pc) == PROBE_PC, "probe.h");
_Static_assert(offsetof(struct probe, frame) == PROBE_FRAME, "probe.h");
_Static_assert(offsetof(struct probe, went) == PROBE_WENT, "probe.h");
_Static_assert(offsetof(struct probe, canary) == PROBE_BELOW, "probe.h");
_Static_assert(offsetof(struct probe, width) == PROBE_WIDTH, "probe.h");
_Static_assert(offsetof(struct probe, wide_in) == PROBE_WIDE_IN, "probe.h");
_Static_assert(offsetof(struct probe, wide_out) == PROBE_WIDE_OUT, "probe.h");
_Static_assert(offsetof(struct probe_wide, opmask) == PROBE_OPMASK, "probe.h");
_Static_assert(sizeof(struct probe) == PROBE_SIZE, "probe.h");

/* ---- in C ---------------------------------------------------------------- */

/* Seed the random numbers from PP_SEED or the time, and print it. */
uint64_t probe_seed(const char *program);
uint64_t probe_random(void);
void probe_fill(void *memory, size_t size);
/* Random registers, with control registers that can be loaded. */
void probe_fill_regs(pp_regs *regs);
/* Leave nothing as it was that the calling convention lets a C function change. */
void probe_spoil_registers(void);

/* ---- in assembler -------------------------------------------------------- */

/* A site: load the registers, call the stub, jump where it says, store the registers. */
void probe_site(struct probe *probe);
/* Where a site's body is: what a fake record has as target. */
extern const char probe_target[];
/* Distance from the return address to the resume address. */
extern const uint32_t probe_resume;
/* Bytes above SP after the call, copied out. */
extern uint8_t probe_canary[PROBE_CANARY_BYTES];

/*
 * Call pp_enter(thread, code, 1, 2, 3, 4) with the callee-saved registers and
 * floating point control of `in`, and store those that are there after it.
 * Returns what pp_enter does.
 */
uintptr_t probe_enter(struct probe *probe, void *thread, const void *code);

/* Compiled code: checks its arguments 1, 2, 3, 4 and leaves every register spoilt. */
extern const char probe_spoil[];

/*
 * Compiled code with a frame record: calls a C function by pp_leave with six
 * arguments 11 .. 16 and returns its result + 1.  First argument: thread;
 * second: the function.
 */
extern const char probe_leave[];
extern const char probe_leave_return[]; /* return address of that call */

/*
 * Compiled code: leaves to a C function (arguments: thread, point) with a point
 * in it; there returns its value, or 0 if SP or FP is not what it was.
 */
extern const char probe_resumable[];
#endif
#endif
