/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Giving leases back: a lease stays in the table, as "releasing", until its driver has let go. */
#include "engine.h"

typedef struct Release {
    Engine *engine;
    GPtrArray *leases;
    guint ops; /* under way, and one while they are being submitted */
    const char *reason;
    Fault *fault; /* the first thing that was left behind */
    ReleaseDone done;
    void *data;
} Release;

static void release_finish_lease(Release *release, Lease *lease)
{
    Owner *owner = owner_ref(lease->owner);

    table_remove(release->engine->table, lease);
    if (release->reason)
        engine_emit(release->engine, EVENT_LEASE_RELEASED, lease, owner, NULL, release->reason);
    lease_free(lease);
    supervise_unref(release->engine, owner);
}

static void release_end(Release *release)
{
    if (--release->ops > 0)
        return;
    for (guint i = 0; i < release->leases->len; i++)
        release_finish_lease(release, g_ptr_array_index(release->leases, i));
    if (release->fault)
        g_warning("%s", release->fault->message);
    if (release->leases->len > 0)
        acquire_retry_waiting(release->engine);
    if (release->done)
        release->done(release->fault, release->data);
    fault_free(release->fault);
    g_ptr_array_unref(release->leases);
    g_free(release);
}

static void release_op_done(Op *op, void *data)
{
    Release *release = data;

    if (op->fault && !release->fault)
        release->fault = g_steal_pointer(&op->fault);
    release_end(release);
}

static Op *release_op_for(Release *release, GPtrArray *ops, Lane *lane)
{
    for (guint i = 0; i < ops->len; i++) {
        Op *op = g_ptr_array_index(ops, i);

        if (op->lane == lane)
            return op;
    }
    g_ptr_array_add(ops, op_new(release->engine, OP_RELEASE, lane));
    return g_ptr_array_index(ops, ops->len - 1);
}

void release_leases(Engine *engine, GPtrArray *leases, const char *reason, ReleaseDone done,
                    void *data)
{
    g_autoptr(GPtrArray) ops = g_ptr_array_new();
    Release *release = g_new0(Release, 1);

    release->engine = engine;
    release->leases = g_ptr_array_new();
    release->reason = reason;
    release->done = done;
    release->data = data;
    release->ops = 1;
    for (guint i = 0; i < leases->len; i++) {
        Lease *lease = g_ptr_array_index(leases, i);

        lease->state = LEASE_RELEASING;
        g_ptr_array_add(release->leases, lease);
        for (guint k = 0; k < lease->parts->len; k++) {
            LeasePart *part = g_ptr_array_index(lease->parts, k);
            Op *op = release_op_for(release, ops, op_lane(engine, &part->resource));
            OpItem *item = op_add(op, &part->resource, lease->disk, lease->mode, 0);

            item->handle = part->handle;
        }
    }
    release->ops += ops->len;
    for (guint i = 0; i < ops->len; i++)
        op_submit(g_ptr_array_index(ops, i), release_op_done, release);
    release_end(release);
}
