/* SPDX-License-Identifier: MIT */
/*
 * Small functions made at run time that lead to one C function with a value of
 * their own: libffi's closures and libffcall's callbacks, against a span of
 * the pool with the few instructions that do it.
 */
#include <config.h>

#include "bench/harness.h"

#include <patchpoint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if HAVE_FFI
#include <ffi.h>
#endif
#if HAVE_FFCALL
#include <callback.h>
#endif

enum { ROUNDS = 64, ALIVE = 10000, CYCLES = 20000 };

static volatile uintptr_t seen;

static void receive(uintptr_t value)
{
    seen = value;
}

struct closure {
    void (*call)(void);
    void *handle;
};

struct maker {
    const char *name;
    bool (*make)(uintptr_t value, struct closure *closure);
    void (*end)(struct closure *closure);
};

/* ---- the pool ----------------------------------------------------------- */

static pp_pool *pool;

/* Landing pad; load the value; jump through the word behind it. */
#if defined __x86_64__
enum { VALUE = 24, TARGET = 32, CLOSURE = 40 };
static const uint8_t closure_code[] = {
    0xf3, 0x0f, 0x1e, 0xfa,                  /* endbr64 */
    0x48, 0x8b, 0x3d, VALUE - 11, 0, 0, 0,   /* mov VALUE, %rdi */
    0xff, 0x25, TARGET - 17, 0, 0, 0         /* jmp *TARGET */
};
#else
enum { VALUE = 16, TARGET = 24, CLOSURE = 32 };
static const uint32_t closure_code[] = {
    0xd503245f,                              /* bti c */
    0x58000000 | (VALUE - 4) / 4 << 5,       /* ldr x0, VALUE */
    0x58000010 | (TARGET - 8) / 4 << 5,      /* ldr x16, TARGET */
    0xd61f0200                               /* br x16 */
};
#endif

static void write_closure(uint8_t *at, uintptr_t value)
{
    void (*target)(uintptr_t) = receive;
    memcpy(at, closure_code, sizeof closure_code);
    memcpy(at + VALUE, &value, sizeof value);
    memcpy(at + TARGET, &target, sizeof target);
}

static bool make_span(uintptr_t value, struct closure *closure)
{
    pp_span_desc desc = { .size = sizeof desc, .bytes = CLOSURE };
    pp_span_place place = { .size = sizeof place };
    pp_span *span;
    if (pp_span_alloc(pool, &desc, &span, &place) != PP_OK)
        return false;
    write_closure(place.write, value);
    closure->call = (void (*)(void)) place.execute;
    closure->handle = span;
    return pp_span_publish(pool, &span, 1, NULL) == PP_OK;
}

static void end_span(struct closure *closure)
{
    if (pp_span_free(pool, closure->handle) != PP_OK)
        exit(1);
}

/* ---- the others --------------------------------------------------------- */

#if HAVE_FFI
static ffi_cif cif;

static void closure_called(ffi_cif *unused, void *result, void **arguments, void *value)
{
    (void) unused, (void) result, (void) arguments;
    receive((uintptr_t) value);
}

static bool make_ffi(uintptr_t value, struct closure *closure)
{
    void *code;
    closure->handle = ffi_closure_alloc(sizeof(ffi_closure), &code);
    closure->call = (void (*)(void)) code;
    return closure->handle != NULL &&
           ffi_prep_closure_loc(closure->handle, &cif, closure_called, (void *) value, code) ==
               FFI_OK;
}

static void end_ffi(struct closure *closure)
{
    ffi_closure_free(closure->handle);
}
#endif

#if HAVE_FFCALL
static void callback_called(void *value, va_alist list)
{
    va_start_void(list);
    receive((uintptr_t) value);
    va_return_void(list);
}

static bool make_ffcall(uintptr_t value, struct closure *closure)
{
    closure->call = (void (*)(void)) alloc_callback(callback_called, (void *) value);
    closure->handle = (void *) closure->call;
    return closure->handle != NULL;
}

static void end_ffcall(struct closure *closure)
{
    free_callback((callback_t) closure->call);
}
#endif

static const struct maker makers[] = {
    { "libpatchpoint", make_span, end_span },
#if HAVE_FFI
    { "libffi closure", make_ffi, end_ffi },
#endif
#if HAVE_FFCALL
    { "libffcall callback", make_ffcall, end_ffcall },
#endif
};
enum { MAKERS = sizeof makers / sizeof makers[0] };

/* ---- the contest -------------------------------------------------------- */

static void make(const struct maker *maker, uintptr_t value, struct closure *closure)
{
    if (!maker->make(value, closure)) {
        fprintf(stderr, "%s: refused\n", maker->name);
        exit(1);
    }
}

static double replace(const struct maker *maker, struct closure *closures)
{
    uint64_t random = 1234567891;
    double begin = bench_clock();
    for (size_t i = 0; i < CYCLES; i++) {
        struct closure *closure = &closures[bench_random(&random) % ALIVE];
        maker->end(closure);
        make(maker, i, closure);
    }
    return (bench_clock() - begin) / CYCLES;
}

static double call(const struct maker *maker, struct closure *closures)
{
    double begin = bench_clock();
    (void) maker;
    for (size_t i = 0; i < CYCLES; i++)
        closures[i % 64].call();
    return (bench_clock() - begin) / CYCLES;
}

int main(int argc, char **argv)
{
    static double replaced[MAKERS][ROUNDS], called[MAKERS][ROUNDS];
    struct closure *closures[MAKERS];
    struct bench bench;
    bench_begin(&bench, argc, argv);
    unsigned rounds = bench.rounds < ROUNDS ? bench.rounds : ROUNDS;
    if (pp_pool_create(NULL, &pool) != PP_OK)
        return 1;
#if HAVE_FFI
    if (ffi_prep_cif(&cif, FFI_DEFAULT_ABI, 0, &ffi_type_void, NULL) != FFI_OK)
        return 1;
#endif
    for (unsigned i = 0; i < MAKERS; i++) {
        closures[i] = bench_memory(ALIVE * sizeof *closures[i]);
        for (size_t j = 0; j < ALIVE; j++)
            make(&makers[i], j, &closures[i][j]);
        closures[i][7].call();
        if (seen != 7) {
            fprintf(stderr, "%s: a closure got another value\n", makers[i].name);
            return 1;
        }
    }
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < MAKERS; i++) {
            replaced[i][round] = replace(&makers[i], closures[i]);
            called[i][round] = call(&makers[i], closures[i]);
        }
    }
    printf("\nClosures, %d alive: times against libpatchpoint.\n", ALIVE);
    for (unsigned i = 0; i < MAKERS; i++) {
        double first = bench_median(replaced[0], rounds), mine = bench_median(replaced[i], rounds);
        double base = bench_median(called[0], rounds), each = bench_median(called[i], rounds);
        printf("  %-20s make and free %6.2f (%.0f ns)   call %6.2f (%.1f ns)\n", makers[i].name,
               mine / first, mine, each / base, each);
    }
    return 0;
}
