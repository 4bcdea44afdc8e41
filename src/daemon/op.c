/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One job in one lane: the border between the main thread, which owns all state, and the driver's
 * blocking calls. Before it enters its lane it waits for its turn (op-tickets.c) and has its
 * lockspaces opened (op-space.c).
 */
#include "op-private.h"

#include <errno.h>
#include <string.h>

#include "metrics.h"
#include "mounts.h"

static void op_item_free(OpItem *item)
{
    resource_clear(&item->resource);
    g_free(item->disk);
    g_free(item->format);
    g_free(item->why);
    g_clear_pointer(&item->claims, g_ptr_array_unref);
    g_clear_pointer(&item->holders, g_ptr_array_unref);
    identity_facts_free(item->facts);
    g_free(item);
}

Op *op_new(Engine *engine, OpKind kind, Lane *lane)
{
    Op *op = g_new0(Op, 1);

    op->engine = engine;
    op->kind = kind;
    op->lane = lane;
    op->items = g_ptr_array_new_with_free_func((GDestroyNotify)op_item_free);
    op->tickets = g_ptr_array_new();
    engine->ops++;
    return op;
}

Op *op_for_lane(Engine *engine, GPtrArray *ops, OpKind kind, Lane *lane)
{
    Op *op;

    for (guint i = 0; i < ops->len; i++) {
        op = g_ptr_array_index(ops, i);
        if (op->lane == lane) {
            lane_unref(lane);
            return op;
        }
    }
    op = op_new(engine, kind, lane);
    g_ptr_array_add(ops, op);
    return op;
}

static void op_free(Op *op)
{
    op->engine->ops--;
    lane_unref(op->lane);
    g_ptr_array_unref(op->items);
    g_ptr_array_unref(op->tickets);
    holder_free(op->owner);
    fault_free(op->fault);
    g_free(op);
}

void op_discard(Op *op)
{
    op_free(op);
}

OpItem *op_add(Op *op, const Resource *resource, const char *disk, hf_mode mode, unsigned flags)
{
    OpItem *item = g_new0(OpItem, 1);

    resource_init(&item->resource, resource->driver, resource->space, resource->key);
    item->disk = g_strdup(disk);
    item->mode = mode;
    item->flags = flags;
    g_ptr_array_add(op->items, item);
    return item;
}

/* ---- lanes ----------------------------------------------------------------------------- */

/* Devices have a lane each, for each may hang alone. */
static char *op_path_lane_name(Engine *engine, const char *path)
{
    gboolean device = g_str_has_prefix(path, "/dev/");

    return g_strconcat("direct:", device ? path : mounts_find(engine->mounts, path), NULL);
}

char *op_lane_name(Engine *engine, const Resource *resource)
{
    if (*resource->space)
        return g_strdup(resource->space);
    if (*resource->key == '/')
        return op_path_lane_name(engine, resource->key);
    return g_strdup(resource->driver->api.name);
}

Lane *op_disk_lane(Engine *engine, const char *path)
{
    g_autofree char *name = op_path_lane_name(engine, path);

    return lane_hub_get(engine->lanes, name);
}

Lane *op_lane(Engine *engine, const Resource *resource)
{
    g_autofree char *name = op_lane_name(engine, resource);

    return lane_hub_get(engine->lanes, name);
}

Fault *op_timeout_fault(const Op *op)
{
    LaneState lane = lane_state(op->lane);
    gint64 since = lane.oldest_usec ? lane.oldest_usec : g_get_real_time();
    Fault *fault;

    fault = fault_new(HF_ERR_TIMEOUT, ETIMEDOUT,
                      "lockspace %s did not answer in time: '%s' has been under way there for "
                      "%" G_GINT64_FORMAT " s; check that storage, then try again",
                      lane.name, lane.operation ? lane.operation : "waiting for its turn",
                      (g_get_real_time() - since) / G_USEC_PER_SEC);
    fault->space = g_strdup(lane.name);
    fault->operation = g_strdup(lane.operation ? lane.operation : "queue");
    fault->since_usec = since;
    return fault;
}

/* ---- in the lane ----------------------------------------------------------------------- */

static struct hf_resource op_resource(const OpItem *item)
{
    return (struct hf_resource){
        .space = item->resource.space,
        .key = item->resource.key,
        .disk = item->disk,
        .mode = item->mode,
        .flags = item->flags,
    };
}

static int op_run_acquire(Op *op, OpItem *item, struct hf_call *call)
{
    const struct hf_driver *driver = &item->resource.driver->api;
    struct hf_resource resource = op_resource(item);
    struct hf_holder owner = {
        .name = op->owner->name,
        .uuid = op->owner->uuid,
        .uri = op->owner->uri,
        .host = call->host,
        .pid = op->owner->pid,
        .since_usec = op->owner->since_usec,
        .mode = item->mode,
    };

    g_autofree char *claim = NULL;

    if (!item->disk && *item->resource.space)
        item->disk = identity_guess_disk(op->owner->pid, item->resource.key, &claim);
    if (claim) /* so that another hash of the same file is found to be in the way */
        call_take_claim(call, g_steal_pointer(&claim));
    resource.disk = owner.disk = item->disk;
    if (driver->acquire(call, item->space, &resource, &owner, &item->handle) < 0)
        return -1;
    item->survives = (driver->capabilities & HF_SURVIVES) &&
                     driver->save(call, item->space, item->handle, &item->saved) == 0;
    return 0;
}

static int op_run_release(OpItem *item, struct hf_call *call)
{
    /* without a handle the adoption before it has failed: there is nothing to give back */
    if (!item->handle && item->survives)
        return 0;
    return item->resource.driver->api.release(call, item->space, item->handle);
}

static int op_run_item(Op *op, OpItem *item, struct hf_call *call)
{
    const struct hf_driver *driver = &item->resource.driver->api;
    struct hf_resource resource = op_resource(item);
    int is_free = 0, r;

    switch (op->kind) {
    case OP_ACQUIRE:
        return op_run_acquire(op, item, call);
    case OP_RELEASE:
        return op_run_release(item, call);
    case OP_ADOPT:
        return driver->adopt(call, item->space, &resource, &item->saved, &item->handle);
    case OP_HOLDER:
        r = driver->holder(call, item->space, &resource, &is_free);
        item->is_free = is_free != 0;
        return r;
    case OP_CREATE:
        return driver->create(call, item->space, &resource);
    case OP_REMOVE:
        return driver->remove(call, item->space, &resource);
    case OP_SPACE:
        return driver->open_space(call, item->resource.space, item->flags, &item->space);
    case OP_IDENTIFY:
        item->facts = identity_look_up(&op->engine->config.rules, item->disk, &call->fault);
        return item->facts ? 0 : -1;
    case OP_CHECK_IMAGE:
        return image_check_disk(item->disk, item->format, call);
    }
    return -1;
}

static void op_fail(Op *op, OpItem *item, Fault *fault)
{
    if (op->fault) { /* of a release: the first is told, the others are as good as it */
        fault_free(fault);
        return;
    }
    fault->driver = g_strdup(item->resource.driver ? item->resource.driver->api.name : NULL);
    fault->space = g_strdup(item->resource.space);
    fault->key = g_strdup(item->resource.key);
    fault->disk = g_strdup(item->disk);
    fault->mode = item->mode;
    op->fault = fault;
    op->failed = item;
}

/* One refusal releases what the request had taken. */
static void op_undo(Op *op)
{
    for (guint i = op->items->len; i-- > 0;) {
        OpItem *item = g_ptr_array_index(op->items, i);
        g_auto(HfCall) call = {0};

        hf_call_init(&call, op->engine->config.host);
        if (item->done)
            item->resource.driver->api.release(&call, item->space, item->handle);
        item->done = FALSE;
        item->handle = NULL;
    }
}

static void op_run(LaneJob *job)
{
    Op *op = (Op *)job;

    for (guint i = 0; i < op->items->len; i++) {
        OpItem *item = g_ptr_array_index(op->items, i);
        g_auto(HfCall) call = {0};

        /* a release is never dropped: its handle would be lost */
        if (op->kind != OP_RELEASE && op->kind != OP_ADOPT && g_atomic_int_get(&op->abandoned))
            break;
        hf_call_init(&call, op->engine->config.host);
        item->done = op_run_item(op, item, &call) == 0;
        item->claims = g_steal_pointer(&call.claims);
        item->holders = g_steal_pointer(&call.holders);
        if (item->done)
            continue;
        if (!call.fault)
            call.fault = fault_new(HF_ERR_INTERNAL, 0, "driver %s failed without saying why",
                                   item->resource.driver->api.name);
        item->why = g_strdup(call.fault->message);
        op_fail(op, item, g_steal_pointer(&call.fault));
        if (op->kind != OP_RELEASE && op->kind != OP_ADOPT)
            break;
    }
    if (op->kind == OP_ACQUIRE && (op->fault || g_atomic_int_get(&op->abandoned)))
        op_undo(op);
}

void op_complete(Op *op)
{
    if (!op->fault && op->kind != OP_RELEASE && g_atomic_int_get(&op->abandoned))
        op->fault = op_timeout_fault(op);
    metrics_on_op_done(op);
    op->done(op, op->data);
    op_return_tickets(op);
    op_free(op);
}

static void op_finished(LaneJob *job)
{
    Op *op = (Op *)job;

    /* without a thread it is this, or a lock that is never given back */
    if (job->not_run && (op->kind == OP_RELEASE || op->kind == OP_ADOPT))
        op_run(job);
    else if (job->not_run)
        op_fail(op, g_ptr_array_index(op->items, 0),
                fault_new(HF_ERR_INTERNAL, EAGAIN,
                          "cannot start a thread for this lockspace; check the limits of "
                          "processes and memory"));
    op_complete(op);
}

/* ---- submitting ------------------------------------------------------------------------ */

/* Drivers that others wrote are called from lanes' threads alone, as driver.h tells them. */
static gboolean op_is_foreign(const Op *op)
{
    const OpItem *item = g_ptr_array_index(op->items, 0);

    return !item->resource.driver->builtin;
}

void op_enter_lane(Op *op)
{
    static const char *const names[] = {
        [OP_ACQUIRE] = "acquire",
        [OP_RELEASE] = "release",
        [OP_ADOPT] = "adopt",
        [OP_HOLDER] = "look for the holder",
        [OP_CREATE] = "create",
        [OP_REMOVE] = "remove",
        [OP_SPACE] = "open the lockspace",
        [OP_IDENTIFY] = "look up the disk",
        [OP_CHECK_IMAGE] = "check the image",
    };

    for (guint i = 0; i < op->items->len; i++) {
        OpItem *item = g_ptr_array_index(op->items, i);

        if (!op_needs_space(op))
            break;
        item->space = op_space_handle(op->engine, &item->resource);
        if (item->part) { /* read now: what came before it has set it */
            item->handle = item->part->handle;
            item->survives = item->part->survives;
        }
    }
    op->job.run = op_run;
    op->job.done = op_finished;
    op->job.operation = names[op->kind];
    op->job.items = op_is_foreign(op) ? LANE_NEVER_HERE : op->items->len;
    op->submitted = TRUE;
    lane_submit(op->lane, &op->job);
}

void op_begin(Op *op)
{
    if (op_needs_space(op))
        op_open_spaces(op);
    if (op->spaces_pending == 0)
        op_enter_lane(op);
}

void op_submit(Op *op, OpDone done, void *data)
{
    op->done = done;
    op->data = data;
    op->begun_usec = g_get_monotonic_time();
    op_take_tickets(op);
    if (op_has_turn(op))
        op_begin(op);
}

void op_abandon(Op *op)
{
    g_atomic_int_set(&op->abandoned, 1);
}
