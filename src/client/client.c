/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hf_client: a connection that comes back. One request is under way at a time; its reply is known
 * by its id, events that come before it are kept. When the connection is lost meanwhile, it is
 * made again, the subscription is renewed and the request repeated: every command of the protocol
 * may be.
 */
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client-internal.h"

struct hf_client {
    hfc_connection connection;
    hfc_events events;
    char *greeting;
    int64_t last_id;
    bool subscribed;
    struct json_object *subscription; /* the arguments of "subscribe"; may be NULL */
};

static char *client_join(const char *directory, const char *name)
{
    char *path = NULL;

    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

char *hf_default_socket(void)
{
    /* secure_getenv: a set-uid program must not be led elsewhere by its caller. */
    const char *named = secure_getenv("HOLDFAST_SOCKET");
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    const char *home = secure_getenv("HOME");
    struct passwd entry, *found = NULL;
    char buffer[4096];

    if (named && *named)
        return strdup(named);
    if (geteuid() == 0)
        return strdup("/run/holdfast/holdfast.sock");
    if (runtime && *runtime)
        return client_join(runtime, "holdfast/holdfast.sock");
    if ((!home || !*home) && getpwuid_r(geteuid(), &entry, buffer, sizeof(buffer), &found) == 0 &&
        found)
        home = found->pw_dir;
    return client_join(home ? home : "", ".cache/holdfast/holdfast.sock");
}

/* A daemon that accepts and says nothing may just be dying, and its successor at hand; or it does
 * not want us. So a few tries are made, and not where nobody listens at all. */
static hfc_result client_first_connect(hf_client *client, int64_t deadline, hf_error **ret_error)
{
    int64_t pause = 20;

    for (;;) {
        hf_error *error = NULL;
        hfc_result result =
            hfc_connection_open(&client->connection, deadline, &client->greeting, &error);

        if (result != HFC_LOST || !client->connection.met || pause > 320 ||
            hfc_now() + pause >= deadline) {
            if (result != HFC_DONE)
                hfc_error_hand_over(ret_error, error);
            return result;
        }
        hf_error_free(error);
        hfc_sleep(pause, deadline);
        pause *= 2;
    }
}

hf_client *hf_connect(const char *socket_path, int timeout_ms, hf_error **ret_error)
{
    hf_client *client = calloc(1, sizeof(*client));
    hfc_result result;

    if (!client) {
        hfc_no_memory(ret_error);
        return NULL;
    }
    client->connection.fd = -1;
    client->connection.path = socket_path ? strdup(socket_path) : hf_default_socket();
    if (!client->connection.path) {
        hfc_no_memory(ret_error);
        free(client);
        return NULL;
    }
    result = client_first_connect(client, hfc_deadline(timeout_ms), ret_error);
    if (result != HFC_DONE) {
        hf_disconnect(client);
        return NULL;
    }
    return client;
}

const char *hf_greeting(const hf_client *client)
{
    return client->greeting;
}

int hf_fd(const hf_client *client)
{
    return client->connection.fd;
}

void hf_disconnect(hf_client *client)
{
    if (!client)
        return;
    hfc_connection_close(&client->connection);
    hfc_events_clear(&client->events);
    json_object_put(client->subscription);
    free(client->connection.path);
    free(client->greeting);
    free(client);
}

int hfc_bad_reply(const hf_client *client, const char *command, const char *what,
                  hf_error **ret_error)
{
    return hfc_error(ret_error, HF_ERR_CONNECTION,
                     "the daemon at %s gave a wrong answer to \"%s\": %s", client->connection.path,
                     command, what);
}

/* ---- one request on the connection as it is ------------------------------------------------ */

/* A request as it goes over the wire, as often as it has to; owns its text. */
typedef struct client_request {
    const char *command;
    int64_t id;
    struct json_object *message;
    const char *text; /* without the line feed */
    size_t length;
} client_request;

static void client_request_clear(client_request *request)
{
    json_object_put(request->message);
}

static bool client_request_init(client_request *request, hf_client *client, const char *command,
                                struct json_object *arguments, hf_error **ret_error)
{
    struct json_object *message = json_object_new_object();

    *request = (client_request){.command = command, .id = ++client->last_id, .message = message};
    if (message && hfc_add_string(message, "execute", command) &&
        (!arguments || hfc_add(message, "arguments", json_object_get(arguments))) &&
        hfc_add(message, "id", json_object_new_int64(request->id)))
        request->text = json_object_to_json_string_length(
            message, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &request->length);
    if (request->text && request->length < HFC_MAX_REQUEST)
        return true;
    if (request->text)
        hfc_error(ret_error, HF_ERR_INVALID_ARGUMENT,
                  "the request \"%s\" is %zu bytes long, the daemon takes %zu at most", command,
                  request->length, HFC_MAX_REQUEST);
    else
        hfc_no_memory(ret_error);
    client_request_clear(request);
    return false;
}

static bool client_is_event(struct json_object *message)
{
    return json_object_object_get_ex(message, "event", NULL);
}

/* An error without an id answers a line that the daemon could not read, and there was but one. */
static bool client_is_reply(const client_request *request, struct json_object *message)
{
    struct json_object *id = NULL;

    if (json_object_object_get_ex(message, "id", &id) && id)
        return json_object_is_type(id, json_type_int) && json_object_get_int64(id) == request->id;
    return json_object_object_get_ex(message, "error", NULL);
}

static hfc_result client_receive(hf_client *client, const client_request *request, int64_t deadline,
                                 struct json_object **ret_reply, hf_error **ret_error)
{
    for (;;) {
        struct json_object *message = NULL;
        const char *text = NULL;
        hfc_result result =
            hfc_connection_receive(&client->connection, deadline, &message, &text, ret_error);

        if (result != HFC_DONE)
            return result;
        if (client_is_reply(request, message)) {
            *ret_reply = message;
            return HFC_DONE;
        }
        if (!client_is_event(message)) {
            json_object_put(message);
            hfc_bad_reply(client, request->command, "it belongs to no request", ret_error);
            return HFC_FAILED;
        }
        hfc_events_push(&client->events, text);
        json_object_put(message);
        /* However fast events come, they don't stop the clock. */
        if (hfc_now() >= deadline)
            return HFC_TIME_OVER;
    }
}

/* Sends the request and waits for its reply. Every failure closes the connection: what may still
 * come over it would be the reply to something that nobody waits for any more. */
static hfc_result client_exchange(hf_client *client, const client_request *request,
                                  int64_t deadline, struct json_object **ret_reply,
                                  hf_error **ret_error)
{
    hf_error *error = NULL;
    hfc_result result =
        hfc_connection_send(&client->connection, request->text, request->length, deadline, &error);

    if (result == HFC_DONE)
        result = hfc_connection_send(&client->connection, "\n", 1, deadline, &error);
    /* A daemon that closes may have said why before; what it said is still to be read. */
    if (result == HFC_LOST) {
        hf_error_free(error);
        error = NULL;
        result = HFC_DONE;
    }
    if (result == HFC_DONE)
        result = client_receive(client, request, deadline, ret_reply, &error);
    if (result == HFC_TIME_OVER) {
        hfc_error(&error, HF_ERR_CONNECTION,
                  "the daemon at %s has not answered \"%s\" in time: it is stopped or overloaded",
                  client->connection.path, request->command);
        result = HFC_FAILED;
    }
    if (result != HFC_DONE) {
        hfc_connection_close(&client->connection);
        hfc_error_hand_over(ret_error, error);
    }
    return result;
}

/* ---- a connection that comes back ----------------------------------------------------------- */

static hfc_result client_renew_subscription(hf_client *client, int64_t deadline,
                                            hf_error **ret_error)
{
    struct json_object *reply = NULL, *object = NULL;
    client_request request;
    hfc_result result = HFC_FAILED;

    if (client_request_init(&request, client, "subscribe", client->subscription, ret_error)) {
        result = client_exchange(client, &request, deadline, &reply, ret_error);
        client_request_clear(&request);
    }
    if (result != HFC_DONE)
        return result;
    hfc_events_push_gap(&client->events);
    if (json_object_object_get_ex(reply, "error", &object)) {
        hfc_error_from_reply(ret_error, object);
        hfc_connection_close(&client->connection);
        result = HFC_FAILED;
    }
    json_object_put(reply);
    return result;
}

/* Connects again, with a growing pause between the attempts, until `deadline`. */
static hfc_result client_reconnect(hf_client *client, bool renew, int64_t deadline,
                                   hf_error **ret_error)
{
    int64_t pause = 20;

    for (;;) {
        hf_error *error = NULL;
        char *greeting = NULL;
        hfc_result result = hfc_connection_open(&client->connection, deadline, &greeting, &error);

        if (result == HFC_DONE) {
            free(client->greeting);
            client->greeting = greeting;
            if (!renew || !client->subscribed)
                return HFC_DONE;
            result = client_renew_subscription(client, deadline, &error);
            if (result == HFC_DONE)
                return HFC_DONE;
        }
        if (result != HFC_LOST || hfc_now() + pause >= deadline) {
            hfc_error_hand_over(ret_error, error);
            return result;
        }
        hf_error_free(error);
        hfc_sleep(pause, deadline);
        pause = pause < 1000 ? pause * 2 : pause;
    }
}

/* Whether the daemon answers out of its own memory. */
static bool client_is_answered_at_once(const char *command)
{
    return strcmp(command, "subscribe") == 0 || strcmp(command, "unsubscribe") == 0 ||
           (strncmp(command, "query-", 6) == 0 && strcmp(command, "query-disk") != 0);
}

/* The times of a request; see HFC_GRACE_MS. */
static void client_deadlines(const char *command, struct json_object *arguments, int64_t *ret_reply,
                             int64_t *ret_reconnect)
{
    int64_t silence = client_is_answered_at_once(command) ? HFC_SILENCE_AT_ONCE_MS : HFC_SILENCE_MS;
    struct json_object *timeout = NULL;
    int64_t ms = 0;

    if (arguments && json_object_object_get_ex(arguments, "timeout", &timeout) &&
        json_object_is_type(timeout, json_type_int))
        ms = json_object_get_int64(timeout);
    *ret_reply = hfc_deadline(ms > 0 && ms < INT_MAX ? ms + HFC_GRACE_MS : silence);
    *ret_reconnect = hfc_deadline(HFC_RECONNECT_MS);
    if (*ret_reconnect > *ret_reply)
        *ret_reconnect = *ret_reply;
}

/* The reply to the request, over as many connections as it takes; counts those that were lost
 * after the request had been sent. */
static hfc_result client_repeat(hf_client *client, const client_request *request,
                                struct json_object *arguments, int *ret_losses,
                                struct json_object **ret_reply, hf_error **ret_error)
{
    bool renew =
        strcmp(request->command, "subscribe") != 0 && strcmp(request->command, "unsubscribe") != 0;
    int64_t deadline, reconnect;

    client_deadlines(request->command, arguments, &deadline, &reconnect);
    for (*ret_losses = 0;;) {
        hf_error *error = NULL;
        hfc_result result = HFC_DONE;

        if (client->connection.fd < 0)
            result = client_reconnect(client, renew, reconnect, &error);
        if (result == HFC_DONE) {
            result = client_exchange(client, request, deadline, ret_reply, &error);
            if (result == HFC_DONE)
                return HFC_DONE;
            if (result == HFC_LOST && ++*ret_losses <= HFC_MAX_LOSSES) {
                /* The request may have been under way for long: the time to come back begins when
                 * the connection is lost, and ends with the request's. */
                reconnect = hfc_deadline(HFC_RECONNECT_MS);
                reconnect = reconnect < deadline ? reconnect : deadline;
                hf_error_free(error);
                continue;
            }
        }
        hfc_error_hand_over(ret_error, error);
        return result;
    }
}

/* ---- the reply ------------------------------------------------------------------------------ */

static void client_note_subscription(hf_client *client, const char *command,
                                     struct json_object *arguments)
{
    bool on = strcmp(command, "subscribe") == 0;

    if (!on && strcmp(command, "unsubscribe") != 0)
        return;
    json_object_put(client->subscription);
    client->subscription = on ? json_object_get(arguments) : NULL;
    client->subscribed = on;
}

/* The error in the reply, or, rarely, what is as good as success. */
static struct json_object *client_refusal(hf_client *client, const client_request *request,
                                          struct json_object *arguments, struct json_object *reply,
                                          int losses, hf_error **ret_error)
{
    struct json_object *error = NULL;
    const char *name;

    if (!json_object_object_get_ex(reply, "error", &error) ||
        !json_object_is_type(error, json_type_object)) {
        hfc_bad_reply(client, request->command, "it has neither \"return\" nor \"error\"",
                      ret_error);
        return NULL;
    }
    name = hfc_get_string(error, "class");
    /* The release whose reply got lost may have released: repeated, it finds nothing. */
    if (losses > 0 && name && strcmp(name, "NotHeld") == 0 &&
        strcmp(request->command, "release") == 0)
        return hfc_release_rest(client, arguments, ret_error);
    hfc_error_from_reply(ret_error, error);
    return NULL;
}

struct json_object *hfc_call(hf_client *client, const char *command, struct json_object *arguments,
                             hf_error **ret_error)
{
    struct json_object *reply = NULL, *value = NULL;
    client_request request;
    hfc_result result;
    int losses = 0;

    if (!client_request_init(&request, client, command, arguments, ret_error))
        return NULL;
    result = client_repeat(client, &request, arguments, &losses, &reply, ret_error);
    client_request_clear(&request);
    if (result != HFC_DONE)
        return NULL;
    if (json_object_object_get_ex(reply, "return", &value) && value) {
        json_object_get(value);
        client_note_subscription(client, command, arguments);
    } else {
        value = client_refusal(client, &request, arguments, reply, losses, ret_error);
    }
    json_object_put(reply);
    return value;
}

/* ---- events --------------------------------------------------------------------------------- */

/* One step towards the next event: HFC_DONE when there is one in `ret_event`, or when one may be
 * in the queue now. */
static hfc_result client_await_event(hf_client *client, int64_t deadline, char **ret_event,
                                     hf_error **ret_error)
{
    struct json_object *message = NULL;
    const char *text = NULL;
    hfc_result result;

    if (client->connection.fd < 0)
        return client_reconnect(client, true, deadline, ret_error);
    result = hfc_connection_receive(&client->connection, deadline, &message, &text, ret_error);
    if (result != HFC_DONE) {
        if (result != HFC_TIME_OVER)
            hfc_connection_close(&client->connection);
        return result;
    }
    if (client_is_event(message)) {
        *ret_event = strdup(text);
        if (!*ret_event) {
            hfc_no_memory(ret_error);
            result = HFC_FAILED;
        }
    } else {
        hfc_error(ret_error, HF_ERR_CONNECTION,
                  "the daemon at %s sent something that is neither an event nor asked for",
                  client->connection.path);
        hfc_connection_close(&client->connection);
        result = HFC_FAILED;
    }
    json_object_put(message);
    return result;
}

int hf_next_event(hf_client *client, int timeout_ms, char **ret_event, hf_error **ret_error)
{
    int64_t deadline = hfc_deadline(timeout_ms);

    for (;;) {
        char *event = hfc_events_pop(&client->events);
        hfc_result result = HFC_DONE;
        hf_error *error = NULL;

        if (!event)
            result = client_await_event(client, deadline, &event, &error);
        if (event) {
            *ret_event = event;
            return 1;
        }
        if (result == HFC_TIME_OVER)
            return 0;
        if (result != HFC_DONE) {
            hf_code code = hf_error_code(error);

            hfc_error_hand_over(ret_error, error);
            return code;
        }
    }
}
