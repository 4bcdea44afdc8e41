/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Giving leases back: a lease stays in the table, as "releasing", until its driver has let go of
 * all its parts. Each goes by itself: one on storage that hangs does not keep the others. */
#define G_LOG_DOMAIN "holdfast.release"

#include "engine.h"

typedef struct Release {
    Engine *engine;
    GHashTable *leases; /* Lease -> how many of its parts are still held */
    guint ops;          /* under way, and one while they are being submitted */
    const char *reason;
    Fault *fault;         /* the first thing that was left behind */
    GPtrArray *under_way; /* of Op */
    Deadline deadline;
    ReleaseDone done;
    void *data;
} Release;

static void release_finish_lease(Release *release, Lease *lease)
{
    Owner *owner = owner_ref(lease->owner);

    table_remove(release->engine->table, lease);
    handover_forget_lease(release->engine, lease);
    if (release->reason)
        engine_emit(release->engine, EVENT_LEASE_RELEASED, lease, owner, NULL, release->reason);
    lease_free(lease);
    supervise_unref(release->engine, owner);
}

static void release_end(Release *release)
{
    if (--release->ops > 0)
        return;
    if (release->fault)
        g_warning("%s", release->fault->message);
    deadline_clear(&release->deadline);
    if (release->done)
        release->done(release->fault, release->data);
    fault_free(release->fault);
    g_ptr_array_unref(release->under_way);
    g_hash_table_unref(release->leases);
    g_free(release);
}

static void release_op_done(Op *op, void *data)
{
    Release *release = data;
    gboolean any = FALSE;

    g_ptr_array_remove(release->under_way, op);
    if (op->fault && !release->fault)
        release->fault = g_steal_pointer(&op->fault);
    for (guint i = 0; i < op->items->len; i++) {
        OpItem *item = g_ptr_array_index(op->items, i);
        Lease *lease = item->data;
        guint parts = GPOINTER_TO_UINT(g_hash_table_lookup(release->leases, lease));

        g_hash_table_insert(release->leases, lease, GUINT_TO_POINTER(parts - 1));
        if (parts > 1)
            continue;
        release_finish_lease(release, lease);
        any = TRUE;
    }
    if (any)
        acquire_retry_waiting(release->engine);
    release_end(release);
}

static void release_on_deadline(void *data)
{
    Release *release = data;
    ReleaseDone done = g_steal_pointer(&release->done);
    g_autoptr(Fault) fault = NULL;

    if (!done || release->under_way->len == 0)
        return;
    fault = op_timeout_fault(g_ptr_array_index(release->under_way, 0));
    done(fault, release->data);
}

void release_leases(Engine *engine, GPtrArray *leases, const char *reason, guint64 timeout_usec,
                    ReleaseDone done, void *data)
{
    GPtrArray *ops = g_ptr_array_new();
    Release *release = g_new0(Release, 1);

    release->engine = engine;
    release->leases = g_hash_table_new(NULL, NULL);
    release->reason = reason;
    release->done = done;
    release->data = data;
    release->ops = 1;
    for (guint i = 0; i < leases->len; i++) {
        Lease *lease = g_ptr_array_index(leases, i);

        lease->state = LEASE_RELEASING;
        g_hash_table_insert(release->leases, lease, GUINT_TO_POINTER(lease->parts->len));
        for (guint k = 0; k < lease->parts->len; k++) {
            LeasePart *part = g_ptr_array_index(lease->parts, k);
            Op *op = op_for_lane(engine, ops, OP_RELEASE, op_lane(engine, &part->resource));
            OpItem *item = op_add(op, &part->resource, lease->disk, lease->mode, 0);

            item->part = part;
            item->data = lease;
        }
    }
    release->ops += ops->len;
    release->under_way = ops;
    if (timeout_usec)
        deadline_set(engine->clock, &release->deadline, timeout_usec, release_on_deadline, release);
    for (guint i = 0; i < ops->len; i++) /* each ends later, at the earliest in the next turn */
        op_submit(g_ptr_array_index(ops, i), release_op_done, release);
    release_end(release);
}
