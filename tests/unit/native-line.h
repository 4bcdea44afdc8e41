/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A line of the native protocol, as tests write and read it. For tests of the codec alone. */
#pragma once

#include <glib.h>
#include <json-c/json.h>
#include <string.h>

#include "protocol/native.h"

#define UUID "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"

/* Parses a line that has to be good. */
static inline void parse(const char *line, NativeRequest *request)
{
    Fault *fault = NULL;
    gboolean good = native_parse_request(line, strlen(line), request, &fault);

    g_assert_cmpstr(fault ? fault->message : NULL, ==, NULL);
    g_assert_true(good);
}

/* What was encoded, decoded by another program's rules: one line, UTF-8, one object. */
static inline json_object *assert_line(const char *line)
{
    json_object *object;

    g_assert_true(g_str_has_suffix(line, "\n"));
    g_assert_true(strchr(line, '\n') == line + strlen(line) - 1);
    g_assert_true(g_utf8_validate(line, -1, NULL));
    object = json_tokener_parse(line);
    g_assert_true(json_object_is_type(object, json_type_object));
    return object;
}
