/* SPDX-License-Identifier: MIT */
/*
 * Tier-0 frames with a part of any size below what their layout says, and bodies that
 * are entered from them in every style.
 */
#include <config.h>

#include "entered.h"
#include "snippet.h"
#include "stress/method.h"

#include <check.h>

#if defined __x86_64__
enum { BASE = 13, SCRATCH = 1 };
#define SAVES (1ull << 3 | 0xfull << 12)
#define SAVED (1ull << 3 | 1ull << 12)   /* by the head */
#else
enum { BASE = 27, SCRATCH = 9 };
#define SAVES (0x3ffull << 19 | 0xffull << 40)
#define SAVED (3ull << 19 | 1ull << 40)
#endif

enum { LOCALS = 208, THRESHOLD = 5 };

static pp_pool *pool;
static pp_thread thread;
static pp_tier0_layout tier0;

static void setup(void)
{
    ck_assert_int_eq(pp_pool_create(NULL, &pool), PP_OK);
    ck_assert_int_eq(pp_thread_init(&thread, NULL, NULL), PP_OK);
    tier0 = (pp_tier0_layout) { .size = sizeof tier0, .frame_bytes = FRAME_BYTES,
                                .saves = { .slots = SAVES, .saved = SAVED, .offset = AT_SAVES },
                                .flags = PP_TIER0_DYNAMIC };
}

static void teardown(void)
{
    ck_assert_int_eq(pp_pool_verify(pool, NULL), PP_OK);
    pp_pool_destroy(pool);
}

/* ---- tier-0 ---------------------------------------------------------------------- */

static void piece(struct snippet *s, const uint8_t *start, const uint8_t *end)
{
    snippet_bytes(s, start, (size_t) (end - start));
}
#define PIECE(s, name) piece(s, template_##name, template_##name##_end)

static void put32(struct snippet *s, size_t at, uint32_t value)
{
    memcpy(s->code + at, &value, sizeof value);
}

static void head(struct snippet *s, uint32_t frame_bytes)
{
    size_t frame = (size_t) (template_head_frame - template_head);
    size_t count = (size_t) (template_head_threshold - template_head);
    PIECE(s, head);
#if defined __x86_64__
    put32(s, frame - 4, frame_bytes);
    put32(s, count - 4, THRESHOLD);
    SNIPPET_CODE(s, 0x48, 0x8b, 0x45, 0xc8);       /* mov start(%rbp), %rax */
    SNIPPET_CODE(s, 0x48, 0xc1, 0xe0, 0x04);       /* shl $4, %rax */
    SNIPPET_CODE(s, 0x48, 0x29, 0xc4);             /* sub %rax, %rsp */
#else
    put32(s, frame - 8, 0xd14003ff);
    put32(s, frame - 4, 0xd10003ff | frame_bytes << 10);
    put32(s, count - 8, 0x52800009 | THRESHOLD << 5);
    SNIPPET_WORDS(s, 0xf85c83a9, 0xcb2973ff);      /* ldur x9, start; sub sp, sp, x9, uxtx #4 */
#endif
}

/* Sums in a loop, with `start` times 16 bytes of alloca before it. */
static pp_trace *link_tier0(pp_site *site, uint32_t frame_bytes)
{
    struct snippet s = { 0 };
    uint8_t bytes[160];
    pp_site_layout layout = { .size = sizeof layout };
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD, .saves = tier0.saves };
    pp_trace *trace;
    head(&s, frame_bytes);
    size_t top = s.size;
    ck_assert_int_eq(pp_emit_site(site, bytes, sizeof bytes, &layout), PP_OK);
    snippet_bytes(&s, bytes, layout.bytes);
    for (unsigned i = 0; i < layout.reloc_count; i++)
        snippet_reloc(&s, (int) (layout.bytes - layout.relocs[i].offset), layout.relocs[i].type,
                      layout.relocs[i].symbol, layout.relocs[i].addend);
    PIECE(&s, sum);
#if defined __x86_64__
    snippet_reloc(&s, (int) (template_sum_end - template_sum_jump), R_X86_64_PC32, PP_SYMBOL_CODE,
                  (int64_t) top - 4);
#else
    snippet_reloc(&s, (int) (template_sum_end - template_sum_jump), R_AARCH64_CONDBR19,
                  PP_SYMBOL_CODE, (int64_t) top);
#endif
    PIECE(&s, tail);
    pp_trace_desc desc = snippet_desc(&s);
    desc.frame = &rule;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    snippet_free(&s);
    return trace;
}

/* ---- bodies ---------------------------------------------------------------------- */

static struct {
    pp_osr_style style;
    uint32_t body_bytes;      /* PP_REPLACE: of its frame; on top: of its part */
    uint64_t dynamic;         /* bytes of tier-0's, in this run */
    unsigned bodies;
    const char *wrong;
} now;

/* Called by bodies with the base of their locals: all of them are theirs. */
static void look(char *base)
{
    const uintptr_t *record = (const uintptr_t *) thread.exit_fp;
    uintptr_t fp = record[0], sp = (uintptr_t) (record + 2);
    uintptr_t below = now.style == PP_ON_TOP ? FRAME_BYTES + now.dynamic : 0;
    now.bodies++;
    if (fp - sp != below + now.body_bytes)
        now.wrong = "SP of the body";
    if ((uintptr_t) base != sp)
        now.wrong = "the base";
    memset(base, 0xa5, LOCALS);
}

/* look(base): by pp_leave, with the base in a register or a slot. */
static void call_look(struct snippet *s, const pp_place *base)
{
    uint64_t function = (uintptr_t) look;
#if defined __x86_64__
    if (base->kind == PP_PLACE_SLOT)
        SNIPPET_CODE(s, 0x48, 0x8b, 0x7d, (uint8_t) base->offset); /* mov slot(%rbp), %rdi */
    else if (base->kind == PP_PLACE_GPR && base->number == BASE)
        SNIPPET_CODE(s, 0x4c, 0x89, 0xef);                         /* mov %r13, %rdi */
    else if (base->kind == PP_PLACE_GPR)
        SNIPPET_CODE(s, 0x48, 0x89, 0xcf);                         /* mov %rcx, %rdi */
    else
        SNIPPET_CODE(s, 0x48, 0x89, 0xe7);                         /* mov %rsp, %rdi */
    SNIPPET_CODE(s, 0x49, 0xbb);                                   /* movabs $look, %r11 */
    snippet_bytes(s, &function, sizeof function);
    SNIPPET_CODE(s, 0x4c, 0x8b, 0x55, 0xe0, 0xe8, 0, 0, 0, 0);     /* mov thread, %r10; call */
    snippet_reloc(s, 4, R_X86_64_PLT32, PP_SYMBOL_LEAVE, -4);
#else
    if (base->kind == PP_PLACE_SLOT)
        SNIPPET_WORDS(s, 0xf84003a0 | ((uint32_t) base->offset & 0x1ff) << 12); /* ldur x0 */
    else if (base->kind == PP_PLACE_GPR)
        SNIPPET_WORDS(s, 0xaa0003e0 | (uint32_t) base->number << 16);           /* mov x0, base */
    else
        SNIPPET_WORDS(s, 0x910003e0);                                           /* mov x0, sp */
    SNIPPET_WORDS(s, 0x5800004f, 0x14000003);    /* ldr x15, look; b over it */
    snippet_bytes(s, &function, sizeof function);
    SNIPPET_WORDS(s, 0xf85e03b1, 0x94000000);    /* ldur x17, thread; bl */
    snippet_reloc(s, 4, R_AARCH64_CALL26, PP_SYMBOL_LEAVE, 0);
#endif
}

static pp_trace *link_body(const pp_osr_frame *given, bool replaces)
{
    pp_osr_frame frame = *given;
    pp_osr_layout prologue = { .size = sizeof prologue }, epilogue = { .size = sizeof epilogue };
    struct snippet s = { 0 };
    uint8_t bytes[512];
    pp_trace *trace;
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &prologue), PP_OK);
    ck_assert(replaces || prologue.local_offset == 0);
    now.body_bytes = replaces ? frame.tier0->frame_bytes : prologue.stack_bytes;
    snippet_bytes(&s, bytes, prologue.bytes);
    call_look(&s, &frame.base);
    PIECE(&s, sum_body);
    ck_assert_int_eq(pp_emit_osr_epilogue(&frame, bytes, sizeof bytes, &epilogue), PP_OK);
    snippet_bytes(&s, bytes, epilogue.bytes);
    pp_trace_desc desc = snippet_desc(&s);
    desc.frame = &prologue.rule;
    ck_assert_int_eq(pp_trace_link(pool, &desc, &trace), PP_OK);
    snippet_free(&s);
    return trace;
}

static pp_status no_entry(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) site, (void) regs;
    *entry = host;
    return host == NULL ? PP_E_FAULT : PP_OK;
}

static pp_site *make_site(void *entry)
{
    pp_site *site;
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_COUNTED, .tier0 = &tier0,
                          .counter = PP_COUNTER_FRAME, .counter_offset = AT_COUNTER, .hits = 1,
                          .threshold = THRESHOLD, .thread_offset = AT_THREAD,
                          .produce = no_entry, .host = entry };
    ck_assert_int_eq(pp_site_create(pool, &desc, &site), PP_OK);
    return site;
}

static pp_site_stats stats_of(const pp_site *site)
{
    pp_site_stats stats = { .size = sizeof stats };
    ck_assert_int_eq(pp_site_get_stats(site, &stats), PP_OK);
    return stats;
}

static void run(const pp_trace *trace, uint64_t n, uint64_t start)
{
    struct method_call call = { .code = pp_trace_entry(trace),
                                .arguments = { (uintptr_t) &thread, n, 0, start } };
    for (unsigned i = 0; i < SAVE_SLOTS; i++)
        call.in[i] = 1000 + i;
    now.dynamic = 16 * start;
    pp_enter(&thread, (const void *) method_call, (uintptr_t) &call, 0, 0, 0);
    ck_assert_msg(now.wrong == NULL, "%s, %lu bytes dynamic", now.wrong, (long) now.dynamic);
    ck_assert_uint_eq(call.result, n * (n + 1) / 2);
    ck_assert_uint_eq(call.sp[0], call.sp[1]);
    ck_assert_mem_eq(call.in, call.out, sizeof call.in);
}

static const uint64_t parts[] = { 0, 1, 2, 3, 255, 256, 257, 4096, 40000 };

/* Without the entry's own trace there is nothing that knows how large the part is. */
static void run_all(pp_site *site, pp_entry *entry, unsigned passes)
{
    pp_trace *trace = link_tier0(site, FRAME_BYTES);
    ck_assert_int_eq(pp_site_publish(site, entry), PP_OK);
    now.bodies = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        for (uint64_t n = 1; n <= 60; n += 7)
            run(trace, n, parts[i]);
    ck_assert_uint_eq(now.bodies, passes * sizeof parts / sizeof parts[0]);
    ck_assert_uint_eq(stats_of(site).refusals, 0);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(pool, entry), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
}

static const struct top {
    pp_place base;
    pp_csr_scheme scheme;
    uint32_t local_bytes;
    uint32_t flags;
} tops[] = {
    { PP_AT_SLOT(AT_BUFFER), PP_CSR_RESERVE, LOCALS, 0 },
    { PP_AT_SLOT(AT_BUFFER), PP_CSR_RESERVE, LOCALS + 8, PP_ENTRY_CHECK_STACK },
    { PP_AT_GPR(BASE), PP_CSR_RESERVE, LOCALS, 0 },
    { PP_AT_GPR(SCRATCH), PP_CSR_RESERVE, 3 * 4096 + 32, PP_ENTRY_CHECK_STACK },
    { PP_AT_NOWHERE, PP_CSR_RESERVE, LOCALS, 0 },
};

START_TEST(bodies_go_on_top_of_a_dynamic_part)
{
    const struct top *top = &tops[_i];
    now.style = PP_ON_TOP;
    pp_osr_frame frame = { .size = sizeof frame, .scheme = top->scheme, .tier0 = &tier0,
                           .used = SAVES, .local_bytes = top->local_bytes, .base = top->base };
    pp_trace *body = link_body(&frame, false);
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = top->scheme,
                           .code = pp_trace_entry(body), .tier0 = &tier0, .used = SAVES,
                           .stack_bytes = top->local_bytes + 16, .flags = top->flags };
    pp_entry *entry;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    run_all(make_site(NULL), entry, 8);
    ck_assert_int_eq(pp_trace_free(pool, body), PP_OK);
}
END_TEST

START_TEST(a_dynamic_part_is_dropped)
{
    static const pp_value values[] = {
        { PP_AT_SLOT(AT_N), PP_AT_SLOT(AT_N), .bytes = 8 },
        { PP_AT_SLOT(AT_SUM), PP_AT_SLOT(AT_SUM), .bytes = 8 },
        { PP_AT_SLOT(AT_THREAD), PP_AT_SLOT(AT_THREAD), .bytes = 8 },
        { PP_AT_ADDRESS(-FRAME_BYTES - 4096), PP_AT_GPR(SCRATCH), .bytes = 8 },
    };
    now.style = PP_REPLACE;
    pp_tier0_layout layout = tier0;
    layout.flags = 0;
    layout.frame_bytes += 4096; /* of which all above the dynamic part is another's now */
    layout.saves.saved = SAVES;
    pp_osr_frame frame = { .size = sizeof frame, .scheme = PP_CSR_RESERVE, .tier0 = &layout,
                           .used = SAVES };
    pp_trace *body = link_body(&frame, true);
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_REPLACE, .scheme = PP_CSR_RESERVE,
                           .code = pp_trace_entry(body), .tier0 = &tier0, .used = SAVES,
                           .body = &layout, .values = values, .value_count = 4,
                           .thread_offset = AT_THREAD, .flags = _i ? PP_ENTRY_CHECK_STACK : 0 };
    pp_entry *entry;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    run_all(make_site(NULL), entry, 8);
    layout.flags = PP_TIER0_DYNAMIC;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_E_ARG);
    ck_assert_int_eq(pp_trace_free(pool, body), PP_OK);
}
END_TEST

pp_regs entered_regs;

uintptr_t entered_check(uintptr_t first, uintptr_t second)
{
    const uint64_t *buffer = (const uint64_t *) first;
    uint64_t n = buffer[0], sum = buffer[1];
    now.bodies += second == 0;
    pp_buffer_release(&thread, buffer);
    return sum + n * (n + 1) / 2;
}

START_TEST(a_dynamic_part_is_popped)
{
    static _Alignas(16) char memory[256];
    static const pp_value values[] = { { PP_AT_SLOT(AT_N), PP_AT_BUFFER(0), .bytes = 8 },
                                       { PP_AT_SLOT(AT_SUM), PP_AT_BUFFER(8), .bytes = 8 } };
    ck_assert_int_eq(pp_thread_set_buffers(&thread, memory, 16, 1), PP_OK);
    struct snippet s = { 0 };
    pp_trace *body;
#if defined __x86_64__
    SNIPPET_CODE(&s, 0xe9, 0, 0, 0, 0);
    snippet_reloc(&s, 4, R_X86_64_PLT32, pp_symbol_define(pool, NULL, entered), -4);
#else
    SNIPPET_WORDS(&s, 0x14000000);
    snippet_reloc(&s, 4, R_AARCH64_JUMP26, pp_symbol_define(pool, NULL, entered), 0);
#endif
    pp_trace_desc trace = snippet_desc(&s);
    ck_assert_int_eq(pp_trace_link(pool, &trace, &body), PP_OK);
    snippet_free(&s);
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_BUFFER, .code = pp_trace_entry(body),
                           .tier0 = &tier0, .values = values, .value_count = 2, .used = SAVES,
                           .thread_offset = AT_THREAD, .flags = PP_ENTRY_INDEX };
    pp_entry *entry;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &entry), PP_OK);
    run_all(make_site(NULL), entry, 8);
    ck_assert_int_eq(pp_trace_free(pool, body), PP_OK);
    ck_assert_int_eq(pp_thread_set_buffers(&thread, NULL, 0, 0), PP_OK);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------- */

static void refuse_frame(pp_osr_frame frame, pp_status status)
{
    uint8_t bytes[512] = { 0 };
    static const uint8_t none[512];
    pp_osr_layout layout = { .size = sizeof layout };
    ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &layout), status);
    ck_assert_int_eq(pp_emit_osr_epilogue(&frame, bytes, sizeof bytes, &layout), status);
    ck_assert_mem_eq(bytes, none, sizeof bytes);
    ck_assert_uint_eq(layout.bytes, 0);
}

START_TEST(bases_are_refused)
{
    const pp_place wrong[] = {
        PP_AT_CONSTANT, PP_AT_VECTOR(1), PP_AT_ADDRESS(-8), PP_AT_BUFFER(0), PP_AT_SLOT(-4),
        PP_AT_SLOT(0), PP_AT_SLOT(8), PP_AT_SLOT(AT_SAVES), PP_AT_SLOT(-FRAME_BYTES - 8),
        PP_AT_SLOT(16), PP_AT_GPR(32), PP_AT_GPR(31), PP_AT_GPR(65535), { PP_PLACE_GPR, 0, 8 },
        { PP_PLACE_DEAD, 1, 0 }, { PP_PLACE_DEAD, 0, 8 },
    };
    static const uint16_t roles[2][5] = { { 4, 5, 11, 16, 17 }, { 16, 17, 18, 29, 30 } };
    for (int arch = PP_ARCH_X86_64; arch <= PP_ARCH_AARCH64; arch++) {
        uint16_t kept = arch == PP_ARCH_X86_64 ? 12 : 22;
        pp_tier0_layout layout = { .size = sizeof layout, .frame_bytes = FRAME_BYTES,
                                   .saves = { .slots = 1u << kept, .offset = AT_SAVES },
                                   .flags = PP_TIER0_DYNAMIC };
        pp_osr_frame frame = { .size = sizeof frame, .arch = (pp_arch) arch, .tier0 = &layout };
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
            frame.base = wrong[i];
            refuse_frame(frame, PP_E_ARG);
        }
        for (size_t i = 0; i < 5; i++) {
            frame.base = (pp_place) PP_AT_GPR(roles[arch - PP_ARCH_X86_64][i]);
            refuse_frame(frame, PP_E_ARG);
        }
        frame.base = (pp_place) PP_AT_GPR(kept);
        refuse_frame(frame, PP_E_ABI); /* nobody has saved it */
        frame.used = 1u << kept;
        frame.scheme = PP_CSR_RELOAD;
        refuse_frame(frame, PP_E_ABI); /* and nothing can, below the dynamic part */
        frame.scheme = PP_CSR_RESERVE;
        layout.flags = 0;
        refuse_frame(frame, PP_E_ARG);
        layout.flags = 2;
        refuse_frame(frame, PP_E_ARG);
        layout.flags = PP_TIER0_DYNAMIC;
        layout.reserved = 1;
        refuse_frame(frame, PP_E_ARG);
    }
}
END_TEST

/* Instructions at the end of a prologue, where no immediate reaches the slot. */
START_TEST(bases_may_be_far)
{
    static const struct {
        pp_arch arch;
        pp_place base;
        size_t size;
        uint8_t bytes[16];
    } ends[] = {
        { PP_ARCH_X86_64, PP_AT_SLOT(-8), 4, { 0x48, 0x89, 0x65, 0xf8 } },
        { PP_ARCH_X86_64, PP_AT_SLOT(-0x12340), 7, { 0x48, 0x89, 0xa5, 0xc0, 0xdc, 0xfe, 0xff } },
        { PP_ARCH_X86_64, PP_AT_GPR(9), 3, { 0x49, 0x89, 0xe1 } },
        { PP_ARCH_AARCH64, PP_AT_SLOT(-256), 8, /* mov x30, sp; stur x30, [x29, #-256] */
          { 0xfe, 0x03, 0x00, 0x91, 0xbe, 0x03, 0x10, 0xf8 } },
        { PP_ARCH_AARCH64, PP_AT_SLOT(-264), 12, /* mov x16, #-264; str x30, [x29, x16] */
          { 0xfe, 0x03, 0x00, 0x91, 0xf0, 0x20, 0x80, 0x92, 0xbe, 0x6b, 0x30, 0xf8 } },
        { PP_ARCH_AARCH64, PP_AT_GPR(9), 4, { 0xe9, 0x03, 0x00, 0x91 } },
    };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        uint8_t bytes[512];
        pp_tier0_layout layout = { .size = sizeof layout, .frame_bytes = 1 << 20,
                                   .flags = PP_TIER0_DYNAMIC };
        pp_osr_frame frame = { .size = sizeof frame, .arch = ends[i].arch, .tier0 = &layout,
                               .local_bytes = 64, .base = ends[i].base };
        pp_osr_layout prologue = { .size = sizeof prologue };
        ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &prologue), PP_OK);
        ck_assert_mem_eq(bytes + prologue.bytes - ends[i].size, ends[i].bytes, ends[i].size);
        ck_assert_uint_eq(prologue.stack_bytes, 64);
        ck_assert_int_eq(prologue.local_offset, 0);
        /* A frame of an older header ends before it. */
        size_t with = prologue.bytes;
        frame.size = offsetof(pp_osr_frame, base);
        ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &prologue), PP_OK);
        ck_assert_uint_eq(prologue.bytes, with - ends[i].size);
        frame.size -= 8;
        ck_assert_int_eq(pp_emit_osr_prologue(&frame, bytes, sizeof bytes, &prologue), PP_E_ARG);
    }
}
END_TEST

/* Layouts that differ in this alone, and SP where no layout has it. */
START_TEST(layouts_must_agree)
{
    static const uint8_t nops[16];
    pp_trace_desc trace = { .size = sizeof trace, .code = nops, .code_size = sizeof nops };
    pp_trace *body;
    pp_entry *dynamic, *fixed;
    ck_assert_int_eq(pp_trace_link(pool, &trace, &body), PP_OK);
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(body), .tier0 = &tier0, .used = SAVES };
    ck_assert_int_eq(pp_entry_create(pool, &desc, &dynamic), PP_E_ABI);
    desc.used = 0;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &dynamic), PP_OK);
    tier0.flags = 0;
    ck_assert_int_eq(pp_entry_create(pool, &desc, &fixed), PP_OK);
    ck_assert_int_eq(pp_entry_check(dynamic, &tier0), PP_E_ABI);
    ck_assert_int_eq(pp_entry_check(fixed, &tier0), PP_OK);
    pp_site *site = make_site(fixed); /* a site that does not know of the part */
    ck_assert_int_eq(pp_site_publish(site, dynamic), PP_E_ABI);
    pp_trace *code = link_tier0(site, FRAME_BYTES);
    run(code, 50, 3);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_FAILED);
    ck_assert_int_eq(stats_of(site).refusal, PP_E_ABI);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, code), PP_OK);
    tier0.flags = PP_TIER0_DYNAMIC;
    ck_assert_int_eq(pp_entry_check(fixed, &tier0), PP_E_ABI);
    site = make_site(dynamic); /* and frames that are smaller than the layout says */
    code = link_tier0(site, FRAME_BYTES - 16);
    run(code, 50, 0);
    ck_assert_int_eq(pp_site_state(site), PP_SITE_FAILED);
    ck_assert_int_eq(stats_of(site).refusal, PP_E_ABI);
    ck_assert_int_eq(pp_site_destroy(pool, site), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, code), PP_OK);
    /* A layout of an older header ends before the flags. */
    tier0.size = offsetof(pp_tier0_layout, flags);
    ck_assert_int_eq(pp_entry_check(fixed, &tier0), PP_OK);
    tier0.size -= 8;
    ck_assert_int_eq(pp_entry_check(fixed, &tier0), PP_E_ARG);
    ck_assert_int_eq(pp_entry_destroy(pool, dynamic), PP_OK);
    ck_assert_int_eq(pp_entry_destroy(pool, fixed), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, body), PP_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dynamic");
    TCase *tests = tcase_create("all");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, bodies_go_on_top_of_a_dynamic_part, 0, sizeof tops / sizeof tops[0]);
    tcase_add_loop_test(tests, a_dynamic_part_is_dropped, 0, 2);
    tcase_add_test(tests, a_dynamic_part_is_popped);
    tcase_add_test(tests, bases_are_refused);
    tcase_add_test(tests, bases_may_be_far);
    tcase_add_test(tests, layouts_must_agree);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
