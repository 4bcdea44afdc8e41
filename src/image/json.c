/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See json.h. */
#include "image/json.h"

#include <string.h>

bool json_is(JsonText text, const char *what)
{
    return text.length == strlen(what) && memcmp(text.text, what, text.length) == 0;
}

static void json_space(JsonReader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
        r->at++;
}

/* The next character behind white space, taken if it is `c`. */
static bool json_take(JsonReader *r, char c)
{
    json_space(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool json_escape(JsonReader *r)
{
    if (r->at == r->end || !strchr("\"\\/bfnrtu", *r->at) || *r->at == '\0')
        return false;
    if (*r->at++ != 'u')
        return true;
    for (int i = 0; i < 4; i++, r->at++) {
        if (r->at == r->end || *r->at == '\0' || !strchr("0123456789abcdefABCDEF", *r->at))
            return false;
    }
    return true;
}

/* Behind the opening quote. */
static bool json_string(JsonReader *r, bool escapes, JsonText *ret_text)
{
    const char *begin = r->at;

    while (r->at < r->end) {
        unsigned char c = (unsigned char)*r->at++;

        if (c == '"') {
            *ret_text = (JsonText){.text = begin, .length = (size_t)(r->at - 1 - begin)};
            return true;
        }
        if (c < 0x20 || (c == '\\' && (!escapes || !json_escape(r))))
            return false;
    }
    return false;
}

static void json_digits(JsonReader *r)
{
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
}

static bool json_number(JsonReader *r)
{
    const char *begin;

    if (r->at < r->end && *r->at == '-')
        r->at++;
    begin = r->at;
    json_digits(r);
    if (r->at == begin || (*begin == '0' && r->at - begin > 1))
        return false;
    if (r->at < r->end && *r->at == '.') {
        begin = ++r->at;
        json_digits(r);
        if (r->at == begin)
            return false;
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
            r->at++;
        begin = r->at;
        json_digits(r);
        return r->at != begin;
    }
    return true;
}

static bool json_word(JsonReader *r)
{
    static const char *const words[] = {"true", "false", "null"};

    for (size_t i = 0; i < 3; i++) {
        size_t length = strlen(words[i]);

        if ((size_t)(r->end - r->at) >= length && memcmp(r->at, words[i], length) == 0) {
            r->at += length;
            return true;
        }
    }
    return json_number(r);
}

static bool json_value(JsonReader *r);

/* The members of an object, or an array's elements, behind its opening bracket. */
static bool json_members(JsonReader *r, char closing)
{
    const JsonText none = {.text = "", .length = 0};
    JsonText *name;

    if (r->depth == JSON_MAX_DEPTH || !r->value(r, JSON_BEGIN, none))
        return false;
    name = &r->path[r->depth++];
    *name = none;
    if (!json_take(r, closing)) {
        do {
            if (closing == '}' &&
                (!json_take(r, '"') || !json_string(r, false, name) || !json_take(r, ':')))
                return false;
            if (!json_value(r))
                return false;
        } while (json_take(r, ','));
        if (!json_take(r, closing))
            return false;
    }
    r->depth--;
    return r->value(r, JSON_END, none);
}

/* Recursion is bounded by JSON_MAX_DEPTH. */
static bool json_value(JsonReader *r)
{
    JsonText text;
    const char *begin;

    if (json_take(r, '{'))
        return json_members(r, '}');
    if (json_take(r, '['))
        return json_members(r, ']');
    if (json_take(r, '"'))
        return json_string(r, true, &text) && r->value(r, JSON_STRING, text);
    begin = r->at;
    if (!json_word(r))
        return false;
    text = (JsonText){.text = begin, .length = (size_t)(r->at - begin)};
    return r->value(r, JSON_OTHER, text);
}

bool json_read(JsonReader *reader, const char *text, size_t length)
{
    reader->at = text;
    reader->end = text + length;
    reader->depth = 0;
    if (!json_value(reader))
        return false;
    json_space(reader);
    return reader->at == reader->end;
}
