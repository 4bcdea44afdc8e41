/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations on one resource keep their order by tickets: an op stands in the queue of each of its
 * resources and begins when it is the first in all. It enters all queues at once, so no two ops can
 * wait for each other.
 */
#include "op-private.h"

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

gboolean op_has_turn(const Op *op)
{
    for (guint i = 0; i < op->tickets->len; i++) {
        TicketQueue *queue = g_ptr_array_index(op->tickets, i);

        if (g_queue_peek_head(&queue->ops) != op)
            return FALSE;
    }
    return TRUE;
}

static TicketQueue *op_ticket_queue(Engine *engine, const Resource *resource)
{
    TicketQueue *queue = g_hash_table_lookup(engine->tickets, resource);

    if (queue)
        return queue;
    queue = g_new0(TicketQueue, 1);
    resource_init(&queue->resource, resource->driver, resource->space, resource->key);
    g_hash_table_insert(engine->tickets, &queue->resource, queue);
    return queue;
}

static void op_enter_queue(Op *op, TicketQueue *queue)
{
    if (g_queue_peek_tail(&queue->ops) == op)
        return; /* twice in one op */
    g_queue_push_tail(&queue->ops, op);
    g_ptr_array_add(op->tickets, queue);
}

/* What an earlier daemon held, perhaps for several owners that share it, is checked first. These
 * ops have been submitted, and get tickets only if somebody is behind them: a daemon that starts
 * has ten thousands to check. Whoever comes first puts all of them before himself. */
static void op_queue_behind_checks(Op *op, TicketQueue *queue)
{
    g_autoptr(GPtrArray) parts = NULL;

    if (!g_queue_is_empty(&queue->ops))
        return;
    parts = table_find_unchecked(op->engine->table, &queue->resource);
    for (guint i = 0; i < parts->len; i++) {
        Op *check = adopt_check_op(op->engine, g_ptr_array_index(parts, i));

        if (!g_queue_find(&queue->ops, check))
            op_enter_queue(check, queue);
    }
}

void op_take_tickets(Op *op)
{
    if (op->kind == OP_HOLDER || op->kind == OP_SPACE || op->kind == OP_IDENTIFY ||
        op->kind == OP_CHECK_IMAGE)
        return; /* they change nothing */
    if (op->kind == OP_ADOPT)
        return; /* nothing can have come before it */
    for (guint i = 0; i < op->items->len; i++) {
        const OpItem *item = g_ptr_array_index(op->items, i);
        TicketQueue *queue = op_ticket_queue(op->engine, &item->resource);

        if (op->engine->adoption)
            op_queue_behind_checks(op, queue);
        op_enter_queue(op, queue);
    }
}

void op_return_tickets(Op *op)
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
