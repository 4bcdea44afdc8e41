/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Giving leases back: a lease stays in the table, as "releasing", until its driver has let go. */
#define G_LOG_DOMAIN "holdfast.release"

#include "engine.h"

typedef struct Release {
    Engine *engine;
    GPtrArray *leases;
    guint ops; /* under way, and one while they are being submitted */
    const char *reason;
    Fault *fault;         /* the first thing that was left behind */
    GPtrArray *under_way; /* of Op */
    sd_event_source *deadline;
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
    sd_event_source_disable_unref(release->deadline);
    if (release->done)
        release->done(release->fault, release->data);
    fault_free(release->fault);
    g_ptr_array_unref(release->under_way);
    g_ptr_array_unref(release->leases);
    g_free(release);
}

static void release_op_done(Op *op, void *data)
{
    Release *release = data;

    g_ptr_array_remove(release->under_way, op);
    if (op->fault && !release->fault)
        release->fault = g_steal_pointer(&op->fault);
    release_end(release);
}

/* Takes the lane's reference over. */
static Op *release_op_for(Release *release, GPtrArray *ops, Lane *lane)
{
    for (guint i = 0; i < ops->len; i++) {
        Op *op = g_ptr_array_index(ops, i);

        if (op->lane == lane) {
            lane_unref(lane);
            return op;
        }
    }
    g_ptr_array_add(ops, op_new(release->engine, OP_RELEASE, lane));
    return g_ptr_array_index(ops, ops->len - 1);
}

static int release_on_deadline(sd_event_source *source, uint64_t usec, void *data)
{
    Release *release = data;
    ReleaseDone done = g_steal_pointer(&release->done);
    g_autoptr(Fault) fault = NULL;

    (void)source;
    (void)usec;
    if (!done || release->under_way->len == 0)
        return 0;
    fault = op_timeout_fault(release->engine, g_ptr_array_index(release->under_way, 0));
    done(fault, release->data);
    return 0;
}

void release_leases(Engine *engine, GPtrArray *leases, const char *reason, guint64 timeout_usec,
                    ReleaseDone done, void *data)
{
    GPtrArray *ops = g_ptr_array_new();
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
    release->under_way = ops;
    if (timeout_usec)
        sd_event_add_time_relative(engine->event, &release->deadline, CLOCK_MONOTONIC, timeout_usec,
                                   0, release_on_deadline, release);
    for (guint i = 0; i < ops->len; i++) /* each ends later, at the earliest in the next turn */
        op_submit(g_ptr_array_index(ops, i), release_op_done, release);
    release_end(release);
}
