/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The first half of acquiring, see acquire.c: from what the client named to the ops that lock it.
 */
#include <errno.h>
#include <string.h>

#include "acquire-private.h"

static void acquire_want_free(gpointer data)
{
    Want *want = data;

    g_free(want->disk);
    g_free(want->format);
    for (guint i = 0; i < want->n_resources; i++)
        resource_clear(&want->resources[i]);
    identity_facts_free(want->facts);
    g_free(want);
}

Acquire *acquire_new(Engine *engine, Owner *owner, AcquireStyle style, guint64 timeout_usec)
{
    Acquire *acquire = g_new0(Acquire, 1);

    acquire->engine = engine;
    acquire->owner = owner_ref(owner);
    acquire->style = style;
    acquire->timeout_usec = timeout_usec ? timeout_usec : engine->config.request_timeout_usec;
    acquire->wants = g_ptr_array_new_with_free_func(acquire_want_free);
    acquire->ops = g_ptr_array_new();
    acquire->looking_up = g_ptr_array_new();
    acquire->waiting.data = acquire;
    return acquire;
}

static Want *acquire_add(Acquire *acquire, const char *disk, hf_mode mode)
{
    Want *want = g_new0(Want, 1);

    want->acquire = acquire;
    want->disk = g_strdup(disk);
    want->mode = mode;
    g_ptr_array_add(acquire->wants, want);
    return want;
}

static void acquire_want_resource(Want *want, const Driver *driver, const char *space,
                                  const char *key, unsigned flags)
{
    g_assert(want->n_resources < IDENTITY_MAX_NAMES);
    resource_init(&want->resources[want->n_resources], driver, space, key);
    want->flags[want->n_resources++] = flags;
}

void acquire_add_disk(Acquire *acquire, const char *path, hf_mode mode)
{
    acquire_add(acquire, path, mode);
}

void acquire_check_image(Acquire *acquire, const char *format)
{
    Want *want = g_ptr_array_index(acquire->wants, acquire->wants->len - 1);

    want->format = g_strdup(format);
}

void acquire_add_resource(Acquire *acquire, const Driver *driver, const char *space,
                          const char *key, const char *disk, hf_mode mode, unsigned flags)
{
    Want *want = acquire_add(acquire, disk, mode);

    want->by_name = TRUE;
    acquire_want_resource(want, driver, space, key, flags);
}

/* ---- ops ------------------------------------------------------------------------------- */

static Holder *acquire_owner_facts(Acquire *acquire)
{
    struct hf_holder facts = {
        .name = acquire->owner->name,
        .uuid = acquire->owner->uuid,
        .uri = acquire->owner->uri,
        .host = acquire->engine->config.host,
        .pid = acquire->owner->pid,
        .since_usec = acquire->since_usec,
    };

    return holder_new(&facts, HOLDER_FROM_TABLE);
}

/* Takes the lane's reference over. */
static Op *acquire_op_for(Acquire *acquire, Lane *lane)
{
    Op *op = op_for_lane(acquire->engine, acquire->ops, OP_ACQUIRE, lane);

    if (!op->owner)
        op->owner = acquire_owner_facts(acquire);
    return op;
}

static gint acquire_by_lane(gconstpointer a, gconstpointer b)
{
    const Op *x = *(Op *const *)a, *y = *(Op *const *)b;

    return strcmp(lane_name(x->lane), lane_name(y->lane));
}

static gint acquire_by_key(gconstpointer a, gconstpointer b)
{
    const OpItem *x = *(OpItem *const *)a, *y = *(OpItem *const *)b;

    return strcmp(x->resource.key, y->resource.key);
}

static void acquire_prepare(Acquire *acquire)
{
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        for (guint k = 0; !want->existing && k < want->n_resources; k++) {
            const Resource *resource = &want->resources[k];
            Op *op = acquire_op_for(acquire, op_lane(acquire->engine, resource));
            OpItem *item = op_add(op, resource, want->disk, want->mode, want->flags[k]);

            item->data = want;
        }
    }
    g_ptr_array_sort(acquire->ops, acquire_by_lane);
    for (guint i = 0; i < acquire->ops->len; i++) {
        Op *op = g_ptr_array_index(acquire->ops, i);

        g_ptr_array_sort(op->items, acquire_by_key);
    }
}

/* ---- naming ---------------------------------------------------------------------------- */

static void acquire_apply_rules(Acquire *acquire, Want *want)
{
    const Engine *engine = acquire->engine;
    g_autoptr(GPtrArray) names = NULL;

    if (want->by_name || want->n_resources > 0)
        return;
    names = identity_names(&engine->config.rules, want->disk, want->facts);
    for (guint i = 0; i < names->len; i++) {
        const IdentityName *name = g_ptr_array_index(names, i);

        acquire_want_resource(want, engine->disk_driver, name->space, name->key,
                              name->autocreate ? HF_RESOURCE_AUTOCREATE : 0);
    }
}

/* Does the owner hold it already? FALSE if it does in a way that refuses the request. */
static gboolean acquire_find_existing(Acquire *acquire, Want *want)
{
    const Resource *resource = &want->resources[0];
    Lease *lease = table_find_owned(acquire->engine->table, acquire->owner, resource);
    g_autoptr(GPtrArray) conflict = NULL;

    if (!lease)
        return TRUE;
    if (lease->state == LEASE_HELD && lease->mode == want->mode &&
        (acquire->style == ACQUIRE_REPEATABLE || want->mode != HF_MODE_EXCLUSIVE)) {
        want->lease = lease;
        want->existing = TRUE;
        return TRUE;
    }
    conflict = g_ptr_array_new();
    g_ptr_array_add(conflict, lease);
    acquire_refused(acquire, want, conflict, NULL);
    return FALSE;
}

Fault *acquire_twice(const Want *want, const Want *other)
{
    g_autofree char *subject = refusal_subject(&want->resources[0], want->disk);
    g_autofree char *second = refusal_subject(&other->resources[0], other->disk);
    Fault *fault;

    if (strcmp(subject, second) == 0)
        fault = fault_new(HF_ERR_INVALID_ARGUMENT, EINVAL,
                          "%s is named twice in one request; name each disk once", subject);
    else
        fault =
            fault_new(HF_ERR_INVALID_ARGUMENT, EINVAL,
                      "%s and %s are one and the same; a VM must not have it twice, name it once",
                      subject, second);
    fault->argument = g_strdup(want->disk ? "disks" : "leases");
    return fault;
}

/* TRUE if two wants are one resource by name; the request has failed then. */
static gboolean acquire_names_twice(Acquire *acquire)
{
    g_autoptr(GHashTable) seen = NULL;

    if (acquire->wants->len == 1)
        return FALSE;
    seen = g_hash_table_new(resource_hash, resource_equal);
    for (guint i = 0; i < acquire->wants->len; i++) {
        const Want *want = g_ptr_array_index(acquire->wants, i);

        if (!g_hash_table_add(seen, (gpointer)&want->resources[0])) {
            acquire_fail(acquire, acquire_twice(want, want));
            return TRUE;
        }
    }
    return FALSE;
}

/* FALSE if the want's driver knows only exclusive locks and another is asked for. */
static gboolean acquire_driver_shares(Acquire *acquire, const Want *want)
{
    const Resource *resource = &want->resources[0];
    g_autofree char *subject = NULL;

    if (want->mode == HF_MODE_EXCLUSIVE || (resource->driver->api.capabilities & HF_CAN_SHARE))
        return TRUE;
    subject = refusal_subject(resource, want->disk);
    acquire_fail(acquire,
                 fault_new(HF_ERR_INVALID_ARGUMENT, ENOTSUP,
                           "%s cannot be had in %s mode: driver %s knows only exclusive locks",
                           subject, mode_to_string(want->mode), resource->driver->api.name));
    return FALSE;
}

void acquire_name(Acquire *acquire)
{
    for (guint i = 0; i < acquire->wants->len; i++)
        acquire_apply_rules(acquire, g_ptr_array_index(acquire->wants, i));
    if (acquire_names_twice(acquire))
        return;
    for (guint i = 0; i < acquire->wants->len; i++)
        if (!acquire_driver_shares(acquire, g_ptr_array_index(acquire->wants, i)))
            return;
    for (guint i = 0; i < acquire->wants->len; i++)
        if (!acquire_find_existing(acquire, g_ptr_array_index(acquire->wants, i)))
            return;
    acquire_prepare(acquire);
    acquire_lock(acquire);
}

/* ---- planning -------------------------------------------------------------------------- */

static void acquire_looked_up(Op *op, void *data)
{
    Want *want = data;
    Acquire *acquire = want->acquire;
    OpItem *item = g_ptr_array_index(op->items, 0);

    g_ptr_array_remove(acquire->looking_up, op);
    if (item->facts)
        want->facts = g_steal_pointer(&item->facts);
    if (op->fault && !acquire->fault)
        acquire->fault = g_steal_pointer(&op->fault);
    if (acquire->looking_up->len > 0)
        return;
    if (acquire->fault)
        acquire_undo(acquire);
    else
        acquire_name(acquire);
}

static void acquire_look_up(Acquire *acquire, Want *want, OpKind kind)
{
    Op *op = op_new(acquire->engine, kind, op_disk_lane(acquire->engine, want->disk));
    Resource none = {
        .driver = acquire->engine->disk_driver, .space = (char *)"", .key = want->disk};

    op_add(op, &none, want->disk, want->mode, 0)->format = g_strdup(want->format);
    g_ptr_array_add(acquire->looking_up, op);
    op_submit(op, acquire_looked_up, want);
}

void acquire_plan(Acquire *acquire)
{
    for (guint i = 0; i < acquire->wants->len; i++) {
        Want *want = g_ptr_array_index(acquire->wants, i);

        if (!want->by_name && identity_needs_facts(&acquire->engine->config.rules, want->disk))
            acquire_look_up(acquire, want, OP_IDENTIFY);
        if (want->format)
            acquire_look_up(acquire, want, OP_CHECK_IMAGE);
    }
    if (acquire->looking_up->len == 0)
        acquire_name(acquire);
}
