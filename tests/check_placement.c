/* SPDX-License-Identifier: MIT */
/* Placement: where regions go, between mappings that do their best to be in the way. */
#include <config.h>

#include "isa/isa.h"
#include "memory/claim.h"
#include "memory/placement.h"
#include "os/map.h"
#include "os/maps.h"
#include "sanitized.h"
#include "spans.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((uintptr_t) 1 << 20)
#define GIB ((uintptr_t) 1 << 30)

static uint64_t random_state(void)
{
    return seed() * 0x9e3779b97f4a7c15u + 1;
}

static struct frame_rule rule_of(unsigned number)
{
    return (struct frame_rule){ .kind = PP_FRAME_RECORD, .cfa_offset = 16,
                                .saves = { .slots = 1, .saved = 1, .offset = -16 - 8 * (int) number } };
}

/* ---- the list of mappings --------------------------------------------- */

struct wanted {
    uintptr_t lo, hi;
    unsigned seen;
    struct maps_line line;
    char name[64];
};

static void see_wanted(const struct maps_line *line, void *context)
{
    struct wanted *wanted = context;
    if (line->lo != wanted->lo || line->hi != wanted->hi)
        return;
    wanted->seen++;
    wanted->line = *line;
    snprintf(wanted->name, sizeof wanted->name, "%s", line->name);
}

START_TEST(lines_of_the_list_are_read)
{
    size_t page = map_page_size();
    int fd = memfd_create("one [two] three", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(fd, (off_t) (4 * page)), 0);
    char *room = mmap(NULL, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *file = mmap(room + page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                      (off_t) (2 * page));
    ck_assert_ptr_eq(file, room + page);
    struct wanted wanted = { .lo = (uintptr_t) file, .hi = (uintptr_t) file + page };
    ck_assert_int_eq(maps_read(see_wanted, &wanted), 0);
    ck_assert_uint_eq(wanted.seen, 1);
    ck_assert(wanted.line.read && wanted.line.write && !wanted.line.execute && wanted.line.shared);
    ck_assert_uint_eq(wanted.line.offset, 2 * page);
    ck_assert_uint_ne(wanted.line.inode, 0);
    ck_assert_msg(strstr(wanted.name, "memfd:one [two] three") != NULL, "%s", wanted.name);
    wanted = (struct wanted){ .lo = (uintptr_t) room, .hi = (uintptr_t) room + page };
    ck_assert_int_eq(maps_read(see_wanted, &wanted), 0);
    if (wanted.seen == 1) /* else it is one with what lies below it */
        ck_assert(!wanted.line.read && !wanted.line.write && !wanted.line.shared);
    close(fd);
}
END_TEST

START_TEST(a_list_that_cannot_be_read_is_an_errno)
{
    struct wanted wanted = { 0 };
    errno = 77;
    struct rlimit none = { 0, 0 };
    if (is_emulated() || SANITIZED) /* which reads its own list at the end */
        return;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    ck_assert_int_eq(maps_read(see_wanted, &wanted), EMFILE);
    ck_assert_int_eq(errno, 77);
}
END_TEST

/* ---- gaps ------------------------------------------------------------- */

struct found {
    struct gap gaps[4096];
    size_t count;
    uintptr_t stack_lo;
};

static void see_found(struct gap gap, void *context)
{
    struct found *found = context;
    if (found->count < sizeof found->gaps / sizeof *found->gaps)
        found->gaps[found->count++] = gap;
}

static void see_overlap(const struct maps_line *line, void *context)
{
    struct found *found = context;
    for (size_t i = 0; i < found->count; i++)
        require(line->hi <= found->gaps[i].lo || line->lo >= found->gaps[i].hi);
    if (strcmp(line->name, "[stack]") == 0)
        found->stack_lo = line->lo;
}

/* None holds a mapping, or what the heap and the stack grow into. */
static void check_gaps(void)
{
    static struct found found;
    memset(&found, 0, sizeof found);
    ck_assert_int_eq(gap_scan(2 * MIB, see_found, &found), 0);
    ck_assert_uint_gt(found.count, 0);
    ck_assert_int_eq(maps_read(see_overlap, &found), 0);
    uintptr_t heap = (uintptr_t) sbrk(0);
    for (size_t i = 0; i < found.count; i++) {
        const struct gap *gap = &found.gaps[i];
        require(gap->hi - gap->lo >= 2 * MIB);
        require(gap->hi <= (uintptr_t) 1 << GAP_ADDRESS_BITS);
        require(gap->hi <= heap || gap->lo >= heap + 32 * MIB || is_emulated());
        require(found.stack_lo == 0 || gap->lo >= found.stack_lo ||
                gap->hi <= found.stack_lo - 256 * MIB || is_emulated());
    }
}

START_TEST(gaps_leave_room_for_what_grows)
{
    check_gaps();
    struct rlimit large = { 1 << 30, RLIM_INFINITY };
    if (is_emulated() || setrlimit(RLIMIT_STACK, &large) != 0)
        return;
    static struct found found;
    ck_assert_int_eq(gap_scan(2 * MIB, see_found, &found), 0);
    ck_assert_int_eq(maps_read(see_overlap, &found), 0);
    for (size_t i = 0; i < found.count; i++)
        require(found.gaps[i].lo >= found.stack_lo || found.gaps[i].hi <= found.stack_lo - GIB);
}
END_TEST

/* Sum of what lies in [lo, hi). */
struct within {
    uintptr_t lo, hi;
    size_t bytes;
};

static void see_within(const struct maps_line *line, void *context)
{
    struct within *within = context;
    uintptr_t lo = line->lo > within->lo ? line->lo : within->lo;
    uintptr_t hi = line->hi < within->hi ? line->hi : within->hi;
    within->bytes += hi > lo ? hi - lo : 0;
}

static size_t mapped_within(uintptr_t lo, uintptr_t hi)
{
    struct within within = { lo, hi, 0 };
    ck_assert_int_eq(maps_read(see_within, &within), 0);
    return within.bytes;
}

/* For the alignment more is mapped at first: that goes, and nothing of the neighbours. */
START_TEST(a_place_anywhere_is_aligned_and_no_larger)
{
    enum { PLACES = 8 };
    const size_t size = 2 * MIB, align = 32 * MIB;
    uintptr_t at[PLACES], probe;
    const size_t before = mapped_within(0, UINTPTR_MAX);
    ck_assert_int_eq(map_reserve_anywhere(4096, 4096, &probe), 0); /* what comes is not aligned */
    for (unsigned i = 0; i < PLACES; i++) {
        ck_assert_int_eq(map_reserve_anywhere(size, align, &at[i]), 0);
        ck_assert_uint_eq(at[i] % align, 0);
        for (unsigned j = 0; j <= i; j++)
            ck_assert_uint_eq(mapped_within(at[j], at[j] + size), size);
    }
    ck_assert_uint_eq(mapped_within(probe, probe + 4096), 4096);
    ck_assert_uint_le(mapped_within(0, UINTPTR_MAX) - before, PLACES * size + 8 * MIB);
    for (unsigned i = 0; i < PLACES; i++)
        map_unmap(at[i], size);
    map_unmap(probe, 4096);
}
END_TEST

/* ---- choosing --------------------------------------------------------- */

static struct placement placement;

static void set_gaps(struct anchors *anchors, const struct gap *gaps, size_t count)
{
    memset(&placement, 0, sizeof placement);
    placement.anchors = anchors;
    placement.claim = &no_rule;
    memcpy(placement.gaps[0][0], gaps, count * sizeof *gaps);
}

START_TEST(the_place_with_the_shortest_way_to_the_farthest_anchor_wins)
{
    struct anchors anchors = { .at = { 10 * GIB }, .count = 1, .reach = 2 * GIB };
    const struct gap gaps[] = { { 2 * GIB, 9 * GIB }, { 10 * GIB + 512 * MIB, 20 * GIB },
                                { 40 * GIB, 50 * GIB } };
    uintptr_t base;
    set_gaps(&anchors, gaps, 3);
    ck_assert(placement_find(&placement, 64 * MIB, true, &base));
    ck_assert_uint_eq(base, 10 * GIB + 512 * MIB);
    placement_exclude(&placement, base, 64 * MIB);
    ck_assert(placement_find(&placement, 64 * MIB, true, &base));
    ck_assert_uint_eq(base, 10 * GIB + 576 * MIB);
    /* In the gap below, the place that ends at its end. */
    placement_exclude(&placement, 10 * GIB, 10 * GIB);
    ck_assert(placement_find(&placement, 64 * MIB, true, &base));
    ck_assert_uint_eq(base, 9 * GIB - 64 * MIB);
    placement_exclude(&placement, 8 * GIB, GIB);
    ck_assert(!placement_find(&placement, 64 * MIB, true, &base));
    ck_assert(placement_find(&placement, 64 * MIB, false, &base));
    ck_assert_uint_eq(base, 8 * GIB - 64 * MIB);
}
END_TEST

/* From the middle of a gap something is cut out: the longer part stays, below or above. */
START_TEST(the_longer_part_of_a_gap_remains)
{
    struct anchors anchors = { .at = { 8 * GIB }, .count = 1, .reach = 16 * GIB };
    const struct gap gap = { 2 * GIB, 9 * GIB };
    uintptr_t base;
    set_gaps(&anchors, &gap, 1);
    placement_exclude(&placement, 7 * GIB, GIB);
    ck_assert(placement_find(&placement, 64 * MIB, PLACEMENT_ANY, &base));
    ck_assert_uint_eq(base, 7 * GIB - 64 * MIB);
    placement_exclude(&placement, 3 * GIB, GIB);
    ck_assert(placement_find(&placement, 3 * GIB, PLACEMENT_ANY, &base));
    ck_assert_uint_eq(base, 4 * GIB);
}
END_TEST

START_TEST(an_anchor_within_a_gap_is_in_the_middle_of_the_region)
{
    struct anchors anchors = { .at = { 10 * GIB, 10 * GIB + 20 * MIB }, .count = 2,
                               .reach = 2 * GIB };
    const struct gap gap = { 2 * GIB, 20 * GIB };
    uintptr_t base;
    set_gaps(&anchors, &gap, 1);
    ck_assert(placement_find(&placement, 64 * MIB, true, &base));
    ck_assert_uint_eq(base, 10 * GIB - 22 * MIB);
    ck_assert_uint_eq(placement_reach(&anchors, base, base + 64 * MIB), 42 * MIB);
}
END_TEST

static uintptr_t found(enum placement_need need)
{
    uintptr_t base;
    return placement_find(&placement, 64 * MIB, need, &base) ? base : 0;
}

START_TEST(the_first_anchor_counts_more_than_all_others)
{
    struct anchors anchors = { .at = { 100 * GIB, 10 * GIB, 11 * GIB, 101 * GIB }, .count = 3,
                               .reach = 2 * GIB };
    const struct gap gaps[] = { { 2 * GIB, 200 * GIB }, { 0, 0 } };
    uintptr_t base;
    set_gaps(&anchors, gaps, 1);
    ck_assert_uint_eq(found(PLACEMENT_NEAR), 0);
    ck_assert_uint_eq(found(PLACEMENT_FIRST), 100 * GIB - 32 * MIB);
    ck_assert_uint_eq(found(PLACEMENT_ANY), 100 * GIB - 32 * MIB);
    ck_assert_uint_eq(placement_missed(&anchors, 100 * GIB, 100 * GIB + MIB), 6);
    /* Of the places that reach it, the one that reaches another one, too. */
    anchors.count = 4;
    ck_assert_uint_eq(found(PLACEMENT_ANY), 100 * GIB + 512 * MIB - 32 * MIB);
    /* Not to be had near the first: most of the others. */
    set_gaps(&anchors, (struct gap[]){ { 2 * GIB, 50 * GIB }, { 101 * GIB, 200 * GIB } }, 1);
    ck_assert_uint_eq(found(PLACEMENT_FIRST), 0);
    ck_assert_uint_eq(found(PLACEMENT_ANY), 10 * GIB + 512 * MIB - 32 * MIB);
    /* One against one: the first. */
    set_gaps(&anchors, gaps, 1);
    anchors.count = 2;
    ck_assert_uint_eq(found(PLACEMENT_ANY), 100 * GIB - 32 * MIB);
    /* The earlier of those that exclude each other. */
    anchors.count = 3;
    anchors.at[1] = 101 * GIB + 800 * MIB;
    anchors.at[2] = 97 * GIB + 500 * MIB;
    base = found(PLACEMENT_ANY);
    ck_assert_uint_eq(placement_missed(&anchors, base, base + 64 * MIB), 4);
    anchors.at[1] = 10 * GIB;
    anchors.count = 2;
    /* None in reach: as close to the first as can be. */
    anchors.reach = 16 * MIB;
    ck_assert(placement_find(&placement, 64 * MIB, false, &base));
    ck_assert_uint_eq(base, 100 * GIB - 32 * MIB);
}
END_TEST

/* With real gaps: one of 8 MiB in reach of the first anchor, and much room near the others. */
START_TEST(a_smaller_region_near_the_first_anchor_is_better_than_a_larger_one)
{
    const size_t reach = (size_t) isa_host.branch_range, room = 2 * reach + 64 * MIB;
    uintptr_t wall, others;
    char reason[160];
    struct span span;
    pp_pool *pool;
    if (is_emulated()) /* its own mappings are in the way */
        return;
    ck_assert_int_eq(map_reserve_anywhere(4 * GIB + room, PLACEMENT_ALIGN, &others), 0);
    ck_assert_int_eq(map_reserve_anywhere(room, PLACEMENT_ALIGN, &wall), 0);
    uintptr_t first = (wall + room / 2) & -PLACEMENT_ALIGN;
    ck_assert_int_eq(map_unmap(first + 16 * MIB, 8 * MIB), 0);
    ck_assert_int_eq(map_unmap(others + 1 * GIB, GIB), 0);
    uintptr_t second = others + GIB + 512 * MIB;
    pp_pool_options options = { .size = sizeof options, .error = &error,
                                .near = { (void *) first, (void *) second,
                                          (void *) (second + MIB) } };
    if (second - first < room && first - second < room)
        return; /* by chance they are neighbours */
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    ck_assert_uint_eq(span.region->base, first + 16 * MIB);
    ck_assert_uint_eq(span.region->limit, first + 24 * MIB);
    ck_assert(!span.region->near);
    ck_assert_uint_eq(stats_of(pool).fallbacks[PP_FALLBACK_FAR], 1);
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_FAR, reason, sizeof reason), PP_OK);
    printf("far: %s\n", reason);
    ck_assert_ptr_nonnull(strstr(reason, "near[0] is in reach"));
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(anchors_at_the_ends_of_the_address_space)
{
    const uintptr_t top = (uintptr_t) 1 << GAP_ADDRESS_BITS, ends[] = { 1, 4096, top - 1 };
    const struct gap gaps[] = { { 2 * MIB, 300 * MIB }, { top - 300 * MIB, top } };
    uintptr_t base;
    for (unsigned i = 0; i < 3; i++) {
        struct anchors anchors = { .at = { ends[i] }, .count = 1, .reach = 2 * GIB };
        set_gaps(&anchors, gaps, 2);
        ck_assert(placement_find(&placement, 64 * MIB, true, &base));
        ck_assert_uint_eq(base, i < 2 ? 2 * MIB : top - 64 * MIB);
        /* Where nothing of the kind can be had. */
        ck_assert(!placement_find(&placement, 512 * MIB, false, &base));
    }
    for (unsigned i = 0; i < 3; i++) {
        pp_pool_options options = { .size = sizeof options, .near = { (void *) ends[i] },
                                    .error = &error };
        pp_pool *pool;
        struct span span;
        ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
        ck_assert_int_eq(take(pool, 100, &span), PP_OK);
        verify(pool);
        pp_pool_destroy(pool);
    }
}
END_TEST

START_TEST(a_seed_draws_places_from_all_gaps)
{
    const struct gap gaps[] = { { 2 * GIB, 3 * GIB }, { 40 * GIB, 50 * GIB } };
    struct anchors anchors = { .at = { GIB }, .count = 1, .reach = 4 * GIB, .random = random_state() };
    uint64_t first = anchors.random;
    uintptr_t bases[64], base;
    unsigned low = 0;
    set_gaps(&anchors, gaps, 2);
    for (unsigned i = 0; i < 64; i++) {
        ck_assert(!placement_find(&placement, 64 * MIB, true, &base));
        ck_assert(placement_find(&placement, 64 * MIB, false, &bases[i]));
        require(bases[i] % PLACEMENT_ALIGN == 0);
        require((bases[i] >= 2 * GIB && bases[i] <= 3 * GIB - 64 * MIB) ||
                (bases[i] >= 40 * GIB && bases[i] <= 50 * GIB - 64 * MIB));
        low += bases[i] < 3 * GIB;
    }
    ck_assert_uint_gt(low, 8);
    ck_assert_uint_lt(low, 56);
    anchors.random = first;
    for (unsigned i = 0; i < 64; i++) {
        ck_assert(placement_find(&placement, 64 * MIB, false, &base));
        require(base == bases[i]);
    }
}
END_TEST

/* ---- claims ----------------------------------------------------------- */

#define CELLS 512

START_TEST(claims_agree_with_a_model)
{
    static int model[CELLS]; /* the rule of each MiB, -1: none */
    uintptr_t origin = 5 * GIB, from, to;
    uint64_t state = random_state();
    for (unsigned i = 0; i < CELLS; i++)
        model[i] = -1;
    for (unsigned round = 0; round < 20000; round++) {
        unsigned lo = (unsigned) (next_random(&state) % CELLS);
        unsigned hi = lo + 1 + (unsigned) (next_random(&state) % 8);
        int number = (int) (next_random(&state) % 5);
        struct frame_rule rule = rule_of((unsigned) number);
        hi = hi > CELLS ? CELLS : hi;
        unsigned clash = hi;
        bool held = true;
        for (unsigned i = hi; i-- > lo;) {
            clash = model[i] >= 0 && model[i] != number ? i : clash;
            held &= model[i] == number;
        }
        uintptr_t a = origin + lo * MIB, b = origin + hi * MIB;
        require(claim_holds(a, b, &rule) == held);
        require(claim_conflict(a, b, &rule, &from, &to) == (clash < hi));
        require(clash == hi || (from <= origin + clash * MIB && to > origin + clash * MIB));
        /* Few claims at a time, so that there is something left to clash and to join. */
        if (round % 8 != 0)
            continue;
        require(claim_add(a, b, &rule) == (clash == hi));
        for (unsigned i = lo; i < hi && clash == hi; i++)
            model[i] = number;
        const char *broken = claim_verify();
        ck_assert_msg(broken == NULL, "%s", broken);
    }
}
END_TEST

START_TEST(many_claims_cost_little)
{
    struct timespec before, after;
    struct frame_rule odd = rule_of(1), even = rule_of(2);
    uintptr_t top = GIB, from, to;
    clock_gettime(CLOCK_MONOTONIC, &before);
    for (unsigned i = 0; i < 10000; i++) /* by turns, so that none can be joined */
        require(claim_add(top - (i + 1) * 4096, top - i * 4096, i % 2 == 0 ? &even : &odd));
    ck_assert(claim_conflict(top - 10000 * 4096, top, &even, &from, &to));
    clock_gettime(CLOCK_MONOTONIC, &after);
    double seconds = (double) (after.tv_sec - before.tv_sec) +
                     1e-9 * (double) (after.tv_nsec - before.tv_nsec);
    printf("10000 claims: %.3f s\n", seconds);
    ck_assert_ptr_null(claim_verify());
}
END_TEST

/* ---- scripts ---------------------------------------------------------- */

/* Free, and below what the kernel will give out next. */
static uintptr_t free_place(size_t size)
{
    uintptr_t base;
    ck_assert_int_eq(map_reserve_anywhere(size + GIB, PLACEMENT_ALIGN, &base), 0);
    ck_assert_int_eq(map_unmap(base, size + GIB), 0);
    return base;
}

START_TEST(scripted_bases_are_taken_in_order)
{
    struct frame_rule other = rule_of(7), mine = rule_of(8);
    uintptr_t place = free_place(32 * MIB), taken = place, claimed = place + 8 * MIB;
    uintptr_t first = place + 16 * MIB, second = place + 24 * MIB;
    const uintptr_t bases[] = { 0, first + 4096, first + MIB, UINTPTR_MAX, -(2 * MIB),
                                (uintptr_t) 1 << GAP_ADDRESS_BITS, taken, claimed, first, second };
    struct span a, b, c;
    pp_pool *pool;
    ck_assert_int_eq(map_reserve(taken + 2 * MIB, map_page_size()), 0);
    ck_assert(claim_add(claimed, claimed + MIB, &other));
    pp_pool_options options = { .size = sizeof options, .region_bytes = 4 * MIB,
                                .placement = bases, .placement_count = 10, .error = &error,
                                .unwinders = PP_UNWIND_LIBUNWIND };
    ck_assert_ptr_nonnull(dlopen("libunwind.so.8", RTLD_NOW));
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    /* Nothing is told of the first region yet; nobody has claimed what it lies on. */
    ck_assert_int_eq(take(pool, 100, &a), PP_OK);
    ck_assert_int_eq(take_with(pool, &other, 100, 16, &b), PP_OK);
    ck_assert_int_eq(take_with(pool, &mine, 100, 16, &c), PP_OK);
    ck_assert_uint_eq(a.region->base, first);
    ck_assert_uint_eq(b.region->base, second);
    ck_assert_uint_ne(c.region->base, 0); /* at the end of the script, as ever */
    ck_assert_uint_eq(stats_of(pool).regions, 3);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(far_and_near_are_had_on_demand)
{
    char reason[160];
    uintptr_t near = free_place(8 * MIB), far = near;
    /* Not in reach of this: half of the address space away, and free in all likelihood. */
    far = near > 64 * GIB ? near / 2 & -PLACEMENT_ALIGN : near + 16 * GIB;
    const uintptr_t bases[] = { far, near };
    pp_pool_options options = { .size = sizeof options, .near = { (void *) (near + MIB) },
                                .region_bytes = 8 * MIB, .placement = bases,
                                .placement_count = 2, .error = &error,
                                .unwinders = PP_UNWIND_LIBGCC };
    struct frame_rule other = rule_of(3);
    struct span a, b;
    pp_pool *pool;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_int_eq(take(pool, 100, &a), PP_OK);
    pp_pool_stats stats = stats_of(pool);
    ck_assert_uint_eq(a.region->base, far);
    ck_assert(!a.region->near);
    ck_assert_uint_eq(stats.near_regions, 0);
    ck_assert_uint_eq(stats.fallbacks[PP_FALLBACK_FAR], 1);
    ck_assert_uint_eq(stats.fallbacks[PP_FALLBACK_SMALL], 0);
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_FAR, reason, sizeof reason), PP_OK);
    printf("far: %s\n", reason);
    ck_assert_ptr_nonnull(strstr(reason, "script"));
    ck_assert_int_eq(take_with(pool, &other, 100, 16, &b), PP_OK);
    ck_assert_uint_eq(b.region->base, near);
    ck_assert(b.region->near);
    ck_assert_uint_eq(stats_of(pool).near_regions, 1);
    ck_assert_uint_eq(stats_of(pool).fallbacks[PP_FALLBACK_FAR], 1);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(seeded_pools_work_wherever_they_are)
{
    uint64_t state = random_state();
    for (unsigned i = 0; i < 20; i++) {
        pp_pool_options options = { .size = sizeof options, .region_bytes = 8 * MIB,
                                    .placement_seed = next_random(&state), .error = &error,
                                    .unwinders = PP_UNWIND_LIBGCC };
        struct span spans[3];
        pp_pool *pool;
        ck_assert_msg(pp_pool_create(&options, &pool) == PP_OK, "%s", error.text);
        for (unsigned j = 0; j < 3; j++) {
            struct frame_rule rule = rule_of(j);
            ck_assert_int_eq(take_with(pool, &rule, 1000, 16, &spans[j]), PP_OK);
        }
        verify(pool);
        pp_pool_destroy(pool);
    }
}
END_TEST

START_TEST(pools_that_follow_each_other_take_the_same_place)
{
    struct frame_rule rules[2] = { rule_of(20), rule_of(21) };
    uintptr_t bases[2] = { 0 };
    for (unsigned i = 0; i < (is_emulated() ? 10 : 100); i++) {
        pp_pool *pool = open_telling(PP_WX_AUTO, _i == 0 ? PP_UNWIND_LIBGCC : PP_UNWIND_LIBUNWIND);
        for (unsigned j = 0; j < 2; j++) {
            struct span span;
            ck_assert_int_eq(take_with(pool, &rules[j], 100, 16, &span), PP_OK);
            if (i == 0)
                bases[j] = span.region->base;
            ck_assert_uint_eq(span.region->base, bases[j]);
        }
        pp_pool_destroy(pool);
    }
}
END_TEST

/* ---- hostile processes ------------------------------------------------ */

START_TEST(sixty_thousand_mappings_are_no_obstacle)
{
    size_t page = map_page_size(), made = 0, count = is_emulated() ? 5000 : 60000;
    struct timespec before, after;
    struct span span;
    pp_pool *pool;
    /* Every other page of some room, so that they cannot merge. */
    uintptr_t base = 0;
    for (size_t i = 0; i < count; i++, made++) {
        if (i % 500 == 0)
            base = free_place((1000 * page + 2 * MIB) & -PLACEMENT_ALIGN);
        if (map_reserve(base + i % 500 * 2 * page, page) != 0)
            break;
    }
    clock_gettime(CLOCK_MONOTONIC, &before);
    pp_pool_options options = { .size = sizeof options, .near = { (void *) random_state },
                                .error = &error };
    ck_assert_msg(pp_pool_create(&options, &pool) == PP_OK, "%s", error.text);
    clock_gettime(CLOCK_MONOTONIC, &after);
    printf("a pool among %zu mappings: %.1f ms\n", made,
           1e3 * (double) (after.tv_sec - before.tv_sec) +
               1e-6 * (double) (after.tv_nsec - before.tv_nsec));
    ck_assert_int_eq(take(pool, 100, &span), PP_OK);
    ck_assert(span.region->near);
    ck_assert_uint_eq(span.region->limit - span.region->base, 64 * MIB);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

static void *open_and_take(void *argument)
{
    pp_pool_options options = { .size = sizeof options, .near = { (void *) random_state },
                                .region_bytes = 8 * MIB };
    pp_pool **pool = argument;
    struct span span;
    require(pp_pool_create(&options, pool) == PP_OK);
    require(take(*pool, 100, &span) == PP_OK);
    require(span.region->near);
    require(span.region->limit - span.region->base == 8 * MIB);
    return NULL;
}

START_TEST(pools_that_are_opened_at_once_are_all_near)
{
    enum { THREADS = 8 };
    for (unsigned round = 0; round < 10; round++) {
        pthread_t threads[THREADS];
        pp_pool *pools[THREADS] = { NULL };
        for (unsigned i = 0; i < THREADS; i++)
            ck_assert_int_eq(pthread_create(&threads[i], NULL, open_and_take, &pools[i]), 0);
        for (unsigned i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        for (unsigned i = 0; i < THREADS; i++) {
            verify(pools[i]);
            pp_pool_destroy(pools[i]);
        }
    }
}
END_TEST

/* ---- nothing is probed while compiling -------------------------------- */

#define ALLOW(call) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* From here on every system call kills, but what puts memory behind pages. */
static bool only_backing(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_madvise),
        ALLOW(SYS_fallocate),
        ALLOW(SYS_newfstatat), /* is the descriptor still ours? */
        ALLOW(SYS_fstat),
        ALLOW(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

static int child_that_compiles(pp_pool *pool, bool forbidden)
{
    static struct span spans[400];
    /* In a pass before, the bookkeeping gets its own memory. */
    for (unsigned pass = 0; pass < 2; pass++) {
        if (pass == 1 && !only_backing())
            return 77;
        for (unsigned i = 0; i < 400; i++) {
            if (take(pool, 100 + i * (1 + 3 * pass), &spans[i]) != PP_OK)
                return 1;
        }
        for (unsigned i = 0; i < 400; i++) {
            if (pool_free(pool, spans[i].exec) != PP_OK)
                return 2;
        }
    }
    if (forbidden)
        getppid();
    return 0;
}

START_TEST(allocating_asks_the_kernel_for_nothing_but_memory)
{
    pp_pool_options options = { .size = sizeof options, .wx = PP_WX_DUAL, .error = &error };
    struct span span;
    pp_pool *pool;
    int status;
    for (unsigned forbidden = 0; forbidden < 2; forbidden++) {
        pid_t child = fork();
        if (child == 0) {
            if (SANITIZED || pp_pool_create(&options, &pool) != PP_OK ||
                take(pool, 100, &span) != PP_OK)
                _exit(77);
            syscall(SYS_exit_group, child_that_compiles(pool, forbidden != 0));
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
            printf("system calls cannot be forbidden here; not tested\n");
            return;
        }
        if (forbidden == 0)
            ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", status);
        else
            ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "status 0x%x", status);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("placement");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 30);
    tcase_add_test(all, lines_of_the_list_are_read);
    tcase_add_test(all, a_place_anywhere_is_aligned_and_no_larger);
    tcase_add_test(all, a_list_that_cannot_be_read_is_an_errno);
    tcase_add_test(all, gaps_leave_room_for_what_grows);
    tcase_add_test(all, the_place_with_the_shortest_way_to_the_farthest_anchor_wins);
    tcase_add_test(all, the_longer_part_of_a_gap_remains);
    tcase_add_test(all, an_anchor_within_a_gap_is_in_the_middle_of_the_region);
    tcase_add_test(all, the_first_anchor_counts_more_than_all_others);
    tcase_add_test(all, a_smaller_region_near_the_first_anchor_is_better_than_a_larger_one);
    tcase_add_test(all, anchors_at_the_ends_of_the_address_space);
    tcase_add_test(all, a_seed_draws_places_from_all_gaps);
    tcase_add_test(all, claims_agree_with_a_model);
    tcase_add_test(all, many_claims_cost_little);
    tcase_add_test(all, scripted_bases_are_taken_in_order);
    tcase_add_test(all, far_and_near_are_had_on_demand);
    tcase_add_test(all, seeded_pools_work_wherever_they_are);
    tcase_add_loop_test(all, pools_that_follow_each_other_take_the_same_place, 0, 2);
    tcase_add_test(all, sixty_thousand_mappings_are_no_obstacle);
    tcase_add_test(all, pools_that_are_opened_at_once_are_all_near);
    tcase_add_test(all, allocating_asks_the_kernel_for_nothing_but_memory);
    suite_add_tcase(suite, all);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
