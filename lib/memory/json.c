/* SPDX-License-Identifier: MIT */
/* Writing JSON (RFC 8259). */
#include <config.h>

#include "memory/json.h"

#include <stdio.h>
#include <string.h>

static void flush(struct json *json)
{
    if (!json->failed && json->fill > 0 && json->write(json->host, json->buffer, json->fill) != 0)
        json->failed = true;
    json->fill = 0;
}

static void put(struct json *json, const char *text, size_t size)
{
    while (size > 0) {
        if (json->fill == sizeof json->buffer)
            flush(json);
        size_t room = sizeof json->buffer - json->fill, part = size < room ? size : room;
        memcpy(json->buffer + json->fill, text, part);
        json->fill += part;
        text += part;
        size -= part;
    }
}

/* Length of the UTF-8 sequence that begins here; 0: there is none.  RFC 3629, section 4. */
static unsigned utf8_length(const unsigned char *at)
{
    unsigned char lo = 0x80, hi = 0xbf;
    unsigned length = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3
                      : at[0] < 0xf5 ? 4 : 0;
    if (at[0] == 0xe0)
        lo = 0xa0;
    else if (at[0] == 0xed)
        hi = 0x9f; /* surrogates */
    else if (at[0] == 0xf0)
        lo = 0x90;
    else if (at[0] == 0xf4)
        hi = 0x8f; /* the end of Unicode */
    for (unsigned i = 1; i < length; i++) {
        if (at[i] < lo || at[i] > hi)
            return 0;
        lo = 0x80;
        hi = 0xbf;
    }
    return length;
}

static void put_string(struct json *json, const char *value)
{
    const unsigned char *at = (const unsigned char *) value;
    put(json, "\"", 1);
    while (*at != '\0') {
        unsigned length = utf8_length(at);
        char escape[8];
        if (length == 0) {
            put(json, "\\ufffd", 6);
            length = 1;
        } else if (*at < 0x20 || *at == '"' || *at == '\\') {
            put(json, escape, (size_t) snprintf(escape, sizeof escape, "\\u%04x", *at));
        } else {
            put(json, (const char *) at, length);
        }
        at += length;
    }
    put(json, "\"", 1);
}

static void begin(struct json *json, const char *key)
{
    if (json->follows)
        put(json, ",", 1);
    json->follows = true;
    if (key != NULL) {
        put_string(json, key);
        put(json, ":", 1);
    }
}

void json_open(struct json *json, const char *key, char bracket)
{
    begin(json, key);
    put(json, &bracket, 1);
    json->follows = false;
}

void json_close(struct json *json, char bracket)
{
    put(json, &bracket, 1);
    json->follows = true;
}

void json_number(struct json *json, const char *key, uint64_t value)
{
    char text[24];
    begin(json, key);
    put(json, text, (size_t) snprintf(text, sizeof text, "%llu", (unsigned long long) value));
}

void json_boolean(struct json *json, const char *key, bool value)
{
    begin(json, key);
    put(json, value ? "true" : "false", value ? 4 : 5);
}

void json_null(struct json *json, const char *key)
{
    begin(json, key);
    put(json, "null", 4);
}

void json_address(struct json *json, const char *key, uintptr_t value)
{
    char text[24];
    snprintf(text, sizeof text, "0x%llx", (unsigned long long) value);
    json_string(json, key, text);
}

void json_string(struct json *json, const char *key, const char *value)
{
    begin(json, key);
    put_string(json, value);
}

bool json_end(struct json *json)
{
    put(json, "\n", 1);
    flush(json);
    return !json->failed;
}
