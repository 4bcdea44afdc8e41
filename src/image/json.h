/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads JSON where it lies, without memory of its own, for formats that contain some. Tells each
 * value with the names of the members that lead to it. Strict: RFC 8259, and no escapes in names,
 * so that a name has one spelling.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Deeper is nobody's honest header. */
#define JSON_MAX_DEPTH 16

typedef struct JsonText {
    const char *text; /* not terminated */
    size_t length;
} JsonText;

typedef enum JsonKind {
    JSON_STRING, /* as written, with its escapes, without quotes */
    JSON_OTHER,  /* a number, true, false, null */
    JSON_BEGIN,  /* an object or array begins */
    JSON_END,    /* and ends */
} JsonKind;

typedef struct JsonReader {
    /* The value's path: path[0] is the outermost name. An array's element has the name "". */
    JsonText path[JSON_MAX_DEPTH];
    size_t depth;
    const char *at;
    const char *end;
    /* Called for each value; false ends the reading. */
    bool (*value)(struct JsonReader *reader, JsonKind kind, JsonText text);
    void *data;
} JsonReader;

/* Whether all of `text` is one JSON value, and every call of `value` said true. */
bool json_read(JsonReader *reader, const char *text, size_t length);
/* Whether the text is this. */
bool json_is(JsonText text, const char *what);
