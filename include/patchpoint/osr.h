/* SPDX-License-Identifier: MIT */
/*
 * Entering optimized code in mid-function, and resuming it.
 *
 * On top: tier-0's frame stays where it is, with its frame record, and becomes
 * the upper part of the OSR body's frame.  The body lowers SP, and its epilogue
 * drops both parts.  FP is the same before and after, so there is one physical
 * and one logical frame at every instruction.
 *
 *      caller's frame
 *      return address          x86-64: FP + 8     the same two words on
 *      caller's FP      <- FP                     AArch64, anywhere in the frame
 *      save slots, locals of tier-0
 *      ------------------------ SP at the patchpoint (16-aligned)
 *      OSR body's own saves and locals
 *      ------------------------ SP of the body
 *
 * Replace: the frame record stays where it is, and everything else of the frame
 * is laid out anew, larger or smaller: values go where the body wants them, in
 * memory and in registers, by a value map.  Nothing of tier-0's frame is left.
 * The body's epilogue drops its frame like that of any function.
 *
 *      return address, caller's FP     <- FP, as in tier-0
 *      save slots, locals of the body
 *      ------------------------ SP of the body: FP - frame_bytes of its layout
 *
 * Buffer: the values go into a buffer of the thread (buffer.h), tier-0's frame is popped,
 * and the body is entered by a jump in tier-0's place, as a function whose argument is
 * the buffer.  It has an ordinary prologue, and returns to tier-0's caller.
 *
 *      in tier-0                               at the body's first instruction
 *      caller's frame                          caller's frame
 *      return address          x86-64          return address   <- SP     AArch64: x30
 *      caller's FP      <- FP                  nothing; FP and all registers that C
 *      save slots, locals                      functions keep are the caller's; rdi, x0
 *      ------------------- <- SP               have the buffer
 *
 *      const pp_value values[] = {
 *          { PP_AT_SLOT(-8),  PP_AT_BUFFER(0), .bytes = 8 },       n
 *          { PP_AT_SLOT(-16), PP_AT_BUFFER(8), .bytes = 8 },       the sum so far
 *          { PP_AT_SLOT(-32), PP_AT_GPR(6), .bytes = 8 },          thread: rsi; x6
 *      };
 *      pp_entry_desc desc = { .size = sizeof desc, .style = PP_BUFFER, .code = body,
 *                             .tier0 = &tier0, .thread_offset = -32,
 *                             .values = values, .value_count = 3 };
 */
#ifndef PATCHPOINT_OSR_H
#define PATCHPOINT_OSR_H

#include <patchpoint/activation.h>
#include <patchpoint/buffer.h>
#include <patchpoint/frame.h>
#include <patchpoint/pool.h>
#include <patchpoint/value.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- registers -------------------------------------------------------- */

/*
 * Which registers a stub keeps on its slow path and shows in pp_regs; chosen per
 * site.  Every class keeps those that C functions keep, the frame and stack
 * pointers, errno, and of the floating point and flags registers MXCSR, the x87
 * control word and DF; FPCR and FPSR.  No class keeps the arithmetic flags, the
 * stub's own registers (r11; x16, x17, x30), the x87 and MMX registers, AMX tiles,
 * or what SVE adds to the vector registers: bits beyond 128, p registers, FFR.
 * A register that its class does not keep is undefined behind the site,
 * as it is behind a call of a C function.
 */
typedef enum pp_save {
    PP_SAVE_GPR = PP_SAVE_GPR_VALUE,   /* general registers: all kept, all shown */
    PP_SAVE_V128 = PP_SAVE_V128_VALUE, /* and 128 bits of xmm0-xmm15; of v0-v31 */
    PP_SAVE_ABI = PP_SAVE_ABI_VALUE,   /* the cheapest: as GPR, but those that C functions keep are
                                          not shown (rbx, r12-r15; x19-x28) */
    PP_SAVE_V256 = PP_SAVE_V256_VALUE, /* x86-64 with AVX: GPR and ymm0-ymm15 */
    PP_SAVE_V512 = PP_SAVE_V512_VALUE, /* x86-64 with AVX-512 F and BW: GPR, zmm0-zmm31, k0-k7 */
    PP_SAVE_MASK = PP_SAVE_MASK_VALUE, /* of V128's registers, those that the site names */
    PP_SAVE_MASK256 = PP_SAVE_MASK256_VALUE, /* the same of V256's */
    PP_SAVE_MASK512 = PP_SAVE_MASK512_VALUE  /* the same of V512's; all of k0-k7 */
} pp_save;

#if defined __x86_64__ || defined __aarch64__
/*
 * Registers at a patchpoint, as they were in compiled code.  Offsets in layout.h.
 * In gpr, SP and FP are valid in every class, others as the class says.
 */
typedef struct pp_regs {
    uint64_t gpr[PP_REGS_GPR_COUNT]; /* by hardware number; the stub's scratch registers are undefined */
    uint64_t pc;                     /* return address into the site */
    uint64_t flags;                  /* x86-64: the arithmetic flags are undefined */
    uint64_t fp_control;             /* low half MXCSR or FPCR, high half x87 control word or FPSR */
    uint64_t save;                   /* enum pp_save: which registers are valid */
    uint8_t vector[PP_REGS_VECTOR_COUNT][16]; /* V128, MASK.  V256 and V512 have whole registers
                                                 behind the struct: pp_regs_vector */
} pp_regs;

/*
 * A vector register by hardware number: the address of its `*bytes` bytes in
 * what a stub stored, 16, 32 or 64 as the class has it; NULL and 0 when the class
 * has none of that number.  `bytes` may be NULL.  Only for the pp_regs that a producer
 * was called with, as a copy of the struct has no wide registers.  Async-signal-safe.
 */
PP_API const void *pp_regs_vector(const pp_regs *regs, unsigned number, size_t *bytes);
#endif

/* ---- tier-0 and entries ----------------------------------------------- */

/* What a body and a tier-0 method agree on. */
typedef struct pp_tier0_layout {
    size_t size;           /* sizeof(pp_tier0_layout) */
    uint32_t frame_bytes;  /* FP - SP at the patchpoint; SP is 16-aligned there */
    uint32_t cfa_offset;   /* from FP to the caller's SP; 0: 16 */
    pp_save_area saves;
    uint32_t flags;        /* enum pp_tier0_flags */
    uint32_t reserved;     /* 0 */
} pp_tier0_layout;

enum pp_tier0_flags {
    /*
     * Below what is described lies a part of any size (alloca, arrays of variable length):
     * SP at the patchpoint is FP - frame_bytes or lower, 16-aligned.  Save area and slots are
     * in the described part, and addressed from FP as ever.  On top, the dynamic part
     * stays where it is, in the midst of the body's frame: the body has its locals from a
     * base (pp_osr_frame.base), and saves its registers in tier-0's slots: PP_CSR_RESERVE, or
     * it uses none.  The other styles drop the part; addresses into it are not for the map.
     *
     *      save slots, locals of tier-0
     *      ------------------------ FP - frame_bytes
     *      dynamic part
     *      ------------------------ SP at the patchpoint
     *      OSR body's own locals
     *      ------------------------ SP of the body <- base
     */
    PP_TIER0_DYNAMIC = 1u << 0
};

/* How a body gets at the callee-saved registers that it wants to use. */
typedef enum pp_csr_scheme {
    PP_CSR_RESERVE = 0, /* tier-0 has a slot for each of them; the body stores what tier-0 did not */
    PP_CSR_RELOAD       /* the body first reloads what tier-0 saved, then saves its own */
} pp_csr_scheme;

typedef enum pp_osr_style {
    PP_ON_TOP = 1,
    PP_REPLACE,
    PP_BUFFER
} pp_osr_style;

/* A handle, as site.h has them: any value may be passed, and none is given out twice. */
typedef struct pp_entry pp_entry;

typedef struct pp_entry_desc {
    size_t size;                   /* sizeof(pp_entry_desc) */
    pp_osr_style style;
    pp_csr_scheme scheme;
    const void *code;              /* first instruction of the body, in a live trace of the pool */
    const pp_tier0_layout *tier0;  /* copied: the frame the body expects to be entered from */
    uint64_t used;                 /* callee-saved registers that the body changes (as in pp_save_area) */
    size_t stack_bytes;            /* how far below tier-0's SP the body's frame reaches; PP_BUFFER:
                                      below the SP that it is entered with */
    void *host;
    pp_error *error;
    /* PP_REPLACE, PP_BUFFER; else 0 and NULL. */
    const pp_tier0_layout *body;   /* PP_REPLACE, copied: the frame that the body finds, with
                                      tier-0's cfa_offset, and not dynamic */
    const pp_value *values;        /* copied: where everything is, and where it goes */
    size_t value_count;
    int32_t thread_offset;         /* slot of tier-0's frame with the pp_thread, from FP, so that
                                      walkers see this frame during the transition; 0: none.
                                      PP_BUFFER: not 0, and the site's is the same */
    uint32_t flags;                /* enum pp_entry_flags */
    uint32_t index;                /* PP_ENTRY_INDEX, else 0 */
    uint32_t reserved;             /* 0 */
} pp_entry_desc;

enum pp_entry_flags {
    /*
     * Every transition compares what is left of the thread's stack with stack_bytes, and for
     * PP_REPLACE with what the move takes; where it does not suffice (PP_E_STACK) tier-0 goes
     * on, and the site counts a refusal.  So is an activation whose SP is not where the layout
     * says (PP_E_ABI).  The site has to know the thread (thread_offset), or publishing is
     * PP_E_ABI; a ready one takes its slow path.
     */
    PP_ENTRY_CHECK_STACK = 1u << 0,
    /*
     * One of several entries of a body, which has one address for all of them: a loop nest
     * that is entered at any of its headers.  The body finds `index` in r11 (x17), 64 bits,
     * and PP_BUFFER in the second argument (rsi; x1), and goes where it says.  Entries hold
     * the body's trace together: it can be freed behind the last of them.
     *
     *      desc.flags = PP_ENTRY_INDEX;
     *      for (desc.index = 0; desc.index < headers; desc.index++)
     *          pp_entry_create(pool, &desc, &entries[desc.index]);
     *
     * On x86-64 the prologue of emit.h changes r11 if it lowers SP by a page or more.
     */
    PP_ENTRY_INDEX = 1u << 1
};

/*
 * Make an entry: one immutable, validated record.  It keeps its trace: that
 * cannot be freed before the entry.  Errors: PP_E_ARG; PP_E_FAULT if `code` is
 * not in a committed trace of this pool; PP_E_ABI if the scheme cannot work
 * with the layout (RESERVE: a used register without a slot).
 *
 * PP_REPLACE: at the body's first instruction FP and SP are those of its layout,
 * and registers hold what the map says.  Callee-saved registers are, with
 * PP_CSR_RESERVE, stored in the body's save area as the caller had them, those of
 * body->saves.saved (all that the body uses); with PP_CSR_RELOAD (the body has no save
 * area yet) in the registers, as at the entry of a function.  All others, the flags and
 * r11 (x16, x17, x30) are undefined.
 *
 * PP_BUFFER: as at the entry of a function.  Values may go to the buffer and to registers
 * that functions need not keep, beside the first argument.  Of the caller's registers
 * those that tier-0 saved are loaded again; neither the scheme nor `used` matters.  A site
 * that leads to it takes its slow path, where a buffer is reserved; an activation whose
 * thread has none is refused, and tier-0 goes on: PP_E_ABI for a thread without buffers,
 * PP_E_RANGE if they are too small, PP_E_NOMEM if all are in use.  x30 is as tier-0 stored
 * it: where tier-0 signs it, so does not the body.
 *
 * PP_REPLACE, PP_BUFFER and PP_ENTRY_INDEX: such an entry has some instructions of its own in
 * the pool; creating it may fail as linking a trace does, destroying it as pp_trace_free.
 */
PP_API pp_status pp_entry_create(pp_pool *pool, const pp_entry_desc *desc,
                                 pp_entry **entry) PP_MUST_CHECK;

/*
 * Forget an entry.  Its body's trace is free of it at once, to be retired or freed by the rules
 * of all code.  Instructions of its own go at once if no thread can be in them: the entry was
 * never led to, or its sites are destroyed.  If a site that goes on has given it up
 * (pp_site_replace, pp_site_disable), threads may be on their way through them to the body:
 * they are retired, in the ticket that covers the body if that is retired next, and pp_reclaim
 * frees them, and counts them.  A stack that holds them holds the body, too.
 *
 * PP_E_BUSY: a site leads to it.
 * PP_E_STALE: it was destroyed before.
 * PP_E_SYSTEM, PP_E_NOMEM: with instructions of its own, as pp_trace_free.
 */
PP_API pp_status pp_entry_destroy(pp_pool *pool, pp_entry *entry) PP_MUST_CHECK;

/*
 * Whether the entry may be taken from a frame of this layout: magic, style,
 * layout, and that the trace is alive.  Pure.  PP_E_STALE, PP_E_ABI.
 */
PP_API pp_status pp_entry_check(const pp_entry *entry, const pp_tier0_layout *tier0) PP_MUST_CHECK;

PP_API const void *pp_entry_code(const pp_entry *entry);

/* What a body of PP_ENTRY_INDEX is told; else 0. */
PP_API uint32_t pp_entry_index(const pp_entry *entry);

/* ---- resuming --------------------------------------------------------- */

/*
 * A place in compiled code to continue at, with a frame that is still on the
 * stack.  Hosts usually keep only `pc` in a continuation and let tier-0's
 * prologue build the frame, then jump with the bytes of pp_emit_resume.
 */
typedef struct pp_resume_point {
    uintptr_t pc;     /* in published code, which may be retired (retire.h) */
    uintptr_t sp;     /* 16-aligned, between the caller's own SP and `fp` */
    uintptr_t fp;     /* frame record of the frame to continue in */
    uintptr_t value;  /* arrives in rax; x0 */
} pp_resume_point;

/*
 * Leave all C frames of the newest activation and continue at the point: one
 * direct jump.  Does not return when it succeeds; callee-saved registers of
 * the abandoned C frames are lost, so the point must be one where compiled
 * code expects none (a patchpoint, an OSR entry).  Errors, with nothing moved:
 * PP_E_FAULT (pc in no published code), PP_E_STACK (sp or fp outside the newest
 * activation or misaligned), PP_E_UNSUPPORTED (a shadow stack is active).
 */
PP_API pp_status pp_resume(pp_thread *thread, const pp_resume_point *point);

#ifdef __cplusplus
}
#endif
#endif
