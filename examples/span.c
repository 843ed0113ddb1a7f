/* SPDX-License-Identifier: MIT */
/*
 * A compiler with its own assembler, which had mmap and mprotect and takes spans: that
 * is all of what changes.  It compiles polynomials, (c[0] x + c[1]) x + c[2], that leave
 * by a jump into its runtime.  Plain C, and C++ as well.
 */
#include <patchpoint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the compiler had already -------------------------------------- */

enum { COEFFICIENTS = 3, CODE_MAX = 64, FUNCTIONS = 1000 };
static unsigned long results;

static int64_t runtime_result(int64_t value)
{
    results++;
    return value;
}

static size_t emit(unsigned char *out, size_t n, uint64_t bytes, size_t count)
{
    memcpy(out + n, &bytes, count);
    return n + count;
}

/* Store at `out` what will run at `at`.  A direct jump if it reaches; else any address. */
static size_t assemble(unsigned char *out, uintptr_t at, const uint16_t *c)
{
    uintptr_t target = (uintptr_t) runtime_result;
    size_t n = 0;
#if defined __x86_64__
    n = emit(out, n, 0xc031, 2);                                     /* xor  %eax, %eax */
    for (int i = 0; i < COEFFICIENTS; i++) {
        n = emit(out, n, 0xc7af0f48, 4);                             /* imul %rdi, %rax */
        n = emit(out, n, 0x0548 | (uint64_t) c[i] << 16, 6);         /* add  $c, %rax */
    }
    n = emit(out, n, 0xc78948, 3);                                   /* mov  %rax, %rdi */
    int64_t distance = (int64_t) (target - (at + n + 5));
    if (distance == (int32_t) distance)
        return emit(out, n, 0xe9 | (uint64_t) (uint32_t) distance << 8, 5); /* jmp */
    n = emit(out, n, 0xbb49, 2);                                     /* mov  $target, %r11 */
    n = emit(out, n, target, 8);
    return emit(out, n, 0xe3ff41, 3);                                /* jmp  *%r11 */
#else
    n = emit(out, n, 0xaa0003e9, 4);                                 /* mov  x9, x0 */
    n = emit(out, n, 0xd2800000, 4);                                 /* mov  x0, #0 */
    for (int i = 0; i < COEFFICIENTS; i++) {
        n = emit(out, n, 0xd280000a | (uint32_t) c[i] << 5, 4);      /* mov  x10, #c */
        n = emit(out, n, 0x9b092800, 4);                             /* madd x0, x0, x9, x10 */
    }
    int64_t distance = (int64_t) (target - (at + n));
    if (distance >= -(1 << 27) && distance < 1 << 27)
        return emit(out, n, 0x14000000 | ((uint32_t) (distance >> 2) & 0x3ffffff), 4); /* b */
    n = emit(out, n, 0x58000050, 4);                                 /* ldr  x16, .+8 */
    n = emit(out, n, 0xd61f0200, 4);                                 /* br   x16 */
    return emit(out, n, target, 8);
#endif
}

/* ---- what its author writes ---------------------------------------------- */

static pp_pool *pool;

static void check(pp_status status, const char *what)
{
    if (status == PP_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, pp_strerror(status));
    exit(1);
}

/* Was: mmap a page, assemble, mprotect.  Now other functions share the page. */
static pp_span *compile(const uint16_t *c)
{
    pp_span *span;
    pp_span_desc want = { sizeof want, CODE_MAX, 0, NULL, NULL };
    pp_span_place place = { sizeof place, NULL, NULL, 0, 0 };
    check(pp_span_alloc(pool, &want, &span, &place), "take a span");
    size_t size = assemble((unsigned char *) place.write, (uintptr_t) place.execute, c);
    check(pp_span_shrink(pool, span, size), "give the rest back");
    return span;
}

static int64_t run(const pp_span *span, int64_t x)
{
    pp_span_place place = { sizeof place, NULL, NULL, 0, 0 };
    check(pp_span_get_place(span, &place), "find a span");
    return ((int64_t (*)(int64_t)) (uintptr_t) place.execute)(x);
}

int main(void)
{
    pp_pool_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.near[0] = (const void *) runtime_result;
    check(pp_pool_create(&options, &pool), "pool");

    /* A compiler's queue: many at once, and one barrier for all of them. */
    static pp_span *spans[FUNCTIONS];
    for (int i = 0; i < FUNCTIONS; i++) {
        uint16_t c[COEFFICIENTS] = { (uint16_t) i, 7, 1 };
        spans[i] = compile(c);
    }
    check(pp_span_publish(pool, spans, FUNCTIONS, NULL), "publish");
    int good = 1;
    for (int i = 0; i < FUNCTIONS; i++)
        good &= run(spans[i], -3) == 9 * i - 21 + 1;

    /* A function is compiled again in place, while nobody runs it. */
    uint16_t better[COEFFICIENTS] = { 0, 0, 42 };
    pp_span_place place = { sizeof place, NULL, NULL, 0, 0 };
    check(pp_span_write(pool, spans[5], &place, NULL), "open a span");
    assemble((unsigned char *) place.write, (uintptr_t) place.execute, better);
    check(pp_span_publish(pool, &spans[5], 1, NULL), "publish again");
    good &= run(spans[5], 1000) == 42;

    /* From an address back to the function: a profiler, a signal handler. */
    good &= pp_span_at((const char *) place.execute + 4) == spans[5];

    pp_pool_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.size = sizeof stats;
    check(pp_pool_get_stats(pool, &stats), "statistics");
    printf("%zu functions of %zu bytes in %zu bytes of memory; %lu results\n", stats.spans,
           stats.requested, stats.resident, results);
    for (int i = 0; i < FUNCTIONS; i++)
        check(pp_span_free(pool, spans[i]), "free");
    good &= pp_span_at(place.execute) == NULL && results == FUNCTIONS + 1;
    pp_pool_destroy(pool);
    return good ? 0 : 1;
}
