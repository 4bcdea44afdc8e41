/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See holder.h. Pure functions over values. */
#include "holder.h"

#include <string.h>
#include <time.h>

Holder *holder_new(const struct hf_holder *facts, HolderSource source)
{
    Holder *holder = g_new0(Holder, 1);

    holder->disk = g_strdup(facts->disk);
    holder->name = g_strdup(facts->name);
    holder->uuid = g_strdup(facts->uuid);
    holder->uri = g_strdup(facts->uri);
    holder->host = g_strdup(facts->host);
    holder->pid = facts->pid;
    holder->since_usec = facts->since_usec;
    holder->mode = facts->mode;
    holder->source = source;
    return holder;
}

Holder *holder_copy(const Holder *holder)
{
    Holder *copy = g_memdup2(holder, sizeof(*holder));

    copy->disk = g_strdup(holder->disk);
    copy->name = g_strdup(holder->name);
    copy->uuid = g_strdup(holder->uuid);
    copy->uri = g_strdup(holder->uri);
    copy->host = g_strdup(holder->host);
    return copy;
}

void holder_free(Holder *holder)
{
    if (!holder)
        return;
    g_free(holder->disk);
    g_free(holder->name);
    g_free(holder->uuid);
    g_free(holder->uri);
    g_free(holder->host);
    g_free(holder);
}

const char *mode_to_string(hf_mode mode)
{
    switch (mode) {
    case HF_MODE_EXCLUSIVE:
        return "exclusive";
    case HF_MODE_SHARED:
        return "shared";
    case HF_MODE_READONLY:
        return "readonly";
    }
    return "unknown";
}

gboolean mode_from_string(const char *text, hf_mode *ret_mode)
{
    for (hf_mode mode = HF_MODE_EXCLUSIVE; mode <= HF_MODE_READONLY; mode++) {
        if (strcmp(text, mode_to_string(mode)) == 0) {
            *ret_mode = mode;
            return TRUE;
        }
    }
    return FALSE;
}

gboolean mode_compatible(hf_mode a, hf_mode b)
{
    return a != HF_MODE_EXCLUSIVE && b != HF_MODE_EXCLUSIVE;
}

/* The end of the year 9999; later years have more digits. */
#define TIME_MAX_SECONDS 253402300799

static char *time_put(char *p, int number, int digits, char behind)
{
    for (int i = digits; i-- > 0; number /= 10)
        p[i] = (char)('0' + number % 10);
    p[digits] = behind;
    return p + digits + 1;
}

const char *time_format(gint64 usec, char text[static TIME_BYTES])
{
    time_t seconds = usec / G_USEC_PER_SEC;
    struct tm tm;
    char *p = text;

    if (usec < 0 || seconds > TIME_MAX_SECONDS || !gmtime_r(&seconds, &tm))
        return strcpy(text, "1970-01-01T00:00:00.000000Z");
    p = time_put(p, tm.tm_year + 1900, 4, '-');
    p = time_put(p, tm.tm_mon + 1, 2, '-');
    p = time_put(p, tm.tm_mday, 2, 'T');
    p = time_put(p, tm.tm_hour, 2, ':');
    p = time_put(p, tm.tm_min, 2, ':');
    p = time_put(p, tm.tm_sec, 2, '.');
    p = time_put(p, (int)(usec % G_USEC_PER_SEC), 6, 'Z');
    *p = '\0';
    return text;
}

char *time_to_iso8601(gint64 usec)
{
    char text[TIME_BYTES];

    return g_strdup(time_format(usec, text));
}

char *text_for_people(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    GString *out = g_string_new(NULL);

    for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if (g_unichar_iscntrl(c) || g_unichar_type(c) == G_UNICODE_FORMAT)
            g_string_append_printf(out, "\\u%04x", c);
        else
            g_string_append_unichar(out, c);
    }
    return g_string_free(out, FALSE);
}

static char *holder_since(gint64 usec)
{
    g_autoptr(GDateTime) local = g_date_time_new_from_unix_local(usec / G_USEC_PER_SEC);

    return local ? g_date_time_format(local, "%Y-%m-%d %H:%M:%S %Z") : g_strdup("an unknown time");
}

static void holder_append_who(GString *out, const Holder *holder)
{
    const char *sep = " (";

    if (holder->name) {
        g_autofree char *name = text_for_people(holder->name);
        g_string_append_printf(out, "%s %s",
                               holder->source == HOLDER_FROM_KERNEL ? "the process" : "VM", name);
    } else {
        g_string_append(out, holder->pid ? "the process" : "somebody");
    }
    if (holder->uuid) {
        g_autofree char *uuid = text_for_people(holder->uuid);
        g_string_append_printf(out, "%suuid %s", sep, uuid);
        sep = ", ";
    }
    if (holder->pid) {
        g_string_append_printf(out, "%spid %d", sep, (int)holder->pid);
        sep = ", ";
    }
    if (*sep == ',')
        g_string_append_c(out, ')');
}

char *holder_to_string(const Holder *holder)
{
    GString *out = g_string_new(NULL);

    holder_append_who(out, holder);
    if (holder->host) {
        g_autofree char *host = text_for_people(holder->host);
        g_string_append_printf(out, " on host %s", host);
    }
    if (holder->since_usec) {
        g_autofree char *since = holder_since(holder->since_usec);
        g_string_append_printf(out, " since %s", since);
    }
    g_string_append_printf(out, " in %s mode", mode_to_string(holder->mode));
    if (holder->stopping)
        g_string_append(out, ", which lost its connection and is being ended");
    return g_string_free(out, FALSE);
}

static const char *holder_advice(const Holder *first)
{
    if (first->stopping)
        return "try again in a moment";
    if (first->source == HOLDER_FROM_KERNEL)
        return "the lock was not made by this daemon: look for its process with lslocks here and "
               "on every host that has this storage";
    if (first->mode != HF_MODE_EXCLUSIVE)
        return "stop all of these first, or ask for the disk as shared if the guests can share it";
    return "shut that VM down first if it is to start here instead";
}

char *holder_refusal(const char *what, const char *disk, GPtrArray *holders)
{
    GString *out = g_string_new(NULL);
    g_autofree char *subject = text_for_people(what);

    g_string_append_printf(out, "%s is held by ", subject);
    if (!holders || holders->len == 0) {
        g_string_append(out, "somebody who cannot be seen from here; look for its process with "
                             "lslocks on every host that has this storage");
        return g_string_free(out, FALSE);
    }
    for (guint i = 0; i < holders->len && i < 3; i++) {
        const Holder *holder = g_ptr_array_index(holders, i);
        g_autofree char *text = holder_to_string(holder);

        g_string_append_printf(out, "%s%s", i ? " and by " : "", text);
        if (disk && holder->disk && strcmp(disk, holder->disk) != 0) {
            g_autofree char *other = text_for_people(holder->disk);
            g_string_append_printf(out, " under the name %s", other);
        }
    }
    if (holders->len > 3)
        g_string_append_printf(out, " and by %u more", holders->len - 3);
    g_string_append_printf(out, "; %s", holder_advice(g_ptr_array_index(holders, 0)));
    return g_string_free(out, FALSE);
}
