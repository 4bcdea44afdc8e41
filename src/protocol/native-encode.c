/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Replies and events of the native protocol, from structs to bytes; see native.h. */
#include "native.h"

#include <string.h>

#define NATIVE_STYLE (JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
/* About as much as one has. */
#define NATIVE_LEASE_BYTES 400

json_object *native_string(const char *text)
{
    g_autofree char *valid = NULL;

    if (!text)
        return NULL;
    valid = g_utf8_make_valid(text, -1);
    return json_object_new_string(valid);
}

json_object *native_time(gint64 usec)
{
    g_autofree char *text = usec ? time_to_iso8601(usec) : NULL;

    return native_string(text);
}

static json_object *native_pid(pid_t pid)
{
    return pid ? json_object_new_int(pid) : NULL;
}

/* ---- owners and leases, as text -------------------------------------------------------- */

/* Leases come by the thousand, and are what every acquire is answered with: a tree of them, to be
 * written out and freed at once, would cost more than to lock them. */

/* null for NULL; made valid UTF-8. */
static void native_put_string(GString *out, const char *text)
{
    const char *p = text;
    json_object *value;

    while (p && *p >= ' ' && *p <= '~' && *p != '"' && *p != '\\')
        p++;
    if (p && !*p) { /* as mostly: nothing has to be escaped */
        g_string_append_c(out, '"');
        g_string_append_len(out, text, p - text);
        g_string_append_c(out, '"');
        return;
    }
    value = native_string(text);
    g_string_append(out, json_object_to_json_string_ext(value, NATIVE_STYLE));
    json_object_put(value);
}

static void native_put_member(GString *out, const char *name, const char *text)
{
    g_string_append(out, name);
    native_put_string(out, text);
}

static void native_put_owner(GString *out, const Owner *owner, const char *host)
{
    static const char *const states[] = {"running", "stopping", "gone"};

    native_put_member(out, "{\"name\":", owner->name);
    native_put_member(out, ",\"uuid\":", owner->uuid);
    native_put_member(out, ",\"uri\":", owner->uri);
    if (owner->pid)
        g_string_append_printf(out, ",\"pid\":%d", (int)owner->pid);
    else
        g_string_append(out, ",\"pid\":null");
    native_put_member(out, ",\"host\":", host);
    native_put_member(out, ",\"state\":", states[owner->state]);
    g_string_append_c(out, '}');
}

static void native_put_lease(GString *out, const Lease *lease, const char *host, const char *reason)
{
    const Resource *resource = lease_resource(lease);
    char since[TIME_BYTES];

    native_put_member(out, "{\"disk\":", lease->disk);
    native_put_member(out, ",\"driver\":", resource->driver->api.name);
    native_put_member(out, ",\"lockspace\":", resource->space);
    native_put_member(out, ",\"key\":", resource->key);
    native_put_member(out, ",\"mode\":", mode_to_string(lease->mode));
    native_put_member(
        out, ",\"since\":", lease->since_usec ? time_format(lease->since_usec, since) : NULL);
    g_string_append(out, ",\"claims\":[");
    for (guint i = 0; i < lease->claims->len; i++)
        native_put_member(out, i ? "," : "", g_ptr_array_index(lease->claims, i));
    g_string_append(out, "],\"owner\":");
    native_put_owner(out, lease->owner, host);
    if (reason)
        native_put_member(out, ",\"reason\":", reason);
    g_string_append_c(out, '}');
}

static int native_write_text(json_object *object, struct printbuf *out, int level, int flags)
{
    (void)level;
    (void)flags;
    return printbuf_memappend(out, json_object_get_string(object),
                              json_object_get_string_len(object));
}

static json_object *native_text(GString *text)
{
    json_object *object = json_object_new_string_len(text->str, (int)text->len);

    json_object_set_serializer(object, native_write_text, NULL, NULL);
    g_string_free(text, TRUE);
    return object;
}

json_object *native_owner(const Owner *owner, const char *host)
{
    GString *text = g_string_new(NULL);

    native_put_owner(text, owner, host);
    return native_text(text);
}

json_object *native_lease(const Lease *lease, const char *host, const char *reason)
{
    GString *text = g_string_new(NULL);

    native_put_lease(text, lease, host, reason);
    return native_text(text);
}

/* ---- values as trees ------------------------------------------------------------------- */

static void native_add_resource(json_object *object, const char *driver, const char *space,
                                const char *key)
{
    json_object_object_add(object, "driver", native_string(driver));
    json_object_object_add(object, "lockspace", native_string(space));
    json_object_object_add(object, "key", native_string(key));
}

json_object *native_holder(const Holder *holder)
{
    static const char *const sources[] = {"table", "record", "kernel"};
    json_object *object = json_object_new_object();

    json_object_object_add(object, "disk", native_string(holder->disk));
    json_object_object_add(object, "name", native_string(holder->name));
    json_object_object_add(object, "uuid", native_string(holder->uuid));
    json_object_object_add(object, "pid", native_pid(holder->pid));
    json_object_object_add(object, "host", native_string(holder->host));
    json_object_object_add(object, "since", native_time(holder->since_usec));
    json_object_object_add(object, "mode", json_object_new_string(mode_to_string(holder->mode)));
    json_object_object_add(object, "source", json_object_new_string(sources[holder->source]));
    return object;
}

static json_object *native_holders(const Fault *fault)
{
    json_object *array = json_object_new_array();

    for (guint i = 0; i < fault->holders->len; i++)
        json_object_array_add(array, native_holder(g_ptr_array_index(fault->holders, i)));
    return array;
}

static json_object *native_fault_data(const Fault *fault)
{
    json_object *data = json_object_new_object();
    const struct {
        const char *key;
        const char *value;
    } texts[] = {
        {"disk", fault->disk}, {"driver", fault->driver},     {"lockspace", fault->space},
        {"key", fault->key},   {"argument", fault->argument}, {"operation", fault->operation},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        if (texts[i].value)
            json_object_object_add(data, texts[i].key, native_string(texts[i].value));
    if (fault->err)
        json_object_object_add(data, "errno", json_object_new_int(fault->err));
    if (fault->since_usec)
        json_object_object_add(data, "since", native_time(fault->since_usec));
    if (fault->pid)
        json_object_object_add(data, "pid", json_object_new_int(fault->pid));
    if (fault->code == HF_ERR_BUSY) {
        json_object_object_add(data, "mode", json_object_new_string(mode_to_string(fault->mode)));
        json_object_object_add(data, "holders", native_holders(fault));
    }
    return data;
}

json_object *native_refusal(const Fault *fault, const Owner *owner, const char *host)
{
    json_object *object = json_object_new_object();

    json_object_object_add(object, "disk", native_string(fault->disk));
    native_add_resource(object, fault->driver, fault->space, fault->key);
    json_object_object_add(object, "mode", json_object_new_string(mode_to_string(fault->mode)));
    json_object_object_add(object, "owner", native_owner(owner, host));
    json_object_object_add(object, "class", json_object_new_string(fault_class(fault->code)));
    json_object_object_add(object, "desc", native_string(fault->message));
    json_object_object_add(object, "holders", native_holders(fault));
    return object;
}

/* Takes the object over. */
static char *native_line(json_object *object)
{
    const char *text = json_object_to_json_string_ext(object, NATIVE_STYLE);
    char *line = g_strconcat(text, "\n", NULL);

    json_object_put(object);
    return line;
}

static void native_add_id(json_object *object, const NativeRequest *request)
{
    if (request->has_id)
        json_object_object_add(object, "id", json_object_get(request->id));
}

char *native_encode_return(const NativeRequest *request, json_object *value)
{
    json_object *object = json_object_new_object();

    json_object_object_add(object, "return", value);
    native_add_id(object, request);
    return native_line(object);
}

char *native_encode_leases(const NativeRequest *request, GPtrArray *leases, const char *host)
{
    GString *out = g_string_sized_new(64 + leases->len * NATIVE_LEASE_BYTES);

    g_string_append(out, "{\"return\":{\"leases\":[");
    for (guint i = 0; i < leases->len; i++) {
        if (i)
            g_string_append_c(out, ',');
        native_put_lease(out, g_ptr_array_index(leases, i), host, NULL);
    }
    g_string_append(out, "]}");
    if (request->has_id) {
        g_string_append(out, ",\"id\":");
        g_string_append(out, json_object_to_json_string_ext(request->id, NATIVE_STYLE));
    }
    g_string_append(out, "}\n");
    return g_string_free(out, FALSE);
}

char *native_encode_error(const NativeRequest *request, const Fault *fault)
{
    json_object *object = json_object_new_object();
    json_object *error = json_object_new_object();

    json_object_object_add(error, "class", json_object_new_string(fault_class(fault->code)));
    json_object_object_add(error, "desc", native_string(fault->message));
    json_object_object_add(error, "data", native_fault_data(fault));
    json_object_object_add(object, "error", error);
    native_add_id(object, request);
    return native_line(object);
}

char *native_encode_event(const char *name, json_object *data, gint64 usec)
{
    json_object *object = json_object_new_object();

    json_object_object_add(object, "event", json_object_new_string(name));
    json_object_object_add(object, "data", data);
    json_object_object_add(object, "timestamp", native_time(usec));
    return native_line(object);
}

char *native_encode_greeting(const char *version, const char *host, pid_t pid, gboolean full)
{
    GString *out = g_string_sized_new(256);

    native_put_member(out, "{\"holdfast\":{\"version\":", version);
    g_string_append_printf(out, ",\"protocol\":%d", NATIVE_PROTOCOL_VERSION);
    native_put_member(out, ",\"host\":", host);
    g_string_append_printf(out, ",\"pid\":%d", (int)pid);
    native_put_member(out, ",\"access\":", full ? "full" : "read");
    g_string_append(out, "}}\n");
    return g_string_free(out, FALSE);
}
