/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests of the native protocol, from bytes to structs; see native.h. */
#include "native.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static Fault *native_fault_argument(const char *argument, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

static Fault *native_fault_argument(const char *argument, const char *format, ...)
{
    g_autofree char *text = NULL;
    Fault *fault;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    fault = fault_new(HF_ERR_INVALID_ARGUMENT, EINVAL, "argument '%s' %s", argument, text);
    fault->argument = g_strdup(argument);
    return fault;
}

/* A string without NUL inside, which names and paths cannot have. */
static gboolean native_is_text(json_object *value)
{
    return json_object_is_type(value, json_type_string) &&
           strlen(json_object_get_string(value)) == (size_t)json_object_get_string_len(value);
}

/* json-c reads more than JSON has: NaN and the like, which could not be repeated in a reply, and
 * integers beyond 64 bits, which it takes for the nearest it has. */
static gboolean native_numbers_are_sane(json_object *value)
{
    const char *point;

    switch (json_object_get_type(value)) {
    case json_type_double:
        /* its text is as it was written, which need not be JSON, such as "1." */
        point = strchr(json_object_to_json_string(value), '.');
        return isfinite(json_object_get_double(value)) && (!point || g_ascii_isdigit(point[1]));
    case json_type_int:
        return json_object_get_int64(value) > G_MININT64 &&
               json_object_get_uint64(value) <= G_MAXINT64;
    case json_type_array:
        for (size_t i = 0; i < json_object_array_length(value); i++)
            if (!native_numbers_are_sane(json_object_array_get_idx(value, i)))
                return FALSE;
        return TRUE;
    case json_type_object: {
        json_object_object_foreach(value, key, member)
        {
            (void)key;
            if (!native_numbers_are_sane(member))
                return FALSE;
        }
        return TRUE;
    }
    default:
        return TRUE;
    }
}

static void native_tokener_free(gpointer data)
{
    json_tokener_free(data);
}

/* One for each thread: to make it anew takes as long as to parse with it. */
static json_tokener *native_tokener(void)
{
    static GPrivate own = G_PRIVATE_INIT(native_tokener_free);
    json_tokener *tokener = g_private_get(&own);

    if (tokener) {
        json_tokener_reset(tokener);
        return tokener;
    }
    tokener = json_tokener_new_ex(NATIVE_MAX_DEPTH);
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
    g_private_set(&own, tokener);
    return tokener;
}

/* One object that fills the line, or NULL with a fault. */
static json_object *native_parse_line(const char *line, gsize len, Fault **ret_fault)
{
    json_tokener *tokener = native_tokener();
    json_object *object;
    enum json_tokener_error error;
    size_t end;
    const char *why;

    object = json_tokener_parse_ex(tokener, line, (int)len);
    error = json_tokener_get_error(tokener);
    end = json_tokener_get_parse_end(tokener);
    if (!g_utf8_validate(line, (gssize)len, NULL))
        why = "it is not valid UTF-8";
    else if (error == json_tokener_continue)
        why = "it ends too early";
    else if (error != json_tokener_success)
        why = json_tokener_error_desc(error);
    else if (end != len || !json_object_is_type(object, json_type_object))
        why = "it is something else";
    else if (!native_numbers_are_sane(object))
        why = "a number in it has no place in 64 bits";
    else
        return object;
    json_object_put(object);
    *ret_fault = fault_new(HF_ERR_INVALID_SYNTAX, EINVAL,
                           "this line is not a JSON object: %s; one request is one object on one "
                           "line",
                           why);
    return NULL;
}

gboolean native_parse_request(const char *line, gsize len, NativeRequest *request,
                              Fault **ret_fault)
{
    json_object *object, *value;

    memset(request, 0, sizeof(*request));
    object = native_parse_line(line, len, ret_fault);
    if (!object)
        return FALSE;
    request->has_id = json_object_object_get_ex(object, "id", &value);
    request->id = request->has_id ? json_object_get(value) : NULL;
    json_object_object_foreach(object, key, member)
    {
        if (strcmp(key, "execute") == 0 && native_is_text(member)) {
            request->execute = g_strdup(json_object_get_string(member));
        } else if (strcmp(key, "arguments") == 0 && json_object_is_type(member, json_type_object)) {
            request->arguments = json_object_get(member);
        } else if (strcmp(key, "id") != 0) {
            *ret_fault = native_fault_argument(key, "is unknown here, or has the wrong type: a "
                                                    "request has execute (a string), arguments "
                                                    "(an object) and id");
            json_object_put(object);
            return FALSE;
        }
    }
    json_object_put(object);
    if (!request->execute) {
        *ret_fault = native_fault_argument("execute", "is missing: it names the command");
        return FALSE;
    }
    return TRUE;
}

void native_request_clear(NativeRequest *request)
{
    g_clear_pointer(&request->execute, g_free);
    g_clear_pointer(&request->arguments, json_object_put);
    g_clear_pointer(&request->id, json_object_put);
}

/* ---- arguments ------------------------------------------------------------------------- */

static void native_want_free(gpointer data)
{
    NativeWant *want = data;

    g_free(want->path);
    g_free(want->format);
    g_free(want->space);
    g_free(want->key);
    g_free(want);
}

void native_arguments_free(NativeArguments *arguments)
{
    if (!arguments)
        return;
    g_free(arguments->name);
    g_free(arguments->uuid);
    g_free(arguments->uri);
    g_ptr_array_unref(arguments->wants);
    if (arguments->events)
        g_ptr_array_unref(arguments->events);
    g_free(arguments);
}

static Fault *native_get_string(const char *key, json_object *value, char **ret_text)
{
    if (!native_is_text(value))
        return native_fault_argument(key, "has to be a string without NUL characters");
    g_free(*ret_text);
    *ret_text = g_strdup(json_object_get_string(value));
    return NULL;
}

static Fault *native_get_path(const char *key, json_object *value, char **ret_path)
{
    Fault *fault = native_get_string(key, value, ret_path);

    if (!fault && **ret_path != '/')
        return native_fault_argument(key, "has to be an absolute path, not '%s'", *ret_path);
    return fault;
}

static Fault *native_get_integer(const char *key, json_object *value, gint64 min, gint64 max,
                                 gint64 *ret_number)
{
    gint64 number = json_object_get_int64(value);

    if (!json_object_is_type(value, json_type_int) || number < min || number > max)
        return native_fault_argument(
            key, "has to be an integer from %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT, min, max);
    *ret_number = number;
    return NULL;
}

static Fault *native_get_uuid(const char *key, json_object *value, char **ret_uuid)
{
    Fault *fault = native_get_string(key, value, ret_uuid);

    if (!fault && !g_uuid_string_is_valid(*ret_uuid))
        return native_fault_argument(
            key, "has to be a UUID like 8d4c61a4-2d3c-4b5e-9d43-f4a3c52f1c0e, not '%s'", *ret_uuid);
    return fault;
}

static Fault *native_get_owner(json_object *object, guint takes, NativeArguments *arguments)
{
    gint64 pid = 0;

    if (!json_object_is_type(object, json_type_object))
        return native_fault_argument("owner", "has to be an object");
    json_object_object_foreach(object, key, value)
    {
        Fault *fault = NULL;
        g_autofree char *until = NULL;

        if (strcmp(key, "pid") == 0) {
            fault = native_get_integer("owner.pid", value, 1, G_MAXINT, &pid);
        } else if (takes & NATIVE_OWNER_PID) {
            fault = native_fault_argument("owner", "takes only pid here");
        } else if (strcmp(key, "name") == 0) {
            fault = native_get_string("owner.name", value, &arguments->name);
        } else if (strcmp(key, "uuid") == 0) {
            fault = native_get_uuid("owner.uuid", value, &arguments->uuid);
        } else if (strcmp(key, "uri") == 0) {
            fault = native_get_string("owner.uri", value, &arguments->uri);
        } else if (strcmp(key, "until") == 0) {
            fault = native_get_string("owner.until", value, &until);
            arguments->until_close = g_strcmp0(until, "connection") == 0;
            if (!fault && !arguments->until_close && strcmp(until, "process") != 0)
                fault = native_fault_argument("owner.until", "is either process or connection");
        } else {
            fault = native_fault_argument(key, "of owner is unknown: it has pid, name, uuid, uri "
                                               "and until");
        }
        if (fault)
            return fault;
    }
    if (pid == 0)
        return native_fault_argument("owner.pid", "is missing: whose process is it?");
    arguments->pid = (pid_t)pid;
    arguments->has_owner = TRUE;
    return NULL;
}

static Fault *native_get_mode(json_object *value, hf_mode *ret_mode)
{
    g_autofree char *text = NULL;
    Fault *fault = native_get_string("mode", value, &text);

    if (!fault && !mode_from_string(text, ret_mode))
        return native_fault_argument("mode", "is exclusive, shared or readonly, not '%s'", text);
    return fault;
}

static Fault *native_get_lease(json_object *object, gboolean with_mode, NativeWant *want)
{
    if (!json_object_is_type(object, json_type_object))
        return native_fault_argument("leases", "has to hold objects");
    json_object_object_foreach(object, key, value)
    {
        Fault *fault;

        if (strcmp(key, "lockspace") == 0)
            fault = native_get_path("lockspace", value, &want->space);
        else if (strcmp(key, "key") == 0)
            fault = native_get_string("key", value, &want->key);
        else if (with_mode && strcmp(key, "mode") == 0)
            fault = native_get_mode(value, &want->mode);
        else
            fault = native_fault_argument(key, "of a lease is unknown: it has lockspace, key%s",
                                          with_mode ? " and mode" : "");
        if (fault)
            return fault;
    }
    if (!want->space || !want->key)
        return native_fault_argument(want->space ? "key" : "lockspace", "of a lease is missing");
    return NULL;
}

static Fault *native_get_disk(json_object *object, gboolean with_mode, NativeWant *want)
{
    if (!json_object_is_type(object, json_type_object))
        return native_fault_argument("disks", "has to hold objects");
    json_object_object_foreach(object, key, value)
    {
        Fault *fault;

        if (strcmp(key, "path") == 0)
            fault = native_get_path("path", value, &want->path);
        else if (with_mode && strcmp(key, "mode") == 0)
            fault = native_get_mode(value, &want->mode);
        else if (with_mode && strcmp(key, "format") == 0)
            fault = native_get_string("format", value, &want->format);
        else
            fault = native_fault_argument(key, "of a disk is unknown: it has path%s",
                                          with_mode ? ", mode and format" : "");
        if (fault)
            return fault;
    }
    return want->path ? NULL : native_fault_argument("path", "of a disk is missing");
}

static Fault *native_get_wants(const char *key, json_object *array, gboolean with_mode,
                               NativeArguments *arguments)
{
    if (!json_object_is_type(array, json_type_array))
        return native_fault_argument(key, "has to be an array");
    arguments->named_any = TRUE;
    if (json_object_array_length(array) + arguments->wants->len > NATIVE_MAX_WANTS)
        return native_fault_argument(
            key, "names more than %d disks and leases; send several requests", NATIVE_MAX_WANTS);
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        json_object *object = json_object_array_get_idx(array, i);
        NativeWant *want = g_new0(NativeWant, 1);
        Fault *fault;

        g_ptr_array_add(arguments->wants, want);
        if (strcmp(key, "disks") == 0)
            fault = native_get_disk(object, with_mode, want);
        else
            fault = native_get_lease(object, with_mode, want);
        if (fault)
            return fault;
    }
    return NULL;
}

static Fault *native_get_subject(const char *key, json_object *value, NativeArguments *arguments)
{
    NativeWant *want = g_new0(NativeWant, 1);

    g_ptr_array_add(arguments->wants, want);
    if (arguments->wants->len > 1)
        return native_fault_argument(key, "goes alone: either disk or lease");
    if (strcmp(key, "disk") == 0)
        return native_get_path(key, value, &want->path);
    return native_get_lease(value, FALSE, want);
}

static Fault *native_get_events(json_object *array, NativeArguments *arguments)
{
    if (!json_object_is_type(array, json_type_array))
        return native_fault_argument("events", "has to be an array of strings");
    arguments->events = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        char *name = NULL;
        Fault *fault = native_get_string("events", json_object_array_get_idx(array, i), &name);

        if (fault)
            return fault;
        g_ptr_array_add(arguments->events, name);
    }
    return NULL;
}

static Fault *native_get_argument(const char *key, json_object *value, guint takes,
                                  NativeArguments *arguments)
{
    gint64 number = 0;
    Fault *fault;

    if ((takes & (NATIVE_OWNER | NATIVE_OWNER_PID)) && strcmp(key, "owner") == 0)
        return native_get_owner(value, takes, arguments);
    if ((takes & NATIVE_WANTS) && (strcmp(key, "disks") == 0 || strcmp(key, "leases") == 0))
        return native_get_wants(key, value, (takes & NATIVE_OWNER) != 0, arguments);
    if ((takes & NATIVE_SUBJECT) && (strcmp(key, "disk") == 0 || strcmp(key, "lease") == 0))
        return native_get_subject(key, value, arguments);
    if ((takes & NATIVE_EVENTS) && strcmp(key, "events") == 0)
        return native_get_events(value, arguments);
    if ((takes & NATIVE_FILTER) && strcmp(key, "uuid") == 0)
        return native_get_uuid(key, value, &arguments->uuid);
    if ((takes & NATIVE_FILTER) && strcmp(key, "pid") == 0) {
        fault = native_get_integer(key, value, 1, G_MAXINT, &number);
        arguments->pid = (pid_t)number;
        return fault;
    }
    if ((takes & NATIVE_TIMEOUT) && strcmp(key, "timeout") == 0) {
        /* an hour, as the setting request_timeout */
        fault = native_get_integer(key, value, 0, 3600 * 1000, &number);
        arguments->timeout_usec = (guint64)number * 1000;
        return fault;
    }
    return native_fault_argument(key, "is unknown to this command");
}

NativeArguments *native_parse_arguments(const NativeRequest *request, guint takes,
                                        Fault **ret_fault)
{
    g_autoptr(NativeArguments) arguments = g_new0(NativeArguments, 1);

    arguments->wants = g_ptr_array_new_with_free_func(native_want_free);
    if (request->arguments) {
        json_object_object_foreach(request->arguments, key, value)
        {
            Fault *fault = native_get_argument(key, value, takes, arguments);

            if (fault) {
                *ret_fault = fault;
                return NULL;
            }
        }
    }
    if ((takes & (NATIVE_OWNER | NATIVE_OWNER_PID)) && !arguments->has_owner) {
        *ret_fault = native_fault_argument("owner", "is missing: who is it for?");
        return NULL;
    }
    if ((takes & NATIVE_SUBJECT) && arguments->wants->len == 0) {
        *ret_fault = native_fault_argument("disk", "is missing: name a disk or a lease");
        return NULL;
    }
    return g_steal_pointer(&arguments);
}
