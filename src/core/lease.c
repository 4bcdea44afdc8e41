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
    if (*part->resource.space)
        g_ref_string_release(part->resource.space);
    g_free(part->kept);
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

static void lease_list_add(GPtrArray *list, gpointer *first, gpointer item)
{
    if (list->len == 0) {
        list->pdata = first;
    } else if (list->len == 1) {
        list->pdata = g_new(gpointer, 2);
        list->pdata[0] = *first;
    } else {
        list->pdata = g_renew(gpointer, list->pdata, list->len + 1);
    }
    list->pdata[list->len++] = item;
}

static void lease_list_clear(GPtrArray *list)
{
    if (list->len > 1)
        g_free(list->pdata);
}

/* Where the disk itself is locked its name is that of its first lock. */
static gboolean lease_disk_is_key(const Lease *lease)
{
    return lease->parts->len > 0 && lease->disk == lease_resource(lease)->key;
}

void lease_set_disk(Lease *lease, const char *disk)
{
    char *old = lease_disk_is_key(lease) ? NULL : lease->disk;

    if (disk && lease->parts->len > 0 && strcmp(lease_resource(lease)->key, disk) == 0)
        lease->disk = lease_resource(lease)->key;
    else
        lease->disk = g_strdup(disk);
    g_free(old);
}

LeasePart *lease_add_part(Lease *lease, const Resource *resource, void *handle)
{
    gsize size = strlen(resource->key) + 1;
    LeasePart *part = g_malloc0(sizeof(*part) + size);

    memcpy(part->key, resource->key, size);
    part->resource.driver = resource->driver;
    part->resource.space = *resource->space ? g_ref_string_new_intern(resource->space) : (char *)"";
    part->resource.key = part->key;
    part->handle = handle;
    lease_list_add(lease->parts, &lease->first_part, part);
    if (lease->parts->len == 1)
        lease_set_disk(lease, lease->disk);
    return part;
}

const char *lease_part_saved(const LeasePart *part)
{
    return part->kept + strlen(part->kept) + 1;
}

void lease_add_claim(Lease *lease, const char *claim)
{
    gsize size = strlen(claim) + 1;
    LeaseClaim *added;

    for (guint i = 0; i < lease->claims->len; i++)
        if (g_str_equal(g_ptr_array_index(lease->claims, i), claim))
            return;
    added = g_malloc0(sizeof(*added) + size);
    memcpy(added->text, claim, size);
    lease_list_add(lease->claims, &lease->first_claim, added->text);
}

const Resource *lease_resource(const Lease *lease)
{
    const LeasePart *first = g_ptr_array_index(lease->parts, 0);

    return &first->resource;
}

void lease_free(Lease *lease)
{
    if (!lease_disk_is_key(lease))
        g_free(lease->disk);
    for (guint i = 0; i < lease->parts->len; i++)
        lease_part_free(g_ptr_array_index(lease->parts, i));
    for (guint i = 0; i < lease->claims->len; i++)
        g_free(lease_claim_of(g_ptr_array_index(lease->claims, i)));
    lease_list_clear(lease->parts);
    lease_list_clear(lease->claims);
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
