/* SPDX-License-Identifier: MIT */
/*
 * Value maps, checked against two frames and compiled into a program: a list of
 * moves that is immutable, and run by threads without a lock.
 */
#ifndef OSR_VALUE_H
#define OSR_VALUE_H

#include <patchpoint/osr.h>

#include <stdbool.h>

#define VALUE_BYTES 16 /* of staging for each move */

struct value_move {
    uint8_t from, to;          /* enum pp_place_kind; neither is DEAD */
    uint8_t bytes;             /* 4, 8 or 16 */
    uint8_t from_register, to_register;
    int32_t from_offset, to_offset;
    uint64_t constant;
};

/* What a map asks of the frames, the site and the stack. */
struct value_program {
    uint32_t count;            /* of moves */
    uint32_t gpr;              /* sources: general registers, by hardware number */
    uint32_t vector;           /* and vector registers */
    uint32_t buffer_bytes;     /* to the end of the last place in the buffer */
    struct value_move moves[];
};

/* Both sides of a transition. */
struct value_sides {
    pp_arch arch;
    bool buffer;                  /* the values go into one, and the body has no frame yet */
    bool index;                   /* and it has a second argument */
    const pp_tier0_layout *tier0; /* normalized */
    const pp_tier0_layout *body;  /* normalized; NULL with a buffer */
};

/* Check a map; `moves` is how many it comes to, without dead ones.  PP_E_ARG with the reason. */
pp_status value_check(const struct value_sides *sides, const pp_value *values, size_t count,
                      size_t *moves, pp_error *error);

static inline size_t value_program_bytes(size_t moves)
{
    return sizeof(struct value_program) + moves * sizeof(struct value_move);
}

/* Compile a map that was found good into memory of value_program_bytes. */
void value_compile(const pp_value *values, size_t count, struct value_program *program);

/*
 * Read every source into `staging`, VALUE_BYTES for each move; then write every
 * target.  `base` is what addresses count from: FP, or the buffer.  The registers
 * are those of a stub of class V128.
 */
void value_load(const struct value_program *program, const struct pp_regs *regs, uintptr_t fp,
                uintptr_t base, uint8_t *staging);
void value_store(const struct value_program *program, struct pp_regs *regs, uintptr_t fp,
                 uintptr_t buffer, const uint8_t *staging);

#endif
