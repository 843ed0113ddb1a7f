/* SPDX-License-Identifier: MIT */
/*
 * Instruction bytes, for hosts that put them into code of their own.  The
 * emitters are pure: bytes into the host's buffer, a description back.  They
 * work for both architectures on either, with the exception of pp_emit_site.
 * Those that are given a layout or a frame say in it why they refuse; the others refuse
 * a NULL that must not be one, an architecture or a register that is none (PP_E_ARG), and a
 * buffer that is too small (PP_E_RANGE).
 */
#ifndef PATCHPOINT_EMIT_H
#define PATCHPOINT_EMIT_H

#include <patchpoint/osr.h>
#include <patchpoint/site.h>
#include <patchpoint/trace.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- patchpoints ------------------------------------------------------ */

typedef struct pp_site_layout {
    size_t size;          /* set by the caller */
    size_t bytes;         /* written to the buffer */
    size_t align;         /* that the first byte must have in the trace */
    size_t return_offset; /* return address of the stub */
    size_t resume_offset; /* where tier-0 goes on: the end of the site, or its landing pad there */
    unsigned reloc_count;
    pp_reloc relocs[2];   /* offsets from the first byte; the host adds the site's own */
    const char *why;      /* why the call was refused, else NULL.  Static storage */
} pp_site_layout;

/*
 * The bytes of a site.  With buffer NULL and capacity 0 only the layout.  May
 * be called again: the same site can be emitted into several copies of a
 * method.  The site is PP_SITE_COUNTING afterwards.  PP_E_RANGE: the buffer is
 * too small, or the counter's offset does not fit an instruction.
 */
PP_API pp_status pp_emit_site(pp_site *site, void *buffer, size_t capacity,
                              pp_site_layout *layout) PP_MUST_CHECK;

/*
 * The part out of line of a PP_SITE_ARMED site, anywhere in the same trace: `hot` is the
 * distance from its first byte to the site's.  The layout is that of this part; the stub
 * returns into it.  PP_E_RANGE: also if a jump does not reach; PP_E_ARG: another kind.
 */
PP_API pp_status pp_emit_site_cold(pp_site *site, int64_t hot, void *buffer, size_t capacity,
                                   pp_site_layout *layout) PP_MUST_CHECK;

/* ---- OSR bodies ------------------------------------------------------- */

/* The frame of an OSR body that is entered on top of tier-0's. */
typedef struct pp_osr_frame {
    size_t size;             /* sizeof(pp_osr_frame) */
    pp_arch arch;
    pp_csr_scheme scheme;
    const pp_tier0_layout *tier0;
    uint64_t used;           /* callee-saved registers the body changes */
    uint32_t local_bytes;    /* the body's own locals, from SP upwards */
    uint32_t flags;          /* enum pp_pool_flags: PP_POOL_LANDING_PADS */
    pp_place base;           /* PP_TIER0_DYNAMIC: where the prologue puts the address of the first
                                local, which is SP: a general register, one of `used` if C functions
                                keep it, or an 8-byte slot of tier-0's frame; else, or if nobody
                                wants it, PP_AT_NOWHERE */
    pp_error *error;         /* receives the reason of a refusal; or NULL */
} pp_osr_frame;

/* What the emitters chose. */
typedef struct pp_osr_layout {
    size_t size;             /* set by the caller */
    size_t bytes;            /* written to the buffer */
    uint32_t stack_bytes;    /* from tier-0's SP down to the body's: for pp_entry_desc */
    int32_t local_offset;    /* of the first local, from FP; PP_TIER0_DYNAMIC: 0, from the base */
    pp_frame_rule rule;      /* for the body's trace */
} pp_osr_layout;

/*
 * Prologue: what a body does first, entered by a jump with FP and SP as tier-0
 * has them.  Changes SP, flags, the callee-saved registers as the scheme says,
 * and r11 or x16 for offsets beyond an immediate; the base, and on AArch64 x30 on
 * the way to a slot.  Frames larger than a page
 * are probed page by page.  PP_E_RANGE: buffer too small; PP_E_ABI: a used
 * register without a slot (RESERVE; PP_TIER0_DYNAMIC); PP_E_ARG.
 */
PP_API pp_status pp_emit_osr_prologue(const pp_osr_frame *frame, void *buffer, size_t capacity,
                                      pp_osr_layout *layout) PP_MUST_CHECK;

/*
 * Epilogue: restores every callee-saved register of tier-0's caller, drops
 * both parts of the frame and returns.  Keeps rax, rdx, xmm0, xmm1; x0-x15 and
 * all vector registers that return values.
 */
PP_API pp_status pp_emit_osr_epilogue(const pp_osr_frame *frame, void *buffer, size_t capacity,
                                      pp_osr_layout *layout) PP_MUST_CHECK;

/* ---- resume ----------------------------------------------------------- */

/*
 * The direct non-local jump: load a code address from memory and jump there.
 * `base` is the hardware number of a register that points to the continuation,
 * `offset` where in it the address is.  r11, or x16, is changed at most.
 * `bytes` receives the length.
 */
PP_API pp_status pp_emit_resume(pp_arch arch, unsigned base, int32_t offset, void *buffer,
                                size_t capacity, size_t *bytes) PP_MUST_CHECK;

/*
 * The non-local jump through a register: what a prologue does with the address that it
 * was handed.  Nothing is changed but, on AArch64, x16, if `reg` is neither x16 nor x17:
 * a landing pad for calls (bti c) takes jumps through these two only.
 *
 *      x86-64   jmp *reg                   41? ff /4
 *      AArch64  mov x16, xreg; br x16      aa0003f0 | reg << 16, d61f0200
 *
 * SP and, on AArch64, register 31 are PP_E_ARG.
 */
PP_API pp_status pp_emit_jump_register(pp_arch arch, unsigned reg, void *buffer, size_t capacity,
                                       size_t *bytes) PP_MUST_CHECK;

typedef struct pp_address_layout {
    size_t size;          /* set by the caller */
    size_t bytes;         /* written to the buffer */
    unsigned reloc_count;
    pp_reloc relocs[2];   /* offsets from the first byte */
    const char *why;      /* why the call was refused, else NULL.  Static storage */
} pp_address_layout;

/*
 * The address of a place in code, in a register: a function's own entry for its
 * continuation, with PP_SYMBOL_CODE and the offset in the trace as `addend`; or any
 * symbol in reach.  Position-independent; changes nothing else.
 *
 *      x86-64   lea  symbol + addend(%rip), reg        R_X86_64_PC32
 *      AArch64  adrp xreg, symbol + addend             R_AARCH64_ADR_PREL_PG_HI21
 *               add  xreg, xreg, :lo12:                R_AARCH64_ADD_ABS_LO12_NC
 */
PP_API pp_status pp_emit_address(pp_arch arch, unsigned reg, pp_symbol symbol, int64_t addend,
                                 void *buffer, size_t capacity,
                                 pp_address_layout *layout) PP_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
