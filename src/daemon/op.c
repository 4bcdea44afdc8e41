/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One job in one lane: the border between the main thread, which owns all state, and the driver's
 * blocking calls. Operations on one resource keep their order by tickets: an op stands in the
 * queue of each of its resources and begins when it is the first in all. It enters all queues at
 * once, so no two ops can wait for each other.
 */
#include "engine.h"

#include <errno.h>
#include <string.h>

#include "metrics.h"
#include "mounts.h"

/* A lockspace that a driver has opened, or is opening. */
typedef struct Space {
    const Driver *driver;
    char *name;
    void *handle;
    gboolean open;
    GPtrArray *waiters; /* of Op */
} Space;

static void op_begin(Op *op);

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

/* ---- tickets --------------------------------------------------------------------------- */

/* Who wants something of one resource, in order; exists while there is anybody. */
typedef struct TicketQueue {
    Resource resource; /* the key in the engine's table */
    GQueue ops;        /* of Op */
} TicketQueue;

static void op_ticket_queue_free(gpointer data)
{
    TicketQueue *queue = data;

    resource_clear(&queue->resource);
    g_free(queue);
}

GHashTable *op_tickets_new(void)
{
    return g_hash_table_new_full(resource_hash, resource_equal, NULL, op_ticket_queue_free);
}

static gboolean op_has_turn(const Op *op)
{
    for (guint i = 0; i < op->tickets->len; i++) {
        TicketQueue *queue = g_ptr_array_index(op->tickets, i);

        if (g_queue_peek_head(&queue->ops) != op)
            return FALSE;
    }
    return TRUE;
}

static void op_take_tickets(Op *op)
{
    if (op->kind == OP_HOLDER || op->kind == OP_SPACE || op->kind == OP_IDENTIFY ||
        op->kind == OP_CHECK_IMAGE)
        return; /* they change nothing */
    for (guint i = 0; i < op->items->len; i++) {
        const OpItem *item = g_ptr_array_index(op->items, i);
        TicketQueue *queue = g_hash_table_lookup(op->engine->tickets, &item->resource);

        if (!queue) {
            queue = g_new0(TicketQueue, 1);
            resource_init(&queue->resource, item->resource.driver, item->resource.space,
                          item->resource.key);
            g_hash_table_insert(op->engine->tickets, &queue->resource, queue);
        }
        if (g_queue_peek_tail(&queue->ops) == op)
            continue; /* twice in one op */
        g_queue_push_tail(&queue->ops, op);
        g_ptr_array_add(op->tickets, queue);
    }
}

static void op_return_tickets(Op *op)
{
    g_autoptr(GPtrArray) next = g_ptr_array_new();

    for (guint i = 0; i < op->tickets->len; i++) {
        TicketQueue *queue = g_ptr_array_index(op->tickets, i);

        g_queue_remove(&queue->ops, op);
        if (g_queue_is_empty(&queue->ops))
            g_hash_table_remove(op->engine->tickets, &queue->resource);
        else if (!g_ptr_array_find(next, g_queue_peek_head(&queue->ops), NULL))
            g_ptr_array_add(next, g_queue_peek_head(&queue->ops));
    }
    g_ptr_array_set_size(op->tickets, 0);
    for (guint i = 0; i < next->len; i++) {
        Op *waiting = g_ptr_array_index(next, i);

        if (!waiting->submitted && waiting->spaces_pending == 0 && op_has_turn(waiting))
            op_begin(waiting);
    }
}

static void op_complete(Op *op)
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

/* ---- lockspaces ------------------------------------------------------------------------ */

static char *op_space_id(const Driver *driver, const char *space)
{
    return g_strconcat(driver->api.name, "\x1f", space, NULL);
}

/* NULL if it is neither open nor being opened. */
static Space *op_find_space(Engine *engine, const Resource *resource)
{
    Space *last = engine->last_space;
    g_autofree char *id = NULL;

    /* mostly it is the same as for the lock before */
    if (last && last->driver == resource->driver && strcmp(last->name, resource->space) == 0)
        return last;
    id = op_space_id(resource->driver, resource->space);
    engine->last_space = g_hash_table_lookup(engine->spaces, id);
    return engine->last_space;
}

static void op_space_free(gpointer data)
{
    Space *space = data;

    if (space->open)
        space->driver->api.close_space(space->handle);
    g_ptr_array_unref(space->waiters);
    g_free(space->name);
    g_free(space);
}

/* Drivers that others wrote are called from lanes' threads alone, as driver.h tells them. */
static gboolean op_is_foreign(const Op *op)
{
    const OpItem *item = g_ptr_array_index(op->items, 0);

    return !item->resource.driver->builtin;
}

static void op_enter_lane(Op *op)
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
        const Space *space;

        if (op->kind == OP_IDENTIFY || op->kind == OP_SPACE || op->kind == OP_CHECK_IMAGE)
            break;
        space = op_find_space(op->engine, &item->resource);
        item->space = space ? space->handle : NULL;
        if (item->part) { /* read now: an adoption that came before it has set it */
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

static void op_space_opened(Op *op, void *data)
{
    Space *space = data;
    g_autoptr(GPtrArray) waiters = g_steal_pointer(&space->waiters);
    gboolean failed = op->fault && !space->open;

    space->waiters = g_ptr_array_new();
    if (failed) {
        g_autofree char *id = op_space_id(space->driver, space->name);

        op->engine->last_space = NULL;
        g_hash_table_remove(op->engine->spaces, id);
    } else if (!op->fault) {
        OpItem *item = g_ptr_array_index(op->items, 0);

        op_space_opened_by_name(op->engine, &item->resource, item->space);
    }
    for (guint i = 0; i < waiters->len; i++) {
        Op *waiting = g_ptr_array_index(waiters, i);

        /* what is held already is adopted and released all the same: its descriptors are there */
        if (failed && !waiting->fault && waiting->kind != OP_ADOPT && waiting->kind != OP_RELEASE) {
            waiting->fault = fault_copy(op->fault);
            waiting->failed = g_ptr_array_index(waiting->items, 0);
        }
        if (--waiting->spaces_pending > 0)
            continue;
        if (waiting->fault)
            op_complete(waiting);
        else
            op_enter_lane(waiting);
    }
}

static void op_wait_for_space(Op *op, Space *space)
{
    op->spaces_pending++;
    g_ptr_array_add(space->waiters, op);
}

/* The op's turn has come: its lockspaces are opened if they are new, then it enters its lane. */
static void op_begin(Op *op)
{
    if (op->kind != OP_IDENTIFY && op->kind != OP_SPACE && op->kind != OP_CHECK_IMAGE) {
        for (guint i = 0; i < op->items->len; i++) {
            const OpItem *item = g_ptr_array_index(op->items, i);
            const Resource *resource = &item->resource;
            Space *space = op_find_space(op->engine, resource);
            Resource whole = {resource->driver, resource->space, (char *)""};
            Op *opening = NULL;

            if (space && space->open)
                continue;
            if (!space) {
                space = g_new0(Space, 1);
                space->driver = resource->driver;
                space->name = g_strdup(resource->space);
                space->waiters = g_ptr_array_new();
                g_hash_table_insert(op->engine->spaces,
                                    op_space_id(resource->driver, resource->space), space);
                opening = op_new(op->engine, OP_SPACE, op_lane(op->engine, resource));
                /* what makes its lock files makes its directory, too */
                op_add(opening, &whole, NULL, HF_MODE_EXCLUSIVE,
                       item->flags & HF_RESOURCE_AUTOCREATE ? HF_RESOURCE_CREATE : 0);
            }
            /* an op's items come one after the other: if it waits already, it is the last */
            if (space->waiters->len == 0 ||
                g_ptr_array_index(space->waiters, space->waiters->len - 1) != op)
                op_wait_for_space(op, space);
            if (opening)
                op_submit(opening, op_space_opened, space);
        }
    }
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

gboolean op_space_known(Engine *engine, const Driver *driver, const char *space)
{
    g_autofree char *id = op_space_id(driver, space);
    const Space *known = g_hash_table_lookup(engine->spaces, id);

    return known && known->open;
}

GPtrArray *op_space_names(Engine *engine, const char *driver_name)
{
    GPtrArray *names = g_ptr_array_new();
    GHashTableIter iter;
    gpointer value;

    g_hash_table_iter_init(&iter, engine->spaces);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        const Space *space = value;

        if (space->open && strcmp(space->driver->api.name, driver_name) == 0)
            g_ptr_array_add(names, space->name);
    }
    return names;
}

GHashTable *op_spaces_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, op_space_free);
}

void op_space_opened_by_name(Engine *engine, const Resource *resource, void *handle)
{
    g_autofree char *id = op_space_id(resource->driver, resource->space);
    Space *space = g_hash_table_lookup(engine->spaces, id);

    if (space && space->open) {
        resource->driver->api.close_space(handle); /* one handle is enough */
        return;
    }
    if (space) { /* an op is opening it as well and will find it open */
        space->open = TRUE;
        space->handle = handle;
        return;
    }
    space = g_new0(Space, 1);
    space->driver = resource->driver;
    space->name = g_strdup(resource->space);
    space->waiters = g_ptr_array_new();
    space->open = TRUE;
    space->handle = handle;
    g_hash_table_insert(engine->spaces, g_steal_pointer(&id), space);
}
