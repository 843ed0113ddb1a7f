/* SPDX-License-Identifier: MIT */
/* A load of pieces that come and go. */
#include <config.h>

#include "bench/load.h"

#include "bench/harness.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t *bytes_to_write(size_t most)
{
    static uint8_t *bytes;
    static size_t size;
    if (size < most) {
        free(bytes);
        bytes = bench_memory(most);
        memset(bytes, 0x90, most);
        size = most;
    }
    return bytes;
}

static size_t next_size(struct load *load)
{
    return load->low + bench_random(&load->random) % (load->high - load->low + 1);
}

static bool put(struct load *load, struct piece *piece, size_t bytes)
{
    const struct contestant *contestant = load->contestant;
    if (!contestant->take(load->state, bytes, piece))
        return false;
    memcpy(piece->write, bytes_to_write(load->high), bytes);
    load->requested += bytes;
    return contestant->publish(load->state, piece);
}

static bool drop(struct load *load, struct piece *piece)
{
    load->requested -= piece->bytes;
    return load->contestant->give(load->state, piece);
}

static void fill(struct load *load, double seconds)
{
    double end = bench_clock() + seconds * 1e9;
    while (load->count < load->wanted && load->failure == NULL) {
        if (!put(load, &load->pieces[load->count], next_size(load)))
            load->failure = "refused one more";
        else if (++load->count % 256 == 0 && bench_clock() > end && load->count < load->wanted)
            load->failure = "too slow to be filled";
    }
}

void load_open(struct load *load, const struct contestant *contestant, size_t count, size_t low,
               size_t high, double seconds)
{
    *load = (struct load){ .contestant = contestant, .wanted = count, .low = low, .high = high,
                           .random = UINT64_C(88172645463325252) };
    load->pieces = bench_memory(count * sizeof *load->pieces);
    load->state = contestant->open();
    if (load->state == NULL)
        load->failure = "does not work on this machine";
    fill(load, seconds);
}

void load_leave(struct load *load)
{
    while (load->count > 0)
        drop(load, &load->pieces[--load->count]);
    free(load->pieces);
}

void load_close(struct load *load)
{
    load_leave(load);
    if (load->state != NULL)
        load->contestant->close(load->state);
}

void load_join(struct load *load, const struct load *first, uint64_t seed)
{
    *load = *first;
    load->random = seed;
    load->pieces = bench_memory(load->wanted * sizeof *load->pieces);
    load->count = load->requested = 0;
    fill(load, 60);
}

static struct piece *victim(struct load *load)
{
    return &load->pieces[bench_random(&load->random) % load->count];
}

double load_run(struct load *load, size_t cycles)
{
    if (load->failure != NULL)
        return -1;
    double begin = bench_clock();
    for (size_t i = 0; i < cycles; i++) {
        struct piece *piece = victim(load);
        if (!drop(load, piece) || !put(load, piece, next_size(load))) {
            load->failure = "failed in mid-run";
            return -1;
        }
    }
    return (bench_clock() - begin) / (double) cycles;
}

void load_age(struct load *load, size_t cycles, double seconds)
{
    double end = bench_clock() + seconds * 1e9;
    while (cycles > 0 && load->failure == NULL && bench_clock() < end) {
        size_t some = cycles < 256 ? cycles : 256;
        load_run(load, some);
        cycles -= some;
    }
}

void load_sample(struct load *load, double *samples, size_t count)
{
    double cost = bench_tick_cost(), rate = bench_ticks_per_ns();
    for (size_t i = 0; i < count && load->failure == NULL; i++) {
        struct piece *piece = victim(load);
        size_t bytes = next_size(load);
        if (!drop(load, piece)) {
            load->failure = "failed in mid-run";
            break;
        }
        uint64_t begin = bench_ticks();
        bool taken = load->contestant->take(load->state, bytes, piece);
        double ticks = (double) (bench_ticks() - begin) - cost;
        samples[i] = ticks > 0 ? ticks / rate : 0;
        if (!taken) {
            load->failure = "failed in mid-run";
            break;
        }
        memcpy(piece->write, bytes_to_write(load->high), bytes);
        load->requested += bytes;
        load->contestant->publish(load->state, piece);
    }
}
