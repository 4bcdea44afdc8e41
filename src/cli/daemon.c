/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The way to the daemon: connect, ask, report. What comes back is looked at through the
 * cli_json_*() functions only, which take a missing or odd member for none.
 */
#include <stdlib.h>

#include "cli.h"

#define DAEMON_CONNECT_MS 10000

/* libholdfast's own errors have no class in the protocol. */
static const char *daemon_class_name(hf_code code)
{
    switch (code) {
    case HF_ERR_CONNECTION:
        return "Connection";
    case HF_ERR_INVALID_ARGUMENT:
        return "InvalidArgument";
    default:
        return "Internal";
    }
}

int cli_report(const Cli *cli, const hf_error *error)
{
    hf_code code = hf_error_code(error);

    if (cli->json) {
        CliJson *object = json_tokener_parse(hf_error_json(error));

        if (cli_json_string(object, "class")) {
            g_autoptr(CliJson) root = json_object_new_object();

            json_object_object_add(root, "error", object);
            cli_print_json(cli->json_errors, root);
        } else {
            json_object_put(object);
            cli_fail(cli, daemon_class_name(code), "%s", hf_error_message(error));
        }
    } else {
        cli_complain(cli, "%s", hf_error_message(error));
    }
    return code == HF_ERR_BUSY ? CLI_BUSY : CLI_FAILED;
}

hf_client *cli_connect(const Cli *cli)
{
    g_autoptr(hf_error) error = NULL;
    CliProgress *progress = cli_progress_start(cli, "connecting to the daemon", 0);
    hf_client *client = hf_connect(cli->socket_path, DAEMON_CONNECT_MS, &error);

    cli_progress_stop(progress);
    if (!client)
        cli_report(cli, error);
    return client;
}

CliJson *cli_ask(const Cli *cli, hf_client *client, const char *command, CliJson *arguments,
                 hf_error **ret_error)
{
    const char *text = arguments ? json_object_to_json_string(arguments) : NULL;
    CliProgress *progress = cli_progress_start(cli, "waiting for the daemon's answer", 0);
    char *reply = hf_command(client, command, text, ret_error);
    CliJson *value;

    cli_progress_stop(progress);
    if (!reply)
        return NULL;
    value = json_tokener_parse(reply);
    free(reply);
    /* The library has checked that it is JSON; scalars have no members, and that is all right. */
    return value ? value : json_object_new_object();
}

int cli_ask_once(const Cli *cli, const char *command, CliJson *arguments, CliJson **ret_value)
{
    g_autoptr(CliJson) owned = arguments;
    g_autoptr(hf_client) client = cli_connect(cli);
    g_autoptr(hf_error) error = NULL;

    if (!client)
        return CLI_FAILED;
    *ret_value = cli_ask(cli, client, command, owned, &error);
    return *ret_value ? CLI_OK : cli_report(cli, error);
}

/* ---- members -------------------------------------------------------------------------------- */

static CliJson *daemon_member(CliJson *object, const char *key, json_type type)
{
    CliJson *value = NULL;

    if (!json_object_is_type(object, json_type_object) ||
        !json_object_object_get_ex(object, key, &value) || !json_object_is_type(value, type))
        return NULL;
    return value;
}

const char *cli_json_string(CliJson *object, const char *key)
{
    CliJson *value = daemon_member(object, key, json_type_string);

    return value ? json_object_get_string(value) : NULL;
}

gint64 cli_json_int(CliJson *object, const char *key)
{
    return json_object_get_int64(daemon_member(object, key, json_type_int));
}

gboolean cli_json_bool(CliJson *object, const char *key)
{
    return json_object_get_boolean(daemon_member(object, key, json_type_boolean));
}

CliJson *cli_json_object(CliJson *object, const char *key)
{
    return daemon_member(object, key, json_type_object);
}

CliJson *cli_json_array(CliJson *object, const char *key)
{
    return daemon_member(object, key, json_type_array);
}

gsize cli_json_length(CliJson *array)
{
    return array ? json_object_array_length(array) : 0;
}

CliJson *cli_json_at(CliJson *array, gsize index)
{
    return json_object_array_get_idx(array, index);
}
