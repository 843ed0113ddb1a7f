/* SPDX-License-Identifier: MIT */
/*
 * Handles: no value twice, whatever happened in between; and any value may be passed.
 *
 *      SEED=n          of the random tests (printed)
 */
#include <config.h>

#include "memory/handle.h"
#include "memory/number.h"
#include "memory/state.h"
#include "spans.h"

#include <patchpoint.h>

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static pp_span *take_host(pp_pool *pool, size_t bytes, pp_span_place *place)
{
    pp_span_desc desc = { .size = sizeof desc, .bytes = bytes, .error = &error };
    pp_span *span = NULL;
    *place = (pp_span_place){ .size = sizeof *place };
    pp_status status = pp_span_alloc(pool, &desc, &span, place);
    if (status != PP_OK)
        fprintf(stderr, "%s\n", error.text);
    require(status == PP_OK);
    return span;
}

static pp_trace *link_trace(pp_pool *pool)
{
    uint8_t code[RETURN_BYTES];
    pp_trace_desc desc = { .size = sizeof desc, .code = code, .code_size = sizeof code,
                           .error = &error };
    pp_trace *trace = NULL;
    encode_return(code, 7);
    require(pp_trace_link(pool, &desc, &trace) == PP_OK);
    return trace;
}

static struct region *region_of(const pp_span_place *place)
{
    return region_at((uintptr_t) place->execute);
}

/* As if so many spans had begun in the bucket where the address is that `left` are left, or fewer. */
static void leave_generations(uintptr_t address, uint32_t left)
{
    struct region *region = region_at(address);
    struct span_space *space = &region->spans;
    uint32_t unit = (uint32_t) ((address - region->code_lo) >> space->shift);
    uint32_t most = SPAN_GENERATION_MAX - space->floor - left;
    pthread_mutex_lock(&region->lock);
    uint32_t *births = extents_births(&space->extents, unit_bucket(unit));
    if (*births < most)
        *births = most;
    pthread_mutex_unlock(&region->lock);
}

/* ---- all values that were given out ----------------------------------- */

struct values {
    uintptr_t *each;
    size_t count, room;
};

static void note(struct values *values, const void *handle)
{
    if (values->count == values->room) {
        values->room = values->room * 2 + 1024;
        values->each = realloc(values->each, values->room * sizeof *values->each);
        require(values->each != NULL);
    }
    values->each[values->count++] = (uintptr_t) handle;
}

static int compare(const void *a, const void *b)
{
    uintptr_t left = *(const uintptr_t *) a, right = *(const uintptr_t *) b;
    return (left > right) - (left < right);
}

static void none_is_there_twice(struct values *values)
{
    qsort(values->each, values->count, sizeof *values->each, compare);
    for (size_t i = 0; i < values->count; i++)
        require(values->each[i] != 0 && (i == 0 || values->each[i] != values->each[i - 1]));
    free(values->each);
    *values = (struct values){ 0 };
}

/* ---- one pool --------------------------------------------------------- */

/* More lives of one address than a count of 20 bits tells apart. */
START_TEST(an_old_handle_is_stale_after_a_million_lives)
{
    pp_pool *pool = open_pool(PP_WX_AUTO);
    pp_span_place place;
    pp_token token;
    pp_trace *trace = link_trace(pool);
    ck_assert_int_eq(pp_token_make(pp_trace_entry(trace), &token), PP_OK);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
    pp_span *old = take_host(pool, RETURN_BYTES, &place), *span = old;
    const void *address = place.execute;
    for (unsigned i = 0; i < (1u << 20) + 3; i++) {
        require(pp_span_free(pool, span) == PP_OK);
        span = take_host(pool, RETURN_BYTES, &place);
        require(span != old && place.execute == address);
        require((uintptr_t) span != token.trace);
    }
    ck_assert_int_eq(pp_token_check(&token), PP_E_STALE);
    ck_assert_int_eq(pp_trace_free(pool, trace), PP_E_STALE);
    ck_assert_int_eq(pp_span_free(pool, old), PP_E_STALE);
    ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(a_bucket_without_generations_gives_nothing_out)
{
    enum { LEFT = 1000 };
    struct values values = { 0 };
    pp_span_place place;
    pp_pool *pool = open_pool((pp_wx) _i);
    if (pool == NULL)
        return;
    pp_span *first = take_host(pool, 64, &place), *span = NULL;
    struct region *region = region_of(&place);
    size_t unit = place.unit;
    uintptr_t bucket = ((uintptr_t) place.execute - region->code_lo) / unit / 256;
    leave_generations((uintptr_t) place.execute, LEFT);
    for (unsigned i = 0; i < 2 * LEFT; i++) {
        span = take_host(pool, 64, &place);
        bool inside = ((uintptr_t) place.execute - region->code_lo) / unit / 256 == bucket;
        require(inside == (i < LEFT));
        note(&values, span);
        if (i % 128 == 0 || i == LEFT)
            verify(pool);
        if (i + 1 < 2 * LEFT)
            require(pp_span_free(pool, span) == PP_OK);
    }
    ck_assert_uint_eq(region->spans.closed, 1);
    /* The one that was there all the time is there. */
    pp_span *tail;
    place.size = sizeof place;
    ck_assert_int_eq(pp_span_get_place(first, &place), PP_OK);
    ck_assert_int_eq(pp_span_publish(pool, &first, 1, NULL), PP_OK);
    ck_assert_int_eq(pp_span_split(pool, first, unit, &tail), unit < 64 ? PP_E_NOMEM : PP_E_ARG);
    ck_assert_int_eq(pp_span_shrink(pool, first, 10), PP_OK);
    ck_assert_ptr_eq(pp_span_at(place.execute), first);
    ck_assert_int_eq(pp_span_free(pool, first), PP_OK);
    verify(pool);
    ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
    verify(pool);
    pp_pool_stats stats = stats_of(pool);
    ck_assert_uint_eq(stats.spans, 0);
    ck_assert_uint_eq(stats.used, 0);
    size_t holes = 0;
    for (unsigned i = 0; i < PP_SIZE_CLASSES; i++)
        holes += stats.classes[i].hole_bytes;
    /* Holes: all but the islands, and the bucket that is used up if they do not reach into it. */
    size_t all = region_code_size(region) - (region->island_hi - region->island_lo);
    ck_assert(holes == all || holes == all - 256 * unit);
    none_is_there_twice(&values);
    pp_pool_destroy(pool);
}
END_TEST

/* Pages of a bucket that is used up are idle, and their memory goes back. */
START_TEST(memory_of_closed_buckets_goes_back)
{
    pp_pool_options options = { .size = sizeof options, .idle_bytes = 4096, .error = &error };
    pp_pool *pool;
    pp_span_place place;
    pp_span *spans[256];
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    if (stats_of(pool).wx == PP_WX_FLIP) {
        pp_pool_destroy(pool);
        return;
    }
    for (unsigned i = 0; i < 256; i++) {
        spans[i] = take_host(pool, 4096, &place);
        leave_generations((uintptr_t) place.execute, 1);
    }
    for (unsigned i = 0; i < 256; i++)
        ck_assert_int_eq(pp_span_free(pool, spans[i]), PP_OK);
    for (unsigned i = 0; i < 256; i++)
        spans[i] = take_host(pool, 4096, &place);
    struct region *region = region_of(&place);
    ck_assert_uint_ge(region->spans.closed, 255);
    ck_assert_uint_ge(stats_of(pool).committed, 1 << 20);
    verify(pool);
    for (unsigned i = 0; i < 256; i++)
        ck_assert_int_eq(pp_span_free(pool, spans[i]), PP_OK);
    verify(pool);
    if (!atomic_load(&region->unback_refused))
        ck_assert_uint_le(stats_of(pool).idle, 4096);
    pp_pool_destroy(pool);
}
END_TEST

/* A region in which nothing can begin any more is full, and another is opened. */
START_TEST(a_used_up_region_is_followed_by_another)
{
    struct values values = { 0 };
    pp_pool_options options = { .size = sizeof options, .region_bytes = 2 << 20, .error = &error };
    pp_pool *pool;
    pp_span_place place;
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    note(&values, take_host(pool, 64, &place));
    struct region *first = region_of(&place), *region = first;
    size_t bucket = 256 * place.unit;
    for (unsigned i = 0; region == first; i++) {
        require(i < 4 * (2 << 20) / bucket);
        leave_generations((uintptr_t) place.execute, 2);
        note(&values, take_host(pool, 64, &place));
        region = region_of(&place);
        if (i % 64 == 0)
            verify(pool);
    }
    ck_assert_uint_eq(stats_of(pool).regions, 2);
    ck_assert_uint_ge((size_t) first->spans.closed * bucket, region_code_size(first) / 2);
    for (size_t i = 0; i < values.count; i++)
        ck_assert_int_eq(pp_span_free(pool, (pp_span *) values.each[i]), PP_OK);
    verify(pool);
    for (unsigned i = 0; i < 100; i++) {
        pp_span *span = take_host(pool, 64, &place);
        note(&values, span);
        ck_assert_ptr_ne(region_of(&place), first);
        ck_assert_int_eq(pp_span_free(pool, span), PP_OK);
    }
    uint32_t number = first->numbers[0];
    verify(pool);
    pp_pool_destroy(pool);
    /* Its number is not used again. */
    ck_assert(number_was_used(number, SPAN_GENERATION_MAX));
    for (unsigned i = 0; i < 100; i++) {
        ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
        note(&values, take_host(pool, 64, &place));
        ck_assert_uint_ne(region_of(&place)->numbers[0], number);
        pp_pool_destroy(pool);
    }
    none_is_there_twice(&values);
}
END_TEST

/* ---- pools that come and go ------------------------------------------- */

/* At the same addresses, and with another mode or size in between. */
START_TEST(pools_at_one_address_have_other_handles)
{
    enum { POOLS = 60, EACH = 20 };
    static pp_token tokens[POOLS];
    struct values values = { 0 };
    uintptr_t base = 0;
    for (unsigned i = 0; i < POOLS; i++) {
        pp_pool_options options = { .size = sizeof options, .placement = &base,
                                    .placement_count = base != 0, .error = &error,
                                    .wx = i % 7 == 3 ? PP_WX_FLIP : PP_WX_AUTO,
                                    .region_bytes = (size_t) (i % 5 == 2 ? 2 : 8) << 20 };
        pp_pool *pool;
        pp_span_place place;
        ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
        for (unsigned j = 0; j < EACH; j++) {
            note(&values, take_host(pool, 64, &place));
            pp_trace *trace = link_trace(pool);
            note(&values, trace);
            ck_assert_int_eq(pp_token_make(pp_trace_entry(trace), &tokens[i]), PP_OK);
            if (j % 2 == 0)
                ck_assert_int_eq(pp_trace_free(pool, trace), PP_OK);
        }
        if (base == 0)
            base = region_of(&place)->base;
        ck_assert_uint_eq(region_of(&place)->base, base);
        for (unsigned j = 0; j < i; j++) {
            pp_trace_size size = { .size = sizeof size };
            pp_pin *pin;
            pp_trace *old = (pp_trace *) tokens[j].trace;
            ck_assert_int_eq(pp_token_check(&tokens[j]), PP_E_STALE);
            ck_assert_ptr_null(pp_token_code(&tokens[j]));
            ck_assert_int_eq(pp_token_pin(pool, &tokens[j], &pin), PP_E_STALE);
            ck_assert_int_eq(pp_trace_free(pool, old), PP_E_STALE);
            ck_assert_int_eq(pp_span_free(pool, (pp_span *) old), PP_E_STALE);
            ck_assert_int_eq(pp_trace_get_size(old, &size), PP_E_STALE);
            ck_assert_ptr_null(pp_trace_entry(old));
            place.size = sizeof place;
            ck_assert_int_eq(pp_span_get_place((pp_span *) old, &place), PP_E_STALE);
        }
        verify(pool);
        pp_pool_destroy(pool);
        ck_assert_int_eq(pp_token_check(&tokens[i]), PP_E_STALE);
    }
    none_is_there_twice(&values);
}
END_TEST

/* Generations that a pool has used up are not there for the next. */
START_TEST(a_pool_begins_above_those_before)
{
    pp_span_place place;
    pp_pool *pool = open_pool(PP_WX_AUTO);
    pp_span *span = take_host(pool, 64, &place);
    uint32_t number = (uint32_t) ((uintptr_t) span >> 47), latest = SPAN_GENERATION_MAX / 2 - 5;
    leave_generations((uintptr_t) place.execute, SPAN_GENERATION_MAX - latest);
    pp_pool_destroy(pool);
    ck_assert(number_was_used(number, latest));
    ck_assert(!number_was_used(number, latest + 1));
    pool = open_pool(PP_WX_AUTO);
    span = take_host(pool, 64, &place);
    ck_assert_uint_gt(region_of(&place)->generation_floor, latest - 1);
    ck_assert_uint_gt(code_handle_generation((uintptr_t) span), latest);
    ck_assert_uint_lt(region_of(&place)->generation_floor, SPAN_GENERATION_MAX / 2 + 1);
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

START_TEST(without_numbers_no_region_opens)
{
    static uint32_t numbers[NUMBER_COUNT];
    char reason[200];
    uint32_t floor;
    pp_pool *pool, *early = open_pool(PP_WX_AUTO);
    pp_pool_options options = { .size = sizeof options, .error = &error };
    size_t taken = numbers_take(numbers, NUMBER_COUNT, &floor);
    ck_assert_uint_gt(taken, NUMBER_COUNT / 2);
    ck_assert_uint_eq(numbers_take(numbers, 1, &floor), 0);
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_E_NOMEM);
    ck_assert_msg(strstr(error.text, "no number for handles") != NULL, "%s", error.text);
    /* A pool that has its region goes on until it needs another. */
    pp_span_place place;
    ck_assert_int_eq(pp_span_free(early, take_host(early, 64, &place)), PP_OK);
    pp_span_desc desc = { .size = sizeof desc, .bytes = 20 << 20, .error = &error };
    pp_status status = PP_OK;
    for (unsigned i = 0; status == PP_OK; i++) {
        pp_span *large;
        ck_assert_uint_le(i, 3);
        status = pp_span_alloc(early, &desc, &large, &place);
        ck_assert(i > 0 || status == PP_OK);
    }
    ck_assert_int_eq(status, PP_E_NOMEM);
    ck_assert_uint_eq(stats_of(early).regions, 1);
    verify(early);
    /* As much as there are numbers for. */
    for (unsigned i = 0; i < 4; i++)
        number_give(numbers[i], 0);
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_uint_eq(stats_of(pool).reserved, 8 << 20);
    ck_assert_uint_eq(stats_of(pool).fallbacks[PP_FALLBACK_SMALL], 1);
    ck_assert_int_eq(pp_pool_get_fallback(pool, PP_FALLBACK_SMALL, reason, sizeof reason), PP_OK);
    ck_assert_msg(strstr(reason, "handles have numbers for no more") != NULL, "%s", reason);
    verify(pool);
    pp_pool_destroy(pool);
    for (size_t i = 4; i < taken; i++)
        number_give(numbers[i], 0);
    ck_assert_int_eq(pp_pool_create(&options, &pool), PP_OK);
    ck_assert_uint_gt(stats_of(pool).reserved, 8 << 20);
    pp_pool_destroy(pool);
    pp_pool_destroy(early);
}
END_TEST

/* ---- threads ---------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 6000 };

struct worker {
    pthread_t thread;
    pp_pool *pool;
    struct values values;
    uint64_t random;
};

/* Spans come, are split and go, in buckets that end all the time. */
static void *churn(void *argument)
{
    struct worker *worker = argument;
    pp_span *live[32] = { NULL };
    pp_span_place place;
    for (unsigned i = 0; i < ROUNDS; i++) {
        pp_span **at = &live[next_random(&worker->random) % 32];
        if (*at != NULL)
            require(pp_span_free(worker->pool, *at) == PP_OK);
        *at = take_host(worker->pool, 1 + next_random(&worker->random) % 500, &place);
        note(&worker->values, *at);
        pp_span *tail;
        leave_generations((uintptr_t) place.execute, 20);
        if (place.bytes > place.unit && i % 3 == 0) {
            pp_status status = pp_span_split(worker->pool, *at, place.unit, &tail);
            require(status == PP_OK || status == PP_E_NOMEM);
            if (status == PP_OK) {
                note(&worker->values, tail);
                require(pp_span_free(worker->pool, tail) == PP_OK);
                require(pp_span_free(worker->pool, tail) == PP_E_STALE);
            }
        }
        pp_token token = { (uintptr_t) place.execute, worker->values.each[i / 2] };
        require(pp_token_check(&token) == PP_E_STALE);
    }
    for (unsigned i = 0; i < 32; i++)
        require(live[i] == NULL || pp_span_free(worker->pool, live[i]) == PP_OK);
    return NULL;
}

START_TEST(threads_never_share_a_value)
{
    static struct worker workers[THREADS];
    struct values all = { 0 };
    uint64_t random = seed();
    pp_pool *pool = open_pool(PP_WX_AUTO);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ .pool = pool, .random = random * 8 + i + 1 };
        require(pthread_create(&workers[i].thread, NULL, churn, &workers[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        require(pthread_join(workers[i].thread, NULL) == 0);
        for (size_t j = 0; j < workers[i].values.count; j++)
            note(&all, (void *) workers[i].values.each[j]);
        free(workers[i].values.each);
    }
    verify(pool);
    none_is_there_twice(&all);
    pp_pool_destroy(pool);
}
END_TEST

/* ---- fork ------------------------------------------------------------- */

static void make_more(pp_pool *pool, struct values *values)
{
    pp_span_place place;
    for (unsigned i = 0; i < 200; i++) {
        pp_span *span = take_host(pool, 64 + i, &place);
        note(values, span);
        require(pp_span_get_place(span, &place) == PP_OK);
        require(pp_span_free(pool, span) == PP_OK);
        require(pp_span_get_place(span, &place) == PP_E_STALE);
    }
}

START_TEST(parent_and_child_go_on_by_themselves)
{
    struct values values = { 0 };
    pp_span_place place;
    pp_token token;
    pp_pool *pool = open_pool(PP_WX_AUTO), *other;
    pp_trace *trace = link_trace(pool);
    pp_span *kept = take_host(pool, 64, &place);
    ck_assert_int_eq(pp_token_make(pp_trace_entry(trace), &token), PP_OK);
    make_more(pool, &values);
    note(&values, trace);
    note(&values, kept);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    require(pp_token_check(&token) == PP_OK);
    require(pp_span_get_place(kept, &place) == PP_OK);
    make_more(pool, &values);
    for (unsigned i = 0; i < 3; i++) {
        require(pp_pool_create(NULL, &other) == PP_OK);
        make_more(other, &values);
        pp_pool_destroy(other);
    }
    require(pp_trace_free(pool, trace) == PP_OK);
    require(pp_token_check(&token) == PP_E_STALE);
    require(pp_span_free(pool, kept) == PP_OK);
    make_more(pool, &values);
    pp_pool_destroy(pool);
    require(pp_token_check(&token) == PP_E_STALE);
    require(pp_pool_create(NULL, &other) == PP_OK);
    make_more(other, &values);
    require(pp_token_check(&token) == PP_E_STALE);
    pp_pool_destroy(other);
    none_is_there_twice(&values);
    if (child == 0)
        _exit(0);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

/* ---- nonsense --------------------------------------------------------- */

static const void *literal; /* in a span that is published */

/* Every function that takes a span, a trace or a token, with a value that is none. */
static void refused_everywhere(pp_pool *pool, uintptr_t value)
{
    pp_span *span = (pp_span *) value, *tail;
    pp_trace *trace = (pp_trace *) value;
    pp_span_place place = { .size = sizeof place };
    pp_trace_size size = { .size = sizeof size };
    pp_token token = { value, value };
    pp_patch patch = { .address = literal, .handle = span, .bytes = 8,
                       .protocol = PP_PATCH_LITERAL };
    pp_reservation reservation = { .size = sizeof reservation, .internal = span };
    pp_pin *pin;
    const pp_status statuses[] = {
        pp_span_free(pool, span), pp_span_shrink(pool, span, 1), pp_span_retire(pool, span),
        pp_span_split(pool, span, 16, &tail), pp_span_write(pool, span, &place, NULL),
        pp_span_publish(pool, &span, 1, NULL), pp_span_get_place(span, &place),
        pp_trace_free(pool, trace), pp_trace_retire(pool, trace), pp_trace_get_size(trace, &size),
        pp_token_check(&token), pp_token_pin(pool, &token, &pin),
        pp_trace_abandon(pool, &reservation), 
        value == 0 ? PP_E_ARG : pp_patch_apply(pool, &patch, 1, NULL),
    };
    for (unsigned i = 0; i < sizeof statuses / sizeof *statuses; i++)
        require(statuses[i] == PP_E_STALE || statuses[i] == PP_E_FAULT ||
                statuses[i] == PP_E_ARG || statuses[i] == PP_E_UNSUPPORTED);
    require(pp_trace_entry(trace) == NULL && pp_trace_host(trace) == NULL);
    require(pp_token_code(&token) == NULL);
}

START_TEST(any_value_may_be_passed)
{
    enum { LIVE = 50, RANDOM = 20000 };
    static pp_span *spans[LIVE];
    static pp_trace *traces[LIVE];
    uint64_t random = seed() + 1;
    pp_span_place place;
    pp_pool *gone = open_pool(PP_WX_AUTO), *pool = open_pool(PP_WX_AUTO);
    pp_span *old = take_host(gone, 64, &place);
    pp_pool_destroy(gone);
    for (unsigned i = 0; i < LIVE; i++) {
        spans[i] = take_host(pool, 100, &place);
        ck_assert_int_eq(pp_span_publish(pool, &spans[i], 1, NULL), PP_OK);
        traces[i] = link_trace(pool);
    }
    literal = place.execute;
    refused_everywhere(pool, (uintptr_t) old);
    /* Values next to live ones, of which some may be live, too. */
    for (unsigned bit = 0; bit < 64; bit++) {
        uintptr_t value = (uintptr_t) spans[0] ^ (uintptr_t) 1 << bit;
        bool lives = false;
        for (unsigned i = 0; i < LIVE; i++)
            lives |= value == (uintptr_t) spans[i] || value == (uintptr_t) traces[i];
        if (!lives)
            refused_everywhere(pool, value);
    }
    for (unsigned i = 0; i < RANDOM; i++)
        refused_everywhere(pool, next_random(&random));
    const uintptr_t odd[] = { 0, 1, 16, UINTPTR_MAX, UINTPTR_MAX << 30, (uintptr_t) 1 << 63,
                              (uintptr_t) 1 << 47, ((uintptr_t) 1 << 47) - 1, (uintptr_t) &place,
                              (uintptr_t) place.execute, (uintptr_t) place.write,
                              (uintptr_t) refused_everywhere, (uintptr_t) pool };
    for (unsigned i = 0; i < sizeof odd / sizeof *odd; i++)
        refused_everywhere(pool, odd[i]);
    for (unsigned i = 0; i < LIVE; i++) {
        ck_assert_int_eq(pp_span_get_place(spans[i], &place), PP_OK);
        ck_assert_ptr_nonnull(pp_trace_entry(traces[i]));
    }
    verify(pool);
    pp_pool_destroy(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("handle");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, an_old_handle_is_stale_after_a_million_lives);
    tcase_add_loop_test(tests, a_bucket_without_generations_gives_nothing_out, PP_WX_AUTO,
                        PP_WX_RWX + 1);
    tcase_add_test(tests, memory_of_closed_buckets_goes_back);
    tcase_add_test(tests, a_used_up_region_is_followed_by_another);
    tcase_add_test(tests, pools_at_one_address_have_other_handles);
    tcase_add_test(tests, a_pool_begins_above_those_before);
    tcase_add_test(tests, without_numbers_no_region_opens);
    tcase_add_test(tests, threads_never_share_a_value);
    tcase_add_test(tests, parent_and_child_go_on_by_themselves);
    tcase_add_test(tests, any_value_may_be_passed);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
