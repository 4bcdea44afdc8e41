/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Owners, resources and leases as values; see lease.h. */
#include "lease.h"

#include <string.h>

Owner *owner_new(const char *name, const char *uuid, const char *uri, pid_t pid, guint64 ticks)
{
    Owner *owner = g_new0(Owner, 1);

    owner->refs = 1;
    owner->name = g_strdup(name);
    owner->uuid = g_strdup(uuid);
    owner->uri = g_strdup(uri);
    owner->pid = pid;
    owner->start_ticks = ticks;
    owner->leases = g_ptr_array_new();
    return owner;
}

Owner *owner_ref(Owner *owner)
{
    owner->refs++;
    return owner;
}

void owner_unref(Owner *owner)
{
    if (!owner || --owner->refs > 0)
        return;
    g_assert(owner->leases->len == 0 && !owner->watch);
    g_free(owner->id);
    g_free(owner->pidfd_name);
    g_clear_pointer(&owner->conn_names, g_ptr_array_unref);
    g_free(owner->name);
    g_free(owner->uuid);
    g_free(owner->uri);
    g_ptr_array_unref(owner->leases);
    g_free(owner);
}

gboolean owner_same(const Owner *a, const Owner *b)
{
    if (a == b)
        return TRUE;
    if (a->pid != b->pid || a->start_ticks != b->start_ticks)
        return FALSE;
    /* without a process only the UUID can tell */
    return a->pid != 0 || g_strcmp0(a->uuid, b->uuid) == 0;
}

void resource_init(Resource *resource, const Driver *driver, const char *space, const char *key)
{
    resource->driver = driver;
    resource->space = *space ? g_strdup(space) : (char *)""; /* mostly: no copy for each lease */
    resource->key = g_strdup(key);
}

void resource_clear(Resource *resource)
{
    if (resource->space && *resource->space)
        g_free(resource->space);
    resource->space = NULL;
    g_clear_pointer(&resource->key, g_free);
}

guint resource_hash(gconstpointer data)
{
    const Resource *resource = data;

    return g_str_hash(resource->key) * 31 + g_str_hash(resource->space);
}

gboolean resource_equal(gconstpointer a, gconstpointer b)
{
    const Resource *x = a, *y = b;

    return x->driver == y->driver && strcmp(x->key, y->key) == 0 && strcmp(x->space, y->space) == 0;
}

static void lease_part_free(LeasePart *part)
{
    resource_clear(&part->resource);
    g_free(part->fd_names);
    g_free(part->saved_bytes);
    g_free(part->saved);
    g_free(part);
}

Lease *lease_new(Owner *owner, const char *disk, hf_mode mode, gint64 since_usec)
{
    Lease *lease = g_new0(Lease, 1);

    lease->owner = owner_ref(owner);
    lease->disk = g_strdup(disk);
    lease->mode = mode;
    lease->since_usec = since_usec;
    lease->count = 1;
    return lease;
}

static void lease_list_add(GPtrArray *list, gpointer item)
{
    list->pdata = g_renew(gpointer, list->pdata, list->len + 1);
    list->pdata[list->len++] = item;
}

LeasePart *lease_add_part(Lease *lease, const Resource *resource, void *handle)
{
    LeasePart *part = g_new0(LeasePart, 1);

    resource_init(&part->resource, resource->driver, resource->space, resource->key);
    part->handle = handle;
    lease_list_add(lease->parts, part);
    return part;
}

void lease_add_claim(Lease *lease, const char *claim)
{
    for (guint i = 0; i < lease->claims->len; i++)
        if (g_str_equal(g_ptr_array_index(lease->claims, i), claim))
            return;
    lease_list_add(lease->claims, g_strdup(claim));
}

const Resource *lease_resource(const Lease *lease)
{
    const LeasePart *first = g_ptr_array_index(lease->parts, 0);

    return &first->resource;
}

void lease_free(Lease *lease)
{
    for (guint i = 0; i < lease->parts->len; i++)
        lease_part_free(g_ptr_array_index(lease->parts, i));
    for (guint i = 0; i < lease->claims->len; i++)
        g_free(g_ptr_array_index(lease->claims, i));
    g_free(lease->parts->pdata);
    g_free(lease->claims->pdata);
    g_free(lease->disk);
    g_free(lease->id);
    owner_unref(lease->owner);
    g_free(lease);
}

Holder *lease_holder(const Lease *lease, const char *host)
{
    struct hf_holder facts = {
        .disk = lease->disk,
        .name = lease->owner->name,
        .uuid = lease->owner->uuid,
        .uri = lease->owner->uri,
        .host = host,
        .pid = lease->owner->pid,
        .since_usec = lease->since_usec,
        .mode = lease->mode,
    };
    Holder *holder = holder_new(&facts, HOLDER_FROM_TABLE);

    holder->stopping = lease->owner->state == OWNER_STOPPING;
    return holder;
}
