/* SPDX-License-Identifier: MIT */
/*
 * Patchpoints: the places in tier-0 code where a transition may happen.
 *
 * The site counts; when the counter runs out it calls a stub with its record;
 * the stub hands back a target in a scratch register, and the site jumps
 * there.  Without a transition the target is the site's own resume address.
 * The stub returns by an ordinary return, so call prediction and shadow stacks
 * never notice.  A ready site's target is taken without entering C.
 *
 *      x86-64                          AArch64
 *      decl  counter(%rbp)             ldr  w16, [x29, #counter]
 *      jg    resume                    subs w16, w16, #1
 *      movabs $record, %r11            str  w16, [x29, #counter]
 *      call  patchpoint stub           b.gt resume
 *      jmp   *%r11                     ldr  x17, record
 *   resume:                            bl   patchpoint stub
 *                                      br   x16
 *                                   resume:
 *
 * That is PP_SITE_COUNTED.  Three more kinds are of the same parts:
 *
 *      PP_SITE_FORCED      no test: every pass calls, and none goes on behind the
 *                          site, where tier-0 may have no code at all
 *      PP_SITE_POLLED      cmpl $0, flag; je resume    ldr w16, flag; cbz w16, resume
 *                          for interrupts and safepoints: a pass that finds the
 *                          flag set calls the host
 *
 *      PP_SITE_ARMED       nopl 0(%rax,%rax), 5 bytes  nop
 *                          until pp_site_arm makes it a jump to a part out of line
 *                          (pp_emit_site_cold), which calls and jumps back behind the
 *                          site; then every pass is a hit
 *
 * A polled or armed site may have a probe, which changes registers and goes on: for
 * debuggers, profilers and tracers, which transitions are not for.
 *
 * The counter or flag is a word of tier-0's frame, of the site's record, of the
 * host's data at any address (movabs $word, %r11; ldr x17, literal), or behind the
 * pp_thread (mov thread(%rbp), %r11; ldr x17, [x29, #thread]).
 *
 * Rules for all kinds.  At a site r11 and the flags, or x16, x17, x30 and the
 * flags, are dead; SP is 16-aligned; nothing lives in the red zone (PP_SITE_RED_ZONE
 * lifts that: the call is then made 128 bytes lower).  What the save class does not
 * keep is dead on the way through the stub.  The first byte has any alignment on
 * x86-64, but 8 where pp_emit_site has emitted PP_SITE_ARMED, and 4 on AArch64.  A host with
 * an emitter of its own writes these bytes with pp_site_record's address, and keeps the
 * distance from the stub's return address to the resume address that pp_emit_site reports
 * with buffer NULL.
 * Code with AVX instructions has done vzeroupper if its class is not V256, V512 or one of
 * their masks, as before a call of C; if it is, the stub does it for C, and behind the site
 * the upper halves are in use again.
 *
 * A site of PP_SITE_ARMED may be any NOP of the host's: see pp_site_arm.
 *
 * States:
 *
 *      IDLE        its bytes were not emitted yet
 *      COUNTING    passes count; the policy says when one triggers (policy.h)
 *      TRIGGERED   one thread won the right to produce
 *      COMPILING   its producer runs
 *      PENDING     the producer has left the work to another thread (pp_site_defer)
 *      READY       passes go to the entry
 *      FAILED      an attempt failed, and the policy does not want another
 *      DISABLED    tier-0 goes on, and no entry comes
 *
 *      IDLE -> COUNTING -> TRIGGERED -> COMPILING -> READY     by passes
 *                                       COMPILING -> PENDING -> READY
 *      COMPILING, PENDING -> COUNTING, FAILED or DISABLED      a failure, by the policy
 *      IDLE, COUNTING, FAILED, PENDING -> READY                pp_site_publish
 *      any -> COUNTING or READY                                pp_site_replace
 *      any -> DISABLED                                         pp_site_disable, pp_site_withdraw
 *
 * No state is an end.  An entry that a site gives up is the host's again, to be used for
 * another site, or to be destroyed.  When an assumption breaks:
 *
 *      pp_site_replace(site, NULL, &entry);         // count again; or a better entry for NULL
 *      pp_entry_destroy(pool, entry);
 *      pp_trace_retire(pool, body);
 *      ticket = pp_retire_ticket(pool);             // covers the entry's own code, too
 *
 * One ticket is enough (retire.h).  Threads that are on their way to the entry, in its own
 * code or in the body, go on there until the code is reclaimed.
 *
 * Tiers.  A site leads to a body, and the body may have sites of its own, which lead to the
 * next tier.  The layout of such a site is that of the body's frame:
 *
 *      PP_ON_TOP     frame_bytes is tier-0's and the stack_bytes of pp_osr_layout; cfa_offset is
 *                    tier-0's; saves are pp_osr_layout.rule.own with PP_CSR_RELOAD, rule.saves with
 *                    RESERVE.  Not from a dynamic frame
 *      PP_REPLACE    pp_entry_desc.body; with PP_CSR_RELOAD and registers in `used`, with the save
 *                    area that the body made
 *      PP_BUFFER     the frame that the body's prologue makes, as for tier-0
 *
 * From each of these any style leads on.  A frame counter of the body lies in a slot of the
 * body's frame, and its prologue, or the value map, sets it.
 */
#ifndef PATCHPOINT_SITE_H
#define PATCHPOINT_SITE_H

#include <patchpoint/osr.h>
#include <patchpoint/trace.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Handles: not addresses.  Any value may be passed; one of something that is gone, with its
 * pool or before, that is of another kind, or that was never given out, is PP_E_STALE.  No
 * value is given out twice as long as the process lives: what is stale stays stale.  After
 * a fork, what parent and child give out means nothing in the other.
 */
typedef struct pp_site pp_site;
typedef struct pp_method pp_method; /* method.h */

/*
 * Produce optimized code for a site: called by the one thread that won, with
 * the registers of its frame, in the middle of tier-0.  Returns PP_OK and an
 * entry, or a failure (tier-0 goes on; policy.h).  May
 * compile, allocate, lock, walk (pp_walk_begin_regs) and enter compiled code.  It
 * returns: an exception or a longjmp out of it would leave the site compiling.
 */
typedef pp_status pp_produce(void *host, pp_site *site, const pp_regs *regs, pp_entry **entry);

/*
 * An entry that a producer returned, and the site did not take: why is PP_E_ABI and the
 * other errors of pp_site_publish, or PP_E_STALE if the site was disabled or replaced while
 * the producer ran.  Called by the thread that ran the producer, right behind it.  The entry
 * is the host's, and no thread was ever led to it.
 */
typedef void pp_rejected(void *host, pp_site *site, pp_entry *entry, pp_status why);

/*
 * A polled site whose flag was set: called at each such pass, with the registers
 * of tier-0's frame.  Clears the flag itself, but for PP_COUNTER_SITE, which is
 * cleared before.  Returns NULL to go on, or where to: an address in compiled code
 * that expects tier-0's frame and what the class keeps.  May do what a producer may.  A C++
 * exception may leave it: nothing of the site's changes then.  The same holds for probes.
 */
typedef const void *pp_poll(void *host, pp_site *site, const pp_regs *regs);

/*
 * A probe: as pp_poll, at a polled site or at one of PP_SITE_ARMED, which calls it at each
 * pass while it is armed; and it may write into `regs`.  Compiled code goes on, at the
 * site or where the probe says, with what is there then: all registers that the class
 * keeps and shows, those that C functions keep among them, of a mask the named ones;
 * fp_control, and on x86-64 DF in `flags`.  SP, FP and the stub's own registers stay what
 * they are, whatever is written.
 */
typedef const void *pp_probe(void *host, pp_site *site, pp_regs *regs);

/*
 * A forced site without an entry, and why: what the producer or the check of its
 * entry returned, PP_E_BUSY while another thread produces, PP_E_STALE if the site is
 * disabled.  Returns where to go, or NULL for `otherwise`.  The site's first byte,
 * regs->pc less the layout's return_offset, tries again.
 */
typedef const void *pp_refused(void *host, pp_site *site, const pp_regs *regs, pp_status why);

typedef enum pp_site_kind {
    PP_SITE_COUNTED = 1,
    PP_SITE_FORCED,
    PP_SITE_POLLED,
    PP_SITE_ARMED
} pp_site_kind;

/* Where the counter lives: a signed 32-bit word that counts down to zero; or the flag. */
typedef enum pp_counter {
    PP_COUNTER_FRAME = 0, /* a slot of tier-0's frame, set to pp_site_threshold by its prologue */
    PP_COUNTER_SITE,      /* the site's record, shared by all threads; updates may be lost */
    PP_COUNTER_DATA,      /* at `word`: the host's, which sets it first; updates may be lost */
    PP_COUNTER_THREAD     /* in the host's struct that begins with the pp_thread */
} pp_counter;

enum pp_site_flags {
    PP_SITE_RED_ZONE = 1u << 0, /* x86-64: step over the 128 bytes below SP around the call */
    PP_SITE_BYTE = 1u << 1      /* PP_SITE_POLLED: the flag is one byte, not four */
};

typedef struct pp_site_desc {
    size_t size;                  /* sizeof(pp_site_desc) */
    pp_site_kind kind;
    pp_counter counter;
    int32_t counter_offset;       /* FRAME: from FP; THREAD: from the pp_thread, 64 .. 4092 */
    int32_t threshold;            /* COUNTED: passes between two slow paths; 1 .. 2^30 */
    uint32_t hits;                /* slow paths until the site triggers, COUNTED, ARMED; 0: 1 */
    pp_save save;
    uint32_t flags;               /* enum pp_site_flags */
    int32_t thread_offset;        /* frame slot with the pp_thread, from FP, so that walkers see
                                     this frame while the producer runs; 0: none */
    const pp_tier0_layout *tier0; /* copied: the frame at this site */
    pp_produce *produce;          /* COUNTED, FORCED; ARMED without a probe */
    void *host;
    pp_error *error;
    uint32_t live_gpr;            /* PP_SAVE_MASK.., else 0: the general registers that are kept and
                                     shown, 1 << hardware number; not the stub's own */
    uint32_t live_vector;         /* and the vector registers, in the width of the class */
    void *word;                   /* PP_COUNTER_DATA, else NULL; aligned */
    pp_poll *poll;                /* POLLED without a probe, else NULL */
    const void *otherwise;        /* FORCED, else NULL: where a pass without an entry goes; code
                                     that expects tier-0's frame.  No pass ever falls through */
    pp_refused *refused;          /* FORCED: asked before; may be NULL */
    pp_probe *probe;              /* POLLED, ARMED, else NULL; not with PP_SAVE_ABI.  Such a site
                                     leads to no entry */
    pp_method *method;            /* that it is a site of, or NULL; not with POLLED or a probe */
    pp_rejected *rejected;        /* or NULL; only with a producer */
} pp_site_desc;

/*
 * Errors: PP_E_ARG; PP_E_UNSUPPORTED for a save class that the processor or the
 * system does not have, with the reason; PP_E_STALE, PP_E_FAULT for a method that was
 * destroyed or is another pool's; PP_E_NOMEM.
 */
PP_API pp_status pp_site_create(pp_pool *pool, const pp_site_desc *desc,
                                pp_site **site) PP_MUST_CHECK;

/*
 * Forget a site.  No thread may be in it or reach it.  Its entry is released, not destroyed.
 * PP_E_BUSY while a producer runs, PP_E_STALE, PP_E_FAULT (another pool's).
 */
PP_API pp_status pp_site_destroy(pp_pool *pool, pp_site *site) PP_MUST_CHECK;

/* The record whose address the site's code loads.  layout.h has its fields. */
PP_API void *pp_site_record(pp_site *site);

/* The value for a frame counter; 1 under force (force.h). */
PP_API int32_t pp_site_threshold(const pp_site *site);

/*
 * Set the flag of a PP_SITE_POLLED site whose flag is in its record; any thread's next
 * pass calls `poll`, which sees what was stored before; so it does with a flag of the
 * host's that was stored with release order.  Async-signal-safe.  PP_E_ARG for another site,
 * PP_E_STALE.
 */
PP_API pp_status pp_site_request(pp_site *site) PP_MUST_CHECK;

/* One of PP_SITE_IDLE .. PP_SITE_PENDING.  Async-signal-safe. */
PP_API int pp_site_state(const pp_site *site);

/* Entry of a ready site, or NULL. */
PP_API pp_entry *pp_site_entry(const pp_site *site);

PP_API void *pp_site_host(const pp_site *site);

/*
 * Publish an entry by hand: a later pass of any thread takes it, and the body sees what
 * was stored before; the same holds for what a producer returns, and for pp_site_replace.
 *
 * PP_E_ARG: a polled site or one with a probe, which lead nowhere.
 * PP_E_ABI: the entry does not fit the site's frame, or reads a register that it does not keep.
 * PP_E_FAULT: it is another pool's.
 * PP_E_STALE: the site or the entry was destroyed, or the site is disabled; or the site waited
 *      for a deferred job, and was then disabled or replaced: this is that job's result, which
 *      is refused once.
 * PP_E_BUSY: a producer runs, or the site is ready (pp_site_replace).
 */
PP_API pp_status pp_site_publish(pp_site *site, pp_entry *entry) PP_MUST_CHECK;

/*
 * Whether the site can lead to the entry: what pp_site_publish asks first, with a reason that
 * names the field.  Changes nothing.  PP_E_ARG, PP_E_ABI, PP_E_FAULT, PP_E_STALE.
 */
PP_API pp_status pp_site_check(const pp_site *site, const pp_entry *entry,
                               pp_error *error) PP_MUST_CHECK;

/*
 * Lead a site to another entry, in any state, while threads pass it; or, if `next` is NULL,
 * have it count again, as if it had just been made: hits, failures and back-off begin anew, and
 * a counter in its record.  A frame's counter is where it is; but one that ran out while the
 * site was disabled stands still in that frame, as does a word of PP_COUNTER_DATA or THREAD,
 * so replace a site that is to count again, and do not disable it first.
 *
 * `old`, unless NULL, receives the entry that the site led to, or NULL.  It is the host's again.
 * Passes take the new target or the old one, and the old one no more when the call returns,
 * but threads that were on their way there arrive: see pp_entry_destroy.
 *
 * A producer that runs, or a job that was deferred, loses the site: what it brings is refused
 * with PP_E_STALE (rejected; pp_site_publish and pp_site_fail), and until it has come no pass
 * triggers.  So a thread that defers always ends its job by one of these two.
 *
 * The site's share in its method's bodies goes back, for a producer that runs when it is done.
 * `next` is not counted, like what is published by hand.  Armed sites stay armed; a forced site's
 * next pass produces.  A polled site, or one with a probe, that was disabled calls again.
 *
 * PP_E_ARG, PP_E_ABI, PP_E_FAULT: as pp_site_publish.  PP_E_STALE: destroyed.
 */
PP_API pp_status pp_site_replace(pp_site *site, pp_entry *next, pp_entry **old) PP_MUST_CHECK;

/*
 * For producers that let another thread compile: call this in the producer, before the
 * other thread can know of the job.  The site is PP_SITE_PENDING, tier-0 goes on, and its
 * slow paths come with the policy's back-off, until pp_site_publish or pp_site_fail, by
 * any thread, ends it.  What the producer returns then means nothing.
 *
 * PP_E_BUSY: the calling thread does not run the site's producer, or it has deferred already.
 * PP_E_STALE: the site was disabled or replaced meanwhile, or destroyed; nobody waits for the job.
 */
PP_API pp_status pp_site_defer(pp_site *site) PP_MUST_CHECK;

/*
 * The other thread's compilation failed, for this reason, which is an error.  The policy
 * says whether it is tried again.
 *
 * PP_E_BUSY: the site is not pending.
 * PP_E_STALE: it was disabled or replaced meanwhile, or destroyed: nobody waits for the result.
 */
PP_API pp_status pp_site_fail(pp_site *site, pp_status why) PP_MUST_CHECK;

/*
 * Arm a site of PP_SITE_ARMED that was linked at `hot`, with its part out of line at `cold`;
 * and disarm it, while threads run it.  A thread that is in the part goes on there.
 *
 * At `hot` is what pp_emit_site emitted, or a NOP of the host's own.  On x86-64 that is any
 * NOP of 5 bytes (PP_PATCH_DECLARED in patch.h says which are known), or a longer one whose
 * bytes from the sixth on are NOPs by themselves, as in compilers' sleds, at any alignment.
 * Where its first 5 bytes lie in one aligned 8-byte word, they are changed in one store;
 * elsewhere by PP_PATCH_INT3, and then the host's handler of SIGTRAP has to call
 * pp_patch_trap.  On AArch64 it is nop: no other hint may be changed while threads execute it.
 * Disarming brings back the bytes that were there.
 *
 * PP_E_ARG: not such a site and part; PP_E_BUSY: it is armed already, or is not, or no such
 * NOP is there; PP_E_NOMEM; and what pp_patch_apply returns (patch.h), by which it is done:
 * PP_E_UNSUPPORTED in pools with PP_WX_FLIP.  For many sites with one barrier, pp_site_patch
 * fills in a patch for a batch; it keeps the NOP, and may be called before or after others.
 */
PP_API pp_status pp_site_arm(pp_site *site, const void *hot, const void *cold,
                             pp_error *error) PP_MUST_CHECK;
PP_API pp_status pp_site_disarm(pp_site *site, const void *hot, const void *cold,
                                pp_error *error) PP_MUST_CHECK;
struct pp_patch;
PP_API pp_status pp_site_patch(pp_site *site, const void *hot, const void *cold, int armed,
                               struct pp_patch *patch) PP_MUST_CHECK;

/*
 * No further slow path or transition; tier-0 goes on.  It sticks, until pp_site_replace: what a
 * producer brings that runs, or a job that was deferred, is refused, as in pp_site_replace.  The
 * entry that the site led to is the host's again: pp_site_withdraw says which.  PP_E_STALE:
 * destroyed.
 */
PP_API pp_status pp_site_disable(pp_site *site) PP_MUST_CHECK;
PP_API pp_status pp_site_withdraw(pp_site *site, pp_entry **old) PP_MUST_CHECK;

/* Slow paths count without a lock: where threads meet, one may be missing. */
typedef struct pp_site_stats {
    size_t size;          /* set by the caller */
    uint64_t slow_paths;  /* times the stub entered C */
    uint64_t triggers;    /* times a thread won the right to produce */
    uint64_t transitions; /* targets handed out by the slow path; the fast path does not count */
    uint64_t refusals;    /* entries that did not fit, and producers that failed */
    uint64_t hits;        /* slow paths that counted, since the site failed or began */
    uint64_t failures;    /* attempts that failed, since it was ready or began */
    pp_status refusal;    /* reason of the latest refusal, or PP_OK */
    uint32_t backoff;     /* steps of back-off that are in force */
    const char *field;    /* of a refusal PP_E_ABI: the field that does not fit, of pp_tier0_layout or
                             pp_site_desc; "buffers": the thread has none.  Static storage; or NULL */
} pp_site_stats;

PP_API pp_status pp_site_get_stats(const pp_site *site, pp_site_stats *stats) PP_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
