/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The text of holdfast metrics, line by line. That parsers of others read it is tested with these,
 * in tests/scenario/test_metrics.py. */
#include <string.h>

#include "cli/openmetrics.h"

#define REPORT                                                                                     \
    "{'version': '0.1.0', 'since': '2026-01-31T10:42:07.123456Z', 'connections': 3, 'owners': 2,"  \
    " 'owners-stopping': 1, 'lockspaces': [{'name': %s, 'driver': 'lockd',"                        \
    " 'leases': {'exclusive': 4, 'shared': 5, 'readonly': 6}, 'granted': 20, 'refused': 7,"        \
    " 'released': 5, 'adopted': 8, 'lost': 9, 'queued': 10, 'running': 11, 'stuck': true,"         \
    " 'oldest': '1970-01-01T00:01:40.000007Z'}, {'name': 'other', 'driver': 'lockd',"              \
    " 'stuck': false, 'oldest': null}],"                                                           \
    " 'refusals': {'Timeout': 1, 'Busy': 6}, 'drivers': [{'name': 'lockd', 'acquire':"             \
    " {'count': 27, 'sum-usec': 3000042, 'buckets': [{'le-usec': 100, 'count': 20},"               \
    " {'le-usec': 2500, 'count': 25}, {'le-usec': 30000000, 'count': 26}]}}],"                     \
    " 'lanes': {'threads': 12, 'idle': 13}, 'signals': {'TERM': 14, 'KILL': 15},"                  \
    " 'notices': {'subscribers': 16, 'sent': 17, 'dropped': 18},"                                  \
    " 'vault': {'supervisor': 'systemd', 'descriptors': 19, 'ledger-bytes': 2100}}"

/* The report as JSON; the name, which is put in last, is JSON already. */
static char *test_quotes(const char *name)
{
    g_autofree char *format = g_strdelimit(g_strdup(REPORT), "'", '"');
    g_auto(GStrv) halves = g_strsplit(format, "%s", 2);

    return g_strconcat(halves[0], name, halves[1], NULL);
}

/* The text for a report with a lockspace of that name, which is in JSON. */
static char *test_text(const char *name)
{
    g_autofree char *text = test_quotes(name);
    json_object *report = json_tokener_parse(text);
    char *out;

    g_assert_nonnull(report);
    out = openmetrics_text(report);
    json_object_put(report);
    return out;
}

/* Whether that is one whole line of it. */
static gboolean test_has(const char *text, const char *line)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    return g_strv_contains((const char *const *)lines, line);
}

static void test_values(void)
{
    static const char *const lines[] = {
        "holdfast_up 1",
        "holdfast_build_info{version=\"0.1.0\"} 1",
        "# TYPE holdfast_start_time_seconds gauge",
        "# UNIT holdfast_start_time_seconds seconds",
        "holdfast_start_time_seconds 1769856127.123456",
        "holdfast_connections 3",
        "holdfast_owners 2",
        "holdfast_owners_stopping 1",
        "holdfast_leases{driver=\"lockd\",lockspace=\"/a\",mode=\"exclusive\"} 4",
        "holdfast_leases{driver=\"lockd\",lockspace=\"/a\",mode=\"shared\"} 5",
        "holdfast_leases{driver=\"lockd\",lockspace=\"/a\",mode=\"readonly\"} 6",
        "holdfast_leases{driver=\"lockd\",lockspace=\"other\",mode=\"shared\"} 0",
        "# TYPE holdfast_acquisitions counter",
        "holdfast_acquisitions_total{driver=\"lockd\",lockspace=\"/a\",result=\"granted\"} 20",
        "holdfast_acquisitions_total{driver=\"lockd\",lockspace=\"/a\",result=\"refused\"} 7",
        "holdfast_releases_total{driver=\"lockd\",lockspace=\"/a\"} 5",
        "holdfast_leases_adopted_total{driver=\"lockd\",lockspace=\"/a\"} 8",
        "holdfast_leases_lost_total{driver=\"lockd\",lockspace=\"/a\"} 9",
        "holdfast_lockspace_queued_operations{driver=\"lockd\",lockspace=\"/a\"} 10",
        "holdfast_lockspace_running_operations{driver=\"lockd\",lockspace=\"/a\"} 11",
        "holdfast_lockspace_stuck{driver=\"lockd\",lockspace=\"/a\"} 1",
        "holdfast_lockspace_stuck{driver=\"lockd\",lockspace=\"other\"} 0",
        "holdfast_lockspace_oldest_operation_timestamp_seconds{driver=\"lockd\",lockspace=\"/a\"} "
        "100.000007",
        "holdfast_refusals_total{class=\"Busy\"} 6",
        "holdfast_refusals_total{class=\"Timeout\"} 1",
        "holdfast_threads 12",
        "holdfast_threads_idle 13",
        "holdfast_signals_total{signal=\"TERM\"} 14",
        "holdfast_signals_total{signal=\"KILL\"} 15",
        "holdfast_subscribers 16",
        "holdfast_events_sent_total 17",
        "holdfast_events_dropped_total 18",
        "holdfast_vault_info{supervisor=\"systemd\"} 1",
        "holdfast_vault_descriptors 19",
        "# UNIT holdfast_ledger_bytes bytes",
        "holdfast_ledger_bytes 2100",
    };
    g_autofree char *text = test_text("\"/a\"");

    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++)
        if (!test_has(text, lines[i]))
            g_error("%s is not in\n%s", lines[i], text);
    g_assert_true(g_str_has_suffix(text, "\n# EOF\n"));
}

static void test_histogram(void)
{
#define LABELS "{driver=\"lockd\",operation=\"acquire\""
#define BUCKET "holdfast_operation_duration_seconds_bucket" LABELS ",le="
    g_autofree char *text = test_text("\"/a\"");
    const char *at = strstr(text, "holdfast_operation_duration_seconds_bucket");

    g_assert_nonnull(at);
    g_assert_true(g_str_has_prefix(
        at, BUCKET "\"0.0001\"} 20\n" /**/
        BUCKET "\"0.0025\"} 25\n"     /**/
        BUCKET "\"30.0\"} 26\n"       /**/
        BUCKET "\"+Inf\"} 27\n"       /**/
                   "holdfast_operation_duration_seconds_count" LABELS "} 27\n"
                   "holdfast_operation_duration_seconds_sum" LABELS "} 3.000042\n"));
}

static void test_escapes(void)
{
    g_autofree char *text = test_text("\"/srv/\\\"q\\\" b\\\\s l\\nf e\\u001b u\\u00e4\"");

    g_assert_true(test_has(text, "holdfast_releases_total{driver=\"lockd\",lockspace="
                                 "\"/srv/\\\"q\\\" b\\\\s l\\nf e\\\\u001b u\xc3\xa4\"} 5"));
}

static void test_down(void)
{
    g_autofree char *text = openmetrics_text(NULL);

    g_assert_cmpstr(text, ==,
                    "# TYPE holdfast_up gauge\n# HELP holdfast_up 1 if the daemon has answered.\n"
                    "holdfast_up 0\n# EOF\n");
}

/* What a daemon of another version does not send counts as 0, and breaks nothing. */
static void test_strange(void)
{
    static const char *const reports[] = {"{}", "[]",
                                          "{\"lockspaces\": [1, {}], \"drivers\": [{}]}",
                                          "{\"refusals\": {\"Busy\": \"x\"}, \"since\": 7}"};

    for (size_t i = 0; i < G_N_ELEMENTS(reports); i++) {
        json_object *report = json_tokener_parse(reports[i]);
        g_autofree char *text = openmetrics_text(report);

        g_assert_true(test_has(text, "holdfast_up 1"));
        g_assert_true(test_has(text, "holdfast_connections 0"));
        g_assert_true(g_str_has_suffix(text, "\n# EOF\n"));
        json_object_put(report);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/openmetrics/values", test_values);
    g_test_add_func("/openmetrics/histogram", test_histogram);
    g_test_add_func("/openmetrics/escapes", test_escapes);
    g_test_add_func("/openmetrics/down", test_down);
    g_test_add_func("/openmetrics/strange", test_strange);
    return g_test_run();
}
