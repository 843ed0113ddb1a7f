/* SPDX-License-Identifier: MIT */
/*
 * A contestant: one way to get executable memory, used as its documentation says.
 * Each has a file of its own.
 */
#ifndef BENCH_CONTESTANT_H
#define BENCH_CONTESTANT_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A piece of code that a contestant has made room for. */
struct piece {
    void *write;   /* where to store */
    void *execute; /* where it runs */
    size_t bytes;
    void *handle;  /* the contestant's */
};

struct footprint {
    size_t reserved; /* bytes taken for code, whole pages or blocks; 0: not known */
    size_t metadata; /* bytes of bookkeeping; 0: not known */
};

struct contestant {
    const char *name;
    void *(*open)(void);                             /* NULL: not on this machine */
    void (*close)(void *state);
    bool (*take)(void *state, size_t bytes, struct piece *piece);
    bool (*publish)(void *state, struct piece *piece); /* after the bytes were stored */
    bool (*give)(void *state, struct piece *piece);
    void (*measure)(void *state, struct footprint *footprint);
};

extern const struct contestant pool_spans;    /* this library */
extern const struct contestant page_each;     /* mmap, mprotect, munmap for each piece */

#if HAVE_ASMJIT
extern const struct contestant asmjit_dual;   /* JitAllocator, dual mapping */
extern const struct contestant asmjit_pools;  /* the same with several pools */
extern const struct contestant asmjit_single; /* one mapping with all rights, its default */
#endif
#if HAVE_LLVM
extern const struct contestant llvm_process;  /* InProcessMemoryManager */
extern const struct contestant llvm_mapper;   /* MapperJITLinkMemoryManager with slabs of 64 MiB */
#endif

/* All of them that were built, this library first; ends with NULL. */
extern const struct contestant *const contestants[];

#ifdef __cplusplus
}
#endif
#endif
