/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The protocol's objects in words. Pure functions; the results are safe for a terminal. */
#include <string.h>

#include "cli.h"

static char *describe_time(const char *time, const char *format)
{
    g_autoptr(GDateTime) utc = time ? g_date_time_new_from_iso8601(time, NULL) : NULL;
    g_autoptr(GDateTime) local = utc ? g_date_time_to_local(utc) : NULL;

    return local ? g_date_time_format(local, format) : g_strdup("-");
}

char *cli_describe_time(const char *time)
{
    return describe_time(time, "%Y-%m-%d %H:%M:%S");
}

static char *describe_who(CliJson *owner, gboolean with_uuid)
{
    const char *name = cli_json_string(owner, "name");
    const char *uuid = cli_json_string(owner, "uuid");
    gint64 pid = cli_json_int(owner, "pid");
    GString *out = g_string_new(NULL);

    if (name && *name) {
        g_autofree char *safe = cli_safe(name);

        g_string_append_printf(
            out, "%s %s",
            g_strcmp0(cli_json_string(owner, "source"), "kernel") == 0 ? "the process" : "VM",
            safe);
    } else if (uuid && !with_uuid) {
        g_autofree char *safe = cli_safe(uuid);

        g_string_append_printf(out, "VM %s", safe);
    } else {
        g_string_append(out, pid ? "the process" : "somebody");
    }
    if (uuid && with_uuid) {
        g_autofree char *safe = cli_safe(uuid);

        g_string_append_printf(out, " (uuid %s", safe);
    } else {
        uuid = NULL;
    }
    if (pid)
        g_string_append_printf(out, "%spid %" G_GINT64_FORMAT, uuid ? ", " : " (", pid);
    if (uuid || pid)
        g_string_append_c(out, ')');
    return g_string_free(out, FALSE);
}

char *cli_describe_owner(CliJson *owner)
{
    return describe_who(owner, FALSE);
}

char *cli_describe_holder(CliJson *holder)
{
    g_autofree char *who = describe_who(holder, TRUE);
    const char *host = cli_json_string(holder, "host");
    const char *since = cli_json_string(holder, "since");
    const char *mode = cli_json_string(holder, "mode");
    GString *out = g_string_new(who);

    if (host) {
        g_autofree char *safe = cli_safe(host);

        g_string_append_printf(out, " on host %s", safe);
    }
    if (since) {
        g_autofree char *time = describe_time(since, "%Y-%m-%d %H:%M:%S %Z");

        g_string_append_printf(out, " since %s", time);
    }
    if (mode) {
        g_autofree char *safe = cli_safe(mode);

        g_string_append_printf(out, " in %s mode", safe);
    }
    return g_string_free(out, FALSE);
}

char *cli_describe_thing(CliJson *lease)
{
    const char *disk = cli_json_string(lease, "disk");
    const char *lockspace = cli_json_string(lease, "lockspace");
    const char *key = cli_json_string(lease, "key");
    g_autofree char *text = NULL;

    if (disk)
        return cli_safe(disk);
    if (lockspace && *lockspace)
        text = g_strdup_printf("%s/%s", lockspace, key ? key : "");
    return cli_safe(text ? text : key);
}
