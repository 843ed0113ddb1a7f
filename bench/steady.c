/* SPDX-License-Identifier: MIT */
/*
 * How long does it take to replace a piece of code, when many are alive?
 *
 * A cycle is: free a random piece, allocate another, store its bytes, publish.
 * The contestants take turns; what is compared is the median of the rounds.  Before the
 * first round every piece has been replaced a few times: holes are then as they stay.
 */
#include <config.h>

#include "bench/contestant.h"
#include "bench/harness.h"
#include "bench/load.h"

#include <stdio.h>

enum { CONTESTANTS = 8, SAMPLES = 20001, AGE = 5 };

struct shape {
    const char *name;
    size_t low, high; /* bytes */
    size_t most;      /* pieces */
};

static const struct shape shapes[] = {
    { "16..256 B", 16, 256, 1000000 },
    { "256..2048 B", 256, 2048, 1000000 },
    { "1..64 KiB", 1024, 65536, 10000 },
};

static const size_t counts[] = { 1000, 10000, 50000, 1000000 };
enum { SHAPES = sizeof shapes / sizeof shapes[0], COUNTS = sizeof counts / sizeof counts[0] };

struct result {
    double cycle;              /* ns, median of the rounds; 0: not measured */
    double fast, slow;         /* percentiles 50 and 99 of an allocation, ns */
    double reserved, metadata; /* per requested byte; 0: not known */
    const char *failure;
    size_t filled;
};

/* Rounds that last about as long for everyone: the slow ones do fewer cycles. */
static size_t cycles_for(struct load *load, const struct bench *bench)
{
    double one = load_run(load, 200);
    double want = bench->quick ? 4e6 : 2e7;
    return one <= 0 ? 0 : (size_t) (want / one) + 1;
}

static void measure(struct load *load, struct result *result)
{
    static double samples[SAMPLES];
    struct footprint footprint = { 0, 0 };
    result->failure = load->failure;
    result->filled = load->count;
    if (load->failure != NULL)
        return;
    size_t count = result->cycle > 20000 ? 501 : SAMPLES;
    load_sample(load, samples, count);
    result->fast = bench_percentile(samples, count, 50);
    result->slow = bench_percentile(samples, count, 99);
    load->contestant->measure(load->state, &footprint);
    result->reserved = (double) footprint.reserved / (double) load->requested;
    result->metadata = (double) footprint.metadata / (double) load->requested;
}

static void compete(const struct bench *bench, const struct shape *shape, size_t count,
                    struct result *results)
{
    static double rounds[CONTESTANTS][64];
    struct load loads[CONTESTANTS];
    size_t cycles[CONTESTANTS];
    unsigned turns = bench->rounds < 64 ? bench->rounds : 64;
    double patience = bench->quick ? 3 : 20;

    for (unsigned i = 0; contestants[i] != NULL; i++) {
        load_open(&loads[i], contestants[i], count, shape->low, shape->high, patience);
        load_age(&loads[i], AGE * count, patience);
        cycles[i] = loads[i].failure == NULL ? cycles_for(&loads[i], bench) : 0;
    }
    for (unsigned turn = 0; turn < turns; turn++) {
        for (unsigned i = 0; contestants[i] != NULL; i++)
            rounds[i][turn] = cycles[i] != 0 ? load_run(&loads[i], cycles[i]) : -1;
    }
    for (unsigned i = 0; contestants[i] != NULL; i++) {
        results[i] = (struct result){ 0 };
        if (loads[i].failure == NULL)
            results[i].cycle = bench_median(rounds[i], turns);
        measure(&loads[i], &results[i]);
        load_close(&loads[i]);
    }
}

static void print(const struct shape *shape, size_t count, const struct result *results)
{
    printf("\n%s, %zu alive: times against %s\n", shape->name, count, contestants[0]->name);
    printf("  %-20s %8s %10s %10s %10s %10s %10s\n", "", "ratio", "cycle ns", "alloc p50",
           "alloc p99", "reserved", "metadata");
    for (unsigned i = 0; contestants[i] != NULL; i++) {
        const struct result *result = &results[i];
        if (result->failure != NULL) {
            printf("  %-20s %s, after %zu\n", contestants[i]->name, result->failure,
                   result->filled);
            continue;
        }
        printf("  %-20s %8.2f %10.0f %10.0f %10.0f %9.3fx %9.2f%%\n", contestants[i]->name,
               result->cycle / results[0].cycle, result->cycle, result->fast, result->slow,
               result->reserved, result->metadata * 100);
    }
}

/* The rows of the table that are about this load. */
static void rows(const struct bench *bench, const struct result *results)
{
    const double goals[] = { 5, 12, 10 };
    for (unsigned i = 1; contestants[i] != NULL; i++) {
        const struct contestant *peer = contestants[i];
        if (results[i].failure != NULL)
            continue;
        double goal = peer == &page_each ? goals[1] : goals[0];
#if HAVE_LLVM
        if (peer == &llvm_process || peer == &llvm_mapper)
            goal = goals[2];
#endif
        bench_row(bench, "allocate + write + free, 10k of 256..2048 B", peer->name, true, goal,
                  results[i].cycle / results[0].cycle);
    }
    bench_row(bench, "reserved / requested, same load", "exact", false, 1.05,
              results[0].reserved);
    bench_row(bench, "metadata / requested, %", "exact", false, 3, results[0].metadata * 100);
}

int main(int argc, char **argv)
{
    struct bench bench;
    struct result results[COUNTS][CONTESTANTS];
    bench_begin(&bench, argc, argv);
    printf("Replacing one piece of code among many: free, allocate, store, publish.\n");
    for (unsigned s = 0; s < SHAPES; s++) {
        for (unsigned c = 0; c < COUNTS; c++) {
            bool large = counts[c] > 50000;
            if (counts[c] > shapes[s].most || (large && (bench.quick || shapes[s].high > 256)))
                continue;
            compete(&bench, &shapes[s], counts[c], results[c]);
            print(&shapes[s], counts[c], results[c]);
            fflush(stdout);
        }
        if (shapes[s].low == 256) {
            rows(&bench, results[1]);
            bench_row(&bench, "allocation p50, 50k alive / 1k alive", "itself", false, 2,
                      results[2][0].fast / results[0][0].fast);
        }
    }
    return 0;
}
