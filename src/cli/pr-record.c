/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Records of the log of persistent reservations: from a line of a file (text or JSON) or of the
 * journal to one kind of object, and from there to words. Pure functions; what they make for people
 * is safe for a terminal.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "pr.h"

static const char *const record_numbers[] = {"pid", "uid", "gid", "status", "latency_usec", NULL};

/* ---- reading ------------------------------------------------------------------------------- */

static void record_add(CliJson *record, const char *name, const char *value)
{
    g_autofree char *valid = g_utf8_make_valid(value, -1);

    if (g_strv_contains(record_numbers, name)) {
        gint64 number = g_ascii_strtoll(value, NULL, 10);

        json_object_object_add(record, name, json_object_new_int64(number));
    } else {
        json_object_object_add(record, name, json_object_new_string(valid));
    }
}

/* A value in quotes, whose escapes are those of JSON. Returns what follows it, or NULL. */
static const char *record_parse_quoted(const char *at, char **ret_value)
{
    const char *end = at + 1;
    g_autofree char *quoted = NULL;
    g_autoptr(CliJson) parsed = NULL;

    while (*end && *end != '"')
        end += *end == '\\' && end[1] ? 2 : 1;
    if (*end != '"')
        return NULL;
    quoted = g_strndup(at, (gsize)(end + 1 - at));
    parsed = json_tokener_parse(quoted);
    if (!parsed || !json_object_is_type(parsed, json_type_string))
        return NULL;
    *ret_value = g_strdup(json_object_get_string(parsed));
    return end + 1;
}

/* One " name=value"; the time in front has no name. */
static const char *record_parse_field(const char *at, CliJson *record)
{
    gsize len = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
    g_autofree char *name = g_strndup(at, len);
    g_autofree char *value = NULL;

    if (len == 0 || at[len] != '=')
        return NULL;
    at += len + 1;
    if (*at == '"') {
        at = record_parse_quoted(at, &value);
        if (!at)
            return NULL;
    } else {
        len = strcspn(at, " ");
        value = g_strndup(at, len);
        at += len;
    }
    record_add(record, name, value);
    return at;
}

static CliJson *record_parse_text(const char *line)
{
    g_autoptr(CliJson) record = json_object_new_object();
    gsize len = strcspn(line, " ");
    g_autofree char *time = g_strndup(line, len);
    const char *at = line + len;

    if (len < 20 || time[10] != 'T')
        return NULL;
    record_add(record, "time", time);
    while (at && *at == ' ')
        at = record_parse_field(at + 1, record);
    return at && *at == '\0' && cli_json_string(record, "action") ? g_steal_pointer(&record) : NULL;
}

CliJson *pr_record_parse(const char *line)
{
    g_autofree char *trimmed = g_strchomp(g_strdup(line));
    g_autoptr(CliJson) record = NULL;

    if (*trimmed != '{')
        return record_parse_text(trimmed);
    record = json_tokener_parse(trimmed);
    return record && json_object_is_type(record, json_type_object) &&
                   cli_json_string(record, "time") && cli_json_string(record, "action")
               ? g_steal_pointer(&record)
               : NULL;
}

CliJson *pr_record_parse_journal(const char *line)
{
    static const char prefix[] = "HOLDFAST_PR_";
    g_autoptr(CliJson) entry = json_tokener_parse(line);
    g_autoptr(CliJson) record = json_object_new_object();

    if (!entry || !json_object_is_type(entry, json_type_object))
        return NULL;
    json_object_object_foreach(entry, key, value)
    {
        if (g_str_has_prefix(key, prefix) && json_object_is_type(value, json_type_string)) {
            g_autofree char *name = g_ascii_strdown(key + strlen(prefix), -1);

            record_add(record, name, json_object_get_string(value));
        }
    }
    return cli_json_string(record, "time") && cli_json_string(record, "action")
               ? g_steal_pointer(&record)
               : NULL;
}

/* ---- words --------------------------------------------------------------------------------- */

static void record_append(GString *line, const char *before, const char *text, const char *after)
{
    g_autofree char *safe = text ? cli_safe(text) : NULL;

    if (safe)
        g_string_append_printf(line, "%s%s%s", before, safe, after);
}

static void record_append_keys(GString *line, CliJson *record)
{
    const char *action = cli_json_string(record, "action");
    const char *key = cli_json_string(record, "key");
    const char *service = cli_json_string(record, "service_key");
    gboolean has_service = service && strcmp(service, "0x0") != 0;

    if (!key)
        return;
    if (g_str_has_prefix(action, "REGISTER")) {
        record_append(line, " ", g_str_equal(action, "REGISTER") ? key : NULL, "");
        record_append(line, " -> ", has_service ? service : "none", "");
        return;
    }
    record_append(line, " by ", key, "");
    if (g_str_has_prefix(action, "PREEMPT"))
        record_append(line, " of ", has_service ? service : "all", "");
}

char *pr_record_describe(CliJson *record)
{
    g_autofree char *time = cli_describe_time(cli_json_string(record, "time"));
    const char *vm = cli_json_string(record, "vm");
    const char *disk = cli_json_string(record, "disk");
    const char *device = cli_json_string(record, "device");
    GString *line = g_string_new(time);

    record_append(line, "  ", vm ? vm : "-", "");
    g_string_append_printf(line, " (pid %" G_GINT64_FORMAT ")", cli_json_int(record, "pid"));
    record_append(line, "  ", cli_json_string(record, "action"), "");
    record_append(line, " ", cli_json_string(record, "type"), "");
    record_append_keys(line, record);
    record_append(line, "  on ", disk ? disk : "-", "");
    record_append(line, " ", device, "");
    record_append(line, ": ", cli_json_string(record, "result"), "");
    record_append(line, " ", cli_json_string(record, "sense"), "");
    g_string_append_printf(line, ", %.1f ms", (double)cli_json_int(record, "latency_usec") / 1000);
    record_append(line, "; ", cli_json_string(record, "reason"), "");
    return g_string_free(line, FALSE);
}

/* ---- time ---------------------------------------------------------------------------------- */

static gint64 record_usec(GDateTime *time)
{
    return g_date_time_to_unix(time) * G_USEC_PER_SEC + g_date_time_get_microsecond(time);
}

gint64 pr_record_time(CliJson *record)
{
    const char *text = cli_json_string(record, "time");
    g_autoptr(GDateTime) time = text ? g_date_time_new_from_iso8601(text, NULL) : NULL;

    return time ? record_usec(time) : -1;
}

/* "90s", "10min", "2h", "3d" ago; a minus in front is as good. */
static gboolean record_parse_age(const char *text, gint64 *ret_usec)
{
    static const struct {
        const char *unit;
        gint64 seconds;
    } units[] = {{"s", 1},    {"sec", 1},   {"m", 60},    {"min", 60},
                 {"h", 3600}, {"d", 86400}, {"w", 604800}};
    char *end = NULL;
    guint64 count;

    if (*text == '-')
        text++;
    if (!g_ascii_isdigit(*text))
        return FALSE;
    count = g_ascii_strtoull(text, &end, 10);
    for (gsize i = 0; i < G_N_ELEMENTS(units) && count < 1000000; i++) {
        if (strcmp(end, units[i].unit) == 0) {
            *ret_usec = (gint64)count * units[i].seconds * G_USEC_PER_SEC;
            return TRUE;
        }
    }
    return FALSE;
}

/* Two digits at `at`, and then `after`. */
static gboolean record_two_digits(const char **at, const char *after, int *ret_number)
{
    const char *p = *at;

    if (!g_ascii_isdigit(p[0]) || !g_ascii_isdigit(p[1]))
        return FALSE;
    *ret_number = (p[0] - '0') * 10 + (p[1] - '0');
    p += 2;
    if (*after && *p != '\0') {
        if (*p != *after)
            return FALSE;
        p++;
    }
    *at = p;
    return TRUE;
}

/* "10:42" or "10:42:07"; nothing is midnight. */
static gboolean record_parse_clock(const char *text, int clock[3])
{
    clock[0] = clock[1] = clock[2] = 0;
    if (!*text)
        return TRUE;
    if (!record_two_digits(&text, ":", &clock[0]) || !*text ||
        !record_two_digits(&text, ":", &clock[1]) ||
        (*text && !record_two_digits(&text, "", &clock[2])))
        return FALSE;
    return *text == '\0';
}

gboolean pr_record_parse_since(const char *text, gint64 now, gint64 *ret_usec)
{
    g_autoptr(GTimeZone) local = g_time_zone_new_local();
    g_autoptr(GDateTime) utc = g_date_time_new_from_unix_utc(now / G_USEC_PER_SEC);
    g_autoptr(GDateTime) today = g_date_time_to_timezone(utc, local);
    g_autoptr(GDateTime) day = NULL, iso = NULL, result = NULL;
    int year, month, date, used = 0, clock[3];
    gint64 age;

    if (record_parse_age(text, &age)) {
        *ret_usec = now - age;
        return TRUE;
    }
    iso = g_date_time_new_from_iso8601(text, local);
    if (iso) {
        *ret_usec = record_usec(iso);
        return TRUE;
    }
    if (strcmp(text, "now") == 0) {
        *ret_usec = now;
        return TRUE;
    }
    if (strcmp(text, "today") == 0 || strcmp(text, "yesterday") == 0) {
        day = g_date_time_add_days(today, *text == 't' ? 0 : -1);
        text = "";
    } else if (sscanf(text, "%4d-%2d-%2d%n", &year, &month, &date, &used) == 3 && used == 10) {
        day = g_date_time_new(local, year, month, date, 0, 0, 0);
        text += used;
        if (*text && *text++ != ' ')
            return FALSE;
    } else {
        day = g_date_time_ref(today);
        if (!*text)
            return FALSE;
    }
    if (!day || !record_parse_clock(text, clock))
        return FALSE;
    result = g_date_time_new(local, g_date_time_get_year(day), g_date_time_get_month(day),
                             g_date_time_get_day_of_month(day), clock[0], clock[1], clock[2]);
    if (!result)
        return FALSE;
    *ret_usec = record_usec(result);
    return TRUE;
}
