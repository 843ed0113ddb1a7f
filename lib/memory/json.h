/* SPDX-License-Identifier: MIT */
/* A writer of JSON: always well-formed, whatever the strings hold. */
#ifndef MEMORY_JSON_H
#define MEMORY_JSON_H

#include <patchpoint/pool.h>

#include <stdbool.h>

struct json {
    pp_write_fn *write;
    void *host;
    bool failed;      /* `write` said stop: nothing more is given to it */
    bool follows;     /* a comma is due before the next value */
    size_t fill;
    char buffer[1024];
};

/* `key` is NULL in arrays, and at the top. */
void json_open(struct json *json, const char *key, char bracket);
void json_close(struct json *json, char bracket);
void json_number(struct json *json, const char *key, uint64_t value);
void json_boolean(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);
void json_address(struct json *json, const char *key, uintptr_t value);

/* Bytes that are not UTF-8 become U+FFFD. */
void json_string(struct json *json, const char *key, const char *value);

/* Give all that is left to `write`.  False: it failed. */
bool json_end(struct json *json);

#endif
