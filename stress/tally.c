/* SPDX-License-Identifier: MIT */
/* What a pool must hold, told from the recording alone. */
#include <config.h>

#include "stress/tally.h"

#include <stdlib.h>
#include <unistd.h>

bool tally_init(struct tally *tally, const struct setting *setting, size_t symbol_count)
{
    *tally = (struct tally) { .setting = setting, .symbol_count = symbol_count };
    tally->branching = calloc(symbol_count + 1, sizeof *tally->branching);
    tally->loading = calloc(symbol_count + 1, sizeof *tally->loading);
    return tally->branching != NULL && tally->loading != NULL;
}

void tally_free(struct tally *tally)
{
    free(tally->branching);
    free(tally->loading);
    *tally = (struct tally) { 0 };
}

static bool takes_trampoline(const struct setting *setting, const struct synth_use *use)
{
    return setting->is_far && use->branches;
}

/* A load whose symbol is near needs none, except in instructions that only know the load. */
static bool takes_literal(const struct setting *setting, const struct synth_use *use)
{
    return use->literal_always || (setting->is_far && use->literal_far);
}

struct need need_of(const struct setting *setting, const struct synth *synth)
{
    struct need need = { 0 };
    for (size_t i = 0; i < synth->use_count; i++) {
        const struct synth_use *use = &synth->uses[i];
        bool trampoline = takes_trampoline(setting, use);
        need.trampolines += trampoline;
        need.literals += trampoline || takes_literal(setting, use);
        need.symbols += use->reached > 0;
    }
    return need;
}

unsigned tally_new(const struct tally *tally, const struct synth *synth)
{
    unsigned count = 0;
    for (size_t i = 0; i < synth->use_count; i++) {
        const struct synth_use *use = &synth->uses[i];
        bool trampoline = takes_trampoline(tally->setting, use);
        bool literal = takes_literal(tally->setting, use);
        bool has_trampoline = tally->branching[use->symbol] > 0;
        bool has_literal = has_trampoline || tally->loading[use->symbol] > 0;
        count += (trampoline && !has_trampoline) || (literal && !has_literal);
    }
    return count;
}

/*
 * A symbol counts as a trampoline while any trace holds it for a branch, and
 * else as a literal while any trace holds it for a load.
 */
static void hold(struct tally *tally, uint32_t symbol, int branch, int load)
{
    uint32_t *branching = &tally->branching[symbol], *loading = &tally->loading[symbol];
    bool was_trampoline = *branching > 0, was_literal = !was_trampoline && *loading > 0;
    *branching += (uint32_t) branch;
    *loading += (uint32_t) load;
    if (tally->setting->is_own)
        return;
    bool is_trampoline = *branching > 0, is_literal = !is_trampoline && *loading > 0;
    tally->trampolines += (uint64_t) is_trampoline - (uint64_t) was_trampoline;
    tally->literals += (uint64_t) is_literal - (uint64_t) was_literal;
}

static void change(struct tally *tally, const struct synth *synth,
                   const struct recorded_trace *trace, int sign)
{
    uint64_t page = (uint64_t) sysconf(_SC_PAGESIZE);
    uint64_t step = (uint64_t) (int64_t) sign;
    struct need need = need_of(tally->setting, synth);
    for (size_t i = 0; i < synth->use_count; i++) {
        const struct synth_use *use = &synth->uses[i];
        hold(tally, use->symbol, takes_trampoline(tally->setting, use) ? sign : 0,
             takes_literal(tally->setting, use) ? sign : 0);
    }
    if (tally->setting->is_own) {
        tally->trampolines += step * need.trampolines;
        tally->literals += step * (need.literals - need.trampolines);
    }
    uint64_t recorded = (uint64_t) trace->code + trace->trampolines + trace->data;
    tally->traces += (size_t) step;
    tally->bytes += step * ((uint64_t) trace->code + trace->data);
    tally->pages += step * ((recorded + page - 1) / page * page);
    tally->symbols += step * need.symbols;
}

void tally_add(struct tally *tally, const struct synth *synth, const struct recorded_trace *trace)
{
    change(tally, synth, trace, 1);
}

void tally_remove(struct tally *tally, const struct synth *synth,
                  const struct recorded_trace *trace)
{
    change(tally, synth, trace, -1);
}

void tally_merge(struct tally *tally, const struct tally *other)
{
    for (size_t i = 0; i < tally->symbol_count; i++)
        hold(tally, (uint32_t) i, (int) other->branching[i], (int) other->loading[i]);
    if (tally->setting->is_own) {
        tally->trampolines += other->trampolines;
        tally->literals += other->literals;
    }
    tally->traces += other->traces;
    tally->bytes += other->bytes;
    tally->pages += other->pages;
    tally->symbols += other->symbols;
}
