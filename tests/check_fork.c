/* SPDX-License-Identifier: MIT */
/*
 * Forks: children run what they inherited and write none of it, whatever their
 * parents do meanwhile; parents lose nothing for longer than their children need it.
 */
#include <config.h>

#include "memory/fork.h"

#include "snippet.h"
#include "spans.h"

#include <patchpoint.h>

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TRACES = 20, SPANS = 40, SYMBOLS = 10, CODE = 96 };

/* ---- what is inherited -------------------------------------------------- */

static pp_pool *pool;
static _Atomic unsigned long sum;
static void add_1(void) { atomic_fetch_add(&sum, 1); }
static void add_100(void) { atomic_fetch_add(&sum, 100); }

static struct {
    pp_symbol symbol;
    bool reclaimed;           /* those that open_world retired */
    pp_trace *traces[TRACES];
    pp_span *spans[SPANS];
    const uint8_t *code[TRACES + SPANS];
    uint8_t bytes[TRACES + SPANS][CODE];
} world;

static pp_span *make_span(pp_pool *from, uint16_t value, size_t bytes)
{
    pp_span *span;
    pp_span_desc desc = { .size = sizeof desc, .bytes = bytes, .error = &error };
    pp_span_place place = { .size = sizeof place };
    require(pp_span_alloc(from, &desc, &span, &place) == PP_OK);
    memset(place.write, 0x11, bytes);
    encode_return(place.write, value);
    require(pp_span_publish(from, &span, 1, &error) == PP_OK);
    return span;
}

static const uint8_t *code_of(const pp_span *span)
{
    pp_span_place place = { .size = sizeof place };
    require(pp_span_get_place(span, &place) == PP_OK);
    return place.execute;
}

static int call(const uint8_t *code) { return ((int (*)(void)) (uintptr_t) code)(); }

/* Calls `symbol` through a shared trampoline; at least CODE bytes. */
static pp_trace *make_trace(pp_pool *from, pp_symbol symbol)
{
    struct snippet code = { 0 };
    pp_trace *trace;
    snippet_begin(&code);
    snippet_call(&code, symbol);
    snippet_end(&code);
    while (code.size < CODE)
        snippet_bytes(&code, "\0\0\0", 4);
    pp_trace_desc desc = snippet_desc(&code);
    desc.error = &error;
    require(pp_trace_link(from, &desc, &trace) == PP_OK);
    snippet_free(&code);
    return trace;
}

static bool open_world(pp_wx wx)
{
    pp_pool_options options = { .size = sizeof options, .wx = wx, .branch_range = 1,
                                .error = &error };
    if (pp_pool_create(&options, &pool) != PP_OK) {
        printf("mode %d is skipped: %s\n", wx, error.text);
        return false;
    }
    world.symbol = pp_symbol_define(pool, "add", (const void *) add_1);
    for (unsigned i = 0; i < TRACES; i++) {
        world.traces[i] = make_trace(pool, world.symbol);
        world.code[i] = pp_trace_entry(world.traces[i]);
    }
    for (unsigned i = 0; i < SPANS; i++) {
        world.spans[i] = make_span(pool, (uint16_t) (1000 + i), CODE);
        world.code[TRACES + i] = code_of(world.spans[i]);
    }
    /* One of each is retired, and may be running. */
    require(pp_trace_retire(pool, world.traces[0]) == PP_OK);
    require(pp_span_retire(pool, world.spans[0]) == PP_OK);
    for (unsigned i = 0; i < TRACES + SPANS; i++)
        memcpy(world.bytes[i], world.code[i], CODE);
    fflush(NULL);
    return true;
}

/* Every byte and every result is as it was at the fork. */
static void check_world(void)
{
    unsigned first = world.reclaimed;
    for (unsigned i = 0; i < TRACES + SPANS; i++)
        require(i % TRACES < first || memcmp(world.bytes[i], world.code[i], CODE) == 0);
    unsigned long before = atomic_load(&sum);
    for (unsigned i = first; i < TRACES; i++)
        ((void (*)(void)) (uintptr_t) world.code[i])();
    require(atomic_load(&sum) >= before + TRACES - first);
    for (unsigned i = first; i < SPANS; i++)
        require(call(world.code[TRACES + i]) == (int) (1000 + i));
}

static bool is_shared(void) { return pool->wx == PP_WX_DUAL || pool->wx == PP_WX_REMAP; }

/* ---- children ----------------------------------------------------------- */

static int go[2] = { -1, -1 }; /* children wait until nobody can write */

static void wait_to_go(void)
{
    char byte;
    close(go[1]);
    require(read(go[0], &byte, 1) == 0);
    close(go[0]);
}

static pid_t fork_child(void (*child)(void))
{
    pid_t pid = fork();
    require(pid >= 0);
    if (pid == 0) {
        child();
        _exit(0);
    }
    return pid;
}

static void end_child(pid_t pid)
{
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned) status);
}

static sigjmp_buf fault;
static void on_fault(int signal) { siglongjmp(fault, signal); }

/* Whether a store there is refused by the system. */
static bool store_faults(uint8_t *at)
{
    struct sigaction action = { .sa_handler = on_fault }, old[2];
    sigaction(SIGSEGV, &action, &old[0]);
    sigaction(SIGBUS, &action, &old[1]);
    volatile bool refused = true;
    if (sigsetjmp(fault, 1) == 0) {
        *(volatile uint8_t *) at = 0x99;
        refused = false;
    }
    sigaction(SIGSEGV, &old[0], NULL);
    sigaction(SIGBUS, &old[1], NULL);
    return refused;
}

static pp_span *open_span; /* being written when the process forks */
static pp_span_place open_place;

static void run_and_write_own(void)
{
    check_world();
    verify(pool);
    if (is_shared() && !is_emulated()) { /* whose children have all mappings */
        require(store_faults(open_place.write));
        require(store_faults((uint8_t *) open_place.write - 16));
    }
    if (pool->wx != PP_WX_RWX)
        require(store_faults((uint8_t *) (uintptr_t) world.code[TRACES + 1]));
    pp_span_place place = { .size = sizeof place };
    pp_span *tail;
    require(pp_span_write(pool, world.spans[1], &place, NULL) == PP_E_UNSUPPORTED);
    require(pp_span_publish(pool, &open_span, 1, NULL) == PP_E_UNSUPPORTED);
    require(pp_span_shrink(pool, world.spans[1], 16) == PP_E_UNSUPPORTED);
    require(pp_span_split(pool, world.spans[1], 16, &tail) == PP_E_UNSUPPORTED);
    require(pp_span_get_place(open_span, &place) == PP_OK && place.write == NULL);
    require(pp_span_at(world.code[TRACES]) != NULL);
    require(pp_trace_at(world.code[0]) == world.traces[0]);

    /* Its own: in no region of the parent's, and as many as it likes. */
    for (unsigned i = 0; i < 300; i++) {
        const uint8_t *code = code_of(make_span(pool, (uint16_t) (5000 + i), CODE));
        require(!region_at((uintptr_t) code)->inherited);
        require(call(code) == (int) (5000 + i));
    }
    pp_trace *trace = make_trace(pool, world.symbol);
    ((void (*)(void)) (uintptr_t) pp_trace_entry(trace))();

    /* What was inherited is freed, retired and reclaimed; the parent does not notice. */
    require(pp_trace_free(pool, world.traces[1]) == PP_OK);
    require(pp_span_free(pool, world.spans[1]) == PP_OK);
    require(pp_span_free(pool, open_span) == PP_OK);
    require(pp_trace_retire(pool, world.traces[2]) == PP_OK);
    require(pp_span_retire(pool, world.spans[2]) == PP_OK);
    pp_reclaim_result result = { .size = sizeof result };
    require(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, &result) == PP_OK);
    require(result.freed == 4);
    for (unsigned i = 0; i < 300; i++)
        make_span(pool, 1, CODE);
    verify(pool);
    pp_pool_destroy(pool);
    require(pp_pool_create(NULL, &pool) == PP_OK); /* a pool of the child alone */
    require(call(code_of(make_span(pool, 77, CODE))) == 77);
    verify(pool);
    pp_pool_destroy(pool);
}

START_TEST(a_child_runs_what_it_inherited_and_writes_its_own)
{
    if (!open_world((pp_wx) _i))
        return;
    pp_span_desc desc = { .size = sizeof desc, .bytes = 4 * CODE };
    open_place = (pp_span_place) { .size = sizeof open_place };
    ck_assert_int_eq(pp_span_alloc(pool, &desc, &open_span, &open_place), PP_OK);
    encode_return(open_place.write, 4242);
    end_child(fork_child(run_and_write_own));
    check_world();
    ck_assert_int_eq(pp_span_publish(pool, &open_span, 1, NULL), PP_OK);
    ck_assert_int_eq(call(open_place.execute), 4242);
    check_world();
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

static void wait_and_check(void)
{
    wait_to_go();
    check_world();
    verify(pool);
    require(call(code_of(make_span(pool, 6000, CODE))) == 6000);
    check_world();
}

/* Everything that a parent can do to code that a child may be running. */
static void disturb(void)
{
    pp_span_place place = { .size = sizeof place };
    pp_span *tail;
    size_t unit = pool->wx == PP_WX_FLIP ? (size_t) sysconf(_SC_PAGESIZE) : 16;
    for (unsigned i = 1; i < TRACES; i++)
        require(i % 2 == 0 ? pp_trace_free(pool, world.traces[i]) == PP_OK
                           : pp_trace_retire(pool, world.traces[i]) == PP_OK);
    for (unsigned i = 1; i < SPANS; i++) {
        pp_span *span = world.spans[i];
        pp_status written;
        switch (i % 5) {
        case 0: require(pp_span_free(pool, span) == PP_OK); break;
        case 1: require(pp_span_retire(pool, span) == PP_OK); break;
        case 2: require(pp_span_shrink(pool, span, 16) == PP_OK); break;
        case 3:
            if (unit != 16)
                break;
            require(pp_span_split(pool, span, 32, &tail) == PP_OK);
            require(pp_span_free(pool, tail) == PP_OK);
            require(pp_span_free(pool, span) == PP_OK);
            break;
        case 4:
            written = pp_span_write(pool, span, &place, NULL);
            require(written == (is_shared() ? PP_E_BUSY : PP_OK));
            if (written == PP_OK) {
                memset(place.write, 0, CODE);
                require(pp_span_publish(pool, &span, 1, NULL) == PP_OK);
            }
        }
    }
    require(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL) == PP_OK);
    /* Slots of the island and all the holes there are get other contents. */
    for (unsigned i = 0; i < SYMBOLS; i++) {
        char name[16];
        snprintf(name, sizeof name, "other %u", i);
        make_trace(pool, pp_symbol_define(pool, name, (const char *) add_100 + 4 * i));
    }
    for (unsigned i = 0; i < 1000; i++)
        make_span(pool, 1, CODE);
    verify(pool);
}

START_TEST(a_child_is_not_disturbed)
{
    if (!open_world((pp_wx) _i))
        return;
    ck_assert_int_eq(pipe(go), 0);
    pid_t child = fork_child(wait_and_check);
    close(go[0]);
    disturb();
    if (_i % 2 == 0)
        pp_pool_destroy(pool);
    close(go[1]);
    end_child(child);
    if (_i % 2 != 0) {
        verify(pool);
        pp_pool_destroy(pool);
    }
}
END_TEST

/* ---- what parents keep ---------------------------------------------------- */

static void just_wait(void) { wait_to_go(); }

START_TEST(spans_younger_than_the_children_go_at_once)
{
    if (!open_world((pp_wx) _i))
        return;
    ck_assert_int_eq(pipe(go), 0);
    pid_t child = fork_child(just_wait);
    pp_span *first = make_span(pool, 1, CODE);
    const uint8_t *at = code_of(first);
    pp_span_place place = { .size = sizeof place };
    ck_assert_int_eq(pp_span_write(pool, first, &place, NULL), PP_OK);
    encode_return(place.write, 2);
    ck_assert_int_eq(pp_span_publish(pool, &first, 1, NULL), PP_OK);
    ck_assert_int_eq(call(at), 2);
    ck_assert_int_eq(pp_span_free(pool, first), PP_OK);
    pp_pool_stats before = stats_of(pool);
    for (unsigned i = 0; i < 2000; i++) {
        pp_span *span = make_span(pool, 3, CODE);
        ck_assert_ptr_eq(code_of(span), at); /* its addresses are used again */
        ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
    }
    ck_assert_uint_le(stats_of(pool).resident, before.resident);

    /* To the second child they are old, and halves of young ones are young. */
    pp_span *whole = make_span(pool, 4, 4 * CODE), *half;
    size_t unit = pool->wx == PP_WX_FLIP ? (size_t) sysconf(_SC_PAGESIZE) : 16;
    const uint8_t *tail = code_of(whole) + unit;
    if (unit == 16) {
        ck_assert_int_eq(pp_span_split(pool, whole, unit, &half), PP_OK);
        ck_assert_int_eq(pp_span_write(pool, half, &place, NULL), PP_OK);
        ck_assert_int_eq(pp_span_free(pool, half), PP_OK);
        half = make_span(pool, 5, 4 * CODE - unit);
        ck_assert_ptr_eq(code_of(half), tail);
        ck_assert_int_eq(pp_span_free(pool, half), PP_OK);
    }
    pid_t second = fork_child(just_wait);
    ck_assert_int_eq(pp_span_write(pool, whole, &place, NULL), is_shared() ? PP_E_BUSY : PP_OK);
    close(go[0]);
    close(go[1]);
    end_child(child);
    end_child(second);
    if (is_shared())
        ck_assert_int_eq(pp_span_write(pool, whole, &place, NULL), PP_OK);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* Whether spans from the fifth one to this, which is freed, are used again. */
static bool is_used_again(pp_span *span)
{
    const uint8_t *at = code_of(span);
    require(pp_span_free(pool, span) == PP_OK);
    pp_span *next = make_span(pool, 1, CODE);
    bool again = code_of(next) >= world.code[TRACES + 5] && code_of(next) <= at;
    require(pp_span_free(pool, next) == PP_OK);
    return again;
}

static void close_all_and_wait(void)
{
    int in = go[0];
    close(go[1]);
    for (int fd = 3; fd < 256; fd++)
        if (fd != in)
            close(fd);
    char byte;
    require(read(in, &byte, 1) == 0);
    check_world();
}

static int count_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

START_TEST(any_number_of_children_is_seen)
{
    enum { CHILDREN = 100 };
    pid_t children[CHILDREN];
    if (!open_world((pp_wx) _i))
        return;
    ck_assert_int_eq(pipe(go), 0);
    int before = count_descriptors();
    for (unsigned i = 0; i < CHILDREN; i++)
        children[i] = fork_child(i % 2 == 0 ? just_wait : close_all_and_wait);
    ck_assert_int_le(count_descriptors() - before, 1); /* one descriptor for all of them */
    ck_assert_int_eq(fork_has_children(), is_shared());
    ck_assert_int_eq(is_used_again(world.spans[5]), !is_shared());
    kill(children[0], SIGKILL);
    waitpid(children[0], NULL, 0);
    ck_assert_int_eq(is_used_again(world.spans[6]), !is_shared());
    close(go[0]);
    close(go[1]);
    for (unsigned i = 1; i < CHILDREN; i++)
        end_child(children[i]);
    ck_assert(!fork_has_children());
    ck_assert(is_used_again(world.spans[7]));
    /* And so are those that waited: there is room for all three at once. */
    const uint8_t *at = code_of(make_span(pool, 1, 3 * CODE));
    ck_assert(!is_shared() || at == world.code[TRACES + 5]);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

static int grandchild_is_there[2];

static void fork_once_more(void)
{
    pid_t pid = fork();
    require(pid >= 0);
    if (pid != 0)
        _exit(0); /* the grandchild lives on */
    close(grandchild_is_there[0]);
    check_world();
    require(call(code_of(make_span(pool, 9, CODE))) == 9);
    wait_to_go();
    check_world();
    verify(pool);
    require(write(grandchild_is_there[1], "y", 1) == 1);
    pp_pool_destroy(pool);
    _exit(0);
}

START_TEST(grandchildren_count)
{
    char byte;
    if (!open_world((pp_wx) _i))
        return;
    ck_assert_int_eq(pipe(go), 0);
    ck_assert_int_eq(pipe(grandchild_is_there), 0);
    end_child(fork_child(fork_once_more));
    close(grandchild_is_there[1]);
    close(go[0]);
    ck_assert_int_eq(fork_has_children(), is_shared());
    disturb();
    close(go[1]);
    ck_assert_int_eq(read(grandchild_is_there[0], &byte, 1), 1); /* it was content */
    ck_assert_int_eq(read(grandchild_is_there[0], &byte, 1), 0); /* it has ended */
    for (unsigned i = 0; i < 1000 && fork_has_children(); i++)
        usleep(1000);
    ck_assert(!fork_has_children());
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* Programs that are executed run none of our code. */
START_TEST(programs_are_not_children)
{
    extern char **environ;
    char *const arguments[] = { "sleep", "10", NULL };
    pid_t spawned, executed;
    if (!open_world((pp_wx) _i))
        return;
    ck_assert_int_eq(posix_spawnp(&spawned, "sleep", NULL, NULL, arguments, environ), 0);
    ck_assert(!fork_has_children());
    ck_assert_int_eq(pipe2(go, O_CLOEXEC), 0);
    executed = fork();
    if (executed == 0) {
        execvp("sleep", arguments);
        _exit(1);
    }
    close(go[1]);
    char byte;
    ck_assert_int_eq(read(go[0], &byte, 1), 0); /* it has closed its end: it is another program */
    close(go[0]);
    for (unsigned i = 0; i < 1000 && fork_has_children(); i++)
        usleep(1000);
    ck_assert(!fork_has_children());
    ck_assert(is_used_again(world.spans[5]));
    kill(spawned, SIGKILL);
    kill(executed, SIGKILL);
    waitpid(spawned, NULL, 0);
    waitpid(executed, NULL, 0);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- in the middle of things ----------------------------------------------- */

static atomic_bool done;

/* Spans being written, reservations and regions being opened while others fork. */
static void *keep_busy(void *argument)
{
    unsigned n = (unsigned) (uintptr_t) argument;
    pp_frame_rule rules[8];
    for (unsigned i = 0; i < 8; i++)
        rules[i] = (pp_frame_rule) { .size = sizeof rules[i], .kind = PP_FRAME_RECORD,
                                     .saves = { .slots = i << 12, .offset = -24 } };
    for (unsigned i = 0; !atomic_load(&done); i++) {
        pp_span *spans[8];
        pp_span_place place = { .size = sizeof place };
        for (unsigned j = 0; j < 8; j++) {
            pp_span_desc desc = { .size = sizeof desc, .bytes = 16 + (i * 7 + j) % 500,
                                  .frame = i % 64 == 0 ? &rules[(n + i) % 8] : NULL };
            require(pp_span_alloc(pool, &desc, &spans[j], &place) == PP_OK);
            memset(place.write, 0x11, desc.bytes);
            encode_return(place.write, (uint16_t) (i + j));
        }
        require(pp_span_publish(pool, spans, 8, NULL) == PP_OK);
        for (unsigned j = 0; j < 8; j++)
            require(j % 2 == 0 ? pp_span_free(pool, spans[j]) == PP_OK
                               : pp_span_retire(pool, spans[j]) == PP_OK);
        require(pp_trace_retire(pool, make_trace(pool, world.symbol)) == PP_OK);
        pp_reservation reservation = { .size = sizeof reservation };
        require(pp_trace_reserve(pool, 200, NULL, &reservation, NULL) == PP_OK);
        memset(reservation.write, 0, 200);
        require(pp_trace_abandon(pool, &reservation) == PP_OK);
        if (i % 16 == 0)
            require(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL) == PP_OK);
    }
    return NULL;
}

static void check_all_and_destroy(void)
{
    check_world();
    verify(pool);
    require(call(code_of(make_span(pool, 321, CODE))) == 321);
    require(pp_trace_retire(pool, make_trace(pool, world.symbol)) == PP_OK);
    require(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL) == PP_OK);
    verify(pool);
    pp_pool_destroy(pool);
}

START_TEST(forks_in_the_middle_of_everything)
{
    enum { THREADS = 3, FORKS = 30 };
    pthread_t threads[THREADS];
    if (!open_world((pp_wx) _i))
        return;
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
    world.reclaimed = true;
    atomic_store(&done, false);
    for (uintptr_t i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, keep_busy, (void *) i), 0);
    for (unsigned i = 0; i < FORKS; i++)
        end_child(fork_child(check_all_and_destroy));
    atomic_store(&done, true);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_int_eq(pp_reclaim(pool, pp_retire_ticket(pool), NULL, 0, NULL), PP_OK);
    verify(pool);
    ck_assert_uint_eq(stats_of(pool).retired_spans, 0);
    pp_pool_destroy(pool);
}
END_TEST

/*
 * libunwind remembers what it saw: an address of which it was told has no other shape of
 * frames later, in whatever pool, in a child as well.
 */
static void reuse_addresses(void)
{
    static uintptr_t lo[64], hi[64];
    unsigned known = 0;
    for (unsigned round = 0; round < 16; round++) {
        pp_frame_rule rule = { .size = sizeof rule, .cfa_offset = 16,
                               .kind = round % 2 == 0 ? PP_FRAME_RECORD : PP_FRAME_LEAF };
        pp_pool_options options = { .size = sizeof options, .region_bytes = 2 << 20,
                                    .unwinders = PP_UNWIND_LIBGCC | PP_UNWIND_LIBUNWIND };
        pp_pool *own;
        require(pp_pool_create(&options, &own) == PP_OK);
        pp_span_desc desc = { .size = sizeof desc, .bytes = CODE, .frame = &rule };
        pp_span_place place = { .size = sizeof place };
        pp_span *span;
        require(pp_span_alloc(own, &desc, &span, &place) == PP_OK);
        struct region *region = region_at((uintptr_t) place.execute);
        for (unsigned i = 0; i < known; i++)
            require(i % 2 == round % 2 || region->limit <= lo[i] || hi[i] <= region->base);
        lo[known] = region->base;
        hi[known++] = region->limit;
        pp_pool_destroy(own);
    }
}

START_TEST(addresses_keep_their_rule)
{
    ck_assert_ptr_nonnull(dlopen("libunwind.so.8", RTLD_NOW));
    reuse_addresses();
    end_child(fork_child(reuse_addresses));
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("fork");
    tcase_set_timeout(tcase, 30);
    tcase_add_loop_test(tcase, a_child_runs_what_it_inherited_and_writes_its_own, PP_WX_AUTO,
                        PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, a_child_is_not_disturbed, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, spans_younger_than_the_children_go_at_once, PP_WX_AUTO,
                        PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, any_number_of_children_is_seen, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, grandchildren_count, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, programs_are_not_children, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_loop_test(tcase, forks_in_the_middle_of_everything, PP_WX_AUTO, PP_WX_RWX + 1);
    tcase_add_test(tcase, addresses_keep_their_rule);
    Suite *suite = suite_create("fork");
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
