/* SPDX-License-Identifier: MIT */
/*
 * Paths from an interrupted instruction, followed one after the other, and what they
 * show.
 *
 * What a path may show, the strongest first:
 *
 *      LEFT      it returns, or leaves by a tail call, without a call before: what it finds there is
 *                so, since a function returns only once it has undone its frame
 *      MADE      it makes a frame record, sets FP to it, and calls; or it calls what wants a record
 *                at FP: the record is so
 *      PROMISED  it calls with FP as it was: if the code keeps its rule, FP has the record;
 *                in code without frame pointers FP is a caller's
 *      RETURNED  like LEFT, but behind a call.  A call of a function that never returns is
 *                followed by anything, so it only confirms what was promised.
 *
 * All paths that show something have to agree.  Only LEFT and RETURNED show the CFA; at
 * calls it is the rule's.
 */
#include <config.h>

#include "isa/frame.h"

#include <string.h>

enum {
    STEPS_MAX = 384,    /* instructions before calls */
    CONFIRM_MAX = 768,  /* in all, if only those behind calls can tell */
    SHOWN_MAX = 4,      /* paths that showed something */
    PENDING_MAX = 8,    /* branches that wait to be followed */
    SEEN_MAX = 64,      /* targets that were followed already */
    WORD = 8
};

enum shown { SHOWN_LEFT, SHOWN_MADE, SHOWN_PROMISED, SHOWN_RETURNED, SHOWN_KINDS };

struct search {
    const struct frame_machine *machine;
    const struct frame_query *query;
    struct frame_path pending[PENDING_MAX];
    unsigned pending_count;
    uint64_t seen[SEEN_MAX];
    unsigned seen_count, steps, shown_count;
    bool has[SHOWN_KINDS];
    bool disagree;
    bool breaks_rule;    /* by its rule the CFA of the record that it makes would lie below SP */
    bool keeps_rule;     /* behind a call, a return finds SP where the rule has the CFA */
    struct frame_answer answers[SHOWN_KINDS]; /* the first of each kind */
};

/* ---- values ----------------------------------------------------------- */

struct frame_value frame_add(struct frame_value value, uint64_t distance)
{
    if (value.kind == VALUE_UNKNOWN)
        return value;
    return (struct frame_value) { VALUE_COMPUTED, value.n + distance, 0 };
}

struct frame_value frame_load(const struct frame_machine *machine, const struct frame_query *query,
                              const struct frame_path *path, uint64_t address)
{
    struct frame_value value = { VALUE_UNKNOWN, 0, 0 };
    for (unsigned i = path->stored_count; i > 0; i--)
        if (path->stored[i - 1].address == address)
            return path->stored[i - 1].value;
    /* What lies below SP now was not there when the function was interrupted. */
    uint64_t lo = query->sp - machine->red_zone, hi = query->stack_hi;
    if (lo > query->sp || lo < query->stack_lo)
        lo = query->stack_lo;
    if (address % WORD != 0 || lo > hi || hi - lo < WORD || address - lo > hi - lo - WORD)
        return value;
    memcpy(&value.n, (const void *) (uintptr_t) address, WORD);
    value.kind = VALUE_LOADED;
    value.from = address;
    return value;
}

/* Words without a known value matter only where a load would find what was there before. */
void frame_store(const struct frame_query *query, struct frame_path *path, uint64_t address,
                 struct frame_value value)
{
    unsigned at = 0;
    while (at < path->stored_count && path->stored[at].address != address)
        at++;
    if (at == path->stored_count && value.kind == VALUE_UNKNOWN && address < query->sp)
        return;
    if (at == FRAME_STORED_MAX) {
        memmove(&path->stored[0], &path->stored[1], sizeof path->stored - sizeof path->stored[0]);
        at--;
    }
    path->stored[at].address = address;
    path->stored[at].value = value;
    if (at == path->stored_count && at < FRAME_STORED_MAX)
        path->stored_count++;
}

/* ---- what paths show -------------------------------------------------- */

/* What paths behind calls are compared with. */
static enum shown claim(const struct search *search)
{
    return search->has[SHOWN_MADE] ? SHOWN_MADE : SHOWN_PROMISED;
}

/* They find the same caller; the CFA of a call is only the rule's. */
static bool agree(const struct search *search, enum shown one, enum shown other)
{
    const struct frame_answer *a = &search->answers[one], *b = &search->answers[other];
    bool exact = (one == SHOWN_LEFT || one == SHOWN_RETURNED)
              && (other == SHOWN_LEFT || other == SHOWN_RETURNED);
    return a->return_address == b->return_address && a->caller_fp == b->caller_fp
        && (!exact || a->cfa == b->cfa);
}

static void show(struct search *search, enum shown kind, const struct frame_answer *answer)
{
    search->shown_count += kind != SHOWN_RETURNED;
    if (!search->has[kind]) {
        search->has[kind] = true;
        search->answers[kind] = *answer;
        return;
    }
    struct frame_answer first = search->answers[kind];
    if (first.return_address == answer->return_address && first.caller_fp == answer->caller_fp
        && first.cfa == answer->cfa)
        return;
    if (kind != SHOWN_RETURNED)
        search->disagree = true;
    else if (search->has[claim(search)] && !agree(search, claim(search), SHOWN_RETURNED))
        search->answers[kind] = *answer; /* the first one may have come through anything */
}

static bool is_callers(struct frame_value fp)
{
    return fp.kind == VALUE_INITIAL || fp.kind == VALUE_LOADED;
}

/* A record is complete if both words are where it is, and were there at the interruption. */
static uint64_t record_of(struct frame_value fp, struct frame_value return_address)
{
    return fp.kind == VALUE_LOADED && return_address.kind == VALUE_LOADED
               && return_address.from == fp.from + WORD ? fp.from : 0;
}

static void show_leaving(struct search *search, const struct frame_path *path)
{
    struct frame_leaving left = search->machine->leave(search->query, path);
    if (path->has_called && left.known
        && left.cfa == search->query->fp + path->code.cfa_offset)
        search->keeps_rule = true;
    if (!left.known || !is_callers(left.return_address) || !is_callers(path->fp)
        || (left.return_address.kind == VALUE_LOADED
            && left.return_address.from < search->query->sp))
        return;
    struct frame_answer answer = { left.return_address.n, path->fp.n, left.cfa,
                                   record_of(path->fp, left.return_address), false };
    show(search, path->has_called ? SHOWN_RETURNED : SHOWN_LEFT, &answer);
}

/* True if the path behind the call may confirm what the call promises. */
static bool show_call(struct search *search, const struct frame_path *path, uint64_t target)
{
    const struct frame_query *query = search->query;
    const struct frame_value fp = path->fp;
    if (path->has_called)
        return true;
    if (fp.kind != VALUE_INITIAL && !(fp.kind == VALUE_COMPUTED && path->fp_is_set))
        return false;
    /* x30 was saved, but not where FP says: FP is a caller's. */
    if (fp.kind == VALUE_INITIAL && path->link_is_stored)
        return false;
    struct frame_value caller = frame_load(search->machine, query, path, fp.n);
    struct frame_value address = frame_load(search->machine, query, path, fp.n + WORD);
    if (!is_callers(caller) || !is_callers(address)
        || (address.kind == VALUE_LOADED && address.from < query->sp))
        return false;
    /* FP was the caller's until it was set: that is what the record holds. */
    if (fp.kind == VALUE_COMPUTED && caller.n != query->fp)
        return false;
    /* A record that this path did not make is the one that was just pushed, or has x30 beside it. */
    const bool found = fp.kind == VALUE_COMPUTED && caller.kind == VALUE_LOADED;
    if (found && fp.n != query->sp && (search->machine->record_has_cfa || address.n != query->link))
        return false;
    bool made = fp.kind == VALUE_COMPUTED
             || (target != 0 && query->needs_record(query->context, target));
    struct frame_answer answer = { address.n, caller.n, fp.n + path->code.cfa_offset,
                                   record_of(caller, address), found };
    show(search, made ? SHOWN_MADE : SHOWN_PROMISED, &answer);
    search->breaks_rule |= answer.cfa < query->sp;
    return !made || !search->machine->record_has_cfa;
}

/* ---- paths ------------------------------------------------------------ */

/* False: it was followed before, or there is no room to remember it. */
static bool is_new(struct search *search, uint64_t target, bool has_called)
{
    uint64_t key = target << 1 | has_called;
    for (unsigned i = 0; i < search->seen_count; i++)
        if (search->seen[i] == key)
            return false;
    if (search->seen_count == SEEN_MAX)
        return false;
    search->seen[search->seen_count++] = key;
    return true;
}

static bool is_inside(const struct frame_code *code, uint64_t pc)
{
    return pc - code->start < code->size;
}

/* The path goes on at `target`: false if it ends there. */
static bool go_to(struct search *search, struct frame_path *path, uint64_t target)
{
    if (!is_new(search, target, path->has_called))
        return false;
    path->pc = target;
    if (is_inside(&path->code, target))
        return true;
    switch (search->query->target(search->query->context, target, &path->code)) {
    case FRAME_TARGET_CODE:
        return is_inside(&path->code, target);
    case FRAME_TARGET_FUNCTION:
        show_leaving(search, path);
        break;
    case FRAME_TARGET_NOWHERE:
        break;
    }
    return false;
}

/* The last path that waits, before calls or behind them; PENDING_MAX: none. */
static unsigned find_pending(const struct search *search, bool has_called)
{
    for (unsigned i = search->pending_count; i > 0; i--)
        if (search->pending[i - 1].has_called == has_called)
            return i - 1;
    return PENDING_MAX;
}

/* Room for a path that waits, or NULL.  Those behind calls matter least. */
static struct frame_path *pending_room(struct search *search, bool has_called)
{
    if (search->pending_count < PENDING_MAX)
        return &search->pending[search->pending_count++];
    unsigned at = has_called ? PENDING_MAX : find_pending(search, true);
    return at < PENDING_MAX ? &search->pending[at] : NULL;
}

static void keep(struct search *search, const struct frame_path *path)
{
    struct frame_path *room = pending_room(search, path->has_called);
    if (room != NULL)
        *room = *path;
}

static void keep_branch(struct search *search, const struct frame_path *path, uint64_t target)
{
    struct frame_path branch = *path;
    if (go_to(search, &branch, target))
        keep(search, &branch);
}

static void keep_behind_call(struct search *search, const struct frame_path *path, unsigned length)
{
    struct frame_path behind = *path;
    behind.pc += length;
    behind.has_called = true;
    search->machine->returned(&behind);
    if (is_new(search, behind.pc, true))
        keep(search, &behind);
}

/* Of paths before calls, or behind them. */
static bool is_enough(const struct search *search, bool has_called)
{
    if (search->disagree)
        return true;
    if (!has_called)
        return search->shown_count >= SHOWN_MAX || search->steps >= STEPS_MAX;
    return search->steps >= CONFIRM_MAX || search->keeps_rule
        || (search->has[SHOWN_RETURNED] && search->has[claim(search)]
            && agree(search, claim(search), SHOWN_RETURNED));
}

static void follow(struct search *search, struct frame_path *path)
{
    while (!is_enough(search, path->has_called) && is_inside(&path->code, path->pc)) {
        size_t at = (size_t) (path->pc - path->code.start);
        struct frame_step step = search->machine->step(search->query, path, path->code.bytes + at,
                                                       path->code.size - at);
        search->steps++;
        switch (step.event) {
        case FRAME_NEXT:
            break;
        case FRAME_BRANCH:
            keep_branch(search, path, step.target);
            break;
        case FRAME_JUMP:
            if (!go_to(search, path, step.target))
                return;
            continue;
        case FRAME_CALL:
            if (show_call(search, path, step.target))
                keep_behind_call(search, path, step.length);
            return;
        case FRAME_RETURN:
            show_leaving(search, path);
            return;
        case FRAME_STOP:
            return;
        }
        path->pc += step.length;
    }
}

static struct frame_path path_at(const struct frame_machine *machine,
                                 const struct frame_query *query)
{
    return (struct frame_path) {
        .pc = query->pc,
        .code = query->code,
        .sp = { VALUE_INITIAL, query->sp, 0 },
        .fp = { VALUE_INITIAL, query->fp, 0 },
        .link = { VALUE_INITIAL, query->link, 0 },
        .spare = { VALUE_COMPUTED, query->scratch, 0 },
        .spare_register = machine->scratch,
    };
}

static enum frame_proof conclude(const struct search *search, struct frame_answer *answer)
{
    enum shown first = SHOWN_LEFT;
    if (search->disagree)
        return FRAME_CONTRADICTED;
    while (first < SHOWN_RETURNED && !search->has[first])
        first++;
    if (first == SHOWN_RETURNED)
        return FRAME_UNKNOWN;
    *answer = search->answers[first];
    for (enum shown other = first + 1; other < SHOWN_RETURNED; other++)
        if (search->has[other] && !agree(search, first, other))
            return FRAME_CONTRADICTED;
    if (first == SHOWN_LEFT)
        return FRAME_PROVEN;
    if (search->has[SHOWN_RETURNED] && agree(search, first, SHOWN_RETURNED)) {
        *answer = search->answers[SHOWN_RETURNED];
        return FRAME_PROVEN;
    }
    if (search->breaks_rule)
        return FRAME_CONTRADICTED;
    return first == SHOWN_MADE || search->keeps_rule ? FRAME_PROVEN : FRAME_PROMISED;
}

static void follow_all(struct search *search, bool has_called)
{
    unsigned at;
    while (!is_enough(search, has_called)
           && (at = find_pending(search, has_called)) != PENDING_MAX) {
        struct frame_path path = search->pending[at];
        search->pending[at] = search->pending[--search->pending_count];
        follow(search, &path);
    }
}

/* Not by an initializer: it would clear the paths, too. */
static void begin(struct search *search, const struct frame_machine *machine,
                  const struct frame_query *query)
{
    search->machine = machine;
    search->query = query;
    search->seen_count = search->steps = search->shown_count = 0;
    memset(search->has, 0, sizeof search->has);
    search->disagree = search->breaks_rule = search->keeps_rule = false;
    search->pending[0] = path_at(machine, query);
    search->pending_count = 1;
}

enum frame_proof frame_find(const struct frame_machine *machine, const struct frame_query *query,
                            struct frame_answer *answer)
{
    struct search search;
    begin(&search, machine, query);
    follow_all(&search, false);
    /* Paths behind calls confirm what calls promise; and they know the CFA. */
    if (search.disagree || search.has[SHOWN_LEFT]
        || (search.has[SHOWN_MADE] && machine->record_has_cfa))
        return conclude(&search, answer);
    follow_all(&search, true);
    return conclude(&search, answer);
}

enum frame_proof frame_find_returned(const struct frame_machine *machine,
                                     const struct frame_query *query,
                                     struct frame_answer *answer)
{
    struct search search;
    begin(&search, machine, query);
    (void) show_call(&search, &search.pending[0], 0);
    search.pending[0].has_called = true;
    machine->returned(&search.pending[0]);
    follow_all(&search, true);
    if (search.keeps_rule)
        return FRAME_PROVEN;
    if (!search.has[SHOWN_RETURNED])
        return FRAME_UNKNOWN;
    *answer = search.answers[SHOWN_RETURNED];
    return search.has[claim(&search)] && agree(&search, claim(&search), SHOWN_RETURNED)
               ? FRAME_PROVEN : FRAME_CONTRADICTED;
}

static enum frame_target no_target(void *context, uint64_t address, struct frame_code *code)
{
    (void) context;
    (void) address;
    (void) code;
    return FRAME_TARGET_NOWHERE;
}

static bool no_literal(void *context, uint64_t address, uint64_t *value)
{
    (void) context;
    (void) address;
    (void) value;
    return false;
}

static bool no_need(void *context, uint64_t target)
{
    (void) context;
    (void) target;
    return false;
}

/* What a path may ask of code that is not running. */
static struct frame_query query_alone(const struct frame_code *code, uint64_t pc)
{
    return (struct frame_query) { .pc = pc, .code = *code, .target = no_target,
                                  .literal = no_literal, .needs_record = no_need };
}

bool frame_made_at_entry(const struct frame_machine *machine, const struct frame_code *code,
                         uint64_t *distance)
{
    enum { ENTRY_STEPS = 16, ANYWHERE = 1 << 30 };
    struct frame_query query = query_alone(code, code->start);
    query.sp = ANYWHERE;
    query.link = 1;
    struct frame_path path = path_at(machine, &query);
    for (unsigned i = 0; i < ENTRY_STEPS && !path.fp_is_set && is_inside(code, path.pc); i++) {
        size_t at = (size_t) (path.pc - code->start);
        struct frame_step step = machine->step(&query, &path, code->bytes + at, code->size - at);
        if (step.event != FRAME_NEXT)
            return false;
        path.pc += step.length;
    }
    if (!path.fp_is_set
        || frame_load(machine, &query, &path, path.fp.n).kind != VALUE_INITIAL)
        return false;
    struct frame_value link = frame_load(machine, &query, &path, path.fp.n + WORD);
    bool beside = machine->record_has_cfa ? path.fp.n + WORD == query.sp
                                          : link.kind == VALUE_INITIAL && link.n == query.link;
    *distance = query.sp - path.fp.n + (machine->record_has_cfa ? WORD : 0);
    return beside;
}

bool frame_behind_call(const struct frame_machine *machine, const struct frame_code *code,
                       uint64_t from, uint64_t pc, bool *popped)
{
    const struct frame_query query = query_alone(code, from);
    struct frame_path path = path_at(machine, &query);
    while (path.pc < pc && is_inside(code, path.pc)) {
        size_t at = (size_t) (path.pc - code->start);
        struct frame_step step = machine->step(&query, &path, code->bytes + at, code->size - at);
        if (step.event != FRAME_NEXT)
            return false;
        path.pc += step.length;
    }
    *popped = path.fp.kind != VALUE_INITIAL;
    return path.pc == pc;
}
