/* SPDX-License-Identifier: MIT */
/*
 * Traces: code that is placed, linked and published as one unit.
 *
 * A trace is described by its bytes and its ELF relocations, because that is
 * what stencil compilers and object files give.  The library counts the
 * trampolines it needs before it is placed: one for each distinct symbol that
 * the region cannot reach, and none otherwise.
 *
 *      pp_symbol add = pp_symbol_define(pool, "rt_add", (void *) rt_add);
 *      pp_reloc relocs[] = { { .offset = 17, .type = R_X86_64_PLT32,
 *                              .symbol = add, .addend = -4 } };
 *      pp_trace_desc desc = { .size = sizeof desc, .code = bytes, .code_size = n,
 *                             .relocs = relocs, .reloc_count = 1 };
 *      status = pp_trace_link(pool, &desc, &trace);
 *      ((void (*)(void)) pp_trace_entry(trace))();
 */
#ifndef PATCHPOINT_TRACE_H
#define PATCHPOINT_TRACE_H

#include <patchpoint/osr.h>
#include <patchpoint/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- symbols ---------------------------------------------------------- */

/* A symbol of a pool: a small number, valid as long as the pool. */
typedef uint32_t pp_symbol;

#define PP_SYMBOL_NONE 0u       /* no symbol: an error, or the value 0 in a relocation */
#define PP_SYMBOL_CODE 1u       /* the first byte of the trace's own code */
#define PP_SYMBOL_DATA 2u       /* the first byte of the trace's own data */
#define PP_SYMBOL_PATCHPOINT_GPR 3u  /* the patchpoint stub of PP_SAVE_GPR */
#define PP_SYMBOL_PATCHPOINT_V128 4u /* of PP_SAVE_V128 */
#define PP_SYMBOL_LEAVE 5u      /* pp_leave: calls from compiled code to C */
#define PP_SYMBOL_PATCHPOINT_ABI 6u
#define PP_SYMBOL_PATCHPOINT_V256 7u /* x86-64: elsewhere there is no such stub */
#define PP_SYMBOL_PATCHPOINT_V512 8u /* x86-64 */
#define PP_SYMBOL_PATCHPOINT_MASK 9u
#define PP_SYMBOL_PATCHPOINT_M256 10u /* of PP_SAVE_MASK256; x86-64 */
#define PP_SYMBOL_PATCHPOINT_M512 11u /* of PP_SAVE_MASK512; x86-64 */

/*
 * Give an address a name in the pool.  The name is copied.  The same name with
 * the same address gives the same symbol again; with another address it is an
 * error.  Without a name (NULL), one symbol for each address: for targets that
 * the host knows only as values.  PP_SYMBOL_NONE on error: another address
 * for the name, a null address, or no memory.
 */
PP_API pp_symbol pp_symbol_define(pp_pool *pool, const char *name, const void *address);

enum pp_symbol_flags {
    PP_SYMBOL_RETARGETABLE = 1u << 0 /* pp_symbol_retarget may move it */
};

/*
 * Define a symbol with flags; pp_symbol_define is the same without any.  A name
 * that was given with other flags is an error, as one with another address is.
 * The address of a retargetable symbol may be the one that it was declared with,
 * or its present one; it is an address of an instruction, aligned as such.
 * Without a name it is one symbol for each address that it may be declared with,
 * and another one than pp_symbol_define gives.
 *
 * Traces refer to a retargetable symbol through a literal of their region, which
 * lies in no page of code, also when it is near, and when the trampoline is the
 * trace's own.  A relocation that would make its address a part of the trace (of
 * data, or of an instruction without a GOT slot or trampoline) is PP_E_ARG.
 */
PP_API pp_symbol pp_symbol_declare(pp_pool *pool, const char *name, const void *address,
                                   uint32_t flags);

/*
 * Move a retargetable symbol, near or far: one aligned 8-byte store for each region with
 * traces that refer to it.  All of them follow, and those that are linked later.  Legal
 * while threads run them: a call that is on its way goes to the old target or to the new
 * one, and at the new one it sees what this thread has stored before.  On AArch64 this
 * takes a barrier on all cores, a system call.  The old target has to stay until no thread
 * can be on its way to it or in it, which is for the host to know.  The library holds
 * neither.
 *
 * Takes one lock; may be called from any thread, but not from a signal handler.
 * After a fork, each process moves the symbol for itself alone, inherited traces
 * included.  PP_E_ARG: no symbol of the pool, a null or misaligned address.
 * PP_E_UNSUPPORTED: the symbol is not retargetable.
 */
PP_API pp_status pp_symbol_retarget(pp_pool *pool, pp_symbol symbol, const void *address,
                                    pp_error *error) PP_MUST_CHECK;

/* The present address of a symbol, or NULL. */
PP_API const void *pp_symbol_address(pp_pool *pool, pp_symbol symbol);

/* ---- linking ---------------------------------------------------------- */

/*
 * A handle: not an address.  Any value may be passed to the functions that take one.  No
 * value is given out twice as long as the process lives, by any pool: see span.h.
 */
typedef struct pp_trace pp_trace;

enum pp_reloc_section { PP_IN_CODE = 0, PP_IN_DATA = 1 };

/*
 * One relocation, with the numbers of the ELF psABI (<elf.h>) of the machine.
 * x86-64: 64, 32, 32S, PC32, PC64, PLT32, GOTPCREL, GOTPCRELX, REX_GOTPCRELX.
 * AArch64: ABS64, ABS32, PREL64, PREL32, CALL26, JUMP26, CONDBR19, TSTBR14,
 * ADR_PREL_LO21, LD_PREL_LO19, ADR_PREL_PG_HI21, ADD_ABS_LO12_NC,
 * LDST8/16/32/64/128_ABS_LO12_NC, MOVW_UABS_G0 .. G3 and their _NC forms,
 * ADR_GOT_PAGE, LD64_GOT_LO12_NC.
 *
 * PLT32, CALL26 and JUMP26 go through a trampoline when the symbol is far.
 * GOT loads read a literal, or become address computations and direct calls
 * when the symbol is near.  Trampolines touch x16 only, and on x86-64
 * no register.
 */
typedef struct pp_reloc {
    uint32_t offset;   /* of the field or instruction, from the start of its section */
    uint16_t type;
    uint16_t section;  /* enum pp_reloc_section */
    pp_symbol symbol;
    uint32_t reserved; /* 0 */
    int64_t addend;
} pp_reloc;

enum pp_trace_flags {
    PP_TRACE_OWN_TRAMPOLINES = 1u << 0 /* trampolines and literals inside the trace, none shared */
};

typedef struct pp_trace_desc {
    size_t size;                /* sizeof(pp_trace_desc) */
    const char *name;           /* copied; NULL is allowed */
    const void *code;           /* copied */
    size_t code_size;           /* at least 1 */
    const void *data;           /* copied behind the code; readable, not writable, once published */
    size_t data_size;
    size_t align;               /* of the code: a power of two from 16 to 65536; 0: 16 */
    size_t data_align;          /* a power of two up to 4096; 0: 8 */
    const pp_reloc *relocs;
    size_t reloc_count;
    size_t entry;               /* offset of the entry in the code */
    const pp_frame_rule *frame; /* how to unwind the trace; NULL: PP_FRAME_NONE */
    uint32_t flags;             /* enum pp_trace_flags */
    void *host;                 /* handed back by pp_trace_host and the walker */
    pp_error *error;
} pp_trace_desc;

/* The exact bytes of a trace, known before it is placed. */
typedef struct pp_trace_size {
    size_t size;             /* set by the caller */
    size_t code, data;       /* as described */
    unsigned trampolines;    /* inside the trace */
    unsigned literals;       /* inside the trace, those of trampolines included */
    size_t trampoline_bytes; /* code of the trampolines inside the trace */
    size_t literal_bytes;
    size_t padding;          /* to align data and literals */
    size_t total;            /* sum of the above: the span that is taken */
    unsigned shared_new;     /* shared trampolines and literals that the region does not have yet */
} pp_trace_size;

/*
 * What pp_trace_link would take if it were called next.  Leaves nothing placed,
 * but may open the region that the trace would be the first of, and fails as a
 * link would: PP_E_NOMEM, PP_E_ARG, PP_E_SYSTEM.
 */
PP_API pp_status pp_trace_measure(pp_pool *pool, const pp_trace_desc *desc,
                                  pp_trace_size *size) PP_MUST_CHECK;

/*
 * Place, relocate and publish a trace.  When it has returned PP_OK, any thread that learns
 * the entry may go there, and executes this code: as with pp_span_publish (span.h), a plain
 * load of the address is enough, and on AArch64 it takes a barrier on all cores.  Errors:
 * PP_E_RANGE names the relocation that does not fit, PP_E_ARG one that is
 * misaligned, unknown or outside its section; PP_E_NOMEM.
 */
PP_API pp_status pp_trace_link(pp_pool *pool, const pp_trace_desc *desc,
                               pp_trace **trace) PP_MUST_CHECK;

/*
 * Link `count` traces, all or none, as if by pp_trace_link, but with one operation
 * on the caches and at most one barrier on all cores.  Every description is
 * validated before anything is placed.  What is refused is said in the `error` of
 * the description at fault, and `traces` is left alone.
 */
PP_API pp_status pp_trace_link_batch(pp_pool *pool, const pp_trace_desc *const *descs,
                                     size_t count, pp_trace **traces) PP_MUST_CHECK;

/*
 * Release a trace.  No thread may be running it or about to.  PP_E_STALE for a
 * handle that was released or retired, PP_E_FAULT for one that was never given out,
 * PP_E_BUSY while an entry or a pin points into it.  PP_E_SYSTEM, PP_E_NOMEM: with
 * PP_WX_FLIP, if the kernel refuses to clear the code; the trace is as it was.
 */
PP_API pp_status pp_trace_free(pp_pool *pool, pp_trace *trace) PP_MUST_CHECK;

/*
 * The entry address, or NULL for a stale handle: of a trace that was freed or retired.
 * Lock-free, async-signal-safe.
 */
PP_API const void *pp_trace_entry(const pp_trace *trace);

/* The host's pointer of the description, also of a retired trace, or NULL: it is gone. */
PP_API void *pp_trace_host(const pp_trace *trace);

/* What the trace took.  PP_E_STALE, PP_E_FAULT. */
PP_API pp_status pp_trace_get_size(const pp_trace *trace, pp_trace_size *size) PP_MUST_CHECK;

/*
 * The trace whose span holds this address, live or retired, or NULL.  Lock-free and
 * async-signal-safe.
 */
PP_API pp_trace *pp_trace_at(const void *address);

/* ---- emitting in place ------------------------------------------------ */

/*
 * For hosts that emit into the final memory: reserve a span, write through
 * `write` while computing addresses from `execute`, then commit or abandon.
 * Both pointers stay valid until then.  A reservation belongs to one thread, and ends
 * once: a copy of the struct is PP_E_STALE from then on, whatever becomes of the trace.
 */
typedef struct pp_reservation {
    size_t size;         /* set by the caller to sizeof(pp_reservation) */
    void *write;         /* where to store */
    const void *execute; /* where the same byte will run */
    size_t capacity;     /* bytes that may be used, at least what was asked for */
    void *internal;
} pp_reservation;

PP_API pp_status pp_trace_reserve(pp_pool *pool, size_t capacity, const pp_frame_rule *frame,
                                  pp_reservation *reservation, pp_error *error) PP_MUST_CHECK;

/*
 * Publish the first `used` bytes of a reservation as a trace and give back the
 * rest.  `desc` may be NULL; of it, name, entry, relocations (applied to the
 * bytes in place; symbols must be near or in the trace itself, because the
 * span has no room for trampolines unless they are shared), host and error
 * count.  On error the reservation stays as it is.  PP_E_STALE: it was committed or
 * abandoned, or is the parent's of this child; PP_E_BUSY: another thread is committing it;
 * PP_E_FAULT: not of this pool; else as pp_trace_link.
 */
PP_API pp_status pp_trace_commit(pp_pool *pool, pp_reservation *reservation, size_t used,
                                 const pp_trace_desc *desc, pp_trace **trace) PP_MUST_CHECK;

/*
 * Give the reservation back.  PP_E_STALE: it was committed or abandoned; PP_E_BUSY: another
 * thread is committing it; PP_E_FAULT: not of this pool.
 */
PP_API pp_status pp_trace_abandon(pp_pool *pool, pp_reservation *reservation) PP_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
