/* SPDX-License-Identifier: MIT */
/* The command line of pp-stress. */
#ifndef STRESS_OPTIONS_H
#define STRESS_OPTIONS_H

#include "stress/stress.h"

enum options_result {
    OPTIONS_RUN,   /* go on */
    OPTIONS_DONE,  /* --help or --version was answered */
    OPTIONS_BAD    /* the error is printed */
};

/* `name` receives the scenario's name.  The seed is chosen here when none is given. */
enum options_result options_parse(int argc, char **argv, struct stress_options *options,
                                  const char **name);

/* Print the hint that follows every usage error. */
void options_hint(void);

/* The list of scenarios for --help, in stress.c. */
void scenarios_describe(void);

#endif
