/* SPDX-License-Identifier: MIT */
/*
 * Numbers shared by C, by the library's assembler and by hosts that emit their
 * own code.  Preprocessor definitions only, so that assembler sources can
 * include it.  The library asserts every one of them against the C type.
 */
#ifndef PATCHPOINT_LAYOUT_H
#define PATCHPOINT_LAYOUT_H

/* struct pp_thread: the part of it that compiled code and stubs touch. */
#define PP_THREAD_ANCHOR 0      /* newest activation record, or 0 */
#define PP_THREAD_EXIT_FP 8     /* frame record of the way out to C, or 0 in compiled code */
#define PP_THREAD_STACK_LO 16   /* lowest address of the stack */
#define PP_THREAD_STACK_HI 24   /* one past the highest */
#define PP_THREAD_COOKIE 32     /* mixed into every activation record */
#define PP_THREAD_SIGNAL_LO 48  /* the same of a signal stack that pp_enter was called on, or 0 */
#define PP_THREAD_SIGNAL_HI 56
#define PP_THREAD_SIZE 64

/* An activation record, written by pp_enter in its own frame. */
#define PP_ANCHOR_PREVIOUS 0    /* the activation record below this one, or 0 */
#define PP_ANCHOR_EXIT_FP 8     /* the thread's exit record when C entered again */
#define PP_ANCHOR_FP 16         /* frame record of pp_enter itself */
#define PP_ANCHOR_COOKIE 24     /* thread's cookie ^ address of this record */
#define PP_ANCHOR_SIZE 32

/* From the frame record of pp_enter to its activation record. */
#if defined __x86_64__
#define PP_ENTER_ANCHOR_OFFSET (-80)
#elif defined __aarch64__
#define PP_ENTER_ANCHOR_OFFSET (-192)
#endif

/* A resume point. */
#define PP_RESUME_PC 0
#define PP_RESUME_SP 8
#define PP_RESUME_FP 16
#define PP_RESUME_VALUE 24
#define PP_RESUME_SIZE 32

/*
 * The head of every site record: what the patchpoint stub reads.  The address
 * of a site record is what pp_site_record returns.  Target and state change together, in
 * one step.
 */
#define PP_SITE_COUNTER 4       /* signed 32 bits, for sites that count in their record */
#define PP_SITE_TARGET 8        /* where a pass goes without asking C; 0: it asks */
#define PP_SITE_STATE 16        /* 64 bits: the low four are one of the values below, the others the
                                   library's */
#define PP_SITE_THREAD_OFFSET 24 /* signed 32 bits: frame slot with the pp_thread, from FP; 0: none */
#define PP_SITE_RESUME 28       /* unsigned 32 bits: from the stub's return address to the resume address */
#define PP_SITE_LIVE_GPR 32     /* 32 bits: what a site with a mask keeps, by number */
#define PP_SITE_LIVE_VECTOR 36  /* 32 bits */
#define PP_SITE_EDITED 40       /* 32 bits: not 0 if a probe may change registers that C keeps */
#define PP_SITE_HEAD_SIZE 48

/* Values of PP_SITE_STATE.  Plain numbers, so that assembler can compare with them. */
#define PP_SITE_IDLE 0
#define PP_SITE_COUNTING 1
#define PP_SITE_TRIGGERED 2
#define PP_SITE_COMPILING 3
#define PP_SITE_READY 4
#define PP_SITE_FAILED 5
#define PP_SITE_DISABLED 6
#define PP_SITE_PENDING 7
#define PP_SITE_GUARDED 15      /* ready, and C is asked each time; pp_site_state says PP_SITE_READY */

/* struct pp_regs.  General registers by hardware number; vectors behind everything else. */
#if defined __x86_64__
#define PP_REGS_GPR 0           /* rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15 */
#define PP_REGS_GPR_COUNT 16
#define PP_REGS_SP 32           /* = gpr[4] */
#define PP_REGS_FP 40           /* = gpr[5] */
#define PP_REGS_PC 128
#define PP_REGS_FLAGS 136
#define PP_REGS_FP_CONTROL 144  /* MXCSR; above it, the x87 control word */
#define PP_REGS_CLASS 152       /* enum pp_save: which part of this struct is valid */
#define PP_REGS_VECTOR 160      /* 16 bytes each */
#define PP_REGS_VECTOR_COUNT 16
#define PP_REGS_SIZE 416
/* Behind the struct, whole registers; there only when the class is V256, V512, MASK256 or MASK512. */
#define PP_REGS_WIDE 448        /* ymm0 .. ymm15, 32 bytes each; or zmm0 .. zmm31, 64 bytes each */
#define PP_REGS_V256_SIZE 960   /* to the end of ymm15 */
#define PP_REGS_OPMASK 2496     /* V512: k0 .. k7, 8 bytes each */
#define PP_REGS_V512_SIZE 2560  /* to the end of k7 */
#elif defined __aarch64__
#define PP_REGS_GPR 0           /* x0 .. x30, sp */
#define PP_REGS_GPR_COUNT 32
#define PP_REGS_SP 248          /* = gpr[31] */
#define PP_REGS_FP 232          /* = gpr[29] */
#define PP_REGS_PC 256
#define PP_REGS_FLAGS 264       /* NZCV */
#define PP_REGS_FP_CONTROL 272  /* FPCR; above it, FPSR */
#define PP_REGS_CLASS 280
#define PP_REGS_VECTOR 288      /* 16 bytes each */
#define PP_REGS_VECTOR_COUNT 32
#define PP_REGS_SIZE 800
#endif

/* enum pp_save, for assembler. */
#define PP_SAVE_GPR_VALUE 0
#define PP_SAVE_V128_VALUE 1
#define PP_SAVE_ABI_VALUE 2
#define PP_SAVE_V256_VALUE 3
#define PP_SAVE_V512_VALUE 4
#define PP_SAVE_MASK_VALUE 5
#define PP_SAVE_MASK256_VALUE 6
#define PP_SAVE_MASK512_VALUE 7

#endif
