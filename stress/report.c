/* SPDX-License-Identifier: MIT */
/* Failures, notes, progress, tables and JSON.  Standard output has the results, standard error the rest. */
#include <config.h>

#include "stress/run.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FAILURES_SHOWN = 20, LABEL_MAX = 64, UNIT_MAX = 8, PROGRESS_INTERVAL = 100000000 };

struct table_row {
    char label[LABEL_MAX];
    char unit[UNIT_MAX];
    double *values;
};

struct stress_table {
    struct stress_table *next;
    struct report *report;
    char *title;
    char **names;
    unsigned columns;
    struct table_row *rows;
    size_t row_count;
};

/* ---- out of memory here is the end: there is nobody left to tell ---------- */

static void *must(void *memory)
{
    if (memory == NULL) {
        fputs("pp-stress: no memory for the report\n", stderr);
        exit(1);
    }
    return memory;
}

/* ---- messages ------------------------------------------------------------- */

static void clear_progress_locked(struct report *report)
{
    if (report->progress_shown)
        fputs("\r\033[K", stderr);
    report->progress_shown = false;
}

void stress_fail(struct stress *stress, const char *format, ...)
{
    struct report *report = &stress->report;
    char text[sizeof *report->failure_texts];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);

    pthread_mutex_lock(&report->lock);
    unsigned n = report->failures++;
    if (n < FAILURES_SHOWN) {
        memcpy(report->failure_texts[n], text, sizeof text);
        clear_progress_locked(report);
        fprintf(stderr, "pp-stress: %s: %s [seed %" PRIu64 "]\n", report->scenario, text,
                report->seed);
    } else if (n == FAILURES_SHOWN) {
        fprintf(stderr, "pp-stress: %s: more failures are counted, not shown\n",
                report->scenario);
    }
    pthread_mutex_unlock(&report->lock);
}

unsigned stress_failures(const struct stress *stress)
{
    struct report *report = (struct report *) &stress->report;
    pthread_mutex_lock(&report->lock);
    unsigned failures = report->failures;
    pthread_mutex_unlock(&report->lock);
    return failures;
}

void stress_note(struct stress *stress, const char *format, ...)
{
    struct report *report = &stress->report;
    if (report->quiet)
        return;
    pthread_mutex_lock(&report->lock);
    clear_progress_locked(report);
    fprintf(stderr, "pp-stress: %s: ", report->scenario);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    pthread_mutex_unlock(&report->lock);
}

void stress_progress(struct stress *stress, const char *what, uint64_t done, uint64_t total)
{
    struct report *report = &stress->report;
    if (!report->terminal)
        return;
    uint64_t clock = stress_clock();
    pthread_mutex_lock(&report->lock);
    if (clock >= report->progress_next) {
        report->progress_next = clock + PROGRESS_INTERVAL;
        fprintf(stderr, "\r\033[K%s: %s %" PRIu64, report->scenario, what, done);
        if (total != 0)
            fprintf(stderr, " of %" PRIu64, total);
        fflush(stderr);
        report->progress_shown = true;
    }
    pthread_mutex_unlock(&report->lock);
}

/* ---- tables ----------------------------------------------------------------- */

struct stress_table *stress_table(struct stress *stress, const char *title, unsigned columns,
                                  const char *const names[])
{
    struct report *report = &stress->report;
    struct stress_table *table = must(calloc(1, sizeof *table));
    table->report = report;
    table->title = must(strdup(title));
    table->columns = columns;
    table->names = must(calloc(columns + 1, sizeof *table->names));
    for (unsigned i = 0; i < columns; i++)
        table->names[i] = must(strdup(names[i]));
    pthread_mutex_lock(&report->lock);
    struct stress_table **last = &report->tables;
    while (*last != NULL)
        last = &(*last)->next;
    *last = table;
    pthread_mutex_unlock(&report->lock);
    return table;
}

void stress_row(struct stress_table *table, const char *label, const char *unit,
                const double values[])
{
    pthread_mutex_lock(&table->report->lock);
    table->rows = must(realloc(table->rows, (table->row_count + 1) * sizeof *table->rows));
    struct table_row *row = &table->rows[table->row_count++];
    snprintf(row->label, sizeof row->label, "%s", label);
    snprintf(row->unit, sizeof row->unit, "%s", unit);
    row->values = must(calloc(table->columns + 1, sizeof *row->values));
    memcpy(row->values, values, table->columns * sizeof *values);
    pthread_mutex_unlock(&table->report->lock);
}

void stress_value(struct stress_table *table, const char *label, const char *unit, double value)
{
    double values[64];
    unsigned columns = table->columns < 64 ? table->columns : 64;
    for (unsigned i = 0; i < columns; i++)
        values[i] = i == 0 ? value : NAN;
    stress_row(table, label, unit, values);
}

/* Counts and bytes in full, measurements with three significant digits or so. */
static void format_value(char text[32], double value, const char *unit)
{
    const char *space = unit[0] == '\0' || unit[0] == 'x' ? "" : " ";
    if (!isfinite(value))
        snprintf(text, 32, "-");
    else if (unit[0] == '\0' || strcmp(unit, "B") == 0)
        snprintf(text, 32, "%.0f%s%s", value, space, unit);
    else if (strcmp(unit, "x") == 0)
        snprintf(text, 32, "%.*f%s", fabs(value) < 10 ? 3 : 1, value, unit);
    else
        snprintf(text, 32, "%.*f%s%s", fabs(value) < 10 ? 2 : fabs(value) < 100 ? 1 : 0, value,
                 space, unit);
}

static int column_width(const struct stress_table *table, unsigned column)
{
    size_t width = strlen(table->names[column]);
    char text[32];
    for (size_t i = 0; i < table->row_count; i++) {
        format_value(text, table->rows[i].values[column], table->rows[i].unit);
        if (strlen(text) > width)
            width = strlen(text);
    }
    return (int) width;
}

static void print_table(const struct stress_table *table)
{
    int label_width = 0;
    for (size_t i = 0; i < table->row_count; i++)
        if ((int) strlen(table->rows[i].label) > label_width)
            label_width = (int) strlen(table->rows[i].label);
    printf("\n%s\n", table->title);
    int widths[64] = { 0 };
    for (unsigned c = 0; c < table->columns && c < 64; c++)
        widths[c] = column_width(table, c);
    if (table->columns > 1 || table->names[0][0] != '\0') {
        printf("  %-*s", label_width, "");
        for (unsigned c = 0; c < table->columns && c < 64; c++)
            printf("  %*s", widths[c], table->names[c]);
        putchar('\n');
    }
    for (size_t i = 0; i < table->row_count; i++) {
        printf("  %-*s", label_width, table->rows[i].label);
        for (unsigned c = 0; c < table->columns && c < 64; c++) {
            char text[32];
            format_value(text, table->rows[i].values[c], table->rows[i].unit);
            printf("  %*s", widths[c], text);
        }
        putchar('\n');
    }
}

static void free_table(struct stress_table *table)
{
    for (size_t i = 0; i < table->row_count; i++)
        free(table->rows[i].values);
    for (unsigned c = 0; c < table->columns; c++)
        free(table->names[c]);
    free(table->rows);
    free(table->names);
    free(table->title);
    free(table);
}

/* ---- JSON --------------------------------------------------------------------- */

/* Bytes that are not printable ASCII (a file name may hold any) are written as code points. */
static void json_string(FILE *file, const char *text)
{
    fputc('"', file);
    for (const unsigned char *c = (const unsigned char *) text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(file, "\\%c", *c);
        else if (*c < 0x20 || *c >= 0x7f)
            fprintf(file, "\\u%04x", *c);
        else
            fputc(*c, file);
    }
    fputc('"', file);
}

static void json_table(FILE *file, const struct stress_table *table)
{
    fputs("{\"title\":", file);
    json_string(file, table->title);
    fputs(",\"columns\":[", file);
    for (unsigned c = 0; c < table->columns; c++) {
        fputs(c == 0 ? "" : ",", file);
        json_string(file, table->names[c]);
    }
    fputs("],\"rows\":[", file);
    for (size_t i = 0; i < table->row_count; i++) {
        fputs(i == 0 ? "\n    {\"label\":" : ",\n    {\"label\":", file);
        json_string(file, table->rows[i].label);
        fputs(",\"unit\":", file);
        json_string(file, table->rows[i].unit);
        fputs(",\"values\":[", file);
        for (unsigned c = 0; c < table->columns; c++) {
            fputs(c == 0 ? "" : ",", file);
            if (isfinite(table->rows[i].values[c]))
                fprintf(file, "%.17g", table->rows[i].values[c]);
            else
                fputs("null", file);
        }
        fputs("]}", file);
    }
    fputs("]}", file);
}

static void json_scenario(struct report *report, double seconds, bool cut)
{
    FILE *file = report->json;
    fputs(report->json_first ? "\n  {\"name\":" : ",\n  {\"name\":", file);
    report->json_first = false;
    json_string(file, report->scenario);
    fprintf(file, ",\"passed\":%s,\"failures\":%u,\"seconds\":%.3f,\"cut_short\":%s",
            report->failures == 0 ? "true" : "false", report->failures, seconds,
            cut ? "true" : "false");
    fputs(",\"messages\":[", file);
    for (unsigned i = 0; i < report->failures && i < FAILURES_SHOWN; i++) {
        fputs(i == 0 ? "" : ",", file);
        json_string(file, report->failure_texts[i]);
    }
    fputs("],\"tables\":[", file);
    for (struct stress_table *table = report->tables; table != NULL; table = table->next) {
        fputs(table == report->tables ? "\n   " : ",\n   ", file);
        json_table(file, table);
    }
    fputs("]}", file);
}

/* ---- the run -------------------------------------------------------------------- */

bool report_open(struct report *report, const char *json, bool quiet, uint64_t seed,
                 double slowness)
{
    *report = (struct report) { .quiet = quiet, .seed = seed, .json_first = true };
    pthread_mutex_init(&report->lock, NULL);
    report->terminal = !quiet && isatty(STDERR_FILENO);
    report->failure_texts = must(calloc(FAILURES_SHOWN, sizeof *report->failure_texts));
    report->tables_shown = !quiet && (json == NULL || strcmp(json, "-") != 0);
    if (json == NULL)
        return true;
    report->json = strcmp(json, "-") == 0 ? stdout : fopen(json, "w");
    if (report->json == NULL) {
        fprintf(stderr, "pp-stress: %s: %s\n", json, strerror(errno));
        return false;
    }
    fprintf(report->json,
            "{\"program\":\"pp-stress\",\"version\":\"%s\",\"machine\":\"%s\","
            "\"seed\":%" PRIu64 ",\"slowness\":%.2f,\"scenarios\":[",
            PACKAGE_VERSION,
#if defined __x86_64__
            "x86_64",
#else
            "aarch64",
#endif
            seed, slowness);
    return true;
}

void report_begin(struct report *report, const char *scenario)
{
    report->scenario = scenario;
    report->failures = 0;
}

unsigned report_end(struct report *report, double seconds, bool cut)
{
    clear_progress_locked(report);
    if (report->json != NULL)
        json_scenario(report, seconds, cut);
    while (report->tables != NULL) {
        struct stress_table *table = report->tables;
        report->tables = table->next;
        if (report->tables_shown)
            print_table(table);
        free_table(table);
    }
    fflush(stdout);
    return report->failures;
}

bool report_close(struct report *report, unsigned failures)
{
    free(report->failure_texts);
    pthread_mutex_destroy(&report->lock);
    if (report->json == NULL)
        return true;
    fprintf(report->json, "\n ],\"failures\":%u}\n", failures);
    bool bad = ferror(report->json) || fflush(report->json) != 0;
    if (report->json != stdout)
        bad |= fclose(report->json) != 0;
    if (bad)
        fputs("pp-stress: the JSON file could not be written completely\n", stderr);
    return !bad;
}
