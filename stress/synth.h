/* SPDX-License-Identifier: MIT */
/*
 * Synthesis: code of this machine that performs the sites of a recorded trace.
 *
 * The code has the recorded size and runs from its first byte to its last
 * site, performing every site once, in the order of their offsets.  Calls and
 * jumps go to counting functions (targets.h has the registers); a jump goes on
 * behind itself because its target takes the next address of a list that the
 * run was given.  A load adds the address that it found to a sum.
 *
 *                x86-64                              AArch64
 *      C  plt    nop; call rel32         PLT32       bl                   CALL26
 *         got    call *slot(%rip)        GOTPCRELX   adrp; ldr; blr x16   ADR_GOT_PAGE, LD64_GOT_LO12_NC
 *      J  plt    nop; jmp rel32          PLT32       b                    JUMP26
 *         got    jmp *slot(%rip)         GOTPCRELX   adrp; ldr; br x16    ADR_GOT_PAGE, LD64_GOT_LO12_NC
 *      D         mov slot(%rip), %r8     REX_GOTPCRELX
 *                add %r8, %rax                       adrp; ldr; add       ADR_GOT_PAGE, LD64_GOT_LO12_NC
 *
 * The 4-byte field (x86-64) or the branch (AArch64) is at the recorded offset.
 * Where the next site leaves no room for the addition, a load on x86-64 is
 * `add slot(%rip), %rax` with GOTPCREL, which cannot be relaxed.
 *
 * Recordings of the other machine, loads on AArch64 and the got form there
 * need more bytes than were recorded: such sites are moved, by the least
 * number of bytes that makes room, and the code keeps its size.  A trace that
 * is too dense for this machine is refused.  Code too short for any way out,
 * which can have no sites, is linked but cannot be run.
 *
 * Between sites there are NOPs, or a branch over bytes that trap.  One of the
 * gaps holds the address of the trace's data, so that it can be found.
 */
#ifndef STRESS_SYNTH_H
#define STRESS_SYNTH_H

#include "stress/recording.h"
#include "stress/stress.h"
#include "stress/targets.h"

#define SYNTH_NONE UINT32_MAX

struct synth_unit;

/* What a trace does with one symbol. */
struct synth_use {
    uint32_t symbol;         /* index in the recording */
    uint32_t reached;        /* times, by calls and jumps, in one run */
    bool branches;           /* by a relocation that takes a trampoline when the symbol is far */
    bool literal_far;        /* a GOT relocation that disappears when the symbol is near */
    bool literal_always;     /* a GOT relocation that stays */
};

/* A synthesized trace.  The memory is used again for the next one. */
struct synth {
    uint8_t *code, *data;
    size_t code_size, data_size;
    pp_reloc *relocs;
    uint32_t *reloc_uses;    /* index of the use, or SYNTH_NONE for the trace's own sections */
    size_t reloc_count;
    struct synth_use *uses;  /* one for each distinct symbol */
    size_t use_count;
    uint32_t *resumes;       /* offsets where jumps go on, the last site's excepted */
    size_t resume_count;
    uint32_t limit;          /* return offset that must not be used */
    uint32_t data_word;      /* offset of the data's address in the code, or SYNTH_NONE */
    bool has_prologue;       /* else the run begins at targets->enter */
    bool runs;               /* there is a way out */
    uint64_t sum;            /* of the addresses that loads find */
    unsigned moved;          /* sites that are not at their recorded offset */
    size_t code_capacity, data_capacity, site_capacity; /* of the arrays above */
    uint32_t *symbol_uses;   /* for each symbol its use in this trace, or SYNTH_NONE */
    struct synth_unit *units;
};

/* False: no memory. */
bool synth_init(struct synth *synth, size_t symbol_count);

void synth_free(struct synth *synth);

/*
 * Synthesize a trace.  `symbols` has the pool's symbols in the order of the
 * recording's.  False: no memory or no room, and `error` says which.
 */
bool synth_trace(struct synth *synth, const struct recording *recording,
                 const struct recorded_trace *trace, enum stress_form form,
                 const pp_symbol *symbols, const struct targets *targets, char *error,
                 size_t error_size);

/* True if these bytes are the data that was synthesized, of a trace linked at `entry`. */
bool synth_data_intact(const struct synth *synth, const uint8_t *data, const void *entry);

#endif
