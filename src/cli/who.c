/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast who: who holds one disk or lease, on this host or another. */
#include <getopt.h>
#include <string.h>

#include "wanted.h"

static const CliOption who_options[] = {
    {'l', "lease", "DIR:KEY", "a manual lease instead of a disk"},
    {0},
};

static void who_print(CliJson *value, const char *what, const char *state)
{
    CliJson *holders = cli_json_array(value, "holders");
    g_autofree char *safe = cli_safe(what);

    if (strcmp(state, "free") == 0) {
        printf("%s is free\n", safe);
        return;
    }
    printf("%s is held by ", safe);
    for (gsize i = 0; i < cli_json_length(holders); i++) {
        g_autofree char *holder = cli_describe_holder(cli_json_at(holders, i));

        printf("%s%s", i ? " and by " : "", holder);
    }
    if (cli_json_length(holders) == 0)
        printf("somebody who cannot be seen from here");
    printf("%s\n", strcmp(state, "shared") == 0 ? "; readers may join" : "");
}

/* The arguments of "query-disk", and what it is about. NULL: status has been set. */
static CliJson *who_arguments(CliParser *parser, Wanted *wanted, char **rest, char **ret_what)
{
    CliJson *arguments, *lease;
    g_autoptr(GError) error = NULL;

    if (wanted->leases->len + g_strv_length(rest) != 1) {
        parser->status = cli_usage_error(parser->cli, "one disk or one --lease is asked about");
        return NULL;
    }
    if (rest[0] && !wanted_add_disk(wanted, rest[0], &error)) {
        parser->status = cli_usage_error(parser->cli, "%s", error->message);
        return NULL;
    }
    arguments = json_object_new_object();
    if (rest[0]) {
        const WantedDisk *disk = g_ptr_array_index(wanted->disks, 0);

        *ret_what = g_strdup(disk->path);
        json_object_object_add(arguments, "disk", json_object_new_string(disk->path));
    } else {
        const WantedLease *named = g_ptr_array_index(wanted->leases, 0);

        *ret_what = g_strdup_printf("%s/%s", named->lockspace, named->key);
        lease = json_object_new_object();
        json_object_object_add(lease, "lockspace", json_object_new_string(named->lockspace));
        json_object_object_add(lease, "key", json_object_new_string(named->key));
        json_object_object_add(arguments, "lease", lease);
    }
    return arguments;
}

static int who_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(Wanted) wanted = wanted_new();
    g_autoptr(CliJson) value = NULL;
    g_autofree char *what = NULL;
    const char *argument = NULL, *state;
    CliJson *arguments;
    int id, status;

    cli_parser_init(&parser, cli, who_options, FALSE, argc, argv);
    while ((id = cli_parser_next(&parser, &argument)) > 0)
        wanted_option(wanted, &parser, id, argument);
    if (parser.status >= 0)
        return parser.status;
    arguments = who_arguments(&parser, wanted, argv + optind, &what);
    if (!arguments)
        return parser.status;
    status = cli_ask_once(cli, "query-disk", arguments, &value);
    if (status != CLI_OK)
        return status;
    state = cli_json_string(value, "state");
    if (!state)
        return cli_fail(cli, "Connection", "the daemon does not say whether %s is held", what);
    if (cli->json)
        cli_print_json(stdout, value);
    else if (!cli->quiet)
        who_print(value, what, state);
    return strcmp(state, "free") == 0 ? CLI_OK : CLI_BUSY;
}

const CliVerb cli_who_verb = {
    .name = "who",
    .synopsis = "(DISK | --lease DIR:KEY)",
    .summary = "Say who holds a disk, on this host or another",
    .details = "Exit codes: 0 free, 75 held by somebody.",
    .options = who_options,
    .run = who_verb,
};
