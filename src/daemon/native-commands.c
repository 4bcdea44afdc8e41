/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands of the native protocol, one function each; see docs/native-protocol.rst. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "metrics.h"
#include "native-private.h"

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

    session->acquire = NULL;
    if (fault)
        session_error(session, fault);
    else
        session_return_leases(session, leases);
    conn_resume(session->conn);
}

/* A fault if an image is to be checked for what nobody can check. */
static Fault *session_unknown_format(const NativeArguments *arguments)
{
    for (guint i = 0; i < arguments->wants->len; i++) {
        const NativeWant *want = g_ptr_array_index(arguments->wants, i);
        Fault *fault;

        if (!want->format || image_check_knows(want->format))
            continue;
        fault = fault_new(HF_ERR_INVALID_ARGUMENT, EINVAL,
                          "'%s' is no format of images that can be checked; leave it out, or see "
                          "'holdfast help image'",
                          want->format);
        fault->argument = g_strdup("format");
        return fault;
    }
    return NULL;
}

static void session_acquire(Session *session, const NativeArguments *arguments)
{
    Engine *engine = session->context->engine;
    g_autoptr(Fault) fault = session_check_owner(arguments->pid);
    Acquire *acquire;
    Owner *owner;

    if (!fault)
        fault = session_unknown_format(arguments);
    if (!fault && session_lease_required(session, arguments))
        fault =
            fault_new(HF_ERR_LEASE_REQUIRED, 0,
                      "there are writable disks, but no lease: require_lease_for_disks asks for "
                      "one; add a lease, or turn auto_disk_leases on");
    owner = fault ? NULL
                  : supervise_get(engine, arguments->name, arguments->uuid, arguments->uri,
                                  arguments->pid, TRUE, &fault);
    if (!owner) {
        metrics_on_refused(engine->metrics, fault->code);
        session_error(session, fault);
        return;
    }
    if (arguments->until_close)
        session_keep_owner(session, owner, NULL);
    acquire = acquire_new(engine, owner, ACQUIRE_REPEATABLE, arguments->timeout_usec);
    for (guint i = 0; i < arguments->wants->len; i++) {
        const NativeWant *want = g_ptr_array_index(arguments->wants, i);

        /* auto_disk_leases is about disks that libvirt finds; here somebody names them */
        if (want->path)
            acquire_add_disk(acquire, want->path, want->mode);
        if (want->format)
            acquire_check_image(acquire, want->format);
        if (!want->path)
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

    if (!session)
        return;
    /* of what was left behind only the log needs to know: the lock is gone all the same */
    if (left_behind && left_behind->code == HF_ERR_TIMEOUT) {
        session_error(session, left_behind);
        conn_resume(session->conn);
        return;
    }
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
    release_leases(engine, leases, "released",
                   arguments->timeout_usec ? arguments->timeout_usec
                                           : engine->config.request_timeout_usec,
                   session_released, pending);
}

/* ---- questions ------------------------------------------------------------------------- */

static void session_query_leases(Session *session, const NativeArguments *arguments)
{
    g_autoptr(GPtrArray) leases = table_list(session->context->engine->table);
    g_autoptr(GPtrArray) wanted = g_ptr_array_new();
    guint guesses = 100; /* each reads a directory of /proc: the list must not hold up others */

    for (guint i = 0; i < leases->len; i++) {
        Lease *lease = g_ptr_array_index(leases, i);

        if (lease->state == LEASE_PENDING ||
            (arguments->pid && lease->owner->pid != arguments->pid) ||
            (arguments->uuid &&
             (!lease->owner->uuid || g_ascii_strcasecmp(lease->owner->uuid, arguments->uuid) != 0)))
            continue;
        if (guesses > 0 && refusal_learn_disk(lease))
            guesses--;
        g_ptr_array_add(wanted, lease);
    }
    session_return_leases(session, wanted);
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

static void session_query_metrics(Session *session, const NativeArguments *arguments)
{
    (void)arguments;
    session_return(session, metrics_report(session->context));
}

static void session_query_drivers(Session *session, const NativeArguments *arguments)
{
    (void)arguments;
    session_return(session,
                   drivers_report(session->context->drivers, session->context->driver_name));
}

static void session_subscribe(Session *session, const NativeArguments *arguments)
{
    for (guint i = 0; arguments->events && i < arguments->events->len; i++) {
        const char *name = g_ptr_array_index(arguments->events, i);
        g_autoptr(Fault) fault = NULL;
        g_autofree char *all = NULL;

        if (session_known_event(name))
            continue;
        all = session_all_events();
        fault = fault_new(HF_ERR_INVALID_ARGUMENT, EINVAL, "there is no event '%s'; there are %s",
                          name, all);
        fault->argument = g_strdup("events");
        session_error(session, fault);
        return;
    }
    session_start_events(session, arguments->events);
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
    {"query-metrics", FALSE, 0, session_query_metrics},
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

const Command *session_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(session_commands); i++)
        if (strcmp(name, session_commands[i].name) == 0)
            return &session_commands[i];
    return NULL;
}
