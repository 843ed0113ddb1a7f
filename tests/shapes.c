/* SPDX-License-Identifier: MIT */
/*
 * Functions of many shapes, for the compiler to make frames for.  The file is compiled
 * several times, with VARIANT a name of its own and other options; the code of each object
 * is in one section, refers to nothing outside, and can be copied anywhere.
 */
#include "shapes.h"

#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)
#define TEXT2(a) #a
#define TEXT(a) TEXT2(a)
#define SECTION __attribute__((section("code_of_" TEXT(VARIANT)), noinline, used))
#define SHAPE static SECTION

/* ---- leaves ----------------------------------------------------------- */

SHAPE long leaf(long a, long b)
{
    return a * 3 + b;
}

SHAPE long leaf_with_array(long n)
{
    volatile long array[24];
    long sum = 0;
    for (int i = 0; i < 24; i++)
        array[i] = n + i;
    for (int i = 0; i < 24; i += 5)
        sum += array[i];
    return sum;
}

SHAPE long leaf_with_branches(long n)
{
    if (n < 0)
        return -n;
    if (n % 3 == 0)
        return n / 3;
    while (n > 100)
        n -= 17;
    return n;
}

SHAPE long leaf_with_many(long a, long b, long c, long d, long e, long f)
{
    long p = a * b, q = c * d, r = e * f, s = a * c, t = b * d, u = e * a, v = f * b;
    for (int i = 0; i < 2; i++) {
        p += q * r;
        q += r * s;
        r += s * t;
        s += t * u;
        t += u * v;
        u += v * p;
        v += p * q;
    }
    return p ^ q ^ r ^ s ^ t ^ u ^ v;
}

/* ---- calls -------------------------------------------------------------- */

SHAPE long calls_once(struct shapes *w, long n)
{
    return w->c(n) + 1;
}

SHAPE long calls_early_exit(struct shapes *w, long n)
{
    if (n & 1)
        return n * 5; /* shrink-wrapping puts this before the frame */
    long a = w->c(n), b = w->c(a + 1);
    return a * b + n;
}

SHAPE long calls_two_exits(struct shapes *w, long n)
{
    for (long i = 0; i < 3; i++) {
        long a = w->c(n + i);
        if (a % 7 == 3)
            return a;
        if (a % 5 == 1)
            return w->c(a) - leaf(a, i);
        w->sink += a;
    }
    return leaf(n, 9);
}

SHAPE long calls_keeping(struct shapes *w, long a, long b, long c)
{
    long d = w->c(a), e = w->c(b), f = w->c(c);
    long g = leaf(d, e), h = leaf(e, f), i = leaf(f, d);
    w->sink = d + e + f;
    return w->c(g + h + i) + a + b + c + d + e + f;
}

SHAPE long calls_with_stack_arguments(long a, long b, long c, long d, long e, long f, long g,
                                      long h, struct shapes *w, long i)
{
    return w->c(a + b + c + d) + e * f + g * h + i;
}

SHAPE long passes_stack_arguments(struct shapes *w, long n)
{
    return calls_with_stack_arguments(n, 1, 2, 3, 4, 5, 6, 7, w, n) + w->c(n);
}

SHAPE long tail(struct shapes *w, long n)
{
    w->sink++;
    return calls_once(w, n + 1);
}

SHAPE long tail_of_c(struct shapes *w, long n)
{
    if (n > 3)
        return w->c(n - 1); /* an indirect one */
    return w->c(w->c(n));
}

SHAPE long tail_with_frame(struct shapes *w, long n)
{
    long a = w->c(n);
    if (a % 2)
        return calls_keeping(w, a, n, 3);
    return leaf(a, n);
}

SHAPE long recursive(struct shapes *w, long n)
{
    if (n <= 0)
        return w->c(1);
    return recursive(w, n - 1) + n * recursive(w, n - 3);
}

SHAPE long mutual_b(struct shapes *w, long n);

SHAPE long mutual_a(struct shapes *w, long n)
{
    return n <= 0 ? leaf(n, 2) : mutual_b(w, n - 1) * 2;
}

SHAPE long mutual_b(struct shapes *w, long n)
{
    return n <= 0 ? w->c(n) : mutual_a(w, n - 2) + 1;
}

/* ---- frames ------------------------------------------------------------- */

SHAPE long with_alloca(struct shapes *w, long n)
{
    volatile long *room = __builtin_alloca((unsigned long) (n & 15) * 16 + 32);
    room[0] = n;
    room[n & 3] = w->c(n);
    return room[0] + w->c(room[1]);
}

SHAPE long with_vla_in_loop(struct shapes *w, long n)
{
    long sum = 0;
    for (long i = 1; i < 4; i++) {
        volatile long room[i * 3 + (n & 3)];
        room[0] = i;
        room[i] = w->c(i);
        sum += room[0] + room[i];
    }
    return sum;
}

SHAPE long with_large_frame(struct shapes *w, long n)
{
    volatile long room[700];
    room[0] = n;
    room[699] = w->c(n);
    return room[0] + room[699];
}

SHAPE long with_very_large_frame(struct shapes *w, long n)
{
    volatile char room[20000];
    room[0] = (char) n;
    room[19999] = (char) w->c(n);
    return room[0] + room[19999];
}

SHAPE long with_aligned(struct shapes *w, long n)
{
    volatile long room[8] __attribute__((aligned(64)));
    room[0] = n;
    room[7] = w->c(n);
    return room[0] + w->c(room[7]) + ((long) (unsigned long) room & 63);
}

SHAPE long with_floats(struct shapes *w, long n)
{
    double a = (double) n, b = (double) w->c(n), c = a * b;
    long d = w->c((long) c);
    return (long) (a + b * c) + d;
}

SHAPE long with_vectors(struct shapes *w, long n)
{
    long v[8], sum = 0;
    for (int i = 0; i < 8; i++)
        v[i] = w->seeds[i];
    for (int i = 0; i < 8; i++)
        v[i] = v[i] * 3 + v[7 - i];
    w->sink = v[3];
    n = w->c(n);
    for (int i = 0; i < 8; i++)
        sum += v[i] ^ n;
    return sum;
}

/* ---- control ------------------------------------------------------------ */

SHAPE long with_switch(struct shapes *w, long n)
{
    switch (n & 7) {
    case 0: return w->c(n);
    case 1: w->sink += 3; /* FALLTHROUGH */
    case 2: return leaf(n, w->sink);
    case 3: return calls_once(w, n) * 2;
    case 4: return 12;
    case 5: n = w->c(n) + w->c(n + 1); break;
    case 6: n = leaf_with_array(n); break;
    default: w->sink = 5;
    }
    return n + 1;
}

SHAPE long with_cold_end(struct shapes *w, long n)
{
    if (__builtin_expect(n > 1000000, 0)) {
        w->leave(w, n);
    }
    long a = w->c(n);
    if (__builtin_expect(a > 1000000, 0)) {
        w->sink = a;
        w->leave(w, a);
    }
    return a + n;
}

/* Never returns: nothing behind its call is its own. */
SHAPE void never_returns(struct shapes *w, long n)
{
    w->sink = leaf(n, 4);
    w->leave(w, w->sink);
}

SHAPE long catches(struct shapes *w, long n)
{
    if (__builtin_expect(n < 0, 0))
        never_returns(w, n);
    return w->c(n) ^ 5;
}

SHAPE long loops(struct shapes *w, long n)
{
    long sum = 0;
    for (long i = 0; i < 3; i++)
        for (long j = i; j < 4; j++) {
            if ((i + j) % 3 == 0)
                continue;
            sum += j % 2 ? leaf(i, j) : w->c(i * j + n);
        }
    do
        sum -= w->c(sum & 3);
    while (--n > 0);
    return sum;
}

SECTION long PASTE(shapes_run_, VARIANT)(struct shapes *w, long n);
extern const char PASTE(__start_code_of_, VARIANT)[], PASTE(__stop_code_of_, VARIANT)[];

SECTION long PASTE(shapes_run_, VARIANT)(struct shapes *w, long n)
{
    long sum = leaf(n, 1) + leaf_with_array(n) + leaf_with_many(n, 2, 3, 4, 5, n);
    sum += leaf_with_branches(-n) + leaf_with_branches(n * 3) + leaf_with_branches(n + 333);
    sum += calls_once(w, n) + calls_early_exit(w, 2 * n) + calls_early_exit(w, 2 * n + 1);
    sum += calls_two_exits(w, n) + calls_keeping(w, n, 2, 3) + passes_stack_arguments(w, n);
    sum += tail(w, n) + tail_of_c(w, 2) + tail_of_c(w, 7) + tail_with_frame(w, n)
           + tail_with_frame(w, n + 1);
    sum += recursive(w, 4) + mutual_a(w, 6);
    sum += with_alloca(w, n) + with_vla_in_loop(w, n) + with_large_frame(w, n)
           + with_very_large_frame(w, n) + with_aligned(w, n);
    sum += with_floats(w, n) + with_vectors(w, n);
    for (long i = 0; i < 8; i++)
        sum += with_switch(w, i);
    sum += with_cold_end(w, n) + catches(w, n) + loops(w, n);
    w->sink = sum;
    if (w->again) /* to the end by way of a function that does not return */
        never_returns(w, n);
    return sum;
}

const struct shapes_code PASTE(shapes_, VARIANT) = {
    TEXT(VARIANT), PASTE(__start_code_of_, VARIANT), PASTE(__stop_code_of_, VARIANT),
    PASTE(shapes_run_, VARIANT)
};

static const struct shapes_code *const entry
    __attribute__((section("shapes_list"), used)) = &PASTE(shapes_, VARIANT);
