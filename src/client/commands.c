/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands of the protocol that have a function of their own, and the one for all others. */
#include <stdlib.h>
#include <string.h>

#include "client-internal.h"

static int commands_leases(hf_client *client, const char *command, struct json_object *reply,
                           hf_leases **ret_leases, hf_error **ret_error)
{
    const char *what = NULL;
    hf_leases *leases = hfc_leases_from_reply(reply, &what);

    if (leases) {
        *ret_leases = leases;
        return 0;
    }
    return what ? hfc_bad_reply(client, command, what, ret_error) : hfc_no_memory(ret_error);
}

/* hfc_call() for those that return a code: `ret_error` may be NULL, the code is needed anyway. */
static int commands_call(hf_client *client, const char *command, struct json_object *arguments,
                         struct json_object **ret_reply, hf_error **ret_error)
{
    hf_error *error = NULL;
    hf_code code;

    *ret_reply = hfc_call(client, command, arguments, &error);
    if (*ret_reply)
        return 0;
    code = hf_error_code(error);
    hfc_error_hand_over(ret_error, error);
    return code;
}

int hf_acquire(hf_client *client, const hf_request *request, hf_leases **ret_leases,
               hf_error **ret_error)
{
    struct json_object *arguments = hfc_request_arguments(request, false), *reply = NULL;
    int code;

    if (!arguments)
        return hfc_no_memory(ret_error);
    code = commands_call(client, "acquire", arguments, &reply, ret_error);
    if (code == 0 && ret_leases)
        code = commands_leases(client, "acquire", reply, ret_leases, ret_error);
    json_object_put(reply);
    json_object_put(arguments);
    return code;
}

int hf_release(hf_client *client, const hf_request *request, hf_error **ret_error)
{
    struct json_object *arguments = hfc_request_arguments(request, true), *reply = NULL;
    int code;

    if (!arguments)
        return hfc_no_memory(ret_error);
    code = commands_call(client, "release", arguments, &reply, ret_error);
    json_object_put(reply);
    json_object_put(arguments);
    return code;
}

int hf_query_leases(hf_client *client, hf_leases **ret_leases, hf_error **ret_error)
{
    struct json_object *reply = NULL;
    int code = commands_call(client, "query-leases", NULL, &reply, ret_error);

    if (code == 0)
        code = commands_leases(client, "query-leases", reply, ret_leases, ret_error);
    json_object_put(reply);
    return code;
}

/* A reply as text that is the caller's, NULL for NULL; takes the reply over. */
static char *commands_text(struct json_object *reply, hf_error **ret_error)
{
    const char *text;
    char *copy;

    if (!reply)
        return NULL;
    text = json_object_to_json_string_ext(reply,
                                          JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    copy = text ? strdup(text) : NULL;
    json_object_put(reply);
    if (!copy)
        hfc_no_memory(ret_error);
    return copy;
}

char *hf_query_metrics(hf_client *client, hf_error **ret_error)
{
    return commands_text(hfc_call(client, "query-metrics", NULL, ret_error), ret_error);
}

/* `text` as an object: strict JSON, nothing before or behind it. */
static struct json_object *commands_parse(const char *text)
{
    struct json_tokener *tokener = json_tokener_new_ex(HFC_MAX_DEPTH);
    size_t length = strlen(text);
    struct json_object *object = NULL;

    if (!tokener)
        return NULL;
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    if (length < HFC_MAX_REQUEST)
        object = json_tokener_parse_ex(tokener, text, (int)length + 1);
    if (!json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        object = NULL;
    }
    json_tokener_free(tokener);
    return object;
}

char *hf_command(hf_client *client, const char *command, const char *arguments,
                 hf_error **ret_error)
{
    struct json_object *object = NULL, *reply;

    if (arguments) {
        object = commands_parse(arguments);
        if (!object) {
            hfc_error(ret_error, HF_ERR_INVALID_ARGUMENT,
                      "the arguments of \"%s\" are not a JSON object", command);
            return NULL;
        }
    }
    reply = hfc_call(client, command, object, ret_error);
    json_object_put(object);
    return commands_text(reply, ret_error);
}
