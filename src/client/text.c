/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Small pure functions over text and JSON values. What comes from the other side of the socket
 * is data of a stranger until it went through here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client-internal.h"

/*
 * Length of the valid UTF-8 sequence at `p`, 0 if there is none. Overlong forms, surrogates and
 * what lies beyond U+10FFFF are not valid.
 */
static size_t text_utf8_sequence(const unsigned char *p, size_t left)
{
    size_t length;
    unsigned char low = 0x80, high = 0xbf;

    if (p[0] < 0x80)
        return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        length = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        length = 3;
        low = p[0] == 0xe0 ? 0xa0 : 0x80;
        high = p[0] == 0xed ? 0x9f : 0xbf;
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        length = 4;
        low = p[0] == 0xf0 ? 0x90 : 0x80;
        high = p[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (left < length || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    }
    return length;
}

bool hfc_is_utf8(const char *text, size_t length)
{
    for (size_t i = 0; i < length;) {
        size_t step = text_utf8_sequence((const unsigned char *)text + i, length - i);

        if (step == 0)
            return false;
        i += step;
    }
    return true;
}

/* C0, DEL, and C1 in its two-byte form: what a terminal may obey. */
static bool text_is_control(const unsigned char *p, size_t length)
{
    return p[0] < 0x20 || p[0] == 0x7f || (length == 2 && p[0] == 0xc2 && p[1] < 0xa0);
}

char *hfc_printable(const char *text, size_t length, size_t max)
{
    size_t take = length < max ? length : max;
    char *out = malloc(take * 4 + sizeof("..."));
    char *end = out;

    if (!out)
        return NULL;
    for (size_t i = 0; i < take;) {
        const unsigned char *p = (const unsigned char *)text + i;
        size_t step = text_utf8_sequence(p, take - i);

        if (step == 0 || text_is_control(p, step)) {
            step = step ? step : 1;
            for (size_t k = 0; k < step; k++)
                end += sprintf(end, "\\x%02x", p[k]);
        } else {
            memcpy(end, p, step);
            end += step;
        }
        i += step;
    }
    strcpy(end, take < length ? "..." : "");
    return out;
}

bool hfc_parse_time(const char *text, int64_t *ret_usec)
{
    struct tm tm = {0};
    int length = 0, usec = 0;
    time_t seconds;

    /* %n without a conversion before it that could fail: all that precedes must have matched. */
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%6dZ%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &usec, &length) != 7 ||
        length != (int)sizeof("2026-01-31T10:42:07.123456Z") - 1 || text[length] != '\0')
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    seconds = timegm(&tm);
    *ret_usec = (int64_t)seconds * 1000000 + usec;
    return true;
}

void hfc_format_now(char *buffer, size_t size)
{
    struct timespec now;
    struct tm tm;
    char seconds[24];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buffer, size, "%s.%06ldZ", seconds, now.tv_nsec / 1000);
}

bool hfc_add(struct json_object *object, const char *key, struct json_object *value)
{
    if (!value)
        return false;
    if (json_object_object_add(object, key, value) < 0) {
        json_object_put(value);
        return false;
    }
    return true;
}

bool hfc_add_string(struct json_object *object, const char *key, const char *value)
{
    return !value || hfc_add(object, key, json_object_new_string(value));
}

const char *hfc_get_string(struct json_object *object, const char *key)
{
    struct json_object *value = NULL;

    if (!json_object_object_get_ex(object, key, &value) ||
        !json_object_is_type(value, json_type_string))
        return NULL;
    return json_object_get_string(value);
}
