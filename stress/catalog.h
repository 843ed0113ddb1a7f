/* SPDX-License-Identifier: MIT */
/* The recordings to replay: those of the command line, or those that come with the program. */
#ifndef STRESS_CATALOG_H
#define STRESS_CATALOG_H

#include <stdbool.h>
#include <stddef.h>

struct catalog {
    char **paths;      /* sorted by name when they were searched for */
    size_t count;
    char tried[1024];  /* where was looked, when nothing was found */
};

/* False: no memory, or nothing was found.  The caller frees the catalog in both cases. */
bool catalog_open(struct catalog *catalog, char *const *files, size_t file_count);

void catalog_close(struct catalog *catalog);

#endif
