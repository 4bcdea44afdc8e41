/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an earlier daemon held is looked at by its drivers: device, inode, lock. Until that is done
 * for a resource, every other op on it waits for its turn behind the check (op-tickets.c), so that
 * there is no hurry:
 *
 *      0 ms    the daemon serves; the table has all leases
 *     10 ms    those who have waited for it have been answered; some hundred checks are handed to
 *              the lanes, and more at each turn of the loop
 *     any      somebody wants to do something with a resource: its check is handed over at once
 */
#define G_LOG_DOMAIN "holdfast.handover"

#include <malloc.h>
#include <string.h>

#include "engine.h"
#include "vault.h"

#define ADOPT_BEGIN_USEC (10 * G_TIME_SPAN_MILLISECOND)
/* So many at a turn of the loop: a millisecond's work. Those of one lane are one job: few threads,
 * so that clients are answered meanwhile. */
#define ADOPT_AT_ONCE 256

typedef struct Adoption {
    sd_event_source *source;
    guint unchecked;  /* parts */
    gboolean compact; /* the ledger, at the end */
    GHashTable *lost; /* Lease -> why, while others of its parts are checked */
} Adoption;

/* ---- one part -------------------------------------------------------------------------- */

static void adopt_lose(Engine *engine, Lease *lease, const char *why)
{
    g_autofree char *what = refusal_subject(lease_resource(lease), lease->disk);
    g_autoptr(GPtrArray) one = g_ptr_array_new();

    /* who has ended has lost nothing: the daemon died in the middle of his release */
    if (supervise_has_ended(engine, lease->owner)) {
        g_message("%s was being released when an earlier daemon ended: %s", what, why);
    } else {
        g_critical("%s, held by VM %s (pid %d), is lost: %s", what,
                   lease->owner->name ? lease->owner->name : "?", (int)lease->owner->pid, why);
        engine_emit(engine, EVENT_LEASE_LOST, lease, lease->owner, NULL, why);
    }
    if (lease->state == LEASE_RELEASING)
        return;
    g_ptr_array_add(one, lease);
    release_leases(engine, one, NULL, 0, NULL, NULL);
}

static gboolean adopt_is_checked(const Lease *lease)
{
    for (guint i = 0; i < lease->parts->len; i++)
        if (((const LeasePart *)g_ptr_array_index(lease->parts, i))->unchecked)
            return FALSE;
    return TRUE;
}

static void adopt_checked(Engine *engine, OpItem *item)
{
    Adoption *adoption = engine->adoption;
    LeasePart *part = item->data;
    Lease *lease = part->name.lease;
    g_autofree char *why = NULL;

    part->unchecked = FALSE;
    part->handle = item->done ? item->handle : NULL;
    adoption->unchecked--;
    if (!item->done)
        g_hash_table_replace(adoption->lost, lease,
                             g_strdup(item->why ? item->why : "its lane could not be entered"));
    if (!adopt_is_checked(lease))
        return;
    if (g_hash_table_steal_extended(adoption->lost, lease, NULL, (gpointer *)&why))
        adopt_lose(engine, lease, why);
    else
        engine_emit(engine, EVENT_LEASE_ADOPTED, lease, lease->owner, NULL, NULL);
}

static void adopt_end(Engine *engine)
{
    Adoption *adoption = g_steal_pointer(&engine->adoption);
    gboolean compact = adoption->compact;

    sd_event_source_disable_unref(adoption->source);
    g_hash_table_unref(adoption->lost);
    g_free(adoption);
    malloc_trim(0);
    handover_compact(engine, compact);
}

static void adopt_op_done(Op *op, void *data)
{
    (void)data;
    for (guint i = 0; i < op->items->len; i++)
        adopt_checked(op->engine, g_ptr_array_index(op->items, i));
    if (op->engine->adoption->unchecked == 0)
        adopt_end(op->engine);
}

static gboolean adopt_unhex(const char *hex, struct hf_saved *saved)
{
    size_t len = strlen(hex) / 2;

    if (strlen(hex) % 2 || len > sizeof(saved->bytes))
        return FALSE;
    for (size_t i = 0; i < len; i++) {
        int high = g_ascii_xdigit_value(hex[2 * i]), low = g_ascii_xdigit_value(hex[2 * i + 1]);

        if (high < 0 || low < 0)
            return FALSE;
        saved->bytes[i] = (char)(high << 4 | low);
    }
    saved->n_bytes = (unsigned)len;
    return TRUE;
}

/* Takes the descriptors that the lease has claimed. What is wrong with them the driver sees. */
static void adopt_take(Vault *vault, const LeasePart *part, struct hf_saved *saved)
{
    g_auto(GStrv) names = g_strsplit(part->kept, ",", -1);

    for (char **name = names; *name && saved->n_fds < G_N_ELEMENTS(saved->fds); name++) {
        int fd = **name ? vault_take(vault, *name) : -1;

        if (fd >= 0)
            saved->fds[saved->n_fds++] = fd;
    }
    if (!adopt_unhex(lease_part_saved(part), saved))
        saved->n_bytes = 0;
}

static void adopt_add(Op *op, LeasePart *part)
{
    const Lease *lease = part->name.lease;
    OpItem *item = op_add(op, &part->resource, lease->disk, lease->mode, 0);

    adopt_take(op->engine->vault, part, &item->saved);
    item->data = part;
    part->handle = op;
}

Op *adopt_check_op(Engine *engine, LeasePart *part)
{
    if (!part->handle) {
        Op *op = op_new(engine, OP_ADOPT, op_lane(engine, &part->resource));

        adopt_add(op, part);
        op_submit(op, adopt_op_done, NULL);
    }
    return part->handle;
}

/* ---- all of them ----------------------------------------------------------------------- */

static int adopt_on_turn(sd_event_source *source, uint64_t usec, void *data)
{
    Engine *engine = data;
    g_autoptr(GPtrArray) ops = g_ptr_array_new();
    guint n = 0;

    (void)usec;
    for (Lease *lease = table_first(engine->table); lease && n < ADOPT_AT_ONCE;
         lease = lease->next) {
        for (guint i = 0; i < lease->parts->len; i++) {
            LeasePart *part = g_ptr_array_index(lease->parts, i);

            if (!part->unchecked || part->handle)
                continue;
            adopt_add(op_for_lane(engine, ops, OP_ADOPT, op_lane(engine, &part->resource)), part);
            n++;
        }
    }
    if (n > 0) {
        sd_event_source_set_time_relative(source, 0);
        sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    }
    for (guint i = 0; i < ops->len; i++) /* each ends later, at the earliest in the next turn */
        op_submit(g_ptr_array_index(ops, i), adopt_op_done, NULL);
    return 0;
}

void adopt_check_all(Engine *engine, guint parts, gboolean compact)
{
    Adoption *adoption;

    if (parts == 0)
        return;
    adoption = engine->adoption = g_new0(Adoption, 1);
    adoption->unchecked = parts;
    adoption->compact = compact;
    adoption->lost = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    if (sd_event_add_time_relative(engine->event, &adoption->source, CLOCK_MONOTONIC,
                                   ADOPT_BEGIN_USEC, 0, adopt_on_turn, engine) < 0)
        g_warning("cannot set a timer: what an earlier daemon held is looked at when it is needed");
}
