/* SPDX-License-Identifier: MIT */
/*
 * Recordings: what a real JIT linked while it ran a program.  Sizes of traces,
 * the places in them that refer to symbols, and when traces were freed; no
 * code.  The format is described in README.md beside the recordings.
 *
 * A file is hostile until it is read: every number is checked while reading,
 * memory grows with the lines that are there and never with a number in them,
 * and the first mistake ends the reading with the file's name and the line.
 */
#ifndef STRESS_RECORDING_H
#define STRESS_RECORDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a recording may hold at most.  The largest seen had 20,001 traces and 56 MB. */
#define RECORDING_LINE_MAX 4095              /* bytes of a line */
#define RECORDING_PART_MAX (16u << 20)       /* code, data or trampolines of a trace */
#define RECORDING_SYMBOLS_MAX (1u << 20)
#define RECORDING_TRACES_MAX (1u << 20)
#define RECORDING_SITES_MAX (1u << 24)       /* of all traces */
#define RECORDING_LIVE_MAX (256u << 20)      /* code and data of the traces alive at a time */
#define RECORDING_TOTAL_MAX ((uint64_t) 8 << 30) /* code and data of all traces */

enum recording_arch { RECORDING_X86_64, RECORDING_AARCH64 };

enum site_kind { SITE_CALL, SITE_JUMP, SITE_LOAD };

struct recorded_symbol {
    uint32_t id;
    uint32_t line;
    uint64_t offset;      /* from the start of the image; signed or not, all 64 bits are kept */
};

struct recorded_site {
    uint32_t offset;      /* bytes from the start of the code; ascending within a trace */
    uint32_t symbol;      /* index */
    uint32_t line;
    enum site_kind kind;
};

struct recorded_trace {
    uint32_t id;
    uint32_t line;
    uint32_t code, data;  /* bytes */
    uint32_t trampolines; /* bytes that the recorded JIT reserved */
    uint32_t site_count;
    size_t first_site;    /* index */
    bool freed;           /* by the recording */
};

/* In the order of the recording: a trace is made, or freed. */
struct recorded_event {
    uint32_t trace;       /* index */
    uint32_t line;
    bool is_free;
};

struct recording {
    char *path;
    char *source;         /* what ran; printable; "" when not given */
    enum recording_arch arch;
    struct recorded_symbol *symbols;
    struct recorded_trace *traces;
    struct recorded_site *sites;
    struct recorded_event *events;
    size_t symbol_count, trace_count, site_count, event_count;
};

/*
 * Read a file.  False: `error` has the message, with file and line, and the
 * recording is empty.  The caller frees a recording that was read.
 */
bool recording_read(const char *path, struct recording *recording, char *error,
                    size_t error_size);

void recording_free(struct recording *recording);

/*
 * Bytes of an instruction before and behind the offset of a site: what no two
 * sites of a recording may share.  x86-64: two bytes of opcode and the field.
 */
static inline uint32_t recording_site_before(enum recording_arch arch)
{
    return arch == RECORDING_X86_64 ? 2 : 0;
}

enum { RECORDING_SITE_BEHIND = 4 };

#endif
