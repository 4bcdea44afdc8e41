/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast pr status: asks devices for their registrations and reservation, by itself: neither the
 * helper nor the daemon is needed, but the right to send SCSI commands is. Changes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pr-scan.h"
#include "pr.h"

/* ---- as JSON -------------------------------------------------------------------------------- */

static CliJson *status_key(guint64 key)
{
    g_autofree char *text = g_strdup_printf("0x%" G_GINT64_MODIFIER "x", key);

    return json_object_new_string(text);
}

static CliJson *status_ternary(PrTernary value)
{
    return value == PR_UNKNOWN ? NULL : json_object_new_boolean(value == PR_YES);
}

static CliJson *status_registration(const PrScanRegistration *registration)
{
    CliJson *object = json_object_new_object();

    json_object_object_add(object, "key", status_key(registration->key));
    json_object_object_add(object, "initiator",
                           registration->initiator ? json_object_new_string(registration->initiator)
                                                   : NULL);
    json_object_object_add(
        object, "target_port",
        registration->target_port ? json_object_new_int(registration->target_port) : NULL);
    json_object_object_add(object, "holder", json_object_new_boolean(registration->holder));
    json_object_object_add(object, "this_host", status_ternary(registration->this_host));
    return object;
}

static CliJson *status_path(const PrScanPath *path)
{
    CliJson *object = json_object_new_object();

    json_object_object_add(object, "path", json_object_new_string(path->name));
    json_object_object_add(object, "state", json_object_new_string(path->state));
    json_object_object_add(object, "target_port",
                           path->target_port ? json_object_new_int(path->target_port) : NULL);
    json_object_object_add(object, "registered", status_ternary(path->registered));
    json_object_object_add(object, "key",
                           path->registered == PR_YES ? status_key(path->key) : NULL);
    return object;
}

static CliJson *status_reservation(const PrScan *scan)
{
    CliJson *object;

    if (!scan->held)
        return NULL;
    object = json_object_new_object();
    json_object_object_add(object, "key",
                           spc_type_all_registrants(scan->type) ? NULL : status_key(scan->holder));
    json_object_object_add(object, "type",
                           json_object_new_string(spc_type_abbreviation(scan->type)));
    json_object_object_add(object, "type_name", json_object_new_string(spc_type_name(scan->type)));
    return object;
}

static CliJson *status_device(const char *name, const PrScan *scan)
{
    g_autofree char *valid = g_utf8_make_valid(name, -1);
    CliJson *object = json_object_new_object();
    CliJson *registrations = json_object_new_array(), *paths = json_object_new_array();

    for (guint i = 0; i < scan->registrations->len; i++)
        json_object_array_add(registrations,
                              status_registration(g_ptr_array_index(scan->registrations, i)));
    for (guint i = 0; i < scan->paths->len; i++)
        json_object_array_add(paths, status_path(g_ptr_array_index(scan->paths, i)));
    json_object_object_add(object, "device", json_object_new_string(valid));
    json_object_object_add(object, "disk", json_object_new_string(scan->disk));
    json_object_object_add(object, "wwid", scan->wwid ? json_object_new_string(scan->wwid) : NULL);
    json_object_object_add(object, "generation", json_object_new_int64(scan->generation));
    json_object_object_add(object, "reservation", status_reservation(scan));
    json_object_object_add(object, "registrations", registrations);
    json_object_object_add(object, "paths", paths);
    return object;
}

/* ---- for people ------------------------------------------------------------------------------ */

static const char *status_word(PrTernary value, const char *yes, const char *no)
{
    return value == PR_YES ? yes : value == PR_NO ? no : "?";
}

static void status_print_registrations(const Cli *cli, const PrScan *scan)
{
    static const char *const headings[] = {"KEY", "HOLDER", "HOST", "INITIATOR", ">PORT", NULL};
    g_autoptr(CliTable) table = cli_table_new(headings);

    for (guint i = 0; i < scan->registrations->len; i++) {
        const PrScanRegistration *registration = g_ptr_array_index(scan->registrations, i);
        g_autofree char *key = g_strdup_printf("0x%" G_GINT64_MODIFIER "x", registration->key);
        g_autofree char *port = registration->target_port
                                    ? g_strdup_printf("%u", registration->target_port)
                                    : g_strdup("-");

        cli_table_add(table, registration->holder ? CLI_BOLD : CLI_PLAIN, key,
                      registration->holder ? "holds it" : "-",
                      status_word(registration->this_host, "this", "other"),
                      registration->initiator ? registration->initiator : "-", port, NULL);
    }
    if (scan->registrations->len > 0)
        cli_table_print(table, cli);
}

static void status_print_paths(const Cli *cli, const PrScan *scan)
{
    static const char *const headings[] = {"PATH", "STATE", "REGISTERED", ">PORT", NULL};
    g_autoptr(CliTable) table = cli_table_new(headings);
    gboolean some = FALSE;

    for (guint i = 0; i < scan->paths->len; i++)
        some |= ((PrScanPath *)g_ptr_array_index(scan->paths, i))->registered == PR_YES;
    for (guint i = 0; i < scan->paths->len; i++) {
        const PrScanPath *path = g_ptr_array_index(scan->paths, i);
        g_autofree char *key = g_strdup_printf("0x%" G_GINT64_MODIFIER "x", path->key);
        g_autofree char *port =
            path->target_port ? g_strdup_printf("%u", path->target_port) : g_strdup("-");

        /* a path that lacks what others have fails writes */
        cli_table_add(table, some && path->registered == PR_NO ? CLI_RED : CLI_PLAIN, path->name,
                      path->state,
                      path->registered == PR_YES  ? key
                      : path->registered == PR_NO ? "no"
                                                  : "?",
                      port, NULL);
    }
    if (scan->paths->len > 0)
        cli_table_print(table, cli);
}

static void status_print(const Cli *cli, const char *name, const PrScan *scan)
{
    g_autofree char *safe = cli_safe(name);
    g_autofree char *wwid = scan->wwid ? cli_safe(scan->wwid) : NULL;

    printf("%s%s%s (%s%s%s)\n", cli_color(cli, stdout, CLI_BOLD), safe,
           cli_color(cli, stdout, CLI_PLAIN), scan->disk, wwid ? ", " : "", wwid ? wwid : "");
    if (!scan->held)
        printf("no reservation");
    else if (spc_type_all_registrants(scan->type))
        printf("reserved: %s, by all registrants", spc_type_name(scan->type));
    else
        printf("reserved: %s, by key 0x%" G_GINT64_MODIFIER "x", spc_type_name(scan->type),
               scan->holder);
    printf("; %u registrations, generation %u\n", scan->registrations->len, scan->generation);
    status_print_registrations(cli, scan);
    status_print_paths(cli, scan);
}

/* ---- the verb -------------------------------------------------------------------------------- */

static int status_complain(const Cli *cli, const char *device, const char *error)
{
    return cli_fail(cli, "Device", "%s: %s", device, error);
}

int pr_status_run(Cli *cli, const PrArguments *arguments)
{
    g_autoptr(CliJson) root = json_object_new_object();
    CliJson *devices = json_object_new_array();
    int status = CLI_OK;

    json_object_object_add(root, "devices", devices);
    for (char **device = arguments->words; *device; device++) {
        CliProgress *progress = cli_progress_start(cli, *device, 0);
        g_autofree char *error = NULL;
        g_autoptr(PrScan) scan = pr_scan(*device, &error);

        cli_progress_stop(progress);
        if (!scan) {
            status = status_complain(cli, *device, error);
            continue;
        }
        if (cli->json) {
            json_object_array_add(devices, status_device(*device, scan));
        } else {
            if (device != arguments->words)
                puts("");
            status_print(cli, *device, scan);
        }
    }
    if (cli->json && (status == CLI_OK || json_object_array_length(devices) > 0))
        cli_print_json(stdout, root);
    return status;
}
