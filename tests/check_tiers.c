/* SPDX-License-Identifier: MIT */
/*
 * Three tiers in one activation: a loop begins in tier-0, goes on in a body of tier 1, whose
 * own site leads to tier 2, until an assumption breaks; then it goes on in tier-0, which is
 * not compiled again, and climbs once more.  Each style leads on from each.
 *
 *      tier0(n, sum, thread)   frame; site: to tier 1; sum += n; if (--n) again; return sum
 *      tier 1, 2               again: (tier 1: site: to tier 2) if (check(tier, n)) goto leave;
 *                              sum += n; if (--n) goto again; return sum
 *                              leave: drop the frame; tail call of tier0(n, sum, thread)
 *
 * A body on top changes a register that C functions keep, so that one that is not restored on
 * some way down is seen in the end.
 */
#include <config.h>

#include "snippet.h"

#include <patchpoint.h>

#include <check.h>
#include <stdbool.h>

#if defined __x86_64__
enum { FRAME = 48, CFA = 16, OUTER_CFA = 16, KEPT = 3 /* rbx */ };
#define T0_SLOTS { -8, -16, -32, -20 }
#else
enum { FRAME = 0, CFA = 64, OUTER_CFA = 32, KEPT = 19 };
#define T0_SLOTS { 16, 24, 40, 32 }
#endif

enum { PASSES = 4, MAGIC = 0x4567, N = 200 };

/* A frame that a site is in: what the library knows of it, and where its values are. */
struct frame {
    pp_tier0_layout layout;
    struct slots { int32_t n, sum, thread, counter; } slots;
};

static const pp_osr_style styles[] = { PP_ON_TOP, PP_REPLACE, PP_BUFFER };
enum { STYLES = 3 };

static pp_pool *pool;
static pp_thread thread;
static _Alignas(16) char buffers[1024];
static pp_symbol tier0, check_symbol, release_symbol;
static const void *outer;

/* The tiers: 1 and 2 are made by producers, as often as it takes. */
static struct tier {
    pp_osr_style style;
    pp_site *site;           /* that leads to it */
    struct frame from, to;   /* the site's, and the body's own */
    pp_trace *body;
    pp_entry *entry;
    unsigned made, passes;
} tiers[3];

static pp_ticket ticket;     /* of what is given up, or 0 */
static size_t reclaimed;
static uint64_t leave_at;    /* n at which the assumption breaks */

/* ---- instructions ------------------------------------------------------------------ */

#if defined __x86_64__
static void load(struct snippet *s, unsigned reg, int32_t offset) /* of rax to rdi, by number */
{
    SNIPPET_CODE(s, 0x48, 0x8b, (uint8_t) (0x45 | reg << 3), (uint8_t) offset);
}

static void store(struct snippet *s, unsigned reg, int32_t offset)
{
    SNIPPET_CODE(s, 0x48, 0x89, (uint8_t) (0x45 | reg << 3), (uint8_t) offset);
}

static void set_counter(struct snippet *s, int32_t offset)
{
    SNIPPET_CODE(s, 0xc7, 0x45, (uint8_t) offset, PASSES, 0, 0, 0);
}

static void push_frame(struct snippet *s)
{
    SNIPPET_CODE(s, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, FRAME);
}

static void emit_loop_end(struct snippet *s, const struct slots *at, size_t top)
{
    load(s, 0, at->n);
    SNIPPET_CODE(s, 0x48, 0x01, 0x45, (uint8_t) at->sum);              /* add %rax, sum */
    SNIPPET_CODE(s, 0x48, 0xff, 0x4d, (uint8_t) at->n);                /* decq n */
    SNIPPET_CODE(s, 0x0f, 0x85, 0, 0, 0, 0);                           /* jnz top */
    snippet_reloc(s, 4, R_X86_64_PC32, PP_SYMBOL_CODE, (int64_t) top - 4);
    load(s, 0, at->sum);
}

static void emit_return(struct snippet *s) { SNIPPET_CODE(s, 0xc9, 0xc3); }

static void emit_arguments(struct snippet *s, const struct slots *at)
{
    load(s, 7, at->n);
    load(s, 6, at->sum);
    load(s, 2, at->thread);
}

static void emit_tail(struct snippet *s)
{
    SNIPPET_CODE(s, 0xc9, 0xe9, 0, 0, 0, 0);                           /* leave; jmp tier0 */
    snippet_reloc(s, 4, R_X86_64_PLT32, tier0, -4);
}

static void emit_arguments_stored(struct snippet *s, const struct slots *at)
{
    store(s, 7, at->n);
    store(s, 6, at->sum);
    store(s, 2, at->thread);
}

static void emit_check(struct snippet *s, unsigned tier, const struct slots *at, size_t leave)
{
    SNIPPET_CODE(s, 0xbf, (uint8_t) tier, 0, 0, 0);                    /* mov $tier, %edi */
    load(s, 6, at->n);
    snippet_call(s, check_symbol);
    SNIPPET_CODE(s, 0x85, 0xc0, 0x0f, 0x85, 0, 0, 0, 0);               /* if (eax) goto leave */
    snippet_reloc(s, 4, R_X86_64_PC32, PP_SYMBOL_CODE, (int64_t) leave - 4);
}

/* The buffer's values to the frame, and the buffer back. */
static void emit_unpack(struct snippet *s, const struct slots *at)
{
    SNIPPET_CODE(s, 0x48, 0x8b, 0x07);                                 /* mov (%rdi), %rax */
    store(s, 0, at->n);
    SNIPPET_CODE(s, 0x48, 0x8b, 0x47, 0x08);
    store(s, 0, at->sum);
    SNIPPET_CODE(s, 0x48, 0x8b, 0x47, 0x10);
    store(s, 0, at->thread);
    SNIPPET_CODE(s, 0x48, 0x89, 0xfe, 0x48, 0x89, 0xc7);               /* (thread, buffer) */
    snippet_call(s, release_symbol);
}

static void emit_spoil(struct snippet *s) { SNIPPET_CODE(s, 0x48, 0xc7, 0xc3, 255, 255, 255, 255); }

/* A jump over what is emitted up to emit_landing. */
static size_t emit_over(struct snippet *s)
{
    SNIPPET_CODE(s, 0xeb, 0);
    return s->size;
}

static void emit_landing(struct snippet *s, size_t over)
{
    s->code[over - 1] = (uint8_t) (s->size - over);
}

static void emit_outer(struct snippet *s)
{
    SNIPPET_CODE(s, 0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x83, 0xec, 8);
    SNIPPET_CODE(s, 0xbb, MAGIC & 255, MAGIC >> 8, 0, 0);              /* mov $MAGIC, %ebx */
    snippet_call(s, tier0);
    SNIPPET_CODE(s, 0x48, 0x01, 0xd8, 0x48, 0x8b, 0x5d, 0xf8, 0xc9, 0xc3); /* return rax + rbx */
}
#else
static uint32_t memory(uint32_t word, unsigned reg, int32_t offset)
{
    return word | ((uint32_t) offset & 0x1ff) << 12 | 29u << 5 | reg;
}

static void load(struct snippet *s, unsigned reg, int32_t offset)
{
    SNIPPET_WORDS(s, memory(0xf8400000, reg, offset));
}

static void store(struct snippet *s, unsigned reg, int32_t offset)
{
    SNIPPET_WORDS(s, memory(0xf8000000, reg, offset));
}

static void set_counter(struct snippet *s, int32_t offset)
{
    SNIPPET_WORDS(s, 0x52800009 | PASSES << 5, memory(0xb8000000, 9, offset));
}

static void push_frame(struct snippet *s) { SNIPPET_WORDS(s, 0xa9bc7bfd, 0x910003fd); }

static void emit_loop_end(struct snippet *s, const struct slots *at, size_t top)
{
    load(s, 9, at->n);
    load(s, 10, at->sum);
    SNIPPET_WORDS(s, 0x8b09014a);                                      /* add x10, x10, x9 */
    store(s, 10, at->sum);
    SNIPPET_WORDS(s, 0xf1000529);                                      /* subs x9, x9, #1 */
    store(s, 9, at->n);
    SNIPPET_WORDS(s, 0x54000001);                                      /* b.ne top */
    snippet_reloc(s, 4, R_AARCH64_CONDBR19, PP_SYMBOL_CODE, (int64_t) top);
    load(s, 0, at->sum);
}

static void emit_return(struct snippet *s) { SNIPPET_WORDS(s, 0x910003bf, 0xa8c47bfd, 0xd65f03c0); }

static void emit_arguments(struct snippet *s, const struct slots *at)
{
    load(s, 0, at->n);
    load(s, 1, at->sum);
    load(s, 2, at->thread);
}

static void emit_tail(struct snippet *s)
{
    SNIPPET_WORDS(s, 0x910003bf, 0xa8c47bfd, 0x14000000);              /* b tier0 */
    snippet_reloc(s, 4, R_AARCH64_JUMP26, tier0, 0);
}

static void emit_arguments_stored(struct snippet *s, const struct slots *at)
{
    store(s, 0, at->n);
    store(s, 1, at->sum);
    store(s, 2, at->thread);
}

static void emit_check(struct snippet *s, unsigned tier, const struct slots *at, size_t leave)
{
    SNIPPET_WORDS(s, 0x52800000 | tier << 5);
    load(s, 1, at->n);
    snippet_call(s, check_symbol);
    SNIPPET_WORDS(s, 0x35000000);                                      /* cbnz w0, leave */
    snippet_reloc(s, 4, R_AARCH64_CONDBR19, PP_SYMBOL_CODE, (int64_t) leave);
}

static void emit_unpack(struct snippet *s, const struct slots *at)
{
    SNIPPET_WORDS(s, 0xf9400009);
    store(s, 9, at->n);
    SNIPPET_WORDS(s, 0xf9400409);
    store(s, 9, at->sum);
    SNIPPET_WORDS(s, 0xf9400809);
    store(s, 9, at->thread);
    SNIPPET_WORDS(s, 0xaa0003e1, 0xaa0903e0);                          /* (thread, buffer) */
    snippet_call(s, release_symbol);
}

static void emit_spoil(struct snippet *s) { SNIPPET_WORDS(s, 0x92800013); }

static size_t emit_over(struct snippet *s)
{
    SNIPPET_WORDS(s, 0x14000000);
    return s->size;
}

static void emit_landing(struct snippet *s, size_t over)
{
    uint32_t jump = 0x14000000 | (uint32_t) (s->size - over + 4) / 4;
    memcpy(s->code + over - 4, &jump, 4);
}

static void emit_outer(struct snippet *s)
{
    SNIPPET_WORDS(s, 0xa9be7bfd, 0x910003fd, 0xf9000bf3);              /* 32 bytes; str x19 */
    SNIPPET_WORDS(s, 0x52800013 | MAGIC << 5);
    snippet_call(s, tier0);
    SNIPPET_WORDS(s, 0x8b130000, 0xf9400bf3, 0xa8c27bfd, 0xd65f03c0);
}
#endif

/* ---- bodies ---------------------------------------------------------------------------- */

static const struct frame t0_frame = {
    { .size = sizeof(pp_tier0_layout), .frame_bytes = FRAME, .cfa_offset = CFA }, T0_SLOTS
};

static void emit_site(struct snippet *s, pp_site *site)
{
    uint8_t bytes[160];
    pp_site_layout layout = { .size = sizeof layout };
    ck_assert_int_eq(pp_emit_site(site, bytes, sizeof bytes, &layout), PP_OK);
    snippet_bytes(s, bytes, layout.bytes);
    for (unsigned i = 0; i < layout.reloc_count; i++)
        snippet_reloc(s, (int) (layout.bytes - layout.relocs[i].offset), layout.relocs[i].type,
                      layout.relocs[i].symbol, layout.relocs[i].addend);
}

static pp_trace *link_code(struct snippet *s, const char *name, const pp_frame_rule *given)
{
    pp_trace *trace;
    pp_error error = { .size = sizeof error };
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD, .cfa_offset = CFA };
    pp_trace_desc desc = snippet_desc(s);
    desc.name = name;
    desc.frame = given != NULL ? given : &rule;
    desc.error = &error;
    ck_assert_msg(pp_trace_link(pool, &desc, &trace) == PP_OK, "%s", error.text);
    snippet_free(s);
    return trace;
}

static pp_osr_frame on_top(const struct frame *from)
{
    return (pp_osr_frame) { .size = sizeof(pp_osr_frame), .scheme = PP_CSR_RELOAD,
                            .tier0 = &from->layout, .used = 1u << KEPT, .local_bytes = 32 };
}

/* The frame that a body finds or makes, and for PP_ON_TOP its prologue. */
static void choose_frame(struct tier *tier, pp_osr_layout *prologue, uint8_t *bytes, size_t size)
{
    tier->to = t0_frame; /* of PP_BUFFER */
    if (tier->style == PP_REPLACE) {
        tier->to.layout.frame_bytes = FRAME + 32;
        tier->to.slots = (struct slots) { -24, -40, -48, -52 };
#if defined __aarch64__
        tier->to.slots = (struct slots) { -8, 24, -16, -24 };
#endif
    } else if (tier->style == PP_ON_TOP) {
        pp_osr_frame frame = on_top(&tier->from);
        ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, size, prologue), PP_OK);
        tier->to = tier->from;
        tier->to.layout.frame_bytes += prologue->stack_bytes;
        tier->to.layout.saves = prologue->rule.own;
    }
}

static void emit_begin(struct snippet *s, const struct tier *tier, const uint8_t *prologue,
                       size_t size)
{
    if (tier->style == PP_ON_TOP) {
        snippet_bytes(s, prologue, size);
        emit_spoil(s);
    } else if (tier->style == PP_BUFFER) {
        push_frame(s);
        emit_unpack(s, &tier->to.slots);
    }
}

static void emit_end(struct snippet *s, const struct tier *tier)
{
    uint8_t bytes[128];
    pp_osr_layout epilogue = { .size = sizeof epilogue };
    pp_osr_frame frame = on_top(&tier->from);
    if (tier->style != PP_ON_TOP) {
        emit_return(s);
        return;
    }
    ck_assert_int_eq(pp_emit_osr_epilogue(&frame, bytes, sizeof bytes, &epilogue), PP_OK);
    snippet_bytes(s, bytes, epilogue.bytes);
}

static void make_body(unsigned number)
{
    struct tier *tier = &tiers[number];
    struct snippet s = { 0 };
    uint8_t bytes[128];
    pp_osr_layout prologue = { .size = sizeof prologue };
    choose_frame(tier, &prologue, bytes, sizeof bytes);
    emit_begin(&s, tier, bytes, prologue.bytes);
    size_t over = emit_over(&s), leave = s.size;
    if (tier->style == PP_ON_TOP)
        load(&s, KEPT, tier->to.layout.saves.offset);
    emit_arguments(&s, &tier->to.slots);
    emit_tail(&s);
    emit_landing(&s, over);
    if (number == 1)
        set_counter(&s, tier->to.slots.counter);
    size_t top = s.size;
    if (number == 1)
        emit_site(&s, tiers[2].site);
    emit_check(&s, number, &tier->to.slots, leave);
    emit_loop_end(&s, &tier->to.slots, top);
    emit_end(&s, tier);
    tier->body = link_code(&s, number == 1 ? "tier 1" : "tier 2",
                           tier->style == PP_ON_TOP ? &prologue.rule : NULL);
}

static pp_status make_entry(struct tier *tier, pp_entry **entry)
{
    const struct slots *from = &tier->from.slots, *to = &tier->to.slots;
    const pp_value replace[] = { { PP_AT_SLOT(from->n), PP_AT_SLOT(to->n), .bytes = 8 },
                                 { PP_AT_SLOT(from->sum), PP_AT_SLOT(to->sum), .bytes = 8 },
                                 { PP_AT_SLOT(from->thread), PP_AT_SLOT(to->thread), .bytes = 8 } };
    const pp_value buffer[] = { { PP_AT_SLOT(from->n), PP_AT_BUFFER(0), .bytes = 8 },
                                { PP_AT_SLOT(from->sum), PP_AT_BUFFER(8), .bytes = 8 },
                                { PP_AT_SLOT(from->thread), PP_AT_BUFFER(16), .bytes = 8 } };
    pp_error error = { .size = sizeof error };
    pp_entry_desc desc = { .size = sizeof desc, .style = tier->style, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(tier->body), .tier0 = &tier->from.layout,
                           .stack_bytes = 256, .flags = PP_ENTRY_CHECK_STACK, .error = &error };
    if (tier->style == PP_ON_TOP)
        desc.used = 1u << KEPT;
    if (tier->style != PP_ON_TOP) {
        desc.values = tier->style == PP_REPLACE ? replace : buffer;
        desc.value_count = 3;
        desc.thread_offset = from->thread;
        desc.body = tier->style == PP_REPLACE ? &tier->to.layout : NULL;
    }
    pp_status status = pp_entry_create(pool, &desc, &tier->entry);
    ck_assert_msg(status == PP_OK, "%s", error.text);
    *entry = tier->entry;
    return status;
}

static pp_site *site_in(const struct frame *frame, struct tier *tier, pp_produce *produce)
{
    pp_site *site;
    pp_error error = { .size = sizeof error };
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_COUNTED, .counter = PP_COUNTER_FRAME,
                          .counter_offset = frame->slots.counter, .threshold = PASSES,
                          .thread_offset = frame->slots.thread, .tier0 = &frame->layout,
                          .produce = produce, .host = tier, .error = &error };
    ck_assert_msg(pp_site_create(pool, &desc, &site) == PP_OK, "%s", error.text);
    return site;
}

/* ---- producers, and the end of an assumption ----------------------------------------------- */

static pp_status produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    struct tier *tier = host;
    (void) site, (void) regs;
    tier->made++;
    if (tier == &tiers[1] && ticket != 0) {
        /* The only thread is in tier-0: what was given up can go. */
        pp_reclaim_result result = { .size = sizeof result };
        ck_assert_int_eq(pp_reclaim(pool, ticket, NULL, 0, &result), PP_OK);
        ck_assert_uint_eq(result.waiting + result.held, 0);
        reclaimed += result.freed;
        ticket = 0;
    }
    if (tier == &tiers[1] && tiers[2].site == NULL) {
        /* The frame of tier 1, which its site is in, is known before its code is. */
        uint8_t bytes[128];
        pp_osr_layout prologue = { .size = sizeof prologue };
        choose_frame(tier, &prologue, bytes, sizeof bytes);
        tiers[2].from = tier->to;
        tiers[2].site = site_in(&tier->to, &tiers[2], produce);
    }
    make_body((unsigned) (tier - tiers));
    return make_entry(tier, entry);
}

static void give_up(struct tier *tier)
{
    pp_entry *old;
    ck_assert_int_eq(pp_site_replace(tier->site, NULL, &old), PP_OK);
    ck_assert_ptr_eq(old, tier->entry);
    ck_assert_int_eq(pp_entry_destroy(pool, old), PP_OK);
    ck_assert_int_eq(pp_trace_retire(pool, tier->body), PP_OK);
}

static uintptr_t check(uintptr_t number, uintptr_t n)
{
    tiers[number].passes++;
    if (number != 2 || n != leave_at)
        return 0;
    give_up(&tiers[1]);
    give_up(&tiers[2]);
    ticket = pp_retire_ticket(pool);
    leave_at -= 50;
    return 1;
}

static void release(pp_thread *of, const void *buffer)
{
    ck_assert_int_eq(pp_buffer_release(of, buffer), PP_OK);
}

/* ---- the test --------------------------------------------------------------------------- */

static void setup(void)
{
    struct snippet s = { 0 };
    memset(tiers, 0, sizeof tiers);
    ticket = 0;
    reclaimed = 0;
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    ck_assert_uint_le(pp_buffer_space(24, 4), sizeof buffers);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, buffers, 24, 4), PP_OK);
    check_symbol = pp_symbol_define(pool, "check", (const void *) check);
    release_symbol = pp_symbol_define(pool, "release", (const void *) release);
    tiers[1].from = t0_frame;
    tiers[1].site = site_in(&t0_frame, &tiers[1], produce);
    push_frame(&s);
    emit_arguments_stored(&s, &t0_frame.slots);
    set_counter(&s, t0_frame.slots.counter);
    size_t top = s.size;
    emit_site(&s, tiers[1].site);
    emit_loop_end(&s, &t0_frame.slots, top);
    emit_return(&s);
    pp_trace *trace = link_code(&s, "tier-0", NULL);
    tier0 = pp_symbol_define(pool, "tier0", pp_trace_entry(trace));
    emit_outer(&s);
    const pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD,
                                 .cfa_offset = OUTER_CFA };
    outer = pp_trace_entry(link_code(&s, "outer", &rule));
}

static void teardown(void)
{
    pp_error error = { .size = sizeof error };
    ck_assert_msg(pp_pool_verify(pool, &error) == PP_OK, "%s", error.text);
    pp_pool_destroy(pool);
}

/* How many pieces of code an entry of this style and its body are. */
static unsigned pieces(pp_osr_style style)
{
    return style == PP_ON_TOP ? 1 : 2;
}

START_TEST(one_activation_climbs_falls_and_climbs_again)
{
    const bool hard = _i >= STYLES * STYLES;
    tiers[1].style = styles[_i % STYLES];
    tiers[2].style = styles[_i / STYLES % STYLES];
    if (hard) {
        pp_force force = { .size = sizeof force };
        ck_assert_int_eq(pp_force_parse("clobber,verify", &force), PP_OK);
        ck_assert_int_eq(pp_pool_set_force(pool, &force), PP_OK);
    }
    leave_at = N - 50;
    uint64_t sum = pp_enter(&thread, outer, N, 0, (uintptr_t) &thread, 0);
    ck_assert_uint_eq(sum, (uint64_t) N * (N + 1) / 2 + MAGIC);
    /* At 150, 100 and 50 it fell, and climbed again. */
    ck_assert_uint_eq(tiers[1].made, 4);
    ck_assert_uint_eq(tiers[2].made, 4);
    ck_assert_uint_eq(tiers[1].passes, 4 * (PASSES - 1));
    ck_assert_uint_eq(tiers[2].passes, N - 4 * 2 * (PASSES - 1) + 3);
    ck_assert_uint_eq(reclaimed, 3 * (pieces(tiers[1].style) + pieces(tiers[2].style)));
    ck_assert_ptr_null(pp_buffer_next(&thread, NULL));
    for (int i = 1; i < 3; i++)
        ck_assert_ptr_eq(pp_site_entry(tiers[i].site), tiers[i].entry);
    if (hard) {
        pp_force_stats stats = { .size = sizeof stats };
        ck_assert_int_eq(pp_pool_get_force_stats(pool, &stats), PP_OK);
        ck_assert_uint_eq(stats.mismatches, 0);
        ck_assert_uint_gt(stats.checks, 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tiers");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, one_activation_climbs_falls_and_climbs_again, 0,
                        2 * STYLES * STYLES);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
