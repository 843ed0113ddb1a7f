/* SPDX-License-Identifier: MIT */
/*
 * Three unwinders at every instruction: the library's walker, libunwind and
 * libgcc, in every stub and in every kind of trace.
 *
 * What they must see is known without unwinding: the visit before the first
 * instruction of a function sees its return address and SP, and keeps a list
 * of the frames that are there.  On x86-64 the walker is asked at every
 * instruction of C, too.
 */
#include <config.h>

#include "stress/frames.h"
#include "balance.h"
#include "isa/isa.h"
#include "link/trace.h"
#include "memory/region.h"
#include "os/cpu.h"
#include "osr/entry.h"
#include "step.h"
#include "stub.h"

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#include <check.h>
#include <dlfcn.h>
#include <fenv.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <unwind.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum {
    DEPTH_MAX = 48, PCS_MAX = 4096,
    METHODS_MAX = PP_SAVE_MASK512 + 3, /* one of each save class, and of the other styles */
    ISLAND_BYTES = 160,         /* a few slots */
};

#if defined __x86_64__
enum { LIVE_GPRS = 0xf7ff, LIVE_VECTORS = 0xffff };
#else
#define LIVE_GPRS 0xbffcffffu
#define LIVE_VECTORS 0xffffffffu
#endif

/* ---- frames that are there ---------------------------------------------- */

struct known {
    pp_walk_kind kind;
    const pp_trace *trace;
    uintptr_t cfa, return_address;
    uintptr_t start, end;       /* code of the function: of a trace, or of a kind of stub */
    unsigned stub_kind;
};

static struct {
    struct known frames[DEPTH_MAX];
    unsigned depth;
    /* Traces by what they are. */
    struct {
        pp_walk_kind kind;
        const pp_trace *trace;
        uintptr_t start, end;   /* code */
        uintptr_t span_end;
        bool leaf;
        bool jumped;            /* entered by a jump out of the frame that goes on */
    } traces[7 + 2 * METHODS_MAX];
    unsigned trace_count;
    /* What was looked at. */
    const pp_thread *thread;
    uintptr_t pcs[PCS_MAX];     /* distinct, in stubs and traces */
    unsigned pc_count;
    unsigned long visits, frames_seen, outside_rule;
    bool others;                /* ask libunwind and libgcc, too */
    bool follow;                /* calls and returns, which a resume leaves unbalanced */
    struct balance balance;
    /* What was wrong. */
    unsigned long wrong_walks, wrong_libunwind, wrong_libgcc;
    char report[1024];
} now;

static void complain(unsigned long *counter, const char *format, ...)
{
    va_list arguments;
    if ((*counter)++ == 0 && now.report[0] == '\0') {
        va_start(arguments, format);
        vsnprintf(now.report, sizeof now.report, format, arguments);
        va_end(arguments);
    }
}

static void note_trace(pp_walk_kind kind, const pp_trace *trace, bool leaf)
{
    struct code_place place;
    uintptr_t start = (uintptr_t) pp_trace_entry(trace);
    ck_assert(code_at(start, &place));
    ck_assert_uint_lt(now.trace_count, COUNT(now.traces));
    now.traces[now.trace_count].kind = kind;
    now.traces[now.trace_count].trace = trace;
    now.traces[now.trace_count].start = start;
    now.traces[now.trace_count].end = start + code_bytes_at(&place);
    now.traces[now.trace_count].span_end = place.start + place.size;
    now.traces[now.trace_count].jumped = kind == PP_WALK_OSR;
    now.traces[now.trace_count++].leaf = leaf;
}

static bool in_code_of(const struct known *frame, uintptr_t pc)
{
    const struct stub *stub = stub_at(pc);
    if (stub != NULL)
        return frame->stub_kind == stub->kind;
    return pc - frame->start < frame->end - frame->start;
}

/* Where code has gone that moves SP only by calls and by what follows them. */
static void track(const ucontext_t *context)
{
    uintptr_t pc = step_pc(context), sp = step_sp(context);
    while (now.depth > 0) {
        const struct known *top = &now.frames[now.depth - 1];
        if (sp < top->cfa || (sp == top->cfa && in_code_of(top, pc) && pc != top->return_address))
            break;
        now.depth--;
    }

    struct known frame = { .return_address = 0 };
    const struct stub *stub = stub_at(pc);
    if (stub != NULL && pc == stub_start(stub) && stub->kind != STUB_RESUME) {
        frame.kind = stub->kind == STUB_ENTER ? PP_WALK_ENTRY : PP_WALK_STUB;
        frame.stub_kind = stub->kind;
    }
    for (unsigned i = 0; i < now.trace_count; i++) {
        if (pc != now.traces[i].start)
            continue;
        if (now.traces[i].jumped) {
            /* Tier-0's frame goes on under another name. */
            struct known *top = &now.frames[now.depth - 1];
            top->kind = now.traces[i].kind;
            top->trace = now.traces[i].trace;
            top->start = now.traces[i].start;
            top->end = now.traces[i].end;
            return;
        }
        frame.kind = now.traces[i].kind;
        frame.trace = now.traces[i].trace;
        frame.start = now.traces[i].start;
        frame.end = now.traces[i].end;
    }
    if (frame.kind == 0)
        return;
    frame.return_address = step_entry_return(context);
#if defined __x86_64__
    frame.cfa = sp + 8;
#else
    frame.cfa = sp;
#endif
    /* Where C is not visited, a frame may have gone unseen: its caller called again. */
    while (now.depth > 0 && now.frames[now.depth - 1].cfa <= frame.cfa)
        now.depth--;
    if (now.depth < DEPTH_MAX)
        now.frames[now.depth++] = frame;
}

/* ---- where an instruction is -------------------------------------------- */

enum place { IN_C, IN_STUB, IN_RESUME, IN_ISLAND, IN_TRAMPOLINE, IN_TRACE };

static enum place place_of(uintptr_t pc)
{
    const struct stub *stub = stub_at(pc);
    if (stub != NULL && stub->kind == STUB_RESUME)
        return pc - stub_start(stub) < stub->set ? IN_C : IN_RESUME;
    if (stub != NULL)
        return IN_STUB;
    const struct region *region = region_at(pc);
    if (region == NULL)
        return IN_C;
    if (pc - region->island_lo < region->island_hi - region->island_lo)
        return IN_ISLAND;
    for (unsigned i = 0; i < now.trace_count; i++)
        if (pc >= now.traces[i].end && pc < now.traces[i].span_end)
            return IN_TRAMPOLINE;
    return IN_TRACE;
}

static void note_pc(uintptr_t pc)
{
    for (unsigned i = 0; i < now.pc_count; i++)
        if (now.pcs[i] == pc)
            return;
    if (now.pc_count < PCS_MAX)
        now.pcs[now.pc_count++] = pc;
}

/* ---- the walker --------------------------------------------------------- */

struct expected {
    pp_walk_kind kind;
    pp_verdict verdict;
    const pp_trace *trace;
    uintptr_t cfa;
};

/*
 * The walker sees no compiled frames of an activation that has called C
 * directly, as long as that call lasts: they have C on top of them.
 */
static unsigned expect(enum place place, unsigned depth, uintptr_t leaf_cfa,
                       struct expected *expected)
{
    unsigned count = 0;
    bool c_on_top = place == IN_C;
    if (place == IN_ISLAND || place == IN_TRAMPOLINE)
        expected[count++] = (struct expected) { PP_WALK_TRAMPOLINE, PP_VERDICT_VALID, NULL,
                                                leaf_cfa };
    for (unsigned i = depth; i > 0;) {
        const struct known *frame = &now.frames[i - 1];
        pp_verdict verdict = PP_VERDICT_VALID;
        if (c_on_top && (frame->kind == PP_WALK_TRACE || frame->kind == PP_WALK_OSR)) {
            while (i > 0 && now.frames[i - 1].kind != PP_WALK_ENTRY)
                i--;
            if (i == 0)
                break;
            frame = &now.frames[i - 1];
            verdict = PP_VERDICT_GAP;
        }
        expected[count++] = (struct expected) { frame->kind, verdict, frame->trace, frame->cfa };
        c_on_top = frame->kind == PP_WALK_ENTRY;
        i--;
    }
    return count;
}

static void compare_walk(const ucontext_t *context, const struct expected *expected,
                         unsigned count)
{
    pp_walk walk;
    pp_frame frame = { .size = sizeof frame };
    unsigned i = 0;
    pp_walk_begin(&walk, now.thread, context);
    for (; pp_walk_next(&walk, &frame); i++) {
        now.frames_seen++;
        if (i < count && frame.kind == expected[i].kind && frame.verdict == expected[i].verdict
            && frame.cfa == expected[i].cfa && frame.check == PP_CHECK_NONE
            && (expected[i].trace == NULL || frame.trace == expected[i].trace)
            && (frame.is_top == 0 || frame.pc == step_pc(context)))
            continue;
        complain(&now.wrong_walks, "walker at %#lx (%s): frame %u of %u is %s, %s, %s, pc %#lx "
                 "cfa %#lx; expected %s, cfa %#lx", (long) step_pc(context),
                 stub_at(step_pc(context)) != NULL ? stub_at(step_pc(context))->name : "no stub",
                 i, count, pp_walk_kind_name(frame.kind), pp_verdict_name(frame.verdict),
                 pp_check_name(frame.check), (long) frame.pc, (long) frame.cfa,
                 i < count ? pp_walk_kind_name(expected[i].kind) : "no frame",
                 i < count ? (long) expected[i].cfa : 0);
    }
    if (i != count || walk.end != PP_END_ROOT)
        complain(&now.wrong_walks, "walker at %#lx (%s): %u frames instead of %u, end: %s",
                 (long) step_pc(context),
                 stub_at(step_pc(context)) != NULL ? stub_at(step_pc(context))->name : "no stub",
                 i, count, pp_walk_end_name(walk.end));
}

/* ---- the others --------------------------------------------------------- */

/* CFAs of the frames in stubs and traces, innermost first; and whether the C below was reached. */
struct chain {
    uintptr_t cfas[DEPTH_MAX];
    unsigned count;
    unsigned frames;
    bool pending, started, bottom;
    uintptr_t top;
};

static void run_scenario(void *scenario);

static void chain_add(struct chain *chain, uintptr_t pc, uintptr_t sp)
{
    if (!chain->started && pc != chain->top)
        return;
    chain->started = true;
    chain->frames++;
    if (chain->pending && chain->count < DEPTH_MAX)
        chain->cfas[chain->count++] = sp;
    chain->pending = place_of(pc) != IN_C;
    if (pc - (uintptr_t) run_scenario < 256)
        chain->bottom = true;
}

static void chain_by_libunwind(const ucontext_t *context, struct chain *chain)
{
    unw_cursor_t cursor;
    unw_context_t copy = *(const unw_context_t *) context;
    *chain = (struct chain) { .top = step_pc(context) };
    if (unw_init_local2(&cursor, &copy, UNW_INIT_SIGNAL_FRAME) < 0)
        return;
    do {
        unw_word_t pc, sp;
        unw_get_reg(&cursor, UNW_REG_IP, &pc);
        unw_get_reg(&cursor, UNW_REG_SP, &sp);
        chain_add(chain, pc, sp);
    } while (unw_step(&cursor) > 0 && chain->frames < 100);
}

/* libgcc's own, whoever serves the program's exceptions. */
static struct {
    _Unwind_Reason_Code (*backtrace)(_Unwind_Trace_Fn, void *);
    uintptr_t (*get_ip)(struct _Unwind_Context *);
    uintptr_t (*get_cfa)(struct _Unwind_Context *);
} libgcc;

static void find_libgcc(void)
{
    void *library = dlopen("libgcc_s.so.1", RTLD_NOW);
    ck_assert_ptr_nonnull(library);
    *(void **) &libgcc.backtrace = dlsym(library, "_Unwind_Backtrace");
    *(void **) &libgcc.get_ip = dlsym(library, "_Unwind_GetIP");
    *(void **) &libgcc.get_cfa = dlsym(library, "_Unwind_GetCFA");
    ck_assert_ptr_nonnull(libgcc.backtrace);
}

/* In its own words, the CFA that a callback gets is the SP of its frame. */
static _Unwind_Reason_Code libgcc_frame(struct _Unwind_Context *context, void *argument)
{
    struct chain *chain = argument;
    chain_add(chain, libgcc.get_ip(context), libgcc.get_cfa(context));
    return chain->frames < 100 ? _URC_NO_REASON : _URC_END_OF_STACK;
}

static void chain_by_libgcc(const ucontext_t *context, struct chain *chain)
{
    *chain = (struct chain) { .top = step_pc(context) };
    libgcc.backtrace(libgcc_frame, chain);
}

static void compare_chain(const char *who, unsigned long *wrong, const ucontext_t *context,
                          const struct chain *chain, const uintptr_t *cfas, unsigned count)
{
    uintptr_t pc = step_pc(context);
    const char *stub = stub_at(pc) != NULL ? stub_at(pc)->name : "no stub";
    for (unsigned i = 0; i < chain->count && i < count; i++)
        if (chain->cfas[i] != cfas[i]) {
            complain(wrong, "%s at %#lx (%s): CFA %u is %#lx, not %#lx", who, (long) pc, stub, i,
                     (long) chain->cfas[i], (long) cfas[i]);
            return;
        }
    /* main, Check, the test, run_scenario: a walk that ends early has not passed. */
    if (chain->count != count || !chain->bottom || chain->frames < count + 4)
        complain(wrong, "%s at %#lx (%s): %u frames of compiled code instead of %u, %u in all, %s",
                 who, (long) pc, stub, chain->count, count, chain->frames,
                 chain->bottom ? "complete" : "cut short");
}

/*
 * A region has one rule, which holds between prologue and epilogue, where the frame's record
 * is at FP.  Outside of these two only the walker is exact; so it is where a trace's own
 * trampoline stands under the rule of its code.
 */
static bool rule_holds(enum place place, const ucontext_t *context)
{
    struct code_place span;
    uintptr_t pc = step_pc(context);
    if (place == IN_TRAMPOLINE)
        return false;
    if (place != IN_TRACE || !code_at(pc, &span) || owner_rule(span.owner)->kind == PP_FRAME_LEAF)
        return true;
    pp_walk walk;
    pp_frame frame = { .size = sizeof frame };
    pp_walk_begin(&walk, now.thread, context);
#if defined __x86_64__
    uintptr_t fp = (uintptr_t) context->uc_mcontext.gregs[REG_RBP];
#else
    uintptr_t fp = context->uc_mcontext.regs[29];
#endif
    return pp_walk_next(&walk, &frame) && frame.fp == fp;
}

static void compare_others(const ucontext_t *context, const uintptr_t *cfas, unsigned count)
{
    struct chain chain;
    chain_by_libunwind(context, &chain);
    compare_chain("libunwind", &now.wrong_libunwind, context, &chain, cfas, count);
    chain_by_libgcc(context, &chain);
    compare_chain("libgcc", &now.wrong_libgcc, context, &chain, cfas, count);
}

/* ---- the visit ---------------------------------------------------------- */

/* The frames between a resume and the compiled frame that goes on. */
static void drop_abandoned(void)
{
    while (now.depth > 0 && now.frames[now.depth - 1].trace == NULL)
        now.depth--;
}

static void visit(ucontext_t *context, void *unused)
{
    (void) unused;
    uintptr_t pc = step_pc(context), sp = step_sp(context), cfas[DEPTH_MAX + 1];
    struct expected expected[DEPTH_MAX + 1];
    enum place place = place_of(pc);
    const struct stub *stub = stub_at(pc);
    unsigned count = 0;
    now.visits++;
    if (now.follow)
        balance_follow(&now.balance, pc, sp);
    track(context);
    if (place == IN_C && now.depth > 0 && now.thread->anchor == 0)
        return; /* C that pp_enter calls before it makes its record */

#if defined __x86_64__
    uintptr_t leaf_cfa = sp + 8;
#else
    uintptr_t leaf_cfa = sp;
#endif
    /* The stub of pp_resume is C to the others until SP has moved, and a frame of its own then. */
    if (place == IN_RESUME)
        cfas[count++] = pc - stub_start(stub) >= stub->popped ? sp : leaf_cfa;
    else if (place == IN_ISLAND)
        cfas[count++] = leaf_cfa;
    if (place == IN_RESUME && pc - stub_start(stub) >= stub->popped)
        drop_abandoned();
    for (unsigned i = now.depth; i > 0; i--)
        cfas[count++] = now.frames[i - 1].cfa;
    if (place == IN_RESUME) {
        drop_abandoned();
        unsigned frames = expect(IN_TRACE, now.depth, 0, expected + 1);
#if defined __x86_64__
        uintptr_t point_sp = (uintptr_t) context->uc_mcontext.gregs[REG_RCX];
#else
        uintptr_t point_sp = context->uc_mcontext.regs[2];
#endif
        expected[0] = (struct expected) { PP_WALK_STUB, PP_VERDICT_VALID, NULL, point_sp };
        compare_walk(context, expected, frames + 1);
    } else {
        compare_walk(context, expected, expect(place, now.depth, leaf_cfa, expected));
    }

    if (place == IN_C && stub == NULL)
        return;
    note_pc(pc);
    if (!now.others)
        return;
    if (rule_holds(place, context))
        compare_others(context, cfas, count);
    else
        now.outside_rule++;
}

/* ---- code to look at ---------------------------------------------------- */

static struct {
    pp_pool *pool;
    pp_thread thread;
    pp_trace *tier0, *leaf, *jump_shared, *jump_own;
    struct {
        pp_site *site;
        pp_entry *entry;
        pp_trace *tier0, *osr;
    } methods[METHODS_MAX];  /* one of each save class; RESERVE and RELOAD by turns */
    unsigned method_count;
    unsigned produced;
    _Alignas(16) char buffers[256];
    size_t taken;            /* of them, by bodies that have returned */
    struct frames_call calls[8];
} world;

static union {
    struct frames_shadow shadow;
    char room[sizeof(struct frames_shadow) + DEPTH_MAX * sizeof(struct frames_shadow_entry)];
} shadow;

static struct frames_call *call_init(unsigned i)
{
    world.calls[i] = (struct frames_call) { .thread = &world.thread, .leave = pp_leave,
                                            .shadow = &shadow.shadow, .threshold = 1000 };
    return &world.calls[i];
}

/* Change what stubs compare before they restore it. */
static void spoil_float(void)
{
    if (fetestexcept(FE_INVALID))
        feclearexcept(FE_INVALID);
    else
        feraiseexcept(FE_INVALID);
    fesetround(fegetround() == FE_UPWARD ? FE_DOWNWARD : FE_UPWARD);
}

static void enter(const pp_trace *trace, struct frames_call *call)
{
    pp_enter(&world.thread, pp_trace_entry(trace), (uintptr_t) call, 0, 0, 0);
}

static void on_target(struct frames_call *call)
{
    (void) call;
    spoil_float();
}

static void on_visible(struct frames_call *call)
{
    spoil_float();
    if (call->host != NULL)
        enter(world.tier0, call->host);
}

static void on_direct(struct frames_call *call)
{
    if (call->host != NULL)
        enter(world.tier0, call->host);
}

/* C in the midst of a method: what the registers of its patchpoint lead to. */
static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) site;
    struct expected expected[DEPTH_MAX + 1];
    /* The stub's own frame is not in the registers. */
    unsigned count = expect(IN_TRACE, now.depth - 1, 0, expected), i = 0;
    pp_walk walk;
    pp_frame frame = { .size = sizeof frame };
    step_pause();
    for (pp_walk_begin_regs(&walk, &world.thread, regs); pp_walk_next(&walk, &frame); i++)
        if (i >= count || frame.kind != expected[i].kind || frame.cfa != expected[i].cfa
            || frame.verdict != expected[i].verdict)
            complain(&now.wrong_walks, "producer: frame %u of %u is %s, %s", i, count,
                     pp_walk_kind_name(frame.kind), pp_check_name(frame.check));
    if (i != count || walk.end != PP_END_ROOT)
        complain(&now.wrong_walks, "producer: %u frames instead of %u", i, count);
    step_continue();
    world.produced++;
    spoil_float();
    *entry = host;
    return PP_OK;
}

static pp_status link_body(pp_osr_style style, pp_trace **trace, pp_entry **entry)
{
    pp_csr_scheme scheme = world.method_count % 2 ? PP_CSR_RELOAD : PP_CSR_RESERVE;
    switch (style) {
    case PP_REPLACE:
        return frames_link_replace(world.pool, "replace", trace, entry);
    case PP_BUFFER:
        return frames_link_function(world.pool, "function", trace, entry);
    default:
        return frames_link_osr(world.pool, "osr", scheme, trace, entry);
    }
}

static void method_open(pp_save save, pp_osr_style style)
{
    unsigned i = world.method_count;
    ck_assert_int_eq(link_body(style, &world.methods[i].osr, &world.methods[i].entry), PP_OK);
    pp_site_desc desc = {
        .size = sizeof desc, .kind = PP_SITE_COUNTED, .counter = PP_COUNTER_FRAME,
        .counter_offset = FRAMES_COUNTER_SLOT, .threshold = 1, .hits = 2, .save = save,
        .thread_offset = FRAMES_THREAD_SLOT, .tier0 = &frames_tier0_layout, .produce = produce,
        .host = world.methods[i].entry,
    };
    if (save >= PP_SAVE_MASK) { /* and the wide ones */
        desc.live_gpr = LIVE_GPRS;
        desc.live_vector = save == PP_SAVE_MASK512 ? UINT32_MAX : LIVE_VECTORS;
    }
    pp_status status = pp_site_create(world.pool, &desc, &world.methods[i].site);
    if (status == PP_E_UNSUPPORTED) {
        printf("save class %d skipped\n", (int) save);
        ck_assert_int_eq(pp_entry_destroy(world.pool, world.methods[i].entry), PP_OK);
        ck_assert_int_eq(pp_trace_free(world.pool, world.methods[i].osr), PP_OK);
        return;
    }
    ck_assert_int_eq(status, PP_OK);
    /* As with a probe, one that changes nothing: the stub does all that it can. */
    char *record = pp_site_record(world.methods[i].site);
    *(uint32_t *) (record + PP_SITE_EDITED) = save != PP_SAVE_ABI;
    world.method_count++;
    ck_assert_int_eq(frames_link_tier0(world.pool, "method", world.methods[i].site,
                                       &world.methods[i].tier0), PP_OK);
    note_trace(PP_WALK_TRACE, world.methods[i].tier0, false);
    note_trace(style == PP_BUFFER ? PP_WALK_TRACE : PP_WALK_OSR, world.methods[i].osr, false);
    if (style != PP_ON_TOP) {
        note_trace(PP_WALK_TRACE, entry_from(world.methods[i].entry)->way, false);
        now.traces[now.trace_count - 1].jumped = true;
    }
}

static void world_open(void)
{
    memset(&now, 0, sizeof now);
    find_libgcc();
    pp_pool_options options = { .size = sizeof options, .wx = PP_WX_RWX, .branch_range = 1,
                                .unwinders = PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND };
    ck_assert_int_eq(pp_pool_create(&options, &world.pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&world.thread, NULL, NULL), PP_OK);
    ck_assert_uint_le(pp_buffer_space(8, 4), sizeof world.buffers);
    ck_assert_int_eq(pp_thread_set_buffers(&world.thread, world.buffers, 8, 4), PP_OK);
    pp_symbol target = pp_symbol_define(world.pool, "target", (const void *) on_target);
    ck_assert_int_eq(frames_link_tier0(world.pool, "tier0", NULL, &world.tier0), PP_OK);
    ck_assert_int_eq(frames_link_leaf(world.pool, "leaf", &world.leaf), PP_OK);
    ck_assert_int_eq(frames_link_jump(world.pool, "shared", target, 0, &world.jump_shared), PP_OK);
    ck_assert_int_eq(frames_link_jump(world.pool, "own", target, PP_TRACE_OWN_TRAMPOLINES,
                                      &world.jump_own), PP_OK);
    note_trace(PP_WALK_TRACE, world.tier0, false);
    note_trace(PP_WALK_TRACE, world.leaf, true);
    note_trace(PP_WALK_TRACE, world.jump_shared, false);
    note_trace(PP_WALK_TRACE, world.jump_own, false);
    world.method_count = 0;
    for (int save = PP_SAVE_GPR; save <= PP_SAVE_MASK512; save++)
        method_open((pp_save) save, PP_ON_TOP);
    method_open(PP_SAVE_V128, PP_REPLACE);
    method_open(PP_SAVE_GPR, PP_BUFFER);
    now.thread = &world.thread;
    now.others = true;
}

static void world_close(void)
{
    pp_pool_destroy(world.pool);
}

/* A range, but for the address of a site's record or an entry: a literal among the code on AArch64. */
static unsigned add_code(struct step_range *ranges, unsigned count, struct step_range code)
{
    for (unsigned i = 0; i < 2 * world.method_count; i++) {
        uintptr_t record = i % 2 ? (uintptr_t) entry_from(world.methods[i / 2].entry)
                                 : (uintptr_t) pp_site_record(world.methods[i / 2].site);
        for (uintptr_t at = code.start; at + 8 <= code.start + code.size; at += 4)
            if (memcmp((const void *) at, &record, sizeof record) == 0) {
                ranges[count++] = (struct step_range) { code.start, at - code.start };
                code = (struct step_range) { at + 8, code.start + code.size - at - 8 };
            }
    }
    ranges[count++] = code;
    return count;
}

/* All stubs, all traces with their trampolines, and the island slots that are in use. */
static unsigned all_ranges(struct step_range *ranges)
{
    unsigned count = 0;
    for (const struct stub *stub = stub_table; stub < stub_table_end; stub++)
        ranges[count++] = (struct step_range) { stub_start(stub), stub->size };
    for (unsigned i = 0; i < now.trace_count; i++) {
        /* The literals of trampolines come last. */
        pp_trace_size size = { .size = sizeof size };
        ck_assert_int_eq(pp_trace_get_size(now.traces[i].trace, &size), PP_OK);
        count = add_code(ranges, count, (struct step_range) { now.traces[i].start,
                                                              size.total - size.literal_bytes });
    }
    const struct region *region = region_at(now.traces[0].start);
    ranges[count++] = (struct step_range) { region->island_lo, ISLAND_BYTES };
    return count;
}

static void report(const char *what)
{
    printf("%s: %lu instructions visited, %u different ones in stubs and traces, %lu frames; "
           "%lu visits outside of a rule\n", what, now.visits, now.pc_count, now.frames_seen,
           now.outside_rule);
}

static void step_scenario(void (*scenario)(void))
{
    static struct step_range ranges[STEP_RANGES_MAX];
    unsigned count = all_ranges(ranges);
    now.depth = 0;
    step_run(ranges, count, visit, run_scenario, (void *) scenario);
}

__attribute__((noinline)) static void run_scenario(void *scenario)
{
    ((void (*)(void)) scenario)();
    __asm__ volatile("" ::: "memory"); /* not a tail call: the frame must be there */
}

/* Entry, tier-0, C, entry, tier-0, C directly, entry, trace and trampolines. */
static void mixed(void)
{
    struct frames_call *outer = call_init(0), *middle = call_init(1), *inner = call_init(2),
                       *shared = call_init(3), *own = call_init(4);
    outer->visible = on_visible;
    outer->host = middle;
    outer->callee = pp_trace_entry(world.jump_shared);
    outer->callee_call = shared;
    outer->leaf = pp_trace_entry(world.leaf);
    middle->direct = on_direct;
    middle->host = inner;
    middle->callee = pp_trace_entry(world.jump_own);
    middle->callee_call = own;
    inner->visible = on_visible;
    inner->leaf = pp_trace_entry(world.leaf);
    enter(world.tier0, outer);
}

/*
 * Patchpoints: a slow path without and one with a transition, then the fast one;
 * the OSR bodies do all that tier-0 does, and one is the caller of the other.
 */
static void transitions(void)
{
    for (unsigned round = 0; round < 2 * world.method_count; round++) {
        unsigned first = round % world.method_count, second = (round + 1) % world.method_count;
        struct frames_call *outer = call_init(0), *inner = call_init(1), *c = call_init(2),
                           *jump = call_init(3);
        outer->threshold = inner->threshold = 1;
        outer->visible = on_visible;
        outer->host = c;
        outer->callee = pp_trace_entry(world.methods[second].tier0);
        outer->callee_call = inner;
        outer->leaf = pp_trace_entry(world.leaf);
        inner->visible = on_visible;
        inner->direct = on_direct;
        inner->callee = pp_trace_entry(world.jump_shared);
        inner->callee_call = jump;
        inner->leaf = pp_trace_entry(world.leaf);
        pp_enter(&world.thread, pp_trace_entry(world.methods[first].tier0),
                 (uintptr_t) outer, 0, 0, 0);
        world.taken += pp_buffer_reclaim(&world.thread);
    }
}

/* Leaves its own frame, and those of pp_leave and C below, for the work of the method again. */
static void on_resume(struct frames_call *call)
{
    pp_walk walk;
    pp_frame frame = { .size = sizeof frame };
    step_pause();
    pp_walk_begin(&walk, call->thread, NULL);
    while (pp_walk_next(&walk, &frame) && frame.kind != PP_WALK_TRACE)
        continue;
    step_continue();
    call->visible = on_visible;
    pp_resume_point point = {
        .pc = (uintptr_t) pp_trace_entry(world.tier0)
              + (uintptr_t) (frames_tier0_head_end - frames_tier0_head),
        .fp = frame.fp, .sp = frame.fp - FRAMES_BYTES,
    };
    complain(&now.wrong_walks, "pp_resume: %s", pp_strerror(pp_resume(call->thread, &point)));
}

static void resuming(void)
{
    struct frames_call *outer = call_init(0), *inner = call_init(1);
    outer->visible = on_visible;
    outer->host = inner;
    inner->visible = on_resume;
    enter(world.tier0, outer);
}

/* pp_enter on a signal stack, which a context is put on. */
static ucontext_t back;
static char signal_stack[65536];

static void on_signal_stack(void)
{
    struct frames_call *outer = call_init(0);
    outer->visible = on_visible;
    enter(world.tier0, outer);
}

static void elsewhere(void)
{
    ucontext_t there;
    ck_assert_int_eq(getcontext(&there), 0);
    there.uc_stack = (stack_t) { .ss_sp = signal_stack, .ss_size = sizeof signal_stack };
    there.uc_link = &back;
    makecontext(&there, on_signal_stack, 0);
    ck_assert_int_eq(swapcontext(&back, &there), 0);
}

static void expect_nothing_wrong(void)
{
    ck_assert_msg(now.wrong_walks + now.wrong_libunwind + now.wrong_libgcc == 0,
                  "%lu, %lu, %lu wrong: %s", now.wrong_walks, now.wrong_libunwind,
                  now.wrong_libgcc, now.report);
}

/*
 * Every instruction of a stub was visited: exactly so where all are as long; on
 * x86-64, none of the steps from one to the next is longer than an instruction.
 * pp_resume's refusal, one return, is only there with a shadow stack.
 */
static void expect_all_visited(const struct stub *stub)
{
#if defined __x86_64__
    enum { LONGEST = 12, UNVISITED = 0 };
#else
    enum { LONGEST = 4, UNVISITED = 4 };
#endif
    uintptr_t start = stub_start(stub), before = start - 1, worst = 0;
    unsigned count = 0;
    for (uintptr_t pc = start; pc <= start + stub->size; pc++) {
        bool visited = pc == start + stub->size;
        for (unsigned i = 0; i < now.pc_count && !visited; i++)
            visited = now.pcs[i] == pc;
        if (!visited)
            continue;
        count++;
        if (before >= start && pc - before > worst)
            worst = pc - before;
        before = pc;
    }
    printf("%s: %u bytes, %u instructions\n", stub->name, stub->size, count - 1);
    ck_assert_msg(count > 1, "%s: not visited", stub->name);
    ck_assert_msg(worst <= LONGEST + (stub->kind == STUB_RESUME ? UNVISITED : 0),
                  "%s: %lu bytes that were not visited", stub->name, (long) worst);
}

/* Not the slow path of a save class that the processor lacks. */
static bool can_run(const struct stub *stub)
{
    return !(strcmp(stub->name, "patchpoint_v256") == 0 && cpu_lacks(CPU_V256) != NULL)
           && !(strcmp(stub->name, "patchpoint_m256") == 0 && cpu_lacks(CPU_V256) != NULL)
           && !(strcmp(stub->name, "patchpoint_v512") == 0 && cpu_lacks(CPU_V512) != NULL)
           && !(strcmp(stub->name, "patchpoint_m512") == 0 && cpu_lacks(CPU_V512) != NULL);
}

START_TEST(every_instruction)
{
    world_open();
    step_scenario(mixed);
    report("mixed");
    now.follow = true;
    step_scenario(transitions);
    now.follow = false;
    report("transitions");
    printf("%lu calls, %lu returns to them\n", now.balance.calls, now.balance.matched);
    ck_assert_msg(now.balance.wrong == 0, "a return went to %#lx", (long) now.balance.wrong);
#if defined __x86_64__
    ck_assert_uint_gt(now.balance.matched, 100);
    ck_assert_uint_le(now.balance.calls - now.balance.matched, 2); /* step_run's own, at the end */
#endif
    step_scenario(resuming);
    report("resuming");
    stack_t stack = { .ss_sp = signal_stack, .ss_size = sizeof signal_stack }, before;
    ck_assert_int_eq(sigaltstack(&stack, &before), 0);
    elsewhere(); /* it notes the stack; until then pp_enter is C for the walker */
    ck_assert_uint_eq(world.thread.signal_lo, (uintptr_t) signal_stack);
    now.others = false;
    step_scenario(elsewhere);
    report("elsewhere");
    ck_assert_int_eq(sigaltstack(&before, NULL), 0);
    expect_nothing_wrong();
    ck_assert_uint_gt(now.frames_seen, now.visits);
    ck_assert_uint_eq(world.produced, world.method_count);
    ck_assert_uint_eq(world.taken, 3); /* first and second of two rounds, but for the first pass */
    for (const struct stub *stub = stub_table; stub < stub_table_end; stub++)
        if (can_run(stub))
            expect_all_visited(stub);
    world_close();
}
END_TEST

/* The test can fail: a row of the stub table that is a little wrong. */
START_TEST(a_wrong_row_is_noticed)
{
    world_open();
    now.others = false;
    uintptr_t page = (uintptr_t) sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t) stub_table & ~(page - 1);
    size_t size = ((uintptr_t) stub_table_end - start + page - 1) & ~(page - 1);
    ck_assert_int_eq(mprotect((void *) start, size, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
    struct stub *stub = (struct stub *) (uintptr_t) stub_at((uintptr_t) pp_leave);
    stub->set = (uint16_t) (stub->set + 8); /* two instructions, of which the first moves SP */
    step_scenario(mixed);
    ck_assert_uint_gt(now.wrong_walks, 0);
    world_close();
}
END_TEST

/* And tier-0's code in a region whose rule is another's. */
START_TEST(a_wrong_rule_is_noticed)
{
    world_open();
    pp_trace_size size = { .size = sizeof size };
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_LEAF };
    ck_assert_int_eq(pp_trace_get_size(world.tier0, &size), PP_OK);
    pp_trace_desc desc = { .size = sizeof desc, .code = pp_trace_entry(world.tier0),
                           .code_size = size.code, .frame = &rule };
    ck_assert_int_eq(pp_trace_link(world.pool, &desc, &world.tier0), PP_OK);
    note_trace(PP_WALK_TRACE, world.tier0, false);
    /* In a process of its own: an unwinder that is led astray may fault. */
    pid_t child = fork();
    ck_assert_int_ne(child, -1);
    if (child == 0) {
        step_scenario(mixed);
        _exit(now.wrong_walks > 0 && now.wrong_libunwind > 0 && now.wrong_libgcc > 0 ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert((WIFEXITED(status) && WEXITSTATUS(status) == 0)
              || (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));
    world_close();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("unwind");
    TCase *tests = tcase_create("steps");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, every_instruction);
    tcase_add_test(tests, a_wrong_row_is_noticed);
    tcase_add_test(tests, a_wrong_rule_is_noticed);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
