/* SPDX-License-Identifier: MIT */
/*
 * What is told of frames from instructions, for both architectures on every host: a stack
 * of a few words, code in hexadecimal, and what the answer has to be.  And bytes of any
 * kind, at the end of readable memory.
 */
#include <config.h>

#include "code.h"
#include "isa/isa.h"
#include "isa/x86_64_decode.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* The stack: word i has the value WORD + i, but where FP is saved the caller's FP. */
enum { WORDS = 64, SP_WORD = 16, FP_WORD = 32, WORD = 0x1000, LINK = 0x7777, CALLER_FP = 0x8888 };
static _Alignas(16) uint64_t stack[WORDS];

static enum frame_target find_target(void *context, uint64_t address, struct frame_code *code)
{
    (void) context;
    (void) address;
    (void) code;
    return FRAME_TARGET_FUNCTION;
}

static bool find_literal(void *context, uint64_t address, uint64_t *value)
{
    (void) context;
    (void) address;
    (void) value;
    return false;
}

static bool needs_record(void *context, uint64_t target)
{
    (void) context;
    (void) target;
    return false;
}

static struct frame_query query_for(const uint8_t *bytes, size_t size, size_t at)
{
    for (unsigned i = 0; i < WORDS; i++)
        stack[i] = WORD + i;
    return (struct frame_query) {
        .pc = CODE_PLACE + at, .sp = (uintptr_t) &stack[SP_WORD], .fp = (uintptr_t) &stack[FP_WORD],
        .link = LINK, .stack_lo = (uintptr_t) stack, .stack_hi = (uintptr_t) &stack[WORDS],
        .code = { bytes, CODE_PLACE, size, 16 }, .target = find_target, .literal = find_literal,
        .needs_record = needs_record,
    };
}

enum where { SP_AT, FP_AT, IN_LINK, IN_FP };

/* Words are counted from SP or FP, as they were. */
static const struct expected {
    const struct isa *isa;
    size_t at;              /* the interrupted instruction */
    enum frame_proof proof;
    struct { enum where where; int word; } address, fp, cfa;
    struct code code;
} table[] = {
#define X &isa_x86_64
#define A &isa_aarch64
#define NONE { 0, 0 }, { 0, 0 }, { 0, 0 }
#define X_ENTRY FRAME_PROVEN, { SP_AT, 0 }, { IN_FP, 0 }, { SP_AT, 1 }
#define X_SET FRAME_PROVEN, { FP_AT, 1 }, { FP_AT, 0 }, { FP_AT, 2 }
#define A_ENTRY FRAME_PROVEN, { IN_LINK, 0 }, { IN_FP, 0 }, { SP_AT, 0 }
    { X, 0, X_ENTRY, { "ret", "c3" } },
    { X, 0, X_ENTRY, { "endbr64; lea (%rdi,%rdi), %rax; ret", "f3 0f 1e fa 48 8d 04 3f c3" } },
    { X, 0, X_ENTRY, { "ret $16", "c2 10 00" } },
    { X, 0, X_ENTRY, { "push %rbp; mov %rsp, %rbp; leave; ret", "55 48 89 e5 c9 c3" } },
    { X, 4, X_SET, { "push %rbp; mov %rsp, %rbp; leave; ret", "55 48 89 e5 c9 c3" } },
    { X, 5, X_ENTRY, { "push %rbp; mov %rsp, %rbp; leave; ret", "55 48 89 e5 c9 c3" } },
    { X, 0, FRAME_PROVEN, { SP_AT, 1 }, { SP_AT, 0 }, { SP_AT, 2 }, { "pop %rbp; ret", "5d c3" } },
    { X, 0, FRAME_PROVEN, { SP_AT, 4 }, { SP_AT, 3 }, { SP_AT, 5 },
      { "add $16, %rsp; pop %rbx; pop %rbp; ret", "48 83 c4 10 5b 5d c3" } },
    { X, 0, X_SET, { "lea -8(%rbp), %rsp; pop %rbx; pop %rbp; ret", "48 8d 65 f8 5b 5d c3" } },
    { X, 0, X_ENTRY, { "enter $32, $0; leave; ret", "c8 20 00 00 c9 c3" } },
    { X, 0, X_ENTRY, { "pushf; popf; ret", "9c 9d c3" } },
    { X, 1, FRAME_PROVEN, { SP_AT, 1 }, { IN_FP, 0 }, { SP_AT, 2 },
      { "pushf; popf; ret", "9c 9d c3" } },
    { X, 0, X_ENTRY, { "push %rbp; mov %rdi, %rax; mov %rsp, %rbp; call *%rax",
                       "55 48 89 f8 48 89 e5 ff d0" } },
    { X, 0, X_ENTRY, { "push %rbp; lea (%rsp), %rbp; call *%rax", "55 48 8d 2c 24 ff d0" } },
    { X, 1, X_ENTRY, { "leave; lea 1(%rax), %rax; ret", "c9 48 8d 40 01 c3" } },
    { X, 0, X_ENTRY, { "jmp .+0x100", "e9 fb 00 00 00" } },
    { X, 0, X_SET, { "leave; jmp .+0x100", "c9 e9 fb 00 00 00" } },
    /* The byte before the jump is an operand. */
    { X, 5, X_ENTRY, { "mov $0x5d000000, %eax; jmp .+0x100", "b8 00 00 00 5d e9 fb 00 00 00" } },
    { X, 0, X_SET, { "mov $0xc3c3c3c3, %eax; leave; ret", "b8 c3 c3 c3 c3 c9 c3" } },
    /* A branch around a trap: what shows the frame is on the other path. */
    { X, 0, X_SET, { "test %eax, %eax; jne .+4; ud2; leave; ret", "85 c0 75 02 0f 0b c9 c3" } },
    { X, 0, X_SET, { "loop: dec %ecx; jmp .+2; jne loop; leave; ret", "ff c9 eb 00 75 fa c9 c3" } },
    /* Calls promise a record at FP; what follows confirms it, or does not. */
    { X, 0, X_SET, { "call *%rax; leave; ret", "ff d0 c9 c3" } },
    { X, 0, FRAME_PROMISED, { FP_AT, 1 }, { FP_AT, 0 }, { FP_AT, 2 },
      { "call *%rax; add $8, %rsp; ret", "ff d0 48 83 c4 08 c3" } },
    { X, 0, FRAME_PROMISED, { FP_AT, 1 }, { FP_AT, 0 }, { FP_AT, 2 },
      { "call *%rax; ud2", "ff d0 0f 0b" } },
    /* One path returns, another calls: without a record both cannot be. */
    { X, 0, FRAME_CONTRADICTED, NONE,
      { "test %eax, %eax; jne .+3; ret; call *%rax; ret", "85 c0 75 01 c3 ff d0 c3" } },
    /* What is not known of rbp and rsp proves nothing. */
    { X, 0, FRAME_UNKNOWN, NONE, { "xchg %rax, %rbp; ret", "48 95 c3" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "mov %rdi, %rsp; ret", "48 89 fc c3" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "cmpxchg %rcx, %rbp; ret", "48 0f b1 cd c3" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "cmovne %rax, %rsp; ret", "48 0f 45 e0 c3" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "imul $3, %rax, %rbp; ret", "48 6b e8 03 c3" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "push %ax; ret", "66 50 c3" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "sub %rax, %rsp; ret", "48 29 c4 c3" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "vmovd %xmm0, %ebp; ret", "c5 f9 7e c5 c3" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "shlx %rax, %rcx, %rbp; ret", "c4 e2 f9 f7 e9 c3" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "jmp *%rax", "ff e0" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "int3", "cc" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "mov (cut off)", "48 8b" } },
    { X, 0, FRAME_UNKNOWN, NONE, { "a thunk: call .+7; jmp .; mov %rax, (%rsp); ret",
                                   "e8 02 00 00 00 eb fe 48 89 04 24 c3" } },
    /* Vectors are no general registers. */
    { X, 0, X_ENTRY, { "vmovups (%rdi), %ymm5; vaddps %zmm4, %zmm5, %zmm5; ret",
                       "c5 fc 10 2f 62 f1 54 48 58 ec c3" } },
    { X, 0, X_SET, { "and $-32, %rsp; lea 8(%rsp), %rax; leave; ret",
                     "48 83 e4 e0 48 8d 44 24 08 c9 c3" } },

    { A, 0, A_ENTRY, { "ret", "c0035fd6" } },
    { A, 0, A_ENTRY, { "paciasp; retaa", "3f2303d5 ff0b5fd6" } },
    { A, 0, A_ENTRY, { "stp x29, x30, [sp, #-16]!; mov x29, sp; blr x8",
                       "fd7bbfa9 fd030091 00013fd6" } },
    /* Not where the rule has the CFA: only a return says where it is. */
    { A, 0, FRAME_CONTRADICTED, NONE, { "stp x29, x30, [sp, #-32]!; mov x29, sp; blr x8",
                                        "fd7bbea9 fd030091 00013fd6" } },
    { A, 0, A_ENTRY,
      { "stp x29, x30, [sp, #-32]!; mov x29, sp; blr x8; ldp x29, x30, [sp], #32; ret",
        "fd7bbea9 fd030091 00013fd6 fd7bc2a8 c0035fd6" } },
    { A, 4, FRAME_PROVEN, { SP_AT, 1 }, { SP_AT, 0 }, { SP_AT, 4 },
      { "stp x29, x30, [sp, #-32]!; ldp x29, x30, [sp], #32; ret", "fd7bbea9 fd7bc2a8 c0035fd6" } },
    { A, 0, A_ENTRY, { "sub sp, sp, #48; stp x29, x30, [sp, #32]; add x29, sp, #32; blr x8",
                       "ffc300d1 fd7b02a9 fd830091 00013fd6" } },
    { A, 0, FRAME_PROVEN, { FP_AT, 1 }, { FP_AT, 0 }, { FP_AT, 2 },
      { "mov sp, x29; ldp x29, x30, [sp], #16; ret", "bf030091 fd7bc1a8 c0035fd6" } },
    { A, 0, FRAME_PROVEN, { SP_AT, 5 }, { SP_AT, 4 }, { SP_AT, 6 },
      { "ldp x29, x30, [sp, #32]; add sp, sp, #48; ret", "fd7b42a9 ffc30091 c0035fd6" } },
    { A, 0, A_ENTRY, { "mov x9, #2; sub sp, sp, x9, lsl #4; add sp, sp, #32; ret",
                       "490080d2 ff7329cb ff830091 c0035fd6" } },
    { A, 0, A_ENTRY, { "b .+0x100", "40000014" } },
    { A, 0, FRAME_PROVEN, { FP_AT, 1 }, { FP_AT, 0 }, { FP_AT, 2 },
      { "blr x8; mov sp, x29; ldp x29, x30, [sp], #16; ret",
        "00013fd6 bf030091 fd7bc1a8 c0035fd6" } },
    /* x30 alone is saved: FP is a caller's at the call. */
    { A, 0, FRAME_UNKNOWN, NONE, { "str x30, [sp, #-16]!; blr x8; ldr x30, [sp], #16; ret",
                                   "fe0f1ff8 00013fd6 fe0741f8 c0035fd6" } },
    { A, 0, FRAME_UNKNOWN, NONE, { "mov x29, x0; ret", "fd0300aa c0035fd6" } },
    { A, 0, FRAME_UNKNOWN, NONE, { "fmov x29, d0; ret", "1d00669e c0035fd6" } },
    { A, 0, FRAME_UNKNOWN, NONE, { "br x0", "00001fd6" } },
    { A, 0, FRAME_UNKNOWN, NONE, { "udf #0", "00000000" } },
    { A, 0, FRAME_UNKNOWN, NONE, { "cut off", "c003" } },
};

static uint64_t value_at(const struct frame_query *query, enum where where, int word)
{
    switch (where) {
    case SP_AT: return ((const uint64_t *) (uintptr_t) query->sp)[word];
    case FP_AT: return ((const uint64_t *) (uintptr_t) query->fp)[word];
    case IN_LINK: return query->link;
    case IN_FP: return query->fp;
    }
    return 0;
}

START_TEST(frames_are_told_from_instructions)
{
    const struct expected *expected = &table[_i];
    uint8_t bytes[CODE_MAX];
    size_t size = code_bytes(&expected->code, bytes);
    struct frame_query query = query_for(bytes, size, expected->at);
    struct frame_answer answer = { .cfa = 0 };
    enum frame_proof proof = frame_find(expected->isa->frame, &query, &answer);
    ck_assert_msg(proof == expected->proof, "%s: %d", expected->code.line, proof);
    if (proof != FRAME_PROVEN && proof != FRAME_PROMISED)
        return;
    uint64_t base = expected->cfa.where == SP_AT ? query.sp : query.fp;
    ck_assert_msg(answer.return_address == value_at(&query, expected->address.where,
                                                    expected->address.word)
                      && answer.caller_fp == value_at(&query, expected->fp.where, expected->fp.word)
                      && answer.cfa == base + 8 * (uint64_t) expected->cfa.word,
                  "%s: return address %#lx, FP %#lx, CFA %+ld", expected->code.line,
                  (long) answer.return_address, (long) answer.caller_fp, (long) (answer.cfa - base));
}
END_TEST

/* ---- entries ------------------------------------------------------------------ */

static const struct {
    const struct isa *isa;
    unsigned distance; /* 0: nothing certain */
    struct code code;
} entries[] = {
    { X, 16, { "endbr64; push %rbp; mov %rsp, %rbp; ret", "f3 0f 1e fa 55 48 89 e5 c3" } },
    { X, 0, { "push %rbx; push %rbp; mov %rsp, %rbp", "53 55 48 89 e5" } },
    { X, 0, { "mov %rsp, %rbp; ret", "48 89 e5 c3" } },
    { X, 0, { "ret", "c3" } },
    { A, 16, { "stp x29, x30, [sp, #-16]!; mov x29, sp", "fd7bbfa9 fd030091" } },
    { A, 64, { "bti c; paciasp; stp x29, x30, [sp, #-64]!; mov x29, sp",
               "5f2403d5 3f2303d5 fd7bbca9 fd030091" } },
    { A, 16, { "sub sp, sp, #48; stp x29, x30, [sp, #32]; add x29, sp, #32",
               "ffc300d1 fd7b02a9 fd830091" } },
    { A, 0, { "stp x29, x30, [sp, #-16]!; ret", "fd7bbfa9 c0035fd6" } },
    { A, 0, { "add x29, sp, #32", "fd830091" } },
    { A, 0, { "", "" } },
};

START_TEST(records_made_at_the_entry_are_measured)
{
    uint8_t bytes[CODE_MAX];
    size_t size = code_bytes(&entries[_i].code, bytes);
    const struct frame_code code = { bytes, CODE_PLACE, size, 16 };
    uint64_t distance = 0;
    bool made = frame_made_at_entry(entries[_i].isa->frame, &code, &distance);
    ck_assert_int_eq(made, entries[_i].distance != 0);
    if (made)
        ck_assert_uint_eq(distance, entries[_i].distance);
}
END_TEST

/* A word of the stack has the value of FP by chance: code without frame pointers has its own use
   for both.  Only the word that was just pushed, or one beside x30's value, is taken for a record. */
START_TEST(a_value_like_fp_is_no_record)
{
    static const struct {
        const struct isa *isa;
        int word;
        bool beside_link;
        enum frame_proof proof;
        struct code code;
    } rows[] = {
        { X, 4, false, FRAME_UNKNOWN, { "lea 32(%rsp), %rbp; call *%rax", "48 8d 6c 24 20 ff d0" } },
        { X, 0, false, FRAME_PROVEN, { "mov %rsp, %rbp; call *%rax", "48 89 e5 ff d0" } },
        { A, 4, false, FRAME_UNKNOWN, { "add x29, sp, #32; blr x8", "fd830091 00013fd6" } },
        { A, 4, true, FRAME_PROVEN, { "add x29, sp, #32; blr x8", "fd830091 00013fd6" } },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t bytes[CODE_MAX];
        struct frame_query query = query_for(bytes, code_bytes(&rows[i].code, bytes), 0);
        struct frame_answer answer = { .cfa = 0 };
        query.fp = 5;
        stack[SP_WORD + rows[i].word] = query.fp;
        if (rows[i].beside_link)
            stack[SP_WORD + rows[i].word + 1] = query.link;
        enum frame_proof proof = frame_find(rows[i].isa->frame, &query, &answer);
        ck_assert_msg(proof == rows[i].proof, "%s: %d", rows[i].code.line, proof);
        ck_assert(proof != FRAME_PROVEN || answer.by_value);
    }
}
END_TEST

/* ---- lengths ------------------------------------------------------------------ */

static const struct code lengths[] = {
    { "nop", "90" },
    { "jmp .+2", "eb 00" },
    { "ret $16", "c2 10 00" },
    { "testb $1, %al", "f6 c0 01" },
    { "not %eax", "f7 d0" },
    { "mov -8(%rbp), %eax", "8b 45 f8" },
    { "enter $32, $0", "c8 20 00 00" },
    { "mov $1, %ax", "66 b8 01 00" },
    { "vmovups (%rdi), %ymm5", "c5 fc 10 2f" },
    { "call .+5", "e8 00 00 00 00" },
    { "mov $1, %eax", "b8 01 00 00 00" },
    { "addr32 mov 1, %al", "67 a0 01 00 00 00" },
    { "je .+6", "0f 84 00 00 00 00" },
    { "test $1, %eax", "f7 c0 01 00 00 00" },
    { "mov (%rip), %eax", "8b 05 00 00 00 00" },
    { "vaddps %zmm4, %zmm5, %zmm5", "62 f1 54 48 58 ec" },
    { "mov 0, %eax", "8b 04 25 00 00 00 00" },
    { "movl $1, 8(%rsp)", "c7 44 24 08 01 00 00 00" },
    { "movabs 1, %al", "a0 01 00 00 00 00 00 00 00" },
    { "movabs $1, %rax", "48 b8 01 00 00 00 00 00 00 00" },
};

START_TEST(lengths_are_those_of_the_instructions)
{
    uint8_t bytes[CODE_MAX] = { 0 };
    size_t size = code_bytes(&lengths[_i], bytes);
    struct x86_insn insn;
    ck_assert_msg(x86_decode(bytes, sizeof bytes, &insn) && insn.length == size, "%s: %u",
                  lengths[_i].line, (unsigned) insn.length);
    ck_assert(x86_decode(bytes, size, &insn));
    for (size_t cut = 0; cut < size; cut++)
        ck_assert_msg(!x86_decode(bytes, cut, &insn), "%s: %zu bytes of it", lengths[_i].line, cut);
}
END_TEST

/* ---- bytes of any kind ------------------------------------------------------ */

static uint64_t state;

static uint64_t random64(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

/* Behind the bytes is a page that cannot be read; the stack has such pages on both sides. */
START_TEST(random_bytes_are_never_read_past_their_end)
{
    const char *given = getenv("SEED");
    state = (given != NULL ? strtoull(given, NULL, 0) : (uint64_t) time(NULL)) | 1;
    printf("SEED=%llu\n", (unsigned long long) state);
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    uint8_t *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                           -1, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    ck_assert_int_eq(mprotect(memory + page, page, PROT_NONE), 0);
    static const uint8_t likely[] = { 0x55, 0xc9, 0xc3, 0x5d, 0x48, 0x89, 0xe5, 0xe8, 0xeb, 0x75, 0x66,
                                      0xc5, 0xc4, 0x62, 0x0f, 0xff, 0x8b, 0x8d, 0xec, 0x24 };
    static const uint32_t words[] = { 0xa9bf7bfd, 0x910003fd, 0xa8c17bfd, 0xd65f03c0, 0x94000010,
                                      0xd100c3ff, 0x54000041, 0xf81f0ffe, 0xd61f0200 };
    unsigned long proven = 0;
    for (unsigned round = 0; round < 200000; round++) {
        size_t size = random64() % 64;
        uint8_t *bytes = memory + page - size;
        bool arm = random64() % 2;
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t) (random64() % 2 ? likely[random64() % sizeof likely]
                                                 : random64());
        for (size_t i = 0; arm && i + 4 <= size; i += 4)
            if (random64() % 2)
                memcpy(bytes + i, &words[random64() % (sizeof words / sizeof *words)], 4);
        size_t at = size == 0 ? 0 : random64() % size & (arm ? ~(size_t) 3 : ~(size_t) 0);
        struct frame_query query = query_for(bytes, size, at);
        struct frame_answer answer;
        struct x86_insn insn;
        if (random64() % 4 == 0)
            query.sp = random64();
        if (random64() % 4 == 0)
            query.fp = random64();
        const struct frame_machine *machine = (arm ? &isa_aarch64 : &isa_x86_64)->frame;
        proven += frame_find(machine, &query, &answer) == FRAME_PROVEN;
        (void) frame_find_returned(machine, &query, &answer);
        uint64_t distance;
        (void) frame_made_at_entry(machine, &query.code, &distance);
        if (x86_decode(bytes, size, &insn))
            ck_assert(insn.length >= 1 && insn.length <= 15 && insn.length <= size);
    }
    ck_assert_uint_gt(proven, 100);
    munmap(memory, 2 * page);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frame");
    TCase *tests = tcase_create("frame");
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, frames_are_told_from_instructions, 0, sizeof table / sizeof *table);
    tcase_add_loop_test(tests, records_made_at_the_entry_are_measured, 0,
                        sizeof entries / sizeof *entries);
    tcase_add_test(tests, a_value_like_fp_is_no_record);
    tcase_add_loop_test(tests, lengths_are_those_of_the_instructions, 0,
                        sizeof lengths / sizeof *lengths);
    tcase_add_test(tests, random_bytes_are_never_read_past_their_end);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
