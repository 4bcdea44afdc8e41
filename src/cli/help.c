/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast help and holdfast version: what can be told without a daemon. */
#include <getopt.h>

#include "cli.h"

static int help_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    const char *argument = NULL, *name;
    const CliVerb *verb = NULL;

    cli_parser_init(&parser, cli, NULL, FALSE, argc, argv);
    cli_parser_next(&parser, &argument);
    if (parser.status >= 0)
        return parser.status;
    name = argv[optind];
    if (name) {
        verb = cli_find_verb(name);
        if (!verb) {
            cli->verb = NULL;
            return cli_usage_error(cli, "there is no verb '%s'", name);
        }
    }
    cli_print_help(stdout, verb);
    return CLI_OK;
}

const CliVerb cli_help_verb = {
    .name = "help",
    .synopsis = "[VERB]",
    .summary = "Explain a verb",
    .run = help_verb,
};

/* Also what --version does, which brings no words along. */
static int version_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    const char *argument = NULL;

    if (argc > 0) {
        cli_parser_init(&parser, cli, NULL, FALSE, argc, argv);
        cli_parser_next(&parser, &argument);
        if (parser.status >= 0)
            return parser.status;
        if (argv[optind])
            return cli_usage_error(cli, "'%s' is too much", argv[optind]);
    }
    if (cli->json) {
        g_autoptr(CliJson) object = json_object_new_object();

        json_object_object_add(object, "version", json_object_new_string(HOLDFAST_VERSION));
        json_object_object_add(object, "protocol", json_object_new_int(HF_PROTOCOL_VERSION));
        cli_print_json(stdout, object);
    } else {
        printf("holdfast %s (native protocol %d)\n", HOLDFAST_VERSION, HF_PROTOCOL_VERSION);
    }
    return CLI_OK;
}

const CliVerb cli_version_verb = {
    .name = "version",
    .synopsis = "",
    .summary = "Show the version",
    .run = version_verb,
};
