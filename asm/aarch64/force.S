/* SPDX-License-Identifier: MIT */
/*
 * What C cannot see or do about registers, for slow paths under force (lib/osr/force.c).
 */
#include "asm.h"

    HIDDEN(force_call)
    HIDDEN(force_fill)

    .macro  store_kept base, offset
    stp     x19, x20, [\base, #\offset]
    stp     x21, x22, [\base, #\offset + 16]
    stp     x23, x24, [\base, #\offset + 32]
    stp     x25, x26, [\base, #\offset + 48]
    stp     x27, x28, [\base, #\offset + 64]
    stp     d8, d9, [\base, #\offset + 80]
    stp     d10, d11, [\base, #\offset + 96]
    stp     d12, d13, [\base, #\offset + 112]
    stp     d14, d15, [\base, #\offset + 128]
    .endm

/*
 * uintptr_t force_call(force_pass *pass, struct site *site, uint32_t state, pp_regs *regs,
 *                      uint64_t kept[2][FORCE_KEPT]);
 *
 *      in          x0 pass, x1 site, w2 state, x3 regs, x4 kept
 *      out         x0 what the pass returned
 *      changed     what a C function may change; the others are as at the call, whatever
 *                  the pass did to them
 *
 *      kept[0] = { x19-x28, d8-d15 };
 *      result = pass(site, state, regs);
 *      kept[1] = { x19-x28, d8-d15 };
 *      { x19-x28, d8-d15 } = kept[0];
 *      return result;
 *
 *      SP + 160    kept
 *      SP + 16     x19-x28, d8-d15, as they were
 *      SP          x29, x30
 */
FUNC(force_call)
    stp     x29, x30, [sp, #-176]!
    .cfi_def_cfa_offset 176
    .cfi_offset x29, -176
    .cfi_offset x30, -168
    mov     x29, sp
    .cfi_def_cfa_register x29
    store_kept sp, 16
    .cfi_offset x19, -160
    .cfi_offset x20, -152
    .cfi_offset x21, -144
    .cfi_offset x22, -136
    .cfi_offset x23, -128
    .cfi_offset x24, -120
    .cfi_offset x25, -112
    .cfi_offset x26, -104
    .cfi_offset x27, -96
    .cfi_offset x28, -88
    .cfi_offset d8, -80
    .cfi_offset d9, -72
    .cfi_offset d10, -64
    .cfi_offset d11, -56
    .cfi_offset d12, -48
    .cfi_offset d13, -40
    .cfi_offset d14, -32
    .cfi_offset d15, -24
    str     x4, [sp, #160]
    store_kept x4, 0
    mov     x16, x0
    mov     x0, x1
    mov     w1, w2
    mov     x2, x3
    blr     x16
    ldr     x4, [sp, #160]
    store_kept x4, 144
    ldp     x19, x20, [sp, #16]
    .cfi_restore x19
    .cfi_restore x20
    ldp     x21, x22, [sp, #32]
    .cfi_restore x21
    .cfi_restore x22
    ldp     x23, x24, [sp, #48]
    .cfi_restore x23
    .cfi_restore x24
    ldp     x25, x26, [sp, #64]
    .cfi_restore x25
    .cfi_restore x26
    ldp     x27, x28, [sp, #80]
    .cfi_restore x27
    .cfi_restore x28
    ldp     d8, d9, [sp, #96]
    .cfi_restore d8
    .cfi_restore d9
    ldp     d10, d11, [sp, #112]
    .cfi_restore d10
    .cfi_restore d11
    ldp     d12, d13, [sp, #128]
    .cfi_restore d12
    .cfi_restore d13
    ldp     d14, d15, [sp, #144]
    .cfi_restore d14
    .cfi_restore d15
    .cfi_def_cfa_register sp
    ldp     x29, x30, [sp], #176
    .cfi_def_cfa_offset 0
    .cfi_restore x29
    .cfi_restore x30
    ret
END(force_call)

/*
 * void force_fill(uint64_t pattern, unsigned bytes);
 *
 *      in          x0 pattern; w1 is 16
 *      changed     v0-v7, v16-v31, and the upper halves of v8-v15: the pattern in both words
 */
FUNC(force_fill)
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    dup     v\n\().2d, x0
    .endr
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    mov     v\n\().d[1], x0
    .endr
    ret
END(force_fill)
