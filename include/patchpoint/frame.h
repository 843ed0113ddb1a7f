/* SPDX-License-Identifier: MIT */
/*
 * Frame rules: how to unwind a kind of frame.
 *
 * Each trace and each span has a rule, and the library's walker goes by it.  A pool may
 * have thousands of them: one is kept of each.  Other unwinders know no rule unless the
 * pool tells them (pp_pool_options.unwinders).  On both architectures a frame record is
 * two words at FP (rbp; x29): the caller's FP, and the return address.
 *
 * PP_FRAME_RECORD promises that at every call the frame record is complete and FP points to
 * it.  Anywhere else the record may be half made, half gone, or not there: the walker finds out.
 * `cfa_offset` is the distance from the record to the caller's SP, the same in all code of
 * one rule.  On x86-64 it is 16, since the return address is pushed right above.  On AArch64
 * it depends on where in its frame the code has the record:
 *
 *      stp x29, x30, [sp, #-n]!                       at the bottom: n, so a rule for each n
 *      mov x29, sp
 *
 *      sub sp, sp, #n                                 on top: n - k, mostly 16, whatever n is
 *      stp x29, x30, [sp, #k]
 *      add x29, sp, #k
 *
 * A trace whose first instructions make a record at another distance than its rule has is
 * refused.
 *
 * Who may register what: a host that registers unwind information of its own
 * (__register_frame, _U_dyn_register, as LLVM does for each object) does so for code that
 * no unwinder is told of, never for code that the library tells of.  Both would cover the
 * same addresses, and unwinders then find the wrong one of the two, or none.  All code of
 * a pool without `unwinders` may be registered by the host; in a pool with some, code with
 * PP_FRAME_UNREGISTERED, and code with PP_FRAME_NONE.
 */
#ifndef PATCHPOINT_FRAME_H
#define PATCHPOINT_FRAME_H

#include <patchpoint/layout.h>
#include <patchpoint/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pp_arch {
    PP_ARCH_HOST = 0, /* the machine that the library was built for */
    PP_ARCH_X86_64,
    PP_ARCH_AARCH64
} pp_arch;

typedef enum pp_frame_kind {
    PP_FRAME_NONE = 0, /* not described: the walker stops there and says so */
    PP_FRAME_LEAF,     /* never moves SP, calls nothing; the return address is where the call left it */
    PP_FRAME_RECORD,   /* standard prologue: push rbp; mov rsp, rbp - stp x29, x30; mov x29, sp */
    PP_FRAME_OSR       /* entered by a jump with tier-0's record in place; one logical frame */
} pp_frame_kind;

/*
 * Where callee-saved registers of the caller are kept in a frame.  Bits 0-31
 * are general registers by hardware number (rbx is 3, r12 is 12, x19 is 19),
 * bits 32-63 the low halves of v0-v31.  The frame has one 8-byte slot for each
 * bit of `slots`, the lowest bit at FP + offset and the others in ascending
 * order above it.  `saved`, a subset, are those the frame has stored.
 */
typedef struct pp_save_area {
    uint64_t slots;
    uint64_t saved;
    int32_t offset;
    uint32_t reserved; /* 0 */
} pp_save_area;

/* Bit of a vector register in a save area. */
#define PP_VECTOR_BIT(n) (1ull << (32 + (n)))

enum pp_frame_flags {
    PP_FRAME_UNREGISTERED = 1u << 0 /* for the library's walker alone: no other unwinder is told, in
                                       no pool, and the host may register the code by itself */
};

/*
 * A rule.  Two rules with equal fields are the same rule.  Zero in `size`
 * fields is not accepted.
 */
typedef struct pp_frame_rule {
    size_t size;           /* sizeof(pp_frame_rule) */
    pp_frame_kind kind;
    uint32_t cfa_offset;   /* from FP to the caller's SP; 0: 16.  x86-64: always 16 */
    pp_save_area saves;    /* tier-0's part */
    pp_save_area own;      /* PP_FRAME_OSR with PP_CSR_RELOAD: the OSR part */
    uint32_t flags;        /* enum pp_frame_flags */
    uint32_t reserved;     /* 0 */
} pp_frame_rule;

#ifdef __cplusplus
}
#endif
#endif
