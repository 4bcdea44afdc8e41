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

/* One of the things that a release names, in a request of its own. */
static struct json_object *commands_release_of(struct json_object *arguments, const char *kind,
                                               struct json_object *item)
{
    struct json_object *one = json_object_new_object(), *list = json_object_new_array();
    struct json_object *value = NULL;

    if (list && json_object_array_add(list, json_object_get(item)) < 0) {
        json_object_put(item);
        json_object_put(list);
        list = NULL;
    }
    if (!one || !hfc_add(one, kind, list) ||
        (json_object_object_get_ex(arguments, "owner", &value) &&
         !hfc_add(one, "owner", json_object_get(value))) ||
        (json_object_object_get_ex(arguments, "timeout", &value) &&
         !hfc_add(one, "timeout", json_object_get(value)))) {
        json_object_put(one);
        return NULL;
    }
    return one;
}

/* How many leases that has released, 0 if it was free already; -1 if it failed. */
static int64_t commands_release_one(hf_client *client, struct json_object *one,
                                    hf_error **ret_error)
{
    struct json_object *reply, *value = NULL;
    hf_error *error = NULL;
    int64_t released = 0;

    if (!one) {
        hfc_no_memory(ret_error);
        return -1;
    }
    reply = hfc_call(client, "release", one, &error);
    json_object_put(one);
    if (reply) {
        if (json_object_object_get_ex(reply, "released", &value))
            released = json_object_get_int64(value);
        json_object_put(reply);
        return released;
    }
    if (hf_error_code(error) == HF_ERR_NOT_HELD) {
        hf_error_free(error);
        return 0;
    }
    hfc_error_hand_over(ret_error, error);
    return -1;
}

struct json_object *hfc_release_rest(hf_client *client, struct json_object *arguments,
                                     hf_error **ret_error)
{
    static const char *const kinds[] = {"disks", "leases"};
    struct json_object *lists[2] = {NULL, NULL}, *result;
    size_t named = 0;
    int64_t released = 0;

    for (size_t k = 0; k < 2; k++)
        if (json_object_object_get_ex(arguments, kinds[k], &lists[k]) &&
            json_object_is_type(lists[k], json_type_array))
            named += json_object_array_length(lists[k]);
        else
            lists[k] = NULL;
    for (size_t k = 0; named > 1 && k < 2; k++)
        for (size_t i = 0; lists[k] && i < json_object_array_length(lists[k]); i++) {
            int64_t more = commands_release_one(
                client,
                commands_release_of(arguments, kinds[k], json_object_array_get_idx(lists[k], i)),
                ret_error);

            if (more < 0)
                return NULL;
            released += more;
        }
    result = json_object_new_object();
    if (!result || !hfc_add(result, "released", json_object_new_int64(released))) {
        json_object_put(result);
        hfc_no_memory(ret_error);
        return NULL;
    }
    return result;
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
