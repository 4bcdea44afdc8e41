/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast status: the daemon, its lockspaces and their health, its drivers. */
#include <getopt.h>
#include <string.h>

#include "cli.h"

static void status_print_number(const char *label, CliJson *status, const char *key)
{
    printf("%-12s %" G_GINT64_FORMAT "\n", label, cli_json_int(status, key));
}

static void status_print_daemon(CliJson *status)
{
    g_autofree char *version = cli_safe(cli_json_string(status, "version"));
    g_autofree char *host = cli_safe(cli_json_string(status, "host"));
    g_autofree char *since = cli_describe_time(cli_json_string(status, "since"));
    CliJson *sockets = cli_json_array(status, "sockets");

    printf("%-12s holdfastd %s on host %s, pid %" G_GINT64_FORMAT ", since %s\n", "daemon", version,
           host, cli_json_int(status, "pid"), since);
    printf("%-12s version %" G_GINT64_FORMAT " of the native protocol\n", "protocol",
           cli_json_int(status, "protocol"));
    for (gsize i = 0; i < cli_json_length(sockets); i++) {
        CliJson *item = cli_json_at(sockets, i);
        g_autofree char *path = cli_safe(cli_json_string(item, "path"));
        g_autofree char *protocol = cli_safe(cli_json_string(item, "protocol"));

        printf("%-12s %s (%s)\n", "socket", path, protocol);
    }
    status_print_number("connections", status, "connections");
    status_print_number("owners", status, "owners");
    status_print_number("leases", status, "leases");
}

static void status_print_drivers(CliJson *drivers)
{
    CliJson *array = cli_json_array(drivers, "drivers");

    printf("%-12s ", "drivers");
    for (gsize i = 0; i < cli_json_length(array); i++) {
        CliJson *driver = cli_json_at(array, i);
        g_autofree char *name = cli_safe(cli_json_string(driver, "name"));
        g_autofree char *version = cli_safe(cli_json_string(driver, "version"));

        printf("%s%s %s%s", i ? ", " : "", name, version,
               cli_json_bool(driver, "default") ? " (default)" : "");
    }
    putchar('\n');
}

static void status_print_stopping(CliJson *status)
{
    CliJson *owners = cli_json_array(status, "owners-stopping");

    for (gsize i = 0; i < cli_json_length(owners); i++) {
        g_autofree char *owner = cli_describe_owner(cli_json_at(owners, i));

        printf("%-12s %s lost its connection and is being ended\n", "stopping", owner);
    }
}

static void status_print_lockspaces(const Cli *cli, CliJson *status)
{
    static const char *const headings[] = {"LOCKSPACE", "DRIVER", ">LEASES", ">QUEUED",
                                           ">RUNNING",  "HEALTH", NULL};
    g_autoptr(CliTable) table = cli_table_new(headings);
    CliJson *array = cli_json_array(status, "lockspaces");

    for (gsize i = 0; i < cli_json_length(array); i++) {
        CliJson *space = cli_json_at(array, i);
        const char *health = cli_json_string(space, "health");
        const char *operation = cli_json_string(space, "operation");
        g_autofree char *leases =
            g_strdup_printf("%" G_GINT64_FORMAT, cli_json_int(space, "leases"));
        g_autofree char *queued =
            g_strdup_printf("%" G_GINT64_FORMAT, cli_json_int(space, "queued"));
        g_autofree char *running =
            g_strdup_printf("%" G_GINT64_FORMAT, cli_json_int(space, "running"));
        g_autofree char *since = cli_describe_time(cli_json_string(space, "since"));
        g_autofree char *text =
            operation ? g_strdup_printf("%s: %s since %s", health ? health : "", operation, since)
                      : g_strdup(health);
        CliColor color = g_strcmp0(health, "stuck") == 0  ? CLI_RED
                         : g_strcmp0(health, "slow") == 0 ? CLI_YELLOW
                                                          : CLI_PLAIN;

        cli_table_add(table, color, cli_json_string(space, "name"),
                      cli_json_string(space, "driver"), leases, queued, running, text, NULL);
    }
    if (cli_json_length(array) > 0) {
        putchar('\n');
        cli_table_print(table, cli);
    }
}

static int status_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(hf_client) client = NULL;
    g_autoptr(hf_error) error = NULL;
    g_autoptr(CliJson) status = NULL;
    g_autoptr(CliJson) drivers = NULL;
    const char *argument = NULL;

    cli_parser_init(&parser, cli, NULL, FALSE, argc, argv);
    cli_parser_next(&parser, &argument);
    if (parser.status >= 0)
        return parser.status;
    if (argv[optind])
        return cli_usage_error(cli, "'%s' is too much", argv[optind]);
    client = cli_connect(cli);
    if (!client)
        return CLI_FAILED;
    status = cli_ask(cli, client, "query-status", NULL, &error);
    if (status)
        drivers = cli_ask(cli, client, "query-drivers", NULL, &error);
    if (!drivers)
        return cli_report(cli, error);
    if (cli->json) {
        json_object_object_add(status, "drivers",
                               json_object_get(cli_json_array(drivers, "drivers")));
        cli_print_json(stdout, status);
        return CLI_OK;
    }
    status_print_daemon(status);
    status_print_drivers(drivers);
    status_print_stopping(status);
    status_print_lockspaces(cli, status);
    return CLI_OK;
}

const CliVerb cli_status_verb = {
    .name = "status",
    .synopsis = "",
    .summary = "Show the daemon, its lockspaces and their health",
    .run = status_verb,
};
