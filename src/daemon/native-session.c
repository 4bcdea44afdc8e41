/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The native protocol's session: lines, replies and events; see docs/native-protocol.rst. What the
 * commands do is in native-commands.c. */
#define G_LOG_DOMAIN "holdfast.native"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "metrics.h"
#include "native-private.h"

static const char *const session_event_names[EVENT_LEASE_LOST + 2] = {
    /* the last is NULL */
    [EVENT_LEASE_ACQUIRED] = "LEASE_ACQUIRED", [EVENT_LEASE_RELEASED] = "LEASE_RELEASED",
    [EVENT_LEASE_REFUSED] = "LEASE_REFUSED",   [EVENT_OWNER_STOPPING] = "OWNER_STOPPING",
    [EVENT_OWNER_GONE] = "OWNER_GONE",         [EVENT_LEASE_ADOPTED] = "LEASE_ADOPTED",
    [EVENT_LEASE_LOST] = "LEASE_LOST",
};

static void session_send(Session *session, char *line)
{
    conn_send(session->conn, line, strlen(line));
    g_free(line);
}

void session_return(Session *session, json_object *value)
{
    session_send(session, native_encode_return(&session->request, value));
    native_request_clear(&session->request);
}

void session_return_leases(Session *session, GPtrArray *leases)
{
    session_send(session, native_encode_leases(&session->request, leases, session_host(session)));
    native_request_clear(&session->request);
}

void session_error(Session *session, const Fault *fault)
{
    session_send(session, native_encode_error(&session->request, fault));
    native_request_clear(&session->request);
}

const char *session_host(const Session *session)
{
    return session->context->engine->config.host;
}

/* ---- subscriptions --------------------------------------------------------------------- */

gboolean session_known_event(const char *name)
{
    return g_strv_contains(session_event_names, name);
}

char *session_all_events(void)
{
    return g_strjoinv(", ", (char **)session_event_names);
}

void session_stop_events(Session *session)
{
    if (session->subscribed)
        g_queue_unlink(&session->context->subscribers, &session->link);
    session->subscribed = FALSE;
    g_clear_pointer(&session->events, g_ptr_array_unref);
}

void session_start_events(Session *session, GPtrArray *names)
{
    session_stop_events(session);
    session->subscribed = TRUE;
    if (names)
        session->events = g_ptr_array_ref(names);
    g_queue_push_tail_link(&session->context->subscribers, &session->link);
}

/* ---- the connection -------------------------------------------------------------------- */

static void session_run(Session *session)
{
    const char *name = session->request.execute;
    const Command *command = session_command(name);
    g_autoptr(NativeArguments) arguments = NULL;
    g_autoptr(Fault) fault = NULL;

    if (!command)
        fault = fault_new(HF_ERR_COMMAND_NOT_FOUND, 0,
                          "there is no command '%.64s'; query-commands lists them", name);
    else if (command->full && !session->conn->may_write)
        fault = fault_new(
            HF_ERR_PERMISSION, EPERM,
            "'%s' is for the daemon's own user: members of socket_group may only look", name);
    else
        arguments = native_parse_arguments(&session->request, command->takes, &fault);
    if (fault)
        session_error(session, fault);
    else
        command->run(session, arguments);
}

static gssize session_message(Conn *conn, const guint8 *data, gsize len)
{
    Session *session = conn->data;
    const guint8 *end = memchr(data, '\n', MIN(len, NATIVE_MAX_LINE));
    g_autoptr(Fault) fault = NULL;
    gsize line;

    if (!end && len < NATIVE_MAX_LINE)
        return 0;
    if (!end) {
        fault =
            fault_new(HF_ERR_INVALID_SYNTAX, E2BIG,
                      "this line is longer than %d bytes; send several requests", NATIVE_MAX_LINE);
        session_error(session, fault);
        return -1;
    }
    line = (gsize)(end - data);
    if (line > 0 && data[line - 1] == '\r')
        line--;
    if (line > 0) { /* an empty line is a person with a terminal */
        if (native_parse_request((const char *)data, line, &session->request, &fault))
            session_run(session);
        else
            session_error(session, fault);
    }
    return end - data + 1;
}

void session_keep_owner(Session *session, Owner *owner, const char *name)
{
    if (g_ptr_array_find(session->owners, owner, NULL))
        return;
    owner->until_close = TRUE;
    supervise_connected(owner);
    g_ptr_array_add(session->owners, owner_ref(owner));
    g_ptr_array_add(session->kept, name ? g_strdup(name)
                                        : handover_keep_connection(session->context->engine, owner,
                                                                   session->conn->fd));
}

/* A connection of an earlier daemon, without a greeting. */
static void session_reopened(Conn *conn)
{
    Session *session = g_new0(Session, 1);

    session->conn = conn;
    session->context = conn->context;
    session->owners = g_ptr_array_new();
    session->kept = g_ptr_array_new_with_free_func(g_free);
    session->link.data = session;
    conn->data = session;
}

static void session_opened(Conn *conn)
{
    Session *session;

    session_reopened(conn);
    session = conn->data;
    session_send(session, native_encode_greeting(HOLDFAST_VERSION, session_host(session), getpid(),
                                                 conn->may_write));
}

static void session_closed(Conn *conn)
{
    Session *session = conn->data;
    Engine *engine = session->context->engine;

    session_stop_events(session);
    if (session->acquire)
        acquire_cancel(session->acquire);
    if (session->pending)
        session->pending->session = NULL;
    for (guint i = 0; i < session->owners->len; i++) {
        Owner *owner = g_ptr_array_index(session->owners, i);
        const char *name = g_ptr_array_index(session->kept, i);

        if (name && !engine->ending) /* when the daemon ends, the next one goes on with it */
            handover_forget_connection(engine, owner, name);
        supervise_disconnected(engine, owner, FALSE);
        supervise_unref(engine, owner);
    }
    g_ptr_array_unref(session->owners);
    g_ptr_array_unref(session->kept);
    native_request_clear(&session->request);
    g_free(session);
}

const ConnProtocol native_protocol = {
    .name = "native",
    .opened = session_opened,
    .message = session_message,
    .closed = session_closed,
};

/* Where the conversation stood is not known, so there is none any more: the client has been told by
 * an end of file, and what it still sends is dropped. Only that it is open counts. */
static gssize session_ignore(Conn *conn, const guint8 *data, gsize len)
{
    (void)conn;
    (void)data;
    return (gssize)len;
}

static const ConnProtocol native_resumed_protocol = {
    .name = "native",
    .opened = session_reopened,
    .message = session_ignore,
    .closed = session_closed,
};

void session_resume(int fd, Owner *owner, const char *name, void *data)
{
    SessionContext *context = data;
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    Session *session;

    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
    shutdown(fd, SHUT_WR); /* the client connects again and repeats what it has asked */
    if (conn_open(context->conns, fd, &peer, TRUE, &native_resumed_protocol, context) < 0)
        return;
    session = conn_set_newest(context->conns)->data;
    session_keep_owner(session, owner, name);
}

/* ---- events ---------------------------------------------------------------------------- */

static json_object *session_event_data(SessionContext *context, EngineEvent event,
                                       const Lease *lease, const Owner *owner, const Fault *fault,
                                       const char *text)
{
    const char *host = context->engine->config.host;

    if (event == EVENT_LEASE_REFUSED)
        return native_refusal(fault, owner, host);
    return lease ? native_lease(lease, host, text) : native_owner(owner, host);
}

static gboolean session_wants_event(const Session *session, const char *name)
{
    return !session->events ||
           g_ptr_array_find_with_equal_func(session->events, name, g_str_equal, NULL);
}

void session_on_event(EngineEvent event, const Lease *lease, const Owner *owner, const Fault *fault,
                      const char *text, void *data)
{
    SessionContext *context = data;
    const char *name = session_event_names[event];
    g_autofree char *line = NULL;

    if (event == EVENT_LEASE_REFUSED)
        g_message("refused to VM %s (pid %d): %s", owner->name ? owner->name : "?", (int)owner->pid,
                  fault->message);
    for (GList *link = context->subscribers.head; link; link = link->next) {
        Session *session = link->data;

        if (!session_wants_event(session, name))
            continue;
        if (!line)
            line = native_encode_event(
                name, session_event_data(context, event, lease, owner, fault, text),
                g_get_real_time());
        metrics_on_notified(context->engine->metrics,
                            conn_send_unasked(session->conn, line, strlen(line)));
    }
}
