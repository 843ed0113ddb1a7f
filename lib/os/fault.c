/* SPDX-License-Identifier: MIT */
/*
 * The script of faults.
 *
 * Readers take no lock: a request may come from any thread, under any lock of the
 * library.  The script is read like a seqlock's data: `version` is odd while it
 * is written, and a reader that meets a change goes as if there were no
 * script.  A count carries the version of the script that it belongs to, so that
 * a call begun under the script before does not count for this one.
 */
#include <config.h>

#include "os/fault.h"

#include "error.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

/* A counter: low bits of the version, and 48 bits of calls. */
#define COUNT_BITS 48
#define COUNT_MASK (((uint64_t) 1 << COUNT_BITS) - 1)

#define ERRNO_MAX 4095 /* the kernel's highest */

enum { COUNTERS = PP_FAULT_CALLS + 1 };

struct row {
    _Atomic uint64_t call_error; /* call in the upper half, errno in the lower */
    _Atomic uint64_t first, last;
};

atomic_bool fault_scripted;

static pthread_mutex_t writer = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t version;     /* odd: the rows are being written, under `writer` */
static struct row rows[PP_FAULT_ROWS];
static _Atomic uint64_t row_count;
static _Atomic uint64_t seen[COUNTERS], hit[COUNTERS];

static const struct { const char *name; int error; } calls[COUNTERS] = {
    [PP_FAULT_MMAP] = { "mmap", ENOMEM },
    [PP_FAULT_MPROTECT] = { "mprotect", ENOMEM },
    [PP_FAULT_MADVISE] = { "madvise", ENOMEM },
    [PP_FAULT_MEMFD_CREATE] = { "memfd_create", EMFILE },
    [PP_FAULT_FTRUNCATE] = { "ftruncate", EFBIG },
    [PP_FAULT_FALLOCATE] = { "fallocate", ENOSPC },
    [PP_FAULT_FCNTL] = { "fcntl", EPERM },
    [PP_FAULT_MEMBARRIER] = { "membarrier", EPERM },
    [PP_FAULT_METADATA] = { "metadata", ENOMEM },
    [PP_FAULT_OPEN] = { "open", EMFILE },
    [PP_FAULT_ANY] = { "any", 0 },
};

/* ---- asking ----------------------------------------------------------- */

static uint64_t tag_of(uint64_t script) { return script << COUNT_BITS; }

/* One more for this script: its number, from 1 on; 0: the script is another. */
static uint64_t count_up(_Atomic uint64_t *counter, uint64_t script)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    do {
        if ((value & ~COUNT_MASK) != tag_of(script))
            return 0;
    } while (!atomic_compare_exchange_weak_explicit(counter, &value, value + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return (value & COUNT_MASK) + 1;
}

/* The errno that the rows say for this call, or 0.  The rows may change meanwhile. */
static int consult(pp_fault_call call, uint64_t of_call, uint64_t of_any)
{
    uint64_t count = atomic_load_explicit(&row_count, memory_order_relaxed);
    for (uint64_t i = 0; i < count && i < PP_FAULT_ROWS; i++) {
        uint64_t what = atomic_load_explicit(&rows[i].call_error, memory_order_relaxed);
        uint64_t first = atomic_load_explicit(&rows[i].first, memory_order_relaxed);
        uint64_t last = atomic_load_explicit(&rows[i].last, memory_order_relaxed);
        bool any = what >> 32 == PP_FAULT_ANY;
        uint64_t number = any ? of_any : of_call;
        if ((!any && what >> 32 != (uint64_t) call) || number < first || number > last)
            continue;
        int error = (int) (uint32_t) what;
        return error != 0 ? error : calls[call].error;
    }
    return 0;
}

bool fault_decide(pp_fault_call call, int *number)
{
    /* Pairs with the release stores of pp_fault_set. */
    uint64_t script = atomic_load_explicit(&version, memory_order_acquire);
    if (script % 2 != 0)
        return false;
    uint64_t of_call = count_up(&seen[call], script);
    uint64_t of_any = count_up(&seen[PP_FAULT_ANY], script);
    int error = of_call != 0 && of_any != 0 ? consult(call, of_call, of_any) : 0;
    /* What consult read is of one script if the version is still the same. */
    atomic_thread_fence(memory_order_acquire);
    if (error == 0 || atomic_load_explicit(&version, memory_order_relaxed) != script)
        return false;
    count_up(&hit[call], script);
    count_up(&hit[PP_FAULT_ANY], script);
    *number = error;
    return true;
}

bool fault_fires_errno(pp_fault_call call)
{
    int number;
    if (!fault_fires(call, &number))
        return false;
    errno = number;
    return true;
}

static uint64_t read_counter(const _Atomic uint64_t *counters, pp_fault_call call)
{
    if ((unsigned) call >= COUNTERS ||
        !atomic_load_explicit(&fault_scripted, memory_order_acquire))
        return 0;
    return atomic_load_explicit(&counters[call], memory_order_relaxed) & COUNT_MASK;
}

uint64_t pp_fault_seen(pp_fault_call call)
{
    return read_counter(seen, call);
}

uint64_t pp_fault_hit(pp_fault_call call)
{
    return read_counter(hit, call);
}

/* ---- setting ---------------------------------------------------------- */

static bool is_right(const pp_fault *fault)
{
    return (unsigned) fault->call < COUNTERS && fault->error >= 0 && fault->error <= ERRNO_MAX &&
           fault->first != 0;
}

static void write_row(struct row *row, const pp_fault *fault)
{
    uint64_t last = fault->first + fault->count - 1;
    if (fault->count == 0 || last < fault->first)
        last = UINT64_MAX;
    uint64_t call = (uint64_t) fault->call << 32;
    atomic_store_explicit(&row->call_error, call | (uint32_t) fault->error, memory_order_relaxed);
    atomic_store_explicit(&row->first, fault->first, memory_order_relaxed);
    atomic_store_explicit(&row->last, last, memory_order_relaxed);
}

pp_status pp_fault_set(const pp_fault *script, size_t count)
{
    if (count > PP_FAULT_ROWS)
        return PP_E_RANGE;
    if (script == NULL && count != 0)
        return PP_E_ARG;
    for (size_t i = 0; i < count; i++) {
        if (!is_right(&script[i]))
            return PP_E_ARG;
    }
    pthread_mutex_lock(&writer);
    uint64_t next = atomic_load_explicit(&version, memory_order_relaxed) + 2;
    atomic_store_explicit(&version, next - 1, memory_order_relaxed);
    /* A reader that sees a row of the new script sees that the version has changed. */
    atomic_thread_fence(memory_order_release);
    for (size_t i = 0; i < count; i++)
        write_row(&rows[i], &script[i]);
    atomic_store_explicit(&row_count, count, memory_order_relaxed);
    for (unsigned i = 0; i < COUNTERS; i++) {
        atomic_store_explicit(&seen[i], tag_of(next), memory_order_relaxed);
        atomic_store_explicit(&hit[i], tag_of(next), memory_order_relaxed);
    }
    atomic_store_explicit(&version, next, memory_order_release);
    atomic_store_explicit(&fault_scripted, count != 0, memory_order_release);
    pthread_mutex_unlock(&writer);
    return PP_OK;
}

/* ---- text ------------------------------------------------------------- */

const char *pp_fault_name(pp_fault_call call)
{
    return (unsigned) call < COUNTERS ? calls[call].name : NULL;
}

/* A piece of the text: up to `end`, which is not part of it. */
struct piece {
    const char *text, *end;
};

/* The piece before the first `mark`; `rest` is what follows, empty if there is no mark. */
static bool cut(struct piece *piece, char mark, struct piece *rest)
{
    const char *at = memchr(piece->text, mark, (size_t) (piece->end - piece->text));
    *rest = (struct piece){ at == NULL ? piece->end : at + 1, piece->end };
    if (at != NULL)
        piece->end = at;
    return at != NULL;
}

static bool equals(struct piece piece, const char *word)
{
    size_t length = (size_t) (piece.end - piece.text);
    return strlen(word) == length && memcmp(piece.text, word, length) == 0;
}

static bool parse_number(struct piece piece, uint64_t most, uint64_t *number)
{
    *number = 0;
    if (piece.text == piece.end)
        return false;
    for (; piece.text < piece.end; piece.text++) {
        unsigned digit = (unsigned) (*piece.text - '0');
        if (digit > 9 || *number > (most - digit) / 10)
            return false;
        *number = *number * 10 + digit;
    }
    return true;
}

static bool parse_call(struct piece piece, pp_fault_call *call)
{
    for (unsigned i = 0; i < COUNTERS; i++) {
        if (equals(piece, calls[i].name)) {
            *call = (pp_fault_call) i;
            return true;
        }
    }
    return false;
}

static bool parse_errno(struct piece piece, int *error)
{
    uint64_t number;
    if (parse_number(piece, ERRNO_MAX, &number)) {
        *error = (int) number;
        return number != 0;
    }
    for (int i = 1; i <= ERRNO_MAX; i++) {
        const char *name = strerrorname_np(i);
        if (name != NULL && equals(piece, name)) {
            *error = i;
            return true;
        }
    }
    return false;
}

/* NULL, or what was expected. */
static const char *parse_item(struct piece item, pp_fault *fault)
{
    struct piece call = item, first, count, error;
    bool has_first = cut(&call, ':', &first);
    if (!parse_call(call, &fault->call))
        return "a call such as mmap or metadata";
    if (!has_first)
        return "CALL:FIRST";
    bool has_error = cut(&first, '=', &error);
    bool has_count = cut(&first, '+', &count);
    if (!parse_number(first, COUNT_MASK, &fault->first) || fault->first == 0)
        return "a number from 1 on behind the colon";
    fault->count = 1;
    if (has_count && equals(count, "*"))
        fault->count = 0;
    else if (has_count && (!parse_number(count, COUNT_MASK, &fault->count) || fault->count == 0))
        return "a number from 1 on, or *, behind the plus sign";
    fault->error = 0;
    if (has_error && !parse_errno(error, &fault->error))
        return "the name or the number of an errno behind the equals sign";
    return NULL;
}

pp_status pp_fault_parse(const char *text, pp_fault *script, size_t capacity, size_t *count,
                         pp_error *error)
{
    pp_fault parsed[PP_FAULT_ROWS];
    size_t items = 0;
    if (text == NULL || count == NULL || (script == NULL && capacity != 0))
        return error_set(error, PP_E_ARG, "no text, or no place for the script");
    struct piece rest = { text, text + strlen(text) };
    for (bool more = true; more; items++) {
        struct piece item = rest;
        more = cut(&item, ',', &rest);
        if (items == capacity || items == PP_FAULT_ROWS)
            return error_set(error, PP_E_RANGE, "more than %zu faults in a script", items);
        const char *expected = parse_item(item, &parsed[items]);
        if (expected != NULL)
            return error_set(error, PP_E_ARG, "'%.*s': expected %s",
                             (int) (item.end - item.text), item.text, expected);
    }
    memcpy(script, parsed, items * sizeof *script);
    *count = items;
    return PP_OK;
}
