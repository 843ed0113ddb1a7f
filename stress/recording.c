/* SPDX-License-Identifier: MIT */
/* Reading recordings.  One function for each kind of line; all of them validate before they keep. */
#include <config.h>

#include "stress/recording.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Numbers that a file chose, and the index that they got: open addressing, never full. */
struct id_map {
    uint64_t *slots;       /* id << 32 | index + 1; 0: empty */
    size_t capacity, used; /* capacity is 0 or a power of two */
};

struct reader {
    FILE *file;
    const char *path;
    struct recording *recording;
    struct id_map symbol_ids, trace_ids;
    size_t symbol_capacity, trace_capacity, site_capacity, event_capacity;
    uint64_t live, total;  /* bytes of code and data */
    bool has_arch, has_source, has_anchor;
    uint32_t line;
    size_t length;         /* of text */
    char text[RECORDING_LINE_MAX + 1];
    const char *cursor;    /* in text: not parsed yet */
    char *error;
    size_t error_size;
};

__attribute__((format(printf, 2, 3)))
static bool refuse(struct reader *reader, const char *format, ...)
{
    int n = snprintf(reader->error, reader->error_size, "%s:%" PRIu32 ": ", reader->path,
                     reader->line);
    if (n > 0 && (size_t) n < reader->error_size) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(reader->error + n, reader->error_size - (size_t) n, format, arguments);
        va_end(arguments);
    }
    return false;
}

static bool refuse_file(struct reader *reader, int number)
{
    snprintf(reader->error, reader->error_size, "%s: %s", reader->path, strerror(number));
    return false;
}

/* ---- lines ---------------------------------------------------------------------- */

/* The next line without its newline.  False: refused, or with `ended` the end of the file. */
static bool next_line(struct reader *reader, bool *ended)
{
    size_t n = 0;
    int c;
    *ended = false;
    reader->line++;
    errno = 0;
    while ((c = getc_unlocked(reader->file)) != EOF && c != '\n') {
        if (c == '\0')
            return refuse(reader, "a zero byte: this is not a text file");
        if (c == '\r')
            return refuse(reader, "a carriage return: lines end with a newline alone");
        if (n == RECORDING_LINE_MAX)
            return refuse(reader, "the line is longer than %d bytes", RECORDING_LINE_MAX);
        reader->text[n++] = (char) c;
    }
    if (c == EOF && ferror(reader->file))
        return refuse_file(reader, errno != 0 ? errno : EIO);
    reader->text[n] = '\0';
    reader->length = n;
    reader->cursor = reader->text;
    *ended = c == EOF && n == 0;
    return !*ended;
}

/* Skip this word and the one space behind it, or the end of the line. */
static bool take_word(struct reader *reader, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(reader->cursor, word, n) != 0)
        return false;
    if (reader->cursor[n] == ' ')
        n++;
    else if (reader->cursor[n] != '\0')
        return false;
    reader->cursor += n;
    return true;
}

/*
 * A decimal number and the space behind it.  `what` names it in the error.
 * Overflow is found before it happens.
 */
static bool take_number(struct reader *reader, const char *what, uint64_t max, uint64_t *value)
{
    const char *c = reader->cursor;
    uint64_t number = 0;
    if (*c < '0' || *c > '9')
        return refuse(reader, "%s: a number is missing", what);
    for (; *c >= '0' && *c <= '9'; c++) {
        unsigned digit = (unsigned) (*c - '0');
        if (number > (max - digit) / 10)
            return refuse(reader, "%s: the number is larger than %" PRIu64, what, max);
        number = number * 10 + digit;
    }
    if (*c == ' ')
        c++;
    else if (*c != '\0')
        return refuse(reader, "%s: this is not a number", what);
    reader->cursor = c;
    *value = number;
    return true;
}

/* The same for a distance: any value of 64 bits, signed or not. */
static bool take_offset(struct reader *reader, const char *what, uint64_t *value)
{
    bool negative = *reader->cursor == '-';
    if (negative)
        reader->cursor++;
    if (!take_number(reader, what, negative ? (uint64_t) 1 << 63 : UINT64_MAX, value))
        return false;
    if (negative)
        *value = 0 - *value;
    return true;
}

/* Nothing may be left; a space at the end was skipped with the number before it. */
static bool line_ends(struct reader *reader)
{
    if (*reader->cursor != '\0' || (reader->length > 0 && reader->text[reader->length - 1] == ' '))
        return refuse(reader, "something follows the last field");
    return true;
}

/* ---- memory --------------------------------------------------------------------- */

/* Room for one more; the array doubles, so that memory follows the lines read. */
static bool grow(struct reader *reader, void **array, size_t *capacity, size_t count, size_t item)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity == 0 ? 64 : *capacity * 2;
    void *memory = realloc(*array, wanted * item);
    if (memory == NULL)
        return refuse(reader, "no memory for this recording");
    *array = memory;
    *capacity = wanted;
    return true;
}

#define GROW(reader, name) \
    grow(reader, (void **) &(reader)->recording->name##s, &(reader)->name##_capacity, \
         (reader)->recording->name##_count, sizeof *(reader)->recording->name##s)

static size_t id_slot(const struct id_map *map, uint32_t id)
{
    size_t mask = map->capacity - 1;
    size_t i = (id * 0x9e3779b97f4a7c15u >> 32) & mask;
    while (map->slots[i] != 0 && map->slots[i] >> 32 != id)
        i = (i + 1) & mask;
    return i;
}

/* The index that an id got, or -1. */
static int64_t id_find(const struct id_map *map, uint64_t id)
{
    if (map->capacity == 0)
        return -1;
    return (int64_t) (map->slots[id_slot(map, (uint32_t) id)] & UINT32_MAX) - 1;
}

/* Only for an id that is not there. */
static bool id_add(struct reader *reader, struct id_map *map, uint64_t id, size_t index)
{
    if (map->used * 2 >= map->capacity) {
        struct id_map wider = { .capacity = map->capacity == 0 ? 256 : map->capacity * 2 };
        wider.slots = calloc(wider.capacity, sizeof *wider.slots);
        if (wider.slots == NULL)
            return refuse(reader, "no memory for this recording");
        for (size_t i = 0; i < map->capacity; i++)
            if (map->slots[i] != 0)
                wider.slots[id_slot(&wider, (uint32_t) (map->slots[i] >> 32))] = map->slots[i];
        wider.used = map->used;
        free(map->slots);
        *map = wider;
    }
    map->slots[id_slot(map, (uint32_t) id)] = id << 32 | (index + 1);
    map->used++;
    return true;
}

/* ---- one function for each kind of line ------------------------------------------ */

static bool read_header(struct reader *reader)
{
    bool ended;
    if (!next_line(reader, &ended))
        return ended ? refuse(reader, "the file is empty") : false;
    if (strcmp(reader->text, "patchpoint-recording 1") == 0)
        return true;
    if (take_word(reader, "patchpoint-recording"))
        return refuse(reader, "this program reads version 1 of the format only");
    return refuse(reader, "this is not a recording: the first line is not "
                          "'patchpoint-recording 1'");
}

static bool read_arch(struct reader *reader)
{
    if (reader->has_arch)
        return refuse(reader, "a second 'arch' line");
    if (strcmp(reader->cursor, "x86_64") == 0)
        reader->recording->arch = RECORDING_X86_64;
    else if (strcmp(reader->cursor, "aarch64") == 0)
        reader->recording->arch = RECORDING_AARCH64;
    else
        return refuse(reader, "the architecture is neither x86_64 nor aarch64");
    reader->has_arch = true;
    return true;
}

static bool read_source(struct reader *reader)
{
    if (reader->has_source)
        return refuse(reader, "a second 'source' line");
    reader->recording->source = strdup(reader->cursor);
    if (reader->recording->source == NULL)
        return refuse(reader, "no memory for this recording");
    /* It will be shown on a terminal. */
    for (char *c = reader->recording->source; *c != '\0'; c++)
        if ((unsigned char) *c < 0x20 || (unsigned char) *c >= 0x7f)
            *c = '?';
    reader->has_source = true;
    return true;
}

static bool read_anchor(struct reader *reader)
{
    uint64_t offset;
    if (reader->has_anchor)
        return refuse(reader, "a second 'anchor' line");
    reader->has_anchor = true;
    return take_offset(reader, "anchor", &offset) && line_ends(reader);
}

static bool read_symbol(struct reader *reader)
{
    struct recording *recording = reader->recording;
    uint64_t id, offset;
    if (!take_number(reader, "symbol", UINT32_MAX, &id) ||
        !take_offset(reader, "offset of the symbol", &offset) || !line_ends(reader))
        return false;
    if (id_find(&reader->symbol_ids, id) >= 0)
        return refuse(reader, "symbol %" PRIu64 " is there twice", id);
    if (recording->symbol_count == RECORDING_SYMBOLS_MAX)
        return refuse(reader, "more than %u symbols", RECORDING_SYMBOLS_MAX);
    if (!GROW(reader, symbol) ||
        !id_add(reader, &reader->symbol_ids, id, recording->symbol_count))
        return false;
    recording->symbols[recording->symbol_count++] =
        (struct recorded_symbol) { (uint32_t) id, reader->line, offset };
    return true;
}

static bool read_site(struct reader *reader, const struct recorded_trace *trace)
{
    struct recording *recording = reader->recording;
    uint64_t offset, id;
    enum site_kind kind;
    if (take_word(reader, "C"))
        kind = SITE_CALL;
    else if (take_word(reader, "J"))
        kind = SITE_JUMP;
    else if (take_word(reader, "D"))
        kind = SITE_LOAD;
    else
        return refuse(reader, "trace %" PRIu32 " has %zu sites, but its line says %" PRIu32,
                      trace->id, recording->site_count - trace->first_site, trace->site_count);
    if (!take_number(reader, "offset of the site", UINT32_MAX, &offset) ||
        !take_number(reader, "symbol of the site", UINT32_MAX, &id) || !line_ends(reader))
        return false;

    uint32_t before = recording_site_before(recording->arch);
    if (offset < before || offset + RECORDING_SITE_BEHIND > trace->code)
        return refuse(reader, "the instruction at byte %" PRIu64 " lies outside the code of "
                      "%" PRIu32 " bytes", offset, trace->code);
    if (recording->arch == RECORDING_AARCH64 && offset % 4 != 0)
        return refuse(reader, "byte %" PRIu64 " is not the start of an instruction", offset);
    int64_t symbol = id_find(&reader->symbol_ids, id);
    if (symbol < 0)
        return refuse(reader, "symbol %" PRIu64 " is not known", id);
    if (recording->site_count == RECORDING_SITES_MAX)
        return refuse(reader, "more than %u sites", RECORDING_SITES_MAX);
    if (!GROW(reader, site))
        return false;
    recording->sites[recording->site_count++] =
        (struct recorded_site) { (uint32_t) offset, (uint32_t) symbol, reader->line, kind };
    return true;
}

static int compare_sites(const void *a, const void *b)
{
    const struct recorded_site *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->line < y->line ? -1 : x->line > y->line;
}

/* Bring the sites of a trace into order, and see that no instruction overlaps another. */
static bool order_sites(struct reader *reader, const struct recorded_trace *trace)
{
    if (trace->site_count < 2)
        return true;
    struct recorded_site *sites = reader->recording->sites + trace->first_site;
    uint32_t distance = recording_site_before(reader->recording->arch) + RECORDING_SITE_BEHIND;
    bool ascending = true;
    for (uint32_t i = 1; i < trace->site_count; i++)
        ascending = ascending && sites[i - 1].offset < sites[i].offset;
    if (!ascending)
        qsort(sites, trace->site_count, sizeof *sites, compare_sites);
    for (uint32_t i = 1; i < trace->site_count; i++) {
        if (sites[i].offset - sites[i - 1].offset >= distance)
            continue;
        reader->line = sites[i].line > sites[i - 1].line ? sites[i].line : sites[i - 1].line;
        return refuse(reader, "the instructions at byte %" PRIu32 " (line %" PRIu32 ") and byte "
                      "%" PRIu32 " (line %" PRIu32 ") overlap", sites[i - 1].offset,
                      sites[i - 1].line, sites[i].offset, sites[i].line);
    }
    return true;
}

/* The fields of a trace line, without the words between them. */
static bool take_trace(struct reader *reader, struct recorded_trace *trace)
{
    static const struct {
        const char *word, *what;
        uint64_t max;
    } fields[] = {
        { NULL, "trace", UINT32_MAX },
        { "code", "bytes of code", RECORDING_PART_MAX },
        { "data", "bytes of data", RECORDING_PART_MAX },
        { "trampolines", "bytes of trampolines", RECORDING_PART_MAX },
        { "uops", "number of uops", UINT32_MAX },
        { "sites", "number of sites", RECORDING_SITES_MAX },
    };
    uint64_t values[sizeof fields / sizeof fields[0]];
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].word != NULL && !take_word(reader, fields[i].word))
            return refuse(reader, "'%s' is missing", fields[i].word);
        if (!take_number(reader, fields[i].what, fields[i].max, &values[i]))
            return false;
    }
    *trace = (struct recorded_trace) {
        .id = (uint32_t) values[0], .line = reader->line, .code = (uint32_t) values[1],
        .data = (uint32_t) values[2], .trampolines = (uint32_t) values[3],
        .site_count = (uint32_t) values[5], .first_site = reader->recording->site_count,
    };
    return line_ends(reader);
}

static bool add_event(struct reader *reader, size_t trace, bool is_free)
{
    if (!GROW(reader, event))
        return false;
    reader->recording->events[reader->recording->event_count++] =
        (struct recorded_event) { (uint32_t) trace, reader->line, is_free };
    return true;
}

static bool check_trace(struct reader *reader, const struct recorded_trace *trace)
{
    uint32_t smallest = recording_site_before(reader->recording->arch) + RECORDING_SITE_BEHIND;
    if (!reader->has_arch)
        return refuse(reader, "a trace before the 'arch' line");
    if (trace->code == 0)
        return refuse(reader, "a trace without code");
    if (id_find(&reader->trace_ids, trace->id) >= 0)
        return refuse(reader, "trace %" PRIu32 " is there twice", trace->id);
    if (trace->site_count > trace->code / smallest)
        return refuse(reader, "%" PRIu32 " sites do not fit into %" PRIu32 " bytes of code",
                      trace->site_count, trace->code);
    if (reader->recording->trace_count == RECORDING_TRACES_MAX)
        return refuse(reader, "more than %u traces", RECORDING_TRACES_MAX);
    uint64_t bytes = (uint64_t) trace->code + trace->data;
    if (reader->live + bytes > RECORDING_LIVE_MAX)
        return refuse(reader, "more than %u bytes of code and data are alive here",
                      RECORDING_LIVE_MAX);
    if (reader->total + bytes > RECORDING_TOTAL_MAX)
        return refuse(reader, "more than %" PRIu64 " bytes of code and data in all",
                      RECORDING_TOTAL_MAX);
    return true;
}

static bool read_trace(struct reader *reader)
{
    struct recording *recording = reader->recording;
    struct recorded_trace trace;
    if (!take_trace(reader, &trace) || !check_trace(reader, &trace) || !GROW(reader, trace) ||
        !id_add(reader, &reader->trace_ids, trace.id, recording->trace_count) ||
        !add_event(reader, recording->trace_count, false))
        return false;
    reader->live += (uint64_t) trace.code + trace.data;
    reader->total += (uint64_t) trace.code + trace.data;
    recording->traces[recording->trace_count++] = trace;
    for (uint32_t i = 0; i < trace.site_count; i++) {
        bool ended;
        if (!next_line(reader, &ended))
            return ended ? refuse(reader, "the file ends within trace %" PRIu32, trace.id) : false;
        if (!read_site(reader, &trace))
            return false;
    }
    return order_sites(reader, &trace);
}

static bool read_free(struct reader *reader)
{
    uint64_t id;
    if (!take_number(reader, "free", UINT32_MAX, &id) || !line_ends(reader))
        return false;
    int64_t index = id_find(&reader->trace_ids, id);
    if (index < 0)
        return refuse(reader, "trace %" PRIu64 " is freed, but not known", id);
    struct recorded_trace *trace = &reader->recording->traces[index];
    if (trace->freed)
        return refuse(reader, "trace %" PRIu64 " is freed twice", id);
    trace->freed = true;
    reader->live -= (uint64_t) trace->code + trace->data;
    return add_event(reader, (size_t) index, true);
}

static bool read_end(struct reader *reader)
{
    bool ended;
    if (!line_ends(reader))
        return false;
    if (next_line(reader, &ended))
        return refuse(reader, "something follows the 'end' line");
    if (!ended)
        return false;
    if (reader->recording->trace_count == 0)
        return refuse(reader, "a recording without a trace");
    return true;
}

static bool read_lines(struct reader *reader)
{
    static const struct {
        const char *word;
        bool (*read)(struct reader *reader);
    } kinds[] = {
        { "symbol", read_symbol }, { "trace", read_trace },   { "free", read_free },
        { "arch", read_arch },     { "source", read_source }, { "anchor", read_anchor },
    };
    if (!read_header(reader))
        return false;
    for (;;) {
        bool ended;
        if (!next_line(reader, &ended))
            return ended ? refuse(reader, "the file ends without an 'end' line") : false;
        if (take_word(reader, "end"))
            return read_end(reader);
        size_t i = 0;
        while (i < sizeof kinds / sizeof kinds[0] && !take_word(reader, kinds[i].word))
            i++;
        if (i == sizeof kinds / sizeof kinds[0]) {
            if (take_word(reader, "C") || take_word(reader, "J") || take_word(reader, "D"))
                return refuse(reader, "a site, but the trace before it is complete");
            return refuse(reader, "this is no line of a recording");
        }
        if (!kinds[i].read(reader))
            return false;
    }
}

bool recording_read(const char *path, struct recording *recording, char *error,
                    size_t error_size)
{
    *recording = (struct recording) { .path = strdup(path) };
    struct reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL || recording->path == NULL) {
        snprintf(error, error_size, "%s: no memory", path);
        free(reader);
        recording_free(recording);
        return false;
    }
    reader->path = path;
    reader->recording = recording;
    reader->error = error;
    reader->error_size = error_size;
    reader->file = fopen(path, "re");
    bool good = reader->file != NULL ? read_lines(reader) : refuse_file(reader, errno);
    if (good && recording->source == NULL)
        good = (recording->source = strdup("")) != NULL || refuse_file(reader, ENOMEM);
    if (reader->file != NULL)
        fclose(reader->file);
    free(reader->symbol_ids.slots);
    free(reader->trace_ids.slots);
    free(reader);
    if (!good)
        recording_free(recording);
    return good;
}

void recording_free(struct recording *recording)
{
    free(recording->path);
    free(recording->source);
    free(recording->symbols);
    free(recording->traces);
    free(recording->sites);
    free(recording->events);
    *recording = (struct recording) { 0 };
}
