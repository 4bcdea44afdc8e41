/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast acquire: locks for a process that runs already. */
#include <getopt.h>

#include "wanted.h"

enum { ACQUIRE_WAIT = WANTED_NEXT };

static const CliOption acquire_options[] = {
    WANTED_OPTIONS_PID,
    WANTED_OPTIONS_DISKS,
    WANTED_OPTIONS_OWNER,
    {ACQUIRE_WAIT, "wait", "SECONDS", "wait so long while somebody else holds it"},
    {0},
};

static int acquire_check(const Cli *cli, const Wanted *wanted, char *rest)
{
    if (rest)
        return cli_usage_error(cli, "'%s' is too much; disks are named with --disk", rest);
    if (!wanted->pid)
        return cli_usage_error(cli, "for which process? Name it with --pid");
    if (wanted->disks->len == 0 && wanted->leases->len == 0 && !wanted->domain)
        return cli_usage_error(cli, "there is nothing to lock: name it with --disk, --lease or "
                                    "--domain");
    return 0;
}

static void acquire_print(const Cli *cli, CliJson *value)
{
    CliJson *leases = cli_json_array(value, "leases");

    if (cli->json) {
        cli_print_json(stdout, value);
        return;
    }
    for (gsize i = 0; i < cli_json_length(leases) && !cli->quiet; i++) {
        CliJson *lease = cli_json_at(leases, i);
        g_autofree char *thing = cli_describe_thing(lease);
        g_autofree char *mode = cli_safe(cli_json_string(lease, "mode"));
        g_autofree char *owner = cli_describe_owner(cli_json_object(lease, "owner"));

        printf("%s: %s, held by %s\n", thing, mode, owner);
    }
}

static int acquire_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(Wanted) wanted = wanted_new();
    g_autoptr(hf_client) client = NULL;
    g_autoptr(CliJson) value = NULL;
    const char *argument = NULL;
    double wait = 0;
    int id, status;

    cli_parser_init(&parser, cli, acquire_options, FALSE, argc, argv);
    while ((id = cli_parser_next(&parser, &argument)) > 0) {
        if (!wanted_option(wanted, &parser, id, argument) && id == ACQUIRE_WAIT &&
            !cli_parse_seconds(argument, &wait))
            parser.status = cli_usage_error(cli, "'%s' is no number of seconds", argument);
    }
    if (parser.status >= 0)
        return parser.status;
    status = acquire_check(cli, wanted, argv[optind]);
    if (status)
        return status;
    if (!wanted_finish(wanted, cli))
        return CLI_FAILED;
    if (wanted->disks->len == 0 && wanted->leases->len == 0)
        return cli_fail(cli, "InvalidArgument", "%s: the domain has nothing that can be locked",
                        wanted->domain);
    client = cli_connect(cli);
    if (!client)
        return CLI_FAILED;
    status = cli_obtain(cli, client, wanted, wait, &value);
    if (status == CLI_OK)
        acquire_print(cli, value);
    return status;
}

const CliVerb cli_acquire_verb = {
    .name = "acquire",
    .synopsis = "--pid PID [OPTION...]",
    .summary = "Lock disks for a process that runs already",
    .details =
        "Everything that is named is locked, or nothing. The locks end with the process, or\n"
        "with 'holdfast release'.",
    .options = acquire_options,
    .run = acquire_verb,
};
