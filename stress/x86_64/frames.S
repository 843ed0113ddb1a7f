/* SPDX-License-Identifier: MIT */
/* The pieces of frames.h for x86-64.  Data here; they run in traces. */
#include "asm.h"
#include "stress/frames.h"

#define PIECE(name)                                                                                \
    .section .rodata;                                                                              \
    .globl name, name##_end;                                                                       \
    .balign 16;                                                                                    \
name:

#define PIECE_END(name)                                                                            \
name##_end:

/* rdi call -> rbx call; a shadow entry. */
.macro TIER0_HEAD
    push    %rbp
    mov     %rsp, %rbp
    sub     $FRAMES_BYTES, %rsp
    mov     %rbx, FRAMES_SAVES_OFFSET(%rbp)
    mov     %rdi, %rbx
    mov     %rbx, FRAMES_CALL_SLOT(%rbp)
    mov     FRAMES_SHADOW(%rbx), %rax
    mov     SHADOW_DEPTH(%rax), %rcx
    shl     $4, %rcx
    mov     %rbp, SHADOW_ENTRIES + SHADOW_ENTRY_FP(%rax,%rcx)
    mov     FRAMES_NAME(%rbx), %rdx
    mov     %rdx, SHADOW_ENTRIES + SHADOW_ENTRY_NAME(%rax,%rcx)
    incq    SHADOW_DEPTH(%rax)
.endm

.macro TIER0_TAIL
    mov     FRAMES_CALL_SLOT(%rbp), %rax
    mov     FRAMES_SHADOW(%rax), %rax
    decq    SHADOW_DEPTH(%rax)
    mov     FRAMES_SAVES_OFFSET(%rbp), %rbx
    leave
    ret
.endm

PIECE(frames_tier0_head)
    TIER0_HEAD
    mov     FRAMES_THREAD(%rbx), %rax
    mov     %rax, FRAMES_THREAD_SLOT(%rbp)
    mov     FRAMES_THRESHOLD(%rbx), %eax
    mov     %eax, FRAMES_COUNTER_SLOT(%rbp)
PIECE_END(frames_tier0_head)

PIECE(frames_body)
    mov     FRAMES_CALL_SLOT(%rbp), %rbx
    cmpq    $0, FRAMES_VISIBLE(%rbx)
    je      1f
    mov     %rbx, %rdi
    mov     FRAMES_THREAD(%rbx), %r10
    mov     FRAMES_VISIBLE(%rbx), %r11
    call    *FRAMES_LEAVE(%rbx)
1:  cmpq    $0, FRAMES_CALLEE(%rbx)
    je      2f
    mov     FRAMES_CALLEE_CALL(%rbx), %rdi
    call    *FRAMES_CALLEE(%rbx)
2:  cmpq    $0, FRAMES_DIRECT(%rbx)
    je      3f
    mov     %rbx, %rdi
    call    *FRAMES_DIRECT(%rbx)
3:  cmpq    $0, FRAMES_LEAF(%rbx)
    je      4f
    call    *FRAMES_LEAF(%rbx)
4:
PIECE_END(frames_body)

PIECE(frames_tier0_tail)
    TIER0_TAIL
PIECE_END(frames_tier0_tail)

PIECE(frames_osr_head)
    mov     FRAMES_CALL_SLOT(%rbp), %rbx
    mov     FRAMES_SHADOW(%rbx), %rax
    mov     SHADOW_DEPTH(%rax), %rcx
    shl     $4, %rcx
    mov     FRAMES_OSR_NAME(%rbx), %rdx
    mov     %rdx, SHADOW_ENTRIES - SHADOW_ENTRY_SIZE + SHADOW_ENTRY_NAME(%rax,%rcx)
    mov     $-1, %r12
    mov     $-2, %r14
PIECE_END(frames_osr_head)

PIECE(frames_function_head)
    push    %rbp
    mov     %rsp, %rbp
    sub     $FRAMES_BYTES, %rsp
    mov     %rbx, FRAMES_SAVES_OFFSET(%rbp)
    mov     (%rdi), %rbx
    mov     %rbx, FRAMES_CALL_SLOT(%rbp)
    mov     FRAMES_SHADOW(%rbx), %rax
    mov     SHADOW_DEPTH(%rax), %rcx
    shl     $4, %rcx
    mov     FRAMES_OSR_NAME(%rbx), %rdx
    mov     %rdx, SHADOW_ENTRIES - SHADOW_ENTRY_SIZE + SHADOW_ENTRY_NAME(%rax,%rcx)
PIECE_END(frames_function_head)

PIECE(frames_osr_tail)
    mov     FRAMES_CALL_SLOT(%rbp), %rax
    mov     FRAMES_SHADOW(%rax), %rax
    decq    SHADOW_DEPTH(%rax)
PIECE_END(frames_osr_tail)

PIECE(frames_leaf)
    lea     (%rdi,%rdi), %rax
    xor     %rdi, %rax
    ret
PIECE_END(frames_leaf)

PIECE(frames_jump_head)
    TIER0_HEAD
PIECE_END(frames_jump_head)

PIECE(frames_jump_tail)
    mov     %rbx, %rdi
    .byte   0xe8                        /* call */
    .4byte  0
    TIER0_TAIL
PIECE_END(frames_jump_tail)
