/* SPDX-License-Identifier: MIT */
/*
 * Compiled code whose frames are worth walking: position-independent pieces in
 * the program's read-only data, to be copied into traces.
 *
 *      frames_tier0_head   prologue of a tier-0 method (PP_FRAME_RECORD);
 *                          [the bytes of a site follow]
 *      frames_body         the work, for tier-0 and its OSR body alike;
 *      frames_tier0_tail   epilogue of the tier-0 method
 *      frames_osr_head     between the emitted prologue of an OSR body and frames_body
 *      frames_osr_tail     between frames_body and the emitted epilogue
 *      frames_leaf         a function that never moves SP (PP_FRAME_LEAF)
 *      frames_jump_head    like frames_tier0_head, without a slot for a site; then
 *      frames_jump_tail    calls C by a direct branch, which takes a relocation at
 *                          FRAMES_JUMP_RELOC, and returns
 *
 * The work: C through pp_leave; another method; C directly; a leaf function;
 * each if the call's record asks for it.  Every method keeps the shadow: right
 * behind its prologue it pushes its frame record and its name, and it pops them
 * before its epilogue.  The OSR body changes the name.
 */
#ifndef STRESS_FRAMES_H
#define STRESS_FRAMES_H

/* struct frames_call, for the assembler. */
#define FRAMES_THREAD 0
#define FRAMES_LEAVE 8
#define FRAMES_SHADOW 16
#define FRAMES_VISIBLE 24
#define FRAMES_CALLEE 32
#define FRAMES_CALLEE_CALL 40
#define FRAMES_DIRECT 48
#define FRAMES_LEAF 56
#define FRAMES_THRESHOLD 64
#define FRAMES_NAME 72
#define FRAMES_OSR_NAME 80

/* struct frames_shadow. */
#define SHADOW_DEPTH 0
#define SHADOW_ENTRIES 16
#define SHADOW_ENTRY_SIZE 16
#define SHADOW_ENTRY_FP 0
#define SHADOW_ENTRY_NAME 8

/*
 * The tier-0 frame.  x86-64 has its record at the top, AArch64 at the bottom,
 * each with a slot for five and four callee-saved registers, of which tier-0
 * uses the lowest.
 */
#if defined __x86_64__
#define FRAMES_CFA_OFFSET 16
#define FRAMES_BYTES 80          /* FP - SP */
#define FRAMES_SLOTS 0xf008      /* rbx, r12 - r15 */
#define FRAMES_SAVED 0x0008
#define FRAMES_USED 0x5008       /* by the OSR body: rbx, r12, r14 */
#define FRAMES_SAVES_OFFSET (-40)
#define FRAMES_CALL_SLOT (-48)
#define FRAMES_THREAD_SLOT (-56)
#define FRAMES_COUNTER_SLOT (-64)
#else
#define FRAMES_CFA_OFFSET 96
#define FRAMES_BYTES 0
#define FRAMES_SLOTS 0x0000030000380000 /* x19 - x21, d8, d9 by PP_VECTOR_BIT */
#define FRAMES_SAVED 0x0000000000080000
#define FRAMES_USED 0x0000010000180000  /* x19, x20, d8 */
#define FRAMES_SAVES_OFFSET 48
#define FRAMES_CALL_SLOT 16
#define FRAMES_THREAD_SLOT 24
#define FRAMES_COUNTER_SLOT 32
#endif

/* Offset of the relocation in frames_jump_tail. */
#if defined __x86_64__
#define FRAMES_JUMP_RELOC 4      /* R_X86_64_PLT32, addend -4 */
#else
#define FRAMES_JUMP_RELOC 4      /* R_AARCH64_CALL26 */
#endif

#ifndef __ASSEMBLER__

#include <patchpoint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct frames_shadow_entry {
    volatile uintptr_t fp;           /* frame record; 0: not a method's, but a mark of C */
    volatile uintptr_t name;
};

struct frames_shadow {
    volatile uintptr_t depth;
    uintptr_t reserved;
    struct frames_shadow_entry entries[];
};

/* What a method is called with: all that it does. */
struct frames_call {
    pp_thread *thread;
    void (*leave)(void);             /* pp_leave */
    struct frames_shadow *shadow;
    void (*visible)(struct frames_call *); /* C, through pp_leave; or NULL */
    const void *callee;              /* another method, called with callee_call; or NULL */
    struct frames_call *callee_call;
    void (*direct)(struct frames_call *);  /* C, directly; or NULL */
    const void *leaf;                /* or NULL */
    int64_t threshold;               /* of the method's counter */
    uintptr_t name, osr_name;        /* for the shadow */
    void *host;
};

#define FRAMES_PIECE(name) extern const unsigned char name[], name##_end[]
FRAMES_PIECE(frames_tier0_head);
FRAMES_PIECE(frames_body);
FRAMES_PIECE(frames_tier0_tail);
FRAMES_PIECE(frames_function_head);
FRAMES_PIECE(frames_osr_head);
FRAMES_PIECE(frames_osr_tail);
FRAMES_PIECE(frames_leaf);
FRAMES_PIECE(frames_jump_head);
FRAMES_PIECE(frames_jump_tail);

extern const pp_frame_rule frames_tier0_rule;
extern const pp_tier0_layout frames_tier0_layout;

/* A tier-0 method; site may be NULL. */
pp_status frames_link_tier0(pp_pool *pool, const char *name, pp_site *site, pp_trace **trace);

/* An OSR body for it, and the entry that leads there. */
pp_status frames_link_osr(pp_pool *pool, const char *name, pp_csr_scheme scheme,
                          pp_trace **trace, pp_entry **entry);

/* A body that replaces the frame of that method, and the entry that leads there. */
pp_status frames_link_replace(pp_pool *pool, const char *name, pp_trace **trace, pp_entry **entry);

/*
 * A body that is a function, in the place of that method, and the entry that leads there.
 * It finds the call at the start of its buffer, which stays in use.
 */
pp_status frames_link_function(pp_pool *pool, const char *name, pp_trace **trace, pp_entry **entry);

pp_status frames_link_leaf(pp_pool *pool, const char *name, pp_trace **trace);

/* A method that calls `target`, a C function, by a direct branch. */
pp_status frames_link_jump(pp_pool *pool, const char *name, pp_symbol target, uint32_t flags,
                           pp_trace **trace);

#ifdef __cplusplus
}
#endif

#endif
#endif
