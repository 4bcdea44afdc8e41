/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See metrics.h. */
#include "metrics.h"

#include <signal.h>
#include <string.h>

const guint64 metrics_bounds_usec[METRICS_N_BOUNDS] = {METRICS_BOUNDS_USEC};

static guint metrics_name_hash(gconstpointer data)
{
    const MetricsName *name = data;

    return g_str_hash(name->text) ^ g_direct_hash(name->driver);
}

static gboolean metrics_name_equal(gconstpointer a, gconstpointer b)
{
    const MetricsName *x = a, *y = b;

    return x->driver == y->driver && strcmp(x->text, y->text) == 0;
}

/* Of a name, or of a MetricsSpace, which begins with one. */
static void metrics_name_free(gpointer data)
{
    MetricsName *name = data;

    g_free(name->text);
    g_free(name);
}

Metrics *metrics_new(void)
{
    Metrics *metrics = g_new0(Metrics, 1);

    metrics->drivers = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    metrics->names =
        g_hash_table_new_full(metrics_name_hash, metrics_name_equal, metrics_name_free, NULL);
    metrics->spaces = g_ptr_array_new_with_free_func(metrics_name_free);
    metrics->refusals = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, g_free);
    return metrics;
}

void metrics_free(Metrics *metrics)
{
    g_hash_table_unref(metrics->drivers);
    g_hash_table_unref(metrics->names);
    g_ptr_array_unref(metrics->spaces);
    g_hash_table_unref(metrics->refusals);
    g_free(metrics);
}

/* ---- whose counters -------------------------------------------------------------------- */

/* A directory may be called anything. What is no UTF-8 becomes \xNN, so that two names that differ
 * there still differ; control characters and those that hide text become \uNNNN, but for a line
 * feed, which every format of metrics knows how to escape. A new string. */
static char *metrics_label(const char *lane)
{
    GString *out = g_string_new(NULL);

    while (*lane) {
        gunichar c = g_utf8_get_char_validated(lane, -1);
        GUnicodeType type;

        if (c == (gunichar)-1 || c == (gunichar)-2) {
            g_string_append_printf(out, "\\x%02x", (guchar)*lane++);
            continue;
        }
        type = g_unichar_type(c);
        if (c != '\n' &&
            (g_unichar_iscntrl(c) || type == G_UNICODE_FORMAT || type == G_UNICODE_LINE_SEPARATOR ||
             type == G_UNICODE_PARAGRAPH_SEPARATOR))
            g_string_append_printf(out, "\\u%04x", c);
        else
            g_string_append_unichar(out, c);
        lane = g_utf8_next_char(lane);
    }
    return g_string_free(out, FALSE);
}

static MetricsSpace *metrics_by_label(Metrics *metrics, const MetricsName *label)
{
    for (guint i = 0; i < metrics->spaces->len; i++) {
        MetricsSpace *space = g_ptr_array_index(metrics->spaces, i);

        if (metrics_name_equal(&space->name, label))
            return space;
    }
    return NULL;
}

/* Takes the label over. */
static MetricsSpace *metrics_add(Metrics *metrics, const Driver *driver, char *label)
{
    const MetricsName name = {driver, label};
    MetricsSpace *space = metrics_by_label(metrics, &name);

    if (space) {
        g_free(label);
        return space;
    }
    space = g_new0(MetricsSpace, 1);
    space->name = name;
    g_ptr_array_add(metrics->spaces, space);
    return space;
}

MetricsSpace *metrics_space(Metrics *metrics, const Driver *driver, const char *lane)
{
    const MetricsName like = {driver, (char *)lane};
    MetricsSpace *space = g_hash_table_lookup(metrics->names, &like);
    MetricsName *name;

    if (space)
        return space;
    if (g_hash_table_size(metrics->names) >= METRICS_MAX_SPACES)
        return metrics_add(metrics, driver, g_strdup(METRICS_OTHER));
    space = metrics_add(metrics, driver, metrics_label(lane));
    name = g_new0(MetricsName, 1);
    name->driver = driver;
    name->text = g_strdup(lane);
    g_hash_table_insert(metrics->names, name, space);
    return space;
}

MetricsSpace *metrics_of_lease(Engine *engine, Lease *lease)
{
    if (!lease->metrics) {
        const Resource *resource = lease_resource(lease);
        g_autofree char *lane = op_lane_name(engine, resource);

        lease->metrics = metrics_space(engine->metrics, resource->driver, lane);
    }
    return lease->metrics;
}

MetricsSpace *metrics_of_fault(Engine *engine, const Fault *fault)
{
    const Driver *driver =
        fault->driver ? g_hash_table_lookup(engine->drivers, fault->driver) : NULL;
    Resource resource = {driver ? driver : engine->disk_driver, fault->space, fault->key};
    g_autofree char *lane = NULL;

    if (!fault->space)
        return NULL;
    if (!driver && *fault->space) /* a time-out names the lane itself */
        return metrics_space(engine->metrics, engine->disk_driver, fault->space);
    if (!resource.key || !*resource.key) /* it was not named yet: there is only the disk */
        resource.key = fault->disk ? fault->disk : (char *)"";
    lane = op_lane_name(engine, &resource);
    return metrics_space(engine->metrics, resource.driver, lane);
}

MetricsDriver *metrics_driver(Metrics *metrics, const Driver *driver)
{
    MetricsDriver *counters = g_hash_table_lookup(metrics->drivers, driver);

    if (!counters) {
        counters = g_new0(MetricsDriver, 1);
        counters->driver = driver;
        g_hash_table_insert(metrics->drivers, (gpointer)driver, counters);
    }
    return counters;
}

/* ---- counting -------------------------------------------------------------------------- */

void metrics_on_refused(Metrics *metrics, hf_code code)
{
    const char *name = fault_class(code);
    guint64 *count = g_hash_table_lookup(metrics->refusals, name);

    if (!count) {
        count = g_new0(guint64, 1);
        g_hash_table_insert(metrics->refusals, (gpointer)name, count);
    }
    ++*count;
}

void metrics_on_event(Engine *engine, EngineEvent event, Lease *lease, const Fault *fault)
{
    MetricsSpace *space = lease   ? metrics_of_lease(engine, lease)
                          : fault ? metrics_of_fault(engine, fault)
                                  : NULL;

    if (event == EVENT_LEASE_REFUSED)
        metrics_on_refused(engine->metrics, fault->code);
    if (!space)
        return;
    switch (event) {
    case EVENT_LEASE_ACQUIRED:
        space->granted++;
        break;
    case EVENT_LEASE_RELEASED:
        space->released++;
        break;
    case EVENT_LEASE_REFUSED:
        space->refused++;
        break;
    case EVENT_LEASE_ADOPTED:
        space->adopted++;
        break;
    case EVENT_LEASE_LOST:
        space->lost++;
        break;
    case EVENT_OWNER_STOPPING:
    case EVENT_OWNER_GONE:
        break;
    }
}

void metrics_observe(MetricsHistogram *histogram, gint64 usec)
{
    guint64 took = (guint64)MAX(usec, 0);
    guint i = 0;

    while (i < METRICS_N_BOUNDS && took > metrics_bounds_usec[i])
        i++;
    histogram->buckets[i]++;
    histogram->sum_usec += took;
}

void metrics_on_op_done(const Op *op)
{
    const OpItem *item = g_ptr_array_index(op->items, 0);
    MetricsHistogram *histogram;

    if (op->kind == OP_ACQUIRE)
        histogram = &metrics_driver(op->engine->metrics, item->resource.driver)->acquire;
    else if (op->kind == OP_RELEASE)
        histogram = &metrics_driver(op->engine->metrics, item->resource.driver)->release;
    else
        return;
    metrics_observe(histogram, g_get_monotonic_time() - op->begun_usec);
}

void metrics_on_signal(Metrics *metrics, int number)
{
    if (number == SIGKILL)
        metrics->kills++;
    else
        metrics->terms++;
}

void metrics_on_notified(Metrics *metrics, gboolean sent)
{
    if (sent)
        metrics->events_sent++;
    else
        metrics->events_dropped++;
}

void metrics_on_lost(Engine *engine)
{
    metrics_add(engine->metrics, engine->disk_driver, g_strdup(METRICS_OTHER))->lost++;
}
