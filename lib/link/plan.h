/* SPDX-License-Identifier: MIT */
/*
 * What a trace needs, from its description: validated once, counted exactly
 * for a region before anything is placed, then written and relocated.
 *
 * Whether a symbol is far depends on the region alone, not on the place in it.
 * So the number of trampolines and literals is known before placement, and a
 * plan never has to be made again because of where a span came to lie.
 */
#ifndef LINK_PLAN_H
#define LINK_PLAN_H

#include "isa/isa.h"
#include "link/island.h"
#include "link/link.h"

enum {
    PLAN_INLINE = 32,       /* distinct symbols that need no allocation */
    PLAN_INLINE_RELOCS = 96 /* the same for relocations */
};

/* A symbol that relocations refer to. */
struct plan_symbol {
    pp_symbol symbol;
    uintptr_t address;     /* of the trace's own bytes once the trace is placed */
    bool own_bytes;        /* PP_SYMBOL_CODE, PP_SYMBOL_DATA */
    bool branch;           /* a branch that may go through a trampoline */
    bool load;             /* a GOT load that can be relaxed */
    bool load_fixed;       /* a GOT load that cannot */
    bool moves;            /* retargetable: reached through the island's literal, and not otherwise */

    /* For a region: what it gets, and where that lies once the trace is placed. */
    bool trampoline, literal; /* `literal`: for loads; a trampoline has one in any case */
    bool shared;           /* the trampoline is in the region's island */
    bool shared_literal;   /* the literal is */
    uintptr_t trampoline_place, literal_place;
};

/* A relocation, decoded. */
struct plan_reloc {
    const struct reloc_info *info;
    uint32_t symbol;       /* index + 1 in the plan's symbols; 0: none */
};

struct plan {
    pp_pool *pool;
    struct link *link;
    const pp_trace_desc *desc;  /* the caller's */
    const uint8_t *code;        /* of the description, or in a reservation */
    size_t code_size;
    size_t data_align;
    pp_error *error;
    bool wants_own;             /* nothing shall be shared but the literals of symbols that move */
    bool own;                   /* it is so in this region */
    bool careful;               /* some island is full: count before anything is placed */
    bool in_place;              /* a reservation: no room inside the trace */

    struct plan_reloc *relocs;  /* as many as the description has */
    struct plan_symbol *symbols;
    uint32_t count, room;
    uint32_t *table;            /* index + 1 in symbols, by symbol; a power of two */
    uint32_t table_size;

    /* For a region. */
    const struct region *region;
    enum trampoline_shape shape;     /* of own trampolines with own literals */
    enum trampoline_shape far_shape; /* of own trampolines with shared literals */
    size_t trampolines_at, literals_at, data_at; /* from the first byte of the span */
    uint32_t shared_count;      /* symbols with something in the island */
    uint32_t far_trampolines;   /* own trampolines with shared literals */
    pp_trace_size bytes;        /* but for shared_new */

    struct plan_reloc inline_relocs[PLAN_INLINE_RELOCS];
    struct plan_symbol inline_symbols[PLAN_INLINE];
    uint32_t inline_table[2 * PLAN_INLINE];
};

/*
 * Validate relocations and find the distinct symbols, in time proportional to
 * the relocations.  The other fields of the description have been validated.
 * PP_E_ARG, PP_E_NOMEM.  plan_close releases what a successful plan_open took.
 */
pp_status plan_open(struct plan *plan, pp_pool *pool, struct link *link,
                    const pp_trace_desc *desc, const uint8_t *code, size_t code_size,
                    bool in_place);
void plan_close(struct plan *plan);

/* Decide and count for a region: fills in `bytes`.  PP_E_RANGE, PP_E_NOMEM. */
pp_status plan_place(struct plan *plan, const struct region *region);

/* What the island is asked for: plan->shared_count needs. */
void plan_needs(const struct plan *plan, struct island_need *needs);

/* The same needs with their slots: places of what is shared and of what lies in the span. */
void plan_locate(struct plan *plan, uintptr_t exec, const struct island_need *needs);

/* Write trampolines and literals of the span.  plan_locate came before. */
pp_status plan_write_own(const struct plan *plan, uint8_t *write, uintptr_t exec);

/* Apply every relocation.  PP_E_RANGE, PP_E_ARG. */
pp_status plan_relocate(const struct plan *plan, uint8_t *write, uintptr_t exec);

#endif
