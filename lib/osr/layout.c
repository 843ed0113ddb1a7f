/* SPDX-License-Identifier: MIT */
/* Every number of layout.h, against the C type that it describes. */
#include <config.h>

#include "osr/site.h"

#include "stub.h"

#include <patchpoint/activation.h>
#include <patchpoint/osr.h>

#include <stddef.h>

#define AT(number, type, member) \
    _Static_assert(offsetof(type, member) == (number), #number " is not the offset of " #member)
#define IS(number, value) _Static_assert((number) == (value), #number " is not " #value)

AT(PP_THREAD_ANCHOR, pp_thread, anchor);
AT(PP_THREAD_EXIT_FP, pp_thread, exit_fp);
AT(PP_THREAD_STACK_LO, pp_thread, stack_lo);
AT(PP_THREAD_STACK_HI, pp_thread, stack_hi);
AT(PP_THREAD_SIGNAL_LO, pp_thread, signal_lo);
AT(PP_THREAD_SIGNAL_HI, pp_thread, signal_hi);
AT(PP_THREAD_COOKIE, pp_thread, cookie);
IS(PP_THREAD_SIZE, sizeof(pp_thread));

AT(PP_ANCHOR_PREVIOUS, struct anchor, previous);
AT(PP_ANCHOR_EXIT_FP, struct anchor, exit_fp);
AT(PP_ANCHOR_FP, struct anchor, fp);
AT(PP_ANCHOR_COOKIE, struct anchor, cookie);
IS(PP_ANCHOR_SIZE, sizeof(struct anchor));

AT(PP_RESUME_PC, pp_resume_point, pc);
AT(PP_RESUME_SP, pp_resume_point, sp);
AT(PP_RESUME_FP, pp_resume_point, fp);
AT(PP_RESUME_VALUE, pp_resume_point, value);
IS(PP_RESUME_SIZE, sizeof(pp_resume_point));

AT(PP_SITE_STATE, struct site_record, state);
AT(PP_SITE_COUNTER, struct site_record, counter);
AT(PP_SITE_TARGET, struct site_record, target);
AT(PP_SITE_THREAD_OFFSET, struct site_record, thread_offset);
AT(PP_SITE_RESUME, struct site_record, resume);
AT(PP_SITE_LIVE_GPR, struct site_record, live_gpr);
AT(PP_SITE_LIVE_VECTOR, struct site_record, live_vector);
IS(PP_SITE_LIVE_VECTOR, PP_SITE_LIVE_GPR + 4); /* loaded as a pair */
AT(PP_SITE_EDITED, struct site_record, edited);
IS(PP_SITE_HEAD_SIZE, sizeof(struct site_record));
IS(sizeof(((struct site_record *) 0)->state), 8);

AT(PP_REGS_GPR, pp_regs, gpr);
IS(PP_REGS_GPR_COUNT, sizeof((pp_regs *) 0)->gpr / sizeof(uint64_t));
AT(PP_REGS_PC, pp_regs, pc);
AT(PP_REGS_FLAGS, pp_regs, flags);
AT(PP_REGS_FP_CONTROL, pp_regs, fp_control);
AT(PP_REGS_CLASS, pp_regs, save);
AT(PP_REGS_VECTOR, pp_regs, vector);
IS(PP_REGS_VECTOR_COUNT, sizeof((pp_regs *) 0)->vector / 16);
IS(PP_REGS_SIZE, sizeof(pp_regs));
#if defined __x86_64__
IS(PP_REGS_SP, PP_REGS_GPR + 4 * 8);
IS(PP_REGS_FP, PP_REGS_GPR + 5 * 8);
/* Wide registers are aligned when the struct is, and the stub's own words fit before them. */
IS(PP_REGS_WIDE % 64, 0);
IS(PP_REGS_WIDE, PP_REGS_SIZE + 32);
IS(PP_REGS_V256_SIZE, PP_REGS_WIDE + 16 * 32);
IS(PP_REGS_OPMASK, PP_REGS_WIDE + 32 * 64);
IS(PP_REGS_V512_SIZE, PP_REGS_OPMASK + 8 * 8);
#else
IS(PP_REGS_SP, PP_REGS_GPR + 31 * 8);
IS(PP_REGS_FP, PP_REGS_GPR + 29 * 8);
#endif

IS(PP_SAVE_GPR_VALUE, PP_SAVE_GPR);
IS(PP_SAVE_V128_VALUE, PP_SAVE_V128);
IS(PP_SAVE_ABI_VALUE, PP_SAVE_ABI);
IS(PP_SAVE_V256_VALUE, PP_SAVE_V256);
IS(PP_SAVE_V512_VALUE, PP_SAVE_V512);
IS(PP_SAVE_MASK_VALUE, PP_SAVE_MASK);
IS(PP_SAVE_MASK256_VALUE, PP_SAVE_MASK256);
IS(PP_SAVE_MASK512_VALUE, PP_SAVE_MASK512);
IS(sizeof(_Atomic int32_t), 4);
IS(sizeof(_Atomic uint64_t), 8);
