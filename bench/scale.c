/* SPDX-License-Identifier: MIT */
/* Two threads that replace code in one pool, against one thread with the same work. */
#include <config.h>

#include "bench/contestant.h"
#include "bench/harness.h"
#include "bench/load.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 64, ALIVE = 5000, LOW = 256, HIGH = 2048, THREADS = 2 };

struct worker {
    struct load load;
    unsigned processor;
    size_t cycles;
    pthread_barrier_t *start, *end;
    bool failed;
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    bench_pin(worker->processor);
    pthread_barrier_wait(worker->start);
    worker->failed = load_run(&worker->load, worker->cycles) < 0;
    pthread_barrier_wait(worker->end);
    return NULL;
}

/* All cycles of so many threads at a time; nanoseconds in all.  Negative: it failed. */
static double together(struct worker *workers, unsigned threads)
{
    pthread_barrier_t start, end;
    pthread_t ids[THREADS];
    bool failed = false;
    pthread_barrier_init(&start, NULL, threads + 1);
    pthread_barrier_init(&end, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        workers[i].start = &start;
        workers[i].end = &end;
        if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0)
            exit(1);
    }
    pthread_barrier_wait(&start);
    double begin = bench_clock();
    pthread_barrier_wait(&end);
    double spent = bench_clock() - begin;
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        failed |= workers[i].failed;
    }
    pthread_barrier_destroy(&start);
    pthread_barrier_destroy(&end);
    return failed ? -1 : spent;
}

/* Both threads' loads are in one state of the contestant. */
static void compete(const struct bench *bench, const struct contestant *contestant)
{
    struct worker workers[THREADS] = { { .processor = 0 }, { .processor = 1 } };
    double ratios[ROUNDS];
    unsigned rounds = bench->rounds < ROUNDS ? bench->rounds : ROUNDS, good = 0;
    size_t cycles = bench->quick ? 5000 : 30000;

    load_open(&workers[0].load, contestant, ALIVE, LOW, HIGH, 20);
    load_join(&workers[1].load, &workers[0].load, 0x9e3779b97f4a7c15u);
    for (unsigned round = 0; round < rounds; round++) {
        workers[0].cycles = 2 * cycles;
        double alone = together(workers, 1);
        workers[0].cycles = workers[1].cycles = cycles;
        double both = together(workers, 2);
        if (alone > 0 && both > 0)
            ratios[good++] = alone / both;
    }
    if (good == 0) {
        printf("  %-20s failed\n", contestant->name);
    } else {
        double ratio = bench_median(ratios, good);
        printf("  %-20s two threads / one: %.2f times the work\n", contestant->name, ratio);
        if (contestant == &pool_spans)
            bench_row(bench, "two threads allocating", "one thread", true, 1.7, ratio);
    }
    load_leave(&workers[1].load);
    load_close(&workers[0].load);
}

int main(int argc, char **argv)
{
    struct bench bench;
    bench_begin(&bench, argc, argv);
    printf("\nTwo threads allocate, store, publish and free in one pool.\n");
    if (bench_processors() < THREADS) {
        printf("  one processor: nothing to compare\n");
        return 0;
    }
    for (unsigned i = 0; contestants[i] != NULL; i++)
        compete(&bench, contestants[i]);
    return 0;
}
