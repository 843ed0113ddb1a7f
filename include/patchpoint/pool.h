/* SPDX-License-Identifier: MIT */
/*
 * A pool: executable memory near the host's runtime.
 *
 * The pool reserves regions of address space once, close to the addresses that
 * the host names, and places code in them by spans of 16-byte granules.  No
 * address is ever writable and executable at the same time unless the host
 * asks for that by name.
 *
 * Threads: every function may be called at any time from any thread, except
 * pp_pool_destroy.  Fork: the child keeps running what it inherited, cannot
 * write the parent's code, and allocates in regions of its own; so that it runs
 * what it inherited undisturbed, the parent keeps what was there at a fork and is
 * freed since, until all children have ended or execute other programs; what is
 * younger than they are goes at once.  That takes one descriptor, for any number of
 * children, and in each of them a mapping without access; children may close all
 * descriptors.  Children of vfork and posix_spawn, and those of _Fork and clone, which
 * run no handlers, must not run the pool's code.
 */
#ifndef PATCHPOINT_POOL_H
#define PATCHPOINT_POOL_H

#include <patchpoint/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pp_pool pp_pool;

/* How code memory is written. */
typedef enum pp_wx {
    PP_WX_AUTO = 0,  /* the first of DUAL, REMAP and FLIP that passes the start-up self-test */
    PP_WX_DUAL,      /* one memfd mapped twice, read-write and read-execute */
    PP_WX_REMAP,     /* DUAL, and the executable view is mapped anew after each write: for
                        emulators that do not see writes through another mapping */
    PP_WX_FLIP,      /* one mapping, protections flipped; whole pages per span, so that no
                        running code loses its execute permission */
    PP_WX_RWX        /* writable and executable at once: by request only */
} pp_wx;

enum pp_pool_flags {
    PP_POOL_LANDING_PADS = 1u << 0 /* endbr64 / bti at everything reached by an indirect branch */
};

/*
 * Unwinders of the process that are told how code unwinds.  By default none is: the
 * library's walker needs no telling, and the others stay as fast and as safe as they were.
 *
 * A host that asks for one gets its exceptions, its backtrace() or its unw_step() through
 * code with a frame rule (frame.h), wherever the frame is set up.  What that costs:
 *
 * - Each rule that is told has regions of its own, of region_bytes and about six mappings.
 *   Rules count as one if they tell the same.  Code that is not told shares regions.
 * - PP_UNWIND_LIBGCC, with libgcc 12 and older: from the first such pool on, and after it is
 *   gone, each lookup of a frame in the process takes a mutex, and searches a list of what
 *   is registered.  backtrace() or a throw in a signal handler that interrupts such a lookup
 *   waits for itself, for ever.  With libgcc 13 and later lookups take no lock and cost the
 *   same with any number of regions; other threads' lookups spin for a moment while a
 *   region opens or closes.  Signals of the thread that does it are blocked meanwhile.
 * - libgcc 13 and later do not look whether malloc gives them memory.  The library asks for
 *   as much, and gives it back, right before: PP_E_NOMEM.  A malloc that then refuses what the
 *   same thread had a moment before makes libgcc crash.
 * - PP_UNWIND_LIBUNWIND: it searches a list of the told regions for every frame that it has
 *   not cached.  A process keeps addresses that were told to it for code of the same shape.
 */
enum pp_unwinders {
    PP_UNWIND_LIBGCC = 1u << 0,   /* C++ exceptions, pthread_exit, glibc's backtrace() */
    PP_UNWIND_LIBUNWIND = 1u << 1 /* GNU libunwind: it has to be in the process already */
};

/*
 * More memory is needed: `bytes` are refused by limit_bytes or by the system.
 * Nonzero: something was freed, try again; 0: fail.  Called in the thread that
 * needs the memory, without a lock of the library; it may call every function of
 * the library but pp_pool_destroy, and returns: no longjmp, no exception.
 * Allocations that it makes itself fail without asking it again.
 */
typedef int pp_limit_fn(pp_pool *pool, size_t bytes, void *host);

typedef struct pp_pool_options {
    size_t size;             /* sizeof(pp_pool_options) */
    const void *near[4];     /* anchors: functions the code calls most, the most important first.
                                Regions stay in reach of all; where that cannot be, of the first,
                                and of as many others as can be, the earlier ones before the later
                                ones.  NULL entries are ignored; all NULL: the library itself */
    size_t region_bytes;     /* address space per region; 0: 64 MiB; a multiple of 2 MiB up to 1 GiB;
                                AArch64 takes 128 MiB at most, so that branches reach its islands */
    pp_wx wx;
    uint32_t flags;          /* enum pp_pool_flags */
    uint64_t branch_range;   /* a symbol farther than this is far, whatever the architecture can
                                reach; 0: the architecture's range; 1: every symbol is far */
    size_t limit_bytes;      /* most bytes of code in all regions together; 0: no limit */
    pp_error *error;         /* NULL, or receives the reason of a failure */
    pp_limit_fn *on_limit;   /* NULL, or asked before a call fails for want of memory */
    void *on_limit_host;     /* its last argument */
    size_t idle_bytes;       /* memory that is kept behind freed code, before pages go back to the
                                system; 0: a sixteenth of region_bytes, or an eighth of what
                                is committed if that is more; SIZE_MAX: all is kept */
    const char *name;        /* in the names of mappings; NULL: "patchpoint"; at most 47 characters,
                                printable ASCII without [ ] \ $ ` */
    uint64_t placement_seed; /* tests: 0: the nearest gap; else gaps in an order drawn from it */
    const uintptr_t *placement; /* tests: bases that are tried first, in order, one per region; those
                                   that cannot be had are passed over; copied */
    size_t placement_count;  /* at most 1024 */
    uint32_t unwinders;      /* enum pp_unwinders: those that are told of the pool's code; 0: none,
                                and none is looked for */
    uint32_t reserved;       /* 0 */
} pp_pool_options;

/*
 * Create a pool; options may be NULL for the defaults.  The first region is
 * reserved and the writing mode is probed here, so that no later call has to.
 * Errors: PP_E_ARG, PP_E_NOMEM (address space, file size or mapping limits),
 * PP_E_UNSUPPORTED (a mode asked for by name fails its self-test; an unwinder asked for is
 * not in the process, or does not answer), PP_E_SYSTEM.
 */
PP_API pp_status pp_pool_create(const pp_pool_options *options, pp_pool **pool) PP_MUST_CHECK;

/*
 * Give everything back: traces, sites, entries, symbols and address space.
 * No thread may be running the pool's code, or using one of its handles.  Handles and
 * tokens may be kept: they are stale from then on.
 * NULL is allowed.
 */
PP_API void pp_pool_destroy(pp_pool *pool);

/* Live spans and holes by length. */
#define PP_SIZE_CLASSES 14
typedef struct pp_size_class {
    size_t up_to;            /* bytes: 16, 32, ... 65536, and SIZE_MAX for the rest */
    size_t spans;            /* number of live spans that asked for so much */
    size_t requested;        /* what they asked for */
    size_t used;             /* the same, rounded to granules */
    size_t holes;            /* number of holes of such a length */
    size_t hole_bytes;
} pp_size_class;

/* What was done in another way than the best, because that was refused. */
enum pp_fallback {
    PP_FALLBACK_MODE,        /* a way to write code failed, another was taken */
    PP_FALLBACK_FAR,         /* a region is not in branch range of all anchors */
    PP_FALLBACK_SMALL,       /* a region is smaller than region_bytes */
    PP_FALLBACK_ISLAND,      /* a region's island is full or out of reach: trampolines are not shared */
    PP_FALLBACK_METADATA,    /* bookkeeping is in the C library's heap, not in a jemalloc arena */
    PP_FALLBACK_BARRIER,     /* the kernel has no barrier on all cores: patches, and on AArch64 new
                                code and retargets, reach other threads later; see span.h */
    PP_FALLBACKS
};

/* "mode", "far", ...; "unknown" for what is none. */
PP_API const char *pp_fallback_name(int fallback);

/* What a pool holds, in bytes unless said otherwise.  A consistent copy. */
typedef struct pp_pool_stats {
    size_t size;             /* set by the caller */
    pp_wx wx;                /* mode in use */
    char wx_reason[96];      /* why a mode before it in the order was passed over, or "" */
    const char *allocator;   /* "jemalloc" or "libc": who holds the metadata */
    unsigned regions;        /* number of regions */
    unsigned near_regions;   /* of these, within branch range of all anchors */
    size_t reserved;         /* address space of all regions */
    size_t resident;         /* code, trampoline and literal memory that has pages behind it */
    size_t requested;        /* sum of what live spans asked for */
    size_t used;             /* the same, rounded to granules */
    size_t spans;            /* number of live spans */
    size_t largest_hole;     /* largest span that fits without another region */
    size_t metadata;         /* bookkeeping */
    size_t traces;           /* number of live traces */
    size_t trampolines;      /* number of live trampolines, shared and own */
    size_t trampoline_bytes; /* their code and literals */
    size_t literals;         /* number of live literals without a trampoline */
    size_t literal_bytes;
    size_t committed;        /* code pages that memory was asked for */
    size_t idle;             /* of these, pages without a live span */
    size_t retired_spans;    /* number of spans that were retired and not reclaimed */
    size_t retired;          /* bytes in them */
    size_t inherited_spans;  /* number of live spans from before a fork */
    size_t shared_trampolines; /* number of these among `trampolines` */
    size_t trampoline_uses;  /* number there would be if each trace brought its own */
    size_t trampoline_saved; /* bytes that sharing saves */
    size_t retargets;        /* number of calls that moved a symbol */
    size_t barriers;         /* number of barriers on all cores: for batches of patches, and on
                                AArch64 for publications and retargets */
    size_t decommits;        /* number of times that pages went back to the system */
    size_t fallbacks[8];     /* how often, by enum pp_fallback */
    pp_size_class classes[PP_SIZE_CLASSES];
} pp_pool_stats;

/*
 * As much of the struct is filled in as `size` says.  It may be called in a loop: no
 * walk over spans, but the locks of one region after the other and two or three
 * system calls for each (`resident`), some microseconds; in FLIP and RWX mode the
 * kernel walks the region's pages.  It waits while another thread opens a region.
 * Each region's part is consistent, the sum is as of the time of the call.
 * Errors: PP_E_ARG (`size` is below that of the first version of the struct).
 */
PP_API pp_status pp_pool_get_stats(pp_pool *pool, pp_pool_stats *stats) PP_MUST_CHECK;

/*
 * Why the latest fallback of this kind was taken; "" if none was.  Cut to what fits
 * into `capacity` bytes, with a final zero.  Errors: PP_E_ARG.
 */
PP_API pp_status pp_pool_get_fallback(pp_pool *pool, int fallback, char *reason,
                                      size_t capacity) PP_MUST_CHECK;

/* A region: addresses, and what is in it in bytes unless said otherwise. */
typedef struct pp_region_info {
    size_t size;                      /* set by the caller */
    uintptr_t base, limit;            /* all of it */
    uintptr_t code_lo, code_hi;       /* executable, the island included */
    uintptr_t island_lo, island_hi;
    uintptr_t literal_lo, literal_hi; /* data */
    pp_wx wx;
    int near;                         /* every anchor is in branch range of all of it */
    uint64_t reach;                   /* from its farthest byte to the farthest anchor */
    int inherited;                    /* from before a fork: runs, is never written again */
    size_t spans;                     /* number of live ones */
    size_t requested, used, committed, idle, resident, largest_hole; /* as in pp_pool_stats */
    char rule[160];                   /* what unwinders are told of it, in words; "": nothing */
} pp_region_info;

/*
 * The regions of a pool by index, from 0: the order in which they were opened, and
 * last one that has no code yet, if there is one.  An index keeps its region,
 * except the last.  Cost and locks as for pp_pool_get_stats.
 * Errors: PP_E_ARG, PP_E_RANGE (past the last).
 */
PP_API pp_status pp_pool_get_region(pp_pool *pool, unsigned index,
                                    pp_region_info *info) PP_MUST_CHECK;

/* Take a piece of text, which has no final zero; 0: go on, else: stop. */
typedef int pp_write_fn(void *host, const char *text, size_t size);

/*
 * Tell about the pool in JSON (RFC 8259): one object with the statistics, size
 * classes, fallbacks and their reasons, and regions.  Addresses are strings, as
 * "0x7f0000000000".  `write` is called without locks, several times; it may call
 * functions of the library.  What is read at different times need not agree.
 * Errors: PP_E_ARG, PP_E_FAULT (`write` stopped it).
 */
PP_API pp_status pp_pool_dump(pp_pool *pool, pp_write_fn *write, void *host) PP_MUST_CHECK;

/*
 * Check every invariant of the pool: its bookkeeping, in memory and against the
 * process's list of mappings, if that can be read.  PP_OK, or PP_E_FAULT with the
 * first broken one in `error` (NULL is allowed).  Takes the pool's locks one after
 * the other, and time: it walks all spans and compares freed code with traps.
 */
PP_API pp_status pp_pool_verify(pp_pool *pool, pp_error *error) PP_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
