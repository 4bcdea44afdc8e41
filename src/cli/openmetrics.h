/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's counters as OpenMetrics text (https://openmetrics.io, version 1.0). The text is also
 * what parsers of Prometheus's older format take (node_exporter's textfile collector has one of
 * these): only types that both know, no time stamps, no exemplars. Pure; no I/O.
 */
#pragma once

#include <glib.h>
#include <json-c/json.h>

/* The whole text of a scrape. `report` is the value of query-metrics; NULL: the daemon cannot be
 * asked, of which the text tells just that. Members that are missing count as 0. A new string. */
char *openmetrics_text(struct json_object *report);
