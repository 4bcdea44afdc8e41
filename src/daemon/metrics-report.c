/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What query-metrics tells: the counters of metrics.c, and how many there are of everything now. */
#include <string.h>
#include <unistd.h>

#include "metrics.h"
#include "protocol/native.h"
#include "session.h"
#include "vault.h"

/* What there is now in the place of one MetricsSpace. */
typedef struct ReportSpace {
    guint64 leases[3]; /* by hf_mode */
    guint queued;
    guint running;
    gint64 oldest_usec; /* wall clock; 0: nothing is under way */
    gboolean stuck;
} ReportSpace;

static void report_add(json_object *object, const char *key, guint64 number)
{
    json_object_object_add(object, key, json_object_new_int64((gint64)number));
}

static ReportSpace *report_space(GHashTable *now, MetricsSpace *space)
{
    ReportSpace *found = g_hash_table_lookup(now, space);

    if (!found) {
        found = g_new0(ReportSpace, 1);
        g_hash_table_insert(now, space, found);
    }
    return found;
}

/* MetricsSpace -> ReportSpace. */
static GHashTable *report_collect(SessionContext *context)
{
    Engine *engine = context->engine;
    GHashTable *now = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    g_autoptr(GPtrArray) leases = table_list(engine->table);
    g_autoptr(GPtrArray) lanes = lane_hub_list(engine->lanes);

    for (guint i = 0; i < leases->len; i++) {
        Lease *lease = g_ptr_array_index(leases, i);

        if (lease->state != LEASE_PENDING)
            report_space(now, metrics_of_lease(engine, lease))->leases[lease->mode]++;
    }
    for (guint i = 0; i < lanes->len; i++) {
        LaneState state = lane_state(g_ptr_array_index(lanes, i));
        ReportSpace *space =
            report_space(now, metrics_space(engine->metrics, engine->disk_driver, state.name));

        space->queued += state.queued;
        space->running += state.running;
        space->stuck = space->stuck || strcmp(status_health(&state), "stuck") == 0;
        if (state.oldest_usec && (!space->oldest_usec || state.oldest_usec < space->oldest_usec))
            space->oldest_usec = state.oldest_usec;
    }
    return now;
}

static json_object *report_leases(const ReportSpace *now)
{
    json_object *object = json_object_new_object();

    for (guint mode = 0; mode < G_N_ELEMENTS(now->leases); mode++)
        report_add(object, mode_to_string((hf_mode)mode), now->leases[mode]);
    return object;
}

static json_object *report_one_space(const MetricsSpace *space, const ReportSpace *now)
{
    json_object *object = json_object_new_object();

    json_object_object_add(object, "name", native_string(space->name.text));
    json_object_object_add(object, "driver", native_string(space->name.driver->api.name));
    json_object_object_add(object, "leases", report_leases(now));
    report_add(object, "granted", space->granted);
    report_add(object, "refused", space->refused);
    report_add(object, "released", space->released);
    report_add(object, "adopted", space->adopted);
    report_add(object, "lost", space->lost);
    report_add(object, "queued", now->queued);
    report_add(object, "running", now->running);
    json_object_object_add(object, "stuck", json_object_new_boolean(now->stuck));
    json_object_object_add(object, "oldest", native_time(now->oldest_usec));
    return object;
}

static json_object *report_spaces(SessionContext *context)
{
    g_autoptr(GHashTable) now = report_collect(context);
    const GPtrArray *spaces = context->engine->metrics->spaces; /* after that: it may have grown */
    json_object *array = json_object_new_array();

    for (guint i = 0; i < spaces->len; i++) {
        MetricsSpace *space = g_ptr_array_index(spaces, i);

        json_object_array_add(array, report_one_space(space, report_space(now, space)));
    }
    return array;
}

static json_object *report_histogram(const MetricsHistogram *histogram)
{
    json_object *object = json_object_new_object();
    json_object *buckets = json_object_new_array();
    guint64 count = 0;

    for (guint i = 0; i < METRICS_N_BOUNDS; i++) {
        json_object *bucket = json_object_new_object();

        count += histogram->buckets[i];
        report_add(bucket, "le-usec", metrics_bounds_usec[i]);
        report_add(bucket, "count", count);
        json_object_array_add(buckets, bucket);
    }
    report_add(object, "count", count + histogram->buckets[METRICS_N_BOUNDS]);
    report_add(object, "sum-usec", histogram->sum_usec);
    json_object_object_add(object, "buckets", buckets);
    return object;
}

/* The drivers that have had something to do, and the one that will. */
static json_object *report_drivers(SessionContext *context)
{
    Metrics *metrics = context->engine->metrics;
    json_object *array = json_object_new_array();

    for (guint i = 0; i < context->drivers->len; i++) {
        const Driver *driver = g_ptr_array_index(context->drivers, i);
        const MetricsDriver *counters;
        json_object *object;

        if (driver != context->engine->disk_driver &&
            !g_hash_table_contains(metrics->drivers, driver))
            continue;
        counters = metrics_driver(metrics, driver);
        object = json_object_new_object();
        json_object_object_add(object, "name", native_string(driver->api.name));
        json_object_object_add(object, "acquire", report_histogram(&counters->acquire));
        json_object_object_add(object, "release", report_histogram(&counters->release));
        json_object_array_add(array, object);
    }
    return array;
}

/* Every class that an acquire can be refused with, so that a graph begins at 0. */
static json_object *report_refusals(const Metrics *metrics)
{
    static const hf_code codes[] = {
        HF_ERR_BUSY,           HF_ERR_BAD_RESOURCE,     HF_ERR_STORAGE,
        HF_ERR_TIMEOUT,        HF_ERR_NO_SUCH_OWNER,    HF_ERR_PERMISSION,
        HF_ERR_LEASE_REQUIRED, HF_ERR_INVALID_ARGUMENT, HF_ERR_INTERNAL};
    json_object *object = json_object_new_object();
    GHashTableIter iter;
    gpointer name, count;

    for (size_t i = 0; i < G_N_ELEMENTS(codes); i++)
        report_add(object, fault_class(codes[i]), 0);
    g_hash_table_iter_init(&iter, metrics->refusals);
    while (g_hash_table_iter_next(&iter, &name, &count))
        report_add(object, name, *(const guint64 *)count);
    return object;
}

static json_object *report_lanes(const Engine *engine)
{
    json_object *object = json_object_new_object();
    guint threads, idle;

    lane_hub_threads(engine->lanes, &threads, &idle);
    report_add(object, "threads", threads);
    report_add(object, "idle", idle);
    return object;
}

static json_object *report_vault(const SessionContext *context)
{
    json_object *object = json_object_new_object();

    json_object_object_add(object, "supervisor", native_string(vault_kind_name(context->vault)));
    report_add(object, "descriptors",
               vault_kind(context->vault) == VAULT_NONE ? 0 : vault_count(context->vault));
    report_add(object, "ledger-bytes", vault_ledger_size(context->vault));
    return object;
}

static json_object *report_notices(const SessionContext *context)
{
    const Metrics *metrics = context->engine->metrics;
    json_object *object = json_object_new_object();

    report_add(object, "subscribers", g_queue_get_length((GQueue *)&context->subscribers));
    report_add(object, "sent", metrics->events_sent);
    report_add(object, "dropped", metrics->events_dropped);
    return object;
}

static json_object *report_signals(const Metrics *metrics)
{
    json_object *object = json_object_new_object();

    report_add(object, "TERM", metrics->terms);
    report_add(object, "KILL", metrics->kills);
    return object;
}

json_object *metrics_report(SessionContext *context)
{
    const Engine *engine = context->engine;
    g_autoptr(GPtrArray) owners = table_owners(engine->table);
    json_object *report = json_object_new_object();
    guint holding = 0, stopping = 0;

    for (guint i = 0; i < owners->len; i++) {
        const Owner *owner = g_ptr_array_index(owners, i);

        holding += owner->leases->len > 0;
        stopping += owner->leases->len > 0 && owner->state == OWNER_STOPPING;
    }
    json_object_object_add(report, "version", native_string(HOLDFAST_VERSION));
    json_object_object_add(report, "host", native_string(engine->config.host));
    json_object_object_add(report, "pid", json_object_new_int(getpid()));
    json_object_object_add(report, "since", native_time(context->since_usec));
    report_add(report, "connections", conn_set_count(context->conns));
    report_add(report, "owners", holding);
    report_add(report, "owners-stopping", stopping);
    json_object_object_add(report, "lockspaces", report_spaces(context));
    json_object_object_add(report, "refusals", report_refusals(engine->metrics));
    json_object_object_add(report, "drivers", report_drivers(context));
    json_object_object_add(report, "lanes", report_lanes(engine));
    json_object_object_add(report, "notices", report_notices(context));
    json_object_object_add(report, "signals", report_signals(engine->metrics));
    json_object_object_add(report, "vault", report_vault(context));
    return report;
}
