/* SPDX-License-Identifier: MIT */
/*
 * The assembler stubs as C sees them.
 *
 * Every stub has a row in a read-only table, which the linker collects from
 * the rows that STUB_ROW of asm.h emits.  With it a walker knows where the
 * frame record is at every instruction of a stub:
 *
 *      offset < pushed             nothing pushed: return address at [sp]; in x30
 *      pushed <= offset < set      the record is at [sp], FP is the caller's
 *      set <= offset < popped      the record is at [FP]
 *      popped <= offset            as before `pushed`
 *
 * STUB_RESUME has no record.  Until `set` it is an ordinary function in C's
 * frame; from `set` on FP is the frame record of the compiled frame that it
 * continues in, and the place to continue at is in r11 (x16).
 */
#ifndef STUB_H
#define STUB_H

/* Kinds of stubs, for assembler, too. */
#define STUB_ENTER 1
#define STUB_LEAVE 2
#define STUB_PATCHPOINT 3
#define STUB_RESUME 4
#define STUB_TRANSITION 5

/* struct entry: what the transition stub reads. */
#define ENTRY_THREAD_OFFSET 0

#ifndef __ASSEMBLER__

#include <patchpoint/activation.h>
#include <patchpoint/osr.h>

#include <stddef.h>
#include <stdint.h>

struct stub {
    int32_t start;  /* of the code, from the address of this row */
    uint32_t size;  /* in bytes */
    uint16_t kind;  /* STUB_ENTER .. */
    uint16_t pushed, set, popped; /* offsets in the code */
    char name[16];  /* terminated */
};

_Static_assert(sizeof(struct stub) == 32, "STUB_ROW emits 32 bytes");

extern const struct stub stub_table[] __asm__("__start_pp_stub_table")
    __attribute__((visibility("hidden")));
extern const struct stub stub_table_end[] __asm__("__stop_pp_stub_table")
    __attribute__((visibility("hidden")));

static inline uintptr_t stub_start(const struct stub *stub)
{
    return (uintptr_t) stub + (uintptr_t) (intptr_t) stub->start;
}

/* The stub that holds this address, or NULL.  Async-signal-safe. */
static inline const struct stub *stub_at(uintptr_t pc)
{
    for (const struct stub *stub = stub_table; stub < stub_table_end; stub++)
        if (pc - stub_start(stub) < stub->size)
            return stub;
    return NULL;
}

/* The activation record that pp_enter keeps at FP + PP_ENTER_ANCHOR_OFFSET. */
struct anchor {
    uintptr_t previous; /* the one below, or 0 */
    uintptr_t exit_fp;  /* of the thread, when C entered */
    uintptr_t fp;       /* frame record of pp_enter */
    uintptr_t cookie;   /* thread's cookie ^ address of this record */
};

/*
 * The one return address of pp_enter: the end of every activation.  It has no symbol in the
 * code, which tools would show in place of pp_enter, so its distance from here is kept.
 */
extern const int32_t enter_return_distance __attribute__((visibility("hidden")));
#define enter_return ((const char *) &enter_return_distance + enter_return_distance)

/* Called by pp_enter on a stack that is not the thread's: note where a signal stack is. */
void enter_elsewhere(pp_thread *thread) __attribute__((visibility("hidden")));

/* Targets of a site's call, one for each save class.  Not C functions. */
extern const char patchpoint_abi[] __attribute__((visibility("hidden")));
extern const char patchpoint_gpr[] __attribute__((visibility("hidden")));
extern const char patchpoint_v128[] __attribute__((visibility("hidden")));
#if defined __x86_64__
extern const char patchpoint_v256[] __attribute__((visibility("hidden")));
extern const char patchpoint_v512[] __attribute__((visibility("hidden")));
extern const char patchpoint_m256[] __attribute__((visibility("hidden")));
extern const char patchpoint_m512[] __attribute__((visibility("hidden")));
#endif
extern const char patchpoint_mask[] __attribute__((visibility("hidden")));

/*
 * The C side of a patchpoint's slow path, first the pass that only counts: returns where the
 * site goes on, or 0 with nothing done, and patchpoint_slow is asked.  `fp` is the site's,
 * `pc` the return address into it.  Keeps all registers that are not general ones.
 */
struct site_record;
uintptr_t patchpoint_count(struct site_record *record, uintptr_t fp, uintptr_t pc)
    __attribute__((visibility("hidden")));

/*
 * And the others: returns where the site goes on.  What it leaves in `regs` is loaded: the
 * registers of the class that C functions may change, floating point control, DF; if
 * record->edited those, too, that C functions keep.
 */
uintptr_t patchpoint_slow(struct site_record *record, struct pp_regs *regs)
    __attribute__((visibility("hidden")));

/* Registers that functions keep: rbx, r12-r15; x19-x28, d8-d15. */
#if defined __x86_64__
#define FORCE_KEPT 5
#else
#define FORCE_KEPT 18
#endif

/* Call a pass, and tell what those registers were before and after it. */
struct site;
uintptr_t force_call(uintptr_t (*pass)(struct site *, uint32_t, struct pp_regs *),
                     struct site *site, uint32_t state, struct pp_regs *regs,
                     uint64_t kept[2][FORCE_KEPT]) __attribute__((visibility("hidden")));

/* Fill all vector registers of so many bytes, 16, 32 or 64, but what functions keep. */
void force_fill(uint64_t pattern, unsigned bytes) __attribute__((visibility("hidden")));

/* Called by the code of an entry.  Not a C function. */
extern const char frame_move[] __attribute__((visibility("hidden")));

/*
 * The C side of a transition: moves the values, and returns the body's code.  All
 * registers of `regs` are loaded afterwards but SP and FP.
 */
struct entry;
uintptr_t transition_run(const struct entry *entry, struct pp_regs *regs)
    __attribute__((visibility("hidden")));

/*
 * Continue at a point, which the caller has validated, and drop the thread's
 * exit record.  Returns only when a shadow stack is active, with nothing moved.
 */
void frame_resume(pp_thread *thread, const pp_resume_point *point)
    __attribute__((visibility("hidden")));

#endif /* __ASSEMBLER__ */
#endif
