/* SPDX-License-Identifier: MIT */
/*
 * Recordings are hostile input: every mistake is refused with the file and the
 * line, and thousands of mutated recordings are read, and synthesized, without
 * a crash.  CHECK_SEED repeats a run, CHECK_ROUNDS makes it longer.
 */
#include <config.h>

#include "stress/random.h"
#include "stress/recording.h"
#include "stress/synth.h"

#include <check.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HEAD "patchpoint-recording 1\narch x86_64\n"
#define SYMBOL HEAD "symbol 0 16\n"
#define TRACE SYMBOL "trace 5 code 40 data 8 trampolines 0 uops 3 sites 2\nC 2 0\nD 20 0\n"

static char path[] = "/tmp/check_recording.XXXXXX";
static char error[512];

static void write_file(const char *bytes, size_t size)
{
    strcpy(path + strlen(path) - 6, "XXXXXX");
    int file = mkstemp(path);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(write(file, bytes, size), (ssize_t) size);
    close(file);
}

/* ---- what is refused, with the line and a part of the message ------------------------------ */

static const struct refusal {
    const char *text;
    unsigned line;
    const char *message;
} refusals[] = {
    { "", 1, "empty" },
    { "\n", 1, "not a recording" },
    { "hello\n", 1, "not a recording" },
    { "patchpoint-recording 2\n", 1, "version 1" },
    { "patchpoint-recording 1 \n", 1, "version 1" },
    { "patchpoint-recording 1", 2, "without an 'end'" },
    { HEAD, 3, "without an 'end'" },
    { HEAD "end\n", 4, "without a trace" },
    { HEAD "en", 3, "no line" },
    { HEAD "\n", 3, "no line" },
    { HEAD "# comment\n", 3, "no line" },
    { HEAD "arch x86_64\n", 3, "second 'arch'" },
    { HEAD "source a\nsource b\n", 4, "second 'source'" },
    { HEAD "anchor 1\nanchor 2\n", 4, "second 'anchor'" },
    { HEAD "anchor x\n", 3, "missing" },
    { HEAD "anchor 99999999999999999999\n", 3, "larger" },
    { "patchpoint-recording 1\narch riscv64\n", 2, "neither" },
    { "patchpoint-recording 1\narch x86_64 \n", 2, "neither" },
    { "patchpoint-recording 1\r\narch x86_64\r\n", 1, "carriage return" },
    { "patchpoint-recording 1\ntrace 0 code 9 data 0 trampolines 0 uops 0 sites 0\nend\n", 2,
      "before the 'arch'" },
    { HEAD "symbol\n", 3, "missing" },
    { HEAD "symbol \n", 3, "missing" },
    { HEAD "symbol 0\n", 3, "missing" },
    { HEAD "symbol 0 \n", 3, "missing" },
    { HEAD "symbol 0 1 2\n", 3, "follows" },
    { HEAD "symbol 0 1 \n", 3, "follows" },
    { HEAD "symbol 0  1\n", 3, "missing" },
    { HEAD "symbol -1 1\n", 3, "missing" },
    { HEAD "symbol 0 0x10\n", 3, "not a number" },
    { HEAD "symbol 0 --1\n", 3, "missing" },
    { HEAD "symbol 4294967296 1\n", 3, "larger" },
    { HEAD "symbol 0 18446744073709551616\n", 3, "larger" },
    { HEAD "symbol 0 -9223372036854775809\n", 3, "larger" },
    { SYMBOL "symbol 0 17\n", 4, "twice" },
    { SYMBOL "C 2 0\n", 4, "complete" },
    { SYMBOL "trace 0\n", 4, "'code' is missing" },
    { SYMBOL "trace 0 code 1 data 1 trampolines 1 sites 1 uops 1\n", 4, "'uops' is missing" },
    { SYMBOL "trace 0 code 1 data 1 trampolines 1 uops 1 sites\n", 4, "missing" },
    { SYMBOL "trace 0 code 1 data 1 trampolines 1 uops 1 sites 0 x\n", 4, "follows" },
    { SYMBOL "trace 0 code 0 data 1 trampolines 1 uops 1 sites 0\n", 4, "without code" },
    { SYMBOL "trace 0 code -1 data 1 trampolines 1 uops 1 sites 0\n", 4, "missing" },
    { SYMBOL "trace 0 code 16777217 data 1 trampolines 1 uops 1 sites 0\n", 4, "larger" },
    { SYMBOL "trace 0 code 1 data 16777217 trampolines 1 uops 1 sites 0\n", 4, "larger" },
    { SYMBOL "trace 0 code 1 data 1 trampolines 4294967296 uops 1 sites 0\n", 4, "larger" },
    { SYMBOL "trace 0 code 18446744073709551617 data 1 trampolines 1 uops 1 sites 0\n", 4, "larger" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 16777217\n", 4, "larger" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 17\n", 4, "do not fit" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\n", 5, "ends within" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 2\nC 2 0\nend\n", 6, "has 1 sites" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\nX 2 0\n", 5, "has 0 sites" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\nC 2\n", 5, "missing" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\nC 2 0 0\n", 5, "follows" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\nC 2 1\n", 5, "not known" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\nC -2 0\n", 5, "missing" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\nC 1 0\n", 5, "outside" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\nC 97 0\n", 5, "outside" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\nC 4294967295 0\n", 5, "outside" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 1\nC 4294967296 0\n", 5, "larger" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 2\nC 2 0\nC 7 0\n", 6, "overlap" },
    { SYMBOL "trace 0 code 100 data 1 trampolines 1 uops 1 sites 2\nC 2 0\nC 2 0\n", 6, "overlap" },
    { SYMBOL "trace 0 code 99 data 1 trampolines 1 uops 1 sites 3\nC 9 0\nC 30 0\nJ 14 0\n", 7, "overlap" },
    { TRACE "C 30 0\nend\n", 7, "complete" },
    { TRACE "trace 5 code 40 data 8 trampolines 0 uops 3 sites 0\n", 7, "twice" },
    { TRACE "free 5\ntrace 5 code 40 data 8 trampolines 0 uops 3 sites 0\n", 8, "twice" },
    { TRACE "free 4\n", 7, "not known" },
    { TRACE "free 5\nfree 5\n", 8, "freed twice" },
    { TRACE "free\n", 7, "missing" },
    { TRACE "free 5 5\n", 7, "follows" },
    { TRACE "free 4294967301\n", 7, "larger" },
    { TRACE "end\nend\n", 8, "follows the 'end'" },
    { TRACE "end\n\n", 8, "follows the 'end'" },
    { TRACE "end \n", 7, "follows" },
    { TRACE "end x\n", 7, "follows" },
    { TRACE "END\n", 7, "no line" },
    { TRACE, 7, "without an 'end'" },
    { "patchpoint-recording 1\narch aarch64\nsymbol 0 0\n"
      "trace 0 code 64 data 0 trampolines 0 uops 1 sites 1\nC 62 0\n", 5, "outside" },
    { "patchpoint-recording 1\narch aarch64\nsymbol 0 0\n"
      "trace 0 code 64 data 0 trampolines 0 uops 1 sites 1\nC 6 0\n", 5, "not the start" },
};

START_TEST(mistakes_are_refused_with_their_line)
{
    const struct refusal *refusal = &refusals[_i];
    struct recording recording;
    char where[64];
    write_file(refusal->text, strlen(refusal->text));
    bool good = recording_read(path, &recording, error, sizeof error);
    unlink(path);
    ck_assert_msg(!good, "not refused: %s", refusal->text);
    snprintf(where, sizeof where, "%s:%u: ", path, refusal->line);
    ck_assert_msg(strncmp(error, where, strlen(where)) == 0, "not line %u: %s", refusal->line,
                  error);
    ck_assert_msg(strstr(error, refusal->message) != NULL, "not '%s': %s", refusal->message,
                  error);
    ck_assert_ptr_null(recording.traces);
    ck_assert_ptr_null(recording.path);
}
END_TEST

START_TEST(bytes_that_are_no_text)
{
    struct recording recording;
    static char line[RECORDING_LINE_MAX + 64];
    static const char zero[] = HEAD "source a\0b\n";
    write_file(zero, sizeof zero - 1);
    ck_assert(!recording_read(path, &recording, error, sizeof error));
    ck_assert_msg(strstr(error, ":3: a zero byte") != NULL, "%s", error);
    unlink(path);

    /* The longest line that is allowed, and one byte more. */
    for (int extra = 0; extra < 2; extra++) {
        size_t n = (size_t) sprintf(line, HEAD "source ");
        size_t length = RECORDING_LINE_MAX - 7 + (size_t) extra;
        char *text = malloc(n + length + sizeof "\n");
        ck_assert_ptr_nonnull(text);
        memcpy(text, line, n);
        memset(text + n, '\x1b', length);
        text[n + length] = '\n';
        write_file(text, n + length + 1);
        free(text);
        ck_assert(!recording_read(path, &recording, error, sizeof error));
        ck_assert_msg(strstr(error, extra ? ":3: the line is longer" : ":4: the file ends") != NULL,
                      "%s", error);
        unlink(path);
    }
}
END_TEST

START_TEST(files_that_are_no_files)
{
    struct recording recording;
    ck_assert(!recording_read("/", &recording, error, sizeof error));
    ck_assert_msg(strstr(error, "/: Is a directory") != NULL, "%s", error);
    ck_assert(!recording_read("/nonexistent/file", &recording, error, sizeof error));
    ck_assert_msg(strstr(error, "/nonexistent/file: No such file") != NULL, "%s", error);
    ck_assert(!recording_read("/dev/zero", &recording, error, sizeof error));
    ck_assert_msg(strstr(error, "/dev/zero:1: ") != NULL, "%s", error);
    ck_assert(!recording_read("/dev/null", &recording, error, sizeof error));
    ck_assert_msg(strstr(error, "/dev/null:1: the file is empty") != NULL, "%s", error);
    write_file(TRACE "end\n", sizeof TRACE + 3);
    ck_assert_int_eq(chmod(path, 0), 0);
    if (geteuid() != 0) {
        ck_assert(!recording_read(path, &recording, error, sizeof error));
        ck_assert_msg(strstr(error, "Permission denied") != NULL, "%s", error);
    }
    unlink(path);
    /* The error is cut, never written beyond its end. */
    char small[8] = "1234567";
    ck_assert(!recording_read("/dev/null", &recording, small, 4));
    ck_assert_str_eq(small + 4, "567");
}
END_TEST

/* ---- what is read ---------------------------------------------------------------------------- */

START_TEST(everything_is_kept)
{
    static const char text[] =
        "patchpoint-recording 1\narch aarch64\nsource a\x1b[31mb\nanchor -5\n"
        "symbol 4294967295 -9223372036854775808\nsymbol 3 18446744073709551615\n"
        "trace 9 code 64 data 7 trampolines 32 uops 4294967295 sites 3\n"
        "J 40 3\nC 0 4294967295\nD 60 3\nfree 9\n"
        "trace 7 code 1 data 0 trampolines 0 uops 0 sites 0\nend";
    struct recording r;
    write_file(text, sizeof text - 1);
    ck_assert_msg(recording_read(path, &r, error, sizeof error), "%s", error);
    unlink(path);
    ck_assert_str_eq(r.path, path);
    ck_assert_str_eq(r.source, "a?[31mb");
    ck_assert_int_eq(r.arch, RECORDING_AARCH64);
    ck_assert_uint_eq(r.symbol_count, 2);
    ck_assert_uint_eq(r.symbols[0].offset, (uint64_t) 1 << 63);
    ck_assert_uint_eq(r.symbols[1].offset, UINT64_MAX);
    ck_assert_uint_eq(r.trace_count, 2);
    ck_assert_uint_eq(r.traces[0].id, 9);
    ck_assert_uint_eq(r.traces[0].code, 64);
    ck_assert_uint_eq(r.traces[0].data, 7);
    ck_assert_uint_eq(r.traces[0].trampolines, 32);
    ck_assert(r.traces[0].freed);
    ck_assert(!r.traces[1].freed);
    ck_assert_uint_eq(r.site_count, 3);
    static const struct { uint32_t offset, symbol, line; enum site_kind kind; } sites[] = {
        { 0, 0, 9, SITE_CALL }, { 40, 1, 8, SITE_JUMP }, { 60, 1, 10, SITE_LOAD }
    };
    for (size_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(r.sites[i].offset, sites[i].offset);
        ck_assert_uint_eq(r.sites[i].symbol, sites[i].symbol);
        ck_assert_uint_eq(r.sites[i].line, sites[i].line);
        ck_assert_int_eq(r.sites[i].kind, sites[i].kind);
    }
    ck_assert_uint_eq(r.event_count, 3);
    ck_assert(!r.events[0].is_free && r.events[1].is_free && !r.events[2].is_free);
    ck_assert_uint_eq(r.events[1].trace, 0);
    ck_assert_uint_eq(r.events[2].trace, 1);
    recording_free(&r);
}
END_TEST

/* Numbers in a file do not make the reader take memory. */
START_TEST(memory_follows_the_lines)
{
    static const char text[] = SYMBOL "trace 0 code 16777216 data 16777216 trampolines 16777216 "
                                      "uops 1 sites 2796202\nC 2 0\n";
    struct recording recording;
    struct rusage before, after;
    write_file(text, sizeof text - 1);
    getrusage(RUSAGE_SELF, &before);
    ck_assert(!recording_read(path, &recording, error, sizeof error));
    getrusage(RUSAGE_SELF, &after);
    unlink(path);
    ck_assert_msg(strstr(error, ":6: the file ends within") != NULL, "%s", error);
    ck_assert_int_le(after.ru_maxrss - before.ru_maxrss, 4096);
}
END_TEST

START_TEST(too_much_is_alive)
{
    /* 16 traces of 16 MiB are as much as may live; freeing one makes room. */
    static const char *const ends[] = {
        "end\n",
        "trace 16 code 1 data 0 trampolines 0 uops 0 sites 0\nend\n",
        "free 3\ntrace 16 code 16777216 data 0 trampolines 0 uops 0 sites 0\nend\n",
    };
    static char text[4096];
    struct recording recording;
    size_t n = (size_t) sprintf(text, HEAD);
    for (unsigned i = 0; i < 16; i++)
        n += (size_t) sprintf(text + n, "trace %u code 8388608 data 8388608 trampolines 0 uops 0 "
                              "sites 0\n", i);
    strcpy(text + n, ends[_i]);
    write_file(text, strlen(text));
    bool good = recording_read(path, &recording, error, sizeof error);
    unlink(path);
    ck_assert_msg(good == (_i != 1), "%s", error);
    if (good)
        recording_free(&recording);
    else
        ck_assert_msg(strstr(error, ":19: more than 268435456 bytes") != NULL, "%s", error);
}
END_TEST

/* ---- mutations of real recordings ------------------------------------------------------------ */

static char *slurp(const char *name, size_t *size)
{
    FILE *file = fopen(name, "re");
    ck_assert_ptr_nonnull(file);
    char *text = malloc(1 << 20);
    ck_assert_ptr_nonnull(text);
    *size = fread(text, 1, 1 << 20, file);
    fclose(file);
    ck_assert_uint_lt(*size, 1 << 20);
    return text;
}

/* One random change; most of them leave a file that is nearly right. */
static size_t mutate(struct random *random, char *text, size_t size)
{
    static const char bytes[] = "0123456789 -\nCJDtfes\0\xff";
    static const char *const words[] = { "18446744073709551615", "-1", "4294967295", "0",
                                         "16777216", "end\n", "free 0\n", "\n" };
    size_t at = random_below(random, size), n = 1 + random_below(random, 20);
    if (n > size - at)
        n = size - at;
    switch (random_below(random, 6)) {
    case 0: /* another byte */
        text[at] = bytes[random_below(random, sizeof bytes)];
        return size;
    case 1: /* another digit */
        while (at < size && (text[at] < '0' || text[at] > '9'))
            at++;
        if (at < size)
            text[at] = (char) ('0' + random_below(random, 10));
        return size;
    case 2: /* cut short */
        return at;
    case 3: /* something left out */
        memmove(text + at, text + at + n, size - at - n);
        return size - n;
    case 4: { /* something put in */
        const char *word = words[random_below(random, sizeof words / sizeof words[0])];
        n = strlen(word);
        memmove(text + at + n, text + at, size - at);
        memcpy(text + at, word, n);
        return size + n;
    }
    default: { /* something copied to another place */
        size_t from = random_below(random, size - n + 1);
        memmove(text + at, text + from, n);
        return size;
    }
    }
}

/* What was read is consistent, and can be synthesized or is refused. */
static unsigned use_recording(const struct recording *recording)
{
    struct targets targets;
    struct synth synth;
    unsigned refused = 0;
    pp_symbol *symbols = calloc(recording->symbol_count + 1, sizeof *symbols);
    ck_assert_ptr_nonnull(symbols);
    ck_assert(targets_create(&targets, recording->symbol_count));
    ck_assert(synth_init(&synth, recording->symbol_count));
    for (size_t i = 0; i < recording->site_count; i++)
        ck_assert_uint_lt(recording->sites[i].symbol, recording->symbol_count);
    for (size_t i = 0; i < recording->event_count; i++)
        ck_assert_uint_lt(recording->events[i].trace, recording->trace_count);
    for (size_t i = 0; i < recording->trace_count; i++) {
        const struct recorded_trace *trace = &recording->traces[i];
        ck_assert_uint_le(trace->first_site + trace->site_count, recording->site_count);
        refused += !synth_trace(&synth, recording, trace, i & 1 ? FORM_GOT : FORM_PLT, symbols,
                                &targets, error, sizeof error);
    }
    synth_free(&synth);
    targets_destroy(&targets);
    free(symbols);
    return refused;
}

static uint64_t setting_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL && text[0] != '\0' ? strtoull(text, NULL, 0) : otherwise;
}

START_TEST(mutated_recordings)
{
    const char *directory = getenv("PP_STRESS_RECORDINGS");
    char pattern[4096];
    glob_t found;
    uint64_t seed = setting_of("CHECK_SEED", (uint64_t) time(NULL));
    uint64_t rounds = setting_of("CHECK_ROUNDS", 300), read = 0, refused = 0;
    struct random random = random_stream(seed, (uint64_t) _i);
    printf("mutated recordings: CHECK_SEED=%" PRIu64 " case %d\n", seed, _i);
    fflush(stdout);
    snprintf(pattern, sizeof pattern, "%s/*.rec", directory != NULL ? directory : "stress/recordings");
    ck_assert_int_eq(glob(pattern, 0, NULL, &found), 0);
    const char *name = found.gl_pathv[(size_t) _i % found.gl_pathc];
    size_t size;
    char *original = slurp(name, &size), *text = malloc(size + 1024);
    ck_assert_ptr_nonnull(text);
    if (size > 50000)
        rounds /= 20;
    for (uint64_t round = 0; round <= rounds; round++) {
        struct recording recording;
        size_t length = size;
        memcpy(text, original, size);
        /* The last round has no mutation: the original must be read. */
        for (uint64_t n = round < rounds ? 1 + random_below(&random, 4) : 0; n > 0 && length > 0; n--)
            length = mutate(&random, text, length);
        write_file(text, length);
        bool good = recording_read(path, &recording, error, sizeof error);
        unlink(path);
        if (good) {
            read++;
            use_recording(&recording);
            recording_free(&recording);
        } else {
            refused++;
            ck_assert_msg(strncmp(error, path, strlen(path)) == 0, "%s", error);
        }
        ck_assert(good || round < rounds);
    }
    /* The original, and of many mutations some. */
    ck_assert_uint_ge(read, rounds < 100 ? 1 : 2);
    ck_assert_uint_ge(refused, rounds < 100 ? 0 : 2);
    free(original);
    free(text);
    globfree(&found);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("recording");
    TCase *tests = tcase_create("recording");
    tcase_set_timeout(tests, 30);
    tcase_add_loop_test(tests, mistakes_are_refused_with_their_line, 0,
                        sizeof refusals / sizeof refusals[0]);
    tcase_add_test(tests, bytes_that_are_no_text);
    tcase_add_test(tests, files_that_are_no_files);
    tcase_add_test(tests, everything_is_kept);
    tcase_add_test(tests, memory_follows_the_lines);
    tcase_add_loop_test(tests, too_much_is_alive, 0, 3);
    tcase_add_loop_test(tests, mutated_recordings, 0, 20);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
