/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast watch: the daemon's events, one a line, until it is interrupted. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const CliOption watch_options[] = {
    {'e', "event", "NAME", "only these events; may be repeated"},
    {0},
};

/* LEASE_ACQUIRED may be written lease-acquired. Whether there is such an event, the daemon knows.
 */
static void watch_add_event(CliJson *events, const char *name)
{
    g_autofree char *upper = g_ascii_strup(name, -1);

    json_object_array_add(events, json_object_new_string(g_strdelimit(upper, "-", '_')));
}

static void watch_append(GString *line, const char *separator, const char *text)
{
    g_autofree char *safe = text ? cli_safe(text) : NULL;

    if (safe)
        g_string_append_printf(line, "%s%s", separator, safe);
}

static void watch_append_owner(GString *line, CliJson *owner)
{
    g_autofree char *who = cli_describe_owner(owner);

    g_string_append_printf(line, " %s", who);
}

static char *watch_line(const char *name, CliJson *event)
{
    g_autofree char *time = cli_describe_time(cli_json_string(event, "timestamp"));
    CliJson *data = cli_json_object(event, "data");
    GString *line = g_string_new(time);

    watch_append(line, " ", name);
    if (g_str_has_prefix(name, "LEASE_")) {
        g_autofree char *thing = cli_describe_thing(data);

        g_string_append_printf(line, " %s", thing);
        watch_append(line, " ", cli_json_string(data, "mode"));
        watch_append_owner(line, cli_json_object(data, "owner"));
        watch_append(line, ": ", cli_json_string(data, "reason"));
        watch_append(line, ": ", cli_json_string(data, "desc"));
    } else if (g_str_has_prefix(name, "OWNER_")) {
        watch_append_owner(line, data);
    } else if (strcmp(name, "EVENTS_LOST") == 0) {
        watch_append(line, " ", "some events are missing here");
    } else {
        watch_append(line, " ", json_object_to_json_string_ext(data, JSON_C_TO_STRING_PLAIN));
    }
    return g_string_free(line, FALSE);
}

/* FALSE: standard output is no longer there. */
static gboolean watch_print(const Cli *cli, const char *text)
{
    g_autoptr(CliJson) event = json_tokener_parse(text);
    const char *name = cli_json_string(event, "event");

    if (cli->json) {
        puts(text);
    } else {
        g_autofree char *line = watch_line(name ? name : "?", event);

        puts(line);
    }
    return fflush(stdout) == 0;
}

static int watch_loop(const Cli *cli, hf_client *client)
{
    gboolean broken = FALSE;

    for (;;) {
        g_autoptr(hf_error) error = NULL;
        char *event = NULL;
        int result = hf_next_event(client, -1, &event, &error);

        if (result == 1) {
            gboolean printed = watch_print(cli, event);

            free(event);
            if (!printed)
                return CLI_FAILED; /* main() says why */
            broken = FALSE;
        } else if (result == HF_ERR_CONNECTION && !broken) {
            /* Lost: the next call connects again, and fails only when that is hopeless. */
            cli_note(cli, "%s; connecting again", hf_error_message(error));
            broken = TRUE;
        } else if (result < 0) {
            return cli_report(cli, error);
        }
    }
}

static int watch_verb(Cli *cli, int argc, char **argv)
{
    g_auto(CliParser) parser = {0};
    g_autoptr(CliJson) events = json_object_new_array();
    g_autoptr(CliJson) arguments = json_object_new_object();
    g_autoptr(CliJson) value = NULL;
    g_autoptr(hf_client) client = NULL;
    g_autoptr(hf_error) error = NULL;
    const char *argument = NULL;

    cli_parser_init(&parser, cli, watch_options, FALSE, argc, argv);
    while (cli_parser_next(&parser, &argument) > 0)
        watch_add_event(events, argument);
    if (parser.status >= 0)
        return parser.status;
    if (argv[optind])
        return cli_usage_error(cli, "'%s' is too much; events are named with --event",
                               argv[optind]);
    client = cli_connect(cli);
    if (!client)
        return CLI_FAILED;
    if (cli_json_length(events) > 0)
        json_object_object_add(arguments, "events", g_steal_pointer(&events));
    value = cli_ask(cli, client, "subscribe", arguments, &error);
    if (!value)
        return cli_report(cli, error);
    return watch_loop(cli, client);
}

const CliVerb cli_watch_verb = {
    .name = "watch",
    .synopsis = "[OPTION...]",
    .summary = "Print events as they happen, until interrupted",
    .details = "Events: LEASE_ACQUIRED LEASE_RELEASED LEASE_REFUSED OWNER_STOPPING OWNER_GONE "
               "LEASE_ADOPTED LEASE_LOST.\n"
               "After a restart of the daemon EVENTS_LOST tells that some may be missing.",
    .options = watch_options,
    .run = watch_verb,
};
