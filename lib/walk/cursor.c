/* SPDX-License-Identifier: MIT */
/*
 * The cursor: from the innermost compiled frame to the outermost, over the
 * activations of one thread.
 *
 * A frame is reported together with the checks of how it leads to its caller,
 * so a broken one is the last that a walk reports, and its verdict says why.
 * What is known of the next frame waits in the cursor:
 *
 *      AT_TOP      pc, fp, sp and lr are registers; pc may be anywhere
 *      AT_POINT    pc is where pp_resume is about to jump; fp, sp and lr as above
 *      AT_SITE     pc is a return address that nothing has checked
 *      AT_RETURN   pc is a return address in a trace, checked; fp its frame record
 *      AT_EXIT     fp is the frame record of a stub that called C
 *      AT_ENTRY    fp is pp_enter's, from a compiled frame that returns there
 *      AT_GAP      pp_enter, with nothing seen of what it called
 *      AT_ANCHOR   pp_enter, which the anchor alone says; nothing is hidden
 *      ENDED_*     nothing; the walk ends for this reason
 *
 * sp is the floor of what can come next: SP at the start, then the CFA of the
 * last frame.  anchor is the activation that the frames belong to.
 */
#include <config.h>

#include "walk/check.h"

#include "link/trace.h"
#include "walk/interrupted.h"

#include <string.h>
#include <ucontext.h>

enum walk_state {
    AT_TOP, AT_POINT, AT_SITE, AT_RETURN, AT_EXIT, AT_ENTRY, AT_GAP, AT_ANCHOR,
    ENDED_ROOT, ENDED_UNKNOWN, ENDED_BROKEN
};

/* Uses of walk->reserved.  PLACE_*: the code_place of an AT_RETURN's pc. */
enum { PLACE_REGION, PLACE_START, PLACE_OWNER, PLACE_GENERATION };
/* AT_TOP: what the stub of pp_resume has in r11 and rcx, x16 and x2. */
enum { POINT_PC, POINT_SP };

enum { RECORD_SIZE = sizeof(struct frame_record) };

/*
 * In walk->frames.  GUESSED: how the frames since the last anchor follow each other is a guess.
 * UNSAVED: FP is not from a record that FP led to, but from the register, or from where code may
 * have saved it for its own purposes.
 */
#define GUESSED (~0u / 2 + 1)
#define UNSAVED (GUESSED >> 1)
#define FRAMES (UNSAVED - 1)

/* ---- where a walk goes on ------------------------------------------------ */

/*
 * C code runs, in an activation or in none.  Its own frames are not looked at:
 * the thread's exit record says where compiled code was left.  pp_enter
 * publishes its record before it clears the exit record, and restores that
 * before it drops its own: an exit record that is older than the anchor, and so
 * above it, belongs to the activation before, and nothing runs in the newest.  So it is with one
 * on another stack.
 */
static void continue_in_c(pp_walk *walk, uintptr_t anchor, uintptr_t exit_fp)
{
    bool elsewhere = check_in_stack(walk->thread, anchor, 0)
                  && check_in_stack(walk->thread, exit_fp, 0)
                  && !check_same_stack(walk->thread, anchor, exit_fp);
    walk->anchor = anchor;
    walk->fp = exit_fp;
    if (exit_fp == 0)
        walk->state = anchor == 0 ? ENDED_ROOT : AT_GAP;
    else if (anchor == 0 || (exit_fp < anchor && !elsewhere))
        walk->state = AT_EXIT;
    else
        walk->state = AT_ANCHOR;
    /* Another stack is neither above nor below. */
    uintptr_t next = walk->state == AT_EXIT ? exit_fp : anchor;
    if (!check_same_stack(walk->thread, walk->sp, next))
        walk->sp = 0;
}

/* The frame is there, but where it leads to is not known. */
static int unknown(pp_walk *walk, pp_frame *frame)
{
    frame->verdict = PP_VERDICT_UNSURE;
    frame->fp = frame->cfa = 0;
    walk->state = ENDED_UNKNOWN;
    return 1;
}

/*
 * A guess that fails says nothing of the stack; nor does what was in the register, which code
 * without frame pointers has its own use for.
 */
static int broken(pp_walk *walk, pp_frame *frame, pp_check check)
{
    if (walk->frames & (GUESSED | UNSAVED))
        return unknown(walk, frame);
    frame->verdict = PP_VERDICT_BROKEN;
    frame->check = check;
    walk->state = ENDED_BROKEN;
    return 1;
}

/* AT_RETURN: where pc is. */
static struct code_place place_of(const pp_walk *walk)
{
    return (struct code_place) {
        .region = (struct region *) walk->reserved[PLACE_REGION],
        .start = walk->reserved[PLACE_START],
        .owner = (const struct owner *) walk->reserved[PLACE_OWNER],
        .generation = (uint32_t) walk->reserved[PLACE_GENERATION],
    };
}

/* Whether a return address is in the code of the trace that the walk is in: methods recurse. */
static bool in_same_trace(const pp_walk *walk, uintptr_t return_address)
{
    if (walk->state != AT_RETURN)
        return false;
    const struct code_place place = place_of(walk);
    const struct trace *trace = trace_of(&place);
    return trace != NULL && return_address - 1 - place.start < trace_code_size(trace);
}

/* The frame's caller is at this return address, if that is one. */
static pp_check continue_at(pp_walk *walk, uintptr_t return_address, uintptr_t fp, uintptr_t sp)
{
    pp_check check;
    return_address = check_strip(return_address);
    if (in_same_trace(walk, return_address)) {
        check = check_call(return_address, walk->reserved[PLACE_START]);
        if (check != PP_CHECK_NONE)
            return check;
    } else {
        struct code_place place;
        enum return_to to;
        check = check_return(return_address, &to, &place);
        if (check != PP_CHECK_NONE)
            return check;
        walk->state = to == RETURN_ENTER ? AT_ENTRY : AT_RETURN;
        if (to == RETURN_TRACE) {
            walk->reserved[PLACE_REGION] = (uintptr_t) place.region;
            walk->reserved[PLACE_START] = place.start;
            walk->reserved[PLACE_OWNER] = (uintptr_t) place.owner;
            walk->reserved[PLACE_GENERATION] = place.generation;
        }
    }
    walk->pc = return_address;
    walk->fp = fp;
    walk->sp = sp;
    return PP_CHECK_NONE;
}

/* A frame with its record at fp. */
static int frame_with_record(pp_walk *walk, pp_frame *frame, uintptr_t fp, uint32_t cfa_offset)
{
    struct frame_record record;
    frame->fp = fp;
    pp_check check = check_record(walk->thread, fp, cfa_offset, walk->sp, &record);
    if (check == PP_CHECK_NONE) {
        frame->cfa = fp + cfa_offset;
        check = continue_at(walk, record.return_address, record.caller_fp, frame->cfa);
    }
    return check == PP_CHECK_NONE ? 1 : broken(walk, frame, check);
}

/* SP before the call that led here, in code that has not moved SP. */
static uintptr_t leaf_cfa(const pp_walk *walk)
{
#if defined __x86_64__
    return walk->sp + sizeof(uintptr_t);
#else
    return walk->sp;
#endif
}

/* Code that has not moved SP: the return address is where the call left it. */
static pp_check continue_from_leaf(pp_walk *walk, pp_frame *frame)
{
    uintptr_t return_address = walk->lr, cfa = leaf_cfa(walk);
#if defined __x86_64__
    pp_check check = check_word(walk->thread, walk->sp, &return_address);
#else
    pp_check check = walk->sp % 16 != 0 ? PP_CHECK_ALIGN
                     : check_in_stack(walk->thread, walk->sp, 0) ? PP_CHECK_NONE : PP_CHECK_BOUNDS;
#endif
    if (check != PP_CHECK_NONE)
        return check;
    check = continue_at(walk, return_address, walk->fp, cfa);
    if (check != PP_CHECK_NONE)
        return check;
    frame->cfa = cfa;
    /* Code without a record need not keep FP for pp_enter: it has saved it nowhere. */
    if (walk->state == AT_ENTRY)
        walk->state = AT_ANCHOR;
    return PP_CHECK_NONE;
}

static int frame_of_leaf(pp_walk *walk, pp_frame *frame)
{
    pp_check check = continue_from_leaf(walk, frame);
    return check == PP_CHECK_NONE ? 1 : broken(walk, frame, check);
}

/* ---- traces ----------------------------------------------------------- */

static void describe_trace(pp_frame *frame, const struct code_place *place)
{
    const struct trace *trace = trace_of(place);
    if (trace == NULL) /* a span of the host */
        return;
    frame->trace = trace_handle(place);
    frame->name = trace_name(trace);
    frame->host = trace_host(trace);
}

static int frame_by_rule(pp_walk *walk, pp_frame *frame, const struct frame_rule *rule)
{
    frame->kind = rule->kind == PP_FRAME_OSR ? PP_WALK_OSR : PP_WALK_TRACE;
    switch (rule->kind) {
    case PP_FRAME_RECORD:
    case PP_FRAME_OSR:
        return frame_with_record(walk, frame, walk->fp, rule->cfa_offset);
    case PP_FRAME_LEAF:
        return frame_of_leaf(walk, frame);
    case PP_FRAME_NONE:
        break;
    }
    return unknown(walk, frame);
}

/* What was proven of a frame that need not have a record. */
static int frame_as_found(pp_walk *walk, pp_frame *frame, const struct frame_answer *answer)
{
    const uintptr_t interrupted_fp = walk->fp;
    frame->fp = answer->record;
    pp_check check = check_cfa(walk->thread, answer->cfa, walk->sp);
    if (check != PP_CHECK_NONE)
        return broken(walk, frame, check);
    frame->cfa = answer->cfa;
    check = continue_at(walk, answer->return_address, answer->caller_fp, answer->cfa);
    if (check != PP_CHECK_NONE) /* without a record, a return may stand for a jump: a retpoline */
        return answer->record != 0 ? broken(walk, frame, check) : unknown(walk, frame);
    /* Code without a record need not keep FP for pp_enter: it has saved it nowhere. */
    if (walk->state == AT_ENTRY && answer->record == 0)
        walk->state = AT_ANCHOR;
    if (answer->record != interrupted_fp)
        walk->frames |= UNSAVED;
    return 1;
}

/*
 * Code was interrupted at pc: the frame may be half built, half gone, or not there.  What
 * cannot be proven is guessed to be as at calls, with its record at FP.
 */
static int frame_by_proof(pp_walk *walk, pp_frame *frame, struct region *region,
                          uint32_t cfa_offset, uintptr_t start, size_t size)
{
    const struct interrupted at = {
        .thread = walk->thread, .region = region, .pc = walk->pc, .sp = walk->sp, .fp = walk->fp,
        .link = walk->lr, .scratch = walk->reserved[POINT_PC], .start = start, .size = size,
        .cfa_offset = cfa_offset,
    };
    struct frame_answer answer;
    switch (interrupted_find(&at, &answer)) {
    case IN_FOUND:
        return frame_as_found(walk, frame, &answer);
    case IN_RECORD:
        return frame_with_record(walk, frame, walk->fp, cfa_offset);
    case IN_NOTHING:
        return frame_of_leaf(walk, frame);
    case IN_UNKNOWN:
        break;
    }
    walk->frames |= GUESSED;
    return frame_with_record(walk, frame, walk->fp, cfa_offset);
}

static bool has_record(const struct frame_rule *rule)
{
    return rule->kind == PP_FRAME_RECORD || rule->kind == PP_FRAME_OSR;
}

/*
 * A trampoline, on its way to a function: code called it, or jumped to it in the
 * midst of its frame.  Where it leads to tells which.  `rule` is that of the trace that it
 * is a part of, NULL in an island.
 */
static int frame_of_trampoline(pp_walk *walk, pp_frame *frame, struct region *region,
                               const struct frame_rule *rule, uintptr_t end)
{
    frame->kind = PP_WALK_TRAMPOLINE;
    if (rule != NULL && rule->kind == PP_FRAME_LEAF)
        return frame_of_leaf(walk, frame);
    return frame_by_proof(walk, frame, region, rule != NULL && has_record(rule) ? rule->cfa_offset
                          : RECORD_SIZE, walk->pc, end - walk->pc);
}

/* Interrupted in a trace: the frame may be half built, or half gone. */
static int frame_of_interrupted(pp_walk *walk, pp_frame *frame, const struct code_place *place)
{
    const struct frame_rule *rule = owner_rule(place->owner);
    size_t code_size = code_bytes_at(place);
    describe_trace(frame, place);
    if (walk->pc - place->start >= code_size)
        return frame_of_trampoline(walk, frame, place->region, rule, place->start + place->size);
    if (walk->state == AT_POINT || !has_record(rule))
        return frame_by_rule(walk, frame, rule);
    frame->kind = rule->kind == PP_FRAME_OSR ? PP_WALK_OSR : PP_WALK_TRACE;
    return frame_by_proof(walk, frame, place->region, rule->cfa_offset, place->start, code_size);
}

/* ---- stubs ------------------------------------------------------------ */

/* pp_enter's frame, whose activation record is walk->anchor. */
static int frame_of_activation(pp_walk *walk, pp_frame *frame)
{
    struct anchor record;
    frame->kind = PP_WALK_ENTRY;
    frame->name = "pp_enter";
    pp_check check = check_anchor(walk->thread, walk->anchor, walk->sp, &record);
    if (check == PP_CHECK_NONE && walk->state == AT_ENTRY && record.fp != walk->fp)
        check = PP_CHECK_ANCHOR;
    if (check != PP_CHECK_NONE)
        return broken(walk, frame, check);
    frame->fp = record.fp;
    frame->cfa = record.fp + RECORD_SIZE;
    if (walk->state == AT_GAP)
        frame->verdict = PP_VERDICT_GAP;
    walk->sp = frame->cfa;
    continue_in_c(walk, record.previous, record.exit_fp);
    return 1;
}

/* Interrupted in pp_enter: an activation if its record is published, else a frame of C. */
static int frame_of_enter(pp_walk *walk, pp_frame *frame, const struct stub *stub, size_t offset)
{
    const pp_thread *thread = walk->thread;
    bool set = offset >= stub->set && offset < stub->popped;
    /* Compiled code need not have kept FP: right behind the call it may be anything. */
    if (walk->pc == (uintptr_t) enter_return) {
        walk->state = AT_ANCHOR;
        return frame_of_activation(walk, frame);
    }
    if (set && walk->fp + (uintptr_t) (intptr_t) PP_ENTER_ANCHOR_OFFSET == thread->anchor) {
        walk->state = AT_ENTRY;
        return frame_of_activation(walk, frame);
    }
    frame->kind = PP_WALK_ENTRY;
    frame->name = stub->name;
    frame->fp = set ? walk->fp : offset >= stub->pushed && offset < stub->popped ? walk->sp : 0;
    frame->cfa = frame->fp != 0 ? frame->fp + RECORD_SIZE : leaf_cfa(walk);
    if (!check_in_stack(thread, frame->cfa, 0))
        return broken(walk, frame, PP_CHECK_BOUNDS);
    if (frame->cfa < walk->sp)
        return broken(walk, frame, PP_CHECK_GROWTH);
    walk->sp = frame->cfa;
    continue_in_c(walk, thread->anchor, thread->exit_fp);
    return 1;
}

/*
 * In the jump of pp_resume: FP is that of the frame to continue in, SP after one
 * more instruction.  It is as if compiled code had called the stub from there.
 */
static int frame_of_resume(pp_walk *walk, pp_frame *frame, const struct stub *stub, size_t offset)
{
    uintptr_t sp = offset >= stub->popped ? walk->sp : walk->reserved[POINT_SP];
    if (sp % 16 != 0 || walk->fp % sizeof(uintptr_t) != 0)
        return broken(walk, frame, PP_CHECK_ALIGN);
    if (!check_in_stack(walk->thread, sp, 0) || !check_in_stack(walk->thread, walk->fp, RECORD_SIZE))
        return broken(walk, frame, PP_CHECK_BOUNDS);
    if (walk->fp < sp)
        return broken(walk, frame, PP_CHECK_GROWTH);
    frame->fp = walk->fp;
    frame->cfa = sp;
    walk->pc = check_strip(walk->reserved[POINT_PC]);
    walk->sp = sp;
    walk->state = AT_POINT;
    return 1;
}

static int frame_of_stub(pp_walk *walk, pp_frame *frame, const struct stub *stub)
{
    size_t offset = walk->pc - stub_start(stub);
    if (stub->kind == STUB_ENTER)
        return frame_of_enter(walk, frame, stub, offset);
    frame->kind = PP_WALK_STUB;
    frame->name = stub->name;
    if (stub->kind == STUB_RESUME)
        return frame_of_resume(walk, frame, stub, offset);
    if (offset >= stub->set && offset < stub->popped)
        return frame_with_record(walk, frame, walk->fp, RECORD_SIZE);
    if (offset >= stub->pushed && offset < stub->popped)
        return frame_with_record(walk, frame, walk->sp, RECORD_SIZE);
    return frame_of_leaf(walk, frame);
}

/* ---- steps ------------------------------------------------------------ */

/* pc is in no stub, island or native code: it must be in a live trace. */
static int step_from_code(pp_walk *walk, pp_frame *frame)
{
    struct code_place place;
    frame->pc = walk->pc;
    frame->kind = PP_WALK_TRACE;
    if (!code_at(walk->pc, &place) || code_bytes_at(&place) == 0)
        return broken(walk, frame, PP_CHECK_CLASS);
    return frame_of_interrupted(walk, frame, &place);
}

/*
 * Until it has loaded the other frame's registers, the stub of pp_resume is a C function; so is
 * pp_enter until it has noted where the signal stack is that it was called on.
 */
static bool is_still_in_c(const pp_walk *walk, const struct stub *stub)
{
    if (stub->kind == STUB_RESUME)
        return walk->pc - stub_start(stub) < stub->set;
    return stub->kind == STUB_ENTER && !check_in_stack(walk->thread, walk->sp, 0);
}

/* From the registers of an interrupted thread.  0: in C; the walk goes on from its anchors. */
static int step_from_top(pp_walk *walk, pp_frame *frame)
{
    const pp_thread *thread = walk->thread;
    const struct stub *stub = stub_at(walk->pc);
    struct region *region = stub == NULL ? region_at(walk->pc) : NULL;
    if (stub != NULL ? is_still_in_c(walk, stub) : region == NULL) {
        if (!check_in_stack(thread, walk->sp, 0)) /* a signal stack: it says nothing about ours */
            walk->sp = 0;
        continue_in_c(walk, thread->anchor, thread->exit_fp);
        return 0;
    }
    frame->pc = walk->pc;
    frame->is_top = 1;
    if (stub != NULL)
        return frame_of_stub(walk, frame, stub);
    if (walk->pc - region->island_lo < region->island_hi - region->island_lo)
        return frame_of_trampoline(walk, frame, region, NULL, region->island_hi);
    return step_from_code(walk, frame);
}

/*
 * At a return address a frame is as its rule has it.  Code that does not keep the rule
 * is doubted: what its own instructions find, or the record at FP, is a guess then.
 */
static int frame_at_return(pp_walk *walk, pp_frame *frame, const struct code_place *place,
                           const struct frame_rule *rule)
{
    const struct interrupted at = {
        .thread = walk->thread, .region = place->region, .pc = walk->pc, .sp = walk->sp,
        .fp = walk->fp, .start = place->start, .size = code_bytes_at(place),
        .cfa_offset = rule->cfa_offset,
    };
    struct frame_answer answer;
    frame->kind = rule->kind == PP_FRAME_OSR ? PP_WALK_OSR : PP_WALK_TRACE;
    enum interrupted_in in = interrupted_returning(&at, place->generation, &answer);
    if (in != IN_RECORD)
        walk->frames |= GUESSED;
    return in == IN_FOUND ? frame_as_found(walk, frame, &answer)
                          : frame_with_record(walk, frame, walk->fp, rule->cfa_offset);
}

static int step_from_return(pp_walk *walk, pp_frame *frame)
{
    struct code_place place = place_of(walk);
    const struct frame_rule *rule = owner_rule(place.owner);
    frame->pc = walk->pc;
    describe_trace(frame, &place);
    return has_record(rule) ? frame_at_return(walk, frame, &place, rule)
                            : frame_by_rule(walk, frame, rule);
}

/* From the registers of a patchpoint: the return address is the stub's, so it is checked here. */
static int step_from_site(pp_walk *walk, pp_frame *frame)
{
    frame->pc = walk->pc;
    frame->kind = PP_WALK_TRACE;
    pp_check check = continue_at(walk, walk->pc, walk->fp, walk->sp);
    if (check == PP_CHECK_NONE && walk->state != AT_RETURN)
        check = PP_CHECK_CLASS;
    if (check != PP_CHECK_NONE)
        return broken(walk, frame, check);
    return step_from_return(walk, frame);
}

/* A site's call is direct, so that its stub is known; pp_leave may be called in any way. */
static const char *exit_name(const pp_walk *walk)
{
    const struct code_place place = place_of(walk);
    const struct interrupted at = { .thread = walk->thread, .region = place.region,
                                    .pc = walk->pc, .start = place.start };
    const struct stub *stub = interrupted_callee(&at);
    return stub != NULL ? stub->name : "pp_leave";
}

static int step_from_exit(pp_walk *walk, pp_frame *frame)
{
    frame->kind = PP_WALK_STUB;
    frame_with_record(walk, frame, walk->fp, RECORD_SIZE);
    if (walk->state == AT_RETURN)
        frame->name = exit_name(walk);
    return 1;
}

static int step(pp_walk *walk, pp_frame *frame)
{
    for (;;) {
        switch ((enum walk_state) walk->state) {
        case AT_TOP:
            if (step_from_top(walk, frame))
                return 1;
            continue;
        case AT_POINT:
            return step_from_code(walk, frame);
        case AT_SITE:
            return step_from_site(walk, frame);
        case AT_RETURN:
            return step_from_return(walk, frame);
        case AT_EXIT:
            return step_from_exit(walk, frame);
        case AT_ENTRY:
        case AT_GAP:
        case AT_ANCHOR:
            frame->pc = (uintptr_t) enter_return;
            return frame_of_activation(walk, frame);
        case ENDED_ROOT:
            walk->end = PP_END_ROOT;
            return 0;
        case ENDED_UNKNOWN:
            walk->end = PP_END_UNKNOWN;
            return 0;
        case ENDED_BROKEN:
            break;
        }
        walk->end = PP_END_BROKEN;
        return 0;
    }
}

/* ---- interface -------------------------------------------------------- */

static void begin(pp_walk *walk, const pp_thread *thread, enum walk_state state)
{
    memset(walk, 0, sizeof *walk);
    walk->thread = thread;
    walk->state = thread == NULL ? ENDED_BROKEN : state;
    walk->anchor = thread == NULL ? 0 : thread->anchor;
}

void pp_walk_begin(pp_walk *walk, const pp_thread *thread, const void *ucontext)
{
    if (walk == NULL)
        return;
    begin(walk, thread, AT_TOP);
    if (thread == NULL)
        return;
    if (ucontext == NULL) {
        continue_in_c(walk, thread->anchor, thread->exit_fp);
        return;
    }
    const mcontext_t *machine = &((const ucontext_t *) ucontext)->uc_mcontext;
#if defined __x86_64__
    walk->pc = (uintptr_t) machine->gregs[REG_RIP];
    walk->sp = (uintptr_t) machine->gregs[REG_RSP];
    walk->fp = (uintptr_t) machine->gregs[REG_RBP];
    walk->reserved[POINT_PC] = (uintptr_t) machine->gregs[REG_R11];
    walk->reserved[POINT_SP] = (uintptr_t) machine->gregs[REG_RCX];
#else
    walk->pc = machine->pc;
    walk->sp = machine->sp;
    walk->fp = machine->regs[29];
    walk->lr = machine->regs[30];
    walk->reserved[POINT_PC] = machine->regs[16];
    walk->reserved[POINT_SP] = machine->regs[2];
#endif
}

void pp_walk_begin_regs(pp_walk *walk, const pp_thread *thread, const pp_regs *regs)
{
    if (walk == NULL)
        return;
    begin(walk, regs == NULL ? NULL : thread, AT_SITE);
    if (regs == NULL)
        return;
    walk->pc = regs->pc;
    walk->sp = regs->gpr[PP_REGS_SP / 8];
    walk->fp = regs->gpr[PP_REGS_FP / 8];
}

int pp_walk_next(pp_walk *walk, pp_frame *frame)
{
    if (walk == NULL || frame == NULL || frame->size < sizeof *frame)
        return 0;
    const unsigned before = walk->frames;
    if (walk->max_frames != 0 && (before & FRAMES) >= walk->max_frames && walk->state < ENDED_ROOT) {
        walk->end = PP_END_LIMIT;
        return 0;
    }
    pp_frame next = { .size = frame->size, .verdict = PP_VERDICT_VALID };
    if (!step(walk, &next)) /* the frame stays as it is, with the check that failed */
        return 0;
    walk->frames++;
    walk->frames &= ~(before & UNSAVED);
    if (walk->frames & GUESSED) {
        if (next.kind == PP_WALK_ENTRY && next.verdict == PP_VERDICT_VALID)
            walk->frames &= ~GUESSED; /* its record names it, and what is above */
        else
            next.verdict = PP_VERDICT_UNSURE;
    }
    *frame = next;
    return 1;
}
