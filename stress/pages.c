/* SPDX-License-Identifier: MIT */
/* A page per trace: code | trampolines of 16 bytes | GOT slots | data, rounded up to pages. */
#include <config.h>

#include "stress/pages.h"

#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TRAMPOLINE = 16, SLOT = 8 };

/* Where the parts of one trace are, as offsets from its base. */
struct parts {
    size_t trampolines, slots, data, end;
};

/* One trampoline and one slot for each symbol of the trace that may need it: the worst case. */
static struct parts divide(const struct synth *synth)
{
    struct parts parts;
    size_t trampolines = 0, slots = 0;
    for (size_t i = 0; i < synth->use_count; i++) {
        trampolines |= synth->uses[i].branches;
        slots |= synth->uses[i].literal_far || synth->uses[i].literal_always;
    }
    parts.trampolines = (synth->code_size + 7) & ~(size_t) 7;
    parts.slots = parts.trampolines + (trampolines ? synth->use_count * TRAMPOLINE : 0);
    parts.data = parts.slots + (slots ? synth->use_count * SLOT : 0);
    parts.end = parts.data + synth->data_size;
    return parts;
}

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static void put64(uint8_t *at, uint64_t value)
{
    memcpy(at, &value, sizeof value);
}

#if defined __x86_64__

static const int64_t branch_range = INT64_C(1) << 31;

static void write_trampoline(uint8_t *at, uint64_t target)
{
    static const uint8_t jump[8] = { 0xff, 0x25, 2, 0, 0, 0 }; /* jmp *2(%rip) */
    memcpy(at, jump, sizeof jump);
    put64(at + 8, target);
}

static bool fits32(int64_t distance)
{
    return distance >= INT32_MIN && distance <= INT32_MAX;
}

/* `target` of a branch is the symbol or its trampoline; of a GOT relocation, the slot. */
static bool relocate(uint8_t *at, const pp_reloc *reloc, uint64_t target)
{
    if (reloc->type == R_X86_64_64) {
        put64(at, target + (uint64_t) reloc->addend);
        return true;
    }
    int64_t distance = (int64_t) (target + (uint64_t) reloc->addend - (uintptr_t) at);
    put32(at, (uint32_t) distance);
    return fits32(distance);
}

static bool is_got(uint16_t type)
{
    return type == R_X86_64_GOTPCREL || type == 41 || type == 42; /* GOTPCRELX, REX_GOTPCRELX */
}

#elif defined __aarch64__

static const int64_t branch_range = INT64_C(1) << 27;

static void write_trampoline(uint8_t *at, uint64_t target)
{
    put32(at, 0x58000050);     /* ldr x16, at + 8 */
    put32(at + 4, 0xd61f0200); /* br x16 */
    put64(at + 8, target);
}

static bool relocate(uint8_t *at, const pp_reloc *reloc, uint64_t target)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    target += (uint64_t) reloc->addend;
    if (reloc->type == R_AARCH64_ABS64) {
        put64(at, target);
        return true;
    }
    if (reloc->type == R_AARCH64_LD64_GOT_LO12_NC) {
        put32(at, word | (uint32_t) (target & 0xff8) << 7); /* imm12, in units of 8 */
        return true;
    }
    if (reloc->type == R_AARCH64_ADR_GOT_PAGE) {
        int64_t pages = (int64_t) (target >> 12) - (int64_t) ((uintptr_t) at >> 12);
        put32(at, word | ((uint32_t) pages & 3) << 29 | ((uint32_t) (pages >> 2) & 0x7ffff) << 5);
        return pages >= -(1 << 20) && pages < 1 << 20;
    }
    int64_t distance = (int64_t) (target - (uintptr_t) at);
    put32(at, word | ((uint32_t) (distance >> 2) & 0x3ffffff));
    return distance >= -branch_range && distance < branch_range;
}

static bool is_got(uint16_t type)
{
    return type == R_AARCH64_ADR_GOT_PAGE || type == R_AARCH64_LD64_GOT_LO12_NC;
}

#endif

/* A page is left between the range and its use: the addend, and both ends of the trace. */
static bool is_near(const uint8_t *base, const struct parts *parts, uint64_t target)
{
    int64_t distance = (int64_t) (target - (uintptr_t) base);
    return distance > -branch_range + (int64_t) parts->end + 4096 &&
           distance < branch_range - (int64_t) parts->end - 4096;
}

static bool relocate_all(uint8_t *base, const struct parts *parts, const struct synth *synth,
                         const struct targets *targets, bool all_far)
{
    bool good = true;
    for (size_t i = 0; i < synth->reloc_count; i++) {
        const pp_reloc *reloc = &synth->relocs[i];
        uint8_t *at = base + (reloc->section == PP_IN_DATA ? parts->data : 0) + reloc->offset;
        uint32_t use = synth->reloc_uses[i];
        uint64_t target;
        if (use == SYNTH_NONE) {
            target = (uintptr_t) base + (reloc->symbol == PP_SYMBOL_DATA ? parts->data : 0);
            good &= relocate(at, reloc, target);
            continue;
        }
        target = (uintptr_t) targets_address(targets, synth->uses[use].symbol);
        if (is_got(reloc->type)) {
            uint8_t *slot = base + parts->slots + use * SLOT;
            put64(slot, target);
            target = (uintptr_t) slot;
        } else if (all_far || !is_near(base, parts, target)) {
            uint8_t *trampoline = base + parts->trampolines + use * TRAMPOLINE;
            write_trampoline(trampoline, target);
            target = (uintptr_t) trampoline;
        }
        good &= relocate(at, reloc, target);
    }
    return good;
}

bool pages_link(struct pages *pages, const struct synth *synth, const struct targets *targets,
                bool all_far)
{
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    struct parts parts = divide(synth);
    size_t bytes = (parts.end + page - 1) & ~(page - 1);
    *pages = (struct pages) { 0 };
    uint8_t *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return false;
    memcpy(base, synth->code, synth->code_size);
    if (synth->data_size > 0)
        memcpy(base + parts.data, synth->data, synth->data_size);
    errno = 0;
    if (!relocate_all(base, &parts, synth, targets, all_far) ||
        mprotect(base, bytes, PROT_READ | PROT_EXEC) != 0) {
        int number = errno;
        munmap(base, bytes);
        errno = number;
        return false;
    }
    __builtin___clear_cache((char *) base, (char *) base + bytes);
    *pages = (struct pages) { base, bytes, base + parts.data };
    return true;
}

void pages_free(struct pages *pages)
{
    if (pages->base != NULL)
        munmap(pages->base, pages->mapped);
    *pages = (struct pages) { 0 };
}
