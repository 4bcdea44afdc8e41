/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine's beginning and end, and its events; see engine.h. */
#define G_LOG_DOMAIN "holdfast.engine"

#include "engine.h"

#include <errno.h>

#include "metrics.h"
#include "mounts.h"
#include "vault.h"

/* After this a lane counts as stuck when the daemon ends: its threads cannot be waited for. */
#define ENGINE_LANE_PATIENCE_USEC (3 * G_USEC_PER_SEC)

int engine_new(sd_event *event, const EngineConfig *config, GHashTable *drivers,
               const char *default_driver, struct Vault *vault, Engine **ret_engine)
{
    Engine *engine = g_new0(Engine, 1);
    int r;

    engine->event = event;
    engine->config = *config;
    engine->drivers = drivers;
    engine->vault = vault;
    engine->disk_driver = g_hash_table_lookup(drivers, default_driver);
    engine->table = table_new();
    engine->next_id = 1; /* 0 is none */
    engine->spaces = op_spaces_new();
    engine->metrics = metrics_new();
    engine->tickets = op_tickets_new();
    g_queue_init(&engine->waiting_for_release);
    r = mounts_new(event, &engine->mounts);
    if (r >= 0)
        r = deadline_clock_new(event, &engine->clock);
    if (r >= 0)
        r = lane_hub_new(event, config->lane_threads, &engine->lanes);
    if (r < 0) {
        if (engine->mounts)
            mounts_free(engine->mounts);
        if (engine->clock)
            deadline_clock_free(engine->clock);
        table_free(engine->table);
        metrics_free(engine->metrics);
        g_hash_table_unref(engine->spaces);
        g_hash_table_unref(engine->tickets);
        g_free(engine);
        return r;
    }
    *ret_engine = engine;
    return 0;
}

void engine_set_listener(Engine *engine, EngineListener listener, void *data)
{
    engine->listener = listener;
    engine->listener_data = data;
}

void engine_emit(Engine *engine, EngineEvent event, Lease *lease, const Owner *owner,
                 const Fault *fault, const char *text)
{
    metrics_on_event(engine, event, lease, fault);
    if (engine->listener)
        engine->listener(event, lease, owner, fault, text, engine->listener_data);
}

/* Deals with results until nothing is under way, or patience ends; the loop itself has ended. */
static gboolean engine_drain(Engine *engine)
{
    gint64 until = g_get_monotonic_time() + ENGINE_LANE_PATIENCE_USEC;

    lane_hub_end_here(engine->lanes);
    while (engine->ops > 0) {
        if (lane_hub_poll(engine->lanes))
            continue;
        if (g_get_monotonic_time() > until)
            return FALSE;
        g_usleep(G_TIME_SPAN_MILLISECOND);
    }
    return TRUE;
}

gboolean engine_free(Engine *engine)
{
    g_autoptr(GPtrArray) owners = NULL;

    if (!engine_drain(engine))
        return FALSE;
    /* To release the leases of VMs that run on would be wrong; that the kernel drops the locks
     * when the process ends cannot be helped here, but nothing more is to be undone. */
    if (table_size(engine->table) > 0) {
        g_warning("ending while %u leases are held%s", table_size(engine->table),
                  vault_kind(engine->vault) == VAULT_SYSTEMD
                      ? ": they are kept if systemd starts the daemon again"
                      : ": their locks end now");
        return FALSE;
    }
    if (!lane_hub_free(engine->lanes, ENGINE_LANE_PATIENCE_USEC))
        return FALSE;
    owners = table_owners(engine->table);
    for (guint i = 0; i < owners->len; i++)
        supervise_check(engine, g_ptr_array_index(owners, i));
    mounts_free(engine->mounts);
    deadline_clock_free(engine->clock);
    metrics_free(engine->metrics);
    g_hash_table_unref(engine->spaces);
    g_hash_table_unref(engine->tickets);
    table_free(engine->table);
    g_free(engine);
    return TRUE;
}
