/* SPDX-License-Identifier: MIT */
/* From an address to its code: the pool's lookup against a binary search. */
#include <config.h>

#include "bench/harness.h"

#include <patchpoint.h>
#include <stdio.h>
#include <stdlib.h>

enum { QUERIES = 1 << 16, ROUNDS = 64 };

struct sorted {
    uintptr_t start, end;
    pp_span *span;
};

static int compare(const void *a, const void *b)
{
    uintptr_t left = ((const struct sorted *) a)->start, right = ((const struct sorted *) b)->start;
    return (left > right) - (left < right);
}

static pp_span *search(const struct sorted *sorted, size_t count, uintptr_t address)
{
    size_t low = 0, high = count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (sorted[middle].start <= address)
            low = middle;
        else
            high = middle;
    }
    return address - sorted[low].start < sorted[low].end - sorted[low].start ? sorted[low].span
                                                                             : NULL;
}

static size_t fill(pp_pool *pool, struct sorted *sorted, size_t count)
{
    uint64_t random = 88172645463325252u;
    for (size_t i = 0; i < count; i++) {
        pp_span_desc desc = { .size = sizeof desc, .bytes = 256 + bench_random(&random) % 1793 };
        pp_span_place place = { .size = sizeof place };
        if (pp_span_alloc(pool, &desc, &sorted[i].span, &place) != PP_OK ||
            pp_span_publish(pool, &sorted[i].span, 1, NULL) != PP_OK)
            return i;
        sorted[i].start = (uintptr_t) place.execute;
        sorted[i].end = sorted[i].start + place.bytes;
    }
    return count;
}

static double time_pool(const uintptr_t *queries, size_t *found)
{
    double begin = bench_clock();
    for (size_t i = 0; i < QUERIES; i++)
        *found += pp_span_at((const void *) queries[i]) != NULL;
    return (bench_clock() - begin) / QUERIES;
}

static double time_search(const struct sorted *sorted, size_t count, const uintptr_t *queries,
                          size_t *found)
{
    double begin = bench_clock();
    for (size_t i = 0; i < QUERIES; i++)
        *found += search(sorted, count, queries[i]) != NULL;
    return (bench_clock() - begin) / QUERIES;
}

/* Queries for addresses in `hot` of the spans: what stacks hold is a small part of all code. */
static void ask(const struct bench *bench, const struct sorted *sorted, size_t count, size_t hot,
                uintptr_t *queries)
{
    double ours[ROUNDS], theirs[ROUNDS];
    size_t found[2] = { 0, 0 };
    unsigned rounds = bench->rounds < ROUNDS ? bench->rounds : ROUNDS;
    uint64_t random = 1234567891;
    for (size_t i = 0; i < QUERIES; i++) {
        const struct sorted *one = &sorted[bench_random(&random) % hot * (count / hot)];
        queries[i] = one->start + bench_random(&random) % (one->end - one->start);
    }
    for (unsigned round = 0; round < rounds; round++) {
        ours[round] = time_pool(queries, &found[0]);
        theirs[round] = time_search(sorted, count, queries, &found[1]);
    }
    if (found[0] != found[1] || found[0] != (size_t) rounds * QUERIES) {
        fprintf(stderr, "a lookup missed its span\n");
        exit(1);
    }
    double mine = bench_median(ours, rounds), other = bench_median(theirs, rounds);
    printf("  %8zu alive, %7zu asked for: binary search / pool %6.2f   (%.1f ns / %.1f ns)\n", count,
           hot, other / mine, other, mine);
    if (count == 1000000) {
        char what[64];
        snprintf(what, sizeof what, "pc -> span, %zu of 1M asked for", hot);
        bench_row(bench, what, "absolute, ns", false, 10, mine);
        bench_row(bench, what, "binary search", true, 1, other / mine);
    }
}

static void look(const struct bench *bench, size_t count, uintptr_t *queries)
{
    struct sorted *sorted = bench_memory(count * sizeof *sorted);
    pp_pool *pool;

    if (pp_pool_create(NULL, &pool) != PP_OK || fill(pool, sorted, count) != count) {
        fprintf(stderr, "no pool with %zu spans\n", count);
        exit(1);
    }
    qsort(sorted, count, sizeof *sorted, compare);
    ask(bench, sorted, count, 1000, queries);
    if (count > 1000)
        ask(bench, sorted, count, count, queries);
    pp_pool_destroy(pool);
    free(sorted);
}

int main(int argc, char **argv)
{
    static const size_t counts[] = { 1000, 10000, 100000, 1000000 };
    struct bench bench;
    bench_begin(&bench, argc, argv);
    uintptr_t *queries = bench_memory(QUERIES * sizeof *queries);
    printf("\nFrom a random address to the span that holds it.\n");
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        look(&bench, counts[i], queries);
    free(queries);
    return 0;
}
