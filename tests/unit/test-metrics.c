/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The daemon's counters: whose they are, how many there may be, and what goes into which bucket. */
#include <signal.h>

#include "daemon/metrics.h"

/* Two drivers that are never called. */
static const Driver test_drivers[2];

static void test_known(void)
{
    Metrics *metrics = metrics_new();
    MetricsSpace *a = metrics_space(metrics, &test_drivers[0], "/a");

    g_assert_true(metrics_space(metrics, &test_drivers[0], "/a") == a);
    g_assert_true(metrics_space(metrics, &test_drivers[0], "/b") != a);
    g_assert_true(metrics_space(metrics, &test_drivers[1], "/a") != a);
    g_assert_cmpuint(metrics->spaces->len, ==, 3);
    g_assert_cmpstr(a->name.text, ==, "/a");
    g_assert_true(a->name.driver == &test_drivers[0]);
    metrics_free(metrics);
}

/* Those beyond the limit share one, each driver its own; those before it keep theirs. */
static void test_limit(void)
{
    Metrics *metrics = metrics_new();
    MetricsSpace *first = metrics_space(metrics, &test_drivers[0], "/0");
    MetricsSpace *other;

    for (int i = 1; i < METRICS_MAX_SPACES; i++) {
        g_autofree char *name = g_strdup_printf("/%d", i);

        g_assert_cmpstr(metrics_space(metrics, &test_drivers[0], name)->name.text, ==, name);
    }
    other = metrics_space(metrics, &test_drivers[0], "/one-too-many");
    g_assert_cmpstr(other->name.text, ==, METRICS_OTHER);
    g_assert_true(metrics_space(metrics, &test_drivers[0], "/two-too-many") == other);
    g_assert_true(metrics_space(metrics, &test_drivers[1], "/0") != other);
    g_assert_cmpstr(metrics_space(metrics, &test_drivers[1], "/0")->name.text, ==, METRICS_OTHER);
    g_assert_true(metrics_space(metrics, &test_drivers[0], "/0") == first);
    for (int i = 0; i < 1000; i++) {
        g_autofree char *name = g_strdup_printf("/more-%d", i);

        metrics_space(metrics, &test_drivers[0], name);
    }
    g_assert_cmpuint(metrics->spaces->len, ==, METRICS_MAX_SPACES + 2);
    g_assert_cmpuint(g_hash_table_size(metrics->names), ==, METRICS_MAX_SPACES);
    metrics_free(metrics);
}

/* A label is printable UTF-8, and two names never become two series of one label. */
static void test_labels(void)
{
    static const struct {
        const char *name;
        const char *label;
    } cases[] = {
        {"/srv/\"a\" b\\c", "/srv/\"a\" b\\c"},
        {"/srv/line\nfeed", "/srv/line\nfeed"},
        {"/srv/\xff", "/srv/\\xff"},
        {"/srv/\xfe", "/srv/\\xfe"},
        {"/srv/\xc3", "/srv/\\xc3"},
        {"/srv/\x1b[31m\r", "/srv/\\u001b[31m\\u000d"},
        {"/srv/\xe2\x80\xae", "/srv/\\u202e"},
        {"/srv/\xc3\xa4\xf0\x9f\x98\x80", "/srv/\xc3\xa4\xf0\x9f\x98\x80"},
    };
    Metrics *metrics = metrics_new();

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const MetricsSpace *space = metrics_space(metrics, &test_drivers[0], cases[i].name);

        g_assert_cmpstr(space->name.text, ==, cases[i].label);
        g_assert_true(g_utf8_validate(space->name.text, -1, NULL));
    }
    g_assert_true(metrics_space(metrics, &test_drivers[0], "/srv/\\xff") ==
                  metrics_space(metrics, &test_drivers[0], "/srv/\xff"));
    g_assert_cmpuint(metrics->spaces->len, ==, G_N_ELEMENTS(cases));
    metrics_free(metrics);
}

static guint64 test_refusals(const Metrics *metrics, const char *name)
{
    const guint64 *count = g_hash_table_lookup(metrics->refusals, name);

    return count ? *count : 0;
}

static void test_counts(void)
{
    Metrics *metrics = metrics_new();

    metrics_on_refused(metrics, HF_ERR_BUSY);
    metrics_on_refused(metrics, HF_ERR_BUSY);
    metrics_on_refused(metrics, HF_ERR_TIMEOUT);
    g_assert_cmpuint(test_refusals(metrics, "Busy"), ==, 2);
    g_assert_cmpuint(test_refusals(metrics, "Timeout"), ==, 1);
    g_assert_cmpuint(test_refusals(metrics, "StorageError"), ==, 0);
    metrics_on_signal(metrics, SIGTERM);
    metrics_on_signal(metrics, SIGTERM);
    metrics_on_signal(metrics, SIGKILL);
    g_assert_cmpuint(metrics->terms, ==, 2);
    g_assert_cmpuint(metrics->kills, ==, 1);
    metrics_on_notified(metrics, TRUE);
    metrics_on_notified(metrics, FALSE);
    metrics_on_notified(metrics, FALSE);
    g_assert_cmpuint(metrics->events_sent, ==, 1);
    g_assert_cmpuint(metrics->events_dropped, ==, 2);
    metrics_free(metrics);
}

static void test_buckets(void)
{
    MetricsHistogram histogram = {0};

    for (guint i = 1; i < METRICS_N_BOUNDS; i++)
        g_assert_cmpuint(metrics_bounds_usec[i - 1], <, metrics_bounds_usec[i]);
    metrics_observe(&histogram, 0);
    metrics_observe(&histogram, 100);
    metrics_observe(&histogram, 101);
    metrics_observe(&histogram, 60000000);
    metrics_observe(&histogram, 60000001);
    metrics_observe(&histogram, -5); /* a clock that goes back */
    g_assert_cmpuint(histogram.buckets[0], ==, 3);
    g_assert_cmpuint(histogram.buckets[1], ==, 1);
    g_assert_cmpuint(histogram.buckets[METRICS_N_BOUNDS - 1], ==, 1);
    g_assert_cmpuint(histogram.buckets[METRICS_N_BOUNDS], ==, 1);
    g_assert_cmpuint(histogram.sum_usec, ==, 120000202);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/metrics/known", test_known);
    g_test_add_func("/metrics/limit", test_limit);
    g_test_add_func("/metrics/labels", test_labels);
    g_test_add_func("/metrics/counts", test_counts);
    g_test_add_func("/metrics/buckets", test_buckets);
    return g_test_run();
}
