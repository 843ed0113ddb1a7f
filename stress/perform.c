/* SPDX-License-Identifier: MIT */
/* Performing a synthesized trace. */
#include <config.h>

#include "stress/perform.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool performer_init(struct performer *performer, const struct targets *targets)
{
    *performer = (struct performer) { .targets = targets };
    performer->counters = calloc(targets->count + 1, sizeof *performer->counters);
    return performer->counters != NULL && pp_thread_init(&performer->thread, NULL, NULL) == PP_OK;
}

void performer_free(struct performer *performer)
{
    free(performer->counters);
    free(performer->list);
    *performer = (struct performer) { 0 };
}

/* The addresses that jumps go on at, and the way out behind the last of them. */
static bool write_list(struct performer *performer, const struct synth *synth, const void *entry)
{
    size_t count = synth->resume_count + 1;
    if (count > performer->list_capacity) {
        uintptr_t *list = realloc(performer->list, count * sizeof *list);
        if (list == NULL)
            return false;
        performer->list = list;
        performer->list_capacity = count;
    }
    for (size_t i = 0; i < synth->resume_count; i++)
        performer->list[i] = (uintptr_t) entry + synth->resumes[i];
    performer->list[count - 1] = (uintptr_t) performer->targets->leave;
    return true;
}

bool perform(struct performer *performer, const struct synth *synth, const void *entry,
             char *error, size_t error_size)
{
    if (!synth->runs)
        return true;
    if (!write_list(performer, synth, entry)) {
        snprintf(error, error_size, "no memory to run the trace");
        return false;
    }
    const void *begin = synth->has_prologue ? entry : performer->targets->enter;
    uint64_t sum = pp_enter(&performer->thread, begin, (uintptr_t) entry, synth->limit,
                            (uintptr_t) performer->list, (uintptr_t) performer->counters);
    bool good = true;
    for (size_t i = 0; i < synth->use_count; i++) {
        const struct synth_use *use = &synth->uses[i];
        uint64_t reached = performer->counters[use->symbol];
        performer->counters[use->symbol] = 0;
        if (reached != use->reached && good) {
            snprintf(error, error_size, "symbol %" PRIu32 " (in order of appearance) was reached "
                     "%" PRIu64 " times instead of %" PRIu32, use->symbol, reached, use->reached);
            good = false;
        }
    }
    if (good && sum != synth->sum) {
        snprintf(error, error_size, "loads found addresses that add up to %#" PRIx64 " instead of "
                 "%#" PRIx64, sum, synth->sum);
        good = false;
    }
    return good;
}

bool performer_idle(const struct performer *performer)
{
    for (size_t i = 0; i < performer->targets->count; i++)
        if (performer->counters[i] != 0)
            return false;
    return true;
}

bool perform_data(const struct synth *synth, const void *entry, const uint8_t *otherwise)
{
    if (synth->data_size == 0)
        return true;
    uint64_t data = (uintptr_t) otherwise;
    if (synth->data_word != SYNTH_NONE)
        memcpy(&data, (const uint8_t *) entry + synth->data_word, sizeof data);
    return synth_data_intact(synth, (const uint8_t *) (uintptr_t) data, entry);
}
