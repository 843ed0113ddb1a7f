/* SPDX-License-Identifier: MIT */
/*
 * What an architecture has to provide, as pure functions over bytes.
 *
 * Nothing here touches code memory, asks the CPU, or needs a matching machine:
 * addresses come in as numbers, bytes go out.  Both implementations are
 * compiled on every host, and the AArch64 encoder is tested on x86-64.
 *
 * `place` is the address at which the bytes will run, `bytes` where they are
 * now.  Encoders write at most the size they announce and return it.
 */
#ifndef ISA_ISA_H
#define ISA_ISA_H

#include "isa/emit.h"
#include "isa/frame.h"

#include <patchpoint/emit.h>
#include <patchpoint/frame.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- relocations ------------------------------------------------------ */

/* What a relocation type asks of the linker before its bytes are computed. */
enum reloc_kind {
    RELOC_UNKNOWN = 0,
    RELOC_VALUE,   /* the field takes S + A, absolute or pc-relative: S must be in reach itself */
    RELOC_BRANCH,  /* a call or jump: may go through a trampoline that stands for S */
    RELOC_GOT      /* reads a literal that holds S; relaxed to use S itself when it is near */
};

struct reloc_info {
    const char *name; /* "R_X86_64_PLT32" */
    enum reloc_kind kind;
    uint8_t size;     /* bytes of the field or instruction */
    uint8_t before;   /* bytes before the field that may be read or rewritten (relaxation) */
    uint8_t align;    /* of the offset; a power of two */
    bool instruction; /* patches an instruction: belongs in code */
    bool relative;    /* the field is a distance from its place */
};

enum reloc_result {
    RELOC_OK = 0,
    RELOC_OUT_OF_RANGE,
    RELOC_MISALIGNED,      /* the value does not suit a scaled field */
    RELOC_BAD_INSTRUCTION, /* the bytes are not what this type applies to */
    RELOC_BAD_ADDEND       /* the type gives no meaning to this addend */
};

/* ---- trampolines ------------------------------------------------------ */

/*
 * A trampoline loads its target from a literal and jumps.  It touches x16 at
 * most, on x86-64 no register: r11, x15 and x17 carry arguments of our stubs.  Two shapes:
 * the literal nearby (inside a trace), or anywhere in the region (islands).
 */
enum trampoline_shape { TRAMPOLINE_NEAR, TRAMPOLINE_ISLAND };

struct isa {
    pp_arch arch;
    const char *name;
    uint64_t branch_range;   /* a direct branch reaches |distance| < branch_range */
    uint64_t got_range;      /* the same for relaxed loads of a GOT slot */
    uint64_t literal_range;  /* TRAMPOLINE_NEAR reaches its literal at |distance| < literal_range */
    int64_t branch_addend;   /* of a branch to the very symbol: only such a one can go through a
                                trampoline, which stands for one address */
    uint32_t trap;           /* fills unused code, repeated: int3; udf */
    uint8_t trap_size;
    uint8_t code_align;      /* of instructions; a power of two */

    const struct reloc_info *(*reloc_info)(uint16_t type); /* NULL: unknown */

    /* Apply to `bytes` (the field).  `value` is S, or the trampoline, or the literal's address. */
    enum reloc_result (*reloc_apply)(uint16_t type, uint8_t *bytes, uint64_t place,
                                     uint64_t value, int64_t addend);

    /*
     * RELOC_GOT with a near symbol: rewrite the instruction at (and before)
     * `bytes` to use `symbol` itself.  RELOC_BAD_INSTRUCTION: not one that can
     * be rewritten; the caller falls back to the literal.
     * can_relax is the same question without writing, for measuring.
     */
    bool (*reloc_can_relax)(uint16_t type, const uint8_t *bytes, int64_t addend);
    enum reloc_result (*reloc_relax)(uint16_t type, uint8_t *bytes, uint64_t place,
                                     uint64_t symbol, int64_t addend);

    size_t (*trampoline_size)(enum trampoline_shape shape, bool landing_pad);
    /* 0 if the literal is out of the shape's reach. */
    size_t (*trampoline_encode)(enum trampoline_shape shape, bool landing_pad, uint8_t *bytes,
                                uint64_t place, uint64_t literal);

    /*
     * Whether a call instruction ends right at `end`; `available` bytes before it may be read.
     * Every return address passes.  On x86-64 so does an address behind bytes that only look
     * like a call, such as an immediate: it is a check of what is believed for other reasons.
     */
    bool (*is_after_call)(const uint8_t *end, size_t available);

    /* The same of a direct call, and its target; the bytes at `end` run at `place`. */
    bool (*call_target)(const uint8_t *end, size_t available, uint64_t place, uint64_t *target);

    /* What instructions do to frames. */
    const struct frame_machine *frame;

    /* The emitters behind emit.h; arguments already validated. */
    pp_status (*emit_site)(const struct pp_site_desc *desc, uintptr_t record, bool landing_pads,
                           uint8_t *buffer, size_t capacity, struct pp_site_layout *layout);
    /* The out-of-line part of an armed site; `hot`: from its first byte to the site's. */
    pp_status (*emit_site_cold)(const struct pp_site_desc *desc, uintptr_t record,
                                bool landing_pads, int64_t hot, uint8_t *buffer, size_t capacity,
                                struct pp_site_layout *layout);
    pp_status (*emit_osr_prologue)(const struct pp_osr_frame *frame, uint8_t *buffer,
                                   size_t capacity, struct pp_osr_layout *layout);
    pp_status (*emit_osr_epilogue)(const struct pp_osr_frame *frame, uint8_t *buffer,
                                   size_t capacity, struct pp_osr_layout *layout);
    pp_status (*emit_resume)(unsigned base, int32_t offset, uint8_t *buffer, size_t capacity,
                             size_t *bytes);
    pp_status (*emit_jump_register)(unsigned reg, uint8_t *buffer, size_t capacity, size_t *bytes);
    pp_status (*emit_address)(unsigned reg, pp_symbol symbol, int64_t addend, uint8_t *buffer,
                              size_t capacity, struct pp_address_layout *layout);
    pp_status (*emit_transition)(const struct transition_code *code, uint8_t *buffer,
                                 size_t capacity, struct transition_layout *layout);
};

extern const struct isa isa_x86_64, isa_aarch64;

#if defined __x86_64__
#define isa_host isa_x86_64
#elif defined __aarch64__
#define isa_host isa_aarch64
#else
#error "libpatchpoint knows x86-64 and AArch64"
#endif

static inline bool isa_is_aligned(const struct isa *isa, uintptr_t code)
{
    return (code & (isa->code_align - 1u)) == 0;
}

/* The architecture by its public name, or NULL. */
const struct isa *isa_find(pp_arch arch);

#endif
