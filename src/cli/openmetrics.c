/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See openmetrics.h. */
#include "openmetrics.h"

#include <string.h>

#include "cli.h"

/* One metric family. `unit` is NULL for what only counts; a name ends with its unit. */
static void openmetrics_family(GString *out, const char *name, const char *type, const char *unit,
                               const char *help)
{
    g_string_append_printf(out, "# TYPE %s %s\n", name, type);
    if (unit)
        g_string_append_printf(out, "# UNIT %s %s\n", name, unit);
    g_string_append_printf(out, "# HELP %s %s\n", name, help);
}

/* A label's value: the three characters that both formats escape; what remains of control
 * characters could only be meant for a terminal. */
static void openmetrics_value(GString *out, const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (char **line = lines; *line; line++) {
        g_autofree char *safe = cli_safe(*line);

        if (line != lines)
            g_string_append(out, "\\n");
        for (const char *p = safe; *p; p++) {
            if (*p == '\\' || *p == '"')
                g_string_append_c(out, '\\');
            g_string_append_c(out, *p);
        }
    }
}

/* The labels that follow are pairs of name and value, ended by NULL; a value of NULL leaves its
 * label out. */
static void openmetrics_name(GString *out, const char *name, ...) G_GNUC_NULL_TERMINATED;

static void openmetrics_name(GString *out, const char *name, ...)
{
    const char *label;
    gboolean any = FALSE;
    va_list args;

    g_string_append(out, name);
    va_start(args, name);
    while ((label = va_arg(args, const char *))) {
        const char *value = va_arg(args, const char *);

        if (!value)
            continue;
        g_string_append_printf(out, "%s%s=\"", any ? "," : "{", label);
        openmetrics_value(out, value);
        g_string_append_c(out, '"');
        any = TRUE;
    }
    va_end(args);
    g_string_append(out, any ? "} " : " ");
}

static void openmetrics_number(GString *out, gint64 number)
{
    g_string_append_printf(out, "%" G_GINT64_FORMAT "\n", number);
}

static void openmetrics_seconds(GString *out, gint64 usec)
{
    g_string_append_printf(out, "%" G_GINT64_FORMAT ".%06d\n", usec / G_USEC_PER_SEC,
                           (int)(usec % G_USEC_PER_SEC));
}

static void openmetrics_gauge(GString *out, const char *name, const char *unit, const char *help,
                              gint64 number)
{
    openmetrics_family(out, name, "gauge", unit, help);
    openmetrics_name(out, name, NULL);
    openmetrics_number(out, number);
}

/* What is known of a thing, as a label's value: the sample itself is always 1. */
static void openmetrics_info(GString *out, const char *name, const char *help, const char *label,
                             const char *value)
{
    openmetrics_family(out, name, "gauge", NULL, help);
    openmetrics_name(out, name, label, value, NULL);
    openmetrics_number(out, 1);
}

/* A counter without labels: its sample has the ending that a family's name must not have. */
static void openmetrics_counter(GString *out, const char *name, const char *help, gint64 number)
{
    openmetrics_family(out, name, "counter", NULL, help);
    g_string_append_printf(out, "%s_total %" G_GINT64_FORMAT "\n", name, number);
}

/* TIME of the protocol in microseconds since 1970; 0 for none. */
static gint64 openmetrics_time(const char *time)
{
    g_autoptr(GDateTime) utc = time ? g_date_time_new_from_iso8601(time, NULL) : NULL;

    return utc ? g_date_time_to_unix(utc) * G_USEC_PER_SEC + g_date_time_get_microsecond(utc) : 0;
}

/* ---- the daemon ------------------------------------------------------------------------ */

static void openmetrics_daemon(GString *out, CliJson *report)
{
    openmetrics_info(out, "holdfast_build_info", "Always 1; the version is the daemon's.",
                     "version", cli_json_string(report, "version"));
    openmetrics_family(out, "holdfast_start_time_seconds", "gauge", "seconds",
                       "When the daemon started, since 1970. All counters begin then.");
    openmetrics_name(out, "holdfast_start_time_seconds", NULL);
    openmetrics_seconds(out, openmetrics_time(cli_json_string(report, "since")));
    openmetrics_gauge(out, "holdfast_connections", NULL, "Open connections of both protocols.",
                      cli_json_int(report, "connections"));
    openmetrics_gauge(out, "holdfast_owners", NULL, "VMs and other processes that hold leases.",
                      cli_json_int(report, "owners"));
    openmetrics_gauge(out, "holdfast_owners_stopping", NULL,
                      "VMs that lost their connection and are being ended.",
                      cli_json_int(report, "owners-stopping"));
}

static void openmetrics_threads(GString *out, CliJson *lanes)
{
    openmetrics_gauge(out, "holdfast_threads", NULL, "Threads that work for lockspaces.",
                      cli_json_int(lanes, "threads"));
    openmetrics_gauge(out, "holdfast_threads_idle", NULL, "Those of them that wait for work.",
                      cli_json_int(lanes, "idle"));
}

static void openmetrics_notices(GString *out, CliJson *notices)
{
    openmetrics_gauge(out, "holdfast_subscribers", NULL, "Connections that events go to.",
                      cli_json_int(notices, "subscribers"));
    openmetrics_counter(out, "holdfast_events_sent", "Events sent, one for each subscriber.",
                        cli_json_int(notices, "sent"));
    openmetrics_counter(out, "holdfast_events_dropped",
                        "Events that a subscriber did not get because it did not read.",
                        cli_json_int(notices, "dropped"));
}

static void openmetrics_vault(GString *out, CliJson *vault)
{
    openmetrics_info(out, "holdfast_vault_info",
                     "Always 1; who keeps locks while the daemon is not there.", "supervisor",
                     cli_json_string(vault, "supervisor"));
    openmetrics_gauge(out, "holdfast_vault_descriptors", NULL, "Descriptors that it keeps.",
                      cli_json_int(vault, "descriptors"));
    openmetrics_gauge(out, "holdfast_ledger_bytes", "bytes",
                      "Size of the file with the facts of each lease.",
                      cli_json_int(vault, "ledger-bytes"));
}

static gint openmetrics_by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Every member of an object of numbers, in the order of its names. */
static void openmetrics_members(GString *out, const char *name, const char *label, const char *help,
                                CliJson *object)
{
    g_autofree char *sample = g_strconcat(name, "_total", NULL);
    g_autoptr(GPtrArray) keys = g_ptr_array_new();

    openmetrics_family(out, name, "counter", NULL, help);
    if (!object)
        return;
    json_object_object_foreach(object, key, value)
    {
        (void)value;
        g_ptr_array_add(keys, key);
    }
    g_ptr_array_sort(keys, openmetrics_by_name);
    for (guint i = 0; i < keys->len; i++) {
        openmetrics_name(out, sample, label, g_ptr_array_index(keys, i), NULL);
        openmetrics_number(out, cli_json_int(object, g_ptr_array_index(keys, i)));
    }
}

/* ---- lockspaces ------------------------------------------------------------------------ */

static void openmetrics_space_name(GString *out, const char *name, CliJson *space,
                                   const char *label, const char *value)
{
    openmetrics_name(out, name, "driver", cli_json_string(space, "driver"), "lockspace",
                     cli_json_string(space, "name"), label, value, NULL);
}

static void openmetrics_leases(GString *out, CliJson *spaces)
{
    static const char *const modes[] = {"exclusive", "shared", "readonly"};

    openmetrics_family(out, "holdfast_leases", "gauge", NULL, "Leases that are held.");
    for (gsize i = 0; i < cli_json_length(spaces); i++) {
        CliJson *space = cli_json_at(spaces, i);

        for (gsize k = 0; k < G_N_ELEMENTS(modes); k++) {
            openmetrics_space_name(out, "holdfast_leases", space, "mode", modes[k]);
            openmetrics_number(out, cli_json_int(cli_json_object(space, "leases"), modes[k]));
        }
    }
}

static void openmetrics_acquisitions(GString *out, CliJson *spaces)
{
    static const char *const results[] = {"granted", "refused"};

    openmetrics_family(out, "holdfast_acquisitions", "counter", NULL,
                       "Leases granted, and requests refused because of a lease there.");
    for (gsize i = 0; i < cli_json_length(spaces); i++) {
        for (gsize k = 0; k < G_N_ELEMENTS(results); k++) {
            openmetrics_space_name(out, "holdfast_acquisitions_total", cli_json_at(spaces, i),
                                   "result", results[k]);
            openmetrics_number(out, cli_json_int(cli_json_at(spaces, i), results[k]));
        }
    }
}

/* One number of each lockspace. */
static void openmetrics_each_space(GString *out, CliJson *spaces, const char *name,
                                   const char *type, const char *key, const char *help)
{
    g_autofree char *sample = g_strconcat(name, strcmp(type, "counter") == 0 ? "_total" : "", NULL);

    openmetrics_family(out, name, type, NULL, help);
    for (gsize i = 0; i < cli_json_length(spaces); i++) {
        CliJson *space = cli_json_at(spaces, i);

        openmetrics_space_name(out, sample, space, "", NULL);
        openmetrics_number(out, cli_json_int(space, key) + cli_json_bool(space, key));
    }
}

static void openmetrics_oldest(GString *out, CliJson *spaces)
{
    static const char name[] = "holdfast_lockspace_oldest_operation_timestamp_seconds";

    openmetrics_family(out, name, "gauge", "seconds",
                       "Since when, since 1970, the oldest operation that has not ended is under "
                       "way; not there when nothing is.");
    for (gsize i = 0; i < cli_json_length(spaces); i++) {
        CliJson *space = cli_json_at(spaces, i);
        const char *oldest = cli_json_string(space, "oldest");

        if (!oldest)
            continue;
        openmetrics_space_name(out, name, space, "", NULL);
        openmetrics_seconds(out, openmetrics_time(oldest));
    }
}

static void openmetrics_spaces(GString *out, CliJson *spaces)
{
    openmetrics_leases(out, spaces);
    openmetrics_acquisitions(out, spaces);
    openmetrics_each_space(out, spaces, "holdfast_releases", "counter", "released",
                           "Leases given back, or released because their owner has ended.");
    openmetrics_each_space(out, spaces, "holdfast_leases_adopted", "counter", "adopted",
                           "Leases of an earlier daemon that were found to be held.");
    openmetrics_each_space(out, spaces, "holdfast_leases_lost", "counter", "lost",
                           "Leases of an earlier daemon that are not held any more: their VMs run "
                           "without protection.");
    openmetrics_each_space(out, spaces, "holdfast_lockspace_queued_operations", "gauge", "queued",
                           "Operations that wait for their turn.");
    openmetrics_each_space(out, spaces, "holdfast_lockspace_running_operations", "gauge", "running",
                           "Operations that are under way.");
    openmetrics_each_space(out, spaces, "holdfast_lockspace_stuck", "gauge", "stuck",
                           "1 if an operation has been under way for 10 s.");
    openmetrics_oldest(out, spaces);
}

/* ---- histograms ------------------------------------------------------------------------ */

/* As a floating-point number: 0.0025, 1.0. */
static void openmetrics_bound(char *text, gsize size, gint64 usec)
{
    g_ascii_formatd(text, (int)size, "%.6g", (double)usec / G_USEC_PER_SEC);
    if (!strpbrk(text, ".e"))
        g_strlcat(text, ".0", size);
}

static void openmetrics_histogram(GString *out, const char *name, const char *driver,
                                  const char *operation, CliJson *histogram)
{
    g_autofree char *bucket_name = g_strconcat(name, "_bucket", NULL);
    g_autofree char *count_name = g_strconcat(name, "_count", NULL);
    g_autofree char *sum_name = g_strconcat(name, "_sum", NULL);
    CliJson *buckets = cli_json_array(histogram, "buckets");

    for (gsize i = 0; i < cli_json_length(buckets); i++) {
        char bound[32];

        openmetrics_bound(bound, sizeof(bound), cli_json_int(cli_json_at(buckets, i), "le-usec"));
        openmetrics_name(out, bucket_name, "driver", driver, "operation", operation, "le", bound,
                         NULL);
        openmetrics_number(out, cli_json_int(cli_json_at(buckets, i), "count"));
    }
    openmetrics_name(out, bucket_name, "driver", driver, "operation", operation, "le", "+Inf",
                     NULL);
    openmetrics_number(out, cli_json_int(histogram, "count"));
    openmetrics_name(out, count_name, "driver", driver, "operation", operation, NULL);
    openmetrics_number(out, cli_json_int(histogram, "count"));
    openmetrics_name(out, sum_name, "driver", driver, "operation", operation, NULL);
    openmetrics_seconds(out, cli_json_int(histogram, "sum-usec"));
}

static void openmetrics_durations(GString *out, CliJson *drivers)
{
    static const char name[] = "holdfast_operation_duration_seconds";
    static const char *const operations[] = {"acquire", "release"};

    openmetrics_family(out, name, "histogram", "seconds",
                       "How long operations took in their lockspace, waiting included.");
    for (gsize i = 0; i < cli_json_length(drivers); i++) {
        CliJson *driver = cli_json_at(drivers, i);

        for (gsize k = 0; k < G_N_ELEMENTS(operations); k++)
            openmetrics_histogram(out, name, cli_json_string(driver, "name"), operations[k],
                                  cli_json_object(driver, operations[k]));
    }
}

/* ---- all ------------------------------------------------------------------------------- */

char *openmetrics_text(CliJson *report)
{
    GString *out = g_string_new(NULL);

    openmetrics_gauge(out, "holdfast_up", NULL, "1 if the daemon has answered.", report ? 1 : 0);
    if (report) {
        openmetrics_daemon(out, report);
        openmetrics_spaces(out, cli_json_array(report, "lockspaces"));
        openmetrics_members(out, "holdfast_refusals", "class",
                            "Requests for leases that were refused, by the class of the error.",
                            cli_json_object(report, "refusals"));
        openmetrics_durations(out, cli_json_array(report, "drivers"));
        openmetrics_threads(out, cli_json_object(report, "lanes"));
        openmetrics_notices(out, cli_json_object(report, "notices"));
        openmetrics_members(out, "holdfast_signals", "signal",
                            "Signals sent to VMs that had lost their connection.",
                            cli_json_object(report, "signals"));
        openmetrics_vault(out, cli_json_object(report, "vault"));
    }
    g_string_append(out, "# EOF\n");
    return g_string_free(out, FALSE);
}
