/* SPDX-License-Identifier: MIT */
/*
 * The walker on stacks that lie.  The stack is a block of memory between two
 * pages without permissions, so that a read outside of it is a fault; what is
 * on it is forged frame by frame, or random.
 */
#include <config.h>

#include "stress/frames.h"
#include "link/trace.h"
#include "memory/region.h"
#include "stub.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { STACK_BYTES = 65536, STACK_WORDS = STACK_BYTES / 8, FRAMES_MAX = STACK_WORDS };

static pp_pool *pool;
static pp_trace *tier0, *leaf, *plain;
static uintptr_t call_sites[64]; /* return addresses in tier0 */
static unsigned call_site_count;

static uintptr_t *stack;         /* lowest word */
static pp_thread thread;

static uintptr_t address(unsigned word)
{
    return (uintptr_t) &stack[word];
}

/* Where the code of tier0 has return addresses, by a look at its own frames. */
static void note_call_site(struct frames_call *call)
{
    pp_walk walk;
    pp_frame frame = { .size = sizeof frame };
    pp_walk_begin(&walk, call->thread, NULL);
    while (pp_walk_next(&walk, &frame))
        if (frame.kind == PP_WALK_TRACE)
            call_sites[call_site_count++] = frame.pc;
}

static void setup(void)
{
    static const unsigned char nop[16] = { 0 };
    static union {
        struct frames_shadow shadow;
        char room[sizeof(struct frames_shadow) + 64];
    } shadow;
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(frames_link_tier0(pool, "tier0", NULL, &tier0), PP_OK);
    ck_assert_int_eq(frames_link_leaf(pool, "leaf", &leaf), PP_OK);
    pp_trace_desc desc = { .size = sizeof desc, .code = nop, .code_size = sizeof nop };
    ck_assert_int_eq(pp_trace_link(pool, &desc, &plain), PP_OK);

    pp_thread own;
    ck_assert_int_eq(pp_thread_init(&own, NULL, NULL), PP_OK);
    struct frames_call call = { .thread = &own, .leave = pp_leave, .shadow = &shadow.shadow,
                                .visible = note_call_site };
    call_site_count = 0;
    pp_enter(&own, pp_trace_entry(tier0), (uintptr_t) &call, 0, 0, 0);
    ck_assert_uint_eq(call_site_count, 1);

    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    uint8_t *memory = mmap(NULL, page + STACK_BYTES + page, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    stack = (uintptr_t *) (memory + page);
    ck_assert_int_eq(mprotect(stack, STACK_BYTES, PROT_READ | PROT_WRITE), 0);
    ck_assert_int_eq(pp_thread_init(&thread, stack, stack + STACK_WORDS), PP_OK);
}

static void teardown(void)
{
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    munmap((uint8_t *) stack - page, page + STACK_BYTES + page);
    pp_pool_destroy(pool);
}

/* ---- forged frames ---------------------------------------------------- */

enum {
    RECORD = 64,                           /* word of the innermost frame record */
    STEP = FRAMES_CFA_OFFSET / 8 + 4,      /* words from one record to the next */
    FRAMES = 5,
    ENTER = RECORD + FRAMES * STEP + 32,   /* word of pp_enter's record */
    ANCHOR = ENTER + PP_ENTER_ANCHOR_OFFSET / 8
};

/* Five frames of tier0, called by pp_enter, called by C. */
static void forge_stack(void)
{
    memset(stack, 0, STACK_BYTES);
    for (unsigned i = 0; i < FRAMES; i++) {
        unsigned record = RECORD + i * STEP;
        bool last = i == FRAMES - 1;
        stack[record] = address(last ? ENTER : record + STEP);
        stack[record + 1] = last ? (uintptr_t) enter_return : call_sites[0];
    }
    stack[ENTER] = 0;
    stack[ENTER + 1] = (uintptr_t) setup;
    stack[ANCHOR + PP_ANCHOR_FP / 8] = address(ENTER);
    stack[ANCHOR + PP_ANCHOR_COOKIE / 8] = thread.cookie ^ address(ANCHOR);
    thread.anchor = address(ANCHOR);
    thread.exit_fp = 0;
}

static pp_regs regs_at(uintptr_t pc, uintptr_t fp, uintptr_t sp)
{
    pp_regs regs = { .pc = pc };
    regs.gpr[PP_REGS_FP / 8] = fp;
    regs.gpr[PP_REGS_SP / 8] = sp;
    return regs;
}

struct outcome {
    unsigned frames;
    pp_frame last;
    pp_walk_end end;
};

/* Walk to the end; what holds for every walk is checked at every frame. */
static struct outcome finish(pp_walk *walk)
{
    struct outcome outcome = { .frames = 0 };
    pp_frame frame = { .size = sizeof frame };
    uintptr_t cfa = 0;
    bool over = false, guessed = false;
    while (pp_walk_next(walk, &frame)) {
        ck_assert(!over); /* nothing follows a frame that is broken or cannot be left */
        /* A guess makes all that follows a guess, up to the end of the activation. */
        if (guessed)
            ck_assert(frame.verdict == PP_VERDICT_UNSURE || frame.kind == PP_WALK_ENTRY);
        ck_assert_int_eq(walk->end, PP_END_RUNNING);
        ck_assert_int_eq(frame.verdict == PP_VERDICT_BROKEN, frame.check != PP_CHECK_NONE);
        guessed = frame.verdict == PP_VERDICT_UNSURE;
        over = frame.verdict == PP_VERDICT_BROKEN || (guessed && frame.cfa == 0);
        if (!over) {
            ck_assert_uint_ge(frame.cfa, cfa);
            ck_assert_uint_ge(frame.cfa, thread.stack_lo);
            ck_assert_uint_le(frame.cfa, thread.stack_hi);
            cfa = frame.cfa;
        }
        outcome.last = frame;
        outcome.frames++;
        ck_assert_uint_le(outcome.frames, FRAMES_MAX);
    }
    ck_assert_int_ne(walk->end, PP_END_RUNNING);
    if (outcome.frames > 0) {
        ck_assert_int_eq(walk->end == PP_END_BROKEN, outcome.last.verdict == PP_VERDICT_BROKEN);
        ck_assert_int_eq(walk->end == PP_END_UNKNOWN,
                         outcome.last.verdict == PP_VERDICT_UNSURE && outcome.last.cfa == 0);
    }
    /* An ended walk stays ended, and the last frame is there to be looked at. */
    pp_walk_end end = walk->end;
    ck_assert_int_eq(pp_walk_next(walk, &frame), 0);
    ck_assert_int_eq(walk->end, end);
    if (outcome.frames > 0)
        ck_assert_mem_eq(&frame, &outcome.last, sizeof frame);
    outcome.end = end;
    return outcome;
}

static struct outcome walk_from(uintptr_t pc, uintptr_t fp, uintptr_t sp)
{
    pp_walk walk;
    pp_regs regs = regs_at(pc, fp, sp);
    pp_walk_begin_regs(&walk, &thread, &regs);
    return finish(&walk);
}

static struct outcome walk_forged(void)
{
    return walk_from(call_sites[0], address(RECORD), address(RECORD - 8));
}

START_TEST(a_good_stack_is_good)
{
    forge_stack();
    struct outcome outcome = walk_forged();
    ck_assert_int_eq(outcome.end, PP_END_ROOT);
    ck_assert_uint_eq(outcome.frames, FRAMES + 1);
    ck_assert_int_eq(outcome.last.kind, PP_WALK_ENTRY);
    ck_assert_int_eq(outcome.last.verdict, PP_VERDICT_VALID);
    ck_assert_uint_eq(outcome.last.cfa, address(ENTER + 2));
}
END_TEST

/* Word `word` of the good stack becomes `value`, and the walk ends there for this reason. */
enum what { VALUE, STACK_WORD, TRACE_CODE, LEAF_CODE, STUB_CODE, C_CODE, CALL_SITE, ENTER_RETURN,
            REGION_HOLE, ANCHOR_FIELD };

static const struct {
    const char *name;
    unsigned word;
    enum what what;
    uintptr_t value;
    pp_check check;
    unsigned frames;   /* reported, the broken one included */
} forged[] = {
    { "misaligned", RECORD, STACK_WORD, (RECORD + STEP) * 8 + 4, PP_CHECK_ALIGN, 2 },
    { "low bit", RECORD, STACK_WORD, (RECORD + STEP) * 8 + 1, PP_CHECK_ALIGN, 2 },
    { "null", RECORD, VALUE, 0, PP_CHECK_BOUNDS, 2 },
    { "below the stack", RECORD, STACK_WORD, (uintptr_t) -16, PP_CHECK_BOUNDS, 2 },
    { "above the stack", RECORD, STACK_WORD, STACK_BYTES, PP_CHECK_BOUNDS, 2 },
    { "half of it above", RECORD, STACK_WORD, STACK_BYTES - FRAMES_CFA_OFFSET / 2,
      PP_CHECK_BOUNDS, 2 },
    { "just below 2^64", RECORD, VALUE, (uintptr_t) -16, PP_CHECK_BOUNDS, 2 },
    { "2^63", RECORD, VALUE, (uintptr_t) 1 << 63, PP_CHECK_BOUNDS, 2 },
    { "itself", RECORD + STEP, STACK_WORD, (RECORD + STEP) * 8, PP_CHECK_GROWTH, 3 },
    { "a cycle", RECORD + 2 * STEP, STACK_WORD, RECORD * 8, PP_CHECK_GROWTH, 4 },
    { "inside the frame before", RECORD, STACK_WORD, RECORD * 8 + FRAMES_CFA_OFFSET - 16,
      PP_CHECK_GROWTH, 2 },
    { "no return address", RECORD + 1, VALUE, 0, PP_CHECK_CANONICAL, 1 },
    { "return address of the kernel", RECORD + 1, VALUE, 0xffffffff81000000, PP_CHECK_CANONICAL,
      1 },
#if defined __x86_64__
    { "not canonical", RECORD + 1, VALUE, 0x4141414141414141, PP_CHECK_CANONICAL, 1 },
#endif
    { "return to C", RECORD + 1, C_CODE, 0, PP_CHECK_CLASS, 1 },
    { "return to the stack", RECORD + 1, STACK_WORD, 8, PP_CHECK_CLASS, 1 },
    { "return to a leaf function", RECORD + 1, LEAF_CODE, 4, PP_CHECK_CLASS, 1 },
    { "return to a stub", RECORD + 1, STUB_CODE, 16, PP_CHECK_CLASS, 1 },
    { "return behind pp_enter's call", RECORD + 1, ENTER_RETURN, 4, PP_CHECK_CLASS, 1 },
    { "return to free code memory", RECORD + 1, REGION_HOLE, 0, PP_CHECK_CLASS, 1 },
    { "return to an entry", RECORD + 1, TRACE_CODE, 0, PP_CHECK_CLASS, 1 },
    { "return to the first instruction", RECORD + 1, TRACE_CODE, 4, PP_CHECK_CALL, 1 },
    { "return before a call site", RECORD + 1, CALL_SITE, (uintptr_t) -4, PP_CHECK_CALL, 1 },
    { "return behind a call site", RECORD + 1, CALL_SITE, 4, PP_CHECK_CALL, 1 },
    { "an activation too early", RECORD + 1, ENTER_RETURN, 0, PP_CHECK_ANCHOR, 2 },
    { "cookie", ANCHOR + PP_ANCHOR_COOKIE / 8, ANCHOR_FIELD, 1, PP_CHECK_COOKIE, FRAMES + 1 },
    { "cookie 0", ANCHOR + PP_ANCHOR_COOKIE / 8, VALUE, 0, PP_CHECK_COOKIE, FRAMES + 1 },
    { "another frame", ANCHOR + PP_ANCHOR_FP / 8, ANCHOR_FIELD, 16, PP_CHECK_ANCHOR, FRAMES + 1 },
    { "a newer one below", ANCHOR + PP_ANCHOR_PREVIOUS / 8, STACK_WORD, ANCHOR * 8,
      PP_CHECK_ANCHOR, FRAMES + 1 },
    { "saved FP", RECORD + (FRAMES - 1) * STEP, STACK_WORD, ENTER * 8 + 16, PP_CHECK_ANCHOR,
      FRAMES + 1 },
};

static uintptr_t region_hole(void)
{
    struct code_place place;
    const struct region *region = region_at((uintptr_t) pp_trace_entry(tier0));
    for (uintptr_t at = region->code_hi - 16; at > region->code_lo; at -= 16)
        if (!code_at(at, &place) && at - region->island_lo >= region->island_hi - region->island_lo)
            return at;
    ck_abort_msg("a full region");
    return 0;
}

START_TEST(each_check_finds_its_forgery)
{
    uintptr_t value = forged[_i].value;
    forge_stack();
    switch (forged[_i].what) {
    case VALUE: break;
    case STACK_WORD: value += address(0); break;
    case TRACE_CODE: value += (uintptr_t) pp_trace_entry(tier0); break;
    case LEAF_CODE: value += (uintptr_t) pp_trace_entry(leaf); break;
    case STUB_CODE: value += (uintptr_t) pp_leave; break;
    case C_CODE: value = (uintptr_t) setup + 16; break;
    case CALL_SITE: value += call_sites[0]; break;
    case ENTER_RETURN: value += (uintptr_t) enter_return; break;
    case REGION_HOLE: value = region_hole(); break;
    case ANCHOR_FIELD: value ^= stack[forged[_i].word]; break;
    }
    stack[forged[_i].word] = value;
    struct outcome outcome = walk_forged();
    ck_assert_msg(outcome.last.check == forged[_i].check && outcome.frames == forged[_i].frames
                      && outcome.end == PP_END_BROKEN,
                  "%s: %s in frame %u, end %s", forged[_i].name,
                  pp_check_name(outcome.last.check), outcome.frames,
                  pp_walk_end_name(outcome.end));
}
END_TEST

/* The thread's own fields, and the registers that a walk starts from. */
START_TEST(starts_are_checked)
{
    forge_stack();
    thread.anchor = 0;
    ck_assert_int_eq(walk_forged().last.check, PP_CHECK_ANCHOR);
    thread.anchor = address(ANCHOR) + 4;
    ck_assert_int_eq(walk_forged().last.check, PP_CHECK_ALIGN);
    thread.anchor = thread.stack_hi - 8;
    ck_assert_int_eq(walk_forged().last.check, PP_CHECK_BOUNDS);
    thread.anchor = address(RECORD - 32);
    ck_assert_int_eq(walk_forged().last.check, PP_CHECK_GROWTH);
    thread.anchor = address(ANCHOR);

    ck_assert_int_eq(walk_from(0, address(RECORD), address(8)).last.check, PP_CHECK_CANONICAL);
    ck_assert_int_eq(walk_from((uintptr_t) enter_return, address(RECORD), address(8)).last.check,
                     PP_CHECK_CLASS);
    ck_assert_int_eq(walk_from(call_sites[0], address(RECORD) + 2, address(8)).last.check,
                     PP_CHECK_ALIGN);
    ck_assert_int_eq(walk_from(call_sites[0], address(RECORD), address(RECORD + 2)).last.check,
                     PP_CHECK_GROWTH);

    /* A stack that has no room, or its ends the wrong way round. */
    pp_thread good = thread;
    thread.stack_hi = thread.stack_lo + 8;
    ck_assert_int_eq(walk_forged().last.check, PP_CHECK_BOUNDS);
    thread = good;
    thread.stack_lo = good.stack_hi;
    thread.stack_hi = good.stack_lo;
    ck_assert_int_eq(walk_forged().last.check, PP_CHECK_BOUNDS);
    thread = good;

    /* From the way out: the record there, and an exit that nothing has left. */
    pp_walk walk;
    thread.exit_fp = address(RECORD) + 8; /* the words of the record, one too high */
    pp_walk_begin(&walk, &thread, NULL);
    ck_assert_int_eq(finish(&walk).last.verdict, PP_VERDICT_BROKEN);
    thread.exit_fp = 16;
    pp_walk_begin(&walk, &thread, NULL);
    ck_assert_int_eq(finish(&walk).last.check, PP_CHECK_BOUNDS);
}
END_TEST

START_TEST(activations_in_C)
{
    pp_walk walk;
    forge_stack();

    /* C called directly: the activation is there, its frames are hidden. */
    pp_walk_begin(&walk, &thread, NULL);
    struct outcome outcome = finish(&walk);
    ck_assert_uint_eq(outcome.frames, 1);
    ck_assert_int_eq(outcome.last.verdict, PP_VERDICT_GAP);
    ck_assert_int_eq(outcome.end, PP_END_ROOT);

    /* Out through a stub whose record is the innermost. */
    thread.exit_fp = address(RECORD);
    pp_walk_begin(&walk, &thread, NULL);
    outcome = finish(&walk);
    ck_assert_uint_eq(outcome.frames, FRAMES + 1);
    ck_assert_int_eq(outcome.end, PP_END_ROOT);

    /* An exit record above the anchor is from before: pp_enter is not in compiled code. */
    thread.exit_fp = address(ENTER + 64);
    pp_walk_begin(&walk, &thread, NULL);
    outcome = finish(&walk);
    ck_assert_uint_eq(outcome.frames, 1);
    ck_assert_int_eq(outcome.last.verdict, PP_VERDICT_VALID);

    thread.anchor = thread.exit_fp = 0;
    pp_walk_begin(&walk, &thread, NULL);
    outcome = finish(&walk);
    ck_assert_uint_eq(outcome.frames, 0);
    ck_assert_int_eq(outcome.end, PP_END_ROOT);
}
END_TEST

START_TEST(a_frame_without_a_rule_ends_the_walk)
{
    ucontext_t context;
    memset(&context, 0, sizeof context);
    forge_stack();
#if defined __x86_64__
    context.uc_mcontext.gregs[REG_RIP] = (greg_t) (uintptr_t) pp_trace_entry(plain);
    context.uc_mcontext.gregs[REG_RSP] = (greg_t) address(RECORD - 8);
#else
    context.uc_mcontext.pc = (uintptr_t) pp_trace_entry(plain);
    context.uc_mcontext.sp = address(RECORD - 8);
#endif
    pp_walk walk;
    pp_walk_begin(&walk, &thread, &context);
    struct outcome outcome = finish(&walk);
    ck_assert_uint_eq(outcome.frames, 1);
    ck_assert_int_eq(outcome.last.verdict, PP_VERDICT_UNSURE);
    ck_assert_uint_eq(outcome.last.is_top, 1);
    ck_assert_ptr_eq(outcome.last.trace, plain);
    ck_assert_int_eq(outcome.end, PP_END_UNKNOWN);

    /* Code that was freed meanwhile. */
    ck_assert_int_eq(pp_trace_free(pool, plain), PP_OK);
    pp_walk_begin(&walk, &thread, &context);
    outcome = finish(&walk);
    ck_assert_int_eq(outcome.last.check, PP_CHECK_CLASS);
}
END_TEST

/* ---- a signal stack -------------------------------------------------------- */

static pp_thread caller;
static struct frames_call *handlers_call;
static unsigned walks;

static void walk_here(struct frames_call *call, unsigned activations)
{
    pp_walk walk;
    pp_frame frame = { .size = sizeof frame };
    unsigned number = 0;
    for (pp_walk_begin(&walk, call->thread, NULL); pp_walk_next(&walk, &frame); number++) {
        static const pp_walk_kind kinds[] = { PP_WALK_STUB, PP_WALK_TRACE, PP_WALK_ENTRY };
        ck_assert_int_eq(frame.verdict, PP_VERDICT_VALID);
        ck_assert_int_eq(frame.kind, kinds[number % 3]);
        if (frame.kind == PP_WALK_STUB)
            ck_assert_str_eq(frame.name, "pp_leave");
    }
    ck_assert_int_eq(walk.end, PP_END_ROOT);
    ck_assert_uint_eq(number, 3 * activations);
    walks++;
}

static void in_handler(struct frames_call *call)
{
    walk_here(call, 2);
}

static void on_signal(int number)
{
    (void) number;
    pp_enter(&caller, pp_trace_entry(tier0), (uintptr_t) handlers_call, 0, 0, 0);
}

static void raise_it(struct frames_call *call)
{
    walk_here(call, 1);
    ck_assert_int_eq(raise(SIGUSR1), 0);
    walk_here(call, 1);
}

START_TEST(activations_on_a_signal_stack)
{
    static char room[65536];
    static union {
        struct frames_shadow shadow;
        char room[sizeof(struct frames_shadow) + 128];
    } shadow;
    ck_assert_int_eq(pp_thread_init(&caller, NULL, NULL), PP_OK);
    struct frames_call outer = { .thread = &caller, .leave = pp_leave, .shadow = &shadow.shadow,
                                 .visible = raise_it }, inner = outer;
    inner.visible = in_handler;
    handlers_call = &inner;
    stack_t other = { .ss_sp = room, .ss_size = sizeof room }, before;
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK }, old;
    ck_assert_int_eq(sigaltstack(&other, &before), 0);
    ck_assert_int_eq(sigaction(SIGUSR1, &action, &old), 0);
    walks = 0;
    for (int i = 0; i < 2; i++)
        pp_enter(&caller, pp_trace_entry(tier0), (uintptr_t) &outer, 0, 0, 0);
    ck_assert_uint_eq(walks, 6);
    ck_assert_uint_eq(caller.signal_lo, (uintptr_t) room);
    ck_assert_uint_eq(caller.signal_hi, (uintptr_t) room + sizeof room);
    sigaction(SIGUSR1, &old, NULL);
    sigaltstack(&before, NULL);
}
END_TEST

START_TEST(limits_and_misuse)
{
    pp_walk walk;
    pp_frame frame = { .size = sizeof frame }, small = { .size = 8, .pc = 77 };
    pp_regs regs = regs_at(call_sites[0], address(RECORD), address(RECORD - 8));
    for (unsigned limit = 1; limit <= FRAMES + 2; limit++) {
        forge_stack();
        unsigned frames = 0;
        pp_walk_begin_regs(&walk, &thread, &regs);
        walk.max_frames = limit;
        while (pp_walk_next(&walk, &frame))
            frames++;
        /* Exactly as many as there are is no limit that was hit. */
        ck_assert_uint_eq(frames, limit < FRAMES + 1 ? limit : FRAMES + 1);
        ck_assert_int_eq(walk.end, limit < FRAMES + 1 ? PP_END_LIMIT : PP_END_ROOT);
    }
    pp_walk_begin(&walk, NULL, NULL);
    ck_assert_int_eq(pp_walk_next(&walk, &frame), 0);
    ck_assert_int_eq(walk.end, PP_END_BROKEN);
    pp_walk_begin_regs(&walk, &thread, NULL);
    ck_assert_int_eq(pp_walk_next(&walk, &frame), 0);
    ck_assert_int_eq(walk.end, PP_END_BROKEN);
    pp_walk_begin(NULL, &thread, NULL);
    pp_walk_begin_regs(NULL, &thread, &regs);
    ck_assert_int_eq(pp_walk_next(NULL, &frame), 0);
    ck_assert_int_eq(pp_walk_next(&walk, NULL), 0);
    /* A frame of another size is not written to, and the walk has not ended. */
    pp_walk_begin_regs(&walk, &thread, &regs);
    ck_assert_int_eq(pp_walk_next(&walk, &small), 0);
    ck_assert_int_eq(walk.end, PP_END_RUNNING);
    ck_assert_uint_eq(small.pc, 77);
}
END_TEST

/* ---- random words ------------------------------------------------------- */

static uint64_t state;

static uint64_t random64(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* A word such as a stack has: often just right, often nearly. */
static uintptr_t random_word(void)
{
    uint64_t r = random64();
    uintptr_t near = r >> 32 & 7;
    switch (r % 10) {
    case 0: return random64();
    case 1: return (uintptr_t) -(random64() & 0xff);
    case 2: return 0;
    case 3: return (uintptr_t) enter_return + (near == 0 ? 4 : 0);
    case 4: case 5: return call_sites[0] + (near == 0 ? random64() % 64 : 0);
    case 6: return (uintptr_t) pp_trace_entry(tier0) + random64() % 400;
    case 7: return thread.cookie ^ address(random64() % STACK_WORDS);
    default: return address(random64() % STACK_WORDS) + (near == 0 ? random64() % 16 : 0);
    }
}

static void random_stack(void)
{
    for (unsigned i = 0; i < STACK_WORDS; i++)
        stack[i] = random_word();
    /* Some stretches are chains, which random words hardly ever are. */
    for (unsigned chain = 0; chain < 64; chain++) {
        unsigned at = (unsigned) (random64() % (STACK_WORDS - 256));
        for (unsigned i = 0; i < 8; i++) {
            unsigned next = at + FRAMES_CFA_OFFSET / 8 + 2 * (unsigned) (random64() % 8);
            stack[at] = address(next);
            stack[at + 1] = random64() % 16 == 0 ? random_word() : call_sites[0];
            at = next;
        }
        stack[at] = address(at + 40);
        stack[at + 1] = (uintptr_t) enter_return;
        unsigned anchor = at + 40 + PP_ENTER_ANCHOR_OFFSET / 8;
        if (anchor > at + 2) {
            stack[anchor] = random64() % 2 ? address(random64() % STACK_WORDS) : 0;
            stack[anchor + 1] = random64() % 2 ? address(random64() % STACK_WORDS) : 0;
            stack[anchor + 2] = address(at + 40);
            stack[anchor + 3] = thread.cookie ^ address(anchor);
            thread.anchor = address(anchor);
        }
    }
}

static void random_context(ucontext_t *context)
{
    const uintptr_t pcs[] = {
        (uintptr_t) pp_trace_entry(tier0) + random64() % 400, call_sites[0],
        (uintptr_t) pp_enter + random64() % 400, (uintptr_t) pp_leave + random64() % 100,
        (uintptr_t) patchpoint_gpr + random64() % 600, (uintptr_t) frame_resume + random64() % 80,
        (uintptr_t) pp_trace_entry(leaf) + random64() % 32, (uintptr_t) pp_trace_entry(plain),
        region_at((uintptr_t) pp_trace_entry(tier0))->island_lo + random64() % 4096,
        (uintptr_t) setup, random_word(),
    };
    memset(context, 0, sizeof *context);
#if defined __x86_64__
    for (unsigned i = 0; i < NGREG; i++)
        context->uc_mcontext.gregs[i] = (greg_t) random_word();
    context->uc_mcontext.gregs[REG_RIP] = (greg_t) pcs[random64() % COUNT(pcs)];
#else
    for (unsigned i = 0; i < 31; i++)
        context->uc_mcontext.regs[i] = random_word();
    context->uc_mcontext.sp = random_word();
    context->uc_mcontext.pc = pcs[random64() % COUNT(pcs)] & ~(uintptr_t) 3;
#endif
}

START_TEST(random_stacks_never_fault)
{
    unsigned long ends[PP_END_LIMIT + 1] = { 0 }, checks[PP_CHECK_ANCHOR + 1] = { 0 }, long_ones = 0;
    const char *given = getenv("CHECK_WALK_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL);
    state = seed;
    for (unsigned round = 0; round < 150; round++) {
        random_stack();
        for (unsigned i = 0; i < 1000; i++) {
            pp_walk walk;
            ucontext_t context;
            pp_regs regs = regs_at(random_word(), random_word(), random_word());
            if (i % 8 == 0)
                thread.anchor = random_word();
            thread.exit_fp = random64() % 4 == 0 ? 0 : random_word();
            switch (random64() % 3) {
            case 0:
                random_context(&context);
                pp_walk_begin(&walk, &thread, &context);
                break;
            case 1:
                pp_walk_begin(&walk, &thread, NULL);
                break;
            default:
                pp_walk_begin_regs(&walk, &thread, &regs);
            }
            struct outcome outcome = finish(&walk);
            ends[outcome.end]++;
            checks[outcome.last.check]++;
            long_ones += outcome.frames > 8;
        }
    }
    printf("seed %llu:", (unsigned long long) seed);
    for (int check = PP_CHECK_NONE; check <= PP_CHECK_ANCHOR; check++)
        printf(" %s %lu", pp_check_name(check), checks[check]);
    printf("; %lu walks of more than 8 frames\n", long_ones);
    /* The words are such that every check has something to find. */
    for (int check = PP_CHECK_NONE; check <= PP_CHECK_ANCHOR; check++)
        ck_assert_msg(checks[check] > 0, "never: %s", pp_check_name(check));
    ck_assert_uint_gt(ends[PP_END_ROOT], 0);
    ck_assert_uint_gt(ends[PP_END_UNKNOWN], 0);
    ck_assert_uint_gt(long_ones, 0);
}
END_TEST

START_TEST(names)
{
    for (int kind = PP_WALK_TRACE; kind <= PP_WALK_ENTRY; kind++)
        ck_assert_str_ne(pp_walk_kind_name(kind), "unknown");
    for (int verdict = PP_VERDICT_VALID; verdict <= PP_VERDICT_BROKEN; verdict++)
        ck_assert_str_ne(pp_verdict_name(verdict), "unknown");
    for (int check = PP_CHECK_NONE; check <= PP_CHECK_ANCHOR; check++)
        ck_assert_str_ne(pp_check_name(check), "unknown");
    for (int end = PP_END_RUNNING; end <= PP_END_LIMIT; end++)
        ck_assert_str_ne(pp_walk_end_name(end), "unknown");
    ck_assert_str_eq(pp_walk_kind_name(0), "unknown");
    ck_assert_str_eq(pp_verdict_name(99), "unknown");
    ck_assert_str_eq(pp_check_name(99), "unknown");
    ck_assert_str_eq(pp_walk_end_name(99), "unknown");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("walk");
    TCase *tests = tcase_create("walk");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 30);
    tcase_add_test(tests, a_good_stack_is_good);
    tcase_add_loop_test(tests, each_check_finds_its_forgery, 0, COUNT(forged));
    tcase_add_test(tests, starts_are_checked);
    tcase_add_test(tests, activations_in_C);
    tcase_add_test(tests, a_frame_without_a_rule_ends_the_walk);
    tcase_add_test(tests, activations_on_a_signal_stack);
    tcase_add_test(tests, limits_and_misuse);
    tcase_add_test(tests, random_stacks_never_fault);
    tcase_add_test(tests, names);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
