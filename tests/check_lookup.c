/* SPDX-License-Identifier: MIT */
/*
 * Lookups in a span space while it changes: by other threads, and by a handler of a
 * signal that interrupts the writer.
 *
 *      TEST_SECONDS=n  how long the tests may run together (8)
 */
#include <config.h>

#include "memory/span.h"

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

/* Check's own assertions tell a pipe that they passed: too slow for millions. */
#define require(condition) \
    do { \
        if (!(condition)) \
            ck_abort_msg("%s", #condition); \
    } while (0)

/* ---- a space ------------------------------------------------------------ */

static void *heap_alloc(void *context, size_t size)
{
    (void) context;
    return calloc(1, size);
}

static void heap_free(void *context, void *memory, size_t size)
{
    (void) context;
    (void) size;
    free(memory);
}

static const struct span_memory heap = { heap_alloc, heap_free, NULL };

static struct span_space space;

static void open_space(size_t size, unsigned shift)
{
    ck_assert(span_space_init(&space, size, shift, 0, &heap));
}

static void close_space(void)
{
    span_space_fini(&space);
}

static void verify(void)
{
    const char *broken = span_space_verify(&space);
    ck_assert_msg(broken == NULL, "%s", broken);
}

#define FULL SIZE_MAX

static size_t take(size_t size, size_t align)
{
    struct span_slot slot;
    if (span_space_find(&space, size, align, &slot) != SPAN_FOUND)
        return FULL;
    return span_space_take(&space, &slot);
}

static unsigned number_from(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? (unsigned) strtoul(text, NULL, 0) : otherwise;
}

static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static unsigned random_below(unsigned limit)
{
    return (unsigned) (random_next() % limit);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double) time.tv_sec + 1e-9 * (double) time.tv_nsec;
}

/* ---- lookup while the space changes ----------------------------------- */

#define STABLE 64
#define SPACE ((size_t) 192 << 10)

struct stable {
    size_t offset[STABLE], size[STABLE];
    atomic_bool stop;
    atomic_size_t lookups;
};

static void *look_up(void *argument)
{
    struct stable *stable = argument;
    struct span_info info;
    size_t lookups = 0, wrong = 0;
    while (!atomic_load(&stable->stop)) {
        for (unsigned i = 0; i < STABLE; i++, lookups++) {
            size_t offset = stable->offset[i] + lookups % stable->size[i];
            if (!span_space_at(&space, offset, &info) || info.start != stable->offset[i] ||
                info.size != stable->size[i] || info.owner != (void *) ((uintptr_t) (i + 1) << 4))
                wrong++;
            /* Whatever it says of spans that come and go, it must come back. */
            span_space_at(&space, lookups * 7919 % (SPACE), &info);
        }
    }
    atomic_fetch_add(&stable->lookups, lookups);
    return (void *) wrong;
}

START_TEST(lookups_are_right_while_others_allocate_and_free)
{
    static struct stable stable;
    enum { OTHERS = 2000 };
    static size_t other[OTHERS];
    pthread_t threads[2];
    double seconds = number_from("TEST_SECONDS", 8) / 4.0;
    open_space(SPACE, SPAN_GRANULE_SHIFT); /* small, so that all of it changes often */
    for (unsigned i = 0; i < STABLE; i++) {
        for (unsigned j = 0; j < 3; j++) /* something around it that goes away again */
            other[i * 3 + j] = take(16 + 16 * j, 16);
        stable.size[i] = i % 16 == 0 ? 9000 : 40 + 24 * (size_t) i;
        stable.offset[i] = take(stable.size[i], 16);
        ck_assert(span_space_set_owner(&space, stable.offset[i],
                                       (void *) ((uintptr_t) (i + 1) << 4)));
    }
    for (unsigned i = 3 * STABLE; i < OTHERS; i++)
        other[i] = FULL;
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, look_up, &stable), 0);
    random_state = 7;
    size_t operations = 0;
    for (double end = now() + seconds; operations % 1024 != 0 || now() < end; operations++) {
        unsigned slot = random_below(OTHERS);
        if (other[slot] == FULL) {
            other[slot] = take(1 + random_below(64), 16);
        } else if (random_below(4) != 0) {
            require(span_space_free(&space, other[slot]));
            other[slot] = FULL;
        } else {
            span_space_shrink(&space, other[slot], 1 + random_below(40));
        }
    }
    atomic_store(&stable.stop, true);
    for (unsigned i = 0; i < 2; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        ck_assert_ptr_null(wrong);
    }
    printf("lookup: %zu lookups during %zu operations\n", atomic_load(&stable.lookups), operations);
    verify();
    close_space();
}
END_TEST

/* ---- lookup in a handler that interrupts the writer --------------------- */

static struct stable still;
static atomic_size_t handled, mistaken;

static void on_tick(int number)
{
    struct span_info info;
    (void) number;
    for (unsigned i = 0; i < STABLE; i++) {
        size_t offset = still.offset[i] + atomic_load(&handled) % still.size[i];
        if (!span_space_at(&space, offset, &info) || info.start != still.offset[i] ||
            info.size != still.size[i] || info.owner != (void *) ((uintptr_t) (i + 1) << 4))
            atomic_fetch_add(&mistaken, 1);
    }
    for (size_t offset = 0; offset < SPACE; offset += 1009)
        span_space_at(&space, offset, &info);
    atomic_fetch_add(&handled, 1);
}

START_TEST(lookups_of_a_handler_are_right_and_come_back)
{
    enum { OTHERS = 1500 };
    static size_t other[OTHERS];
    double seconds = number_from("TEST_SECONDS", 8) / 8.0;
    open_space(SPACE, SPAN_GRANULE_SHIFT);
    for (unsigned i = 0; i < STABLE; i++) {
        other[i] = take(1 + i, 16);
        still.size[i] = i % 8 == 0 ? 6000 : 40 + 24 * (size_t) i;
        still.offset[i] = take(still.size[i], 16);
        require(still.offset[i] != FULL);
        require(span_space_set_owner(&space, still.offset[i], (void *) ((uintptr_t) (i + 1) << 4)));
    }
    for (unsigned i = STABLE; i < OTHERS; i++)
        other[i] = FULL;
    random_state = 11;
    struct sigaction action = { .sa_handler = on_tick };
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    size_t operations = 0;
    for (double end = now() + seconds; operations % 1024 != 0 || now() < end; operations++) {
        /* One at a time, so that a slow machine gets on. */
        struct itimerval soon = { { 0, 0 }, { 0, 20 + random_below(80) } };
        if (operations % 128 == 0)
            (void) setitimer(ITIMER_REAL, &soon, NULL);
        unsigned slot = random_below(OTHERS);
        if (other[slot] == FULL) {
            other[slot] = take(1 + random_below(64), 16);
        } else {
            require(span_space_free(&space, other[slot]));
            other[slot] = FULL;
        }
    }
    ck_assert_int_eq(setitimer(ITIMER_REAL, &(struct itimerval){ { 0, 0 }, { 0, 0 } }, NULL), 0);
    printf("handler: %zu times during %zu operations\n", atomic_load(&handled), operations);
    ck_assert_uint_eq(atomic_load(&mistaken), 0);
    ck_assert_uint_gt(atomic_load(&handled), 0);
    verify();
    close_space();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lookup");
    TCase *tests = tcase_create("lookup");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, lookups_are_right_while_others_allocate_and_free);
    tcase_add_test(tests, lookups_of_a_handler_are_right_and_come_back);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
