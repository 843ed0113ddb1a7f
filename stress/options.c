/* SPDX-License-Identifier: MIT */
/* The command line of pp-stress: every value is checked, and errors say what was expected. */
#include <config.h>

#include "stress/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { OPTION_CHURN = 256, OPTION_FORM, OPTION_WX, OPTION_LIVE, OPTION_FAULT };

static const struct option long_options[] = {
    { "seed", required_argument, NULL, 's' },
    { "threads", required_argument, NULL, 't' },
    { "seconds", required_argument, NULL, 'T' },
    { "iterations", required_argument, NULL, 'n' },
    { "json", required_argument, NULL, 'j' },
    { "quiet", no_argument, NULL, 'q' },
    { "churn", no_argument, NULL, OPTION_CHURN },
    { "form", required_argument, NULL, OPTION_FORM },
    { "wx", required_argument, NULL, OPTION_WX },
    { "live", required_argument, NULL, OPTION_LIVE },
    { "fault", required_argument, NULL, OPTION_FAULT },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 }
};

static const char usage[] =
    "Usage: pp-stress [OPTION]... SCENARIO [FILE]...\n"
    "Stress libpatchpoint: run code through it and check everything that it promises.\n"
    "\n"
    "Options:\n"
    "  -s, --seed=N         repeat the run that printed this seed\n"
    "  -t, --threads=N      threads, 1 to 1024\n"
    "  -T, --seconds=N      repeat, or stop early, to run for about N seconds\n"
    "  -n, --iterations=N   iterations of the scenario; of replay: passes over each file\n"
    "  -j, --json=FILE      write the results to FILE; - is standard output\n"
    "  -q, --quiet          print failures and the seed only\n"
    "      --churn          replay: also free and link traces again at random\n"
    "      --form=FORM      replay: calls by relative branch (plt) or through a literal (got)\n"
    "      --wx=MODE        how code memory is written: auto, dual, remap, flip or rwx\n"
    "      --live=N         memory: so many traces at a time, instead of spans that come and go\n"
    "      --fault=SCRIPT   faults: requests that fail, such as mmap:3,metadata:5+2=ENOMEM\n"
    "  -h, --help           print this help and exit\n"
    "  -V, --version        print the version and exit\n"
    "\n"
    "Scenarios:\n";

static const char epilogue[] =
    "\n"
    "FILE is a recording of a JIT.  Without FILE, replay takes every *.rec file of the\n"
    "first of these directories that exists: $PP_STRESS_RECORDINGS; stress/recordings in\n"
    "the build tree that the program runs from; ../share/libpatchpoint/recordings beside\n"
    "the program's directory; the directory of the installation.\n"
    "\n"
    "Exit status: 0 if nothing went wrong, 1 if something did, 2 for a usage error.\n";

void options_hint(void)
{
    fputs("Try 'pp-stress --help'.\n", stderr);
}

/* A whole number, decimal or with 0x; nothing before or behind it. */
static bool parse_number(const char *option, const char *text, uint64_t lo, uint64_t hi,
                         uint64_t *value)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 0);
    if (!isdigit((unsigned char) text[0]) || *end != '\0' || errno != 0 || number < lo ||
        number > hi) {
        fprintf(stderr, "pp-stress: --%s: '%s' is not a number from %llu to %llu\n", option, text,
                (unsigned long long) lo, (unsigned long long) hi);
        return false;
    }
    *value = number;
    return true;
}

static bool parse_seconds(const char *text, double *value)
{
    char *end = NULL;
    double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(seconds) || seconds <= 0 || seconds > 1e6) {
        fprintf(stderr, "pp-stress: --seconds: '%s' is not a time from above 0 to 1000000\n",
                text);
        return false;
    }
    *value = seconds;
    return true;
}

/* The index of a word in a list that ends with NULL, or -1 with an error. */
static int parse_word(const char *option, const char *text, const char *const words[])
{
    for (int i = 0; words[i] != NULL; i++)
        if (strcmp(text, words[i]) == 0)
            return i;
    fprintf(stderr, "pp-stress: --%s: '%s' is none of", option, text);
    for (int i = 0; words[i] != NULL; i++)
        fprintf(stderr, "%s %s", i == 0 ? "" : ",", words[i]);
    fputc('\n', stderr);
    return -1;
}

static bool parse_script(const char *text, struct stress_options *options)
{
    pp_fault script[PP_FAULT_ROWS];
    size_t count;
    pp_error error = { .size = sizeof error };
    if (pp_fault_parse(text, script, PP_FAULT_ROWS, &count, &error) != PP_OK) {
        fprintf(stderr, "pp-stress: --fault: %s\n", error.text);
        return false;
    }
    options->fault = text;
    return true;
}

static bool parse_option(int letter, struct stress_options *options)
{
    static const char *const forms[] = { "plt", "got", NULL };
    static const char *const modes[] = { "auto", "dual", "remap", "flip", "rwx", NULL };
    uint64_t number;
    int word;
    switch (letter) {
    case 's':
        return parse_number("seed", optarg, 0, UINT64_MAX, &options->seed);
    case 't':
        if (!parse_number("threads", optarg, 1, 1024, &number))
            return false;
        options->threads = (unsigned) number;
        return true;
    case 'T':
        return parse_seconds(optarg, &options->seconds);
    case 'n':
        return parse_number("iterations", optarg, 1, UINT64_MAX, &options->iterations);
    case 'j':
        options->json = optarg;
        return true;
    case 'q':
        options->quiet = true;
        return true;
    case OPTION_CHURN:
        options->churn = true;
        return true;
    case OPTION_FORM:
        word = parse_word("form", optarg, forms);
        options->form = (enum stress_form) word;
        return word >= 0;
    case OPTION_WX:
        word = parse_word("wx", optarg, modes);
        options->wx = (pp_wx) word;
        return word >= 0;
    case OPTION_LIVE:
        return parse_number("live", optarg, 1, 100000000, &options->live);
    case OPTION_FAULT:
        return parse_script(optarg, options);
    default:
        return false; /* getopt has said what is wrong */
    }
}

/* Short enough to be typed again, and different in every run. */
static uint64_t choose_seed(void)
{
    uint32_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = (uint32_t) stress_clock();
    return seed;
}

enum options_result options_parse(int argc, char **argv, struct stress_options *options,
                                  const char **name)
{
    *options = (struct stress_options) { .seed = choose_seed() };
    static char program[] = "pp-stress"; /* the build tree's wrapper has another name */
    argv[0] = program;
    for (int letter; (letter = getopt_long(argc, argv, "s:t:T:n:j:qhV", long_options, NULL)) != -1;) {
        if (letter == 'h') {
            fputs(usage, stdout);
            scenarios_describe();
            fputs(epilogue, stdout);
            return OPTIONS_DONE;
        }
        if (letter == 'V') {
            puts("pp-stress (" PACKAGE_NAME ") " PACKAGE_VERSION);
            return OPTIONS_DONE;
        }
        if (!parse_option(letter, options)) {
            options_hint();
            return OPTIONS_BAD;
        }
    }
    if (optind == argc) {
        fputs("pp-stress: no scenario given\n", stderr);
        options_hint();
        return OPTIONS_BAD;
    }
    *name = argv[optind];
    options->files = argv + optind + 1;
    options->file_count = (size_t) (argc - optind - 1);
    return OPTIONS_RUN;
}
