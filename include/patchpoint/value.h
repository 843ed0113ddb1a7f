/* SPDX-License-Identifier: MIT */
/*
 * Value maps: where each value of tier-0 is at a patchpoint, and where the body
 * wants it.  An array of these belongs to an entry that does not leave tier-0's
 * frame as it is (pp_osr_style).
 *
 *      const pp_value values[] = {
 *          { PP_AT_SLOT(-8),      PP_AT_GPR(1),    .bytes = 8 },   n: into rcx; x1
 *          { PP_AT_SLOT(-16),     PP_AT_SLOT(-32), .bytes = 8 },
 *          { PP_AT_CONSTANT,      PP_AT_SLOT(-40), .bytes = 4, .constant = 7 },
 *          { PP_AT_ADDRESS(-32),  PP_AT_GPR(2),    .bytes = 8 },   of the body's slot
 *      };
 *
 * All values are read before the first is written, so that places may overlap
 * and change places with each other.
 */
#ifndef PATCHPOINT_VALUE_H
#define PATCHPOINT_VALUE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum pp_place_kind {
    PP_PLACE_DEAD = 0,  /* nowhere: nothing is read, nothing is written */
    PP_PLACE_GPR,       /* a general register */
    PP_PLACE_VECTOR,    /* the low bytes of a vector register */
    PP_PLACE_SLOT,      /* memory of a frame, from FP: source in tier-0's, target in the body's */
    PP_PLACE_CONSTANT,  /* source: `constant` */
    PP_PLACE_ADDRESS,   /* source: the address of a slot of the body; of a place in the buffer */
    PP_PLACE_BUFFER     /* target: memory of the buffer, from its start */
} pp_place_kind;

typedef struct pp_place {
    uint16_t kind;      /* enum pp_place_kind */
    uint16_t number;    /* of a register, as the hardware counts */
    int32_t offset;     /* of a slot, an address, a position in the buffer: a multiple of 4 */
} pp_place;

#define PP_AT_NOWHERE { PP_PLACE_DEAD, 0, 0 }
#define PP_AT_GPR(n) { PP_PLACE_GPR, (n), 0 }
#define PP_AT_VECTOR(n) { PP_PLACE_VECTOR, (n), 0 }
#define PP_AT_SLOT(at) { PP_PLACE_SLOT, 0, (at) }
#define PP_AT_CONSTANT { PP_PLACE_CONSTANT, 0, 0 }
#define PP_AT_ADDRESS(at) { PP_PLACE_ADDRESS, 0, (at) }
#define PP_AT_BUFFER(at) { PP_PLACE_BUFFER, 0, (at) }

/*
 * One value.  A register that takes fewer bytes than it has gets zeros above them.
 * Sources may be registers that the save class of the site keeps; what it does not
 * keep refuses the publication (PP_E_ABI).
 *
 * Targets may be every general register but SP, FP, r11 (x16-x18, x30), and every
 * vector register.  Those that C functions keep (rbx, r12-r15; x19-x28; the low
 * halves of v8-v15) only if the body's save area has them in `saved`: the transition
 * puts what the caller had in them there.  PP_BUFFER: no such register, nor the first
 * argument (rdi; x0), nor with PP_ENTRY_INDEX the second (rsi; x1), nor a slot; the body has no
 * frame yet.
 */
typedef struct pp_value {
    pp_place from, to;
    uint32_t bytes;     /* 4, 8 or 16; 16 not for general registers, constants and addresses */
    uint32_t reserved;  /* 0 */
    uint64_t constant;  /* PP_PLACE_CONSTANT, else 0 */
} pp_value;

#define PP_VALUES_MAX 1024 /* in one map */

#ifdef __cplusplus
}
#endif
#endif
