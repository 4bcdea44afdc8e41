/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast locks: who holds what, as far as this daemon knows. */
#include <getopt.h>

#include "wanted.h"

static const CliOption locks_options[] = {
    {'p', "pid", "PID", "only of this process"},
    {'u', "uuid", "UUID", "only of this VM"},
    {0},
};

static void locks_add_row(CliTable *table, CliJson *lease)
{
    CliJson *owner = cli_json_object(lease, "owner");
    const char *lockspace = cli_json_string(lease, "lockspace");
    const char *name = cli_json_string(owner, "name");
    const char *state = cli_json_string(owner, "state");
    g_autofree char *since = cli_describe_time(cli_json_string(lease, "since"));
    g_autofree char *pid = g_strdup_printf("%" G_GINT64_FORMAT, cli_json_int(owner, "pid"));
    g_autofree char *named = NULL;

    /* A lease has no disk, and libvirt may have named a hash only: then the resource itself. */
    if (!cli_json_string(lease, "disk"))
        named = cli_describe_thing(lease);
    if (!name)
        name = cli_json_string(owner, "uuid");
    cli_table_add(table, g_strcmp0(state, "stopping") == 0 ? CLI_YELLOW : CLI_PLAIN,
                  named ? named : cli_json_string(lease, "disk"), cli_json_string(lease, "mode"),
                  name, pid, since, lockspace && *lockspace ? lockspace : "(the disk itself)",
                  NULL);
}

static void locks_print(const Cli *cli, CliJson *value)
{
    static const char *const headings[] = {"DISK",  "MODE",      "VM", ">PID",
                                           "SINCE", "LOCKSPACE", NULL};
    g_autoptr(CliTable) table = cli_table_new(headings);
    CliJson *leases = cli_json_array(value, "leases");

    if (cli_json_length(leases) == 0) {
        cli_note(cli, "no locks");
        return;
    }
    for (gsize i = 0; i < cli_json_length(leases); i++)
        locks_add_row(table, cli_json_at(leases, i));
    cli_table_print(table, cli);
}

static void locks_option(CliParser *parser, int id, const char *argument, CliJson *arguments)
{
    g_autofree char *uuid = NULL;
    pid_t pid;

    if (id == 'u') {
        uuid = wanted_parse_uuid(argument);
        if (uuid)
            json_object_object_add(arguments, "uuid", json_object_new_string(uuid));
        else
            parser->status = cli_usage_error(parser->cli, "'%s' is no UUID", argument);
    } else if (cli_parse_pid(argument, &pid)) {
        json_object_object_add(arguments, "pid", json_object_new_int64(pid));
    } else {
        parser->status = cli_usage_error(parser->cli, "'%s' is no process id", argument);
    }
}

static int locks_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(CliJson) arguments = json_object_new_object();
    g_autoptr(CliJson) value = NULL;
    const char *argument = NULL;
    int id, status;

    cli_parser_init(&parser, cli, locks_options, FALSE, argc, argv);
    while ((id = cli_parser_next(&parser, &argument)) > 0)
        locks_option(&parser, id, argument, arguments);
    if (parser.status >= 0)
        return parser.status;
    if (argv[optind])
        return cli_usage_error(cli, "'%s' is too much; 'holdfast who' asks about one disk",
                               argv[optind]);
    status = cli_ask_once(cli, "query-leases", g_steal_pointer(&arguments), &value);
    if (status != CLI_OK)
        return status;
    if (cli->json)
        cli_print_json(stdout, value);
    else
        locks_print(cli, value);
    return CLI_OK;
}

const CliVerb cli_locks_verb = {
    .name = "locks",
    .synopsis = "[OPTION...]",
    .summary = "List what is locked on this host, and by whom",
    .options = locks_options,
    .run = locks_verb,
};
