/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What query-status tells: the daemon, its sockets, its lockspaces and their health. */
#include <string.h>
#include <unistd.h>

#include "protocol/native.h"
#include "session.h"
#include "vault.h"

/* An operation on healthy storage takes milliseconds. Beyond the first figure people notice;
 * beyond the second, libvirt's own clients have begun to wonder. */
#define STATUS_SLOW_USEC (1 * G_USEC_PER_SEC)
#define STATUS_STUCK_USEC (10 * G_USEC_PER_SEC)

typedef struct StatusSpace {
    const char *driver;
    guint leases;
} StatusSpace;

static StatusSpace *status_space(GHashTable *spaces, const char *name, const char *driver)
{
    StatusSpace *space = g_hash_table_lookup(spaces, name);

    if (!space) {
        space = g_new0(StatusSpace, 1);
        space->driver = driver;
        g_hash_table_insert(spaces, g_strdup(name), space);
    }
    return space;
}

static gint64 status_age(const LaneState *state)
{
    return state->oldest_usec ? g_get_real_time() - state->oldest_usec : 0;
}

const char *status_health(const LaneState *state)
{
    gint64 age = status_age(state);

    return age >= STATUS_STUCK_USEC ? "stuck" : age >= STATUS_SLOW_USEC ? "slow" : "ok";
}

/* Every lockspace that is known: opened, in use, or at work. By name. */
static GHashTable *status_collect(SessionContext *context)
{
    Engine *engine = context->engine;
    GHashTable *spaces = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_autoptr(GPtrArray) leases = table_list(engine->table);
    g_autoptr(GPtrArray) lanes = lane_hub_list(engine->lanes);

    for (guint i = 0; i < context->drivers->len; i++) {
        const Driver *driver = g_ptr_array_index(context->drivers, i);
        g_autoptr(GPtrArray) names = op_space_names(engine, driver->api.name);

        for (guint k = 0; k < names->len; k++)
            if (*(const char *)g_ptr_array_index(names, k))
                status_space(spaces, g_ptr_array_index(names, k), driver->api.name);
    }
    for (guint i = 0; i < leases->len; i++) {
        const Lease *lease = g_ptr_array_index(leases, i);
        const Resource *resource = lease_resource(lease);
        g_autofree char *name = op_lane_name(engine, resource);

        status_space(spaces, name, resource->driver->api.name)->leases++;
    }
    for (guint i = 0; i < lanes->len; i++)
        status_space(spaces, lane_name(g_ptr_array_index(lanes, i)), context->driver_name);
    return spaces;
}

static json_object *status_space_value(SessionContext *context, const char *name,
                                       const StatusSpace *space)
{
    Lane *lane = lane_hub_find(context->engine->lanes, name);
    LaneState state = {.name = name};
    json_object *object = json_object_new_object();

    if (lane)
        state = lane_state(lane);
    json_object_object_add(object, "name", native_string(name));
    json_object_object_add(object, "driver", native_string(space->driver));
    json_object_object_add(object, "leases", json_object_new_int64(space->leases));
    json_object_object_add(object, "health", native_string(status_health(&state)));
    if (status_age(&state) >= STATUS_SLOW_USEC) {
        json_object_object_add(object, "operation", native_string(state.operation));
        json_object_object_add(object, "since", native_time(state.oldest_usec));
    }
    json_object_object_add(object, "queued", json_object_new_int64(state.queued));
    json_object_object_add(object, "running", json_object_new_int64(state.running));
    return object;
}

static json_object *status_spaces(SessionContext *context)
{
    g_autoptr(GHashTable) spaces = status_collect(context);
    g_autoptr(GList) names = g_list_sort(g_hash_table_get_keys(spaces), (GCompareFunc)strcmp);
    json_object *array = json_object_new_array();

    for (GList *link = names; link; link = link->next)
        json_object_array_add(array, status_space_value(context, link->data,
                                                        g_hash_table_lookup(spaces, link->data)));
    return array;
}

static json_object *status_sockets(const SessionContext *context)
{
    g_autoptr(GPtrArray) sockets = server_sockets(context->server);
    json_object *array = json_object_new_array();

    for (guint i = 0; i < sockets->len; i++) {
        const ServerSocket *entry = g_ptr_array_index(sockets, i);
        json_object *object = json_object_new_object();

        json_object_object_add(object, "path", native_string(entry->path));
        json_object_object_add(object, "protocol", native_string(entry->protocol));
        json_object_array_add(array, object);
    }
    return array;
}

static json_object *status_vault(const SessionContext *context)
{
    json_object *object = json_object_new_object();

    json_object_object_add(object, "supervisor", native_string(vault_kind_name(context->vault)));
    json_object_object_add(object, "descriptors",
                           json_object_new_int64(vault_count(context->vault)));
    return object;
}

json_object *status_report(SessionContext *context)
{
    const Engine *engine = context->engine;
    g_autoptr(GPtrArray) owners = table_owners(engine->table);
    json_object *status = json_object_new_object();
    json_object *stopping = json_object_new_array();
    guint holding = 0;

    for (guint i = 0; i < owners->len; i++) {
        const Owner *owner = g_ptr_array_index(owners, i);

        holding += owner->leases->len > 0;
        if (owner->state != OWNER_RUNNING && owner->leases->len > 0)
            json_object_array_add(stopping, native_owner(owner, engine->config.host));
    }
    json_object_object_add(status, "version", native_string(HOLDFAST_VERSION));
    json_object_object_add(status, "protocol", json_object_new_int(NATIVE_PROTOCOL_VERSION));
    json_object_object_add(status, "host", native_string(engine->config.host));
    json_object_object_add(status, "pid", json_object_new_int(getpid()));
    json_object_object_add(status, "since", native_time(context->since_usec));
    json_object_object_add(status, "sockets", status_sockets(context));
    json_object_object_add(status, "connections",
                           json_object_new_int64(conn_set_count(context->conns)));
    json_object_object_add(status, "owners", json_object_new_int64(holding));
    json_object_object_add(status, "leases", json_object_new_int64(table_size(engine->table)));
    json_object_object_add(status, "vault", status_vault(context));
    json_object_object_add(status, "lockspaces", status_spaces(context));
    json_object_object_add(status, "owners-stopping", stopping);
    return status;
}
