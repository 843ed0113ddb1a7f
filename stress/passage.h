/* SPDX-License-Identifier: MIT */
/*
 * Passages: a tier-0 with one site and an OSR body, both of random shapes, in which
 * every register and every byte of the frame has a random content, and what arrives is
 * compared with what an interpreter in C says of the value map.
 *
 *      tier-0      makes a frame of any size, saves what it saves, has its frame
 *                  filled, then in each pass loads every register that it may change,
 *                  has the site, and shows every register
 *      body        shows every register as its first instructions find it, makes
 *                  its frame, has everything compared, spoils what it may, returns
 *
 * A passage is a function of the random stream that drew it.
 */
#ifndef STRESS_PASSAGE_H
#define STRESS_PASSAGE_H

#include "stress/moves.h"
#include "stress/random.h"
#include "stress/template.h"

#include <patchpoint.h>

#include <stdatomic.h>
#include <stdbool.h>

/* No frame of tier-0 or of a body that replaces it is larger, above FP and below it. */
#define PASSAGE_BELOW_MAX 196608
#define PASSAGE_ABOVE_MAX 65536
#define PASSAGE_CANARY 64           /* bytes of the caller's frame that are watched */
#define PASSAGE_BUFFER_MAX 16384

struct passage_shape {
    pp_osr_style style;
    pp_csr_scheme scheme;
    pp_tier0_layout tier0, body;    /* body: PP_REPLACE; else as tier-0 */
    int32_t thread_at, image_at, counter_at; /* slots of tier-0's frame */
    int32_t body_image_at;          /* slot of the body's frame; place in its buffer */
    uint64_t used;                  /* callee-saved registers that the body changes */
    uint32_t local_bytes;
    pp_site_kind kind;
    pp_counter counter;
    pp_save save;
    uint32_t flags;                 /* enum pp_site_flags */
    uint32_t live_gpr, live_vector;
    int32_t threshold;              /* 1 for sites without a counter */
    uint32_t hits;
    bool site_knows_thread, entry_knows_thread;
    uint32_t entry_flags;
    bool by_hand;                   /* published before it runs; polled sites have no entry */
    pp_value values[PP_VALUES_MAX];
    size_t value_count;
};

/* Draw a shape for this processor's `saves`, a set of 1 << pp_save. */
void passage_draw(struct passage_shape *shape, struct random *random, unsigned saves);

struct passage {
    struct passage_shape shape;
    pp_pool *pool;
    uint32_t osr_flags;             /* of the pool, for emitters */
    pp_site *site;
    pp_trace *trace, *trap, *body;  /* trap: where a forced site never goes */
    pp_entry *entry;
    const uint8_t *resume;          /* behind the site */
    int32_t word;                   /* PP_COUNTER_DATA */
    _Atomic unsigned produced;
    pp_status failed;               /* of a producer */
};

/* What failed, if not PP_OK, is in `error`, and nothing is left. */
pp_status passage_open(struct passage *passage, pp_pool *pool, uint32_t pool_flags,
                       pp_error *error);
pp_status passage_close(struct passage *passage);

/* ---- runs ------------------------------------------------------------------------- */

/* A thread of passages; begins as hosts' own structs do. */
struct passage_thread {
    pp_thread thread;
    int32_t word;                   /* PP_COUNTER_THREAD */
    void *buffers;
    uint8_t *memory;                /* PASSAGE_BELOW_MAX + PASSAGE_ABOVE_MAX + PASSAGE_CANARY */
};

bool passage_thread_begin(struct passage_thread *thread);
void passage_thread_end(struct passage_thread *thread);

/* One activation: what compiled code calls its image. */
struct passage_run {
    pp_regs in, out;                /* loaded before the site; found behind it */
    const struct passage *passage;
    struct passage_thread *thread;
    struct random random;
    uint64_t callers[SAVE_SLOTS];   /* callee-saved registers, lowest bit first */
    uintptr_t fp;                   /* of tier-0 */
    uintptr_t filled[2];            /* what `memory` of the thread is a copy of: from, to */
    unsigned passes, limit;         /* in tier-0 */
    unsigned polls, poll_for;       /* calls of the polled site; the one that leaves tier-0 */
    unsigned bodies;                /* 1 in the body */
    char wrong[200];                /* the first difference, or empty */
};

enum { PASSAGE_TIER0 = 1111, PASSAGE_BODY = 2222 }; /* what the two return */

/* False: something was wrong, and run->wrong says what. */
bool passage_run(struct passage_run *run, const struct passage *passage,
                 struct passage_thread *thread, struct random random, unsigned limit);

/* ---- what compiled code and callbacks ask (passage_check.c) ------------------------ */

/* Fill the frame with this FP. */
void passage_fill(struct passage_run *run, uintptr_t fp);

/* Compare what was found; whether tier-0 shall make another pass. */
uintptr_t passage_check(struct passage_run *run, uintptr_t in_body);

/* Compare what the host is shown at the site. */
void passage_show(struct passage_run *run, const pp_regs *regs);

#endif
