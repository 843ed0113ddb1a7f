/* SPDX-License-Identifier: MIT */
/*
 * Counting functions.  What they share is assembled here and copied to the
 * start of their memory; the functions behind it are 16 bytes each.
 */
#include <config.h>

#include "stress/targets.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

extern const uint8_t targets_shared[] __attribute__((visibility("hidden")));
extern const uint8_t targets_shared_leave[] __attribute__((visibility("hidden")));
extern const uint8_t targets_shared_tail[] __attribute__((visibility("hidden")));
extern const uint8_t targets_shared_end[] __attribute__((visibility("hidden")));

/*
 * targets_shared         what traces do first, for those that have no room:
 *                        push a frame record, sum = 0, jump to the trace
 * targets_shared_leave   pop the frame record, return the sum
 * targets_shared_tail    of every counting function; AArch64: x9 is its number
 */
__asm__(".pushsection .text\n"
        ".balign 16\n"
        ".globl targets_shared, targets_shared_leave, targets_shared_tail, targets_shared_end\n"
        ".hidden targets_shared, targets_shared_leave, targets_shared_tail, targets_shared_end\n"
#if defined __x86_64__
        "targets_shared:\n"
        "    endbr64\n"
        "    push %rbp\n"
        "    mov %rsp, %rbp\n"
        "    xor %eax, %eax\n"
        "    jmp *%rdi\n"
        "targets_shared_leave:\n"
        "    endbr64\n"
        "    pop %rbp\n"
        "    ret\n"
        "targets_shared_tail:\n"
        "    mov (%rsp), %r9\n"
        "    sub %rdi, %r9\n"
        "    cmp %rsi, %r9\n"
        "    je 1f\n"
        "    ja 2f\n"
        "    ret\n"
        "1:  add $8, %rsp\n"
        "    xor %r9d, %r9d\n" /* drop it from the shadow stack as well, if there is one */
        "    rdsspq %r9\n"
        "    test %r9, %r9\n"
        "    jz 2f\n"
        "    mov $1, %r9d\n"
        "    incsspq %r9\n"
        "2:  mov (%rdx), %r9\n"
        "    add $8, %rdx\n"
        "    jmp *%r9\n"
#elif defined __aarch64__
        "targets_shared:\n"
        "    hint 34\n" /* bti c */
        "    stp x29, x30, [sp, #-16]!\n"
        "    mov x29, sp\n"
        "    mov x4, xzr\n"
        "    ret x0\n"  /* unlike br, needs no landing pad */
        "targets_shared_leave:\n"
        "    mov x0, x4\n"
        "    ldp x29, x30, [sp], #16\n"
        "    ret\n"
        "targets_shared_tail:\n"
        "    ldr x10, [x3, x9, lsl #3]\n"
        "    add x10, x10, #1\n"
        "    str x10, [x3, x9, lsl #3]\n"
        "    mov x9, x30\n"
        "    sub x10, x30, x0\n"
        "    mov x30, xzr\n" /* so that a jump behind this call does not look like the call */
        "    cmp x10, x1\n"
        "    b.hs 1f\n"
        "    ret x9\n"
        "1:  ldr x9, [x2], #8\n"
        "    ret x9\n"
#endif
        "targets_shared_end:\n"
        ".popsection\n");

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

/* Count, and go to the tail, which is `tail` bytes away from `at`. */
static void write_target(uint8_t *at, size_t symbol, ptrdiff_t tail)
{
#if defined __x86_64__
    static const uint8_t code[] = { 0xf3, 0x0f, 0x1e, 0xfa,   /* endbr64 */
                                    0x48, 0xff, 0x81, 0, 0, 0, 0, /* incq disp32(%rcx) */
                                    0xe9, 0, 0, 0, 0 };           /* jmp tail */
    memcpy(at, code, sizeof code);
    put32(at + 7, (uint32_t) (symbol * 8));
    put32(at + 12, (uint32_t) (tail - 16));
#elif defined __aarch64__
    put32(at, 0xd503245f);                                                /* bti c */
    put32(at + 4, 0x52800009 | ((uint32_t) symbol & 0xffff) << 5);        /* movz w9 */
    put32(at + 8, 0x72a00009 | ((uint32_t) (symbol >> 16) & 0xffff) << 5); /* movk w9, lsl 16 */
    put32(at + 12, 0x14000000 | ((uint32_t) ((tail - 12) >> 2) & 0x3ffffff)); /* b tail */
#endif
}

/* A file in memory: never writable where it is executable, also where the kernel insists on that. */
static int open_memory(size_t bytes)
{
    int file = memfd_create("pp-stress targets", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (file < 0 && errno == EINVAL)
        file = memfd_create("pp-stress targets", MFD_CLOEXEC);
    if (file >= 0 && ftruncate(file, (off_t) bytes) != 0) {
        int number = errno;
        close(file);
        errno = number;
        return -1;
    }
    return file;
}

static void write_all(uint8_t *base, size_t head, size_t count)
{
    memcpy(base, targets_shared, (size_t) (targets_shared_end - targets_shared));
    ptrdiff_t tail = targets_shared_tail - targets_shared;
    for (size_t i = 0; i < count; i++) {
        size_t at = head + i * TARGET_BYTES;
        write_target(base + at, i, tail - (ptrdiff_t) at);
    }
}

bool targets_create(struct targets *targets, size_t count)
{
    size_t head = ((size_t) (targets_shared_end - targets_shared) + 15) & ~(size_t) 15;
    size_t page = (size_t) sysconf(_SC_PAGESIZE);
    size_t bytes = (head + count * TARGET_BYTES + page - 1) & ~(page - 1);
    int file = open_memory(bytes);
    if (file < 0)
        return false;
    void *base = MAP_FAILED;
    uint8_t *write = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (write != MAP_FAILED) {
        write_all(write, head, count);
        munmap(write, bytes);
        base = mmap(NULL, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, file, 0);
    }
    int number = errno;
    close(file);
    errno = number;
    if (base == MAP_FAILED)
        return false;
    __builtin___clear_cache((char *) base, (char *) base + bytes);
    *targets = (struct targets) {
        .count = count, .base = base, .mapped = bytes, .first = (uint8_t *) base + head,
        .enter = base, .leave = (uint8_t *) base + (targets_shared_leave - targets_shared),
    };
    return true;
}

void targets_destroy(struct targets *targets)
{
    if (targets->base != NULL)
        munmap((void *) targets->base, targets->mapped);
    *targets = (struct targets) { 0 };
}
