/* SPDX-License-Identifier: MIT */
/* The pieces of frames.h for AArch64.  Data here; they run in traces. */
#include "asm.h"
#include "stress/frames.h"

#define PIECE(name)                                                                                \
    .section .rodata;                                                                              \
    .globl name, name##_end;                                                                       \
    .balign 16;                                                                                    \
name:

#define PIECE_END(name)                                                                            \
name##_end:

/* x0 call -> x19 call; a shadow entry. */
.macro TIER0_HEAD
    stp     x29, x30, [sp, #-FRAMES_CFA_OFFSET]!
    mov     x29, sp
    str     x19, [x29, #FRAMES_SAVES_OFFSET]
    mov     x19, x0
    str     x19, [x29, #FRAMES_CALL_SLOT]
    ldr     x9, [x19, #FRAMES_SHADOW]
    ldr     x10, [x9, #SHADOW_DEPTH]
    add     x11, x9, x10, lsl #4
    ldr     x12, [x19, #FRAMES_NAME]
    stp     x29, x12, [x11, #SHADOW_ENTRIES]
    add     x10, x10, #1
    str     x10, [x9, #SHADOW_DEPTH]
.endm

.macro TIER0_TAIL
    ldr     x9, [x29, #FRAMES_CALL_SLOT]
    ldr     x9, [x9, #FRAMES_SHADOW]
    ldr     x10, [x9, #SHADOW_DEPTH]
    sub     x10, x10, #1
    str     x10, [x9, #SHADOW_DEPTH]
    ldr     x19, [x29, #FRAMES_SAVES_OFFSET]
    ldp     x29, x30, [sp], #FRAMES_CFA_OFFSET
    ret
.endm

PIECE(frames_tier0_head)
    TIER0_HEAD
    ldr     x9, [x19, #FRAMES_THREAD]
    str     x9, [x29, #FRAMES_THREAD_SLOT]
    ldr     w9, [x19, #FRAMES_THRESHOLD]
    str     w9, [x29, #FRAMES_COUNTER_SLOT]
PIECE_END(frames_tier0_head)

PIECE(frames_body)
    ldr     x19, [x29, #FRAMES_CALL_SLOT]
    ldr     x15, [x19, #FRAMES_VISIBLE]
    cbz     x15, 1f
    mov     x0, x19
    ldr     x17, [x19, #FRAMES_THREAD]
    ldr     x9, [x19, #FRAMES_LEAVE]
    blr     x9
1:  ldr     x9, [x19, #FRAMES_CALLEE]
    cbz     x9, 2f
    ldr     x0, [x19, #FRAMES_CALLEE_CALL]
    blr     x9
2:  ldr     x9, [x19, #FRAMES_DIRECT]
    cbz     x9, 3f
    mov     x0, x19
    blr     x9
3:  ldr     x9, [x19, #FRAMES_LEAF]
    cbz     x9, 4f
    blr     x9
4:
PIECE_END(frames_body)

PIECE(frames_tier0_tail)
    TIER0_TAIL
PIECE_END(frames_tier0_tail)

PIECE(frames_osr_head)
    ldr     x19, [x29, #FRAMES_CALL_SLOT]
    ldr     x9, [x19, #FRAMES_SHADOW]
    ldr     x10, [x9, #SHADOW_DEPTH]
    add     x11, x9, x10, lsl #4
    ldr     x12, [x19, #FRAMES_OSR_NAME]
    str     x12, [x11, #SHADOW_ENTRIES - SHADOW_ENTRY_SIZE + SHADOW_ENTRY_NAME]
    mov     x20, #-1
    fmov    d8, #1.0
PIECE_END(frames_osr_head)

PIECE(frames_function_head)
    stp     x29, x30, [sp, #-FRAMES_CFA_OFFSET]!
    mov     x29, sp
    str     x19, [x29, #FRAMES_SAVES_OFFSET]
    ldr     x19, [x0]
    str     x19, [x29, #FRAMES_CALL_SLOT]
    ldr     x9, [x19, #FRAMES_SHADOW]
    ldr     x10, [x9, #SHADOW_DEPTH]
    add     x11, x9, x10, lsl #4
    ldr     x12, [x19, #FRAMES_OSR_NAME]
    str     x12, [x11, #SHADOW_ENTRIES - SHADOW_ENTRY_SIZE + SHADOW_ENTRY_NAME]
PIECE_END(frames_function_head)

PIECE(frames_osr_tail)
    ldr     x9, [x29, #FRAMES_CALL_SLOT]
    ldr     x9, [x9, #FRAMES_SHADOW]
    ldr     x10, [x9, #SHADOW_DEPTH]
    sub     x10, x10, #1
    str     x10, [x9, #SHADOW_DEPTH]
PIECE_END(frames_osr_tail)

PIECE(frames_leaf)
    add     x1, x0, x0
    eor     x0, x1, x0
    ret
PIECE_END(frames_leaf)

PIECE(frames_jump_head)
    TIER0_HEAD
PIECE_END(frames_jump_head)

PIECE(frames_jump_tail)
    mov     x0, x19
    bl      .                           /* takes the relocation */
    TIER0_TAIL
PIECE_END(frames_jump_tail)
