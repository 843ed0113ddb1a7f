/* SPDX-License-Identifier: MIT */
/* Synthesis: place the units of a trace, write them, fill the gaps. */
#include <config.h>

#include "stress/synth.h"

#include "stress/instructions.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct synth_unit {
    const struct recorded_site *site;
    int64_t start;
    uint32_t bytes;      /* at least; then, what was used */
};

/* What is passed down while one trace is written. */
struct job {
    struct synth *synth;
    const struct recording *recording;
    const struct recorded_trace *trace;
    const pp_symbol *symbols;
    const struct targets *targets;
    enum stress_form form;
};

bool synth_init(struct synth *synth, size_t symbol_count)
{
    *synth = (struct synth) { 0 };
    synth->symbol_uses = malloc((symbol_count + 1) * sizeof *synth->symbol_uses);
    if (synth->symbol_uses == NULL)
        return false;
    memset(synth->symbol_uses, 0xff, (symbol_count + 1) * sizeof *synth->symbol_uses);
    return true;
}

void synth_free(struct synth *synth)
{
    free(synth->code);
    free(synth->data);
    free(synth->relocs);
    free(synth->reloc_uses);
    free(synth->uses);
    free(synth->resumes);
    free(synth->units);
    free(synth->symbol_uses);
    *synth = (struct synth) { 0 };
}

/* ---- memory ------------------------------------------------------------------------ */

static bool resize(void *array, size_t count, size_t item)
{
    void **slot = array;
    void *memory = realloc(*slot, count * item);
    if (memory == NULL)
        return false;
    *slot = memory;
    return true;
}

/* Room for a trace; what was there is forgotten. */
static bool reserve(struct synth *synth, const struct recorded_trace *trace)
{
    if (trace->code > synth->code_capacity) {
        if (!resize(&synth->code, trace->code, 1))
            return false;
        synth->code_capacity = trace->code;
    }
    if (trace->data > synth->data_capacity) {
        if (!resize(&synth->data, trace->data, 1))
            return false;
        synth->data_capacity = trace->data;
    }
    size_t sites = (size_t) trace->site_count + 1;
    if (sites > synth->site_capacity) {
        /* Two relocations for a site at most, and two for the trace's own sections. */
        if (!resize(&synth->relocs, 2 * sites + 2, sizeof *synth->relocs) ||
            !resize(&synth->reloc_uses, 2 * sites + 2, sizeof *synth->reloc_uses) ||
            !resize(&synth->uses, sites, sizeof *synth->uses) ||
            !resize(&synth->resumes, sites, sizeof *synth->resumes) ||
            !resize(&synth->units, sites, sizeof *synth->units))
            return false;
        synth->site_capacity = sites;
    }
    return true;
}

/* ---- placing ------------------------------------------------------------------------- */

/*
 * Units stay where they were recorded if they can; else each is moved to
 * higher addresses as far as the one before it makes necessary, and those that
 * then reach over the end to lower ones.
 */
static bool place_units(const struct job *job)
{
    struct synth_unit *units = job->synth->units;
    uint32_t count = job->trace->site_count;
    int64_t free_from = 0, end = job->trace->code & ~(uint32_t) (CODE_ALIGN - 1);
    for (uint32_t i = 0; i < count; i++) {
        const struct recorded_site *site = &job->recording->sites[job->trace->first_site + i];
        int64_t wanted = unit_start(site, job->recording->arch, job->form);
        units[i].site = site;
        units[i].start = wanted > free_from ? wanted : free_from;
        units[i].bytes = unit_bytes(site->kind, job->form);
        free_from = units[i].start + units[i].bytes;
    }
    /* A load at the end goes on somewhere, while branches use the list of the run. */
    if (count > 0 && units[count - 1].site->kind == SITE_LOAD)
        end -= EXIT_BYTES;
    for (uint32_t i = count; i-- > 0; end = units[i].start)
        if (units[i].start + units[i].bytes > end)
            units[i].start = end - units[i].bytes;
    for (uint32_t i = 0; i < count; i++)
        job->synth->moved +=
            units[i].start != unit_start(units[i].site, job->recording->arch, job->form);
    return end >= 0;
}

/* ---- symbols ---------------------------------------------------------------------------- */

static struct synth_use *use_of(struct synth *synth, uint32_t symbol)
{
    uint32_t *index = &synth->symbol_uses[symbol];
    if (*index == SYNTH_NONE) {
        *index = (uint32_t) synth->use_count++;
        synth->uses[*index] = (struct synth_use) { .symbol = symbol };
    }
    return &synth->uses[*index];
}

static void add_own_reloc(struct synth *synth, uint32_t offset, uint16_t section,
                          pp_symbol symbol)
{
    synth->reloc_uses[synth->reloc_count] = SYNTH_NONE;
    synth->relocs[synth->reloc_count++] = (pp_reloc) {
        .offset = offset, .type = reloc_absolute, .section = section, .symbol = symbol
    };
}

static void add_relocs(const struct job *job, const struct synth_unit *unit,
                       const struct unit_relocs *relocs)
{
    struct synth *synth = job->synth;
    uint32_t symbol = unit->site->symbol;
    struct synth_use *use = use_of(synth, symbol);
    for (unsigned i = 0; i < relocs->count; i++) {
        use->branches |= relocs->items[i].is_branch;
        if (!relocs->items[i].is_branch && relocs->items[i].can_relax)
            use->literal_far = true;
        if (!relocs->items[i].is_branch && !relocs->items[i].can_relax)
            use->literal_always = true;
        synth->reloc_uses[synth->reloc_count] = synth->symbol_uses[symbol];
        synth->relocs[synth->reloc_count++] = (pp_reloc) {
            .offset = (uint32_t) unit->start + relocs->items[i].offset,
            .type = relocs->items[i].type,
            .symbol = job->symbols[symbol],
            .addend = relocs->items[i].addend,
        };
    }
    if (unit->site->kind == SITE_LOAD)
        synth->sum += (uintptr_t) targets_address(job->targets, symbol);
    else
        use->reached++;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* The bytes between two units, which run through.  The first gap with room gets the data's address. */
static void write_gap(const struct job *job, uint32_t from, uint32_t to)
{
    struct synth *synth = job->synth;
    uint32_t bytes = to - from;
    uint32_t word = (from + BRANCH_BYTES + 7) & ~7u;
    if (job->trace->data > 0 && synth->data_word == SYNTH_NONE && word + 8 <= to) {
        synth->data_word = word;
    } else if (bytes <= NOPS_MAX) {
        nops_write(synth->code + from, bytes);
        return;
    }
    branch_write(synth->code + from, bytes);
    traps_write(synth->code + from + BRANCH_BYTES, bytes - BRANCH_BYTES);
    if (synth->data_word == word) {
        memset(synth->code + word, 0, 8);
        add_own_reloc(synth, word, PP_IN_CODE, PP_SYMBOL_DATA);
    }
}

/* Behind the last unit: the way out, if there is room and control comes by. */
static void write_tail(const struct job *job, uint32_t from)
{
    struct synth *synth = job->synth;
    uint32_t end = job->trace->code, count = job->trace->site_count;
    const struct synth_unit *last = count > 0 ? &synth->units[count - 1] : NULL;
    synth->limit = end;
    synth->runs = true;
    if (last != NULL && last->site->kind == SITE_JUMP) {
        /* its target takes the last address of the list */
    } else if (end - from >= EXIT_BYTES) {
        exit_write(synth->code + from);
        from += EXIT_BYTES;
    } else if (last != NULL) {
        synth->limit = from; /* a call: its return address must not be used */
    } else {
        synth->runs = false;
    }
    traps_write(synth->code + from, end - from);
}

static void write_code(const struct job *job)
{
    struct synth *synth = job->synth;
    uint32_t at = 0, count = job->trace->site_count;
    uint32_t first = count > 0 ? (uint32_t) synth->units[0].start : job->trace->code;
    synth->has_prologue = first >= PROLOGUE_BYTES + (count > 0 ? 0 : EXIT_BYTES);
    if (synth->has_prologue) {
        prologue_write(synth->code);
        at = PROLOGUE_BYTES;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct synth_unit *unit = &synth->units[i];
        struct unit_relocs relocs;
        bool is_last = i + 1 == count;
        uint32_t start = (uint32_t) unit->start;
        uint32_t end = is_last ? job->trace->code : (uint32_t) unit[1].start;
        uint32_t reserved = is_last && unit->site->kind == SITE_LOAD ? EXIT_BYTES : 0;
        write_gap(job, at, start);
        at = start + unit_write(synth->code + start, unit->site->kind, job->form,
                                end - reserved - start, &relocs);
        add_relocs(job, unit, &relocs);
        if (unit->site->kind == SITE_JUMP && !is_last)
            synth->resumes[synth->resume_count++] = at;
    }
    write_tail(job, at);
}

/* Random bytes, a function of the trace's number; the first eight become the code's address. */
static void write_data(struct synth *synth, uint32_t id)
{
    struct random random = random_stream(0, id);
    for (size_t i = 0; i < synth->data_size; i += 8) {
        uint64_t value = random_next(&random);
        size_t n = synth->data_size - i < 8 ? synth->data_size - i : 8;
        memcpy(synth->data + i, &value, n);
    }
    if (synth->data_size >= 8)
        add_own_reloc(synth, 0, PP_IN_DATA, PP_SYMBOL_CODE);
}

bool synth_trace(struct synth *synth, const struct recording *recording,
                 const struct recorded_trace *trace, enum stress_form form,
                 const pp_symbol *symbols, const struct targets *targets, char *error,
                 size_t error_size)
{
    struct job job = { synth, recording, trace, symbols, targets, form };
    for (size_t i = 0; i < synth->use_count; i++)
        synth->symbol_uses[synth->uses[i].symbol] = SYNTH_NONE;
    synth->use_count = synth->reloc_count = synth->resume_count = 0;
    synth->sum = 0;
    synth->moved = 0;
    synth->data_word = SYNTH_NONE;
    synth->code_size = trace->code;
    synth->data_size = trace->data;
    if (!reserve(synth, trace)) {
        snprintf(error, error_size, "%s:%" PRIu32 ": no memory for the trace", recording->path,
                 trace->line);
        return false;
    }
    if (!place_units(&job)) {
        snprintf(error, error_size, "%s:%" PRIu32 ": trace %" PRIu32 " is too dense: the "
                 "instructions of this machine for %" PRIu32 " sites do not fit into %" PRIu32
                 " bytes", recording->path, trace->line, trace->id, trace->site_count,
                 trace->code);
        return false;
    }
    write_code(&job);
    write_data(synth, trace->id);
    return true;
}

bool synth_data_intact(const struct synth *synth, const uint8_t *data, const void *entry)
{
    uint64_t code = (uintptr_t) entry;
    size_t head = synth->data_size >= 8 ? 8 : 0;
    return memcmp(data, &code, head) == 0 &&
           memcmp(data + head, synth->data + head, synth->data_size - head) == 0;
}
