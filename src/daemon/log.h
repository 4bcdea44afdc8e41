/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the daemon's messages go: standard error, a file, syslog or the journal, as libvirt's
 * log_outputs says. Written with GLib's g_debug(), g_info() and g_message(), g_warning(),
 * g_critical(); libvirt's levels 1 to 4. A module's name for log_filters is its G_LOG_DOMAIN, such
 * as holdfast.supervise.
 */
#pragma once

#include "core/settings.h"

/* Starts logging as `settings` say, which must outlive it. `program` is the syslog identifier. To
 * be called again when standard error is no longer the terminal's (`background`). FALSE with
 * `ret_error` if a file cannot be opened. */
gboolean log_open(const Settings *settings, const char *program, gboolean background,
                  char **ret_error);
void log_close(void);
