/* SPDX-License-Identifier: MIT */
/*
 * Emitting instructions into a host's buffer: what the emitters of both
 * architectures share.  Pure, and compiled for both on every host.
 */
#ifndef ISA_EMIT_H
#define ISA_EMIT_H

#include <patchpoint/emit.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- the buffer --------------------------------------------------------- */

/*
 * Bytes go to `bytes` as long as they fit into `capacity` and are counted
 * always, so that the same code measures and writes.
 */
struct emitter {
    uint8_t *bytes;
    size_t capacity;
    size_t length;
};

void emit_byte(struct emitter *emitter, uint8_t byte);
void emit_le32(struct emitter *emitter, uint32_t word);
void emit_le64(struct emitter *emitter, uint64_t word);

/* PP_E_RANGE if something did not fit; a NULL buffer measures and always fits. */
pp_status emit_finish(const struct emitter *emitter);

/* ---- patchpoints -------------------------------------------------------- */

/* The stub of a save class. */
pp_symbol emit_patchpoint_stub(pp_save save);

/* ---- OSR bodies --------------------------------------------------------- */

/* Registers that move between a save area and the register file. */
struct save_move {
    uint64_t slots;   /* of the area, lowest bit first */
    int32_t offset;   /* of its first slot, from FP */
    uint64_t which;   /* those that move; a subset of slots */
};

/* What prologue and epilogue of a body do, whatever the architecture. */
struct osr_plan {
    bool landing_pad;
    uint32_t cfa_offset;
    uint32_t stack_bytes;      /* what the prologue subtracts from SP: 16-aligned */
    struct save_move reload;   /* prologue, before SP moves: from tier-0's area */
    struct save_move save;     /* prologue, after SP moved */
    struct save_move restore;  /* epilogue */
    pp_place base;             /* prologue, last: takes SP */
};

/*
 * From a frame whose tier0 is normalized; also fills in what does not depend
 * on the instructions.  The sizes are known to be in range.
 */
void osr_plan_from(const struct pp_osr_frame *frame, struct osr_plan *plan,
                   struct pp_osr_layout *layout);

/* Stack that is more than this is touched page by page on the way down. */
#define PROBE_PAGE 4096u

/* ---- transitions -------------------------------------------------------- */

/*
 * The code of an entry.  If it moves something: it lowers SP, calls the transition stub, sets
 * SP for the body or pops tier-0's frame.  It jumps to the body, maybe with an index.
 */
struct transition_code {
    bool landing_pad;
    bool moves;
    bool has_index;
    uint32_t index;
    uintptr_t body;            /* where to jump, unless the stub says it */
    uint32_t lower_bytes;      /* SP at the call lies lower by this; a multiple of 16 */
    uintptr_t entry;           /* what the stub is told */
    bool pops_frame;
    uint32_t cfa_offset;       /* of tier-0's frame, if it is popped */
    uint32_t frame_bytes;      /* else from FP down to the body's SP */
};

struct transition_layout {
    size_t bytes;
    size_t call_offset;        /* where the relocation of the call applies */
    uint16_t call_type;
    int64_t call_addend;
};

/* ---- the architectures -------------------------------------------------- */

pp_status x86_64_emit_site(const struct pp_site_desc *desc, uintptr_t record, bool landing_pads,
                           uint8_t *buffer, size_t capacity, struct pp_site_layout *layout);
pp_status x86_64_emit_site_cold(const struct pp_site_desc *desc, uintptr_t record, bool landing_pads,
                                int64_t hot, uint8_t *buffer, size_t capacity,
                                struct pp_site_layout *layout);
pp_status x86_64_emit_osr_prologue(const struct pp_osr_frame *frame, uint8_t *buffer,
                                   size_t capacity, struct pp_osr_layout *layout);
pp_status x86_64_emit_osr_epilogue(const struct pp_osr_frame *frame, uint8_t *buffer,
                                   size_t capacity, struct pp_osr_layout *layout);
pp_status x86_64_emit_resume(unsigned base, int32_t offset, uint8_t *buffer, size_t capacity,
                             size_t *bytes);

pp_status x86_64_emit_jump_register(unsigned reg, uint8_t *buffer, size_t capacity, size_t *bytes);
pp_status x86_64_emit_address(unsigned reg, pp_symbol symbol, int64_t addend, uint8_t *buffer,
                              size_t capacity, struct pp_address_layout *layout);
pp_status x86_64_emit_transition(const struct transition_code *code, uint8_t *buffer,
                                 size_t capacity, struct transition_layout *layout);

pp_status aarch64_emit_site(const struct pp_site_desc *desc, uintptr_t record, bool landing_pads,
                            uint8_t *buffer, size_t capacity, struct pp_site_layout *layout);
pp_status aarch64_emit_site_cold(const struct pp_site_desc *desc, uintptr_t record, bool landing_pads,
                                int64_t hot, uint8_t *buffer, size_t capacity,
                                struct pp_site_layout *layout);
pp_status aarch64_emit_osr_prologue(const struct pp_osr_frame *frame, uint8_t *buffer,
                                    size_t capacity, struct pp_osr_layout *layout);
pp_status aarch64_emit_osr_epilogue(const struct pp_osr_frame *frame, uint8_t *buffer,
                                    size_t capacity, struct pp_osr_layout *layout);
pp_status aarch64_emit_resume(unsigned base, int32_t offset, uint8_t *buffer, size_t capacity,
                              size_t *bytes);
pp_status aarch64_emit_jump_register(unsigned reg, uint8_t *buffer, size_t capacity, size_t *bytes);
pp_status aarch64_emit_address(unsigned reg, pp_symbol symbol, int64_t addend, uint8_t *buffer,
                               size_t capacity, struct pp_address_layout *layout);
pp_status aarch64_emit_transition(const struct transition_code *code, uint8_t *buffer,
                                  size_t capacity, struct transition_layout *layout);

#endif
