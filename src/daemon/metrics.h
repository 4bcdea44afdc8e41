/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the daemon has done since it started, counted; metrics-report.c makes query-metrics of it.
 * Counting is an increment: what it goes into is found once, when a lease is made. It decides
 * nothing, and nothing that it counts may depend on it.
 *
 * All functions are for the main thread.
 */
#pragma once

#include "engine.h"

/* A monitoring system keeps a time series for each lockspace, mode and result: of this many
 * lockspaces each has its own, those that come later share one by the name METRICS_OTHER. */
#define METRICS_MAX_SPACES 100
#define METRICS_OTHER "other"

/* A lock on a local disk takes some 50 us, one of a file server some milliseconds; from 1 s on
 * people notice, at 10 s query-status calls it stuck, 30 s is the usual request_timeout. */
#define METRICS_BOUNDS_USEC                                                                        \
    100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000,         \
        2500000, 5000000, 10000000, 30000000, 60000000
#define METRICS_N_BOUNDS 18

/* How long operations took. The last bucket has those that took longer than all bounds. */
typedef struct MetricsHistogram {
    guint64 buckets[METRICS_N_BOUNDS + 1]; /* each without those before it */
    guint64 sum_usec;
} MetricsHistogram;

typedef struct MetricsDriver {
    const Driver *driver; /* borrowed */
    MetricsHistogram acquire;
    MetricsHistogram release;
} MetricsDriver;

/* What a driver calls something. */
typedef struct MetricsName {
    const Driver *driver; /* borrowed */
    char *text;           /* owned, but in the key of a lookup */
} MetricsName;

/* The counters of one driver in one lockspace. */
typedef struct MetricsSpace {
    MetricsName name; /* the lockspace's as it may be shown: valid, printable UTF-8; comes first */
    guint64 granted;  /* leases */
    guint64 refused;  /* requests, by the lease that could not be had */
    guint64 released; /* leases */
    guint64 adopted;
    guint64 lost;
} MetricsSpace;

typedef struct Metrics {
    GHashTable *drivers;  /* Driver -> MetricsDriver, owned */
    GHashTable *names;    /* MetricsName, of a lane -> MetricsSpace */
    GPtrArray *spaces;    /* of MetricsSpace, owned: each once */
    GHashTable *refusals; /* error class (static text) -> guint64, owned */
    guint64 terms;        /* sent to VMs that had lost their connection */
    guint64 kills;
    guint64 events_sent;    /* to subscribers */
    guint64 events_dropped; /* because the subscriber did not read */
} Metrics;

extern const guint64 metrics_bounds_usec[METRICS_N_BOUNDS];

Metrics *metrics_new(void);
void metrics_free(Metrics *metrics);

/* The counters of a lane's resources, known or new; they live as long as the metrics. */
MetricsSpace *metrics_space(Metrics *metrics, const Driver *driver, const char *lane);
/* Those of a lease, looked up once; and of what a request named, NULL if it was no lockspace. */
MetricsSpace *metrics_of_lease(Engine *engine, Lease *lease);
MetricsSpace *metrics_of_fault(Engine *engine, const Fault *fault);
MetricsDriver *metrics_driver(Metrics *metrics, const Driver *driver);

/* One more operation, which took so long. */
void metrics_observe(MetricsHistogram *histogram, gint64 usec);

/* Hooks: each is called where the thing happens. */
void metrics_on_event(Engine *engine, EngineEvent event, Lease *lease, const Fault *fault);
void metrics_on_op_done(const Op *op);
void metrics_on_signal(Metrics *metrics, int number);
void metrics_on_notified(Metrics *metrics, gboolean sent);
/* A request was refused before it came to the engine. */
void metrics_on_refused(Metrics *metrics, hf_code code);
/* A lease of an earlier daemon was lost of which not even the lockspace is known any more. */
void metrics_on_lost(Engine *engine);
