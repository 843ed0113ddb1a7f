/* SPDX-License-Identifier: MIT */
/*
 * Linkage, unwind information and notes of assembler sources.  Every .S file
 * includes this first.
 *
 *      FUNC(name)   a C function
 *      CODE(name)   entered by compiled code, with a contract of its own
 *      END(name)    closes either
 *      HIDDEN(name) keeps a symbol inside the library
 *
 * Both kinds begin with a landing pad, because trampolines reach them by an
 * indirect jump; a pad is a no-op where the machine does not ask for one.
 * Local labels are .L<stub>_<what>.  A CFI directive stands on the line after
 * the instruction that it describes.
 */
#ifndef ASM_H
#define ASM_H

#include <patchpoint/layout.h>

#if defined __x86_64__
#define LANDING_PAD endbr64
#define SYMBOL_TYPE @function
#elif defined __aarch64__
#define LANDING_PAD hint #34 /* bti c */
#define SYMBOL_TYPE %function
#else
#error "libpatchpoint knows x86-64 and AArch64"
#endif

#define HIDDEN(name) .hidden name

#define FUNC(name)                                                                                 \
    .text;                                                                                         \
    .globl name;                                                                                   \
    .type name, SYMBOL_TYPE;                                                                       \
    .p2align 6;                                                                                    \
name:                                                                                              \
.L##name##_start:                                                                                  \
    .cfi_startproc;                                                                                \
    LANDING_PAD

#define CODE(name) FUNC(name)

#define END(name)                                                                                  \
    .cfi_endproc;                                                                                  \
    .size name, . - name

/*
 * One row of the stub table (stub.h) for a stub whose local labels
 * .L<name>_pushed, .L<name>_set and .L<name>_popped stand right behind the
 * instructions that push its frame record, point FP to it, and pop it.
 */
#define STUB_ROW(name, kind)                                                                       \
    .pushsection pp_stub_table, "a";                                                               \
    .p2align 2;                                                                                    \
    .4byte .L##name##_start - .;                                                                   \
    .4byte .L##name##_end - .L##name##_start;                                                      \
    .2byte kind;                                                                                   \
    .2byte .L##name##_pushed - .L##name##_start;                                                   \
    .2byte .L##name##_set - .L##name##_start;                                                      \
    .2byte .L##name##_popped - .L##name##_start;                                                   \
.Lrow_##name:                                                                                      \
    .asciz #name;                                                                                  \
    .fill 16 - (. - .Lrow_##name), 1, 0;                                                           \
    .popsection

/* ---- notes ------------------------------------------------------------ */

/* The stack need not be executable. */
    .pushsection .note.GNU-stack, "", %progbits
    .popsection

/*
 * Every place that an indirect branch reaches has a landing pad, and calls and
 * returns are balanced: GNU_PROPERTY_X86_FEATURE_1_AND with IBT and SHSTK,
 * GNU_PROPERTY_AARCH64_FEATURE_1_AND with BTI.
 */
    .pushsection .note.gnu.property, "a", %note
    .p2align 3
    .4byte 4          /* size of the name */
    .4byte 16         /* size of the description */
    .4byte 5          /* NT_GNU_PROPERTY_TYPE_0 */
    .asciz "GNU"
#if defined __x86_64__
    .4byte 0xc0000002
    .4byte 4
    .4byte 3
#else
    .4byte 0xc0000000
    .4byte 4
    .4byte 1
#endif
    .4byte 0
    .popsection

#endif
