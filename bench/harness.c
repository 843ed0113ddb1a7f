/* SPDX-License-Identifier: MIT */
/* What all benchmarks share. */
#include <config.h>

#include "bench/harness.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static cpu_set_t allowed; /* of the program, before any thread was pinned */

static _Noreturn void usage(const char *program)
{
    fprintf(stderr, "Usage: %s [--quick] [--rounds N] [--rows FILE]\n", program);
    exit(2);
}

void bench_begin(struct bench *bench, int argc, char **argv)
{
    *bench = (struct bench){ .rounds = 0 };
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--quick") == 0)
            bench->quick = true;
        else if (strcmp(argv[i], "--rounds") == 0 && more && atoi(argv[i + 1]) > 0)
            bench->rounds = (unsigned) atoi(argv[++i]);
        else if (strcmp(argv[i], "--rows") == 0 && more)
            bench->rows = argv[++i];
        else
            usage(argv[0]);
    }
    if (bench->rounds == 0)
        bench->rounds = bench->quick ? 3 : 9;
    setvbuf(stdout, NULL, _IOLBF, 0); /* a run is long enough to be watched */
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        CPU_ZERO(&allowed);
    bench_pin(bench_processors() - 1);
}

unsigned bench_processors(void)
{
    int count = CPU_COUNT(&allowed);
    return count > 0 ? (unsigned) count : 1;
}

void bench_pin(unsigned processor)
{
    for (unsigned i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &allowed) || processor-- != 0)
            continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(i, &one);
        if (pthread_setaffinity_np(pthread_self(), sizeof one, &one) != 0)
            fprintf(stderr, "cannot pin a thread to processor %u\n", i);
        return;
    }
}

double bench_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec * 1e9 + (double) now.tv_nsec;
}

uint64_t bench_ticks(void)
{
#if defined __x86_64__
    uint32_t low, high, processor;
    __asm__ volatile("rdtscp; lfence" : "=a"(low), "=d"(high), "=c"(processor) : : "memory");
    return (uint64_t) high << 32 | low;
#elif defined __aarch64__
    uint64_t ticks;
    __asm__ volatile("isb; mrs %0, cntvct_el0" : "=r"(ticks) : : "memory");
    return ticks;
#else
    return (uint64_t) bench_clock();
#endif
}

double bench_tick_cost(void)
{
    double costs[1001];
    for (size_t i = 0; i < 1001; i++) {
        uint64_t begin = bench_ticks();
        costs[i] = (double) (bench_ticks() - begin);
    }
    return bench_median(costs, 1001);
}

double bench_ticks_per_ns(void)
{
    static double known;
    if (known == 0) {
        double begin = bench_clock();
        uint64_t ticks = bench_ticks();
        while (bench_clock() - begin < 2e7) {}
        known = (double) (bench_ticks() - ticks) / (bench_clock() - begin);
    }
    return known;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *) a, right = *(const double *) b;
    return (left > right) - (left < right);
}

double bench_percentile(double *values, size_t count, double percent)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof *values, compare);
    return values[(size_t) ((double) (count - 1) * percent / 100)];
}

double bench_median(double *values, size_t count)
{
    return bench_percentile(values, count, 50);
}

void bench_row(const struct bench *bench, const char *what, const char *peer, bool least,
               double goal, double measured)
{
    if (bench->rows == NULL)
        return;
    FILE *file = fopen(bench->rows, "a");
    if (file == NULL) {
        perror(bench->rows);
        exit(1);
    }
    fprintf(file, "%s\t%s\t%s %g\t%.4g\t%s\n", what, peer, least ? ">=" : "<=", goal, measured,
            (least ? measured >= goal : measured <= goal) ? "yes" : "NO");
    if (fclose(file) != 0) {
        perror(bench->rows);
        exit(1);
    }
}

void *bench_memory(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (memory == NULL) {
        fprintf(stderr, "no memory for a benchmark\n");
        exit(1);
    }
    return memory;
}
