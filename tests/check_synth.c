/* SPDX-License-Identifier: MIT */
/*
 * Code synthesized for recorded traces does what was recorded.  It is linked
 * here by the page-per-trace linker, so that the library's own is not needed
 * to see that.
 */
#include <config.h>

#include "stress/pages.h"
#include "stress/perform.h"
#include "stress/recording.h"
#include "stress/synth.h"

#include <check.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SYMBOLS_MAX = 128 };

static char error[512];

/* Link and run every trace of a recording in one form; returns how many sites were moved. */
static unsigned perform_recording(const struct recording *recording, enum stress_form form,
                                  bool all_far)
{
    struct targets targets;
    struct performer performer;
    struct synth synth;
    unsigned moved = 0;
    pp_symbol *symbols = calloc(recording->symbol_count + 1, sizeof *symbols);
    ck_assert_ptr_nonnull(symbols);
    ck_assert(targets_create(&targets, recording->symbol_count));
    ck_assert(performer_init(&performer, &targets));
    ck_assert(synth_init(&synth, recording->symbol_count));
    for (size_t i = 0; i < recording->trace_count; i++) {
        struct pages pages;
        if (!synth_trace(&synth, recording, &recording->traces[i], form, symbols, &targets, error,
                         sizeof error))
            ck_abort_msg("%s", error);
        moved += synth.moved;
        ck_assert_uint_eq(synth.code_size, recording->traces[i].code);
        ck_assert(pages_link(&pages, &synth, &targets, all_far));
        if (!perform(&performer, &synth, pages.base, error, sizeof error))
            ck_abort_msg("%s: trace %u: %s", recording->path, recording->traces[i].id, error);
        ck_assert(performer_idle(&performer));
        ck_assert(perform_data(&synth, pages.base, pages.data));
        pages_free(&pages);
    }
    synth_free(&synth);
    performer_free(&performer);
    targets_destroy(&targets);
    free(symbols);
    return moved;
}

static const enum recording_arch host_arch =
#if defined __x86_64__
    RECORDING_X86_64;
#else
    RECORDING_AARCH64;
#endif

/* The recordings are performed at the recorded offsets when they are of this machine. */
START_TEST(shipped_recordings)
{
    const char *directory = getenv("PP_STRESS_RECORDINGS");
    char pattern[4096];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/*.rec", directory != NULL ? directory : "stress/recordings");
    ck_assert_int_eq(glob(pattern, 0, NULL, &found), 0);
    ck_assert_uint_ge(found.gl_pathc, 10);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct recording recording;
        if (!recording_read(found.gl_pathv[i], &recording, error, sizeof error))
            ck_abort_msg("%s", error);
        unsigned moved = perform_recording(&recording, _i & 1 ? FORM_GOT : FORM_PLT, _i & 2);
        if (recording.arch == host_arch && _i % 2 == 0)
            ck_assert_msg(moved == 0, "%s: %u sites moved", recording.path, moved);
        recording_free(&recording);
    }
    globfree(&found);
}
END_TEST

/* ---- layouts that no shipped recording has ------------------------------------------------ */

/* Read a recording from text. */
static bool read_text(struct recording *recording, const char *arch, const char *body)
{
    char path[] = "/tmp/check_synth.XXXXXX";
    int file = mkstemp(path);
    ck_assert_int_ge(file, 0);
    dprintf(file, "patchpoint-recording 1\narch %s\nsymbol 7 -1\nsymbol 8 18446744073709551615\n"
            "symbol 9 0\n%send\n", arch, body);
    close(file);
    bool good = recording_read(path, recording, error, sizeof error);
    unlink(path);
    return good;
}

static const struct layout {
    const char *arch, *body;
    bool dense_x86_64, dense_aarch64;   /* is refused on that machine, in plt form */
} layouts[] = {
    /* nothing but sites, from the first byte to the last */
    { "x86_64", "trace 0 code 18 data 0 trampolines 0 uops 0 sites 3\nC 2 7\nC 8 8\nC 14 7\n", 0, 0 },
    { "x86_64", "trace 0 code 18 data 0 trampolines 0 uops 0 sites 3\nJ 2 7\nJ 8 8\nJ 14 7\n", 0, 0 },
    { "x86_64", "trace 0 code 24 data 9 trampolines 0 uops 0 sites 4\nC 2 7\nJ 8 8\nC 14 7\nJ 20 9\n", 0, 0 },
    { "x86_64", "trace 0 code 23 data 9 trampolines 0 uops 0 sites 3\nD 3 7\nD 10 8\nD 17 9\n", 0, 1 },
    { "x86_64", "trace 0 code 25 data 9 trampolines 0 uops 0 sites 4\nC 2 9\nD 9 7\nJ 15 8\nC 21 9\n", 0, 0 },
    { "x86_64", "trace 0 code 9 data 1 trampolines 0 uops 0 sites 1\nD 3 7\n", 0, 1 },
    { "x86_64", "trace 0 code 8 data 1 trampolines 0 uops 0 sites 1\nD 3 7\n", 1, 1 },
    { "aarch64", "trace 0 code 12 data 0 trampolines 0 uops 0 sites 3\nC 0 7\nJ 4 8\nC 8 7\n", 1, 0 },
    { "aarch64", "trace 0 code 20 data 3 trampolines 0 uops 0 sites 3\nC 8 7\nJ 12 8\nC 16 7\n", 0, 0 },
    { "aarch64", "trace 0 code 20 data 3 trampolines 0 uops 0 sites 3\nC 0 7\nJ 4 8\nJ 8 7\n", 0, 0 },
    /* every number of bytes behind a last call, jump and load */
    { "x86_64", "trace 0 code 13 data 8 trampolines 0 uops 0 sites 2\nJ 2 7\nC 8 8\n", 0, 0 },
    { "x86_64", "trace 0 code 14 data 8 trampolines 0 uops 0 sites 2\nJ 2 7\nC 8 8\n", 0, 0 },
    { "x86_64", "trace 0 code 15 data 8 trampolines 0 uops 0 sites 2\nC 2 7\nJ 8 8\n", 0, 0 },
    { "x86_64", "trace 0 code 33 data 8 trampolines 0 uops 0 sites 2\nD 9 7\nD 22 8\n", 0, 0 },
    { "x86_64", "trace 0 code 34 data 8 trampolines 0 uops 0 sites 2\nD 9 7\nD 23 8\n", 0, 0 },
    { "x86_64", "trace 0 code 35 data 8 trampolines 0 uops 0 sites 2\nD 9 7\nD 23 8\n", 0, 0 },
    { "aarch64", "trace 0 code 40 data 8 trampolines 0 uops 0 sites 2\nD 8 7\nD 24 8\n", 0, 0 },
    /* room for a prologue, or one byte less */
    { "x86_64", "trace 0 code 40 data 8 trampolines 0 uops 0 sites 1\nC 8 7\n", 0, 0 },
    { "x86_64", "trace 0 code 40 data 8 trampolines 0 uops 0 sites 1\nC 7 7\n", 0, 0 },
    { "aarch64", "trace 0 code 16 data 8 trampolines 0 uops 0 sites 1\nC 12 7\n", 0, 0 },
    { "aarch64", "trace 0 code 16 data 8 trampolines 0 uops 0 sites 1\nC 8 7\n", 0, 0 },
    /* no sites; not even room for a way out */
    { "x86_64", "trace 0 code 1 data 0 trampolines 0 uops 0 sites 0\n", 0, 0 },
    { "x86_64", "trace 0 code 2 data 0 trampolines 0 uops 0 sites 0\n", 0, 0 },
    { "x86_64", "trace 0 code 8 data 5 trampolines 0 uops 0 sites 0\n", 0, 0 },
    { "x86_64", "trace 0 code 20 data 5 trampolines 0 uops 0 sites 0\n", 0, 0 },
    { "x86_64", "trace 0 code 4097 data 4095 trampolines 0 uops 0 sites 0\n", 0, 0 },
    /* sites that are not in order */
    { "x86_64", "trace 0 code 60 data 5 trampolines 0 uops 0 sites 3\nC 40 7\nJ 2 8\nD 20 9\n", 0, 0 },
    /* gaps of one byte more each */
    { "x86_64", "trace 0 code 120 data 5 trampolines 0 uops 0 sites 9\nC 2 7\nJ 9 7\nC 17 7\nJ 26 7\n"
      "C 36 7\nJ 47 7\nC 59 7\nJ 72 8\nC 116 9\n", 0, 0 },
    /* far away */
    { "x86_64", "trace 0 code 1000000 data 70000 trampolines 0 uops 0 sites 3\nC 2 7\nD 500000 8\n"
      "J 999996 9\n", 0, 0 },
};

START_TEST(hard_layouts)
{
    const struct layout *layout = &layouts[_i];
    struct recording recording;
    if (!read_text(&recording, layout->arch, layout->body))
        ck_abort_msg("%s", error);
#if defined __x86_64__
    bool dense = layout->dense_x86_64;
#else
    bool dense = layout->dense_aarch64;
#endif
    if (!dense) {
        perform_recording(&recording, FORM_PLT, false);
        perform_recording(&recording, FORM_PLT, true);
    } else {
        struct targets targets;
        struct synth synth;
        pp_symbol symbols[4] = { 0 };
        ck_assert(targets_create(&targets, 3));
        ck_assert(synth_init(&synth, 3));
        ck_assert(!synth_trace(&synth, &recording, recording.traces, FORM_PLT, symbols, &targets,
                               error, sizeof error));
        ck_assert_msg(strstr(error, ":6: trace 0 is too dense") != NULL, "%s", error);
        synth_free(&synth);
        targets_destroy(&targets);
    }
    recording_free(&recording);
}
END_TEST

/* The checks can fail: a call to another symbol, a call too few, another load, changed data. */
START_TEST(mistakes)
{
    static const char body[] = "trace 0 code 200 data 40 trampolines 0 uops 0 sites 3\n"
                               "C 60 7\nC 90 8\nD 120 9\n";
    struct recording recording;
    struct targets targets;
    struct performer performer;
    struct synth synth;
    struct pages pages;
    pp_symbol symbols[SYMBOLS_MAX] = { 0 };
    ck_assert(read_text(&recording, "x86_64", body));
    ck_assert(targets_create(&targets, 3));
    ck_assert(performer_init(&performer, &targets));
    ck_assert(synth_init(&synth, 3));
    ck_assert(synth_trace(&synth, &recording, recording.traces, FORM_PLT, symbols, &targets, error,
                          sizeof error));
    uint32_t use = synth.reloc_uses[1];
    for (size_t i = 0; i < synth.reloc_count; i++)
        if (_i == 0 && synth.reloc_uses[i] == 1)
            synth.reloc_uses[i] = 0;
    if (_i == 1)
        synth.uses[0].reached++;
    if (_i == 2)
        synth.sum++;
    ck_assert(pages_link(&pages, &synth, &targets, false));
    bool good = perform(&performer, &synth, pages.base, error, sizeof error);
    ck_assert_msg(good == (_i > 2), "mistake %d was %s", _i, good ? "not seen" : error);
    if (_i == 3) {
        ck_assert(perform_data(&synth, pages.base, pages.data));
        synth.data[39] ^= 1;
        ck_assert(!perform_data(&synth, pages.base, pages.data));
    }
    ck_assert(performer_idle(&performer));
    performer.counters[use] = 1;
    ck_assert(!performer_idle(&performer));
    pages_free(&pages);
    synth_free(&synth);
    performer_free(&performer);
    targets_destroy(&targets);
    recording_free(&recording);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("synth");
    TCase *test_case = tcase_create("synth");
    tcase_set_timeout(test_case, 30);
    tcase_add_loop_test(test_case, shipped_recordings, 0, 4);
    tcase_add_loop_test(test_case, hard_layouts, 0, sizeof layouts / sizeof layouts[0]);
    tcase_add_loop_test(test_case, mistakes, 0, 4);
    suite_add_tcase(suite, test_case);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
