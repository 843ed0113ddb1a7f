/* SPDX-License-Identifier: MIT */
/*
 * Where recordings are: the first directory that exists and has one, of
 *   $PP_STRESS_RECORDINGS, which then is the only one;
 *   stress/recordings beside the program, for a build tree;
 *   ../share/libpatchpoint/recordings beside it, for an installation that was moved;
 *   the directory that the program was configured with.
 */
#include <config.h>

#include "stress/catalog.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool append(struct catalog *catalog, const char *path)
{
    char **paths = realloc(catalog->paths, (catalog->count + 1) * sizeof *paths);
    if (paths == NULL)
        return false;
    catalog->paths = paths;
    paths[catalog->count] = strdup(path);
    return paths[catalog->count] != NULL && ++catalog->count;
}

/* A directory's name may have the characters that a pattern is made of. */
static bool quote(const char *directory, char *pattern, size_t size)
{
    size_t n = 0;
    for (const char *c = directory; *c != '\0'; c++) {
        if (n + 8 > size)
            return false;
        if (strchr("*?[\\", *c) != NULL)
            pattern[n++] = '\\';
        pattern[n++] = *c;
    }
    memcpy(pattern + n, "/*.rec", sizeof "/*.rec");
    return n + sizeof "/*.rec" <= size;
}

/* The recordings of a directory, if there are any. */
static bool search(struct catalog *catalog, const char *directory)
{
    char pattern[2 * 4096 + 16];
    size_t used = strlen(catalog->tried);
    snprintf(catalog->tried + used, sizeof catalog->tried - used, "%s%s", used > 0 ? ", " : "",
             directory);
    glob_t found;
    if (!quote(directory, pattern, sizeof pattern) || glob(pattern, 0, NULL, &found) != 0)
        return false;
    bool good = true;
    for (size_t i = 0; i < found.gl_pathc && good; i++)
        good = append(catalog, found.gl_pathv[i]);
    globfree(&found);
    return good && catalog->count > 0;
}

/* The directory of the program; libtool runs it from .libs in a build tree. */
static bool program_directory(char *directory, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", directory, size - 1);
    if (n <= 0)
        return false;
    directory[n] = '\0';
    char *slash = strrchr(directory, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    slash = strrchr(directory, '/');
    if (slash != NULL && strcmp(slash, "/.libs") == 0)
        *slash = '\0';
    return true;
}

bool catalog_open(struct catalog *catalog, char *const *files, size_t file_count)
{
    static const char *const beside[] = { "stress/recordings",
                                          "../share/libpatchpoint/recordings" };
    *catalog = (struct catalog) { 0 };
    for (size_t i = 0; i < file_count; i++)
        if (!append(catalog, files[i]))
            return false;
    if (file_count > 0)
        return true;

    const char *wanted = getenv("PP_STRESS_RECORDINGS");
    if (wanted != NULL && wanted[0] != '\0')
        return search(catalog, wanted);
    char directory[4096], path[4096 + 64];
    if (program_directory(directory, sizeof directory)) {
        for (size_t i = 0; i < sizeof beside / sizeof beside[0]; i++) {
            snprintf(path, sizeof path, "%s/%s", directory, beside[i]);
            if (search(catalog, path))
                return true;
        }
    }
    return search(catalog, RECORDINGS_DIRECTORY);
}

void catalog_close(struct catalog *catalog)
{
    for (size_t i = 0; i < catalog->count; i++)
        free(catalog->paths[i]);
    free(catalog->paths);
    *catalog = (struct catalog) { 0 };
}
