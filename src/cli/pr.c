/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast pr: persistent reservations, what was done (log) and what is (status). */
#include <getopt.h>
#include <string.h>

#include "pr.h"

enum { PR_OPTION_FILE = CLI_LONG_ONLY, PR_OPTION_SINCE, PR_OPTION_DEVICE, PR_OPTION_VM };

static const CliOption pr_options[] = {
    {PR_OPTION_SINCE, "since", "TIME", "log: only from then on"},
    {PR_OPTION_DEVICE, "device", "WWID", "log: only of this LUN or disk; may have wildcards"},
    {PR_OPTION_VM, "vm", "NAME", "log: only of this VM; may have wildcards"},
    {'f', "follow", NULL, "log: go on with what is written from now on"},
    {PR_OPTION_FILE, "file", "FILE", "log: read this file"},
    {0},
};

static void pr_option(PrArguments *arguments, int id, const char *argument)
{
    switch (id) {
    case PR_OPTION_FILE:
        arguments->file = argument;
        break;
    case PR_OPTION_SINCE:
        arguments->since = argument;
        break;
    case PR_OPTION_DEVICE:
        arguments->device = argument;
        break;
    case PR_OPTION_VM:
        arguments->vm = argument;
        break;
    default:
        arguments->follow = TRUE;
        break;
    }
}

static gboolean pr_has_option(const PrArguments *arguments)
{
    return arguments->file || arguments->since || arguments->device || arguments->vm ||
           arguments->follow;
}

static int pr_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    PrArguments arguments = {0};
    const char *argument = NULL, *what;
    int id;

    cli_parser_init(&parser, cli, pr_options, FALSE, argc, argv);
    while ((id = cli_parser_next(&parser, &argument)) > 0)
        pr_option(&arguments, id, argument);
    if (parser.status >= 0)
        return parser.status;
    what = argv[optind];
    if (!what)
        return cli_usage_error(cli, "say what: 'pr log', or 'pr status DEVICE'");
    arguments.words = argv + optind + 1;
    if (strcmp(what, "log") == 0) {
        if (*arguments.words)
            return cli_usage_error(cli, "'%s' is too much; devices are named with --device",
                                   *arguments.words);
        return pr_log_run(cli, &arguments);
    }
    if (strcmp(what, "status") != 0)
        return cli_usage_error(cli, "there is no 'pr %s'; there are 'pr log' and 'pr status'",
                               what);
    if (pr_has_option(&arguments))
        return cli_usage_error(cli, "'pr status' takes devices and no options of the log");
    if (!*arguments.words)
        return cli_usage_error(cli, "'pr status' needs a device, such as /dev/sdb");
    return pr_status_run(cli, &arguments);
}

const CliVerb cli_pr_verb = {
    .name = "pr",
    .synopsis = "log [OPTION...] | status DEVICE...",
    .summary = "Show persistent reservations, and the log of them",
    .details =
        "'pr log' prints what holdfast-pr-helper has written down: each command that changed\n"
        "a reservation, or was refused. TIME is 2026-01-31, \"2026-01-31 10:42\", 10:42, today,\n"
        "yesterday, or an age such as 90s, 10min, 2h, 3d.\n"
        "'pr status' asks devices for their registrations and their reservation.",
    .options = pr_options,
    .run = pr_verb,
};
