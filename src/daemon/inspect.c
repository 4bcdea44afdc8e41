/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Questions and small orders that are one job each: who holds a disk, make a lockspace, make or
 * remove a resource. Each has a deadline; what comes after it is dropped.
 */
#include "engine.h"

#include <errno.h>
#include <string.h>

/* One job with a deadline. */
typedef struct Run {
    Engine *engine;
    Op *op;
    Deadline deadline;
    EngineDone done; /* NULL once answered */
    void *data;
} Run;

static void run_on_deadline(void *data)
{
    Run *run = data;
    EngineDone done = run->done;
    g_autoptr(Fault) fault = op_timeout_fault(run->op);

    run->done = NULL;
    op_abandon(run->op);
    done(fault, run->data);
}

static void run_finished(Op *op, void *data)
{
    Run *run = data;

    if (op->kind == OP_SPACE && !op->fault) {
        OpItem *item = g_ptr_array_index(op->items, 0);

        op_space_opened_by_name(run->engine, &item->resource, item->space);
    }
    deadline_clear(&run->deadline);
    if (op->fault && op->fault->code == HF_ERR_BUSY) {
        const OpItem *item = op->failed;
        g_autoptr(GPtrArray) leases = table_find(run->engine->table, &item->resource, item->claims);

        fault_free(op->fault);
        op->fault = refusal_new(run->engine, NULL, &item->resource, NULL, item->mode, leases,
                                item->holders);
    }
    if (run->done)
        run->done(op->fault, run->data);
    g_free(run);
}

void inspect_run(Engine *engine, OpKind kind, const Resource *resource, unsigned flags,
                 EngineDone done, void *data)
{
    Run *run = g_new0(Run, 1);

    run->engine = engine;
    run->done = done;
    run->data = data;
    run->op = op_new(engine, kind, op_lane(engine, resource));
    op_add(run->op, resource, NULL, HF_MODE_EXCLUSIVE, flags);
    deadline_set(engine->clock, &run->deadline, engine->config.request_timeout_usec,
                 run_on_deadline, run);
    op_submit(run->op, run_finished, run);
}

/* ---- who holds it ---------------------------------------------------------------------- */

typedef struct Inspect {
    Engine *engine;
    char *path;
    IdentityFacts *facts;
    GPtrArray *ops; /* of Op under way, not owned */
    guint pending;
    GPtrArray *claims;
    gboolean all_free;
    gboolean all_share;
    InspectResult result;
    Fault *fault;
    Deadline deadline;
    InspectDone done;
    void *data;
} Inspect;

static void inspect_resource_free(gpointer data)
{
    resource_clear(data);
    g_free(data);
}

static void inspect_free(Inspect *inspect)
{
    deadline_clear(&inspect->deadline);
    g_free(inspect->path);
    identity_facts_free(inspect->facts);
    g_ptr_array_unref(inspect->ops);
    g_ptr_array_unref(inspect->claims);
    g_ptr_array_unref(inspect->result.resources);
    g_ptr_array_unref(inspect->result.states);
    g_ptr_array_unref(inspect->result.holders);
    fault_free(inspect->fault);
    g_free(inspect);
}

/* The table knows more than the lock: where both see the same holder, the table speaks. */
static void inspect_add_known(Inspect *inspect)
{
    g_autoptr(GPtrArray) found = g_ptr_array_new();
    g_autoptr(GPtrArray) by_claim = NULL;

    for (guint i = 0; i < inspect->result.resources->len; i++) {
        g_autoptr(GPtrArray) some = table_find(
            inspect->engine->table, g_ptr_array_index(inspect->result.resources, i), NULL);

        g_ptr_array_extend(found, some, NULL, NULL);
    }
    by_claim = table_find(inspect->engine->table, NULL, inspect->claims);
    g_ptr_array_extend(found, by_claim, NULL, NULL);
    if (found->len > 0) {
        for (guint i = inspect->result.holders->len; i-- > 0;) {
            const Holder *holder = g_ptr_array_index(inspect->result.holders, i);

            if (holder->source == HOLDER_FROM_KERNEL ||
                g_strcmp0(holder->host, inspect->engine->config.host) == 0)
                g_ptr_array_remove_index(inspect->result.holders, i);
        }
    }
    for (guint i = 0; i < found->len; i++) {
        Lease *lease = g_ptr_array_index(found, i);

        if (g_ptr_array_find(found, lease, &(guint){0}) && lease->state != LEASE_RELEASING) {
            guint first;

            g_ptr_array_find(found, lease, &first);
            if (first == i)
                g_ptr_array_add(inspect->result.holders,
                                lease_holder(lease, inspect->engine->config.host));
        }
    }
}

static void inspect_end(Inspect *inspect)
{
    GPtrArray *holders = inspect->result.holders;
    InspectDone done = inspect->done;

    inspect->done = NULL;
    if (done && inspect->fault) {
        done(NULL, inspect->fault, inspect->data);
    } else if (done) {
        gboolean sharing = TRUE;

        inspect_add_known(inspect);
        for (guint i = 0; i < holders->len; i++) {
            const Holder *holder = g_ptr_array_index(holders, i);

            sharing = sharing && holder->mode != HF_MODE_EXCLUSIVE;
        }
        if (holders->len == 0 && inspect->all_free)
            inspect->result.state = "free";
        else
            inspect->result.state = holders->len > 0 && sharing ? "shared" : "held";
        done(&inspect->result, NULL, inspect->data);
    }
    inspect_free(inspect);
}

static void inspect_seen(Op *op, void *data)
{
    Inspect *inspect = data;
    OpItem *item = g_ptr_array_index(op->items, 0);

    g_ptr_array_remove(inspect->ops, op);
    if (op->fault && !inspect->fault)
        inspect->fault = g_steal_pointer(&op->fault);
    if (!op->fault && !inspect->fault) {
        Resource *resource = g_new0(Resource, 1);

        resource_init(resource, item->resource.driver, item->resource.space, item->resource.key);
        g_ptr_array_add(inspect->result.resources, resource);
        g_ptr_array_add(inspect->result.states, (gpointer)(item->is_free ? "free" : "held"));
        inspect->all_free = inspect->all_free && item->is_free;
        for (guint i = 0; i < item->claims->len; i++)
            g_ptr_array_add(inspect->claims, g_strdup(g_ptr_array_index(item->claims, i)));
        for (guint i = 0; item->holders && i < item->holders->len; i++)
            g_ptr_array_add(inspect->result.holders,
                            holder_copy(g_ptr_array_index(item->holders, i)));
    }
    if (--inspect->pending == 0)
        inspect_end(inspect);
}

static void inspect_ask(Inspect *inspect, const char *space, const char *key, unsigned flags)
{
    Engine *engine = inspect->engine;
    Resource resource = {.driver = engine->disk_driver, .space = (char *)space, .key = (char *)key};
    Op *op = op_new(engine, OP_HOLDER, op_lane(engine, &resource));

    op_add(op, &resource, inspect->path, HF_MODE_EXCLUSIVE, flags);
    inspect->pending++;
    g_ptr_array_add(inspect->ops, op);
    op_submit(op, inspect_seen, inspect);
}

static void inspect_ask_names(Inspect *inspect)
{
    g_autoptr(GPtrArray) names =
        identity_names(&inspect->engine->config.rules, inspect->path, inspect->facts);

    if (inspect->facts)
        g_ptr_array_add(inspect->claims, g_strdup(inspect->facts->claim));
    for (guint i = 0; i < names->len; i++) {
        const IdentityName *name = g_ptr_array_index(names, i);

        inspect_ask(inspect, name->space, name->key, name->autocreate ? HF_RESOURCE_AUTOCREATE : 0);
    }
}

static void inspect_looked_up(Op *op, void *data)
{
    Inspect *inspect = data;
    OpItem *item = g_ptr_array_index(op->items, 0);

    g_ptr_array_remove(inspect->ops, op);
    inspect->pending--;
    inspect->facts = g_steal_pointer(&item->facts);
    inspect->fault = g_steal_pointer(&op->fault);
    if (!inspect->fault && inspect->done)
        inspect_ask_names(inspect);
    if (inspect->pending == 0)
        inspect_end(inspect);
}

static void inspect_on_deadline(void *data)
{
    Inspect *inspect = data;
    InspectDone done = inspect->done;
    g_autoptr(Fault) fault = NULL;

    inspect->done = NULL;
    for (guint i = 0; i < inspect->ops->len; i++) {
        Op *op = g_ptr_array_index(inspect->ops, i);

        op_abandon(op);
        if (!fault)
            fault = op_timeout_fault(op);
    }
    done(NULL, fault, inspect->data);
}

static void inspect_look_up(Inspect *inspect)
{
    Engine *engine = inspect->engine;
    Resource none = {.driver = engine->disk_driver, .space = (char *)"", .key = inspect->path};
    Op *op = op_new(engine, OP_IDENTIFY, op_disk_lane(engine, inspect->path));

    op_add(op, &none, inspect->path, HF_MODE_EXCLUSIVE, 0);
    inspect->pending++;
    g_ptr_array_add(inspect->ops, op);
    op_submit(op, inspect_looked_up, inspect);
}

void inspect_start(Engine *engine, const char *path, const char *space, const char *key,
                   guint64 timeout_usec, InspectDone done, void *data)
{
    Inspect *inspect = g_new0(Inspect, 1);

    inspect->engine = engine;
    inspect->path = g_strdup(path);
    inspect->ops = g_ptr_array_new();
    inspect->claims = g_ptr_array_new_with_free_func(g_free);
    inspect->result.resources = g_ptr_array_new_with_free_func(inspect_resource_free);
    inspect->result.states = g_ptr_array_new();
    inspect->result.holders = g_ptr_array_new_with_free_func((GDestroyNotify)holder_free);
    inspect->all_free = TRUE;
    inspect->done = done;
    inspect->data = data;
    if (timeout_usec == 0)
        timeout_usec = engine->config.request_timeout_usec;
    deadline_set(engine->clock, &inspect->deadline, timeout_usec, inspect_on_deadline, inspect);
    if (!path)
        inspect_ask(inspect, space, key, 0);
    else if (identity_needs_facts(&engine->config.rules, path))
        inspect_look_up(inspect);
    else
        inspect_ask_names(inspect);
}
