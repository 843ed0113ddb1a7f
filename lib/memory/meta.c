/* SPDX-License-Identifier: MIT */
/*
 * Memory for bookkeeping.  jemalloc is found at run time and never linked:
 * linked, it would replace the host's malloc; and where it cannot be loaded
 * (little static TLS left), the C heap does.  Only the functions that name their
 * arena and flags are used.
 */
#include <config.h>

#include "memory/meta.h"

#include "os/fault.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#if HAVE_JEMALLOC

#include <dlfcn.h>
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#include <stdio.h>

static struct {
    void *(*mallocx)(size_t size, int flags);
    void (*sdallocx)(void *memory, size_t size, int flags);
    int (*mallctl)(const char *name, void *old, size_t *old_size, void *new, size_t new_size);
} je;
static pthread_once_t je_once = PTHREAD_ONCE_INIT;
static char je_refused[160]; /* written once, with je */

/*
 * A jemalloc of our own.  Its C++ part needs libstdc++ and defines operator new and
 * delete.  If it brought libstdc++ into the process, that would bind to jemalloc's
 * operators for ever, and free() of the C library would be given their memory by
 * modules that the host loads later.  So libstdc++ is loaded first, by itself.
 * The handles are kept open: jemalloc cannot be unloaded.
 */
static void *load_jemalloc(void)
{
    dlopen("libstdc++.so.6", RTLD_NOW | RTLD_LOCAL);
    return dlopen("libjemalloc.so.2", RTLD_NOW | RTLD_LOCAL);
}

static void find_jemalloc(void)
{
    void *from = RTLD_DEFAULT;
    if (dlsym(from, "mallocx") == NULL) {
        from = load_jemalloc();
        if (from == NULL) {
            const char *why = dlerror();
            snprintf(je_refused, sizeof je_refused, "%s", why != NULL ? why : "dlopen fails");
            return;
        }
    }
    *(void **) &je.mallocx = dlsym(from, "mallocx");
    *(void **) &je.sdallocx = dlsym(from, "sdallocx");
    *(void **) &je.mallctl = dlsym(from, "mallctl");
    if (je.mallocx == NULL || je.sdallocx == NULL || je.mallctl == NULL) {
        je.mallocx = NULL;
        snprintf(je_refused, sizeof je_refused, "jemalloc has no mallocx, sdallocx or mallctl");
    }
}

static int flags(const struct meta *meta)
{
    return MALLOCX_ARENA(meta->arena) | MALLOCX_TCACHE_NONE;
}

static int is_jemalloc(const struct meta *meta)
{
    return meta->arena != 0;
}

/*
 * Arenas of closed pools, for the next ones: a destroyed arena leaves 2 MiB of its
 * address space behind, because jemalloc retains what it once mapped.  0 is an empty
 * place.  An arena belongs to who takes it out by an exchange.
 */
static _Atomic unsigned spare_arenas[32];
enum { SPARE_ARENAS = sizeof spare_arenas / sizeof spare_arenas[0] };

static unsigned take_spare_arena(void)
{
    for (unsigned i = 0; i < SPARE_ARENAS; i++) {
        unsigned arena = atomic_exchange(&spare_arenas[i], 0);
        if (arena != 0)
            return arena;
    }
    return 0;
}

static bool keep_spare_arena(unsigned arena)
{
    for (unsigned i = 0; i < SPARE_ARENAS; i++) {
        unsigned empty = 0;
        if (atomic_compare_exchange_strong(&spare_arenas[i], &empty, arena))
            return true;
    }
    return false;
}

static void arena_open(struct meta *meta)
{
    pthread_once(&je_once, find_jemalloc);
    if (je.mallocx == NULL) {
        meta->refused = je_refused;
        return;
    }
    /* Arena 0 is everybody's; one that was created never has this number. */
    unsigned arena = take_spare_arena();
    size_t size = sizeof arena;
    int number;
    if (arena == 0 && (fault_fires(PP_FAULT_METADATA, &number) ||
                       je.mallctl("arenas.create", &arena, &size, NULL, 0) != 0)) {
        meta->refused = "jemalloc creates no arena";
        return;
    }
    meta->arena = arena;
    meta->name = "jemalloc";
}

static void arena_control(unsigned arena, const char *what)
{
    char name[64];
    snprintf(name, sizeof name, "arena.%u.%s", arena, what);
    je.mallctl(name, NULL, NULL, NULL, 0);
}

static void arena_close(struct meta *meta)
{
    arena_control(meta->arena, "reset");
    arena_control(meta->arena, "purge");
    if (!keep_spare_arena(meta->arena))
        arena_control(meta->arena, "destroy");
}

static void *arena_alloc(struct meta *meta, size_t size)
{
    return je.mallocx(size, flags(meta) | MALLOCX_ZERO);
}

static void arena_free(struct meta *meta, void *memory, size_t size)
{
    je.sdallocx(memory, size, flags(meta));
}

#else

static int is_jemalloc(const struct meta *meta) { (void) meta; return 0; }
static void arena_open(struct meta *meta) { meta->refused = "built without jemalloc"; }
static void arena_close(struct meta *meta) { (void) meta; }
static void *arena_alloc(struct meta *meta, size_t size) { (void) meta; (void) size; return NULL; }
static void arena_free(struct meta *meta, void *memory, size_t size)
{
    (void) meta; (void) memory; (void) size;
}

#endif

void meta_open(struct meta *meta)
{
    meta->name = "libc";
    meta->refused = NULL;
    meta->arena = 0;
    atomic_init(&meta->bytes, 0);
    arena_open(meta);
}

static atomic_size_t lost;

size_t meta_lost(void)
{
    return atomic_load_explicit(&lost, memory_order_relaxed);
}

static atomic_size_t unreturned;

size_t meta_unreturned(void)
{
    return atomic_load(&unreturned);
}

void meta_close(struct meta *meta)
{
    atomic_fetch_add(&unreturned, atomic_load(&meta->bytes));
    size_t bytes = atomic_load_explicit(&meta->bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&lost, bytes, memory_order_relaxed);
    if (is_jemalloc(meta))
        arena_close(meta);
}

void *meta_alloc(struct meta *meta, size_t size)
{
    int number;
    if (size == 0 || size > PTRDIFF_MAX || fault_fires(PP_FAULT_METADATA, &number))
        return NULL;
    void *memory = is_jemalloc(meta) ? arena_alloc(meta, size) : calloc(1, size);
    if (memory != NULL)
        atomic_fetch_add_explicit(&meta->bytes, size, memory_order_relaxed);
    return memory;
}

void meta_free(struct meta *meta, void *memory, size_t size)
{
    if (memory == NULL)
        return;
    if (is_jemalloc(meta))
        arena_free(meta, memory, size);
    else
        free(memory);
    atomic_fetch_sub_explicit(&meta->bytes, size, memory_order_relaxed);
}
