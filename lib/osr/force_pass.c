/* SPDX-License-Identifier: MIT */
/*
 * A slow path under force: registers that are not kept are filled, and those that
 * are kept are compared.  Compiled code cannot tell, unless it is wrong.
 */
#include <config.h>

#include "osr/force.h"

#include "os/cpu.h"
#include "osr/site.h"
#include "osr/site_desc.h"

#include "stub.h"

#include <string.h>

#if defined __x86_64__
#define VOLATILE 0x07c7u                /* rax rcx rdx rsi rdi r8-r10 */
#define STORED_MAX PP_REGS_V512_SIZE
static const uint8_t kept_numbers[FORCE_KEPT] = { 3, 12, 13, 14, 15 };
#else
#define VOLATILE 0x0004ffffu            /* x0-x15, x18 */
#define STORED_MAX PP_REGS_SIZE
static const uint8_t kept_numbers[FORCE_KEPT] = {
    19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 40, 41, 42, 43, 44, 45, 46, 47 /* 32 + n: of d8-d15 */
};
#endif

static size_t stored_bytes(const struct site *site)
{
    switch (site->desc.save) {
#if defined __x86_64__
    case PP_SAVE_V256:
    case PP_SAVE_MASK256:
        return PP_REGS_V256_SIZE;
    case PP_SAVE_V512:
    case PP_SAVE_MASK512:
        return PP_REGS_V512_SIZE;
#endif
    default:
        return PP_REGS_SIZE;
    }
}

/* ---- comparing -------------------------------------------------------------- */

/* Only the first is kept: what comes behind it may be its consequence. */
static void report(struct force *force, const struct site *site, uint32_t offset, uint64_t want,
                   uint64_t got)
{
    if (atomic_fetch_add_explicit(&force->mismatches, 1, memory_order_relaxed) != 0)
        return;
    atomic_store_explicit(&force->site, site->number, memory_order_relaxed);
    atomic_store_explicit(&force->offset, offset, memory_order_relaxed);
    atomic_store_explicit(&force->want, want, memory_order_relaxed);
    atomic_store_explicit(&force->got, got, memory_order_relaxed);
}

bool force_has_thread(struct force *force, const struct site *site, int32_t offset,
                      const struct pp_regs *regs)
{
    const uint64_t *words = (const uint64_t *) regs;
    const uintptr_t address = *(const uintptr_t *) (words[PP_REGS_FP / 8] + (int64_t) offset);
    if (force_thread_is_right(force, address, words[PP_REGS_SP / 8]))
        return true;
    report(force, site, PP_FORCE_AT_THREAD, (uint64_t) (int64_t) offset, address);
    return false;
}

static uint32_t offset_of(unsigned number)
{
    return number < 32 ? PP_REGS_GPR + 8 * number : PP_REGS_VECTOR + 16 * (number - 32);
}

/*
 * What the stub will load from, against a copy of what it stored; and it loads the copy.
 * Of a site with a probe it loads what the probe wrote.
 */
static bool compare_stored(struct force *force, const struct site *site, struct pp_regs *regs,
                           const uint64_t *copy, size_t bytes)
{
    uint64_t *words = (uint64_t *) regs;
    if (site->desc.probe != NULL || memcmp(words, copy, bytes) == 0)
        return true;
    for (uint32_t i = 0; i < bytes / 8; i++)
        if (words[i] != copy[i]) {
            report(force, site, 8 * i, copy[i], words[i]);
            break;
        }
    memcpy(words, copy, bytes);
    return false;
}

static void compare_kept(struct force *force, const struct site *site,
                         uint64_t (*const kept)[FORCE_KEPT])
{
    for (unsigned i = 0; i < FORCE_KEPT; i++)
        if (kept[0][i] != kept[1][i]) {
            report(force, site, offset_of(kept_numbers[i]), kept[0][i], kept[1][i]);
            return;
        }
}

/* ---- filling ---------------------------------------------------------------- */

static unsigned vector_bytes(void)
{
#if defined __x86_64__
    if (cpu_lacks(CPU_V512) == NULL)
        return 64;
    if (cpu_lacks(CPU_V256) == NULL)
        return 32;
#endif
    return 16;
}

static void fill_vector(struct pp_regs *regs, unsigned number)
{
    const uint64_t pattern = PP_FORCE_PATTERN;
    size_t bytes, from = 0;
    uint8_t *vector = (uint8_t *) pp_regs_vector(regs, number, &bytes);
#if defined __aarch64__
    if (number >= 8 && number < 16)
        from = 8; /* what functions keep is kept by all classes */
#endif
    for (size_t i = from; vector != NULL && i < bytes; i += sizeof pattern)
        memcpy(vector + i, &pattern, sizeof pattern);
}

/* What the stub loads, but those that are live. */
static void fill_stored(struct pp_regs *regs, uint32_t live_gpr, uint32_t live_vector)
{
    for (unsigned n = 0; n < PP_REGS_GPR_COUNT; n++)
        if (VOLATILE >> n & ~live_gpr >> n & 1)
            regs->gpr[n] = PP_FORCE_PATTERN;
    for (unsigned n = 0; n < 32; n++)
        if (!(live_vector >> n & 1))
            fill_vector(regs, n);
}

static void clobber(const struct site *site, struct pp_regs *regs, uintptr_t target)
{
    uint32_t gpr = UINT32_MAX, vector = UINT32_MAX;
    if (site_desc_names(&site->desc)) {
        gpr = site->desc.live_gpr;
        vector = site->desc.live_vector;
    }
    /* A target that belongs to no entry by now may read all that the class keeps. */
    const uint64_t word = site_word(site);
    const struct entry *entry = word_entry(word);
    if (entry != NULL && target == entry->target && entry->style != PP_ON_TOP) {
        const uint32_t reads_gpr = entry->reads_gpr, reads_vector = entry->reads_vector;
        atomic_thread_fence(memory_order_acquire);
        if (site_word(site) == word) {
            gpr &= reads_gpr;
            vector &= reads_vector;
        }
    }
    if ((gpr & vector) != UINT32_MAX)
        fill_stored(regs, gpr, vector);
    force_fill(PP_FORCE_PATTERN, vector_bytes());
}

uintptr_t force_pass(struct force *force, struct site *site, uint32_t state, struct pp_regs *regs,
                     force_passed *pass)
{
    const uint32_t flags = atomic_load_explicit(&force->flags, memory_order_relaxed);
    const size_t bytes = stored_bytes(site);
    uint64_t copy[STORED_MAX / 8], kept[2][FORCE_KEPT];
    if (flags & PP_FORCE_VERIFY)
        memcpy(copy, regs, bytes);
    uintptr_t target = force_call(pass, site, state, regs, kept);
    if (flags & PP_FORCE_VERIFY) {
        atomic_fetch_add_explicit(&force->checks, 1, memory_order_relaxed);
        if (compare_stored(force, site, regs, copy, bytes))
            compare_kept(force, site, kept);
    }
    if (flags & PP_FORCE_CLOBBER)
        clobber(site, regs, target);
    return target;
}
