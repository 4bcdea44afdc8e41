/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The native protocol's session: one function a command; see docs/native-protocol.rst. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/native.h"
#include "session.h"

typedef struct Session {
    Conn *conn;
    SessionContext *context;
    NativeRequest request;   /* the one that is being answered */
    Acquire *acquire;        /* under way, or NULL */
    struct Pending *pending; /* other work under way, or NULL */
    GPtrArray *owners;       /* that last until this connection closes; of Owner, with references */
    gboolean subscribed;
    GPtrArray *events; /* names, or NULL for all */
    GList link;        /* in the context's subscribers */
} Session;

/* Work whose answer comes later. The session may go first. */
typedef struct Pending {
    Session *session;
    Owner *owner;
    Engine *engine;
    guint count;
} Pending;

typedef struct Command {
    const char *name;
    gboolean full;
    guint takes;
    void (*run)(Session *session, const NativeArguments *arguments);
} Command;

static const char *const session_event_names[] = {
    [EVENT_LEASE_ACQUIRED] = "LEASE_ACQUIRED", [EVENT_LEASE_RELEASED] = "LEASE_RELEASED",
    [EVENT_LEASE_REFUSED] = "LEASE_REFUSED",   [EVENT_OWNER_STOPPING] = "OWNER_STOPPING",
    [EVENT_OWNER_GONE] = "OWNER_GONE",
};

static void session_send(Session *session, char *line)
{
    conn_send(session->conn, line, strlen(line));
    g_free(line);
}

static void session_return(Session *session, json_object *value)
{
    session_send(session, native_encode_return(&session->request, value));
    native_request_clear(&session->request);
}

static void session_error(Session *session, const Fault *fault)
{
    session_send(session, native_encode_error(&session->request, fault));
    native_request_clear(&session->request);
}

static const char *session_host(const Session *session)
{
    return session->context->engine->config.host;
}

/* ---- acquire --------------------------------------------------------------------------- */

/* A user's daemon may signal and watch only its user's processes; root's may all. */
static Fault *session_check_owner(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d", (int)pid);
    struct stat st;
    Fault *fault;

    if (geteuid() == 0 || stat(path, &st) < 0 || st.st_uid == geteuid())
        return NULL; /* that it does not exist is found where it is watched */
    fault = fault_new(HF_ERR_PERMISSION, EPERM,
                      "process %d belongs to uid %u: this daemon serves uid %u; use that user's "
                      "daemon, or root's",
                      (int)pid, (unsigned)st.st_uid, (unsigned)geteuid());
    fault->pid = pid;
    return fault;
}

static gboolean session_lease_required(Session *session, const NativeArguments *arguments)
{
    const IdentityRules *rules = &session->context->engine->config.rules;
    gboolean writable = FALSE;

    if (rules->auto_disk_leases || !rules->require_lease_for_disks)
        return FALSE;
    for (guint i = 0; i < arguments->wants->len; i++) {
        const NativeWant *want = g_ptr_array_index(arguments->wants, i);

        if (!want->path)
            return FALSE;
        writable = writable || want->mode == HF_MODE_EXCLUSIVE;
    }
    return writable;
}

static void session_acquired(GPtrArray *leases, const Fault *fault, void *data)
{
    Session *session = data;
    json_object *result, *array;

    session->acquire = NULL;
    if (fault) {
        session_error(session, fault);
    } else {
        array = json_object_new_array();
        for (guint i = 0; i < leases->len; i++)
            json_object_array_add(
                array, native_lease(g_ptr_array_index(leases, i), session_host(session)));
        result = json_object_new_object();
        json_object_object_add(result, "leases", array);
        session_return(session, result);
    }
    conn_resume(session->conn);
}

static void session_keep_owner(Session *session, Owner *owner)
{
    if (g_ptr_array_find(session->owners, owner, NULL))
        return;
    owner->until_close = TRUE;
    supervise_connected(owner);
    g_ptr_array_add(session->owners, owner_ref(owner));
}

static void session_acquire(Session *session, const NativeArguments *arguments)
{
    Engine *engine = session->context->engine;
    g_autoptr(Fault) fault = session_check_owner(arguments->pid);
    gboolean lock_disks = engine->config.rules.auto_disk_leases;
    Acquire *acquire;
    Owner *owner;

    if (!fault && session_lease_required(session, arguments))
        fault =
            fault_new(HF_ERR_LEASE_REQUIRED, 0,
                      "there are writable disks, but no lease: require_lease_for_disks asks for "
                      "one; add a lease, or turn auto_disk_leases on");
    owner = fault ? NULL
                  : supervise_get(engine, arguments->name, arguments->uuid, arguments->uri,
                                  arguments->pid, TRUE, &fault);
    if (!owner) {
        session_error(session, fault);
        return;
    }
    if (arguments->until_close)
        session_keep_owner(session, owner);
    acquire = acquire_new(engine, owner, ACQUIRE_REPEATABLE, arguments->timeout_usec);
    for (guint i = 0; i < arguments->wants->len; i++) {
        const NativeWant *want = g_ptr_array_index(arguments->wants, i);

        if (want->path && lock_disks)
            acquire_add_disk(acquire, want->path, want->mode);
        else if (!want->path)
            acquire_add_resource(acquire, engine->disk_driver, want->space, want->key, NULL,
                                 want->mode, 0);
    }
    session->acquire = acquire;
    conn_wait(session->conn);
    acquire_start(acquire, session_acquired, session);
    supervise_unref(engine, owner);
}

/* ---- release --------------------------------------------------------------------------- */

static Pending *session_pend(Session *session)
{
    Pending *pending = g_new0(Pending, 1);

    pending->session = session;
    pending->engine = session->context->engine;
    session->pending = pending;
    conn_wait(session->conn);
    return pending;
}

/* Ends the pending work; NULL if nobody waits for it any more. */
static Session *session_unpend(Pending *pending)
{
    Session *session = pending->session;

    if (pending->owner)
        supervise_unref(pending->engine, pending->owner);
    g_free(pending);
    if (session)
        session->pending = NULL;
    return session;
}

static void session_released(const Fault *left_behind, void *data)
{
    Pending *pending = data;
    guint count = pending->count;
    Session *session = session_unpend(pending);
    json_object *result;

    (void)left_behind; /* the lock is gone all the same; release.c has told the log */
    if (!session)
        return;
    result = json_object_new_object();
    json_object_object_add(result, "released", json_object_new_int64(count));
    session_return(session, result);
    conn_resume(session->conn);
}

/* The owner's lease that a want of a release names. */
static Lease *session_find_lease(const Owner *owner, const NativeWant *want)
{
    for (guint i = 0; i < owner->leases->len; i++) {
        Lease *lease = g_ptr_array_index(owner->leases, i);
        const Resource *resource = lease_resource(lease);

        if (lease->state != LEASE_HELD)
            continue;
        if (want->path ? g_strcmp0(lease->disk, want->path) == 0 ||
                             (!*resource->space && strcmp(resource->key, want->path) == 0)
                       : strcmp(resource->space, want->space) == 0 &&
                             strcmp(resource->key, want->key) == 0)
            return lease;
    }
    return NULL;
}

static GPtrArray *session_leases_to_release(const Owner *owner, const NativeArguments *arguments,
                                            Fault **ret_fault)
{
    g_autoptr(GPtrArray) leases = g_ptr_array_new();

    for (guint i = 0; !arguments->named_any && i < owner->leases->len; i++) {
        Lease *lease = g_ptr_array_index(owner->leases, i);

        if (lease->state == LEASE_HELD)
            g_ptr_array_add(leases, lease);
    }
    for (guint i = 0; i < arguments->wants->len; i++) {
        const NativeWant *want = g_ptr_array_index(arguments->wants, i);
        Lease *lease = session_find_lease(owner, want);

        if (!lease) {
            *ret_fault = fault_new(
                HF_ERR_NOT_HELD, ENOENT,
                "process %d does not hold %s%s%s%s; see holdfast locks --pid %d", (int)owner->pid,
                want->path ? "disk " : "lease ", want->path ? want->path : want->key,
                want->path ? "" : " in lockspace ", want->path ? "" : want->space, (int)owner->pid);
            (*ret_fault)->disk = g_strdup(want->path);
            (*ret_fault)->space = g_strdup(want->space);
            (*ret_fault)->key = g_strdup(want->key);
            return NULL;
        }
        if (!g_ptr_array_find(leases, lease, NULL))
            g_ptr_array_add(leases, lease);
    }
    return g_steal_pointer(&leases);
}

static void session_release(Session *session, const NativeArguments *arguments)
{
    Engine *engine = session->context->engine;
    g_autoptr(Fault) fault = NULL;
    g_autoptr(GPtrArray) leases = NULL;
    Pending *pending;
    Owner *owner = supervise_get(engine, NULL, NULL, NULL, arguments->pid, TRUE, &fault);

    if (owner)
        leases = session_leases_to_release(owner, arguments, &fault);
    if (!leases) {
        supervise_unref(engine, owner);
        session_error(session, fault);
        return;
    }
    pending = session_pend(session);
    pending->owner = owner;
    pending->count = leases->len;
    release_leases(engine, leases, "released", session_released, pending);
}

/* ---- questions ------------------------------------------------------------------------- */

static void session_query_leases(Session *session, const NativeArguments *arguments)
{
    g_autoptr(GPtrArray) leases = table_list(session->context->engine->table);
    json_object *result = json_object_new_object();
    json_object *array = json_object_new_array();

    for (guint i = 0; i < leases->len; i++) {
        const Lease *lease = g_ptr_array_index(leases, i);

        if (lease->state == LEASE_PENDING ||
            (arguments->pid && lease->owner->pid != arguments->pid) ||
            (arguments->uuid &&
             (!lease->owner->uuid || g_ascii_strcasecmp(lease->owner->uuid, arguments->uuid) != 0)))
            continue;
        json_object_array_add(array, native_lease(lease, session_host(session)));
    }
    json_object_object_add(result, "leases", array);
    session_return(session, result);
}

static json_object *session_inspect_value(const InspectResult *seen, const char *disk)
{
    json_object *result = json_object_new_object();
    json_object *resources = json_object_new_array();
    json_object *holders = json_object_new_array();

    for (guint i = 0; i < seen->resources->len; i++) {
        const Resource *resource = g_ptr_array_index(seen->resources, i);
        json_object *object = json_object_new_object();

        json_object_object_add(object, "driver", native_string(resource->driver->api.name));
        json_object_object_add(object, "lockspace", native_string(resource->space));
        json_object_object_add(object, "key", native_string(resource->key));
        json_object_object_add(object, "state", native_string(g_ptr_array_index(seen->states, i)));
        json_object_array_add(resources, object);
    }
    for (guint i = 0; i < seen->holders->len; i++)
        json_object_array_add(holders, native_holder(g_ptr_array_index(seen->holders, i)));
    json_object_object_add(result, "disk", native_string(disk));
    json_object_object_add(result, "state", native_string(seen->state));
    json_object_object_add(result, "resources", resources);
    json_object_object_add(result, "holders", holders);
    return result;
}

static void session_inspected(const InspectResult *seen, const Fault *fault, void *data)
{
    Session *session = session_unpend(data);
    json_object *disk;

    if (!session)
        return;
    if (fault) {
        session_error(session, fault);
    } else {
        disk = json_object_object_get(session->request.arguments, "disk");
        session_return(session,
                       session_inspect_value(seen, disk ? json_object_get_string(disk) : NULL));
    }
    conn_resume(session->conn);
}

static void session_query_disk(Session *session, const NativeArguments *arguments)
{
    const NativeWant *want = g_ptr_array_index(arguments->wants, 0);

    inspect_start(session->context->engine, want->path, want->space, want->key,
                  arguments->timeout_usec, session_inspected, session_pend(session));
}

static void session_query_status(Session *session, const NativeArguments *arguments)
{
    (void)arguments;
    session_return(session, status_report(session->context));
}

static void session_query_drivers(Session *session, const NativeArguments *arguments)
{
    (void)arguments;
    session_return(session,
                   drivers_report(session->context->drivers, session->context->driver_name));
}

static gboolean session_known_event(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(session_event_names); i++)
        if (strcmp(name, session_event_names[i]) == 0)
            return TRUE;
    return FALSE;
}

static void session_stop_events(Session *session)
{
    if (session->subscribed)
        g_queue_unlink(&session->context->subscribers, &session->link);
    session->subscribed = FALSE;
    g_clear_pointer(&session->events, g_ptr_array_unref);
}

static void session_subscribe(Session *session, const NativeArguments *arguments)
{
    for (guint i = 0; arguments->events && i < arguments->events->len; i++) {
        const char *name = g_ptr_array_index(arguments->events, i);
        g_autoptr(Fault) fault = NULL;

        if (session_known_event(name))
            continue;
        fault = fault_new(HF_ERR_INVALID_ARGUMENT, EINVAL,
                          "there is no event '%s'; the protocol's page lists them", name);
        fault->argument = g_strdup("events");
        session_error(session, fault);
        return;
    }
    session_stop_events(session);
    session->subscribed = TRUE;
    if (arguments->events)
        session->events = g_ptr_array_ref(arguments->events);
    g_queue_push_tail_link(&session->context->subscribers, &session->link);
    session_return(session, json_object_new_object());
}

static void session_unsubscribe(Session *session, const NativeArguments *arguments)
{
    (void)arguments;
    session_stop_events(session);
    session_return(session, json_object_new_object());
}

static void session_query_commands(Session *session, const NativeArguments *arguments);

static const Command session_commands[] = {
    {"acquire", TRUE, NATIVE_OWNER | NATIVE_WANTS | NATIVE_TIMEOUT, session_acquire},
    {"release", TRUE, NATIVE_OWNER_PID | NATIVE_WANTS | NATIVE_TIMEOUT, session_release},
    {"query-leases", FALSE, NATIVE_FILTER, session_query_leases},
    {"query-disk", FALSE, NATIVE_SUBJECT | NATIVE_TIMEOUT, session_query_disk},
    {"query-status", FALSE, 0, session_query_status},
    {"query-drivers", FALSE, 0, session_query_drivers},
    {"query-commands", FALSE, 0, session_query_commands},
    {"subscribe", FALSE, NATIVE_EVENTS, session_subscribe},
    {"unsubscribe", FALSE, 0, session_unsubscribe},
};

static void session_query_commands(Session *session, const NativeArguments *arguments)
{
    json_object *result = json_object_new_object();
    json_object *array = json_object_new_array();

    (void)arguments;
    for (size_t i = 0; i < G_N_ELEMENTS(session_commands); i++) {
        json_object *command = json_object_new_object();

        json_object_object_add(command, "name", native_string(session_commands[i].name));
        json_object_object_add(command, "access",
                               native_string(session_commands[i].full ? "full" : "read"));
        json_object_array_add(array, command);
    }
    json_object_object_add(result, "commands", array);
    session_return(session, result);
}

/* ---- the connection -------------------------------------------------------------------- */

static void session_run(Session *session)
{
    const char *name = session->request.execute;
    const Command *command = NULL;
    g_autoptr(NativeArguments) arguments = NULL;
    g_autoptr(Fault) fault = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(session_commands); i++)
        if (strcmp(name, session_commands[i].name) == 0)
            command = &session_commands[i];
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

static void session_opened(Conn *conn)
{
    Session *session = g_new0(Session, 1);

    session->conn = conn;
    session->context = conn->context;
    session->owners = g_ptr_array_new();
    session->link.data = session;
    conn->data = session;
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

        supervise_disconnected(engine, owner, FALSE);
        supervise_unref(engine, owner);
    }
    g_ptr_array_unref(session->owners);
    native_request_clear(&session->request);
    g_free(session);
}

const ConnProtocol native_protocol = {
    .name = "native",
    .opened = session_opened,
    .message = session_message,
    .closed = session_closed,
};

/* ---- events ---------------------------------------------------------------------------- */

static json_object *session_event_data(SessionContext *context, EngineEvent event,
                                       const Lease *lease, const Owner *owner, const Fault *fault,
                                       const char *text)
{
    const char *host = context->engine->config.host;
    json_object *data;

    if (event == EVENT_LEASE_REFUSED)
        return native_refusal(fault, owner, host);
    if (!lease)
        return native_owner(owner, host);
    data = native_lease(lease, host);
    if (text)
        json_object_object_add(data, "reason", native_string(text));
    return data;
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
        conn_send_unasked(session->conn, line, strlen(line));
    }
}
