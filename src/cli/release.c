/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast release: gives back what a process holds. */
#include <getopt.h>

#include "wanted.h"

static const CliOption release_options[] = {
    WANTED_OPTIONS_PID,
    WANTED_OPTIONS_DISKS,
    {'a', "all", NULL, "everything that the process holds"},
    {0},
};

static int release_check(const Cli *cli, const Wanted *wanted, gboolean all, char *rest)
{
    gboolean named = wanted->disks->len > 0 || wanted->leases->len > 0;

    if (rest)
        return cli_usage_error(cli, "'%s' is too much; disks are named with --disk", rest);
    if (!wanted->pid)
        return cli_usage_error(cli, "of which process? Name it with --pid");
    if (named && all)
        return cli_usage_error(cli, "--all goes with neither --disk nor --lease");
    if (!named && !all)
        return cli_usage_error(cli, "what is to be released? Name it with --disk or --lease, or "
                                    "say --all");
    return 0;
}

static int release_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(Wanted) wanted = wanted_new();
    g_autoptr(CliJson) value = NULL;
    const char *argument = NULL;
    gboolean all = FALSE;
    int id, status;

    cli_parser_init(&parser, cli, release_options, FALSE, argc, argv);
    while ((id = cli_parser_next(&parser, &argument)) > 0) {
        if (!wanted_option(wanted, &parser, id, argument) && id == 'a')
            all = TRUE;
    }
    if (parser.status >= 0)
        return parser.status;
    status = release_check(cli, wanted, all, argv[optind]);
    if (status)
        return status;
    status = cli_ask_once(cli, "release", wanted_to_release(wanted), &value);
    if (status != CLI_OK)
        return status;
    if (cli->json)
        cli_print_json(stdout, value);
    else if (!cli->quiet)
        printf("released: %" G_GINT64_FORMAT "\n", cli_json_int(value, "released"));
    return CLI_OK;
}

const CliVerb cli_release_verb = {
    .name = "release",
    .synopsis = "--pid PID (--disk PATH | --lease DIR:KEY | --all)...",
    .summary = "Give back what a process holds",
    .details = "Everything that is named is released, or, when the process does not hold one of\n"
               "them, nothing.",
    .options = release_options,
    .run = release_verb,
};
