/* SPDX-License-Identifier: MIT */
/*
 * Other unwinders are left alone unless a pool's options name them; and what libgcc may do
 * while it is told of something.
 *
 * The program has functions of libgcc's, of the loader and of the heap before the real ones,
 * and so sees what the library asks of them.
 */
#include <config.h>

#include "memory/state.h"

#include "sanitized.h"
#include "spans.h"

#include <patchpoint.h>

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK 256 /* bytes of a node of libgcc's */

static const pp_frame_rule record = { .size = sizeof record, .kind = PP_FRAME_RECORD };

/* ---- what is asked of others ------------------------------------------ */

static struct {
    unsigned registered, deregistered, looked_up;
    unsigned unblocked;      /* calls of libgcc's that a signal handler could interrupt */
    unsigned inside;         /* allocations by libgcc, while it registers */
    bool deaf;               /* libgcc does not hear */
    unsigned long requests, fail_from, fail_to; /* of malloc */
    bool counting, in_libgcc;
} seen;

static void *real(const char *name)
{
    static void *library;
    if (library == NULL)
        library = dlopen("libgcc_s.so.1", RTLD_NOW);
    void *symbol = dlsym(library, name);
    require(symbol != NULL);
    return symbol;
}

void __register_frame_info(const void *begin, void *object);
void *__deregister_frame_info(const void *begin);
const void *_Unwind_Find_FDE(void *pc, void *bases);

static void look_at_signals(void)
{
    sigset_t set;
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    seen.unblocked += sigismember(&set, SIGPROF) != 1 || sigismember(&set, SIGUSR1) != 1;
}

void __register_frame_info(const void *begin, void *object)
{
    void (*function)(const void *, void *) = (void (*)(const void *, void *)) real(__func__);
    look_at_signals();
    seen.registered++;
    seen.in_libgcc = true;
    if (!seen.deaf)
        function(begin, object);
    seen.in_libgcc = false;
}

void *__deregister_frame_info(const void *begin)
{
    void *(*function)(const void *) = (void *(*)(const void *)) real(__func__);
    look_at_signals();
    seen.deregistered++;
    return seen.deaf ? NULL : function(begin);
}

const void *_Unwind_Find_FDE(void *pc, void *bases)
{
    const void *(*function)(void *, void *) = (const void *(*)(void *, void *)) real(__func__);
    seen.looked_up++;
    return function(pc, bases);
}

/*
 * A heap that refuses by a script, and that keeps a few blocks which a thread has freed for
 * its next requests, as all heaps do that know threads.
 */
extern void *__libc_malloc(size_t size);
extern void __libc_free(void *memory);
#define EXPORTED __attribute__((visibility("default")))

static struct {
    void *blocks[7];
    unsigned count;
} kept;

#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
EXPORTED void *malloc(size_t size)
{
    if (!seen.counting)
        return __libc_malloc(size);
    seen.inside += seen.in_libgcc;
    if (size == BLOCK && kept.count != 0)
        return kept.blocks[--kept.count];
    if (++seen.requests >= seen.fail_from && seen.requests <= seen.fail_to) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(size);
}

EXPORTED void free(void *memory)
{
    if (seen.counting && memory != NULL && kept.count < 7 && malloc_usable_size(memory) >= BLOCK &&
        malloc_usable_size(memory) < BLOCK + 16)
        kept.blocks[kept.count++] = memory;
    else
        __libc_free(memory);
}
#endif

static pp_pool *telling(uint32_t unwinders)
{
    pp_pool_options options = { .size = sizeof options, .unwinders = unwinders,
                                .region_bytes = 2 << 20, .error = &error };
    pp_pool *pool;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    return pool;
}

static pp_status take_one(pp_pool *pool, const pp_frame_rule *rule)
{
    const pp_span_desc want = { .size = sizeof want, .bytes = 64, .frame = rule, .error = &error };
    pp_span_place place = { .size = sizeof place };
    pp_span *span;
    error.text[0] = '\0';
    return pp_span_alloc(pool, &want, &span, &place);
}

START_TEST(by_default_nobody_is_told_and_nobody_is_looked_for)
{
    pp_pool *pool = telling(0);
    for (unsigned kind = 0; kind <= PP_FRAME_OSR; kind++) {
        pp_frame_rule rule = { .size = sizeof rule, .kind = (pp_frame_kind) kind };
        ck_assert_int_eq(take_one(pool, &rule), PP_OK);
    }
    ck_assert_uint_eq(stats_of(pool).regions, 1);
    pp_pool_destroy(pool);
    ck_assert_uint_eq(seen.registered + seen.deregistered + seen.looked_up, 0);
    /* libgcc is linked; libunwind is not, and was not loaded. */
    ck_assert_ptr_null(dlopen("libunwind.so.8", RTLD_NOW | RTLD_NOLOAD));
}
END_TEST

START_TEST(libgcc_is_told_of_each_region_once_with_signals_blocked)
{
    pp_pool *pool = telling(PP_UNWIND_LIBGCC);
    ck_assert_uint_eq(seen.registered, 1); /* a try */
    ck_assert_uint_eq(seen.deregistered, 1);
    for (unsigned i = 0; i < 10; i++)
        ck_assert_int_eq(take_one(pool, &record), PP_OK);
    ck_assert_uint_eq(seen.registered, 2);
    ck_assert_int_eq(take_one(pool, NULL), PP_OK);
    pp_frame_rule rule = record;
    rule.flags = PP_FRAME_UNREGISTERED;
    ck_assert_int_eq(take_one(pool, &rule), PP_OK);
    ck_assert_uint_eq(seen.registered, 2);
    ck_assert_uint_eq(stats_of(pool).regions, 2);
    pp_pool_destroy(pool);
    ck_assert_uint_eq(seen.deregistered, 2);
    ck_assert_uint_eq(seen.unblocked, 0);
    sigset_t set;
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    ck_assert_int_eq(sigismember(&set, SIGPROF), 0);
}
END_TEST

START_TEST(what_is_not_there_is_refused_at_creation)
{
    pp_pool_options options = { .size = sizeof options, .unwinders = PP_UNWIND_LIBUNWIND,
                                .error = &error };
    pp_pool *const untouched = (pp_pool *) &options, *pool = untouched;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(error.text, "libunwind is not in the process"));
    options.unwinders = 4;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_ARG);
    options.unwinders = 0;
    options.reserved = 1;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_ARG);
    options.reserved = 0;
    seen.deaf = true;
    options.unwinders = PP_UNWIND_LIBGCC;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(error.text, "libgcc"));
    seen.deaf = false;
    ck_assert_ptr_eq(pool, untouched);
    ck_assert_uint_eq(meta_unreturned(), 0);
    ck_assert_ptr_nonnull(dlopen("libunwind.so.8", RTLD_NOW));
    options.unwinders = PP_UNWIND_LIBUNWIND;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- want of memory --------------------------------------------------- */

/*
 * The n-th request of malloc fails, with all behind it or alone.  Exit status 0: there were
 * fewer; 1: a status, and all is well without the failure.
 */
static int fail_at(unsigned long n, bool alone, unsigned regions)
{
    pp_pool *pool = telling(PP_UNWIND_LIBGCC);
    pp_frame_rule rules[64];
    for (unsigned i = 0; i <= regions; i++) {
        rules[i] = record;
        rules[i].saves = (pp_save_area){ .slots = 8, .saved = 8, .offset = -8 * (1 + (int) i) };
        if (i < regions)
            require(take_one(pool, &rules[i]) == PP_OK);
    }
    kept.count = 0;
    seen.requests = 0;
    seen.fail_from = n;
    seen.fail_to = alone ? n : ~0ul;
    seen.counting = true;
    pp_status status = take_one(pool, &rules[regions]);
    seen.counting = false;
    unsigned long requests = seen.requests;
    require(status == PP_OK || (status == PP_E_NOMEM && error.text[0] != '\0'));
    require(pp_pool_verify(pool, &error) == PP_OK);
    require(take_one(pool, &rules[regions]) == PP_OK);
    require(seen.unblocked == 0);
    pp_pool_destroy(pool);
    require(seen.registered == seen.deregistered);
    return requests < n ? 0 : 1;
}

static int in_child(unsigned long n, bool alone, unsigned regions)
{
    int status;
    pid_t child = fork();
    require(child >= 0);
    if (child == 0)
        _exit(fail_at(n, alone, regions));
    require(waitpid(child, &status, 0) == child);
    ck_assert_msg(WIFEXITED(status), "malloc %lu of a region beside %u others fails%s: signal %d", n,
                  regions, alone ? "" : ", with all behind it", WTERMSIG(status));
    return WEXITSTATUS(status);
}

/* 0, and 10 and 20: when a node of libgcc's tree is split. */
START_TEST(want_of_memory_inside_libgcc_is_a_status)
{
    const unsigned regions[] = { 0, 9, 10, 20, 40 };
    bool has_tree = false;
    if (SANITIZED)
        return; /* malloc is the sanitizer's */
    for (unsigned i = 0; i < (is_emulated() ? 2 : 5); i++) {
        unsigned long n = 1;
        while (in_child(n, false, regions[i]) != 0)
            n++;
        ck_assert_uint_gt(n, 5);
        /* From version 13 on it has a tree, whose nodes it asks for without looking: see pool.h. */
        seen.inside = 0;
        seen.fail_from = ~0ul;
        seen.counting = true;
        pp_pool *pool = telling(PP_UNWIND_LIBGCC);
        seen.counting = false;
        has_tree |= seen.inside != 0;
        pp_pool_destroy(pool);
        for (n = 1; !has_tree && in_child(n, true, regions[i]) != 0;)
            n++;
        printf("beside %u regions: %s\n", regions[i], has_tree ? "a tree" : "a list");
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("unwinders");
    TCase *tests = tcase_create("unwinders");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, by_default_nobody_is_told_and_nobody_is_looked_for);
    tcase_add_test(tests, libgcc_is_told_of_each_region_once_with_signals_blocked);
    tcase_add_test(tests, what_is_not_there_is_refused_at_creation);
    tcase_add_test(tests, want_of_memory_inside_libgcc_is_a_status);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
