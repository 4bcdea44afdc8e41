/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lockspaces: each is opened by its driver before the first op in it, in its own lane. */
#include "op-private.h"

#include <string.h>

/* A lockspace that a driver has opened, or is opening. */
typedef struct Space {
    const Driver *driver;
    char *name;
    void *handle;
    gboolean open;
    GPtrArray *waiters; /* of Op */
} Space;

gboolean op_needs_space(const Op *op)
{
    return op->kind != OP_IDENTIFY && op->kind != OP_SPACE && op->kind != OP_CHECK_IMAGE;
}

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

/* One that is not open yet. */
static Space *op_add_space(Engine *engine, const Resource *resource)
{
    Space *space = g_new0(Space, 1);

    space->driver = resource->driver;
    space->name = g_strdup(resource->space);
    space->waiters = g_ptr_array_new();
    g_hash_table_insert(engine->spaces, op_space_id(resource->driver, resource->space), space);
    return space;
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

void *op_space_handle(Engine *engine, const Resource *resource)
{
    const Space *space = op_find_space(engine, resource);

    return space ? space->handle : NULL;
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

void op_open_spaces(Op *op)
{
    for (guint i = 0; i < op->items->len; i++) {
        const OpItem *item = g_ptr_array_index(op->items, i);
        const Resource *resource = &item->resource;
        Space *space = op_find_space(op->engine, resource);
        Resource whole = {resource->driver, resource->space, (char *)""};
        Op *opening = NULL;

        if (space && space->open)
            continue;
        if (!space) {
            space = op_add_space(op->engine, resource);
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
    Space *space = op_find_space(engine, resource);

    if (space && space->open) {
        resource->driver->api.close_space(handle); /* one handle is enough */
        return;
    }
    if (!space) /* otherwise an op is opening it as well, and will find it open */
        space = op_add_space(engine, resource);
    space->open = TRUE;
    space->handle = handle;
}
