/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast drivers: what each driver can do, as key=value lines for shell scripts. */
#include <getopt.h>
#include <string.h>

#include "cli.h"

static void drivers_print_string(CliJson *driver, const char *key)
{
    g_autofree char *safe = cli_safe(cli_json_string(driver, key));

    /* An absent value is an empty one: every driver has every key. */
    printf("%s=%s\n", key, cli_json_string(driver, key) ? safe : "");
}

static void drivers_print(CliJson *driver)
{
    CliJson *capabilities = cli_json_array(driver, "capabilities");

    drivers_print_string(driver, "name");
    drivers_print_string(driver, "description");
    drivers_print_string(driver, "version");
    printf("builtin=%s\n", cli_json_bool(driver, "builtin") ? "yes" : "no");
    drivers_print_string(driver, "path");
    printf("default=%s\n", cli_json_bool(driver, "default") ? "yes" : "no");
    fputs("capabilities=", stdout);
    for (gsize i = 0; i < cli_json_length(capabilities); i++) {
        g_autofree char *safe = cli_safe(json_object_get_string(cli_json_at(capabilities, i)));

        printf("%s%s", i ? "," : "", safe);
    }
    putchar('\n');
}

/* Keeps the one driver called `name`. FALSE: there is none. */
static gboolean drivers_select(CliJson *value, const char *name)
{
    CliJson *drivers = cli_json_array(value, "drivers");

    for (gsize i = 0; i < cli_json_length(drivers); i++) {
        CliJson *driver = cli_json_at(drivers, i);

        if (g_strcmp0(cli_json_string(driver, "name"), name) == 0) {
            CliJson *one = json_object_new_array();

            json_object_array_add(one, json_object_get(driver));
            json_object_object_add(value, "drivers", one);
            return TRUE;
        }
    }
    return FALSE;
}

static int drivers_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(CliJson) value = NULL;
    const char *argument = NULL, *name;
    CliJson *drivers;
    int status;

    cli_parser_init(&parser, cli, NULL, FALSE, argc, argv);
    cli_parser_next(&parser, &argument);
    if (parser.status >= 0)
        return parser.status;
    name = argv[optind];
    if (name && argv[optind + 1])
        return cli_usage_error(cli, "'%s' is too much", argv[optind + 1]);
    status = cli_ask_once(cli, "query-drivers", NULL, &value);
    if (status != CLI_OK)
        return status;
    if (name && !drivers_select(value, name))
        return cli_fail(cli, "InvalidArgument",
                        "the daemon has no driver '%s'; 'holdfast drivers' shows what it has",
                        name);
    if (cli->json) {
        cli_print_json(stdout, value);
        return CLI_OK;
    }
    drivers = cli_json_array(value, "drivers");
    for (gsize i = 0; i < cli_json_length(drivers); i++) {
        if (i)
            putchar('\n');
        drivers_print(cli_json_at(drivers, i));
    }
    return CLI_OK;
}

const CliVerb cli_drivers_verb = {
    .name = "drivers",
    .synopsis = "[NAME]",
    .summary = "Show the daemon's drivers and what each can do, as key=value",
    .run = drivers_verb,
};
