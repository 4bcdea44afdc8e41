/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where messages of the helper itself go: standard error, with priorities for the journal when that
 * is what it leads to; syslog in the background. Not the log of commands (audit.c).
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef enum PrLogLevel {
    PR_LOG_QUIET,   /**< errors only */
    PR_LOG_NORMAL,  /**< and warnings, and what an operator may want to know */
    PR_LOG_VERBOSE, /**< everything */
} PrLogLevel;

/** Before threads exist. `program` is static. */
void pr_log_open(const char *program, PrLogLevel level, gboolean background);

/** Whether the process is to leave its terminal: who is started by it has to do so, too. */
gboolean pr_log_in_background(void);

/** The terminal is left: from now on to syslog, if `background` was said. */
void pr_log_leave_terminal(void);

G_END_DECLS
