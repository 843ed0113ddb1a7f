/* SPDX-License-Identifier: MIT */
/* A method that suspends itself, and ways to get back into its OSR body. */
#include <config.h>

#include "stress/suspend.h"

#include "stress/template.h"

#include <elf.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define UNW_LOCAL_ONLY
#include <libunwind.h>

#if defined __x86_64__
#define CALL_TYPE R_X86_64_PLT32
#define SELF_TYPE R_X86_64_PC32
#define FIELD_ADDEND (-4)
#define FIRST_ARGUMENT 7           /* rdi */
#define USED (1ull << 3)           /* rbx */
static const int callee_saved[] = { UNW_X86_64_RBX, UNW_X86_64_R12, UNW_X86_64_R13, UNW_X86_64_R14,
                                    UNW_X86_64_R15 };
#else
#define CALL_TYPE R_AARCH64_CALL26
#define SELF_TYPE R_AARCH64_ADR_PREL_LO21
#define FIELD_ADDEND 0
#define FIRST_ARGUMENT 0           /* x0 */
#define USED (1ull << 19)          /* x19 */
static const int callee_saved[] = { UNW_AARCH64_X19, UNW_AARCH64_X20, UNW_AARCH64_X21,
                                    UNW_AARCH64_X22, UNW_AARCH64_X23, UNW_AARCH64_X24,
                                    UNW_AARCH64_X25, UNW_AARCH64_X26, UNW_AARCH64_X27,
                                    UNW_AARCH64_X28 };
#endif

_Static_assert(offsetof(struct continuation, code) == ASYNC_CODE, "template.h");
_Static_assert(offsetof(struct continuation, count) == ASYNC_COUNT, "template.h");

typedef uint64_t async_method(struct continuation *continuation, uintptr_t body);

/* ---- the old way -------------------------------------------------------------- */

/* So many frames, and `capture` called from the last one. */
__attribute__((noinline)) static void deeper(struct continuation *continuation,
                                             suspend_resume *capture, unsigned frames)
{
    if (frames > 1)
        deeper(continuation, capture, frames - 1);
    else
        capture(continuation);
    __asm__ volatile(""); /* no tail call, so that the frame is there */
}

void suspend_deeper(struct continuation *continuation, suspend_resume *capture)
{
    if (continuation->frames > 1)
        deeper(continuation, capture, continuation->frames - 1);
    else
        capture(continuation);
}

bool suspend_in_tier0(const struct continuation *continuation, uintptr_t pc)
{
    return pc - continuation->tier0 < continuation->tier0_bytes;
}

static void capture(struct continuation *continuation)
{
    unw_context_t context;
    unw_cursor_t tier0, caller;
    unw_word_t value;
    if (unw_getcontext(&context) != 0 || unw_init_local(&tier0, &context) != 0)
        abort(); /* no way back into code that does not expect one */
    do {
        if (unw_step(&tier0) <= 0 || unw_get_reg(&tier0, UNW_REG_IP, &value) != 0)
            abort();
    } while (!suspend_in_tier0(continuation, value));
    caller = tier0;
    if (unw_step(&caller) <= 0)
        abort();
    for (size_t i = 0; i < sizeof callee_saved / sizeof callee_saved[0]; i++)
        if (unw_get_reg(&caller, callee_saved[i], &value) == 0)
            unw_set_reg(&tier0, callee_saved[i], value);
    unw_set_reg(&tier0, UNW_REG_IP, continuation->code);
    unw_resume(&tier0);
    abort();
}

void suspend_libunwind(struct continuation *continuation)
{
    suspend_deeper(continuation, capture);
}

/* ---- the pieces ----------------------------------------------------------------- */

struct piece {
    uint8_t code[512];
    size_t size;
    pp_reloc relocs[2];
    unsigned reloc_count;
};

static size_t append(struct piece *piece, const uint8_t *start, const uint8_t *end)
{
    size_t at = piece->size;
    memcpy(piece->code + at, start, (size_t) (end - start));
    piece->size += (size_t) (end - start);
    return at;
}
#define APPEND(piece, name) append(piece, template_##name, template_##name##_end)

static void refer(struct piece *piece, size_t at, uint16_t type, pp_symbol symbol)
{
    piece->relocs[piece->reloc_count++] = (pp_reloc) { .offset = (uint32_t) at, .type = type,
                                                       .symbol = symbol, .addend = FIELD_ADDEND };
}

static pp_status link_piece(struct suspend *suspend, const struct piece *piece, const char *name,
                            const pp_frame_rule *rule, pp_trace **trace)
{
    pp_trace_desc desc = { .size = sizeof desc, .name = name, .code = piece->code,
                           .code_size = piece->size, .relocs = piece->relocs,
                           .reloc_count = piece->reloc_count, .frame = rule };
    return pp_trace_link(suspend->pool, &desc, trace);
}

static pp_status link_body(struct suspend *suspend)
{
    struct piece piece = { .size = 0 };
    pp_osr_frame frame = { .size = sizeof frame, .scheme = PP_CSR_RELOAD, .tier0 = &suspend->tier0,
                           .used = USED, .local_bytes = 32 };
    pp_osr_layout layout = { .size = sizeof layout }, end = { .size = sizeof end };
    pp_status status = pp_emit_osr_prologue(&frame, piece.code, sizeof piece.code, &layout);
    if (status != PP_OK)
        return status;
    piece.size = layout.bytes;
    size_t at = APPEND(&piece, async_body);
    refer(&piece, at + (size_t) (template_async_body_self - template_async_body), SELF_TYPE,
          PP_SYMBOL_CODE);
    status = pp_emit_osr_epilogue(&frame, piece.code + piece.size, sizeof piece.code - piece.size,
                                  &end);
    piece.size += end.bytes;
    if (status == PP_OK)
        status = link_piece(suspend, &piece, "async body", &layout.rule, &suspend->body);
    if (status != PP_OK)
        return status;
    pp_entry_desc desc = { .size = sizeof desc, .style = PP_ON_TOP, .scheme = PP_CSR_RELOAD,
                           .code = pp_trace_entry(suspend->body), .tier0 = &suspend->tier0,
                           .used = USED, .stack_bytes = layout.stack_bytes };
    return pp_entry_create(suspend->pool, &desc, &suspend->entry);
}

static pp_status unused(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry)
{
    (void) host, (void) site, (void) regs, (void) entry;
    return PP_E_FAULT; /* the entry is published by hand */
}

static pp_status append_site(struct suspend *suspend, struct piece *piece)
{
    pp_site_desc desc = { .size = sizeof desc, .kind = PP_SITE_COUNTED,
                          .counter_offset = AT_COUNTER, .threshold = 1, .tier0 = &suspend->tier0,
                          .produce = unused };
    pp_site_layout layout = { .size = sizeof layout };
    pp_status status = pp_site_create(suspend->pool, &desc, &suspend->site);
    if (status == PP_OK)
        status = pp_emit_site(suspend->site, piece->code + piece->size,
                              sizeof piece->code - piece->size, &layout);
    if (status != PP_OK)
        return status;
    piece->relocs[0] = layout.relocs[0];
    piece->relocs[0].offset += (uint32_t) piece->size;
    piece->reloc_count = 1;
    piece->size += layout.bytes;
    return pp_site_publish(suspend->site, suspend->entry);
}

static pp_status append_way(struct suspend *suspend, struct piece *piece, enum suspend_way way,
                            suspend_resume *call)
{
    size_t at, size;
    pp_status status;
    switch (way) {
    case SUSPEND_BARE:
        APPEND(piece, async_bare);
        return PP_OK;
    case SUSPEND_DIRECT:
        status = pp_emit_resume(PP_ARCH_HOST, FIRST_ARGUMENT, ASYNC_CODE, piece->code + piece->size,
                                sizeof piece->code - piece->size, &size);
        piece->size += status == PP_OK ? size : 0;
        return status;
    case SUSPEND_PATCHPOINT:
        APPEND(piece, async_counter);
        return append_site(suspend, piece);
    default:
        at = APPEND(piece, async_old);
        refer(piece, at + (size_t) (template_async_old_call - template_async_old), CALL_TYPE,
              pp_symbol_define(suspend->pool, NULL, (const void *) call));
        return PP_OK;
    }
}

pp_status suspend_link(struct suspend *suspend, enum suspend_way way, suspend_resume *call,
                       pp_trace **tier0)
{
    pp_frame_rule rule = { .size = sizeof rule, .kind = PP_FRAME_RECORD };
    struct piece piece = { .size = 0 };
    APPEND(&piece, async_head);
    pp_status status = append_way(suspend, &piece, way, call);
    return status == PP_OK ? link_piece(suspend, &piece, "suspended", &rule, tier0) : status;
}

pp_status suspend_open(struct suspend *suspend, pp_pool *pool)
{
    *suspend = (struct suspend) {
        .pool = pool,
        .tier0 = { .size = sizeof suspend->tier0, .frame_bytes = ASYNC_FRAME_BYTES },
    };
    return link_body(suspend);
}

/* ---- running ------------------------------------------------------------------------ */

bool suspend_run(const struct suspend *suspend, const pp_trace *tier0, unsigned frames,
                 uint64_t iterations)
{
    async_method *method;
    uintptr_t body = (uintptr_t) pp_trace_entry(suspend->body);
    const void *code = pp_trace_entry(tier0);
    pp_trace_size size = { .size = sizeof size };
    if (pp_trace_get_size(tier0, &size) != PP_OK)
        return false;
    struct continuation continuation = { .code = body, .frames = frames,
                                         .tier0 = (uintptr_t) code, .tier0_bytes = size.code };
    uint64_t returned = 0;
    memcpy(&method, &code, sizeof method);
    for (uint64_t i = 0; i < iterations; i++)
        returned += method(&continuation, body);
#if defined __aarch64__
    /* What libunwind restores leaves d8 to d15 undefined: this function keeps its caller's. */
    __asm__ volatile("" ::: "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15");
#endif
    return continuation.count == iterations && continuation.code == body
        && returned == iterations * (iterations + 1) / 2;
}
