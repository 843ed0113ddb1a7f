/* SPDX-License-Identifier: MIT */
/* replay: recordings of a real JIT, read and described. */
#include <config.h>

#include "stress/catalog.h"
#include "stress/recording.h"
#include "stress/stress.h"

#include <string.h>

static void describe(struct stress *stress, const struct recording *recording)
{
    struct stress_table *table = stress_table(stress, recording->path, 1, (const char *[]) { "" });
    stress_value(table, "traces", "", (double) recording->trace_count);
    stress_value(table, "symbols", "", (double) recording->symbol_count);
    stress_value(table, "sites", "", (double) recording->site_count);
}

static void run(struct stress *stress)
{
    const struct stress_options *options = stress_options(stress);
    struct catalog catalog;
    if (!catalog_open(&catalog, options->files, options->file_count))
        stress_fail(stress, "no recording (*.rec) in: %s", catalog.tried);
    for (size_t i = 0; i < catalog.count; i++) {
        struct recording recording;
        char error[512];
        stress_progress(stress, "file", i, catalog.count);
        if (!recording_read(catalog.paths[i], &recording, error, sizeof error)) {
            stress_fail(stress, "%s", error);
            continue;
        }
        describe(stress, &recording);
        recording_free(&recording);
    }
    catalog_close(&catalog);
}

const struct scenario scenario_replay = {
    .name = "replay",
    .summary = "read and describe recordings of a real JIT",
    .run = run,
    .seconds = 20,
    .takes_files = true,
};
