/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The drivers of this daemon: those built in and those in the driver directory. */
#pragma once

#include "core/driver.h"

struct json_object;

/* Loads the built-in drivers and every NAME.so of `dir` (NULL or missing: none). A file that is no
 * driver is an error in `problems` (of char *), and left out. An array of Driver that unloads
 * them. Before any thread is started. */
GPtrArray *drivers_load(const char *dir, GPtrArray *problems);
/* The drivers by name; borrowed. */
GHashTable *drivers_by_name(GPtrArray *drivers);
/* Hands one setting over; FALSE with a fault. */
gboolean drivers_configure(GHashTable *by_name, const char *driver, const char *key,
                           const char *value, Fault **ret_fault);
/* After the last setting; FALSE with a fault. */
gboolean drivers_complete(GPtrArray *drivers, Fault **ret_fault);
/* The value of query-drivers: a new object. */
struct json_object *drivers_report(GPtrArray *drivers, const char *default_name);
