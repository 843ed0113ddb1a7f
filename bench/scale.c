/* SPDX-License-Identifier: MIT */
/*
 * Two threads that replace code in one pool, against one thread with the same work.
 * Both live through all rounds, each with pieces that it allocated itself.  Two threads
 * with a pool each show what the processors can do: some are halves of one.
 */
#include <config.h>

#include "bench/contestant.h"
#include "bench/harness.h"
#include "bench/load.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 64, ALIVE = 5000, AGE = 5, LOW = 256, HIGH = 2048, THREADS = 2 };

struct worker {
    struct load load;
    const struct load *first; /* of the contestant; NULL: it is this one */
    const struct contestant *contestant;
    unsigned processor;
    size_t cycles;            /* of the next round, 0: none, SIZE_MAX: the last is over */
    pthread_barrier_t *barrier;
};

static void *work(void *argument)
{
    struct worker *worker = argument;
    bench_pin(worker->processor);
    if (worker->first == NULL)
        load_open(&worker->load, worker->contestant, ALIVE, LOW, HIGH, 20);
    pthread_barrier_wait(worker->barrier);
    if (worker->first != NULL)
        load_join(&worker->load, worker->first, 0x9e3779b97f4a7c15u);
    pthread_barrier_wait(worker->barrier);
    load_age(&worker->load, (size_t) AGE * ALIVE, 5);
    for (;;) {
        pthread_barrier_wait(worker->barrier); /* the round is known, and begins */
        if (worker->cycles == SIZE_MAX)
            break;
        if (worker->cycles != 0)
            load_run(&worker->load, worker->cycles);
        pthread_barrier_wait(worker->barrier);
    }
    return NULL;
}

/* Nanoseconds of a round in which each worker does its cycles. */
static double round_of(struct worker *workers, size_t one, size_t other)
{
    workers[0].cycles = one;
    workers[1].cycles = other;
    pthread_barrier_wait(workers[0].barrier);
    double begin = bench_clock();
    if (one != SIZE_MAX)
        pthread_barrier_wait(workers[0].barrier);
    return bench_clock() - begin;
}

/* Work of two threads, in that of one; 0: failed.  `apart`: each has a state of the contestant. */
static double compete(const struct bench *bench, const struct contestant *contestant, bool apart)
{
    pthread_barrier_t barrier;
    struct worker workers[THREADS] = {
        { .contestant = contestant, .processor = 0, .barrier = &barrier },
        { .contestant = contestant, .processor = 1, .barrier = &barrier },
    };
    pthread_t ids[THREADS];
    double ratios[ROUNDS];
    unsigned rounds = bench->rounds < ROUNDS ? bench->rounds : ROUNDS;
    size_t cycles = bench->quick ? 5000 : 30000;

    if (!apart)
        workers[1].first = &workers[0].load;
    pthread_barrier_init(&barrier, NULL, THREADS + 1);
    for (unsigned i = 0; i < THREADS; i++) {
        if (pthread_create(&ids[i], NULL, work, &workers[i]) != 0)
            exit(1);
    }
    pthread_barrier_wait(&barrier); /* the first load is there */
    pthread_barrier_wait(&barrier); /* and the other */
    for (unsigned i = 0; i < rounds; i++) {
        double alone = round_of(workers, 2 * cycles, 0);
        ratios[i] = alone / round_of(workers, cycles, cycles);
    }
    round_of(workers, SIZE_MAX, SIZE_MAX);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(ids[i], NULL);
    pthread_barrier_destroy(&barrier);
    bool failed = workers[0].load.failure != NULL || workers[1].load.failure != NULL;
    if (apart)
        load_close(&workers[1].load);
    else
        load_leave(&workers[1].load);
    load_close(&workers[0].load);
    double ratio = failed ? 0 : bench_median(ratios, rounds);
    if (failed)
        printf("  %-20s failed\n", contestant->name);
    else
        printf("  %-20s two threads%s / one: %.2f times the work\n", contestant->name,
               apart ? ", a pool each," : "", ratio);
    return ratio;
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
    double apart = compete(&bench, &pool_spans, true);
    for (unsigned i = 0; contestants[i] != NULL; i++) {
        double ratio = compete(&bench, contestants[i], false);
        if (contestants[i] != &pool_spans || ratio == 0 || apart == 0)
            continue;
        bench_row(&bench, "two threads allocating", "one thread", true, 1.7, ratio);
        bench_row(&bench, "two threads allocating", "a pool each", true, 0.85, ratio / apart);
    }
    return 0;
}
