/* SPDX-License-Identifier: MIT */
/* unwind_code.S from C, and the frame of record_code. */
#ifndef TESTS_UNWIND_CODE_H
#define TESTS_UNWIND_CODE_H

#define MARK 0x7100u

#if defined __x86_64__
#define RECORD_CODE_CFA 16
#define RECORD_CODE_SLOTS 0x7008      /* rbx, r12, r13, r14 */
#define RECORD_CODE_SAVED 0x2008      /* rbx, r13 */
#define RECORD_CODE_OFFSET (-32)
#else
#define RECORD_CODE_CFA 48
#define RECORD_CODE_SLOTS 0x0000020000b00000 /* x20, x21, x23, d9 */
#define RECORD_CODE_SAVED 0x0000020000900000 /* x20, x23, d9 */
#define RECORD_CODE_OFFSET 16
#endif

#ifndef __ASSEMBLER__
#include <stdint.h>

uintptr_t marked_call(const void *code, void *argument);
extern const unsigned char record_code[], record_code_end[];
#endif

#endif
