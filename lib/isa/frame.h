/* SPDX-License-Identifier: MIT */
/*
 * Where the frame of an interrupted function is, told from the instructions that it is
 * about to run.
 *
 * Code made by compilers has one frame state at each instruction.  So any path from
 * the interrupted instruction to a place that shows where the frame is tells where
 * it is now: a return finds its address, a tail call leaves the frame as the function
 * found it, and a call has a frame record below FP if the code keeps its rule.  The
 * paths are followed by number: SP and FP are known, what instructions do to them is
 * computed, and anything else makes them unknown, which proves nothing.
 *
 * Pure functions over bytes, without recursion or allocation, for both architectures
 * on every host.  About 4 KiB of stack; may run in signal handlers.
 */
#ifndef ISA_FRAME_H
#define ISA_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that may be read: those at `bytes` run at [start, start + size). */
struct frame_code {
    const uint8_t *bytes;
    uint64_t start;
    size_t size;
    uint32_t cfa_offset; /* of its rule, from FP to the caller's SP */
};

/* What is at an address that a jump leads to. */
enum frame_target {
    FRAME_TARGET_CODE,     /* compiled code or a trampoline: `code` has it */
    FRAME_TARGET_FUNCTION, /* a function that is no compiled code: it is entered by a tail call */
    FRAME_TARGET_NOWHERE   /* nothing that is known */
};

/* The interrupted registers, and what may be read. */
struct frame_query {
    uint64_t pc, sp, fp, link;      /* link: x30 */
    uint64_t scratch;               /* r11; x16: what trampolines jump by */
    uint64_t stack_lo, stack_hi;    /* memory of the stack that may be read */
    struct frame_code code;         /* around pc */
    enum frame_target (*target)(void *context, uint64_t address, struct frame_code *code);
    bool (*literal)(void *context, uint64_t address, uint64_t *value); /* a constant of the code */
    /* Whether a direct call of this target is only made with the frame's record at FP. */
    bool (*needs_record)(void *context, uint64_t target);
    void *context;
};

/* What is proven of the frame. */
struct frame_answer {
    uint64_t return_address;  /* as it is in memory or x30: perhaps signed */
    uint64_t caller_fp;
    uint64_t cfa;             /* SP before the call */
    uint64_t record;          /* where a complete frame record is; 0: there is none */
    bool by_value;            /* it is taken for this frame's record because it has the caller's FP */
};

enum frame_proof {
    FRAME_UNKNOWN,   /* no path shows it */
    FRAME_PROVEN,    /* `answer` is so */
    FRAME_PROMISED,  /* the frame record at FP, if the code keeps its rule: calls were seen, but
                        nothing that says that FP is this function's */
    FRAME_CONTRADICTED /* paths disagree: the code does not keep its rule, or is not understood */
};

/* ---- between the engine and an architecture --------------------------- */

enum frame_value_kind {
    VALUE_UNKNOWN,
    VALUE_INITIAL,   /* what the register had when it was interrupted */
    VALUE_LOADED,    /* a word of the stack at `from` */
    VALUE_COMPUTED   /* from others, or a constant */
};

struct frame_value {
    enum frame_value_kind kind;
    uint64_t n, from;
};

enum { FRAME_STORED_MAX = 4, FRAME_NO_REGISTER = 0xff };

/* One path, as far as it has been followed. */
struct frame_path {
    uint64_t pc;
    struct frame_code code;          /* around pc */
    struct frame_value sp, fp, link; /* x86-64 has no link */
    struct frame_value spare;        /* of one more register, whichever had a known value last */
    uint8_t spare_register;
    uint8_t stored_count;
    bool fp_is_set;                  /* FP was set to an address of this function's frame */
    bool link_is_stored;             /* x30 was stored */
    bool has_called;                 /* what follows is right only if the call returned */
    struct {
        uint64_t address;
        struct frame_value value;
    } stored[FRAME_STORED_MAX];      /* words of the stack that this path wrote */
};

enum frame_event {
    FRAME_NEXT,      /* goes on behind the instruction */
    FRAME_BRANCH,    /* may also go on at `target` */
    FRAME_JUMP,      /* goes on at `target` */
    FRAME_CALL,
    FRAME_RETURN,    /* as a return or tail call: `leaves` is filled in */
    FRAME_STOP       /* nobody knows */
};

struct frame_step {
    enum frame_event event;
    unsigned length;
    uint64_t target;
};

/* What a function leaves that ends here: where its caller is. */
struct frame_leaving {
    struct frame_value return_address;
    uint64_t cfa;
    bool known;
};

struct frame_machine {
    /* Run the instruction at path->pc; `bytes` has `available` of them. */
    struct frame_step (*step)(const struct frame_query *query, struct frame_path *path,
                              const uint8_t *bytes, size_t available);
    /* At a return, or at a tail call. */
    struct frame_leaving (*leave)(const struct frame_query *query, const struct frame_path *path);
    /* A call has returned: what is left of the registers. */
    void (*returned)(struct frame_path *path);
    bool record_has_cfa; /* the CFA lies right above the record, whatever the rule */
    uint8_t scratch;     /* the register that the query has the value of */
    uint32_t red_zone;   /* bytes below SP that a function may use */
};

extern const struct frame_machine frame_x86_64, frame_aarch64;

/* A word of the stack as the path sees it. */
struct frame_value frame_load(const struct frame_machine *machine, const struct frame_query *query,
                              const struct frame_path *path, uint64_t address);
void frame_store(const struct frame_query *query, struct frame_path *path, uint64_t address,
                 struct frame_value value);

/* value + distance; unknown stays unknown. */
struct frame_value frame_add(struct frame_value value, uint64_t distance);

enum frame_proof frame_find(const struct frame_machine *machine, const struct frame_query *query,
                            struct frame_answer *answer);

/*
 * The same behind a call that is about to return to query->pc; query->sp is what SP will be.
 * FRAME_PROVEN: the code agrees with the record at FP.  FRAME_CONTRADICTED: it finds its
 * caller elsewhere, which `answer` says.  FRAME_UNKNOWN: it says nothing.  As a call that never
 * returns may be followed by anything, a contradiction is a reason to doubt, no proof.
 */
enum frame_proof frame_find_returned(const struct frame_machine *machine,
                                     const struct frame_query *query,
                                     struct frame_answer *answer);

/*
 * Whether code that is entered at code->start as functions are makes a frame record in its first
 * instructions, before any branch; *distance: from the record to the CFA.
 */
bool frame_made_at_entry(const struct frame_machine *machine, const struct frame_code *code,
                         uint64_t *distance);

/*
 * `pc` lies in code of the library's emitters that a call to one of its stubs comes
 * right before.  Follows the instructions from `from`, the call's return address, where
 * FP has the frame's record, to pc.  False: they do not lead there in a straight line.
 * *popped: the record was popped on the way.
 */
bool frame_behind_call(const struct frame_machine *machine, const struct frame_code *code,
                       uint64_t from, uint64_t pc, bool *popped);

#endif
